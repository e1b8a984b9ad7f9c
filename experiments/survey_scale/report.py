"""What was measured, as a table and a figure; what is not there is left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from settings import Settings

DAY = 86400.0
# How many of these cores a large GPU may stand for: were it as busy as a core is when it
# multiplies matrices, 67 Tflop/s to 98 Gflop/s; and a seventh of it, as what is small keeps it less
# busy. No GPU was measured.
GPU_IN_CORES = (100, 680)


def table(found: dict[str, Any], settings: Settings) -> str:
    """Markdown; a figure that misses its bar is bold."""
    lines: list[str] = []
    for name, of in (
        ("plan", _plan),
        ("cold", _cold),
        ("engine", _engine),
        ("law", _law),
        ("pulls", _pulls),
        ("paper", _paper),
    ):
        if name in found:
            lines += [*of(found, settings), ""]
    return "\n".join(lines)


def marked(text: str, fine: bool) -> str:
    """Bold if it misses its bar."""
    return text if fine else f"**{text}**"


def _head(*words: str) -> Iterator[str]:
    yield f"| {' | '.join(words)} |"
    yield "|---|" + "---:|" * (len(words) - 1)


def _plan(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    plan = found["plan"]
    yield "## Planning, and memory"
    yield from _head(
        "store",
        "stamps",
        "files",
        "GB, links counted",
        "open and check, s",
        "plan, s",
        "MiB after opening",
        "after planning",
    )
    for name, own in zip(("small", "large"), plan["planned"], strict=True):
        yield (
            f"| {name} | {own['stamps']:,} | {own['files']:,} | {own['bytes'] / 1e9:.2f} "
            f"| {own['open_s']:.2f} | {own['plan_s']:.4f} "
            f"| {own['opened_mib']:.0f} | {own['planned_mib']:.0f} |"
        )
    yield ""
    yield from _head(
        f"memory in process, parts of {settings.batch_timed}, MiB",
        "first part",
        "last of 12",
    )
    for name, memory in plan["memory"].items():
        yield f"| {name} store | {memory[0]:.0f} | {memory[-1]:.0f} |"
    own = plan["resume"]
    each = 1e6 * own["names_s"] / own["files"], 1e6 * own["ends_s"] / own["files"]
    yield ""
    yield (
        f"A run of {own['files']} finished parts: {own['names_s']:.3f} s to list them "
        f"({each[0]:.0f} us a part), {own['ends_s']:.2f} s to look at their ends ({each[1]:.0f} us "
        f"a part), {own['mib']:.1f} MiB."
    )


def _cold(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    cold = found["cold"]
    worst = max(cold["filled_s"])
    told = ", ".join(f"{seconds:.1f}" for seconds in cold["filled_s"])
    yield "## Start"
    yield (
        f"From the start of a process to the first part of {settings.batch} stamps on the disk: "
        f"{cold['empty_s']:.1f} s with an empty folder of programs, then "
        f"{marked(told, worst <= settings.bar_cold)} s (bar: {settings.bar_cold:g} s)."
    )


def _engine(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    engine = found["engine"]
    yield "## Engines"
    yield from _head(
        "",
        "stamps/s",
        "reading, % of fit",
        "waiting for it, %",
        "writing, %",
        "driver, MiB",
        "workers, MiB: first, last batch",
        "whole process, s",
    )
    for name, own in engine.items():
        seconds = own["seconds"]
        read, wait, write = (
            100 * seconds.get(each, 0.0) / seconds["fit"] for each in ("read", "wait", "write")
        )
        some = [memory for memory in own["worker_mib"] if memory]
        workers = f"{max(some[0]):.0f}, {max(some[-1]):.0f}" if "worker" in name and some else ""
        yield (
            f"| {name} | {own['rate']:.1f} | {read:.1f} | {wait:.1f} | {write:.1f} "
            f"| {own['driver_mib'][-1]:.0f} | {workers} | {own['end']:.1f} |"
        )
    one, two, here = (engine[n]["rate"] for n in ("1 worker", "2 workers", "in process, 1 core"))
    yield ""
    yield (
        f"Two workers to one: {marked(f'{two / one:.2f}', two / one >= settings.bar_two_workers)} "
        f"(bar: {settings.bar_two_workers:g}). One worker to the process itself on one core: "
        f"{one / here:.3f}. Rates are without the start and the end; {settings.timed:,} stamps, "
        f"parts of {settings.batch_timed}."
    )


def _law(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    law = found["law"]
    yield "## Cost of a fit, one core, three bands, Sersic galaxies"
    yield "| pixels | sources | core-ms a stamp | steps |"
    yield "|---:|---:|---:|---:|"
    for case in law["cases"]:
        cells = f"{case['size']} | {case['sources']} | {case['core_ms']:.2f} | {case['steps']:.1f}"
        yield f"| {cells} |"
    a, b, c = law["terms"]
    yield ""
    yield (
        f"Law: {a:.2f} + (size / 32)^2 ({b:.2f} + {c:.2f} sources) core-ms; off by at most "
        f"{100 * law['off']:.0f} %."
    )


def _pulls(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    summary = found["pulls"]["summary"]
    status = {name: e["stamps"] for name, e in summary["stamps"]["status"].items() if e["stamps"]}
    told = ", ".join(f"{name} {n:,}" for name, n in status.items())
    flagged = summary["flags"]["any"]["sources"] / max(1, summary["sources"]["fitted"])
    yield "## Fluxes of all stamps (`summary.json` of the run)"
    yield from _head(
        "",
        "sources",
        "median",
        "mean",
        "robust std",
        "within 68 %",
        "within 95 %",
        "median relative error",
    )
    for name, own in summary["pulls"].items():
        if own["mean"] is not None:
            yield (
                f"| {name} | {own['sources']:,} | {own['median']:+.3f} | {own['mean']:+.3f} "
                f"| {own['robust_std']:.3f} | {own['within_68']:.1f} | {own['within_95']:.1f} "
                f"| {100 * own['median_relative_error']:.2f} % |"
            )
    chi2 = summary["reduced_chi2"]
    yield ""
    yield (
        f"Stamps: {told}; {100 * flagged:.1f} % of the sources flagged; median reduced chi2 "
        f"{chi2['median']:.4f}, of noise alone {chi2['expected_median']:.4f}. In process on all "
        f"cores: {found['pulls']['rate']:.1f} stamps/s. Summing up: "
        f"{found['pulls']['summary_ms_a_part']:.0f} ms a part of {settings.batch}."
    )


def _paper(found: dict[str, Any], settings: Settings) -> Iterator[str]:
    paper, plan = found["paper"], found["plan"]
    stamps = settings.objects_a_day / settings.objects_a_stamp
    pace = stamps / DAY
    cores = pace * paper["core_ms"] / 1e3
    resume, (small, large) = plan["resume"], plan["planned"]
    name_s, end_s = (resume[n] / resume["files"] for n in ("names_s", "ends_s"))
    file_s = (large["open_s"] - small["open_s"]) / (large["files"] - small["files"])
    task, message = (paper["scheduler"][name] / 1e3 for name in ("task_ms", "message_ms"))
    gpus = sorted(cores / n for n in GPU_IN_CORES)
    yield f"## On paper: {settings.objects_a_day:.0e} objects a day"
    yield "| what | needed | from |"
    yield "|---|---:|---|"
    rows = [
        ("stamps", f"{stamps:.2g} a day, {pace:,.0f}/s", f"{settings.objects_a_stamp:g} a stamp"),
        ("cores as this one", f"{cores:,.0f}", f"{paper['core_ms']:.1f} core-ms a stamp, measured"),
        (
            "large GPUs, a projection",
            f"{gpus[0]:.0f} to {gpus[1]:.0f}",
            f"each as {GPU_IN_CORES[0]} to {GPU_IN_CORES[1]} cores; none was measured",
        ),
        ("read", f"{pace * paper['read'] / 1e9:.2f} GB/s", f"{paper['read'] / 1e3:.1f} kB a stamp"),
        (
            "written",
            f"{pace * paper['write'] / 1e6:.0f} MB/s: {stamps * paper['write'] / 1e12:.1f} TB",
            f"{paper['write']:.0f} bytes a stamp",
        ),
    ]
    for batch in (settings.batch, 16 * settings.batch):
        parts = stamps / batch
        rows += [
            (
                f"parts of {batch}",
                f"{parts:.2g} a day of {batch * paper['write'] / 1e3:,.0f} kB",
                "",
            ),
            (
                "- to list, and to look at their ends, in one process",
                f"{parts * name_s:,.0f} s, {parts * end_s / 3600:.1f} h",
                f"{1e6 * name_s:.0f} and {1e6 * end_s:.0f} us a part, measured here",
            ),
            (
                "- of the scheduler's time, a task each",
                f"{100 * parts * (task + message) / DAY:.0f} %",
                f"{1e3 * task:.2f} core-ms a task and {1e3 * message:.3f} a message, measured",
            ),
        ]
    shards = stamps * large["files"] / large["stamps"]
    rows.append(
        (
            "files of stores, and to check all of them",
            f"{shards:.2g}, {shards * file_s / 3600:.1f} h",
            f"{1e6 * file_s:.0f} us a file, measured here; a store of its own for each job cuts it",
        )
    )
    yield from (f"| {what} | {needed} | {why} |" for what, needed, why in rows)
    yield ""
    yield "| simulated | most stamps/s | workers from which 10 % are lost | enough for the day |"
    yield "|---|---:|---:|---|"
    for name, own in paper["simulated"].items():
        points = own["points"]
        each = max(value / n for n, value in points)
        lost = [n for n, value in points if value < 0.9 * n * each]
        best = max(value for _, value in points)
        enough = [n for n, value in points if value >= pace]
        yield (
            f"| {name} | {best:,.0f} | {f'{lost[0]:,}' if lost else 'none'} "
            f"| {f'from {enough[0]:,} workers' if enough else 'never'} |"
        )


def draw(found: dict[str, Any], settings: Settings, path: Path) -> None:
    """Memory, engines, the cost law, pulls, and the simulated cluster."""
    from diffdeblend.panels import COLOURS, INK, label_axes, new_figure
    from diffdeblend.plot_survey import plot_chi2, plot_pulls

    page = new_figure(12, 6.6)
    memory, engines, cost, cluster, pulls, chi2 = page.subplots(2, 3).ravel()
    if "plan" in found:
        for colour, (name, values) in zip(COLOURS, found["plan"]["memory"].items(), strict=False):
            memory.plot(np.arange(len(values)) + 1, values, "o-", ms=3, color=colour, label=name)
        memory.set_ylim(0, 1.3 * max(map(max, found["plan"]["memory"].values())))
        memory.legend(fontsize=8, frameon=False, title="store", title_fontsize=8)
    label_axes(memory, f"batches of {settings.batch_timed}", "MiB", "memory, in process")
    if "engine" in found:
        own = found["engine"]
        engines.barh(list(own), [each["rate"] for each in own.values()], color=COLOURS[0])
        engines.invert_yaxis()
    label_axes(engines, "stamps/s", "", "engines")
    if "law" in found:
        a, b, c = found["law"]["terms"]
        for colour, size in zip(COLOURS, sorted({s for s, _ in settings.law}), strict=False):
            own = [case for case in found["law"]["cases"] if case["size"] == size]
            n = np.array([case["sources"] for case in own])
            cost.plot(n, [case["core_ms"] for case in own], "o", color=colour, label=f"{size} px")
            cost.plot(n, a + (size / 32) ** 2 * (b + c * n), color=colour, lw=1)
        cost.set_ylim(0, 1.1 * max(case["core_ms"] for case in found["law"]["cases"]))
        cost.legend(fontsize=8, frameon=False)
    label_axes(cost, "sources", "core-ms a stamp", "cost of a fit, and its law")
    if "paper" in found:
        for colour, (name, own) in zip(COLOURS, found["paper"]["simulated"].items(), strict=False):
            workers, value = np.array(own["points"], float).T
            cluster.loglog(workers, value, "o-", ms=3, color=colour, label=name)
        cluster.loglog(workers, workers * 1e3 / found["paper"]["core_ms"], ":", color=INK, lw=1)
        need = settings.objects_a_day / settings.objects_a_stamp / DAY
        cluster.axhline(need, color=INK, ls="--", lw=1, label=f"{settings.objects_a_day:.0e} a day")
        cluster.legend(fontsize=7, frameon=False)
    label_axes(cluster, "workers of one core", "stamps/s", "simulated clusters")
    if "pulls" in found:
        plot_pulls(found["pulls"]["summary"], on=pulls)
        plot_chi2(found["pulls"]["summary"], on=chi2)
    page.savefig(path)
