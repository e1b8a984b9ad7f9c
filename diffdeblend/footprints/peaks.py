"""The peaks of footprints: where sources are thought to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False, repr=False)
class Peaks:
    """Peaks on pixels, as arrays of one length. Those of a footprint go down in |value|.

    - `x`, `y`: pixel.
    - `value`: of the smoothed image. `significance`: in units of its noise; default: 0.
    - `bands`: of each band, which peaks it saw; may be empty.

    Kept in the order given; `Peaks.sorted` puts the strongest first.

    **Raises:** `ValueError` if the arrays differ in length or `x`, `y` are not integers.
    """

    x: Int[np.ndarray, "peak"]
    y: Int[np.ndarray, "peak"]
    value: Float[np.ndarray, "peak"]
    significance: Float[np.ndarray, "peak"] = None  # type: ignore[assignment]
    bands: Mapping[str, Bool[np.ndarray, "peak"]] = field(default_factory=dict)

    def __post_init__(self):
        x, y = np.asarray(self.x), np.asarray(self.y)
        if any(one.size and one.dtype.kind not in "iu" for one in (x, y)):
            raise ValueError(f"`x` and `y` must be integers; got {x.dtype} and {y.dtype}.")
        value = np.asarray(self.value, dtype=float)
        given = self.significance
        significance = np.zeros_like(value) if given is None else np.asarray(given, dtype=float)
        bands = {str(name): np.asarray(seen, dtype=bool) for name, seen in self.bands.items()}
        shapes = [one.shape for one in (x, y, value, significance, *bands.values())]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(
                "`x`, `y`, `value`, `significance` and each of `bands` need one shape (peak,); "
                f"got {', '.join(map(str, shapes))}."
            )
        self.__dict__.update(
            x=x.astype(np.int32, copy=False),
            y=y.astype(np.int32, copy=False),
            value=value,
            significance=significance,
            bands=bands,
        )

    @classmethod
    def empty(cls, bands: tuple[str, ...] = ()) -> "Peaks":
        """No peak."""
        none = np.zeros(0, np.int32)
        return cls._of(none, none, np.zeros(0), np.zeros(0), {b: np.zeros(0, bool) for b in bands})

    @classmethod
    def _of(cls, x: Any, y: Any, value: Any, significance: Any, bands: Any) -> "Peaks":
        """Without a look at the arrays, which are as they have to be."""
        made = object.__new__(cls)
        made.__dict__.update(x=x, y=y, value=value, significance=significance, bands=bands)
        return made

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, key: Any) -> "Peaks":
        """Some of the peaks: a slice, places, or booleans; an integer gives one peak."""
        if isinstance(key, int | np.integer):
            n = len(self)
            if not -n <= key < n:
                raise IndexError(f"There are {n} peaks; got place {key}.")
            key = slice(key, key + 1 or None)
        return Peaks._of(
            self.x[key],
            self.y[key],
            self.value[key],
            self.significance[key],
            {name: seen[key] for name, seen in self.bands.items()},
        )

    def __repr__(self) -> str:
        first = [f"({x}, {y}: {v:.4g})" for x, y, v in zip(self.x, self.y, self.value, strict=True)]
        return f"<Peaks: {len(self)}: {', '.join(first[:5])}{', ...' if len(self) > 5 else ''}>"

    def sorted(self, owner: Int[np.ndarray, "peak"] | None = None) -> "Peaks":
        """Down in |value|; equal ones up in x, then y.

        - `owner`: footprint of each peak; peaks stay together by footprint.
        """
        return self[self.order(owner)]

    def order(self, owner: Int[np.ndarray, "peak"] | None = None) -> Int[np.ndarray, "peak"]:
        """Places of the peaks in the order of `sorted`."""
        keys = (self.y, self.x, -np.abs(self.value))
        return np.lexsort(keys if owner is None else (*keys, owner))

    def shifted(self, dx: int, dy: int) -> "Peaks":
        """All peaks moved by whole pixels."""
        x, y = (self.x + dx).astype(np.int32), (self.y + dy).astype(np.int32)
        return Peaks._of(x, y, self.value, self.significance, self.bands)

    def joined(self, other: "Peaks") -> "Peaks":
        """These peaks, then the others; a band that one of the two does not know saw none there."""
        return concatenated((self, other))


def concatenated(several: "tuple[Peaks, ...] | list[Peaks]") -> Peaks:
    """All peaks, one after the other."""
    if not several:
        return Peaks.empty()
    names = list(dict.fromkeys(name for one in several for name in one.bands))
    bands = {
        name: np.concatenate([one.bands.get(name, np.zeros(len(one), bool)) for one in several])
        for name in names
    }
    x, y, value, significance = (
        np.concatenate([getattr(one, name) for one in several])
        for name in ("x", "y", "value", "significance")
    )
    return Peaks._of(x, y, value, significance, bands)
