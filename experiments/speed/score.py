"""How near are measured fluxes to the true ones, and how sure is that?

Numpy only: a code under test, in an environment of its own, can be judged where it runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    """Which galaxies are judged, and how often blends are drawn again.

    - `snr`: only galaxies above this signal-to-noise ratio in r.
    - `bright`: blends that hold a galaxy brighter than this r magnitude are left out of one figure,
        because they alone decide the worst tenth.
    - `blended`: from this blendedness in r on, a galaxy counts as blended.
    - `lost`: from this |relative error| on, a galaxy counts as lost.
    - `draws`, `confidence`, `seed`: of the bootstrap.
    """

    snr: float = 10.0
    bright: float = 20.0
    blended: float = 0.1
    lost: float = 0.9
    draws: int = 4000
    confidence: float = 0.9
    seed: int = 0


def judged(truth: np.ndarray, settings: Settings = Settings()) -> np.ndarray:
    """Which rows of the truth are judged."""
    return truth["snr_r"] > settings.snr


def flux_error(truth: np.ndarray, fluxes: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Flux in r over the true one, minus 1, for every row of the truth.

    - `truth`: structured array, one row a galaxy, as in the file of blends.
    - `fluxes`: one row per row of the truth, one column per band, in the unit of the truth.
        A flux that is not finite counts as 0: what a code does not find is lost, not left out.

    **Raises:** `ValueError` if the shapes do not fit together.
    """
    fluxes = np.asarray(fluxes, dtype=float)
    if fluxes.shape != (len(truth), len(bands)):
        raise ValueError(
            f"`fluxes` needs shape {(len(truth), len(bands))}, (source, band); got {fluxes.shape}."
        )
    r = fluxes[:, list(bands).index("r")]
    return np.where(np.isfinite(r), r, 0) / truth["flux_r"] - 1


def colour_error(truth: np.ndarray, fluxes: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Error of g-r in magnitudes for every row; NaN where a flux is not positive."""
    g, r = (np.asarray(fluxes, dtype=float)[:, list(bands).index(band)] for band in "gr")
    measurable = (g > 0) & (r > 0) & (truth["flux_g"] > 0) & (truth["flux_r"] > 0)
    ratio = np.full(len(truth), np.nan)
    ratio[measurable] = (g / r * truth["flux_r"] / truth["flux_g"])[measurable]
    return -2.5 * np.log10(ratio)


def score(
    truth: np.ndarray,
    fluxes: np.ndarray,
    bands: Sequence[str] = "ugrizy",
    settings: Settings = Settings(),
) -> dict[str, float]:
    """The figures of merit, by name; NaN where no galaxy is left to judge.

    Takes what `flux_error` takes.
    """
    chosen = judged(truth, settings)
    error = np.abs(flux_error(truth, fluxes, bands))
    colour = np.abs(colour_error(truth, fluxes, bands))
    # Not every file of blends has it.
    magnitude = truth["r_ab"] if "r_ab" in truth.dtype.names else np.full(len(truth), np.inf)
    # Of all rows: the bright galaxy need not be one that is judged.
    bright = np.isin(truth["blend"], truth["blend"][magnitude < settings.bright])
    blended = chosen & (truth["blendedness_r"] > settings.blended)
    coloured = chosen & np.isfinite(colour)
    return {
        "n": int(chosen.sum()),
        "median": quantile(error[chosen], 0.5),
        "p90": quantile(error[chosen], 0.9),
        "n_no_bright": int((chosen & ~bright).sum()),
        "p90_no_bright": quantile(error[chosen & ~bright], 0.9),
        "n_blended": int(blended.sum()),
        "median_blended": quantile(error[blended], 0.5),
        "lost": float(np.mean(error[chosen] > settings.lost)) if chosen.any() else float("nan"),
        "n_colour": int(coloured.sum()),
        "median_colour": quantile(colour[coloured], 0.5),
    }


def quantile(values: np.ndarray, q: float) -> float:
    """A quantile, and NaN of nothing."""
    return float(np.quantile(values, q)) if len(values) else float("nan")


def median_interval(
    values: np.ndarray, blend: np.ndarray, settings: Settings = Settings()
) -> tuple[float, float]:
    """Where the median lies when the blends are drawn again, with replacement.

    Galaxies of one blend share their noise and their neighbours, so whole blends are drawn.

    - `values`: one number per galaxy, such as |`flux_error`| of the judged ones.
    - `blend`: the blend that each is in.

    **Raises:** `ValueError` if there is nothing to draw, or not one blend per value.
    """
    values = np.asarray(values, dtype=float)
    return bootstrap(lambda drawn: np.median(values[drawn]), len(values), blend, settings)


def ratio_interval(
    first: np.ndarray, second: np.ndarray, blend: np.ndarray, settings: Settings = Settings()
) -> tuple[float, float]:
    """Where the ratio of two medians lies, `first` over `second`, galaxy by galaxy of one set.

    Each draw takes the same blends for both, so that how hard they are cancels. Otherwise as
    `median_interval`.
    """
    first, second = (np.asarray(values, dtype=float) for values in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"Pairs are needed; got shapes {first.shape} and {second.shape}.")
    return bootstrap(
        lambda drawn: np.median(first[drawn]) / np.median(second[drawn]),
        len(first),
        blend,
        settings,
    )


def bootstrap(
    statistic: Callable[[np.ndarray], float], size: int, blend: np.ndarray, settings: Settings
) -> tuple[float, float]:
    """The central interval of a statistic of row numbers, blends drawn with replacement."""
    blend = np.asarray(blend)
    if not size or blend.shape != (size,):
        raise ValueError(f"One blend per value is needed; got {blend.shape} for {size} values.")
    members = [np.flatnonzero(blend == b) for b in np.unique(blend)]
    random = np.random.default_rng(settings.seed)
    found = [
        statistic(
            np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        )
        for _ in range(settings.draws)
    ]
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)
