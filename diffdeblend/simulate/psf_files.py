"""PSFs from images and files, as objects of GalSim."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import galsim

    from diffdeblend.simulate.survey import Band, Survey

_SUFFIXES = (".fits", ".fits.gz", ".fit", ".fits.fz", ".npy")


def image_psf(
    image: Float[np.ndarray, "y x"], pixel_scale: float, pixel_included: bool = False
) -> "galsim.GSObject":
    """A PSF from an image of it, with its middle in the middle of the image; brought to unit flux.

    - `pixel_scale`: of the image, arcsec.
    - `pixel_included`: whether the image contains the response of a pixel of `pixel_scale`, as
        images of stars do; it is then taken out, since drawing puts it in.

    **Raises:** `ValueError` unless the image has two axes, is finite, and has a positive sum.
    """
    import galsim

    image = np.ascontiguousarray(image, dtype=float)
    if image.ndim != 2:
        raise ValueError(f"`image` of a PSF needs two axes; got shape {image.shape}.")
    if not np.isfinite(image).all() or image.sum() <= 0:
        raise ValueError("`image` of a PSF must be finite with a positive sum.")
    if not (np.isfinite(pixel_scale) and pixel_scale > 0):
        raise ValueError(f"`pixel_scale` must be positive; got {pixel_scale}.")
    psf = galsim.InterpolatedImage(galsim.Image(image), scale=pixel_scale, flux=1.0)
    if not pixel_included:
        return psf
    return galsim.Convolution([psf, galsim.Deconvolution(galsim.Pixel(pixel_scale))])


@dataclass(frozen=True)
class FilePSF:
    """A function for `Survey.psf`; see `psf_from_file`."""

    path: str
    pixel_scale: float | None = None
    pixel_included: bool = False

    def __call__(self, survey: "Survey", band: "Band") -> "galsim.GSObject":
        path = Path(self.path.replace("{band}", band.name))
        return _read_psf(path, survey, band, self.pixel_scale, self.pixel_included)


@dataclass(frozen=True)
class FolderPSF:
    """A function for `Survey.psf`; see `psf_from_folder`."""

    folder: str
    pixel_scale: float | None = None
    pixel_included: bool = False

    def __call__(
        self, survey: "Survey", band: "Band"
    ) -> Callable[[np.random.Generator], "galsim.GSObject"]:
        folder = Path(self.folder.replace("{band}", band.name))
        if not folder.is_dir():
            raise ValueError(f"`folder`: there is no folder {str(folder)!r}.")
        # By name: the order in which a folder lists its files is that of the machine.
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
        if not paths:
            raise ValueError(f"`folder`: {str(folder)!r} has no file that ends in {_SUFFIXES}.")

        def choose(rng: np.random.Generator) -> "galsim.GSObject":
            path = paths[rng.integers(len(paths))]
            return _read_psf(path, survey, band, self.pixel_scale, self.pixel_included)

        return choose


def psf_from_file(
    path: str | Path, pixel_scale: float | None = None, pixel_included: bool = False
) -> FilePSF:
    """A PSF for `Survey.psf` from a FITS or .npy file with an image for all bands or one for each.

    - `path`: "{band}" in it stands for the name of the band. A file of three axes has the bands of
        the survey on the first, in their order.
    - `pixel_scale`: of the image, arcsec; None: that of the survey.
    - `pixel_included`: see `image_psf`.

    Called, it **raises** `ValueError` for a file that is missing or has no such image.
    """
    return FilePSF(str(path), pixel_scale, pixel_included)


def psf_from_folder(
    folder: str | Path, pixel_scale: float | None = None, pixel_included: bool = False
) -> FolderPSF:
    """A PSF for `Survey.psf` that varies: a file of a folder, chosen anew by each `draw_psfs`.

    Each band chooses for itself. Arguments as in `psf_from_file`.

    Called, it **raises** `ValueError` for a folder that is missing or has no images.
    """
    return FolderPSF(str(folder), pixel_scale, pixel_included)


def _read_psf(
    path: Path, survey: "Survey", band: "Band", pixel_scale: float | None, pixel_included: bool
) -> "galsim.GSObject":
    image = _read_image(path)
    if image.ndim == 3:
        if len(image) != len(survey.bands):
            raise ValueError(
                f"`path`: {str(path)!r} has {len(image)} images, and {survey.name} the bands "
                f"{survey.band_names}."
            )
        image = image[survey.band_names.index(band.name)]
    scale = survey.pixel_scale if pixel_scale is None else pixel_scale
    try:
        return image_psf(image, scale, pixel_included)
    except ValueError as error:
        raise ValueError(f"`path`: {str(path)!r}: {error}") from error


def _read_image(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    if path.suffix == ".npy":
        return np.load(path)
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            for hdu in hdus:
                data: Any = getattr(hdu, "data", None)
                # Tables have one axis.
                if data is not None and np.ndim(data) in (2, 3):
                    return np.array(data, dtype=float)
    except OSError as error:
        raise ValueError(f"`path`: {str(path)!r} is no FITS file: {error}") from error
    raise ValueError(f"`path`: {str(path)!r} has no image of two or three axes.")
