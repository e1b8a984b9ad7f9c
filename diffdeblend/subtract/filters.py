r"""The filters of proper subtraction, for one pair of PSFs.

The model: reference R = T * P_r + noise, new N = beta T * P_n + noise, for a true sky T. All
planes here are halves of Fourier planes as `jnp.fft.rfft2` gives them, `(ky, kx)`, of images whose
PSF has its centre at pixel (0, 0). Pure functions of one band; use `jax.vmap` for more.

??? cite
    Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27 (ZOGY).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from diffdeblend.fourier import EXACT, mode_counts
from diffdeblend.parameters import as_float

# Where neither PSF has power, 0/0: this share of the largest power keeps derivatives finite.
# 1e-6 would show: the difference of white noise would have 0.96 of its variance.
EPSILON = 1e-8


class ProperFilters(eqx.Module):
    r"""What makes the proper difference of two images in Fourier space.

    $\hat D = \hat q_n \hat N - \hat q_r \hat R$ is white with unit variance where both images have
    white noise of the given sigmas; a point of flux 1 in the reference's unit that is in N alone
    is $F_D P_D$ in it.

    - `new`, `reference`: $\hat q_n$ and $\hat q_r$, shape `(ky, kx)`.
    - `psf`: $\hat P_D$, shape `(ky, kx)`; 1 at k = 0.
    - `flux_scale`: $F_D$, zero axes.
    - `score_scale`: $F_S = F_D^2 \sum P_D^2$, zero axes: a point's flux is S / F_S.

    ??? cite
        ZOGY, eqs. 13 to 17, 41 and 42.
    """

    new: Complex[Array, "ky kx"]
    reference: Complex[Array, "ky kx"]
    psf: Complex[Array, "ky kx"]
    flux_scale: Float[Array, ""]
    score_scale: Float[Array, ""]

    @property
    def matched(self) -> Complex[Array, "ky kx"]:
        r"""$F_D \overline{\hat P_D}$: takes $\hat D$ to the score $\hat S$ (eq. 12)."""
        return self.flux_scale * jnp.conj(self.psf)

    @property
    def score_new(self) -> Complex[Array, "ky kx"]:
        r"""$\hat k_n$, the part of the score that acts on N (eq. 28)."""
        return self.matched * self.new

    @property
    def score_reference(self) -> Complex[Array, "ky kx"]:
        r"""$\hat k_r$, the part of the score that acts on R (eq. 29); its sign is not in it."""
        return self.matched * self.reference


def proper_filters(
    psf_new: Float[Array, "h w"],
    psf_reference: Float[Array, "g v"],
    sigma_new: Float[Array, ""] | float,
    sigma_reference: Float[Array, ""] | float,
    beta: Float[Array, ""] | float,
    shape: tuple[int, int],
    *,
    epsilon: float = EPSILON,
) -> ProperFilters:
    """The filters for images of `shape` (y, x), padding included.

    - `psf_new`, `psf_reference`: unit sum, odd height and width, centre on the middle pixel.
    - `sigma_new`, `sigma_reference`: standard deviation of the background noise of a pixel.
    - `beta`: flux of a star in N over that in R.
    - `epsilon`: floor of the power of the noise, in units of its value at k = 0.
    """
    return filters_of_transfers(
        transfer_plane(psf_new, shape),
        transfer_plane(psf_reference, shape),
        sigma_new,
        sigma_reference,
        beta,
        shape,
        epsilon=epsilon,
    )


def filters_of_transfers(
    transfer_new: Complex[Array, "ky kx"],
    transfer_reference: Complex[Array, "ky kx"],
    sigma_new: Float[Array, ""] | float,
    sigma_reference: Float[Array, ""] | float,
    beta: Float[Array, ""] | float,
    shape: tuple[int, int],
    *,
    epsilon: float = EPSILON,
) -> ProperFilters:
    """`proper_filters` of PSFs that are transfer planes already."""
    # In units of the noise of N: fluxes in any unit stay within the range of float32.
    scaled = beta * sigma_reference / sigma_new
    floor = epsilon * (1 + scaled**2)
    power = power_of(transfer_reference) + scaled**2 * power_of(transfer_new) + floor
    whiten = jnp.reciprocal(jnp.sqrt(power))
    flux_scale = beta / sigma_new / jnp.sqrt(1 + scaled**2)
    psf = (jnp.sqrt(1 + scaled**2) * whiten) * (transfer_new * transfer_reference)
    return ProperFilters(
        new=(whiten / sigma_new) * transfer_reference,
        reference=(scaled / sigma_reference * whiten) * transfer_new,
        psf=psf,
        flux_scale=flux_scale,
        score_scale=flux_scale**2 * mean_over_modes(power_of(psf), shape),
    )


def transfer_plane(stamp: Float[Array, "h w"], shape: tuple[int, int]) -> Complex[Array, "ky kx"]:
    """`rfft2` of a small image of odd sides, its middle pixel put on (0, 0) of `shape`.

    Two products of matrices: a tenth of the time of the transform of a padded image.
    """
    height, width = stamp.shape
    along_x = _waves(width, shape[1], shape[1] // 2 + 1, stamp.dtype)
    along_y = _waves(height, shape[0], shape[0], stamp.dtype)
    re, im = (jnp.matmul(stamp, wave, precision=EXACT) for wave in along_x)
    cosine, sine = (wave.T for wave in along_y)

    def dot(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision=EXACT)

    return jax.lax.complex(dot(cosine, re) - dot(sine, im), dot(cosine, im) + dot(sine, re))


def shift_plane(
    dx: Float[Array, ""] | float, dy: Float[Array, ""] | float, shape: tuple[int, int]
) -> Complex[Array, "ky kx"]:
    r"""$e^{-i(k_x dx + k_y dy)}$: moves an image by (dx, dy) pixels, shape `(ky, kx)`."""
    ky = 2 * np.pi * np.fft.fftfreq(shape[0])
    kx = 2 * np.pi * np.fft.rfftfreq(shape[1])
    dx, dy = as_float(dx), as_float(dy)
    phase_y = jnp.asarray(ky, dy.dtype) * dy
    phase_x = jnp.asarray(kx, dx.dtype) * dx
    wave_y = jnp.cos(phase_y) - 1j * jnp.sin(phase_y)
    wave_x = jnp.cos(phase_x) - 1j * jnp.sin(phase_x)
    return wave_y[:, None] * wave_x


def power_of(plane: Complex[Array, "ky kx"]) -> Float[Array, "ky kx"]:
    """Squared absolute value; smooth at 0, where that of `abs` has no derivative."""
    return jnp.real(plane) ** 2 + jnp.imag(plane) ** 2


def mean_over_modes(values: Float[Array, "ky kx"], shape: tuple[int, int]) -> Float[Array, ""]:
    """Mean over all modes of real images of `shape`: those that `rfft2` leaves out count, too."""
    by_column = jnp.sum(values, axis=0)
    counts = jnp.asarray(mode_counts(shape[1]), values.dtype)
    return jnp.sum(by_column * counts) / (shape[0] * shape[1])


def centred_stamp(
    plane: Complex[Array, "ky kx"], shape: tuple[int, int], size: int
) -> Float[Array, "size size"]:
    """The middle of the image of a plane of `shape`, with pixel (0, 0) moved to the middle.

    `size` is odd and at most the smaller side of `shape`. On a small `shape` this makes the stamp
    of a filter, for images of any size.
    """
    image = jnp.fft.irfft2(plane, s=shape)
    half = size // 2
    return jnp.roll(image, (half, half), axis=(0, 1))[:size, :size]


def _waves(length: int, period: int, modes: int, dtype) -> tuple[Array, Array]:
    """Cosine and minus sine of position times frequency, `(position, mode)`, host constants."""
    position = np.arange(length) - (length - 1) // 2
    # Whole numbers modulo the period: exact in any precision.
    turns = (position[:, None] * np.arange(modes)) % period / period
    return (
        jnp.asarray(np.cos(2 * np.pi * turns), dtype),
        jnp.asarray(-np.sin(2 * np.pi * turns), dtype),
    )
