"""What many tests share: double precision, and a count of compilations."""

import os

# OpenBLAS's threads spin against XLA's: small factorisations took 20 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest


@pytest.fixture
def x64():
    """Runs the test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """Runs the test once in each precision, and says in which."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def compilations():
    """A list that grows by one entry, a duration, whenever XLA compiles."""
    durations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield durations
    jax.monitoring.unregister_event_duration_listener(listen)
