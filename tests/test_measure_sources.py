"""All measurements of all sources of an image at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import FootprintSet
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.quantities import (
    STANDARD,
    MeasureApertures,
    MeasurePixelFlags,
    cut_stamps,
    image_planes,
    measure_sources,
)
from diffdeblend.quantities.centroid import hold_centroid
from diffdeblend.quantities.psf_flux import measure_psf_flux

SHAPE = (150, 170)
SIGMA = 1.7
PLANES = (
    "BAD",
    "SAT",
    "INTRP",
    "CR",
    "EDGE",
    "DETECTED",
    "DETECTED_NEGATIVE",
    "SUSPECT",
    "NO_DATA",
)


def star(shape, x, y, sigma=SIGMA):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    square = (columns - x) ** 2 + (rows - y) ** 2
    return np.exp(-0.5 * square / sigma**2) / (2 * np.pi * sigma**2)


PSF = star((25, 25), 12, 12)


def field(seed=1, spacing=30, flux=500.0):
    """Stars on a grid, off its points by a fraction of a pixel, in noise of 1; and their places."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=SHAPE)
    x, y = np.meshgrid(np.arange(20, SHAPE[1] - 15, spacing), np.arange(20, SHAPE[0] - 15, spacing))
    places = np.stack([x.ravel(), y.ravel()], 1) + rng.uniform(-0.45, 0.45, (x.size, 2))
    for place in places:
        image += flux * star(SHAPE, *place)
    return image.astype(np.float32), places


def flags(mask, x, y, **extra):
    """Pixel flags of one source at (x, y) on a mask of bits."""
    planes = image_planes(
        np.zeros(mask.shape), np.ones(mask.shape), mask, planes=PLANES, pad=16, **extra
    )
    labels = np.zeros(mask.shape, int)
    labels[3:8, 4:10] = 1
    stamp = cut_stamps(planes, [6.0], [5.0], PSF, 16, labels=labels, label=[1])
    one = jax.tree.map(lambda v: v if v.shape == PSF.shape else v[0], stamp)
    place = {"x": jnp.float32(x - one.x0), "y": jnp.float32(y - one.y0), "flag": jnp.array(False)}
    found = MeasurePixelFlags()(one, {"centroid": place})
    return {name.removeprefix("flag_") for name, value in found.items() if bool(value)}


@pytest.mark.parametrize(
    ("pixels", "place", "wanted"),
    [
        ({}, (6, 5), set()),
        ({(5, 6): "SAT"}, (6, 5), {"saturated", "saturated_center"}),
        ({(6, 7): "CR"}, (6, 5), {"cr", "cr_center"}),
        # Within the footprint, not within three pixels of the centre.
        ({(7, 9): "INTRP"}, (6, 5), {"interpolated"}),
        # On neither.
        ({(0, 0): "BAD"}, (6, 5), set()),
        ({(7, 9): "SUSPECT", (4, 5): "BAD"}, (6, 5), {"suspect", "bad", "bad_center"}),
        # Half goes up.
        ({(5, 8): "NO_DATA"}, (6.5, 5), {"nodata", "nodata_center"}),
        ({(5, 8): "NO_DATA"}, (6.49, 5), {"nodata"}),
        ({}, (-0.6, 5), {"offimage", "edge", "edge_center"}),
        ({}, (-0.5, 5), set()),
        ({}, (np.nan, 5), {"flag"}),
    ],
)
def test_pixel_flags(pixels, place, wanted):
    mask = np.zeros((12, 14), np.int32)
    for at, plane in pixels.items():
        mask[at] |= 1 << PLANES.index(plane)
    assert flags(mask, *place) == wanted


def test_all_nine_pixels_and_the_corner_of_the_image():
    mask = np.zeros((12, 14), np.int32)
    mask[4:7, 5:8] = 1 << PLANES.index("SAT")
    assert flags(mask, 6, 5) == {"saturated", "saturated_center", "saturated_center_all"}
    # Of the nine only four are on the image.
    mask = np.zeros((12, 14), np.int32)
    mask[:2, :2] = 1 << PLANES.index("EDGE")
    assert flags(mask, 0, 0) == {"edge_center", "edge_center_all"}


@pytest.fixture(scope="module")
def stars():
    """A field, its truth and the whole of its measurements, on stamps of one size."""
    image, places = field()
    image[:3, :40] = np.nan
    exposure = make_exposure(image, 1.0, psf=PSF)
    found = measure_sources(exposure, np.floor(places + 0.5), sizes=(32,))
    return exposure, places, found


def test_every_standard_measurement_of_a_field_of_stars(stars):
    _, places, found = stars
    n = len(places)
    assert {len(column) for column in found.values()} == {n}
    assert not any(name.endswith("_reach") for name in found)
    for k, axis in enumerate("xy"):
        pull = (found[f"centroid_{axis}"] - places[:, k]) / found[f"centroid_{axis}_err"]
        assert np.abs(pull).max() < 5
        assert 0.6 < pull.std() < 1.5
    for name in ("psf_flux", "gaussian_flux", "aperture_flux_6", "aperture_flux_9"):
        pull = (found[name] - 500) / found[f"{name}_err"]
        assert abs(pull.mean()) < 1, name
        assert 0.6 < pull.std() < 1.5, name
    np.testing.assert_allclose(found["kron_flux"], 500 * 0.9926, rtol=0.2)
    np.testing.assert_allclose(found["shape_radius"], SIGMA, rtol=0.15)
    np.testing.assert_allclose(found["psf_shape_xx"], SIGMA**2, rtol=1e-3)
    np.testing.assert_allclose(found["local_background_value"], 0, atol=0.3)
    for name in ("centroid", "shape", "psf", "kron", "pixel", "local_background"):
        assert not found[f"{name}_flag"].any(), name


def test_a_second_call_compiles_nothing(stars, compilations):
    exposure, places, found = stars
    fewer = measure_sources(exposure, np.floor(places[:7] + 0.5), sizes=(32,))
    assert not compilations
    for name, values in fewer.items():
        np.testing.assert_array_equal(values, found[name][:7])


def test_sources_at_borders_off_the_image_and_nowhere(stars):
    exposure, _, _ = stars
    places = [[0, 70], [169, 149], [-30, 5], [np.nan, 4], [20, 1]]
    found = measure_sources(exposure, places, sizes=(32,))
    assert found["psf_flag_edge"][[0, 1]].all()
    assert found["aperture_flag_6"].all()
    assert np.isnan(found["aperture_flux_6"][[0, 1, 2, 3]]).all()
    assert np.isnan(found["psf_flux"][[2, 3]]).all()
    assert found["pixel_flag_offimage"][2]
    # All pixels about it are unknown.
    assert found["centroid_flag"][4]
    assert found["psf_flag"][4]
    none = measure_sources(exposure, np.zeros((0, 2)), sizes=(32,))
    assert set(none) == set(found)
    assert len(none["psf_flux"]) == 0


def test_each_source_alone_as_records_with_neighbours():
    image, places = field(seed=4, spacing=30)
    # A bright neighbour of each, eight pixels off.
    for place in places:
        image += 3000 * star(SHAPE, place[0] + 8, place[1])
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    both = np.concatenate([places, places + np.array([8.0, 0.0])])
    square = [(columns - x) ** 2 + (rows - y) ** 2 for x, y in both]
    nearest = np.argmin(square, 0)
    labels = np.where(np.min(square, 0) < 81, nearest + 1, 0)
    exposure = make_exposure(image, 1.0, psf=PSF)
    records = SourceRecords.from_footprints(FootprintSet.from_labels(labels))
    few = {k: v for k, v in STANDARD.items() if k in ("psf_shape", "centroid")}
    few["aperture"] = MeasureApertures((9.0,))
    alone = measure_sources(exposure, records, measurements=few, sizes=(32,))
    bare = measure_sources(exposure, np.floor(both + 0.5), measurements=few, sizes=(32,))
    n = len(places)
    np.testing.assert_array_equal(alone["id"], np.arange(2 * n) + 1)
    # The neighbour's light is gone, but for what is within the own footprint.
    assert np.median(bare["aperture_flux_9"][:n]) > 2000
    assert np.median(alone["aperture_flux_9"][:n]) == pytest.approx(500, abs=80)
    np.testing.assert_allclose(alone["aperture_flux_9"][n:], 3000, rtol=0.06)


def test_measurements_of_ones_own_given_columns_and_larger_stamps(stars):
    exposure, places, _ = stars

    def brightest(stamp, found):
        wide = stamp.image.shape[0] > 32
        asked = jnp.where(found["reference"]["wants"] > 0, 20.0, 0.0)
        return {"value": jnp.max(stamp.image), "wide": jnp.array(wide), "reach": asked}

    chosen = {"centroid": hold_centroid, "psf": measure_psf_flux, "mine": brightest}
    wants = (np.arange(len(places)) % 3 == 0).astype(float)
    given = {"reference": {"wants": wants, "x": places[:, 0]}}
    peaks = np.floor(places + 0.5)
    found = measure_sources(
        exposure, peaks, measurements=chosen, places=places, given=given, sizes=(32, 64)
    )
    np.testing.assert_allclose(found["centroid_x"], places[:, 0], atol=1e-5)
    np.testing.assert_array_equal(found["mine_wide"], wants > 0)
    pull = (found["psf_flux"] - 500) / found["psf_flux_err"]
    assert 0.6 < pull.std() < 1.5
    # What must be on the stamp for a measurement's own sake.
    circles = {"centroid": hold_centroid, "aperture": MeasureApertures((17.0,))}
    wide = measure_sources(exposure, places, measurements=circles, sizes=(32, 64))
    assert np.isfinite(wide["aperture_flux_17"]).sum() > len(places) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (64, 32)}, "`sizes`"),
        ({"sizes": ()}, "`sizes`"),
        ({"band": "z"}, "`name`|`band`"),
        ({"places": np.zeros((3, 2))}, "`places`"),
        ({"given": {"reference": {"x": np.zeros(3)}}}, "`given`"),
        ({"records": np.zeros(4)}, "`records`"),
    ],
)
def test_what_cannot_be_is_refused(stars, options, message):
    given = {"records": np.full((2, 2), 50.0)} | options
    with pytest.raises(ValueError, match=message):
        measure_sources(stars[0], **given)
