"""Sources replaced by noise, and one of them put back: pure functions of stamps."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def replaced(
    image: Float[Array, "y x"], footprints: Bool[Array, "source y x"], noise: Float[Array, "y x"]
) -> Float[Array, "y x"]:
    """The image with noise in all footprints."""
    return jnp.where(jnp.any(footprints, axis=0), noise, image)


def alone(
    image: Float[Array, "y x"],
    footprints: Bool[Array, "source y x"],
    pixels: Float[Array, "source y x"],
    noise: Float[Array, "y x"],
) -> Float[Array, "source y x"]:
    """For each source the image with its own pixels in, and noise in all other footprints.

    - `pixels`: the light of each source, as of `HeavyFootprint.to_image`; what lies outside of its
        footprint is not looked at.
    """
    return jnp.where(footprints, pixels, replaced(image, footprints, noise)[None])
