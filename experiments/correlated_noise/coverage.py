"""Do errors cover the truth when the noise of neighbouring pixels goes together?

Question: how often does the true flux lie within one and two errors, with and without telling the
batched fit how the noise of drizzled images is correlated? Answer: `table.md`, which this writes.

    python experiments/correlated_noise/coverage.py family.npz --first 300

The set is one of `experiments/blends`, recipe `family`; its white noise is taken off, and noise of
the same variance but of a drizzled image is put on.
"""

import argparse
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdeblend import PixelPSF, make_exposure
from diffdeblend.batch import Found, blend_of_arrays, fit_batch
from diffdeblend.detect import measure_noise_correlation

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ("blends", "calibration")]
from make import Blends, load  # noqa: E402
from pulls import _KINDS, first, flux_pulls, shape_pulls, summary  # noqa: E402


@dataclass(frozen=True)
class Settings:
    """How the noise is made, and how it is measured.

    - `drop`: side of the drops that light is drizzled in, in pixels of the image.
    - `empty`: height and width of the piece of sky that the correlation is measured on, in pixels.
    - `size`: of the stamp of the correlation.
    - `position_error`, `padded_to`, `outlier`: as in `experiments/calibration`.
    """

    drop: float = 1.6
    empty: int = 512
    size: int = 7
    position_error: float = 0.3
    padded_to: int = 64
    outlier: float = 8.0
    seed: int = 11


def drizzled_correlation(drop: float, size: int) -> np.ndarray:
    """Of an image drizzled from many dithered exposures, `(size, size)`, 1 in the middle.

    A drop's share in a pixel is the overlap of two squares, a trapezoid along each axis; averaged
    over dithers, pixels share as its autocorrelation says (Fruchter & Hook 2002, PASP 114, 144).
    """
    step = 0.001
    x = np.arange(-3, 3, step)
    share = np.clip((drop + 1) / 2 - np.abs(x), 0, min(drop, 1))
    lags = np.round(np.arange(size // 2 + 1) / step).astype(int)
    half = np.array([share[: len(x) - lag] @ share[lag:] for lag in lags])
    along = np.concatenate([half[:0:-1], half]) / half[0]
    return along[:, None] * along


def drizzled(rng: np.random.Generator, side: int, settings: Settings) -> np.ndarray:
    """Noise of variance 1 with that correlation, `(side, side)`."""
    period = side + 8
    stamp = np.zeros((period, period))
    stamp[:7, :7] = drizzled_correlation(settings.drop, 7)
    power = np.fft.fft2(np.roll(stamp, (-3, -3), (0, 1))).real
    white = np.fft.fft2(rng.normal(size=stamp.shape))
    return np.fft.ifft2(white * np.sqrt(np.maximum(power, 0))).real[:side, :side]


def with_drizzled_noise(blends: Blends, settings: Settings) -> Blends:
    """The same blends under other noise of the same variance."""
    images = blends.variance - blends.sky[None, :, None, None].astype(np.float32)
    for number, image in enumerate(images):
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(number,)))
        for band in range(len(image)):
            noise = drizzled(rng, image.shape[-1], settings)
            image[band] += np.sqrt(blends.variance[number, band]) * noise
    return dataclasses.replace(blends, images=images)


def measured(blends: Blends, settings: Settings) -> np.ndarray:
    """The correlation as a user finds it: from a piece of sky in each band."""
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(0, 0)))
    sky = np.stack([drizzled(rng, settings.empty, settings) for _ in blends.bands])
    exposure = make_exposure(sky, 1.0, PixelPSF(blends.psf))
    return measure_noise_correlation(exposure, settings.size)


def fitted(blends: Blends, correlation: np.ndarray | None, settings: Settings) -> Found:
    """With true kinds, from the start positions of the file."""
    psf, ends = PixelPSF(blends.psf), np.cumsum(blends.n_src)[:-1]
    kinds = np.split(np.array([_KINDS[name] for name in blends.truth["type"]]), ends)
    return fit_batch(
        [
            blend_of_arrays(image, variance, psf, start[:n], noise_correlation=correlation)
            for image, variance, start, n in zip(
                blends.images, blends.variance, blends.start, blends.n_src, strict=True
            )
        ],
        kinds=kinds,
        background="none",
        model_error=0,
        position_error=settings.position_error,
        sizes=(settings.padded_to,),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", help="a file of experiments/blends, recipe family")
    parser.add_argument("--first", type=int, default=300, help="so many blends")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of table.md")
    given, settings = parser.parse_args(), Settings()
    white = first(load(given.blends), given.first)
    blends = with_drizzled_noise(white, settings)
    stamp = measured(blends, settings)
    factor = stamp.sum(axis=(1, 2))
    true_factor = drizzled_correlation(settings.drop, 7).sum()
    lines = [
        "| noise | told | n | robust std | 68 % | 95 % | beyond 5 | std of x, y | of g1, g2 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, what, images, told in (
        ("white", "nothing", white, None),
        ("drizzled", "nothing", blends, None),
        ("drizzled", "a factor a band", blends, factor),
        ("drizzled", "the correlation", blends, stamp),
    ):
        began = time.process_time()
        found = fitted(images, told, settings)
        print(f"{name}, {what}: {time.process_time() - began:.0f} s of CPU, compilation included")
        done = found.converged[found.blend]
        of = summary(flux_pulls(found, images)[done], settings.outlier)
        shapes = shape_pulls(found, images)
        spreads = [
            summary(np.concatenate([shapes[a], shapes[b]]), settings.outlier).spread
            for a, b in (("x", "y"), ("g1", "g2"))
        ]
        lines.append(
            f"| {name} | {what} | {of.n} | {of.spread:.3f} | {of.within_68:.1f} | "
            f"{of.within_95:.1f} | {of.beyond_5:.2f} % | {spreads[0]:.3f} | {spreads[1]:.3f} |"
        )
    lines += [
        "",
        f"{len(white.images)} blends. Sums over many pixels vary {true_factor:.2f} times as much "
        f"as the variance says;",
        f"measured on {settings.empty} x {settings.empty} pixels of sky: {factor.min():.2f} to "
        f"{factor.max():.2f} in the bands.",
    ]
    text = "\n".join(lines) + "\n"
    (given.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
