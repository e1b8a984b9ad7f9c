"""How sure a score is: blends drawn again, with replacement.

Sources of one blend share their noise and their neighbours, so whole blends are drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from diffdeblend.simulate.keys import DEFAULT_SEED, stream

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Sets of blends drawn again: the same for every figure, so that figures can be compared.

    - `n_blends`: number of blends.
    - `draws`: number of sets.
    - `confidence`: share of the sets within an interval.
    - `seed`: of the draws.
    - `times`: how often each set has each blend, shape `(draw, blend)`; made here.

    **Raises:** `ValueError` for numbers that make no sense.
    """

    n_blends: int
    draws: int = 200
    confidence: float = 0.6826894921
    seed: int = DEFAULT_SEED
    times: Int[np.ndarray, "draw blend"] = field(init=False, repr=False)

    def __post_init__(self):
        if self.n_blends < 0 or self.draws < 0:
            raise ValueError(
                f"`n_blends` and `draws` must be at least 0; got {self.n_blends}, {self.draws}."
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"`confidence` must be between 0 and 1; got {self.confidence}.")
        rng = stream(self.seed, "bootstrap")
        drawn = rng.integers(max(self.n_blends, 1), size=(self.draws, self.n_blends))
        drawn += self.n_blends * np.arange(self.draws)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=self.draws * self.n_blends)
        object.__setattr__(self, "times", counts.reshape(self.draws, self.n_blends))

    def interval(self, values: ArrayLike) -> Interval:
        """The central interval of a figure, one value a draw; NaN if it is nowhere finite."""
        values = np.asarray(values, float)
        values = values[np.isfinite(values)]
        if not values.size:
            return float("nan"), float("nan")
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)

    def ratio(self, above: ArrayLike, below: ArrayLike) -> Interval:
        """Of the ratio of two sums over blends, such as recall; each has shape `(blend,)`.

        A draw in which the sum below is 0 is left out.

        **Raises:** `ValueError` for another shape.
        """
        a, b = np.asarray(above, float), np.asarray(below, float)
        if a.shape != (self.n_blends,) or b.shape != (self.n_blends,):
            raise ValueError(
                f"`above` and `below` need shape ({self.n_blends},); got {a.shape}, {b.shape}."
            )
        a, b = self.times @ a, self.times @ b
        return self.interval(np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0))

    def mean(self, values: ArrayLike, blend: ArrayLike) -> Interval:
        """Of the mean of values, with the blend that each is in. What is not finite is left out."""
        v, b = self._rows(values, blend)
        sums = np.bincount(b, weights=v, minlength=self.n_blends)
        return self.ratio(sums, np.bincount(b, minlength=self.n_blends))

    def quantiles(
        self, values: ArrayLike, blend: ArrayLike, q: ArrayLike
    ) -> Float[np.ndarray, "quantile draw"]:
        """Quantiles of the values of each draw, as `numpy.quantile` has them, all draws at once.

        What is not finite is left out; NaN for a draw without values.

        - `values`: one a source. `blend`: the blend that each is in, from 0. `q`: quantiles.

        **Raises:** `ValueError` if the shapes differ or a blend does not exist.
        """
        v, b = self._rows(values, blend)
        q = np.atleast_1d(np.asarray(q, float))
        order = np.argsort(v, kind="stable")
        v, below = v[order], np.cumsum(self.times[:, b[order]], axis=1)
        found = np.full((len(q), self.draws), np.nan)
        if not v.size or not self.draws:
            return found
        n = below[:, -1]
        some = n > 0
        # All draws behind each other, so that one search serves them all.
        ahead = (n.max() + 1) * np.arange(self.draws)
        below = (below + ahead[:, None]).ravel()
        row_start = v.size * np.arange(self.draws)

        def in_order(k: np.ndarray) -> np.ndarray:
            # Of the values in order, repeated ones included, the one at place k.
            at = np.searchsorted(below, ahead + k, side="right") - row_start
            return v[np.minimum(at, v.size - 1)]

        for row, place in zip(found, q[:, None] * (n - 1), strict=True):
            first = np.floor(np.maximum(place, 0)).astype(int)
            after = in_order(np.minimum(first + 1, np.maximum(n - 1, 0)))
            at = in_order(first)
            row[some] = (at + (place - first) * (after - at))[some]
        return found

    def quantile(self, values: ArrayLike, blend: ArrayLike, q: float = 0.5) -> Interval:
        """Of a quantile, the median if not told; see `quantiles`."""
        return self.interval(self.quantiles(values, blend, q)[0])

    def scatter(self, values: ArrayLike, blend: ArrayLike) -> Interval:
        """Of half the distance from the 16th to the 84th percentile; see `quantiles`."""
        low, high = self.quantiles(values, blend, [0.16, 0.84])
        return self.interval((high - low) / 2)

    def median_ratio(self, first: ArrayLike, second: ArrayLike, blend: ArrayLike) -> Interval:
        """Of the ratio of two medians, `first` over `second`, of the same sources by two codes.

        Each draw takes the same blends for both, so that how hard they are cancels. Sources for
        which one is not finite are left out of both.

        **Raises:** `ValueError` if the shapes differ.
        """
        a, b = np.asarray(first, float), np.asarray(second, float)
        if a.shape != b.shape:
            raise ValueError(f"`second` needs the shape of `first`, {a.shape}; got {b.shape}.")
        both = np.isfinite(a) & np.isfinite(b)
        above, below = (
            self.quantiles(np.where(both, values, np.nan), blend, 0.5)[0] for values in (a, b)
        )
        return self.interval(
            np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
        )

    def statistic(
        self, function: Callable[[Int[np.ndarray, "drawn"]], float], blend: ArrayLike
    ) -> Interval:
        """Of any figure: a function of row numbers, in which rows of a blend may occur again.

        Slower than the others: the function is called once a draw.
        """
        b = self._rows(np.zeros(np.shape(blend)), blend)[1]
        return self.interval([function(np.repeat(np.arange(len(b)), t[b])) for t in self.times])

    def _rows(self, values: ArrayLike, blend: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """What is finite, and its blends."""
        v, b = np.asarray(values, float), np.asarray(blend)
        if v.ndim != 1 or v.shape != b.shape:
            raise ValueError(f"`blend` needs one entry a value, shape {v.shape}; got {b.shape}.")
        if b.size and (b.dtype.kind not in "iu" or b.min() < 0 or b.max() >= self.n_blends):
            raise ValueError(f"`blend` needs integers from 0 to {self.n_blends - 1}; got {b}.")
        finite = np.isfinite(v)
        return v[finite], b[finite].astype(int)
