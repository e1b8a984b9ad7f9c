"""Many workers, one scheduler and one shared file system, simulated event by event.

A worker has a batch in hand and the next one on its way: it asks the scheduler, which serves one
request after another; then the stamps come from the file system, which serves one reader after
another at its full bandwidth; then it fits, and its part goes back through the file system. A
worker that fails loses what it has in hand, does it again, and is away for some time.
"""

import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cluster:
    """What a run has.

    - `workers`: how many. `fits`: seconds that batches take, drawn from these.
    - `stamps`: of a batch. `task`: seconds of the scheduler for each, `schedulers`: that share it.
    - `read`, `write`: bytes of a batch. `bandwidth`: bytes a second, of all together.
    - `failures`: of a worker a second. `restart`: seconds.
    """

    workers: int
    fits: tuple[float, ...]
    stamps: int
    task: float
    read: float
    write: float
    bandwidth: float
    failures: float = 0.0
    restart: float = 30.0
    schedulers: int = 1


def throughput(cluster: Cluster, batches: int, seed: int) -> float:
    """Stamps a second of all workers in the steady state; each does about so many batches."""
    rng = np.random.default_rng(seed)
    fits = np.asarray(cluster.fits)
    n = cluster.workers
    scheduler = np.zeros(max(1, cluster.schedulers))
    disk = 0.0
    # When what a worker has asked for is there, and it is free.
    free = np.zeros(n)
    events = [(0.0, worker) for worker in range(n)]
    heapq.heapify(events)
    reading, writing = cluster.read / cluster.bandwidth, cluster.write / cluster.bandwidth
    finished: list[float] = []
    wanted = batches * n
    drawn = rng.choice(fits, wanted + n)
    lost = rng.random(wanted + n) if cluster.failures else np.ones(wanted + n)
    taken = 0
    while taken < wanted:
        # A worker asks for its next batch: when it begins to fit the one before.
        now, worker = heapq.heappop(events)
        own = worker % len(scheduler)
        scheduler[own] = max(scheduler[own], now) + cluster.task
        disk = max(disk, scheduler[own]) + reading
        begin = max(disk, free[worker])
        length = drawn[taken]
        failed = lost[taken] < cluster.failures * length
        taken += 1
        if failed:
            # On the average half of it was done; then another worker comes in its place.
            free[worker] = begin + length / 2 + cluster.restart
            heapq.heappush(events, (free[worker], worker))
            continue
        free[worker] = begin + length
        disk += writing
        finished.append(max(free[worker], disk))
        heapq.heappush(events, (begin, worker))
    # Neither the beginning, when all ask at once, nor the end, when some are out of work.
    each = np.sort(finished)
    low, high = len(each) // 4, 3 * len(each) // 4
    if high - low < 2:
        return cluster.stamps * len(each) / float(each[-1])
    return cluster.stamps * (high - low) / float(each[high] - each[low])


def ceiling(cluster: Cluster) -> dict[str, float]:
    """Stamps a second that each of the three could serve if the others took no time."""
    length = float(np.mean(cluster.fits))
    away = 1 + cluster.failures * (length / 2 + cluster.restart)
    return {
        "workers": cluster.workers * cluster.stamps / (length * away),
        "scheduler": cluster.schedulers * cluster.stamps / cluster.task,
        "file system": cluster.stamps * cluster.bandwidth / (cluster.read + cluster.write),
    }
