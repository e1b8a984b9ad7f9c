"""What the options of raw images mean: files read, settings of `prepare`, methods for the PSF."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffdeblend.epoch_options import STAR_METHODS
from diffdeblend.exposure import Exposure
from diffdeblend.io.psf_files import read_varying_psf
from diffdeblend.io.raw_images import RawImage, read_mask
from diffdeblend.prepare.prepare import prepare
from diffdeblend.psf import PSFBasis
from diffdeblend.stars.exposure_psf import StarMethod, exposure_psf

# Fewer "stars" may be anything that is small.
_FEWEST_STARS = 10
# Said in the summary by other names, or of no use there.
_LEFT_OUT = {"command", "input", "new", "reference", "output", "quiet", "cache", "debug"}


def settings_of_each(chosen: argparse.Namespace, n: int) -> list[dict[str, Any]]:
    """Settings of `prepare` for each of `n` images.

    **Raises:** `ValueError` for another number of values than one or `n`, or masks that cannot be
    read.
    """
    names = {"mask": None, "gain": None, "read_noise": None, "saturation": "auto"}
    each: list[dict[str, Any]] = [
        {
            "box_size": chosen.mesh,
            "cosmic_rays": None if chosen.cosmic_rays == "none" else chosen.cosmic_rays,
        }
        for _ in range(n)
    ]
    for name, default in names.items():
        for settings, value in zip(each, spread(chosen, name, n, default), strict=True):
            settings[name] = value
    for settings in each:
        mask = settings["mask"]
        settings["mask"] = None if mask in (None, "none") else read_mask(mask)
    return each


def spread(chosen: argparse.Namespace, name: str, n: int, default: Any = None) -> list[Any]:
    """The values of an option for each of `n` images: one stands for all.

    **Raises:** `ValueError` for another number of values.
    """
    given = getattr(chosen, name)
    if given is None:
        return [default] * n
    values = given if isinstance(given, list) else [given]
    if len(values) not in (1, n):
        option = "--" + name.replace("_", "-")
        raise ValueError(f"{option} needs one value, or one for each of {n} images; got {values}.")
    return values * n if len(values) == 1 else list(values)


def star_method(chosen: argparse.Namespace, method: str, **more: Any) -> StarMethod:
    """How the PSF is taken from the stars.

    **Raises:** `ValueError` for settings that do not fit.
    """
    return StarMethod(
        method=method,
        inf_loss=chosen.inf_loss,
        smooth=chosen.smooth if method == "basis" else 0.0,
        refine=chosen.refine,
        degree=chosen.degree,
        min_snr=chosen.min_snr,
        **more,
    )


def psf_choices(chosen: argparse.Namespace, images: Sequence[RawImage]) -> list[Any]:
    """`psf_choice` of each image.

    **Raises:** `ValueError` for options that do not fit, or files that cannot be read.
    """
    n = len(images)
    return [psf_choice(chosen, image, k, n) for k, image in enumerate(images)]


def psf_choice(chosen: argparse.Namespace, image: RawImage, number: int, n: int) -> Any:
    """A `StarMethod`, a PSF from a file, or None for that of the image's file.

    - `number`: of the image, among `n`.

    **Raises:** `ValueError` for options that do not fit, or a file that cannot be read.
    """
    given = spread(chosen, "psf", n)
    if chosen.smooth and "basis" not in given:
        raise ValueError("--smooth is for --psf basis; other PSFs are smooth already.")
    one = given[number]
    if one is None:
        return None if image.has_psf else star_method(chosen, "moffat")
    if one in STAR_METHODS:
        return star_method(chosen, one)
    if not Path(one).is_file():
        raise ValueError(
            f"--psf must be one of {', '.join(STAR_METHODS)}, or a file; there is no {one!r}."
        )
    return read_varying_psf(one, shape_of(image))


def psf_of_stars(exposure: Exposure) -> PSFBasis:
    """The PSF of an exposure that has none, from its stars; with a warning that says so.

    **Raises:** `ValueError` that says what else can be done if there are too few stars.
    """
    try:
        made = prepare(exposure, psf=None)
        psf, stars = exposure_psf(made.exposure)
        counts = [len(one.used) for one in stars]
        if min(counts) < _FEWEST_STARS:
            raise ValueError(f"{min(counts)} were found, {_FEWEST_STARS} are needed")
    except ValueError as error:
        raise ValueError(
            f"the input holds no PSF, and too few stars to take one from ({error}); give its "
            "image with --psf FILE, or the seeing with --psf-fwhm, as 0.7arcsec or 3.5px."
        ) from error
    widths = ", ".join(f"{one.fwhm:.2f}" for one in stars)
    warnings.warn(
        f"the input holds no PSF; taken from {', '.join(map(str, counts))} stars, FWHM {widths} px",
        stacklevel=2,
    )
    return psf


def shape_of(image: RawImage) -> tuple[int, int]:
    """Pixels along y and x."""
    source = image.source
    shape = source.data.shape if hasattr(source, "data") else source.shape
    return int(shape[-2]), int(shape[-1])


def options_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """Every option with its value, defaults included, for the summary."""
    return {key: value for key, value in vars(chosen).items() if key not in _LEFT_OUT}
