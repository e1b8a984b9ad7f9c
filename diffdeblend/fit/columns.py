"""What a unit change of each unknown adds to the image, in Fourier modes before the PSF."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.components import AnyStack
from diffdeblend.fit.ellipses import Ellipses, draw_ellipses
from diffdeblend.fit.unknowns import Unknowns, scene_of
from diffdeblend.fourier import Pair, low_modes
from diffdeblend.grid import Grid, Modes
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

    def low(self, grid: Grid, low: Grid) -> "Columns":
        """The same on the lowest modes of a grid."""
        n = grid.modes.kx.size
        parts = low_modes((self.modes[:, :n], self.modes[:, n:]), grid, low)
        return eqx.tree_at(lambda c: c.modes, self, joined([parts]))


def knows_columns(scene: Scene) -> bool:
    """Whether some components have columns of their own, and all others are `AnySource`."""
    own = [stack.members.has_columns for stack in scene.sources]
    return any(own) and all(
        has or isinstance(stack, AnyStack) for has, stack in zip(own, scene.sources, strict=True)
    )


def columns_by_autodiff(unknowns: Unknowns, template: Scene, modes: Modes) -> Columns:
    """Columns of any scene, by forward-mode autodiff of the profiles alone.

    One tangent a parameter for all sources of a stack at once; or by the component's own columns,
    where it has some. A scene that `knows_columns` leaves nothing to autodiff.
    """
    values: list[Pair] = []
    slopes: list[Pair] = []
    slots, chains, along = [], [], []
    first, known = 0, knows_columns(template)
    for number, (stack, shape) in enumerate(zip(template.sources, unknowns.shape, strict=True)):
        parameters = shape.shape[1]
        if known and isinstance(stack, AnyStack):
            (value, *several), chain, direction = _of_ellipses(
                draw_ellipses(stack, shape, modes), modes
            )
            slopes += several
        else:
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
            names = names_of(stack.member(0))
            # (parameter, slot, source, parameter): a slot answers to its own source alone.
            one = jnp.eye(parameters, dtype=shape.dtype)[:, None, None, :]
            chain = stack.membership.T[None, :, :, None] * one
            direction = np.array([[name == "x", name == "y"] for name in names], dtype=float)
        values.append(value)
        rows = len(direction)
        slots.append(np.tile(first + np.arange(stack.n_slots), rows))
        chains.append(chain.reshape(rows * stack.n_slots, shape.size))
        along.append(np.repeat(direction, stack.n_slots, axis=0))
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
    pairs, chain, direction = _of_ellipses(drawn, modes)
    n_slots = drawn.value.shape[0]
    return Columns(
        joined(pairs),
        jnp.asarray(np.tile(np.arange(n_slots), 6)),
        chain.reshape(6 * n_slots, n_shape),
        jnp.asarray(np.repeat(direction, n_slots, axis=0), dtype=drawn.value.dtype),
    )


def _of_ellipses(drawn: Ellipses, modes: Modes) -> tuple[list[Pair], Array, np.ndarray]:
    """Profiles and their derivatives by six numbers; chain and direction of these."""
    kx, ky = modes.kx, modes.ky
    value, by_q, by_index = drawn.value, drawn.by_q, drawn.by_index
    cosine, sine = drawn.cosine, drawn.sine
    shining, curving = (value * cosine, value * sine), (by_q * cosine, by_q * sine)
    # Times exp(-i k r): real and imaginary part of each.
    pairs = [(shining[0], -shining[1])]
    pairs += [(-k * shining[1], -k * shining[0]) for k in (kx, ky)]
    pairs += [(k * curving[0], -k * curving[1]) for k in (kx**2, 2 * kx * ky, ky**2)]
    pairs += [(by_index * cosine, -by_index * sine)]
    # (number, slot, source, parameter): a slot depends on its owner alone.
    chain = jnp.einsum("cnp,cs->ncsp", drawn.chain, drawn.membership)
    direction = np.zeros((6, 2))
    direction[0, 0] = direction[1, 1] = 1
    return pairs, chain, direction


def joined(pairs: list[Pair]) -> Float[Array, "row k"]:
    """Pairs `(row, k)` one below the other, imaginary parts to the right of real ones."""
    # A concatenate fused with what feeds it becomes scalar code on CPU, 17 times slower.
    pairs = jax.lax.optimization_barrier(pairs)
    both = [jnp.concatenate([pair[i] for pair in pairs]) for i in (0, 1)]
    return jnp.concatenate(both, axis=1)
