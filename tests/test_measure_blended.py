"""Sources under a PSF that varies, children of blends, and Kron fluxes beside the catalogues'."""

import warnings
from typing import Any

import numpy as np
import pytest
from quick import hasty, one_size
from scipy.ndimage import label

from diffdeblend.allocate import deblend_footprints
from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import FootprintSet, HeavyFootprint, Peaks
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.measure import SourceCatalog
from diffdeblend.psf import PSFBasis
from diffdeblend.quantities import STANDARD, MeasureApertures, measure_sources
from diffdeblend.segment import LabelImage

SHAPE = (190, 250)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
NARROW, WIDE = 1.4, 2.3
FLUX = 2000.0
# Few, and one program for all tests of points.
POINTS = {name: STANDARD[name] for name in ("psf_shape", "centroid", "psf")}
POINTS["aperture"] = MeasureApertures((13.0,))


def light(x, y, xx, yy, xy=0.0, shape=SHAPE):
    """A Gaussian of unit flux."""
    dx, dy = np.arange(shape[1]) - x, (np.arange(shape[0]) - y)[:, None]
    det = xx * yy - xy**2
    square = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det
    return np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(det))


def point(x, y, sigma, shape=SHAPE):
    return light(x, y, sigma**2, sigma**2, shape=shape)


def grid(spacing, rng):
    """Places near the points of a grid, off them by a fraction of a pixel."""
    x, y = np.meshgrid(np.arange(20, SHAPE[1] - 15, spacing), np.arange(20, SHAPE[0] - 15, spacing))
    return np.stack([x.ravel(), y.ravel()], 1) + rng.uniform(-0.45, 0.45, (x.size, 2))


@pytest.fixture(autouse=True)
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


def share(x):
    """Of the wide PSF in that at a place: from none on the left to all on the right."""
    return x / (SHAPE[1] - 1)


def psf_basis(slope=0.5):
    images = [point(14, 14, sigma, (29, 29)) for sigma in (NARROW, WIDE)]
    basis = np.stack([images[0], images[1] - images[0]])[None]
    return PSFBasis(basis, np.array([[[1, 0, 0], [0.5, slope, 0]]]), SHAPE, 1)


def star(x, y):
    return (1 - share(x)) * point(x, y, NARROW) + share(x) * point(x, y, WIDE)


def test_the_psf_is_that_of_the_place():
    rng = np.random.default_rng(1)
    places = grid(25, rng)
    image = rng.normal(size=SHAPE) + FLUX * sum(star(*place) for place in places)
    exposure = make_exposure(image, 1.0, psf=psf_basis())
    found = measure_sources(exposure, np.floor(places + 0.5), measurements=POINTS, sizes=(32,))
    pull = (found["psf_flux"] - FLUX) / found["psf_flux_err"]
    assert abs(pull.mean()) < 0.5
    assert 0.7 < pull.std() < 1.3
    # The noise-equivalent area of two Gaussians on one another, in closed form.
    t = share(places[:, 0])
    square = (1 - t) ** 2 / NARROW**2 + t**2 / WIDE**2
    square += 4 * t * (1 - t) / (NARROW**2 + WIDE**2)
    np.testing.assert_allclose(found["psf_area"], 4 * np.pi / square, rtol=0.01)
    assert (np.diff(found["psf_shape_radius"].reshape(-1, 9), axis=1) > 0).all()
    # With that of the middle everywhere the flux hangs on the place.
    same = make_exposure(image, 1.0, psf=psf_basis(slope=0.0))
    wrong = measure_sources(same, np.floor(places + 0.5), measurements=POINTS, sizes=(32,))
    ratio = wrong["psf_flux"] / FLUX
    assert np.median(ratio[t < 0.15]) > 1.1
    assert np.median(ratio[t > 0.85]) < 0.9


def test_children_of_blends_have_the_light_of_their_stars():
    rng = np.random.default_rng(2)
    first = grid(30, rng)
    angle, apart = rng.uniform(0, 2 * np.pi, len(first)), rng.uniform(7, 9, len(first))
    second = first + apart[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    places = np.concatenate([first, second])
    flux = FLUX * np.repeat([1.0, 0.5], len(first))
    clean = np.sum([f * star(*place) for f, place in zip(flux, places, strict=True)], axis=0)
    exposure = make_exposure(rng.normal(size=SHAPE) + clean, 1.0, psf=psf_basis())
    x, y = np.floor(places + 0.5).astype(np.int32).T
    footprints = FootprintSet.from_mask(clean > 0.5, Peaks(x, y, clean[y, x]))
    records = deblend_footprints(exposure, SourceRecords.from_footprints(footprints))
    found = measure_sources(exposure, records, measurements=POINTS, sizes=(32,))
    np.testing.assert_array_equal(found["id"], records.id)
    child = records.parent > 0
    assert child.sum() > len(places) * 0.8
    assert all(isinstance(records.footprints[k], HeavyFootprint) for k in np.flatnonzero(child))
    near = np.hypot(records.peak_x[:, None] - places[:, 0], records.peak_y[:, None] - places[:, 1])
    own, true = near.argmin(1), flux[near.argmin(1)]
    assert near.min(1).max() < 2
    ratio = found["psf_flux"] / true
    assert abs(np.median(ratio[child]) - 1) < 0.01
    assert np.std(ratio[child]) < 0.04
    pull = (found["psf_flux"] - true) / found["psf_flux_err"]
    assert 0.6 < 1.4826 * np.median(np.abs(pull[child])) < 1.6
    for k, axis in enumerate("xy"):
        assert np.std(found[f"centroid_{axis}"][child] - places[own[child], k]) < 0.1
    # Parents have all of the light, children theirs alone.
    blend = records.is_parent & (records.n_child == 2)
    assert np.median(found["aperture_flux_13"][blend]) > 1.3 * FLUX
    bright = child & (true == FLUX)
    assert np.median(found["aperture_flux_13"][bright]) == pytest.approx(FLUX, rel=0.03)


@pytest.mark.slow
def test_kron_fluxes_are_those_of_the_catalogues():
    """Elliptical Gaussians, bright and far from one another, with errors of each pixel's own."""
    segmentation = pytest.importorskip("photutils.segmentation")
    rng = np.random.default_rng(3)
    places = grid(48, rng)
    n = len(places)
    b = rng.uniform(1.6, 2.6, n)
    a, theta = b / rng.uniform(0.5, 1, n), rng.uniform(0, np.pi, n)
    cos, sin = np.cos(theta), np.sin(theta)
    moments = (a * cos) ** 2 + (b * sin) ** 2, (a * sin) ** 2 + (b * cos) ** 2
    cross = (a**2 - b**2) * cos * sin
    flux = 10 ** rng.uniform(3.5, 4.5, n)
    clean = sum(
        flux[k] * light(places[k, 0], places[k, 1], moments[0][k], moments[1][k], cross[k])
        for k in range(n)
    )
    error = np.sqrt(1 + clean / 20 + 0.2 * (COLUMNS + ROWS) / 100)
    image = clean + error * rng.normal(size=SHAPE) * 0.2
    # Far enough out for the moments of the segment to be those of the source.
    parts: Any = label(clean > 0.02)
    labels = LabelImage(parts[0].astype(np.int32))
    segments = segmentation.SegmentationImage(np.asarray(labels.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = segmentation.SourceCatalog(image, segments, error=error)
    ours = SourceCatalog(image, labels, error=error)
    kron_flux = np.asarray(ours.kron_flux, float)
    np.testing.assert_allclose(kron_flux, theirs.kron_flux, rtol=1e-4)
    # The error is that of the weighted sum, as in photutils from 3.1 on; 3.0 had the weights of
    # pixels at the rim unsquared. Both with its own weights.
    squared, plain = [], []
    for aperture in theirs.make_kron_apertures():
        weight = aperture.to_mask(method="exact").to_image(SHAPE)
        squared.append(np.sqrt((weight**2 * error**2).sum()))
        plain.append(np.sqrt((weight * error**2).sum()))
    np.testing.assert_allclose(np.asarray(ours.kron_flux_err), squared, rtol=1e-4)
    assert (np.array(plain) > 1.004 * np.array(squared)).all()
    # On stamps, about adaptive moments and with the central pixel's light at its own distance.
    chosen = {name: STANDARD[name] for name in ("psf_shape", "centroid", "shape", "kron")}
    exposure = make_exposure(image, error**2, psf=point(14, 14, NARROW, (29, 29)))
    found = measure_sources(exposure, np.floor(places + 0.5), measurements=chosen, sizes=(64,))
    row = labels.data[tuple(np.floor(places + 0.5).astype(int).T[::-1])] - 1
    ratio = found["kron_flux"] / kron_flux[row]
    assert (np.abs(ratio - 1) < 0.03).all()
    np.testing.assert_allclose(found["kron_flux_err"], np.array(squared)[row], rtol=0.08)
    np.testing.assert_allclose(found["kron_flux"], 0.9926 * flux, rtol=0.02)
