"""What one epoch adds to a coadd: sums that are the same size for any number of epochs."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from diffdeblend.fourier import fast_length, multiply, sampled_modes, shift
from diffdeblend.grid import Modes, product_modes
from diffdeblend.parameters import as_float

# Of the largest power: enough that 0/0 is 0, too little to be seen in the noise.
_NOTHING = 1e-12


class Plane(NamedTuple):
    """The periodic plane on which images of one shape are transformed. Static.

    - `ny`, `nx`: pixels of the images. `margin_y`, `margin_x`: how far they lie from its corner.
    - `rows`, `columns`: pixels of the plane.
    """

    ny: int
    nx: int
    margin_y: int
    margin_x: int
    rows: int
    columns: int

    @property
    def modes(self) -> Modes:
        """The frequencies of its half of the Fourier plane, in the order of `rfft2`."""
        kx = as_float(2 * np.pi * np.fft.rfftfreq(self.columns))
        return product_modes(kx, as_float(2 * np.pi * np.fft.fftfreq(self.rows)))

    def placed(self, image: Float[Array, "y x"], mode: str = "constant") -> Array:
        """The image on the plane: `"constant"` for 0 around it, or `"symmetric"`."""
        after = self.rows - self.ny - self.margin_y, self.columns - self.nx - self.margin_x
        around = (self.margin_y, self.margin_y), (self.margin_x, self.margin_x)
        padded = jnp.pad(image, around, mode=mode)
        rest = (0, after[0] - self.margin_y), (0, after[1] - self.margin_x)
        return jnp.pad(padded, rest)

    def forward(self, image: Float[Array, "y x"], mode: str = "constant") -> Array:
        """The transform of an image on the plane."""
        return jnp.fft.rfft2(self.placed(image, mode))

    def back(self, spectrum: Complex[Array, "ky kx"]) -> Float[Array, "y x"]:
        """The part of the plane where the image is."""
        image = jnp.fft.irfft2(spectrum, (self.rows, self.columns))
        y, x = self.margin_y, self.margin_x
        return image[y : y + self.ny, x : x + self.nx]


def make_plane(shape: tuple[int, int], stamp: tuple[int, int]) -> Plane:
    """The plane for images of `shape` and PSFs of at most `stamp`, on which nothing wraps around.

    Half a stamp is mirrored on all sides, so that noise does not end at the edge.
    """
    margin_y, margin_x = (min(size // 2, n) for size, n in zip(stamp, shape, strict=True))
    rows, columns = (
        fast_length(n + 3 * m + 1) for n, m in zip(shape, (margin_y, margin_x), strict=True)
    )
    return Plane(shape[0], shape[1], margin_y, margin_x, rows, columns)


class Sums(eqx.Module):
    """What epochs add up to; those of several epochs are the sums of each field.

    - `light`: sum of (F/s^2) conj(P) M, `power`: of F^2/s^2 |P|^2, on the half plane of `rfft2`.
    - `score`: of (F/s^2) conj(P) M without masked pixels, `weight`: of (F^2/s^2) P^2 correlated
        with the used pixels, `variance`: of (F^2/s^4) P^2 correlated with the variance of these;
        transforms of images.
    - `count`: epochs that use a pixel.
    - `square`, `cube`: sums of F^2/s^2 and of F^3/(s^4 gain).
    """

    light: Complex[Array, "ky kx"]
    power: Float[Array, "ky kx"]
    score: Complex[Array, "ky kx"]
    weight: Complex[Array, "ky kx"]
    variance: Complex[Array, "ky kx"]
    count: Int[Array, "y x"]
    square: Float[Array, ""]
    cube: Float[Array, ""]


class Epoch(eqx.Module):
    """One band of one epoch, aligned, its sky taken away.

    - `image`, `variance`, `good`: `(y, x)`; what is not good has no say.
    - `psf`: its image, `(h, w)`, odd, of unit sum.
    - `scale`: F, the flux here of a source of unit flux. `sigma`: noise of a pixel of empty sky.
    - `dx`, `dy`: position here minus position in the coadd, in pixels.
    - `gain`: electrons in a unit of the image; any positive number where it is not known.
    """

    image: Float[Array, "y x"]
    variance: Float[Array, "y x"]
    good: Bool[Array, "y x"]
    psf: Float[Array, "h w"]
    scale: Float[Array, ""]
    sigma: Float[Array, ""]
    dx: Float[Array, ""]
    dy: Float[Array, ""]
    gain: Float[Array, ""]


def epoch_sums(epoch: Epoch, plane: Plane, before: Sums | None = None) -> Sums:
    """What one epoch adds to a coadd. Pure; vmap it over epochs, or add one after the other.

    Masked pixels are filled for `light`, which is divided by the PSFs' power later and would ring
    around holes; from the neighbours, or with `before` by what the coadd of a first pass predicts
    in this epoch. `score`, `weight` and `variance` need no filling and are exact.

    ??? cite
        Zackay & Ofek (2017), ApJ 836, 188, eqs. 3 and 7.
    """
    psf, squared = transfers(epoch, plane)
    own = epoch.scale / epoch.sigma
    used = jnp.where(epoch.good, epoch.image, 0) / epoch.sigma
    on = epoch.good.astype(used.dtype)
    seen, there = plane.forward(used), plane.forward(on)
    if before is None:
        smoothed, share = plane.back(jnp.conj(psf) * seen), plane.back(jnp.conj(psf) * there)
        filling = smoothed / jnp.maximum(share, 0.02)
    else:
        filling = own * plane.back(psf * _divided(before.light, before.power))
    filled = plane.forward(jnp.where(epoch.good, used, filling), "symmetric")
    noise = jnp.where(epoch.good, epoch.variance, 0) / epoch.sigma**2
    return Sums(
        light=own * jnp.conj(psf) * filled,
        power=own**2 * (psf.real**2 + psf.imag**2),
        score=own * jnp.conj(psf) * seen,
        weight=own**2 * jnp.conj(squared) * there,
        variance=own**2 * jnp.conj(squared) * plane.forward(noise),
        count=epoch.good.astype(jnp.int32),
        square=own**2,
        cube=own**3 / (epoch.sigma * epoch.gain),
    )


def transfers(epoch: Epoch, plane: Plane) -> tuple[Array, Array]:
    """Transfer functions of the epoch's PSF and of its square, with the epoch's shift."""
    modes = plane.modes
    height, width = epoch.psf.shape
    dtype = epoch.psf.dtype
    y = jnp.arange(height, dtype=dtype) - (height - 1) // 2
    x = jnp.arange(width, dtype=dtype) - (width - 1) // 2
    moved = shift(modes, epoch.dx, epoch.dy)

    def plane_of(stamp: Array) -> Array:
        re, im = multiply(sampled_modes(stamp, modes, x, y), moved)
        return jax.lax.complex(re, im).reshape(plane.rows, -1)

    return plane_of(epoch.psf), plane_of(epoch.psf**2)


def _divided(light: Array, power: Array) -> Array:
    return light / (power + _NOTHING * power.max())


class Maps(NamedTuple):
    """The images of a coadd of one band; see `Coadd`."""

    image: Float[Array, "y x"]
    psf: Float[Array, "h w"]
    score: Float[Array, "y x"]
    flux: Float[Array, "y x"]
    flux_err: Float[Array, "y x"]


def finish(sums: Sums, plane: Plane, stamp: tuple[int, int]) -> Maps:
    """The images that sums of epochs stand for; pure. `stamp`: height and width of the PSF."""
    root = jnp.sqrt(sums.power + _NOTHING * sums.power.max())
    image = plane.back(sums.light / root)
    whole = jnp.fft.fftshift(jnp.fft.irfft2(root + 0j, (plane.rows, plane.columns)))
    middle_y, middle_x = plane.rows // 2, plane.columns // 2
    half_y, half_x = stamp[0] // 2, stamp[1] // 2
    psf = whole[
        middle_y - half_y : middle_y + half_y + 1, middle_x - half_x : middle_x + half_x + 1
    ]
    seen, weight = plane.back(sums.score), plane.back(sums.weight)
    # Rounding leaves a little where no epoch sees anything.
    known = weight > 1e-4 * weight.max()
    weight = jnp.where(known, weight, 1)
    noise = jnp.sqrt(jnp.maximum(jnp.where(known, plane.back(sums.variance), 1), 0))
    return Maps(
        image,
        psf / psf.sum(),
        jnp.where(known, seen / jnp.sqrt(weight), 0),
        jnp.where(known, seen / weight, jnp.nan),
        jnp.where(known, noise / weight, jnp.inf),
    )


@partial(jax.jit, static_argnames="plane")
def add_epoch(total: Sums | None, epoch: Epoch, plane: Plane, before: Sums | None) -> Sums:
    """Sums of all bands with one more epoch; each leaf has a leading `band` axis."""
    axes = (0, None, None if before is None else 0)
    more = jax.vmap(epoch_sums, in_axes=axes)(epoch, plane, before)
    return more if total is None else jax.tree.map(jnp.add, total, more)


@partial(jax.jit, static_argnames=("plane", "stamp"))
def finish_bands(sums: Sums, plane: Plane, stamp: tuple[int, int]) -> Maps:
    """`finish` for sums with a leading `band` axis."""
    return jax.vmap(lambda one: finish(one, plane, stamp))(sums)
