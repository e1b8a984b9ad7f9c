"""Numbers by which parametric sources are compared: mapped shapes, magnitudes, colours."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.components import AbstractComponent, AnySource, BulgeDisc, Kind, MultiGaussian
from diffdeblend.components.sersic import Sersic
from diffdeblend.parameters import names_of

# Of each family: its features and the field that each one is the mapped value of. A density of
# them is one of the variables that a fit varies, up to the unit of the radius.
SHAPES: dict[str, dict[str, str]] = {
    "sersic": {
        "ln_radius": "radius",
        "e1": "ellipticity",
        "e2": "ellipticity",
        "logit_index": "index",
    },
    "bulge_disc": {
        "ln_radius": "radius",
        "e1": "ellipticity",
        "e2": "ellipticity",
        "ln_radius_ratio": "radius_ratio",
        "logit_shear_ratio": "shear_ratio",
    },
    "multi_gaussian": {"ln_radius": "radius", "e1": "ellipticity", "e2": "ellipticity"},
}
KINDS = {
    "sersic": Kind.SERSIC,
    "bulge_disc": Kind.BULGE_DISC,
    "multi_gaussian": Kind.MULTI_GAUSSIAN,
}
CLASSES: dict[str, type[AbstractComponent]] = {
    "sersic": Sersic,
    "bulge_disc": BulgeDisc,
    "multi_gaussian": MultiGaussian,
}
# AB magnitude of a microjansky.
MICROJANSKY = 23.9
_POGSON = 2.5 / np.log(10)


def speaks_of(member: AbstractComponent, family: str) -> bool:
    """Whether sources of this class are, or may be, of the family."""
    return isinstance(member, AnySource | CLASSES[family])


def selection(member: AbstractComponent, family: str, names: Sequence[str]) -> np.ndarray:
    """Which entry of the vector of `pack` each feature of shape is: 0 and 1, `(feature, entry)`."""
    fields = names_of(member)
    chosen = [name for name in SHAPES[family] if name in names]
    out = np.zeros((len(chosen), len(fields)))
    for row, name in enumerate(chosen):
        at = [i for i, field in enumerate(fields) if field == SHAPES[family][name]]
        out[row, at[1] if name == "e2" else at[0]] = 1
    return out


def asinh_magnitude(flux: Array, softening: ArrayLike) -> Array:
    """AB magnitude of a flux in microjansky, finite for all: linear within twice the softening.

    ??? cite
        Lupton, Gunn & Szalay (1999), AJ 118, 1406.
    """
    soft = jnp.asarray(softening, flux.dtype)
    return MICROJANSKY - _POGSON * (jnp.arcsinh(flux / (2 * soft)) + jnp.log(soft))


def flux_features(
    flux: Float[Array, "band"], softening: ArrayLike, names: Sequence[str]
) -> Float[Array, "feature"]:
    """Magnitude in the first band, and colours: other bands less the first.

    - `flux`: in microjansky, of the bands of the prior. `names`: as in `ParametricPrior`.
    """
    magnitude = asinh_magnitude(flux, softening)
    values = [magnitude[0]] if "magnitude" in names else []
    colours = sum(name.startswith("colour_") for name in names)
    values += [magnitude[k + 1] - magnitude[0] for k in range(colours)]
    return jnp.stack(values) if values else jnp.zeros(0, flux.dtype)
