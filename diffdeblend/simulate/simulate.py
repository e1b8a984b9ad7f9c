"""Blends on demand: sampled, drawn, with noise, and with all that is known of them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from diffdeblend.cores import available_cores
from diffdeblend.simulate.blends import Blends
from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.drawing import Drawing, Drawn, Renderer
from diffdeblend.simulate.fourier_renderer import FourierRenderer
from diffdeblend.simulate.keys import DEFAULT_SEED, stream
from diffdeblend.simulate.noise import NOISES, draw_noise, noise_rate
from diffdeblend.simulate.sampling import Placed, Sampling, check_needs, place
from diffdeblend.simulate.sources import Sources, lay_out
from diffdeblend.simulate.survey import Survey
from diffdeblend.simulate.telescope import draw_psfs, pixel_psf, varies

# Arcseconds, where neither the caller nor the sampling function says.
_STAMP = 24.0
# Blends whose light is in memory at once besides what is returned.
_AT_ONCE = 128
# PSFs are kept no wider than this, in pixels; the light beyond is less than 0.2 %.
_PSF_SIDE = 129


def simulate(
    catalog: Catalog,
    sampling: Sampling,
    survey: Survey,
    n: int,
    *,
    seed: int = DEFAULT_SEED,
    start: int = 0,
    noise: str = "all",
    stamp: float | None = None,
    isolated: bool = True,
    renderer: Renderer | None = None,
    psf_every: int = 100,
    noise_correlation: Float[np.ndarray, "band h w"] | None = None,
    floor: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Blends:
    """Blends number `start` to `start + n` of the set that belongs to a seed.

    Blend k depends on the seed and on k alone: not on how many are drawn with it, nor by how many
    threads or processes. Sampling, PSFs and keys are the same on any machine.

    - `catalog`: what there is; `sampling`: what of it comes together, and where; any callable
        `(table, rng) -> Placed`.
    - `survey`: what is seen of it. If its PSF varies, each `psf_every` blends have another one.
    - `noise`: `"all"`, `"background"` (of the sky alone), `"galaxy"` (of the sources alone) or
        `"none"`.
    - `stamp`: side in arcseconds; by default that of the sampling function, or 24.
    - `isolated`: draw each source alone, too, and measure its signal to noise and blendedness.
    - `renderer`: `FourierRenderer()` by default; `GalSimRenderer(workers)` is the reference.
    - `noise_correlation`: of the noise of pixels with that of their neighbours, as in coadds: a
        stamp a band with 1 in its middle; see `make_exposure`.
    - `floor`: whole electrons of sources and sky, as the BlendingToolKit counts them.
    - `report`: called with the number of finished blends and of all.

    **Raises:** `ValueError` for columns or magnitudes that the catalogue lacks, a sampling that
    asks for rows it does not have, or arguments out of range.

    ??? cite
        Signal to noise and blendedness: sqrt(sum I^2 / (I + sky)), and 1 - S.S / (S.all).
    """
    placed = sample(catalog, sampling, n, seed=seed, start=start)
    return draw_placed(
        catalog,
        placed,
        survey,
        seed=seed,
        start=start,
        noise=noise,
        stamp=_side(stamp, sampling),
        isolated=isolated,
        renderer=renderer,
        psf_every=psf_every,
        noise_correlation=noise_correlation,
        floor=floor,
        report=report,
        settings={"sampling": describe(sampling)},
    )


def simulate_surveys(
    catalog: Catalog,
    sampling: Sampling,
    surveys: Sequence[Survey],
    n: int,
    *,
    seed: int = DEFAULT_SEED,
    start: int = 0,
    stamp: float | None = None,
    **options: Any,
) -> dict[str, Blends]:
    """The same blends as several surveys see them, each with its pixels, PSF, WCS and noise.

    Stamps have as many whole pixels as fit into the same square of sky, so that their middles are
    the same point of it. Arguments as those of `simulate`.

    **Raises:** `ValueError` as `simulate` does, or for two surveys of one name.
    """
    names = [survey.name for survey in surveys]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`surveys` needs surveys of different names; got {names}.")
    placed = sample(catalog, sampling, n, seed=seed, start=start)
    options |= {"settings": {"sampling": describe(sampling)}, "stamp": _side(stamp, sampling)}
    return {
        survey.name: draw_placed(catalog, placed, survey, seed=seed, start=start, **options)
        for survey in surveys
    }


def stream_blends(
    catalog: Catalog,
    sampling: Sampling,
    survey: Survey,
    *,
    batch: int = 100,
    n: int | None = None,
    start: int = 0,
    **options: Any,
) -> Iterator[Blends]:
    """Batches of blends without end, or until there were `n`; together they are one set.

    Arguments as those of `simulate`.

    **Raises:** `ValueError` as `simulate` does, or for a `batch` below 1.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1; got {batch}.")
    end = None if n is None else start + n
    while end is None or start < end:
        size = batch if end is None else min(batch, end - start)
        yield simulate(catalog, sampling, survey, size, start=start, **options)
        start += size


def sample(
    catalog: Catalog, sampling: Sampling, n: int, *, seed: int = DEFAULT_SEED, start: int = 0
) -> list[Placed]:
    """What is in blends `start` to `start + n` of a seed.

    **Raises:** `ValueError` for columns that the sampling function needs and the catalogue lacks.
    """
    if n < 0 or start < 0:
        raise ValueError(f"`n` and `start` must be at least 0; got {n} and {start}.")
    check_needs(sampling, catalog.table)
    return [
        place(sampling, catalog.table, stream(seed, "sampling", k)) for k in range(start, start + n)
    ]


def draw_placed(
    catalog: Catalog,
    placed: Sequence[Placed],
    survey: Survey,
    *,
    seed: int = DEFAULT_SEED,
    start: int = 0,
    noise: str = "all",
    stamp: float = _STAMP,
    isolated: bool = True,
    renderer: Renderer | None = None,
    psf_every: int = 100,
    noise_correlation: Float[np.ndarray, "band h w"] | None = None,
    floor: bool = False,
    report: Callable[[int, int], None] | None = None,
    settings: dict[str, Any] | None = None,
) -> Blends:
    """Blends of sources at given places, one `Placed` a blend; else as `simulate`.

    - `settings`: what else is to be remembered of how the set was made.
    """
    if noise not in NOISES:
        raise ValueError(f"`noise` must be one of {', '.join(NOISES)}; got {noise!r}.")
    if psf_every < 1:
        raise ValueError(f"`psf_every` must be at least 1; got {psf_every}.")
    shape = stamp_shape(stamp, survey)
    n, n_bands = len(placed), len(survey.bands)
    sky = survey.sky_level(floor=floor)
    magnitudes = catalog.magnitudes(survey)
    laid = lay_out(catalog, placed, survey, shape, magnitudes=magnitudes, floor=floor)
    psfs, psf_index = _psfs(survey, seed, start, n, psf_every)
    renderer = FourierRenderer() if renderer is None else renderer
    images = np.empty((n, n_bands, *shape), dtype=np.float32)
    alone = np.empty((len(laid.blend), n_bands, *shape), dtype=np.float32) if isolated else None
    first = np.searchsorted(laid.blend, np.arange(n + 1))
    snr, blendedness = (np.zeros((len(laid.blend), n_bands)) for _ in range(2))

    def finish(k: int) -> None:
        light, rows = images[k], slice(first[k], first[k + 1])
        if alone is not None:
            snr[rows], blendedness[rows] = _measured(alone[rows], light, sky)
        if noise != "none":
            rng = stream(seed, "noise", survey.name, start + k)
            light += draw_noise(noise_rate(light, sky, noise), rng, noise_correlation)

    # One that starts processes has to be given enough for them.
    step = _AT_ONCE * getattr(renderer, "at_once", 1)
    for low in range(0, n, step):
        high = min(n, low + step)
        rows = slice(first[low], first[high])
        place = Drawn(images[low:high], None if alone is None else alone[rows])
        drawn = renderer(
            Drawing(
                part_of(laid, low, high),
                psfs,
                psf_index[low:high],
                survey.pixel_scale,
                shape,
                isolated,
                catalog.real,
                place,
            )
        )
        for made, wanted in zip(drawn, place, strict=True):
            # A renderer need not use what it was given.
            if made is not None and wanted is not None and made is not wanted:
                wanted[:] = made
        # Each has a stream of its own: the same in any order.
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(finish, range(low, high)))
        if report is not None:
            report(high, n)
    measured = {"snr": snr, "blendedness": blendedness} if isolated else {}
    truth: Any = _truth(catalog, laid, survey, shape, magnitudes, placed, measured)
    if truth["outside"].any():
        warnings.warn(
            f"{int(truth['outside'].sum())} sources have their centre outside the stamp; "
            "the column `outside` of the truth says which.",
            stacklevel=2,
        )
    side = min(*shape, _PSF_SIDE)
    side -= 1 - side % 2
    chosen = {"noise": noise, "stamp": stamp, "start": start, "psf_every": psf_every}
    chosen |= {"floor": floor, "renderer": describe(renderer), **(settings or {})}
    return Blends(
        images=images,
        isolated=alone,
        truth=truth,
        psf_images=np.stack([_psf_image(psf, survey.pixel_scale, side) for psf in psfs]),
        psf_index=psf_index,
        survey=survey,
        sky=sky,
        noise=noise,
        seed=seed,
        noise_correlation=noise_correlation,
        settings=chosen,
    )


def stamp_shape(stamp: float, survey: Survey) -> tuple[int, int]:
    """Whole pixels that fit into a square of so many arcseconds.

    **Raises:** `ValueError` if not even one does.
    """
    # 24 / 0.1 is 239.99999999999997.
    side = int(stamp / survey.pixel_scale + 1e-6)
    if side < 1:
        raise ValueError(
            f"`stamp` must hold a pixel of {survey.name}, {survey.pixel_scale} arcsec; got {stamp}."
        )
    return side, side


def part_of(sources: Sources, low: int, high: int) -> Sources:
    """The sources of blends `low` to `high`, their blends numbered from 0."""
    a, b = np.searchsorted(sources.blend, [low, high])
    p, q = sources.first[a], sources.first[b]
    of_part = {name: getattr(sources, name)[p:q] for name in _OF_PARTS}
    of_source = {name: getattr(sources, name)[a:b] for name in _OF_SOURCES}
    of_source["blend"] = of_source["blend"] - low
    return Sources(first=sources.first[a : b + 1] - p, **of_part, **of_source)


_OF_PARTS = ("index", "radius", "g1", "g2", "share")
_OF_SOURCES = ("blend", "row", "x", "y", "flux", "turn", "shear1", "shear2", "real")


def describe(thing: Any) -> Any:
    """A function or its settings in words that go into a file."""
    if is_dataclass(thing) and not isinstance(thing, type):
        values = asdict(thing)
        # JSON knows no infinity.
        endless = {k: str(v) for k, v in values.items() if isinstance(v, float) and np.isinf(v)}
        return {"name": type(thing).__name__, **values, **endless}
    return {"name": getattr(thing, "__name__", type(thing).__name__)}


def _side(stamp: float | None, sampling: Sampling) -> float:
    # One that changes another may have the attribute and no value.
    own = getattr(sampling, "stamp", None)
    return float((_STAMP if own is None else own) if stamp is None else stamp)


def _psfs(
    survey: Survey, seed: int, start: int, n: int, every: int
) -> tuple[tuple[tuple[Any, ...], ...], Int[np.ndarray, "blend"]]:
    """The PSFs of some blends, and which of them each has."""
    if not varies(survey):
        return (draw_psfs(survey),), np.zeros(n, dtype=int)
    # Of no blends one PSF, so that there is always one.
    group = np.arange(start, start + max(n, 1)) // every
    known, index = np.unique(group, return_inverse=True)
    psfs = tuple(draw_psfs(survey, stream(seed, "psf", survey.name, int(g))) for g in known)
    return psfs, index[:n]


# A stream of blends asks for the same ones with every batch.
@lru_cache(maxsize=64)
def _psf_image(psf: tuple[Any, ...], pixel_scale: float, side: int) -> Float[np.ndarray, "b h w"]:
    return pixel_psf(psf, pixel_scale, side).astype(np.float32)


class _Measured(NamedTuple):
    snr: np.ndarray
    blendedness: np.ndarray


def _measured(
    alone: Float[np.ndarray, "source band y x"],
    total: Float[np.ndarray, "band y x"],
    sky: Float[np.ndarray, "band"],
) -> _Measured:
    """Signal to noise and blendedness, `(source, band)`."""
    snr, blendedness = (np.zeros(alone.shape[:2]) for _ in range(2))
    # Band by band: so much fits into the cache.
    for b in range(len(sky)):
        together = total[b].reshape(-1)
        for k in range(len(alone)):
            own = alone[k, b].reshape(-1)
            noisy = np.maximum(own, 0)
            noisy += np.float32(sky[b])
            snr[k, b] = np.sqrt(np.dot(own, own / noisy))
            with_all = np.dot(own, together)
            blendedness[k, b] = 1 - np.dot(own, own) / with_all if with_all > 0 else 0.0
    return _Measured(snr, blendedness)


def _truth(
    catalog: Catalog,
    laid: Sources,
    survey: Survey,
    shape: tuple[int, int],
    magnitudes: Float[np.ndarray, "row band"],
    placed: Sequence[Placed],
    measured: dict[str, np.ndarray],
) -> Table:
    n = len(laid.blend)
    first = np.searchsorted(laid.blend, np.arange(len(placed)))
    ny, nx = shape
    g1, g2 = _main_shear(laid)
    dim = np.concatenate([np.zeros(0), *(p.dim for p in placed)])
    truth: Any = Table(
        {
            "blend": laid.blend,
            "source": np.arange(n) - np.repeat(first, [p.n_sources for p in placed]),
            "row": laid.row,
            "is_star": np.asarray(catalog.table["is_star"])[laid.row],
            "x": laid.x,
            "y": laid.y,
            "ra": (laid.x - (nx - 1) / 2) * survey.pixel_scale,
            "dec": (laid.y - (ny - 1) / 2) * survey.pixel_scale,
            "radius": np.asarray(catalog.table["size"], dtype=float)[laid.row],
            "g1": g1,
            "g2": g2,
            "turn": laid.turn,
            "shear1": laid.shear1,
            "shear2": laid.shear2,
            "outside": (abs(laid.x - (nx - 1) / 2) > nx / 2)
            | (abs(laid.y - (ny - 1) / 2) > ny / 2),
        }
    )
    per_band = {"magnitude": magnitudes[laid.row] + dim[:, None], "flux": laid.flux, **measured}
    for name, values in per_band.items():
        for band, column in zip(survey.band_names, values.T, strict=True):
            truth[f"{name}_{band}"] = column
    for name, unit in (("x", "pix"), ("y", "pix"), ("ra", "arcsec"), ("dec", "arcsec")):
        truth[name].unit = unit
    truth["radius"].unit = "arcsec"
    truth["turn"].unit = "rad"
    for band in survey.band_names:
        truth[f"flux_{band}"].unit = "electron"
        truth[f"magnitude_{band}"].unit = "mag"
    return truth


def _main_shear(laid: Sources) -> tuple[np.ndarray, np.ndarray]:
    """Of the part with most light of each source; NaN of real galaxies, which have none."""
    g1, g2 = np.full((2, len(laid.blend)), np.nan)
    # In order of their share: the last one written is the largest.
    order = np.argsort(laid.share, kind="stable")
    owner = laid.owner[order]
    g1[owner], g2[owner] = laid.g1[order], laid.g2[order]
    return g1, g2
