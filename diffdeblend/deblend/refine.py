"""Free pixels for the sources whose own residuals ask for them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffdeblend.components import AnySource, Pixels, Stack, to_pixels
from diffdeblend.fit.proximal import ProximalGradient
from diffdeblend.scene import Scene


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
    chi2 = np.einsum("syx,byx->s", own, weight * residual**2)
    count = np.einsum("syx,byx->s", own, weight > 0)
    return chi2, count.astype(int)


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
) -> tuple[Scene, float]:
    """The scene with free pixels for the chosen sources, and how many parameters these are worth.

    `scene` holds one stack of `AnySource`, already fitted; its shapes are held, fluxes and sky are
    fitted again. The free pixels start from the parametric source and are pulled back to it. Their
    effective number is measured: how far the model follows a small known change of the data (Ye
    1998, JASA 93, 120), less what the same change does to the fluxes alone.
    """
    stack = scene.sources[0]
    padded = np.zeros(stack.size, dtype=bool)
    padded[: len(chosen)] = chosen
    size = pixel_size((data.shape[1], data.shape[2]))
    return _refine(scene, data, weight, psf, jnp.asarray(padded), size, method)
