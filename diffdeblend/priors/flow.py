"""A map from normal numbers to latents, for decoders whose latents are not quite normal."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# Factor that one layer may stretch a number by, in its logarithm: the map stays well conditioned.
_STRETCH = 1.5


class CouplingFlow(eqx.Module):
    """Affine coupling layers: half of the numbers tell how the other half is stretched and moved.

    Called with normal numbers, gives latents. Starts as the identity.

    - `layers`: two dense layers for each coupling.
    - `n_latent`: number of numbers, at least 2.

    **Raises:** `ValueError` for fewer numbers.

    ??? cite
        Dinh, Sohl-Dickstein & Bengio (2017), arXiv:1605.08803, eqs. 4 to 8.
    """

    layers: tuple[tuple[eqx.nn.Linear, eqx.nn.Linear], ...]
    n_latent: int = eqx.field(static=True)

    def __check_init__(self):
        if self.n_latent < 2:
            raise ValueError(f"`n_latent` must be at least 2 for a flow; got {self.n_latent}.")

    def __call__(self, normal: Float[Array, "z"]) -> Float[Array, "z"]:
        values = normal
        for layer in self.layers:
            still, moved = self._halves(values)
            log_scale, shift = self._coupling(layer, still)
            # Turned round, so that each half is moved by every second layer.
            values = jnp.concatenate([moved * jnp.exp(log_scale) + shift, still])
        return values

    def inverse(self, latent: Float[Array, "z"]) -> tuple[Float[Array, "z"], Float[Array, ""]]:
        """Normal numbers of latents, and the logarithm of the Jacobian's determinant there."""
        values, log_determinant = latent, jnp.zeros((), latent.dtype)
        for layer in reversed(self.layers):
            n_moved = self.n_latent - self.n_latent // 2
            moved, still = values[:n_moved], values[n_moved:]
            log_scale, shift = self._coupling(layer, still)
            values = jnp.concatenate([still, (moved - shift) * jnp.exp(-log_scale)])
            log_determinant = log_determinant - jnp.sum(log_scale)
        return values, log_determinant

    def log_density(self, latent: Float[Array, "z"]) -> Float[Array, ""]:
        """Logarithm of the density of latents, normalised."""
        normal, log_determinant = self.inverse(latent)
        return log_determinant - 0.5 * jnp.sum(normal**2 + jnp.log(2 * jnp.pi))

    def _halves(self, values: Array) -> tuple[Array, Array]:
        half = self.n_latent // 2
        return values[:half], values[half:]

    def _coupling(self, layer: tuple[eqx.nn.Linear, eqx.nn.Linear], still: Array):
        first, second = layer
        log_scale, shift = jnp.split(second(jax.nn.silu(first(still))), 2)
        return _STRETCH * jnp.tanh(log_scale / _STRETCH), shift


def make_flow(n_latent: int, n_layers: int, width: int, key: PRNGKeyArray) -> CouplingFlow:
    """A flow that moves nothing yet."""
    half = n_latent // 2
    layers = []
    for one in jax.random.split(key, n_layers):
        first = eqx.nn.Linear(half, width, key=one, dtype=jnp.float32)
        second = eqx.nn.Linear(width, 2 * (n_latent - half), key=one, dtype=jnp.float32)
        second = jax.tree.map(jnp.zeros_like, second)
        layers.append((first, second))
    return CouplingFlow(tuple(layers), n_latent)
