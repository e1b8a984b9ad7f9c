"""For code that runs once: compiled three times sooner, and slower.

Half of the time of the tests was spent on making code fast.
"""

from contextlib import contextmanager
from functools import partial

import jax

_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def _known() -> dict:
    """The options, if this version of XLA knows them."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=_OPTIONS)(1.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return _OPTIONS


quick_jit = partial(jax.jit, compiler_options=_known())


@contextmanager
def hasty():
    """The same for programs of the library."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
