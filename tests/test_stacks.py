"""Stacks of matrices are factored and solved one matrix at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.fit.arrow import Normal, factor, solve_band, solve_shape
from diffdeblend.fit.correlated import sandwich
from diffdeblend.fit.stacks import factor_each, solve_each, solve_lower_each


def stack(n=4, rows=5, columns=3):
    random = np.random.default_rng(1)
    root = random.normal(size=(n, rows, rows))
    matrices = root @ np.swapaxes(root, 1, 2) + rows * np.eye(rows)
    return matrices, random.normal(size=(n, rows, columns))


def test_they_are_those_of_numpy(precision):
    matrices, right = stack()
    tolerance = 1e-5 if precision == "float32" else 1e-12
    lower = factor_each(jnp.asarray(matrices))
    assert np.allclose(lower, np.linalg.cholesky(matrices), rtol=tolerance, atol=tolerance)
    for given in (right, right[..., 0]):
        found = solve_each(lower, jnp.asarray(given))
        wanted = np.linalg.solve(matrices, given.reshape(4, 5, -1)).reshape(given.shape)
        assert np.allclose(found, wanted, rtol=10 * tolerance, atol=tolerance)
    half = solve_lower_each(lower, jnp.asarray(right))
    assert np.allclose(np.asarray(lower) @ half, right, rtol=10 * tolerance, atol=tolerance)
    whole = solve_lower_each(lower, jnp.asarray(right), trans=1)
    back = np.swapaxes(np.asarray(lower), 1, 2) @ whole
    assert np.allclose(back, right, rtol=10 * tolerance, atol=tolerance)


def shared_out(jaxpr):
    """Factorisations and solutions of more than one matrix at once, anywhere in a program."""
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("cholesky", "triangular_solve", "lu"):
            found += [name for v in equation.invars if v.aval.ndim > 2 and v.aval.shape[0] > 1]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "jaxpr"):
                    found += shared_out(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    found += shared_out(inner)
    return found


def arrow():
    matrices, right = (jnp.asarray(a, jnp.float32) for a in stack(rows=6, columns=4))
    return Normal(matrices, 0.1 * right, 10 * jnp.eye(4))


@pytest.mark.parametrize(
    "program",
    [
        lambda normal: factor(normal, 0.1),
        lambda normal: solve_band(factor(normal, 0.1), normal.cross[:, :, 0]),
        lambda normal: solve_shape(factor(normal, 0.1), normal.shape),
        lambda normal: sandwich(factor(normal, 0.0), normal.shape, normal),
    ],
    ids=["factor", "solve_band", "solve_shape", "sandwich"],
)
def test_no_stack_is_shared_out(program):
    """Two fits at once waited for XLA's threads for ever, each holding one of them."""
    assert not shared_out(jax.make_jaxpr(program)(arrow()).jaxpr)


def test_a_stack_that_is_shared_out_is_seen():
    matrices, _ = stack()
    assert shared_out(jax.make_jaxpr(jnp.linalg.cholesky)(matrices).jaxpr) == ["cholesky"]
    vmapped = jax.jit(jax.vmap(jnp.linalg.cholesky))
    assert shared_out(jax.make_jaxpr(vmapped)(matrices).jaxpr)
