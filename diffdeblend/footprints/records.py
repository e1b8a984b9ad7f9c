"""Which source was taken out of which: the table of parents and their children."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from diffdeblend.footprints.footprint import Footprint
from diffdeblend.footprints.heavy import HeavyFootprint

if TYPE_CHECKING:
    from astropy.table import Table

# What taking a blend apart may have to say of a source.
DEBLEND_FLAGS = (
    *("deblended_as_psf", "skipped", "parent_too_big", "too_many_peaks", "masked", "failed"),
    *("has_stray_flux", "zero_flux"),
)


@dataclass(frozen=True, eq=False)
class SourceRecords:
    """Detected sources and what they were taken apart into; a row a source. Host side.

    A parent is a source as it was detected; where it has more than one peak it may have children,
    each a row of its own with the number of its parent, with one peak, and with its own share of
    the pixels in a heavy footprint. A source with a single peak is its own parent.

    - `id`: from 1, int64; `parent`: that of the parent, 0 at the top.
    - `footprints`: of each row; those of children are heavy.
    - `peak_x`, `peak_y`: pixel of the brightest peak of each; of a footprint without a peak the one
        nearest to its centroid.
    - `n_peaks`: peaks of each; `n_child`: children of each.
    - `flags`: booleans, a column each; see `DEBLEND_FLAGS`.
    - `values`: numbers, a column each, as the deblender measured them.

    **Raises:** `ValueError` for columns of another length, ids that are not positive and different,
    or a parent that is not among the ids.
    """

    id: Int[np.ndarray, "source"]
    parent: Int[np.ndarray, "source"]
    footprints: tuple[Footprint | HeavyFootprint, ...] = field(repr=False)
    peak_x: Int[np.ndarray, "source"] = field(repr=False)
    peak_y: Int[np.ndarray, "source"] = field(repr=False)
    n_peaks: Int[np.ndarray, "source"] = field(repr=False)
    n_child: Int[np.ndarray, "source"] = field(repr=False)
    flags: Mapping[str, Bool[np.ndarray, "source"]] = field(repr=False)
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        n = len(self.id)
        columns = {
            name: getattr(self, name)
            for name in ("parent", "footprints", "peak_x", "peak_y", "n_peaks", "n_child")
        }
        for name, column in (columns | dict(self.flags) | dict(self.values)).items():
            if len(column) != n:
                raise ValueError(f"`{name}` needs one entry a source, {n}; got {len(column)}.")
        if n and (self.id.min() < 1 or len(np.unique(self.id)) < n):
            raise ValueError("`id` must be different numbers from 1.")
        unknown = ~np.isin(self.parent, np.append(self.id, 0))
        if unknown.any():
            raise ValueError(
                f"`parent` must be 0 or one of `id`; got {self.parent[unknown][:5].tolist()}."
            )

    @classmethod
    def from_footprints(cls, footprints: "Iterable[Footprint]", first: int = 1) -> "SourceRecords":
        """A parent for each footprint, in order; `first`: the first id.

        - `footprints`: a `FootprintSet`, or any footprints.

        **Raises:** `ValueError` for a first id below 1.
        """
        if first < 1:
            raise ValueError(f"`first` must be at least 1; got {first}.")
        all_of_them = tuple(footprints)
        n = len(all_of_them)
        peak_x, peak_y, n_peaks = _peaks(all_of_them)
        return cls(
            np.arange(first, first + n, dtype=np.int64),
            np.zeros(n, np.int64),
            all_of_them,
            peak_x,
            peak_y,
            n_peaks,
            np.zeros(n, np.int32),
            {name: np.zeros(n, bool) for name in DEBLEND_FLAGS},
        )

    def __len__(self) -> int:
        return len(self.id)

    @property
    def is_parent(self) -> Bool[np.ndarray, "source"]:
        """Sources as they were detected."""
        return self.parent == 0

    @property
    def is_leaf(self) -> Bool[np.ndarray, "source"]:
        """Sources that were not taken apart further: each piece of light is in one of them."""
        return self.n_child == 0

    def row(self, id: int) -> int:
        """Row of an id.

        **Raises:** `ValueError` for an id that is not there.
        """
        found = np.flatnonzero(self.id == id)
        if not found.size:
            raise ValueError(f"`id` must be one of the {len(self)} sources; got {id}.")
        return int(found[0])

    def parent_rows(self) -> Int[np.ndarray, "source"]:
        """Row of the parent of each; -1 at the top."""
        order = np.argsort(self.id)
        place = np.searchsorted(self.id, self.parent, sorter=order).clip(max=max(len(self) - 1, 0))
        return np.where(self.parent > 0, order[place] if len(self) else 0, -1)

    def children(self, id: int) -> "SourceRecords":
        """The sources that one was taken apart into, as a table of their own: without a parent.

        **Raises:** `ValueError` for an id that is not there.
        """
        self.row(id)
        rows = np.flatnonzero(self.parent == id)
        return self._rows(rows, np.zeros(rows.size, np.int64))

    def select(self, chosen: Any) -> "SourceRecords":
        """Some of the sources, by booleans or rows; children only together with their parents.

        **Raises:** `ValueError` where a parent would be missing.
        """
        rows = np.arange(len(self))[np.asarray(chosen)]
        return self._rows(rows, self.parent[rows])

    def heavy_row(self) -> Int[np.ndarray, "source"]:
        """Row whose own pixels stand for each source: its own where its footprint is heavy, else
        its nearest ancestor's that is, else that of its top parent."""
        heavy = np.array([one.is_heavy for one in self.footprints], bool)
        above = self.parent_rows()
        row = np.arange(len(self))
        if not len(self):
            return row
        # As deep as the deepest child of a child.
        while (climbing := ~heavy[row] & (above[row] >= 0)).any():
            row = np.where(climbing, above[row], row)
        return row

    def with_children(
        self,
        parent: Sequence[int] | np.ndarray,
        footprints: Sequence[HeavyFootprint],
        *,
        spans: Mapping[int, Any] | None = None,
        flags: Mapping[str, np.ndarray] | None = None,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> "SourceRecords":
        """The table with children added at its end; their ids go on from the largest.

        - `parent`: id of the parent of each child; `footprints`: of each child.
        - `spans`: by the id of a parent, the spans that its footprint has from now on, so that it
            covers its children.
        - `flags`, `values`: columns of the children; of those before they are False and NaN.

        **Raises:** `ValueError` for columns of another length or an unknown parent.
        """
        mother, new = np.asarray(parent, np.int64), tuple(footprints)
        n, n_new = len(self), len(new)
        if mother.shape != (n_new,):
            raise ValueError(
                f"`parent` needs one id a footprint, {n_new}; got shape {mother.shape}."
            )
        if not np.isin(mother, self.id).all():
            raise ValueError("`parent` must be ids of sources that are in the table.")
        old = list(self.footprints)
        order = np.argsort(self.id)
        changed = spans or {}
        if not np.isin(list(changed), self.id).all():
            raise ValueError("`spans` must be by ids of sources that are in the table.")
        rows = order[np.searchsorted(self.id, list(changed), sorter=order)]
        for row, one in zip(rows, changed.values(), strict=True):
            # Values that a heavy parent had are of its spans before; it goes on without.
            old[row] = Footprint(one, old[row].peaks, old[row].region)
        peak_x, peak_y, n_peaks = _peaks(new)
        last = int(self.id.max(initial=0))
        n_child = self.n_child.copy()
        np.add.at(n_child, order[np.searchsorted(self.id, mother, sorter=order)], 1)
        names: list[str] = list(dict.fromkeys([*self.flags, *(flags or {})]))
        numbers: list[str] = list(dict.fromkeys([*self.values, *(values or {})]))
        return SourceRecords(
            np.append(self.id, last + 1 + np.arange(n_new, dtype=np.int64)),
            np.append(self.parent, mother),
            (*old, *new),
            np.append(self.peak_x, peak_x),
            np.append(self.peak_y, peak_y),
            np.append(self.n_peaks, n_peaks),
            np.append(n_child, np.zeros(n_new, np.int32)),
            {k: _joined(self.flags.get(k), (flags or {}).get(k), n, n_new, False) for k in names},
            {
                k: _joined(self.values.get(k), (values or {}).get(k), n, n_new, np.nan)
                for k in numbers
            },
        )

    def with_flags(self, **flags: Bool[np.ndarray, "source"]) -> "SourceRecords":
        """The table with flags set where these are true, besides those that were."""
        none = np.zeros(len(self), bool)
        joined = {k: self.flags.get(k, none) | np.asarray(v, bool) for k, v in flags.items()}
        return replace(self, flags={**self.flags, **joined})

    def table(self) -> "Table":
        """The columns, without the footprints but for their areas."""
        from astropy.table import Table

        columns: dict[str, Any] = {"id": self.id, "parent": self.parent}
        columns |= {"peak_x": self.peak_x, "peak_y": self.peak_y}
        columns |= {
            "deblend_n_child": self.n_child,
            "deblend_n_peaks": self.n_peaks,
            "deblend_parent_n_peaks": self._parent_n_peaks(),
            "footprint_area": np.array([one.spans.area for one in self.footprints], int),
        }
        columns |= {f"deblend_{name}": column for name, column in self.values.items()}
        columns |= {f"deblend_flag_{name}": column for name, column in self.flags.items()}
        return Table(columns)

    def _parent_n_peaks(self) -> np.ndarray:
        above = self.parent_rows()
        return np.where(above >= 0, self.n_peaks[above], 0) if len(self) else self.n_peaks

    def _rows(self, rows: np.ndarray, parent: np.ndarray) -> "SourceRecords":
        return SourceRecords(
            self.id[rows],
            parent,
            tuple(self.footprints[row] for row in rows),
            self.peak_x[rows],
            self.peak_y[rows],
            self.n_peaks[rows],
            self.n_child[rows],
            {name: column[rows] for name, column in self.flags.items()},
            {name: column[rows] for name, column in self.values.items()},
        )


def _peaks(footprints: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel of the first peak of each, and their numbers."""
    n = len(footprints)
    x, y, number = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int32)
    for row, one in enumerate(footprints):
        number[row] = len(one.peaks.x)
        if number[row]:
            x[row], y[row] = one.peaks.x[0], one.peaks.y[0]
        elif one.spans.area:
            x[row], y[row] = np.floor(np.asarray(one.spans.centroid) + 0.5)
    return x, y, number


def _joined(old: Any, new: Any, n_old: int, n_new: int, fill: Any) -> np.ndarray:
    first = np.full(n_old, fill) if old is None else old
    return np.concatenate([first, np.full(n_new, fill) if new is None else new])
