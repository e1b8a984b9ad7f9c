"""Mixtures of normal densities learnt from points, with errors or without: EM. Host side, numpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float

from diffdeblend.priors.mixture import GaussianMixture, gaussian_mixture

# Points that are looked at together: bounds the memory.
_CHUNK = 20000


@dataclass(frozen=True)
class MixtureSettings:
    """How a mixture is learnt.

    - `n_components`: how many; of several, the one with the least held-out loss.
    - `isotropic`: pairs of columns that are the two parts of a vector without a preferred
        direction: their means are 0 and their covariance is round and apart from all else.
    - `starts`: how many starts are tried, by seed; the best one goes on.
    - `floor`: least standard deviation in any direction, in units of that of the points.
    - `outliers`: weight of one more, wide component around all, which makes tails heavy.
    - `held_out`: share of the points that tells how many components there are, and the loss.
    - `tolerance`: EM stops when the mean log-likelihood gains less in a step.
    - `max_steps`: of EM.
    - `seed`: of the starts and of what is held out.

    **Raises:** `ValueError` for values out of range.
    """

    n_components: int | tuple[int, ...] = (1, 2, 4, 8)
    isotropic: tuple[tuple[int, int], ...] = ()
    starts: int = 3
    floor: float = 0.05
    outliers: float = 0.0
    held_out: float = 0.2
    tolerance: float = 1e-5
    max_steps: int = 300
    seed: int = 0

    def __post_init__(self):
        counts = self.counts
        if not counts or min(counts) < 1:
            raise ValueError(f"`n_components` must be at least 1; got {self.n_components}.")
        for name, good, needed in (
            ("starts", self.starts >= 1, "at least 1"),
            ("floor", 0 < self.floor < 1, "between 0 and 1"),
            ("outliers", 0 <= self.outliers < 1, "at least 0 and below 1"),
            ("held_out", 0 < self.held_out < 1, "between 0 and 1"),
            ("tolerance", self.tolerance > 0, "positive"),
            ("max_steps", self.max_steps >= 1, "at least 1"),
        ):
            if not good:
                raise ValueError(f"`{name}` must be {needed}; got {getattr(self, name)}.")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of components that are tried."""
        given = self.n_components
        return (given,) if isinstance(given, int) else tuple(given)


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """A learnt mixture.

    - `mixture`: of the points without their errors.
    - `losses`: for each number of components tried, minus the mean log-likelihood of the points
        held out (by a mixture of the others), each seen with its own errors.
    - `loss`: minus the mean log-likelihood of all points at the end.
    - `bic`: for each, the Bayesian information criterion on the points learnt from.
    - `history`: mean log-likelihood after each step of the last EM, which takes all points.
    - `converged`: whether that ended by `tolerance`.
    """

    mixture: GaussianMixture
    losses: dict[int, float]
    loss: float
    bic: dict[int, float]
    history: Float[np.ndarray, "step"]
    converged: bool


def fit_mixture(
    points: ArrayLike,
    *,
    errors: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    settings: MixtureSettings | None = None,
) -> MixtureFit:
    """Learn the density that points were drawn from, before errors were added to them.

    - `points`: `(n, d)`.
    - `errors`: standard deviations `(n, d)` or covariances `(n, d, d)` of the errors of each point,
        which are taken out of the density (extreme deconvolution); None for none.
    - `weights`: how much each point counts, `(n,)`.

    Deterministic in `settings.seed`.

    **Raises:** `ValueError` for shapes that do not fit, values that are not finite, errors that are
    negative, or fewer points than 10 for each component.

    ??? cite
        Dempster, Laird & Rubin (1977), JRSS B 39, 1; with errors: Bovy, Hogg & Roweis (2011), AOAS
        5, 1657, eq. 16. Starts: Arthur & Vassilvitskii (2007), k-means++.
    """
    settings = MixtureSettings() if settings is None else settings
    x, own, share = _checked(points, errors, weights)
    n, d = x.shape
    if n < 10 * max(settings.counts):
        raise ValueError(
            f"`points` needs at least 10 a component, {10 * max(settings.counts)}; got {n}."
        )
    scale = _scales(x, share, settings.isotropic)
    x, own = x / scale, None if own is None else own / (scale[:, None] * scale)
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(n)
    out = np.zeros(n, bool)
    out[order[: max(1, round(settings.held_out * n))]] = True
    learn = _Learn(settings)
    losses, bic, tried = {}, {}, {}
    for k in settings.counts:
        found = learn.best(_part(x, own, share, ~out), k, rng)
        tried[k] = found
        # In units of the points, not of their standard deviations.
        unit = np.log(scale).sum()
        losses[k] = unit - _mean_log(_part(x, own, share, out), found)
        likely = _mean_log(_part(x, own, share, ~out), found) - unit
        m = int((~out).sum())
        bic[k] = -2 * m * likely + learn.n_free(k, d) * np.log(m)
    chosen = min(losses, key=lambda k: losses[k])
    found, history, converged = learn.em((x, own, share), tried[chosen])
    w, means, covariances = found
    mixture = gaussian_mixture(w, means * scale, covariances * (scale[:, None] * scale))
    loss = np.log(scale).sum() - history[-1]
    return MixtureFit(mixture, losses, loss, bic, history - np.log(scale).sum(), converged)


_Points = tuple[np.ndarray, np.ndarray | None, np.ndarray]
_Model = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Learn:
    """EM with the constraints of some settings; points are in units of their spread."""

    def __init__(self, settings: MixtureSettings):
        self.settings = settings

    def best(self, data: _Points, k: int, rng: np.random.Generator) -> _Model:
        """The best of some starts, each given a few steps, led to its end."""
        trials = [
            self.em(data, self._start(data, k, rng), most=20) for _ in range(self.settings.starts)
        ]
        return self.em(data, max(trials, key=lambda trial: trial[1][-1])[0])[0]

    def em(
        self, data: _Points, model: _Model, most: int | None = None
    ) -> tuple[_Model, np.ndarray, bool]:
        """Expectation and maximisation in turn; the mean log-likelihood never falls."""
        history: list[float] = []
        most = self.settings.max_steps if most is None else most
        for _ in range(most):
            new, value = self._step(data, model)
            gain = value - history[-1] if history else np.inf
            history.append(value)
            if gain < self.settings.tolerance:
                return model, np.array(history), True
            model = new
        return model, np.array(history), False

    def n_free(self, k: int, d: int) -> int:
        """Free numbers of a mixture."""
        pairs = len(self.settings.isotropic)
        rest = d - 2 * pairs
        return k - 1 + k * (rest + rest * (rest + 1) // 2 + pairs)

    def _step(self, data: _Points, model: _Model) -> tuple[_Model, float]:
        """One step, and the mean log-likelihood before it."""
        _, means, covariances = model
        k, d = means.shape
        count, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
        total = 0.0
        for x, own, share in _chunks(data):
            logs, better, left = _expect(x, own, model)
            top = logs.max(axis=1, keepdims=True)
            likely = np.exp(logs - top)
            norm = likely.sum(axis=1)
            total += share @ (top[:, 0] + np.log(norm))
            r = likely / norm[:, None] * share[:, None]
            count += r.sum(axis=0)
            # About the old means: differences of large numbers would lose digits.
            first += np.einsum("nk,nki->ki", r, better)
            second += np.einsum("nk,nki,nkj->kij", r, better, better, optimize=True)
            if left is not None:
                second += np.einsum("nk,nkij->kij", r, left)
        safe = np.maximum(count, 1e-12)[:, None]
        shift = first / safe
        moved = means + shift
        spread = second / safe[:, :, None] - shift[:, :, None] * shift[:, None, :]
        moved, spread = self._constrained(moved, spread)
        # The wide component stays as it is; the others share what it leaves.
        if self.settings.outliers:
            moved[-1], spread[-1] = means[-1], covariances[-1]
            rest = count[:-1] / max(count[:-1].sum(), 1e-12)
            count = np.append((1 - self.settings.outliers) * rest, self.settings.outliers)
        # What nothing belongs to stays where it was, without weight.
        gone = count < 1e-9
        moved[gone], spread[gone] = means[gone], covariances[gone]
        return (count / count.sum(), moved, spread), total

    def _constrained(self, means: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most likely moments that keep to the isotropic pairs and the floor."""
        means, spread = means.copy(), spread.copy()
        for pair in self.settings.isotropic:
            at = np.array(pair)
            # The mean is held at 0, so its square belongs to the spread.
            square = np.einsum("kii->k", spread[:, at][:, :, at]) + (means[:, at] ** 2).sum(axis=1)
            spread[:, at, :], spread[:, :, at] = 0, 0
            spread[:, at, at] = square[:, None] / 2
            means[:, at] = 0
        values, vectors = np.linalg.eigh(0.5 * (spread + np.swapaxes(spread, 1, 2)))
        values = np.maximum(values, self.settings.floor**2)
        return means, np.einsum("kij,kj,klj->kil", vectors, values, vectors)

    def _start(self, data: _Points, k: int, rng: np.random.Generator) -> _Model:
        """Points far from each other as means, and what is nearest to each as its spread."""
        x, _, share = data
        n, d = x.shape
        few = x if n <= _CHUNK else x[rng.choice(n, _CHUNK, replace=False)]
        places = [few[rng.integers(len(few))]]
        for _ in range(k - 1):
            squared = np.min([((few - p) ** 2).sum(axis=1) for p in places], axis=0)
            total = squared.sum()
            chance = squared / total if total > 0 else None
            places.append(few[rng.choice(len(few), p=chance)])
        means = np.array(places)
        for _ in range(5):
            near = np.argmin(((few[:, None] - means) ** 2).sum(axis=2), axis=1)
            means = np.array(
                [few[near == i].mean(axis=0) if (near == i).any() else means[i] for i in range(k)]
            )
        near = np.argmin(((few[:, None] - means) ** 2).sum(axis=2), axis=1)
        w = np.maximum(np.bincount(near, minlength=k), 1) / len(few)
        spread = np.zeros((k, d, d))
        for i in range(k):
            away = few[near == i] - means[i]
            spread[i] = away.T @ away / max(len(away), 1) + 0.1 * np.eye(d)
        means, spread = self._constrained(means, spread)
        if self.settings.isotropic:
            # Isotropic parts begin with different widths, or they could never part.
            for pair in self.settings.isotropic:
                at = np.array(pair)
                spread[:, at, at] *= np.exp(rng.uniform(-1, 1, (k, 1)))
        w = w / w.sum()
        if not self.settings.outliers:
            return w, means, spread
        middle = share @ x / share.sum()
        away = x - middle
        wide, whole = self._constrained(
            middle[None], np.einsum("n,ni,nj->ij", share / share.sum(), away, away)[None]
        )
        a = self.settings.outliers
        return (
            np.append((1 - a) * w, a),
            np.concatenate([means, wide]),
            np.concatenate([spread, 9 * whole]),
        )


def _expect(
    x: np.ndarray, own: np.ndarray | None, model: _Model
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Log of each weighted component, `(n, k)`; the expected true point less the mean, `(n, k, d)`;
    and its covariance, `(n, k, d, d)`, None where points are known."""
    w, means, covariances = model
    d = means.shape[1]
    away = x[:, None] - means
    seen = covariances if own is None else covariances + own[:, None]
    root = np.linalg.cholesky(seen)
    volume = 2 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)
    if own is None:
        inverse = np.linalg.inv(root)
        white = np.einsum("kij,nkj->nki", inverse, away)
    else:
        white = np.linalg.solve(root, away[..., None])[..., 0]
    logs = (
        np.log(np.maximum(w, 1e-300))
        - 0.5 * (volume + d * np.log(2 * np.pi))
        - 0.5 * (white**2).sum(axis=2)
    )
    if own is None:
        return logs, away, None
    gain = np.swapaxes(np.linalg.solve(seen, np.broadcast_to(covariances, seen.shape)), 2, 3)
    better = np.einsum("nkij,nkj->nki", gain, away)
    return logs, better, covariances - gain @ covariances


def _mean_log(data: _Points, model: _Model) -> float:
    """Mean log-likelihood of points, each with its own errors."""
    total = whole = 0.0
    for x, own, share in _chunks(data):
        logs = _expect(x, own, model)[0]
        top = logs.max(axis=1)
        total += share @ (top + np.log(np.exp(logs - top[:, None]).sum(axis=1)))
        whole += share.sum()
    return total / whole


def _chunks(data: _Points) -> Iterator[_Points]:
    x, own, share = data
    # With errors each point has matrices of its own for each component.
    step = _CHUNK if own is None else _CHUNK // 10
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        yield x[part], None if own is None else own[part], share[part]


def _part(x: np.ndarray, own: np.ndarray | None, share: np.ndarray, which: np.ndarray) -> _Points:
    kept = share[which]
    return x[which], None if own is None else own[which], kept / kept.sum()


def _scales(
    x: np.ndarray, share: np.ndarray, isotropic: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "d"]:
    """Spread of each column; one for both of an isotropic pair."""
    variance = share @ (x - share @ x) ** 2
    for pair in isotropic:
        variance[list(pair)] = (share @ x[:, list(pair)] ** 2).mean()
    return np.where(variance > 0, np.sqrt(np.maximum(variance, 1e-300)), 1.0)


def _checked(
    points: ArrayLike, errors: ArrayLike | None, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    x = np.asarray(points, dtype=float)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"`points` needs finite numbers of shape (n, d); got {x.shape}.")
    n, d = x.shape
    own = None
    if errors is not None:
        own = np.asarray(errors, dtype=float)
        if own.shape == (n, d) and (own >= 0).all():
            own = own[:, :, None] ** 2 * np.eye(d)
        if own.shape != (n, d, d) or not np.isfinite(own).all():
            raise ValueError(
                f"`errors` needs finite numbers, at least 0, of shape {(n, d)}, or covariances "
                f"{(n, d, d)}; got {np.shape(errors)}."
            )
        if np.linalg.eigvalsh(own).min() < -1e-9 * np.abs(own).max():
            raise ValueError("`errors` has covariances that are not positive.")
    share = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    if share.shape != (n,) or not (share >= 0).all() or not 0 < share.sum() < np.inf:
        raise ValueError(f"`weights` needs {n} numbers that are at least 0; got {share.shape}.")
    return x, own, share / share.sum()
