"""All that the measurements choose, in one place."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """What is made, fitted and asked.

    - `n`: stamps that are drawn; a multiple of the 1024 of a shard. `times`: how often they stand
        in the large store, so 1,003,520 stamps.
    - `size`, `bands`, `least`: pixels of a stamp, names, and pixels between two sources.
    - `brightest`, `faintest`: AB magnitudes in i. `jitter`: of the start positions, pixels.
    - `seed`: of what is scored; what was tried out had seeds below 10.
    - `batch`: stamps of a part. `timed`, `batch_timed`: stamps that engines are timed on, and of
        a part there.
    - `law`: (pixels, sources) of the cost law; `law_stamps`: of each.
    - `pulls`: stamps of the pulls.
    - `tasks`: that the scheduler is timed with. `files`: that listing is timed with.
    - `workers`: numbers of them in the simulation. `simulated`: batches of each worker there.
    - `objects_a_day`, `objects_a_stamp`: what is asked for.
    - `failures`: of a worker, an hour. `restart`: seconds until another is ready.
    - `bandwidth`: of a shared file system, bytes a second: of one server, and of a large one.
    - `bar_two_workers`, `bar_cold`: at least as fast, at most so many seconds.
    """

    n: int = 10_240
    times: int = 98
    size: int = 32
    bands: tuple[str, ...] = ("g", "r", "i")
    most: int = 3
    least: float = 3.5
    brightest: float = 20.0
    faintest: float = 24.5
    jitter: float = 0.3
    seed: int = 101
    batch: int = 256
    timed: int = 7680
    batch_timed: int = 256
    law: tuple[tuple[int, int], ...] = ((32, 1), (32, 2), (32, 4), (64, 1), (64, 2), (64, 4))
    law_stamps: int = 128
    pulls: int = 10_240
    tasks: int = 10_000
    files: int = 3920
    workers: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768)
    simulated: int = 12
    objects_a_day: float = 2e10
    objects_a_stamp: float = 2.0
    failures: float = 0.01
    restart: float = 30.0
    bandwidth: tuple[float, ...] = (2e9, 1e11)
    bar_two_workers: float = 1.85
    bar_cold: float = 6.0


def quick(settings: Settings) -> Settings:
    """The same in short: numbers that mean little, to see that all runs."""
    return replace(
        settings,
        n=1024,
        times=20,
        seed=1,
        timed=1024,
        batch_timed=64,
        law=((32, 1), (32, 2)),
        law_stamps=32,
        pulls=1024,
        tasks=500,
        files=200,
        workers=(1, 16, 256, 4096),
        simulated=4,
    )
