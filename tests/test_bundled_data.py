"""The blend that comes with the package is what its script makes and what its truth says."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import QTable

from diffdeblend.background import ConstantBackground
from diffdeblend.components import BulgeDisc, PointSource, Sersic
from diffdeblend.io import read_npz, read_npz_positions
from diffdeblend.psf import KolmogorovPSF
from diffdeblend.scene import Scene, render

DATA = Path(__file__).parents[1] / "data"
ARCHIVE = DATA / "bundled_blend.npz"


@pytest.fixture(scope="module")
def script():
    """`data/make_bundled_blend.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("make_bundled", DATA / "make_bundled_blend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth():
    return QTable.read(DATA / "bundled_blend_truth.ecsv")


def test_archive_is_what_the_script_makes(script):
    made = script.make_arrays()
    with np.load(ARCHIVE, allow_pickle=False) as kept:
        assert sorted(kept.files) == sorted(made)
        for name, array in made.items():
            assert kept[name].dtype == array.dtype, name
            assert kept[name].shape == array.shape, name
            if array.dtype.kind == "f":
                # GalSim's last digits depend on the machine's FFT; the noise is 1 and more.
                np.testing.assert_allclose(kept[name], array, rtol=1e-5, atol=1e-4, err_msg=name)
            else:
                assert (kept[name] == array).all(), name


def test_truth_table_is_what_the_script_makes(script, truth):
    made = script.make_truth()
    assert truth.colnames == made.colnames
    assert truth.meta == made.meta
    for name in made.colnames:
        assert truth[name].info.unit == made[name].info.unit, name
        if truth[name].info.dtype.kind == "f":
            values = (np.asarray(t[name], float) for t in (truth, made))
            np.testing.assert_allclose(*values, rtol=1e-12, err_msg=name)
        else:
            assert list(truth[name]) == list(made[name])


def test_archive_is_small():
    assert ARCHIVE.stat().st_size < 200_000


def test_archive_is_an_exposure_with_flaws():
    exposure = read_npz(ARCHIVE)
    header = exposure.header
    assert exposure.bands == ("g", "r", "i", "z", "y")
    assert exposure.image.shape == (5, 57, 61)
    assert exposure.image.dtype == jnp.float32
    assert (header.unit, header.pixel_scale) == ("nJy", 0.2)
    assert header.zero_points == pytest.approx([31.4] * 5)
    good = np.asarray(exposure.good)
    # The dead column is unknown, and the cosmic ray is a number like any other but for its mask.
    assert np.isnan(np.asarray(exposure.image)).sum() == 2 * 9
    assert (~good).sum() == 2 * 9 + 11
    assert np.asarray(exposure.image)[1][~good[1]].min() > 300
    assert np.isfinite(np.asarray(exposure.variance)).all()


def test_positions_are_those_of_the_truth_to_half_a_pixel(truth):
    x, y = read_npz_positions(ARCHIVE).T
    for found, true in ((x, truth["x"]), (y, truth["y"])):
        np.testing.assert_allclose(2 * found, np.round(2 * found))
        assert np.abs(found - true.value).max() <= 0.25


@pytest.mark.slow
def test_our_renderer_draws_the_truth_to_the_noise(truth):
    """Sizes, angles, colours and the sky as written, seen by other code than GalSim."""
    exposure = read_npz(ARCHIVE)
    chi2 = _chi2(exposure, truth)
    used = np.asarray(exposure.good).sum(axis=(1, 2))
    assert np.abs(chi2 / used - 1).max() < 4 * np.sqrt(2 / used.min())
    # Mirrored galaxies, or a sky of zero, would be seen.
    mirrored = truth.copy()
    mirrored["g2"] *= -1
    assert (_chi2(exposure, mirrored) > chi2 + 100).all()
    assert (_chi2(exposure, truth, sky=0.0) > chi2 + 10).all()


def _scene(truth, sky):
    bands = ("g", "r", "i", "z", "y")
    sources = []
    for row in truth:
        flux, bulge = (
            np.array([row[f"{name}_{b}"].value for b in bands]) for name in ("flux", "bulge_flux")
        )
        place = {"x": row["x"].value, "y": row["y"].value}
        shape = {"radius": row["radius"].value, "ellipticity": np.array([row["g1"], row["g2"]])}
        if row["model"] == "point":
            sources.append(PointSource(flux, **place))
        elif row["model"] == "sersic":
            sources.append(Sersic(flux, **place, index=row["index"], **shape))
        else:
            parts = np.stack([flux - bulge, bulge])
            sources.append(BulgeDisc(parts, **place, radius_ratio=row["radius_ratio"], **shape))
    levels = truth.meta["sky residual, nJy a pixel"]
    return Scene(sources, ConstantBackground(sky * np.array([levels[b] for b in bands])))


def _chi2(exposure, truth, sky=1.0):
    seeing = np.array([truth.meta["seeing, FWHM in arcsec"][b] for b in exposure.bands])
    draw = jax.jit(lambda scene, psf: render(scene, psf, exposure.shape))
    model = draw(_scene(truth, sky), KolmogorovPSF(seeing / 0.2))
    return np.sum(np.asarray(exposure.weight) * np.asarray(exposure.data - model) ** 2, axis=(1, 2))
