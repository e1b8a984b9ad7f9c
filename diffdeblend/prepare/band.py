"""One band of a raw image: sky, noise, flaws and cosmic rays, one after the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.prepare.cosmic_rays import Sharpness, find_cosmic_rays, star_sharpness
from diffdeblend.prepare.flaws import dark_pixels, saturated_pixels, saturation_level
from diffdeblend.prepare.interpolate import fill_masked
from diffdeblend.prepare.noise import gain_of_sky, pixel_variance
from diffdeblend.prepare.peers import astroscrappy_rays
from diffdeblend.prepare.sky import measure_sky

# Where no star says how wide one is.
_FWHM = 3.0


@dataclass(frozen=True)
class Preparation:
    """What was done to a band, and what was found there.

    - `sky`, `sky_rms`: medians over the image, in its unit.
    - `gain`: electrons per unit of flux, or None; `gain_from`: "given", "header", "sky", "none".
    - `saturation`: in the unit of the raw image, or None; `saturation_from`: "given", "header",
        "image" or "none".
    - `fwhm`: of a star, in pixels, rough; `n_stars`: how many it was taken from, 0 for a guess.
    - `n_bad`, `n_saturated`, `n_dark`, `n_no_data`, `n_cosmic_rays`: pixels. `n_cosmic_rays` is
        None if nobody looked.
    - `box_size`: of the sky's boxes, `(ny, nx)`.
    """

    sky: float
    sky_rms: float
    gain: float | None
    gain_from: str
    saturation: float | None
    saturation_from: str
    fwhm: float
    n_stars: int
    n_bad: int
    n_saturated: int
    n_dark: int
    n_no_data: int
    n_cosmic_rays: int | None
    box_size: tuple[int, int]


@dataclass(frozen=True)
class BandSettings:
    """What `prepare` was told, checked; `gain` and the rest with where they are from."""

    gain: float | None
    gain_from: str
    read_noise: float | None
    saturation: float | None
    saturation_from: str  # "image": look for it
    box_size: int | None
    dark: float | None
    grow_saturated: int
    fwhm: float | None
    interpolate: bool


@dataclass(frozen=True, eq=False)
class PreparedBand:
    """A band ready for use; arrays of shape `(y, x)`.

    `planes`: what goes on which mask plane; `holes`: all that is not used.
    """

    image: Float[np.ndarray, "y x"]
    variance: Float[np.ndarray, "y x"]
    level: Float[np.ndarray, "y x"]
    rms: Float[np.ndarray, "y x"]
    holes: Bool[np.ndarray, "y x"]
    planes: dict[str, Bool[np.ndarray, "y x"]]
    record: Preparation


def prepare_band(
    raw: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"] | None,
    rays: Any,
    settings: BandSettings,
) -> PreparedBand:
    """The steps of `prepare` for one band.

    - `bad`: true where the given masks say so. `variance`: None to measure it.
    - `rays`: "auto", "astroscrappy", None, or booleans.

    **Raises:** `ValueError` as `measure_sky`.
    """
    no_data = ~np.isfinite(raw)
    if variance is not None:
        no_data |= ~np.isfinite(variance)
    hidden = bad | no_data
    image = np.where(no_data, raw.dtype.type(0), raw)
    fwhm = settings.fwhm
    sky = measure_sky(image, hidden, box_size=settings.box_size or 128, fwhm=fwhm or _FWHM)
    middle, rms = float(np.median(sky.level_mesh)), float(np.median(sky.rms_mesh))
    saturation, saturation_from = settings.saturation, settings.saturation_from
    if saturation_from == "image":
        saturation = saturation_level(np.where(hidden, middle, image), middle, rms)
        saturation_from = "none" if saturation is None else "image"
    full = saturated_pixels(raw, saturation, settings.grow_saturated)
    above = image - sky.level
    dark = dark_pixels(above, sky.rms, settings.dark) & ~hidden
    hidden = hidden | full | dark
    residual = image if settings.box_size is None else above
    residual[hidden] = 0

    gain, gain_from = settings.gain, settings.gain_from
    if gain is None and settings.box_size is not None:
        gain = gain_of_sky(middle, rms, settings.read_noise)
        gain_from = "none" if gain is None else "sky"
    measured = variance is None
    noise = pixel_variance(residual, sky.rms, gain, smooth=False) if variance is None else variance
    # What is wrong with a given variance is said where the exposure is made.
    sound = noise if measured else np.where(noise > 0, noise, sky.rms**2)
    stars = star_sharpness(residual, sound, hidden)
    width = fwhm or (_FWHM if stars is None else stars.fwhm)
    found = None
    if isinstance(rays, np.ndarray):
        found = rays & ~hidden
    elif rays == "astroscrappy":
        found = astroscrappy_rays(residual, sound, hidden, width)
    elif rays == "auto" and (stars is not None or fwhm is not None):
        sharp = Sharpness.of_fwhm(width) if stars is None else stars
        found = find_cosmic_rays(residual, sound, hidden, sharp)
    holes = hidden if found is None else hidden | found
    residual[holes] = 0
    if settings.interpolate and holes.any():
        residual = fill_masked(residual, holes, fwhm=width)
    if measured:
        # Anew: what was hit has the noise of the light that belongs there.
        noise = pixel_variance(residual, sky.rms, gain)
    planes = {"SAT": full, "BAD": dark, "NO_DATA": no_data}
    if found is not None:
        planes["CR"] = found
    if settings.interpolate:
        planes["INTRP"] = holes
    record = Preparation(
        sky=middle,
        sky_rms=rms,
        gain=gain,
        gain_from=gain_from,
        saturation=saturation,
        saturation_from=saturation_from,
        fwhm=float(width),
        n_stars=0 if stars is None else stars.n_stars,
        n_bad=int(np.count_nonzero(bad)),
        n_saturated=int(np.count_nonzero(full)),
        n_dark=int(np.count_nonzero(dark)),
        n_no_data=int(np.count_nonzero(no_data)),
        n_cosmic_rays=None if found is None else int(np.count_nonzero(found)),
        box_size=sky.box_size,
    )
    level = sky.level if settings.box_size is not None else np.zeros_like(sky.level)
    return PreparedBand(residual, noise, level, sky.rms, holes, planes, record)
