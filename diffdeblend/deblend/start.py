"""A first scene from positions and data alone."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.background import AbstractBackground
from diffdeblend.components import AnySource, Kind, any_stack, stack_components
from diffdeblend.detect.peaks import psf_images, sky_level
from diffdeblend.exposure import Exposure
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene

# Shear of a bulge in units of its disc's, where nothing is known of it.
BULGE_SHEAR = 0.7
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
            shear_ratio=jnp.asarray(BULGE_SHEAR, dtype),
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
    return radii_in_image(image, noise, positions, psf_half_radius(exposure.psf))


def radii_in_image(
    image: Float[np.ndarray, "y x"],
    noise: Float[np.ndarray, "y x"],
    positions: Float[np.ndarray, "source 2"],
    psf_radius: float,
) -> Float[np.ndarray, "source"]:
    """`half_light_radii` from one image, its noise (infinite where not used), the PSF's radius."""
    ny, nx = image.shape
    x, y = positions[:, 0, None, None], positions[:, 1, None, None]
    distance = np.hypot(np.arange(nx) - x, np.arange(ny)[:, None] - y)
    # Rings of all sources at once, each pixel in one of the nearest source.
    nearest = np.argmin(distance, axis=0)
    ring = np.min(distance, axis=0).astype(int)
    used = np.isfinite(noise)
    n_rings = int(ring.max()) + 1
    place = (nearest * n_rings + ring)[used]

    def per_ring(weights: np.ndarray | None) -> np.ndarray:
        total = np.bincount(place, weights, minlength=len(positions) * n_rings)
        return total.reshape(len(positions), n_rings)

    count = per_ring(None)
    safe = np.maximum(count, 1)
    mean = per_ring(image[used]) / safe
    error = np.sqrt(per_ring(noise[used] ** 2)) / safe
    seen = (count > 0) & ((mean >= 1.5 * error) | (np.arange(n_rings) == 0))
    seen = np.logical_and.accumulate(seen, axis=1)
    # A ring that neighbours cut counts as whole.
    curve = np.cumsum(seen * np.maximum(mean, 0) * np.pi * (2 * np.arange(n_rings) + 1), axis=1)
    measured = np.full(len(positions), psf_radius)
    for number, last in enumerate(seen.sum(axis=1)):
        if last >= 2 and curve[number, -1] > 0:
            share = np.concatenate([[0.0], curve[number, :last] / curve[number, -1]])
            measured[number] = np.interp(0.5, share, np.arange(last + 1))
    return np.clip(
        np.sqrt(np.maximum(measured**2 - psf_radius**2, (0.3 * psf_radius) ** 2)),
        0.3 * psf_radius,
        max(0.25 * min(ny, nx), psf_radius),
    )


def psf_half_radius(psf: AbstractPSF) -> float:
    """Half-light radius of the mean PSF of all bands, in pixels."""
    return _half_radius(psf_images(psf, 25).mean(axis=0))


def _half_radius(image: np.ndarray) -> float:
    ny, nx = image.shape
    yy, xx = np.mgrid[:ny, :nx]
    r = np.hypot(xx - (nx - 1) / 2, yy - (ny - 1) / 2).ravel()
    order = np.argsort(r)
    share = np.cumsum(image.ravel()[order]) / image.sum()
    return float(r[order][np.searchsorted(share, 0.5)])
