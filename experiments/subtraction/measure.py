"""How well images are subtracted: simulated pairs with known truth, and the real pair.

python experiments/subtraction/measure.py --tools DIR [--real DIR] [--draws 0 7] [--folder DIR]

DIR of --tools has `make_subtraction_pairs.py` and `score_subtraction.py`; that of --real the two
aligned exposures of ESO 085-030. Prints every figure beside its threshold and writes `table.md`.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.transients.find_transients import find_transients

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """What is the same for all."""

    kinds: str = "ABCV"
    read_noise_new: float = 8.0
    read_noise_reference: float = 5.0
    verdict_radius: float = 3.0
    real: tuple[str, str] = ("aligned_eso085-030-005.fit", "aligned_eso085-030-004.fit")
    real_registration_noise: float = 0.05
    edge: int = 50
    within: dict[str, str] = field(
        default_factory=lambda: {
            "A1 variance": "0.97..1.03", "A1 std empty": "0.97..1.03", "A1 mean": "-0.05..0.05",
            "A2 false": "..1", "A2 negative": "..1", "A3 >=7": "0.983..",
            "A4 bias": "-0.025..0.025", "A4 pull std": "0.90..1.12",
            "A5 D std": "0.99..1.01", "A5 D corr": "-0.01..0.01",
            "B1 false": "..1", "B1 negative": "..4", "B1 std stars": "0.90..1.10",
            "B2 >=7": "0.98..", "B2 bias": "-0.02..0.02",
            "C1 near stars": "..15", "C1 negative": "..20", "C1 masked": "..0.03",
            "C2 cosmic rays": "..10", "C3 >=7": "0.96..", "C3 hosted": "0.94..",
            "C3 mean": "-0.05..0.05",
            "V variable stars": "0.90..",
            "R1 D robust": "0.95..1.03", "R1 D > 5": "..5e-4", "R2 S_corr robust": "0.95..1.05",
            "R2 S_corr > 5": "..2e-4", "R2 kurtosis": "..3",
        }
    )  # fmt: skip


def subtracted(pair: Any, settings: Settings) -> tuple[Any, float]:
    """Our difference of a simulated pair, and the seconds it took."""
    begin = time.perf_counter()
    found = find_transients(
        pair["new"],
        pair["ref"],
        gain=1.0,
        new_settings={"mask": pair["mask_new"], "read_noise": settings.read_noise_new},
        reference_settings={"mask": pair["mask_ref"], "read_noise": settings.read_noise_reference},
    )
    return found, time.perf_counter() - begin


def scored(
    score: Any, path: Path, found: Any, settings: Settings, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scorer's figures, before and after the candidates' verdicts."""
    difference = found.difference
    maps = {
        "sig": np.asarray(difference.S_corr)[0],
        "alpha": np.asarray(difference.flux)[0],
        "alpha_err": np.asarray(difference.flux_err)[0],
        "D": np.asarray(difference.D)[0],
        "mask": np.asarray(difference.bad)[0],
        "grid": "new",
    }
    np.savez(folder / "before.npz", **maps)
    y, x = np.indices(maps["sig"].shape)
    judged = maps["sig"].copy()
    table = found.candidates
    for row in table[np.asarray(table["verdict"]) != "transient"]:
        near = np.hypot(x - row["x"], y - row["y"]) <= settings.verdict_radius
        judged[near] = 0
    np.savez(folder / "after.npz", **{**maps, "sig": judged})
    return score(path, folder / "before.npz"), score(path, folder / "after.npz")


def figures(kind: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """The figures of a pair by the name of their threshold."""
    if kind == "A":
        return {
            "A1 variance": before["sig_all_var"], "A1 std empty": before["sig_empty_std"],
            "A1 mean": before["sig_empty_mean"], "A2 false": before["fp"],
            "A2 negative": before["neg_peaks"], "A3 >=7": before["compl_snr>=7"],
            "A3 3-6": before["compl_snr3-6"], "A4 bias": before["flux_bias_wmean_snr>=7"],
            "A4 pull std": before["flux_pull_own_std"], "A5 D std": before["D_empty_std"],
            "A5 D corr": max(before["D_corr_x1"], before["D_corr_y1"], key=abs),
        }  # fmt: skip
    if kind == "B":
        return {
            "B1 false": before["fp"], "B1 negative": before["neg_peaks"],
            "B1 std stars": before["sig_star_std"], "B1 mean": before["sig_empty_mean"],
            "B2 >=7": before["compl_snr>=7"], "B2 bias": before["flux_bias_wmean_snr>=7"],
        }  # fmt: skip
    if kind == "C":
        return {
            "C1 near stars": before["fp_near_star"], "C1 negative": before["neg_peaks"],
            "C1 masked": before["fraction_masked"], "C2 cosmic rays before": before["fp_cosmic"],
            "C2 cosmic rays": after["fp_cosmic"], "C2 false after": after["fp"],
            "C3 >=7": after["compl_snr>=7"], "C3 hosted": after["compl_hosted_snr>=7"],
            "C3 mean": before["sig_empty_mean"], "C2 negative after": after["neg_peaks"],
        }  # fmt: skip
    return {
        "V variable stars": before["compl_variable_stars"],
        "V variable stars after": after["compl_variable_stars"],
        "V >=7": after["compl_snr>=7"], "V near stars": before["fp_near_star"],
        "V near stars after": after["fp_near_star"],
    }  # fmt: skip


def real_pair(folder: Path, settings: Settings) -> tuple[dict[str, float], np.ndarray]:
    """What the difference of the real pair looks like, and on which pixels: no edge, no flaws."""
    new, reference = (folder / name for name in settings.real)
    seconds = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        found = find_transients(new, reference, registration_noise=settings.real_registration_noise)
        np.asarray(found.difference.S_corr)
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    difference = found.difference
    edge = settings.edge
    inner = np.zeros(difference.shape, bool)
    inner[edge:-edge, edge:-edge] = True
    inner &= ~np.asarray(difference.bad)[0]
    out: dict[str, float] = {}
    for name, plane, label in (("D", difference.D, "R1 D"), ("S", difference.S_corr, "R2 S_corr")):
        values = np.asarray(plane, float)[0][inner]
        middle = np.median(values)
        scatter = 1.4826 * np.median(np.abs(values - middle))
        out[f"{label} robust"] = scatter
        out[f"{label} > 5"] = np.mean(np.abs(values) > (5 * scatter if name == "D" else 5))
        if name == "S":
            moment = values - values.mean()
            out["R2 kurtosis"] = np.mean(moment**4) / np.mean(moment**2) ** 2 - 3
    out["R beta"] = float(difference.beta[0])
    out["R dx"], out["R dy"] = float(difference.dx[0]), float(difference.dy[0])
    out["R candidates"] = len(found.candidates)
    out["T3 wall s"], out["T3 CPU s"] = np.min(seconds[1:], axis=0)
    out["T3 first call s"] = seconds[0][0]
    return out, inner


def holds(value: float, threshold: str) -> bool:
    """Whether a figure lies within `low..high`, where either may be left out."""
    low, high = (float(end) if end else None for end in threshold.split(".."))
    return (low is None or value >= low) and (high is None or value <= high)


def rows(all_figures: dict[str, dict[str, float]], settings: Settings) -> Iterator[str]:
    """The table, a line a figure, a column a draw."""
    draws = list(all_figures)
    yield "| figure | threshold | " + " | ".join(draws) + " |"
    yield "| --- | --- |" + " ---: |" * len(draws)
    names = list(dict.fromkeys(name for one in all_figures.values() for name in one))
    for name in names:
        threshold = settings.within.get(name, "")
        cells = []
        for draw in draws:
            value = all_figures[draw].get(name)
            if value is None:
                cells.append("")
                continue
            missed = " NOT" if threshold and not holds(value, threshold) else ""
            cells.append(f"{value:.4g}{missed}")
        yield f"| {name} | {threshold} | " + " | ".join(cells) + " |"


def main() -> None:
    """Subtract, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, help="folder with the maker and the scorer of pairs")
    parser.add_argument("--real", type=Path, help="folder with the real pair")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 7])
    parser.add_argument("--folder", type=Path, help="where simulated pairs are kept")
    parser.add_argument("--kinds", default=Settings.kinds)
    parser.add_argument("--table", type=Path, default=HERE / "table.md")
    chosen = parser.parse_args()
    settings = Settings()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if chosen.tools is None:
            print("no simulated pairs: give --tools, the folder of their maker and scorer")
        else:
            sys.path.insert(0, str(chosen.tools))
            maker = importlib.import_module("make_subtraction_pairs")
            scorer = importlib.import_module("score_subtraction")
            for draw in chosen.draws:
                folder = (chosen.folder or Path(scratch)) / str(draw)
                folder.mkdir(parents=True, exist_ok=True)
                figures_of = found.setdefault(f"draw {draw}", {})
                for kind in chosen.kinds:
                    path = folder / f"sim_{kind}.npz"
                    if not path.exists():
                        maker.make(kind, str(folder), draw)
                    difference, seconds = subtracted(np.load(path), settings)
                    scores = scored(scorer.score, path, difference, settings, Path(scratch))
                    figures_of |= figures(kind, *scores)
                    print(f"draw {draw}, {kind}: {seconds:.2f} s", flush=True)
        if chosen.real is None:
            print("no real pair: give --real, its folder")
        else:
            found["real pair"], _ = real_pair(chosen.real, settings)
    table = "\n".join(rows(found, settings))
    print(table)
    if found:
        chosen.table.write_text(table + "\n")


if __name__ == "__main__":
    main()
