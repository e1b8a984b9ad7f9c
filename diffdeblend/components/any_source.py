"""A source whose model is a number: one compiled program fits blends of any mixture of models."""

from enum import IntEnum
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from diffdeblend.components.abstract import (
    AbstractComponent,
    bulge_shear,
    check_flux,
    place,
    shear_form,
    sheared_frequency,
    unsheared_distance,
)
from diffdeblend.components.gaussian import MIXTURE_SCALES, MultiGaussian
from diffdeblend.components.point import PointSource
from diffdeblend.components.sersic import BulgeDisc, Sersic, law_wings
from diffdeblend.components.stack import Stack
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import Positive, as_float, interval, positive, real, unit_disk
from diffdeblend.radial import radial_transform


class Kind(IntEnum):
    """The models that an `AnySource` can be."""

    POINT = 0
    SERSIC = 1
    BULGE_DISC = 2
    MULTI_GAUSSIAN = 3


def lit_parts(kind: Int[ArrayLike, "*n"]) -> Int[Array, "*n"]:
    """How many of its parts a kind uses: the first ones."""
    return jnp.asarray([1, 1, 2, len(MIXTURE_SCALES)])[jnp.asarray(kind)]


# Sizes of bulges follow those of their discs more closely than sizes follow the start.
_RATIO = {"domain": Positive(width=0.5)}


class AnySource(AbstractComponent):
    """A point, a Sersic galaxy, a bulge with a disc, or a mixture of Gaussians, by `kind`.

    All four are sums of Sersic profiles, so that the choice is data and not code: parts that a
    kind does not use are dark, parameters that it does not use do nothing.

    - `flux`: flux of each part in each band, shape `(4, band)`. Parts: the one of a point or a
        Sersic galaxy; disc, bulge; the Gaussians.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `radius`, `index`, `radius_ratio`, `ellipticity`, `shear_ratio`: as in `Sersic`, `BulgeDisc`
        and `MultiGaussian`.
    - `kind`: a `Kind`; held in a fit.

    **Raises:** `ValueError` if `flux` has not four rows of one number per band.
    """

    parts: ClassVar[int] = len(MIXTURE_SCALES)

    flux: Float[Array, "part band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    index: Float[Array, ""] = eqx.field(converter=as_float, metadata=interval(0.5, 6.2))
    radius_ratio: Float[Array, ""] = eqx.field(converter=as_float, metadata=_RATIO)
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)
    kind: Int[Array, ""] = eqx.field(converter=lambda kind: jnp.asarray(kind, dtype=jnp.int32))
    shear_ratio: Float[Array, ""] = eqx.field(
        default=1.0, converter=as_float, metadata=interval(0.0, 1.4)
    )

    def __check_init__(self):
        check_flux(self.flux, self.parts)

    def fourier(self, modes: Modes) -> Pair:
        return jax.vmap(lambda part: self.part_fourier(part, modes))(jnp.arange(self.parts))

    def part_fourier(self, part: Int[Array, ""], modes: Modes) -> Pair:
        """One part alone, each `(k,)`; zero if the kind does not use it."""
        radius, index, shear, lit = self._part(part)
        q_squared = radius**2 * sheared_frequency(modes, shear)
        return place(lit * radial_transform(q_squared, index), modes, self.x, self.y)

    def part_ellipse(self, part: Int[Array, ""]) -> Float[Array, "6"]:
        """One part as x, y, the xx, xy and yy of its squared frequency, and its index.

        The part is `radial_transform(xx kx^2 + 2 xy kx ky + yy ky^2, index)` moved to (x, y).
        """
        radius, index, shear, _ = self._part(part)
        xx, xy, yy = (radius**2 * form for form in shear_form(shear))
        return jnp.stack([self.x, self.y, xx, xy, yy, index])

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "part *p"]:
        return jax.vmap(lambda part: self.part_wings(part, x, y))(jnp.arange(self.parts))

    def part_wings(self, part: Int[Array, ""], x: Array, y: Array) -> Array:
        """Far surface brightness of one part."""
        radius, index, shear, lit = self._part(part)
        distance = unsheared_distance(x - self.x, y - self.y, shear)
        # A point has no wings; a radius of 0 would still leave some at n = 6.
        lit = jnp.where(self.kind == Kind.POINT, 0, lit)
        return lit * law_wings(distance, radius, index)

    def _part(self, part: Array) -> tuple[Array, Array, Array, Array]:
        """Radius, index, shear and whether it shines, of one part."""
        dtype = self.radius.dtype
        bulge_disc = self.kind == Kind.BULGE_DISC
        mixture = self.kind == Kind.MULTI_GAUSSIAN
        scale = jnp.asarray(MIXTURE_SCALES, dtype=dtype)[part]
        ratio = jnp.where(bulge_disc & (part == 1), self.radius_ratio, 1)
        radius = jnp.where(self.kind == Kind.POINT, 0, self.radius)
        radius = radius * jnp.where(mixture, scale, ratio)
        index = jnp.where(bulge_disc, jnp.where(part == 0, 1.0, 4.0), self.index)
        index = jnp.where(mixture, 0.5, index)
        rounder = jnp.where(bulge_disc & (part == 1), self.shear_ratio, 1)
        shear = bulge_shear(self.ellipticity, rounder)
        return radius, index.astype(dtype), shear, (part < lit_parts(self.kind)).astype(dtype)

    def plain(self) -> PointSource | Sersic | BulgeDisc | MultiGaussian:
        """The same source as an object of its own class. Not for use under jit."""
        kind = Kind(int(self.kind))
        if kind is Kind.POINT:
            return PointSource(self.flux[0], self.x, self.y)
        if kind is Kind.SERSIC:
            return Sersic(self.flux[0], self.x, self.y, self.radius, self.index, self.ellipticity)
        if kind is Kind.BULGE_DISC:
            return BulgeDisc(
                self.flux[:2],
                self.x,
                self.y,
                self.radius,
                self.radius_ratio,
                self.ellipticity,
                self.shear_ratio,
            )
        return MultiGaussian(self.flux, self.x, self.y, self.radius, self.ellipticity)


class AnyStack(Stack):
    """Sources of any kind with one slot for each part that shines, and none for dark ones.

    - `slot_owner`: the member that each slot belongs to; the number of members for spare slots.
    - `slot_part`: the part of it that the slot draws.
    """

    members: AnySource
    slot_owner: Int[Array, "slot"]
    slot_part: Int[Array, "slot"]

    @property
    def n_slots(self) -> int:
        return self.slot_owner.shape[0]

    @property
    def owner(self) -> Int[Array, "slot"]:
        return jnp.minimum(self.slot_owner, self.size - 1)

    @property
    def active_slot(self) -> Bool[Array, "slot"]:
        return (self.slot_owner < self.size) & self.active[self.owner]

    @property
    def lit_slot(self) -> Bool[Array, "slot"]:
        """Which slots shine: those of active members, on a part that its kind uses."""
        return self.active_slot & (self.slot_part < lit_parts(self.members.kind[self.owner]))

    @property
    def flux(self) -> Float[Array, "slot band"]:
        return self.members.flux[self.owner, self.slot_part] * self.active_slot[:, None]

    def with_flux(self, flux: Float[Array, "slot band"]) -> "AnyStack":
        dark = jnp.zeros_like(self.members.flux)
        # Spare slots point beyond the last member and are dropped.
        filled = dark.at[self.slot_owner, self.slot_part].set(flux, mode="drop")
        return eqx.tree_at(lambda s: s.members.flux, self, filled)

    def fourier(self, modes: Modes) -> Pair:
        of_slot = jax.tree.map(lambda leaf: leaf[self.owner], self.members)
        re, im = jax.vmap(lambda member, part: member.part_fourier(part, modes))(
            of_slot, self.slot_part
        )
        on = self.active_slot.astype(re.dtype)[:, None]
        return on * re, on * im

    def wings(self, x: Float[Array, "p"], y: Float[Array, "p"]) -> Float[Array, "slot p"]:
        of_slot = jax.tree.map(lambda leaf: leaf[self.owner], self.members)
        values = jax.vmap(lambda member, part: member.part_wings(part, x, y))(
            of_slot, self.slot_part
        )
        return self.active_slot.astype(values.dtype)[:, None] * values


def any_stack(stack: Stack) -> AnyStack:
    """A stack of `AnySource` with slots for the parts that shine, padded to few sizes. Host side.

    The number of slots is twice the number of places, and doubles from there as needed.
    """
    assert isinstance(stack.members, AnySource)
    parts = np.asarray(lit_parts(stack.members.kind)) * np.asarray(stack.active)
    owner = np.repeat(np.arange(stack.size), parts)
    part = np.concatenate([np.arange(n) for n in parts])
    places = 2 * stack.size
    while places < owner.size:
        places *= 2
    spare = places - owner.size
    return AnyStack(
        stack.members,
        stack.active,
        stack.rank,
        jnp.asarray(np.concatenate([owner, np.full(spare, stack.size)]), dtype=jnp.int32),
        jnp.asarray(np.concatenate([part, np.zeros(spare)]), dtype=jnp.int32),
    )
