"""How programs are compiled that run side by side in threads, each on a core of its own.

XLA on CPU shares out large products of every program to one pool of threads. With a program a core
that gains nothing, and now and then, on a busy machine, such programs wait for the pool for ever
(jaxlib 0.10.1: all threads of the pool asleep, both programs waiting; also
github.com/PyAutoLabs/PyAutoFit/issues/1530).
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx

_P = ParamSpec("_P")
_T = TypeVar("_T")

# For `compiler_options` of `jax.jit`. Other backends ignore it.
ONE_CORE = {"xla_cpu_multi_thread_eigen": False}


def one_core_jit(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """`eqx.filter_jit` with these options."""
    jit: Any = eqx.filter_jit
    return jit(function, compiler_options=ONE_CORE)
