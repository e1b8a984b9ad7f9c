"""Does the chain of ASTErIsM, as we have it, find what is in the scene, and how fast is it?

    python experiments/asterism/measure.py

Draws the scene of `tests/asterism_scene.py` with 50 seeds of noise, runs the chain in each way, and
writes `table.md` and `figure.png` beside this file.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.segment import AsterismResult, Validation, asterism, denclue_deblend

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from asterism_scene import NOISE, SKY, noisy_scene  # noqa: E402


def ways() -> dict[str, Mapping[str, Any]]:
    """Arguments of `denclue_deblend` by name; `h_frac` is 0.1 in all."""
    return {
        "grid": {},
        "grid, validated": {"validation": Validation()},
        "exact": {"method": "exact"},
        "exact, validated": {"method": "exact", "validation": Validation()},
        "exact, down-sampled": {"method": "exact", "gl_downsampling": True},
        "exact, down-sampled, R_max as in full": {
            "method": "exact",
            "gl_downsampling": True,
            "R_max_kern_th": 1e-5,
        },
        "grid, flooded": {"assignment": "watershed"},
    }


@dataclass(frozen=True)
class Settings:
    """What is scored.

    - `seeds`: of the noise; the scene was made on seeds from 1000 on.
    - `near`: a source of the blend counts as found within so many pixels of its centroid.
    - `stamps`, `size`: how many stamps of how many pixels on a side are timed; `repeats`: of which
        the fastest counts.
    """

    seeds: range = range(50)
    near: float = 1.5
    stamps: int = 256
    size: int = 32
    repeats: int = 3
    ways: Mapping[str, Mapping[str, Any]] = field(default_factory=ways)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels that are in the part of `other` that most of their part of `one` is in."""
    return sum(np.bincount(other[one == k]).max() for k in np.unique(one)) / one.size


def score(settings: Settings) -> list[list[str]]:
    """One row a way: how often all is right, and how near the blend's centroids are."""
    counts = {way: np.zeros(3, int) for way in settings.ways}
    offsets: dict[str, list[float]] = {way: [] for way in settings.ways}
    shared: dict[str, list[float]] = {way: [] for way in settings.ways}
    for seed in settings.seeds:
        scene = noisy_scene(seed)
        found = {way: asterism(scene.image, deblending=o) for way, o in settings.ways.items()}
        for way, result in found.items():
            deblended = result.deblended
            counts[way] += [
                len(deblended.parents.label) == 3,
                deblended.n_sources == 4,
                len(deblended.parents.label) == 3 and deblended.n_sources == 4,
            ]
            x, y = deblended.sources.x, deblended.sources.y
            offsets[way] += [float(np.hypot(x - a, y - b).min()) for a, b in scene.centres[:2]]
            clusters = result.segments.labels
            blend = clusters.data == clusters.labels[np.argmax(clusters.areas)]
            pair = (r.labels.data[blend] for r in (result, found["exact"]))
            shared[way].append(agreement(*pair))
    return [
        [
            way,
            *(str(n) for n in counts[way]),
            f"{np.median(offsets[way]):.2f}",
            f"{np.max(offsets[way]):.2f}",
            f"{np.mean(shared[way]):.2%}",
        ]
        for way in settings.ways
    ]


def sky(settings: Settings) -> str:
    """Mean and scatter of the level over the seeds, and the median sigma."""
    found = [asterism(noisy_scene(seed).image).background for seed in settings.seeds]
    level = [b.level for b in found if b is not None]
    sigma = [b.sigma for b in found if b is not None]
    return (
        f"Level {np.mean(level):.4f} ± {np.std(level):.4f} (truth {SKY}); sigma "
        f"{np.median(sigma):.4f}, the plain MAD of a Gaussian being {0.6745 * NOISE:.4f}."
    )


def stamps(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Blends of three Gaussians each, float32, and labels: every pixel is in the cluster."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: settings.size, : settings.size]
    data = rng.normal(SKY, NOISE, (settings.stamps, settings.size, settings.size))
    for image in data:
        for _ in range(3):
            cx, cy = rng.uniform(6, settings.size - 6, 2)
            width, peak = rng.uniform(1.5, 4), rng.uniform(0.3, 6)
            image += peak * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    return data.astype(np.float32), np.ones(data.shape, np.int32)


def speed(settings: Settings) -> list[list[str]]:
    """Warm seconds of all stamps together, of the wall and of the processor."""
    data, every = stamps(settings)
    bright = (data > SKY + 2 * NOISE).astype(np.int32)
    rows = []
    for name, labels in (("every pixel", every), ("pixels above 2 sigma", bright)):
        for method in ("grid", "exact"):
            best = (np.inf, np.inf)
            # The first run compiles.
            for _ in range(settings.repeats + 1):
                start, used = time.perf_counter(), time.process_time()
                denclue_deblend(data, labels, h_frac=0.1, method=method)
                now = (time.perf_counter() - start, time.process_time() - used)
                best = min(best, now)
            rows.append([name, method, f"{labels.sum():,}", f"{best[0]:.2f}", f"{best[1]:.2f}"])
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(result: AsterismResult, image: np.ndarray) -> None:
    """Image, clusters and sources with paths of the blend's pixels."""
    import matplotlib.pyplot as plt

    options = {"method": "exact", "h_frac": 0.1, "paths": True}
    climbed = denclue_deblend(image, result.segments.labels, **options)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), constrained_layout=True)
    axes[0].imshow(np.arcsinh((image - SKY) / NOISE), origin="lower", cmap="gray")
    axes[0].set_title("image")
    for axis, labels in zip(
        axes[1:], (result.segments.labels.data, result.labels.data), strict=True
    ):
        shown = np.ma.masked_equal(labels, 0)
        axis.imshow(shown, origin="lower", cmap="Set2", vmin=1, vmax=8, interpolation="nearest")
    axes[1].set_title("clusters")
    axes[2].set_title("sources, ways and attractors")
    if climbed.paths is not None:
        paths = climbed.paths
        axes[2].plot(paths.x[:, ::7], paths.y[:, ::7], color="0.3", lw=0.4)
    sources = result.deblended.sources
    axes[2].plot(sources.attractor_x, sources.attractor_y, "k+", ms=10)
    for axis in axes:
        axis.set(xlim=(10, 90), ylim=(10, 85), xticks=[], yticks=[])
    figure.savefig(HERE / "figure.png", dpi=120)


def main() -> None:
    settings = Settings()
    right = ["way", "3 clusters", "4 sources", "both", "offset, median", "largest", "as exact"]
    fast = ["cluster", "method", "pixels", "seconds", "processor seconds"]
    timing = speed(settings)
    text = [
        f"{len(settings.seeds)} seeds; offsets of the blend's centroids in pixels; share of the",
        "blend's pixels that go where the exact climb takes them.",
        "",
        table(right, score(settings)),
        "",
        sky(settings),
        "",
        f"{settings.stamps} stamps of {settings.size} x {settings.size}, one cluster each, warm, "
        "fastest of 3:",
        "",
        table(fast, timing),
    ]
    (HERE / "table.md").write_text("\n".join(text) + "\n")
    scene = noisy_scene(settings.seeds[0])
    draw(asterism(scene.image), scene.image)


if __name__ == "__main__":
    main()
