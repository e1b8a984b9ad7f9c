"""Proper subtraction with one pair of PSFs for all of the image."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from diffdeblend.fourier import fast_length
from diffdeblend.subtract.filters import (
    ProperFilters,
    centred_stamp,
    power_of,
    proper_filters,
    shift_plane,
    transfer_plane,
)
from diffdeblend.subtract.maps import ImagePair, Maps, closed_maps
from diffdeblend.subtract.padding import mirrored_noise, pad, padded_shape, unpad
from diffdeblend.subtract.variance import squared_stamps, systematic_variance
from diffdeblend.widths import equivalent_sigma


def subtract_constant(
    pair: ImagePair,
    psf_new: Float[Array, "h w"],
    psf_reference: Float[Array, "g v"],
    *,
    border: int | None = None,
    systematics: bool = True,
) -> Maps:
    """D, score, significance and flux of a pair of images with these PSFs. Of one band.

    - `border`: pixels of mirror image around the images, at least; default the larger half width
        of the two PSFs and 8 more.
    - `systematics`: whether `pair.noise` enters; False saves a transform if all of it is zero.
    """
    shape = pair.new.shape[0], pair.new.shape[1]
    if border is None:
        border = default_border(psf_new, psf_reference)
    made = _prepared(pair, psf_new, psf_reference, padded_shape(shape, border))
    difference_hat = made.part_new - made.part_reference
    # With the rows and columns beyond the border that the slopes at the border need.
    wide = _image(made.filters.matched * difference_hat, made, 1)
    variance = _noise_variance(pair, made)
    variance *= mirrored_noise(power_of(made.filters.psf), made.padded, shape)
    systematic = jnp.zeros_like(pair.new)
    if systematics:
        systematic = _systematic(pair, made, psf_reference, wide)
    return closed_maps(
        _image(difference_hat, made),
        wide[1:-1, 1:-1],
        information=made.filters.score_scale,
        variance=variance,
        systematic=systematic,
        lost=_lost(pair, psf_new, psf_reference, made),
        psf=_psf(made),
        F_D=made.filters.flux_scale,
        F_S=made.filters.score_scale,
    )


def default_border(psf_new: Float[Array, "h w"], psf_reference: Float[Array, "g v"]) -> int:
    """Pixels that filters of these PSFs reach beyond an image."""
    return max(*psf_new.shape, *psf_reference.shape) // 2 + 8


class _Prepared(eqx.Module):
    """Filters on the padded plane and on a small one, and what they make of both images."""

    filters: ProperFilters
    stamps: ProperFilters
    moved: Complex[Array, "ky kx"]
    part_new: Complex[Array, "ky kx"]
    part_reference: Complex[Array, "ky kx"]
    shape: tuple[int, int] = eqx.field(static=True)
    padded: tuple[int, int] = eqx.field(static=True)
    small: tuple[int, int] = eqx.field(static=True)
    size: int = eqx.field(static=True)


def _prepared(
    pair: ImagePair, psf_new: Array, psf_reference: Array, padded: tuple[int, int]
) -> _Prepared:
    settings = psf_new, psf_reference, pair.sigma_new, pair.sigma_reference, pair.beta
    # The score's filters reach as far as both PSFs, and are odd like them.
    size = max(*psf_new.shape, *psf_reference.shape)
    side = fast_length(size + size // 2)
    filters = proper_filters(*settings, padded)
    moved = shift_plane(pair.dx, pair.dy, padded)
    return _Prepared(
        filters=filters,
        stamps=proper_filters(*settings, (side, side)),
        moved=moved,
        part_new=filters.new * _transform(pair.new, padded),
        part_reference=filters.reference * moved * _transform(pair.reference, padded),
        shape=(pair.new.shape[0], pair.new.shape[1]),
        padded=padded,
        small=(side, side),
        size=size,
    )


def _transform(image: Float[Array, "y x"], padded: tuple[int, int]) -> Complex[Array, "ky kx"]:
    return jnp.fft.rfft2(pad(image, padded))


def _image(plane: Complex[Array, "ky kx"], made: _Prepared, margin: int = 0) -> Array:
    return unpad(jnp.fft.irfft2(plane, s=made.padded), made.shape, margin)


def _noise_variance(pair: ImagePair, made: _Prepared) -> Float[Array, "y x"]:
    """Variance of the score from the noise of the pixels; both images in one transform back."""
    squares = squared_stamps(made.stamps, made.small, made.size)
    new, reference = (transfer_plane(stamp, made.padded) for stamp in squares)
    total = new * _transform(pair.variance_new, made.padded)
    total += reference * made.moved * _transform(pair.variance_reference, made.padded)
    return _image(total, made)


def _systematic(
    pair: ImagePair, made: _Prepared, psf_reference: Array, score: Float[Array, "Y X"]
) -> Float[Array, "y x"]:
    """`score`, with a pixel more on each side, saves the transform of the reference's part."""
    of_new = _image(made.filters.matched * made.part_new, made, 1)
    return systematic_variance(of_new, of_new - score, pair.noise, equivalent_sigma(psf_reference))


def _lost(
    pair: ImagePair, psf_new: Array, psf_reference: Array, made: _Prepared
) -> Float[Array, "y x"]:
    """Share of F_S that missing pixels take: F_S is the sum of k_n times the PSF, seen from N.

    From R it is the sum of k_r times its PSF. What both lack is lost once.
    """
    if pair.missing_new is None or pair.missing_reference is None:
        return jnp.zeros_like(pair.new)
    kept = jnp.ones_like(pair.new)
    for missing, score, psf, shift in (
        (pair.missing_new, made.stamps.score_new, psf_new, 1.0),
        (pair.missing_reference, made.stamps.score_reference, psf_reference, made.moved),
    ):
        # Weight of each pixel around a point: correlated with the mask, thus all conjugated.
        widths = [((made.size - n) // 2,) * 2 for n in psf.shape]
        seen = jnp.pad(psf, widths) * centred_stamp(jnp.conj(score), made.small, made.size)
        plane = jnp.conj(transfer_plane(seen / jnp.sum(seen), made.padded)) * shift
        share = _image(plane * _transform(missing.astype(pair.new.dtype), made.padded), made)
        kept *= 1 - jnp.clip(share, 0, 1)
    return 1 - kept


def _psf(made: _Prepared) -> Float[Array, "size size"]:
    stamp = centred_stamp(made.stamps.psf, made.small, made.size)
    return stamp / jnp.sum(stamp)
