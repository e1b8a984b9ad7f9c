"""What a unit change of each unknown adds to the image, in Fourier modes before the PSF."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.fit.ellipses import Ellipses
from diffdeblend.fit.unknowns import Unknowns, scene_of
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import names_of
from diffdeblend.scene import Scene


class Columns(eqx.Module):
    """Profiles of unit flux and their derivatives by numbers of their own.

    A row stands for one number of one slot. That the fluxes of a band, and the chain from a
    source's shape to its slots, come in later keeps the columns the same for all bands.

    - `modes`: real parts and then imaginary parts, `(slot + row, 2 k)`: the profiles, then the
        derivatives.
    - `slot`: the slot of each row.
    - `chain`: derivative of the number of each row by each shape, `(row, shape)`.
    - `along`: 1 for rows that are derivatives by x (first column) or y (second), `(row, 2)`.
    """

    modes: Float[Array, "row k"]
    slot: Int[Array, "row"]
    chain: Float[Array, "row shape"]
    along: Float[Array, "row 2"]

    @property
    def n_slots(self) -> int:
        """Number of profiles."""
        return self.modes.shape[0] - self.slot.shape[0]


def columns_by_autodiff(unknowns: Unknowns, template: Scene, modes: Modes) -> Columns:
    """Columns of any scene, by forward-mode autodiff of the profiles alone.

    One tangent a parameter for all sources of a stack at once; or by the component's own columns,
    where it has some.
    """
    values: list[Pair] = []
    slopes: list[Pair] = []
    slots, chains, along = [], [], []
    first = 0
    for number, (stack, shape) in enumerate(zip(template.sources, unknowns.shape, strict=True)):
        parameters = shape.shape[1]
        if stack.members.has_columns:
            drawn = scene_of(unknowns, template).sources[number]
            value, several = drawn.columns(modes)
            slopes.append((_flat(several[0]), _flat(several[1])))
        else:

            def profile(vector: Array, number: int = number) -> Pair:
                changed = eqx.tree_at(lambda u: u.shape[number], unknowns, vector)
                return scene_of(changed, template).sources[number].fourier(modes)

            value, push = jax.linearize(profile, shape)
            still = jnp.zeros_like(shape)
            # Unrolled: batching the tangents is slower.
            slopes += [push(still.at[:, p].set(1)) for p in range(parameters)]
        values.append(value)
        names = names_of(stack.member(0))
        slots.append(np.tile(first + np.arange(stack.n_slots), parameters))
        # (parameter, slot, source, parameter): a slot answers to its own source alone.
        one = jnp.eye(parameters, dtype=shape.dtype)[:, None, None, :]
        chain = stack.membership.T[None, :, :, None] * one
        chains.append(chain.reshape(parameters * stack.n_slots, shape.size))
        direction = np.array([[name == "x", name == "y"] for name in names], dtype=float)
        along.append(np.repeat(direction.reshape(-1, 2), stack.n_slots, axis=0))
        first += stack.n_slots
    return Columns(
        joined([*values, *slopes]),
        jnp.asarray(np.concatenate(slots)),
        chains[0] if len(chains) == 1 else jax.scipy.linalg.block_diag(*chains),
        jnp.asarray(np.concatenate(along), dtype=unknowns.flux.dtype),
    )


def _flat(rows: Float[Array, "parameter slot k"]) -> Float[Array, "row k"]:
    return rows.reshape(-1, rows.shape[-1])


def columns_of_ellipses(drawn: Ellipses, modes: Modes, n_shape: int) -> Columns:
    """Columns of a scene of `AnySource`, from its profiles on these modes."""
    kx, ky = modes.kx, modes.ky
    value, by_q, by_index = drawn.value, drawn.by_q, drawn.by_index
    cosine, sine = drawn.cosine, drawn.sine
    shining, curving = (value * cosine, value * sine), (by_q * cosine, by_q * sine)
    # Times exp(-i k r): real and imaginary part of each.
    pairs = [(shining[0], -shining[1])]
    pairs += [(-k * shining[1], -k * shining[0]) for k in (kx, ky)]
    pairs += [(k * curving[0], -k * curving[1]) for k in (kx**2, 2 * kx * ky, ky**2)]
    pairs += [(by_index * cosine, -by_index * sine)]
    n_slots = value.shape[0]
    # (number, slot, source, parameter): a slot depends on its owner alone.
    chain = jnp.einsum("cnp,cs->ncsp", drawn.chain, drawn.membership)
    direction = np.zeros((6, n_slots, 2))
    direction[0, :, 0] = direction[1, :, 1] = 1
    return Columns(
        joined(pairs),
        jnp.asarray(np.tile(np.arange(n_slots), 6)),
        chain.reshape(6 * n_slots, n_shape),
        jnp.asarray(direction.reshape(-1, 2), dtype=value.dtype),
    )


def joined(pairs: list[Pair]) -> Float[Array, "row k"]:
    """Pairs `(row, k)` one below the other, imaginary parts to the right of real ones."""
    # A concatenate fused with what feeds it becomes scalar code on CPU, 17 times slower.
    pairs = jax.lax.optimization_barrier(pairs)
    both = [jnp.concatenate([pair[i] for pair in pairs]) for i in (0, 1)]
    return jnp.concatenate(both, axis=1)
