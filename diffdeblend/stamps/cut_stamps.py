"""Blends that were cut from an image, as stamps of one size."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.batch.blend import Blend, noise_of
from diffdeblend.exposure import Exposure
from diffdeblend.io.stamps import psf_images
from diffdeblend.sky import local_jacobian, sky_positions
from diffdeblend.stamps.layout import SHARD
from diffdeblend.stamps.stamps import Stamps, StampsHeader, nested

# Of a PSF's light, what its image may lose where it has to be made smaller.
_LOST = 0.01


def stamps_of_cut(
    blends: Sequence[Blend],
    exposure: Exposure,
    *,
    size: int,
    source_id: Int[np.ndarray, "source"],
    psf_shape: tuple[int, int] | None = None,
    first: int = 0,
) -> Iterator[Stamps]:
    """Blends on stamps of `size` pixels, a file of a store at a time.

    A blend lies in the middle of its stamp; pixels beyond its own are masked. The middle of a stamp
    has its place on the sky, if the exposure has a map.

    - `blends`: of `cut_blends`, none larger than `size`.
    - `source_id`: of each row of the positions that it was given.
    - `psf_shape`: of the images of the PSFs; by default those of the first blend's.
    - `first`: number of the first stamp, and its id.

    **Raises:** `ValueError` for a blend that is too large, or PSFs of which a percent of the light
    is off such images.
    """
    images = _PSFImages(exposure.n_bands, psf_shape)
    waiting = iter(blends)
    most = max((blend.n_sources for blend in blends), default=1)
    while few := list(islice(waiting, SHARD)):
        yield _stamps(few, exposure, size, source_id, images, first, most)
        first += len(few)


def header_of_cut(exposure: Exposure, size: int, blends: Sequence[Blend]) -> StampsHeader:
    """What the stamps of an exposure share."""
    header = exposure.header
    return StampsHeader(
        bands=exposure.bands,
        shape=(size, size),
        n_stamps=len(blends),
        most_sources=max((blend.n_sources for blend in blends), default=1),
        # Those of tiles of one survey differ in the last digits.
        pixel_scale=None if header.pixel_scale is None else round(header.pixel_scale, 5),
        zero_points=header.zero_points,
        unit=header.unit,
        noise_correlation=nested(noise_of(exposure)),
    )


class _PSFImages:
    """The images of PSFs, one of each, all of one shape."""

    def __init__(self, n_bands: int, shape: tuple[int, int] | None):
        self._n_bands, self._shape = n_bands, shape
        # With the PSF itself: the number of an object that is gone may be that of another.
        self._known: dict[int, tuple[object, np.ndarray]] = {}

    def of(self, blends: Sequence[Blend]) -> tuple[np.ndarray, np.ndarray]:
        """Images of the PSFs of blends, and which of them each has."""
        found: list[np.ndarray] = []
        numbers: dict[int, int] = {}
        index = []
        kept = {}
        for blend in blends:
            mark = id(blend.psf)
            if mark not in numbers:
                known = self._known.get(mark)
                image = self._image(blend) if known is None else known[1]
                kept[mark] = blend.psf, image
                numbers[mark] = len(found)
                found.append(image)
            index.append(numbers[mark])
        self._known = kept
        return np.stack(found), np.array(index)

    def _image(self, blend: Blend) -> np.ndarray:
        image = psf_images(blend.psf)
        self._shape = self._shape or (image.shape[1], image.shape[2])
        return on_shape(image, self._shape).astype(np.float32)


def on_shape(
    image: Float[np.ndarray, "band h w"], shape: tuple[int, int]
) -> Float[np.ndarray, "band h2 w2"]:
    """An image of a PSF with zeros around it, or without its rim; its middle stays the middle.

    **Raises:** `ValueError` if a percent of its light would be lost.
    """
    found = image
    for axis, size in enumerate(shape, start=1):
        spare = (size - found.shape[axis]) // 2
        if spare >= 0:
            room = [(spare, spare) if k == axis else (0, 0) for k in range(3)]
            found = np.pad(found, room)
        else:
            found = np.take(found, np.arange(-spare, found.shape[axis] + spare), axis=axis)
    share = found.sum(axis=(1, 2)) / image.sum(axis=(1, 2))
    if (np.abs(share - 1) > _LOST).any():
        raise ValueError(
            f"`psf` of {image.shape[1]} x {image.shape[2]} pixels has {share.min():.1%} of its "
            f"light on the {shape[0]} x {shape[1]} pixels of the images in the store; begin the "
            "store with the widest PSF."
        )
    return found


def _stamps(
    blends: Sequence[Blend],
    exposure: Exposure,
    size: int,
    source_id: np.ndarray,
    images: _PSFImages,
    first: int,
    most: int,
) -> Stamps:
    n = len(blends)
    cube = n, exposure.n_bands, size, size
    image, variance = np.zeros(cube, np.float32), np.zeros(cube, np.float32)
    mask = np.ones(cube, np.uint8)
    position = np.full((n, most, 2), np.nan)
    ids = np.zeros((n, most), np.int64)
    middle = np.zeros((n, 2))
    for k, blend in enumerate(blends):
        height, width = blend.shape
        if max(height, width) > size:
            raise ValueError(f"`size` must be at least {max(height, width)}; got {size}.")
        y, x = (size - height) // 2, (size - width) // 2
        own = (k, slice(None), slice(y, y + height), slice(x, x + width))
        image[own] = blend.data
        used = blend.weight > 0
        variance[own] = np.divide(1, blend.weight, where=used, out=np.zeros_like(blend.weight))
        mask[own] = ~used
        position[k, : blend.n_sources] = blend.positions + np.array([x, y])
        ids[k, : blend.n_sources] = source_id[blend.rows]
        middle[k] = np.array(blend.origin) - (x, y) + (size - 1) / 2
    ra = dec = cd = None
    if exposure.header.wcs is not None:
        ra, dec = sky_positions(exposure.header, middle[:, 0], middle[:, 1])
        cd = local_jacobian(exposure.header, middle[:, 0], middle[:, 1]) / 3600
    psf, index = images.of(blends)
    return Stamps(
        first=first,
        id=first + np.arange(n),
        image=image,
        variance=variance,
        position=position,
        source_id=ids,
        psf=psf,
        psf_index=index,
        psf_key=np.arange(len(psf)),
        mask=mask,
        ra=ra,
        dec=dec,
        cd=cd,
        crowded=np.array([blend.crowded for blend in blends]),
    )
