"""From a raw image to an exposure that can be subtracted, added up or fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

import equinox as eqx
import numpy as np
from jaxtyping import Float

from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.header import EXCLUDED_PLANES, STANDARD_PLANES
from diffdeblend.planes import mask_bits, with_plane
from diffdeblend.prepare.band import BandSettings, Preparation, prepare_band
from diffdeblend.prepare.source import Source, as_source
from diffdeblend.psf import AbstractPSF, GaussianPSF
from diffdeblend.stars.determine import StarPSF
from diffdeblend.stars.exposure_psf import StarMethod, exposure_psf


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """An image ready for use, and how it came to be.

    - `exposure`: without sky; with variance, masks, PSF.
    - `background`, `background_rms`: level and noise of the sky, shape `(band, y, x)`.
    - `record`: one a band.
    - `stars`: one a band, where the PSF was taken from them; else None.
    """

    exposure: Exposure
    background: Float[np.ndarray, "band y x"]
    background_rms: Float[np.ndarray, "band y x"]
    record: tuple[Preparation, ...]
    stars: tuple[StarPSF, ...] | None = None

    def __repr__(self) -> str:
        return f"<Prepared {self.exposure.shape}: {', '.join(str(one) for one in self.record)}>"


def prepare(
    source: Any,
    *,
    mask: Any = None,
    variance: Any = None,
    gain: SupportsFloat | None = None,
    read_noise: SupportsFloat | None = None,
    saturation: SupportsFloat | Literal["auto"] | None = "auto",
    psf: StarMethod | AbstractPSF | np.ndarray | Literal["auto"] | None = "auto",
    box_size: int | None = 128,
    cosmic_rays: Any = "auto",
    interpolate: bool = True,
    dark: float | None = 10.0,
    grow_saturated: int = 1,
    fwhm: float | None = None,
    bands: Sequence[str] | str | None = None,
) -> Prepared:
    """An exposure without sky, with the noise of every pixel, its flaws on mask planes, and a PSF.

    Host side. In this order: pixels without data and given masks; the level and noise of the sky
    between the sources; dead and saturated pixels; the variance; cosmic rays; what is masked is
    filled from around it, and put on the plane `"INTRP"` besides its own. Nothing is masked for a
    low value as such: a frame that has lost its sky is treated as any other.

    - `source`: path of a FITS file, an HDU, an array `(y, x)` or `(band, y, x)`, or an `Exposure`;
        see `as_source`. Integers, and either byte order, are fine.
    - `mask`: as in `make_exposure`: true where a pixel is bad, or bit planes; besides the source's.
    - `variance`: of each pixel, same shape; or "measure", also where an `Exposure` has one.
        Default: that of the `Exposure`, else measured: the sky's noise, and the sources' photons.
    - `gain`: electrons per unit of flux. Default: from the header, else the one for which the
        noise of the sky is that of its photons and `read_noise`; without a sky, none, and the
        sources' photons are left out.
    - `read_noise`: electrons; default from the header.
    - `saturation`: in the unit of the raw image; "auto": from the header, or the value at which the
        image looks clipped; None: nothing is saturated.
    - `psf`: "auto": that of an `Exposure`, else from the image's stars; a `StarMethod`: how it is
        taken from them; None: that of an `Exposure`, else a round Gaussian as wide as the stars,
        for first looks; or a PSF, or its image.
    - `box_size`: of the sky's boxes, about so many pixels; None: there is no sky to take off, only
        its noise is measured.
    - `cosmic_rays`: "auto": find them where enough stars say how sharp one is, or `fwhm` does;
        "astroscrappy": L.A.Cosmic, by the package of that name; None: do not look; or booleans,
        true where one is.
    - `interpolate`: fill masked pixels; else they become 0.
    - `dark`: pixels so many sigma below the sky are bad; None for none.
    - `grow_saturated`: margin around saturated pixels.
    - `fwhm`: of a star, in pixels; default: measured.
    - `bands`: names; default: the filter of the header.

    **Raises:** `ValueError` that names the argument, for what `as_source` or `make_exposure`
    refuse, an image without a usable pixel, or one whose sky has no noise. `ImportError` if
    astroscrappy is asked for and absent.
    """
    given = as_source(source)
    shape = given.image.shape
    numbers = {"gain": gain, "read_noise": read_noise, "fwhm": fwhm, "dark": dark}
    numbers["saturation"] = None if saturation == "auto" else saturation
    known = {name: _positive(name, value) for name, value in numbers.items()}
    if box_size is not None and (not isinstance(box_size, int | np.integer) or box_size < 8):
        raise ValueError(f"`box_size` must be an integer of at least 8, or None; got {box_size!r}.")
    if not isinstance(grow_saturated, int | np.integer) or grow_saturated < 0:
        raise ValueError(
            f"`grow_saturated` must be an integer of at least 0; got {grow_saturated!r}."
        )
    if isinstance(psf, str) and psf != "auto":
        raise ValueError(
            f'`psf` must be "auto", a StarMethod, a PSF or its image, or None; got {psf!r}.'
        )
    planes, bits = _flaws(given, mask)
    noise = _variance(given, variance)
    rays = _rays(cosmic_rays, shape)
    settings = BandSettings(
        gain=known["gain"] or given.gain,
        gain_from="given" if known["gain"] else "header" if given.gain else "none",
        read_noise=known["read_noise"] or given.read_noise,
        saturation=given.saturation if saturation == "auto" else known["saturation"],
        saturation_from=_origin(saturation, given.saturation),
        box_size=box_size,
        dark=known["dark"],
        grow_saturated=int(grow_saturated),
        fwhm=known["fwhm"],
        interpolate=bool(interpolate),
    )
    names = given.excluded or EXCLUDED_PLANES
    found = []
    for band in range(shape[0]):
        spoils = sum(1 << k for k, name in enumerate(planes) if name in names)
        one = prepare_band(
            given.image[band],
            (bits[band] & np.uint32(spoils)) != 0,
            None if noise is None else noise[band],
            rays if rays is None or isinstance(rays, str) else rays[band],
            settings,
        )
        for name, flagged in one.planes.items():
            planes, bit = with_plane(planes, name)
            bits[band][flagged] |= np.uint32(1 << bit)
        found.append(one)
    method = psf if isinstance(psf, StarMethod) else None
    if isinstance(psf, str) and given.psf is None:
        method = StarMethod()
    seen = given.psf if psf is None or isinstance(psf, str) else psf
    if seen is None or isinstance(seen, StarMethod):
        seen = GaussianPSF(np.asarray([one.record.fwhm for one in found], np.float32))
    exposure = make_exposure(
        np.stack([one.image for one in found]),
        np.stack([one.variance for one in found]),
        seen,
        mask=bits,
        mask_planes=planes,
        excluded=given.excluded,
        bands=given.bands if bands is None else bands,
        zero_points=given.zero_points,
        wcs=given.wcs,
        unit=given.unit,
        gain=found[0].record.gain,
        read_noise=settings.read_noise,
        exposure_time=given.exposure_time,
        date=given.date,
    )
    stars: tuple[StarPSF, ...] | None = None
    if method is not None:
        known_psf, stars = exposure_psf(exposure, method)
        exposure = eqx.tree_at(lambda e: e.psf, exposure, known_psf)
    return Prepared(
        exposure,
        np.stack([one.level for one in found]),
        np.stack([one.rms for one in found]),
        tuple(one.record for one in found),
        stars,
    )


def _positive(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be one positive number or None; got {value!r}.") from error
    if not np.isfinite(number) or number < 0 or (number == 0 and name != "read_noise"):
        raise ValueError(f"`{name}` must be finite and positive, or None; got {number}.")
    return number


def _origin(saturation: Any, in_header: float | None) -> str:
    if saturation == "auto":
        return "image" if in_header is None else "header"
    return "none" if saturation is None else "given"


def _flaws(given: Source, mask: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """All planes, and the bits of the source's mask and of the given one, as one uint32 array."""
    shape = given.image.shape
    planes, bits = mask_bits(given.mask, shape, given.mask_planes)
    if mask is None:
        return planes, bits.copy()
    # Bits are of the standard planes; booleans are bad.
    array = np.asarray(np.ma.filled(mask, 1) if np.ma.isMaskedArray(mask) else mask)
    whole = STANDARD_PLANES if array.dtype.kind in "iu" else None
    more, new = mask_bits(array, shape, whole)
    bits = bits.copy()
    for k, name in enumerate(more):
        flagged = (new & np.uint32(1 << k)) != 0
        if flagged.any():
            planes, bit = with_plane(planes, name)
            bits[flagged] |= np.uint32(1 << bit)
    return planes, bits


def _variance(given: Source, variance: Any) -> np.ndarray | None:
    if isinstance(variance, str):
        if variance != "measure":
            raise ValueError(f'`variance` must be an array, "measure" or None; got {variance!r}.')
        return None
    if variance is None:
        return given.variance
    array = np.asarray(variance, np.float32)
    shape = given.image.shape
    if array.shape not in ((), shape, shape[1:]):
        raise ValueError(
            f"`variance` needs the shape of the image, {shape}, or {shape[1:]}, or one number; "
            f"got {array.shape}."
        )
    return np.broadcast_to(array, shape)


def _rays(cosmic_rays: Any, shape: tuple[int, ...]) -> Any:
    if cosmic_rays is None or (
        isinstance(cosmic_rays, str) and cosmic_rays in ("auto", "astroscrappy")
    ):
        return cosmic_rays
    array = np.asarray(cosmic_rays)
    if array.dtype != bool or array.shape not in (shape, shape[1:]):
        raise ValueError(
            '`cosmic_rays` must be "auto", "astroscrappy", None, or booleans of shape '
            f"{shape} or {shape[1:]}; got {cosmic_rays!r}."
        )
    return np.broadcast_to(array, shape)
