"""All footprints of an image, kept as a few long arrays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints import lines
from diffdeblend.footprints.footprint import Footprint
from diffdeblend.footprints.heavy import HeavyFootprint, band_of, with_pixels
from diffdeblend.footprints.peaks import Peaks, concatenated
from diffdeblend.footprints.spans import SpanSet, check_inside, pixels_of
from diffdeblend.segment.boxes import BoundingBox
from diffdeblend.segment.labels import LabelImage


@dataclass(frozen=True, eq=False, repr=False)
class FootprintSet:
    """Footprints of one image: `len`, `[i]`, iteration, and what is quicker for all at once.

    - `y`, `x0`, `x1`: all spans, footprint by footprint, as in `SpanSet`.
    - `span_ends`: where the spans of each footprint end, shape `(footprint + 1,)`, from 0.
    - `peaks`: all peaks, footprint by footprint; `peak_ends` as `span_ends`.
    - `region`: box of the image.
    - `bands`: of each band, which footprints were seen in it; may be empty.
    - `image`, `mask`, `variance`: of all pixels, as in `HeavyFootprint`; None unless heavy.
    - `planes`: names of the bits of `mask`.

    Made by `from_labels`, `from_footprints` or `from_mask`.
    """

    y: Int[np.ndarray, "span"]
    x0: Int[np.ndarray, "span"]
    x1: Int[np.ndarray, "span"]
    span_ends: Int[np.ndarray, "end"]
    peaks: Peaks
    peak_ends: Int[np.ndarray, "end"]
    region: BoundingBox
    bands: Mapping[str, Bool[np.ndarray, "footprint"]] = field(default_factory=dict)
    image: Float[np.ndarray, "pixel"] | None = None
    mask: Int[np.ndarray, "pixel"] | None = None
    variance: Float[np.ndarray, "pixel"] | None = None
    planes: tuple[str, ...] = ()

    @classmethod
    def from_labels(cls, labels: LabelImage | Any, peaks: Peaks | None = None) -> "FootprintSet":
        """A footprint for each label, in the order of the labels.

        - `labels`: a `LabelImage`, or integers of shape `(y, x)`; 0 is background.
        - `peaks`: each goes to the footprint that it is on; those on none are left out.
        """
        made = labels if isinstance(labels, LabelImage) else LabelImage(np.asarray(labels))
        data = made.data
        row, start, stop = lines.equal_runs(data)
        label = data[row, start]
        y, x0, x1 = (one.astype(np.int32) for one in (row, start, stop - 1))
        owner = np.searchsorted(made.labels, label)
        if not made.is_consecutive or (np.diff(owner) < 0).any():
            order = np.argsort(owner, kind="stable")
            owner, y, x0, x1 = owner[order], y[order], x0[order], x1[order]
        peaks = Peaks.empty() if peaks is None else peaks
        peaks = peaks[_inside(peaks, made.shape)]
        of_peak = data[peaks.y, peaks.x]
        peaks, of_peak = peaks[of_peak > 0], of_peak[of_peak > 0]
        return cls._assembled(
            *(y, x0, x1, owner, made.n_labels),
            *(peaks, np.searchsorted(made.labels, of_peak)),
            BoundingBox(0, made.shape[1], 0, made.shape[0]),
        )

    @classmethod
    def from_mask(
        cls, mask: Any, peaks: Peaks | None = None, connectivity: int = 8
    ) -> "FootprintSet":
        """A footprint for each connected part of a mask `(y, x)`, in raster order."""
        spans = SpanSet.from_mask(mask)
        frame = lines.frame_of(spans.arrays)
        start, stop = frame.onto(*spans.arrays)
        n, part = lines.components(start, stop, frame.stride, frame.height, connectivity)
        order = np.argsort(part, kind="stable")
        ny, nx = np.shape(mask)
        made = cls._assembled(
            *(one[order] for one in spans.arrays),
            *(part[order], n, Peaks.empty(), np.zeros(0, np.int64)),
            BoundingBox(0, nx, 0, ny),
        )
        return made if peaks is None else made.with_peaks(peaks)

    @classmethod
    def from_footprints(
        cls, footprints: Iterable[Footprint], region: BoundingBox | tuple[int, int] | None = None
    ) -> "FootprintSet":
        """Of single footprints; heavy if all of them are.

        - `region`: box, or shape `(ny, nx)`, of the image; default: that of the first.

        **Raises:** `ValueError` without any region, or heavy ones with other planes.
        """
        several = list(footprints)
        if region is None:
            region = next((one.region for one in several if one.region is not None), None)
        if region is None:
            raise ValueError("`region` is missing, and no footprint has one; give shape or box.")
        box = BoundingBox(*region) if len(region) == 4 else BoundingBox(0, region[1], 0, region[0])
        sizes = np.array([len(one.spans) for one in several], np.int64)
        arrays = [
            np.concatenate([getattr(one.spans, name) for one in several] or [np.zeros(0, np.int32)])
            for name in ("y", "x0", "x1")
        ]
        peaks = concatenated([one.peaks for one in several])
        counts = np.array([len(one.peaks) for one in several], np.int64)
        made = cls(*arrays, _ends(sizes), peaks, _ends(counts), box)
        heavy = [one for one in several if isinstance(one, HeavyFootprint)]
        if not heavy or len(heavy) < len(several):
            return made
        if len({one.planes for one in heavy}) > 1:
            raise ValueError("`footprints` have masks whose bits have different names.")
        values = (
            np.concatenate([getattr(one, name) for one in heavy])
            for name in ("image", "mask", "variance")
        )
        return made._with_pixels(*values, heavy[0].planes)

    @classmethod
    def _assembled(
        cls,
        y: np.ndarray,
        x0: np.ndarray,
        x1: np.ndarray,
        owner: np.ndarray,
        n: int,
        peaks: Peaks,
        of_peak: np.ndarray,
        region: BoundingBox,
    ) -> "FootprintSet":
        """Of spans that are in the order of their owners, and peaks in any order."""
        peaks = peaks[peaks.order(of_peak)]
        ends = _ends(np.bincount(owner, minlength=n))
        return cls(y, x0, x1, ends, peaks, _ends(np.bincount(of_peak, minlength=n)), region)

    def __len__(self) -> int:
        return len(self.span_ends) - 1

    def __getitem__(self, key: Any) -> Any:
        """One footprint for an integer; for a slice, places or booleans, those as a set."""
        if not isinstance(key, int | np.integer):
            return self._chosen(np.arange(len(self))[key])
        n = len(self)
        if not -n <= key < n:
            raise IndexError(f"There are {n} footprints; got place {key}.")
        k = int(key) % n
        a, b = self.span_ends[k], self.span_ends[k + 1]
        spans = SpanSet.from_sorted(self.y[a:b], self.x0[a:b], self.x1[a:b])
        peaks = self.peaks[self.peak_ends[k] : self.peak_ends[k + 1]]
        if self.image is None or self.mask is None or self.variance is None:
            return Footprint(spans, peaks, self.region)
        start, stop = self._pixel_ends[k], self._pixel_ends[k + 1]
        values = (one[start:stop] for one in (self.image, self.mask, self.variance))
        return HeavyFootprint(spans, peaks, self.region, *values, self.planes)

    def __iter__(self) -> Iterator[Footprint]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        kind = "heavy footprints" if self.is_heavy else "footprints"
        return f"<FootprintSet: {len(self)} {kind}, {len(self.peaks)} peaks>"

    @property
    def is_heavy(self) -> bool:
        """Whether the footprints have pixel values."""
        return self.image is not None

    @property
    def owner(self) -> Int[np.ndarray, "span"]:
        """Footprint of each span."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.span_ends))

    @property
    def peak_owner(self) -> Int[np.ndarray, "peak"]:
        """Footprint of each peak."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.peak_ends))

    @property
    def n_peaks(self) -> Int[np.ndarray, "footprint"]:
        """Peaks of each footprint."""
        return np.diff(self.peak_ends)

    @property
    def areas(self) -> Int[np.ndarray, "footprint"]:
        """Pixels of each footprint."""
        return np.diff(self._pixel_ends)

    @property
    def boxes(self) -> Int[np.ndarray, "footprint 4"]:
        """Of each footprint ixmin, ixmax, iymin, iymax, as in `BoundingBox`; zeros if empty."""
        full = np.diff(self.span_ends) > 0
        out = np.zeros((len(self), 4), np.int64)
        if full.any():
            first = self.span_ends[:-1][full]
            out[full, 0] = np.minimum.reduceat(self.x0, first)
            out[full, 1] = np.maximum.reduceat(self.x1, first) + 1
            out[full, 2] = self.y[first]
            out[full, 3] = self.y[self.span_ends[1:][full] - 1] + 1
        return out

    @property
    def centroids(self) -> Float[np.ndarray, "footprint 2"]:
        """Mean x and y of the pixels of each footprint; NaN if it is empty."""
        length = (self.x1 - self.x0 + 1).astype(float)
        sums = [
            np.bincount(self.owner, weights=values * length, minlength=len(self))
            for values in ((self.x0.astype(float) + self.x1) / 2, self.y.astype(float))
        ]
        with np.errstate(invalid="ignore"):
            return np.stack(sums, axis=1) / self.areas[:, None]

    @property
    def _pixel_ends(self) -> Int[np.ndarray, "end"]:
        known = self.__dict__.get("_pixel_ends_kept")
        if known is None:
            total = np.concatenate([[0], np.cumsum((self.x1 - self.x0 + 1).astype(np.int64))])
            known = self.__dict__["_pixel_ends_kept"] = total[self.span_ends]
        return known

    def with_peaks(self, peaks: Peaks) -> "FootprintSet":
        """The same footprints with other peaks, each on the first footprint that it is on.

        Peaks on none are left out.
        """
        y, x = self._pixels()
        ny, nx = self.region.shape
        place = np.full((ny, nx), -1, np.int32)
        # From the last to the first: the first footprint on a pixel has it in the end.
        owner = np.repeat(np.arange(len(self), dtype=np.int32), self.areas)
        kept = self.clipped()
        if kept is not self:
            return kept.with_peaks(peaks)
        place[y[::-1] - self.region.iymin, x[::-1] - self.region.ixmin] = owner[::-1]
        low = peaks.shifted(-self.region.ixmin, -self.region.iymin)
        inside = _inside(low, (ny, nx))
        peaks, low = peaks[inside], low[inside]
        of_peak = place[low.y, low.x]
        return self._with_peaks_of(peaks[of_peak >= 0], of_peak[of_peak >= 0])

    def _with_peaks_of(self, peaks: Peaks, of_peak: np.ndarray) -> "FootprintSet":
        peaks = peaks[peaks.order(of_peak)]
        ends = _ends(np.bincount(of_peak, minlength=len(self)))
        return replace(self, peaks=peaks, peak_ends=ends)

    def to_labels(self) -> LabelImage:
        """Label k + 1 where footprint k is; where several are, the last of them.

        **Raises:** `ValueError` if a footprint reaches beyond the region, or the region does not
        begin at (0, 0).
        """
        data = np.zeros(self._shape(), np.int32)
        data[self._pixels()] = np.repeat(np.arange(1, len(self) + 1, dtype=np.int32), self.areas)
        return LabelImage(data)

    def to_mask(self) -> Bool[np.ndarray, "y x"]:
        """True where any footprint is, over the region."""
        mask = np.zeros(self._shape(), bool)
        mask[self._pixels()] = True
        return mask

    def make_heavy(self, exposure: Exposure, band: str | None = None) -> "FootprintSet":
        """The footprints with their pixels of one band.

        **Raises:** `ValueError` if a footprint reaches beyond the image, for an unknown band, or
        without `band` for an exposure of several.
        """
        k = band_of(exposure, band)
        self._check(exposure.shape)
        y, x = self._pixels()
        at = y.astype(np.int64) * exposure.shape[1] + x
        planes = (exposure.image, exposure.mask, exposure.variance)
        values = (np.asarray(plane)[k].reshape(-1)[at] for plane in planes)
        return self._with_pixels(*values, exposure.header.mask_planes)

    def insert(self, into: Any, band: str | None = None) -> Any:
        """As `HeavyFootprint.insert`, for all footprints at once; the last wins on common pixels.

        **Raises:** `ValueError` if the footprints are not heavy, or reach beyond `into`.
        """
        if self.image is None:
            raise ValueError("the footprints have no values; make them heavy first.")
        whole = isinstance(into, Exposure)
        self._check(into.shape if whole else np.shape(into))
        at = self._pixels()
        if not whole:
            out = np.array(into)
            out[at] = self.image
            return out
        k = band_of(into, band)
        planes = []
        for name in ("image", "variance", "mask"):
            plane = np.array(getattr(into, name))
            plane[k][at] = getattr(self, name)
            planes.append(plane)
        return with_pixels(into, *planes)

    def light(self) -> "FootprintSet":
        """Without pixel values."""
        return replace(self, image=None, mask=None, variance=None, planes=())

    def clipped(self, box: BoundingBox | tuple[int, ...] | None = None) -> "FootprintSet":
        """Pixels and peaks in a box or an image of shape `(ny, nx)`; default: in the region.

        Footprints stay in their places, if empty. The set is no longer heavy if anything changes.
        """
        box = self.region if box is None else box
        box = BoundingBox(*box) if len(box) == 4 else BoundingBox(0, box[1], 0, box[0])
        low = np.maximum(self.x0, box.ixmin).astype(np.int32)
        high = np.minimum(self.x1, box.ixmax - 1).astype(np.int32)
        kept = (low <= high) & (self.y >= box.iymin) & (self.y < box.iymax)
        if kept.all() and (low == self.x0).all() and (high == self.x1).all():
            return self
        counts = np.bincount(self.owner[kept], minlength=len(self))
        moved = self.peaks.shifted(-box.ixmin, -box.iymin)
        stay = _inside(moved, box.shape)
        of_peak = self.peak_owner[stay]
        return FootprintSet(
            *(self.y[kept], low[kept], high[kept], _ends(counts)),
            *(self.peaks[stay], _ends(np.bincount(of_peak, minlength=len(self)))),
            *(self.region, self.bands),
        )

    def dilate(
        self,
        radius: int,
        stencil: str = "circle",
        *,
        combined: bool = True,
        clip: bool = True,
        connectivity: int = 8,
    ) -> "FootprintSet":
        """All footprints grown by a stencil.

        - `combined`: those that overlap or touch then are one, with the peaks of all; the result is
            in raster order. Else each grows by itself.
        - `clip`: to the region. `connectivity`: of what touches, 4 or 8.

        **Raises:** `ValueError` for another stencil or radius, or heavy footprints.
        """
        self._check_light()
        owner = 0 if combined else self.owner
        frame, grown = lines.grown(self.y, self.x0, self.x1, owner, radius, stencil)
        owner, y, x0, x1 = frame.back(*grown)
        if not combined:
            ends = _ends(np.bincount(owner, minlength=len(self)))
            made = replace(self, y=y, x0=x0, x1=x1, span_ends=ends)
            return made.clipped() if clip else made
        spans = SpanSet.from_sorted(y, x0, x1)
        if clip:
            spans = spans.clipped(self.region)
        return self._joined(spans, connectivity)

    def _joined(self, spans: SpanSet, connectivity: int) -> "FootprintSet":
        """The connected parts of `spans`, which hold all of this set that is in the region."""
        frame = lines.frame_of(spans.arrays)
        start, stop = frame.onto(*spans.arrays)
        n, part = lines.components(start, stop, frame.stride, frame.height, connectivity)
        order = np.argsort(part, kind="stable")
        peaks = self.peaks[spans.contains(self.peaks.x, self.peaks.y)]
        at = frame.onto(peaks.y.astype(np.int64), peaks.x, peaks.x)[0]
        of_peak = part[np.searchsorted(start, at, side="right") - 1]
        made = FootprintSet._assembled(
            *(one[order] for one in spans.arrays), part[order], n, peaks, of_peak, self.region
        )
        inside = self.clipped()
        first = inside.span_ends[:-1][np.diff(inside.span_ends) > 0]
        at = frame.onto(inside.y[first].astype(np.int64), inside.x0[first], inside.x0[first])[0]
        into = part[np.searchsorted(start, at, side="right") - 1]
        full = np.diff(inside.span_ends) > 0
        bands = {
            name: np.bincount(into, weights=seen[full], minlength=n) > 0
            for name, seen in self.bands.items()
        }
        return replace(made, bands=bands)

    def erode(self, radius: int, stencil: str = "circle") -> "FootprintSet":
        """Each footprint shrunk by a stencil, perhaps to nothing; peaks outside go.

        **Raises:** `ValueError` for another stencil or radius, or heavy footprints.
        """
        self._check_light()
        frame, left = lines.shrunk(self.y, self.x0, self.x1, self.owner, radius, stencil)
        owner, y, x0, x1 = frame.back(*left)
        of_peak = self.peak_owner
        px, py = self.peaks.x.astype(np.int64), self.peaks.y.astype(np.int64)
        near = (px >= frame.x) & (px - frame.x < frame.stride - 1)
        near &= (py >= frame.y) & (py - frame.y < frame.height)
        at = frame.onto(py, px, px, of_peak)[0]
        span = np.searchsorted(left[0], at, side="right") - 1
        stay = near & (span >= 0)
        stay[stay] = at[stay] < left[1][span[stay]]
        return FootprintSet(
            *(y, x0, x1, _ends(np.bincount(owner, minlength=len(self)))),
            *(self.peaks[stay], _ends(np.bincount(of_peak[stay], minlength=len(self)))),
            *(self.region, self.bands),
        )

    def _chosen(self, places: np.ndarray) -> "FootprintSet":
        counts = np.diff(self.span_ends)[places]
        spans = _ranges(self.span_ends[places], counts)
        n_peaks = self.n_peaks[places]
        made = FootprintSet(
            *(self.y[spans], self.x0[spans], self.x1[spans], _ends(counts)),
            *(self.peaks[_ranges(self.peak_ends[places], n_peaks)], _ends(n_peaks), self.region),
            {name: seen[places] for name, seen in self.bands.items()},
        )
        if self.image is None or self.mask is None or self.variance is None:
            return made
        pixels = _ranges(self._pixel_ends[places], self.areas[places])
        values = (one[pixels] for one in (self.image, self.mask, self.variance))
        return made._with_pixels(*values, self.planes)

    def _with_pixels(self, image: Any, mask: Any, variance: Any, planes: Any) -> "FootprintSet":
        return replace(self, image=image, mask=mask, variance=variance, planes=planes)

    def _pixels(self) -> tuple[np.ndarray, np.ndarray]:
        return pixels_of(self.y, self.x0, self.x1)

    def _shape(self) -> tuple[int, int]:
        if self.region.ixmin or self.region.iymin:
            raise ValueError(f"`region` must begin at (0, 0) to be an image; got {self.region}.")
        self._check(self.region.shape)
        return self.region.shape

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(self.y):
            ends = (int(self.x0.min()), int(self.x1.max()) + 1)
            rows = (int(self.y.min()), int(self.y.max()) + 1)
            check_inside(BoundingBox(*ends, *rows), (shape[0], shape[1]))

    def _check_light(self) -> None:
        if self.is_heavy:
            raise ValueError(
                "heavy footprints have no values beyond their pixels; use `light()` before, and "
                "`make_heavy` afterwards."
            )


def _ends(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers from each first on, one count after the other."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(first - before, counts)


def _inside(peaks: Peaks, shape: tuple[int, int]) -> np.ndarray:
    return (peaks.x >= 0) & (peaks.x < shape[1]) & (peaks.y >= 0) & (peaks.y < shape[0])
