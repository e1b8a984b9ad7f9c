"""The scene as a whole: what it holds, how it is drawn, what it refuses."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from diffdeblend.background import ConstantBackground, PolynomialBackground
from diffdeblend.components import (
    AnySource,
    BulgeDisc,
    Gaussian,
    Kind,
    Pixels,
    PointSource,
    Sersic,
    any_stack,
    stack_components,
)
from diffdeblend.exposure import make_exposure
from diffdeblend.grid import FIT, STANDARD, fine, make_grid
from diffdeblend.psf import GaussianPSF, PixelPSF
from diffdeblend.scene import Scene, render, render_each, residual

SHAPE = (13, 20)
SHEAR = np.array([0.2, -0.35])
FWHM = np.array([2.6, 3.4])


def psf():
    y, x = np.mgrid[-5:6, -6:7]
    return PixelPSF(np.exp(-(x**2 + y**2) / np.array([2.4, 3.7])[:, None, None]))


@partial(quick_jit, static_argnames=("quality", "shape"))
def drawn(scene, quality=STANDARD, shape=SHAPE):
    return render(scene, psf(), shape, quality=quality)


@partial(quick_jit, static_argnames="quality")
def drawn_each(scene, quality=STANDARD):
    return render_each(scene, psf(), SHAPE, quality=quality)


def mixed():
    """Sources of several kinds, not sorted by them, of unequal colours and places."""
    return [
        Sersic([3.0, 1.0], 4.3, 8.1, 1.9, 1.7, SHEAR),
        PointSource([-1.0, 2.0], 17.8, 1.4),
        BulgeDisc([[1.0, 2.0], [0.5, -0.2]], 9.9, 11.2, 2.2, 0.4, -SHEAR),
        PointSource([0.3, 0.7], 2.2, 2.6),
        Sersic([0.4, 5.0], 14.5, 6.7, 0.9, 3.1, 0 * SHEAR),
    ]


SKY = [[10.0, 0.3, -0.2], [-3.0, 0.1, 0.5]]


def sky():
    return PolynomialBackground(SKY)


# What it holds.


def test_components_come_back_in_order():
    sources = mixed()
    scene = Scene(sources)
    assert [stack.size for stack in scene.sources] == [2, 2, 1]
    assert scene.n_sources == 5
    assert scene.n_bands == 2
    back = scene.components()
    assert [type(c) for c in back] == [type(c) for c in sources]
    for ours, theirs in zip(back, sources, strict=True):
        assert eqx.tree_equal(ours, theirs)


def test_components_of_any_kind_come_back_as_their_own_class():
    parts = np.arange(8.0).reshape(4, 2)
    sources = [AnySource(parts, 3, 4 + k, 2.0, 1.5, 0.5, SHEAR, k) for k in Kind]
    for stack in (stack_components(sources, size=6), any_stack(stack_components(sources))):
        back = Scene([stack]).components()
        assert [type(c).__name__ for c in back] == [
            "PointSource",
            "Sersic",
            "BulgeDisc",
            "MultiGaussian",
        ]
        assert [float(c.y) for c in back] == [4, 5, 6, 7]


def test_padding_is_no_source():
    points = [PointSource([1.0], 3, 4), PointSource([2.0], 5, 6)]
    scene = Scene([stack_components(points, size=7)])
    assert scene.n_sources == 2
    assert [float(c.x) for c in scene.components()] == [3, 5]


def test_stacks_made_apart_lose_no_source():
    points = stack_components([PointSource([1.0], x, 0) for x in (3, 5)])
    discs = stack_components([Gaussian([1.0], x, 0, 2.0, SHEAR) for x in (7, 9)], size=3)
    scene = Scene([points, discs])
    assert scene.n_sources == 4
    # Both count from 0: stack after stack.
    assert [float(c.x) for c in scene.components()] == [3, 5, 7, 9]


def test_shapes_that_differ_are_stacks_of_their_own():
    images = [np.ones((3, 3)), np.ones((3, 5)), np.ones((3, 3))]
    sources = [Pixels([1.0], i, 2, image) for i, image in enumerate(images)]
    sources.append(Pixels([1.0], 3, 2, images[0], monotonic=False))
    scene = Scene(sources)
    assert [stack.size for stack in scene.sources] == [2, 1, 1]
    assert [float(c.x) for c in scene.components()] == [0, 1, 2, 3]


def test_is_a_pytree_of_values():
    scene = Scene(mixed(), sky(), dx=[0.1, 0.2])
    again = jax.tree.unflatten(jax.tree.structure(scene), jax.tree.leaves(scene))
    assert eqx.tree_equal(scene, again)
    np.testing.assert_allclose(again.dx, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(again.dy, [0, 0])
    assert again.dy.dtype == np.float32


# How it is drawn.


@pytest.mark.parametrize("quality", [FIT, STANDARD])
def test_each_alone_sums_to_all(quality):
    scene = Scene(mixed(), sky(), dx=[0.1, -0.3], dy=[0.4, 0.0])
    each = drawn_each(scene, quality)
    assert [images.shape for images in each] == [(n, 2, *SHAPE) for n in (2, 2, 1)]
    total = sum(np.asarray(images).sum(axis=0) for images in each)
    background = scene.background(make_grid(SHAPE, quality))
    np.testing.assert_allclose(drawn(scene, quality), total + background, atol=1e-5)


def test_each_alone_is_the_source_alone():
    sources = mixed()
    each = drawn_each(Scene(sources))
    for place, source in ((0, sources[0]), (1, sources[4])):
        np.testing.assert_allclose(each[0][place], drawn(Scene([source])), atol=2e-6)
    np.testing.assert_allclose(each[2][0], drawn(Scene([sources[2]])), atol=2e-6)


def test_each_alone_of_any_kind():
    parts = np.ones((4, 2))
    sources = [AnySource(parts, 3 + 4 * k, 4 + k, 1.4, 1.5, 0.5, SHEAR, k) for k in Kind]
    stack = stack_components(sources, size=5)
    scene = Scene([any_stack(stack)])
    (each,) = drawn_each(scene)
    assert each.shape == (5, 2, *SHAPE)
    assert np.all(each[4] == 0)
    np.testing.assert_allclose(each.sum(axis=0), drawn(scene), atol=1e-5)
    for image, source in zip(each[:4], sources, strict=True):
        np.testing.assert_allclose(image, drawn(Scene([source])), atol=2e-6)


def test_order_of_sources_does_not_matter():
    sources = mixed()
    shuffled = [sources[i] for i in (3, 1, 2, 4, 0)]
    np.testing.assert_allclose(drawn(Scene(sources)), drawn(Scene(shuffled)), atol=2e-5)


def test_shift_of_a_band_moves_that_band():
    source, dx, dy = mixed()[0], np.array([0.0, 1.3]), np.array([-0.4, 2.0])
    shifted = drawn(Scene([source], dx=dx, dy=dy), fine())
    for band in range(2):
        moved = eqx.tree_at(
            lambda s: (s.x, s.y), source, (source.x + dx[band], source.y + dy[band])
        )
        np.testing.assert_allclose(
            shifted[band], drawn(Scene([moved]), fine())[band], atol=1e-4 * shifted[band].max()
        )


def test_sky_does_not_move_with_the_band():
    dark = PointSource([0.0, 0.0], 3, 4)
    image = drawn(Scene([dark], ConstantBackground([2.0, -1.0]), dx=[3.0, 1.0]))
    np.testing.assert_allclose(image[0], 2, atol=1e-6)
    np.testing.assert_allclose(image[1], -1, atol=1e-6)


def test_pixel_zero_is_the_centre_of_the_first_pixel():
    for x, y in ((0.0, 0.0), (19.0, 0.0), (0.0, 12.0)):
        image = np.asarray(drawn(Scene([PointSource([1.0, 1.0], x, y)])))
        for band in image:
            assert np.unravel_index(band.argmax(), SHAPE) == (y, x)


def test_qualities_agree():
    scene = Scene(mixed()[:1])
    best = np.asarray(drawn(scene, fine()))
    peak = best.max()
    assert np.abs(drawn(scene, STANDARD) - best).max() < 2e-3 * peak
    # The padding of such a small stamp is narrow.
    assert np.abs(drawn(scene, FIT) - best).max() < 2e-2 * peak


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_tiny_stamps(shape):
    source = Sersic([1.0, 2.0], (shape[1] - 1) / 2, (shape[0] - 1) / 2, 1.2, 1.0, SHEAR)
    image = drawn(Scene([source]), STANDARD, shape)
    assert image.shape == (2, *shape)
    moved = eqx.tree_at(lambda s: (s.x, s.y), source, (source.x + 20, source.y + 20))
    wide = drawn(Scene([moved]), STANDARD, (49, 49))
    inside = wide[:, 20 : 20 + shape[0], 20 : 20 + shape[1]]
    np.testing.assert_allclose(image, inside, atol=2e-2 * inside.max())


# Batches and compilation.


def test_vmap_over_scenes():
    scenes = [
        Scene(mixed()[:2], ConstantBackground([level, 0.0]), dx=[0.1 * level, 0.0])
        for level in (0.0, 1.0, 2.0)
    ]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *scenes)
    together = quick_jit(jax.vmap(lambda scene: render(scene, psf(), SHAPE, quality=FIT)))(many)
    assert together.shape == (3, 2, *SHAPE)
    for image, scene in zip(together, scenes, strict=True):
        np.testing.assert_allclose(image, drawn(scene, FIT), atol=1e-5)


def test_another_scene_of_the_same_shapes_does_not_compile_again(compilations):
    drawn(Scene(mixed(), sky()))
    sources = [
        PointSource(np.array([3, 2]), 1, 2),
        Sersic([1, 1], 1.0, 2.0, 1, 2, np.zeros(2)),
        Sersic([1, 1], 1.5, 2, np.float64(1), 2, [0.0, 0.1]),
        BulgeDisc(np.ones((2, 2)), 1, 2, 3, 0.3, jnp.zeros(2)),
        PointSource([3.0, 2.0], 1, jnp.asarray(2)),
    ]
    # Kinds in the order of their first member.
    other = Scene([sources[1], sources[0], sources[3], sources[4], sources[2]], sky(), dx=[1, 2])
    compilations.clear()
    drawn(other)
    assert not compilations


def test_a_longer_list_does_compile_again(compilations):
    drawn(Scene(mixed(), sky()))
    other = Scene([*mixed(), PointSource([1.0, 1.0], 3, 3)], sky())
    compilations.clear()
    drawn(other)
    assert compilations


# Data.


def test_residual_is_data_minus_model():
    scene = Scene(mixed(), sky())
    random = np.random.default_rng(4)
    model = np.asarray(drawn(scene))
    noise = random.normal(size=model.shape)
    image, variance = model + noise, np.ones(model.shape)
    mask = np.zeros(model.shape, dtype=bool)
    # Off, in unequal bands: masked, unknown, of unknown and of infinite variance.
    mask[0, 3, 17] = True
    image[1, 12, 0] = np.nan
    variance[0, 0, 19] = np.nan
    variance[1, 5, 5] = np.inf
    off = np.zeros(model.shape, dtype=bool)
    off[[0, 1, 0, 1], [3, 12, 0, 5], [17, 0, 19, 5]] = True
    exposure = make_exposure(image, variance, psf(), mask=mask)
    left = np.asarray(quick_jit(residual)(scene, exposure))
    assert left.shape == model.shape
    assert np.all(left[off] == 0)
    np.testing.assert_allclose(left[~off], noise[~off], atol=2e-5)


def test_gradient_of_chi2_is_finite_beside_masked_pixels():
    image = np.full((2, *SHAPE), np.nan)
    image[:, :6] = 1.0
    exposure = make_exposure(image, np.ones(image.shape), psf())
    scene = Scene(mixed()[:2], sky())

    def chi2(scene):
        left = residual(scene, exposure, quality=FIT)
        return jnp.sum(exposure.weight * left**2)

    gradient = quick_jit(lambda scene: eqx.filter_grad(chi2)(scene))(scene)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("quality", [FIT, fine()])
def test_gradient_by_shifts_and_sky(quality, x64):
    scene = Scene(mixed()[:2], sky(), dx=[0.1, -0.2], dy=[0.0, 0.3])
    numbers = jnp.concatenate([scene.dx, scene.dy, scene.background.coefficients.reshape(-1)])

    @quick_jit
    def image_and_columns(numbers):
        def image(n):
            moved = Scene(scene.sources, PolynomialBackground(n[4:].reshape(2, 3)), n[:2], n[2:4])
            return 2 * (render(moved, psf(), SHAPE, quality=quality),)

        columns, image = jax.jacfwd(image, has_aux=True)(numbers)
        return image, jnp.moveaxis(columns, -1, 0)

    columns = image_and_columns(numbers)[1]
    for place, column in enumerate(columns):
        ahead, behind = (image_and_columns(numbers.at[place].add(s))[0] for s in (1e-5, -1e-5))
        difference = (ahead - behind) / 2e-5
        assert np.abs(column - difference).max() <= 1e-7 * np.abs(column).max()
        # A band's own numbers do nothing in the other.
        other = 1 - (place % 2 if place < 4 else (place - 4) // 3)
        assert np.all(column[other] == 0)


# Bad input.


def test_nothing_is_no_scene():
    with pytest.raises(ValueError, match="`sources` is empty"):
        Scene([])


def test_bands_that_disagree_are_refused():
    one, two = PointSource([1.0], 0, 0), PointSource([1.0, 2.0], 0, 0)
    with pytest.raises(ValueError, match=r"`sources` and `background` .* got \[1, 2\]"):
        Scene([one, two])
    with pytest.raises(ValueError, match=r"`sources` and `background` .* got \[2, 3\]"):
        Scene([two], ConstantBackground([1.0, 2.0, 3.0]))
    for name in ("dx", "dy"):
        with pytest.raises(ValueError, match=rf"`{name}` needs .* shape \(2,\); got \(1,\)"):
            Scene([two], **{name: [1.0]})
    for draw in (render, render_each):
        with pytest.raises(ValueError, match="`psf` has 2 bands, the scene 1"):
            draw(Scene([one]), psf(), SHAPE)


def test_what_is_no_component_is_refused():
    point = PointSource([1.0], 0, 0)
    with pytest.raises(ValueError, match="number 1 is a Stack"):
        Scene([point, stack_components([point])])
    with pytest.raises(ValueError, match="number 0 is a tuple"):
        Scene([(3.0, 4.0)])


def test_a_stamp_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match=r"`shape` must be \(ny, nx\)"):
        render(Scene([PointSource([1.0], 0, 0)]), GaussianPSF([3.0]), (0, 4))
