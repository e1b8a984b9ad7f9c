"""Do the errors of the batched fit mean what they say? Pulls of simulated blends, by bins.

Question: how often does the true flux lie within one, two, five of the errors that are reported?
Answer: see `table.md`, which this file writes with `figure.png`, beside itself.

    python experiments/calibration/pulls.py family.npz

The set is one of `experiments/blends`, recipe `family`: its truth is what the model can reach.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from diffdeblend import PixelPSF
from diffdeblend.batch import Found, blend_of_arrays, fit_batch
from diffdeblend.components import Kind

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blends"))
from make import Blends, first, load  # noqa: E402

_KINDS = {"star": Kind.POINT, "sersic": Kind.SERSIC, "bulge_disc": Kind.BULGE_DISC}
# Pulls of a normal distribution: what lies within holds 68 and 95 % of it.
_68, _95 = 0.99446, 1.95996


@dataclass(frozen=True)
class Settings:
    """How the blends are fitted, how pulls are binned, and what is asked of them.

    - `position_error`: what `fit_batch` is told of the start positions, in pixels.
    - `size`: stamps are padded to it.
    - `snr`, `blendedness`: edges of bins, of the true values in the band of the flux.
    - `outlier`: pulls beyond it are left out of the plain mean.
    - `draws`, `confidence`, `seed`: of the bootstrap over blends, for the whole sample.
    """

    position_error: float = 0.3
    size: int = 64
    snr: tuple[float, ...] = (5, 10, 30, 100, 1000)
    blendedness: tuple[float, ...] = (0.01, 0.1, 0.3)
    outlier: float = 8.0
    draws: int = 400
    confidence: float = 0.9
    seed: int = 0
    mean: float = 0.05
    spread: tuple[float, float] = (0.95, 1.05)
    within_68: tuple[float, float] = (66.0, 70.0)
    within_95: tuple[float, float] = (94.0, 96.0)
    beyond_5: float = 0.1
    bin_mean: float = 0.1
    bin_68: tuple[float, float] = (64.0, 72.0)
    shape_spread: tuple[float, float] = (0.90, 1.15)
    finished: float = 97.0


@dataclass(frozen=True)
class Summary:
    """Of some pulls: centres, spread, coverage in %.

    - `clipped`: mean within three standard deviations, found by iteration.
    - `mean`: of what is no outlier.
    - `spread`: half of the distance from the 16th to the 84th percentile.
    """

    n: int
    median: float
    clipped: float
    mean: float
    spread: float
    within_68: float
    within_95: float
    beyond_5: float


def summary(pulls: np.ndarray, outlier: float) -> Summary:
    """Of pulls of any shape; what is not finite counts as beyond everything, not as left out."""
    values = np.where(np.isfinite(pulls), pulls, np.inf).ravel()
    if not values.size:
        return Summary(0, *(np.nan,) * 7)
    finite = values[np.isfinite(values)]
    kept = finite
    for _ in range(20):
        near = np.abs(kept - kept.mean()) < 3 * kept.std()
        if near.all():
            break
        kept = kept[near]
    low, middle, high = np.percentile(finite, (16, 50, 84))
    size = np.abs(values)
    shares = [100 * float(np.mean(size < limit)) for limit in (_68, _95)]
    plain = finite[np.abs(finite) < outlier]
    beyond = 100 * float(np.mean(size > 5))
    centres = float(middle), float(kept.mean()), float(plain.mean())
    return Summary(values.size, *centres, float(high - low) / 2, *shares, beyond)


def fitted(blends: Blends, settings: Settings = Settings()) -> Found:
    """The fit of every blend with true kinds, from the start positions of the file."""
    psf, first = PixelPSF(blends.psf), np.concatenate([[0], np.cumsum(blends.n_src)])
    kind = np.array([_KINDS[name] for name in blends.truth["type"]])
    each = range(len(blends.images))
    return fit_batch(
        [
            blend_of_arrays(
                blends.images[n], blends.variance[n], psf, blends.start[n, : blends.n_src[n]]
            )
            for n in each
        ],
        kinds=[kind[first[n] : first[n + 1]] for n in each],
        background="none",
        model_error=0,
        position_error=settings.position_error,
        sizes=(settings.size,),
    )


def of_bands(blends: Blends, name: str) -> np.ndarray:
    """A column of the truth that is there once a band, `(source, band)`."""
    return np.stack([blends.truth[f"{name}_{band}"] for band in blends.bands], axis=1)


def flux_pulls(found: Found, blends: Blends) -> np.ndarray:
    """Of the total flux, `(source, band)`."""
    return (found.flux - of_bands(blends, "flux")) / found.flux_err


def shape_pulls(found: Found, blends: Blends) -> dict[str, np.ndarray]:
    """Of position and shape, a number a source; of shape only those of galaxies."""
    truth, galaxy = blends.truth, blends.truth["type"] != "star"
    done = found.converged[found.blend]
    shear = np.stack([truth["g1"], truth["g2"]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.log(found.radius / truth["radius"]) * found.radius / found.radius_err
    turned = (found.ellipticity - shear) / found.ellipticity_err
    rows = done & galaxy
    pulls = {
        "x": ((found.x - truth["x"]) / found.x_err)[done],
        "y": ((found.y - truth["y"]) / found.y_err)[done],
        "ln r": radius[rows],
        "g1": turned[rows, 0],
        "g2": turned[rows, 1],
    }
    for name in ("sersic", "bulge_disc"):
        pulls[f"ln r, {name}"] = radius[done & (truth["type"] == name)]
    return pulls


def bins(blends: Blends, settings: Settings = Settings()) -> Iterator[tuple[str, np.ndarray]]:
    """Name and members of each bin, `(source, band)`; the first holds everything."""
    shape = (len(blends.truth), len(blends.bands))
    yield "all", np.ones(shape, bool)
    for name, edges in (("snr", settings.snr), ("blendedness", settings.blendedness)):
        values, full = of_bands(blends, name), (-np.inf, *edges, np.inf)
        for low, high in pairwise(full):
            said = f"{low:g} to {high:g}"
            said = f"below {high:g}" if low == -np.inf else said
            said = f"above {low:g}" if high == np.inf else said
            yield f"{name} {said}", (values >= low) & (values < high)
    for name in _KINDS:
        yield name, np.broadcast_to((blends.truth["type"] == name)[:, None], shape)
    for number, band in enumerate(blends.bands):
        yield f"band {band}", np.broadcast_to(np.arange(shape[1]) == number, shape)


def intervals(
    pulls: np.ndarray, blend: np.ndarray, settings: Settings = Settings()
) -> dict[str, tuple[float, float]]:
    """Where the figures of the whole sample lie when blends are drawn again, with replacement.

    Bands of a source share its shape, and sources of a blend their noise: whole blends are drawn.

    - `pulls`: `(source, band)`; `blend`: of each source, ascending.
    """
    rng, names = np.random.default_rng(settings.seed), ("clipped", "spread", "within_68")
    members = np.split(pulls, np.flatnonzero(np.diff(blend)) + 1)
    drawn = []
    for _ in range(settings.draws):
        picked = rng.integers(len(members), size=len(members))
        of = summary(np.concatenate([members[i] for i in picked]), settings.outlier)
        drawn.append([getattr(of, name) for name in names])
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(drawn, (tail, 100 - tail), axis=0)
    return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}


def table(found: Found, blends: Blends, settings: Settings = Settings()) -> str:
    """Markdown; a figure that misses its bar is bold."""
    pulls, done = flux_pulls(found, blends), found.converged[found.blend]

    def marked(text: str, fine: bool) -> str:
        return text if fine else f"**{text}**"

    def within(value: float, bar: tuple[float, float]) -> bool:
        return bar[0] <= value <= bar[1]

    lines = [
        "| flux | n | median | clipped mean | mean | robust std | 68 % | 95 % | beyond 5 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, members in bins(blends, settings):
        of = summary(pulls[members & done[:, None]], settings.outlier)
        whole = name == "all"
        limit = settings.mean if whole else settings.bin_mean
        bar = settings.within_68 if whole else settings.bin_68
        cells = (
            name,
            f"{of.n}",
            f"{of.median:+.3f}",
            marked(f"{of.clipped:+.3f}", abs(of.clipped) <= limit),
            f"{of.mean:+.3f}",
            marked(f"{of.spread:.3f}", not whole or within(of.spread, settings.spread)),
            marked(f"{of.within_68:.1f}", within(of.within_68, bar)),
            marked(f"{of.within_95:.1f}", not whole or within(of.within_95, settings.within_95)),
            marked(f"{of.beyond_5:.2f} %", not whole or of.beyond_5 <= settings.beyond_5),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| shape | n | median | robust std | 68 % |", "| --- |" + " ---: |" * 4]
    for name, values in shape_pulls(found, blends).items():
        of = summary(values, settings.outlier)
        # By type it is told where it comes from; the bar is for all galaxies.
        spread = marked(f"{of.spread:.3f}", "," in name or within(of.spread, settings.shape_spread))
        lines.append(f"| {name} | {of.n} | {of.median:+.3f} | {spread} | {of.within_68:.1f} |")
    finished = 100 * found.converged.mean()
    said = marked(f"{finished:.1f} %", finished >= settings.finished)
    ranges = intervals(pulls[done], found.blend[done], settings)
    shown = {"clipped": "clipped mean", "spread": "robust std", "within_68": "68 %"}
    formats = {"clipped": "+.3f", "spread": ".3f", "within_68": ".1f"}
    spans = ", ".join(
        f"{shown[k]} {low:{formats[k]}} to {high:{formats[k]}}" for k, (low, high) in ranges.items()
    )
    lines += [
        "",
        f"{found.n_blends} blends, {said} finished. Bold: misses its bar. With blends drawn again,",
        f"{settings.confidence:.0%} of the time, all: {spans}.",
    ]
    return "\n".join(lines) + "\n"


def draw(found: Found, blends: Blends, path: Path, settings: Settings = Settings()) -> None:
    """Left, how pulls are distributed; right, coverage and spread against signal to noise."""
    import matplotlib.pyplot as plt

    done = np.broadcast_to(found.converged[found.blend][:, None], found.flux.shape)
    pulls, snr = flux_pulls(found, blends)[done], of_bands(blends, "snr")[done]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    edges = np.linspace(-6, 6, 61)
    left.hist(np.clip(pulls, -5.99, 5.99), edges, density=True, color="0.75")
    left.plot(edges, np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi), "k", lw=1)
    left.set(yscale="log", ylim=(1e-5, 1), xlabel="(flux - truth) / error", ylabel="density")
    order = np.argsort(snr)
    groups = np.array_split(order, 12)
    middle = [np.median(snr[g]) for g in groups]
    columns: tuple[tuple[Callable[[Summary], float], str, float], ...] = (
        (lambda s: s.spread, "robust std", 1.0),
        (lambda s: s.within_68 / 68, "share within 1 sigma / 68 %", 1.0),
        (lambda s: s.within_95 / 95, "share within 2 sigma / 95 %", 1.0),
        (lambda s: s.clipped, "clipped mean", 0.0),
    )
    summaries = [summary(pulls[g], settings.outlier) for g in groups]
    for of, label, expected in columns:
        (drawn,) = right.plot(middle, [of(s) for s in summaries], "o-", ms=3, label=label)
        right.axhline(expected, color=drawn.get_color() if expected == 0 else "k", lw=0.5)
    right.set(xscale="log", xlabel="true signal to noise in the band", ylim=(-0.3, 1.4))
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", help="a file of experiments/blends, recipe family")
    parser.add_argument("--first", type=int, help="so many blends only")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of table.md and figure.png")
    given = parser.parse_args()
    blends = load(given.blends)
    if given.first is not None:
        blends = first(blends, given.first)
    began = time.perf_counter()
    found = fitted(blends)
    print(f"{found.n_blends} blends fitted in {time.perf_counter() - began:.0f} s")
    text = table(found, blends)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "table.md").write_text(text)
    draw(found, blends, given.out / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
