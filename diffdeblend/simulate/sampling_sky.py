"""Sources where the catalogue's own sky has them: squares of it, and groups of neighbours."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from diffdeblend.simulate.catalog import Catalog, check_columns, numbers
from diffdeblend.simulate.sampling import Placed, check_number, check_shift

_ARCSEC = 3600.0
_TRIES = 1000


@dataclass(frozen=True)
class SkySquare:
    """All sources of a random square of the catalogue's sky, columns `ra` and `dec` in degrees.

    - `stamp`: side in arcseconds. The square lies within the range of the catalogue.
    - `fewest`: squares with fewer are passed over; `most`: of more, the brightest are taken.
    - `faintest`, `brightest`: AB magnitude of the column `magnitude`.

    +x is towards larger right ascension, as in the maps of blends.
    """

    stamp: float = 24.0
    most: int = 20
    fewest: int = 1
    faintest: float = 25.3
    brightest: float = -np.inf
    magnitude: str = "magnitude"

    def __post_init__(self):
        check_number(self.fewest, self.most)
        check_shift(None, self.stamp)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("ra", "dec", self.magnitude)

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        magnitude = numbers(table, self.magnitude)
        there = (magnitude > self.brightest) & (magnitude <= self.faintest)
        ra, dec = _sky(table)
        half = self.stamp / 2 / _ARCSEC
        middle_dec = (dec.max() + dec.min()) / 2
        wide = half / np.cos(np.deg2rad(middle_dec))
        if np.ptp(ra) < 2 * wide or np.ptp(dec) < 2 * half:
            raise ValueError(
                f'`stamp` of {self.stamp}" is larger than the sky of `catalog`, '
                f"{np.ptp(ra):.4g} x {np.ptp(dec):.4g} degrees."
            )
        for _ in range(_TRIES):
            ra_0 = rng.uniform(ra.min() + wide, ra.max() - wide)
            dec_0 = rng.uniform(dec.min() + half, dec.max() - half)
            x = (ra - ra_0) * np.cos(np.deg2rad(dec_0)) * _ARCSEC
            y = (dec - dec_0) * _ARCSEC
            inside = np.maximum(np.abs(x), np.abs(y)) < self.stamp / 2
            (rows,) = np.nonzero(there & inside)
            if len(rows) >= self.fewest:
                rows = rows[np.argsort(magnitude[rows], kind="stable")][: self.most]
                return Placed.of(rows, x[rows], y[rows])
        raise ValueError(
            f"`fewest`: {_TRIES} squares of the sky of `catalog` have fewer than {self.fewest} "
            f"sources each above {self.brightest} and at most {self.faintest}."
        )


@dataclass(frozen=True)
class SkyGroup:
    """A group of neighbours in the catalogue's sky, each group as likely as any other.

    - `most`, `fewest`: number of sources, both included; larger and smaller groups are passed over.
    - `stamp`: in arcseconds; so are those that are wider. The mean of its places is the middle.

    It reads the column `group`, see `with_groups`, and `ra` and `dec` in degrees. +x is towards
    larger right ascension.
    """

    most: int = 10
    fewest: int = 2
    stamp: float = 24.0

    def __post_init__(self):
        check_number(self.fewest, self.most)
        check_shift(None, self.stamp)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("ra", "dec", "group")

    @property
    def hint(self) -> str:
        return "`with_groups(catalog)` adds `group`."

    def __call__(self, table: Table, rng: np.random.Generator) -> Placed:
        group = np.asarray(table["group"])
        count = np.bincount(group[group >= 0], minlength=1)
        (good,) = np.nonzero((count >= max(self.fewest, 1)) & (count <= self.most))
        ra_all, dec_all = _sky(table)
        # Each at most once: without a group that fits, this ends.
        for chosen in rng.permutation(good):
            (rows,) = np.nonzero(group == chosen)
            ra, dec = ra_all[rows], dec_all[rows]
            x = (ra - ra.mean()) * np.cos(np.deg2rad(dec.mean())) * _ARCSEC
            y = (dec - dec.mean()) * _ARCSEC
            if max(np.abs(x).max(), np.abs(y).max()) <= self.stamp / 2:
                return Placed.of(rows, x, y)
        raise ValueError(
            f'`catalog` has no group of {self.fewest} to {self.most} sources within {self.stamp}" '
            f"among its {len(good)} of that number; try `with_groups` of another `link`."
        )


def with_groups(
    catalog: Catalog,
    *,
    link: float = 2.5,
    faintest: float = 25.3,
    brightest: float = -np.inf,
    magnitude: str = "magnitude",
) -> Catalog:
    """Adds the column `group`: friends of friends, numbered from 0; -1 beyond the magnitudes.

    - `link`: two sources closer than this, in arcseconds, are in one group.
    - `faintest`, `brightest`: AB magnitude of the column `magnitude`.

    **Raises:** `ValueError` if `ra`, `dec` (degrees) or the magnitude is not there, or `link` is
    not positive.

    ??? cite
        Huchra & Geller (1982), ApJ 257, 423.
    """
    check_columns(catalog.table, ("ra", "dec", magnitude), "`catalog`")
    if not 0 < link < np.inf:
        raise ValueError(f"`link` must be a positive number of arcseconds; got {link}.")
    values = numbers(catalog.table, magnitude)
    (rows,) = np.nonzero((values > brightest) & (values <= faintest))
    group = np.full(len(catalog), -1)
    if len(rows):
        ra, dec = (np.deg2rad(numbers(catalog.table, name)[rows]) for name in ("ra", "dec"))
        # On the sphere: neither the poles nor 0 h are special.
        where = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
        chord = 2 * np.sin(np.deg2rad(link / _ARCSEC) / 2)
        pairs = KDTree(where).query_pairs(chord, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(rows), len(rows)))
        group[rows] = connected_components(links, directed=False)[1]
    return catalog.with_columns(group=group)


def _sky(table: Table) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"]]:
    """In degrees, right ascension without a jump inside a catalogue narrower than half the sky."""
    ra, dec = numbers(table, "ra"), numbers(table, "dec")
    return (ra - ra[0] + 180) % 360 - 180, dec
