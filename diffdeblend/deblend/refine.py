"""Free pixels for the sources whose own residuals ask for them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from diffdeblend.components import Pixels, Stack, to_pixels
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.proximal import ProximalGradient, proximal_gradient
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import Quality, make_grid
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene, render_each

REFINE = ProximalGradient(max_steps=100, rounds=4, freedom=2.0)
# Residuals of a bright source need all modes: the cut of `FIT` alone leaves 1e-3 of its peak.
DRAWN = Quality(padding=1.2, cut=1.0, corrections=False)


def pixel_size(shape: tuple[int, int]) -> int:
    """Height and width of the free pixels of a source in a stamp: odd, at most 61."""
    return min(61, (min(shape) - 1) | 1)


def own_pixels(
    models: Float[np.ndarray, "source band y x"], weight: Float[np.ndarray, "band y x"]
) -> Bool[np.ndarray, "source y x"]:
    """Where each source gives most of the modelled light and stands out of the noise."""
    # Significance over all bands decides, so that every source has pixels in every band.
    signal = np.sum(weight * np.maximum(models, 0), axis=1)
    noise = np.sqrt(np.maximum(np.sum(weight, axis=0), 1e-30))
    share = signal / np.maximum(signal.sum(axis=0), 1e-30)
    return (share > 0.5) & (signal / noise > 1)


def own_chi2(
    models: Float[np.ndarray, "source band y x"],
    residual: Float[np.ndarray, "band y x"],
    weight: Float[np.ndarray, "band y x"],
) -> tuple[Float[np.ndarray, "source"], np.ndarray]:
    """chi2 of each source in its own pixels, and how many pixel values those are."""
    own = own_pixels(models, weight)
    chi2 = np.sum(own * np.sum(weight * residual**2, axis=0), axis=(1, 2))
    count = np.sum(own * np.sum(weight > 0, axis=0), axis=(1, 2))
    return chi2, count


def asks_for_pixels(
    chi2: Float[np.ndarray, "source"],
    count: Int[np.ndarray, "source"],
    snr: Float[np.ndarray, "source"],
) -> Bool[np.ndarray, "source"]:
    """Whether residuals are larger than noise explains: by a twentieth and by 4 sigma.

    Not for faint sources (`snr` below 20): what is wrong in their pixels is rather a neighbour, or
    a source that nobody has listed.
    """
    safe = np.maximum(count, 1)
    excess = chi2 / safe - 1
    return (snr > 20) & (count > 0) & (excess > 0.05) & (excess > 4 * np.sqrt(2 / safe))


def refine(
    scene: Scene,
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    chosen: Bool[np.ndarray, "source"],
    method: ProximalGradient = REFINE,
) -> Scene:
    """The scene with free pixels for the chosen sources.

    `scene` holds one stack of `AnySource`, already fitted; its shapes are held, fluxes and sky are
    fitted again. The free pixels start from the parametric source and are pulled back to it. Both
    stacks keep the full number of places, so that another choice compiles nothing.
    """
    stack = scene.sources[0]
    size = pixel_size((data.shape[1], data.shape[2]))
    return _refine(scene, data, weight, psf, padded(chosen, stack.size), size, method)


def effective_pixels(
    scene: Scene,
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    chosen: Bool[np.ndarray, "source"],
    key: PRNGKeyArray,
    method: ProximalGradient = REFINE,
) -> float:
    """How many parameters the free pixels, fluxes and sky of `refine` are worth.

    Measured: how much of a small known change of the data the model follows. One draw is good to
    the root of twice the number.

    ??? cite
        Ye (1998), J. Am. Stat. Assoc. 93, 120, eq. 6.
    """
    sigma = jnp.where(weight > 0, 1 / jnp.sqrt(jnp.where(weight > 0, weight, 1)), 0)
    step = 0.3 * sigma * jax.random.normal(key, data.shape, data.dtype)
    images = [
        draw(refine(scene, values, weight, psf, chosen, method), data, weight, psf)[2]
        for values in (data, data + step)
    ]
    # What is left of the same data by the two models: their difference is what followed.
    return float(jnp.sum(weight * step * (images[0] - images[1])) / 0.3**2)


def padded(chosen: Bool[np.ndarray, "source"], size: int) -> Bool[Array, "place"]:
    """Flags of the sources as flags of the places of a stack."""
    flags = np.zeros(size, dtype=bool)
    flags[: len(chosen)] = chosen
    return jnp.asarray(flags)


@eqx.filter_jit
def draw(
    scene: Scene, data: Array, weight: Array, psf: AbstractPSF
) -> tuple[tuple[Array, ...], Array, Array]:
    """Image of each source by stacks, sky, and residual, as a fit of one blend draws them."""
    shape = (data.shape[1], data.shape[2])
    each = render_each(scene, psf, shape, quality=DRAWN)
    sky = jnp.zeros_like(data)
    if scene.background is not None:
        sky = sky + scene.background(make_grid(shape, DRAWN))
    left = data - sky - sum(jnp.sum(images, axis=0) for images in each)
    return each, sky, jnp.where(weight > 0, left, 0)


@eqx.filter_jit
def _refine(
    scene: Scene,
    data: Array,
    weight: Array,
    psf: AbstractPSF,
    chosen: Array,
    size: int,
    method: ProximalGradient,
) -> Scene:
    stack = scene.sources[0]
    pixels: Pixels = jax.vmap(lambda member: to_pixels(member, size))(stack.members)
    plain = eqx.tree_at(lambda s: s.active, stack, stack.active & ~chosen)
    split = Scene(
        [plain, Stack(pixels, stack.active & chosen, stack.rank)],
        scene.background,
        scene.dx,
        scene.dy,
    )
    problem = make_problem(data, weight, psf, free_numbers(split, None), None, DRAWN)
    return scene_of(proximal_gradient(method, split, problem).unknowns, split)
