"""Many tasks through compiled programs: chunks, threads, devices, memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from diffdeblend.batch.task import Bucket, Task, form, pack_tasks
from diffdeblend.cores import available_cores

# A compiled program for some tasks: packed tasks, PSFs and number of tasks to stacked results.
Program = Callable[..., Any]
# More in a chunk than this buys nothing on CPU, where tasks run one after the other; on an
# accelerator the queue wants to be long.
_MOST_ON_CPU, _MOST = 32, 8192


def chunk_capacity(bucket: Bucket, n_bands: int, memory: float, itemsize: int = 4) -> int:
    """How many tasks of a bucket go into one chunk: a power of two, as `memory` in bytes allows."""
    pixels = n_bands * bucket.size**2
    # Image and weight, and the results' matrices.
    each = itemsize * (2 * pixels + (7 * bucket.sources) ** 2 + 1000)
    fits = max(1, int(memory / each))
    most = _MOST_ON_CPU if jax.default_backend() == "cpu" else _MOST
    return min(most, 1 << (fits.bit_length() - 1))


def run_tasks(
    tasks: Sequence[Task],
    program: Program,
    *,
    memory: float,
    ended: Callable[[list[int], Any], None],
    with_numbers: bool = False,
) -> None:
    """Put every task through a compiled program.

    Chunks run side by side on all cores of a CPU and on all devices. The first chunk of each bucket
    compiles its program; others of that bucket wait for it.

    - `memory`: bytes that the chunks under way may take together.
    - `with_numbers`: call `program` with the numbers of its tasks as a last argument.
    - `ended`: called in this thread with the numbers of some tasks and their stacked results.
    """
    groups: dict[Any, list[int]] = {}
    for number, task in enumerate(tasks):
        key = (task.bucket, task.blend.n_bands, task.blend.data.dtype, form(task.blend))
        groups.setdefault(key, []).append(number)
    double = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    devices = jax.local_devices()
    on_cpu = devices[0].platform == "cpu"
    workers = max(len(devices), available_cores()) if on_cpu else len(devices)

    def run(chunk: list[int], of: Bucket, capacity: int, turn: int) -> tuple[list[int], Any]:
        packed, psfs = pack_tasks([tasks[i] for i in chunk], of, capacity)
        device = devices[turn % len(devices)]
        more = (chunk,) if with_numbers else ()
        # A switch that was set for the caller's thread alone would not reach this one.
        with jax.enable_x64(double):
            inputs = jax.device_put((packed, psfs, np.int32(len(chunk))), device)
            return chunk, jax.device_get(program(*inputs, *more))

    # The largest first: what is left at the end is short.
    waiting: dict[Any, list[tuple]] = {}
    for key in sorted(groups, key=lambda k: -len(groups[k]) * k[0].size ** 2):
        of, n_bands, dtype, _ = key
        capacity = chunk_capacity(of, n_bands, memory / workers, dtype.itemsize)
        rows = groups[key]
        # Enough chunks that all workers have something to do, down to a few tasks each.
        size = min(capacity, max(2, -(-len(rows) // (3 * workers)))) if on_cpu else capacity
        waiting[key] = [
            (rows[i : i + size], of, capacity, turn)
            for turn, i in enumerate(range(0, len(rows), size))
        ]
    with ThreadPoolExecutor(workers) as pool:
        first = {pool.submit(run, *chunks[0]): key for key, chunks in waiting.items()}
        running = set(first)
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                if future in first:
                    rest = waiting[first.pop(future)][1:]
                    running |= {pool.submit(run, *chunk) for chunk in rest}
                ended(*future.result())
