"""The same blend in pixels twice as wide: where fits of large stamps start. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.task import Guess, Task
from diffdeblend.detect.peaks import psf_images
from diffdeblend.parameters import as_float
from diffdeblend.psf import AbstractPSF, PixelPSF

# Height and width above which stamps are large, in pixels.
LARGE = 64
# Largest over least weight of a band.
_STEEP = 4.0
# In units of that of a fit to the end.
_TOLERANCE = 100.0
# Of a PSF that is not pixels itself, in pixels.
_PSF_SIZE = 41


def worth_halving(task: Task) -> bool:
    """Whether a fit should start in wide pixels, and go on with the exact matrix.

    Where light outshines the sky the weights are steep: steps by modes are many then.
    """
    if task.bucket.size <= LARGE:
        return False
    used = task.blend.weight > 0
    least = np.where(used, task.blend.weight, np.inf).min(axis=(1, 2))
    return bool((task.blend.weight.max(axis=(1, 2)) > _STEEP * least).any())


def halved(tasks: Sequence[Task]) -> list[Task]:
    """Tasks with 2 x 2 pixels summed into one; a step of their fits costs a quarter.

    Good for starts: PSFs are then undersampled.
    """
    psfs: dict[int, AbstractPSF] = {}
    made = []
    for task in tasks:
        blend = task.blend
        if id(blend.psf) not in psfs:
            psfs[id(blend.psf)] = _halved_psf(blend.psf)
        data, weight = _summed(blend.data, blend.weight)
        coarse = Blend(
            data,
            weight,
            psfs[id(blend.psf)],
            (blend.positions - 0.5) / 2,
            blend.origin,
            blend.rows,
            blend.crowded,
        )
        made.append(
            replace(
                task,
                blend=coarse,
                guess=_halved_guess(task.guess),
                position_error=task.position_error / 2,
                scale=2 * task.scale,
                exact=True,
                tolerance=_TOLERANCE,
            )
        )
    return made


def _summed(
    data: Float[np.ndarray, "band y x"], weight: Float[np.ndarray, "band y x"]
) -> tuple[Float[np.ndarray, "band half half"], Float[np.ndarray, "band half half"]]:
    """Sums over 2 x 2 pixels and their inverse variances, 0 where one of the four is not used."""
    _, ny, nx = data.shape
    beyond = ((0, 0), (0, ny % 2), (0, nx % 2))

    def fours(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, beyond)
        return np.stack([padded[:, j::2, i::2] for j in (0, 1) for i in (0, 1)])

    parts, weights = fours(data), fours(weight)
    used = (weights > 0).all(axis=0)
    variance = np.sum(1 / np.where(weights > 0, weights, 1), axis=0)
    return np.where(used, parts.sum(axis=0), 0), np.where(used, 1 / variance, 0)


def _halved_guess(guess: Guess) -> Guess:
    return replace(
        guess,
        x=(guess.x - 0.5) / 2,
        y=(guess.y - 0.5) / 2,
        radius=guess.radius / 2,
        home_x=(guess.home_x - 0.5) / 2,
        home_y=(guess.home_y - 0.5) / 2,
        home_radius=guess.home_radius / 2,
        sky=4 * guess.sky,
    )


def _halved_psf(psf: AbstractPSF) -> PixelPSF:
    """The PSF as pixels twice as wide see it, with as many of them as it has itself."""
    image = psf_images(psf, _PSF_SIZE)
    shape = image.shape[1:]
    period = 4 * max(shape)
    # Two pixels side by side answer by cos(k / 2), with their middle in between.
    spectrum = np.fft.rfft2(image, (period, period))
    ky, kx = 2 * np.pi * np.fft.fftfreq(period)[:, None], 2 * np.pi * np.fft.rfftfreq(period)
    wide = np.fft.irfft2(spectrum * np.cos(ky / 2) * np.cos(kx / 2), (period, period))
    rows, columns = (2 * (np.arange(n) - n // 2) + n // 2 for n in shape)
    # The period is wide enough that places outside of the image come back as zeros.
    return PixelPSF(as_float(wide[:, rows[:, None] % period, columns[None, :] % period]))
