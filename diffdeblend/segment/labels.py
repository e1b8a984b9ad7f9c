"""Which pixel belongs to which source."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.ndimage import find_objects

from diffdeblend.segment.boxes import BoundingBox, Segment, ends
from diffdeblend.segment.dilate import dilate, footprint_of
from diffdeblend.segment.outlines import Ring, outlines
from diffdeblend.segment.renumber import Renumbering, is_sparse


class NoDetectionsWarning(UserWarning):
    """Nothing was found; the result is empty and of the same type."""


@dataclass(frozen=True, eq=False)
class LabelImage:
    """An image of labels: 0 is background, the pixels of a source have its positive number.

    It does not change: methods that alter labels return a new one. Names are photutils' (3.0).

    - `data`: shape `(y, x)`, integers from 0; kept as int32, read-only, not copied where possible.
    - `parent_to_deblended_labels`: of each label that was split, in the image before, the labels
        of its parts.
    - `flags_by_label`: bits of labels whose deblending was not plain; others have 0.
    - `info`: whatever else the maker of the labels has to say.

    **Raises:** `ValueError` if `data` is not two-dimensional, not of integers, negative somewhere
    or too large for int32, or `parent_to_deblended_labels` or `flags_by_label` name labels that
    cannot be.
    """

    data: Int[np.ndarray, "y x"]
    parent_to_deblended_labels: Mapping[int, Int[np.ndarray, "child"]] = field(default_factory=dict)
    flags_by_label: Mapping[int, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        data = np.asarray(self.data)
        if data.ndim != 2:
            raise ValueError(f"`data` needs shape (y, x); got {data.shape}.")
        if data.dtype.kind not in "iu":
            raise ValueError(f"`data` needs integers; got {data.dtype}.")
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        if low < 0 or high > np.iinfo(np.int32).max:
            raise ValueError(f"`data` must be from 0 to 2^31 - 1; got {low} to {high}.")
        data = data.astype(np.int32, copy=False).view()
        data.flags.writeable = False
        family = {
            int(parent): np.asarray(children, dtype=np.int32).reshape(-1)
            for parent, children in self.parent_to_deblended_labels.items()
        }
        flags = {int(label): int(bits) for label, bits in self.flags_by_label.items()}
        worst = min((int(c.min(initial=1)) for c in family.values()), default=1)
        if min(worst, min(family, default=1), min(flags, default=1)) < 1:
            raise ValueError(
                "`parent_to_deblended_labels` and `flags_by_label` need labels of at least 1."
            )
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "parent_to_deblended_labels", family)
        object.__setattr__(self, "flags_by_label", flags)
        object.__setattr__(self, "info", dict(self.info))
        self.__dict__["max_label"] = high

    @classmethod
    def from_components(
        cls,
        data: Int[np.ndarray, "y x"],
        areas: Int[np.ndarray, "label"],
        boxes: Int[np.ndarray, "label 4"],
    ) -> "LabelImage":
        """With what is known already: labels are 1, 2, ... with these areas and `boxes`."""
        made = cls(data)
        made.__dict__["_counts"] = np.arange(1, len(areas) + 1, dtype=np.int32), areas
        made.__dict__["boxes"] = boxes
        return made

    @classmethod
    def from_photutils(cls, segment_image: Any) -> "LabelImage":
        """From photutils' `SegmentationImage`, maps of deblending and flags included."""
        return cls(
            np.array(segment_image.data),
            dict(segment_image.parent_to_deblended_labels),
            dict(getattr(segment_image, "_flags_map", {})),
            dict(getattr(segment_image, "info", {})),
        )

    def to_photutils(self) -> Any:
        """As photutils' `SegmentationImage`; before 3.1 it carries flags and `info` unused."""
        from photutils.segmentation import SegmentationImage

        made: Any = SegmentationImage(np.array(self.data))
        made._deblend_label_map = {k: v.copy() for k, v in self.parent_to_deblended_labels.items()}
        made._flags_map = dict(self.flags_by_label)
        made.info = dict(self.info)
        return made

    def __repr__(self) -> str:
        with np.printoptions(threshold=25, edgeitems=5):
            return (
                f"<diffdeblend.segment.LabelImage>\nshape: {self.shape}\n"
                f"n_labels: {self.n_labels}\nlabels: {self.labels}"
            )

    __str__ = __repr__

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __getitem__(self, key: tuple[slice, slice]) -> "LabelImage":
        """A part of the image, without the maps and flags of deblending: some parts may be outside.

        **Raises:** `ValueError` if the key is not two slices or nothing is left.
        """
        if not (isinstance(key, tuple) and len(key) == 2 and all(type(k) is slice for k in key)):
            raise ValueError(f"A label image is cut by two slices, of y and x; got {key!r}.")
        part = self.data[key]
        if part.size == 0:
            raise ValueError(f"Nothing of an image of shape {self.shape} is in {key!r}.")
        return LabelImage(part)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.data.shape[0], self.data.shape[1]

    @cached_property
    def max_label(self) -> int:
        """The largest label; 0 if there is none."""
        return int(self.data.max(initial=0))

    @cached_property
    def _counts(self) -> tuple[Int[np.ndarray, "label"], Int[np.ndarray, "label"]]:
        """The labels and their areas."""
        used = self.data[self.data != 0]
        if is_sparse(self.max_label, self.data.size):
            labels, areas = np.unique(used, return_counts=True)
            return labels, areas
        counts = np.bincount(used, minlength=1)
        labels = np.flatnonzero(counts)
        return labels.astype(np.int32), counts[labels]

    @property
    def labels(self) -> Int[np.ndarray, "label"]:
        """All labels but 0, sorted. What is per label is in this order."""
        return self._counts[0]

    @property
    def areas(self) -> Int[np.ndarray, "label"]:
        """Pixels of each label."""
        return self._counts[1]

    @property
    def n_labels(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    @property
    def background_area(self) -> int:
        """Pixels of no label."""
        return int(self.data.size - self.areas.sum())

    @property
    def is_consecutive(self) -> bool:
        """Whether labels are 1, 2, ... without gaps; not so if there are none."""
        return 0 < self.n_labels == self.max_label

    @property
    def missing_labels(self) -> Int[np.ndarray, "missing"]:
        """Numbers from 1 to the largest label that no pixel has."""
        return np.setdiff1d(np.arange(1, self.max_label + 1, dtype=np.int32), self.labels)

    @cached_property
    def boxes(self) -> Int[np.ndarray, "label 4"]:
        """Of each label the first row, the row after the last, and likewise columns."""
        data = self.data
        if is_sparse(self.max_label, self.data.size):
            data = np.searchsorted(self.labels, data) + (data > 0)
        found = [(*ends(box[0]), *ends(box[1])) for box in find_objects(data) if box is not None]
        return np.array(found, dtype=np.int32).reshape(-1, 4)

    @cached_property
    def slices(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the smallest box around each label."""
        return [(slice(a, b), slice(c, d)) for a, b, c, d in self.boxes.tolist()]

    @property
    def bbox(self) -> list[BoundingBox]:
        """The smallest box around each label."""
        return [BoundingBox(c, d, a, b) for a, b, c, d in self.boxes.tolist()]

    @property
    def segments(self) -> "list[Segment]":
        """Each label by itself."""
        return [Segment(self, int(label)) for label in self.labels]

    def get_segment(self, label: int) -> "Segment":
        """One label by itself."""
        self.check_label(label)
        return Segment(self, int(label))

    def get_segments(self, labels: Any) -> "list[Segment]":
        """Some labels, each by itself."""
        return [Segment(self, int(label)) for label in self.check_labels(labels)]

    @cached_property
    def polygons(self) -> list[list[Ring]]:
        """Closed rings around each label, see `outlines`."""
        return outlines(self.data, self.labels)

    def get_polygon(self, label: int) -> list[Ring]:
        """Closed rings around one label, see `outlines`."""
        rows, columns = self.slices[self.get_index(label)]
        shift = np.array([columns.start, rows.start])
        rings = outlines(self.data[rows, columns], np.array([label]))[0]
        return [ring + shift for ring in rings]

    @property
    def data_masked(self) -> np.ma.MaskedArray:
        """The labels, with the background masked."""
        return np.ma.masked_equal(self.data, 0)

    @property
    def flags(self) -> Int[np.ndarray, "label"]:
        """Bits of deblending of each label; 0 where nothing is to be said."""
        flags = np.zeros(self.n_labels, dtype=np.int32)
        known = np.array(list(self.flags_by_label.items()), dtype=np.int64).reshape(-1, 2)
        known = known[np.isin(known[:, 0], self.labels)]
        flags[np.searchsorted(self.labels, known[:, 0])] = known[:, 1]
        return flags

    @property
    def deblended_labels(self) -> Int[np.ndarray, "child"]:
        """All labels that are parts of one that was split, sorted."""
        parts = list(self.parent_to_deblended_labels.values())
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int32)

    @property
    def deblended_label_to_parent(self) -> dict[int, int]:
        """Of each label that is a part, the label in the image before the split."""
        pairs = self.parent_to_deblended_labels.items()
        return {int(child): parent for parent, children in pairs for child in children}

    def check_label(self, label: int) -> None:
        """**Raises:** `ValueError` if there is no such label."""
        self.check_labels(label)

    def check_labels(self, labels: Any) -> Int[np.ndarray, "chosen"]:
        """One or several labels as an array.

        **Raises:** `ValueError` if there are no such labels.
        """
        chosen = np.asarray(labels).reshape(-1)
        if chosen.size == 0:
            return np.zeros(0, np.int32)
        wrong = chosen[~np.isin(chosen, self.labels)]
        if chosen.dtype.kind not in "iu" or wrong.size:
            shown = ", ".join(str(label) for label in wrong[:5])
            raise ValueError(f"`labels` must be labels of this image; not so are {shown}.")
        return chosen.astype(np.int32)

    def get_index(self, label: int) -> int:
        """Place of a label among `labels`."""
        self.check_label(label)
        return int(np.searchsorted(self.labels, label))

    def get_indices(self, labels: Any) -> Int[np.ndarray, "chosen"]:
        """Places of some labels among `labels`."""
        return np.searchsorted(self.labels, self.check_labels(labels))

    def get_area(self, label: int) -> int:
        """Pixels of a label."""
        return int(self.areas[self.get_index(label)])

    def get_areas(self, labels: Any) -> Int[np.ndarray, "chosen"]:
        """Pixels of some labels."""
        return self.areas[self.get_indices(labels)]

    def reassign_label(self, label: int, new_label: int, relabel: bool = False) -> "LabelImage":
        """A label gets another number; if another source has it, the two are one from now on."""
        return self.reassign_labels(label, new_label, relabel)

    def reassign_labels(self, labels: Any, new_label: int, relabel: bool = False) -> "LabelImage":
        """Some labels get one number, 0 to remove them; with `relabel` all are 1, 2, ... then.

        **Raises:** `ValueError` for labels that are not there, or a `new_label` below 0.
        """
        if not isinstance(new_label, Integral) or isinstance(new_label, bool) or new_label < 0:
            raise ValueError(f"`new_label` must be an integer of at least 0; got {new_label!r}.")
        numbers = self.labels.copy()
        numbers[self.get_indices(labels)] = new_label
        if relabel:
            kept, place = np.unique(numbers[numbers > 0], return_inverse=True)
            numbers[numbers > 0] = np.arange(1, len(kept) + 1)[place]
        return self._renumbered(numbers)

    def relabel_consecutive(self, start_label: int = 1) -> "LabelImage":
        """Labels without gaps from `start_label`, in the same order.

        **Raises:** `ValueError` for a `start_label` below 1.
        """
        if not isinstance(start_label, Integral) or start_label < 1:
            raise ValueError(f"`start_label` must be an integer of at least 1; got {start_label}.")
        return self._renumbered(np.arange(start_label, start_label + self.n_labels))

    def merge_labels(self, labels: Any, relabel: bool = False) -> "LabelImage":
        """Some labels become one, with the smallest of their numbers."""
        chosen = self.check_labels(labels)
        return self.reassign_labels(chosen, int(chosen.min(initial=self.max_label)), relabel)

    def keep_label(self, label: int, relabel: bool = False) -> "LabelImage":
        """All other labels become background."""
        return self.keep_labels(label, relabel)

    def keep_labels(self, labels: Any, relabel: bool = False) -> "LabelImage":
        """All labels but these become background."""
        others = np.setdiff1d(self.labels, self.check_labels(labels))
        return self.reassign_labels(others, 0, relabel)

    def remove_label(self, label: int, relabel: bool = False) -> "LabelImage":
        """A label becomes background."""
        return self.reassign_labels(label, 0, relabel)

    def remove_labels(self, labels: Any, relabel: bool = False) -> "LabelImage":
        """Some labels become background."""
        return self.reassign_labels(labels, 0, relabel)

    def remove_border_labels(
        self, border_width: int, partial_overlap: bool = True, relabel: bool = False
    ) -> "LabelImage":
        """Without the labels that reach within `border_width` pixels of the edge of the image.

        - `partial_overlap`: False removes only those that lie wholly there.

        **Raises:** `ValueError` for a width below 0, or of half the image or more.
        """
        if not 0 <= border_width < min(self.shape) / 2:
            raise ValueError(
                f"`border_width` must be at least 0 and less than half of {min(self.shape)} "
                f"pixels; got {border_width}."
            )
        mask = np.ones(self.shape, dtype=bool)
        mask[border_width : self.shape[0] - border_width][
            :, border_width : self.shape[1] - border_width
        ] = False
        return self.remove_masked_labels(mask, partial_overlap, relabel)

    def remove_masked_labels(
        self, mask: Any, partial_overlap: bool = True, relabel: bool = False
    ) -> "LabelImage":
        """Without the labels that have a pixel where `mask`, of shape `(y, x)`, is True.

        - `partial_overlap`: False removes only those that lie wholly there.

        **Raises:** `ValueError` for another shape.
        """
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != self.shape:
            raise ValueError(f"`mask` needs shape {self.shape}; got {mask.shape}.")
        touched = np.unique(self.data[mask])
        if not partial_overlap:
            touched = np.setdiff1d(touched, self.data[~mask])
        return self.reassign_labels(touched[touched > 0], 0, relabel)

    def make_source_mask(
        self, *, size: Any = None, footprint: Any = None
    ) -> Bool[np.ndarray, "y x"]:
        """True on the sources, and around them as far as a window reaches.

        - `size`: of a rectangular window: one number, or height and width.
        - `footprint`: a window of any shape, 2-D, True inside; `size` is not used then.

        **Raises:** `ValueError` if `size` is not one or two positive integers, or `footprint`
        not 2-D.
        """
        mask = self.data > 0
        if size is None and footprint is None:
            return mask
        return dilate(mask, footprint_of(size, footprint))

    def get_label_mapping(
        self, other: "LabelImage", *, labels: Any = None
    ) -> dict[int, Int[np.ndarray, "found"]]:
        """Of each label (or of some) the labels that its pixels have in another image, sorted.

        0 is among them where a pixel has none.

        **Raises:** `ValueError` if `other` has another shape.
        """
        if other.shape != self.shape:
            raise ValueError(f"`other` needs shape {self.shape}; got {other.shape}.")
        chosen = self.labels if labels is None else self.check_labels(labels)
        here = self.data > 0
        pairs = self.data[here].astype(np.int64) << 32 | other.data[here]
        pairs = np.unique(pairs)
        start = np.searchsorted(pairs >> 32, chosen)
        stop = np.searchsorted(pairs >> 32, chosen, side="right")
        found = (pairs & 0xFFFFFFFF).astype(np.int32)
        return {int(k): found[a:b] for k, a, b in zip(chosen, start, stop, strict=True)}

    def _renumbered(self, numbers: np.ndarray) -> "LabelImage":
        """New numbers of `labels`, 0 for background; maps and flags go with them."""
        if np.array_equal(numbers, self.labels):
            return self
        if numbers.size and int(numbers.max()) > np.iinfo(np.int32).max:
            raise ValueError(f"Labels must be below 2^31; the largest would be {numbers.max()}.")
        change = Renumbering(self.labels, numbers, self.data.size)
        used = self.data != 0
        data = np.zeros(self.shape, dtype=np.int32)
        data[used] = change(self.data[used])
        return replace(
            self,
            data=data,
            parent_to_deblended_labels=change.families(self.parent_to_deblended_labels),
            flags_by_label=change.flags(self.flags_by_label),
        )
