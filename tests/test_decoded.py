"""A galaxy drawn by a network: what it looks like, and how it is fitted."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend import GaussianPSF, PointSource, Scene, make_exposure, render
from diffdeblend.components import Decoded, Decoder, Frame, stack_components
from diffdeblend.fit import fit
from diffdeblend.fit.laplace import samples
from diffdeblend.fit.prior import shape_prior
from diffdeblend.fit.unknowns import free_numbers, scene_of, unknowns_of
from diffdeblend.grid import STANDARD, make_grid
from diffdeblend.scene import map_scenes


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


FRAME = Frame(size=21)


def decoder(seed=0, latent=3, width=8, frame=FRAME, strength=1.0):
    """Round Gaussians of three pixels whose logarithm a small network changes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: frame.size, : frame.size] - frame.size // 2
    mean = -0.5 * (x**2 + y**2) / 3.0**2
    # Smooth changes: low orders of the coordinates.
    basis = np.stack([x, y, x * y, x**2 - y**2, x**2 + y**2]).reshape(5, -1)
    basis = basis / np.abs(basis).max(axis=1, keepdims=True)
    mix = rng.standard_normal((5, width)) * strength
    layers = (
        dense(rng.uniform(-0.6, 0.6, (width, latent)), rng.uniform(-0.6, 0.6, width)),
        dense(basis.T @ mix, np.zeros(frame.size**2)),
    )
    return Decoder(layers, jnp.asarray(mean, jnp.float32), frame)


def dense(weight, bias):
    """A layer of these numbers."""
    values = jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
    empty = eqx.filter_eval_shape(eqx.nn.Linear, *weight.shape[::-1], key=jax.random.key(0))
    return eqx.tree_at(lambda one: (one.weight, one.bias), empty, values)


def test_image_is_positive_and_of_unit_sum():
    made = decoder()
    latents = 3 * jax.random.normal(jax.random.key(1), (50, 3))
    images = jax.jit(jax.vmap(made))(latents)
    assert (np.asarray(images) > 0).all()
    np.testing.assert_allclose(np.asarray(images).sum(axis=(1, 2)), 1, atol=1e-5)


def test_a_gaussian_is_drawn_as_its_closed_form():
    # In the frame it is 3 pixels wide, its frame's PSF among them: so wide is it really.
    made = decoder(strength=0.0)
    made = eqx.tree_at(lambda d: d.layers[0].bias, made, jnp.zeros(8))
    own = np.sqrt(3.0**2 - FRAME.psf_sigma**2)
    psf = GaussianPSF([2.0 * np.sqrt(8 * np.log(2))])
    source = Decoded([100.0], 19.3, 13.8, jnp.zeros(3), made)
    image = np.asarray(jax.jit(lambda s: render(s, psf, (31, 41)))(Scene([source])))[0]
    y, x = np.mgrid[:31, :41]
    # The last is the pixel's own response.
    variance = own**2 + 2.0**2 + 1 / 12
    squared = (x - 19.3) ** 2 + (y - 13.8) ** 2
    wanted = 100 / (2 * np.pi * variance) * np.exp(-0.5 * squared / variance)
    # The frame's stamp ends at 3.5 standard deviations.
    np.testing.assert_allclose(image, wanted, atol=3e-3 * wanted.max())


def test_no_power_beyond_nyquist_and_none_blown_up():
    source = Decoded([1.0], 5.0, 6.0, jnp.ones(3), decoder())
    grid = make_grid((12, 10), STANDARD)
    modes = grid.modes._replace(kx=3 * grid.modes.kx, ky=3 * grid.modes.ky)
    modes = modes._replace(axis_x=3 * modes.axis_x, axis_y=3 * modes.axis_y)
    re, im = jax.jit(lambda: source.fourier(modes))()
    outside = (np.abs(modes.kx) > np.pi) | (np.abs(modes.ky) > np.pi)
    assert outside.any()
    assert np.isfinite(np.asarray([re, im])).all()
    assert (np.asarray(re)[outside] == 0).all()


def test_a_stack_keeps_one_decoder():
    made = decoder()
    sources = [Decoded([float(i)], i, 2.0 * i, jnp.full(3, 0.1 * i), made) for i in range(3)]
    stack = stack_components(sources, size=4)
    assert stack.shared is made
    assert stack.members.decoder is None
    second = stack.member(1)
    np.testing.assert_array_equal(second.image(), sources[1].image())
    scene = Scene([*sources, PointSource([1.0], 3.0, 4.0)])
    assert len(scene.sources) == 2
    back = scene_of(unknowns_of(scene), scene).components()
    np.testing.assert_allclose(back[2].latent, sources[2].latent)
    # Two decoders are two stacks.
    other = Decoded([1.0], 1.0, 1.0, jnp.zeros(3), decoder(seed=5))
    assert len(Scene([*sources, other]).sources) == 2
    with pytest.raises(ValueError, match="one and the same decoder"):
        stack_components([sources[0], other])
    with pytest.raises(ValueError, match="kept by the stack"):
        stack.members.image()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`latent` needs shape"):
        Decoded([1.0], 0.0, 0.0, jnp.zeros(4), decoder())
    with pytest.raises(ValueError, match="`size` must be odd"):
        Frame(size=20)
    with pytest.raises(ValueError, match="`psf_sigma` must be positive"):
        Frame(psf_sigma=float("nan"))
    with pytest.raises(ValueError, match="`pixel_scale` must be positive"):
        Frame(pixel_scale=0.0)
    good = decoder()
    with pytest.raises(ValueError, match="`mean` needs shape"):
        Decoder(good.layers, good.mean[:-2], FRAME)
    with pytest.raises(ValueError, match="must lead to 441 pixels"):
        Decoder(good.layers[:1], good.mean, FRAME)


def blend(noise=0.3):
    """Two galaxies in two bands, and where they are."""
    made = decoder()
    psf = GaussianPSF([4.0, 4.6])
    sources = [
        Decoded([900.0, 500.0], 14.3, 17.8, jnp.array([0.8, -0.5, 0.3]), made),
        Decoded([400.0, 700.0], 20.6, 21.1, jnp.array([-0.6, 0.9, 0.1]), made),
    ]
    image = np.asarray(jax.jit(lambda s: render(s, psf, (37, 35)))(Scene(sources)))
    rng = np.random.default_rng(1)
    exposure = make_exposure(
        image + noise * rng.standard_normal(image.shape), np.full(image.shape, noise**2), psf
    )
    start = Scene(
        [
            Decoded([0.0, 0.0], round(float(s.x)), round(float(s.y)), jnp.zeros(3), made)
            for s in sources
        ]
    )
    return sources, start, exposure


@pytest.fixture(scope="module")
def found():
    sources, start, exposure = blend()
    return sources, start, exposure, fit(start, exposure)


def test_second_order_steps_find_latents_and_fluxes(found):
    sources, _, _, result = found
    assert bool(result.converged)
    assert int(result.steps) < 25
    assert 0.8 < float(result.reduced_chi2) < 1.2
    for k, (true, got, error) in enumerate(
        zip(sources, result.scene.components(), result.errors.components(), strict=True)
    ):
        pull = (np.asarray(got.flux) - np.asarray(true.flux)) / np.asarray(result.flux_error[k])
        assert (np.abs(pull) < 4).all()
        assert abs(float(got.x - true.x)) < 4 * float(error.x)
    # The decoder is not fitted.
    np.testing.assert_array_equal(result.scene.sources[0].shared.mean, sources[0].decoder.mean)


@pytest.mark.slow
def test_samples_and_errors_have_no_copies_of_the_decoder(found):
    _, _, _, result = found
    assert result.errors.sources[0].shared is None
    drawn = samples(result, jax.random.key(0), 300)
    assert drawn.sources[0].shared.mean is result.scene.sources[0].shared.mean
    flux = np.asarray(drawn.sources[0].members.flux)
    np.testing.assert_allclose(flux.std(axis=0), result.flux_error, rtol=0.2)
    images = map_scenes(lambda s: s.sources[0].member(1).image(), drawn)
    np.testing.assert_allclose(images.sum(axis=(1, 2)), np.ones(300), atol=1e-5)
    bare = result.scene.without_shared()
    assert bare.sources[0].shared is None
    assert eqx.tree_equal(bare.with_shared(result.scene), result.scene)


def test_prior_of_latents_is_normal_with_a_temperature(found):
    _, start, _, result = found
    latent = result.scene.sources[0].members.latent

    def without_places(prior):
        scene = eqx.tree_at(
            lambda s: (s.sources[0].members.x, s.sources[0].members.y),
            result.scene,
            (start.sources[0].members.x, start.sources[0].members.y),
        )
        return float(eqx.filter_jit(prior)(scene))

    for temperature in (1.0, 4.0):
        prior = shape_prior(start, temperature=temperature)
        wanted = -0.5 * float(jnp.sum(latent**2)) / temperature
        assert without_places(prior) == pytest.approx(wanted, rel=1e-5)


def test_cost_agrees_with_autodiff(found):
    _, start, _, result = found
    prior = shape_prior(start, temperature=2.0)
    unknowns = unknowns_of(result.scene)
    value, slope, curvature = jax.jit(lambda u: prior.cost(u, result.scene))(unknowns)
    negative = jax.jit(lambda u: -prior(scene_of(u, result.scene)))
    wanted, by_autodiff = jax.jit(jax.value_and_grad(negative))(unknowns)
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    np.testing.assert_allclose(slope.flat_shape, by_autodiff.flat_shape, rtol=1e-4, atol=1e-6)
    hessian = jax.jit(jax.hessian(lambda flat: negative(unknowns.with_flat_shape(flat))))(
        unknowns.flat_shape
    )
    np.testing.assert_allclose(np.diag(np.asarray(curvature)), hessian, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_prior_may_have_a_matrix_for_its_curvature(found):
    _, start, exposure, _ = found

    class Tied(type(shape_prior(start))):
        """The same prior, its curvature written as a matrix."""

        def cost(self, unknowns, scene):
            value, slope, curvature = super().cost(unknowns, scene)
            return value, slope, jnp.diag(curvature)

    plain = shape_prior(start)
    tied = Tied(plain.centre, plain.position_error, plain.radius_wall, plain.temperature)
    first, second = (fit(start, exposure, prior=p) for p in (plain, tied))
    np.testing.assert_allclose(first.flux_error, second.flux_error, rtol=1e-5)
    assert float(first.covariance.n_effective) == pytest.approx(
        float(second.covariance.n_effective), rel=1e-5
    )


def test_free_numbers_are_places_latents_and_fluxes(found):
    _, start, _, _ = found
    free = free_numbers(start, None)
    assert free.shape[0].shape == (2, 5)
    assert (np.asarray(free.shape[0]) == 1).all()
