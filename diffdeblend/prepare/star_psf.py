"""The PSF of every band of an image from its own stars."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.psf import PSFBasis
from diffdeblend.stars import StarPSF, determine_psf

# What `prepare` calls them, and what `determine_psf` does.
METHODS = {"basis": "moffat+residual", "moffat": "moffat", "gaussian": "gaussian"}


def psf_of_bands(
    images: Sequence[Float[np.ndarray, "y x"]],
    variances: Sequence[Float[np.ndarray, "y x"]],
    masked: Sequence[Bool[np.ndarray, "y x"]],
    name: str,
    settings: Mapping[str, Any] | None,
) -> tuple[PSFBasis, tuple[StarPSF, ...]]:
    """One PSF for all bands, and what each band's is made from.

    - `name`: one of "basis", "moffat", "gaussian". `settings`: more for `determine_psf`.

    **Raises:** `ValueError` as `determine_psf`, as for an image without stars.
    """
    options: dict[str, Any] = {"method": METHODS[name], **(settings or {})}
    stars = tuple(
        determine_psf(image, variance, mask, **options)
        for image, variance, mask in zip(images, variances, masked, strict=True)
    )
    return joined([one.psf for one in stars]), stars


def joined(bands: Sequence[PSFBasis]) -> PSFBasis:
    """The PSFs of bands as one: smaller stamps and bases are filled up with zeros."""
    if len(bands) == 1:
        return bands[0]
    sizes = np.array([band.images.shape[1:] for band in bands])
    terms = max(band.coefficients.shape[2] for band in bands)
    most, height, width = sizes.max(axis=0)
    images, coefficients = [], []
    for band, (n, h, w) in zip(bands, sizes, strict=True):
        rows, columns = (height - h) // 2, (width - w) // 2
        pads = ((0, 0), (0, most - n), (rows, rows), (columns, columns))
        images.append(jnp.pad(band.images, pads))
        # Terms are in the order of their degree: a lower one is the beginning of a higher.
        short = ((0, 0), (0, most - n), (0, terms - band.coefficients.shape[2]))
        coefficients.append(jnp.pad(band.coefficients, short))
    return PSFBasis(
        jnp.concatenate(images),
        jnp.concatenate(coefficients),
        bands[0].shape,
        max(band.degree for band in bands),
    )
