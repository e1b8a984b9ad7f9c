"""Real galaxies to learn from, against GalSim."""

from functools import cache
from pathlib import Path

import galsim
import numpy as np
import pytest

from diffdeblend.components.decoded import Frame
from diffdeblend.simulate import read_cosmos, synthetic_catalog
from diffdeblend.train import draw_catalog, draw_population, draw_real

COSMOS = Path(__file__).parents[2] / "shared" / "data" / "cosmos_sample"
needs_cosmos = pytest.mark.skipif(
    not COSMOS.exists(), reason="shared/data/cosmos_sample is not beside the project"
)
FRAME = Frame()


@cache
def cosmos():
    return read_cosmos(COSMOS, kind="real", exclusion="none", taper=(5, 10))


@needs_cosmos
def test_a_real_galaxy_is_that_of_galsim_in_one_of_eight_ways():
    still = {"dilation": 0, "shear": 0, "jitter": 0}
    drawn = draw_real(cosmos(), 2, FRAME, 0, rows=[4], **still)
    galaxy = cosmos().real.galaxy(4)
    seen = galsim.Convolve(galaxy, galsim.Gaussian(sigma=0.16))
    image = seen.drawImage(nx=33, ny=33, scale=0.2, method="no_pixel", dtype=float).array
    # What turns do not change.
    squared = np.sum((np.indices((33, 33)) - 16) ** 2, axis=0)
    image = np.maximum(image, 0)
    for width in (1.0, 2.0, 4.0):
        window = np.exp(-0.5 * squared / width**2)
        expected = (image * window).sum() / image.sum()
        np.testing.assert_allclose((drawn.images * window).sum(axis=(1, 2)), expected, rtol=3e-3)


@needs_cosmos
def test_a_changed_galaxy_is_that_of_galsim(monkeypatch):
    from diffdeblend.train import real

    # Turn, shear, its direction, reflection, size.
    given = [np.array([v]) for v in (0.7, 0.25, 2.5, True, 1.15)]
    matrix = real._matrices(*given)
    monkeypatch.setattr(real, "_matrices", lambda *_: matrix)
    drawn = draw_real(cosmos(), 1, FRAME, 0, rows=[13], jitter=0)
    shear = galsim.Shear(g1=0.25 * np.cos(2.5), g2=0.25 * np.sin(2.5))
    galaxy = cosmos().real.galaxy(13).transform(1, 0, 0, -1).rotate(0.7 * galsim.radians)
    galaxy = galaxy.shear(shear).dilate(1.15).withFlux(1.0)
    seen = galsim.Convolve(galaxy, galsim.Gaussian(sigma=0.16))
    image = seen.drawImage(nx=33, ny=33, scale=0.2, method="no_pixel", dtype=float).array
    image = np.maximum(image, 0)
    # GalSim's own settings are good to some 1e-4 of the peak.
    np.testing.assert_allclose(drawn.images[0], image / image.sum(), atol=5e-4 * image.max())


@needs_cosmos
def test_few_galaxies_become_many():
    drawn = draw_real(cosmos(), 50, FRAME, 0, rows=np.arange(0, 100, 20))
    assert drawn.images.min() >= 0
    np.testing.assert_allclose(drawn.images.sum(axis=(1, 2), dtype=float), 1, atol=1e-5)
    rows, counts = np.unique(drawn.origin, return_counts=True)
    np.testing.assert_array_equal(rows, np.arange(0, 100, 20))
    assert (counts == 10).all()
    assert len({image.tobytes() for image in drawn.images}) == 50
    assert drawn.features["dilation"].min() >= 1 / 1.2
    assert drawn.features["dilation"].max() <= 1.2
    assert drawn.sha256 == draw_real(cosmos(), 50, FRAME, 0, rows=np.arange(0, 100, 20)).sha256
    learnt, held = drawn.split(0.4, 0)
    assert len(learnt) == 30
    assert not set(learnt.origin) & set(held.origin)
    # Hubble's stamps end within those of the frame, the noise of the sky among them is cut.
    assert abs(drawn.outside).max() < 0.05
    assert np.median(drawn.features["negative"]) < 0.06


@needs_cosmos
def test_words_mix_real_galaxies_and_shapes():
    drawn = draw_population(f"sersic=3,cosmos:{COSMOS}=1", 8, FRAME, 0)
    assert np.isfinite(drawn.features["row"]).sum() == 2
    assert "real" in drawn.source


@needs_cosmos
def test_what_cannot_be_drawn_is_refused():
    for rows in ([100], [-1], []):
        with pytest.raises(ValueError, match="`rows`"):
            draw_real(cosmos(), 1, FRAME, 0, rows=rows)
    with pytest.raises(ValueError, match="`shear`"):
        draw_real(cosmos(), 1, FRAME, 0, shear=0.95)
    with pytest.raises(ValueError, match="draw_real"):
        draw_catalog(cosmos(), 1, FRAME, 0)


def test_shapes_are_no_real_galaxies():
    catalog = synthetic_catalog(5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="draw_catalog"):
        draw_real(catalog, 1, FRAME, 0)
