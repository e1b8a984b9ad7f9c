"""The whole posterior of one blend by Hamiltonian Monte Carlo, begun from its fit."""

from importlib import import_module
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffdeblend.exposure import Exposure
from diffdeblend.fit.fit import Fit
from diffdeblend.fit.laplace import problem_of, scenes_of, whitened
from diffdeblend.fit.objective import Problem, objective
from diffdeblend.fit.prior import Prior
from diffdeblend.grid import FIT, Quality
from diffdeblend.scene import Scene


class Posterior(eqx.Module):
    """Samples of a posterior, and whether to believe them.

    - `scenes`: with a leading axis of samples, chain after chain, as those of `samples`.
    - `divergences`: samples of each chain whose path went astray, `(chain,)`; none is good.
    - `acceptance`: mean probability of acceptance of each chain, `(chain,)`; about 0.8 is good.
    - `effective_size`: number of independent samples that all chains are worth for the number that
        mixes worst.
    - `r_hat`: ratio of the scatter between chains and within them for the worst number; below 1.01
        is good.
    """

    scenes: Scene
    divergences: Int[Array, "chain"]
    acceptance: Float[Array, "chain"]
    effective_size: Float[Array, ""]
    r_hat: Float[Array, ""]


def sample_posterior(
    found: Fit,
    exposure: Exposure,
    prior: Prior | None,
    key: PRNGKeyArray,
    n: int = 500,
    *,
    warmup: int = 200,
    chains: int = 4,
    quality: Quality = FIT,
) -> Posterior:
    """Samples of the posterior of a blend by the No-U-Turn sampler of blackjax.

    Needs `pip install 'diffdeblend[sample]'`. The objective is that of the fit, with its sign
    turned, as a log-probability of the mapped variables; these are measured in units of the fit's
    covariance, so that a chain mixes within a few steps. Each chain begins at a sample of it.

    - `exposure`, `prior`, `quality`: those of the fit. The default prior of a fit is
        `shape_prior(start)`.
    - `n`: samples of each chain; `warmup`: steps before them, which set the length of a step.

    **Raises:** `ImportError` without blackjax; `ValueError` for fewer than 2 chains or 4 samples,
    or if the noise of `exposure` is correlated.

    ??? cite
        Hoffman & Gelman (2014), JMLR 15, 1593; Cabezas et al. (2024), arXiv:2402.10797.
    """
    if n < 4 or chains < 2:
        raise ValueError(f"`n` must be at least 4 and `chains` at least 2; got {n} and {chains}.")
    problem = problem_of(found, exposure, prior, quality)
    try:
        blackjax = import_module("blackjax")
    except ImportError as error:
        raise ImportError(
            "`sample_posterior` needs blackjax: pip install 'diffdeblend[sample]'"
        ) from error
    return _run(blackjax, found, problem, key, n, warmup, chains)


@eqx.filter_jit
def _run(
    blackjax: Any, found: Fit, problem: Problem, key: PRNGKeyArray, n: int, warmup: int, chains: int
) -> Posterior:
    chart = whitened(found)

    def log_density(normal: Array) -> Array:
        # What is held or padding is given a normal distribution of its own.
        idle = 0.5 * jnp.sum((1 - chart.free) * normal**2)
        return -objective(chart(normal), found.scene, problem) - idle

    def chain(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        begin, warm, walk = jax.random.split(key, 3)
        start = jax.random.normal(begin, chart.free.shape, chart.free.dtype)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, settings), _ = adaptation.run(warm, start, num_steps=warmup)
        step = blackjax.nuts(log_density, **settings).step

        def advance(state: Any, key: PRNGKeyArray) -> tuple[Any, tuple[Array, Array, Array]]:
            state, info = step(key, state)
            return state, (state.position, info.is_divergent, info.acceptance_rate)

        return jax.lax.scan(advance, state, jax.random.split(walk, n))[1]

    # One after the other: side by side, each step would take as long as the longest.
    normal, divergent, acceptance = jax.lax.map(chain, jax.random.split(key, chains))
    size = blackjax.diagnostics.effective_sample_size(normal)
    ratio = blackjax.diagnostics.potential_scale_reduction(normal)
    flat = normal.reshape(chains * n, -1)
    return Posterior(
        scenes_of(chart, flat, found.scene),
        jnp.sum(divergent, axis=1),
        jnp.mean(acceptance, axis=1),
        jnp.min(jnp.where(chart.free > 0, size, jnp.inf)),
        jnp.max(jnp.where(chart.free > 0, ratio, 1)),
    )
