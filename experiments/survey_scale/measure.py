"""What does a survey run cost beside its fits, how far does it scale, and what breaks first?

    python experiments/survey_scale/measure.py [cold|plan|law|pulls|engine|paper ...] [--quick]

Everything is measured on this machine, in processes of their own, and written to `table.md` and
`figure.png`. Stores, runs and results stay in the folder of `--work`, so that a section may be
measured again alone; without a section all of them are. Takes twelve minutes on two cores.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from children import in_child
from cluster_model import Cluster, ceiling, throughput
from report import draw, table
from settings import Settings, quick
from stores import draw_store, repeat_store, size_of

HERE = Path(__file__).resolve().parent
Results = dict[str, Any]


def fresh(work: Path, name: str) -> str:
    """The path of a folder that is not there."""
    shutil.rmtree(work / name, ignore_errors=True)
    return str(work / name)


def stores(work: Path, settings: Settings) -> tuple[Path, Path]:
    """The store that is drawn, and the large one."""
    name = f"{settings.n}-{settings.seed}"
    small = draw_store(work / f"{name}.zarr", settings)
    return small, repeat_store(small, work / f"{name}-{settings.times}.zarr", settings.times)


def arguments(work: Path, settings: Settings, batch: int) -> dict[str, Any]:
    """Of all runs."""
    return {"batch": batch, "cache": str(work / "programs"), "jitter": settings.jitter}


def fill_programs(small: Path, work: Path, settings: Settings) -> float:
    """Have all programs compiled, in the folder that later processes take them from."""
    filled = in_child(
        "run",
        store=str(small),
        out=fresh(work, "filled"),
        limit=settings.batch,
        workers=None,
        **arguments(work, settings, settings.batch),
    )
    return filled["at"][0][0]


def plan(work: Path, settings: Settings) -> Results:
    """Opening and planning stores, and memory as batches are done, by the size of the store."""
    small, large = stores(work, settings)
    found: Results = {"planned": [], "memory": {}}
    for store in (small, large):
        found["planned"].append(in_child("plan", store=str(store), batch=settings.batch))
        own = found["planned"][-1]
        files = sum(1 for path in store.rglob("*") if path.is_file())
        found["planned"][-1] |= {"files": files, "bytes": size_of(store)}
        print(f"  {own['stamps']} stamps: opened in {own['open_s']:.2f} s", flush=True)
    fill_programs(small, work, settings)
    for store, name in ((small, "small"), (large, "large")):
        ran = in_child(
            "run",
            store=str(store),
            out=fresh(work, f"plan-{name}"),
            limit=12 * settings.batch_timed,
            workers=None,
            **arguments(work, settings, settings.batch_timed),
        )
        found["memory"][name] = ran["driver_mib"]
        found.setdefault("first_s", {})[name] = ran["at"][0][0]
        print(
            f"  {name}: {ran['driver_mib'][0]:.0f} to {ran['driver_mib'][-1]:.0f} MiB", flush=True
        )
    part = next((work / "plan-small" / "parts").rglob("*.parquet"))
    found["resume"] = in_child(
        "resume",
        part=str(part),
        out=fresh(work, "resumed"),
        files=settings.files,
        batch=settings.batch_timed,
    )
    return found


def cold(work: Path, settings: Settings) -> Results:
    """Seconds from the start of a process to its first finished batch; the first compiles."""
    small, _ = stores(work, settings)
    shutil.rmtree(work / "programs", ignore_errors=True)
    found = [fill_programs(small, work, settings) for _ in range(3)]
    print(f"  {found[0]:.1f} s, then {found[1]:.1f} and {found[2]:.1f} s", flush=True)
    return {"empty_s": found[0], "filled_s": found[1:]}


def law(work: Path, settings: Settings) -> Results:
    """Core milliseconds by pixels and sources, on one core, and the terms of a law."""
    cases = in_child(
        "law",
        cores=1,
        cases=settings.law,
        stamps=settings.law_stamps,
        cache=str(work / "programs"),
        seed=settings.seed,
    )
    for case in cases:
        print(f"  {case['size']} px, {case['sources']}: {case['core_ms']:.2f} core-ms", flush=True)
    size, sources, core = (
        np.array([case[name] for case in cases], float) for name in ("size", "sources", "core_ms")
    )
    design = np.stack([np.ones_like(size), (size / 32) ** 2, sources * (size / 32) ** 2], axis=1)
    # Relative errors count.
    terms = np.linalg.lstsq(design / core[:, None], np.ones_like(core), rcond=None)[0]
    off = float(np.abs(design @ terms / core - 1).max())
    return {"cases": cases, "terms": terms.tolist(), "off": off}


def pulls(work: Path, settings: Settings) -> Results:
    """All stamps fitted, in this process on all cores; the summary of the run."""
    small, _ = stores(work, settings)
    out = fresh(work, "pulls")
    ran = in_child(
        "run",
        store=str(small),
        out=out,
        limit=settings.pulls,
        workers=None,
        **arguments(work, settings, settings.batch),
    )
    summed = in_child("summary", out=out)
    parts = summed["summary"]["parts"]
    print(f"  {settings.pulls} stamps in {ran['end']:.0f} s", flush=True)
    return {
        "summary": summed["summary"],
        "summary_ms_a_part": 1e3 * summed["seconds"] / max(1, parts["n"]),
        "part_bytes_a_stamp": parts["bytes"] / max(1, summed["summary"]["stamps"]["finished"]),
        "rate": rate(ran["at"]),
    }


def engine(work: Path, settings: Settings) -> Results:
    """The same stamps by this process, one Dask worker and two, each worker on one core."""
    small, large = stores(work, settings)
    fill_programs(small, work, settings)
    cases: dict[str, tuple[int | None, int | None, Path]] = {
        "in process, 1 core": (None, 1, small),
        "1 worker": (1, None, small),
        "2 workers": (2, None, small),
        "2 workers, large store": (2, None, large),
    }
    found: Results = {}
    for number, (name, (workers, cores, store)) in enumerate(cases.items()):
        ran = in_child(
            "run",
            cores=cores,
            store=str(store),
            out=fresh(work, f"engine-{number}"),
            limit=settings.timed // 2 if store is large else settings.timed,
            workers=workers,
            **arguments(work, settings, settings.batch_timed),
        )
        found[name] = ran | {"rate": rate(ran["at"])}
        print(f"  {name}: {found[name]['rate']:.1f} stamps/s", flush=True)
    return found


def rate(at: list[list[float]]) -> float:
    """Stamps a second between the first fifth and the last tenth of the batches.

    The start of processes is left out, and that at the end a worker may have nothing to do.
    """
    times, stamps = np.array(at, float).T
    low, high = len(times) // 5, max(len(times) // 5 + 1, len(times) - 1 - len(times) // 10)
    return float(stamps[low + 1 : high + 1].sum() / (times[high] - times[low]))


def paper(work: Path, settings: Settings) -> Results:
    """The scheduler's pace, measured; and what a survey would need, from all that was measured."""
    small, _ = stores(work, settings)
    known = json.loads((work / "results.json").read_text())
    lacking = [name for name in ("plan", "law", "pulls") if name not in known]
    if lacking:
        raise SystemExit(f"`paper` needs what is measured by: {', '.join(lacking)}.")
    pace = in_child("scheduler", tasks=settings.tasks, workers=2, messages=16)
    print(f"  {pace['task_ms']:.2f} ms a task, {pace['message_ms']:.3f} a message", flush=True)
    # A worker has one core; the first batch compiles.
    engines = known.get("engine")
    fits = np.array([2 / known["pulls"]["rate"]])
    if engines:
        fits = np.array([taken / n for n, taken in engines["in process, 1 core"]["fits"][1:]])
    read, write = size_of(small) / settings.n, known["pulls"]["part_bytes_a_stamp"]
    simulated: Results = {}
    small_parts, large_parts = settings.batch, 16 * settings.batch
    one, many = settings.bandwidth
    for name, batch, bandwidth, schedulers, pieces in (
        (f"parts of {small_parts}, a task each", small_parts, many, 1, False),
        (f"parts of {small_parts}", small_parts, many, 1, True),
        (f"parts of {small_parts}, 16 shards", small_parts, many, 16, True),
        (f"parts of {large_parts}", large_parts, many, 1, True),
        (f"parts of {large_parts}, one file server", large_parts, one, 1, True),
    ):
        # A task takes several batches, for some ten seconds of work; of each there is a message.
        together = int(np.clip(10 / (batch * fits.mean()), 1, 16)) if pieces else 1
        each = pace["task_ms"] / together + pace["message_ms"]
        points = []
        for workers in settings.workers:
            cluster = Cluster(
                workers,
                tuple(batch * fits),
                batch,
                each / 1e3,
                batch * read,
                batch * write,
                bandwidth,
                settings.failures / 3600,
                settings.restart,
                schedulers,
            )
            points.append((workers, throughput(cluster, settings.simulated, settings.seed)))
        simulated[name] = {"points": points, "ceiling": ceiling(cluster)}
        print(f"  {name}: {points[-1][1]:.3g} stamps/s of {points[-1][0]} workers", flush=True)
    return {
        "scheduler": pace,
        "core_ms": 1e3 * float(fits.mean()),
        "read": read,
        "write": write,
        "simulated": simulated,
    }


SECTIONS: dict[str, Callable[[Path, Settings], Results]] = {
    "cold": cold,
    "plan": plan,
    "law": law,
    "pulls": pulls,
    "engine": engine,
    "paper": paper,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--quick", action="store_true", help="in short, on seeds below 10")
    parser.add_argument("--work", type=Path, help="folder of stores and runs")
    parser.add_argument("--out", type=Path, help="folder of table.md and figure.png")
    given = parser.parse_args()
    unknown = sorted(set(given.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    settings = quick(Settings()) if given.quick else Settings()
    default = Path(tempfile.gettempdir()) / f"survey_scale{'_quick' if given.quick else ''}"
    work: Path = given.work or default
    work.mkdir(parents=True, exist_ok=True)
    # What was measured in short does not stand in the place of what was measured.
    out = given.out or (work if given.quick else HERE)
    path = work / "results.json"
    for name in given.sections or SECTIONS:
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("settings", json.loads(json.dumps(asdict(settings)))) != json.loads(
            json.dumps(asdict(settings))
        ):
            raise SystemExit(f"{path} was measured with other settings; give another --work.")
        print(f"{name} ...", flush=True)
        begun = time.perf_counter()
        known[name] = SECTIONS[name](work, settings)
        known["settings"] = asdict(settings)
        path.write_text(json.dumps(known))
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    known = json.loads(path.read_text())
    text = table(known, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    draw(known, settings, out / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
