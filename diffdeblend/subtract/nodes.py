"""PSFs at the nodes of a tiling, where filters are made, and the filters' normalisations there."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT, fast_length
from diffdeblend.psf import AbstractPSF, PixelPSF
from diffdeblend.psf.basis import PSFBasis, constant_basis
from diffdeblend.psf.stamps import basis_weights
from diffdeblend.subtract.filters import (
    ProperFilters,
    centred_stamp,
    filters_of_transfers,
    mean_over_modes,
    power_of,
    transfer_plane,
)
from diffdeblend.subtract.tiling import Tiling, make_tiling
from diffdeblend.subtract.variance import squared_stamps

# Pixels around a stamp in which the filters made from it still have weight.
_FILTER_REACH = 8


class NodePSF(eqx.Module):
    """A PSF of one band at the places where filters are made.

    - `images`: shape `(basis, h, w)`, centre on the middle pixel.
    - `weights`: of the images at the corners, the middles of the sides and the middles of all
        tiles, on one grid: `(2 rows + 1, 2 columns + 1, basis)`.
    """

    images: Float[Array, "basis h w"]
    weights: Float[Array, "y x basis"]

    @property
    def middle(self) -> Float[Array, "h w"]:
        """The PSF in the middle of the image."""
        row, column = (n // 2 for n in self.weights.shape[:2])
        return jnp.tensordot(self.weights[row, column], self.images, axes=1, precision=EXACT)


def node_psfs(psf: AbstractPSF, tiling: Tiling) -> list[NodePSF]:
    """The PSF of each band at the nodes of a tiling.

    **Raises:** `ValueError` for a PSF that is neither of pixels nor a basis of such.
    """
    if isinstance(psf, PixelPSF):
        psf = constant_basis(psf, tiling.shape)
    if not isinstance(psf, PSFBasis):
        raise ValueError(
            f"`psf` must be a PixelPSF or a PSFBasis, images at the pixels; got {type(psf)}."
        )
    y, x = np.meshgrid(*tiling.nodes(), indexing="ij")
    if isinstance(psf.images, Tracer) or isinstance(psf.coefficients, Tracer):
        weights: Any = jnp.moveaxis(psf.weights(x, y), 1, -1)
    else:
        weights = [
            jnp.asarray(basis_weights(psf, band, x, y), psf.images.dtype)
            for band in range(psf.n_bands)
        ]
    return [NodePSF(psf.images[band], weights[band]) for band in range(psf.n_bands)]


def tiling_for(
    psf_new: AbstractPSF, psf_reference: AbstractPSF, shape: tuple[int, int], tile: int = 256
) -> Tiling:
    """Tiles for an image of `shape` (ny, nx) with margins as wide as the filters reach."""
    sides = [
        max(psf.images.shape[2:] if isinstance(psf, PSFBasis) else psf.image.shape[1:])
        for psf in (psf_new, psf_reference)
        if isinstance(psf, PSFBasis | PixelPSF)
    ]
    return make_tiling(shape, tile, max(sides, default=1) // 2 + _FILTER_REACH)


class NodeScales(eqx.Module):
    """What the filters give in sum, from planes just wide enough for them.

    - `F_S`, `empty`: flux scale and variance of the score of empty sky, maps `(y, x)`, linear
        between nodes.
    - `squares`: stamps of both squared kernels of the score in the middle of each tile, as shares
        of `empty`, each `(row, column, size, size)`.
    - `seen`: weight of each pixel of either image in the flux of a point, likewise.
    - `middle`, `small`: filters in the middle of the image, and the shape of their plane.
    """

    F_S: Float[Array, "y x"]
    empty: Float[Array, "y x"]
    squares: tuple[Array, Array]
    seen: tuple[Array, Array]
    middle: ProperFilters
    small: tuple[int, int] = eqx.field(static=True)


def node_scales(
    psf_new: NodePSF,
    psf_reference: NodePSF,
    sigma_new: Array,
    sigma_reference: Array,
    beta: Array,
    tiling: Tiling,
) -> NodeScales:
    """Normalisations and stamps of the filters at the nodes; arguments as in `subtract_tiles`."""
    psfs = psf_new, psf_reference
    size = max(*psf_new.images.shape[1:], *psf_reference.images.shape[1:])
    side = fast_length(size + size // 2, real=False)
    small = side, side
    grid = psf_new.weights.shape[:2]

    def at(images: tuple[Array, Array]) -> ProperFilters:
        new, reference = (transfer_plane(image, small) for image in images)
        return filters_of_transfers(new, reference, sigma_new, sigma_reference, beta, small)

    def scales(weights: tuple[Array, Array]) -> tuple[Array, Array]:
        filters = at(_images(psfs, weights))
        new, reference = (
            sigma**2 * mean_over_modes(power_of(score), small)
            for sigma, score in (
                (sigma_new, filters.score_new),
                (sigma_reference, filters.score_reference),
            )
        )
        return filters.score_scale, new + reference

    def stamps(weights: tuple[Array, Array]) -> tuple[Array, ...]:
        images = _images(psfs, weights)
        filters = at(images)
        new, reference = squared_stamps(filters, small, size)
        total = sigma_new**2 * jnp.sum(new) + sigma_reference**2 * jnp.sum(reference)
        seen = [
            _unit_sum(_as_size(image, size) * centred_stamp(jnp.conj(score), small, size))
            for image, score in zip(
                images, (filters.score_new, filters.score_reference), strict=True
            )
        ]
        return new / total, reference / total, *seen

    # One node after the other: together they would not stay in the cache.
    weights = tuple(psf.weights.reshape(-1, psf.weights.shape[-1]) for psf in psfs)
    F_S, empty = (_upsampled(v.reshape(grid), tiling) for v in jax.lax.map(scales, weights))
    middles = tuple(psf.weights[1::2, 1::2].reshape(-1, psf.weights.shape[-1]) for psf in psfs)
    made = [stamp.reshape(*tiling.counts, size, size) for stamp in jax.lax.map(stamps, middles)]
    row, column = (n // 2 for n in grid)
    middle = at(_images(psfs, (psf_new.weights[row, column], psf_reference.weights[row, column])))
    return NodeScales(F_S, empty, (made[0], made[1]), (made[2], made[3]), middle, small)


def _images(psfs: tuple[NodePSF, NodePSF], weights: tuple[Array, Array]) -> tuple[Array, Array]:
    new, reference = (
        jnp.tensordot(weight, psf.images, axes=1, precision=EXACT)
        for psf, weight in zip(psfs, weights, strict=True)
    )
    return new, reference


def _as_size(stamp: Array, size: int) -> Array:
    return jnp.pad(stamp, [((size - n) // 2,) * 2 for n in stamp.shape])


def _unit_sum(stamp: Array) -> Array:
    return stamp / jnp.sum(stamp)


def _upsampled(values: Float[Array, "row column"], tiling: Tiling) -> Float[Array, "y x"]:
    """Values at the nodes as a map, linear between them."""
    along_y, along_x = (
        jnp.asarray(_hats(n, size, length), values.dtype)
        for n, size, length in zip(tiling.counts, tiling.core, tiling.shape, strict=True)
    )
    rows = jnp.matmul(along_y, values, precision=EXACT)
    return jnp.matmul(rows, along_x.T, precision=EXACT)


def _hats(count: int, size: int, length: int) -> Float[np.ndarray, "pixel node"]:
    """Weights of linear interpolation from the nodes of tiles to pixels."""
    place = (np.arange(length) + 0.5) * (2 / size)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(2 * count + 1)))
