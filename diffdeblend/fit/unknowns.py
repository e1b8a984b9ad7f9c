"""What a fit varies: the free numbers of a scene, apart from the rest of it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.components import Stack
from diffdeblend.parameters import domains, pack, unpack
from diffdeblend.scene import Scene


class Unknowns(eqx.Module):
    """The numbers that a fit varies.

    - `shape`: one array for each stack, `(source, parameter)`, mapped to the real line.
    - `image`: one array for each stack, `(source, pixel)`, mapped; empty but for free pixels.
        Only first-order methods vary it.
    - `flux`: of every slot, `(slot, band)`.
    - `sky`: coefficients of the background, `(band, n)`; n is 0 without one.
    - `dx`, `dy`: shift of each band, `(band,)`.
    """

    shape: tuple[Float[Array, "source parameter"], ...]
    image: tuple[Float[Array, "source pixel"], ...]
    flux: Float[Array, "slot band"]
    sky: Float[Array, "band n"]
    dx: Float[Array, "band"]
    dy: Float[Array, "band"]

    @property
    def flat_shape(self) -> Float[Array, "shape"]:
        """All shape parameters as one vector: stack by stack, source by source."""
        return jnp.concatenate([part.reshape(-1) for part in self.shape])

    def with_flat_shape(self, flat: Float[Array, "shape"]) -> "Unknowns":
        """The same with the shape parameters of one vector."""
        parts, start = [], 0
        for part in self.shape:
            parts.append(flat[start : start + part.size].reshape(part.shape))
            start += part.size
        return eqx.tree_at(lambda u: u.shape, self, tuple(parts))


def unknowns_of(scene: Scene) -> Unknowns:
    """The numbers of a scene that can be varied."""
    return _collect(scene, pack)


def scene_of(unknowns: Unknowns, template: Scene) -> Scene:
    """`template` with its free numbers taken from `unknowns`; inverse of `unknowns_of`."""
    stacks: list[Stack] = []
    start = 0
    for stack, shape, image in zip(template.sources, unknowns.shape, unknowns.image, strict=True):
        members = jax.vmap(lambda m, v, w: unpack(unpack(m, v), w, images=True))(
            stack.members, shape, image
        )
        flux = unknowns.flux[start : start + stack.n_slots]
        start += stack.n_slots
        stacks.append(eqx.tree_at(lambda s: s.members, stack, members).with_flux(flux))
    background = template.background
    if background is not None:
        background = background.with_coefficients(unknowns.sky)
    return Scene(stacks, background, unknowns.dx, unknowns.dy)


def free_numbers(scene: Scene, free: Callable[[Scene], Any] | None) -> Unknowns:
    """1 where a number is free, 0 where it is held; padding is always held.

    - `free`: picks the free fields of a scene, as the first argument of `equinox.tree_at` does,
        such as `lambda s: (s.sources[0].members.flux, s.dx)`; without it all fluxes, shapes and
        the background are free and the shifts of the bands are held.

    **Raises:** `ValueError` if `free` picks something that is not a field of the scene.
    """
    none = _filled(scene, jnp.zeros_like)
    if free is None:
        chosen = _filled(scene, jnp.ones_like)
        chosen = eqx.tree_at(lambda s: (s.dx, s.dy), chosen, (none.dx, none.dy))
    else:
        try:
            chosen = eqx.tree_at(free, none, replace_fn=jnp.ones_like)
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise ValueError(f"`free` must pick fields of the scene: {error}") from error
    mask = _collect(chosen, _raw)
    active = [stack.active.astype(scene.dx.dtype) for stack in scene.sources]
    slots = jnp.concatenate([stack.active_slot for stack in scene.sources])
    return Unknowns(
        shape=tuple(m * a[:, None] for m, a in zip(mask.shape, active, strict=True)),
        image=tuple(m * a[:, None] for m, a in zip(mask.image, active, strict=True)),
        flux=mask.flux * slots[:, None],
        sky=mask.sky,
        dx=mask.dx,
        dy=mask.dy,
    )


def _filled(scene: Scene, fill: Callable[[Array], Array]) -> Scene:
    """The scene with its numbers replaced, its flags kept."""
    return jax.tree.map(lambda leaf: fill(leaf) if eqx.is_inexact_array(leaf) else leaf, scene)


def _collect(scene: Scene, read: Callable[..., Array]) -> Unknowns:
    sky = jnp.zeros((scene.n_bands, 0), dtype=scene.dx.dtype)
    if scene.background is not None:
        sky = scene.background.coefficients
    return Unknowns(
        shape=tuple(jax.vmap(read)(stack.members) for stack in scene.sources),
        image=tuple(
            jax.vmap(lambda m: read(m, images=True))(stack.members) for stack in scene.sources
        ),
        flux=jnp.concatenate([stack.flux for stack in scene.sources]),
        sky=sky,
        dx=scene.dx,
        dy=scene.dy,
    )


def _raw(member: eqx.Module, images: bool = False) -> Array:
    """The values in the order of `pack`, not mapped."""
    values = [getattr(member, name).reshape(-1) for name in domains(member, images)]
    return jnp.concatenate(values) if values else jnp.zeros(0)
