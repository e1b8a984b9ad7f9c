"""A footprint with the values of its pixels."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.footprint import Footprint
from diffdeblend.footprints.ragged import RaggedSpans, ranges
from diffdeblend.footprints.spans import SpanSet
from diffdeblend.one_band import band_of
from diffdeblend.segment.boxes import BoundingBox


class Pixels(NamedTuple):
    """Values of pixels in one band, shape `(pixel,)` each, and the names of the mask's bits."""

    image: Float[np.ndarray, "pixel"]
    mask: Int[np.ndarray, "pixel"]
    variance: Float[np.ndarray, "pixel"]
    planes: tuple[str, ...]

    def at(self, key: Any) -> "Pixels":
        """Some of the pixels."""
        return Pixels(self.image[key], self.mask[key], self.variance[key], self.planes)

    @classmethod
    def joined(cls, several: "list[Pixels]") -> "Pixels":
        """One after the other.

        **Raises:** `ValueError` if the bits of the masks have other names.
        """
        if len({one.planes for one in several}) > 1:
            raise ValueError("`footprints` have masks whose bits have different names.")
        image, mask, variance = (
            np.concatenate(column) for column in list(zip(*several, strict=True))[:3]
        )
        return cls(image, mask, variance, several[0].planes)


@dataclass(frozen=True, eq=False, repr=False)
class HeavyFootprint(Footprint):
    """A footprint that carries image, mask and variance of its pixels in one band.

    - `image`, `mask`, `variance`: shape `(pixel,)`, span by span, as `spans.indices()` goes.
    - `planes`: names of bit 0, 1, ... of the mask.

    **Raises:** `ValueError` if the arrays have another length than the area.
    """

    image: Float[np.ndarray, "pixel"] = None  # type: ignore[assignment]
    mask: Int[np.ndarray, "pixel"] = None  # type: ignore[assignment]
    variance: Float[np.ndarray, "pixel"] = None  # type: ignore[assignment]
    planes: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("image", "mask", "variance"):
            given = getattr(self, name)
            if np.shape(given) != (self.area,):
                raise ValueError(
                    f"`{name}` needs one value for each of {self.area} pixels; "
                    f"got shape {np.shape(given)}."
                )

    @classmethod
    def from_arrays(
        cls,
        footprint: Footprint,
        image: Any,
        variance: Any = None,
        mask: Any = None,
        planes: tuple[str, ...] = (),
    ) -> "HeavyFootprint":
        """A footprint with its pixels of images `(y, x)` that begin at (0, 0).

        `variance` and `mask` may be None, for zeros.

        **Raises:** `ValueError` if the footprint reaches beyond the images, or they differ in
        shape.
        """
        image = np.asarray(image)
        y, x = _places(footprint.spans, image.shape)
        for name, plane in (("mask", mask), ("variance", variance)):
            if plane is not None and np.shape(plane) != image.shape:
                raise ValueError(
                    f"`{name}` needs the shape of `image`, {image.shape}; got {np.shape(plane)}."
                )
        bits = np.zeros(len(y), np.int32) if mask is None else np.asarray(mask)[y, x]
        noise = np.zeros(len(y), image.dtype) if variance is None else np.asarray(variance)[y, x]
        return cls.from_pixels(footprint, Pixels(image[y, x], bits, noise, planes))

    @classmethod
    def from_pixels(cls, footprint: Footprint, pixels: Pixels) -> "HeavyFootprint":
        """A footprint with the values of its pixels."""
        return cls(footprint.spans, footprint.peaks, footprint.region, *pixels)

    @classmethod
    def from_exposure(
        cls, footprint: Footprint, exposure: Exposure, band: str | None = None
    ) -> "HeavyFootprint":
        """A footprint with its pixels of one band of an exposure.

        **Raises:** `ValueError` if the footprint reaches beyond the image, for an unknown band, or
        without `band` for an exposure of several.
        """
        k = band_of(exposure, band)
        y, x = footprint.spans.indices(exposure.shape)
        image, mask, variance = (
            np.asarray(plane)[k, y, x]
            for plane in (exposure.image, exposure.mask, exposure.variance)
        )
        planes = exposure.header.mask_planes
        return cls.from_pixels(footprint, Pixels(image, mask, variance, planes))

    @property
    def is_heavy(self) -> bool:
        """Whether it has pixel values."""
        return True

    @property
    def pixels(self) -> Pixels:
        """All values together."""
        return Pixels(self.image, self.mask, self.variance, self.planes)

    @property
    def mask_bits(self) -> int:
        """All bits that any of its pixels has."""
        return int(np.bitwise_or.reduce(self.mask.astype(np.int32), initial=0))

    def to_image(
        self, fill: float = 0.0, box: BoundingBox | tuple[int, ...] | None = None
    ) -> Float[np.ndarray, "y x"]:
        """Its image in its box, or in `box` or an image of shape `(ny, nx)`; `fill` elsewhere."""
        return self.unflatten(self.image, fill, box)

    def unflatten(
        self, values: Any, fill: Any = 0, box: BoundingBox | tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Values of its pixels, such as `variance`, as an image; see `to_image`."""
        inside = self.spans.to_mask(box)
        values = np.asarray(values)
        out = np.full(inside.shape, fill, dtype=np.result_type(values.dtype, type(fill)))
        if box is not None:
            clipped = self.clipped(box)
            values = values[self._places_of(clipped.spans)]
        # Row by row is the order of the spans.
        out[inside] = values
        return out

    def insert(self, into: Any, band: str | None = None) -> Any:
        """`into` with the pixels of this footprint in place of its own; all others as they are.

        - `into`: an image `(y, x)`, of which a changed copy is returned; or an `Exposure`, whose
            image, mask and variance in `band` are replaced.

        **Raises:** `ValueError` if the footprint reaches beyond it.
        """
        return inserted(self.pixels, self.spans, into, band)

    def dot(self, other: "HeavyFootprint") -> float:
        """Sum over common pixels of the product of both images; 0 if there are none."""
        shared = self.spans.intersect(other.spans)
        mine = self.image[self._places_of(shared)]
        theirs = other.image[other._places_of(shared)]
        return float(np.dot(mine.astype(float), theirs.astype(float)))

    def union(self, other: "HeavyFootprint") -> "HeavyFootprint":
        """Pixels of either with image and variance added where both are, masks combined.

        Peaks of both; planes of this one.

        **Raises:** `ValueError` if the bits of the masks have other names.
        """
        if self.planes != other.planes:
            raise ValueError(f"`other` needs the planes {self.planes}; got {other.planes}.")
        spans = self.spans.union(other.spans)
        peaks = self.peaks.joined(other.peaks).sorted()
        made = []
        for name in ("image", "mask", "variance"):
            mine, theirs = getattr(self, name), getattr(other, name)
            values = np.zeros(spans.area, np.result_type(mine, theirs))
            values[places_in(spans, self.spans)] = mine
            place = places_in(spans, other.spans)
            add = np.bitwise_or if name == "mask" else np.add
            values[place] = add(values[place], theirs)
            made.append(values)
        image, mask, variance = made
        pixels = Pixels(image, mask, variance, self.planes)
        return HeavyFootprint.from_pixels(Footprint(spans, peaks, self.region), pixels)

    def on(self, spans: SpanSet) -> "HeavyFootprint":
        """A part of its pixels with their values; peaks that are not there go.

        **Raises:** `ValueError` if some of `spans` are not its own.
        """
        pixels = self.pixels.at(self._places_of(spans))
        return HeavyFootprint.from_pixels(super().on(spans), pixels)

    def light(self) -> Footprint:
        """The same pixels and peaks without values."""
        return Footprint(self.spans, self.peaks, self.region)

    def with_image(self, image: Any, variance: Any = None) -> "HeavyFootprint":
        """The same footprint with other values, shape `(pixel,)`."""
        variance = self.variance if variance is None else np.asarray(variance)
        return replace(self, image=np.asarray(image), variance=variance)

    def dilate(self, radius: int, stencil: str = "circle") -> NoReturn:
        """Refused: there are no values for the new pixels."""
        raise ValueError(
            "a heavy footprint has no values beyond its pixels; use `light().dilate(...)` and, with"
            " the exposure, `HeavyFootprint.from_exposure`."
        )

    def erode(self, radius: int, stencil: str = "circle") -> NoReturn:
        """Refused, as `dilate`: the two go together."""
        raise ValueError(
            "a heavy footprint keeps its pixels; use `light().erode(...)`, or "
            "`on(spans.erode(...))` for a part of its pixels with their values."
        )

    def _places_of(self, spans: SpanSet) -> np.ndarray:
        return places_in(self.spans, spans)


def places_in(whole: SpanSet, part: SpanSet) -> Int[np.ndarray, "pixel"]:
    """Where the pixels of `part` are in arrays over the pixels of `whole`.

    **Raises:** `ValueError` if some are not in it.
    """
    if not part:
        return np.zeros(0, np.int64)
    if not whole:
        raise ValueError("`spans` must be pixels of the footprint, which has none.")
    box = whole.bbox
    # Where a span would begin on a line of all rows of the box.
    start = (whole.y.astype(np.int64) - box.iymin) * (box.shape[1] + 1) + whole.x0 - box.ixmin
    begin = (part.y.astype(np.int64) - box.iymin) * (box.shape[1] + 1) + part.x0 - box.ixmin
    span = np.searchsorted(start, begin, side="right") - 1
    known = (span >= 0) & (whole.y[span] == part.y) & (part.x0 >= whole.x0[span])
    if not (known & (part.x1 <= whole.x1[span])).all():
        raise ValueError("`spans` must be pixels of the footprint; some are not.")
    length = (whole.x1 - whole.x0 + 1).astype(np.int64)
    first = (np.cumsum(length) - length)[span] + part.x0 - whole.x0[span]
    return ranges(first, (part.x1 - part.x0 + 1).astype(np.int64))


def inserted(pixels: Pixels, spans: SpanSet | RaggedSpans, into: Any, band: str | None) -> Any:
    """An image or an exposure with other pixels; see `HeavyFootprint.insert`."""
    if not isinstance(into, Exposure):
        out = np.array(into)
        out[_places(spans, out.shape)] = pixels.image
        return out
    k = band_of(into, band)
    place = (k, *_places(spans, into.shape))
    planes = []
    for name in ("image", "variance", "mask"):
        # On the host: a scatter compiled for each number of pixels would take longer.
        plane = np.array(getattr(into, name))
        plane[place] = getattr(pixels, name)
        planes.append(jnp.asarray(plane))
    image, variance, mask = planes
    return replace(into, image=image, variance=variance, mask=mask)


def _places(spans: SpanSet | RaggedSpans, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(shape) != 2:
        raise ValueError(f"`image` needs shape (y, x); got {shape}.")
    return spans.indices((shape[0], shape[1]))
