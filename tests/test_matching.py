"""Detections find their sources: small cases by hand, and all ways to pair by brute force."""

from itertools import combinations, permutations

import numpy as np
import pytest

from diffdeblend.score.matching import (
    Matching,
    euclidean,
    match,
    match_rows,
    nearest_neighbour,
    sky_distance,
)


def pairs(matching):
    return list(zip(matching.truth_index.tolist(), matching.found_index.tolist(), strict=True))


def cheapest(truth, found, limit):
    """Least cost over all ways to pair within a limit; what is left over costs the limit."""
    apart = np.array([[np.hypot(*(np.subtract(t, f))) for f in found] for t in truth])
    apart = apart.reshape(len(truth), len(found))
    most = min(len(truth), len(found))
    best = (most * limit, set())
    for n in range(1, most + 1):
        for rows in combinations(range(len(truth)), n):
            for columns in permutations(range(len(found)), n):
                lengths = [apart[r, c] for r, c in zip(rows, columns, strict=True)]
                cost = sum(lengths) + (most - n) * limit
                if max(lengths) <= limit and cost < best[0]:
                    best = (cost, set(zip(rows, columns, strict=True)))
    return best


def test_200_random_cases_agree_with_all_ways_to_pair():
    rng = np.random.default_rng(1)
    left_over = 0
    for _ in range(200):
        n, m = rng.integers(0, 5, size=2)
        truth, found = rng.uniform(0, 12, (n, 2)), rng.uniform(0, 12, (m, 2))
        matching = match(truth, found, 4.0)
        cost, best = cheapest(truth, found, 4.0)
        assert set(pairs(matching)) == best
        assert matching.distance.sum() + (min(n, m) - len(matching)) * 4.0 == pytest.approx(cost)
        assert (matching.n_truth, matching.n_found) == (n, m)
        left_over += len(matching) < min(n, m)
    # The limit matters in many of them.
    assert left_over > 50


def test_far_detection_does_not_take_the_source_of_a_near_one():
    # Assigned before it is cut, nothing is left: 4.9 + 31.6 > 30 + 5.1.
    matching = match([[0, 0], [10, 0]], [[4.9, 0], [0, 30]])
    assert pairs(matching) == [(0, 0)]
    np.testing.assert_allclose(matching.distance, [4.9])


def test_source_keeps_its_near_detection_though_two_could_be_had():
    # Two pairs of 4.5 would be one more, and both wrong.
    assert pairs(match([[0, 0], [4.6, 0]], [[4.5, 0], [9.1, 0]])) == [(1, 0)]


def test_limit_itself_is_within():
    assert pairs(match([[0, 0]], [[3, 4]], 5.0)) == [(0, 0)]
    assert pairs(match([[0, 0]], [[3, 4.001]], 5.0)) == []


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (2, 0)])
def test_nothing_matches_nothing(n, m):
    matching = match(np.ones((n, 2)), np.ones((m, 2)))
    assert len(matching) == 0
    assert (matching.n_truth, matching.n_found) == (n, m)
    assert matching.found_of_truth.tolist() == [-1] * n
    assert matching.truth_of_found.tolist() == [-1] * m


def test_detection_without_a_position_matches_nothing():
    assert pairs(match([[0, 0], [8, 0]], [[np.nan, 0], [8, 1]])) == [(1, 1)]


def test_rows_by_row_are_aligned():
    matching = match([[0, 0], [10, 3], [20, 1]], [[20.5, 1], [50, 50], [0.2, 0]])
    assert matching.found_of_truth.tolist() == [2, -1, 0]
    assert matching.truth_of_found.tolist() == [2, -1, 0]


def test_sky_distance_agrees_with_astropy():
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(2)
    truth = np.stack([359.999 + rng.uniform(0, 0.002, 5), 60 + rng.uniform(0, 0.001, 5)], axis=1)
    found = np.stack([rng.uniform(0, 0.002, 4), 60 + rng.uniform(0, 0.001, 4)], axis=1)
    a, b = (SkyCoord(*xy.T, unit=u.deg) for xy in (truth, found))
    expected = a[:, None].separation(b[None]).to_value(u.arcsec)
    np.testing.assert_allclose(sky_distance(truth, found), expected, rtol=1e-6)
    own = match(truth, found, 3.0, sky_distance)
    assert len(own)
    np.testing.assert_allclose(own.distance, expected[own.truth_index, own.found_index], rtol=1e-6)


def test_any_distance_function_is_taken():
    def along_x(truth, found):
        return np.abs(truth[:, None, 0] - found[None, :, 0])

    assert pairs(match([[0, 0]], [[1, 50], [2, 0]], 3.0, along_x)) == [(0, 0)]
    with pytest.raises(ValueError, match=r"`distance` must return shape \(1, 2\)"):
        match([[0, 0]], [[1, 50], [2, 0]], 3.0, lambda truth, found: np.zeros(2))


def test_row_for_row():
    matching = match_rows([[0, 0], [1, 0], [2, 0]], [[30, 0], [np.nan, 0], [2, 4]])
    assert pairs(matching) == [(0, 0), (2, 2)]
    assert matching.distance.tolist() == [30, 4]
    assert pairs(match_rows([[0, 0], [1, 0]], [])) == []
    with pytest.raises(ValueError, match="`found` needs 2 rows"):
        match_rows([[0, 0], [1, 0]], [[0, 0]])


def test_nearest_neighbour():
    assert nearest_neighbour([[0, 0], [3, 4], [3, 5]]).tolist() == [5, 1, 1]
    assert nearest_neighbour([[7, 7]]).tolist() == [np.inf]
    assert nearest_neighbour([]).shape == (0,)


def test_only_some_sources_count():
    matching = match([[0, 0], [10, 0], [20, 0]], [[0, 0], [10, 0], [40, 0]])
    # Its detection is neither right nor wrong; the false one stays wrong.
    assert matching.judging(np.array([True, False, True])) == (1, 2, 2)
    assert matching.judging(np.ones(3, bool)) == (2, 3, 3)
    assert matching.judging(np.ones(3, bool), np.array([False, True, False])) == (1, 1, 3)
    with pytest.raises(ValueError, match="`truth` needs shape"):
        matching.judging(np.ones(2, bool))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: match([[0, 0]], [[0, 0]], 0.0), "`max_distance` must be positive; got 0.0"),
        (lambda: match([[0, 0]], [[0, 0]], np.nan), "`max_distance` must be positive"),
        (lambda: match([[0, 0, 0]], [[0, 0]]), r"`truth` needs shape \(n, 2\); got \(1, 3\)"),
        (lambda: match([[0, 0]], [0, 0]), r"`found` needs shape \(n, 2\); got \(2,\)"),
        (lambda: Matching(*np.ones((3, 2), int), 3, 3), "`truth_index` must not name a row twice"),
        (
            lambda: Matching(*np.array([[0], [3], [0]]), 3, 3),
            "`found_index` needs rows from 0 to 2",
        ),
        (
            lambda: Matching(np.arange(2), np.arange(2), np.zeros(1), 3, 3),
            "need one length; got 2, 2, 1",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_euclidean():
    np.testing.assert_allclose(
        euclidean(np.array([[0.0, 0], [1, 1]]), np.array([[3.0, 4]])), [[5], [np.sqrt(13)]]
    )
