"""What every component must do."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.flatten_util import ravel_pytree
from quick import quick_jit

from diffdeblend.components import (
    AnySource,
    BulgeDisc,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    Kind,
    MultiGaussian,
    Pixels,
    PointSource,
    Sersic,
    any_stack,
    stack_components,
)
from diffdeblend.components.any_source import lit_parts
from diffdeblend.grid import product_modes
from diffdeblend.parameters import domains, pack, unpack
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render

# Off the symmetric point: two unequal bands, x and y apart, a wide stamp.
SHAPE = (29, 38)
FLUX = np.array([3.0, -1.5])
PARTS = np.array([[1.0, 2.0], [2.5, 0.7], [-0.3, 0.4], [0.6, 3.0]])
X, Y = 17.3, 12.6
RADIUS, RATIO, INDEX = 1.4, 0.45, 2.2
SHEAR = np.array([-0.2, 0.35])
IMAGE = np.array([[0.1, 0.3, 0.2], [0.5, 2.0, 0.2], [0.4, 0.8, 0.9], [0.1, 0.7, 0.1], [0.2, 0, 0]])


def any_source(kind, x=X, y=Y):
    return AnySource(PARTS, x, y, RADIUS, INDEX, RATIO, SHEAR, kind)


# To check a new component, add a line.
COMPONENTS = {
    "point": lambda x=X, y=Y: PointSource(FLUX, x, y),
    "gaussian": lambda x=X, y=Y: Gaussian(FLUX, x, y, RADIUS, SHEAR),
    "exponential": lambda x=X, y=Y: Exponential(FLUX, x, y, RADIUS, SHEAR),
    "de vaucouleurs": lambda x=X, y=Y: DeVaucouleurs(FLUX, x, y, RADIUS, SHEAR),
    "sersic": lambda x=X, y=Y: Sersic(FLUX, x, y, RADIUS, INDEX, SHEAR),
    "bulge and disc": lambda x=X, y=Y: BulgeDisc(PARTS[:2], x, y, RADIUS, RATIO, SHEAR),
    "multi-gaussian": lambda x=X, y=Y: MultiGaussian(PARTS, x, y, RADIUS, SHEAR),
    "pixels": lambda x=X, y=Y: Pixels(FLUX, x, y, IMAGE),
    "pixels of two parts": lambda x=X, y=Y: Pixels(
        PARTS[:2], x, y, np.stack([IMAGE, IMAGE[::-1] ** 2])
    ),
    "any point": partial(any_source, Kind.POINT),
    "any sersic": partial(any_source, Kind.SERSIC),
    "any bulge and disc": partial(any_source, Kind.BULGE_DISC),
    "any multi-gaussian": partial(any_source, Kind.MULTI_GAUSSIAN),
}
every_component = pytest.mark.parametrize("make", COMPONENTS.values(), ids=COMPONENTS)


def psf():
    """Gaussians of two widths; as pixels they compile in half the time."""
    y, x = np.mgrid[-5:6, -6:7]
    return PixelPSF(np.exp(-(x**2 + y**2) / np.array([2.4, 3.7])[:, None, None]))


def image_of(component):
    return render(Scene([component]), psf(), SHAPE)


@quick_jit
def image_and_gradient(component):
    """An image, and in reverse mode the gradient of its sum with unequal weights."""

    def total(component):
        image = image_of(component)
        return jnp.sum(weights() * image), image

    (_, image), gradient = eqx.filter_value_and_grad(total, has_aux=True)(component)
    return image, gradient


def weights():
    return jnp.cos(jnp.arange(2.0 * SHAPE[0] * SHAPE[1])).reshape(2, *SHAPE)


def drawn(component):
    return np.asarray(image_and_gradient(component)[0])


@quick_jit
def image_of_stack(stack):
    return render(Scene([stack]), psf(), SHAPE)


def lit(component):
    """1 for each part that shines."""
    flux = np.atleast_2d(component.flux) if component.flux.ndim == 2 else component.flux[None]
    if not isinstance(component, AnySource):
        return np.ones(len(flux))
    return (np.arange(len(flux)) < lit_parts(component.kind)).astype(float)


@quick_jit
def _modes_of(component, modes):
    return component.fourier(modes)


def complex_modes(component):
    """On frequencies of which each has its opposite, first those of 0."""
    re, im = _modes_of(component, product_modes(AXIS_X, AXIS_Y))
    assert re.shape == im.shape == (*component.flux.shape[:-1], AXIS_X.size * AXIS_Y.size)
    return np.asarray(re) + 1j * np.asarray(im)


AXIS_X, AXIS_Y = (
    np.array(axis, dtype=np.float32) for axis in ([0, 0.3, -0.3, 3.1, -3.1], [0, 2.2, -2.2])
)


# In Fourier space.


@every_component
def test_has_unit_flux_at_frequency_zero(make, precision):
    values = complex_modes(make())
    assert values.dtype == (np.complex64 if precision == "float32" else np.complex128)
    np.testing.assert_allclose(values[..., 0].reshape(-1), lit(make()), atol=1e-6)


@every_component
def test_is_real_in_the_image(make):
    values = complex_modes(make())
    values = values.reshape(*values.shape[:-1], AXIS_Y.size, AXIS_X.size)
    opposite = values[..., [0, 2, 1], :][..., [0, 2, 1, 4, 3]]
    np.testing.assert_allclose(values, opposite.conj(), atol=1e-6)


@every_component
def test_shift_theorem(make, precision):
    here, there = (complex_modes(make(x, y)) for x, y in [(X, Y), (X + 2, Y - 1.3)])
    turn = np.exp(-1j * (2.0 * AXIS_X.astype(float) - 1.3 * AXIS_Y.astype(float)[:, None]))
    limit = 2e-5 if precision == "float32" else 1e-11
    np.testing.assert_allclose(there, here * turn.reshape(-1), atol=limit)


# In the image.


@pytest.mark.slow
@every_component
def test_light_is_in_the_image(make):
    component = make()
    image = drawn(component)
    flux = (lit(component)[:, None] * component.flux.reshape(-1, 2)).sum(axis=0)
    # Wings of a de Vaucouleurs profile reach beyond any stamp.
    far = 0.04 if isinstance(component, BulgeDisc | DeVaucouleurs | AnySource) else 0.01
    np.testing.assert_allclose(image.sum(axis=(1, 2)), flux, rtol=far)
    assert image.dtype == np.float32


@every_component
def test_centre_of_light_is_at_x_and_y(make):
    component = make()
    if isinstance(component, Pixels):
        component = eqx.tree_at(
            lambda c: c.morphology,
            component,
            component.morphology + component.morphology[..., ::-1, ::-1],
        )
    # Opposite points are alike: the first moments vanish within any circle around the centre.
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    window = np.exp(-0.5 * ((x - X) ** 2 + (y - Y) ** 2) / 2.0**2)
    for band in drawn(component):
        light = band * window
        assert np.sum(light * x) / light.sum() == pytest.approx(X, abs=1e-3)
        assert np.sum(light * y) / light.sum() == pytest.approx(Y, abs=1e-3)


@every_component
def test_flux_scales_the_image(make):
    component = make()
    tripled = eqx.tree_at(lambda c: c.flux, component, component.flux * 3)
    np.testing.assert_allclose(drawn(tripled), 3 * drawn(component), rtol=1e-5, atol=1e-6)


@every_component
def test_other_values_do_not_compile_again(make, compilations):
    drawn(make())
    components = [make(3.0, 8.0), make(27, 0)]
    compilations.clear()
    for component in components:
        drawn(component)
    assert not compilations


# Domains.


@every_component
def test_pack_and_unpack_are_inverse(make, precision):
    component = make()
    for images in (False, True):
        vector = pack(component, images)
        assert vector.ndim == 1
        assert vector.dtype == precision or vector.size == 0
        back = unpack(component, vector, images)
        assert jax.tree.structure(back) == jax.tree.structure(component)
        for name in domains(component, images):
            np.testing.assert_allclose(
                getattr(back, name), getattr(component, name), rtol=1e-5, atol=1e-8
            )


@every_component
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_real_numbers_are_a_component(make, data):
    component = make()
    size = pack(component).size
    vector = data.draw(arrays(np.float32, size, elements=st.floats(-3, 3, width=32)))
    there = unpack(component, jnp.asarray(vector))
    np.testing.assert_allclose(pack(there), vector, rtol=1e-3, atol=1e-3)
    assert getattr(there, "radius", 1.0) > 0
    assert 0.5 <= getattr(there, "index", 1.0) <= 6.2
    assert np.linalg.norm(getattr(there, "ellipticity", 0.0)) < 0.92


# Stacks.


@every_component
def test_stack_is_the_sum_of_its_members_and_padding_is_dark(make):
    members = [make(3.1, 28.2), make(11.4, 2.0), make(35.9, 10.7)]
    stack = stack_components(members, size=5)
    assert stack.size == 5
    assert stack.rank.tolist() == [0, 1, 2, -1, -1]
    # The places to spare are filled with copies of the first member.
    together = image_of_stack(stack)
    apart = sum(drawn(member) for member in members)
    np.testing.assert_allclose(together, apart, atol=2e-6 * np.abs(apart).max())


@every_component
def test_stack_gives_members_and_fluxes_back(make):
    members = [make(3.1, 8.2), make(11.4, 2.0)]
    stack = stack_components(members, size=3)
    for place, member in enumerate(members):
        leaves = zip(jax.tree.leaves(stack.member(place)), jax.tree.leaves(member), strict=True)
        assert all(np.array_equal(a, b) for a, b in leaves)
    changed = stack.with_flux(stack.flux * 2)
    np.testing.assert_array_equal(changed.members.flux, stack.members.flux * 2)
    assert stack.flux.shape == (stack.n_slots, 2)
    assert stack.owner.tolist() == np.repeat(np.arange(3), stack.parts).tolist()
    wanted = np.repeat([[1, 0, 0], [0, 1, 0], [0, 0, 0]], stack.parts, axis=1)
    np.testing.assert_array_equal(stack.membership, wanted)


def test_stack_refuses_what_does_not_belong_together():
    with pytest.raises(ValueError, match="`components` is empty"):
        stack_components([])
    with pytest.raises(ValueError, match="got PointSource, Sersic"):
        stack_components([COMPONENTS["sersic"](), COMPONENTS["point"]()])
    with pytest.raises(ValueError, match="fields of one shape"):
        stack_components([PointSource([1.0], 0, 0), PointSource([1.0, 2.0], 0, 0)])
    with pytest.raises(ValueError, match="`size` is 1, less than the 2"):
        stack_components([COMPONENTS["point"]()] * 2, size=1)


# Gradients.

EXTREMES = {
    "no size": {"radius": 0.0},
    "hardly a size": {"radius": 1e-30},
    "tiny": {"radius": 1e-8},
    "huge": {"radius": 1e4},
    "no bulge": {"radius_ratio": 0.0},
    "round": {"ellipticity": np.zeros(2)},
    "at the limit of ellipticity": {"ellipticity": np.array([0.92, 0.0])},
    "at the limit, inclined": {"ellipticity": np.array([-0.65, 0.65])},
    "lowest index": {"index": 0.5},
    "highest index": {"index": 6.2},
    "dark": {"flux": np.zeros(2)},
    "a dark image": {"morphology": np.zeros_like(IMAGE)},
    "far away": {"x": 4000.0, "y": -900.0},
    "of no size, at the highest index": {"radius": 0.0, "index": 6.2},
    "at a pixel's centre": {"x": 8.0, "y": 5.0},
}


@every_component
def test_gradients_are_finite(make):
    for name, fields in {"as it is": {}, **EXTREMES}.items():
        component = make()
        for field, value in fields.items():
            if hasattr(component, field):
                old = getattr(component, field)
                new = jnp.broadcast_to(jnp.asarray(value, dtype=old.dtype), old.shape)
                component = eqx.tree_at(partial(_field, field), component, new)
        for leaf in jax.tree.leaves(image_and_gradient(component)):
            assert np.isfinite(leaf).all(), (name, leaf)


def _field(name, component):
    return getattr(component, name)


@every_component
def test_gradients_are_finite_for_any_real_numbers(make):
    component = make()
    vector = pack(component)
    for number in (-60.0, -9.0, 0.0, 9.0, 20.0):
        there = jnp.full_like(vector, number)
        _, by_value = image_and_gradient(unpack(component, there))
        by_value = {name: getattr(by_value, name) for name in domains(component)}
        _, pull = jax.vjp(
            lambda v: {n: getattr(unpack(component, v), n) for n in domains(component)}, there
        )
        for leaf in (*by_value.values(), pull(by_value)[0]):
            assert np.isfinite(leaf).all(), number


@quick_jit
def image_and_columns(varied, held):
    """An image, and in forward mode its derivative by every number."""
    values, restore = ravel_pytree(varied)

    def image(values):
        return 2 * (image_of(eqx.combine(restore(values), held)),)

    columns, image = jax.jacfwd(image, has_aux=True)(values)
    return image, jnp.moveaxis(columns, -1, 0)


@every_component
def test_derivatives_are_central_differences(make):
    with jax.enable_x64(True):
        columns = checked_columns(make(), 1e-7)
        in_double = columns.reshape(len(columns), -1) @ np.asarray(weights()).reshape(-1)
    # Reverse mode in float32 gives the same.
    single = image_and_gradient(make())[1]
    in_single, _ = ravel_pytree(eqx.filter(single, eqx.is_inexact_array))
    np.testing.assert_allclose(in_single, in_double, atol=2e-5 * np.abs(columns).max())


@pytest.mark.parametrize("index", [0.501, 0.77, 1.0, 4.0, 6.19])
@pytest.mark.parametrize("radius", [0.05, 9.0])
def test_derivatives_are_central_differences_across_the_domain(index, radius, x64):
    for shear in ([0.0, 0.0], [-0.5, 0.7]):
        # 1e-5 is promised.
        checked_columns(Sersic(FLUX, 3.1, 27.4, radius, index, shear), 1e-6)


def checked_columns(component, limit):
    """The derivatives by every number, once they are found to be central differences."""
    varied, held = eqx.partition(component, eqx.is_inexact_array)
    values, restore = ravel_pytree(varied)
    image, columns = map(np.asarray, image_and_columns(varied, held))
    assert image.dtype == np.float64
    step = 2e-5
    for number, column in enumerate(columns):
        ahead, behind = (
            np.asarray(image_and_columns(restore(values.at[number].add(s)), held)[0])
            for s in (step, -step)
        )
        difference = (ahead - behind) / (2 * step)
        # A few hundred roundings, for numbers that do nothing.
        allowed = limit * np.abs(column).max() + 1e-11 * np.abs(image).max()
        assert np.abs(column - difference).max() <= allowed, number
    return columns


# One component in terms of another.


@pytest.mark.parametrize("kind", Kind)
def test_a_source_of_any_kind_is_that_of_its_own_class(kind, x64):
    component = any_source(kind)
    plain = component.plain()
    assert type(plain) is [PointSource, Sersic, BulgeDisc, MultiGaussian][kind]
    image, columns = columns_by_name(component)
    plain_image, plain_columns = columns_by_name(plain)
    # Gaussians and points are drawn as Sersic profiles, to 1e-7 of their light.
    np.testing.assert_allclose(image, plain_image, atol=1e-6)
    for name in domains(component):
        wanted = plain_columns.get(name, np.zeros(1))
        np.testing.assert_allclose(columns[name] - wanted, 0, atol=1e-5, err_msg=name)
    parts = int(lit_parts(kind))
    np.testing.assert_allclose(columns["flux"][: 2 * parts] - plain_columns["flux"], 0, atol=1e-6)
    assert np.all(columns["flux"][2 * parts :] == 0)


def columns_by_name(component):
    varied, held = eqx.partition(component, eqx.is_inexact_array)
    image, columns = map(np.asarray, image_and_columns(varied, held))
    _, restore = ravel_pytree(varied)
    # Which column belongs to which field.
    places = restore(jnp.arange(len(columns), dtype=np.float64))
    names = [f.name for f in dataclasses.fields(component)]
    return image, {
        name: columns[np.asarray(getattr(places, name), dtype=int).reshape(-1)]
        for name in names
        if eqx.is_inexact_array(getattr(places, name))
    }


@pytest.mark.parametrize("kind", Kind)
def test_wings_of_any_kind_are_those_of_its_own_class(kind):
    component = any_source(kind)
    parts = int(lit_parts(kind))
    wings = np.asarray(far_light(component))
    wanted = np.asarray(far_light(component.plain())).reshape(parts, -1)
    np.testing.assert_allclose(wings[:parts], wanted, rtol=1e-4, atol=1e-9)
    assert np.all(wings[parts:] == 0)


@quick_jit
def far_light(component):
    return component.wings(*FAR)


FAR = (jnp.linspace(-50, 90, 41), jnp.linspace(70, -30, 41))


def mixed_stack():
    kinds = [Kind.SERSIC, Kind.MULTI_GAUSSIAN, Kind.POINT, Kind.BULGE_DISC]
    places = [(3.1, 8.2), (11.4, 2.0), (15.9, 10.7), (6.0, 6.0)]
    members = [any_source(kind, *place) for kind, place in zip(kinds, places, strict=True)]
    return stack_components(members, size=5)


def test_stack_of_lit_parts_is_the_same_picture():
    full = mixed_stack()
    lean = any_stack(full)
    assert lean.n_slots == 10
    assert lean.slot_owner.tolist() == [0, 1, 1, 1, 1, 2, 3, 3, 5, 5]
    assert lean.slot_part.tolist() == [0, 0, 1, 2, 3, 0, 0, 1, 0, 0]
    assert lean.active_slot.tolist() == [True] * 8 + [False] * 2
    np.testing.assert_allclose(image_of_stack(lean), image_of_stack(full), atol=3e-6)
    assert np.all(far_light(lean)[8:] == 0)
    np.testing.assert_array_equal(lean.membership.sum(axis=1), [1, 4, 1, 2, 0])
    # Padding belongs to nobody.
    np.testing.assert_array_equal(lean.membership[:, 8:], 0)


def test_stack_of_lit_parts_takes_fluxes():
    lean = any_stack(mixed_stack())
    flux = jnp.asarray(np.random.default_rng(2).normal(size=lean.flux.shape), jnp.float32)
    changed = lean.with_flux(flux)
    np.testing.assert_array_equal(changed.flux[:8], flux[:8])
    np.testing.assert_array_equal(changed.flux[8:], 0)
    np.testing.assert_array_equal(changed.members.flux[3, :2], flux[6:8])
    np.testing.assert_array_equal(changed.members.flux[0, 1:], 0)
    np.testing.assert_array_equal(changed.members.flux[4], 0)


def test_stack_of_lit_parts_grows_by_doubling():
    many = stack_components([any_source(Kind.MULTI_GAUSSIAN)] * 3)
    assert any_stack(many).n_slots == 12
    assert any_stack(stack_components([any_source(Kind.POINT)] * 3)).n_slots == 6


def test_shear_stretches_along_x_and_keeps_the_area():
    component = COMPONENTS["gaussian"]()
    images = {}
    for shear in [(0.4, 0.0), (0.0, 0.4)]:
        images[shear] = (
            drawn(Gaussian(component.flux, 19.0, 14.0, 2.0, np.array(shear, dtype=np.float32)))[0]
            / FLUX[0]
        )
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array([14.0, 19.0])[:, None, None]
    narrow, turned = images.values()
    # (1 +- g)^2 / (1 - g^2) times the variance of the round profile.
    variance = 2.0**2 / (2 * np.log(2))
    wanted = variance * (1.4**2 - 0.6**2) / (1 - 0.16)
    assert np.sum(narrow * (x**2 - y**2)) == pytest.approx(wanted, rel=1e-3)
    assert np.sum(turned * 2 * x * y) == pytest.approx(wanted, rel=1e-3)
    assert np.sum(narrow * x * y) == pytest.approx(0, abs=1e-3)


# Bad input.

WRONG = {
    "point": lambda: PointSource(3.0, X, Y),
    "gaussian": lambda: Gaussian(PARTS, X, Y, RADIUS, SHEAR),
    "exponential": lambda: Exponential(PARTS, X, Y, RADIUS, SHEAR),
    "de vaucouleurs": lambda: DeVaucouleurs(1.0, X, Y, RADIUS, SHEAR),
    "sersic": lambda: Sersic(PARTS, X, Y, RADIUS, INDEX, SHEAR),
    "bulge and disc": lambda: BulgeDisc(FLUX, X, Y, RADIUS, RATIO, SHEAR),
    "bulge and disc of three": lambda: BulgeDisc(PARTS[:3], X, Y, RADIUS, RATIO, SHEAR),
    "multi-gaussian": lambda: MultiGaussian(PARTS[:2], X, Y, RADIUS, SHEAR),
    "any": lambda: AnySource(PARTS[:2], X, Y, RADIUS, INDEX, RATIO, SHEAR, Kind.SERSIC),
    "pixels": lambda: Pixels(PARTS[:2], X, Y, IMAGE),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_flux_of_another_shape_is_refused(make):
    with pytest.raises(ValueError, match=r"`flux` needs shape \(.*band.*\); got \("):
        make()


@every_component
def test_numbers_become_strong_arrays(make):
    for leaf in jax.tree.leaves(make(3, 4)):
        assert isinstance(leaf, jax.Array)
        assert not leaf.weak_type
        assert leaf.dtype in (jnp.float32, jnp.int32)
