"""Summaries of survey runs: the numbers of any number of parts, in little room."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_run import BANDS, SIZE, header_of, in_lists, made_table, put, write_run

from diffdeblend.progress import survey_bar
from diffdeblend.survey.extent import extent_of
from diffdeblend.survey.manifest import read_manifest
from diffdeblend.survey.parts import list_parts, read_part
from diffdeblend.survey.settings import FitSettings
from diffdeblend.survey.summary import Totals, as_dict, summarise, write_summary
from diffdeblend.survey.tallies import Histogram, Pulls, Shares

FINITE = st.floats(-10, 10, allow_nan=False)


# --- what is counted in little room --------------------------------------------------------------


@given(st.lists(FINITE), st.lists(FINITE))
def test_a_histogram_counts_as_numpy_does_and_adds_up(some, more):
    edges = np.linspace(-3, 3, 13)
    one, other, both = Histogram(edges), Histogram(edges), Histogram(edges)
    one.add(some)
    other.add(more)
    both.add(some + more)
    one.merge(other)
    np.testing.assert_array_equal(one.counts, both.counts)
    values = np.array(some + more)
    np.testing.assert_array_equal(both.counts[1:-1], np.histogram(values, edges)[0])
    assert (both.counts[0], both.counts[-1]) == ((values < -3).sum(), (values > 3).sum())
    assert both.total == len(values)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_quantiles_are_right_to_a_bin(values, share):
    histogram = Histogram(np.linspace(-3, 3, 61))
    histogram.add(values)
    # Between neighbours of the sorted values, whatever the convention.
    low, high = (np.quantile(values, share, method=m) for m in ("inverted_cdf", "higher"))
    assert min(low, high) - 0.1001 <= histogram.quantile(share) <= max(low, high) + 0.1001


def test_a_histogram_of_nothing_has_no_quantile_and_nan_is_left_out():
    histogram = Histogram(np.arange(4.0))
    assert np.isnan(histogram.quantile(0.5))
    histogram.add([np.nan, np.inf, -np.inf, 1.5])
    assert histogram.counts.tolist() == [1, 0, 1, 0, 1]
    assert (histogram.quantile(0.01), histogram.quantile(0.99)) == (0.0, 3.0)


def test_pulls_of_gaussian_errors_are_covered():
    rng = np.random.default_rng(101)
    truth = rng.uniform(50, 100, 100_000)
    error = rng.uniform(1, 3, truth.size)
    pulls, halves = Pulls(), (Pulls(), Pulls())
    found = truth + error * rng.normal(0.1, 1.0, truth.size)
    pulls.add(found, error, truth)
    for half, own in zip(halves, (slice(0, 100), slice(100, None)), strict=True):
        half.add(found[own], error[own], truth[own])
    halves[0].merge(halves[1])
    numbers = pulls.numbers()
    assert halves[0].numbers() == pytest.approx(numbers)
    assert numbers["mean"] == pytest.approx(0.1, abs=0.015)
    assert numbers["median"] == pytest.approx(0.1, abs=0.02)
    assert numbers["robust_std"] == pytest.approx(1.0, abs=0.02)
    assert numbers["within_68"] == pytest.approx(67.76, abs=0.6)
    assert numbers["within_95"] == pytest.approx(94.9, abs=0.3)
    relative = np.median(np.abs(found / truth - 1))
    assert numbers["median_relative_error"] == pytest.approx(relative, rel=0.06)


def test_what_was_not_measured_counts_as_beyond_and_unknown_truth_not_at_all():
    pulls = Pulls()
    pulls.add(
        np.array([1.0, np.nan, 1.0, 1.0, 5.0]),
        np.array([1.0, 1.0, np.nan, 0.0, 1.0]),
        np.array([1.0, 1.0, 1.0, 1.0, np.nan]),
    )
    numbers = pulls.numbers()
    assert (numbers["sources"], numbers["measured"]) == (4, 1)
    assert (numbers["within_68"], numbers["within_95"]) == (25.0, 25.0)


def test_shares_count_all_sources_those_beyond_the_grid_too():
    shares, other = (Shares(np.arange(3.0), np.arange(4.0)) for _ in range(2))
    shares.add(np.array([0.5, 1.5, 9.0, np.nan]), np.array([0.5, 2.5, -9.0, 1]), np.ones(4) > 0)
    other.add(np.array([0.5]), np.array([0.6]), np.array([False]))
    shares.merge(other)
    assert shares.sources.tolist() == [[2, 1], [0, 0], [0, 1]]
    assert shares.flagged.tolist() == [[1, 1], [0, 0], [0, 1]]


# --- the piece of sky ----------------------------------------------------------------------------


def on_sky(tmp_path, ra, dec, batch):
    n = len(ra)
    table = made_table(n, ra=np.asarray(ra, float), dec=np.asarray(dec, float))
    out = write_run(tmp_path, table, batch)
    return extent_of(path for _, path in list_parts(out))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 359.99), st.floats(0.0, 150.0), st.floats(-80, 80), st.integers(1, 5), st.data()
)
def test_the_piece_holds_all_stamps_and_no_more(tmp_path_factory, start, width, dec, batch, data):
    share = np.array(data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=12)))
    ra = np.mod(start + width * share, 360)
    extent = on_sky(tmp_path_factory.mktemp("sky"), ra, dec + share, batch)
    assert extent is not None
    unwrapped = extent.unwrapped(ra)
    low, high = extent.ra
    assert (unwrapped >= low - 1e-6).all()
    assert (unwrapped <= high + 1e-6).all()
    # Only stretches between stamps of one part could make it wider than the stamps.
    assert high - low <= width * np.ptp(share) + 1.1e-3
    assert extent.dec[0] <= (dec + share).min()
    assert extent.dec[1] >= (dec + share).max()
    x, y = extent.edges()
    assert len(x) <= 22
    assert len(y) <= 22
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()


def test_a_survey_across_zero_is_one_piece(tmp_path):
    extent = on_sky(tmp_path, [359.0, 359.5, 0.25, 1.0], [-1, 0, 0, 1], 3)
    assert extent is not None
    assert extent.ra == pytest.approx((359.0, 361.0))
    assert extent.unwrapped(np.array([0.25])) == pytest.approx(360.25)


def test_stamps_without_places_have_no_piece(tmp_path):
    none = made_table(4)
    assert extent_of(path for _, path in list_parts(write_run(tmp_path / "a", none, 2))) is None
    nan = np.full(4, np.nan)
    assert on_sky(tmp_path / "b", nan, nan, 2) is None


def test_stamps_all_around_the_sky(tmp_path):
    ra = np.arange(0, 360, 0.05)
    extent = on_sky(tmp_path, ra, np.zeros(len(ra)), 4000)
    assert extent is not None
    assert extent.ra == (0.0, 360.0)


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    """A few hundred stamps on a piece of sky, some of them lost."""
    n = 400
    rng = np.random.default_rng(3)
    made = made_table(n, 3, ra=rng.uniform(10, 12, n), dec=rng.uniform(-1, 1, n))
    status, error = np.array(["ok"] * n, object), np.array([""] * n, object)
    status[5], status[17] = "not_converged", "no_sources"
    status[30:33], error[30:33] = "bad_input", "no pixel is used"
    status[40], error[40] = "failed", "XlaRuntimeError: no memory"
    return put(put(made, "status", status.tolist()), "error", error.tolist())


def test_every_stamp_is_counted_by_what_became_of_it(tmp_path, table):
    found = summarise(write_run(tmp_path, table, 64, planned=500))
    stamps = found["stamps"]
    assert (stamps["planned"], stamps["finished"]) == (500, 400)
    counts = {name: entry["stamps"] for name, entry in stamps["status"].items()}
    assert counts == {
        "ok": 394,
        "not_converged": 1,
        "no_sources": 1,
        "bad_input": 3,
        "unreadable": 0,
        "failed": 1,
        "killed_worker": 0,
    }
    assert found["errors"][0] == {
        "status": "bad_input",
        "error": "no pixel is used",
        "stamps": 3,
        "first_row": 30,
    }
    assert len(found["errors"]) == 2
    assert found["parts"]["n"] == 7
    assert found["parts"]["damaged"] == []
    assert found["run"]["versions"]["jax"]


def test_sources_flags_and_places_are_of_the_fits(tmp_path, table):
    found = summarise(write_run(tmp_path, table, 64))
    rows = table.to_pylist()
    fits = [row for row in rows if row["status"] in ("ok", "not_converged")]
    flags = np.concatenate([row["flags"] for row in fits])
    assert found["sources"]["n"] == sum(row["n_sources"] for row in rows)
    assert found["sources"]["fitted"] == len(flags)
    assert found["flags"]["any"]["sources"] == np.count_nonzero(flags) > 0
    assert found["flags"]["at_bound"]["sources"] == np.count_nonzero(flags & 8)
    for place in found["by_place"].values():
        assert np.sum(place["sources"]) == len(flags)
        assert np.sum(place["flagged"]) == np.count_nonzero(flags)
    stamp = found["by_place"]["stamp"]
    x, y = (np.concatenate([row[name] for row in fits]) for name in "xy")
    expected = np.histogram2d(y, x, (stamp["y"], stamp["x"]))[0]
    np.testing.assert_array_equal(stamp["sources"], expected)
    sky = found["by_place"]["sky"]
    count = [row["n_sources"] for row in fits]
    ra, dec = (np.repeat([row[name] for row in fits], count) for name in ("ra", "dec"))
    np.testing.assert_array_equal(sky["sources"], np.histogram2d(dec, ra, (sky["y"], sky["x"]))[0])


def test_how_the_stamps_are_divided_changes_nothing(tmp_path, table):
    each = []
    for batch in (37, 150, 400):
        found = summarise(write_run(tmp_path / str(batch), table, batch))
        each.append({name: found[name] for name in found if name not in ("parts", "run")})
    for other in each[1:]:
        assert json.dumps(other["by_place"]) == json.dumps(each[0]["by_place"])
        ours, theirs = (dict(one["pulls"]["flux_g"]) for one in (each[0], other))
        assert ours.pop("histogram") == theirs.pop("histogram")
        assert ours == pytest.approx(theirs)
        for name in ("stamps", "errors", "flags", "reduced_chi2", "steps"):
            assert other[name] == each[0][name]


def test_shares_of_a_run_add_up_to_the_whole(tmp_path, table):
    out = write_run(tmp_path, table, 100)
    manifest = read_manifest(out)
    extent = extent_of(path for _, path in list_parts(out))
    shares = []
    for own in (slice(0, 1), slice(1, None)):
        shares.append(Totals(manifest, extent))
        for _, path in list(list_parts(out))[own]:
            shares[-1].add(read_part(path))
    shares[0].merge(shares[1])
    merged, whole = as_dict(shares[0], manifest), summarise(out)
    assert json.dumps(merged["by_place"]) == json.dumps(whole["by_place"])
    for name in ("stamps", "errors", "sources", "flags", "reduced_chi2", "steps"):
        assert merged[name] == whole[name]


def test_pulls_are_those_of_the_truth(tmp_path, table):
    found = summarise(write_run(tmp_path, table, 64))
    fits = [row for row in table.to_pylist() if row["status"] == "ok"]
    for band in BANDS:
        value, error, true = (
            np.concatenate([row[name] for row in fits])
            for name in (f"flux_{band}", f"flux_err_{band}", f"true_flux_{band}")
        )
        pull = (value - true) / error
        numbers = found["pulls"][f"flux_{band}"]
        assert numbers["sources"] == len(pull)
        assert numbers["mean"] == pytest.approx(pull.mean(), abs=1e-9)
        assert numbers["within_68"] == pytest.approx(100 * np.mean(abs(pull) < 0.99446), abs=1e-9)
        low, high = np.quantile(pull, (0.16, 0.84))
        assert numbers["robust_std"] == pytest.approx((high - low) / 2, abs=0.03)
        clean = np.concatenate([row["flags"] for row in fits]) == 0
        assert found["unflagged"][f"flux_{band}"]["sources"] == clean.sum()


def test_chi2_of_noise_is_what_noise_is_expected_to_give(tmp_path, table):
    chi2 = summarise(write_run(tmp_path, table, 64))["reduced_chi2"]
    assert sum(chi2["expected"]) == pytest.approx(sum(chi2["counts"]), abs=0.5)
    assert chi2["median"] == pytest.approx(chi2["expected_median"], abs=0.006)
    excess = np.abs(np.cumsum(chi2["counts"]) - np.cumsum(chi2["expected"])).max()
    # Kolmogorov: above 1.63 sqrt(n) once in a hundred.
    assert excess < 1.63 * np.sqrt(sum(chi2["counts"]))


def test_what_was_fitted_counts_as_lost_freedom(tmp_path, table):
    with_sky = summarise(write_run(tmp_path / "a", table, 400))["reduced_chi2"]
    free = FitSettings(background="none")
    without = summarise(write_run(tmp_path / "b", table, 400, settings=free))["reduced_chi2"]
    pixels = len(BANDS) * SIZE**2
    assert with_sky["median"] / without["median"] - 1 == pytest.approx(2 / pixels, rel=0.9)
    assert with_sky["median"] > without["median"]


def test_errors_of_latents_count_one_by_one(tmp_path, table):
    n = len(table.column("x").combine_chunks().flatten())
    latents = np.full((n, 5), 0.2)
    latents[::2] = np.nan
    wide = pa.FixedSizeListArray.from_arrays(latents.ravel(), 5)
    lists = pa.ListArray.from_arrays(table.column("x").combine_chunks().offsets, wide)
    out = write_run(tmp_path / "b", table.append_column("latent_err", lists), 100)
    found, plain = summarise(out), summarise(write_run(tmp_path / "a", table, 100))
    fitted = 5 * n / 2 / len(table)
    ratio = found["reduced_chi2"]["median"] / plain["reduced_chi2"]["median"]
    assert ratio - 1 == pytest.approx(fitted / (len(BANDS) * SIZE**2), rel=0.5)


def test_a_damaged_part_is_told_of_and_the_others_are_counted(tmp_path, table):
    out = write_run(tmp_path, table, 100)
    _, path = next(list_parts(out))
    path.write_bytes(path.read_bytes()[:-20])
    found = summarise(out)
    assert found["parts"]["damaged"] == [path.name]
    assert found["stamps"]["finished"] == 300


def test_a_stamp_in_two_parts_is_told_of(tmp_path, table):
    out = write_run(tmp_path, table, 100)
    write_run(tmp_path, table.slice(0, 150), 150, planned=400)
    assert summarise(out)["parts"]["stamps_twice"] == 100 + 50


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`out`.*manifest\.json"):
        summarise(tmp_path)


def test_nothing_finished_and_all_failed_have_summaries(tmp_path, table):
    empty = write_run(tmp_path / "a", table.slice(0, 0), 10, planned=400)
    found = summarise(empty)
    assert (found["stamps"]["finished"], found["sources"]["fitted"]) == (0, 0)
    lost = put(table, "status", ["failed"] * len(table))
    found = summarise(write_run(tmp_path / "b", lost, 100))
    assert found["stamps"]["status"]["failed"]["stamps"] == 400
    assert found["sources"]["fitted"] == 0
    assert sum(found["reduced_chi2"]["counts"]) == 0


def test_the_summary_is_json_and_has_a_figure_beside_it(tmp_path, table):
    pytest.importorskip("matplotlib")
    out = write_run(tmp_path, table.slice(0, 0), 10, planned=7)
    found = write_summary(out)
    read = json.loads((out / "summary.json").read_text())
    assert read["stamps"] == found["stamps"]
    assert read["reduced_chi2"]["median"] is None
    assert (out / "figure.png").stat().st_size > 2000
    assert sorted(path.name for path in out.iterdir()) == [
        "figure.png",
        "manifest.json",
        "summary.json",
    ]


def test_errors_of_any_length_and_number_take_little_room(tmp_path):
    table = made_table(1200)
    table = put(table, "status", ["failed"] * 1200)
    table = put(table, "error", [f"{n} " + 300 * "x" for n in range(1200)])
    totals = Totals({"store": {"header": vars(header_of(1200))}, "settings": {}})
    totals.add(table)
    assert len(totals.errors) <= 1001
    assert max(len(text) for _, text in totals.errors) == 200
    assert sum(totals.errors.values()) == 1200


def test_true_positions_have_pulls_too(tmp_path):
    table = made_table(50, truth=False)
    x = table.column("x").combine_chunks().flatten().to_numpy()
    table = table.append_column("true_x", in_lists(table, x - 0.05))
    found = summarise(write_run(tmp_path, table, 50))
    assert list(found["pulls"]) == ["x"]
    assert found["pulls"]["x"]["mean"] == pytest.approx(0.5)


# --- the bar -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self):
        return True


def done(start, stop, **status):
    return SimpleNamespace(run=range(start, stop), status=status)


def test_the_bar_begins_where_the_run_before_ended_and_tells_of_failures():
    screen = Terminal()
    report = survey_bar(1000, screen)
    report(done(600, 800, ok=198, failed=2), 400)
    report(done(800, 1000, ok=197, failed=2, bad_input=1), 400)
    report(None)
    last = screen.getvalue().split("\r")[-1]
    assert "1000/1000" in last
    assert "bad_input 1, failed 4" in last
    assert "stamp/s" in last
    assert "600/1000" in screen.getvalue()
    assert "ok" not in last


def test_the_bar_without_a_total_has_that_of_what_is_wanted():
    screen = Terminal()
    report = survey_bar(out=screen)
    report(done(0, 100, ok=100), 200)
    report(None)
    assert "100/200" in screen.getvalue()


@pytest.mark.parametrize("out", [None, io.StringIO()])
def test_the_bar_is_silent_where_there_is_no_terminal(out, capsys):
    report = survey_bar(10, out)
    report(done(0, 10, ok=10), 10)
    report(None)
    assert capsys.readouterr() == ("", "")
    assert out is None or out.getvalue() == ""
