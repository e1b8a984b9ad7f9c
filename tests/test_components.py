"""What every component must do."""

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
    Stack,
    any_stack,
    stack_components,
)
from diffdeblend.components.any_source import lit_parts
from diffdeblend.fourier import to_image
from diffdeblend.grid import FIT, STANDARD, Grid, Quality, fine, make_grid, product_modes
from diffdeblend.parameters import domains, pack, unpack
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene, render

# Off the symmetric point: two unequal bands, x and y apart, a wide stamp.
SHAPE = (12, 17)
FLUX = np.array([3.0, -1.5])
PARTS = np.array([[1.0, 2.0], [2.5, 0.7], [-0.3, 0.4], [0.6, 3.0]])
X, Y = 7.3, 5.6
RADIUS, RATIO, INDEX = 1.7, 0.45, 2.2
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
    return GaussianPSF([2.6, 3.3])


@partial(jax.jit, static_argnames=("quality", "shape"))
def drawn(component, quality=STANDARD, shape=SHAPE):
    return render(Scene([component]), psf(), shape, quality=quality)


def lit(component):
    """1 for each part that shines."""
    flux = np.atleast_2d(component.flux) if component.flux.ndim == 2 else component.flux[None]
    if not isinstance(component, AnySource):
        return np.ones(len(flux))
    return (np.arange(len(flux)) < lit_parts(component.kind)).astype(float)


def complex_modes(component, modes):
    re, im = component.fourier(modes)
    assert re.shape == im.shape == (*component.flux.shape[:-1], modes.kx.size)
    return np.asarray(re) + 1j * np.asarray(im)


# In Fourier space.


@every_component
def test_has_unit_flux_at_frequency_zero(make, precision):
    component = make()
    values = complex_modes(component, product_modes(jnp.zeros(1), jnp.zeros(1)))
    assert values.dtype == (np.complex64 if precision == "float32" else np.complex128)
    np.testing.assert_allclose(values.reshape(-1), lit(component), atol=1e-6)


@every_component
def test_is_real_in_the_image(make):
    axis_x, axis_y = jnp.asarray([0.3, 1.1]), jnp.asarray([-0.7, 0.2, 2.0])
    there = complex_modes(make(), product_modes(axis_x, axis_y))
    opposite = complex_modes(make(), product_modes(-axis_x, -axis_y))
    np.testing.assert_allclose(there, opposite.conj(), atol=1e-6)


@every_component
def test_shift_theorem(make, precision):
    modes = make_grid(SHAPE, fine()).modes
    here, there = (complex_modes(make(x, y), modes) for x, y in [(X, Y), (X + 2, Y - 1.3)])
    turned = here * np.exp(-1j * (2 * np.asarray(modes.kx) - 1.3 * np.asarray(modes.ky)))
    np.testing.assert_allclose(there, turned, atol=1e-5 if precision == "float32" else 1e-11)


WITH_WINGS = [name for name in COMPONENTS if "pixels" not in name and "point" not in name]


@pytest.mark.parametrize("name", WITH_WINGS)
def test_wings_are_the_profile_in_real_space(name, x64):
    component = COMPONENTS[name]()
    # A wide period and frequencies up to five times Nyquist: only the cusp is drawn badly.
    grid = Grid(*SHAPE, 401, 401, 1000, 1000)
    x, y = jnp.arange(-25.0, 40.0, 4.1), jnp.arange(-30.0, 45.0, 3.7)
    exact = np.asarray(to_image(component.fourier(grid.modes), grid, x=x, y=y))
    wings = np.asarray(component.wings(*jnp.meshgrid(x, y)))
    assert wings.shape == exact.shape
    # The nodes keep clear of the centre; around the period of 401 comes back 1e-6.
    np.testing.assert_allclose(wings, exact, rtol=2e-3, atol=3e-6)
    assert wings.max() > 1e-3


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name not in WITH_WINGS])
def test_what_ends_has_no_wings(name):
    component = COMPONENTS[name]()
    wings = component.wings(jnp.asarray([30.0, 50.0]), jnp.asarray([9.0, -40.0]))
    assert wings.shape == (*component.flux.shape[:-1], 2)
    assert np.all(wings == 0)


# In the image.


@every_component
def test_flux_is_in_the_image(make, precision):
    component = make(31.7, 22.2)
    image = drawn(component, fine(), (51, 64))
    wanted = (lit(component)[:, None] * component.flux.reshape(-1, 2)).sum(axis=0)
    # Wings of a de Vaucouleurs profile reach beyond any stamp.
    far = 0.02 if isinstance(component, BulgeDisc | DeVaucouleurs | AnySource) else 2e-3
    np.testing.assert_allclose(image.sum(axis=(1, 2)), wanted, rtol=far)
    assert image.dtype == precision
    assert not image.weak_type


@every_component
def test_centre_of_light_is_at_x_and_y(make, x64):
    component = make(31.7, 22.2)
    image = np.asarray(drawn(component, fine(), (51, 64)))
    if isinstance(component, Pixels):
        # Its light may be off its middle point.
        moved = np.asarray(drawn(make(33.7, 22.2), fine(), (51, 64)))
        np.testing.assert_allclose(moved[:, :, 2:], image[:, :, :-2], atol=1e-5)
        return
    # Around the centre opposite points are alike: the first moments vanish within any circle.
    y, x = np.mgrid[:51, :64]
    window = np.exp(-0.5 * ((x - 31.7) ** 2 + (y - 22.2) ** 2) / 3.0**2)
    for band in image:
        light = band * window
        assert np.sum(light * x) / light.sum() == pytest.approx(31.7, abs=1e-6)
        assert np.sum(light * y) / light.sum() == pytest.approx(22.2, abs=1e-6)


@every_component
def test_flux_scales_the_image(make):
    component = make()
    tripled = eqx.tree_at(lambda c: c.flux, component, component.flux * 3)
    np.testing.assert_allclose(drawn(tripled), 3 * drawn(component), rtol=1e-5, atol=1e-6)


@every_component
def test_other_values_do_not_compile_again(make, compilations):
    drawn(make())
    components = [make(3.0, 8.0), jax.tree.map(lambda leaf: leaf * 1, make(1.5, 0.1))]
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
def test_stack_is_the_sum_of_its_members(make):
    members = [make(3.1, 8.2), make(11.4, 2.0), make(15.9, 10.7)]
    together = render(Scene([stack_components(members)]), psf(), SHAPE)
    np.testing.assert_allclose(
        together, sum(np.asarray(drawn(member)) for member in members), rtol=1e-5, atol=2e-6
    )


@every_component
def test_padding_is_dark(make):
    members = [make(3.1, 8.2), make(11.4, 2.0)]
    padded = stack_components(members, size=5)
    assert padded.size == 5
    assert padded.rank.tolist() == [0, 1, -1, -1, -1]
    modes = make_grid(SHAPE, FIT).modes
    for part in (*padded.fourier(modes), padded.wings(modes.kx + 30, modes.ky)):
        parts = np.asarray(part).reshape(5, -1)
        assert np.all(parts[2:] == 0)
    np.testing.assert_allclose(
        render(Scene([padded]), psf(), SHAPE),
        render(Scene([stack_components(members)]), psf(), SHAPE),
        atol=1e-6,
    )


@every_component
def test_stack_gives_members_and_fluxes_back(make):
    members = [make(3.1, 8.2), make(11.4, 2.0)]
    stack = stack_components(members, size=3)
    for place, member in enumerate(members):
        leaves = zip(
            jax.tree.leaves(stack.member(place)), jax.tree.leaves(member), strict=True
        )
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


@partial(jax.jit, static_argnames="quality")
def weighed(component, quality):
    """An image weighed with unequal weights, its gradient, and its change with everything."""
    weights = jnp.cos(jnp.arange(2 * SHAPE[0] * SHAPE[1], dtype=jnp.float32))

    def total(component):
        return jnp.sum(weights * drawn(component, quality).reshape(-1))

    ones = jax.tree.map(
        lambda leaf: jnp.ones_like(leaf)
        if eqx.is_inexact_array(leaf)
        else np.zeros(leaf.shape, dtype=jax.dtypes.float0),
        component,
    )
    value, gradient = eqx.filter_value_and_grad(total)(component)
    return value, gradient, jax.jvp(total, (component,), (ones,))[1]


@pytest.mark.parametrize("quality", [FIT, STANDARD])
@every_component
def test_gradients_are_finite(make, quality):
    for name, fields in {"as it is": {}, **EXTREMES}.items():
        component = make()
        for field, value in fields.items():
            if hasattr(component, field):
                old = getattr(component, field)
                new = jnp.broadcast_to(jnp.asarray(value, dtype=old.dtype), old.shape)
                component = eqx.tree_at(partial(_field, field), component, new)
        for leaf in jax.tree.leaves(weighed(component, quality)):
            assert np.isfinite(leaf).all(), (name, leaf)


def _field(name, component):
    return getattr(component, name)


@every_component
def test_gradients_are_finite_for_any_real_numbers(make):
    component = make()
    vector = pack(component)

    @jax.jit
    def gradient(vector):
        return jax.grad(lambda v: jnp.sum(weighed(unpack(component, v), STANDARD)[0]))(vector)

    for number in (-60.0, -9.0, 0.0, 9.0, 40.0):
        assert np.isfinite(gradient(jnp.full_like(vector, number))).all(), number


@pytest.mark.parametrize("quality", [STANDARD])
@every_component
def test_derivatives_are_central_differences(make, quality, x64):
    varied, held = eqx.partition(make(), eqx.is_inexact_array)
    values, restore = ravel_pytree(varied)

    @jax.jit
    def image(values):
        return drawn(eqx.combine(restore(values), held), quality)

    by_autodiff = np.moveaxis(np.asarray(jax.jit(jax.jacfwd(image))(values)), -1, 0)
    step = 2e-5
    for parameter, derivative in enumerate(by_autodiff):
        ahead, behind = (image(values.at[parameter].add(s)) for s in (step, -step))
        difference = np.asarray(ahead - behind) / (2 * step)
        largest = np.abs(derivative).max()
        assert np.abs(derivative - difference).max() <= 1e-5 * largest, parameter


@every_component
def test_derivatives_in_both_precisions_agree(make):
    gradients = []
    for double in (False, True):
        with jax.enable_x64(double):
            gradients.append(eqx.filter(weighed(make(), STANDARD)[1], eqx.is_inexact_array))
    for single, double in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(single, double, atol=2e-4 * max(1, np.abs(double).max()))


# One component in terms of another.


@pytest.mark.parametrize("kind", Kind)
def test_a_source_of_any_kind_is_that_of_its_own_class(kind):
    component = any_source(kind)
    plain = component.plain()
    assert type(plain) is [PointSource, Sersic, BulgeDisc, MultiGaussian][kind]
    modes = make_grid(SHAPE, fine()).modes
    parts = int(lit_parts(kind))
    for ours, theirs in zip(component.fourier(modes), plain.fourier(modes), strict=True):
        np.testing.assert_allclose(
            ours[:parts], np.asarray(theirs).reshape(parts, -1), atol=2e-6
        )
        assert np.all(ours[parts:] == 0)
    far = jnp.linspace(-50, 90, 41), jnp.linspace(70, -30, 41)
    np.testing.assert_allclose(
        component.wings(*far)[:parts],
        np.asarray(plain.wings(*far)).reshape(parts, -1),
        rtol=1e-4,
        atol=1e-9,
    )
    np.testing.assert_allclose(drawn(component), drawn(plain), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", Kind)
def test_gradient_of_any_kind_is_that_of_its_own_class(kind, x64):
    component = any_source(kind)
    plain = component.plain()
    ours, theirs = weighed(component, STANDARD)[1], weighed(plain, STANDARD)[1]
    for name in domains(plain):
        # The Gaussians are drawn as Sersic profiles, to 1e-7 of their light.
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-5, err_msg=name
        )
    for name in set(domains(component)) - set(domains(plain)):
        assert np.all(getattr(ours, name) == 0), name
    parts = int(lit_parts(kind))
    np.testing.assert_allclose(
        ours.flux[:parts], theirs.flux.reshape(parts, -1), rtol=1e-4, atol=1e-6
    )
    assert np.all(ours.flux[parts:] == 0)


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
    np.testing.assert_allclose(
        render(Scene([lean]), psf(), SHAPE),
        render(Scene([full]), psf(), SHAPE),
        rtol=1e-5,
        atol=3e-6,
    )
    x = jnp.linspace(-40, 60, 9)
    assert np.all(lean.wings(x, x)[8:] == 0)
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


def test_shear_stretches_along_x_and_keeps_the_area(x64):
    narrow = drawn(Gaussian([1.0, 1.0], 25.0, 25.0, 3.0, [0.4, 0.0]), fine(), (51, 51))[0]
    turned = drawn(Gaussian([1.0, 1.0], 25.0, 25.0, 3.0, [0.0, 0.4]), fine(), (51, 51))[0]
    y, x = np.mgrid[:51, :51] - 25.0
    assert np.sum(narrow * x**2) > 2 * np.sum(narrow * y**2)
    assert np.sum(turned * x * y) > 1
    # (1 + g)^2 / (1 - g^2) times the round variance.
    seen = np.sum(narrow * x**2) - np.sum(narrow * y**2)
    variance = 9 / (2 * np.log(2))
    assert seen == pytest.approx(variance * ((1.4**2 - 0.6**2) / (1 - 0.16)), rel=1e-4)


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
