"""Pictures of scores: the numbers in them are those of the scores."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from scipy.stats import spearmanr

from diffdeblend.plot_scores import (
    browse_scores,
    plot_correlation,
    plot_distributions,
    plot_efficiency,
    plot_summary,
    plot_targets,
    plot_totals,
    plot_trends,
)
from diffdeblend.score.score import Scores
from diffdeblend.score.summary import binned, summarise

N_BLENDS = 30


def make_scores(seed, images=True):
    """Of 30 blends of up to three sources; some lost, some that do not count."""
    rng = np.random.default_rng(seed)
    blend = np.sort(np.random.default_rng(0).integers(N_BLENDS, size=60))
    n = len(blend)
    sources = Table({"blend": blend})
    sources["judged"] = np.arange(n) % 11 != 5
    sources["detected"] = rng.uniform(size=n) < 0.8
    lost = ~np.asarray(sources["detected"])
    sources["snr"] = np.random.default_rng(1).uniform(5, 300, n)
    sources["magnitude"] = 25 - 2.5 * np.log10(sources["snr"])
    sources["flux_error_r"] = np.where(lost, np.nan, rng.normal(0, 0.1, n))
    if images:
        sources["ssim"] = np.where(lost, np.nan, rng.uniform(0.5, 1, n))
    sources["shape_true"] = np.random.default_rng(2).normal(0, 0.3, n)
    sources["shape"] = np.where(lost, np.nan, sources["shape_true"] + rng.normal(0, 0.05, n))
    found = Table({"blend": blend[~lost], "judged": np.asarray(sources["judged"])[~lost]})
    settings = {
        "n_blends": N_BLENDS,
        "band": "r",
        "bands": ["r"],
        "target_measures": ["shape"],
        "draws": 50,
        "confidence": 0.68,
        "seed": 0,
    }
    return Scores(sources, found, summarise(sources, found, settings), settings)


@pytest.fixture(scope="module")
def scores():
    return {"ours": make_scores(3), "theirs": make_scores(4, images=False)}


def judged(one, column):
    return np.asarray(one.per_source[column])[np.asarray(one.per_source["judged"])]


def line(axes, label):
    """The points of the line with a label."""
    return next(one for one in axes.lines if one.get_label() == label).get_xydata()


def drawn(page):
    """It can be drawn, without the user's session knowing."""
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=30)
    return content.getbuffer().nbytes > 2000


def test_efficiency(scores):
    pyplot_before = "matplotlib.pyplot" in sys.modules
    page = plot_efficiency(scores)
    assert [axes.get_title() for axes in page.axes] == [
        "ours, % of blends",
        "theirs, % of blends",
    ]
    for axes, one in zip(page.axes, scores.values(), strict=True):
        wanted = one.efficiency(normalized=True)
        shown = np.ma.filled(axes.images[0].get_array(), 0.0)
        assert shown.shape == (wanted.shape[1], wanted.shape[1])
        np.testing.assert_allclose(shown[: len(wanted)], wanted)
        # Nothing stands where more are found than there are.
        cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
        for (truth, found), word in cells.items():
            assert found <= truth
            assert word == f"{100 * wanted[found, truth] if found < len(wanted) else 0:.0f}"
        assert len(cells) > 5
    counts = plot_efficiency(scores["ours"], normalized=False)
    assert sum(int(text.get_text()) for text in counts.axes[0].texts) == N_BLENDS
    assert drawn(page)
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_before


def test_distributions(scores):
    page = plot_distributions(scores, ["flux_error_r", "ssim"], limits={"ssim": (0.6, 0.9)}, bins=7)
    ours, theirs = (judged(one, "flux_error_r") for one in scores.values())
    words = [text.get_text() for text in page.axes[0].get_legend().get_texts()]
    assert sorted(words) == sorted(
        f"{name} {np.isfinite(v).sum()} of {len(v)}"
        for name, v in (("ours", ours), ("theirs", theirs))
    )
    medians = [one.get_xdata()[0] for one in page.axes[0].lines]
    np.testing.assert_allclose(medians, [np.nanmedian(ours), np.nanmedian(theirs)])
    # Their scores have no such column; what lies beyond the limits is in the last bins.
    axes = page.axes[1]
    assert len(axes.lines) == 1
    assert axes.get_xlim() == (0.6, 0.9)
    own = judged(scores["ours"], "ssim")
    heights = np.histogram(np.clip(own[np.isfinite(own)], 0.6, 0.9), 7, (0.6, 0.9))[0]
    outline = axes.patches[0].get_xy()
    assert outline[:, 1].max() == heights.max()
    assert outline[1, 1] == heights[0]
    assert drawn(page)


def test_a_few_gross_errors_do_not_squeeze_the_rest():
    one = make_scores(5)
    one.per_source["flux_error_r"][:2] = 1000.0
    low, high = plot_distributions(one, ["flux_error_r"]).axes[0].get_xlim()
    assert -0.5 < low < -0.15
    assert 0.15 < high < 0.5


def test_trends_are_those_of_binned(scores):
    edges = [5, 30, 100, 300]
    page = plot_trends(scores, ["recall", "flux_error_r"], by="snr", bins=edges)
    for axes, column in zip(page.axes, ("recall", "flux_error_r"), strict=True):
        assert axes.get_xlabel() == "signal to noise"
        assert axes.get_xscale() == "log"
        for name, one in scores.items():
            table = binned(one, "snr", edges, ["flux_error_r"])
            wanted = np.stack([table["middle"], table[column]], axis=1)
            np.testing.assert_allclose(line(axes, name), wanted)
        band = axes.collections[0].get_paths()[0].vertices
        table = binned(scores["ours"], "snr", edges, ["flux_error_r"])
        assert band[:, 1].min() == pytest.approx(np.min(table[f"{column}_low"]))
        assert band[:, 1].max() == pytest.approx(np.max(table[f"{column}_high"]))
    # Each source that counts is a dot.
    dots = [one for one in page.axes[1].lines if one.get_marker() == "."]
    np.testing.assert_allclose(dots[0].get_ydata(), judged(scores["ours"], "flux_error_r"))
    bare = plot_trends(scores, ["flux_error_r"], points=False, limits={"flux_error_r": (-1, 2)})
    assert not [one for one in bare.axes[0].lines if one.get_marker() == "."]
    assert bare.axes[0].get_ylim() == (-1, 2)
    assert drawn(page)


def test_correlation_is_spearmans(scores):
    names = ["snr", "magnitude", "flux_error_r", "ssim"]
    page = plot_correlation(scores, names)
    ours, theirs = (np.ma.filled(axes.images[0].get_array(), np.nan) for axes in page.axes)
    assert [label.get_text() for label in page.axes[0].get_yticklabels()] == names
    a, b = (judged(scores["ours"], name) for name in ("snr", "flux_error_r"))
    wanted = spearmanr(a, b, nan_policy="omit").statistic
    assert ours[0, 2] == pytest.approx(wanted)
    assert ours[0, 1] == pytest.approx(-1)
    np.testing.assert_allclose(ours, ours.T)
    # They have no images.
    assert np.isnan(theirs[3]).all()
    assert len(page.axes[1].texts) == 9
    assert drawn(page)


def test_targets(scores):
    page = plot_targets(scores, limits={"shape": (-1, 1)})
    axes = page.axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1, 1), (-1, 1))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("shape, true", "shape, deblended")
    for name, one in scores.items():
        wanted = np.stack([judged(one, "shape_true"), judged(one, "shape")], axis=1)
        np.testing.assert_allclose(line(axes, name), wanted)
    with pytest.raises(ValueError, match="`targets` must be at least one of"):
        plot_targets(scores, ["flux"])


def test_totals(scores):
    page = plot_totals(scores, ["recall", "flux_scatter_r"])
    assert [axes.get_xlabel() for axes in page.axes] == ["recall", "flux scatter r"]
    for axes, metric in zip(page.axes, ("recall", "flux_scatter_r"), strict=True):
        dots = [one.get_xydata()[0] for one in axes.lines if one.get_marker() == "o"]
        wanted = [(one.value(metric), k) for k, one in enumerate(scores.values())]
        np.testing.assert_allclose(dots, wanted)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "theirs"]
    row = scores["ours"].summary[1]
    assert row["metric"] == "recall"
    np.testing.assert_allclose(page.axes[0].lines[0].get_xdata(), [row["low"], row["high"]])


def test_summary_has_it_all(scores):
    page = plot_summary(scores, columns=["flux_error_r"], metrics=["recall", "f1"])
    # Two figures, two matrices, one distribution, recall and one trend, one target.
    assert len(page.axes) == 2 + 2 + 1 + 2 + 1
    assert page.axes[-1].get_xlabel() == "shape, true"
    assert drawn(page)
    mine = Figure(figsize=(10, 10))
    assert plot_summary(scores["ours"], targets=[], on=mine) is mine
    labels = [axes.get_xlabel() for axes in mine.axes]
    assert "shape, true" not in labels
    assert "SSIM" in labels


def test_nothing_found():
    """Of a measure that found nothing all is shown that there is."""
    one = make_scores(6, images=False)
    sources = one.per_source.copy()
    sources["detected"] = False
    for name in ("flux_error_r", "shape", "distance_detection"):
        sources[name] = np.nan
    found = one.detections[:0]
    none = Scores(sources, found, summarise(sources, found, one.settings), one.settings)
    page = plot_summary(none)
    assert drawn(page)
    assert "distance of the detection" in [axes.get_xlabel() for axes in page.axes]
    efficiency = plot_efficiency(none).axes[0].images[0].get_array()
    assert (np.ma.compressed(efficiency[0]) == 1).all()


def test_drawn_where_the_user_says(scores):
    page = Figure()
    axes = page.subplots(2, 1)
    assert plot_efficiency(scores, on=axes) is page
    assert len(page.axes) == 2
    with pytest.raises(ValueError, match="`on` needs a figure, or 1 axes"):
        plot_targets(scores, on=axes)


@pytest.mark.parametrize(
    ("plot", "settings", "words"),
    [
        (plot_distributions, {"columns": ["psnr"]}, "`columns` must be columns of numbers"),
        (plot_distributions, {"columns": []}, "`columns` is empty"),
        (plot_distributions, {"columns": "ssim"}, "`columns` needs a list"),
        (plot_distributions, {"limits": {"ssim": (1, 0)}}, "`limits` of 'ssim' must rise"),
        (plot_trends, {"by": "colour"}, "`by` must be columns of numbers"),
        (plot_totals, {"metrics": ["purity"]}, "`metrics` must be of"),
    ],
)
def test_wrong_arguments(scores, plot, settings, words):
    with pytest.raises(ValueError, match=words):
        plot(scores, **settings)
    with pytest.raises(ValueError, match="`scores` is empty"):
        plot({}, **settings)


def test_browsing_needs_ipywidgets(scores, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        browse_scores(scores)


def test_browsing_shows_what_is_chosen(scores, monkeypatch):
    fake = SimpleNamespace(interactive=lambda function, **choices: (function, choices))
    monkeypatch.setitem(sys.modules, "ipywidgets", fake)
    show, choices = browse_scores(scores)
    assert choices["column"][:2] == ["recall", "ssim"]
    assert choices["by"][0] == "magnitude"
    page = show(choices["column"][1], choices["by"][0], 3)
    assert (page.axes[0].get_xlabel(), page.axes[0].get_ylabel()) == ("magnitude", "SSIM")
