"""Blends fitted with a learned prior: one by one, many at once, and what is no galaxy of it."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend import GaussianPSF, PixelPSF, PointSource, Scene, make_exposure, render
from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.batch.image import _pasted
from diffdeblend.batch.prepare import Preparation
from diffdeblend.batch.results import empty
from diffdeblend.components import Decoded, Frame, Kind
from diffdeblend.deblend import deblend
from diffdeblend.deblend.attempt import Attempt
from diffdeblend.deblend.catalog import Flag
from diffdeblend.deblend.decoded_steps import OUTSIDE_ERROR, decode_all
from diffdeblend.deblend.mixed import roomy
from diffdeblend.grid import Quality
from diffdeblend.priors import DecoderPrior
from tests.test_decoded import FRAME, decoder


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


PRIOR = DecoderPrior(decoder())
PSF = GaussianPSF([4.0])
NOISE = 0.3


def attempt(evidence, flux=(100.0, 50.0), error=(5.0, 4.0), radius=3.0, outside=(), kinds=None):
    """A fit by hand: all decoded, but for `kinds`."""
    n = len(flux)
    kind = np.full(n, int(Kind.SERSIC))
    decoded = np.ones(n, bool)
    for s, other in (kinds or {}).items():
        decoded[s], kind[s] = False, int(other)
    columns = {
        "flux": np.array(flux)[:, None],
        "flux_err": np.array(error)[:, None],
        "radius": np.full(n, radius),
        "latent_norm": np.where(decoded, 2.0, np.nan),
        "latent_quantile": np.where(decoded, 0.5, np.nan),
    }
    return Attempt(
        decoded=decoded,
        kind=kind,
        columns=columns,
        outside=np.isin(np.arange(n), outside) & decoded,
        odds=np.full(n, np.nan),
        evidence=evidence,
        value=10.0,
        sky=np.zeros((1, 1)),
        chi2=np.ones(1),
        n_pixels=np.ones(1, int),
        steps=3,
        converged=True,
        finite=True,
    )


class Fits:
    """A driver that answers by what is decoded, and remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def __call__(self, jobs):
        self.asked.append([self._key(job) for job in jobs])
        return [self.answers[self._key(job)]() for job in jobs]

    def _key(self, job):
        pairs = zip(job.decoded, job.kind, strict=True)
        return "".join("d" if d else "psb"[int(k)] for d, k in pairs)


def test_sources_in_the_domain_cost_no_other_fit():
    fits = Fits({"dd": lambda: attempt(-100.0)})
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=1)
    assert fits.asked == [["dd"], [], []]
    assert found.decoded.all()
    assert np.isnan(found.odds).all()


@pytest.mark.parametrize(("gain", "stays"), [(3.0, False), (-3.0, True)])
def test_a_source_out_of_domain_becomes_what_explains_it_better(gain, stays):
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, flux=(100.0, 50.0), outside=(1,)),
            "ds": lambda: attempt(-100.0 + gain, flux=(90.0, 60.0), kinds={1: Kind.SERSIC}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=0)
    assert fits.asked[1] == ["ds"]
    assert found.decoded.tolist() == [True, stays]
    assert found.columns["flux"][1, 0] == (50.0 if stays else 60.0)
    assert found.outside.tolist() == [False, True]
    assert found.odds[1] == pytest.approx(-gain)
    # Why it is decoded no more, or that it is doubtful.
    assert found.columns["latent_norm"][1] == 2.0


@pytest.mark.parametrize("still", [(), (0,)])
def test_what_stays_decoded_is_judged_beside_its_new_neighbours(still):
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, outside=(0, 1)),
            "sd": lambda: attempt(-110.0, kinds={0: Kind.SERSIC}),
            "ds": lambda: attempt(-90.0, outside=still, kinds={1: Kind.SERSIC}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=0)
    assert found.decoded.tolist() == [True, False]
    # Of the other one, why it was given up.
    assert found.outside.tolist() == [0 in still, True]


def test_two_sources_that_change_are_fitted_together_again():
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, outside=(0, 1)),
            "sd": lambda: attempt(-90.0, kinds={0: Kind.SERSIC}),
            "ds": lambda: attempt(-90.0, kinds={1: Kind.SERSIC}),
            "ss": lambda: attempt(-80.0, (97.0, 53.0), kinds={0: Kind.SERSIC, 1: Kind.SERSIC}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=0)
    assert fits.asked == [["dd"], ["sd", "ds"], ["ss"]]
    assert found.columns["flux"][:, 0].tolist() == [97.0, 53.0]
    assert not found.decoded.any()


def test_a_bright_compact_source_is_tried_as_a_star():
    bright = {"flux": (4000.0, 50.0), "radius": 0.8}
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, **bright),
            "pd": lambda: attempt(-95.0, **bright, kinds={0: Kind.POINT}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=0)
    # The other one is too faint to tell.
    assert fits.asked[1] == ["pd"]
    assert found.kind[0] == Kind.POINT
    assert not found.decoded[0]


def test_robust_fluxes_are_means_over_both_models():
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, (100.0, 50.0), (5.0, 4.0)),
            "ss": lambda: attempt(
                -99.0, (120.0, 45.0), (6.0, 3.0), kinds=dict.fromkeys((0, 1), Kind.SERSIC)
            ),
        }
    )
    (found,) = decode_all([2], fits, fallback=False, robust=True, restarts=0)
    assert fits.asked == [["dd"], ["ss"]]
    assert found.decoded.all()
    np.testing.assert_allclose(found.columns["flux"][:, 0], [110.0, 47.5])
    # Moments of an even mixture of two normal numbers.
    second = 0.5 * np.array([100.0**2 + 25 + 120.0**2 + 36, 50.0**2 + 16 + 45.0**2 + 9])
    wanted = np.sqrt(second - np.array([110.0, 47.5]) ** 2)
    np.testing.assert_allclose(found.columns["flux_err"][:, 0], wanted)


def test_a_star_stays_one_where_all_else_becomes_sersic():
    bright = {"flux": (4000.0, 50.0), "radius": 0.8}
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, **bright),
            "pd": lambda: attempt(-95.0, **bright, kinds={0: Kind.POINT}),
            "ps": lambda: attempt(-90.0, (4010.0, -60.0), kinds={0: Kind.POINT, 1: Kind.SERSIC}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=True, restarts=0)
    assert fits.asked[-1] == ["ps"]
    # A fit with a negative galaxy is no opinion.
    np.testing.assert_allclose(found.columns["flux"][:, 0], bright["flux"])


def test_errors_of_what_is_out_of_domain_allow_for_it():
    fits = Fits({"dd": lambda: attempt(-100.0, (1000.0, 50.0), (5.0, 4.0), outside=(0,))})
    (found,) = decode_all([2], fits, fallback=False, robust=False, restarts=0)
    wanted = [np.hypot(5.0, OUTSIDE_ERROR * 1000), 4.0]
    np.testing.assert_allclose(found.columns["flux_err"][:, 0], wanted)
    star = {"flux": (4000.0, 50.0), "radius": 0.8}
    fits = Fits(
        {
            "dd": lambda: attempt(-100.0, **star, outside=(0,)),
            "pd": lambda: attempt(-50.0, **star, kinds={0: Kind.POINT}),
            "sd": lambda: attempt(-70.0, **star, kinds={0: Kind.SERSIC}),
            "bd": lambda: attempt(-70.0, **star, kinds={0: Kind.BULGE_DISC}),
        }
    )
    (found,) = decode_all([2], fits, fallback=True, robust=False, restarts=0)
    assert found.kind[0] == Kind.POINT
    np.testing.assert_allclose(found.columns["flux_err"][:, 0], [5.0, 4.0])


def test_a_model_that_eats_its_neighbour_is_not_taken():
    fits = Fits(
        {
            "d": lambda: attempt(-100.0, (50.0,), (4.0,), outside=(0,)),
            "s": lambda: attempt(-50.0, (-60.0,), (4.0,), kinds={0: Kind.SERSIC}),
        }
    )
    (found,) = decode_all([1], fits, fallback=True, robust=False, restarts=0)
    assert found.decoded.all()


def test_a_galaxy_at_the_border_does_not_come_back_on_the_other_side():
    # Stamps as small as the decoder's own: the usual period is too short by half of it.
    source = Decoded([1000.0], 22.0, 9.6, jnp.array([0.8, -0.5, 0.3]), decoder())
    usual = Quality(padding=1.2, cut=0.9, corrections=False)
    wide = replace(usual, padding=3.0)
    shape = (20, 24)
    draw = eqx.filter_jit(lambda quality: render(Scene([source]), PSF, shape, quality=quality))
    images = [np.asarray(draw(quality))[0] for quality in (usual, roomy(usual, 24, FRAME), wide)]
    # The far side: nothing there but what comes around.
    far = [np.abs(image[:, :6]).max() for image in images]
    assert far[0] > 10 * far[1]
    np.testing.assert_allclose(images[1], images[2], atol=2e-3 * images[2].max())
    assert roomy(replace(usual, padding=2.0), 64, FRAME).padding == 2.0


def galaxy_blend(seed=1):
    """Two galaxies of the prior on a stamp that is not square, one near the border."""
    sources = [
        Decoded([900.0], 14.3, 17.8, jnp.array([0.8, -0.5, 0.3]), decoder()),
        Decoded([500.0], 27.6, 8.1, jnp.array([-0.6, 0.9, 0.1]), decoder()),
    ]
    image = np.asarray(eqx.filter_jit(lambda: render(Scene(sources), PSF, (37, 33)))())
    rng = np.random.default_rng(seed)
    data = image + NOISE * rng.standard_normal(image.shape)
    return sources, data, np.array([[14.0, 18.0], [28.0, 8.0]])


def test_images_of_trimmed_stamps_are_pasted_where_these_were():
    _, data, positions = galaxy_blend()
    wide = np.pad(data, ((0, 0), (20, 31), (15, 9)))
    whole = blend_of_arrays(wide, NOISE**2, PSF, positions + np.array([15, 20]))
    prepared = Preparation(0.0, 1, True, 1.5, (96,), 0.5, None)
    task = prepared.task(replace(whole, origin=(3, 4)), np.full(2, int(Kind.SERSIC)))
    ny, nx = task.blend.shape
    assert nx * ny < wide[0].size / 1.5
    found = empty([task], 1, 1)
    found.finite[:] = True
    # As the stamp itself: what is pasted must be the image that it was cut from.
    found.images[0] = np.stack([task.blend.data * task.unit, np.zeros((1, ny, nx))])
    exposure = make_exposure(np.pad(wide, ((0, 0), (4, 2), (3, 0))), 1.0, PSF)
    image, snr = _pasted(found, exposure, np.ones((1, *exposure.shape)))
    (x0, y0), inside = found.origin[0], np.zeros(exposure.shape, bool)
    inside[y0 : y0 + ny, x0 : x0 + nx] = True
    np.testing.assert_allclose(image[0], np.where(inside, exposure.image[0], 0), rtol=1e-5)
    assert inside[24:61, 18:51].sum() > 0.7 * 37 * 33
    assert snr[1] == 0
    assert snr[0] == pytest.approx(np.sqrt(np.sum(image**2)), rel=1e-4)


def test_wrong_arguments_are_refused():
    data, positions = np.ones((1, 37, 33), np.float32), np.array([[14.0, 18.0], [28.0, 8.0]])
    blends = [blend_of_arrays(data, NOISE**2, PSF, positions)]
    with pytest.raises(ValueError, match="`model` cannot be given together with `prior`"):
        fit_batch(blends, prior=PRIOR, model="sersic")
    with pytest.raises(ValueError, match="`free_form` cannot be given together"):
        fit_batch(blends, prior=PRIOR, free_form=True)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        fit_batch(blends, prior=PRIOR, temperature=0.0)
    with pytest.raises(ValueError, match="`false_alarm` must be between"):
        fit_batch(blends, prior=PRIOR, false_alarm=1.0)
    y, x = np.mgrid[-8:9, -8:9]
    narrow = np.exp(-0.5 * (x**2 + y**2) / 0.5**2)[None]
    sharp = [blend_of_arrays(data, NOISE**2, PixelPSF(narrow / narrow.sum()), positions)]
    with pytest.raises(ValueError, match="`psf` is narrower than the frame"):
        fit_batch(sharp, prior=PRIOR)
    exposure = make_exposure(data, np.full(data.shape, NOISE**2), PSF, pixel_scale=0.26)
    with pytest.raises(ValueError, match=r"`pixel_scale` is 0\.26"):
        deblend(exposure, positions, prior=PRIOR)
    with pytest.raises(ValueError, match="`model` cannot be given together"):
        deblend(exposure, positions, prior=PRIOR, model="sersic")
    assert Frame().pixel_scale == 0.2


@pytest.mark.slow
def test_many_blends_with_a_star_among_them(compilations):
    sources, _, positions = galaxy_blend()
    star = PointSource([3000.0], 15.4, 16.7)
    image = np.asarray(render(Scene([star, sources[1]]), PSF, (37, 33)))
    rng = np.random.default_rng(5)
    data = [galaxy_blend(seed)[1] for seed in (1, 2, 3)]
    data.append(image + NOISE * rng.standard_normal(image.shape))
    places = [positions] * 3 + [np.array([[15.0, 17.0], [28.0, 8.0]])]
    blends = [blend_of_arrays(d, NOISE**2, PSF, p) for d, p in zip(data, places, strict=True)]
    settings = {"model_error": 0.0, "trim": False, "sizes": (40,), "sources": (2,)}
    found = fit_batch(blends, prior=PRIOR, images=True, **settings)
    assert found.model == ["decoded"] * 6 + ["point", "decoded"]
    assert found.converged.all()
    true = np.array([900.0, 500.0] * 3 + [3000.0, 500.0])
    assert (np.abs(found.flux[:, 0] - true) < 4 * found.flux_err[:, 0]).all()
    assert found.flux[6, 0] == pytest.approx(3000.0, rel=0.01)
    # Of the light, which the latents move on the stamp.
    for axis, name in enumerate("xy"):
        along = np.indices((FRAME.size,) * 2)[1 - axis] - FRAME.size // 2
        place = [float(getattr(s, name) + (s.image() * along).sum()) for s in sources]
        off = getattr(found, name)[:6] - np.tile(place, 3)
        assert (np.abs(off) < 4 * getattr(found, f"{name}_err")[:6]).all()
        assert (getattr(found, f"{name}_err")[:6] < 0.3).all()
    assert not (found.flags[:6] & Flag.OUT_OF_DOMAIN).any()
    assert np.isnan(found.latent[6]).all()
    assert np.isfinite(found.latent[:6]).all()
    table = found.table()
    assert list(table["model"]) == found.model
    assert list(table["replaced"]) == [name != "decoded" for name in found.model]
    assert {"latent", "latent_norm", "own_chi2", "decoder_log_odds"} <= set(table.colnames)
    # What is seen is what is left of the data, but for sky and noise.
    left = data[3] - found.images[3].sum(axis=0) - found.sky[3][:, :, None]
    assert found.images[3].shape == (2, 1, 37, 33)
    assert np.mean((left / NOISE) ** 2) == pytest.approx(1, abs=0.2)
    compilations.clear()
    again = fit_batch(blends, prior=PRIOR, images=True, temperature=2.0, **settings)
    assert compilations == []
    # A weaker prior leaves latents less at home.
    assert (again.latent_norm[:6] > found.latent_norm[:6]).all()


@pytest.mark.slow
def test_one_exposure_is_deblended_as_it_is_in_a_batch():
    sources, data, positions = galaxy_blend()
    exposure = make_exposure(data, np.full(data.shape, NOISE**2), PSF, pixel_scale=0.2)
    found = deblend(exposure, positions, prior=PRIOR, model_error=0.0)
    assert found.sources.model == ["decoded", "decoded"]
    pull = (found.sources.flux - [[900.0], [500.0]]) / found.sources.flux_err
    assert (np.abs(pull) < 4).all()
    assert found.models.shape == (2, 1, 37, 33)
    total = found.models.sum(axis=0) + found.background + found.residual
    np.testing.assert_allclose(total, data, atol=1e-3)
    assert {"latent_norm", "own_quantile"} <= set(found.catalog.colnames)
    members = found.scene.components()
    np.testing.assert_allclose(members[0].image().sum(), 1, atol=1e-5)
    assert found.summary["settings"]["temperature"] == 1.0
    drawn = render(found.scene, PSF, (37, 33))
    np.testing.assert_allclose(
        drawn, found.models.sum(axis=0) + found.background, atol=2e-3 * found.models.max()
    )
    # The scene keeps its own place, to render it again.
    light = float((members[0].image() * (np.arange(FRAME.size) - FRAME.size // 2)).sum())
    assert found.sources.x[0] == pytest.approx(float(members[0].x) + light, abs=1e-3)
    assert float(sources[0].x) == pytest.approx(float(members[0].x), abs=0.3)
