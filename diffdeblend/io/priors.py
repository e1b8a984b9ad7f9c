"""Learned priors in files: a line of JSON that says what is there, then the weights."""

import os
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffdeblend.components import Decoder, Frame
from diffdeblend.io.structure import Form, read_module, write_module
from diffdeblend.priors import (
    CouplingFlow,
    DecoderPrior,
    Denoiser,
    DenoiserPrior,
    GaussianMixture,
    LogTransform,
    ParametricPrior,
    Training,
)

FORMAT = "diffdeblend prior"
# To be raised when files of the new form cannot be read by older code.
FORMAT_VERSION = 1

# What a decoder is made of; scenes that hold decoded galaxies have it, too.
DECODER_PARTS: Mapping[str, type] = {
    part.__name__: part for part in (Decoder, Frame, CouplingFlow, eqx.nn.Linear)
}
# Priors that a file may hold, and their parts. A new kind is one more entry.
PRIORS: tuple[type[eqx.Module], ...] = (DecoderPrior, DenoiserPrior, ParametricPrior)
PARTS: Mapping[str, type] = {
    **DECODER_PARTS,
    **{part.__name__: part for part in (Training, Denoiser, LogTransform, GaussianMixture)},
}
# Weights are stored by halves only where there are many: means and biases decide all pixels.
_MANY = 2048


def save_prior(prior: eqx.Module, path: str | os.PathLike, *, half: bool = False) -> None:
    """Write a prior to a file that `load_prior` reads, `.eqx` by custom.

    The first line is JSON: format, version, structure, and where the prior comes from. The weights
    follow, exact to the last bit. The file appears whole or not at all.

    - `prior`: a `DecoderPrior`, a `DenoiserPrior` with a `Denoiser`, or a `ParametricPrior`.
    - `half`: store large arrays of weights as float16, in half of the space, with 3e-4 of each.

    **Raises:** `ValueError` if it is no prior, its weights are not finite, or `half` overflows.
    """
    if not isinstance(prior, PRIORS):
        raise ValueError(f"`prior` must be a {_NAMES}; got {type(prior).__name__}.")
    _check(prior, "`prior`")
    # None where nothing was halved, so that reading knows the types to come back to.
    told: dict[str, Any] = {"half": None}
    if half:
        told["half"] = [str(leaf.dtype) for leaf in jax.tree.leaves(prior)]
        prior = jax.tree.map(_halved, prior)
        _check(prior, "`half`: the prior as float16")
    write_module(prior, path, _form(), told)


def load_prior(path: str | os.PathLike) -> Any:
    """A prior from a file of `save_prior`.

    Nothing in the file is run: classes are looked up in a list, and pickles are refused.

    **Raises:** `ValueError` for a file that is missing, of another kind, of a newer version, cut
    short or damaged, with weights that are not finite or do not fit together, or that needs
    float64 while JAX has it switched off.
    """
    prior, head = read_module(path, _form(), PRIORS)
    where = f"`path`: {os.fspath(path)!r}"
    leaves, structure = jax.tree.flatten(prior)
    dtypes = head.get("half")
    if dtypes is not None:
        if not isinstance(dtypes, list) or len(dtypes) != len(leaves):
            raise ValueError(f"{where} does not tell of what its halved weights were.")
        leaves = [_widened(leaf, dtype, where) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    prior = jax.tree.unflatten(structure, leaves)
    _check(prior, where)
    return prior


_NAMES = " or ".join(kind.__name__ for kind in PRIORS)


def _form() -> Form:
    return Form(FORMAT, FORMAT_VERSION, "prior", {**PARTS, **{p.__name__: p for p in PRIORS}})


def _halved(leaf: jax.Array) -> jax.Array:
    many = leaf.size >= _MANY and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float16) if many else leaf


def _widened(leaf: jax.Array, dtype: Any, where: str) -> jax.Array:
    if dtype == str(leaf.dtype):
        return leaf
    if leaf.dtype != jnp.float16 or dtype not in ("float32", "float64"):
        raise ValueError(f"{where} has weights of {leaf.dtype} that were {dtype!r}.")
    return leaf.astype(dtype)


def _check(prior: eqx.Module, where: str) -> None:
    """Whether the weights are numbers, and what a module asks of its parts holds for all."""
    for leaf in jax.tree.leaves(prior):
        if not eqx.is_array_like(leaf):
            raise ValueError(f"{where} holds a {type(leaf).__name__}, which is no weight to store.")
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{where} has weights that are not finite.")
    for part in _modules(prior):
        check = getattr(part, "__check_init__", None)
        if check is not None:
            try:
                check()
            except (ValueError, TypeError, IndexError) as error:
                raise ValueError(f"{where}: {error}") from error
        # equinox asks nothing of its own layers.
        if isinstance(part, eqx.nn.Linear):
            shapes = (part.weight.shape, None if part.bias is None else part.bias.shape)
            biased = (part.out_features,) if part.use_bias else None
            if shapes != ((part.out_features, part.in_features), biased):
                raise ValueError(
                    f"{where} has a layer from {part.in_features} to {part.out_features} numbers "
                    f"with weights of shapes {shapes}."
                )


def _modules(value: Any) -> list[eqx.Module]:
    """A module and all in it."""
    parts = [value] if isinstance(value, eqx.Module) else []
    inside = vars(value).values() if parts else value if isinstance(value, tuple | list) else ()
    return parts + [module for part in inside for module in _modules(part)]
