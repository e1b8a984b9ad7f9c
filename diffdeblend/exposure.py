"""What the camera saw: an image in each band with its noise, its flaws, its PSF and its place."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsFloat

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from diffdeblend.header import EXCLUDED_PLANES as EXCLUDED_PLANES
from diffdeblend.header import STANDARD_PLANES as STANDARD_PLANES
from diffdeblend.header import Header as Header
from diffdeblend.header import Numbers as Numbers
from diffdeblend.noise import checked_noise_correlation
from diffdeblend.planes import (
    as_int32,
    excluded_bits,
    excluded_planes,
    mask_bits,
    named_bits,
    with_plane,
    without_name,
)
from diffdeblend.psf import AbstractPSF, PixelPSF
from diffdeblend.sky import local_jacobian

if TYPE_CHECKING:  # 0.4 s of import that arrays alone do not need
    import astropy.wcs

# AB magnitudes: Oke & Gunn (1983), ApJ 266, 713; m = -2.5 log10(f / [erg/s/cm2/Hz]) - 48.6.
_AB_CONSTANT = 48.6


class Exposure(eqx.Module):
    """An image in each band with all that is needed to compare a model with it.

    - `image`: shape `(band, y, x)`, linear flux a pixel.
    - `variance`: of the noise of each pixel, same shape, unit of `image` squared.
    - `mask`: bit planes, same shape; the header has their names.
    - `psf`: how a point is seen, in the same bands.
    - `header`: the rest.
    - `noise_correlation`: autocovariance of the noise in units of the variance, a stamp a band with
        the pixel itself in the middle, `(band, h, w)`; None where pixels are independent.

    Made by `make_exposure`, which checks the values.

    **Raises:** `ValueError` if the arrays disagree in shape.
    """

    image: Float[Array, "band y x"]
    variance: Float[Array, "band y x"]
    mask: Int[Array, "band y x"]
    psf: AbstractPSF
    header: Header = eqx.field(static=True)
    noise_correlation: Float[Array, "band h w"] | None = None

    def __check_init__(self):
        shapes = self.image.shape, self.variance.shape, self.mask.shape
        if len(set(shapes)) > 1 or len(shapes[0]) != 3 or shapes[0][0] != len(self.header.bands):
            raise ValueError(
                f"`image`, `variance` and `mask` need one shape ({len(self.header.bands)}, y, x) "
                f"for bands {self.header.bands}; got {shapes[0]}, {shapes[1]}, {shapes[2]}."
            )

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.header.bands

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return len(self.header.bands)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def good(self) -> Bool[Array, "band y x"]:
        """Pixels in use: finite, with a finite positive variance, on no excluded plane."""
        known = jnp.isfinite(self.image) & jnp.isfinite(self.variance) & (self.variance > 0)
        return known & ((self.mask & as_int32(excluded_bits(self.header))) == 0)

    @property
    def weight(self) -> Float[Array, "band y x"]:
        """One over the variance, 0 where a pixel is not in use."""
        good = self.good
        # `where` inside as well: the derivative of 1/0 behind a `where` would be NaN.
        return jnp.where(good, 1 / jnp.where(good, self.variance, 1), 0)

    @property
    def data(self) -> Float[Array, "band y x"]:
        """The image, 0 where a pixel is not in use."""
        return jnp.where(self.good, self.image, 0)

    def band(self, name: str) -> int:
        """Place of a band on the first axis.

        **Raises:** `ValueError` for an unknown band.
        """
        if name not in self.header.bands:
            raise ValueError(f"`name` must be one of the bands {self.header.bands}; got {name!r}.")
        return self.header.bands.index(name)

    def flag(self, plane: str) -> Bool[Array, "band y x"]:
        """The pixels on a mask plane.

        **Raises:** `ValueError` for an unknown plane.
        """
        planes = self.header.mask_planes
        if plane not in planes:
            raise ValueError(f"`plane` must be one of the mask planes {planes}; got {plane!r}.")
        return ((self.mask >> planes.index(plane)) & 1).astype(bool)

    def with_mask(self, plane: str, flagged: ArrayLike) -> "Exposure":
        """The exposure with these pixels put on a mask plane, besides those already there.

        `flagged`: shape `(band, y, x)`, or `(y, x)` for all bands. A new plane takes the next
        bit, and its pixels are in use unless the header excludes it.

        **Raises:** `ValueError` for another shape, values that are not true or false, a name that
        is not one of a plane, or too many planes.
        """
        flagged = jnp.asarray(flagged)
        if flagged.dtype != bool or flagged.shape not in (self.mask.shape, self.mask.shape[1:]):
            raise ValueError(
                f"`flagged` needs booleans of shape {self.mask.shape} or {self.mask.shape[1:]}; "
                f"got {flagged.dtype} of shape {flagged.shape}."
            )
        planes, bit = with_plane(self.header.mask_planes, plane)
        mask = jnp.where(flagged[None] if flagged.ndim == 2 else flagged, as_int32(1 << bit), 0)
        return self._with_bits(self.mask | mask, planes)

    @property
    def plane_bits(self) -> dict[str, int]:
        """Of each mask plane, its bit: 0, 1, ...; its value in the mask is 2 to that power."""
        return {plane: bit for bit, plane in enumerate(self.header.mask_planes)}

    def mask_value(self, planes: Sequence[str] | str) -> int:
        """The bits of some planes as one number, by which to test `mask`.

        **Raises:** `ValueError` for an unknown plane.
        """
        return named_bits(planes, self.header.mask_planes)

    def clear_mask(self, planes: Sequence[str] | str | None = None) -> "Exposure":
        """The exposure with no pixel on these planes; None: on any. The planes stay known.

        **Raises:** `ValueError` for an unknown plane.
        """
        if planes is None:
            return self._with_bits(jnp.zeros_like(self.mask), self.header.mask_planes)
        kept = as_int32(0xFFFFFFFF ^ self.mask_value(planes))
        return self._with_bits(self.mask & kept, self.header.mask_planes)

    def without_plane(self, plane: str) -> "Exposure":
        """The exposure with a plane cleared and its name gone; other planes keep their bits.

        The last plane frees its bit; the bit of another is called `BIT<k>` from then on.

        **Raises:** `ValueError` for an unknown plane.
        """
        cleared = self.clear_mask(plane)
        return cleared._with_bits(cleared.mask, without_name(self.header.mask_planes, plane))

    def _with_bits(self, mask: Array, planes: tuple[str, ...]) -> "Exposure":
        # The same header where it can be: another one makes jit compile again.
        known = planes == self.header.mask_planes
        header = self.header if known else replace(self.header, mask_planes=planes)
        return Exposure(self.image, self.variance, mask, self.psf, header, self.noise_correlation)

    def with_noise_correlation(self, noise_correlation: Numbers | None) -> "Exposure":
        """The exposure with another correlation of the noise; see `make_exposure`.

        **Raises:** `ValueError` for what is no correlation.
        """
        stamp = _noise_correlation(noise_correlation, self.n_bands, self.image.dtype)
        return Exposure(self.image, self.variance, self.mask, self.psf, self.header, stamp)


def make_exposure(
    image: Numbers,
    variance: Numbers | None,
    psf: AbstractPSF | Numbers | None,
    *,
    mask: Numbers | None = None,
    bands: Sequence[str] | np.ndarray | str | None = None,
    zero_points: Numbers | None = None,
    wcs: "astropy.wcs.WCS | None" = None,
    unit: str = "",
    mask_planes: Sequence[str] | None = None,
    excluded: Sequence[str] | None = None,
    gain: SupportsFloat | None = None,
    read_noise: SupportsFloat | None = None,
    saturation: SupportsFloat | None = None,
    exposure_time: SupportsFloat | None = None,
    date: str | None = None,
    pixel_scale: SupportsFloat | None = None,
    noise_correlation: Numbers | None = None,
) -> Exposure:
    """An exposure from arrays. The one place where values are checked; not for use under jit.

    - `image`: shape `(band, y, x)`, or `(y, x)` for one band. Linear flux; NaN is not used.
        Kept as float32, or as float64 if it is given so and JAX has float64 switched on.
    - `variance`: same shape, or one number per band, or one number; None is refused. NaN and
        infinite variance is not used; zero or negative variance of a pixel that is not masked is
        an error.
    - `psf`: a PSF, or its image in each band, `(band, h, w)`, or `(h, w)` for one band, `h` and
        `w` odd; brought to unit sum; None is refused.
    - `mask`: true where a pixel is bad (plane `"BAD"`), or integers whose bits are planes named
        by `mask_planes`. Bits without a name are called `BIT<k>` and never excluded.
        Same shape as the image, or `(y, x)` for all bands.
    - `bands`: one name per band; default `"0"`, `"1"`, ...
    - `zero_points`: AB magnitude of one unit of flux, per band or one for all; if None and `unit`
        is a flux density, that of the unit.
    - `wcs`: celestial map of the pixels.
    - `excluded`: mask planes that are not used; default BAD, SAT, CR and NO_DATA.
    - `saturation`: pixels at or above it are put on the plane `"SAT"`, in the unit of the image.
    - `pixel_scale`: arcseconds; if None, at the middle of the image from `wcs`.
    - `noise_correlation`: of the noise of each pixel with that of its neighbours, as in coadds and
        drizzled images: a stamp a band with 1 in the middle, `(band, h, w)`, or `(h, w)` for all
        bands, `h` and `w` odd; `diffdeblend.detect.measure_noise_correlation` makes it from empty
        sky. Or only its sum, one number per band or one number: how much larger the variance of
        sums over many pixels is than `variance` says. None: pixels are independent. Errors of fits
        allow for it; the fits themselves stay what they are.
    - the rest: see `Header`.

    **Raises:** `ValueError` that names the argument, what it was and what is accepted.
    """
    cube = _numbers("image", image)
    cube = cube[None] if cube.ndim == 2 else cube
    if cube.ndim != 3 or 0 in cube.shape:
        raise ValueError(f"`image` needs shape (band, y, x) or (y, x); got {np.shape(image)}.")
    names = _band_names(bands, len(cube))
    noise = _variance(variance, cube.shape)
    planes, bits = mask_bits(mask, cube.shape, mask_planes)
    ceiling = _positive("saturation", saturation)
    if ceiling is not None:
        planes, bit = with_plane(planes, "SAT")
        # NaN compares false: a pixel that is unknown is not saturated.
        bits = bits | np.where(cube >= ceiling, np.uint32(1 << bit), np.uint32(0))
    header = Header(
        bands=names,
        zero_points=_zero_points(zero_points, unit, len(cube)),
        unit=unit,
        wcs=_celestial(wcs),
        mask_planes=planes,
        excluded=excluded_planes(excluded, planes),
        gain=_positive("gain", gain),
        read_noise=_positive("read_noise", read_noise, or_zero=True),
        saturation=ceiling,
        exposure_time=_positive("exposure_time", exposure_time),
        date=date,
        pixel_scale=_positive("pixel_scale", pixel_scale),
    )
    if header.wcs is not None:
        middle_y, middle_x = (cube.shape[1] - 1) / 2, (cube.shape[2] - 1) / 2
        area = abs(np.linalg.det(local_jacobian(header, middle_x, middle_y)))
        if not 0 < area < np.inf:
            raise ValueError(f"`wcs` must give each pixel an area on the sky; got {area}.")
        if header.pixel_scale is None:
            header = replace(header, pixel_scale=float(np.sqrt(area)))
    masked = (bits & np.uint32(excluded_bits(header))) != 0
    _check_pixels(cube, noise, masked, names)
    double = cube.dtype == np.float64 and jnp.result_type(float) == np.float64
    dtype = np.float64 if double else np.float32
    image_out, variance_out = _cast(cube, noise, masked, dtype)
    return Exposure(
        image=jnp.asarray(image_out),
        variance=jnp.asarray(variance_out),
        mask=jnp.asarray(bits.view(np.int32)),
        psf=_psf(psf, names, dtype),
        header=header,
        noise_correlation=_noise_correlation(noise_correlation, len(cube), dtype),
    )


def ab_zero_point(unit: str) -> float | None:
    """AB magnitude of one `unit` of flux density, or None if it is no flux density.

    **Raises:** `ValueError` if astropy cannot read the unit, or it is logarithmic.
    """
    if unit == "":
        return None
    from astropy import units

    try:
        parsed = units.Unit(unit)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`unit` must be a unit that astropy reads; got {unit!r}.") from error
    if isinstance(parsed, units.LogUnit) or units.mag in getattr(parsed, "bases", ()):
        raise ValueError(f"`unit` must be linear in flux, not magnitudes; got {unit!r}.")
    # Maggies are AB by definition: https://www.sdss.org/dr17/algorithms/magnitudes
    if parsed.is_equivalent(units.mgy):
        return round(float(-2.5 * np.log10(parsed.to(units.mgy))), 9)
    cgs = units.erg / units.s / units.cm**2 / units.Hz
    if not parsed.is_equivalent(cgs):
        return None
    return round(float(-2.5 * np.log10(parsed.to(cgs)) - _AB_CONSTANT), 9)


def _numbers(name: str, value: Any) -> np.ndarray:
    """A host array of real numbers; masked entries become NaN."""
    if hasattr(value, "unit") and hasattr(value, "to_value"):
        raise ValueError(
            f"`{name}` must be plain numbers; got a Quantity in {str(value.unit)!r}. "
            "Pass its `.value` here and its unit as `unit`."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` must be real numbers; got {array.dtype}.")
    # Native byte order too: FITS has the other one, which JAX refuses.
    double = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    array = array.astype(np.float64 if double else np.float32)
    if np.ma.isMaskedArray(value):
        array[np.ma.getmaskarray(value)] = np.nan
    return array


def _positive(name: str, value: Any, or_zero: bool = False) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be one number or None; got {value!r}.") from error
    if not np.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        raise ValueError(f"`{name}` must be finite and positive, or None; got {number}.")
    return number


def _band_names(bands: Any, n_bands: int) -> tuple[str, ...]:
    if bands is None:
        return tuple(str(k) for k in range(n_bands))
    names = (bands,) if isinstance(bands, str) else tuple(bands)
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"`bands` must be names, as strings; got {names}.")
    names = tuple(str(name) for name in names)  # numpy's strings are not equal in all respects
    if len(names) != n_bands:
        raise ValueError(f"`bands` needs {n_bands} names, one per band of `image`; got {names}.")
    if len(set(names)) < n_bands:
        raise ValueError(f"`bands` must be all different; got {names}.")
    return names


def _variance(variance: Any, shape: tuple[int, ...]) -> np.ndarray:
    if variance is None:
        raise ValueError("`variance` is missing; give an array like `image`, or a number per band.")
    array = _numbers("variance", variance)
    if array.ndim <= 1 and array.size in (1, shape[0]):
        return np.broadcast_to(array.reshape(-1, 1, 1), shape)
    array = array[None] if array.ndim == 2 else array
    if array.shape != shape:
        raise ValueError(
            f"`variance` needs the shape of `image`, {shape}, or one number per band; "
            f"got {np.shape(variance)}."
        )
    return array


def _zero_points(zero_points: Any, unit: str, n_bands: int) -> tuple[float, ...] | None:
    if not isinstance(unit, str):
        raise ValueError(f"`unit` must be a string; got {unit!r}.")
    of_unit = ab_zero_point(unit)
    if zero_points is None:
        return None if of_unit is None else (of_unit,) * n_bands
    values = _numbers("zero_points", zero_points).astype(float)
    if values.ndim == 0:
        values = np.full(n_bands, values)
    if values.shape != (n_bands,) or not np.isfinite(values).all():
        raise ValueError(
            f"`zero_points` needs {n_bands} finite numbers, one per band, or one for all; "
            f"got {zero_points}."
        )
    if of_unit is not None and np.abs(values - of_unit).max() > 0.02:
        raise ValueError(
            f"`zero_points` {values.tolist()} contradict `unit` {unit!r}, which has the AB zero "
            f"point {of_unit:.3f}. Give one of the two."
        )
    return tuple(values.tolist())


def _celestial(wcs: Any) -> Any:
    if wcs is None:
        return None
    from astropy.wcs import WCS

    if not isinstance(wcs, WCS) or not wcs.has_celestial:
        raise ValueError(f"`wcs` must be a celestial astropy.wcs.WCS or None; got {wcs!r}.")
    return wcs if wcs.naxis == 2 else wcs.celestial


def _psf(psf: Any, bands: tuple[str, ...], dtype: Any) -> AbstractPSF:
    if psf is None:
        raise ValueError(
            "`psf` is missing; give its image in each band, shape (band, h, w), or a PSF such as "
            "GaussianPSF(fwhm)."
        )
    if isinstance(psf, AbstractPSF):
        if psf.n_bands != len(bands):
            raise ValueError(f"`psf` needs {len(bands)} bands, {bands}; got {psf.n_bands}.")
        return psf
    image = _numbers("psf", psf)
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or len(image) != len(bands):
        raise ValueError(
            f"`psf` needs shape ({len(bands)}, h, w) for bands {bands}; got {np.shape(psf)}."
        )
    if image.shape[1] % 2 == 0 or image.shape[2] % 2 == 0:
        raise ValueError(
            "`psf` needs odd height and width, so that it has a middle pixel to be centred on; "
            f"got {image.shape[1]} x {image.shape[2]}."
        )
    for name, total in zip(bands, image.sum(axis=(1, 2), dtype=float), strict=True):
        if not np.isfinite(total) or total <= 0:
            raise ValueError(
                f"`psf` must be finite with a positive sum; band {name!r} sums to {total}."
            )
    # In double: a sum in single precision would leave 1e-6 of the flux.
    image = image / image.sum(axis=(1, 2), keepdims=True, dtype=float)
    return PixelPSF(jnp.asarray(image.astype(dtype)))


def _noise_correlation(value: Any, n_bands: int, dtype: Any) -> Array | None:
    if value is None:
        return None
    return jnp.asarray(checked_noise_correlation(value, n_bands).astype(dtype))


def _check_pixels(
    image: np.ndarray, variance: np.ndarray, masked: np.ndarray, bands: tuple[str, ...]
) -> None:
    usable = np.isfinite(image) & ~masked
    wrong = usable & np.isfinite(variance) & (variance <= 0)
    if wrong.any():
        counts = {b: int(n) for b, n in zip(bands, wrong.sum(axis=(1, 2)), strict=True) if n}
        raise ValueError(
            f"`variance` must be positive where a pixel is used; {int(wrong.sum())} pixels are "
            f"not masked and have zero or negative variance (by band: {counts}). Mask them (for "
            "example `mask=variance <= 0`), or set their variance to NaN."
        )
    for name, values, known, flags in zip(bands, image, np.isfinite(variance), masked, strict=True):
        if not (np.isfinite(values) & known & ~flags).any():
            raise ValueError(
                f"band {name!r} of `image` has no usable pixel: of {values.size}, "
                f"{int((~np.isfinite(values)).sum())} are not finite, {int((~known).sum())} have "
                f"no finite variance, {int(flags.sum())} are masked."
            )


def _cast(
    image: np.ndarray, variance: np.ndarray, masked: np.ndarray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Both in `dtype`, in which weights and chi2 must stay finite."""
    usable = np.isfinite(image) & np.isfinite(variance) & ~masked
    # Room for sums over many pixels: 1/variance near the largest number would overflow chi2.
    limit = float(np.finfo(dtype).tiny) * 1e8
    with np.errstate(over="ignore", under="ignore"):
        image_out, variance_out = image.astype(dtype), variance.astype(dtype)
        lost = usable & ~(np.isfinite(image_out) & np.isfinite(variance_out))
    if lost.any() or variance[usable].min() < limit:
        raise ValueError(
            f"`image` and `variance` do not fit {np.dtype(dtype).name}: the largest pixel is "
            f"{np.abs(image[usable]).max():.3g}, the smallest variance "
            f"{variance[usable].min():.3g}. Give them in a unit in which they are nearer to 1."
        )
    return image_out, variance_out
