"""What a survey does to the sky: its pixels, its bands, how deep it goes and how sharp it sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from diffdeblend.simulate.telescope import PSF, default_psf

Source = Literal["surveycodex", "galcheat"]


@dataclass(frozen=True)
class Band:
    """One band of a survey.

    - `name`: as the survey calls it.
    - `psf_fwhm`: full width at half maximum of the PSF, arcsec. On the ground it is the seeing; in
        space it contains diffraction (see `default_psf` and `space_psf`).
    - `zero_point`: AB magnitude of a source of one electron a second.
    - `sky`: brightness of the sky, AB magnitudes per square arcsecond.
    - `exposure_time`: of the whole survey on one place, seconds.
    - `wavelength`: effective, nanometres; None where it is not known.

    **Raises:** `ValueError` for a value that is no finite number, or is not positive where it must.
    """

    name: str
    psf_fwhm: float
    zero_point: float
    sky: float
    exposure_time: float
    wavelength: float | None = None

    def __post_init__(self):
        _check_name("name", self.name)
        for name in ("psf_fwhm", "zero_point", "sky", "exposure_time", "wavelength"):
            value = getattr(self, name)
            if name == "wavelength" and value is None:
                continue
            positive = name in ("psf_fwhm", "exposure_time", "wavelength")
            where = f" of band {self.name!r}"
            object.__setattr__(self, name, _number(name, value, above=positive, where=where))


@dataclass(frozen=True)
class Survey:
    """The numbers of a survey that images depend on. Images are in electrons.

    To change one: `dataclasses.replace(survey, pixel_scale=0.1)` or
    `survey.with_band("r", sky=20.5)`. Surveys are compared by value, and go to other processes if
    their PSF does.

    - `name`: catalogues have their magnitudes in columns of this name.
    - `pixel_scale`: side of a pixel, arcsec.
    - `bands`: in the order of the images.
    - `mirror_diameter`: metres; 0 leaves diffraction out of the PSF.
    - `obscuration`: share of the mirror's area that is obscured.
    - `gain`: electrons per ADU; kept for reference, nothing here depends on it.
    - `psf`: how a point is seen without the pixels, by GalSim: one `galsim.GSObject` for all bands;
        a function `(survey, band) -> GSObject`; a function `(survey, band) -> function of a
        numpy Generator -> GSObject`, for a PSF that varies; or one of these for each band, in a
        tuple, or in a dict by name. See `draw_psfs`.

    **Raises:** `ValueError` for a wrong number, no bands, two bands of one name, or a `psf` that
    lacks a band.
    """

    name: str
    pixel_scale: float
    bands: tuple[Band, ...]
    mirror_diameter: float
    obscuration: float = 0.0
    gain: float = 1.0
    psf: PSF = default_psf

    def __post_init__(self):
        _check_name("name", self.name)
        bands = tuple(self.bands)
        if not bands or not all(isinstance(band, Band) for band in bands):
            raise ValueError(
                f"`bands` needs at least one Band, and nothing else; got {self.bands!r}."
            )
        names = [band.name for band in bands]
        if len(set(names)) < len(names):
            raise ValueError(f"`bands` needs a name of its own for each; got {names}.")
        object.__setattr__(self, "bands", bands)
        for name, above in (("pixel_scale", True), ("gain", True), ("mirror_diameter", False)):
            object.__setattr__(self, name, _number(name, getattr(self, name), above=above))
        object.__setattr__(self, "obscuration", _number("obscuration", self.obscuration))
        if self.mirror_diameter < 0:
            raise ValueError(f"`mirror_diameter` must not be negative; got {self.mirror_diameter}.")
        if not 0 <= self.obscuration < 1:
            raise ValueError(
                f"`obscuration` is a share of the area, from 0 to below 1; got {self.obscuration}."
            )
        # As a tuple, so that a survey has a hash.
        object.__setattr__(self, "psf", _by_band(self.psf, names))

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in their order."""
        return tuple(band.name for band in self.bands)

    @property
    def zero_points(self) -> Float[np.ndarray, "band"]:
        """AB magnitude of one electron in the whole exposure."""
        return np.array([b.zero_point + 2.5 * np.log10(b.exposure_time) for b in self.bands])

    def electrons(
        self, magnitude: Float[np.ndarray, "*n band"] | float, floor: bool = False
    ) -> Float[np.ndarray, "*n band"]:
        r"""Electrons of a source in the whole exposure, $10^{-0.4 (m - ZP)}\, t$.

        - `magnitude`: AB, one for each band on the last axis; a single one is that of all bands.
        - `floor`: cut to whole electrons, as BlendingToolKit and the survey packages do. It takes
            flux from faint sources: at magnitude 24 SDSS u has 36 electrons.

        **Raises:** `ValueError` for another number of bands.
        """
        magnitude = np.asarray(magnitude, dtype=float)
        if magnitude.ndim and magnitude.shape[-1] != len(self.bands):
            raise ValueError(
                f"`magnitude` needs one value for each of the bands {self.band_names} on its last "
                f"axis; got shape {magnitude.shape}."
            )
        zero_point = np.array([band.zero_point for band in self.bands])
        time = np.array([band.exposure_time for band in self.bands])
        counts = 10 ** (-0.4 * (magnitude - zero_point)) * time
        return np.floor(counts) if floor else counts

    def sky_level(self, floor: bool = False) -> Float[np.ndarray, "band"]:
        """Electrons of the sky in each pixel in the whole exposure: the variance of its noise.

        - `floor`: cut to whole electrons per square arcsecond, as BlendingToolKit does.
        """
        brightness = np.array([band.sky for band in self.bands])
        return self.electrons(brightness, floor) * self.pixel_scale**2

    def band(self, name: str) -> Band:
        """The band of this name.

        **Raises:** `ValueError` if there is none.
        """
        return self.bands[self._index(name)]

    def with_bands(self, names: str | Sequence[str]) -> "Survey":
        """The same survey with these bands only, in this order.

        - `names`: as "gri", "F106,F129" or ("F106", "F129").

        **Raises:** `ValueError` for a band that is not there, or none at all.
        """
        if isinstance(names, str):
            if "," in names:
                names = [name.strip() for name in names.split(",")]
            else:
                # "IE" is one band of Euclid, "gri" are three.
                names = [names] if names in self.band_names else list(names)
        places = [self._index(name) for name in names]
        psf = self.psf
        if isinstance(psf, tuple):
            psf = tuple(psf[place] for place in places)
        return replace(self, bands=tuple(self.bands[place] for place in places), psf=psf)

    def with_band(self, name: str, **changes: Any) -> "Survey":
        """The same survey with values of one band changed, as in `with_band("r", sky=20.5)`.

        **Raises:** `ValueError` for a band or a value that a band does not have.
        """
        place = self._index(name)
        known = [field.name for field in fields(Band)]
        unknown = [change for change in changes if change not in known]
        if unknown:
            raise ValueError(f"`changes` has {unknown}; a band has {known}.")
        bands = list(self.bands)
        bands[place] = replace(bands[place], **changes)
        return replace(self, bands=tuple(bands))

    def _index(self, name: str) -> int:
        if name not in self.band_names:
            raise ValueError(f"`name`: {self.name} has no band {name!r}, but {self.band_names}.")
        return self.band_names.index(name)


def survey_names(source: Source = "surveycodex") -> tuple[str, ...]:
    """Names of the surveys that `get_survey` knows, sorted.

    **Raises:** as `get_survey`.
    """
    return tuple(sorted(_package(source).available_surveys))


def get_survey(name: str, source: Source = "surveycodex", *, psf: PSF = default_psf) -> Survey:
    """A survey by its name, such as "LSST"; `survey_names` has them all.

    - `source`: "surveycodex", or its predecessor "galcheat", which BlendingToolKit used up to 1.0.0
        and whose zero points differ by some 0.03.
    - `psf`: see `Survey`. The default takes `psf_fwhm` as seeing, as BlendingToolKit does; in space
        that counts diffraction twice, and `space_psf` has the width that the survey states.

    **Raises:** `ValueError` for a name that is not known, with those that are; `ImportError` where
    galcheat is asked for and not installed.
    """
    package = _package(source)
    if not isinstance(name, str) or name not in package.available_surveys:
        raise ValueError(f"`name`: {source} has no survey {name!r}, but {survey_names(source)}.")
    survey = package.get_survey(name)
    bands = []
    for band_name in survey.available_filters:
        band = survey.get_filter(band_name)
        wavelength = band.effective_wavelength
        bands.append(
            Band(
                name=band_name,
                psf_fwhm=band.psf_fwhm.to_value("arcsec"),
                zero_point=band.zeropoint.to_value("mag"),
                sky=band.sky_brightness.to_value("mag / arcsec2"),
                exposure_time=band.full_exposure_time.to_value("s"),
                wavelength=None if wavelength is None else wavelength.to_value("nm"),
            )
        )
    return Survey(
        name=name,
        pixel_scale=survey.pixel_scale.to_value("arcsec"),
        bands=tuple(bands),
        mirror_diameter=survey.mirror_diameter.to_value("m"),
        obscuration=survey.obscuration.to_value(""),
        gain=survey.gain.to_value("electron / adu"),
        psf=psf,
    )


def get_surveys(
    names: Sequence[str], source: Source = "surveycodex", *, psf: PSF = default_psf
) -> list[Survey]:
    """Several surveys by their names; see `get_survey`."""
    if isinstance(names, str):
        raise ValueError(f"`names` needs a list of names; got {names!r}. For one: `get_survey`.")
    return [get_survey(name, source, psf=psf) for name in names]


def _package(source: str) -> Any:
    if source == "surveycodex":
        import surveycodex

        return surveycodex
    if source == "galcheat":
        try:
            import galcheat
        except ImportError as error:
            raise ImportError(
                "`source` 'galcheat' needs galcheat: pip install galcheat."
            ) from error
        return galcheat
    raise ValueError(f"`source` must be 'surveycodex' or 'galcheat'; got {source!r}.")


def _by_band(psf: Any, names: Sequence[str]) -> Any:
    if isinstance(psf, Mapping):
        lacking = [name for name in names if name not in psf]
        if lacking:
            raise ValueError(f"`psf` has no band {lacking}, but {list(psf)}.")
        return tuple(psf[name] for name in names)
    if isinstance(psf, list | tuple):
        if len(psf) != len(names):
            raise ValueError(f"`psf` needs one entry for each band of {names}; got {len(psf)}.")
        return tuple(psf)
    return psf


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{name}` must be a text; got {value!r}.")


def _number(name: str, value: Any, *, above: bool = False, where: str = "") -> float:
    """A finite number, positive if `above`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}`{where} must be a number; got {value!r}.") from None
    if not np.isfinite(number) or (above and number <= 0):
        kind = "a positive finite number" if above else "a finite number"
        raise ValueError(f"`{name}`{where} must be {kind}; got {value!r}.")
    return number
