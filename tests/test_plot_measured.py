"""Pictures of footprints and of what was measured: what they show is what they were given."""

import io
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.footprints import FootprintSet, HeavyFootprint, Peaks, SourceRecords, SpanSet
from diffdeblend.footprints.footprint import Footprint
from diffdeblend.panels import panels
from diffdeblend.plot_footprints import (
    plot_family,
    plot_footprint,
    plot_replacement,
    replacement_film,
)
from diffdeblend.plot_mask_planes import PLANE_COLOURS, plot_images, plot_mask_planes
from diffdeblend.plot_measured import (
    plot_aperture_minus_kron,
    plot_colour_colour,
    plot_colour_magnitude,
    plot_star_candidates,
)
from diffdeblend.replace_noise import replace_noise
from diffdeblend.stretch import normalisation

SHAPE = (40, 60)
MAGNITUDES = {
    "g": np.array([22.0, 23.0, 24.5, np.nan]),
    "r": np.array([21.5, 22.0, 23.5, 24.0]),
    "i": np.array([21.4, 21.5, 23.0, 23.0]),
}
ERRORS = {band: np.array([0.01, 0.02, 0.1, 0.2]) for band in MAGNITUDES}
STAR = np.array([True, False, False, True])


@pytest.fixture(scope="module")
def exposure():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.random.default_rng(0).normal(size=SHAPE)
    for x0, y0, peak in ((12, 9, 40.0), (18, 11, 30.0), (55, 36, 60.0)):
        image += peak * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 8)
    made = make_exposure(image, 1.0, GaussianPSF(np.array([3.5])), bands="r")
    return made.with_mask("DETECTED", image > 5).with_mask("EDGE", (x < 3) | (x > 56))


@pytest.fixture(scope="module")
def found(exposure):
    peaks = Peaks(np.array([12, 18, 55]), np.array([9, 11, 36]), np.array([40.0, 30.0, 60.0]))
    return FootprintSet.from_mask(np.asarray(exposure.flag("DETECTED")[0]), peaks)


@pytest.fixture(scope="module")
def records(exposure, found):
    """The blend, in halves."""
    table = SourceRecords.from_footprints(found)
    mother = int(np.argmax(table.n_peaks))
    own = table.footprints[mother]
    image = np.asarray(exposure.image[0])
    left = SpanSet.from_box((0, 15, 0, SHAPE[0]))
    children = [
        HeavyFootprint.from_arrays(Footprint(spans, own.peaks[k : k + 1]), image)
        for k, spans in enumerate((own.spans.intersect(left), own.spans.subtract(left)))
    ]
    return table.with_children([int(table.id[mother])] * 2, children)


def pixels_of(axes, number=0) -> np.ndarray:
    """Of an image on axes; NaN where it is masked."""
    return np.ma.filled(np.ma.asarray(axes.images[number].get_array(), float), np.nan)


def drawn(page):
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=70)
    return content.getbuffer().nbytes > 2000


def test_grey_goes_from_the_sky_up():
    image = np.random.default_rng(1).normal(100.0, 2.0, (60, 70))
    image[3, 4], image[5, 6] = np.nan, 1e5
    norm = normalisation(image)
    assert 90 < norm.vmin < 100 < norm.vmax < 120
    assert normalisation(image, "linear", "minmax").vmax == 1e5
    # A quarter of the way up in light is more than half of it in grey.
    wide = normalisation(np.array([0.0, 100.0]), "asinh", "minmax")
    assert float(wide(25.0)) > 0.5
    flat = normalisation(np.ones((4, 4)), "sqrt", "minmax")
    assert flat.vmin < 1 < flat.vmax
    with pytest.raises(ValueError, match="`stretch` must be one of asinh"):
        normalisation(image, "cube")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`interval` must be one of zscale"):
        normalisation(image, interval="all")  # type: ignore[arg-type]


def test_planes_lie_over_the_image(exposure, found, records):
    (axes,) = panels(None, [1], (4, 3))
    page = plot_mask_planes(exposure, peaks=found, centres=records, on=axes)
    sky, *layers = axes.images
    np.testing.assert_allclose(np.asarray(sky.get_array()), exposure.image[0])
    by_name = {str(layer.get_label()): np.asarray(layer.get_array()) for layer in layers}
    assert set(by_name) == {"DETECTED", "EDGE"}
    for name, layer in by_name.items():
        np.testing.assert_array_equal(layer[..., 3] > 0, np.asarray(exposure.flag(name)[0]))
        np.testing.assert_allclose(layer[0, 0, :3], to_rgb(PLANE_COLOURS[name]))
    crosses, circles = (np.asarray(one.get_offsets()) for one in axes.collections)
    assert {tuple(place) for place in crosses} == {(12, 9), (18, 11), (55, 36)}
    # The blend's children, and the source that is alone.
    assert {tuple(place) for place in circles} == {(12, 9), (18, 11), (55, 36)}
    assert len(circles) == 3
    assert drawn(page)


def test_a_box_shows_its_pixels(exposure):
    (axes,) = panels(None, [1], (4, 3))
    plot_mask_planes(exposure, planes={"EDGE": "black"}, box=(50, 99, 10, 30), on=axes)
    np.testing.assert_allclose(pixels_of(axes), exposure.image[0, 10:30, 50:])
    assert pixels_of(axes, 1)[0, 8, 3] == 0.4
    assert axes.get_xlim() == (49.5, 59.5)
    assert axes.get_ylim() == (9.5, 29.5)
    page = plot_images({"a": np.eye(5), "b": np.ones((6, 4))}, box=(1, 3, 0, 2))
    assert [one.get_title() for one in page.axes] == ["a", "b"]
    np.testing.assert_array_equal(pixels_of(page.axes[0]), [[0, 0], [1, 0]])
    with pytest.raises(ValueError, match="has no pixel of the image"):
        plot_images({"a": np.eye(5)}, box=(5, 9, 0, 2))
    with pytest.raises(ValueError, match="`planes` must be among the mask planes"):
        plot_mask_planes(exposure, planes=["STREAK"])
    with pytest.raises(ValueError, match="`opacity` must be from 0 to 1"):
        plot_mask_planes(exposure, opacity=2)


def test_a_footprint_shows_its_pixels_and_peaks(exposure, found):
    blend = found[int(np.argmax(found.n_peaks))]
    image = np.asarray(exposure.image[0])
    page = plot_footprint(blend, image)
    shown = pixels_of(page.axes[0])
    assert np.isfinite(shown).sum() == blend.area
    x0, x1, y0, y1 = blend.bbox
    np.testing.assert_allclose(np.nanmax(shown), image[y0:y1, x0:x1].max())
    assert page.axes[0].get_title() == f"{blend.area} pixels, 2 peaks"
    assert len(np.asarray(page.axes[0].collections[0].get_offsets())) == 2
    heavy = HeavyFootprint.from_exposure(blend, exposure)
    same = pixels_of(plot_footprint(heavy).axes[0])
    np.testing.assert_array_equal(same, shown)
    gone = blend.erode(30)
    with pytest.raises(ValueError, match="has no pixels"):
        plot_footprint(gone)
    assert not plot_footprint(gone, box=blend.bbox).axes[0].collections


def test_mug_shots_add_up_to_the_parent(exposure, records):
    mother = int(records.id[np.argmax(records.n_child)])
    page = plot_family(records, mother, np.asarray(exposure.image[0]))
    whole, *children = (pixels_of(axes) for axes in page.axes)
    assert len(children) == 2
    # These children share no pixel.
    np.testing.assert_allclose(np.nansum(children, axis=0), np.nan_to_num(whole), atol=1e-5)
    assert drawn(page)
    single = int(records.id[np.flatnonzero((records.n_child == 0) & (records.parent == 0))[0]])
    with pytest.raises(ValueError, match=f"{single} has none"):
        plot_family(records, single, np.asarray(exposure.image[0]))


def test_crumbs_are_left_out_of_mug_shots(exposure, records):
    """Of pixels that are mostly another's only those above the noise are shown."""
    mother = int(records.id[np.argmax(records.n_child)])
    row = int(np.flatnonzero(records.parent == mother)[0])
    child = records.footprints[row]
    footprints = list(records.footprints)
    footprints[row] = replace(child, image=0.05 * child.image)
    image = np.asarray(exposure.image[0])
    page = plot_family(replace(records, footprints=tuple(footprints)), mother, image)
    noise = 1.4826 * np.median(np.abs(image - np.median(image)))
    shown = pixels_of(page.axes[1])
    kept = np.sort(shown[np.isfinite(shown)])
    wanted = 0.05 * child.image
    np.testing.assert_allclose(kept, np.sort(wanted[np.abs(wanted) >= noise]), rtol=1e-5)
    assert 0 < kept.size < wanted.size


def test_a_film_puts_one_source_in_after_another(exposure, records):
    replacer = replace_noise(exposure, records)
    ids = [int(one) for one in records.id[records.parent > 0]]
    page = plot_replacement(replacer, ids)
    titles = [axes.get_title() for axes in page.axes]
    assert titles == ["the image", "all replaced by noise", *(f"source {id}" for id in ids)]
    frames = [pixels_of(axes) for axes in page.axes]
    assert frames[0].max() > 30 > 8 > frames[1].max()
    inserted = np.asarray(replacer.insert(ids[0]).exposure.image[0])
    box = plot_replacement(replacer, ids[:1], box=(0, 60, 0, 40))
    np.testing.assert_allclose(pixels_of(box.axes[2]), inserted)
    film = replacement_film(replacer, ids)
    html = film.to_jshtml(fps=2)
    assert html.count("data:image/png;base64") == 4


def test_colours_of_stars_are_red():
    (axes,) = panels(None, [1], (4, 3))
    page = plot_colour_colour(MAGNITUDES, STAR, ERRORS, on=axes)
    galaxies, stars = (one for one in axes.containers if isinstance(one, ErrorbarContainer))
    # The last has no g.
    np.testing.assert_allclose(stars[0].get_xydata(), [[0.5, 0.1]])
    np.testing.assert_allclose(galaxies[0].get_xydata(), [[1.0, 0.5], [1.0, 0.5]])
    assert stars[0].get_color() == "#d62728"
    (start, end) = galaxies[2][0].get_segments()[1]
    np.testing.assert_allclose(end[0] - start[0], 2 * np.hypot(0.1, 0.1))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("g - r", "r - i")
    assert drawn(page)
    with pytest.raises(ValueError, match="three or four"):
        plot_colour_colour(MAGNITUDES, STAR, bands=("g", "r"))
    with pytest.raises(ValueError, match="'z'"):
        plot_colour_colour(MAGNITUDES, STAR, bands=("g", "r", "z"))
    with pytest.raises(ValueError, match="`is_star` needs one boolean a source, 4"):
        plot_colour_colour(MAGNITUDES, STAR[:2])


def test_bright_is_above():
    (axes,) = panels(None, [1], (4, 3))
    page = plot_colour_magnitude(MAGNITUDES, STAR, ERRORS, colour=("r", "i"), on=axes)
    low, high = axes.get_ylim()
    assert low > high
    _, stars = axes.containers
    np.testing.assert_allclose(stars[0].get_xydata(), [[0.1, 21.4], [1.0, 23.0]])
    assert drawn(page)


def test_kron_magnitudes_are_below_those_of_apertures():
    (axes,) = panels(None, [1], (4, 3))
    kron = MAGNITUDES["r"] + 0.05
    page = plot_aperture_minus_kron(MAGNITUDES["r"], kron, STAR, expected=-0.05, on=axes)
    for points in axes.containers:
        np.testing.assert_allclose(points[0].get_ydata(), -0.05)
    assert drawn(page)
    assert drawn(plot_aperture_minus_kron(MAGNITUDES["r"], kron, error=ERRORS["r"]))
    with pytest.raises(ValueError, match="`kron` needs one value a source, 4"):
        plot_aperture_minus_kron(MAGNITUDES["r"], kron[:3])


def test_candidates_are_told_from_those_used():
    (axes,) = panels(None, [1], (4, 3))
    used, reserved = STAR, np.array([False, True, False, False])
    xx = np.array([4.0, 4.2, 9.0, 4.1])
    plot_star_candidates(MAGNITUDES["r"], xx, xx, used | reserved, used, reserved, on=axes)
    others, unused, mine, kept = (np.asarray(one.get_offsets()) for one in axes.collections)
    np.testing.assert_allclose(others, [[23.5, 3.0]])
    assert len(unused) == 0
    np.testing.assert_allclose(mine[:, 1], np.sqrt([4.0, 4.1]))
    np.testing.assert_allclose(kept, [[22.0, np.sqrt(4.2)]])
