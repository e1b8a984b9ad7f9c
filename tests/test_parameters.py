"""Domains: the maps to the real line and back, and the vector of a module's values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float

from diffdeblend.parameters import (
    Interval,
    Positive,
    PositiveImage,
    Real,
    UnitDisk,
    as_float,
    domains,
    interval,
    pack,
    per_parameter,
    positive,
    positive_image,
    real,
    replace,
    unit_disk,
    unpack,
)

DOMAINS = {
    "real": Real(),
    "positive": Positive(),
    "interval": Interval(0.5, 6.2),
    "unit disk": UnitDisk(),
    "positive image": PositiveImage(),
}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
# Values at the worst places of each domain, its border included.
WORST = {
    "real": [-1e6, 0.0, 3.7],
    "positive": [0.0, 1e-30, 2.0, 1e6],
    "interval": [0.5, 0.50001, 3.0, 6.2],
    "unit disk": [[0.0, 0.0], [0.92, 0.0], [-0.65, 0.65], [1e-20, 0.0], [3.0, -1.0]],
    "positive image": [[0.0, 1e-12], [1e-3, 5.0]],
}


class Thing(eqx.Module):
    """Every domain once, and fields without one."""

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    index: Float[Array, ""] = eqx.field(converter=as_float, metadata=interval(0.5, 6.2))
    shape: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)
    image: Float[Array, "h w"] = eqx.field(converter=as_float, metadata=positive_image)
    flag: bool = eqx.field(static=True, default=True)


class Bare(eqx.Module):
    """No domain at all."""

    flux: Float[Array, "band"] = eqx.field(converter=as_float)


def thing():
    return Thing([1.0, 2.0], -3.5, 2.5, 4.0, [0.1, -0.3], [[0.2, 3.0, 0.1]])


# The maps.


@every_domain
@settings(deadline=None)
@given(number=st.floats(-4, 4), other=st.floats(-4, 4))
def test_there_and_back(domain, number, other):
    numbers = jnp.asarray([number, other], dtype=jnp.float32)
    np.testing.assert_allclose(
        domain.to_real(domain.from_real(numbers)), numbers, rtol=2e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", DOMAINS)
def test_is_finite_at_the_border(name, precision):
    domain = DOMAINS[name]
    for value in WORST[name]:
        value = jnp.asarray(value, dtype=precision)
        there, slope = jax.jvp(domain.to_real, (value,), (jnp.ones_like(value),))
        assert there.dtype == precision
        assert np.isfinite(there).all()
        assert np.isfinite(slope).all() or name == "positive"
        back, slope = jax.jvp(domain.from_real, (there,), (jnp.ones_like(value),))
        assert np.isfinite(back).all()
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", DOMAINS)
def test_any_number_lands_within(name):
    domain = DOMAINS[name]
    for number in (-1e4, -60.0, 0.0, 60.0):
        value = np.asarray(domain.from_real(jnp.asarray([number, -number], dtype=jnp.float32)))
        if name == "unit disk":
            assert np.linalg.norm(value) <= 0.92 * (1 + 1e-6)
        if name == "interval":
            assert np.all((value >= 0.5) & (value <= 6.2 + 1e-6))
        if name == "positive":
            assert np.all(value >= 0)


def test_maps_are_what_they_say(x64):
    assert Real().to_real(jnp.asarray(-2.0)) == -2
    assert Positive().from_real(jnp.asarray(0.7)) == pytest.approx(np.exp(0.7))
    assert Interval(2.0, 4.0).from_real(jnp.asarray(0.0)) == pytest.approx(3.0)
    assert Interval(2.0, 4.0).from_real(jnp.asarray(np.log(3))) == pytest.approx(3.5)
    e = np.array([0.3, -1.2])
    np.testing.assert_allclose(
        UnitDisk(0.9).from_real(jnp.asarray(e)), 0.9 * e / np.sqrt(1 + e @ e)
    )
    # A pixel of zero starts at the floor, from where it can come back.
    assert PositiveImage().from_real(PositiveImage().to_real(jnp.asarray(0.0))) == pytest.approx(
        1e-9
    )


def test_disk_of_many_sources_is_each_alone():
    pairs = jnp.asarray(np.random.default_rng(1).uniform(-0.6, 0.6, (5, 2)))
    for way in (UnitDisk().to_real, UnitDisk().from_real):
        np.testing.assert_allclose(way(pairs), [way(pair) for pair in pairs], rtol=1e-6)


# The vector.


def test_fields_in_the_order_of_declaration():
    assert list(domains(thing())) == ["x", "radius", "index", "shape"]
    assert list(domains(thing(), images=True)) == ["image"]
    assert domains(Bare([1.0])) == {}


def test_pack_and_unpack(precision):
    module = thing()
    vector = pack(module)
    assert vector.dtype == precision
    wanted = [-3.5, np.log(2.5), np.log(3.5 / 5.7) - np.log(1 - 3.5 / 5.7)]
    np.testing.assert_allclose(vector[:3], wanted, rtol=1e-5)
    assert vector.shape == (5,)
    new = unpack(module, vector.at[0].set(9.0).at[1].set(0.0))
    assert (new.x, new.radius) == (9, 1)
    np.testing.assert_allclose(new.shape, module.shape, rtol=1e-6)
    # What has no domain, and images, stay.
    assert new.flux is module.flux
    assert new.image is module.image
    np.testing.assert_allclose(pack(module, images=True), np.log([0.2, 3.0, 0.1]), rtol=1e-6)
    new = unpack(module, jnp.zeros(3), images=True)
    np.testing.assert_array_equal(new.image, np.ones((1, 3)))
    assert new.x is module.x


def test_of_no_domain_the_vector_is_empty():
    bare = Bare([1.0])
    assert pack(bare).shape == (0,)
    assert per_parameter(bare, "step").shape == (0,)
    assert unpack(bare, jnp.zeros(0)) is bare


def test_pack_of_many_is_each_alone():
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), thing(), unpack(thing(), jnp.ones(5)))
    vectors = jax.vmap(pack)(many)
    assert vectors.shape == (2, 5)
    np.testing.assert_allclose(vectors[0], pack(thing()), rtol=1e-6)
    np.testing.assert_allclose(vectors[1], np.ones(5), rtol=1e-5)
    back = jax.vmap(unpack)(many, vectors)
    np.testing.assert_allclose(back.radius, many.radius, rtol=1e-6)


def test_a_number_of_each_domain():
    np.testing.assert_allclose(per_parameter(thing(), "step"), [2.0, 0.7, 1.0, 0.6, 0.6])
    np.testing.assert_allclose(per_parameter(thing(), "width"), [1.0, 0.8, 1.3, 0.6, 0.6])


def test_replace():
    module = thing()
    new = replace(module, ["radius", "flux"], [jnp.asarray(7.0), jnp.zeros(2)])
    assert new.radius == 7
    assert np.all(new.flux == 0)
    assert new.x is module.x
    assert replace(module, [], []) is module


# Converters.


@pytest.mark.parametrize(
    "value",
    [
        3,
        3.5,
        [1, 2],
        np.float64(2),
        np.arange(3),
        np.ones(2, dtype=">f4"),
        True,
        jnp.asarray(2.0),
        jnp.asarray(3),
    ],
)
def test_as_float_is_a_strong_array(value, precision):
    array = as_float(value)
    assert isinstance(array, jax.Array)
    assert not array.weak_type
    # Arrays of floats keep their type.
    given_float = getattr(value, "dtype", None) in (np.dtype("float32"), np.dtype(">f4"))
    assert array.dtype == (np.float32 if given_float else precision)
    np.testing.assert_array_equal(array, np.asarray(value))


def test_as_float_keeps_the_type_of_arrays(x64):
    assert as_float(jnp.ones(2, dtype=jnp.float32)).dtype == np.float32
    assert as_float(jnp.ones(2)).dtype == np.float64
