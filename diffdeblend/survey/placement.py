"""Which process has which core or GPU."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffdeblend.cores import own_cores

# Always: the first silences an error that XLA reports for each program from its cache; threads of
# OpenBLAS spin against those of XLA; Dask's profiler looks at the fit a hundred times a second.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OPENBLAS_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    - `environment`: variables that it gets. `cores`: that it may run on; empty for all.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()


def places(
    count: int | None, *, gpus: Sequence[str] | None = None, cores: Sequence[int] | None = None
) -> list[Place]:
    """A place for each of `count` processes: a GPU each, or a core each where there is no GPU.

    - `count`: by default as many as there are GPUs, or else cores.
    - `gpus`, `cores`: by default those that there are for this process.

    Warns where processes must share.
    """
    gpus = gpus_of(os.environ, Path("/dev")) if gpus is None else gpus
    cores = own_cores() if cores is None else cores
    what = "GPUs" if gpus else "cores"
    there = list(gpus) or list(cores)
    count = len(there) if count is None else count
    if count > len(there):
        warnings.warn(f"{count} workers share {len(there)} {what}.", stacklevel=2)
    found = []
    for number in range(count):
        own = there[number % len(there)]
        if gpus:
            extra = {"CUDA_VISIBLE_DEVICES": str(own)}
            if count > len(there):
                # Else the first takes most of the memory for itself.
                extra["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
            found.append(Place(_ENVIRONMENT | extra))
        else:
            found.append(Place(_ENVIRONMENT, (int(own),)))
    return found


def gpus_of(environment: Mapping[str, str], devices: Path) -> list[str]:
    """The NVIDIA GPUs that a process with this environment may use, as CUDA is told of them.

    - `devices`: the folder `/dev`.
    """
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    there = [path for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit()]
    if not there:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return sorted((path.name[6:] for path in there), key=int)
    named = [name.strip() for name in visible.split(",")]
    # CUDA ignores what follows the first that it does not know.
    ends = (place for place, name in enumerate(named) if name in ("", "-1", "none", "void"))
    return named[: next(ends, len(named))]


def pin(cores: Sequence[int]) -> None:
    """Keep all threads of this process, and those that they start, on some cores.

    Must come before JAX's first array: XLA makes as many threads as it sees cores. Does nothing
    without cores, or where the system cannot.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:
            # It has ended since.
            continue
