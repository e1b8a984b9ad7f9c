"""Scores of sets larger than memory, part by part; what is finished is kept."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffdeblend.score.join import join_scores
from diffdeblend.score.measured import Measure
from diffdeblend.score.run import measure_blends
from diffdeblend.score.score import Scores, score
from diffdeblend.score.scores_file import read_scores, write_scores

# Called with a measure's name, the number of blends it has finished, and of failures among them.
Report = Callable[[str, int, int], None]


def score_parts(
    batches: Iterable[Any],
    measures: Sequence[Measure | Callable[..., Any]],
    folder: str | Path,
    *,
    positions: str = "detect",
    workers: int = 1,
    report: Report | None = None,
    **settings: Any,
) -> dict[str, Scores]:
    """Measure and score batches of blends, one after the other, and join the scores.

    - `batches`: parts of one set, as from `stream_blends` or `read_stream`.
    - `measures`: `Measure`s, or functions; all need names of their own.
    - `folder`: where the scores of each part are kept. A part that is there, of the same number of
        blends and the same settings, is not measured again.
    - `positions`, `workers`: as in `measure_blends`; `settings`: as in `score`.
    - `report`: called after each part.

    The settings of the scores hold `seconds`, on the wall clock without the scoring, and
    `failures`, the number of blends for which a measure failed; the words of the first failure of
    each part are in `failed`.

    **Raises:** `ValueError` as `measure_blends` and `score` do, for no batches, or for measures of
    one name.
    """
    asked = [m if isinstance(m, Measure) else Measure(m) for m in measures]
    if len({measure.name for measure in asked}) < len(asked):
        raise ValueError(
            f"`measures` need names of their own; got {[measure.name for measure in asked]}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {**settings, "draws": 0}
    parts: dict[str, list[Scores]] = {measure.name: [] for measure in asked}
    done = 0
    for blends in batches:
        for measure in asked:
            key = _key(measure, blends, positions, settings)
            path = folder / f"{measure.name}-{done}-{done + blends.n_blends}-{key}.npz"
            if not path.exists():
                found = measure_blends(blends, [measure], positions=positions, workers=workers)
                one = score(blends, found.measured[measure.name], **options)
                errors = found.errors[measure.name]
                more: dict[str, Any] = {
                    "seconds": found.seconds[measure.name],
                    "failures": len(errors),
                }
                if errors:
                    number, words = next(iter(errors.items()))
                    more["failed"] = f"blend {done + number}: {words}"
                write_scores({measure.name: replace(one, settings=one.settings | more)}, path)
            parts[measure.name].append(read_scores(path)[measure.name])
            if report is not None:
                failures = sum(part.settings["failures"] for part in parts[measure.name])
                report(measure.name, done + blends.n_blends, failures)
        done += blends.n_blends
    if not done:
        raise ValueError("`batches` has no blends.")
    return {name: join_scores(own, settings.get("draws", 400)) for name, own in parts.items()}


def _key(measure: Measure, blends: Any, positions: str, settings: Mapping[str, Any]) -> str:
    """What a part depends on besides its place in the set, in a few letters."""
    content = {
        "measure": _words(measure.settings),
        "function": _words(measure.function),
        "origin": measure.origin,
        "positions": positions,
        "settings": _words(settings),
        "seed": blends.seed,
        "noise": blends.noise,
        "survey": blends.survey.name,
        "bands": blends.bands,
        "set": repr(blends.settings),
        # Any change of the blends is one of their light.
        "light": blends.images.astype(float).sum().hex(),
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _words(value: Any) -> Any:
    """Settings in words that are the same in another process; functions by their text."""
    if isinstance(value, Mapping):
        return {str(name): _words(one) for name, one in value.items()}
    if inspect.isfunction(value):
        try:
            return inspect.getsource(value)
        except OSError:  # Typed at a prompt.
            return value.__qualname__
    return repr(value)
