"""Measure functions over simulated blends, side by side."""

import inspect
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy.table import Table

from diffdeblend.score.measured import Measure, Measured, add_column
from diffdeblend.score.processes import Jobs, Outcome, run_jobs
from diffdeblend.score.stamps import Stamps, stamps_of

Report = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Measurements:
    """What each measure found, how long it took, and where it failed.

    - `measured`: by the name of a measure, a `Measured` for each blend. It is empty, with the
        columns of the others, where the measure failed.
    - `seconds`: by name, of all blends on the wall clock, imports and compiling included.
    - `first_seconds`: by name, of the first blend, which holds most of these; NaN for measures that
        take all blends at once.
    - `errors`: by name, what went wrong, by the number of the blend.
    """

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    first_seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measures, in the order given."""
        return tuple(self.measured)

    def table(self) -> Table:
        """A row a measure: blends, sources, errors, seconds, and milliseconds a blend."""
        rows: Any = Table()
        each = [self.measured[name] for name in self.names]
        seconds = np.array([self.seconds[name] for name in self.names], float)
        first = np.array([self.first_seconds[name] for name in self.names], float)
        blends = np.array([len(m) for m in each], int)
        rows["measure"] = np.array(self.names, dtype=str)
        rows["blends"] = blends
        rows["sources"] = np.array([sum(m.n_sources for m in of) for of in each], int)
        rows["errors"] = np.array([len(self.errors[name]) for name in self.names], int)
        add_column(rows, "seconds", seconds, "Wall clock, imports and compiling included")
        with np.errstate(divide="ignore", invalid="ignore"):
            warm = 1000 * (seconds - first) / (blends - 1)
        add_column(rows, "ms_a_blend", warm, "Without the first blend; NaN if not known")
        return rows


def measure_blends(
    blends: Any,
    measures: Sequence[Measure | Callable[..., Any]] | Measure | Callable[..., Any],
    *,
    positions: str | Sequence[Any] | Mapping[str, Sequence[Any]] = "detect",
    workers: int = 1,
    report: Report | None = None,
) -> Measurements:
    """Run measure functions over blends, each with its settings, and time them.

    - `blends`: a `Blends`, or a dict of them by the name of a survey, of the same sky. Of a dict, a
        measure function with `surveys` gets one exposure a survey, another one that of the first
        survey, and of what it finds the catalogue is kept.
    - `measures`: `Measure`s, or functions of an exposure and positions; see `Measure`. Names that
        come twice get a number.
    - `positions`: `"detect"`: functions are given None and find sources themselves. `"truth"`:
        those of all true sources. Or an array `(source, 2)` for each blend, x and y in pixels; for
        a dict of blends a dict of such lists.
    - `workers`: processes, this one included, for functions that take one blend at a time. More
        are started where what is left to do takes longer than their start, and cores are free.
        A function that cannot be pickled runs in this process. Where a script starts this, it
        needs `if __name__ == "__main__":`, as always with processes.
    - `report`: called with the number of finished blends and of all, over all measures.

    A function that fails for a blend, or returns what is no `Measured`, leaves an empty result and
    its words in `errors`, and the others go on.

    **Raises:** `ValueError` for no measure, settings that a function does not know, positions that
    do not fit, or fewer than one worker; `ImportError` where a measure needs what is not installed.
    """
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1; got {workers}.")
    given = list(measures) if isinstance(measures, Sequence) else [measures]
    asked = _named([m if isinstance(m, Measure) else Measure(m) for m in given])
    if not asked:
        raise ValueError("`measures` is empty; give at least one measure function.")
    for measure in asked:
        _check_settings(measure)
    sets = dict(blends) if isinstance(blends, Mapping) else {"": blends}
    several = isinstance(blends, Mapping)
    count = {name: of.n_blends for name, of in sets.items()}
    if len(set(count.values())) != 1:
        raise ValueError(f"`blends` of all surveys need one number of blends; got {count}.")
    n = next(iter(count.values()))
    places = _places(positions, sets, n, several)
    # The variance of a set may be made when it is asked for: once is enough.
    stamps: dict[str, Stamps] = {}
    done = told = 0

    def advance(finished: int, whole: int = n) -> None:
        nonlocal told
        # A measure that begins a second round does not undo the first.
        told = max(told, done + min(n, n * finished // max(whole, 1)))
        if report is not None:
            report(told, n * len(asked))

    found = Measurements()
    for measure in asked:
        start = time.perf_counter()
        if measure.batched:
            outcomes = _at_once(measure, sets, places, several, n, advance)
            first = float("nan")
        else:
            jobs = _jobs(sets, stamps, places, bool(measure.surveys))
            outcomes, first = run_jobs(measure, jobs, workers=workers, advance=advance)
        found.seconds[measure.name] = time.perf_counter() - start
        found.first_seconds[measure.name] = first
        alone = several and not measure.surveys
        found.measured[measure.name] = _filled(outcomes, alone)
        found.errors[measure.name] = {k: o for k, o in enumerate(outcomes) if isinstance(o, str)}
        done += n
        advance(0)
    return found


def _named(measures: list[Measure]) -> list[Measure]:
    """With names that are all different."""
    taken = Counter(measure.name for measure in measures)
    used = {name for name, times in taken.items() if times == 1}
    unique = []
    for measure in measures:
        name, number = measure.name, 0
        if taken[name] > 1:
            while f"{name}{number}" in used:
                number += 1
            name = f"{name}{number}"
            used.add(name)
        unique.append(replace(measure, name=name))
    return unique


def _check_settings(measure: Measure) -> None:
    """Better refused before the work than at every blend."""
    try:
        known = inspect.signature(measure.function)
    except ValueError:  # Of some functions written in C.
        return
    try:
        known.bind(None, None, **measure.settings)
    except TypeError as error:
        raise ValueError(
            f"`settings` of the measure {measure.name!r} do not fit its function, which takes "
            f"{known}: {error}."
        ) from error


def _places(
    positions: Any, sets: Mapping[str, Any], n: int, several: bool
) -> dict[str, list[np.ndarray]] | None:
    """Positions of each blend by survey, None where they are to be found."""
    if isinstance(positions, str):
        if positions not in ("detect", "truth"):
            raise ValueError(
                f"`positions` must be detect, truth, or an array a blend; got {positions!r}."
            )
        if positions == "detect":
            return None
        return {
            name: [np.asarray(of.positions(k), float).reshape(-1, 2) for k in range(n)]
            for name, of in sets.items()
        }
    given = positions if several else {"": positions}
    if not isinstance(given, Mapping) or set(given) != set(sets):
        raise ValueError(f"`positions` needs an entry for each survey: {', '.join(sets)}.")
    checked = {}
    for name, of_survey in given.items():
        if len(of_survey) != n:
            raise ValueError(f"`positions` needs an entry a blend, {n}; got {len(of_survey)}.")
        checked[name] = [np.asarray(p, float) for p in of_survey]
        for k, array in enumerate(checked[name]):
            if array.size and (array.ndim != 2 or array.shape[1] != 2):
                raise ValueError(
                    f"`positions` of blend {k} needs shape (source, 2); got {array.shape}."
                )
            checked[name][k] = array.reshape(-1, 2)
    return checked


def _jobs(
    sets: Mapping[str, Any],
    stamps: dict[str, Stamps],
    places: Mapping[str, list[np.ndarray]] | None,
    surveys: bool,
) -> Jobs:
    """What a function is given; stamps that are made are kept for the next function."""
    chosen = list(sets) if surveys else [next(iter(sets))]
    for name in chosen:
        if name not in stamps:
            stamps[name] = stamps_of(sets[name])
    own = None if places is None else {name: places[name] for name in chosen}
    return Jobs({name: stamps[name] for name in chosen}, own, surveys)


def _at_once(
    measure: Measure,
    sets: Mapping[str, Any],
    places: Mapping[str, list[np.ndarray]] | None,
    several: bool,
    n: int,
    advance: Callable[..., None],
) -> list[Outcome]:
    """A function that takes all blends, which may say how far it is."""
    settings = dict(measure.settings)
    if "report" in inspect.signature(measure.function).parameters:
        settings.setdefault("report", advance)
    if measure.surveys:
        blends, own = dict(sets), None if places is None else dict(places)
    else:
        first = next(iter(sets))
        blends, own = sets[first], None if places is None else places[first]
    try:
        made = list(measure.function(blends, own, **settings))
    except ImportError:
        raise
    except Exception as error:
        return [f"{type(error).__name__}: {error}"] * n
    if len(made) != n or not all(isinstance(m, Measured) for m in made):
        kinds = sorted({type(m).__name__ for m in made})
        return [f"it returned {len(made)} results of {kinds}, not {n} of Measured"] * n
    return made


def _filled(outcomes: Sequence[Outcome], alone: bool) -> list[Measured]:
    """Empty results in the place of errors, with the columns of the others."""
    good = next((o for o in outcomes if isinstance(o, Measured)), None)
    nothing = Measured(Table({"x": np.zeros(0), "y": np.zeros(0)}))
    if good is not None:
        nothing = good.rows(np.zeros(0, int))
    made = [o if isinstance(o, Measured) else nothing for o in outcomes]
    return [Measured(m.catalog) for m in made] if alone else made
