"""What is measured in processes of its own: `in_child(name, ...)` runs a function of this file.

Time counts from the start of the process, and memory is that of the process and its children.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MARK = "result: "
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}


def in_child(name: str, cores: int | None = None, **arguments: Any) -> Any:
    """What a function of this file returns, called in a new process.

    - `cores`: how many of those that there are it may use; all for None.
    """
    own = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, str(HERE / "children.py"), name, json.dumps(arguments)]
    found = subprocess.run(
        ["taskset", "-c", ",".join(map(str, own)), *command],
        capture_output=True,
        text=True,
        env={**_ENVIRONMENT, **os.environ},
        check=False,
    )
    lines = [line for line in found.stdout.splitlines() if line.startswith(_MARK)]
    if not lines:
        raise RuntimeError(f"{name} failed:\n{found.stdout[-2000:]}\n{found.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix(_MARK))


def plan(store: str, batch: int) -> dict[str, float]:
    """Open a store and plan all of it: seconds of each step, and MiB before and after."""
    found: dict[str, float] = {}
    begun = time.perf_counter()
    from diffdeblend.stamps import open_store
    from diffdeblend.survey.parts import Run
    from diffdeblend.survey.plan import batches, gaps

    found["import_s"], found["imported_mib"] = time.perf_counter() - begun, own_mib()
    begun = time.perf_counter()
    opened = open_store(store)
    # The marks of all its files: what shows whether it is whole, and the same as before.
    opened.fingerprint()
    found["open_s"], found["opened_mib"] = time.perf_counter() - begun, own_mib()
    begun = time.perf_counter()
    planned = list(batches(gaps([], Run(0, opened.header.n_stamps)), batch))
    found["plan_s"], found["planned_mib"] = time.perf_counter() - begun, own_mib()
    return found | {"stamps": opened.header.n_stamps, "batches": len(planned)}


def resume(part: str, out: str, files: int, batch: int) -> dict[str, float]:
    """What is there of a run of many parts, all of them hard links of one: seconds and MiB."""
    from diffdeblend.survey.parts import Run, is_whole, list_parts, part_path

    for number in range(files):
        path = part_path(Path(out), Run(number * batch, (number + 1) * batch))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(part, path)
    # The first look loads the library.
    is_whole(Run(0, batch), part_path(Path(out), Run(0, batch)))
    before = own_mib()
    begun = time.perf_counter()
    named = list(list_parts(Path(out)))
    listed = time.perf_counter()
    whole = sum(is_whole(run, path) for run, path in named)
    looked = time.perf_counter()
    return {
        "files": len(named),
        "whole": whole,
        "names_s": listed - begun,
        "ends_s": looked - listed,
        "mib": own_mib() - before,
    }


def run(
    store: str,
    out: str,
    batch: int,
    limit: int | None,
    cache: str,
    workers: int | None,
    jitter: float,
) -> dict[str, Any]:
    """Fit stamps of a store; when each batch was finished, and what memory was taken then.

    - `workers`: Dask workers, of a core each; None for this process.
    - `jitter`: of the positions, as the fit is told.
    """
    import psutil

    from diffdeblend.survey import FitSettings, fit_survey

    own = psutil.Process()
    started = own.create_time()
    at: list[tuple[float, int]] = []
    driver, others = [], []
    seconds: dict[str, float] = {}
    fits: list[tuple[int, float]] = []

    def report(done: Any, total: int) -> None:
        at.append((time.time() - started, len(done.run)))
        for name, value in done.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        fits.append((len(done.run), done.seconds.get("fit", 0.0)))
        driver.append(own_mib())
        others.append(_workers_mib(own))

    more: dict[str, Any] = {}
    if workers is not None:
        from diffdeblend.survey.cluster import on_cluster

        more["engine"] = on_cluster(workers)
    fit_survey(
        store,
        out,
        FitSettings(model="sersic", model_error=0.0, position_error=jitter),
        batch=batch,
        limit=limit,
        cache=cache,
        report=report,
        **more,
    )
    return {
        "at": at,
        "end": time.time() - started,
        "seconds": seconds,
        "fits": fits,
        "driver_mib": driver,
        "worker_mib": others,
    }


def scheduler(tasks: int, workers: int, messages: int) -> dict[str, float]:
    """Core milliseconds that Dask's scheduler takes for a task, and for a message.

    Of the process that holds the scheduler and its client, as the driver of a run does. Tasks of
    our shape that do nothing: they are given a few words and two numbers, and tell of each batch
    while they run.

    - `messages`: of a task, for the second figure; then eleven times as many.
    """
    from distributed import Client, LocalCluster

    cluster: Any
    client: Any
    found = {}
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=None
        ) as cluster,
        Client(cluster) as client,
    ):
        heard: list[Any] = []
        client.subscribe_topic("batches", heard.append)
        _paced(client, 50, 1)
        used, begun = time.process_time(), time.perf_counter()
        _paced(client, tasks, 0)
        found["task_ms"] = 1e3 * (time.process_time() - used) / tasks
        found["task_wall_ms"] = 1e3 * (time.perf_counter() - begun) / tasks
        few, many = max(1, tasks // (4 * messages)), 10 * messages
        taken = []
        for each in (messages, messages + many):
            heard.clear()
            used, begun = time.process_time(), time.perf_counter()
            _paced(client, few, each)
            while len(heard) < few * each and time.perf_counter() - begun < 120:
                time.sleep(0.02)
            taken.append(1e3 * (time.process_time() - used))
        found["message_ms"] = max(0.0, taken[1] - taken[0]) / (few * many)
        found["lost"] = few * (messages + many) - len(heard)
    return found | {"tasks": tasks}


def _paced(client: Any, tasks: int, messages: int, in_flight: int = 256) -> None:
    """Have so many tasks done, of which so many are under way at a time: as a run does it."""
    import queue

    from idle_task import nothing

    job = {"store": "/a/store.zarr", "out": "/an/out", "settings": {"model": "sersic"}}
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    flying: dict[str, Any] = {}
    for number in range(tasks):
        key = f"nothing-{time.time_ns()}"
        flying[key] = client.submit(nothing, job, number, messages, key=key, pure=False)
        flying[key].add_done_callback(ended.put)
        if len(flying) >= in_flight:
            flying.pop(ended.get().key).result()
    while flying:
        flying.pop(ended.get().key).result()


def law(cases: list[tuple[int, int]], stamps: int, cache: str, seed: int) -> list[dict[str, Any]]:
    """Core milliseconds of a fit, warm, for stamps of some pixels and sources."""
    import numpy as np

    from diffdeblend.batch import fit_batch
    from diffdeblend.programs import keep_programs

    keep_programs(cache)
    found = []
    for size, sources in cases:
        blends = _blends(size, sources, stamps, np.random.default_rng([seed, size, sources]))

        def fit(blends: Any = blends, size: int = size) -> Any:
            return fit_batch(
                blends, model="sersic", model_error=0.0, sizes=(size,), fine=True, covariance=True
            )

        fit()
        each = []
        for _ in range(2):
            wall, used = time.perf_counter(), time.process_time()
            steps = float(fit().steps.mean())
            each.append((time.process_time() - used, time.perf_counter() - wall))
        core, wall = min(each)
        found.append(
            {
                "size": size,
                "sources": sources,
                "core_ms": 1e3 * core / stamps,
                "ms": 1e3 * wall / stamps,
                "steps": steps,
            }
        )
    return found


def _blends(size: int, sources: int, n: int, rng: Any) -> list[Any]:
    """Sersic galaxies through a Gaussian PSF in three bands, in the middle of their stamps."""
    import jax
    import numpy as np

    from diffdeblend import GaussianPSF, Scene, Sersic, render
    from diffdeblend.batch import blend_of_arrays

    psf = GaussianPSF(np.full(3, 3.6))
    draw = jax.jit(render, static_argnums=2)
    made = []
    for _ in range(n):
        while True:
            places = size / 2 + rng.uniform(-0.25, 0.25, (sources, 2)) * size
            apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e3 * np.eye(sources)
            if apart.min() > 3.5:
                break
        scene = Scene(
            [
                Sersic(
                    flux=rng.lognormal(np.log(2000), 0.7) * rng.uniform(0.7, 1.3, 3),
                    x=x,
                    y=y,
                    radius=rng.lognormal(np.log(2.0), 0.3),
                    index=rng.uniform(0.8, 3),
                    ellipticity=rng.normal(0, 0.15, 2),
                )
                for x, y in places
            ]
        )
        image = np.asarray(draw(scene, psf, (size, size)))
        noisy = (image + rng.normal(size=image.shape) * 10).astype(np.float32)
        start = places + rng.normal(0, 0.3, places.shape)
        made.append(blend_of_arrays(noisy, 100.0, psf, start))
    return made


def summary(out: str) -> dict[str, Any]:
    """The summary of a run, written beside its parts, and how long it takes, loaded."""
    from diffdeblend.survey.summary import summarise, write_summary

    write_summary(out)
    begun = time.perf_counter()
    found = summarise(out)
    return {"seconds": time.perf_counter() - begun, "mib": own_mib(), "summary": found}


def own_mib() -> float:
    """Memory of this process that is in use."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def _workers_mib(own: Any) -> list[float]:
    """Memory of the processes below this one that take the most: the workers, and not nannies."""
    import psutil

    found = []
    for child in own.children(recursive=True):
        try:
            found.append(child.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, reverse=True)[:2]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    chosen = globals()[sys.argv[1]]
    result = chosen(**json.loads(sys.argv[2]))
    print(_MARK + json.dumps(result, default=_plain), flush=True)
