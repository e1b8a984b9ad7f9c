"""Compiled programs that outlive the process."""

from pathlib import Path

import jax

from diffdeblend.io.results import make_directory


def keep_programs(folder: str | Path) -> Path:
    """Let JAX keep compiled programs in a folder, from where later processes take them.

    Call it once, before the first fit. It changes the configuration of JAX for the whole process,
    as nothing else in this library does. XLA reports an error for every program that it takes from
    there, of processor features that are none; `TF_CPP_MIN_LOG_LEVEL=3` in the environment, set
    before JAX is loaded, silences it.

    Returns the folder. It is made if there is none.

    **Raises:** `OSError` if that cannot be.

    ??? cite
        https://docs.jax.dev/en/latest/persistent_compilation_cache.html
    """
    made = make_directory(folder)
    jax.config.update("jax_compilation_cache_dir", str(made))
    # Small programs too: many of them add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return made
