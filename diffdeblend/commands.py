"""What the commands do, once the command line is understood."""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.batch.decoded_columns import decoded_counts
from diffdeblend.deblend.deblend import Deblended, deblend
from diffdeblend.epoch_inputs import psf_of_stars
from diffdeblend.exposure import Exposure
from diffdeblend.image_command import is_large, run_image
from diffdeblend.io import hdus
from diffdeblend.io.fits import read_fits, read_psf
from diffdeblend.io.npz import read_npz, read_npz_positions
from diffdeblend.io.positions import read_positions
from diffdeblend.io.psf_files import is_varying, read_varying_psf
from diffdeblend.io.results import make_directory, write_results, write_summary
from diffdeblend.listing import closing_lines, listing
from diffdeblend.prior_inputs import check_light, prior_lines, prior_of, shapes_of
from diffdeblend.priors import DecoderPrior
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress, one_line
from diffdeblend.psf import AbstractPSF, KolmogorovPSF


def run_deblend(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend deblend`: read, take apart, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        progress.begin("read")
        files = [Path(name) for name in chosen.input]
        if not files:
            _refuse_files_without_input(chosen)
            files = [bundled_blend()]
        prior = prior_of(chosen)
        exposure = read_exposure(files, chosen)
        check_light(prior, exposure)
        positions, where = _positions(files, exposure, chosen)
        # Whether results can be written is better known before the work than after.
        make_directory(chosen.output)
        if is_large(exposure, positions, chosen.split):
            inputs = inputs_of(files, chosen, positions=where)
            run_image(exposure, positions, inputs, chosen, progress, prior)
            return
        found = deblend(
            exposure,
            positions,
            background=chosen.background,
            free_form=not isinstance(prior, DecoderPrior) and not chosen.no_free_form,
            **shapes_of(chosen, prior),
            report=progress.begin,
        )
        progress.end()
        found = replace(found, summary=_summary(found, files, where, chosen))
        progress.begin("write")
        written = write_results(found, chosen.output)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**found.summary, "seconds": progress.seconds}, written["summary.json"])
    print(listing(found.catalog, exposure.bands))
    print()
    print(_closing(found, written))


def read_exposure(
    files: list[Path], chosen: argparse.Namespace, *, needs_psf: bool = True
) -> Exposure:
    """The image that the command line means.

    - `needs_psf`: whether an image without a PSF gets that of its stars; else it gets one that only
        holds its place.

    **Raises:** `ValueError` for options that the files have no use for, too few stars, or as the
    readers do.
    """
    options: dict[str, Any] = {
        "bands": chosen.bands,
        "zero_points": _one_or_all(chosen.zero_points),
        "excluded": chosen.exclude_planes,
        # Whether one is missing is seen once the file is read.
        "needs_psf": False,
    }
    archive = files[0].suffix.lower() == ".npz"
    if archive and len(files) > 1:
        raise ValueError(f"INPUT must be one .npz file, or FITS files; got {len(files)} files.")
    if archive and (chosen.variance or chosen.weight or chosen.mask):
        raise ValueError(
            "--variance, --weight and --mask go with FITS input; an .npz file has its own."
        )
    if chosen.psf and chosen.psf_fwhm:
        raise ValueError("--psf and --psf-fwhm say the same thing; give one of them.")
    if chosen.variance and chosen.weight:
        raise ValueError("--variance and --weight say the same thing; give one of them.")
    varying = bool(chosen.psf) and len(chosen.psf) == 1 and is_varying(chosen.psf[0])
    if chosen.psf and not varying:
        options["psf"] = read_psf(chosen.psf)
    if chosen.psf_fwhm:
        # The pixel scale, and so the PSF, is known only after reading; reading needs some PSF.
        options["psf"] = KolmogorovPSF(jnp.ones(_count_bands(files, archive, chosen)))
    if not archive:
        options |= {
            "variance": chosen.weight or chosen.variance,
            "variance_kind": "weight" if chosen.weight else chosen.variance_kind,
            "mask": chosen.mask,
        }
    exposure = read_npz(files[0], **options) if archive else read_fits(files, **options)
    if varying:
        return _with_psf(exposure, read_varying_psf(chosen.psf[0], exposure.shape))
    if chosen.psf_fwhm:
        return _with_psf(exposure, _seeing(chosen.psf_fwhm, exposure))
    # Files hold images of PSFs: an analytic one only holds the place.
    if needs_psf and isinstance(exposure.psf, KolmogorovPSF):
        return _with_psf(exposure, psf_of_stars(exposure))
    return exposure


def _with_psf(exposure: Exposure, psf: AbstractPSF) -> Exposure:
    if psf.n_bands != exposure.n_bands:
        raise ValueError(
            f"--psf has a PSF of {psf.n_bands} bands, and the input {exposure.n_bands} of them."
        )
    return eqx.tree_at(lambda e: e.psf, exposure, psf)


def bundled_blend() -> Path:
    """The blend that comes with the package, in a checkout or in an installed one.

    **Raises:** `ValueError` if it is in neither place.
    """
    package = Path(__file__).parent
    for place in (package, package.parent / "data"):
        if (place / "bundled_blend.npz").is_file():
            return place / "bundled_blend.npz"
    raise ValueError("INPUT is missing, and the bundled blend was not installed; give a file.")


def _refuse_files_without_input(chosen: argparse.Namespace) -> None:
    """An option that takes many files may have swallowed those meant as INPUT."""
    for name in ("psf", "psf_fwhm", "variance", "weight", "mask", "positions", "zero_points"):
        if getattr(chosen, name) is not None:
            raise ValueError(
                f"INPUT is missing, and --{name.replace('_', '-')} needs one; write the images "
                "first, before all options."
            )


def _positions(
    files: list[Path], exposure: Exposure, chosen: argparse.Namespace
) -> tuple[Float[np.ndarray, "source 2"] | None, str]:
    """Where the sources are, None for wherever there are peaks, and in words where that is from."""
    if chosen.positions is not None:
        return read_positions(chosen.positions, exposure.header), chosen.positions
    if files[0].suffix.lower() == ".npz":
        found = read_npz_positions(files[0])
        if len(found):
            return found, str(files[0])
    return None, "peaks found in the image"


def _count_bands(files: list[Path], archive: bool, chosen: argparse.Namespace) -> int:
    if chosen.bands is not None:
        return len(chosen.bands)
    if archive:
        with np.load(files[0], allow_pickle=False) as content:
            keys = [key for key in ("images", "image") if key in content.files]
            shape = content[keys[0]].shape if keys else ()
        return shape[0] if len(shape) == 3 else 1
    return sum(len(hdus.layers_of(hdus.open_fits(file))) for file in files)


def _seeing(widths: list[tuple[float, str]], exposure: Exposure) -> AbstractPSF:
    """A PSF of given widths in every band."""
    scale = exposure.header.pixel_scale
    if len(widths) not in (1, exposure.n_bands):
        raise ValueError(
            f"--psf-fwhm needs one width, or one for each of {exposure.n_bands} bands; "
            f"got {len(widths)}."
        )
    if scale is None and any(unit == "arcsec" for _, unit in widths):
        raise ValueError(
            "--psf-fwhm is in arcseconds, and the input has no WCS; give it in pixels, as 3.5px."
        )
    pixels = [width / (scale or 1.0) if unit == "arcsec" else width for width, unit in widths]
    return KolmogorovPSF(jnp.broadcast_to(jnp.asarray(pixels), (exposure.n_bands,)))


def _one_or_all(values: list[float] | None) -> list[float] | float | None:
    """A single number stands for all bands."""
    return values[0] if values is not None and len(values) == 1 else values


def _summary(
    found: Deblended, files: list[Path], positions: str, chosen: argparse.Namespace
) -> dict[str, Any]:
    """The summary of the fit, with what was read and how."""
    inputs = inputs_of(files, chosen, positions=positions)
    settings = {
        "variance_kind": "weight" if chosen.weight else chosen.variance_kind,
        "bands": list(found.exposure.bands),
        "exclude_planes": list(found.exposure.header.excluded),
        "zero_points": found.exposure.header.zero_points,
        "psf_fwhm": chosen.psf_fwhm,
    }
    settings = {**found.summary["settings"], **settings}
    if "fallback" in settings:
        catalog: Any = found.catalog
        found.summary.update(decoded_counts(list(catalog["model"]), np.asarray(catalog["flags"])))
    # These two first, as whoever opens the file wants to know them first.
    first = {"inputs": inputs, "settings": settings}
    return first | {key: value for key, value in found.summary.items() if key not in first}


def inputs_of(files: list[Path], chosen: argparse.Namespace, **more: str) -> dict[str, Any]:
    """What was read, for a summary."""
    given = {name: getattr(chosen, name) for name in ("psf", "variance", "weight", "mask")}
    if getattr(chosen, "prior", None) is not None:
        given["prior"] = chosen.prior
    inputs = {"images": [str(file) for file in files], **more}
    return inputs | {name: value for name, value in given.items() if value is not None}


def _closing(found: Deblended, written: dict[str, Path]) -> str:
    """How well it went, and where it is."""
    summary = found.summary
    by_band = ", ".join(f"{b} {v:.3f}" for b, v in summary["reduced_chi2_by_band"].items())
    line = f"reduced chi2 {summary['reduced_chi2']:.3f} ({by_band})"
    return "\n".join([line, *prior_lines(summary), *closing_lines(written)])


@contextmanager
def warnings_in_a_line(progress: Progress) -> Iterator[None]:
    """Warnings as one line each, without the place in the code that a user has no use for."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        progress.say(f"diffdeblend: warning: {one_line(message)}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
