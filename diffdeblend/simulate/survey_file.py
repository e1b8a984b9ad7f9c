"""Surveys in YAML files, and in whatever else holds numbers and names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffdeblend.simulate.galsim_text import galsim_from_text, galsim_text
from diffdeblend.simulate.psf_files import FilePSF, FolderPSF
from diffdeblend.simulate.survey import Band, Survey, get_survey, survey_names
from diffdeblend.simulate.telescope import default_psf, delivered_psf, space_psf

_FUNCTIONS = {function.__name__: function for function in (default_psf, delivered_psf, space_psf)}
_NUMBERS = ("pixel_scale", "mirror_diameter", "obscuration", "gain")
_KEYS = ("name", "base", "source", *_NUMBERS, "bands", "only", "psf")
_BAND_KEYS = tuple(field.name for field in fields(Band))
_PSF_KEYS = {
    "file": ("file", "pixel_scale", "pixel_included"),
    "folder": ("folder", "pixel_scale", "pixel_included"),
    "galsim": ("galsim",),
    "bands": ("bands",),
    "lost": ("lost",),
}


@dataclass(frozen=True)
class LostPSF:
    """In the place of a PSF function that could not be written: says so when it is needed.

    - `name`: of the function.
    """

    name: str

    def __call__(self, survey: Survey, band: Band) -> Any:
        raise ValueError(
            f"`psf` of {survey.name} was the function {self.name}, which is not stored. Give it "
            "again: dataclasses.replace(survey, psf=...)."
        )


def read_survey(path: str | Path) -> Survey:
    """A survey from a YAML file. It may name a known survey and only what is different:

    ```yaml
    name: Shallow
    base: LSST            # of `get_survey`; without it everything must be there
    source: surveycodex   # or galcheat
    pixel_scale: 0.25
    only: gri             # keeps these bands
    bands:
      r: {exposure_time: 30, sky: 20.8}
    psf: delivered_psf    # default_psf, delivered_psf or space_psf; or one of
    # psf: {file: "psf_{band}.fits", pixel_included: true}   # beside the YAML file
    # psf: {folder: psfs, pixel_scale: 0.2}                  # one file at random
    # psf: {galsim: "galsim.Moffat(beta=2.5, fwhm=0.8)"}
    # psf: {bands: {g: space_psf, r: {galsim: ...}, i: ...}}
    ```

    A band has `psf_fwhm`, `zero_point`, `sky`, `exposure_time` and `wavelength` (see `Band`), the
    survey `pixel_scale`, `mirror_diameter`, `obscuration` and `gain` (see `Survey`).

    **Raises:** `ValueError` for a file that is missing or no YAML, an unknown or missing key, or a
    wrong value.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"`path`: {str(path)!r} is no YAML file: {error}") from error
    try:
        return survey_from_dict(content, folder=path.parent)
    except ValueError as error:
        raise ValueError(f"`path`: {str(path)!r}: {error}") from error


def write_survey(survey: Survey, path: str | Path) -> None:
    """Write a survey as a YAML file that `read_survey` reads.

    **Raises:** `ValueError` if the PSF cannot be written: a function of your own that varies.
    """
    import yaml

    content = survey_to_dict(survey, strict=True)
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False))


def open_survey(name: str | Path) -> Survey:
    """A survey by its name, or from a file whose name ends in .yaml or .yml.

    **Raises:** as `get_survey` and `read_survey`.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return read_survey(name)
    if str(name) not in survey_names():
        raise ValueError(
            f"`name`: there is no survey {str(name)!r}, but {survey_names()}, or the path of a "
            "YAML file."
        )
    return get_survey(str(name))


def survey_to_dict(survey: Survey, strict: bool = False) -> dict[str, Any]:
    """A survey in lists, dicts, numbers and texts, which JSON and YAML can hold.

    Functions for PSFs from here are written by name, those from files with their full path. What
    another function gives for each band is written in its place, as text of GalSim, if it does not
    vary; if it does, or if GalSim cannot write it, only its name is kept (see `LostPSF`).

    - `strict`: raise instead.

    **Raises:** `ValueError`, if `strict`, for a PSF that cannot be written.
    """
    return {
        "name": survey.name,
        **{name: getattr(survey, name) for name in _NUMBERS},
        # A list: not everything that holds JSON keeps the order of names.
        "bands": [asdict(band) for band in survey.bands],
        "psf": _psf_to_dict(survey, strict),
    }


def survey_from_dict(content: Mapping[str, Any], folder: str | Path | None = None) -> Survey:
    """The survey that `survey_to_dict` wrote, or that has the form of `read_survey`.

    - `folder`: that relative paths of PSFs start from.

    **Raises:** `ValueError` for an unknown or missing key, or a wrong value.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"`survey` must be a mapping of {_KEYS}; got {content!r}.")
    _check_keys("survey", content, _KEYS)
    changes = {name: content[name] for name in _NUMBERS if name in content}
    if "name" in content:
        changes["name"] = content["name"]
    if "base" in content:
        survey = get_survey(content["base"], content.get("source", "surveycodex"))
        survey = replace(survey, **changes, bands=_bands(content, survey.bands))
    else:
        needed = ("name", "pixel_scale", "mirror_diameter", "bands")
        lacking = [key for key in needed if key not in content]
        if lacking:
            raise ValueError(f"`survey` needs {lacking}, or `base`, the name of a known survey.")
        if "source" in content:
            raise ValueError("`source` says where `base` is from, which is missing.")
        survey = Survey(bands=_bands(content, ()), **changes)
    if "only" in content:
        survey = survey.with_bands(content["only"])
    if "psf" in content:
        survey = replace(survey, psf=_psf_from_dict(content["psf"], Path(folder or "")))
    return survey


def _bands(content: Mapping[str, Any], base: tuple[Band, ...]) -> tuple[Band, ...]:
    given = content.get("bands", {})
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, list) and all(
        isinstance(one, Mapping) and "name" in one for one in given
    ):
        pairs = [(one["name"], one) for one in given]
    else:
        raise ValueError(f"`bands` must be a mapping of names to values; got {given!r}.")
    made = {band.name: band for band in base}
    for name, values in pairs:
        if not isinstance(values, Mapping):
            raise ValueError(
                f"`bands`: {name!r} must be a mapping of {_BAND_KEYS}; got {values!r}."
            )
        _check_keys(f"band {name}", values, _BAND_KEYS)
        values = {**values, "name": values.get("name", name)}
        if name in made:
            made[name] = replace(made[name], **values)
            continue
        lacking = [key for key in _BAND_KEYS[:-1] if key not in values]
        if lacking:
            raise ValueError(f"`bands`: {name!r} needs {lacking}; it has {list(values)}.")
        made[name] = Band(**values)
    return tuple(made.values())


def _check_keys(what: str, content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ValueError(f"`{what}` has {unknown}, which are unknown; known are {list(known)}.")


def _psf_to_dict(survey: Survey, strict: bool) -> Any:
    import galsim

    def written(psf: Any) -> Any:
        """One PSF for all bands; None if it is a function of the user's."""
        if isinstance(psf, galsim.GSObject):
            return {"galsim": galsim_text(psf)}
        if psf in _FUNCTIONS.values():
            return psf.__name__
        if isinstance(psf, FilePSF):
            rest = {"pixel_scale": psf.pixel_scale, "pixel_included": psf.pixel_included}
            return {"file": str(Path(psf.path).absolute()), **rest}
        if isinstance(psf, FolderPSF):
            rest = {"pixel_scale": psf.pixel_scale, "pixel_included": psf.pixel_included}
            return {"folder": str(Path(psf.folder).absolute()), **rest}
        if isinstance(psf, LostPSF):
            return {"lost": psf.name}
        return None

    def written_for(psf: Any, band: Band) -> Any:
        found = written(psf)
        if found is not None:
            return found
        made = psf(survey, band) if callable(psf) else psf
        if isinstance(made, galsim.GSObject):
            return {"galsim": galsim_text(made)}
        raise ValueError(f"`psf` of {survey.name}, {_name(psf)}, varies and cannot be written.")

    if not isinstance(survey.psf, tuple):
        try:
            found = written(survey.psf)
        except ValueError:
            if strict:
                raise
            return {"lost": _name(survey.psf)}
        if found is not None:
            return found
    each = survey.psf if isinstance(survey.psf, tuple) else (survey.psf,) * len(survey.bands)
    entries = []
    for psf, band in zip(each, survey.bands, strict=True):
        try:
            entries.append(written_for(psf, band))
        except ValueError:
            if strict:
                raise
            entries.append({"lost": _name(psf)})
    return {"bands": entries}


def _name(psf: Any) -> str:
    return getattr(psf, "__qualname__", type(psf).__qualname__)


def _psf_from_dict(content: Any, folder: Path) -> Any:
    if isinstance(content, str):
        if content not in _FUNCTIONS:
            raise ValueError(f"`psf` must be one of {list(_FUNCTIONS)}; got {content!r}.")
        return _FUNCTIONS[content]
    kind = next((key for key in _PSF_KEYS if isinstance(content, Mapping) and key in content), None)
    if kind is None:
        raise ValueError(
            f"`psf` must be one of {list(_FUNCTIONS)} or have one of {list(_PSF_KEYS)}; "
            f"got {content!r}."
        )
    _check_keys("psf", content, _PSF_KEYS[kind])
    value = content[kind]
    if kind == "bands":
        if isinstance(value, Mapping):
            return {name: _psf_from_dict(entry, folder) for name, entry in value.items()}
        if not isinstance(value, list):
            raise ValueError(f"`psf`: `bands` must be a mapping or a list; got {value!r}.")
        return tuple(_psf_from_dict(entry, folder) for entry in value)
    if not isinstance(value, str):
        raise ValueError(f"`psf`: `{kind}` must be a text; got {value!r}.")
    if kind == "galsim":
        return galsim_from_text(value)
    if kind == "lost":
        return LostPSF(value)
    scale, included = content.get("pixel_scale"), content.get("pixel_included", False)
    if not isinstance(included, bool):
        raise ValueError(f"`psf`: `pixel_included` must be true or false; got {included!r}.")
    make = FilePSF if kind == "file" else FolderPSF
    return make(str(folder / value), scale, included)
