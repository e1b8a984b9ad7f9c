"""How far from the truth is the sky of a crowded field, by which estimator?

    python experiments/sky_bias/measure.py

Fields of the recipe of `experiments/detection_speed/field.py`, of seeds that no setting was chosen
on. `table.md` has, of each estimator, the median of its map minus the true sky and the scatter of
that difference. SEP and photutils are left out where they are not installed.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "detection_speed"))

from field import Field, draw_field

from diffdeblend.background import estimate_background, source_free_background

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is drawn: fields of `size` pixels with a source on every 420, and boxes of `box`."""

    size: int = 2048
    seeds: tuple[int, ...] = (201, 202, 203)
    box: int = 64

    @property
    def n_sources(self) -> int:
        return round(self.size**2 / 419.43)


SETTINGS = Settings()


def skies() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Maps of the sky by name."""
    box = SETTINGS.box

    def mesh(**settings) -> Callable[[np.ndarray], np.ndarray]:
        return lambda image: np.asarray(estimate_background(image, box, **settings).background)

    made = {
        "clipped mean": mesh(estimator="mean"),
        "clipped median": mesh(estimator="median"),
        "3 median - 2 mean": mesh(estimator="mode"),
        "SExtractor's mode": mesh(),
        "biweight": mesh(estimator="biweight_location"),
    }
    for rounds in (1, 2, 3):
        made[f"source_free_background, {rounds} round{'s' * (rounds > 1)}"] = (
            lambda image, n=rounds: np.asarray(
                source_free_background(image, box, rounds=n).background.background
            )
        )
    try:
        import sep
    except ImportError:
        return made
    return made | {f"SEP {sep.__version__}": lambda i: sep.Background(i, bw=box, bh=box).back()}


def main() -> None:
    warnings.simplefilter("ignore")
    fields = [draw_field(Field(SETTINGS.size, SETTINGS.n_sources, s)) for s in SETTINGS.seeds]
    lines = [
        "| sky | " + " | ".join(f"seed {seed}" for seed in SETTINGS.seeds) + " | scatter |",
        "| --- |" + " ---: |" * (len(SETTINGS.seeds) + 1),
    ]
    for name, sky in skies().items():
        off = [sky(image) - truth["sky"] for image, truth in fields]
        cells = [f"{np.median(o):+.2f}" for o in off]
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean([o.std() for o in off]):.2f} |")
    text = "\n".join([*lines, "", f"Settings: `{SETTINGS}`.", ""])
    (HERE / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
