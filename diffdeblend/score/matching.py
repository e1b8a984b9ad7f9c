"""Which detection is which source."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

# From coordinates of sources, `(truth, 2)`, and of detections, `(found, 2)`, to `(truth, found)`.
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Leaving a pair out costs a trifle more than the limit, so that a pair just at the limit is kept.
_JUST_ABOVE = 1 + 1e-9


@dataclass(frozen=True, eq=False)
class Matching:
    """The pairs of sources and detections of one blend.

    - `truth_index`, `found_index`: of each pair, its row among the sources and that among the
        detections; aligned, in the order of the sources, no row twice.
    - `distance`: of each pair, in the unit of the coordinates.
    - `n_truth`, `n_found`: number of sources and of detections, matched or not.

    **Raises:** `ValueError` if the arrays do not belong together.
    """

    truth_index: Int[np.ndarray, "match"]
    found_index: Int[np.ndarray, "match"]
    distance: Float[np.ndarray, "match"]
    n_truth: int
    n_found: int

    def __post_init__(self):
        lengths = len(self.truth_index), len(self.found_index), len(self.distance)
        if len(set(lengths)) > 1:
            raise ValueError(
                "`truth_index`, `found_index` and `distance` need one length; got "
                f"{lengths[0]}, {lengths[1]}, {lengths[2]}."
            )
        for name, index, n in (
            ("truth_index", self.truth_index, self.n_truth),
            ("found_index", self.found_index, self.n_found),
        ):
            if len(index) and not (min(index) >= 0 and max(index) < n):
                raise ValueError(f"`{name}` needs rows from 0 to {n - 1}; got {list(index)}.")
            if len(set(np.asarray(index).tolist())) < len(index):
                raise ValueError(f"`{name}` must not name a row twice; got {list(index)}.")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.truth_index)

    @property
    def found_of_truth(self) -> Int[np.ndarray, "truth"]:
        """The detection of each source, -1 where it was not found."""
        row = np.full(self.n_truth, -1)
        row[self.truth_index] = self.found_index
        return row

    @property
    def truth_of_found(self) -> Int[np.ndarray, "found"]:
        """The source of each detection, -1 where there is none."""
        row = np.full(self.n_found, -1)
        row[self.found_index] = self.truth_index
        return row

    def judging(
        self, truth: Bool[np.ndarray, "truth"], found: Bool[np.ndarray, "found"] | None = None
    ) -> tuple[int, int, int]:
        """How many pairs, detections and sources there are if only some sources count.

        A detection of a source that does not count is neither right nor wrong, and is left out.

        - `truth`: which sources count. `found`: which detections do; all if None.

        **Raises:** `ValueError` if a mask has another length.
        """
        if found is None:
            found = np.ones(self.n_found, bool)
        for name, mask, n in (("truth", truth, self.n_truth), ("found", found, self.n_found)):
            if np.shape(mask) != (n,):
                raise ValueError(f"`{name}` needs shape ({n},); got {np.shape(mask)}.")
        counts = truth[self.truth_index]
        pairs = int(np.sum(counts & found[self.found_index]))
        ignored = int(np.sum(~counts & found[self.found_index]))
        return pairs, int(np.sum(found)) - ignored, int(np.sum(truth))


def match(
    truth: Float[np.ndarray, "truth 2"],
    found: Float[np.ndarray, "found 2"],
    max_distance: float = 5.0,
    distance: Distance | None = None,
) -> Matching:
    """The pairs within a distance that together are nearest.

    Pairs farther apart than `max_distance` are out before anything is assigned; assigned first and
    cut afterwards, a far detection can take a source from the near one, and both are lost. What is
    left over costs as much as a pair at the limit, so that no source is given a farther detection
    only to make the number of pairs larger.

    - `truth`, `found`: coordinates; pixels unless `distance` takes others. A detection with a
        coordinate that is not finite is near nothing.
    - `max_distance`: the limit, itself within.
    - `distance`: function of both that returns shape `(truth, found)`; None is `euclidean`. With
        `sky_distance` coordinates are (ra, dec) in degrees and the limit is in arcsec.

    **Raises:** `ValueError` for another shape or a limit that is not positive.

    ??? cite
        Assignment: Crouse (2016), IEEE Trans. Aerosp. Electron. Syst. 52, 1679, by SciPy.
    """
    truth, found = _coordinates("truth", truth), _coordinates("found", found)
    if not max_distance > 0:
        raise ValueError(f"`max_distance` must be positive; got {max_distance}.")
    apart = np.asarray((distance or euclidean)(truth, found), float)
    if apart.shape != (len(truth), len(found)):
        raise ValueError(
            f"`distance` must return shape {(len(truth), len(found))}, (truth, found); "
            f"got {apart.shape}."
        )
    # False for NaN.
    allowed = apart <= max_distance
    rows, columns = linear_sum_assignment(np.where(allowed, apart, _JUST_ABOVE * max_distance))
    kept = allowed[rows, columns]
    rows, columns = rows[kept], columns[kept]
    return Matching(rows, columns, apart[rows, columns], len(truth), len(found))


def match_rows(
    truth: Float[np.ndarray, "truth 2"], found: Float[np.ndarray, "found 2"]
) -> Matching:
    """Row for row, for a code that was told the sources and answers in their order.

    A row with a coordinate that is not finite is not found; an empty `found`, of a code that
    failed, has found nothing.

    **Raises:** `ValueError` for another shape, or another number of rows.
    """
    truth, found = _coordinates("truth", truth), _coordinates("found", found)
    if len(found) not in (0, len(truth)):
        raise ValueError(
            f"`found` needs {len(truth)} rows, one for each source, or none; got {len(found)}."
        )
    rows = np.flatnonzero(np.isfinite(found).all(axis=1))
    apart = np.hypot(*(truth[rows] - found[rows]).T)
    return Matching(rows, rows, apart, len(truth), len(found))


def euclidean(
    truth: Float[np.ndarray, "truth 2"], found: Float[np.ndarray, "found 2"]
) -> Float[np.ndarray, "truth found"]:
    """Straight distances, in the unit of the coordinates."""
    return np.hypot(*(truth[:, None] - found[None]).transpose(2, 0, 1))


def sky_distance(
    truth: Float[np.ndarray, "truth 2"], found: Float[np.ndarray, "found 2"]
) -> Float[np.ndarray, "truth found"]:
    """Distances on the sky in arcsec, of (ra, dec) in degrees.

    The haversine formula, which is exact enough down to nothing (Sinnott 1984, Sky & Telescope 68,
    158).
    """
    (ra, dec), (ra_found, dec_found) = np.radians(truth).T, np.radians(found).T
    along = np.sin((dec_found[None] - dec[:, None]) / 2) ** 2
    across = np.sin((ra_found[None] - ra[:, None]) / 2) ** 2
    both = along + across * np.cos(dec)[:, None] * np.cos(dec_found)[None]
    return np.degrees(2 * np.arcsin(np.minimum(np.sqrt(both), 1))) * 3600


def nearest_neighbour(truth: Float[np.ndarray, "truth 2"]) -> Float[np.ndarray, "truth"]:
    """Distance of each source to the nearest other; infinite for one that is alone.

    **Raises:** `ValueError` for another shape.
    """
    truth = _coordinates("truth", truth)
    apart = euclidean(truth, truth)
    np.fill_diagonal(apart, np.inf)
    return apart.min(axis=1, initial=np.inf)


def _coordinates(name: str, values: np.ndarray) -> np.ndarray:
    """The same as an array of floats."""
    values = np.asarray(values, float)
    # An empty list has no second axis.
    if values.size == 0:
        return values.reshape(0, 2)
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"`{name}` needs shape (n, 2); got {values.shape}.")
    return values
