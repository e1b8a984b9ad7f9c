"""Whole images through a PSF that varies over them: convolution, its adjoint, and points."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float

from diffdeblend.fourier import EXACT, cos_sin, fast_length
from diffdeblend.polynomials import field_maps
from diffdeblend.psf.basis import PSFBasis

# Pixels around a stamp into which it may be moved by a fraction of a pixel.
_MARGIN = 4


def convolve_varying(image: Float[Array, "band y x"], psf: PSFBasis) -> Float[Array, "band y x"]:
    r"""An image as it is seen through the PSF of each of its places: $\sum_k p_k * (a_k\, O)$.

    Each pixel's light is spread by the PSF at that pixel. What falls outside of the image is
    lost, and nothing comes in.

    - `image`: of the shape for which `psf` is.

    **Raises:** `ValueError` for another shape.

    ??? cite
        Lauer (2002), SPIE 4847, 167.
    """
    _check_image(image, psf)

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        kernel, weight = part[0], field_maps(part[1], psf.shape, psf.degree)
        return total + filtered(image * weight / light, kernel), None

    light = light_map(psf)
    return jax.lax.scan(add, jnp.zeros_like(image), _parts(psf))[0]


def correlate_varying(image: Float[Array, "band y x"], psf: PSFBasis) -> Float[Array, "band y x"]:
    r"""Sum at each pixel of the image times the PSF centred there: $\sum_k a_k\, (p_k \star I)$.

    The adjoint of `convolve_varying`; arguments and errors as there.
    """
    _check_image(image, psf)

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        kernel, weight = part[0], field_maps(part[1], psf.shape, psf.degree)
        return total + weight * filter_known(known, kernel[:, ::-1, ::-1], size, psf.shape), None

    size = padded_size(psf.shape, psf.images.shape[2:])
    known = jnp.fft.rfft2(image, size)
    total, _ = jax.lax.scan(add, jnp.zeros_like(image), _parts(psf))
    return total / light_map(psf)


def light_map(psf: PSFBasis) -> Float[Array, "band y x"]:
    r"""$\sum_k a_k \sum p_k$ at each pixel: a field of the same degree."""
    coefficients = jnp.einsum(
        "bk,bkt->bt", psf.images.sum(axis=(2, 3)), psf.coefficients, precision=EXACT
    )
    return field_maps(coefficients, psf.shape, psf.degree)


def filtered(
    image: Float[Array, "band y x"], kernel: Float[Array, "band h w"]
) -> Float[Array, "band y x"]:
    """Convolution with a kernel of odd size that is centred on its middle pixel; zero outside."""
    shape = image.shape[-2:]
    size = padded_size(shape, kernel.shape[-2:])
    return filter_known(jnp.fft.rfft2(image, size), kernel, size, shape)


def filter_known(
    transformed: Complex[Array, "band ky kx"],
    kernel: Float[Array, "band h w"],
    size: tuple[int, int],
    shape: tuple[int, ...],
) -> Float[Array, "band y x"]:
    """`filtered`, for an image of `shape` whose transform on `padded_size` is known."""
    whole = jnp.fft.irfft2(transformed * jnp.fft.rfft2(kernel, size), size)
    top, left = (kernel.shape[-2] - 1) // 2, (kernel.shape[-1] - 1) // 2
    return whole[..., top : top + shape[0], left : left + shape[1]]


def padded_size(shape: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int]:
    """The next size that transforms fast and on which nothing wraps around."""
    return fast_length(shape[0] + kernel[0] - 1), fast_length(shape[1] + kernel[1] - 1)


def draw_points(
    psf: PSFBasis, x: ArrayLike, y: ArrayLike, flux: ArrayLike, shape: tuple[int, int] | None = None
) -> Float[Array, "band y x"]:
    """The image of points, each seen through the PSF at its place. Jit it with `shape` static.

    Between pixels a PSF is moved by the phase of its Fourier series. What falls outside of the
    image is lost.

    - `x`, `y`: positions in pixels, shape `(n,)`.
    - `flux`: of each in each band, shape `(n, band)`, or `(n,)` for all bands.
    - `shape`: pixels of the image (ny, nx); default the shape for which `psf` is.
    """
    shape = psf.shape if shape is None else shape
    x, y, flux = (jnp.asarray(v, dtype=psf.images.dtype) for v in (x, y, flux))
    flux = flux[:, None] if flux.ndim == 1 else flux
    near_x, near_y = jnp.round(x), jnp.round(y)
    stamps = moved_stamps(psf.images_at(x, y), x - near_x, y - near_y)
    stamps = stamps * flux[:, :, None, None]
    height, width = stamps.shape[2:]
    # A frame wide enough that no stamp of a source within the image leaves it.
    rows = near_y.astype(int)[:, None] + jnp.arange(height)[None, :]
    columns = near_x.astype(int)[:, None] + jnp.arange(width)[None, :]
    inside = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    frame = jnp.zeros((psf.n_bands, shape[0] + height - 1, shape[1] + width - 1), stamps.dtype)
    stamps = jnp.where(inside[:, None], stamps, 0).swapaxes(0, 1)
    frame = frame.at[:, jnp.maximum(rows, 0)[:, :, None], jnp.maximum(columns, 0)[:, None, :]].add(
        stamps, mode="drop"
    )
    top, left = (height - 1) // 2, (width - 1) // 2
    return frame[:, top : top + shape[0], left : left + shape[1]]


def moved_stamps(
    stamps: Float[Array, "n band h w"], dx: Float[Array, "n"], dy: Float[Array, "n"]
) -> Float[Array, "n band H W"]:
    """Stamps moved by a fraction of a pixel, on stamps 4 pixels wider on each side."""
    pad = (_MARGIN, _MARGIN)
    wide = jnp.pad(stamps, ((0, 0), (0, 0), pad, pad))
    along_y = _shift_matrix(dy, wide.shape[2])
    along_x = _shift_matrix(dx, wide.shape[3])
    return jnp.einsum("nij,nbjk,nlk->nbil", along_y, wide, along_x, precision=EXACT)


def _shift_matrix(shift: Float[Array, "n"], length: int) -> Float[Array, "n to from"]:
    """Moves a periodic series of odd length: the Dirichlet kernel as a sum of cosines."""
    k = jnp.asarray(2 * np.pi / length * np.arange(1, (length - 1) // 2 + 1), shift.dtype)
    distance = jnp.asarray(np.arange(length)[:, None] - np.arange(length), shift.dtype)
    angle = (distance[None] - shift[:, None, None])[..., None] * k[None, None, None]
    return (1 + 2 * cos_sin(angle)[0].sum(axis=-1)) / length


def _parts(psf: PSFBasis) -> tuple[Array, Array]:
    """Images and coefficients with the basis as first axis, one to a step."""
    return psf.images.swapaxes(0, 1), psf.coefficients.swapaxes(0, 1)


def _check_image(image: Array, psf: PSFBasis) -> None:
    if image.shape != (psf.n_bands, *psf.shape):
        raise ValueError(
            f"`image` needs the shape for which the PSF is, {(psf.n_bands, *psf.shape)}; "
            f"got {image.shape}."
        )
