"""How well are two blended galaxies taken apart without a learned prior?

    python experiments/learned_prior/baselines.py [--cosmos FOLDER]

`baselines.md` has one table for each set of blends; without `--cosmos` that of real galaxies is
left out, and the file says so.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from blends import Blends, draw_blends, sets
from components import Estimate
from model_baselines import positive_mixtures, profiles, signed_mixtures, symmetric_templates
from pixel_baselines import NON_NEGATIVE, SCARLET_LIKE, SYMMETRIC, Constraints, fit_pixels
from score import Interval, image_error, reduction, relative, summary

HERE = Path(__file__).resolve().parent
COLUMNS = ("median", "mean", "90 %", "bias", "faint one", "relMSE", "mean relMSE")


@dataclass(frozen=True)
class Settings:
    """Blends are scored on `seed`, and on the two that follow for the other sets."""

    seed: int = 101
    n: int = 200
    size: int = 33


def pixels(blends: Blends, constraints: Constraints) -> Estimate:
    """Free pixels under constraints."""
    images = fit_pixels(blends, constraints)
    return Estimate(images.sum(axis=(-2, -1)), images)


# All are told the nearest pixels, but for those that say "true centre".
WAYS: dict[str, Callable[[Blends], Estimate]] = {
    "non-negative pixels": lambda b: pixels(b, NON_NEGATIVE),
    "+ symmetry, true centre": lambda b: pixels(b, SYMMETRIC),
    "the same, all over the stamp": lambda b: pixels(b, replace(SYMMETRIC, reach=None)),
    "+ monotony (scarlet-like), true centre": lambda b: pixels(b, SCARLET_LIKE),
    "the same, nearest pixel": lambda b: pixels(b, replace(SCARLET_LIKE, centre=False)),
    "symmetric templates (SDSS)": symmetric_templates,
    "signed Gaussians": signed_mixtures,
    "positive Gaussians, no prior": lambda b: positive_mixtures(b, prior=False),
    "positive Gaussians": positive_mixtures,
    "positive Gaussians, true centre": lambda b: positive_mixtures(b, centre=True),
    "Sersic": lambda b: profiles(b, "sersic"),
    "auto": lambda b: profiles(b, "auto"),
    "auto, true centre": lambda b: profiles(b, "auto", centre=True),
}


def row(name: str, found: Estimate, blends: Blends) -> str:
    """A line of the table."""
    judged = summary(found.flux[..., 0], blends.flux[..., 0], found.images, blends.truth)
    cells = [f"{judged[name]:.4f}" if judged[name] == judged[name] else "-" for name in COLUMNS]
    return f"| {name} | " + " | ".join(cells) + " |"


def table(found: dict[str, Estimate], blends: Blends) -> list[str]:
    """A line a way."""
    head = "| way | median abs(dF/F) | mean | 90 % | median dF/F | faint one | relMSE | its mean |"
    return [head, "|---" * 8 + "|", *(row(name, one, blends) for name, one in found.items())]


def compared(ours: Estimate, theirs: Estimate, blends: Blends) -> tuple[Interval, Interval | None]:
    """By how much the median flux error and the median relMSE of ours are lower."""
    errors = [np.abs(relative(e.flux[..., 0], blends.flux[..., 0])) for e in (ours, theirs)]
    images = None
    if ours.images is not None and theirs.images is not None:
        images = reduction(*(image_error(e.images, blends.truth) for e in (ours, theirs)))
    return reduction(errors[0], errors[1]), images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cosmos", type=Path)
    cosmos = parser.parse_args().cosmos
    settings = Settings()
    chosen = sets(cosmos, seed=settings.seed, n=settings.n, size=settings.size)
    blends = {name: draw_blends(one, cosmos) for name, one in chosen.items()}
    found: dict[str, dict[str, Estimate]] = {name: {} for name in chosen}
    # Way by way: each is compiled once.
    for way, run in WAYS.items():
        for name, own in blends.items():
            found[name][way] = run(own)
            print(name, row(way, found[name][way], own), flush=True)
    lines = []
    for name, one in chosen.items():
        lines += [f"Set {name}, {one.n} blends, seed {one.seed}:", ""]
        lines += [*table(found[name], blends[name]), ""]
    if cosmos is None:
        lines.append("Real galaxies (set C) were not there.")
    (HERE / "baselines.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
