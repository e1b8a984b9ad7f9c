"""Proper subtraction with one pair of PSFs for all of the image."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float
from scipy.fft import next_fast_len

from diffdeblend.subtract.filters import (
    ProperFilters,
    centred_stamp,
    power_of,
    proper_filters,
    shift_plane,
    transfer_plane,
)
from diffdeblend.subtract.maps import ImagePair, Maps
from diffdeblend.subtract.padding import mirrored_noise, pad, padded_shape, unpad
from diffdeblend.subtract.variance import rms_width, squared_stamps, systematic_variance

# Of the noise of empty sky: below it, the variance of the score is an artefact of a transform.
_LEAST_VARIANCE = 0.05
# What is lost can be made up for only so far.
_MOST_LOST = 0.95


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
    shape = pair.new.shape
    if border is None:
        border = max(*psf_new.shape, *psf_reference.shape) // 2 + 8
    padded = padded_shape(shape, border)
    settings = psf_new, psf_reference, pair.sigma_new, pair.sigma_reference, pair.beta
    filters = proper_filters(*settings, padded)
    size = _filter_size(psf_new, psf_reference)
    small = (next_fast_len(size + size // 2, real=True),) * 2
    stamps = proper_filters(*settings, small)
    moved = shift_plane(pair.dx, pair.dy, padded)

    new_hat = _transform(pair.new, padded)
    reference_hat = moved * _transform(pair.reference, padded)
    part_new, part_reference = filters.new * new_hat, filters.reference * reference_hat
    difference_hat = part_new - part_reference
    D = _image(difference_hat, padded, shape)
    # With the rows and columns beyond the border that the slopes at the border need.
    wide = _image(filters.matched * difference_hat, padded, shape, 1)
    S = wide[1:-1, 1:-1]
    variance = _noise_variance(pair, stamps, small, size, moved, padded)
    variance = variance * mirrored_noise(power_of(filters.psf), padded, shape)
    lost = _lost(pair, psf_new, psf_reference, stamps, small, size, moved, padded)
    left = 1 - jnp.minimum(lost, _MOST_LOST)
    variance = left * jnp.maximum(variance, _LEAST_VARIANCE * filters.score_scale)
    if systematics:
        wide_new = _image(filters.matched * part_new, padded, shape, 1)
        width = rms_width(psf_reference)
        variance += systematic_variance(wide_new, wide_new - wide, pair.noise, width)
    deviation = jnp.sqrt(variance)
    information = filters.score_scale * left
    return Maps(
        D=D,
        S=S,
        S_corr=S / deviation,
        flux=S / information,
        flux_err=deviation / information,
        lost=lost,
        psf=_unit_sum(centred_stamp(stamps.psf, small, size)),
        F_D=filters.flux_scale,
        F_S=filters.score_scale,
    )


def _filter_size(psf_new: Array, psf_reference: Array) -> int:
    """The score's filters reach as far as both PSFs, and are odd like them."""
    return max(*psf_new.shape, *psf_reference.shape)


def _transform(image: Float[Array, "y x"], padded: tuple[int, int]) -> Complex[Array, "ky kx"]:
    return jnp.fft.rfft2(pad(image, padded))


def _image(
    plane: Complex[Array, "ky kx"],
    padded: tuple[int, int],
    shape: tuple[int, int],
    margin: int = 0,
) -> Array:
    return unpad(jnp.fft.irfft2(plane, s=padded), shape, margin)


def _noise_variance(
    pair: ImagePair,
    stamps: ProperFilters,
    small: tuple[int, int],
    size: int,
    moved: Complex[Array, "ky kx"],
    padded: tuple[int, int],
) -> Float[Array, "y x"]:
    """Variance of the score from the noise of the pixels; both images in one transform back."""
    squares = squared_stamps(stamps, small, size)
    new, reference = (transfer_plane(stamp, padded) for stamp in squares)
    total = new * _transform(pair.variance_new, padded)
    total += reference * moved * _transform(pair.variance_reference, padded)
    return _image(total, padded, pair.new.shape)


def _lost(
    pair: ImagePair,
    psf_new: Array,
    psf_reference: Array,
    stamps: ProperFilters,
    small: tuple[int, int],
    size: int,
    moved: Complex[Array, "ky kx"],
    padded: tuple[int, int],
) -> Float[Array, "y x"]:
    """Share of F_S that missing pixels take: F_S is the sum of k_n times the PSF, seen from N.

    From R it is the sum of k_r times its PSF. What both lack is lost once.
    """
    if pair.missing_new is None or pair.missing_reference is None:
        return jnp.zeros_like(pair.new)
    shape, dtype = pair.new.shape, pair.new.dtype
    kept = jnp.ones_like(pair.new)
    for missing, score, psf, shift in (
        (pair.missing_new, stamps.score_new, psf_new, 1.0),
        (pair.missing_reference, stamps.score_reference, psf_reference, moved),
    ):
        # Weight of each pixel around a point: correlated with the mask, thus all conjugated.
        seen = _as_size(psf, size) * centred_stamp(jnp.conj(score), small, size)
        plane = jnp.conj(transfer_plane(_unit_sum(seen), padded)) * shift
        share = _image(plane * _transform(missing.astype(dtype), padded), padded, shape)
        kept *= 1 - jnp.clip(share, 0, 1)
    return 1 - kept


def _as_size(stamp: Array, size: int) -> Array:
    wide = [(size - n) // 2 for n in stamp.shape]
    return jnp.pad(stamp, [(w, w) for w in wide])


def _unit_sum(stamp: Array) -> Array:
    return stamp / jnp.sum(stamp)
