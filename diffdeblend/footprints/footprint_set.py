"""All footprints of an image, kept as a few long arrays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints import lines
from diffdeblend.footprints.footprint import Footprint
from diffdeblend.footprints.heavy import HeavyFootprint, Pixels, inserted
from diffdeblend.footprints.peaks import Peaks, concatenated
from diffdeblend.footprints.ragged import RaggedSpans, ends_of, ranges
from diffdeblend.footprints.spans import SpanSet
from diffdeblend.one_band import band_of
from diffdeblend.segment.boxes import BoundingBox
from diffdeblend.segment.labels import LabelImage


@dataclass(frozen=True, eq=False, repr=False)
class FootprintSet:
    """Footprints of one image: `len`, `[i]`, iteration, and what is quicker for all at once.

    Footprints may overlap. It does not change: methods return a new one.

    - `spans`: of all footprints.
    - `peaks`: of all footprints, one after the other, the strongest of each first.
    - `peak_ends`: where those of each footprint end, shape `(footprint + 1,)`, from 0.
    - `region`: box of the image.
    - `bands`: of each band, which footprints were seen in it; may be empty.
    - `pixels`: values of all pixels of heavy footprints, or None.

    Made by `from_labels`, `from_mask` or `from_footprints`.
    """

    spans: RaggedSpans
    peaks: Peaks
    peak_ends: Int[np.ndarray, "end"]
    region: BoundingBox
    bands: Mapping[str, Bool[np.ndarray, "footprint"]] = field(default_factory=dict)
    pixels: Pixels | None = None

    @classmethod
    def from_labels(cls, labels: LabelImage | Any, peaks: Peaks | None = None) -> "FootprintSet":
        """A footprint for each label, in the order of the labels.

        - `labels`: a `LabelImage`, or integers of shape `(y, x)`; 0 is background.
        - `peaks`: each goes to the footprint that it is on; those on none are left out.
        """
        made = labels if isinstance(labels, LabelImage) else LabelImage(np.asarray(labels))
        data = made.data
        y, start, stop = lines.equal_runs(data)
        owner = np.searchsorted(made.labels, data[y, start])
        spans = RaggedSpans.of_owners(y, start, stop - 1, owner, made.n_labels)
        peaks = Peaks.empty() if peaks is None else peaks
        peaks = peaks[_inside(peaks, _box(made.shape))]
        label = data[peaks.y, peaks.x]
        of_peak = np.searchsorted(made.labels, label[label > 0])
        return cls._assembled(spans, peaks[label > 0], of_peak, _box(made.shape))

    @classmethod
    def from_mask(
        cls, mask: Any, peaks: Peaks | None = None, connectivity: int = 8
    ) -> "FootprintSet":
        """A footprint for each connected part of a mask `(y, x)`, in raster order.

        - `peaks`: as in `from_labels`. `connectivity`: 4 joins pixels that share an edge, 8 also
            those that share a corner.

        **Raises:** `ValueError` for another shape, or numbers other than 0 and 1.
        """
        whole = SpanSet.from_mask(mask)
        spans, part = RaggedSpans.of_parts(whole, connectivity)
        peaks = Peaks.empty() if peaks is None else peaks
        place = whole.span_of(peaks.x, peaks.y)
        return cls._assembled(
            spans, peaks[place >= 0], part[place[place >= 0]], _box(np.shape(mask))
        )

    @classmethod
    def from_footprints(
        cls,
        footprints: Iterable[Footprint],
        region: BoundingBox | tuple[int, int] | None = None,
        bands: Mapping[str, Any] | None = None,
    ) -> "FootprintSet":
        """Of single footprints; heavy if all of them are.

        - `region`: box, or shape `(ny, nx)`, of the image; default: that of the first.
        - `bands`: of each band, which footprints were seen in it.

        **Raises:** `ValueError` without any region, or heavy ones with other planes.
        """
        several = list(footprints)
        if region is None:
            region = next((one.region for one in several if one.region is not None), None)
        if region is None:
            raise ValueError("`region` is missing, and no footprint has one; give shape or box.")
        heavy = [one.pixels for one in several if isinstance(one, HeavyFootprint)]
        return cls(
            RaggedSpans.of_sets([one.spans for one in several]),
            concatenated([one.peaks for one in several]),
            ends_of(np.array([len(one.peaks) for one in several], np.int64)),
            _box(region),
            {name: np.asarray(seen, bool) for name, seen in (bands or {}).items()},
            Pixels.joined(heavy) if heavy and len(heavy) == len(several) else None,
        )

    @classmethod
    def _assembled(
        cls, spans: RaggedSpans, peaks: Peaks, of_peak: np.ndarray, region: BoundingBox
    ) -> "FootprintSet":
        """With peaks in any order, and the footprint of each."""
        ends = ends_of(np.bincount(of_peak, minlength=len(spans)))
        return cls(spans, peaks[peaks.order(of_peak)], ends, region)

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, key: Any) -> Any:
        """One footprint for an integer; for a slice, places or booleans, those as a set."""
        if not isinstance(key, int | np.integer):
            return self._chosen(np.arange(len(self))[key])
        if not -len(self) <= key < len(self):
            raise IndexError(f"There are {len(self)} footprints; got place {key}.")
        k = int(key) % len(self)
        peaks = self.peaks[self.peak_ends[k] : self.peak_ends[k + 1]]
        if self.pixels is None:
            return Footprint(self.spans[k], peaks, self.region)
        ends = self.spans.pixel_ends
        own = self.pixels.at(slice(ends[k], ends[k + 1]))
        return HeavyFootprint.from_pixels(Footprint(self.spans[k], peaks, self.region), own)

    def __iter__(self) -> Iterator[Footprint]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        kind = "heavy footprints" if self.is_heavy else "footprints"
        return f"<FootprintSet: {len(self)} {kind}, {len(self.peaks)} peaks>"

    @property
    def is_heavy(self) -> bool:
        """Whether the footprints have pixel values."""
        return self.pixels is not None

    @property
    def n_peaks(self) -> Int[np.ndarray, "footprint"]:
        """Peaks of each footprint."""
        return np.diff(self.peak_ends)

    @property
    def peak_owner(self) -> Int[np.ndarray, "peak"]:
        """Footprint of each peak."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.n_peaks)

    @property
    def areas(self) -> Int[np.ndarray, "footprint"]:
        """Pixels of each footprint."""
        return self.spans.areas

    @property
    def boxes(self) -> Int[np.ndarray, "footprint 4"]:
        """Of each footprint ixmin, ixmax, iymin, iymax, as in `BoundingBox`; zeros if empty."""
        return self.spans.boxes

    @property
    def centroids(self) -> Float[np.ndarray, "footprint 2"]:
        """Mean x and y of the pixels of each footprint; NaN if it is empty."""
        return self.spans.centroids

    def with_peaks(self, peaks: Peaks, owner: Int[np.ndarray, "peak"]) -> "FootprintSet":
        """The same footprints with other peaks; `owner` is the footprint of each.

        **Raises:** `ValueError` if `owner` is of another length, or there is no such footprint.
        """
        owner = np.asarray(owner)
        if owner.shape != (len(peaks),) or not ((owner >= 0) & (owner < len(self))).all():
            raise ValueError(
                f"`owner` needs a footprint, 0 to {len(self) - 1}, for each of {len(peaks)} peaks."
            )
        made = FootprintSet._assembled(self.spans, peaks, owner, self.region)
        return replace(self, peaks=made.peaks, peak_ends=made.peak_ends)

    def with_spans(self, spans: RaggedSpans) -> "FootprintSet":
        """As many footprints of other pixels; peaks that are not on theirs go.

        **Raises:** `ValueError` for another number of sets, or heavy footprints.
        """
        self._check_light()
        if len(spans) != len(self):
            raise ValueError(f"`spans` needs {len(self)} sets of spans; got {len(spans)}.")
        made = replace(self, spans=spans)
        return made._with_some_peaks(spans.holds(self.peaks.x, self.peaks.y, self.peak_owner))

    def to_labels(self) -> LabelImage:
        """Label k + 1 where footprint k is; where several are, the last of them.

        **Raises:** `ValueError` if a footprint reaches beyond the region, or the region does not
        begin at (0, 0).
        """
        data = np.zeros(self._shape(), np.int32)
        numbers = np.arange(1, len(self) + 1, dtype=np.int32)
        data[self.spans.indices(data.shape)] = np.repeat(numbers, self.areas)
        return LabelImage(data)

    def to_mask(self) -> Bool[np.ndarray, "y x"]:
        """True where any footprint is, over the region.

        **Raises:** `ValueError` as `to_labels`.
        """
        mask = np.zeros(self._shape(), bool)
        mask[self.spans.indices(mask.shape)] = True
        return mask

    def make_heavy(self, exposure: Exposure, band: str | None = None) -> "FootprintSet":
        """The footprints with their pixels of one band.

        **Raises:** `ValueError` if a footprint reaches beyond the image, for an unknown band, or
        without `band` for an exposure of several.
        """
        k = band_of(exposure, band)
        y, x = self.spans.indices(exposure.shape)
        # One index is quicker than two, three times over.
        at = y.astype(np.int64) * exposure.shape[1] + x
        image, mask, variance = (
            np.asarray(plane)[k].reshape(-1)[at]
            for plane in (exposure.image, exposure.mask, exposure.variance)
        )
        return replace(self, pixels=Pixels(image, mask, variance, exposure.header.mask_planes))

    def insert(self, into: Any, band: str | None = None) -> Any:
        """As `HeavyFootprint.insert`, for all footprints at once; the last wins on common pixels.

        **Raises:** `ValueError` if the footprints are not heavy, or reach beyond `into`.
        """
        if self.pixels is None:
            raise ValueError("the footprints have no values; make them heavy first.")
        return inserted(self.pixels, self.spans, into, band)

    def light(self) -> "FootprintSet":
        """Without pixel values."""
        return replace(self, pixels=None)

    def clipped(self, box: BoundingBox | tuple[int, ...] | None = None) -> "FootprintSet":
        """Pixels and peaks in a box or an image of shape `(ny, nx)`; default: in the region.

        Footprints stay in their places, if empty.

        **Raises:** `ValueError` for heavy footprints.
        """
        self._check_light()
        box = self.region if box is None else _box(box)
        return self.with_spans(self.spans.clipped(box))

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

        - `combined`: those that overlap or touch then are one, with the peaks and bands of all; the
            result is in raster order. Else each grows by itself.
        - `clip`: to the region. `connectivity`: of what touches, 4 or 8.

        **Raises:** `ValueError` for another stencil or radius, or heavy footprints.
        """
        self._check_light()
        if not combined:
            made = replace(self, spans=self.spans.dilate(radius, stencil))
            return made.clipped() if clip else made
        spans = self.spans.union().dilate(radius, stencil)
        return self._joined(spans.clipped(self.region) if clip else spans, connectivity)

    def _joined(self, spans: SpanSet, connectivity: int) -> "FootprintSet":
        """The connected parts of `spans`, which hold all of this set, but for what was clipped."""
        ragged, part = RaggedSpans.of_parts(spans, connectivity)
        place = spans.span_of(self.peaks.x, self.peaks.y)
        made = FootprintSet._assembled(
            ragged, self.peaks[place >= 0], part[place[place >= 0]], self.region
        )
        # Where the first pixel of each footprint is now, says to which part it belongs.
        inside = self.spans.clipped(spans.bbox)
        full = inside.counts > 0
        first = inside.ends[:-1][full]
        into = part[spans.span_of(inside.x0[first], inside.y[first])]
        bands = {
            name: np.bincount(into, weights=seen[full], minlength=len(ragged)) > 0
            for name, seen in self.bands.items()
        }
        return replace(made, bands=bands)

    def erode(self, radius: int, stencil: str = "circle") -> "FootprintSet":
        """Each footprint shrunk by a stencil, perhaps to nothing; peaks outside go.

        **Raises:** `ValueError` for another stencil or radius, or heavy footprints.
        """
        self._check_light()
        return self.with_spans(self.spans.erode(radius, stencil))

    def _with_some_peaks(self, kept: np.ndarray) -> "FootprintSet":
        ends = ends_of(np.bincount(self.peak_owner[kept], minlength=len(self)))
        return replace(self, peaks=self.peaks[kept], peak_ends=ends)

    def _chosen(self, places: np.ndarray) -> "FootprintSet":
        n_peaks = self.n_peaks[places]
        pixels = self.pixels
        if pixels is not None:
            pixels = pixels.at(ranges(self.spans.pixel_ends[places], self.areas[places]))
        return FootprintSet(
            self.spans.chosen(places),
            self.peaks[ranges(self.peak_ends[places], n_peaks)],
            ends_of(n_peaks),
            self.region,
            {name: seen[places] for name, seen in self.bands.items()},
            pixels,
        )

    def _shape(self) -> tuple[int, int]:
        if self.region.ixmin or self.region.iymin:
            raise ValueError(f"`region` must begin at (0, 0) to be an image; got {self.region}.")
        return self.region.shape

    def _check_light(self) -> None:
        if self.is_heavy:
            raise ValueError(
                "heavy footprints have no values beyond their pixels; use `light()` before, and "
                "`make_heavy` afterwards."
            )


def _box(region: tuple[int, ...]) -> BoundingBox:
    """A box as it is, or that of an image of shape `(ny, nx)`."""
    return BoundingBox(*region) if len(region) == 4 else BoundingBox(0, region[1], 0, region[0])


def _inside(peaks: Peaks, box: BoundingBox) -> np.ndarray:
    along_x = (peaks.x >= box.ixmin) & (peaks.x < box.ixmax)
    return along_x & (peaks.y >= box.iymin) & (peaks.y < box.iymax)
