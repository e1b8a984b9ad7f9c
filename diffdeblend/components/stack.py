"""Many components of one kind, padded to a fixed number."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.components.abstract import AbstractComponent
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes


class Stack(eqx.Module):
    """Components of one kind, every field with a leading `source` axis.

    - `members`: the components; of what is not active, any valid values.
    - `active`: which of them exist; the rest is padding and neither shines nor is fitted.
    - `rank`: place of each in the user's list of sources; -1 for padding.
    - `shared`: what all members have in common, without that axis, as `AbstractComponent.split`
        gives it; None for most components.
    """

    members: AbstractComponent
    active: Bool[Array, "source"]
    rank: Int[Array, "source"]
    shared: Any = eqx.field(default=None, kw_only=True)

    @property
    def n_slots(self) -> int:
        """Number of profiles that are drawn."""
        return self.size * self.parts

    @property
    def size(self) -> int:
        """Number of places, padding included."""
        return self.active.shape[0]

    @property
    def parts(self) -> int:
        """Number of profiles of one member."""
        return self.members.flux.shape[1] if self.members.flux.ndim == 3 else 1

    @property
    def flux(self) -> Float[Array, "slot band"]:
        """Flux of every profile of every member; a slot is one profile."""
        return self.members.flux.reshape(self.size * self.parts, -1)

    def with_flux(self, flux: Float[Array, "slot band"]) -> "Stack":
        """The same stack with other fluxes."""
        return eqx.tree_at(lambda s: s.members.flux, self, flux.reshape(self.members.flux.shape))

    @property
    def owner(self) -> Int[Array, "slot"]:
        """The member that each slot belongs to."""
        return jnp.asarray(np.repeat(np.arange(self.size), self.parts))

    @property
    def active_slot(self) -> Bool[Array, "slot"]:
        """Which slots belong to active members."""
        return self.active[self.owner]

    @property
    def membership(self) -> Float[Array, "source slot"]:
        """1 where a slot belongs to an active member, else 0."""
        belongs = self.owner[None, :] == jnp.arange(self.size)[:, None]
        return jnp.where(belongs & self.active_slot, 1, 0).astype(self.members.flux.dtype)

    def fourier(self, modes: Modes) -> Pair:
        """The profiles of unit flux of all slots, each `(slot, k)`; dark where not active."""
        re, im = jax.vmap(lambda own: own.with_shared(self.shared).fourier(modes))(self.members)
        shape = (self.n_slots, modes.kx.size)
        on = self.active_slot.astype(re.dtype)[:, None]
        return on * re.reshape(shape), on * im.reshape(shape)

    def columns(self, modes: Modes) -> tuple[Pair, Pair]:
        """`AbstractComponent.columns` of all members, `(slot, k)` and `(parameter, slot, k)`."""
        value, slopes = jax.vmap(
            lambda own: own.with_shared(self.shared).columns(modes), out_axes=(0, 1)
        )(self.members)
        on = self.active_slot.astype(value[0].dtype)[:, None]
        return (on * value[0], on * value[1]), (on * slopes[0], on * slopes[1])

    def wings(self, x: Float[Array, "p"], y: Float[Array, "p"]) -> Float[Array, "slot p"]:
        """Far surface brightness of all slots; zero where not active."""
        values = jax.vmap(lambda own: own.with_shared(self.shared).wings(x, y))(self.members)
        return self.active_slot.astype(values.dtype)[:, None] * values.reshape(-1, x.size)

    def member(self, index: int) -> AbstractComponent:
        """One component by its place in the stack."""
        return jax.tree.map(lambda leaf: leaf[index], self.members).with_shared(self.shared)


def stack_components(
    components: Sequence[AbstractComponent],
    *,
    size: int | None = None,
    rank: Sequence[int] | None = None,
) -> Stack:
    """Components of one class and one shape of fields, as a `Stack`.

    `size`: number of places to pad to; `rank`: the components' places in a longer list.

    **Raises:** `ValueError` for no components, several classes, fields that differ in shape, what
    they share not being one and the same, or a `size` that is too small.
    """
    if not components:
        raise ValueError("`components` is empty; a stack needs at least one.")
    size = len(components) if size is None else size
    if size < len(components):
        raise ValueError(f"`size` is {size}, less than the {len(components)} components.")
    if len({type(c) for c in components}) > 1:
        names = sorted({type(c).__name__ for c in components})
        raise ValueError(f"`components` of one stack need one class; got {', '.join(names)}.")
    if len({identity(c.split()[1]) for c in components}) > 1:
        raise ValueError(
            "`components` of one stack need one and the same decoder; got several. Take all from "
            "one prior, or make a stack of each."
        )
    own = [c.split()[0] for c in components]
    structures = {
        (jax.tree.structure(c), tuple(np.shape(leaf) for leaf in jax.tree.leaves(c))) for c in own
    }
    if len(structures) > 1:
        raise ValueError(
            "`components` of one stack need fields of one shape (bands, parts, pixels); "
            f"got {sorted(str(shapes) for _, shapes in structures)}."
        )
    padded = [*own, *[own[0]] * (size - len(own))]
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)
    places = list(range(len(components))) if rank is None else list(rank)
    return Stack(
        members=members,
        active=jnp.arange(size) < len(components),
        rank=jnp.asarray(places + [-1] * (size - len(components)), dtype=jnp.int32),
        shared=components[0].split()[1],
    )


def identity(shared: Any) -> tuple[int, ...]:
    """What tells two shared parts apart without comparing all of their numbers."""
    return tuple(id(leaf) for leaf in jax.tree.leaves(shared))
