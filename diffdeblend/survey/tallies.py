"""What is kept of any number of values in little room: histograms, pulls, shares on a grid.

All of them may be added up, so that shares of a survey can be counted apart.
"""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Bool, Float

# Pulls of a normal distribution: what lies within holds 68 and 95 % of it.
_68, _95 = 0.99446, 1.95996
# Pulls beyond are gross errors: left out of the mean, and of the histogram.
_OUTLIER = 8.0


class Histogram:
    """Counts of values between fixed edges, and how many lie below and above.

    - `edges`: ascending, `(bin + 1,)`.
    """

    def __init__(self, edges: Float[np.ndarray, "bin_1"]):
        self.edges = np.asarray(edges, float)
        self.counts = np.zeros(len(self.edges) + 1, np.int64)

    def add(self, values: ArrayLike) -> None:
        """Count more values; NaN is left out, infinite ones lie below or above."""
        known = np.asarray(values, float).ravel()
        known = known[~np.isnan(known)]
        place = np.searchsorted(self.edges, known, side="right")
        # The last edge belongs to the last bin.
        place[known == self.edges[-1]] = len(self.edges) - 1
        self.counts += np.bincount(place, minlength=len(self.counts))

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another one with the same edges."""
        self.counts += other.counts

    @property
    def total(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value that this share of all lies below: linear within a bin, NaN of nothing.

        Beyond the edges it is the edge: no more is known.
        """
        if not self.total:
            return float("nan")
        reached = np.cumsum(self.counts)
        wanted = share * self.total
        bin_ = int(np.searchsorted(reached, wanted, side="left"))
        if bin_ == 0:
            return float(self.edges[0])
        if bin_ >= len(self.edges):
            return float(self.edges[-1])
        low, high = self.edges[bin_ - 1], self.edges[bin_]
        part = (wanted - reached[bin_ - 1]) / self.counts[bin_]
        return float(low + part * (high - low))

    def as_dict(self) -> dict[str, Any]:
        """For a summary: the first and the last edge, counts between, below and above."""
        return {
            "from": float(self.edges[0]),
            "to": float(self.edges[-1]),
            "counts": self.counts[1:-1].tolist(),
            "below": int(self.counts[0]),
            "above": int(self.counts[-1]),
        }


class Pulls:
    """Errors in units of the errors that were reported, and relative errors."""

    def __init__(self):
        self.histogram = Histogram(np.linspace(-_OUTLIER, _OUTLIER, 161))
        self.relative = Histogram(np.linspace(-5, 2, 141))
        self._n = self._finite = self._near = self._68 = self._95 = 0
        self._sum = 0.0

    def add(
        self,
        found: Float[np.ndarray, "source"],
        error: Float[np.ndarray, "source"],
        truth: Float[np.ndarray, "source"],
    ) -> None:
        """Count more sources; those whose truth is NaN are left out.

        What was not measured, or has no error, counts as beyond everything.
        """
        known = np.isfinite(truth)
        found, error, truth = (np.asarray(each, float)[known] for each in (found, error, truth))
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = (found - truth) / error
            relative = np.log10(np.abs(found / truth - 1))
        pull = np.where(np.isfinite(pull) & (error > 0), pull, np.inf)
        finite = np.isfinite(pull)
        size = np.abs(pull)
        near = size < _OUTLIER
        self._n += len(pull)
        self._finite += int(finite.sum())
        self._near += int(near.sum())
        self._68 += int((size < _68).sum())
        self._95 += int((size < _95).sum())
        self._sum += float(pull[near].sum())
        self.histogram.add(pull[finite])
        self.relative.add(relative)

    def merge(self, other: "Pulls") -> None:
        """Add what another one has counted."""
        self.histogram.merge(other.histogram)
        self.relative.merge(other.relative)
        for name in ("_n", "_finite", "_near", "_68", "_95", "_sum"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def numbers(self) -> dict[str, float | int | None]:
        """Centre, spread and coverage.

        - `median`, `mean`: the latter of pulls below 8.
        - `robust_std`: half of the way from the 16th to the 84th percentile.
        - `within_68`, `within_95`: share of all within one and 1.96 errors, in percent.
        """
        low, middle, high = map(self.histogram.quantile, (0.16, 0.5, 0.84))
        return {
            "sources": self._n,
            "measured": self._finite,
            "median": middle,
            "mean": self._sum / self._near if self._near else None,
            "robust_std": (high - low) / 2,
            "within_68": 100 * self._68 / self._n if self._n else None,
            "within_95": 100 * self._95 / self._n if self._n else None,
            "median_relative_error": 10 ** self.relative.quantile(0.5),
        }


class Shares:
    """On a grid: how many there are in each cell, and how many of these are flagged.

    - `x`, `y`: edges of the cells, ascending.
    """

    def __init__(self, x: Float[np.ndarray, "nx_1"], y: Float[np.ndarray, "ny_1"]):
        self.x, self.y = np.asarray(x, float), np.asarray(y, float)
        self.sources = np.zeros((len(self.y) - 1, len(self.x) - 1), np.int64)
        self.flagged = np.zeros_like(self.sources)

    def add(
        self,
        x: Float[np.ndarray, "source"],
        y: Float[np.ndarray, "source"],
        flagged: Bool[np.ndarray, "source"],
    ) -> None:
        """Count more sources. Those beyond the grid count in its outermost cells."""
        known = np.isfinite(x) & np.isfinite(y)
        column = np.clip(np.searchsorted(self.x, x[known], side="right") - 1, 0, len(self.x) - 2)
        row = np.clip(np.searchsorted(self.y, y[known], side="right") - 1, 0, len(self.y) - 2)
        np.add.at(self.sources, (row, column), 1)
        np.add.at(self.flagged, (row, column), flagged[known].astype(np.int64))

    def merge(self, other: "Shares") -> None:
        """Add what another one on the same grid has counted."""
        self.sources += other.sources
        self.flagged += other.flagged

    def as_dict(self) -> dict[str, Any]:
        """For a summary: edges, and counts row by row from the lowest y."""
        return {
            "x": self.x.tolist(),
            "y": self.y.tolist(),
            "sources": self.sources.tolist(),
            "flagged": self.flagged.tolist(),
        }
