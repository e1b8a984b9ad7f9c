"""All ways on all sets, each run once, when it is asked for; lines of the tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from baselines import compared, pixels, table
from blends import Blends, draw_blends, sets
from components import Estimate
from decoder import FREE, by_batch, by_decoder
from model_baselines import positive_mixtures, profiles
from pixel_baselines import SCARLET_LIKE, SYMMETRIC
from score import Interval, median_error, relative

from diffdeblend.batch import FoundDecoded
from diffdeblend.priors import DecoderPrior


@dataclass(frozen=True)
class Settings:
    """Sizes of the sets; the seeds follow one another from `seed` on."""

    seed: int = 101
    n: int = 200
    size: int = 33
    n_psf: int = 100


class Line(NamedTuple):
    """A figure, the bar that it should pass, and whether it does; None where there is no bar."""

    what: str
    figure: str
    bar: str = ""
    met: bool | None = None

    def text(self) -> str:
        verdict = {True: "yes", False: "no", None: ""}[self.met]
        return f"| {self.what} | {self.figure} | {self.bar} | {verdict} |"


class Bench:
    """The sets, and what is made of them with a prior and without."""

    def __init__(
        self,
        prior: DecoderPrior,
        cosmos: Path | None,
        settings: Settings,
        other: "Bench | None" = None,
    ):
        """`other`: a bench of the same sets, of which what has no prior is taken over."""
        self.prior, self.cosmos, self.settings = prior, cosmos, settings
        self.chosen = sets(cosmos, seed=settings.seed, n=settings.n, size=settings.size)
        self.drawn: dict[str, Blends] = {} if other is None else other.drawn
        self.judged: dict[str, FoundDecoded] = {}
        self.made: dict[tuple[str, str], Estimate] = {}
        if other is not None:
            self.made |= {k: v for k, v in other.made.items() if "decoder" not in k[1]}

    def blends(self, name: str) -> Blends:
        """A set by its name."""
        if name not in self.drawn:
            self.drawn[name] = draw_blends(self.chosen[name], self.cosmos)
        return self.drawn[name]

    def by(self, name: str, way: str) -> Estimate:
        """What a way makes of a set."""
        if (name, way) not in self.made:
            self.made[name, way] = self.ways[way](self.blends(name))
        return self.made[name, way]

    def support(self, name: str) -> FoundDecoded:
        """What `fit_batch` says of the sources of a set, none of which is given up."""
        if name not in self.judged:
            both = by_batch(self.blends(name), self.prior, fallback=False)
            self.made[name, "decoder, fit_batch"], self.judged[name] = both
        return self.judged[name]

    @cached_property
    def ways(self) -> dict[str, Callable[[Blends], Estimate]]:
        return {
            "decoder": lambda b: by_decoder(b, self.prior),
            "decoder, true centre": lambda b: by_decoder(b, self.prior, centre=True),
            "decoder, no prior": lambda b: by_decoder(b, self.prior, FREE),
            "decoder with fallback": lambda b: by_batch(b, self.prior, fallback=True)[0],
            "symmetry, true centre": lambda b: pixels(b, SYMMETRIC),
            "scarlet-like": lambda b: pixels(b, replace(SCARLET_LIKE, centre=False)),
            "scarlet-like, true centre": lambda b: pixels(b, SCARLET_LIKE),
            "Gaussians": positive_mixtures,
            "Gaussians, true centre": lambda b: positive_mixtures(b, centre=True),
            "auto": lambda b: profiles(b, "auto"),
            "auto, true centre": lambda b: profiles(b, "auto", centre=True),
        }

    def error(self, name: str, way: str) -> np.ndarray:
        """Relative errors of fluxes in the first band, `(blend, source)`."""
        return relative(self.by(name, way).flux[..., 0], self.blends(name).flux[..., 0])

    def typical(self, name: str, way: str) -> float:
        """Median of |dF/F|."""
        return median_error(self.error(name, way))

    def against(self, name: str, ours: str, theirs: str) -> tuple[Interval, Interval | None]:
        """By how much the flux error and the relMSE of one way are below those of another."""
        return compared(self.by(name, ours), self.by(name, theirs), self.blends(name))


def tables(bench: Bench) -> list[str]:
    """All ways on all sets."""
    lines = []
    for name, chosen in bench.chosen.items():
        lines += [f"Set {name}, {chosen.n} blends, seed {chosen.seed}:", ""]
        made = {way: bench.by(name, way) for way in bench.ways}
        lines += [*table(made, bench.blends(name)), ""]
    return lines


def limits(found: Interval | None) -> str:
    """In percent, with the limits between which it lies nine times out of ten."""
    if found is None:
        return "-"
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"
