"""What `diffdeblend train-prior --kind parametric` does: learn a mixture of shapes."""

import argparse
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffdeblend.files import whole_file
from diffdeblend.io.priors import save_prior
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.priors import ParametricPrior
from diffdeblend.progress import Progress
from diffdeblend.train import Features, learn_parametric, read_features, usual_settings

_DECIDE = ("kind", "population", "n", "seed", "pixel_scale", "family", "bands", "components")


def check_output(output: Path, *, overwrite: bool = True) -> None:
    """**Raises:** `ValueError` for a name that is none of a prior, or of what must stay."""
    if output.suffix != ".eqx":
        raise ValueError(f"-o must end in .eqx; got {str(output)!r}.")
    if output.exists() and not overwrite:
        raise ValueError(f"-o: {str(output)!r} is there already; see --overwrite.")


def train_parametric(chosen: argparse.Namespace, progress: Progress) -> list[str]:
    """Read or make up galaxies, learn, write.

    Returns lines for a terminal.

    **Raises:** `ValueError` or `OSError`, in words of the library.
    """
    output, words = Path(chosen.output), chosen.population or "synthetic"
    family, bands = chosen.family or "sersic", chosen.bands or ()
    check_output(output, overwrite=chosen.overwrite)
    progress.begin("galaxies")
    features = read_features(
        words,
        family,
        n=chosen.n,
        seed=chosen.seed,
        bands=bands,
        pixel_scale=chosen.pixel_scale,
    )
    settings = usual_settings(len(features.values), chosen.seed)
    if chosen.components is not None:
        settings = replace(settings, n_components=chosen.components)
    progress.begin("train")
    prior = learn_parametric(features, population=words, settings=settings)
    progress.begin("write")
    make_directory(output.parent)
    save_prior(prior, output)
    written = [output.name, *_figure(prior, features, output)]
    progress.end()
    record = prior.training
    assert record is not None
    told = {name: getattr(chosen, name) for name in _DECIDE}
    summary = {
        "settings": {**told, "population": words, "family": family, "bands": list(bands)},
        "population": record.population,
        "n_galaxies": record.n_galaxies,
        "features": list(prior.names),
        "n_components": prior.mixture.n_components,
        "errors_taken_out": features.errors is not None,
        "softening": float(prior.softening),
        "loss": record.loss,
        "validation_loss": record.validation_loss,
        "sha256": record.settings_hash,
        "decided_by": json.loads(record.settings),
        "versions": dict(record.versions),
        "seconds": progress.seconds,
    }
    # Last: where it is, all else is.
    write_summary(summary, output.with_suffix(".json"))
    lines = [
        f"parametric of {record.n_galaxies} galaxies ({family}): {prior.mixture.n_components} "
        f"components of {', '.join(prior.names)}",
        f"loss {record.loss:.4g}, of galaxies held out {record.validation_loss:.4g}",
        f"written to {output.parent}: {', '.join([*written, output.stem + '.json'])}",
    ]
    if find_spec("matplotlib") is None:
        lines.append("no figure: matplotlib is not installed (pip install 'diffdeblend[plot]')")
    return lines


def _figure(prior: ParametricPrior, features: Features, output: Path) -> list[str]:
    """The figure's name; none without matplotlib, and that of an older run is removed."""
    file = output.with_name(f"{output.stem}_features.png")
    if find_spec("matplotlib") is None:
        file.unlink(missing_ok=True)
        return []
    from diffdeblend.plot_priors import plot_features

    page: Any = plot_features(prior, features.values)
    with whole_file(file) as temporary:
        page.savefig(temporary)
    return [file.name]
