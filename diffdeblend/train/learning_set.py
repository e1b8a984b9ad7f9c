"""What a network learns from, as arrays: those to learn from, those held out, and the loss."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components import Frame
from diffdeblend.train.loss import AbstractLoss, CleanLoss, NoisyLoss
from diffdeblend.train.network import mean_log_image


@runtime_checkable
class CleanGalaxies(Protocol):
    """Galaxies without noise, `(galaxy, size, size)`, each of unit sum, as `Galaxies` has them."""

    @property
    def images(self) -> Float[np.ndarray, "galaxy size size"]: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def source(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    def split(self, held_out: float, seed: int) -> "tuple[CleanGalaxies, CleanGalaxies]": ...


@runtime_checkable
class ObservedGalaxies(Protocol):
    """Stamps of a survey, each centred on its galaxy, as `NoisyStamps` has them.

    - `data`, `variance`: `(galaxy, size, size)`; an infinite variance masks a pixel.
    - `psf`: images with the pixel's response, of unit sum, `(k, k)` for all or `(galaxy, k, k)`.
    """

    @property
    def data(self) -> Float[np.ndarray, "galaxy size size"]: ...
    @property
    def variance(self) -> Float[np.ndarray, "galaxy size size"]: ...
    @property
    def psf(self) -> Float[np.ndarray, "*galaxy k k"]: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def source(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    def split(self, held_out: float, seed: int) -> "tuple[ObservedGalaxies, ObservedGalaxies]": ...


class LearningSet(NamedTuple):
    """Arrays with a first axis of galaxies, or of 1 where all share one."""

    loss: AbstractLoss
    mean: Float[Array, "size size"]
    learnt_from: tuple[Array, ...]
    held_out: tuple[Array, ...]


def learning_set(
    galaxies: CleanGalaxies | ObservedGalaxies, photons: float, held_out: float, seed: int
) -> LearningSet:
    """The arrays that steps take their batches from, and the loss that fits the data.

    **Raises:** `ValueError` if `galaxies` are of neither kind, or too few to hold some out.
    """
    if isinstance(galaxies, CleanGalaxies):
        learnt_from, unseen = galaxies.split(held_out, seed)
        mean = jnp.asarray(mean_log_image(learnt_from.images))
        loss = CleanLoss(jnp.asarray(photons, jnp.float32), mean)
        return LearningSet(loss, mean, (_single(learnt_from.images),), (_single(unseen.images),))
    if isinstance(galaxies, ObservedGalaxies):
        seen, unseen_stamps = galaxies.split(held_out, seed)
        mean = jnp.asarray(_mean_of_stamps(seen))
        loss = NoisyLoss(mean, jnp.asarray(galaxies.frame.psf_sigma, jnp.float32))
        return LearningSet(loss, mean, _observed(seen), _observed(unseen_stamps))
    raise ValueError(
        f"`galaxies` must be `Galaxies` or `NoisyStamps`; got {type(galaxies).__name__}."
    )


def _single(values: np.ndarray) -> Float[Array, "..."]:
    # Also where double precision is on: the weights are single.
    return jnp.asarray(np.asarray(values, np.float32))


def _observed(stamps: ObservedGalaxies) -> tuple[Array, ...]:
    weight = _weight(stamps)
    data = np.where(weight > 0, stamps.data, 0)
    psf = np.asarray(stamps.psf, float)
    psf = psf if psf.ndim == 3 else psf[None]
    # Weights of 1e-10 and fluxes of 1e6 are safe in single precision, their squares are not.
    scale = np.sqrt(np.mean(weight, axis=(1, 2), keepdims=True))
    scale = np.where(scale > 0, scale, 1)
    psf = psf / psf.sum(axis=(1, 2), keepdims=True)
    return _single(data * scale), _single(weight / scale**2), _single(psf)


def _weight(stamps: ObservedGalaxies) -> Float[np.ndarray, "galaxy size size"]:
    variance = np.asarray(stamps.variance, float)
    good = np.isfinite(variance) & (variance > 0) & np.isfinite(stamps.data)
    return np.where(good, 1 / np.where(good, variance, 1), 0)


def _mean_of_stamps(stamps: ObservedGalaxies) -> Float[np.ndarray, "size size"]:
    """Logarithm of the stacked light in rings, as noise may leave a pixel of the stack dark."""
    good = _weight(stamps) > 0
    stack = np.where(good, stamps.data, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1)
    size = stack.shape[0]
    y, x = np.indices(stack.shape) - size // 2
    ring = np.rint(np.hypot(x, y)).astype(int)
    profile = np.bincount(ring.ravel(), stack.ravel()) / np.bincount(ring.ravel())
    floor = 1e-4 * max(profile[0], np.finfo(float).tiny)
    # Galaxies fade outwards; what rises again is noise.
    falling = np.maximum(np.minimum.accumulate(profile), floor)
    return mean_log_image(falling[ring][None])
