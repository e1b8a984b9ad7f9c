"""What ours does, in a process of its own: `python our_side.py CASE IMAGES.npy REPEATS`.

CASE is `field`, `stamps`, `denclue` or `climb`; the pipeline that of `peer_side.py`. Prints JSON.
"""

import json
import os
import sys
import time
import warnings
from typing import Literal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np

from diffdeblend.background import estimate_background
from diffdeblend.detect.stamps import detect_batch
from diffdeblend.measure import SourceCatalog
from diffdeblend.segment import (
    deblend_sources,
    denclue_deblend,
    detect_sources,
    make_2dgaussian_kernel,
    smooth,
)

N_SIGMA, N_PIXELS, N_LEVELS, CONTRAST = 1.5, 10, 32, 0.001


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def end(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self.last
        self.last = now


def field(image: np.ndarray) -> tuple[int, dict[str, float]]:
    """One image, stage by stage."""
    clock = Clock()
    sky = estimate_background(image, 64)
    rms = np.asarray(sky.background_rms)
    data = image - np.asarray(sky.background)
    # The maps that it keeps are not needed any more.
    del sky
    clock.end("background")
    smoothed = smooth(data, make_2dgaussian_kernel(3.0, 5))
    clock.end("smooth")
    labels = detect_sources(smoothed, N_SIGMA * rms, N_PIXELS)
    clock.end("detect")
    labels = deblend_sources(smoothed, labels, N_PIXELS, n_levels=N_LEVELS, contrast=CONTRAST)
    clock.end("deblend")
    table = SourceCatalog(data, labels, convolved_data=smoothed, error=rms).to_table()
    clock.end("catalogue")
    return len(table), clock.seconds


def stamps(images: np.ndarray) -> tuple[int, dict[str, float]]:
    """All stamps in one call."""
    clock = Clock()
    found = detect_batch(
        images,
        box_size=32,
        kernel=make_2dgaussian_kernel(3.0, 5),
        n_sigma=N_SIGMA,
        n_pixels=N_PIXELS,
        n_levels=N_LEVELS,
        contrast=CONTRAST,
    )
    clock.end("all")
    return int(found.n_sources.sum()), clock.seconds


def denclue(images: np.ndarray) -> tuple[int, dict[str, float]]:
    """Clusters of stamps taken apart, by the default ascent on the grid."""
    return _denclue(images, "grid")


def climb(images: np.ndarray) -> tuple[int, dict[str, float]]:
    """The same by the exact climb of every pixel."""
    return _denclue(images, "exact")


def _denclue(images: np.ndarray, method: Literal["grid", "exact"]) -> tuple[int, dict[str, float]]:
    clock = Clock()
    # Two standard deviations of the noise.
    found = denclue_deblend(images, (images > 2).astype(np.int32), method=method)
    clock.end("all")
    return found.n_sources, clock.seconds


def peak() -> float:
    """Largest resident memory of this process, MB; what getrusage tells is the parent's, too."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main() -> None:
    case, path, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    images = np.load(path)
    runs = {"field": field, "stamps": stamps, "denclue": denclue, "climb": climb}
    before = peak()
    totals, parts = [], []
    count, largest = 0, 0.0
    for _ in range(repeats):
        begun = time.perf_counter()
        count, seconds = runs[case](images)
        totals.append(time.perf_counter() - begun)
        parts.append(seconds)
        # Of the first call: what later ones add is what the allocator keeps.
        largest = largest or peak()
    best = int(np.argmin(totals))
    print(
        json.dumps(
            {
                "version": "ours",
                "device": jax.default_backend(),
                "sources": count,
                "cold": totals[0],
                "warm": totals[best],
                "stages": parts[best],
                "peak": largest,
                "before": before,
            }
        )
    )


if __name__ == "__main__":
    main()
