"""Exposures from NumPy archives and back."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.exposure import Exposure, Numbers, make_exposure
from diffdeblend.files import whole_file
from diffdeblend.io.layers import chosen
from diffdeblend.io.stamps import placeholder_psf, psf_images

_NUMBERS = ("gain", "read_noise", "saturation", "exposure_time", "pixel_scale")


def read_npz(
    path: str | os.PathLike,
    *,
    psf: Any = None,
    bands: Sequence[str] | str | None = None,
    zero_points: Numbers | None = None,
    mask_planes: Sequence[str] | None = None,
    excluded: Sequence[str] | None = None,
    needs_psf: bool = True,
) -> Exposure:
    """An exposure from an archive of arrays.

    Keys: `images` or `image`, `variance`, `psfs` or `psf`; optional `mask` (booleans: true is bad;
    integers: bit planes, not excluded unless named), `filters` or `bands`, `zero_points`,
    `noise_correlation`, and what `write_npz` adds. Shapes as in `make_exposure`. Pickled objects
    are never loaded.

    The arguments are used instead of what the file says; `bands` that are names of the file choose
    from it. Without a PSF, and unless `needs_psf`, the exposure gets one as wide as a pixel, which
    only holds its place.

    **Raises:** `ValueError` if the file cannot be read, a key is missing, or `make_exposure`
    refuses.
    """
    with _archive(path) as archive:
        image = _required(archive, path, "images", "image")
        image = image[None] if image.ndim == 2 else image
        variance = _required(archive, path, "variance")
        mask = _optional(archive, "mask")
        stamps = _optional(archive, "psfs", "psf") if psf is None else None
        names = _optional(archive, "filters", "bands")
        zeros = _optional(archive, "zero_points") if zero_points is None else None
        planes = _optional(archive, "mask_planes")
        out = _optional(archive, "excluded")
        unit, date, wcs = (_optional(archive, key) for key in ("unit", "date", "wcs"))
        noise = _optional(archive, "noise_correlation")
        numbers = {key: _optional(archive, key) for key in _NUMBERS}
    if psf is None and stamps is None and needs_psf:
        raise ValueError(f"`psf` is missing: {str(path)!r} has no key 'psfs'.")
    if image.ndim != 3:
        raise ValueError(
            f"`image` of {str(path)!r} needs shape (band, y, x) or (y, x); has {image.shape}."
        )
    n_bands = len(image)
    found = [None] * n_bands if names is None else [str(name) for name in np.atleast_1d(names)]
    if len(found) != n_bands:
        raise ValueError(f"`bands` of {str(path)!r} needs {n_bands} names; has {found}.")
    places, chosen_names = chosen(found, bands, one_file=True)
    pick = _picker(places, n_bands)
    if psf is None:
        psf = placeholder_psf(len(places)) if stamps is None else pick(stamps)
    return make_exposure(
        pick(image),
        pick(variance),
        psf,
        mask=pick(mask),
        bands=None if None in chosen_names else chosen_names,  # type: ignore[arg-type]
        zero_points=pick(zeros) if zero_points is None else zero_points,
        wcs=None if wcs is None else _wcs_from_text(str(wcs)),
        unit="" if unit is None else str(unit),
        mask_planes=_strings(planes) if mask_planes is None else mask_planes,
        excluded=_strings(out) if excluded is None else excluded,
        date=None if date is None else str(date),
        noise_correlation=pick(noise),
        **numbers,
    )


def read_npz_positions(path: str | os.PathLike) -> Float[np.ndarray, "source 2"]:
    """Positions `(x, y)` of an archive, in pixels; shape `(0, 2)` if it has none.

    From `catalog`, a structured array with `x` and `y`, or from `positions`, shape `(n, 2)`.

    **Raises:** `ValueError` if the file cannot be read or the positions have another form.
    """
    with _archive(path) as archive:
        catalog = _optional(archive, "catalog", "positions")
    if catalog is None:
        return np.zeros((0, 2))
    if catalog.dtype.names is not None:
        if not {"x", "y"} <= set(catalog.dtype.names):
            raise ValueError(
                f"`catalog` of {str(path)!r} needs columns x and y; has {catalog.dtype.names}."
            )
        catalog = np.stack([catalog["x"], catalog["y"]], axis=-1)
    if catalog.size == 0:
        return np.zeros((0, 2))
    if catalog.ndim != 2 or catalog.shape[1] != 2 or catalog.dtype.kind not in "fiu":
        raise ValueError(
            f"`positions` of {str(path)!r} need shape (n, 2); got {catalog.dtype}, {catalog.shape}."
        )
    return catalog.astype(float)


def write_npz(
    exposure: Exposure,
    path: str | os.PathLike,
    positions: Float[np.ndarray, "source 2"] | None = None,
) -> None:
    """Write an exposure, and positions of its sources if given, as an archive of arrays.

    `read_npz` reads the same exposure back; a PSF that is not a `PixelPSF` comes back as one. The
    file appears whole or not at all, and replaces one that is there.

    **Raises:** `ValueError` if the WCS has look-up tables, which only FITS can hold.
    """
    header = exposure.header
    arrays: dict[str, Any] = {
        "images": np.asarray(exposure.image),
        "variance": np.asarray(exposure.variance),
        "mask": np.asarray(exposure.mask),
        "psfs": psf_images(exposure.psf),
        "filters": np.array(exposure.bands),
        "mask_planes": np.array(header.mask_planes, dtype=str),
        "excluded": np.array(header.excluded, dtype=str),
        "unit": np.array(header.unit),
    }
    optional = {key: getattr(header, key) for key in ("zero_points", "date", *_NUMBERS)}
    optional["wcs"] = None if header.wcs is None else _wcs_to_text(header.wcs)
    optional["positions"] = positions
    optional["noise_correlation"] = exposure.noise_correlation
    arrays |= {key: np.array(value) for key, value in optional.items() if value is not None}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        # To an open file: a path without the suffix .npz would get it added.
        np.savez_compressed(file, **arrays)


@contextmanager
def _archive(path: str | os.PathLike) -> Iterator[Any]:
    """The archive, opened; whatever is wrong with its bytes becomes a `ValueError`."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"`path`: {str(path)!r} is no NumPy archive (.npz), or is cut short.")
    try:
        archive = np.load(path, allow_pickle=False)
    # Damaged bytes end in many exceptions: of zip, of zlib, of numpy's header.
    except Exception as error:
        raise ValueError(f"`path`: {str(path)!r} cannot be read: {error}") from error
    with archive:
        yield archive


def _optional(archive: Any, *keys: str) -> Any:
    """The first of the keys that is there, or None."""
    for key in keys:
        if key not in archive.files:
            continue
        try:
            value = archive[key]
        # Damaged bytes again: of the compression, of the checksum, of the array's header.
        except Exception as error:
            if "allow_pickle" in str(error):
                raise ValueError(
                    f"`path`: {key!r} holds Python objects (a pickle), which are never loaded, as "
                    "loading them can run any code; save it as plain numbers or text."
                ) from error
            raise ValueError(f"`path`: {key!r} cannot be read: {error}") from error
        if not isinstance(value, np.ndarray):
            raise ValueError(f"`path`: {key!r} is no NumPy array.")
        return value
    return None


def _required(archive: Any, path: str | os.PathLike, *keys: str) -> np.ndarray:
    value = _optional(archive, *keys)
    if value is None:
        raise ValueError(f"`path`: {str(path)!r} needs the key {keys[0]!r}; has {archive.files}.")
    return value


def _picker(places: list[int], n_bands: int) -> Any:
    """Takes the chosen bands of an array that has one entry per band."""

    def pick(value: Any) -> Any:
        if value is None or places == list(range(n_bands)):
            return value
        per_band = np.ndim(value) in (1, 3) and len(value) == n_bands
        return value[np.array(places)] if per_band else value

    return pick


def _strings(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(str(entry) for entry in np.atleast_1d(value))


def _wcs_to_text(wcs: Any) -> str:
    from diffdeblend.io.fits import wcs_hdus

    maps = wcs_hdus(wcs)
    if len(maps) > 1:
        raise ValueError("`exposure`: its WCS has look-up tables of distortion; use `write_fits`.")
    return maps[0].header.tostring(sep="\n")


def _wcs_from_text(text: str) -> Any:
    import warnings

    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            return WCS(fits.Header.fromstring(text, sep="\n"))
    # wcslib has an exception for each way of being wrong.
    except Exception as error:
        raise ValueError(f"`path`: its key 'wcs' cannot be read: {error}") from error
