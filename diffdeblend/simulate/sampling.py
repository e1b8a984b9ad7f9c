"""Which sources of a catalogue make a blend, and where they lie.

A sampling function is any callable `(table, rng) -> Placed`: of the catalogue's table and a numpy
generator, from which all its random choices come. It may have attributes: `needs`, the columns that
it reads; `stamp`, the side of the square that it fills, in arcseconds; `most`, the largest number
of sources. Those here are frozen dataclasses; stamps are centred on `(0, 0)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from diffdeblend.simulate.catalog import check_columns, numbers


class Placed(NamedTuple):
    """The sources of one blend, one entry each.

    - `row`: of the table that was given to the sampling function.
    - `x`, `y`: offset from the middle of the stamp in arcseconds; +x to the right.
    - `g1`, `g2`: reduced shear by a lens, after the turn.
    - `turn`: rotation about the source's own centre, radians, from +x to +y.
    - `dim`: magnitudes added in all bands.
    """

    row: Int[np.ndarray, "source"]
    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    g1: Float[np.ndarray, "source"]
    g2: Float[np.ndarray, "source"]
    turn: Float[np.ndarray, "source"]
    dim: Float[np.ndarray, "source"]

    @classmethod
    def of(
        cls,
        row: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        **others: ArrayLike,
    ) -> "Placed":
        """With 0 for what is not given; single numbers are repeated for all sources.

        **Raises:** `ValueError` for lengths that differ, rows that are no whole numbers, values
        that are not finite, or a shear that is not below 1.
        """
        unknown = sorted(set(others) - set(cls._fields))
        if unknown:
            raise ValueError(f"`others` may be {list(cls._fields[3:])}; got {unknown}.")
        rows = np.atleast_1d(np.asarray(row))
        with np.errstate(invalid="ignore"):
            whole = rows.astype(int)
        if rows.ndim != 1 or (whole != rows).any():
            raise ValueError(f"`row` must be whole numbers, one for each source; got {row}.")
        n = len(whole)
        values = {}
        for name, given in ({"x": x, "y": y} | others).items():
            value = np.asarray(given, dtype=float)
            if value.shape not in ((n,), (), (1,)):
                raise ValueError(
                    f"`{name}` needs one number for each `row`, {n}; got shape {value.shape}."
                )
            if not np.isfinite(value).all():
                raise ValueError(f"`{name}` must be finite; got {value}.")
            values[name] = np.full(n, value)
        absent = {name: np.zeros(n) for name in cls._fields[3:] if name not in values}
        placed = cls(whole, **values, **absent)
        if not (np.hypot(placed.g1, placed.g2) < 1).all():
            raise ValueError(f"`g1`, `g2` must be below 1; got {placed.g1} and {placed.g2}.")
        return placed

    @property
    def n_sources(self) -> int:
        return len(self.row)


class Sampling(Protocol):
    """A sampling function."""

    def __call__(self, table: Table, rng: np.random.Generator, /) -> Placed: ...


def check_needs(sampling: Sampling, table: Table) -> None:
    """**Raises:** `ValueError` that lists the columns `sampling.needs` that the table lacks."""
    name = getattr(sampling, "__name__", type(sampling).__name__)
    hint = getattr(sampling, "hint", "")
    check_columns(table, getattr(sampling, "needs", ()), f"`catalog` for the sampling {name}", hint)


def place(sampling: Sampling, table: Table, rng: np.random.Generator) -> Placed:
    """The sources of one blend, checked.

    **Raises:** `ValueError` if the sampling function returns something else than `Placed`, rows
    that the table does not have, or more sources than its own `most`; and as it does itself.
    """
    placed = sampling(table, rng)
    name = getattr(sampling, "__name__", type(sampling).__name__)
    if not isinstance(placed, Placed):
        raise ValueError(
            f"`sampling`: {name} must return Placed, as of Placed.of(row, x, y); "
            f"got {type(placed).__name__}."
        )
    placed = Placed.of(**placed._asdict())
    if placed.n_sources and not (placed.row.min() >= 0 and placed.row.max() < len(table)):
        raise ValueError(
            f"`sampling`: {name} chose rows {placed.row} of a table with {len(table)} rows."
        )
    most = getattr(sampling, "most", None)
    if most is not None and placed.n_sources > most:
        raise ValueError(
            f"`sampling`: {name} chose {placed.n_sources} sources, more than its `most`, {most}."
        )
    return placed


def outside(placed: Placed, stamp: float) -> Bool[np.ndarray, "source"]:
    """Which centres lie beyond the edge of a stamp of so many arcseconds."""
    return np.maximum(np.abs(placed.x), np.abs(placed.y)) > stamp / 2


# Sources that know nothing of each other.


@dataclass(frozen=True)
class Uniform:
    """Sources of a range of magnitudes, their number and their centres uniform.

    - `most`, `fewest`: number of sources, both included.
    - `stamp`: in arcseconds; `max_shift`: centres lie in a square of twice this side; by default a
        tenth of the stamp.
    - `faintest`, `brightest`: AB magnitude of the column `magnitude`.

    The usual choice of the BlendingToolKit; a galaxy may come twice.
    """

    most: int = 2
    fewest: int = 1
    stamp: float = 24.0
    max_shift: float | None = None
    faintest: float = 25.3
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_number(self.fewest, self.most)
        check_shift(self.max_shift, self.stamp)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude,)

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        n = int(rng.integers(self.fewest, self.most + 1))
        row = choose(rng, table, n, {self.magnitude: (self.brightest, self.faintest)})
        shift = self.stamp / 10 if self.max_shift is None else self.max_shift
        return Placed.of(row, *_square(rng, n, shift))


@dataclass(frozen=True)
class OneBright:
    """A bright galaxy among others, more widely spread the more they are.

    - `most`, `fewest`: number of sources, both included, the bright one too.
    - `bright`: AB magnitude at which it is bright. The others are brighter than `faintest`, or,
        with probability `deep_share`, all of them than `deep`.
    - `sizes`: half-light radius in arcseconds, above the first and at most the second.
    - `stamp`: in arcseconds; centres lie within its thirtieth times the root of the number of
        others along x and y, so that their density stays.

    The BlendingToolKit's BasicSampling, which takes for size the semi-major axes of CatSim.
    """

    most: int = 5
    fewest: int = 1
    stamp: float = 24.0
    bright: float = 24.0
    faintest: float = 25.3
    deep: float = 28.0
    deep_share: float = 0.1
    sizes: tuple[float, float] = (0.1, 2.0)
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_number(self.fewest, self.most, least=1)
        check_share("deep_share", self.deep_share)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude, "size")

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        n = int(rng.integers(self.fewest - 1, self.most))
        faintest = self.deep if rng.random() < self.deep_share else self.faintest
        row = [
            choose(rng, table, k, {self.magnitude: (-np.inf, limit), "size": self.sizes})
            for k, limit in ((1, self.bright), (n, faintest))
        ]
        return Placed.of(np.concatenate(row), *_square(rng, n + 1, self.stamp / 30 * np.sqrt(n)))


@dataclass(frozen=True)
class Poisson:
    """A piece of sky, with sources at random places and of random number.

    - `density`: sources per square arcminute; 185 is that of CatSim to 27.3 in i.
    - `stamp`: in arcseconds; `max_shift`: centres lie in a square of twice this side, by default
        the whole stamp.
    - `most`, `fewest`: the number is cut there.
    - `faintest`, `brightest`: AB magnitude of the column `magnitude`.
    """

    density: float = 185.0
    most: int = 40
    fewest: int = 0
    stamp: float = 24.0
    max_shift: float | None = None
    faintest: float = 27.3
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_number(self.fewest, self.most)
        check_shift(self.max_shift, self.stamp)
        if not 0 <= self.density < np.inf:
            raise ValueError(f"`density` must be at least 0; got {self.density}.")

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude,)

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        shift = self.stamp / 2 if self.max_shift is None else self.max_shift
        expected = self.density * (2 * shift / 60) ** 2
        n = int(np.clip(rng.poisson(expected), self.fewest, self.most))
        row = choose(rng, table, n, {self.magnitude: (self.brightest, self.faintest)})
        return Placed.of(row, *_square(rng, n, shift))


# Sources that belong together.


@dataclass(frozen=True)
class Pair:
    """Two galaxies, the first in the middle.

    - `separation`: in arcseconds, or a range from which it is uniform, in a random direction. None:
        the second lies in a square of twice `max_shift`, by default a tenth of the stamp.
    - `flux_ratio`: of the second to the first, or a range from which it is uniform: a galaxy as
        bright as the first ones, dimmed or brightened in all bands. None: one between `faintest`
        and `dim_faintest`.
    - `faintest`, `brightest`: AB magnitude of the first.

    With neither separation nor ratio it is the BlendingToolKit's PairSampling.
    """

    separation: float | tuple[float, float] | None = None
    flux_ratio: float | tuple[float, float] | None = None
    stamp: float = 24.0
    max_shift: float | None = None
    faintest: float = 25.3
    dim_faintest: float = 28.0
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_shift(self.max_shift, self.stamp)
        for name, least in (("separation", 0.0), ("flux_ratio", 1e-9)):
            value = getattr(self, name)
            if value is not None:
                low, high = _range(value)
                if not least <= low <= high < np.inf:
                    raise ValueError(
                        f"`{name}` must be a positive number or a rising pair; got {value}."
                    )

    @property
    def most(self) -> int:
        return 2

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude,)

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        bright = {self.magnitude: (self.brightest, self.faintest)}
        first = choose(rng, table, 1, bright)
        if self.flux_ratio is None:
            dim = np.zeros(2)
            faint = {self.magnitude: (self.faintest, self.dim_faintest)}
            second = choose(rng, table, 1, faint)
        else:
            second, ratio = choose(rng, table, 1, bright), rng.uniform(*_range(self.flux_ratio))
            magnitude = numbers(table, self.magnitude)
            wanted = magnitude[first[0]] - 2.5 * np.log10(ratio)
            dim = np.array([0.0, wanted - magnitude[second[0]]])
        if self.separation is None:
            shift = self.stamp / 10 if self.max_shift is None else self.max_shift
            (x,), (y,) = _square(rng, 1, shift)
        else:
            distance, angle = rng.uniform(*_range(self.separation)), rng.uniform(0, 2 * np.pi)
            x, y = distance * np.cos(angle), distance * np.sin(angle)
        return Placed.of(np.concatenate([first, second]), [0.0, x], [0.0, y], dim=dim)


@dataclass(frozen=True)
class Clustered:
    """Groups of sources: centres uniform in the stamp, members normal around them.

    - `most`, `fewest`: number of sources in all, both included, uniform.
    - `groups`: number of groups that they are dealt to at random.
    - `spread`: of a group, rms along x and along y, in arcseconds.
    - `stamp`: in arcseconds; `max_shift`: the groups' centres lie in a square of twice this side,
        by default a quarter of the stamp. Members beyond the stamp are placed anew.
    - `faintest`, `brightest`: AB magnitude of the column `magnitude`.
    """

    most: int = 8
    fewest: int = 2
    groups: int = 2
    spread: float = 1.0
    stamp: float = 24.0
    max_shift: float | None = None
    faintest: float = 25.3
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_number(self.fewest, self.most)
        check_number(1, self.groups, least=1)
        check_shift(self.max_shift, self.stamp)
        if not 0 <= self.spread <= self.stamp / 2:
            raise ValueError(
                f"`spread` must be between 0 and half of `stamp`, {self.stamp}; got {self.spread}."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude,)

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        n = int(rng.integers(self.fewest, self.most + 1))
        row = choose(rng, table, n, {self.magnitude: (self.brightest, self.faintest)})
        shift = self.stamp / 4 if self.max_shift is None else self.max_shift
        centre = np.stack(_square(rng, self.groups, shift), axis=1)
        centre = centre[rng.integers(self.groups, size=n)]
        found = centre + self.spread * rng.normal(size=(n, 2))
        # A centre in the stamp has at least a quarter of its members there: this ends soon.
        while (beyond := np.abs(found).max(axis=1, initial=0) > self.stamp / 2).any():
            found[beyond] = centre[beyond] + self.spread * rng.normal(size=(beyond.sum(), 2))
        return Placed.of(row, found[:, 0], found[:, 1])


@dataclass(frozen=True)
class Given:
    """The same places every time.

    - `x`, `y`: arcseconds from the middle of the stamp.
    - `rows`: of the table; None: drawn anew from those at least as bright as `faintest`.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    rows: tuple[int, ...] | None = None
    stamp: float = 24.0
    faintest: float = np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        for name in ("x", "y", "rows"):
            if getattr(self, name) is not None:
                # Hashable, and the same in a file of settings.
                values = np.atleast_1d(getattr(self, name)).tolist()
                object.__setattr__(self, name, tuple(values))
        rows = self.x if self.rows is None else self.rows
        if not len(self.x) == len(self.y) == len(rows):
            raise ValueError(
                f"`x`, `y` and `rows` need the same length; got {len(self.x)}, {len(self.y)} and "
                f"{len(rows)}."
            )

    @property
    def most(self) -> int:
        return len(self.x)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.magnitude,) if self.rows is None else ()

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        if self.rows is not None:
            return Placed.of(np.array(self.rows, int), self.x, self.y)
        row = choose(rng, table, len(self.x), {self.magnitude: (-np.inf, self.faintest)})
        return Placed.of(row, self.x, self.y)


# Small helpers.


def choose(
    rng: np.random.Generator, table: Table, n: int, limits: Mapping[str, tuple[float, float]]
) -> Int[np.ndarray, "source"]:
    """Random rows, perhaps the same one twice, of those within all limits.

    - `limits`: columns, each with what its value must be above and what at most.

    **Raises:** `ValueError` if there is no such row.
    """
    if n == 0:
        return np.zeros(0, int)
    columns = [numbers(table, name) for name in limits]

    def within(rows: Any) -> Bool[np.ndarray, "row"]:
        good = [
            (values[rows] > above) & (values[rows] <= most)
            for values, (above, most) in zip(columns, limits.values(), strict=True)
        ]
        return np.logical_and.reduce(good)

    if len(table):
        # Of 90,000 rows to find all that are good takes 0.2 ms, as long as to draw a source.
        tried = rng.integers(len(table), size=32 + 8 * n)
        tried = tried[within(tried)]
        if len(tried) >= n:
            return tried[:n]
    (rows,) = np.nonzero(within(slice(None)))
    if not len(rows):
        asked = [f"{name} above {low} and at most {high}" for name, (low, high) in limits.items()]
        have = [
            f"{name} {np.min(values, initial=np.inf):.4g} to {np.max(values, initial=-np.inf):.4g}"
            for name, values in zip(limits, columns, strict=True)
        ]
        raise ValueError(
            f"`catalog` has no source with {' and '.join(asked)}, which the sampling asks for; "
            f"its {len(table)} have {', '.join(have)}."
        )
    return rows[rng.integers(len(rows), size=n)]


def _square(rng: np.random.Generator, n: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(-shift, shift, n), rng.uniform(-shift, shift, n)


def _range(value: float | tuple[float, float]) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, tuple | list) else (value, value)


def check_number(fewest: int, most: int, least: int = 0) -> None:
    if not (int(fewest) == fewest and int(most) == most and least <= fewest <= most and most >= 1):
        raise ValueError(
            f"`fewest` and `most` must be whole numbers, at least {least} and 1, and rise; "
            f"got {fewest} and {most}."
        )


def check_shift(max_shift: float | None, stamp: float) -> None:
    if not 0 < stamp < np.inf:
        raise ValueError(f"`stamp` must be a positive number of arcseconds; got {stamp}.")
    if max_shift is not None and not 0 <= max_shift <= stamp / 2:
        raise ValueError(
            f"`max_shift` must be between 0 and half of `stamp`, {stamp}; got {max_shift}."
        )


def check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"`{name}` must be between 0 and 1; got {share}.")
