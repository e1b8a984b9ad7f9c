"""A first scene from positions and data alone."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.background import AbstractBackground
from diffdeblend.components import AnySource, Kind, any_stack, stack_components
from diffdeblend.detect.peaks import psf_images, sky_level
from diffdeblend.exposure import Exposure
from diffdeblend.scene import Scene

# Numbers of sources that programs are compiled for.
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


def padded_size(n: int) -> int:
    """The number of places that a scene of `n` sources is padded to."""
    for size in _SIZES:
        if n <= size:
            return size
    return 64 * -(-n // 64)


def start_scene(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"],
    kind: Kind = Kind.SERSIC,
    index: float = 1.5,
    background: AbstractBackground | None = None,
) -> Scene:
    """Round sources of a kind at positions (x, y), with sizes from the data and no light yet.

    Fluxes need no guess: the first step of a fit solves them. Host side.
    """
    dtype = exposure.image.dtype
    radii = half_light_radii(exposure, positions)
    dark = jnp.zeros((AnySource.parts, exposure.n_bands), dtype=dtype)
    sources = [
        AnySource(
            flux=dark,
            x=jnp.asarray(x, dtype),
            y=jnp.asarray(y, dtype),
            radius=jnp.asarray(radius, dtype),
            index=jnp.asarray(index, dtype),
            radius_ratio=jnp.asarray(0.4, dtype),
            ellipticity=jnp.zeros(2, dtype),
            kind=kind,
        )
        for (x, y), radius in zip(positions, radii, strict=True)
    ]
    stack = stack_components(sources, size=padded_size(len(sources)))
    return Scene([any_stack(stack)], background)


def half_light_radii(
    exposure: Exposure, positions: Float[np.ndarray, "source 2"]
) -> Float[np.ndarray, "source"]:
    """Rough half-light radii before the PSF, in pixels.

    Each pixel belongs to the nearest position; the light of a source is followed outwards in rings
    until they are lost in the noise, and the PSF's own radius is taken off in quadrature.
    """
    data = np.asarray(exposure.data, dtype=float)
    weight = np.asarray(exposure.weight, dtype=float)
    level = sky_level(data, weight > 0)
    # Inverse-variance sum of the bands: the deepest single image.
    weighted = np.sum(weight * (data - level[:, None, None]), axis=0)
    total = np.sum(weight, axis=0)
    image = np.where(total > 0, weighted / np.where(total > 0, total, 1), 0.0)
    noise = np.where(total > 0, 1 / np.sqrt(np.where(total > 0, total, 1)), np.inf)
    psf = psf_images(exposure.psf, 25).mean(axis=0)
    psf_radius = _half_radius(psf)
    ny, nx = image.shape
    yy, xx = np.mgrid[:ny, :nx]
    distance = np.hypot(
        xx[None] - positions[:, 0, None, None], yy[None] - positions[:, 1, None, None]
    )
    nearest = np.argmin(distance, axis=0)
    radii = []
    for number in range(len(positions)):
        mine = nearest == number
        r, light, sigma = distance[number][mine], image[mine], noise[mine]
        radii.append(_follow(r, light, sigma, psf_radius))
    measured = np.array(radii)
    largest = 0.25 * min(ny, nx)
    return np.clip(
        np.sqrt(np.maximum(measured**2 - psf_radius**2, (0.3 * psf_radius) ** 2)),
        0.3 * psf_radius,
        max(largest, psf_radius),
    )


def _follow(r: np.ndarray, light: np.ndarray, sigma: np.ndarray, psf_radius: float) -> float:
    """Half-light radius of the rings that stand out of the noise."""
    ring = np.floor(r).astype(int)
    within = 0.0
    curve: list[float] = []
    for number in range(ring.max(initial=0) + 1):
        here = (ring == number) & np.isfinite(sigma)
        if not here.any():
            break
        mean = light[here].mean()
        error = np.sqrt(np.mean(sigma[here] ** 2) / here.sum())
        if number > 0 and mean < 1.5 * error:
            break
        # A ring that neighbours cut counts as whole.
        within += max(mean, 0.0) * np.pi * (2 * number + 1)
        curve.append(within)
    if len(curve) < 2 or within <= 0:
        return psf_radius
    share = np.concatenate([[0.0], np.array(curve) / within])
    return float(np.interp(0.5, share, np.arange(share.size)))


def _half_radius(image: np.ndarray) -> float:
    ny, nx = image.shape
    yy, xx = np.mgrid[:ny, :nx]
    r = np.hypot(xx - (nx - 1) / 2, yy - (ny - 1) / 2).ravel()
    order = np.argsort(r)
    share = np.cumsum(image.ravel()[order]) / image.sum()
    return float(r[order][np.searchsorted(share, 0.5)])
