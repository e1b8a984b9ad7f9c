"""Domains: which values a parameter may take, and how a fit walks there without walls.

A field of a module declares its domain where it stands, `radius: ... = field(metadata=positive)`.
`pack` maps the values of all fields with a domain to one vector of real numbers, `unpack` back;
fields without a domain (fluxes, flags) are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

ModuleT = TypeVar("ModuleT", bound=eqx.Module)


@runtime_checkable
class Domain(Protocol):
    """A smooth map between the allowed values and the real line.

    - `image`: whether the field is an image, whose many values only first-order methods fit.
    - `step`: the longest step that a second-order method takes in the mapped variable.
    - `width`: standard deviation of the weak default prior in the mapped variable.
    - `wall`: distance from its centre at which that prior turns into a wall.
    """

    image: ClassVar[bool]
    step: float
    width: float
    wall: float

    def to_real(self, value: Array) -> Array: ...
    def from_real(self, real: Array) -> Array: ...


@dataclass(frozen=True)
class Real:
    """Any number, such as a position in pixels."""

    image: ClassVar[bool] = False
    step: float = 2.0
    width: float = 1.0
    wall: float = 1.5

    def to_real(self, value: Array) -> Array:
        return value

    def from_real(self, real: Array) -> Array:
        return real


@dataclass(frozen=True)
class Positive:
    """Positive numbers, by their logarithm."""

    image: ClassVar[bool] = False
    step: float = 0.7
    width: float = 0.8
    wall: float = 2.0

    def to_real(self, value: Array) -> Array:
        # A start value of exactly zero must not become -inf.
        return jnp.log(jnp.maximum(value, jnp.finfo(value.dtype).tiny))

    def from_real(self, real: Array) -> Array:
        return jnp.exp(real)


@dataclass(frozen=True)
class Interval:
    """Numbers between `low` and `high`, by a sigmoid."""

    image: ClassVar[bool] = False
    low: float
    high: float
    step: float = 1.0
    width: float = 1.3
    wall: float = 3.2

    def to_real(self, value: Array) -> Array:
        # At the very ends the logit is infinite; float32 reaches them at +-17.
        share = jnp.clip((value - self.low) / (self.high - self.low), 1e-6, 1 - 1e-6)
        return jnp.log(share) - jnp.log1p(-share)

    def from_real(self, real: Array) -> Array:
        return self.low + (self.high - self.low) * jax.nn.sigmoid(real)


@dataclass(frozen=True)
class UnitDisk:
    r"""Pairs of length below `limit`: $g = \mathrm{limit} \cdot e / \sqrt{1 + |e|^2}$."""

    image: ClassVar[bool] = False
    limit: float = 0.92
    step: float = 0.6
    width: float = 0.6
    wall: float = 1.5

    def to_real(self, value: Array) -> Array:
        inside = value / self.limit
        squared = jnp.minimum(jnp.sum(inside**2, axis=-1, keepdims=True), 0.9999)
        return inside / jnp.sqrt(1 - squared)

    def from_real(self, real: Array) -> Array:
        return self.limit * real / jnp.sqrt(1 + jnp.sum(real**2, axis=-1, keepdims=True))


@dataclass(frozen=True)
class PositiveImage:
    """An image of numbers that are not negative, by their logarithm above a floor."""

    image: ClassVar[bool] = True
    step: float = 0.7
    width: float = 10.0
    wall: float = 100.0
    floor: float = 1e-9

    def to_real(self, value: Array) -> Array:
        # Below the floor a pixel's gradient would vanish, and it could never come back.
        return jnp.log(jnp.maximum(value, self.floor))

    def from_real(self, real: Array) -> Array:
        return jnp.exp(real)


real: Mapping[str, Any] = {"domain": Real()}
positive: Mapping[str, Any] = {"domain": Positive()}
DISK = UnitDisk()
unit_disk: Mapping[str, Any] = {"domain": DISK}
positive_image: Mapping[str, Any] = {"domain": PositiveImage()}


def interval(low: float, high: float) -> Mapping[str, Any]:
    """Metadata of a field whose value lies between `low` and `high`."""
    return {"domain": Interval(low, high)}


def as_float(value: ArrayLike) -> Float[Array, "..."]:
    """A converter for fields: an array of the current floating type, never a weak one.

    Values that are already arrays of floats keep their type, so that float64 stays float64.
    """
    if isinstance(value, np.ndarray):
        # Numbers from FITS files have the other byte order, which JAX refuses.
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jax.lax.convert_element_type(array, array.dtype)
    return jnp.asarray(array, dtype=jnp.result_type(float))


def domains(module: eqx.Module, images: bool = False) -> dict[str, Domain]:
    """The fields of `module` that have a domain, by name, in the order of declaration.

    With `images`, the fields that hold an image, and else all others.
    """
    return {
        f.name: f.metadata["domain"]
        for f in fields(module)
        if "domain" in f.metadata and f.metadata["domain"].image == images
    }


def pack(module: eqx.Module, images: bool = False) -> Float[Array, "parameter"]:
    """The values of the fields with a domain, mapped to the real line, as one vector."""
    parts = [
        domain.to_real(getattr(module, name)).reshape(-1)
        for name, domain in domains(module, images).items()
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def unpack(module: ModuleT, vector: Float[Array, "parameter"], images: bool = False) -> ModuleT:
    """`module` with the fields that have a domain taken from `vector`; inverse of `pack`."""
    names, values, start = [], [], 0
    for name, domain in domains(module, images).items():
        shape = getattr(module, name).shape
        size = getattr(module, name).size
        values.append(domain.from_real(vector[start : start + size].reshape(shape)))
        names.append(name)
        start += size
    return replace(module, names, values)


def replace(module: ModuleT, names: list[str], values: list[Any]) -> ModuleT:
    """`module` with other values in the named fields."""
    if not names:
        return module
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names], module, values, is_leaf=lambda v: v is None
    )


def per_parameter(module: eqx.Module, attribute: str) -> Float[Array, "parameter"]:
    """A number of each domain, `"step"` or `"width"`, spread over the vector of `pack`."""
    parts = [
        jnp.full(getattr(module, name).size, getattr(domain, attribute))
        for name, domain in domains(module).items()
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def names_of(module: eqx.Module) -> list[str]:
    """The field of each entry of the vector of `pack`."""
    return [name for name in domains(module) for _ in range(getattr(module, name).size)]
