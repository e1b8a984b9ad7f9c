"""Galaxies as sums of Sersic profiles and small round Gaussians, drawn in a frame, many a second.

Sersic profiles are drawn by the transforms that the fit renders with, on a period of twice the
stamp, with what comes back around the period taken off. Gaussians are drawn on the pixels.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components import Sersic
from diffdeblend.components.decoded import Frame
from diffdeblend.fourier import EXACT, to_image
from diffdeblend.grid import Grid, Quality, make_grid
from diffdeblend.wings import spread_wings, wrapped_wings

# Galaxies in one call, and of them at a time: their modes stay in the cache.
_CALL, _TOGETHER = 64, 8
# Amplitude of the frame's Gaussian at the highest mode that is drawn.
_LEFT_OUT = 1e-5
# Sersic indices that the closed form holds for.
LEAST_INDEX, GREATEST_INDEX = 0.5, 6.2


@dataclass(frozen=True, eq=False)
class Shapes:
    """Galaxies to be drawn, lengths in pixels, places from the middle of the stamp.

    The shares of a galaxy, of profiles and Gaussians together, sum to 1.

    - `radius`, `index`, `g1`, `g2`, `x`, `y`, `share`: of Sersic profiles, `(galaxy, part)`, as in
        `Sersic`. An index beyond 0.5 to 6.2 is drawn as the nearest.
    - `blob_x`, `blob_y`, `blob_sigma`, `blob_share`: of round Gaussians before the frame's,
        `(galaxy, blob)`; points have sigma 0.
    """

    radius: Float[np.ndarray, "galaxy part"]
    index: Float[np.ndarray, "galaxy part"]
    g1: Float[np.ndarray, "galaxy part"]
    g2: Float[np.ndarray, "galaxy part"]
    x: Float[np.ndarray, "galaxy part"]
    y: Float[np.ndarray, "galaxy part"]
    share: Float[np.ndarray, "galaxy part"]
    blob_x: Float[np.ndarray, "galaxy blob"] | None = None
    blob_y: Float[np.ndarray, "galaxy blob"] | None = None
    blob_sigma: Float[np.ndarray, "galaxy blob"] | None = None
    blob_share: Float[np.ndarray, "galaxy blob"] | None = None

    def __len__(self) -> int:
        return len(self.share)


def draw_shapes(
    shapes: Shapes, frame: Frame
) -> tuple[Float[np.ndarray, "galaxy size size"], Float[np.ndarray, "galaxy"]]:
    """Images of unit sum, and the share of the light beyond the stamp. Host side.

    Within 1e-4 of a galaxy's peak. A second call of any number of galaxies with as many parts and
    about as many blobs compiles nothing.
    """
    arrays = _arrays(shapes)
    images = np.empty((len(shapes), frame.size, frame.size), np.float32)
    for start in range(0, len(shapes), _CALL):
        own = _Arrays(*(values[start : start + _CALL] for values in arrays))
        count = len(own.share)
        padded = _Arrays(*(np.pad(v, [(0, _CALL - count), (0, 0)]) for v in own))
        drawn = _draw(padded, np.float32(frame.psf_sigma), frame_grid(frame))
        images[start : start + count] = np.asarray(drawn)[:count]
    # Rounding leaves some 1e-8 of the peak either way in the far wings of small galaxies.
    images = np.maximum(images, 0)
    inside = images.sum(axis=(1, 2), keepdims=True, dtype=float)
    return (images / inside).astype(np.float32), 1 - inside[:, 0, 0]


def frame_grid(frame: Frame) -> Grid:
    """Modes up to where the frame's Gaussian leaves nothing, on a period of twice the stamp."""
    highest = np.sqrt(-2 * np.log(_LEFT_OUT)) / frame.psf_sigma
    quality = Quality(padding=2.1, cut=max(1.0, highest / np.pi), corrections=True)
    return make_grid((frame.size, frame.size), quality)


class _Arrays(NamedTuple):
    """The fields of `Shapes` in single precision."""

    radius: Array | np.ndarray
    index: Array | np.ndarray
    g1: Array | np.ndarray
    g2: Array | np.ndarray
    x: Array | np.ndarray
    y: Array | np.ndarray
    share: Array | np.ndarray
    blob_x: Array | np.ndarray
    blob_y: Array | np.ndarray
    blob_sigma: Array | np.ndarray
    blob_share: Array | np.ndarray


def _arrays(shapes: Shapes) -> _Arrays:
    given = [getattr(shapes, name) for name in _Arrays._fields]
    parts, blobs = given[:7], given[7:]
    parts[1] = np.clip(parts[1], LEAST_INDEX, GREATEST_INDEX)
    # The wings of a Gaussian of radius 0 are nothing, those of other profiles next to nothing.
    parts[1] = np.where(parts[0] == 0, LEAST_INDEX, parts[1])
    # Few numbers of blobs, so that few programs are compiled.
    most = 0 if blobs[0] is None else blobs[0].shape[1]
    slots = 0 if most == 0 else max(8, 1 << (most - 1).bit_length())
    blobs = [
        np.zeros((len(shapes), slots)) if v is None else np.pad(v, [(0, 0), (0, slots - most)])
        for v in blobs
    ]
    return _Arrays(*(np.asarray(values, np.float32) for values in (*parts, *blobs)))


@partial(jax.jit, static_argnames="grid")
def _draw(
    shapes: _Arrays, psf_sigma: Float[Array, ""], grid: Grid
) -> Float[Array, "galaxy size size"]:
    modes, middle = grid.modes, (grid.nx - 1) / 2
    seen = jnp.exp(-0.5 * psf_sigma**2 * (modes.kx**2 + modes.ky**2))

    def part(radius, index, g1, g2, x, y) -> Sersic:
        return Sersic(jnp.ones(1), x + middle, y + middle, radius, index, jnp.stack([g1, g2]))

    def one(own: _Arrays) -> Array:
        parts = jax.vmap(part)(*own[:6])
        re, im = jax.lax.optimization_barrier(jax.vmap(lambda p: p.fourier(modes))(parts))
        share = own.share
        total = (
            jnp.matmul(share, re, precision=EXACT) * seen,
            jnp.matmul(share, im, precision=EXACT) * seen,
        )
        far = jax.vmap(
            lambda p: wrapped_wings(lambda x, y: p.wings(x, y)[None], grid, share.dtype)[0]
        )(parts)
        image = to_image(total, grid)
        image = image - spread_wings(jnp.tensordot(share, far, axes=1, precision=EXACT), grid)
        if own.blob_x.shape[0] == 0:
            return image
        return image + _blobs(own)

    def _blobs(own: _Arrays) -> Array:
        # Sampled, as all else is, and not averaged over pixels.
        variance = psf_sigma**2 + own.blob_sigma**2
        place = jnp.arange(grid.nx, dtype=variance.dtype) - middle
        along_x, along_y = (
            jnp.exp(-0.5 * (place - centre[:, None]) ** 2 / variance[:, None])
            for centre in (own.blob_x, own.blob_y)
        )
        height = own.blob_share / (2 * jnp.pi * variance)
        return jnp.matmul((height[:, None] * along_y).T, along_x, precision=EXACT)

    return jax.lax.map(one, shapes, batch_size=_TOGETHER)
