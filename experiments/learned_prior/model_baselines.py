"""Fitted profiles and symmetric templates: the ways that the package has without a learnt prior."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blends import Blends

from diffdeblend.allocate import deblend_footprints
from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.batch.draw import draw_sources
from diffdeblend.components import Kind, MultiGaussian
from diffdeblend.deblend.start import half_light_radii
from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.fit.fit import fit_pixels
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt
from diffdeblend.fit.prior import shape_prior
from diffdeblend.fit.unknowns import free_numbers
from diffdeblend.footprints import Footprint, Peaks, SourceRecords, SpanSet
from diffdeblend.grid import STANDARD, Quality
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render_each

# Half-light radii in units of the source's own, a factor of two apart.
SIX = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Estimate(NamedTuple):
    """What a way makes of blends: images and fluxes in the frame, and errors of the total flux.

    - `images`: `(blend, source, band, y, x)`, or None; `flux`: `(blend, source, band)`.
    - `total`, `error`: of total fluxes, or None.
    """

    flux: np.ndarray
    images: np.ndarray | None = None
    total: np.ndarray | None = None
    error: np.ndarray | None = None


def exposures(blends: Blends) -> list[Exposure]:
    """Each stamp with variance 1 and the PSF that is told."""
    psf = PixelPSF(blends.psf.astype(np.float32))
    return [make_exposure(image, np.ones(image.shape, np.float32), psf) for image in blends.image]


def symmetric_templates(blends: Blends, **settings) -> Estimate:
    """The children of `deblend_footprints`: all stamps side by side as one field."""
    n, _, ny, nx = blends.image.shape
    field = blends.image[:, 0].reshape(n * ny, nx)
    exposure = make_exposure(field, 1.0, PixelPSF(blends.psf.astype(np.float32)))
    parents = []
    for k, peaks in enumerate(blends.peaks):
        x, y = peaks.T.astype(np.int32)
        marked = Peaks(x, y, blends.image[k, 0][y, x].astype(float))
        whole = Footprint(SpanSet.from_box((0, nx, 0, ny)), marked)
        parents.append(whole.shifted(0, k * ny))
    found = deblend_footprints(exposure, SourceRecords.from_footprints(parents), **settings)
    light = [float(one.image.sum()) for one in found.footprints[n:]]
    return Estimate(np.array(light).reshape(n, -1, 1))


def profiles(blends: Blends, model: str, **settings) -> Estimate:
    """`fit_batch` with a model of its own, told the nearest pixels."""
    psf = PixelPSF(blends.psf.astype(np.float32))
    stamps = [
        blend_of_arrays(image, 1.0, psf, at.astype(float))
        for image, at in zip(blends.image, blends.peaks, strict=True)
    ]
    pixels = bool(settings.get("free_form", False))
    found = fit_batch(
        stamps, model=model, background="none", images=pixels, trim=not pixels, **settings
    )
    names = ("x", "y", "radius", "index", "radius_ratio", "shear_ratio", "ellipticity", "flux")
    values = {name: getattr(found, name) for name in (*names, "bulge_flux", "kind")}
    n, m, bands, ny, nx = blends.truth.shape
    # No model is left in a stamp but its own: the wings beyond are no part of the flux.
    drawn = draw_sources(values, blends.psf[None], np.zeros(n * m, int), (ny, nx))
    images = drawn.reshape(n, m, bands, ny, nx)
    if pixels:
        for k, kept in enumerate(found.images):
            if kept is not None:
                images[k] = np.asarray(kept)[:m, :, :ny, :nx]
    total, error = (v.reshape(n, m, bands) for v in (found.flux, found.flux_err))
    return Estimate(images.sum(axis=(-2, -1)), images, total, error)


def mixtures(
    blends: Blends, *, scales: tuple[float, ...] = SIX, prior: bool = True, steps: int = 60
) -> Estimate:
    """Elliptical mixtures of concentric Gaussians with free weights.

    - `prior`: the weak prior on shapes that a fit has by default; without it, none.
    """
    given = exposures(blends)
    starts = []
    for exposure, at in zip(given, blends.peaks, strict=True):
        radii = half_light_radii(exposure, at.astype(float))
        dark = np.zeros((len(scales), exposure.n_bands), np.float32)
        starts.append(
            [
                MultiGaussian(dark, float(x), float(y), radius, np.zeros(2, np.float32), scales)
                for (x, y), radius in zip(at, radii, strict=True)
            ]
        )
    scenes = [Scene(sources) for sources in starts]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *scenes)
    psf = given[0].psf
    shape = blends.image.shape[-2:]
    method = LevenbergMarquardt(max_steps=steps)
    found = _fit_mixtures(
        stacked, jnp.asarray(blends.image), psf, method, prior, shape, STANDARD
    )
    images, total, error = (np.asarray(value) for value in found)
    return Estimate(images.sum(axis=(-2, -1)), images, total, error)


@eqx.filter_jit
def _fit_mixtures(scenes, data, psf, method, prior: bool, shape, quality: Quality):
    """Blend after blend."""

    def one(given):
        scene, image = given
        free = free_numbers(scene, None)
        actual = shape_prior(scene) if prior else None
        found = fit_pixels(
            scene, image, jnp.ones_like(image), psf, free, actual, method, quality
        )
        stack = found.scene.sources[0]
        alone = render_each(found.scene, psf, shape, quality=quality)[0]
        return alone, stack.members.flux.sum(axis=1), found.flux_error

    return jax.lax.map(one, (scenes, data))
