"""The renderer of blends against GalSim at tight settings: pixel by pixel."""

from dataclasses import replace
from pathlib import Path

import equinox as eqx
import galsim
import jax
import numpy as np
import pytest
from astropy.table import Table
from quick import hasty

from diffdeblend.grid import STANDARD, fine
from diffdeblend.scene import render
from diffdeblend.simulate.catalog import Catalog, Parts
from diffdeblend.simulate.catsim import read_catsim
from diffdeblend.simulate.cosmos import read_cosmos
from diffdeblend.simulate.drawing import Drawing, Drawn
from diffdeblend.simulate.fourier_renderer import FourierRenderer, quality_of
from diffdeblend.simulate.galsim_renderer import TIGHT, GalSimRenderer
from diffdeblend.simulate.sampling import Placed
from diffdeblend.simulate.sources import lay_out
from diffdeblend.simulate.survey import get_survey
from diffdeblend.simulate.telescope import draw_psfs, sampled_psf, space_psf
from diffdeblend.simulate.truth_scene import scene_of

SHARED = Path(__file__).parents[2] / "shared" / "data"
LSST = get_survey("LSST").with_bands("uy")
REFERENCE = GalSimRenderer(settings=TIGHT)


def catalog_of(index, radius, g1=0.2, g2=-0.1):
    """One source a row, each a single part; radius 0 is a star."""
    index, radius = np.atleast_1d(index).astype(float), np.atleast_1d(radius).astype(float)
    n = len(radius)
    shear = np.where(radius > 0, 1.0, 0.0)
    parts = Parts(
        *(v[:, None] for v in (index, radius, g1 * shear, g2 * shear, np.ones(n))),
    )
    table = Table({"row": np.arange(n), "magnitude": np.full(n, 22.0), "size": radius})
    table["is_star"] = radius == 0
    table["MAG"] = 22.0
    return Catalog(table, parts)


def drawing_of(catalog, survey, stamp=24.0, isolated=True, spread=2.0, **others):
    n = len(catalog)
    rng = np.random.default_rng(5)
    side = int(stamp / survey.pixel_scale + 1e-6)
    # Two sources a blend, off the middle and off the pixels.
    rows = np.array_split(np.arange(n), max(1, n // 2))
    placed = [
        Placed.of(r, *rng.uniform(-spread, spread, (2, len(r))), **others) for r in rows if len(r)
    ]
    sources = lay_out(catalog, placed, survey, (side, side))
    psfs = (draw_psfs(survey),)
    index = np.zeros(len(placed), int)
    return Drawing(sources, psfs, index, survey.pixel_scale, (side, side), isolated, catalog.real)


def worst(drawing, renderer=None, reference=REFERENCE):
    """Largest error over the peak, and relative error of the light in the stamp, of each source."""
    ours = (renderer or FourierRenderer())(drawing).isolated.astype(float)
    theirs = reference(drawing).isolated.astype(float)
    peak = np.abs(theirs).max(axis=(2, 3))
    light = theirs.sum(axis=(2, 3))
    return np.abs(ours - theirs).max(axis=(2, 3)) / peak, np.abs(ours.sum(axis=(2, 3)) / light - 1)


# Index 0.5 to 6.2, small and large; a star.
SOME = catalog_of([0.5, 1.0, 4.0, 6.0, 2.5, 1.0], [0.6, 1.5, 0.3, 0.2, 0.9, 0.0])


@pytest.mark.slow
def test_sersic_galaxies_and_a_star():
    pixel, light = worst(drawing_of(SOME, LSST))
    assert pixel.max() < 1e-5
    # At an index of 6 light comes back around GalSim's own transform.
    assert light[[0, 1, 2, 4, 5]].max() < 3e-5
    assert light.max() < 5e-4


def test_fine_is_as_near():
    pixel, _ = worst(drawing_of(SOME.select(np.arange(2)), LSST), FourierRenderer(fine(1.0)))
    assert pixel.max() < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "psf", "cut"),
    [
        ("HSC", None, 1.0),
        ("SDSS", None, 1.0),
        ("Euclid_VIS", space_psf, 1.5),
        pytest.param("Roman_WFI", None, 2.5, marks=pytest.mark.slow),
    ],
)
def test_surveys_whose_pixels_are_too_wide_for_their_psf(name, psf, cut):
    survey = get_survey(name)
    survey = survey.with_bands(survey.band_names[:1])
    survey = replace(survey, psf=psf) if psf else survey
    drawing = drawing_of(SOME.select(np.array([2, 5])), survey, stamp=96 * survey.pixel_scale)
    assert quality_of(drawing.psfs[0], survey.pixel_scale).cut == cut
    pixel, _ = worst(drawing)
    assert pixel.max() < 1e-5
    if cut > 1:
        # What the choice is for: at Nyquist it is much worse.
        plain, _ = worst(drawing, FourierRenderer(STANDARD))
        assert plain.max() > 3 * pixel.max()


@pytest.mark.slow
def test_sources_beyond_the_closed_form_are_drawn_by_galsim():
    odd = catalog_of([0.4, 1.0], [0.7, 9.0])
    drawing = drawing_of(odd, LSST)
    pixel, _ = worst(drawing)
    assert pixel.max() < 1e-6
    whole = FourierRenderer()(replace(drawing, isolated=False))
    assert whole.isolated is None
    assert np.allclose(whole.images, FourierRenderer()(drawing).images, rtol=1e-5)


def test_blends_are_sums_of_their_sources():
    drawing = drawing_of(SOME, LSST)
    drawn = FourierRenderer()(drawing)
    assert drawn.images.shape == (3, 2, 120, 120)
    assert np.allclose(drawn.images[1], drawn.isolated[2:4].sum(axis=0))
    together = FourierRenderer()(replace(drawing, isolated=False)).images
    assert np.abs(together - drawn.images).max() < 1e-6 * drawn.images.max()


@pytest.mark.parametrize("renderer", [FourierRenderer(), GalSimRenderer()])
def test_draws_into_given_arrays_whatever_is_in_them(renderer):
    drawing = drawing_of(SOME, LSST, stamp=8.0)
    # And a blend without sources.
    drawing = replace(drawing, psf_index=np.zeros(drawing.n_blends + 1, int))
    own = renderer(drawing)
    into = Drawn(np.full_like(own.images, np.nan), np.full_like(own.isolated, np.nan))
    drawn = renderer(replace(drawing, into=into))
    assert drawn.isolated is into.isolated
    assert np.array_equal(drawn.isolated, own.isolated)
    assert np.array_equal(drawn.images, own.images)
    assert not own.images[-1].any()
    alone = replace(drawing, isolated=False, into=Drawn(np.full_like(own.images, np.nan), None))
    assert np.allclose(renderer(alone).images, own.images, atol=1e-6 * own.images.max())


def test_a_source_that_galsim_cannot_draw_is_named():
    with pytest.raises(ValueError, match=r"Source 0, row 0: .*8\.0"):
        FourierRenderer()(drawing_of(catalog_of([8.0], [0.5]), LSST, stamp=8.0))


@pytest.mark.slow
def test_galsim_in_several_processes_draws_the_same(monkeypatch):
    from diffdeblend.simulate import galsim_renderer

    for name in ("_WORTH", "_TRIAL", "_CHUNK"):
        monkeypatch.setattr(galsim_renderer, name, 0.0)
    monkeypatch.setattr(galsim_renderer, "available_cores", lambda: 2)
    drawing = drawing_of(SOME, LSST, stamp=8.0)
    assert np.array_equal(
        GalSimRenderer(workers=2)(drawing).isolated, GalSimRenderer()(drawing).isolated
    )


@pytest.mark.slow
def test_a_point_in_a_galaxy():
    """An active nucleus: three parts, one of them without width."""
    parts = Parts(
        *(np.array([v]) for v in ([1.0, 4.0, 1.0], [0.9, 0.3, 0.0], [0.3, 0.1, 0.0])),
        np.zeros((1, 3)),
        np.array([[0.5, 0.3, 0.2]]),
    )
    catalog = replace(SOME.select(np.array([0])), parts=parts)
    pixel, _ = worst(drawing_of(catalog, LSST))
    assert pixel.max() < 1e-5


needs_catsim = pytest.mark.skipif(
    not (SHARED / "catsim_sample.fits").exists(),
    reason="shared/data/catsim_sample.fits is not beside the project",
)
needs_cosmos = pytest.mark.skipif(
    not (SHARED / "cosmos_sample").exists(),
    reason="shared/data/cosmos_sample is not beside the project",
)


@needs_catsim
@pytest.mark.slow
def test_every_galaxy_of_the_catsim_sample():
    survey = get_survey("LSST").with_bands("ur")
    catalog = read_catsim(SHARED / "catsim_sample.fits")
    pixel, light = worst(drawing_of(catalog, survey, spread=3.0))
    assert pixel.max() < 1e-5
    assert light.max() < 1.2e-4


@needs_cosmos
def test_real_galaxies():
    """GalSim at its own settings: tight ones ask for transforms of these that it cannot do."""
    catalog = read_cosmos(SHARED / "cosmos_sample", kind="real", exclusion="none")
    survey = get_survey("LSST").with_bands("r")
    drawing = drawing_of(catalog.select(np.arange(0, 20, 4)), survey, turn=0.7, g1=0.1, g2=-0.05)
    pixel, light = worst(drawing, reference=GalSimRenderer())
    assert pixel.max() < 5e-5
    # As much comes back around its transforms.
    assert light.max() < 2e-3


def test_galsim_object_of_a_source():
    from diffdeblend.simulate.galsim_renderer import source_profile

    drawing = drawing_of(SOME, LSST)
    profile = source_profile(drawing, 1)
    expected = galsim.Exponential(half_light_radius=1.5).shear(g1=0.2, g2=-0.1)
    assert profile.kValue(0.7, -0.3) == pytest.approx(expected.kValue(0.7, -0.3))


@pytest.mark.slow
def test_the_truth_as_a_scene_has_gradients():
    drawing = drawing_of(SOME, LSST, stamp=12.0)
    image = FourierRenderer()(drawing).images[2]
    scene = scene_of(drawing.sources, 2)
    psf = sampled_psf(drawing.psfs[0], LSST.pixel_scale, 97, 1)

    def drawn(scene):
        return render(scene, psf, (60, 60))

    with hasty():
        seen = np.asarray(eqx.filter_jit(drawn)(scene))
    assert np.abs(seen - image).max() < 2e-6 * image.max()
    with hasty():
        slope = eqx.filter_jit(eqx.filter_grad(lambda scene: (drawn(scene) ** 2).sum()))(scene)
    leaves = jax.tree.leaves(slope)
    assert len(leaves) > 5
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    with pytest.raises(ValueError, match="`blend` 9 has no sources"):
        scene_of(drawing.sources, 9)
