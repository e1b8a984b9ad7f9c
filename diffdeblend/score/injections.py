"""A deblender's test on a real image: sources put where none were, and what it makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Bool, Float, Int

from diffdeblend.components import PointSource
from diffdeblend.exposure import Exposure
from diffdeblend.grid import fine
from diffdeblend.header import Numbers
from diffdeblend.positions import check_finite
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render
from diffdeblend.score.columns import detection_rows, with_fluxes
from diffdeblend.score.fluxes import flux_error
from diffdeblend.score.inject import Injected, camera_of, inject, place_pixels
from diffdeblend.score.matching import Matching, euclidean, match, nearest_neighbour
from diffdeblend.score.measured import Measure, Measured
from diffdeblend.score.measurers.images import pixels_of
from diffdeblend.score.run import measure_blends
from diffdeblend.score.score import Scores
from diffdeblend.score.summary import binned, summarise
from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.keys import DEFAULT_SEED, stream
from diffdeblend.simulate.sampling import Placed

# Rows whose own magnitude is nearest to the one that is wanted, of which one is taken.
_LIKE = 20
# Places that are tried before it is said that there is no room.
_TRIES = 2000
# Side of the stamp of a PSF that is no image.
_PSF_SIDE = 65


@dataclass(frozen=True, eq=False)
class InjectionTest:
    """What a measure made of sources that were injected.

    - `scores`: as `score` gives them, a blend an injected image; its intervals draw images again.
        A detection that was there before is none of `detections`. `per_source` also has
        `before`: not detected, but there was a detection nearby before, within the distance for a
        match; `replaced`: detected, in the place of such a one, which is gone, so that the two may
        be one source for the measure; `gross`: not detected, but there was a new detection nearby
        with a flux that cannot be its own (see `max_flux_error`); `distance_before`: to the nearest
        detection (or source that the measure was told of) in the image without injection, pixels.
    - `baseline`: what the measure found in the image as it is.
    - `images`: a row an image: `blend`, `detections`, `lost` (detections that were there before and
        have no partner), `extra` (new ones that are none of the injected sources), `failed`.
    - `errors`: what went wrong, by the number of the image; -1 is the image as it is.
    - `seconds`: of all images on the wall clock.
    """

    scores: Scores
    baseline: Measured
    images: Table
    errors: dict[int, str]
    seconds: float

    @property
    def per_source(self) -> Any:
        """A row an injected source: truth, what was measured, errors and pulls."""
        return self.scores.per_source

    def binned(
        self,
        bins: int | Sequence[float] = 5,
        by: str = "magnitude",
        columns: Sequence[str] | None = None,
    ) -> Table:
        """Completeness (`recall`), flux errors and pulls, with `_scatter`, against magnitude.

        As `diffdeblend.score.summary.binned`, with the shares `before`, `replaced` and
        `gross` of each bin.
        """
        table: Any = binned(self.scores, by, bins, columns)
        values = np.asarray(self.per_source[by], float)
        for name in ("before", "replaced", "gross"):
            shares = []
            for low, high in zip(table["low"], table["high"], strict=True):
                last = high == table["high"][-1]
                inside = (values >= low) & ((values < high) | (last & (values == high)))
                some = np.asarray(self.per_source[name])[inside]
                shares.append(float(some.mean()) if len(some) else np.nan)
            table[name] = shares
        return table


def injection_test(
    exposure: Exposure,
    catalog: Catalog,
    measures: Sequence[Measure | Callable[..., Any]] | Measure | Callable[..., Any],
    n: int,
    *,
    seed: int = DEFAULT_SEED,
    sources: int = 1,
    band: str = "r",
    magnitudes: tuple[float, float] | None = None,
    noise: str = "galaxy",
    gain: Numbers | None = None,
    survey: str = "",
    known: Float[np.ndarray, "known 2"] | None = None,
    positions: str = "detect",
    avoid: float = 0.0,
    apart: float = 20.0,
    edge: float = 0.0,
    max_distance: float = 3.0,
    max_flux_error: float = np.inf,
    draws: int = 400,
    confidence: float = 0.6826894921,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, InjectionTest]:
    """Inject sources at random places, a few at a time, measure, and compare; by measure.

    All measures see the same images, and the one without injection, which is their baseline. An
    injected source is detected if a detection is its own when injected sources and the detections
    of the baseline together are matched with those of the image: what was there before stays what
    it was, whatever lands next to it.

    - `measures`: see `measure_blends`, as are `workers` and `report`.
    - `n`: number of images; `sources`: injected in each, `apart` pixels from each other at least.
        Image k is the same for any `n`.
    - `band`: of `magnitudes` and of the scores' columns `magnitude` and `snr`.
    - `magnitudes`: range in which magnitudes are uniform: rows are taken whose own is near, and
        dimmed or brightened by the rest. None: all rows alike, with their own magnitudes.
    - `noise`, `gain`, `survey`: as in `inject`.
    - `known`: x and y of real sources, pixels. `positions`: `"detect"`: the measures are told
        nothing; `"known"`: they are told of these and of the injected ones.
    - `avoid`: least distance of an injected source from the `known` ones, pixels; 0: anywhere.
    - `edge`: least distance from the borders of the image, pixels. A central pixel is in use in
        all bands.
    - `max_distance`: of a match, pixels. `max_flux_error`: the largest relative error of its flux
        in `band`, where the measure has one: a detection of ten times the flux is of something
        else, that happens to be near.
    - `draws`, `confidence`: as in `score`.

    Sources are turned at random. Places and noise of the image itself are those of one piece of
    sky: intervals do not know that another piece has other neighbours.

    **Raises:** `ValueError` for arguments that do not fit, no room for the sources, and as `inject`
    and `measure_blends`.
    """
    if n < 1 or sources < 1:
        raise ValueError(f"`n` and `sources` must be at least 1; got {n} and {sources}.")
    if band not in exposure.bands:
        raise ValueError(f"`band` must be one of {exposure.bands}; got {band!r}.")
    if positions not in ("detect", "known"):
        raise ValueError(f"`positions` must be detect or known; got {positions!r}.")
    if known is None and (positions == "known" or avoid > 0):
        raise ValueError("`known` is missing: the positions of the real sources, in pixels.")
    if not max_distance > 0:
        raise ValueError(f"`max_distance` must be positive; got {max_distance}.")
    real = check_finite(np.asarray([] if known is None else known, float).reshape(-1, 2))
    if not max_flux_error > 0:
        raise ValueError(f"`max_flux_error` must be positive; got {max_flux_error}.")
    where = exposure.bands.index(band)
    camera: Any = camera_of(exposure.header, survey)
    rows = _Rows(catalog, catalog.magnitudes(camera)[:, where], magnitudes)
    room = _Room(exposure, real, avoid, apart, edge)
    injected = []
    for k in range(n):
        rng = stream(seed, "injection", k)
        placed = _placed(exposure, rows, room, sources, rng)
        new = inject(exposure, catalog, placed, noise=noise, gain=gain, rng=rng, survey=survey)
        injected.append(new)
    told: Any = positions
    if positions == "known":
        told = [real, *(np.concatenate([real, _places(one.truth)]) for one in injected)]
    images = _Images(exposure, injected)
    found = measure_blends(images, measures, positions=told, workers=workers, report=report)
    settings = {
        "n_blends": n,
        "band": band,
        "bands": list(exposure.bands),
        "max_distance": float(max_distance),
        "max_flux_error": float(max_flux_error) if np.isfinite(max_flux_error) else None,
        "coordinates": ["x", "y"],
        "noise_factor": 0.0,
        "target_measures": [],
        "draws": int(draws),
        "confidence": float(confidence),
        "seed": int(seed),
    }
    truth = _truth(injected, band)
    tests = {}
    for name in found.names:
        errors = {k - 1: said for k, said in found.errors[name].items()}
        if -1 in errors:
            raise ValueError(
                f"the measure {name!r} failed for the exposure without injection: {errors[-1]}."
            )
        first, *others = found.measured[name]
        told_of = real if positions == "known" else np.zeros((0, 2))
        scores, counts = _scored(truth, first, others, told_of, settings, errors)
        tests[name] = InjectionTest(scores, first, counts, errors, found.seconds[name])
    return tests


class _Images:
    """The exposure and those with injections, as a set of blends that can be measured."""

    def __init__(self, exposure: Exposure, injected: Sequence[Injected]):
        seen = [pixels_of(one) for one in (exposure, *(i.exposure for i in injected))]
        self.images = np.stack([one.image for one in seen])
        # Zero says that a pixel is not used.
        self.variance = np.stack(
            [
                one.variance if one.bad is None else np.where(one.bad, 0, one.variance)
                for one in seen
            ]
        )
        self.psf_images = _psf_images(exposure)[None]
        self.psf_index = np.zeros(len(seen), int)
        self.bands = exposure.bands
        self.n_blends = len(seen)
        self._exposure = exposure

    def exposure(self, number: int) -> Exposure:
        """Asked for its header."""
        return self._exposure


def _psf_images(exposure: Exposure) -> Float[np.ndarray, "band h w"]:
    if isinstance(exposure.psf, PixelPSF):
        return np.asarray(exposure.psf.image)
    middle = (_PSF_SIDE - 1) / 2
    point = PointSource(np.ones(exposure.n_bands), middle, middle)
    # Compiled as one: operation by operation it takes ten seconds.
    draw = eqx.filter_jit(render)
    return np.asarray(draw(Scene([point]), exposure.psf, (_PSF_SIDE, _PSF_SIDE), quality=fine()))


class _Rows:
    """Which rows of the catalogue are taken."""

    def __init__(
        self,
        catalog: Catalog,
        magnitude: Float[np.ndarray, "row"],
        wanted: tuple[float, float] | None,
    ):
        if not len(catalog):
            raise ValueError("`catalog` is empty.")
        if wanted is not None and not (
            len(wanted) == 2 and np.isfinite(wanted).all() and wanted[0] < wanted[1]
        ):
            raise ValueError(f"`magnitudes` needs two that rise, or None; got {wanted}.")
        # What shines in other bands alone cannot be dimmed to a magnitude in this one.
        self.order = np.argsort(magnitude)[: int(np.isfinite(magnitude).sum())]
        if wanted is not None and not len(self.order):
            raise ValueError("`catalog` has no row with light in `band`.")
        self.magnitude, self.wanted = magnitude, wanted

    def __call__(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows, and magnitudes that are added."""
        if self.wanted is None:
            return rng.integers(len(self.magnitude), size=count), np.zeros(count)
        goal = rng.uniform(*self.wanted, count)
        place = np.searchsorted(self.magnitude[self.order], goal)
        few = min(_LIKE, len(self.order))
        start = np.clip(place - few // 2, 0, len(self.order) - few)
        row = self.order[start + rng.integers(few, size=count)]
        return row, goal - self.magnitude[row]


class _Room:
    """Where sources may be injected."""

    def __init__(
        self,
        exposure: Exposure,
        known: Float[np.ndarray, "known 2"],
        avoid: float,
        apart: float,
        edge: float,
    ):
        for name, value in (("avoid", avoid), ("apart", apart), ("edge", edge)):
            if not 0 <= value < np.inf:
                raise ValueError(f"`{name}` must be at least 0; got {value}.")
        seen = pixels_of(exposure)
        bad = np.zeros((1, *exposure.shape), bool) if seen.bad is None else seen.bad
        self.used: np.ndarray = ~np.any(bad, axis=0)
        self.known, self.avoid, self.apart = known, avoid, apart
        ny, nx = exposure.shape
        self.low = np.full(2, edge - 0.5)
        self.high = np.array([nx, ny]) - 0.5 - edge
        if not (self.high > self.low).all():
            raise ValueError(f"`edge` of {edge} leaves nothing of {ny} x {nx} pixels.")

    def __call__(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "source 2"]:
        """So many places, uniform over what is allowed.

        **Raises:** `ValueError` where there is no room.
        """
        kept = np.zeros((0, 2))
        tried = rng.uniform(self.low, self.high, (_TRIES, 2))
        # Rounding may reach beyond the last pixel.
        x, y = np.clip(np.round(tried).astype(int), 0, np.array(self.used.shape[::-1]) - 1).T
        away = euclidean(tried, self.known).min(axis=1, initial=np.inf)
        allowed = np.flatnonzero(np.logical_and(self.used[y, x], away >= self.avoid))
        for place in tried[allowed]:
            if len(kept) == count:
                break
            if euclidean(place[None], kept).min(initial=np.inf) >= self.apart:
                kept = np.concatenate([kept, place[None]])
        if len(kept) < count:
            raise ValueError(
                f"there is room for {len(kept)} of {count} sources: `edge`, `avoid`, `apart` and "
                f"the mask leave {len(allowed) / _TRIES:.1%} of the places tried."
            )
        return kept


def _placed(
    exposure: Exposure, rows: _Rows, room: _Room, sources: int, rng: np.random.Generator
) -> Placed:
    at = room(sources, rng)
    row, dim = rows(sources, rng)
    turn = rng.uniform(0, np.pi, sources)
    return place_pixels(exposure, row, at[:, 0], at[:, 1], turn=turn, dim=dim)


def _places(truth: Any) -> Float[np.ndarray, "source 2"]:
    return np.stack([np.asarray(truth["x"], float), np.asarray(truth["y"], float)], axis=1)


def _truth(injected: Sequence[Injected], band: str) -> Table:
    """Of all images one after the other, with the columns that scores are binned by."""
    counts = [len(one.truth) for one in injected]
    table: Any = vstack([one.truth for one in injected], metadata_conflicts="silent")
    table.add_column(np.repeat(np.arange(len(injected)), counts), 0, "blend")
    table["judged"] = True
    table["magnitude"] = np.asarray(table[f"magnitude_{band}"])
    table["size"], table["snr"] = np.asarray(table["radius"]), np.asarray(table[f"snr_{band}"])
    alone = [nearest_neighbour(_places(one.truth)) for one in injected]
    table["distance_closest_galaxy"] = np.concatenate(alone)
    return table


@dataclass(frozen=True, eq=False)
class _Sorted:
    """Detections of one image: whose they are.

    - `pairs`: of the injected sources with rows of `new`; `new`: rows that are not of the baseline.
    - `before`, `replaced`: of each source.
    - `distance`: of each source from the nearest of the baseline.
    - `lost`: number of the baseline's detections that have no partner.
    """

    pairs: Matching
    new: Int[np.ndarray, "new"]
    before: Bool[np.ndarray, "source"]
    replaced: Bool[np.ndarray, "source"]
    distance: Float[np.ndarray, "source"]
    lost: int


def sort_detections(
    injected: Float[np.ndarray, "source 2"],
    before: Float[np.ndarray, "before 2"],
    found: Float[np.ndarray, "found 2"],
    max_distance: float,
    known: Float[np.ndarray, "known 2"] | None = None,
) -> _Sorted:
    """Which detections are of injected sources, and which were there before.

    Both compete for what was found, so that a source too faint to be seen is not given the
    detection of a neighbour that was seen without it.

    - `injected`, `before`, `found`: x and y, pixels; `known`: other sources that distances are
        counted from.
    """
    n = len(injected)
    pairs = match(np.concatenate([injected, before]), found, max_distance)
    own = pairs.truth_index < n
    new = np.setdiff1d(np.arange(len(found)), pairs.found_index[~own])
    source, detection = pairs.truth_index[own], pairs.found_index[own]
    reached = Matching(source, np.searchsorted(new, detection), pairs.distance[own], n, len(new))
    gone = np.ones(len(before), bool)
    gone[pairs.truth_index[~own] - n] = False
    near = euclidean(injected, before) <= max_distance
    detected = np.isin(np.arange(n), source)
    others = before if known is None else np.concatenate([before, known])
    return _Sorted(
        reached,
        new,
        ~detected & near.any(axis=1),
        detected & (near & gone).any(axis=1),
        euclidean(injected, others).min(axis=1, initial=np.inf),
        int(gone.sum()),
    )


def _scored(
    truth: Table,
    baseline: Measured,
    measured: Sequence[Measured],
    known: Float[np.ndarray, "known 2"],
    settings: dict[str, Any],
    errors: dict[int, str],
) -> tuple[Scores, Table]:
    """Scores of one measure, and the counts of each image."""
    per_source: Any = truth.copy()
    n = np.bincount(np.asarray(per_source["blend"]), minlength=len(measured))
    start = np.concatenate([[0], np.cumsum(n)])
    whole = len(per_source)
    found, away = np.full(whole, -1), np.full(whole, np.nan)
    before, replaced, gross = (np.zeros(whole, bool) for _ in range(3))
    distance = np.full(whole, np.inf)
    kept, parts, originals = [], [], []
    counts: dict[str, list[Any]] = {"detections": [], "lost": [], "extra": []}
    places = _places(per_source)
    for k, result in enumerate(measured):
        rows = slice(int(start[k]), int(start[k + 1]))
        of = sort_detections(
            places[rows], baseline.positions, result.positions, settings["max_distance"], known
        )
        pairs, wrong = _without_gross(of.pairs, of.new, per_source[rows], result, settings)
        gross[rows] = wrong
        at = start[k] + pairs.truth_index
        found[at] = of.new[pairs.found_index]
        away[at] = pairs.distance
        before[rows], replaced[rows], distance[rows] = of.before, of.replaced & ~wrong, of.distance
        new = result.rows(of.new)
        kept.append(Measured(new.catalog))
        parts.append((pairs, new.positions))
        originals.append(of.new)
        counts["detections"].append(result.n_sources)
        counts["lost"].append(of.lost)
        counts["extra"].append(len(of.new) - len(pairs))
    for name, values in (
        ("detected", found >= 0),
        ("found", found),
        ("distance_detection", away),
        ("before", before),
        ("replaced", replaced),
        ("gross", gross),
        ("distance_before", distance),
    ):
        per_source[name] = values
    detections: Any = detection_rows(kept, parts)
    with_fluxes(per_source, detections, kept, tuple(settings["bands"]), start, None)
    detections["found"] = np.concatenate([np.zeros(0, int), *originals])
    detections["judged"] = True
    images: Any = Table({"blend": np.arange(len(measured)), **counts})
    images["failed"] = np.isin(images["blend"], list(errors))
    summary = summarise(per_source, detections, settings)
    return Scores(per_source, detections, summary, settings), images


def _without_gross(
    pairs: Matching,
    new: Int[np.ndarray, "new"],
    truth: Any,
    result: Measured,
    settings: dict[str, Any],
) -> tuple[Matching, Bool[np.ndarray, "source"]]:
    """The pairs whose fluxes can be of one source, and which sources have lost theirs."""
    catalog: Any = result.catalog
    name, limit = f"flux_{settings['band']}", settings["max_flux_error"]
    wrong = np.zeros(pairs.n_truth, bool)
    if limit is None or not len(pairs) or name not in catalog.colnames:
        return pairs, wrong
    true = np.asarray(truth[name], float)[pairs.truth_index]
    seen = np.asarray(catalog[name], float)[new[pairs.found_index]]
    # What was not measured is no error.
    good = ~(np.abs(flux_error(true, seen)) > limit)
    wrong[pairs.truth_index[~good]] = True
    source, found, apart = (v[good] for v in (pairs.truth_index, pairs.found_index, pairs.distance))
    return Matching(source, found, apart, pairs.n_truth, pairs.n_found), wrong
