"""Our own deblender as a measure: all blends at once, by `fit_batch`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from diffdeblend.batch import Blend, Found, blend_of_arrays, fit_batch
from diffdeblend.batch.draw import draw_sources
from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Flag
from diffdeblend.score.measured import Measured, add_column, batched, catalog_of
from diffdeblend.score.measurers.find import find_sources
from diffdeblend.score.stamps import Stamps, stamps_of

# Nearer than this to a source that is known, a peak of the residual is what its model lacks.
_NEAR = 3.0
# Two positions closer than this are one, in pixels: a little over what `check_positions` refuses.
_ONE = 0.11
# Fraction of the light by which models may be wrong, in the search for what they left.
_LENIENT = 0.05
# Blends whose models are held together in that search.
_FEW = 64
_VALUES = (
    *("x", "y", "radius", "index", "radius_ratio", "shear_ratio", "ellipticity", "flux"),
    *("bulge_flux", "kind", "flags", "x_err", "y_err", "radius_err", "index_err"),
    *("ellipticity_err", "flux_err"),
)


@batched
def fit_blends(
    blends: Any,
    positions: Sequence[Float[np.ndarray, "source 2"]] | None = None,
    *,
    threshold: float = 5.0,
    sharp_threshold: float | None = 5.5,
    rounds: int = 2,
    residual_threshold: float = 6.0,
    images: bool = True,
    most: int | None = None,
    background: str = "none",
    report: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> list[Measured]:
    """Every blend taken apart by models with a sky, shapes and fluxes, and errors on all.

    - `blends`: a `Blends`; see `stamps_of` for what is needed of it.
    - `positions`: x and y of the sources of each blend, in pixels. The catalogue has a row for
        each: of one that is outside the stamp, or within 0.1 pixels of another, without values and
        with the flag `NON_FINITE`. None: they are found by `find_sources`.
    - `threshold`, `sharp_threshold`: as in `find_sources`.
    - `rounds`: how often sources are searched for: first in the images, then in what the fit before
        left, with peaks above `residual_threshold` added. 1: no second search.
    - `images`: whether to draw the models as deblended images; they take memory.
    - `most`: largest number of sources; the ones of largest flux are kept (all are fitted), and
        `truncated` says so.
    - `background`: as in `fit_batch`; simulated blends have their sky subtracted.
    - `report`: called with the number of finished fits and of those known to be needed.
    - `settings`: as in `fit_batch`, such as `model="sersic"`; but for `kinds` and `covariance`.
        With `free_form` fluxes are those of the free pixels, and images still those of the models.

    Gives for each blend, besides `x`, `y`, `ra`, `dec`: `flux_{band}` (total, of the light beyond
    the PSF's stamp too), `radius` (half-light, pixels), `index`, `g1`, `g2` (reduced shear of the
    galaxy itself), `model`, each with its error under its name with `_err` (`flux_err_{band}`), and
    `flags`, bits of `Flag`.

    **Raises:** `ValueError` for a setting that `fit_batch` refuses, `kinds` or `covariance`, fewer
    than one round, or another number of positions than of blends.
    """
    # These go by blend, and blends without a source are not fitted.
    if refused := {"kinds", "covariance"} & set(settings):
        raise ValueError(f"`settings` may not have {' and '.join(sorted(refused))}.")
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1; got {rounds}.")
    stamps = stamps_of(blends)
    options = {"background": background, "report": report, **settings}
    if positions is not None:
        if len(positions) != stamps.n_blends:
            raise ValueError(
                f"`positions` needs an entry a blend, {stamps.n_blends}; got {len(positions)}."
            )
        given = [np.asarray(p, float).reshape(-1, 2) for p in positions]
        fits = _fit(stamps, dict(enumerate(given)), options)
    else:
        given = find_sources(
            stamps.images,
            stamps.variance,
            stamps.psf_images,
            stamps.psf_index,
            threshold=threshold,
            sharp_threshold=sharp_threshold,
        )
        fits = _fit(stamps, dict(enumerate(given)), options)
        for _ in range(1, rounds):
            more = _left_over(stamps, fits, residual_threshold)
            again = {n: np.concatenate([given[n], more[n]]) for n in more if len(more[n])}
            given = [again.get(n, place) for n, place in enumerate(given)]
            fits |= _fit(stamps, again, options)
    return _results(stamps, given, fits, images, most)


def _blend(stamps: Stamps, number: int, positions: np.ndarray) -> Blend:
    variance = stamps.variance[number]
    return blend_of_arrays(
        stamps.images[number],
        np.where(variance > 0, variance, np.inf),
        stamps.psf(number),
        positions,
    )


class _Of(NamedTuple):
    """Where the fit of a blend is.

    - `found`, `number`: of a batch of fits, and the place of the blend in it.
    - `rows`: which of its positions were fitted.
    """

    found: Found
    number: int
    rows: Int[np.ndarray, "fitted"]


def _fit(
    stamps: Stamps, positions: dict[int, np.ndarray], options: dict[str, Any]
) -> dict[int, _Of]:
    """Fits of some blends, by their numbers; those without a source are left out."""
    rows = {n: _possible(place, stamps.shape) for n, place in positions.items()}
    lit = [n for n in positions if len(rows[n])]
    found = fit_batch([_blend(stamps, n, positions[n][rows[n]]) for n in lit], **options)
    return {n: _Of(found, place, rows[n]) for place, n in enumerate(lit)}


def _possible(positions: np.ndarray, shape: tuple[int, ...]) -> Int[np.ndarray, "fitted"]:
    """Rows of the positions that can be fitted: inside the stamp, the first of each that is one."""
    x, y = positions.T
    inside = (x >= -0.5) & (x <= shape[1] - 0.5) & (y >= -0.5) & (y <= shape[0] - 0.5)
    rows = np.flatnonzero(inside)
    twice = {max(pair) for pair in KDTree(positions[rows]).query_pairs(_ONE)} if len(rows) else ()
    return np.delete(rows, sorted(twice))


def _gathered(stamps: Stamps, fits: dict[int, _Of]) -> tuple[dict[str, Any], dict[int, slice]]:
    """Values of all fitted sources, a row each, and the rows of each blend."""
    order = sorted(fits)
    places, start = {}, 0
    for n in order:
        places[n] = slice(start, start + len(fits[n].rows))
        start = places[n].stop
    values = {}
    for name in _VALUES:
        parts = [getattr(fits[n].found, name)[fits[n].found.rows(fits[n].number)] for n in order]
        values[name] = np.concatenate(parts)
    values["psf"] = np.repeat(stamps.psf_index[order], [len(fits[n].rows) for n in order])
    return values, places


def _left_over(
    stamps: Stamps, fits: dict[int, _Of], threshold: float
) -> dict[int, Float[np.ndarray, "source 2"]]:
    """Sources in what the fit left of each blend."""
    left, order = {}, sorted(fits)
    for first in range(0, len(order), _FEW):
        some = {n: fits[n] for n in order[first : first + _FEW]}
        values, places = _gathered(stamps, some)
        models = draw_sources(values, stamps.psf_images, values["psf"], stamps.shape)
        numbers = list(some)
        light = np.stack([models[places[n]].sum(axis=0) for n in numbers])
        sky = np.stack([of.found.sky[of.number][:, :1].sum(axis=1) for of in some.values()])
        residual = stamps.images[numbers] - light - sky[:, :, None, None].astype(np.float32)
        noise = stamps.variance[numbers]
        # What is not used must stay so.
        noise = np.where(noise > 0, noise + (_LENIENT * light) ** 2, noise)
        peaks = find_sources(
            residual,
            noise,
            stamps.psf_images,
            stamps.psf_index[numbers],
            threshold=threshold,
            sharp_threshold=None,
        )
        for n, new in zip(numbers, peaks, strict=True):
            own = places[n]
            known = np.stack([values["x"][own], values["y"][own]], axis=1)
            apart = np.hypot(*(new[:, None] - known).transpose(2, 0, 1)).min(axis=1)
            left[n] = new[apart > _NEAR]
    return left


def _results(
    stamps: Stamps,
    positions: Sequence[np.ndarray],
    fits: dict[int, _Of],
    images: bool,
    most: int | None,
) -> list[Measured]:
    """A table for each blend: the slices of one of all."""
    first = np.concatenate([[0], np.cumsum([len(p) for p in positions])]).astype(int)
    fitted = np.concatenate([np.zeros(0, int), *[first[b] + fits[b].rows for b in sorted(fits)]])
    given = np.concatenate([np.zeros((0, 2)), *positions])
    values, places = _gathered(stamps, fits) if fits else ({}, {})
    table = _table(stamps, given, fitted, values)
    flux = np.nansum(np.stack([table[f"flux_{b}"] for b in stamps.bands]), axis=0)
    models = None
    if images:
        psf_of = values.get("psf", np.zeros(0, int))
        models = draw_sources(values, stamps.psf_images, psf_of, stamps.shape) if fits else None
    made = []
    for number, place in enumerate(positions):
        rows = slice(int(first[number]), int(first[number + 1]))
        own = None
        if images:
            own = np.zeros((len(place), len(stamps.bands), *stamps.shape), np.float32)
            if number in fits and models is not None:
                if len(fits[number].rows) == len(place):
                    own = models[places[number]]
                else:
                    own[fits[number].rows] = models[places[number]]
        made.append(Measured(table[rows], None, own).brightest(most, flux[rows]))
    return made


def _table(
    stamps: Stamps,
    positions: Float[np.ndarray, "source 2"],
    fitted: Int[np.ndarray, "fitted"],
    values: dict[str, Any],
) -> Any:
    """All sources of all blends; of those that were not fitted, their positions alone."""

    def whole(name: str, column: int | None = None) -> np.ndarray:
        made = np.full(len(positions), np.nan)
        if len(fitted):
            made[fitted] = values[name] if column is None else values[name][:, column]
        return made

    flags = np.full(len(positions), int(Flag.NON_FINITE))
    kind = np.full(len(positions), "none", dtype="<U12")
    at = positions.copy()
    if len(fitted):
        flags[fitted] = values["flags"]
        kind[fitted] = [Kind(int(k)).name.lower() for k in values["kind"]]
        centre = np.stack([values["x"], values["y"]], axis=1)
        # A fit that failed has no place: the one given stands.
        at[fitted] = np.where(np.isfinite(centre), centre, at[fitted])
    table: Any = catalog_of(at, stamps.header, stamps.shape)
    add_column(table, "model", kind, "Kind of model; none where the source was not fitted")
    sigma = "Its standard deviation"
    for name in "xy":
        add_column(table, f"{name}_err", whole(f"{name}_err"), f"{sigma}, pixels")
    # Light beyond the stamp of the PSF, which the fit took for none.
    share = stamps.psf_images.sum(axis=(2, 3))
    for k, band in enumerate(stamps.bands):
        seen = np.ones(len(positions))
        if len(fitted):
            seen[fitted] = share[values["psf"], k]
        add_column(table, f"flux_{band}", whole("flux", k) / seen, "Total flux, unit of the image")
        add_column(table, f"flux_err_{band}", whole("flux_err", k) / seen, sigma)
    add_column(table, "radius", whole("radius"), "Half-light radius before the shear, pixels")
    add_column(table, "radius_err", whole("radius_err"), f"{sigma}, pixels")
    add_column(table, "index", whole("index"), "Sersic index")
    add_column(table, "index_err", whole("index_err"), sigma)
    for k, name in enumerate(("g1", "g2")):
        add_column(table, name, whole("ellipticity", k), "Reduced shear")
        add_column(table, f"{name}_err", whole("ellipticity_err", k), sigma)
    add_column(table, "flags", flags, "Bits of diffdeblend.deblend.catalog.Flag")
    return table
