"""Stores of stamps, opened and checked, whatever their files are."""

from pathlib import Path

from diffdeblend.stamps.fits_store import open_fits
from diffdeblend.stamps.stamp_store import StampStore as StampStore
from diffdeblend.stamps.zarr_store import ZarrStore as ZarrStore
from diffdeblend.stamps.zarr_store import open_zarr


def open_store(path: str | Path, *, checked: bool = False) -> StampStore:
    """A store of stamps, from its Zarr folder or its FITS file.

    Of what is in them: STORE.md and `diffdeblend.stamps.fits_store.open_fits`.

    Everything that can be known without reading the pixels is checked: that all arrays are there,
    their sizes, that no file is missing or cut short, that ids are different.

    - `checked`: that this was done before, as by the one who sent a worker: only metadata are read.

    **Raises:** `ValueError`, one line, for what is no sound store.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"`store`: there is no {str(path)!r}.")
    if path.is_file():
        return open_fits(path, checked=checked)
    return open_zarr(path, checked=checked)
