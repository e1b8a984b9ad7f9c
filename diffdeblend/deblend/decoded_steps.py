"""Which sources of a blend stay decoded: fits, trials of other models, and a choice by evidence.

Written once for one blend and for many: who runs the fits is told by the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from diffdeblend.components import Kind
from diffdeblend.deblend.attempt import Attempt
from diffdeblend.priors.decoder_prior import DecoderPrior

# What fluxes of galaxies out of the domain are off by, as a share of them: real galaxies of COSMOS,
# of which the decoder had seen few, in blends of two. Without it, intervals of 68 % hold the truth
# of one such galaxy in seven. Found on 68 flagged sources of 320, and scored on 89 of 320 others:
# 69 % and 88 % within one and two sigmas.
OUTSIDE_ERROR = 0.07
# Of fainter ones nobody can tell whether they are stars: as galaxies their errors allow for both.
_STAR_SNR = 30.0
# Half-light radii up to which a decoded galaxy may be a star, in pixels; and ratio of fluxes of
# a source under two models that are the same.
_COMPACT = 1.5
# Signal-to-noise ratio from which a galaxy shows a bulge.
_BULGE_SNR = 50.0
# A source that eats a neighbour's light is no model of anything.
_LEAST_FLUX = -0.05


@dataclass(frozen=True, eq=False)
class Job:
    """A fit to be made: of which blend, with which models, from which start.

    - `start`: a fit whose numbers to start from; None for the first guess of positions and data.
    """

    number: int
    decoded: Bool[np.ndarray, "source"]
    kind: Int[np.ndarray, "source"]
    start: Attempt | None = None
    exact: bool = False


Run = Callable[[Sequence[Job]], list[Attempt]]


def decode_all(
    counts: Sequence[int], run: Run, *, fallback: bool, robust: bool, restarts: int
) -> list[Attempt]:
    """Fit blends of so many sources with all sources decoded, then give up those that are not.

    - `run`: makes fits.
    - `fallback`, `robust`, `restarts`: as in `fit_batch`.
    """
    sersic = [np.full(n, int(Kind.SERSIC)) for n in counts]
    every = [np.ones(n, bool) for n in counts]
    found = run([Job(b, every[b], sersic[b]) for b in range(len(counts))])
    for _ in range(restarts):
        left = [b for b, one in enumerate(found) if not one.converged and one.n_pixels.sum() > 0]
        if not left:
            break
        again = run([Job(b, every[b], sersic[b], _start(found[b]), exact=True) for b in left])
        for b, one in zip(left, again, strict=True):
            if one.finite and (not found[b].finite or one.value < found[b].value + 1):
                found[b] = one
    if fallback:
        _replace(found, run)
    if robust:
        _average(found, run)
    for one in found:
        _allow(one)
    return found


def _replace(found: list[Attempt], run: Run) -> None:
    """Try other models where one may be needed, and take those that explain the data better."""
    jobs: list[Job] = []
    owners: list[tuple[int, int, Kind]] = []
    for b, one in enumerate(found):
        for s in range(one.n_sources if one.finite else 0):
            for kind in _alternatives(one, s):
                jobs.append(_changed(b, one, {s: kind}))
                owners.append((b, s, kind))
    trials: dict[int, dict[int, dict[Kind, Attempt]]] = {}
    for (b, s, kind), one in zip(owners, run(jobs), strict=True):
        if _sane(one, s):
            trials.setdefault(b, {}).setdefault(s, {})[kind] = one
    chosen = {b: _choose(found[b], of) for b, of in trials.items()}
    several = {b: which for b, which in chosen.items() if len(which) > 1}
    joint = run([_changed(b, found[b], which) for b, which in several.items()])
    joined = dict(zip(several, joint, strict=True))
    for b, which in chosen.items():
        base = found[b]
        if len(which) == 1:
            ((s, kind),) = which.items()
            found[b] = trials[b][s][kind]
        elif which and joined[b].finite:
            found[b] = joined[b]
        else:
            found[b] = replace(base, columns=dict(base.columns), odds=base.odds.copy())
        # Those that are still decoded were judged again, beside better neighbours.
        found[b].outside = np.where(found[b].decoded, found[b].outside, base.outside)
        for name in ("latent_norm", "latent_quantile"):
            # Why a source is decoded no more.
            column = found[b].columns[name]
            column[:] = np.where(found[b].decoded, column, base.columns[name])
        for s, of in trials[b].items():
            logs = _evidences(base, s, of)[1]
            found[b].odds[s] = logs[0] - np.logaddexp.reduce(logs[1:])


def _average(found: list[Attempt], run: Run) -> None:
    """Fluxes and errors as means over each blend's fit and one with Sersics in place of all that is
    decoded. Evenly: evidence of wrong models is far too sure which of them is less wrong.
    """
    which = [b for b, one in enumerate(found) if one.finite and one.decoded.any()]
    jobs = []
    for b in which:
        decoded = np.flatnonzero(found[b].decoded).tolist()
        jobs.append(_changed(b, found[b], dict.fromkeys(decoded, Kind.SERSIC)))
    for b, other in zip(which, run(jobs), strict=True):
        if not all(_sane(other, s) for s in range(other.n_sources)):
            continue
        mine, theirs = found[b].columns, other.columns
        apart = mine["flux"] - theirs["flux"]
        squared = 0.5 * (mine["flux_err"] ** 2 + theirs["flux_err"] ** 2) + 0.25 * apart**2
        mine["flux"], mine["flux_err"] = mine["flux"] - 0.5 * apart, np.sqrt(squared)


def _allow(one: Attempt) -> None:
    """Errors of galaxies out of the domain that allow for it, whatever took over; a star is one."""
    star = ~one.decoded & (one.kind == Kind.POINT)
    share = np.where(one.outside & ~star, OUTSIDE_ERROR, 0)[:, None]
    one.columns["flux_err"] = np.hypot(one.columns["flux_err"], share * one.columns["flux"])


def _alternatives(one: Attempt, s: int) -> list[Kind]:
    """What else a decoded source may be."""
    kinds: list[Kind] = []
    bright, outside = one.snr[s] > _STAR_SNR, bool(one.outside[s])
    if bright and (one.columns["radius"][s] < _COMPACT or outside):
        kinds.append(Kind.POINT)
    if outside:
        kinds.append(Kind.SERSIC)
    if outside and one.snr[s] > _BULGE_SNR:
        kinds.append(Kind.BULGE_DISC)
    return kinds


def _changed(number: int, base: Attempt, kinds: dict[int, Kind]) -> Job:
    """The fit with some sources of other kinds, from where they are."""
    decoded, kind = base.decoded.copy(), base.kind.copy()
    for s, other in kinds.items():
        decoded[s], kind[s] = False, int(other)
    return Job(number, decoded, kind, base)


def _start(one: Attempt) -> Attempt | None:
    return one if one.finite else None


def _sane(one: Attempt, s: int) -> bool:
    flux = one.columns["flux"][s]
    least = _LEAST_FLUX * np.abs(flux).max()
    return one.finite and np.isfinite(one.evidence) and bool(flux.min() >= least)


def _log_evidence(one: Attempt, s: int, kind: Kind | None) -> float:
    """Of the fit in which a source is of a kind; None for decoded."""
    if kind is not Kind.BULGE_DISC:
        return one.evidence
    # One more flux a band: its prior is even between none and all of the light.
    flux = np.maximum(np.abs(one.columns["flux"][s]), one.columns["flux_err"][s])
    return one.evidence + float(np.sum(0.5 * np.log(2 * np.pi) - np.log(flux)))


def _evidences(
    base: Attempt, s: int, tried: dict[Kind, Attempt]
) -> tuple[list[Kind | None], np.ndarray]:
    """Models of a source, None for decoded, and the logarithms of their evidence."""
    simple = [one.value for kind, one in tried.items() if kind is not Kind.BULGE_DISC]
    two = tried.get(Kind.BULGE_DISC)
    if two is not None and min(simple, default=np.inf) <= two.value:
        # Two fluxes of a star are anything that sums up: their spread is no evidence.
        tried = {kind: one for kind, one in tried.items() if kind is not Kind.BULGE_DISC}
    models: list[Kind | None] = [None, *tried]
    logs = [_log_evidence(base if k is None else tried[k], s, k) for k in models]
    return models, np.array(logs)


def _choose(base: Attempt, trials: dict[int, dict[Kind, Attempt]]) -> dict[int, Kind]:
    """The sources of a blend that are better served by another model, with that."""
    chosen: dict[int, Kind] = {}
    for s, tried in trials.items():
        models, logs = _evidences(base, s, tried)
        best = models[int(np.argmax(logs))]
        if best is not None:
            chosen[s] = best
    return chosen


def check_prior(prior: DecoderPrior, temperature: float, false_alarm: float) -> None:
    """**Raises:** `ValueError` for what is no prior, or settings that make no sense."""
    if not isinstance(prior, DecoderPrior):
        raise ValueError(f"`prior` must be a DecoderPrior; got {type(prior).__name__}.")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"`temperature` must be positive; got {temperature}.")
    if not 0 < false_alarm < 1:
        raise ValueError(f"`false_alarm` must be between 0 and 1; got {false_alarm}.")
    prior.check()


def refuse_with_prior(**given: Any) -> None:
    """**Raises:** `ValueError` for an argument that says otherwise what sources look like."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"`{name}` cannot be given together with `prior`, which says how sources look; "
                f"got {value!r}. Leave one of the two out."
            )
