"""One band of an exposure: which it is, and the exposure with other pixels and flags there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.exposure import Exposure
from diffdeblend.planes import as_int32, bits_of, with_plane


def band_of(exposure: Exposure, band: str | None) -> int:
    """Place of a band; None is the only one.

    **Raises:** `ValueError` for an unknown band, or None among several.
    """
    if band is not None:
        return exposure.band(band)
    if exposure.n_bands > 1:
        raise ValueError(f"`band` must be one of {exposure.bands}; got None.")
    return 0


def with_planes(
    exposure: Exposure,
    band: int,
    image: Float[np.ndarray, "y x"] | None,
    planes: Mapping[str, Bool[np.ndarray, "y x"]],
    cleared: Sequence[str] = (),
) -> Exposure:
    """The exposure with other pixels in a band (None: the same), and flags there.

    - `planes`: of each name, pixels that are put on it, besides those there. `cleared`: names of
        planes that are emptied before; both in this band alone.
    """
    names = exposure.header.mask_planes
    for name in (*cleared, *planes):
        names, _ = with_plane(names, name)
    if names != exposure.header.mask_planes:
        # Adds the planes to the header, without a pixel on them.
        for name in (*cleared, *planes):
            exposure = exposure.with_mask(name, np.zeros(exposure.shape, bool))
    mask = np.array(exposure.mask)
    mask[band] &= ~as_int32(bits_of(cleared, names))
    for name, flagged in planes.items():
        bit = as_int32(bits_of([name], names))
        np.bitwise_or(mask[band], bit, out=mask[band], where=flagged)
    pixels = exposure.image
    if image is not None:
        if exposure.n_bands == 1:
            pixels = np.asarray(image)[None]
        else:
            pixels = np.array(exposure.image)
            pixels[band] = image
    return replace(exposure, image=jnp.asarray(pixels), mask=jnp.asarray(mask))
