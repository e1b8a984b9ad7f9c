r"""A PSF that varies over the image: a few images with smooth fields of coefficients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.fourier import EXACT, Pair
from diffdeblend.grid import Grid, Modes
from diffdeblend.parameters import as_float
from diffdeblend.polynomials import chebyshev_design, chebyshev_terms, field_maps, n_terms
from diffdeblend.psf.abstract import AbstractPSF
from diffdeblend.psf.pixels import PixelPSF, image_modes

# On so many places an axis the light must be positive when a basis is made.
_CHECKED = 7


class PSFBasis(AbstractPSF):
    r"""A PSF that varies over the image, sampled at its pixels; includes the pixel's response.

    $P(x, y) = \sum_k a_k(x, y)\, p_k \big/ \sum_k a_k(x, y) \sum p_k$: of unit sum at every
    place. The fields $a_k$ are Chebyshev polynomials of the place. Outside of the image the PSF
    is that at the nearest place of its border; at a place that is NaN, that in the middle.

    - `images`: $p_k$, shape `(band, basis, h, w)`, `h` and `w` odd, the centre of the PSF at the
        centre of the middle pixel.
    - `coefficients`: of $T_i(u)\,T_j(v)$, $i + j \le$ `degree`, shape `(band, basis, term)`; u and
        v run over -1..1 between the centres of the first and last pixel of the image along x and
        y. Order of the terms: `diffdeblend.polynomials.term_powers`.
    - `shape`: pixels of that image, (ny, nx); static.
    - `degree`: of the fields; static.

    Where one PSF must do for the whole image (`fourier`, thus in `render` and in fits) it is that
    in the middle; `at` gives that at a place.

    **Raises:** `ValueError` for shapes that disagree, an even size, values that are not finite, or
    light that is not positive somewhere in the image.

    ??? cite
        Lauer (2002), SPIE 4847, 167: the images as Karhunen-Loeve components of the stars.
    """

    images: Float[Array, "band basis h w"] = eqx.field(converter=as_float)
    coefficients: Float[Array, "band basis term"] = eqx.field(converter=as_float)
    shape: tuple[int, int] = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def __init__(
        self,
        images: ArrayLike,
        coefficients: ArrayLike,
        shape: tuple[int, int],
        degree: int,
    ):
        self.images, self.coefficients = as_float(images), as_float(coefficients)
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"`shape` must be (ny, nx) of at least one pixel; got {shape}.")
        if int(degree) != degree or degree < 0:
            raise ValueError(f"`degree` must be an integer of at least 0; got {degree}.")
        self.shape, self.degree = (int(shape[0]), int(shape[1])), int(degree)
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(f"`images` needs shape (band, basis, h, w); got {self.images.shape}.")
        height, width = self.images.shape[2:]
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(
                "`images` needs odd height and width, so that it has a middle pixel; "
                f"got {height} x {width}."
            )
        wanted = (*self.images.shape[:2], n_terms(self.degree))
        if self.coefficients.shape != wanted:
            raise ValueError(
                f"`coefficients` needs shape (band, basis, term) = {wanted} for these images and "
                f"degree {self.degree}; got {self.coefficients.shape}."
            )

    def _check_values(self) -> None:
        if isinstance(self.images, Tracer) or isinstance(self.coefficients, Tracer):
            return
        for name, values in (("images", self.images), ("coefficients", self.coefficients)):
            if not np.isfinite(np.asarray(values)).all():
                raise ValueError(f"`{name}` of a PSF must be finite; NaN or inf is among them.")
        places = np.linspace(0, 1, _CHECKED)
        x, y = np.meshgrid(places * (self.shape[1] - 1), places * (self.shape[0] - 1))
        terms = chebyshev_design(x.ravel(), y.ravel(), self.shape, self.degree)
        sums = np.asarray(self.images).sum(axis=(2, 3))
        light = np.einsum("bk,bkt,nt->bn", sums, np.asarray(self.coefficients), terms)
        if not (light > 0).all():
            raise ValueError(
                "`images` times the fields of `coefficients` must have a positive sum all over "
                f"the image; the smallest is {light.min():g}."
            )

    @property
    def n_bands(self) -> int:
        return self.images.shape[0]

    @property
    def n_basis(self) -> int:
        """Number of images in each band."""
        return self.images.shape[1]

    @jax.jit
    def fields(self, x: ArrayLike, y: ArrayLike) -> Float[Array, "band basis *n"]:
        """a_k at positions in pixels; `x` and `y` of one shape."""
        terms = chebyshev_terms(x, y, self.shape, self.degree).astype(self.coefficients.dtype)
        return jnp.tensordot(self.coefficients, terms, axes=1, precision=EXACT)

    @jax.jit
    def weights(self, x: ArrayLike, y: ArrayLike) -> Float[Array, "band basis *n"]:
        """What the images are multiplied with at a place: the fields over the sum of light."""
        fields = self.fields(x, y)
        return fields / self._light(fields)

    @jax.jit
    def weight_maps(self) -> Float[Array, "band basis y x"]:
        """`weights` at every pixel of the image."""
        fields = self.field_maps()
        return fields / self._light(fields)

    @jax.jit
    def field_maps(self) -> Float[Array, "band basis y x"]:
        """`fields` at every pixel of the image."""
        return field_maps(self.coefficients, self.shape, self.degree)

    @jax.jit
    def images_at(self, x: ArrayLike, y: ArrayLike) -> Float[Array, "*n band h w"]:
        """The PSF at positions in pixels, of unit sum; `x` and `y` of one shape."""
        weights = self.weights(x, y)
        return jnp.einsum("bk...,bkhw->...bhw", weights, self.images, precision=EXACT)

    def at(self, x: Float[Array, ""], y: Float[Array, ""]) -> PixelPSF:
        """The PSF at a place of the image, in pixels."""
        return PixelPSF(self.images_at(x, y))

    @property
    def middle(self) -> PixelPSF:
        """The PSF in the middle of the image."""
        return PixelPSF(self._middle_images())

    def first(self, n: int) -> "PSFBasis":
        """The PSF of the first `n` images alone, again of unit sum everywhere.

        **Raises:** `ValueError` for no image, or more than there are.
        """
        if not 1 <= n <= self.n_basis:
            raise ValueError(f"`n` must be between 1 and {self.n_basis}; got {n}.")
        return PSFBasis(self.images[:, :n], self.coefficients[:, :n], self.shape, self.degree)

    def fourier(self, modes: Modes) -> Pair:
        return image_modes(self._middle_images(), modes)

    def ends_within(self, grid: Grid) -> bool:
        return self.images.shape[2] <= grid.period_y and self.images.shape[3] <= grid.period_x

    def _middle_images(self) -> Float[Array, "band h w"]:
        unknown = jnp.asarray(jnp.nan, self.coefficients.dtype)
        return self.images_at(unknown, unknown)

    def _light(self, fields: Float[Array, "band basis *n"]) -> Float[Array, "band 1 *n"]:
        sums = self.images.sum(axis=(2, 3)).reshape(
            *self.images.shape[:2], *(1,) * (fields.ndim - 2)
        )
        return jnp.sum(fields * sums, axis=1, keepdims=True)


def constant_basis(psf: PixelPSF, shape: tuple[int, int]) -> PSFBasis:
    """A PSF that is the same all over an image of `shape` (ny, nx), as a basis of one."""
    one = jax.lax.full((psf.n_bands, 1, 1), 1.0, psf.image.dtype)
    return PSFBasis(psf.image[:, None], one, shape, 0)
