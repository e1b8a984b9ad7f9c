"""What a coaddition leaves on disk: coadd, its PSF, its detection image, figure, summary."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.files import whole_file
from diffdeblend.io.fits_images import image_list, per_band
from diffdeblend.io.results import make_directory, write_figure, write_summary
from diffdeblend.io.stamps import psf_images

if TYPE_CHECKING:
    from diffdeblend.coadd.coadd import Coadd


def write_coadd(
    found: "Coadd",
    directory: str | os.PathLike,
    summary: Mapping[str, Any],
    *,
    cards: Any = None,
) -> dict[str, Path]:
    """Write a coadd to a directory, which is made if it is not there.

    `coadd.fits` (R, MASK and N_EPOCHS), `coadd_psf.fits`, `detection.fits` (S/N of a point at each
    pixel, FLUX and FLUX_ERR), `figure.png`, `summary.json`. Each appears whole or not at all, and
    replaces one that is there.

    - `cards`: the header of the first epoch's file, which the images keep.

    Returns the files by name. Without matplotlib there is no figure.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    folder = make_directory(directory)
    files: dict[str, Path] = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    exposure = found.exposure
    header = exposure.header
    told = per_band("F_R", found.F_R, "R of a point of unit flux of the first epoch")
    told |= per_band("EFFGAIN", found.effective_gain, "variance on sources is 1 + R / EFFGAIN")
    told["NEPOCHS"] = (len(np.asarray(found.scale)), "epochs that were added up")
    for bit, plane in enumerate(header.mask_planes):
        told[f"MP_{plane}" if len(plane) <= 5 else f"HIERARCH MP_{plane}"] = (bit, "")
    images = {
        "coadd.fits": {"R": exposure.image, "MASK": exposure.mask, "N_EPOCHS": found.n_epochs},
        "detection.fits": {"SNR": found.score, "FLUX": found.flux, "FLUX_ERR": found.flux_err},
    }
    for name, planes in images.items():
        with whole_file(place(name)) as temporary:
            image_list(planes, header, cards=cards, extra=told).writeto(temporary)
    psf = {"PSF": jnp.asarray(psf_images(exposure.psf))}
    with whole_file(place("coadd_psf.fits")) as temporary:
        image_list(psf, replace(header, wcs=None)).writeto(temporary)

    def draw() -> Any:
        from diffdeblend.plot_subtraction import coadd_figure

        return coadd_figure(found)

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(summary, place("summary.json"))
    return files


def coadd_summary(found: "Coadd") -> dict[str, Any]:
    """The numbers of `summary.json` on a coadd."""
    image, good = np.asarray(found.exposure.image), np.asarray(found.n_epochs) > 0
    values = image[good]
    middle = float(np.median(values)) if values.size else np.nan
    spread = MAD_TO_STD * float(np.median(np.abs(values - middle))) if values.size else np.nan
    return {
        "n_epochs": len(np.asarray(found.scale)),
        "scale": np.asarray(found.scale).tolist(),
        "sigma": np.asarray(found.sigma).tolist(),
        "F_R": np.asarray(found.F_R).tolist(),
        "effective_gain": np.asarray(found.effective_gain).tolist(),
        # Sources widen it a little: of empty sky it is 1.
        "coadd_robust_sigma": spread,
        "fraction_seen_by_all": float(np.mean(np.asarray(found.n_epochs) == len(found.scale))),
    }
