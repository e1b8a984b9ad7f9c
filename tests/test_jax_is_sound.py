"""jax 0.10.2 computes wrong values on CPU, without a word (jax-ml/jax#39103): this would tell."""

import jax
import jax.numpy as jnp
import numpy as np


def test_a_product_in_a_jitted_vmap(x64):
    random = np.random.default_rng(0)
    # 0.10.2 gets 16,385 of these rows wrong.
    matrix, rows = random.normal(size=(3, 3)), random.normal(size=(32_769, 3))
    m = jnp.asarray(matrix)
    computed = jax.jit(jax.vmap(lambda r: jnp.sum((m @ r) ** 2)))(jnp.asarray(rows))
    assert computed.dtype == np.float64
    np.testing.assert_allclose(computed, np.sum((rows @ matrix.T) ** 2, axis=1), rtol=1e-12)


def test_this_version_is_not_one_of_the_wrong_ones():
    assert jax.__version__ not in ("0.10.2", "0.11.1")
