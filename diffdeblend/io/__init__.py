"""Files and other people's objects: exposures and positions, in and out."""

import os
from collections.abc import Sequence
from typing import Any

from diffdeblend.exposure import Exposure
from diffdeblend.files import as_paths
from diffdeblend.io.afw_fits import read_afw_origin as read_afw_origin
from diffdeblend.io.bundled import bundled_prior as bundled_prior
from diffdeblend.io.ccddata import from_ccddata as from_ccddata
from diffdeblend.io.ccddata import to_ccddata as to_ccddata
from diffdeblend.io.fits import read_fits as read_fits
from diffdeblend.io.fits import read_psf as read_psf
from diffdeblend.io.fits import write_fits as write_fits
from diffdeblend.io.npz import read_npz as read_npz
from diffdeblend.io.npz import read_npz_positions as read_npz_positions
from diffdeblend.io.npz import write_npz as write_npz
from diffdeblend.io.positions import read_positions as read_positions
from diffdeblend.io.priors import load_prior as load_prior
from diffdeblend.io.priors import save_prior as save_prior
from diffdeblend.io.psf_files import read_varying_psf as read_varying_psf
from diffdeblend.io.psf_files import write_psf_basis as write_psf_basis
from diffdeblend.io.results import read_models as read_models
from diffdeblend.io.results import write_results as write_results
from diffdeblend.io.scene import load_scene as load_scene
from diffdeblend.io.scene import save_scene as save_scene
from diffdeblend.positions import check_positions as check_positions

_FITS = (".fits", ".fit", ".fts", ".fz", ".gz")


def read(path: str | os.PathLike | Sequence[str | os.PathLike], **options: Any) -> Exposure:
    """An exposure from a file, or from FITS files of its bands, by `read_fits` or `read_npz`.

    **Raises:** `ValueError` for another suffix than .npz, .fits, .fit, .fts, .fz and .gz, or as
    those two.
    """
    paths = as_paths(path)
    suffixes = {one.suffix.lower() for one in paths}
    if suffixes == {".npz"} and len(paths) == 1:
        return read_npz(paths[0], **options)
    if suffixes <= set(_FITS):
        return read_fits(paths, **options)
    raise ValueError(
        "`path` must be one .npz file, or FITS files "
        f"({', '.join(_FITS)}); got {[str(one) for one in paths]}."
    )
