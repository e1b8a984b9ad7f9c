"""Blends fitted with one component a source, by the second-order method of the package."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blends import Blends

from diffdeblend.components import AbstractComponent
from diffdeblend.deblend.start import half_light_radii
from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.fit.fit import Fit, fit_pixels
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt
from diffdeblend.fit.prior import shape_prior
from diffdeblend.fit.unknowns import free_numbers
from diffdeblend.grid import STANDARD, Quality
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render_each

# A component from a position and a rough half-light radius, pixels.
Maker = Callable[[float, float, float], AbstractComponent]
# Standard deviation of what is told of a position: the nearest pixel, or the true centre.
POSITION_ERROR = 0.3
CENTRE_ERROR = 0.03
# Blends of one call.
_TOGETHER = 20


class Estimate(NamedTuple):
    """What a way makes of blends: images and fluxes in the frame, and errors of the total flux.

    - `images`: `(blend, source, band, y, x)`, or None; `flux`: `(blend, source, band)`.
    - `total`, `error`: of total fluxes, or None.
    - `fits`: with a leading axis, where there are any; `shared`: what these are without; `starts`,
        `exposures`: the scene and the pixels of each.
    """

    flux: np.ndarray
    images: np.ndarray | None = None
    total: np.ndarray | None = None
    error: np.ndarray | None = None
    fits: Fit | None = None
    shared: Scene | None = None
    starts: tuple[Scene, ...] = ()
    exposures: tuple[Exposure, ...] = ()

    def fit(self, blend: int) -> Fit:
        """The whole fit of one blend."""
        one = jax.tree.map(lambda leaf: leaf[blend], self.fits)
        whole = tuple(eqx.combine(scene, self.shared) for scene in (one.scene, one.errors))
        return eqx.tree_at(lambda f: (f.scene, f.errors), one, whole)


def position_error(centre: bool) -> float:
    """What a fit is told that a place is good to, pixels."""
    return CENTRE_ERROR if centre else POSITION_ERROR


def exposures(blends: Blends) -> list[Exposure]:
    """Each stamp with variance 1 and the PSF that is told."""
    psf = PixelPSF(blends.psf.astype(np.float32))
    return [make_exposure(image, np.ones(image.shape, np.float32), psf) for image in blends.image]


def fit_components(
    blends: Blends,
    make: Maker,
    *,
    prior: bool = True,
    temperature: float = 1.0,
    centre: bool = False,
    steps: int = 60,
    quality: Quality = STANDARD,
) -> Estimate:
    """The most probable scene of each blend, with errors.

    - `prior`: the default prior on shapes; without it, none.
    - `temperature`: variance of the latents of learned galaxies.
    - `centre`: whether the true centres are told, or the nearest pixels alone.
    """
    given = exposures(blends)
    scenes = []
    for exposure, at in zip(given, blends.places(centre), strict=True):
        radii = half_light_radii(exposure, at)
        scenes.append(Scene([make(float(x), float(y), float(r)) for (x, y), r in zip(
            at, radii, strict=True)]))  # fmt: skip
    # What sources share is no copy a blend.
    arrays, rest = zip(*(eqx.partition(scene, _own(scene)) for scene in scenes), strict=True)
    settings = jnp.asarray([temperature, position_error(centre)], jnp.float32)
    shape = (int(blends.image.shape[-2]), int(blends.image.shape[-1]))
    parts = []
    for first in range(0, len(arrays), _TOGETHER):
        # Repeats of the last one fill up: one program for any number of blends.
        rows = np.minimum(np.arange(first, first + _TOGETHER), len(arrays) - 1)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arrays[k] for k in rows))
        part = _fit_all(
            *(stacked, rest[0], jnp.asarray(blends.image[rows]), given[0].psf),
            *(LevenbergMarquardt(max_steps=steps), prior, settings, shape, quality),
        )
        parts.append(jax.tree.map(np.asarray, part))
    found, images = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(arrays)], *parts)
    flux = np.asarray(found.scene.sources[0].members.flux)
    # Of components of several parts, their sum.
    total = flux.sum(axis=2) if flux.ndim == 4 else flux
    error = np.asarray(found.flux_error)
    return Estimate(
        images.sum(axis=(-2, -1)), images, total, error, found, rest[0], tuple(scenes), tuple(given)
    )


def _own(scene: Scene) -> Any:
    """True for every array but what stacks share."""
    chosen = jax.tree.map(eqx.is_array, scene)
    for i, stack in enumerate(scene.sources):
        if stack.shared is not None:
            shared = jax.tree.map(lambda _: False, stack.shared)
            chosen = eqx.tree_at(lambda s, i=i: s.sources[i].shared, chosen, shared)
    return chosen


@eqx.filter_jit
def _fit_all(arrays, rest, data, psf, method, prior: bool, settings, shape, quality: Quality):
    """Blend after blend: fits, without what sources share, and images of sources."""

    def one(given):
        own, image = given
        scene = eqx.combine(own, rest)
        free = free_numbers(scene, None)
        actual = (
            shape_prior(scene, position_error=settings[1], temperature=settings[0])
            if prior
            else None
        )
        found = fit_pixels(scene, image, jnp.ones_like(image), psf, free, actual, method, quality)
        alone = render_each(found.scene, psf, shape, quality=quality)[0]
        kept = eqx.tree_at(
            lambda f: (f.scene, f.errors),
            found,
            tuple(eqx.filter(s, _own(s)) for s in (found.scene, found.errors)),
        )
        return kept, alone

    return jax.lax.map(one, (arrays, data))
