"""Sampling functions made of others: with stars, turned, sheared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from diffdeblend.simulate.catalog import take_rows
from diffdeblend.simulate.sampling import Placed, Sampling, check_share, choose


class _Changed:
    """What a sampling function needs and fills is what the one inside it does."""

    other: Any

    @property
    def stamp(self) -> float | None:
        return getattr(self.other, "stamp", None)

    @property
    def most(self) -> int | None:
        return getattr(self.other, "most", None)

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(getattr(self.other, "needs", ()))

    @property
    def hint(self) -> str:
        return getattr(self.other, "hint", "")


@dataclass(frozen=True)
class WithStars(_Changed):
    """Places of another sampling function; a share of its galaxies become stars.

    - `other`: it is shown the galaxies only.
    - `share`: probability of a source to be a star.
    - `faintest`, `brightest`: AB magnitude of the stars, in the column `magnitude`.

    The catalogue has both, as `concatenate([galaxies, stars])`.
    """

    other: Sampling
    share: float = 0.1
    faintest: float = 25.3
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_share("share", self.share)

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().needs, "is_star", self.magnitude)))

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        is_star = np.asarray(table["is_star"], dtype=bool)
        galaxies = np.flatnonzero(~is_star)
        # To pick rows of all columns of a large catalogue would take longer than to draw them.
        needed = getattr(self.other, "needs", None)
        shown = Table(table.columns[tuple(needed)], copy=False) if needed else table
        if len(galaxies) < len(table):
            shown = take_rows(shown, galaxies)
        placed = self.other(shown, rng)
        row = galaxies[placed.row]
        chosen = rng.random(len(row)) < self.share
        limits = {"is_star": (0.5, 1.0), self.magnitude: (self.brightest, self.faintest)}
        row[chosen] = choose(rng, table, int(chosen.sum()), limits)
        return placed._replace(row=row)


@dataclass(frozen=True)
class Sheared(_Changed):
    """Places of another sampling function, every source sheared alike: `g1`, `g2`, reduced.

    A shear that the other gives is replaced. Positions stay.
    """

    other: Sampling
    g1: float
    g2: float

    def __post_init__(self):
        if not np.hypot(self.g1, self.g2) < 1:
            raise ValueError(f"`g1`, `g2` must be below 1; got {self.g1} and {self.g2}.")

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        placed = self.other(table, rng)
        n = len(placed.row)
        return placed._replace(g1=np.full(n, float(self.g1)), g2=np.full(n, float(self.g2)))


@dataclass(frozen=True)
class RandomTurns(_Changed):
    """Places of another sampling function, every source turned by an angle of its own.

    So a catalogue goes further: no two blends show a galaxy in the same position angle.
    """

    other: Sampling

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        placed = self.other(table, rng)
        turn = placed.turn + rng.uniform(0, 2 * np.pi, len(placed.row))
        return placed._replace(turn=turn % (2 * np.pi))
