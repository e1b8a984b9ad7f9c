"""Pictures of blends: what stands where, and in which colours."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from diffdeblend.painter import Painter
from diffdeblend.plot_blends import plot_blends, plot_deblended, plot_isolated, plot_sample
from diffdeblend.score.matching import Matching
from diffdeblend.score.measured import Measured
from diffdeblend.simulate.blends import Blends
from diffdeblend.simulate.survey import Band, Survey

BANDS = ("g", "r", "i")
SHAPE = (34, 40)
# x, y and fluxes of the sources of each blend: a blue and a red one, a blue one, three.
SOURCES = (
    ((9.0, 12.0, (9e3, 5e3, 3e3)), (27.0, 20.0, (2e3, 5e3, 9e3))),
    ((22.0, 10.0, (9e3, 5e3, 3e3)),),
    ((6.0, 25.0, (3e3, 3e3, 3e3)), (19.0, 16.0, (8e3, 9e3, 9e3)), (33.0, 8.0, (2e3, 4e3, 7e3))),
)


def blob(x, y, flux, radius=2.0):
    rows, columns = np.indices(SHAPE)
    light = np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / radius**2)
    return np.asarray(flux)[:, None, None] * light / (2 * np.pi * radius**2)


def make_blends():
    sky = np.array([20.0, 30.0, 40.0])
    rows, isolated, images = [], [], []
    rng = np.random.default_rng(0)
    for k, sources in enumerate(SOURCES):
        own = [blob(*source) for source in sources]
        isolated += own
        noise = rng.normal(size=(3, *SHAPE)) * np.sqrt(sky)[:, None, None]
        images.append(sum(own) + noise)
        rows += [(k, n, x, y, 0.1 * (n + 1), n == 2, *f) for n, (x, y, f) in enumerate(sources)]
    names = ["blend", "source", "x", "y", "radius", "is_star", *(f"flux_{b}" for b in BANDS)]
    truth = Table(rows=rows, names=names)
    survey = Survey("Test", 0.2, tuple(Band(b, 0.7, 27.0, 21.0, 100.0) for b in BANDS), 4.0)
    for band, zero_point in zip(BANDS, survey.zero_points, strict=True):
        truth[f"magnitude_{band}"] = zero_point - 2.5 * np.log10(truth[f"flux_{band}"])
    return Blends(
        np.array(images, np.float32),
        np.array(isolated, np.float32),
        truth,
        np.ones((1, 3, 5, 5), np.float32),
        np.zeros(3, int),
        survey,
        sky,
        "background",
        0,
    )


def find(blends):
    """Loses the last source of a blend of several, and adds something false to the first blend."""
    found = []
    for k, sources in enumerate(SOURCES):
        kept = list(sources[: max(1, len(sources) - 1)])[::-1]
        if k == 0:
            kept.append((35.0, 30.0, (100.0, 100.0, 100.0)))
        x, y, fluxes = zip(*kept, strict=True)
        table = Table({"x": np.array(x) + 0.3, "y": np.array(y) - 0.2})
        for b, band in enumerate(BANDS):
            table[f"flux_{band}"] = [flux[b] for flux in fluxes]
        images = np.array([blob(*source) for source in kept], np.float32)
        found.append(Measured(table, images=images))
    return found


@pytest.fixture(scope="module")
def blends():
    return make_blends()


@pytest.fixture(scope="module")
def found(blends):
    return find(blends)


def marks(axes):
    """Positions of each kind of mark, by its label."""
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def brightest(axes):
    """x and y of the brightest pixel shown."""
    light = np.asarray(axes.images[0].get_array(), float).sum(axis=2)
    y, x = np.unravel_index(np.argmax(light), light.shape)
    return x, y


def test_marks_are_where_sources_are(blends, found):
    pyplot_before = "matplotlib.pyplot" in sys.modules
    other = [Measured(Table({"x": [1.0 + k], "y": [2.0]})) for k in range(3)]
    page = plot_blends(blends, {"ours": found, "theirs": other})
    assert len(page.axes) == 3
    for k, axes in enumerate(page.axes):
        seen = marks(axes)
        assert list(seen) == ["truth", "ours", "theirs"]
        np.testing.assert_allclose(seen["truth"], blends.positions(k))
        np.testing.assert_allclose(seen["ours"], found[k].positions)
        np.testing.assert_allclose(seen["theirs"], [[1 + k, 2]])
        assert axes.images[0].origin == "lower"
        assert axes.get_xlim() == (-0.5, 39.5)
        assert axes.get_ylim() == (-0.5, 33.5)
        assert np.asarray(axes.images[0].get_array()).shape == (*SHAPE, 3)
    titles = [axes.get_title() for axes in page.axes]
    assert titles == ["blend 0: 2 sources", "blend 1: 1 source", "blend 2: 3 sources"]
    words = [text.get_text() for text in page.axes[0].get_legend().get_texts()]
    assert words == ["truth", "ours", "theirs"]
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=40)
    assert content.getbuffer().nbytes > 5000
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_before


def test_one_list_of_results_has_no_name(blends, found):
    page = plot_blends(blends, found, numbers=[2])
    assert list(marks(page.axes[0])) == ["truth", "found"]
    assert page.axes[0].get_title() == "blend 2: 3 sources"


def test_zoom_and_bands(blends):
    page = plot_blends(blends, numbers=[1], limits=((5, 30), (2, 20)), bands="r")
    assert page.axes[0].get_xlim() == (5, 30)
    assert page.axes[0].get_ylim() == (2, 20)
    grey = np.asarray(page.axes[0].images[0].get_array())
    assert (grey == grey[..., :1]).all()
    square = plot_isolated(blends, numbers=[1], limits=(5, 30))
    assert all(axes.get_ylim() == (5, 30) for axes in square.axes)


@pytest.mark.parametrize("bands", ["r", "gri"])
@pytest.mark.parametrize("q", [0.1, 8.0])
def test_stretch_is_as_documented(q, bands):
    """Grey, by the formula, in standard deviations of the mean of the bands."""
    n = len(bands)
    image = np.linspace(0, 60, 7 * 9).reshape(1, 7, 9) * np.ones((n, 1, 1))
    variance = np.full(image.shape, 4.0 * n)
    paint = Painter(bands, variance, variance > 0, 2 * image[None], stretch=50.0, q=q)
    wanted = np.minimum(np.arcsinh(q * image[0] / 50) / (10 * np.arcsinh(q / 10)), 1)
    for colour in range(3):
        np.testing.assert_allclose(paint(2 * image)[..., colour], 255 * wanted, atol=1.01)


@pytest.mark.parametrize("q", [None, 0.5, 3.0])
def test_the_peak_is_white(blends, q):
    page = plot_isolated(blends, numbers=[2], q=q)
    peaks = [int(np.asarray(axes.images[0].get_array()).max()) for axes in page.axes[1:]]
    assert max(peaks) >= 250
    assert min(peaks) < 230


def test_colours_compare_between_blends(blends):
    """Alone in its blend, a blue source is as blue as beside a red one."""
    for k, at, sign in ((0, 1, 1), (0, 2, -1), (1, 1, 1)):
        page = plot_isolated(blends, numbers=[k])
        x, y = brightest(page.axes[at])
        red, _, blue = (int(c) for c in np.asarray(page.axes[at].images[0].get_array())[y, x])
        assert sign * (blue - red) > 60


def test_isolated_sources_stand_beside_their_blend(blends):
    page = plot_isolated(blends, numbers=[2, 0])
    assert len(page.axes) == 4 + 3
    for axes, k, source in zip(page.axes[1:4], [2] * 3, range(3), strict=True):
        np.testing.assert_allclose(brightest(axes), blends.positions(k)[source], atol=0.5)
    assert page.axes[4].get_title() == "blend 0"
    np.testing.assert_allclose(marks(page.axes[4])["truth"], blends.positions(0))
    magnitude = blends.truth["magnitude_r"][0]
    assert page.axes[5].get_title() == f"r = {magnitude:.2f}"


def test_deblended_stands_below_its_truth(blends, found):
    page = plot_deblended(blends, found, numbers=[0, 2])
    # Of blend 0: 1 + 2 above; below 1 + 2, the second not found, and one that is no source.
    above, below = page.axes[:3], page.axes[3:7]
    assert [axes.get_title()[:4] for axes in above] == ["blen", "true", "true"]
    magnitude = blends.truth["magnitude_r"][0]
    assert above[1].get_title() == f"true, r = {magnitude:.2f}"
    titles = [axes.get_title() for axes in below]
    zero_point = blends.survey.zero_points[1]
    assert titles == [
        "residual",
        f"found, r = {magnitude:.2f}",
        "not found",
        f"no source, r = {zero_point - 5:.2f}",
    ]
    assert brightest(above[1]) == brightest(below[1]) == (9, 12)
    assert not np.asarray(below[2].images[0].get_array()).any()
    assert brightest(below[3]) == (35, 30)
    np.testing.assert_allclose(marks(above[0])["found"], found[0].positions)
    left = blends.images[0] - found[0].images.sum(axis=0)
    wanted = (left / np.sqrt(blends.sky)[:, None, None]).sum(axis=0) / np.sqrt(3)
    np.testing.assert_allclose(below[0].images[0].get_array(), wanted, rtol=1e-4, atol=1e-5)
    # Of blend 2 the detections are in another order than the sources.
    assert len(page.axes) == 3 + 4 + 4 + 4
    for up, down in zip(page.axes[8:10], page.axes[12:14], strict=True):
        assert brightest(up) == brightest(down)
    assert page.axes[14].get_title() == "not found"


def test_matches_are_obeyed(blends, found):
    crossed = [
        Matching(np.array([1]), np.array([0]), np.array([0.0]), 2, 2),
        Matching(np.array([], int), np.array([], int), np.array([]), 1, 1),
        Matching(np.array([], int), np.array([], int), np.array([]), 3, 2),
    ]
    page = plot_deblended(blends, found, crossed, numbers=[0])
    titles = [axes.get_title().split(",")[0] for axes in page.axes[3:]]
    assert titles == ["residual", "not found", "found", "no source"]
    with pytest.raises(ValueError, match="`matches` needs one entry"):
        plot_deblended(blends, found, crossed[:2])
    with pytest.raises(ValueError, match=r"`matches\[0\]` is of 1 sources"):
        plot_deblended(blends, found, [crossed[1], *crossed[1:]], numbers=[0])


def test_sample(blends):
    page = plot_sample(blends, bins=6)
    heights = [[patch.get_height() for patch in axes.patches] for axes in page.axes]
    assert sum(heights[0]) == 6
    assert sum(heights[1]) == 5  # a star has no size
    assert heights[2] == [0, 1, 1, 1]
    middles = [patch.get_x() + patch.get_width() / 2 for patch in page.axes[2].patches]
    assert middles == [0, 1, 2, 3]
    assert page.axes[0].get_xlabel() == "magnitude in r (AB)"
    both = plot_sample({"all": blends, "few": blends.select([0])}, band="i")
    words = [text.get_text() for text in both.axes[0].get_legend().get_texts()]
    assert sorted(words) == ["all", "few"]
    assert both.axes[0].get_xlabel() == "magnitude in i (AB)"


def test_drawn_where_the_user_says(blends):
    page = Figure()
    axes = page.subplots(1, 3)
    assert plot_blends(blends, on=axes) is page
    assert len(page.axes) == 3
    assert marks(axes[1])["truth"].shape == (1, 2)
    one = Figure()
    parts = one.subfigures(1, 2)
    assert plot_isolated(blends, numbers=[1], on=parts[1]) is one
    assert len(parts[1].axes) == 2
    assert not parts[0].axes
    alone = Figure().subplots()
    assert plot_blends(blends, numbers=[1], on=alone) is alone.figure
    with pytest.raises(ValueError, match="`on` needs a figure, or 2 axes"):
        plot_blends(blends, numbers=[0, 1], on=axes)


def test_without_isolated_images_or_sources(blends):
    plain = replace(blends, isolated=None)
    assert len(plot_blends(plain).axes) == 3
    with pytest.raises(ValueError, match="`blends` needs isolated images"):
        plot_isolated(plain)
    empty = replace(
        blends,
        images=np.concatenate([blends.images, blends.images[:1]]),
        psf_index=np.zeros(4, int),
    )
    page = plot_blends(empty, numbers=[3])
    page.savefig(io.BytesIO(), format="png", dpi=30)
    assert page.axes[0].get_title() == "blend 3: 0 sources"
    assert not len(marks(page.axes[0])["truth"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"numbers": [3]}, "`numbers` must be"),
        ({"numbers": []}, "`numbers` must be"),
        ({"bands": "gz"}, "`bands` must be some of"),
        ({"limits": (20, 10)}, "`limits` need rising pairs"),
        ({"limits": (1, 2, 3)}, "`limits` needs one pair"),
        ({"q": 0.0}, "`q` must be positive"),
        ({"stretch": -1.0}, "`stretch` must be positive"),
        ({"measured": []}, "`measured` needs one entry"),
    ],
)
def test_wrong_arguments(blends, settings, words):
    with pytest.raises(ValueError, match=words):
        plot_blends(blends, **settings)


def test_results_without_images_cannot_be_shown(blends, found):
    bare = [Measured(m.catalog) for m in found]
    with pytest.raises(ValueError, match="`measured` needs deblended images"):
        plot_deblended(blends, bare)
    with pytest.raises(ValueError, match="`band` must be one of"):
        plot_sample(blends, band="z")
