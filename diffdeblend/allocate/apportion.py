"""The light of a blend shared out in proportion to templates or models of its sources.

Functions of NumPy or JAX arrays alike.
"""

from typing import Any

from jaxtyping import Float


def shares(templates: Float[Any, "source y x"]) -> Float[Any, "source y x"]:
    """What fraction of each pixel each source has, max(0, T) over the sum of all.

    0 for all where no template is above 0.
    """
    xp = templates.__array_namespace__()
    lit = xp.maximum(templates, xp.zeros((), dtype=templates.dtype))
    # In units of the brightest: a sum of denormal numbers has no digits.
    lit = xp.where(xp.isfinite(lit), lit, 0)
    total = xp.sum(lit, axis=0)
    some = total > 0
    return xp.where(some, lit / xp.where(some, total, 1), 0)


def apportion(
    image: Float[Any, "y x"], templates: Float[Any, "source y x"]
) -> Float[Any, "source y x"]:
    """The image shared out: the sum over sources is the image wherever any template is above 0.

    ??? cite
        Lupton (2005), "SDSS Image Processing: the Deblender", eq. 3.
    """
    return shares(templates) * image[None]
