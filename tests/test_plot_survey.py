"""Pictures of survey runs: the numbers in them are those of the summary."""

import copy
import io
import json
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

from made_up_run import made_table, put, write_run

from diffdeblend.io.results import write_summary as write_json
from diffdeblend.panels import new_figure
from diffdeblend.plot_survey import (
    plot_chi2,
    plot_flagged_on_sky,
    plot_flagged_on_stamp,
    plot_flags,
    plot_pulls,
    plot_statuses,
    survey_figure,
)
from diffdeblend.survey.summary import summarise


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Of 300 stamps of 350, across right ascension 0, two of them lost."""
    rng = np.random.default_rng(2)
    ra = np.mod(rng.uniform(359, 361, 300), 360)
    table = made_table(300, 2, ra=ra, dec=rng.uniform(30, 32, 300))
    table = put(table, "status", ["failed"] * 2 + ["ok"] * 298)
    out = write_run(tmp_path_factory.mktemp("run"), table, 100, planned=350)
    found = summarise(out)
    # As others will have it: read from the file.
    write_json(found, out / "summary.json")
    return json.loads((out / "summary.json").read_text())


def drawn(page):
    """It can be drawn, without the user's session knowing."""
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=30)
    return content.getbuffer().nbytes > 2000


def titles(page):
    return [axes.get_title() for axes in page.axes if axes.get_title()]


def test_bars_are_as_long_as_there_are_stamps(summary):
    axes = plot_statuses(summary).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    ends = {n: bar.get_x() + bar.get_width() for n, bar in zip(names, axes.patches, strict=True)}
    assert ends["ok"] == 298
    assert ends["failed"] == 2
    assert ends["not yet done"] == 50
    empty = [
        bar.get_width() for n, bar in zip(names, axes.patches, strict=True) if n == "unreadable"
    ]
    assert empty == [0]
    assert any("298" in text.get_text() for text in axes.texts)


def test_bars_of_flags_leave_out_those_that_no_source_has(summary):
    axes = plot_flags(summary).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["any", "at bound"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends[0] == summary["flags"]["any"]["sources"]


def test_chi2_has_all_stamps_and_its_expectation(summary):
    axes = plot_chi2(summary).axes[0]
    shown = axes.patches[-1].get_data()
    assert shown.values.sum() == 298
    (line,) = axes.lines
    assert line.get_ydata().sum() == pytest.approx(298, rel=0.02)


def test_stamps_beyond_the_histogram_are_in_its_last_bin(summary):
    wrong = copy.deepcopy(dict(summary))
    wrong["reduced_chi2"]["above"] = 40
    shown = plot_chi2(wrong).axes[0].patches[-1].get_data()
    assert shown.values.sum() == 338
    assert shown.values[-1] >= 40


def test_pulls_are_densities_a_line_a_band(summary):
    axes = plot_pulls(summary).axes[0]
    for patch in axes.patches:
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) == pytest.approx(1, abs=0.01)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label[:2] for label in labels] == ["g:", "r:", "Ga"]
    assert f"{summary['pulls']['flux_g']['robust_std']:.2f}" in labels[0]


@pytest.mark.parametrize(
    ("plot", "place"), [(plot_flagged_on_stamp, "stamp"), (plot_flagged_on_sky, "sky")]
)
def test_maps_show_the_shares_and_nothing_where_there_are_no_sources(summary, plot, place):
    grid = summary["by_place"][place]
    sources, flagged = np.array(grid["sources"]), np.array(grid["flagged"])
    shown = plot(summary).axes[0].collections[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), sources == 0)
    np.testing.assert_allclose(
        shown.filled(0), np.divide(100 * flagged, sources, where=sources > 0, out=0.0 * sources)
    )


def test_the_sky_is_labelled_across_zero(summary):
    axes = plot_flagged_on_sky(summary).axes[0]
    axes.figure.canvas.draw()
    left, right = axes.get_xlim()
    assert left == pytest.approx(361, abs=0.05)
    assert right == pytest.approx(359, abs=0.05)
    labels = [float(label.get_text()) for label in axes.get_xticklabels()]
    assert all(0 <= value < 360 for value in labels)


def test_a_run_without_places_has_no_map_of_the_sky(summary):
    without = copy.deepcopy(dict(summary))
    del without["by_place"]["sky"]
    with pytest.raises(ValueError, match="`summary` has no `sky`"):
        plot_flagged_on_sky(without)
    assert len(titles(survey_figure(without))) == 5


def test_the_figure_shows_what_there_is(summary, tmp_path):
    page = survey_figure(summary)
    assert len(titles(page)) == 6
    assert drawn(page)
    table = made_table(20, truth=False)
    plain = survey_figure(summarise(write_run(tmp_path / "plain", table, 20)))
    assert len(titles(plain)) == 4
    assert drawn(plain)
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize("n", [0, 20])
def test_a_run_without_a_fit_has_a_figure(tmp_path, n):
    table = made_table(n)
    table = put(table, "status", ["failed"] * n)
    page = survey_figure(summarise(write_run(tmp_path, table, 20, planned=30)))
    assert drawn(page)
    assert any(text.get_text() == "nothing was fitted" for axes in page.axes for text in axes.texts)


def test_pulls_that_are_all_beyond_are_no_line(summary):
    lost = copy.deepcopy(dict(summary))
    lost["pulls"]["flux_g"]["mean"] = None
    labels = [t.get_text() for t in plot_pulls(lost).axes[0].get_legend().get_texts()]
    assert [label[:2] for label in labels] == ["r:", "Ga"]


def test_panels_are_drawn_where_they_are_wanted(summary):
    page = new_figure(4, 3)
    axes = page.subplots()
    assert plot_statuses(summary, on=axes) is page
    assert len(page.axes) == 1
