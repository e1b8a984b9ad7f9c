"""Mixtures of normal densities: values, draws, and parts of them."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from diffdeblend.fourier import EXACT


class GaussianMixture(eqx.Module):
    r"""A density $\sum_k w_k N(x; \mu_k, \Sigma_k)$; made by `gaussian_mixture`.

    - `log_weights`: logarithms of weights of unit sum, `(k,)`.
    - `means`: `(k, d)`.
    - `whitening`: lower triangular, `(k, d, d)`: what makes a component's spread round and of unit
        width. Its square, `whitening.T @ whitening`, is the inverse of the covariance.
    """

    log_weights: Float[Array, "k"]
    means: Float[Array, "k d"]
    whitening: Float[Array, "k d d"]

    def __check_init__(self):
        w, m, c = (np.shape(v) for v in (self.log_weights, self.means, self.whitening))
        if len(m) != 2 or w != m[:1] or c != (*m, m[1]):
            raise ValueError(
                "`log_weights`, `means` and `whitening` need shapes (k,), (k, d) and (k, d, d); "
                f"got {w}, {m} and {c}."
            )

    @property
    def n_components(self) -> int:
        """Number of components."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of dimensions."""
        return self.means.shape[1]

    @property
    def precisions(self) -> Float[Array, "k d d"]:
        """Inverse covariances."""
        return jnp.einsum("kij,kil->kjl", self.whitening, self.whitening, precision=EXACT)

    @property
    def covariances(self) -> Float[Array, "k d d"]:
        """Covariances of the components."""
        root = self._roots()
        return jnp.einsum("kij,klj->kil", root, root, precision=EXACT)

    def log_components(
        self, x: Float[Array, "d"], temperature: ArrayLike = 1.0
    ) -> Float[Array, "k"]:
        """Logarithm of each weighted component at a point; their `logsumexp` is `log_prob`."""
        heat = jnp.asarray(temperature, self.means.dtype)
        white = jnp.einsum("kij,kj->ki", self.whitening, x - self.means, precision=EXACT)
        volume = jnp.sum(jnp.log(jnp.diagonal(self.whitening, axis1=1, axis2=2)), axis=1)
        normal = volume - 0.5 * self.n_features * jnp.log(2 * np.pi * heat)
        return self.log_weights + normal - 0.5 * jnp.sum(white**2, axis=1) / heat

    def log_prob(self, x: Float[Array, "d"], temperature: ArrayLike = 1.0) -> Float[Array, ""]:
        """Logarithm of the density at a point: finite wherever the point is.

        - `temperature`: factor on the covariances of all components; the density stays normalised.
        """
        return jax.scipy.special.logsumexp(self.log_components(x, temperature))

    def sample(
        self, key: PRNGKeyArray, n: int, temperature: ArrayLike = 1.0
    ) -> Float[Array, "n d"]:
        """Draws; pure, jit with `n` static."""
        which, spread = jax.random.split(key)
        component = jax.random.categorical(which, self.log_weights, shape=(n,))
        normal = jax.random.normal(spread, (n, self.n_features), self.means.dtype)
        root = self._roots()[component] * jnp.sqrt(jnp.asarray(temperature, self.means.dtype))
        return self.means[component] + jnp.einsum("nij,nj->ni", root, normal, precision=EXACT)

    def marginal(self, columns: Sequence[int] | Int[np.ndarray, "m"]) -> "GaussianMixture":
        """The density of some of the dimensions, in their order. Host side."""
        keep = np.asarray(columns, dtype=int)
        moments = _moments(self)
        return gaussian_mixture(
            np.exp(moments[0]), moments[1][:, keep], moments[2][:, keep][:, :, keep]
        )

    def given(
        self, columns: Sequence[int], values: Sequence[float] | Float[np.ndarray, "m"]
    ) -> "GaussianMixture":
        """The density of the other dimensions where these have some values. Host side.

        A mixture again: each component conditioned, and weighed by how likely it made the values.
        """
        known = np.asarray(columns, dtype=int)
        kept = np.setdiff1d(np.arange(self.n_features), known)
        log_weights, means, covariances = _moments(self)
        away = np.asarray(values, dtype=float) - means[:, known]
        of_known = covariances[:, known][:, :, known]
        cross = covariances[:, kept][:, :, known]
        gain = np.swapaxes(np.linalg.solve(of_known, np.swapaxes(cross, 1, 2)), 1, 2)
        squared = np.einsum("ki,ki->k", away, np.linalg.solve(of_known, away[..., None])[..., 0])
        likely = log_weights - 0.5 * (squared + np.linalg.slogdet(of_known)[1])
        weights = np.exp(likely - likely.max())
        left = covariances[:, kept][:, :, kept] - gain @ np.swapaxes(cross, 1, 2)
        return gaussian_mixture(
            weights / weights.sum(),
            means[:, kept] + np.einsum("kij,kj->ki", gain, away),
            left,
        )

    def _roots(self) -> Float[Array, "k d d"]:
        """Lower roots of the covariances."""
        one = jnp.broadcast_to(jnp.eye(self.n_features), self.whitening.shape)
        return jax.lax.linalg.triangular_solve(
            self.whitening, one.astype(self.whitening.dtype), left_side=True, lower=True
        )


def gaussian_mixture(
    weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
) -> GaussianMixture:
    """A mixture from weights `(k,)`, means `(k, d)` and covariances `(k, d, d)`. Host side.

    **Raises:** `ValueError` for shapes that do not belong together, weights that are negative or do
    not sum to 1, or covariances that are not positive definite.
    """
    w, m, c = (np.asarray(v, dtype=float) for v in (weights, means, covariances))
    if w.ndim != 1 or m.ndim != 2 or len(m) != len(w) or c.shape != (*m.shape, m.shape[1]):
        raise ValueError(
            "`weights`, `means` and `covariances` need shapes (k,), (k, d) and (k, d, d); got "
            f"{w.shape}, {m.shape} and {c.shape}."
        )
    if not (w >= 0).all() or not abs(w.sum() - 1) < 1e-6:
        raise ValueError(f"`weights` must be at least 0 with a sum of 1; got {w}.")
    if not np.isfinite(m).all():
        raise ValueError(f"`means` must be finite; got {m}.")
    try:
        root = np.linalg.cholesky(0.5 * (c + np.swapaxes(c, 1, 2)))
    except np.linalg.LinAlgError as error:
        raise ValueError("`covariances` must be positive definite; some are not.") from error
    one = np.broadcast_to(np.eye(m.shape[1]), c.shape)
    dtype = jnp.result_type(float)
    # A weight of 0 would have a logarithm whose gradient is NaN.
    log_weights = np.log(np.maximum(w, 1e-30))
    return GaussianMixture(
        jnp.asarray(log_weights, dtype),
        jnp.asarray(m, dtype),
        jnp.asarray(np.tril(np.linalg.solve(root, one)), dtype),
    )


def _moments(mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-weights, means and covariances in double precision."""
    white = np.asarray(mixture.whitening, dtype=float)
    root = np.linalg.inv(white)
    log_weights = np.asarray(mixture.log_weights, dtype=float)
    log_weights = log_weights - np.log(np.exp(log_weights).sum())
    return log_weights, np.asarray(mixture.means, dtype=float), root @ np.swapaxes(root, 1, 2)
