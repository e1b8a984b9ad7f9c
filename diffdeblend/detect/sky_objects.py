"""Places where there is nothing: to measure the sky as if it were a source. Host side."""

import numpy as np
from jaxtyping import Bool, Float, Int


class InsufficientSourcesError(ValueError):
    """There are too few places of empty sky to measure anything there."""


def sky_objects(
    hidden: Bool[np.ndarray, "y x"],
    *,
    n: int = 1000,
    radius: int = 8,
    seed: int = 0,
    max_trials: int | None = None,
) -> Int[np.ndarray, "place 2"]:
    """Pixels (x, y) with discs around them that touch no hidden pixel and not one another.

    Places are tried in the order of a Halton sequence: evenly spread, and the same for a seed.

    - `hidden`: true where there is light of sources, or no data.
    - `n`: how many are wanted; fewer come back where there is no room.
    - `radius`: of the discs, in pixels. They stay one pixel away from the border of the image.
    - `max_trials`: places that are tried; default: five for each that is wanted.

    **Raises:** `ValueError` for an argument out of its range.

    ??? cite
        Halton (1960), Numer. Math. 2, 84.
    """
    for name, value in (("n", n), ("radius", radius)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1; got {value!r}.")
    hidden = np.asarray(hidden)
    if hidden.dtype != bool or hidden.ndim != 2:
        raise ValueError(
            f"`hidden` needs booleans of shape (y, x); got {hidden.dtype}, {hidden.shape}."
        )
    trials = 5 * n if max_trials is None else max_trials
    ny, nx = hidden.shape
    room = np.array([nx, ny]) - 2 * (radius + 1)
    if room.min() < 1:
        return np.zeros((0, 2), np.int64)
    # A shift by the seed keeps the spread.
    even = np.stack([_radical_inverse(trials, base) for base in (2, 3)], axis=1)
    even = (even + np.random.default_rng(seed).random(2)) % 1
    places = (even * room).astype(np.int64) + radius + 1
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = dy**2 + dx**2 <= radius**2
    free = ~hidden[places[:, 1, None] + dy[disc], places[:, 0, None] + dx[disc]].any(axis=1)
    places = places[free]
    chosen = np.zeros((n, 2), np.int64)
    count = 0
    for place in places:
        away = chosen[:count] - place
        if not count or np.einsum("nk,nk->n", away, away).min() > 4 * radius**2:
            chosen[count] = place
            count += 1
            if count == n:
                break
    return chosen[:count]


def _radical_inverse(n: int, base: int) -> Float[np.ndarray, "n"]:
    """The digits of 1 to n, behind the point and from the last to the first."""
    number, place, found = np.arange(1, n + 1), 1.0, np.zeros(n)
    while number.any():
        place /= base
        number, digit = np.divmod(number, base)
        found += digit * place
    return found


def forced_psf_fluxes(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    psf: Float[np.ndarray, "h w"],
    places: Int[np.ndarray, "place 2"],
    hidden: Bool[np.ndarray, "y x"] | None = None,
) -> tuple[Float[np.ndarray, "place"], Float[np.ndarray, "place"], float]:
    r"""Flux of the PSF at each place, its error, and the area of the PSF.

    $f = \sum P d / \sum P^2$ with the error $\sqrt{\sum P^2 v} / \sum P^2$; pixels that are hidden
    or outside of the image are left out. The area is $1 / \sum P^2$: a sky of level b has the flux
    b times the area.

    - `psf`: odd, of unit sum; `variance`: shape `(y, x)` or `(1, 1)`.
    """
    ny, nx = image.shape
    h, w = psf.shape
    y = places[:, 1, None, None] + (np.arange(h) - h // 2)[:, None]
    x = places[:, 0, None, None] + (np.arange(w) - w // 2)
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    values = image[y, x].astype(float)
    noise = np.broadcast_to(variance, image.shape)[y, x].astype(float)
    good = inside & np.isfinite(values) & np.isfinite(noise)
    if hidden is not None:
        good &= ~hidden[y, x]
    weight = np.where(good, psf, 0.0)
    # An unweighted mean: what is left out scales both sums.
    squared = np.maximum((weight**2).sum(axis=(1, 2)), 1e-300)
    share = np.maximum(weight.sum(axis=(1, 2)), 1e-300)
    flux = (weight * np.where(good, values, 0)).sum(axis=(1, 2)) / squared
    error = np.sqrt((weight**2 * np.where(good, noise, 0)).sum(axis=(1, 2))) / squared
    seen = share > 0.5
    return (
        np.where(seen, flux, np.nan),
        np.where(seen, error, np.nan),
        float(psf.sum() / np.sum(psf**2)),
    )
