"""Star or galaxy: does a model that may be extended hold more light, or more size, than a point?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.quantities.stamp import SourceStamp

Found = Mapping[str, Mapping[str, Array]]


class Extendedness(NamedTuple):
    """`value`: 1 for a galaxy, 0 for a star; NaN where a flux is missing."""

    value: Float[Array, "*n"]


def extendedness(
    model_flux: Float[Array, "*n"],
    psf_flux: Float[Array, "*n"],
    model_err: Float[Array, "*n"] | float = 0.0,
    psf_err: Float[Array, "*n"] | float = 0.0,
    *,
    ratio: float = 0.95,
    model_factor: float = 0.0,
    psf_factor: float = 0.0,
) -> Extendedness:
    """1 where ratio * model + model_factor * model_err is at least psf + psf_factor * psf_err.

    - `ratio`: with 0.95 a source is extended when the model holds 5 % more light than the point.
    - `model_factor`, `psf_factor`: of the errors; 0 leaves them out.

    ??? cite
        Bosch et al. (2018), PASJ 70, S5, sec. 4.9.10.
    """
    model = ratio * model_flux + model_factor * model_err
    point = psf_flux + psf_factor * psf_err
    known = jnp.isfinite(model) & jnp.isfinite(point)
    return Extendedness(jnp.where(known, jnp.where(model < point, 0.0, 1.0), jnp.nan))


class SizeExtendedness(NamedTuple):
    """`value`: 0 for a point, towards 1 the larger a source is; NaN without sizes."""

    value: Float[Array, "*n"]


def size_extendedness(trace: Float[Array, "*n"], psf_trace: Float[Array, "*n"]) -> SizeExtendedness:
    r"""$1 - \exp(-\chi^2/2)$ with $\chi = (T - T_{psf}) / \sqrt{T_{psf}}$.

    - `trace`, `psf_trace`: Ixx + Iyy of the source and of the PSF, in square pixels.
    """
    known = jnp.isfinite(trace) & (psf_trace > 0)
    chi = (jnp.where(known, trace, 0) - psf_trace) / jnp.sqrt(jnp.where(known, psf_trace, 1))
    return SizeExtendedness(jnp.where(known, 1 - jnp.exp(-0.5 * chi**2), jnp.nan))


@dataclass(frozen=True)
class MeasureExtendedness:
    """`extendedness` from the fluxes of two measurements.

    - `model`, `point`: names of the measurements.
    - others as in `extendedness`.

    Flag: `flag`, either flux is flagged or missing.
    """

    model: str = "cmodel"
    point: str = "psf"
    ratio: float = 0.95
    model_factor: float = 0.0
    psf_factor: float = 0.0

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        model, point = found[self.model], found[self.point]
        made = extendedness(
            *(model["flux"], point["flux"], model["flux_err"], point["flux_err"]),
            ratio=self.ratio,
            model_factor=self.model_factor,
            psf_factor=self.psf_factor,
        )
        failed = model["flag"] | point["flag"] | ~jnp.isfinite(made.value)
        return {"value": made.value, "flag": failed}


def measure_size_extendedness(stamp: SourceStamp, found: Found) -> dict[str, Array]:
    """`size_extendedness` from `shape` and `psf_shape`. Flag: `flag`, the shape is flagged."""
    own, psf = found["shape"], found["psf_shape"]
    made = size_extendedness(own["xx"] + own["yy"], psf["xx"] + psf["yy"])
    return {"value": made.value, "flag": own["flag"] | ~jnp.isfinite(made.value)}
