"""How much the sources of a blend are in each other's way."""

from typing import Any, NamedTuple

from jaxtyping import Float


class Overlap(NamedTuple):
    """Of each source of a blend, shape `(source,)`; m is its model, B the sum of all.

    - `blendedness`: 1 - sum(m^2) / sum(m B): 0 alone, towards 1 under others.
    - `max_overlap`: the most light of all others in a pixel where it has any.
    - `flux_overlap`: the light of all others in the pixels where it has any.
    - `flux_overlap_fraction`: the same over its own light.
    """

    blendedness: Float[Any, "source"]
    max_overlap: Float[Any, "source"]
    flux_overlap: Float[Any, "source"]
    flux_overlap_fraction: Float[Any, "source"]


def overlap(models: Float[Any, "source y x"]) -> Overlap:
    """How much sources overlap, by their models. NumPy or JAX arrays alike.

    A source without light has a blendedness of 1: all is other light; its fraction is 0.
    """
    xp = models.__array_namespace__()
    others = xp.sum(models, axis=0)[None] - models
    own = xp.sum(models**2, axis=(1, 2))
    # By the others' light: one minus a ratio near one has no digits in single precision.
    crossed = xp.sum(models * others, axis=(1, 2))
    both = own + crossed
    lit = own > 0
    blendedness = xp.where(lit, crossed / xp.where(lit & (both != 0), both, 1), 1)
    there = models > 0
    shown = xp.where(there, others, 0)
    flux = xp.sum(models, axis=(1, 2))
    light = xp.sum(shown, axis=(1, 2))
    fraction = xp.where(flux > 0, light / xp.where(flux > 0, flux, 1), 0)
    return Overlap(blendedness, xp.max(shown, axis=(1, 2)), light, fraction)
