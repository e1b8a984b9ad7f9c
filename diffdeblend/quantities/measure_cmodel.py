"""CModel as columns: fitted in one band, and forced with the ellipses of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffdeblend.quantities.cmodel import (
    STANDARD_CMODEL,
    CModelSettings,
    ProfileFit,
    cmodel,
    forced_cmodel,
)
from diffdeblend.quantities.stamp import SourceStamp

Found = Mapping[str, Mapping[str, Array]]
_ELLIPSE = ("xx", "yy", "xy")


@dataclass(frozen=True)
class MeasureCModel:
    """`cmodel` at the centroid, on pixels of no excluded plane.

    `flux`, `flux_err`, `flux_err_held`, `frac_dev`, `chi2`, `n_pixels`; of the two profiles
    `exp_*` and `dev_*`: `flux`, `radius`, `xx`, `yy`, `xy`, `chi2`, as in `ProfileFit`. Flags:
    those of `CModel`; `flag` also where the centroid failed. For derivatives use `cmodel`.
    """

    settings: CModelSettings = STANDARD_CMODEL

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        place = found["centroid"]
        fit: Any = partial(cmodel, settings=self.settings)
        if jax.default_backend() == "cpu":
            # One by one: each takes its own number of steps, and its images stay in the cache.
            fit = jax.custom_batching.sequential_vmap(fit)
        made = fit(stamp.image, stamp.variance, stamp.good, stamp.psf, place["x"], place["y"])
        whole = ("flux", "flux_err", "flux_err_held", "frac_dev", "chi2", "n_pixels")
        flags = ("flag_no_pixels", "flag_not_converged", "flag_size")
        return {
            **{name: getattr(made, name) for name in whole},
            **_columns("exp", made.exponential),
            **_columns("dev", made.de_vaucouleurs),
            "flag": made.flag | place["flag"],
            **{name: getattr(made, name) for name in flags},
        }


@dataclass(frozen=True)
class MeasureForcedCModel:
    """`forced_cmodel` at the centroid, with ellipses found elsewhere.

    `flux`, `flux_err`, `frac_dev`, `chi2`, `n_pixels`, and `flag`: there are too few pixels, the
    centroid failed, or the flux is not finite.

    - `reference`: the name among what was found of columns as `MeasureCModel` makes them:
        `exp_xx`, `exp_yy`, `exp_xy`, the same with `dev`, and `frac_dev`.
    - `hold_frac_dev`: one amplitude for the light of the reference; else both are free.
    """

    reference: str = "reference"
    hold_frac_dev: bool = True
    settings: CModelSettings = STANDARD_CMODEL

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        place, known = found["centroid"], found[self.reference]
        disc, bulge = (
            jnp.stack([known[f"{part}_{name}"] for name in _ELLIPSE]) for part in ("exp", "dev")
        )
        made = forced_cmodel(
            *(stamp.image, stamp.variance, stamp.good, stamp.psf, place["x"], place["y"]),
            exponential=disc,
            de_vaucouleurs=bulge,
            frac_dev=known["frac_dev"] if self.hold_frac_dev else None,
            settings=self.settings,
        )
        return {**made._asdict(), "flag": made.flag | place["flag"]}


def _columns(name: str, fit: ProfileFit) -> dict[str, Array]:
    return {f"{name}_{key}": getattr(fit, key) for key in ("flux", "radius", *_ELLIPSE, "chi2")}
