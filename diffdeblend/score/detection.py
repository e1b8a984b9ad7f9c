"""How many sources were found, and how many detections are sources."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from diffdeblend.score.matching import Matching


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs, detections and sources, of one blend or of many together.

    Ratios are of sums: the mean of the ratios of single blends would make a blend of one source
    count as much as a blend of nine. They are defined for every count:

    - `precision`: share of the detections that are sources. With no detection it is 1 where there
        was nothing to find, and 0 otherwise.
    - `recall`: share of the sources that were found; 1 if there were none.
    - `f1`: harmonic mean of both, 2 pairs / (detections + sources); 1 where nothing was there and
        nothing found.

    **Raises:** `ValueError` for negative numbers, or more pairs than detections or sources.
    """

    matched: int
    found: int
    truth: int

    def __post_init__(self):
        if not 0 <= self.matched <= min(self.found, self.truth):
            raise ValueError(
                f"`matched` must be between 0 and the smaller of `found` and `truth`; got "
                f"{self.matched} of {self.found} and {self.truth}."
            )

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.matched + other.matched, self.found + other.found, self.truth + other.truth
        )

    @property
    def precision(self) -> float:
        """Share of the detections that are sources."""
        return self.matched / self.found if self.found else float(self.truth == 0)

    @property
    def recall(self) -> float:
        """Share of the sources that were found."""
        return self.matched / self.truth if self.truth else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.found + self.truth
        return 2 * self.matched / both if both else 1.0


def count(matchings: Iterable[Matching]) -> Counts:
    """Counts of several blends together; all 0 of none."""
    total = Counts(0, 0, 0)
    for matching in matchings:
        total += Counts(len(matching), matching.n_found, matching.n_truth)
    return total


def efficiency_matrix(
    matched: Int[np.ndarray, "blend"], truth: Int[np.ndarray, "blend"], *, normalized: bool = False
) -> Float[np.ndarray, "found truth"]:
    """Number of blends in which so many sources, along the first axis, were found of so many.

    - `matched`: number found in each blend; also the number of detections may be given.
    - `truth`: number of sources of each blend.
    - `normalized`: each column sums to 1; a number of sources that no blend has stays 0.

    **Raises:** `ValueError` if the numbers do not belong together or are no counts.
    """
    matched, truth = np.asarray(matched), np.asarray(truth)
    if matched.shape != truth.shape or matched.ndim != 1:
        raise ValueError(
            f"`matched` and `truth` need one shape (blend,); got {matched.shape}, {truth.shape}."
        )
    for name, values in (("matched", matched), ("truth", truth)):
        if values.size and (values.dtype.kind not in "iu" or values.min() < 0):
            raise ValueError(f"`{name}` needs integers of at least 0; got {values}.")
    matrix = np.zeros((int(matched.max(initial=0)) + 1, int(truth.max(initial=0)) + 1))
    # Empty lists are float arrays.
    np.add.at(matrix, (matched.astype(int), truth.astype(int)), 1)
    if normalized:
        matrix /= np.maximum(matrix.sum(axis=0), 1)
    return matrix


def precision_recall(
    rank: Float[np.ndarray, "found"], matched: Bool[np.ndarray, "found"], n_truth: int
) -> tuple[Float[np.ndarray, "threshold"], Float[np.ndarray, "threshold"]]:
    """Precision and recall as the threshold falls through the ranks of the detections.

    Matched once with all detections, cut afterwards.

    - `rank`: how sure a detection is (its SNR, or flux); the greater the surer. Detections of one
        rank enter together. One that is not finite comes last.
    - `matched`: whether it is a source. `n_truth`: number of sources.

    **Raises:** `ValueError` if shapes differ or there are more matches than sources.
    """
    rank, matched = np.asarray(rank, float), np.asarray(matched, bool)
    if rank.shape != matched.shape or rank.ndim != 1:
        raise ValueError(
            f"`rank` and `matched` need one shape (found,); got {rank.shape}, {matched.shape}."
        )
    if matched.sum() > n_truth:
        raise ValueError(f"`matched` has {matched.sum()} matches for {n_truth} sources.")
    rank = np.where(np.isfinite(rank), rank, -np.inf)
    order = np.argsort(-rank, kind="stable")
    rank = rank[order]
    last = np.append(rank[1:] != rank[:-1], True)[: len(rank)]
    pairs, found = np.cumsum(matched[order])[last], np.flatnonzero(last) + 1
    return pairs / found, pairs / n_truth if n_truth else np.ones(len(found))


def average_precision(precision: ArrayLike, recall: ArrayLike) -> float:
    """Area below the curve of precision against recall.

    The sum of precision times the gain in recall, from recall 0 on, thresholds falling; recall that
    no threshold reaches adds nothing. 0 of no detection.

    - `precision`, `recall`: of each threshold, or of each setting of a detector; in any order.

    **Raises:** `ValueError` if shapes differ or values are not between 0 and 1.

    ??? cite
        Zhu (2004), Recall, Precision and Average Precision, Univ. of Waterloo.
    """
    p, r = np.asarray(precision, float), np.asarray(recall, float)
    if p.shape != r.shape or p.ndim != 1:
        raise ValueError(
            f"`precision` and `recall` need one shape (threshold,); got {p.shape}, {r.shape}."
        )
    for name, values in (("precision", p), ("recall", r)):
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError(f"`{name}` must be between 0 and 1; got {values}.")
    # Of settings with the same recall the first, and only it, counts: the most precise.
    order = np.lexsort((-p, r))
    return float(np.sum(p[order] * np.diff(r[order], prepend=0.0)))
