"""What the determination of a PSF leaves on disk: PSF, stars, figure, summary."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend import __version__
from diffdeblend.files import whole_file
from diffdeblend.io.psf_files import basis_hdus
from diffdeblend.io.results import make_directory, with_provenance, write_figure, write_summary
from diffdeblend.psf import PSFBasis

if TYPE_CHECKING:
    from diffdeblend.stars.determine import StarPSF
    from diffdeblend.stars.validate import PSFReport

# Maps of the coefficients are smooth: so many pixels along the longer side tell all.
_MAP = 256


def write_psf(
    psf: PSFBasis,
    stars: "Sequence[StarPSF]",
    directory: str | os.PathLike,
    summary: Mapping[str, Any],
    *,
    bands: Sequence[str] = ("0",),
    reports: "Sequence[PSFReport | None]" = (None,),
) -> dict[str, Path]:
    """Write a PSF and the stars it is of to a directory, which is made if it is not there.

    `psf.fits` (images of the basis `(band, basis, h, w)`, COEFFICIENTS of their fields, and FIELDS,
    maps of them), `stars.ecsv` (all sources that were looked at, and why one was not used),
    `figure.png`, `summary.json`. Each appears whole or not at all, and replaces one that is there.
    `diffdeblend.io.read_varying_psf` reads the PSF back, as it was.

    - `psf`: in all bands; `stars`, `reports`: one a band; a report, of `validate_psf`, may be None.

    Returns the files by name. Without matplotlib there is no figure.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    from astropy.io import fits
    from astropy.table import vstack

    folder = make_directory(directory)
    files: dict[str, Path] = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    hdus = basis_hdus(psf)
    maps, step = field_maps(psf)
    hdus.append(fits.ImageHDU(maps, name="FIELDS"))
    hdus["FIELDS"].header["STEP"] = (step, "[pix] from one place of the maps to the next")
    hdus[0].header["CREATOR"] = f"diffdeblend {__version__}"
    with whole_file(place("psf.fits")) as temporary:
        hdus.writeto(temporary)
    tables = []
    for band, found in zip(bands, stars, strict=True):
        table: Any = found.table.copy()
        if len(bands) > 1:
            table.add_column(np.full(len(table), band), 0, "band")
        tables.append(table)
    table = with_provenance(vstack(tables, metadata_conflicts="silent"), summary)
    with whole_file(place("stars.ecsv")) as temporary:
        table.write(temporary, format="ascii.ecsv")

    def draw() -> Any:
        from diffdeblend.plot_psf import psf_figure

        return psf_figure(stars[0], reports[0])

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(summary, place("summary.json"))
    return files


def field_maps(psf: PSFBasis) -> tuple[Float[np.ndarray, "band basis y x"], float]:
    """The fields a_k of a basis at evenly spaced pixels, the first of them in the corner, and how
    far these are from each other.
    """
    ny, nx = psf.shape
    step = max(1, -(-max(ny, nx) // _MAP))
    y, x = np.mgrid[0:ny:step, 0:nx:step].astype(np.float32)
    return np.asarray(psf.fields(x, y)), float(step)


def psf_summary(
    stars: "Sequence[StarPSF]", reports: "Sequence[PSFReport | None]", bands: Sequence[str]
) -> dict[str, Any]:
    """The numbers of `summary.json` on a PSF, by band."""
    found = {}
    for band, star, report in zip(bands, stars, reports, strict=True):
        numbers: dict[str, Any] = {
            "fwhm": star.fwhm,
            "beta": star.beta,
            "n_basis": star.psf.n_basis,
            "degree": star.psf.degree,
            "n_sources": len(star.table),
            "n_stars": int(np.sum(np.asarray(star.table["is_star"]))),
            "n_used": len(star.used),
            "n_reserved": len(star.reserved),
            "spectrum": [float(v) for v in star.spectrum[: star.psf.n_basis]],
        }
        if report is not None:
            e1, e2 = report.ellipticity_error
            numbers["reserved"] = {
                "n": len(report),
                "size_error": report.size_error,
                "e1_error": e1,
                "e2_error": e2,
                "chi2": report.chi2,
                "residual_in_excess_of_noise": report.excess,
            }
        found[band] = numbers
    return found
