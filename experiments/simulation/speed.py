"""How fast are blends drawn, given noise, measured and judged, and beside which peers?

    python experiments/simulation/speed.py [--btk PATH/TO/python] [--long]

Blends of three galaxies of bulge and disc in six bands of 120 x 120 pixels, of one catalogue that
is made here and read by all. Each case runs in a process of its own: from nothing, then warm. The
table goes to `table.md`. `--long` has the BlendingToolKit draw 1000 blends, too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from astropy.table import Table

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is drawn.

    - `galaxies`: that the catalogue is chosen from: those of bulge and disc.
    - `n`, `many`: blends; `repeats`: calls, of which the first compiles and the fastest counts.
    - `by_galsim`: blends that GalSim draws with one process and with two.
    - `measured`: blends for the measure functions, `judged`: for the metrics.
    """

    galaxies: int = 2000
    sources: int = 3
    n: int = 100
    many: int = 1000
    repeats: int = 6
    by_galsim: int = 300
    measured: int = 400
    judged: int = 100
    seed: int = 1


SETTINGS = Settings()
# What is asked of two cores.
BARS = {
    "isolated": "<= 500 ms",
    "blends, no noise": "<= 200 ms",
    "isolated, many": "<= 2500 MB",
    "noise": "<= 1.5 ms CPU a blend",
    "metrics": "<= 50 ms CPU",
}


def write_catalog(path: Path) -> None:
    """Synthetic galaxies as a file of CatSim's form."""
    from diffdeblend.simulate.keys import stream
    from diffdeblend.simulate.synthetic import synthetic_catalog

    made = synthetic_catalog(SETTINGS.galaxies, stream(SETTINGS.seed, "catalog"), faintest=25.3)
    parts = made.parts
    assert parts is not None
    both = (parts.share > 0.05).all(axis=1)
    table = Table({"galtileid": np.arange(both.sum())})
    for name, part, axes in (("disk", 0, "d"), ("bulge", 1, "b")):
        g = (parts.g1 + 1j * parts.g2)[both, part]
        root = np.sqrt((1 - abs(g)) / (1 + abs(g)))
        table[f"a_{axes}"] = parts.radius[both, part] / root
        table[f"b_{axes}"] = parts.radius[both, part] * root
        # To the last bit the same: the BlendingToolKit asks for it.
        table[f"pa_{name}"] = np.round(np.rad2deg(np.angle(g) / 2), 6) % 180
        table[f"fluxnorm_{name}"] = parts.share[both, part]
    table["fluxnorm_agn"] = 0.0
    table["ra"], table["dec"], table["redshift"] = 0.0, 0.0, 0.5
    for band in "ugrizy":
        table[f"{band}_ab"] = np.asarray(made.table[f"{band}_ab"])[both]
    table.write(path, overwrite=True)


@cache
def galaxies_of(catalog: Path) -> Any:
    """The catalogue, read once a process."""
    from diffdeblend.simulate.catsim import read_catsim

    return read_catsim(catalog)


def drawn(catalog: Path, n: int, **options: Any) -> Any:
    """Our blends."""
    from diffdeblend.simulate.sampling import Uniform
    from diffdeblend.simulate.simulate import simulate
    from diffdeblend.simulate.survey import get_survey

    sampling = Uniform(SETTINGS.sources, SETTINGS.sources, faintest=np.inf)
    survey = get_survey("LSST")
    return simulate(galaxies_of(catalog), sampling, survey, n, seed=SETTINGS.seed, **options)


def plain_galsim(catalog: Path) -> np.ndarray:
    """What one would write: a loop over blends, galaxies and bands, GalSim's own settings."""
    import galsim

    from diffdeblend.simulate.catsim import read_catsim
    from diffdeblend.simulate.sampling import Uniform
    from diffdeblend.simulate.simulate import sample
    from diffdeblend.simulate.survey import get_survey
    from diffdeblend.simulate.telescope import draw_psfs

    galaxies, survey = read_catsim(catalog), get_survey("LSST")
    parts = galaxies.parts
    assert parts is not None
    sampling = Uniform(SETTINGS.sources, SETTINGS.sources, faintest=np.inf)
    placed = sample(galaxies, sampling, SETTINGS.n, seed=SETTINGS.seed)
    flux, psfs = survey.electrons(galaxies.magnitudes(survey)), draw_psfs(survey)
    sky, rng = survey.sky_level(), galsim.BaseDeviate(SETTINGS.seed)
    isolated = np.zeros((SETTINGS.n, SETTINGS.sources, len(psfs), 120, 120), np.float32)
    images = np.zeros((SETTINGS.n, len(psfs), 120, 120), np.float32)
    for b, these in enumerate(placed):
        for s, row in enumerate(these.row):
            disc, bulge = (
                profile(half_light_radius=parts.radius[row, p]).shear(
                    g1=parts.g1[row, p], g2=parts.g2[row, p]
                )
                * parts.share[row, p]
                for p, profile in enumerate((galsim.Exponential, galsim.DeVaucouleurs))
            )
            offset = these.x[s] / survey.pixel_scale, these.y[s] / survey.pixel_scale
            for c, psf in enumerate(psfs):
                seen = galsim.Convolve([(disc + bulge) * flux[row, c], psf])
                image = seen.drawImage(nx=120, ny=120, scale=survey.pixel_scale, offset=offset)
                isolated[b, s, c] = image.array
        images[b] = isolated[b].sum(axis=0)
        for c in range(len(psfs)):
            noisy = galsim.Image(images[b, c], scale=survey.pixel_scale)
            noisy.addNoise(galsim.PoissonNoise(rng, sky_level=sky[c]))
    return images


def timed(call: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Wall and CPU seconds of each call, those of finished children included."""

    def used() -> float:
        return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    calls = []
    for _ in range(repeats):
        begun, cpu = time.perf_counter(), used()
        kept = call()
        calls.append((time.perf_counter() - begun, used() - cpu))
        del kept
    return {"calls": calls}


def run_case(name: str, catalog: Path) -> dict[str, Any]:
    """One case, in this process."""
    n, many, repeats = SETTINGS.n, SETTINGS.many, SETTINGS.repeats
    match name:
        case "isolated":
            return timed(lambda: drawn(catalog, n), repeats)
        case "blends":
            return timed(lambda: drawn(catalog, n, isolated=False), repeats)
        case "blends, no noise":
            return timed(lambda: drawn(catalog, n, isolated=False, noise="none"), repeats)
        case "isolated, many":
            return timed(lambda: drawn(catalog, many), 1)
        case "blends, many":
            return timed(lambda: drawn(catalog, many, isolated=False), 1)
        case "galsim":
            return timed(lambda: plain_galsim(catalog), 1)
        case "noise":
            return _noise(catalog)
        case "galsim renderer, 1" | "galsim renderer, 2":
            from diffdeblend.simulate.galsim_renderer import GalSimRenderer

            renderer = GalSimRenderer(int(name[-1]))
            return timed(lambda: drawn(catalog, SETTINGS.by_galsim, renderer=renderer), 1)
        case "sep, 1" | "sep, 2":
            return _measure(catalog, int(name[-1]))
        case "metrics":
            return _metrics(catalog, 0)
        case "metrics, bootstrap":
            return _metrics(catalog, 400)
    raise ValueError(f"`--case` is not known: {name!r}.")


def _noise(catalog: Path) -> dict[str, Any]:
    from diffdeblend.simulate.keys import stream
    from diffdeblend.simulate.noise import draw_noise, noise_rate

    blends = drawn(catalog, SETTINGS.n, isolated=False, noise="none")

    def all_of_them() -> None:
        for k, image in enumerate(blends.images):
            draw_noise(noise_rate(image, blends.sky, "all"), stream(SETTINGS.seed, "noise", k))

    return timed(all_of_them, SETTINGS.repeats)


def _measure(catalog: Path, workers: int) -> dict[str, Any]:
    from diffdeblend.score.load_measure import load_measure
    from diffdeblend.score.run import measure_blends

    blends = drawn(catalog, SETTINGS.measured, isolated=False)
    measure = load_measure("sep")
    return timed(lambda: measure_blends(blends, [measure], workers=workers), 1)


def _metrics(catalog: Path, draws: int) -> dict[str, Any]:
    from diffdeblend.score.load_measure import load_measure
    from diffdeblend.score.run import measure_blends
    from diffdeblend.score.score import score

    blends = drawn(catalog, SETTINGS.judged)
    measure = load_measure("sep")
    measured = measure_blends(blends, [measure]).measured[measure.name]
    padded = blends
    return timed(lambda: score(padded, measured, band="r", draws=draws), SETTINGS.repeats)


def child(arguments: list[str]) -> dict[str, Any]:
    """What a process of its own prints as JSON, with the seconds it took."""
    begun = time.perf_counter()
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"whole": time.perf_counter() - begun}


def main() -> None:
    """Run all cases, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--btk", help="python of an environment with the BlendingToolKit")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--case")
    parser.add_argument("--catalog", type=Path)
    given = parser.parse_args()
    if given.case:
        found = run_case(given.case, given.catalog)
        found["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catsim.fits"
        write_catalog(catalog)
        text = "\n".join(table(given, catalog)) + "\n"
    print(text)
    (HERE / "table.md").write_text(text)


def table(given: argparse.Namespace, catalog: Path) -> list[str]:
    """Lines of the tables."""

    def ours(name: str) -> dict[str, Any]:
        here = [sys.executable, __file__, "--catalog", str(catalog), "--case", name]
        return _said(name, child(here))

    def theirs(n: int, repeats: int, processes: int) -> dict[str, Any]:
        words = ["time", str(catalog), str(n), str(repeats), str(processes)]
        told = child([given.btk, str(HERE / "btk_side.py"), *words])
        return _said(f"BlendingToolKit, {n} blends, {processes} processes", told)

    n, many = SETTINGS.n, SETTINGS.many
    rows = [
        (f"ours, {n} blends and isolated images", "isolated", ours("isolated"), n),
        (f"ours, {n} blends alone", "blends", ours("blends"), n),
        (f"ours, {n} blends alone, no noise", "blends, no noise", ours("blends, no noise"), n),
        (
            f"ours, {many} blends and isolated images",
            "isolated, many",
            ours("isolated, many"),
            many,
        ),
        (f"ours, {many} blends alone", "", ours("blends, many"), many),
        (f"GalSim in a loop, {n} blends and isolated images", "", ours("galsim"), n),
    ]
    notes = []
    if given.btk is None:
        notes.append("- BlendingToolKit: left out, no `--btk`.")
    else:
        one = theirs(n, 3, 1)
        name = f"BlendingToolKit {one['version']}"
        rows += [
            (f"{name}, {n} blends and isolated images", "", one, n),
            (f"{name}, 2 processes", "", theirs(n, 2, 2), n),
        ]
        if given.long:
            rows.append(
                (f"{name}, {many} blends and isolated images", "", theirs(many, 1, 1), many)
            )
        else:
            notes.append(f"- BlendingToolKit, {many} blends: left out, no `--long`.")
    fastest = _warm(rows[0][2])[0] / n
    lines = [
        f"{SETTINGS.sources} galaxies of bulge and disc a blend, 6 bands, 120 x 120 pixels, noise "
        f"of sky and sources; {os.cpu_count()} cores.",
        "",
        "| what | cold: whole process, s | first call, s | warm, s | CPU ms a blend | blends / s "
        "| times ours | peak memory, MB | bar |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for title, key, found, count in rows:
        wall, cpu = _warm(found)
        lines.append(
            f"| {title} | {found['whole'] if len(found['calls']) == 1 else _cold(found):.1f} "
            f"| {found['calls'][0][0]:.2f} | {wall:.3f} | {1e3 * cpu / count:.2f} "
            f"| {count / wall:.0f} | {wall / count / fastest:.2f} | {found['rss']:.0f} "
            f"| {BARS.get(key, '')} |"
        )
    first, (warm, _) = rows[0][2]["calls"][0][0], _warm(rows[0][2])
    lines += [
        "",
        f"- Compiling, PSFs and imports of the first call: {first - warm:.1f} s (bar: 5 s).",
        *notes,
        "",
        "| what | | bar |",
        "|---|---:|---|",
    ]
    noise, metrics = ours("noise"), ours("metrics")
    lines.append(
        f"| noise of a blend, CPU ms | {1e3 * _warm(noise)[1] / n:.2f} | {BARS['noise']} |"
    )
    lines.append(
        f"| all metrics in r of {SETTINGS.judged} blends measured by sep, CPU ms "
        f"| {1e3 * _warm(metrics)[1]:.0f} | {BARS['metrics']} |"
    )
    errors = _warm(ours("metrics, bootstrap"))[1]
    lines.append(f"| the same with errors from 400 bootstraps, CPU ms | {1e3 * errors:.0f} | |")
    for name, title in (
        ("galsim renderer", f"{SETTINGS.by_galsim} blends by GalSimRenderer"),
        ("sep", f"{SETTINGS.measured} blends measured by sep"),
    ):
        one, two = (ours(f"{name}, {k}")["calls"][0][0] for k in (1, 2))
        lines.append(
            f"| {title}, s with 1 and 2 workers, ratio | {one:.2f}, {two:.2f}, {two / one:.2f} "
            "| <= 1.05 |"
        )
    return lines


def _warm(found: dict[str, Any]) -> tuple[float, float]:
    """Of the fastest call but the first, where there are several."""
    calls = found["calls"][1:] or found["calls"]
    return min(wall for wall, _ in calls), min(cpu for _, cpu in calls)


def _cold(found: dict[str, Any]) -> float:
    """From the start of the process to the end of the first call."""
    return found["whole"] - sum(wall for wall, _ in found["calls"][1:])


def _said(name: str, found: dict[str, Any]) -> dict[str, Any]:
    print(
        name, [tuple(round(v, 3) for v in c) for c in found["calls"]], file=sys.stderr, flush=True
    )
    return found


if __name__ == "__main__":
    main()
