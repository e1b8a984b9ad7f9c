"""What `diffdeblend simulate` does, once the command line is understood."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend import __version__
from diffdeblend.blend_options import SAMPLINGS
from diffdeblend.own_code import load_own
from diffdeblend.progress import Progress, bar
from diffdeblend.simulate import (
    Blends,
    Catalog,
    Clustered,
    FourierRenderer,
    GalSimRenderer,
    OneBright,
    Pair,
    Poisson,
    Survey,
    Uniform,
    WithStars,
    append_blends,
    concatenate,
    count_blends,
    open_survey,
    psf_from_file,
    psf_from_folder,
    read_catalog,
    read_surveys,
    simulate_surveys,
    star_catalog,
    stream,
    synthetic_catalog,
)
from diffdeblend.stamps.blend_stamps import stamps_of_blends
from diffdeblend.stamps.check_store import check_format
from diffdeblend.stamps.write_store import StampWriter

_CLASSES = dict(zip(SAMPLINGS, (Uniform, Poisson, Pair, Clustered, OneBright), strict=True))
_MADE_UP = 10_000
_SHOWN = 6
# Stamps whose sources are counted at a time.
_COUNTED = 65536


def run_simulate(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend simulate`: make up or read a catalogue, draw, write, print.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.n < 1 or chosen.batch < 1:
        raise ValueError(f"--n and --batch must be at least 1; got {chosen.n} and {chosen.batch}.")
    begun = time.perf_counter()
    progress.begin("prepare")
    surveys = surveys_of(chosen)
    if chosen.format == "stamps" and len(surveys) > 1:
        raise ValueError(f"--format stamps needs one survey; got {chosen.survey!r}.")
    sampling = sampling_of(chosen)
    catalog = catalog_of(chosen, surveys)
    path = Path(chosen.output)
    settings = settings_of(chosen)
    start = _already(path, chosen, settings)
    progress.end()
    renderer = FourierRenderer() if chosen.renderer == "fourier" else GalSimRenderer(chosen.workers)
    drawing, warned = 0.0, 0
    report = bar(chosen.n, None if chosen.quiet else sys.stderr)
    report(start)
    shown: dict[str, Blends] = {}
    with ExitStack() as writing:
        write = _stamps_into(path, settings, writing) if chosen.format == "stamps" else None
        for low in range(start, chosen.n, chosen.batch):
            now = time.perf_counter()
            batch = simulate_surveys(
                catalog,
                sampling,
                surveys,
                min(chosen.batch, chosen.n - low),
                seed=chosen.seed,
                start=low,
                stamp=chosen.stamp,
                noise=chosen.noise,
                isolated=not chosen.no_isolated,
                renderer=renderer,
            )
            drawing += time.perf_counter() - now
            warned += sum(int(np.asarray(b.truth["outside"]).sum()) for b in batch.values())
            if write is None:
                append_blends(batch, path, attributes={"command": settings})
            else:
                (blends,) = batch.values()
                write(blends, low)
                shown = shown or {blends.survey.name: blends.select(slice(0, _SHOWN))}
            report(min(chosen.n, low + chosen.batch))
    report(None)
    if warned:
        progress.say(
            f"diffdeblend: warning: {warned} sources have their centre outside the stamp; the "
            "column `outside` of the truth says which."
        )
    progress.begin("figure")
    found = shown or read_surveys(path, 0, min(chosen.n, _SHOWN))
    written = _figure(next(iter(found.values())), path)
    progress.end()
    seconds = time.perf_counter() - begun
    made = chosen.n - start
    summary = {
        "settings": settings,
        "version": __version__,
        "n_blends": chosen.n,
        "n_sources": _count_sources(path),
        "blends_per_second": made / drawing if drawing else None,
        "seconds": {"drawing": drawing, "total": seconds},
    }
    (path / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    for name, blends in found.items():
        size = " x ".join(str(n) for n in blends.shape[::-1])
        print(f"{name}: {chosen.n} blends in {','.join(blends.bands)}, {size} pixels")
    print(f"{summary['n_sources']} sources, seed {chosen.seed}, noise {chosen.noise}")
    if made:
        print(f"{made} blends in {seconds:.1f} s; {made / drawing:.0f} a second while drawing")
    print(f"written to {path}: {', '.join(['summary.json', *written])}")


def surveys_of(chosen: argparse.Namespace) -> list[Survey]:
    """The surveys that the command line means.

    **Raises:** `ValueError` for one that is not known, or that lacks a band.
    """
    surveys = []
    for name in chosen.survey.split(","):
        survey = open_survey(name.strip())
        if chosen.bands:
            survey = survey.with_bands([band.strip() for band in chosen.bands.split(",")])
        if chosen.psf:
            made = psf_from_folder if Path(chosen.psf).is_dir() else psf_from_file
            survey = replace(survey, psf=made(chosen.psf))
        surveys.append(survey)
    return surveys


def sampling_of(chosen: argparse.Namespace) -> Any:
    """The sampling function that the command line means.

    **Raises:** `ValueError` for an unknown one, or an option that it has no use for.
    """
    names = ("most", "fewest", "faintest", "brightest", "max_shift", "density", "separation")
    names = (*names, "flux_ratio", "stamp")
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    if chosen.sampling in _CLASSES:
        made = _CLASSES[chosen.sampling]
        unknown = [name for name in given if name not in made.__dataclass_fields__]
        if unknown:
            options = ", ".join("--" + name.replace("_", "-") for name in unknown)
            raise ValueError(f"--sampling {chosen.sampling} has no use for {options}.")
        sampling = made(**given)
    elif ":" in chosen.sampling:
        sampling = load_own(chosen.sampling, "--sampling")
        # The stamp is one of the drawing, too.
        unknown = [name for name in given if name != "stamp"]
        if unknown:
            options = ", ".join("--" + name.replace("_", "-") for name in unknown)
            raise ValueError(f"--sampling {chosen.sampling} has no use for {options}.")
    else:
        raise ValueError(
            f"--sampling must be one of {', '.join(_CLASSES)}, or file.py:name; "
            f"got {chosen.sampling!r}."
        )
    return WithStars(sampling, chosen.stars) if chosen.stars else sampling


def catalog_of(chosen: argparse.Namespace, surveys: list[Survey]) -> Catalog:
    """The catalogue that the command line means, with magnitudes for all surveys.

    **Raises:** `ValueError` for a file that is none, or magnitudes that it lacks.
    """
    if chosen.catalog:
        catalog = read_catalog(chosen.catalog)
    else:
        catalog = synthetic_catalog(_MADE_UP, stream(chosen.seed, "galaxies"))
    if chosen.stars:
        stars = star_catalog(_MADE_UP // 10, stream(chosen.seed, "stars"))
        catalog = concatenate([catalog, stars])
    for survey in surveys:
        catalog.magnitudes(survey)
    return catalog


def settings_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the blends depend on, so that a set that was interrupted goes on with the same."""
    names = ("catalog", "stars", "sampling", "most", "fewest", "faintest", "brightest", "max_shift")
    names = (*names, "density", "separation", "flux_ratio", "survey", "bands", "stamp", "psf")
    names = (*names, "noise", "seed", "no_isolated", "renderer")
    return json.loads(json.dumps({name: getattr(chosen, name) for name in names}))


def _already(path: Path, chosen: argparse.Namespace, settings: dict[str, Any]) -> int:
    """How many blends there are already, of the same settings.

    **Raises:** `ValueError` for a set of other settings, or a finished one.
    """
    if not path.exists():
        return 0
    if chosen.overwrite:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return 0
    import zarr

    if chosen.format == "stamps":
        finished = int(check_format(path).attrs.get("finished", 0))
    else:
        finished = count_blends(path)
    known: Any = zarr.open_group(str(path), mode="r").attrs.get("command")
    if known != settings:
        raise ValueError(f"-o: {str(path)!r} holds blends of other settings; see --overwrite.")
    if finished >= chosen.n:
        raise ValueError(
            f"-o: {str(path)!r} holds {finished} blends of these settings; give a larger --n to "
            "add some, or --overwrite."
        )
    return finished


def _stamps_into(
    path: Path, settings: dict[str, Any], writing: ExitStack
) -> Callable[[Blends, int], None]:
    """What writes blends, of which the first has a number, to a store of stamps."""
    writer: StampWriter | None = None

    def write(blends: Blends, first: int) -> None:
        nonlocal writer
        stamps, header = stamps_of_blends(blends, first)
        if writer is None:
            command = {"command": settings}
            writer = StampWriter(path, header, append=True, attributes=command)
            writing.enter_context(writer)
        writer.append(stamps)

    return write


def _count_sources(path: Path) -> int:
    import zarr

    root: Any = zarr.open_group(str(path), mode="r")
    if "surveys" in root.attrs:
        return int(root[root.attrs["surveys"][0]].attrs["rows"])
    x, n = root["truth/x"], root.attrs["finished"]
    parts = (x[low : min(low + _COUNTED, n)] for low in range(0, n, _COUNTED))
    return sum(int(np.isfinite(part).sum()) for part in parts)


def _figure(blends: Blends, path: Path) -> list[str]:
    """Some blends, if matplotlib is there."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        return []
    from diffdeblend.plot_blends import plot_blends

    plot_blends(blends, numbers=range(blends.n_blends)).savefig(path / "figure.png", dpi=120)
    return ["figure.png"]
