"""Free pixels for the sources whose own residuals ask for them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffdeblend.components import Pixels, Stack, to_pixels
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.proximal import ProximalGradient, proximal_gradient
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import Quality
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene

REFINE = ProximalGradient()
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
    chi2: Float[np.ndarray, "source"], count: np.ndarray
) -> Bool[np.ndarray, "source"]:
    """Whether residuals are larger than noise explains: by a twentieth and by 4 sigma."""
    safe = np.maximum(count, 1)
    excess = chi2 / safe - 1
    return (count > 0) & (excess > 0.05) & (excess > 4 * np.sqrt(2 / safe))


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
    padded = np.zeros(stack.size, dtype=bool)
    padded[: len(chosen)] = chosen
    size = pixel_size((data.shape[1], data.shape[2]))
    return _refine(scene, data, weight, psf, jnp.asarray(padded), size, method)


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
