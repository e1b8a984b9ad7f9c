"""For code that runs once: compiled three times sooner, and slower.

Half of the time of the tests was spent on making code fast.
"""

from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import pytest

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


@contextmanager
def one_size():
    """Apertures that are small go into windows of one size: one program in place of several."""
    from diffdeblend.measure import photometry

    boxes_of = photometry.aperture_boxes

    def at_least(shape, *where):
        boxes, room = boxes_of(shape, *where), np.array(shape[-2:])
        side = np.minimum(40, room)
        low = np.clip((boxes[:, :2] + boxes[:, 2:] - side) // 2, 0, room - side)
        low, high = np.minimum(low, boxes[:, :2]), np.maximum(low + side, boxes[:, 2:])
        return np.concatenate([low, high], axis=1).astype(boxes.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometry, "aperture_boxes", at_least)
        yield
