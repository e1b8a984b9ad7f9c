"""Which piece of the sky the parts of a run cover: found from the ends of their files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Cells of the circle of right ascensions, among which the widest empty stretch is looked for.
_CELLS_OF_CIRCLE = 3600
# Cells of a map along the longer side of the piece.
_CELLS = 20
# What a single point is widened to, in degrees.
_LEAST = 1e-3


@dataclass(frozen=True)
class Extent:
    """A piece of sky, ICRS, degrees.

    - `ra`: from the lowest, between 0 and 360, eastward: the highest may lie beyond 360.
    - `dec`: lowest and highest.
    """

    ra: tuple[float, float]
    dec: tuple[float, float]

    def unwrapped(self, ra: np.ndarray) -> np.ndarray:
        """Right ascensions as the piece counts them: the circle is cut opposite to its middle."""
        start = (self.ra[0] + self.ra[1]) / 2 - 180
        return start + np.mod(ra - start, 360)

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges of about square cells along right ascension and declination."""
        width = (self.ra[1] - self.ra[0]) * max(np.cos(np.deg2rad(sum(self.dec) / 2)), 1e-3)
        height = self.dec[1] - self.dec[0]
        side = max(width, height) / _CELLS
        nx, ny = (max(1, round(length / side)) for length in (width, height))
        return np.linspace(*self.ra, nx + 1), np.linspace(*self.dec, ny + 1)


def extent_of(parts: Iterable[Path]) -> Extent | None:
    """The piece of sky that holds the stamps of all parts; None if they have no places there.

    The right ascensions begin behind the widest stretch without any: a survey may lie across 0.
    """
    seen = np.zeros(_CELLS_OF_CIRCLE, bool)
    # Of the stretches that begin and end in each cell, the lowest beginning and the highest end.
    lowest, highest = np.full(len(seen), np.inf), np.full(len(seen), -np.inf)
    dec = np.inf, -np.inf
    for ra_low, ra_high, dec_low, dec_high in _ranges(parts):
        first, last = _cell(ra_low), _cell(ra_high)
        seen[first : last + 1] = True
        lowest[first] = min(lowest[first], ra_low)
        highest[last] = max(highest[last], ra_high)
        dec = min(dec[0], dec_low), max(dec[1], dec_high)
    places = np.flatnonzero(seen)
    if not len(places):
        return None
    empty = np.diff(np.append(places, places[0] + len(seen)))
    widest = int(np.argmax(empty))
    begin, end = places[(widest + 1) % len(places)], places[widest]
    if empty[widest] == 1:  # all around
        return Extent((0.0, 360.0), _wide(*dec))
    low, high = float(lowest[begin]), float(highest[end])
    return Extent(_wide(low, high if high >= low else high + 360), _wide(*dec))


def _cell(ra: float) -> int:
    return min(int(ra / 360 * _CELLS_OF_CIRCLE), _CELLS_OF_CIRCLE - 1)


def _wide(low: float, high: float) -> tuple[float, float]:
    if high - low >= _LEAST:
        return low, high
    middle = (low + high) / 2
    return middle - _LEAST / 2, middle + _LEAST / 2


def _ranges(parts: Iterable[Path]) -> Iterator[tuple[float, float, float, float]]:
    """Lowest and highest right ascension and declination of stretches of stamps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in parts:
        try:
            found = _of_footer(pq.read_metadata(path))
            if found is not None and found[0] >= 0 and found[1] < 360 and found[1] - found[0] < 180:
                yield found
                continue
            # Across 0, perhaps, or without statistics: stamp by stamp.
            places = _places(path)
        except (pa.ArrowException, OSError):
            # Damaged: whoever counts its stamps tells of it.
            continue
        for ra, dec in places:
            yield ra, ra, dec, dec


def _of_footer(meta: Any) -> tuple[float, float, float, float] | None:
    """From the statistics of a Parquet file; None where it has none."""
    names = meta.schema.names
    if "ra" not in names or "dec" not in names:
        return None
    ends: list[float] = []
    for place in (names.index("ra"), names.index("dec")):
        each = [meta.row_group(k).column(place).statistics for k in range(meta.num_row_groups)]
        if not each or any(one is None or not one.has_min_max for one in each):
            return None
        ends += [min(one.min for one in each), max(one.max for one in each)]
    return ends[0], ends[1], ends[2], ends[3]


def _places(path: Path) -> list[tuple[float, float]]:
    """Right ascension and declination of the stamps of a part that have them."""
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    if "ra" not in names or "dec" not in names:
        return []
    table = pq.read_table(path, columns=["ra", "dec"])
    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    known = np.isfinite(ra) & np.isfinite(dec)
    return list(zip(np.mod(ra[known], 360).tolist(), dec[known].tolist(), strict=True))
