"""Sampling functions: the sources they promise, where they promise them, from their `rng` alone."""

import pickle
from dataclasses import asdict

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from diffdeblend.simulate.catalog import concatenate
from diffdeblend.simulate.keys import stream
from diffdeblend.simulate.sampling import (
    Clustered,
    Given,
    OneBright,
    Pair,
    Placed,
    Poisson,
    Uniform,
    check_needs,
    choose,
    outside,
    place,
)
from diffdeblend.simulate.sampling_changed import RandomTurns, Sheared, WithStars
from diffdeblend.simulate.sampling_sky import SkyGroup, SkySquare, with_groups
from diffdeblend.simulate.synthetic import star_catalog, synthetic_catalog


def make_catalog():
    """Galaxies and stars of a piece of sky around 0 h, 3.6' wide."""
    rng = np.random.default_rng(1)
    galaxies = synthetic_catalog(400, rng, faintest=27.0)
    both = concatenate([galaxies, star_catalog(100, rng, faintest=27.0)])
    ra, dec = rng.uniform(-0.03, 0.03, (2, 500))
    both = both.with_columns(ra=(ra / np.cos(np.deg2rad(40))) % 360, dec=40 + dec)
    return with_groups(both, link=12.0, faintest=27.0)


CATALOG = make_catalog()
TABLE = CATALOG.table
MAGNITUDE = np.asarray(TABLE["magnitude"])
EVERY = {
    "uniform": Uniform(most=4),
    "uniform, shifted": Uniform(most=5, fewest=2, max_shift=3.0, brightest=22.0, faintest=24.0),
    "one bright": OneBright(),
    "poisson": Poisson(density=50.0),
    "pair": Pair(),
    "pair of a separation": Pair(separation=(0.5, 2.0), flux_ratio=0.3),
    "clustered": Clustered(),
    "clustered, wide": Clustered(spread=12.0, max_shift=12.0),
    "given": Given([1.0, -2.0], [0.5, 11.0], [3, 4]),
    "given, other galaxies": Given((1.0, -2.0), (0.5, 11.0), faintest=25.0),
    "with stars": WithStars(Uniform(most=6), share=0.5),
    "sheared": Sheared(Uniform(most=3), 0.1, -0.2),
    "turned": RandomTurns(Sheared(WithStars(Poisson(density=30.0)), 0.0, 0.3)),
    "square": SkySquare(stamp=60.0, faintest=26.5),
    "group": SkyGroup(stamp=60.0),
}
every = pytest.mark.parametrize("sampling", EVERY.values(), ids=EVERY)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What every one does.


@every
def test_the_same_generator_places_the_same_sources(sampling):
    check_needs(sampling, TABLE)
    np.random.seed(0)  # noqa: NPY002
    first = [place(sampling, TABLE, stream(0, "sampling", k)) for k in range(10)]
    np.random.seed(1)  # noqa: NPY002
    # In another order, of a copy that went through another process's hands.
    copy = pickle.loads(pickle.dumps(sampling))
    again = [place(copy, TABLE, stream(0, "sampling", k)) for k in range(9, -1, -1)][::-1]
    assert copy == sampling
    assert hash(copy) == hash(sampling)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    if not isinstance(sampling, Given) or sampling.rows is None:
        assert not all(same(first[0], other) for other in first[1:])


@every
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_places_keep_to_the_promise(sampling, seed):
    rng = np.random.default_rng(seed)
    placed = place(sampling, TABLE, rng)
    assert placed.n_sources <= sampling.most
    assert placed.row.dtype == int
    assert ((placed.row >= 0) & (placed.row < len(TABLE))).all()
    assert not outside(placed, sampling.stamp).any()


@every
def test_what_a_sampling_needs_is_asked_for_by_name(sampling):
    for name in sampling.needs:
        with pytest.raises(ValueError, match=rf"{type(sampling).__name__}.*\['{name}'\]"):
            check_needs(sampling, TABLE[[c for c in TABLE.colnames if c != name]])


@every
def test_settings_are_written_down(sampling):
    assert Placed.of([1], 0, 0).g1 == 0
    assert asdict(sampling)


@every
def test_the_table_stays_as_it_was(sampling):
    before = TABLE.copy()
    place(sampling, TABLE, np.random.default_rng(0))
    assert TABLE.colnames == before.colnames
    for name in TABLE.colnames:
        np.testing.assert_array_equal(TABLE[name], before[name])


# What each does.


def many(sampling, n=400):
    return [place(sampling, TABLE, stream(7, "sampling", k)) for k in range(n)]


def test_uniform_numbers_places_and_magnitudes():
    found = many(Uniform(most=4, fewest=2, brightest=22.0, faintest=24.0, stamp=30.0), 1500)
    numbers = np.bincount([len(p.row) for p in found], minlength=5)
    # Five times the rms of a binomial.
    np.testing.assert_allclose(numbers, [0, 0, 500, 500, 500], atol=5 * np.sqrt(1500 * 2 / 9))
    x, y = (np.concatenate([getattr(p, name) for p in found]) for name in "xy")
    for values in (x, y):
        assert kstest(values, "uniform", args=(-3, 6)).pvalue > 1e-4
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1
    rows = np.concatenate([p.row for p in found])
    eligible = np.flatnonzero((MAGNITUDE > 22) & (MAGNITUDE <= 24))
    np.testing.assert_array_equal(np.unique(rows), eligible)
    assert same(found[0][3:], np.zeros((4, len(found[0].row))))


@pytest.mark.parametrize("eligible", [2, 100])
def test_rows_are_equally_likely_be_they_few_or_many(eligible):
    """Few are found by looking at all rows, many by trying."""
    table = Table({"a": np.where(np.arange(200) % (200 // eligible) == 0, 1.0, 5.0)})
    rng = np.random.default_rng(3)
    rows = np.concatenate([choose(rng, table, 10, {"a": (0.0, 2.0)}) for _ in range(2000)])
    count = np.bincount(rows, minlength=200)[:: 200 // eligible]
    assert count.sum() == 20000
    expected = 20000 / eligible
    # chi2 of so many degrees of freedom.
    chi2 = ((count - expected) ** 2 / expected).sum()
    assert chi2 < eligible + 5 * np.sqrt(2 * eligible)


def test_rows_without_a_magnitude_are_never_chosen():
    table = TABLE.copy()
    table["i_ab"] = MaskedColumn(table["i_ab"], mask=MAGNITUDE > 22, fill_value=20.0)
    found = Uniform(most=40, fewest=40, magnitude="i_ab")(table, np.random.default_rng(0))
    assert MAGNITUDE[found.row].max() <= 22


def test_one_bright_galaxy():
    found = many(OneBright(most=5, fewest=2, stamp=30.0, deep=26.8, deep_share=0.3))
    sizes = np.asarray(TABLE["size"])
    assert {len(p.row) for p in found} == {2, 3, 4, 5}
    assert max(MAGNITUDE[p.row[0]] for p in found) <= 24
    faintest = np.array([MAGNITUDE[p.row[1:]].max() for p in found])
    assert 0.1 < (faintest > 25.3).mean() < 0.3
    assert all(((sizes[p.row] > 0.1) & (sizes[p.row] <= 2)).all() for p in found)
    for p in found:
        assert max(abs(p.x).max(), abs(p.y).max()) <= np.sqrt(len(p.row) - 1)


def test_poisson_density():
    found = many(Poisson(density=90.0, stamp=30.0, most=1000), 1000)
    numbers = np.array([len(p.row) for p in found])
    # 90 in a square arcminute, of which the stamp is a quarter.
    assert numbers.mean() == pytest.approx(22.5, abs=5 * np.sqrt(22.5 / 1000))
    assert numbers.var() == pytest.approx(22.5, rel=0.2)
    x = np.concatenate([p.x for p in found])
    assert kstest(x, "uniform", args=(-15, 30)).pvalue > 1e-4
    assert {len(p.row) for p in many(Poisson(density=90.0, stamp=30.0, most=20), 50)} <= set(
        range(21)
    )
    assert min(len(p.row) for p in many(Poisson(density=5.0))) == 0


def test_pairs_by_default():
    for p in many(Pair(dim_faintest=26.0), 50):
        bright, dim = MAGNITUDE[p.row]
        assert bright <= 25.3 < dim <= 26
        assert (p.x[0], p.y[0]) == (0, 0)
        assert max(abs(p.x[1]), abs(p.y[1])) <= 2.4
        assert (p.dim == 0).all()


def test_pairs_of_a_separation_and_a_ratio():
    found = many(Pair(separation=(0.5, 1.5), flux_ratio=(0.1, 0.4), faintest=24.0))
    distance = np.array([np.hypot(p.x[1], p.y[1]) for p in found])
    assert kstest(distance, "uniform", args=(0.5, 1.0)).pvalue > 1e-4
    angle = np.array([np.arctan2(p.y[1], p.x[1]) for p in found])
    assert kstest(angle, "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-4
    seen = np.array([MAGNITUDE[p.row] + p.dim for p in found])
    ratio = 10 ** (-0.4 * (seen[:, 1] - seen[:, 0]))
    assert kstest(ratio, "uniform", args=(0.1, 0.3)).pvalue > 1e-4
    np.testing.assert_array_equal([p.dim[0] for p in found], 0)
    fixed = many(Pair(separation=1.2, flux_ratio=1.0), 5)
    assert all(np.hypot(p.x[1], p.y[1]) == pytest.approx(1.2) for p in fixed)


def test_groups_are_close():
    tight = many(Clustered(most=6, fewest=6, groups=1, spread=0.5))
    x = np.stack([p.x for p in tight])
    assert (x - x.mean(axis=1, keepdims=True)).std(ddof=1) * np.sqrt(6 / 5) == pytest.approx(
        0.5, rel=0.05
    )
    # The mean of a group, from -6 to 6, with the scatter of its members on top.
    assert x.mean(axis=1).std() == pytest.approx(np.hypot(12 / np.sqrt(12), 0.5 / 6**0.5), rel=0.08)
    several = many(Clustered(most=40, fewest=40, groups=3, spread=0.01))
    gaps = [(np.diff(np.sort(p.x)) > 0.1).sum() for p in several]
    assert max(gaps) == 2
    assert np.mean(gaps) > 1.8


def test_given_places_and_rows():
    (found,) = many(EVERY["given"], 1)
    expected = Placed.of([3, 4], [1.0, -2.0], [0.5, 11.0])
    assert same(found, expected)
    assert max(MAGNITUDE[p.row].max() for p in many(EVERY["given, other galaxies"])) <= 25


def test_stars_among_galaxies():
    found = many(WithStars(Uniform(most=6, faintest=25.0), share=0.3, faintest=23.0))
    rows = np.concatenate([p.row for p in found])
    is_star = np.asarray(TABLE["is_star"])[rows]
    assert is_star.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / len(rows)))
    assert MAGNITUDE[rows[is_star]].max() <= 23
    assert 23 < MAGNITUDE[rows[~is_star]].max() <= 25
    never = many(WithStars(Uniform(), share=0.0))
    assert not np.asarray(TABLE["is_star"])[np.concatenate([p.row for p in never])].any()
    with pytest.raises(ValueError, match="no source with is_star"):
        WithStars(Uniform(), share=1.0)(TABLE[~TABLE["is_star"]], np.random.default_rng(0))


def test_shears_and_turns_of_others():
    plain, sheared = many(EVERY["uniform"], 50), many(Sheared(EVERY["uniform"], 0.1, -0.2), 50)
    for p, s in zip(plain, sheared, strict=True):
        assert same(p[:3], s[:3])
        assert (s.g1 == 0.1).all()
        assert (s.g2 == -0.2).all()
    turned = many(RandomTurns(EVERY["uniform"]))
    turns = np.concatenate([p.turn for p in turned])
    assert kstest(turns, "uniform", args=(0, 2 * np.pi)).pvalue > 1e-4
    # No two sources share a turn, in one blend or in two.
    assert len(np.unique(turns)) == len(turns)
    (both,) = many(RandomTurns(Sheared(Uniform(), 0.1, 0.2)), 1)
    assert (both.g2 == 0.2).all()
    assert (both.turn != 0).all()


def test_squares_of_the_sky_are_the_skys():
    sky = SkyCoord(TABLE["ra"], TABLE["dec"], unit="deg")
    for p in many(SkySquare(stamp=50.0, faintest=26.0, most=100), 30):
        seen = MAGNITUDE <= 26
        # Between all pairs the separations on the sphere.
        ours = np.hypot(p.x[:, None] - p.x, p.y[:, None] - p.y)
        theirs = sky[p.row][:, None].separation(sky[p.row][None]).arcsec
        np.testing.assert_allclose(ours, theirs, atol=0.02)
        east = (sky.ra[p.row][0] - sky.ra[p.row]).wrap_at("180d").deg
        np.testing.assert_array_equal(np.sign(p.x[0] - p.x), np.sign(east))
        # All that are there are taken: none of the others is well inside.
        offset = sky[p.row[0]].spherical_offsets_to(sky)
        x, y = offset[0].arcsec + p.x[0], offset[1].arcsec + p.y[0]
        inside = seen & (np.maximum(abs(x), abs(y)) < 24.9)
        assert set(np.flatnonzero(inside)) <= set(p.row)
    few = many(SkySquare(stamp=100.0, faintest=27.0, most=3), 20)
    for p in few:
        assert len(p.row) == 3
    with pytest.raises(ValueError, match="larger than the sky"):
        SkySquare(stamp=1000.0)(TABLE, np.random.default_rng(0))
    with pytest.raises(ValueError, match="fewer than 50"):
        SkySquare(stamp=5.0, most=60, fewest=50)(TABLE, np.random.default_rng(0))


def test_groups_of_the_sky_are_friends_of_friends():
    group = np.asarray(with_groups(CATALOG, link=10.0, faintest=26.0).table["group"])
    seen = np.flatnonzero(MAGNITUDE <= 26)
    np.testing.assert_array_equal(group >= 0, MAGNITUDE <= 26)
    sky = SkyCoord(TABLE["ra"], TABLE["dec"], unit="deg")[seen]
    near = sky[:, None].separation(sky[None]).arcsec < 10
    # A slow way: everyone takes the smallest name among its friends, until nobody does.
    name = np.arange(len(seen))
    for _ in range(len(seen)):
        name = np.where(near, name[None], len(seen)).min(axis=1)
    same_group = group[seen][:, None] == group[seen][None]
    np.testing.assert_array_equal(same_group, name[:, None] == name[None])


def test_a_group_of_the_sky_is_placed_whole():
    group = np.asarray(TABLE["group"])
    count = np.bincount(group[group >= 0])
    found = many(SkyGroup(most=6, fewest=3, stamp=80.0))
    for p in found:
        (chosen,) = np.unique(group[p.row])
        assert len(p.row) == count[chosen]
        assert 3 <= len(p.row) <= 6
        assert abs(p.x.mean()) < 1e-9
    times = np.bincount([group[p.row[0]] for p in found], minlength=len(count))
    assert (times > 0).sum() > 0.8 * ((count >= 3) & (count <= 6)).sum()
    with pytest.raises(ValueError, match="no group of 400"):
        SkyGroup(most=500, fewest=400)(TABLE, np.random.default_rng(0))
    with pytest.raises(ValueError, match="with_groups"):
        check_needs(SkyGroup(), TABLE["ra", "dec"])


# What is wrong.


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uniform(most=0, fewest=0),
        lambda: Uniform(most=1, fewest=2),
        lambda: Uniform(max_shift=13.0),
        lambda: Uniform(stamp=-1.0),
        lambda: OneBright(fewest=0),
        lambda: OneBright(deep_share=1.5),
        lambda: Poisson(density=-1.0),
        lambda: Pair(separation=(2.0, 1.0)),
        lambda: Pair(flux_ratio=0.0),
        lambda: Clustered(groups=0),
        lambda: Clustered(spread=100.0),
        lambda: Given((1.0,), (2.0, 3.0)),
        lambda: WithStars(Uniform(), share=2.0),
        lambda: Sheared(Uniform(), 0.8, 0.7),
        lambda: with_groups(CATALOG, link=0.0),
    ],
)
def test_settings_that_cannot_be_met_are_refused(make):
    with pytest.raises(ValueError, match="`"):
        make()


def test_a_catalogue_without_such_sources_is_refused():
    with pytest.raises(ValueError, match=r"magnitude above -inf and at most 10.*magnitude 1\d"):
        Uniform(faintest=10.0)(TABLE, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no source"):
        Uniform()(TABLE[:0], np.random.default_rng(0))


def own(table, rng):
    """The newest of two bright ones."""
    return Placed.of(rng.choice(np.flatnonzero(table["magnitude"] < 22), 2), [0, 1], 0.5)


def test_a_function_of_ones_own():
    found = place(own, TABLE, np.random.default_rng(3))
    np.testing.assert_array_equal(found.y, [0.5, 0.5])
    own_again = RandomTurns(WithStars(own, share=0.5))
    check_needs(own_again, TABLE)
    assert own_again.most is None
    assert len(place(own_again, TABLE, np.random.default_rng(3)).row) == 2
    for wrong, message in (
        (lambda table, rng: table[:2], "must return Placed"),
        (lambda table, rng: Placed.of([500], 0.0, 0.0), "500 rows"),
        (lambda table, rng: Placed.of([-1], 0.0, 0.0), "-1"),
    ):
        with pytest.raises(ValueError, match=message):
            place(wrong, TABLE, np.random.default_rng(0))

    def too_many(table, rng):
        return Placed.of([1, 2, 3], 0.0, 0.0)

    too_many.most = 2
    with pytest.raises(ValueError, match="3 sources, more than its `most`, 2"):
        place(too_many, TABLE, np.random.default_rng(0))

    def needy(table, rng):
        return Placed.of([1], 0.0, 0.0)

    needy.needs = ("colour", "magnitude", "age")
    with pytest.raises(ValueError, match=r"needy lacks the columns \['colour', 'age'\]"):
        check_needs(needy, TABLE)


@pytest.mark.parametrize(
    "given",
    [
        {"row": [0.5]},
        {"row": [[1]]},
        {"x": [1.0, 2.0]},
        {"y": [np.nan]},
        {"g1": 0.8, "g2": 0.8},
        {"colour": 1.0},
    ],
)
def test_places_that_mean_nothing_are_refused(given):
    with pytest.raises(ValueError, match="`"):
        Placed.of(**{"row": [1], "x": [0.0], "y": [0.0]} | given)


def test_an_empty_blend_and_centres_beyond_the_stamp():
    empty = Placed.of([], [], [])
    assert empty.n_sources == 0
    assert outside(empty, 24.0).shape == (0,)
    placed = Placed.of([1, 2, 3], [11.9, 0.0, -12.1], [0.0, 12.5, 3.0])
    np.testing.assert_array_equal(outside(placed, 24.0), [False, True, True])
