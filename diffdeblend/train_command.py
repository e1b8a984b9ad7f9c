"""What `diffdeblend train-prior` does, once the command line is understood."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffdeblend.commands import warnings_in_a_line
from diffdeblend.components import Frame
from diffdeblend.files import whole_file
from diffdeblend.io.priors import save_prior
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.parametric_command import check_output, train_parametric
from diffdeblend.priors import DenoiserPrior
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress, step_bar
from diffdeblend.train import (
    DecoderSettings,
    DenoiserSettings,
    read_population,
    train_decoder,
    train_denoiser,
)

# By the names of the library, where the command line has others.
_OPTIONS = {"n_latent": "--latents", "widths": "--width", "population": "--population"}
_OPTIONS |= {name: f"--{name}" for name in ("size", "photons", "flow", "steps", "batch", "rate")}
_OPTIONS |= {"pixel_scale": "--pixel-scale", "psf_sigma": "--psf-sigma", "n": "--n"}
_OPTIONS |= {"checkpoint": "--checkpoint", "n_components": "--components", "points": "--components"}
_OPTIONS |= {"family": "--family", "bands": "--bands"}
# Where the command line says nothing; and what each kind has no use for.
_USUAL = {"population": "broad", "pixel_scale": 0.2, "size": 33, "psf_sigma": 0.8}
_OF_NETWORKS = (
    *("size", "psf_sigma", "latents", "width", "photons", "flow", "steps", "batch", "rate"),
    *("half", "checkpoint"),
)
_OF_MIXTURES = ("family", "bands", "components")
# Files of an interrupted training.
_SETTINGS, _STATE = "settings.json", "training"
# All that decides the result; the others of the command line do not.
_DECIDE = (
    *("population", "n", "seed", "pixel_scale", "size", "psf_sigma", "kind", "latents", "width"),
    *("photons", "flow", "steps", "batch", "rate"),
)


def run_train(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend train-prior`: draw galaxies, learn, write, print.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    try:
        with progress.listening(), warnings_in_a_line(progress):
            mixture = chosen.kind == "parametric"
            _refuse_useless(chosen, _OF_NETWORKS if mixture else _OF_MIXTURES)
            if mixture:
                print("\n".join(train_parametric(chosen, progress)))
            else:
                _train(_completed(chosen), progress)
    except ValueError as error:
        raise ValueError(_as_options(str(error))) from error


def _refuse_useless(chosen: argparse.Namespace, names: Iterable[str]) -> None:
    """**Raises:** `ValueError` for options that the kind has no use for."""
    for name in names:
        if getattr(chosen, name) not in (None, False):
            option = _OPTIONS.get(name, f"--{name}")
            raise ValueError(f"--kind {chosen.kind} has no use for {option}.")


def _completed(chosen: argparse.Namespace) -> argparse.Namespace:
    """With what is usual for a network where nothing is said."""
    usual = {name: value for name, value in _USUAL.items() if getattr(chosen, name) is None}
    return argparse.Namespace(**{**vars(chosen), **usual})


def _train(chosen: argparse.Namespace, progress: Progress) -> None:
    frame = Frame(chosen.size, chosen.psf_sigma, chosen.pixel_scale)
    settings, train = _learning(chosen)
    output, told = Path(chosen.output), _told(chosen)
    check_output(output)
    folder = Path(chosen.checkpoint or output.with_suffix(".checkpoint"))
    # Whether results can be written is better known before the work than after.
    make_directory(output.parent)
    _refuse_other(output, folder, told, overwrite=chosen.overwrite)
    progress.begin("galaxies")
    galaxies = read_population(chosen.population, frame, chosen.n, chosen.seed)
    make_directory(folder)
    write_summary(told, folder / _SETTINGS)
    progress.begin("train")
    report = step_bar(settings.steps, settings.chunk, None if chosen.quiet else sys.stderr)
    trained = train(
        galaxies,
        settings,
        seed=chosen.seed,
        checkpoint=folder / _STATE,
        report=lambda told: report(told.step, told.loss, told.validation_loss),
    )
    report(None)
    progress.begin("write")
    save_prior(trained.prior, output, half=chosen.half)
    written = [output.name, *_figures(trained, galaxies, output)]
    progress.end()
    record = trained.prior.training
    summary = {
        "settings": told,
        "population": record.population,
        "n_galaxies": record.n_galaxies,
        "loss": record.loss,
        "validation_loss": record.validation_loss,
        "sha256": record.settings_hash,
        "decided_by": json.loads(record.settings),
        "curves": _curves(trained),
        "versions": dict(record.versions),
        "seconds": progress.seconds,
    }
    # Last: where it is, all else is.
    write_summary(summary, output.with_suffix(".json"))
    _forget(folder)
    print(
        f"{chosen.kind} of {record.n_galaxies} galaxies, {frame.size} x {frame.size} pixels"
        + (f' of {frame.pixel_scale}"' if frame.pixel_scale else "")
    )
    print(f"loss {record.loss:.4g}, of galaxies held out {record.validation_loss:.4g}")
    print(f"written to {output.parent}: {', '.join([*written, output.stem + '.json'])}")
    if find_spec("matplotlib") is None:
        print("no figures: matplotlib is not installed (pip install 'diffdeblend[plot]')")


def _learning(chosen: argparse.Namespace) -> tuple[Any, Callable[..., Any]]:
    """The settings that the command line means, and the function that takes them.

    **Raises:** `ValueError` for options that the kind has no use for, or numbers that it refuses.
    """
    made, train = {
        "decoder": (DecoderSettings, train_decoder),
        "denoiser": (DenoiserSettings, train_denoiser),
    }[chosen.kind]
    names = {"latents": "n_latent", "width": "widths"}
    given = {}
    for name in ("latents", "width", "photons", "flow", "steps", "batch", "rate"):
        if getattr(chosen, name) is None:
            continue
        field = names.get(name, name)
        if field not in made.__dataclass_fields__:
            raise ValueError(f"--kind {chosen.kind} has no use for --{name}.")
        given[field] = getattr(chosen, name)
    if chosen.kind == "denoiser" and chosen.population.strip().startswith("stamps:"):
        raise ValueError("--kind denoiser needs galaxies without noise; stamps: has some.")
    return made(**given), train


def _told(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the prior depends on, as a file keeps it."""
    return json.loads(json.dumps({name: getattr(chosen, name) for name in _DECIDE}))


def _refuse_other(output: Path, folder: Path, told: dict[str, Any], *, overwrite: bool) -> None:
    """Stop before what is there is lost, or goes on as something else.

    **Raises:** `ValueError` for an output that is there, or an interrupted training of other
    settings, unless they may be overwritten: then that training is removed.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--checkpoint: {str(folder)!r} is no folder.")
    known = _read(folder / _SETTINGS)
    if known is not None and known != told:
        if not overwrite:
            differ = ", ".join(
                f"{_OPTIONS.get(name, '--' + name)} {known.get(name)}"
                for name in told
                if known.get(name) != told[name]
            )
            raise ValueError(
                f"--checkpoint: {str(folder)!r} is of a training that was interrupted, with "
                f"{differ}; give the same to go on, or --overwrite to start anew."
            )
        _forget(folder)
    if output.exists() and not overwrite:
        raise ValueError(f"-o: {str(output)!r} is there already; see --overwrite.")


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        return {}


def _forget(folder: Path) -> None:
    """Remove what an interrupted training left, and its folder if nothing else is in it."""
    for name in (_SETTINGS, _STATE):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)


def _curves(trained: Any) -> dict[str, list[float]]:
    names = ("step", "loss", "validation_loss")
    return {name: [round(float(v), 6) for v in getattr(trained, name)] for name in names}


def _figures(trained: Any, galaxies: Any, output: Path) -> list[str]:
    """The figures' names; none without matplotlib, and those of an older run are removed."""
    files = [output.with_name(f"{output.stem}_{word}.png") for word in ("loss", "samples")]
    if find_spec("matplotlib") is None:
        for file in files:
            file.unlink(missing_ok=True)
        return []
    from diffdeblend.plot_priors import plot_denoised, plot_samples, plot_training

    # Stamps with noise, through their PSF, do not compare with what is drawn.
    images = getattr(galaxies, "images", None)
    plot: Any = plot_denoised if isinstance(trained.prior, DenoiserPrior) else plot_samples
    drawn = (plot_training(trained), plot(trained.prior, images))
    for file, page in zip(files, drawn, strict=True):
        with whole_file(file) as temporary:
            page.savefig(temporary)
    return [file.name for file in files]


def _as_options(text: str) -> str:
    """An error of the library in the words of the command line."""
    for name, option in _OPTIONS.items():
        text = text.replace(f"`{name}`", option)
    return text
