"""The surroundings of one source, with all that a measurement may ask of them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from diffdeblend.planes import as_int32, bits_of


class SourceStamp(eqx.Module):
    """One source on its stamp; of many sources every array has one more axis in front.

    - `image`, `variance`: `(h, w)`; both 0 outside of the image and where either is not finite or
        the variance is not positive.
    - `mask`: bit planes, int32.
    - `inside`: the pixel is on the image.
    - `footprint`: the pixel belongs to the source.
    - `psf`: at the place of the source, `(k, l)`, odd, of unit sum, centre in the middle pixel;
        may be one for many sources.
    - `x`, `y`: of the peak, in pixels of the stamp; any real numbers.
    - `x0`, `y0`: place of the first pixel in the image, int32.
    - `planes`: names of bit 0, 1, ... of the mask; static.
    - `excluded`: names of the planes that spoil a pixel; static.
    """

    image: Float[Array, "*n h w"]
    variance: Float[Array, "*n h w"]
    mask: Int[Array, "*n h w"]
    inside: Bool[Array, "*n h w"]
    footprint: Bool[Array, "*n h w"]
    psf: Float[Array, "*m k l"]
    x: Float[Array, "*n"]
    y: Float[Array, "*n"]
    x0: Int[Array, "*n"]
    y0: Int[Array, "*n"]
    planes: tuple[str, ...] = eqx.field(static=True, default=())
    excluded: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def known(self) -> Bool[Array, "*n h w"]:
        """Pixels with a value and a variance."""
        return self.inside & (self.variance > 0)

    @property
    def good(self) -> Bool[Array, "*n h w"]:
        """Pixels that are known and on no excluded plane."""
        return self.known & ~self.on(*self.excluded)

    def on(self, *planes: str) -> Bool[Array, "*n h w"]:
        """Pixels on any of these planes; planes that the mask has not are empty."""
        return (self.mask & plane_bits(self.planes, *planes)) != 0


def plane_bits(names: Sequence[str], *planes: str) -> np.int32:
    """The bits of some planes of a mask whose bits have these names; 0 for those it has not."""
    return as_int32(bits_of(planes, tuple(names)))


def nearest_index(position: Any) -> Int[np.ndarray, "*n"]:
    """The pixel that a position lies on: half goes up. 0 for what is not finite. Host side."""
    values = np.asarray(position, float)
    return np.floor(np.where(np.isfinite(values), values, 0) + 0.5).astype(np.int64)


class ImagePlanes(eqx.Module):
    """One band of an image, padded for stamps around sources anywhere on it. Host side.

    Made by `image_planes`.

    - `image`, `variance`, `mask`, `inside`: `(y + 2 pad, x + 2 pad)`, numpy; as in `SourceStamp`.
    - `pad`: pixels added on each side; static.
    - `planes`, `excluded`: as in `SourceStamp`; static.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    inside: np.ndarray
    pad: int = eqx.field(static=True)
    planes: tuple[str, ...] = eqx.field(static=True)
    excluded: tuple[str, ...] = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of the image along y and x."""
        height, width = self.image.shape
        return height - 2 * self.pad, width - 2 * self.pad


def image_planes(
    image: Float[Any, "y x"],
    variance: Float[Any, "y x"],
    mask: Int[Any, "y x"] | None = None,
    *,
    planes: Sequence[str] = (),
    excluded: Sequence[str] = (),
    pad: int = 128,
) -> ImagePlanes:
    """One band of an image, ready for `cut_stamps`. Host side.

    - `variance`: of the noise of each pixel; not positive or not finite where nothing is known.
    - `mask`: bit planes; without it none is set.
    - `pad`: the size of the largest stamp, in pixels.

    **Raises:** `ValueError` for shapes that disagree.
    """
    image, variance = np.asarray(image), np.asarray(variance)
    if image.ndim != 2 or variance.shape != image.shape:
        raise ValueError(
            f"`image` and `variance` need one shape (y, x); got {image.shape}, {variance.shape}."
        )
    if mask is not None and np.shape(mask) != image.shape:
        raise ValueError(f"`mask` needs the shape {image.shape}; got {np.shape(mask)}.")
    dtype = np.asarray(jnp.zeros(0)).dtype
    wide = tuple(n + 2 * pad for n in image.shape)
    middle = tuple(slice(pad, pad + n) for n in image.shape)
    values, noise = np.zeros(wide, dtype), np.zeros(wide, dtype)
    bits, inside = np.zeros(wide, np.int32), np.zeros(wide, bool)
    known = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    if known.all():
        values[middle], noise[middle] = image, variance
    else:
        values[middle], noise[middle] = np.where(known, image, 0), np.where(known, variance, 0)
    if mask is not None:
        bits[middle] = mask
    inside[middle] = True
    return ImagePlanes(values, noise, bits, inside, pad, tuple(planes), tuple(excluded))


def cut_stamps(
    planes: ImagePlanes,
    x: Float[Any, "source"],
    y: Float[Any, "source"],
    psf: Float[Any, "*source k l"],
    size: int,
    *,
    labels: Int[Any, "y x"] | None = None,
    label: Int[Any, "source"] | None = None,
) -> SourceStamp:
    """Stamps of `size` x `size` pixels around positions, arrays of numpy. Host side.

    The pixel that a position lies on is at index `size // 2`. A position that is not finite, or so
    far off the image that its stamp would not meet it, has a stamp with no pixel inside.

    - `psf`: one image for all, `(k, l)`, which it stays; or one a source.
    - `labels`, `label`: a label image, and which label is the source's: its footprint. Without
        them the footprint is a disc of the noise-equivalent area of the PSF (two standard
        deviations of a Gaussian in radius).

    **Raises:** `ValueError` for a size beyond the padding, or shapes that disagree.
    """
    if not 1 <= size <= planes.pad:
        raise ValueError(f"`size` must be from 1 to the padding, {planes.pad}; got {size}.")
    x, y, psf = np.asarray(x, float), np.asarray(y, float), np.asarray(psf)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"`x` and `y` need one shape (source,); got {x.shape} and {y.shape}.")
    each = psf.ndim == 3 and len(psf) == len(x)
    if not (each or psf.ndim == 2) or 0 in (psf.shape[-2] % 2, psf.shape[-1] % 2):
        raise ValueError(
            f"`psf` needs shape (k, l) or ({len(x)}, k, l), k and l odd; got {psf.shape}."
        )
    first = [nearest_index(p) - size // 2 for p in (y, x)]
    pad, shape = planes.pad, planes.shape
    known = np.isfinite(x) & np.isfinite(y)
    far = ~known
    for start, n in zip(first, shape, strict=True):
        far |= (start <= -size) | (start >= n)
    # What meets no pixel of the image is cut from the corner of the padding.
    place = tuple(np.where(far, 0, start + pad) for start in first)

    def cut(plane: np.ndarray) -> np.ndarray:
        windows: Any = sliding_window_view(plane, (size, size))  # type: ignore[call-overload]
        return windows[place]

    inside = cut(planes.inside)
    inside[far] = False
    middle = np.where(known, x - first[1], size // 2), np.where(known, y - first[0], size // 2)
    if labels is None:
        footprint = _discs(middle, psf, size)
    else:
        segments, own = np.asarray(labels), np.asarray(label)
        if own.shape != x.shape or segments.shape != shape:
            raise ValueError(
                f"`labels` and `label` need shapes {shape} and {x.shape}; "
                f"got {segments.shape} and {own.shape}."
            )
        footprint = cut(np.pad(segments, pad)) == own[:, None, None]
    dtype = planes.image.dtype
    arrays: dict[str, Any] = {
        "image": cut(planes.image),
        "variance": cut(planes.variance),
        "mask": cut(planes.mask),
        "inside": inside,
        "footprint": footprint & inside,
        "psf": psf.astype(dtype, copy=False),
        "x": np.where(known, middle[0], np.nan).astype(dtype),
        "y": np.where(known, middle[1], np.nan).astype(dtype),
        "x0": first[1].astype(np.int32),
        "y0": first[0].astype(np.int32),
    }
    return SourceStamp(**arrays, planes=planes.planes, excluded=planes.excluded)


def _discs(middle: tuple, psf: np.ndarray, size: int) -> Bool[np.ndarray, "source h w"]:
    """Discs of the noise-equivalent area of the PSF, and at least the middle pixel."""
    power = np.einsum("...ij,...ij->...", psf, psf)
    light = psf.sum(axis=(-2, -1))
    radius2 = light**2 / np.maximum(power, np.finfo(np.float32).tiny) / np.pi
    radius2 = np.broadcast_to(np.maximum(radius2, 0.5), len(middle[0]))
    steps = np.arange(size)
    dx, dy = (steps - m[:, None] for m in middle)
    return dx[:, None] ** 2 + dy[:, :, None] ** 2 <= radius2[:, None, None]
