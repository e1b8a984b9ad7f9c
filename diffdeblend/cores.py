"""Work side by side on the cores that there are."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """The function of each part. For numpy code, which lets other threads run in long calls."""
    cores = available_cores()
    if cores == 1 or len(parts) < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(min(cores, len(parts))) as pool:
        return list(pool.map(function, parts))
