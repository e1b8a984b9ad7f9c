"""Work side by side on the cores that there are."""

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def available_cores() -> int:
    """How many cores this process may use."""
    return len(own_cores())


def own_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def collect_seldom() -> None:
    """Let Python look for garbage less often, in this process.

    Tracing makes millions of objects that stay: to look for garbage among them took a fifth of the
    time to the first result. For processes of our own, not for those that call the library.
    """
    gc.set_threshold(50_000, 20, 100)


def in_threads(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """The function of each part. For numpy code, which lets other threads run in long calls."""
    cores = available_cores()
    if cores == 1 or len(parts) < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(min(cores, len(parts))) as pool:
        return list(pool.map(function, parts))
