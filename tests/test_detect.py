"""The one call from an image to sources."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from guide_image import hundred_gaussians
from quick import hasty, one_size

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.batch import cut_blends
from diffdeblend.detect import (
    Dbscan,
    Denclue,
    GaussianKernel,
    LogWatershed,
    MeshSky,
    MultiThreshold,
    NoSky,
    PSFKernel,
    SkewnessSky,
    Threshold,
    detect,
    detect_batch,
)
from diffdeblend.segment import NoDetectionsWarning


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


GUIDE = {
    "kernel": GaussianKernel(3.0, 5),
    "sky": MeshSky(50, estimator="median"),
    "segmentation": Threshold(10),
    "deblending": MultiThreshold(10),
}


def exposure_of(image, **settings):
    bands = 1 if image.ndim == 2 else len(image)
    return make_exposure(image, 4.0, GaussianPSF([3.0] * bands), **settings)


@pytest.fixture(scope="module")
def guide():
    return detect(exposure_of(hundred_gaussians("doc")), **GUIDE)


def test_the_guide_in_one_call(guide):
    assert guide.parents.n_labels == 87
    assert guide.n_sources == len(guide.catalog) == 94
    assert guide.catalog["kron_flux"][[0, 93]] == pytest.approx([509.74, 942.22], abs=0.05)
    assert guide.positions[0] == pytest.approx([235.3128, 1.4483], abs=1e-3)
    assert np.median(guide.background) == pytest.approx(5.17, abs=0.01)
    assert guide.settings["segmentation"] == {
        "name": "Threshold",
        "n_pixels": 10,
        "connectivity": 8,
        "inclusive": False,
    }


def test_detections_are_cut_as_they_are(guide):
    exposure = exposure_of(hundred_gaussians("doc"))
    blends = cut_blends(exposure, guide)
    assert sorted(np.concatenate([blend.rows for blend in blends])) == list(range(94))


def test_a_sloping_sky_that_was_found_links_nothing(guide):
    image, slope = hundred_gaussians("doc"), np.linspace(-10, 10, 500)
    (sky,) = guide.skies
    steep = replace(guide, skies=(sky._replace(level=sky.level + slope.astype(np.float32)),))
    level = cut_blends(exposure_of(image), guide)
    blends = cut_blends(exposure_of(image + slope), steep)
    assert [blend.rows.tolist() for blend in blends] == [blend.rows.tolist() for blend in level]
    assert [blend.shape for blend in blends] == [blend.shape for blend in level]
    # With one level for all of the image, much of it is above.
    assert len(cut_blends(exposure_of(image + slope), steep.positions)) < len(blends)


def test_errors_follow_the_gain(guide):
    photons = detect(exposure_of(hundred_gaussians("doc")), **GUIDE, gain=0.1)
    # Ten counts of photon noise for each count of light.
    rms = np.median(guide.background_rms)
    area = np.asarray(photons.catalog["area"], float)
    light = np.asarray(photons.catalog["segment_flux"], float)
    # Negative pixels have no photons, so that this is a lower limit.
    least = np.sqrt(area * rms**2 + 10 * light)
    assert (np.asarray(photons.catalog["segment_flux_err"]) > 0.98 * least).all()
    assert np.asarray(guide.catalog["segment_flux_err"]) == pytest.approx(2 * np.sqrt(area))


@pytest.fixture(scope="module")
def bands():
    """Three bands of unequal depth; a source in the middle of the reddest alone, a WCS, a hole."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:90, :120]

    def star(x0, y0, flux):
        return flux * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 1.6**2) / (2 * np.pi * 1.6**2)

    noise = np.array([1.0, 2.0, 4.0])
    image = rng.normal(size=(3, 90, 120)) * noise[:, None, None] + 10
    image += star(30.3, 40.6, 1.0) * np.array([500.0, 800.0, 900.0])[:, None, None]
    image[2] += star(80.2, 55.1, 2500.0)
    image[1, 10:14, 100:110] = np.nan
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt = -0.2 / 3600, 0.2 / 3600
    wcs.wcs.crpix, wcs.wcs.crval = (60, 45), (150.0, 2.0)
    return make_exposure(
        image,
        noise**2,
        GaussianPSF([3.77] * 3),
        bands=list("gri"),
        wcs=wcs,
        unit="nJy",
    )


def test_several_bands_are_searched_as_one(bands):
    found = detect(bands, n_sigma=2.5, sky=MeshSky(45))
    table = found.catalog
    near = np.hypot(*(found.positions[:, None] - [[30.3, 40.6], [80.2, 55.1]]).transpose(2, 0, 1))
    rows = near.argmin(axis=0)
    assert near.min(axis=0).max() < 0.4
    flux = np.stack([table[f"kron_flux_{b}"].value for b in "gri"], axis=1)[rows]
    error = np.stack([table[f"kron_flux_err_{b}"].value for b in "gri"], axis=1)[rows]
    # Gaussian light: Kron apertures hold nearly all of it.
    truth = np.array([[500, 800, 900], [0, 0, 2500]])
    assert (np.abs(flux - 0.97 * truth) < 4 * error + 0.04 * truth).all()
    assert table["kron_flux_g"].unit == "nJy"
    # 0.2 arcseconds a pixel, east to the left.
    east = (table["ra"][rows[0]].value - 150.0) * 3600
    assert east == pytest.approx(-0.2 * (found.positions[rows[0], 0] - 59), abs=0.01)
    assert (np.asarray(table["aperture_flux_5_i"].value)[rows] > 0.9 * truth[:, 2]).all()
    assert all(table[name].info.description for name in table.colnames)


def test_a_flaw_in_one_band_hides_nothing(bands):
    mask = np.zeros(bands.image.shape, bool)
    mask[1, 36:46, 26:36] = True
    flawed = bands.with_mask("BAD", mask)
    for kernel in (GaussianKernel(), PSFKernel()):
        found = detect(flawed, n_sigma=5, kernel=kernel, sky=MeshSky(45), apertures=())
        distance = np.hypot(*(found.positions - [30.3, 40.6]).T)
        assert distance.min() < 0.4
        row = found.catalog[distance.argmin()]
        assert row["kron_flux_g"].value == pytest.approx(500, rel=0.2)
        # Of 800 what is left at the edges, or nothing.
        assert not row["segment_flux_r"].value > 80


def test_the_matched_filter_counts_in_its_own_noise(bands):
    found = detect(bands, n_sigma=5, kernel=PSFKernel(), sky=MeshSky(45), deblending=None)
    assert found.n_sources == 2
    empty = bands.image.at[:].set(10 + np.random.default_rng(8).normal(size=bands.image.shape))
    quiet = make_exposure(np.asarray(empty), 1.0, bands.psf)
    filtered = detect(
        quiet,
        n_sigma=1,
        kernel=PSFKernel(),
        sky=MeshSky(45),
        segmentation=Threshold(1),
        deblending=None,
    )
    significance = (filtered.smoothed / filtered.threshold)[15:-15, 15:-15]
    assert significance.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "methods",
    [
        {"sky": SkewnessSky(), "segmentation": Dbscan(), "deblending": Denclue()},
        {"deblending": LogWatershed(), "sky": MeshSky(64)},
        {"deblending": None, "kernel": None, "sky": NoSky()},
    ],
    ids=["asterism", "laplacian", "none"],
)
def test_every_step_can_be_another(methods):
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:64, :80]
    image = 3 * rng.normal(size=(64, 80))
    for x0, y0 in ((30.0, 30.0), (37.0, 33.0), (62.0, 15.0)):
        image += 150 * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 2.2**2)
    if not isinstance(methods.get("sky"), NoSky):
        image += 20
    found = detect(exposure_of(image), **{"kernel": None, "n_sigma": 5, **methods})
    distance = np.hypot(*(found.positions[:, None] - [[62.0, 15.0]]).transpose(2, 0, 1))
    assert distance.min() < 0.5
    if methods["deblending"] is None:
        assert found.labels is found.parents
    else:
        pair = np.hypot(
            *(found.positions[:, None] - [[30.0, 30.0], [37.0, 33.0]]).transpose(2, 0, 1)
        )
        assert (pair.min(axis=0) < 1.5).all()


def test_nothing_is_a_result_too():
    image = np.random.default_rng(0).normal(size=(48, 60))
    with pytest.warns(NoDetectionsWarning):
        found = detect(exposure_of(image), n_sigma=20)
    assert found.n_sources == len(found.catalog) == 0
    assert found.positions.shape == (0, 2)
    assert "kron_flux" in found.catalog.colnames
    assert cut_blends(exposure_of(image), found) == []


def test_masked_pixels_hold_no_source():
    image = np.random.default_rng(0).normal(size=(48, 60))
    image[20:24, 30:34] += 1000.0
    image[10, 10] = np.nan
    mask = np.zeros(image.shape, bool)
    mask[18:26, 28:36] = True
    with pytest.warns(NoDetectionsWarning):
        found = detect(exposure_of(image, mask=mask), n_sigma=5, sky=MeshSky(24))
    assert found.n_sources == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_sigma": 0}, "`n_sigma`"),
        ({"n_sigma": float("nan")}, "`n_sigma`"),
        ({"kernel": np.ones((4, 4))}, "`kernel`"),
        ({"apertures": (-1.0,)}, "`apertures`"),
        ({"segmentation": Threshold(0)}, "`n_pixels`"),
        ({"deblending": MultiThreshold(contrast=2)}, "`contrast`"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    image = np.random.default_rng(0).normal(size=(48, 60))
    image[20:24, 30:34] += 1000.0
    with pytest.raises(ValueError, match=message):
        detect(exposure_of(image), **settings)


def test_a_batch_is_its_stamps_alone():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:48, :56]
    stack = rng.normal(size=(3, 48, 56)).astype(np.float32)
    for stamp, (x0, y0) in enumerate(((20.0, 20.0), (30.0, 25.0))):
        stack[stamp] += 90 * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 2**2)
        stack[stamp] += 60 * np.exp(-0.5 * ((x - x0 - 8) ** 2 + (y - y0) ** 2) / 2**2)
    found = detect_batch(stack, box_size=None, n_sigma=4)
    assert found.n_sources.tolist() == [2, 2, 0]
    table = found.catalog.table()
    assert table["stamp"].tolist() == [0, 0, 1, 1]
    assert np.sort(table["x_centroid"][:2]) == pytest.approx([20, 28], abs=0.5)
    for stamp in range(2):
        one = detect(
            exposure_of(stack[stamp]), n_sigma=4, sky=NoSky(), kernel=GaussianKernel(), apertures=()
        )
        np.testing.assert_array_equal(one.labels.data, found.labels[stamp])
        rows = table["stamp"] == stamp
        np.testing.assert_allclose(one.catalog["kron_flux"], table["kron_flux"][rows], rtol=1e-5)
    with pytest.raises(ValueError, match="`images`"):
        detect_batch(stack[0])
