"""Which of the sources are stars: those of one size, whatever their flux."""

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int
from scipy.spatial import KDTree

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.polynomials import chebyshev_design, n_terms

_ROUNDS = 8


def stellar_locus(
    size: ArrayLike,
    snr: ArrayLike,
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    shape: tuple[int, int] | None = None,
    min_snr: float = 30.0,
    size_range: tuple[float, float] = (0.7, 10.0),
    width: float = 0.15,
    n_sigma: float = 2.5,
    floor: float = 0.02,
) -> Bool[np.ndarray, "n"]:
    """True for sources of the stars' size. Host side.

    Stars share one size at all magnitudes, so they are where most sources lie within a narrow
    window of log size; that window is moved over all sizes, so neither cosmic rays, which are
    smaller, nor galaxies, which are larger, decide where it begins. With places given the size may
    vary over the image as a polynomial, of as high a degree (0 to 2) as the stars allow; members
    are then clipped around it, and taken in again, until they stay the same.

    - `size`: of each source, sigma in pixels, shape `(n,)`; NaN is no star.
    - `snr`: signal over noise.
    - `x`, `y`, `shape`: places in pixels, and the image's (ny, nx).
    - `min_snr`: least `snr`; below it sizes are too noisy to tell.
    - `size_range`: least and largest size of a star.
    - `width`: of the window, as a fraction of the size, to either side.
    - `n_sigma`: how far from the locus a star may be, in its robust standard deviations, which
        count as at least `floor` (a fraction of the size).

    **Raises:** `ValueError` for arrays of different lengths, no source at all, or none that is
    bright enough.

    ??? cite
        The object-size star selector of the LSST Science Pipelines, Bosch et al. (2018), PASJ 70,
        S5, section 4.2, begins at the size at 10 % of the sorted list, which is not a star's if
        more than that are cosmic rays.
    """
    size, snr = np.asarray(size, float), np.asarray(snr, float)
    if size.shape != snr.shape or size.ndim != 1:
        raise ValueError(
            f"`size` and `snr` need one number per source; got {size.shape} and {snr.shape}."
        )
    if not size.size:
        raise ValueError("`size` holds no source: nothing was found on the image.")
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(size) & (snr >= min_snr)
        usable &= (size >= size_range[0]) & (size <= size_range[1])
    if not usable.any():
        raise ValueError(
            f"none of the {size.size} sources has `snr` of at least {min_snr:g} and `size` within "
            f"{size_range}; lower `min_snr`, or check the variance."
        )
    log = np.log(np.where(usable, size, 1.0))
    values = np.sort(log[usable])
    # Where most members are within the window.
    last = np.searchsorted(values, values + 2 * width, side="right")
    count = last - np.arange(len(values))
    first = int(np.argmax(count))
    middle = np.median(values[first : last[first]])
    terms = _terms(x, y, shape, size.size)
    members = usable & (np.abs(log - middle) < width)
    for _ in range(_ROUNDS):
        centre = _field(log, members, terms)
        away = log - centre
        spread = max(MAD_TO_STD * np.median(np.abs(away[members])), floor)
        now = usable & (np.abs(away) < n_sigma * spread)
        if now.sum() < 3 or (now == members).all():
            break
        members = now
    return members


def _terms(
    x: ArrayLike | None, y: ArrayLike | None, shape: tuple[int, int] | None, n: int
) -> Float[np.ndarray, "n term"]:
    if x is None or y is None or shape is None:
        return np.ones((n, 1))
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != (n,) or y.shape != (n,):
        raise ValueError(f"`x` and `y` need {n} numbers each; got {x.shape} and {y.shape}.")
    return chebyshev_design(x, y, shape, 2)


def _field(log: np.ndarray, members: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Log size over the image, of the highest degree that has five stars a term."""
    n = int(members.sum())
    degree = max((d for d in range(3) if n_terms(d) * 5 <= n), default=0)
    design = terms[:, : min(n_terms(degree), terms.shape[1])]
    if design.shape[1] == 1:
        return np.full(log.shape, np.median(log[members]))
    weight = np.ones(n)
    for _ in range(3):
        root = np.sqrt(weight)[:, None]
        found = np.linalg.lstsq(design[members] * root, log[members] * root[:, 0], rcond=None)[0]
        away = log[members] - design[members] @ found
        scale = max(MAD_TO_STD * np.median(np.abs(away)), 1e-6)
        weight = 1 / (1 + (away / (2 * scale)) ** 2)
    return design @ found


def reserve_stars(n: int, fraction: float = 0.2, *, seed: int = 0) -> Bool[np.ndarray, "n"]:
    """True for the stars kept out of the determination, to judge it by. Host side.

    `round(n * fraction)` of them, drawn without regard to what they look like; the same seed draws
    the same.

    **Raises:** `ValueError` for a fraction that is not at least 0 and below 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"`reserve` must be at least 0 and below 1; got {fraction}.")
    reserved = np.zeros(n, bool)
    reserved[np.random.default_rng(seed).permutation(n)[: round(n * fraction)]] = True
    return reserved


def spread_stars(
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    snr: Float[np.ndarray, "n"],
    shape: tuple[int, int],
    limit: int,
    *,
    cells: int = 6,
) -> Int[np.ndarray, "chosen"]:
    """Indices of at most `limit` stars: the brightest of every cell of the image in turn."""
    column = np.clip((x / shape[1] * cells).astype(int), 0, cells - 1)
    row = np.clip((y / shape[0] * cells).astype(int), 0, cells - 1)
    cell = row * cells + column
    # The place of each star in the list of its own cell, the brightest first.
    order = np.lexsort((-snr, cell))
    first = np.searchsorted(cell[order], cell[order])
    turn = np.empty(len(x), int)
    turn[order] = np.arange(len(x)) - first
    return np.sort(np.lexsort((-snr, turn))[:limit])


def neighbours_of(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], radius: float, most: int
) -> tuple[Int[np.ndarray, "n most"], Float[np.ndarray, "n most"]]:
    """Indices and distances of the `most` nearest others within `radius`; -1 and inf for none."""
    if len(x) < 2:
        return np.full((len(x), most), -1), np.full((len(x), most), np.inf)
    tree = KDTree(np.stack([x, y], axis=1))
    count = min(most + 1, len(x))
    # Each is the nearest to itself.
    distance, index = tree.query(tree.data, k=count, distance_upper_bound=radius)
    distance, index = np.asarray(distance)[:, 1:], np.asarray(index)[:, 1:]
    index = np.where(np.isfinite(distance), index, -1)
    missing = ((0, 0), (0, most - index.shape[1]))
    return (
        np.pad(index, missing, constant_values=-1),
        np.pad(distance, missing, constant_values=np.inf),
    )
