"""What a batch of fits with decoded galaxies found. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float

from diffdeblend.batch.results import Found, empty, set_flags
from diffdeblend.batch.task import Task
from diffdeblend.components import Kind
from diffdeblend.deblend.attempt import Attempt
from diffdeblend.deblend.catalog import SUPPORT_MEANINGS, Flag

# In place of a `Kind` for decoded sources.
DECODED = -1
_SHAPES = ("radius", "index", "radius_ratio", "shear_ratio", "ellipticity")


@dataclass(eq=False)
class FoundDecoded(Found):
    """`Found` with what is known of decoded galaxies besides; a row a source.

    `kind` is -1 for them; their `x` and `y` are those of the centroid of the decoded light, which
    is what data fix; their `radius` and `ellipticity` those of the decoded image without the
    frame's PSF.

    - `decoded`: whether the source is decoded at the end.
    - `latent`, `latent_err`: `(source, latent)`, NaN for others.
    - `latent_norm`, `latent_quantile`, `own_chi2`, `own_quantile`: as in `Support`; of a source
        that is decoded no more, the first two are those of the decoded one.
    - `decoder_log_odds`: logarithm of the odds of the decoder against the other models that were
        weighed; NaN where none was.
    """

    decoded: Bool[np.ndarray, "source"]
    latent: Float[np.ndarray, "source latent"]
    latent_err: Float[np.ndarray, "source latent"]
    latent_norm: Float[np.ndarray, "source"]
    latent_quantile: Float[np.ndarray, "source"]
    own_chi2: Float[np.ndarray, "source"]
    own_quantile: Float[np.ndarray, "source"]
    decoder_log_odds: Float[np.ndarray, "source"]

    @property
    def replaced(self) -> Bool[np.ndarray, "source"]:
        """Which sources another model took over, as the evidence asked for."""
        return ~self.decoded

    @property
    def model(self) -> list[str]:
        """Name of the model of each source."""
        return [
            "decoded" if learned else Kind(int(kind)).name.lower()
            for learned, kind in zip(self.decoded, self.kind, strict=True)
        ]

    def table(self, bands: Sequence[str] | None = None) -> Table:
        table: Any = super().table(bands)
        for name, description in SUPPORT_MEANINGS.items():
            table[name] = getattr(self, name)
            table[name].info.description = description
        self.add_latents(table)
        return table

    def add_latents(self, table: Any, rows: Any = slice(None)) -> None:
        """Add to a table the numbers that galaxies are decoded from, with errors.

        - `rows`: those of the table, in its order.
        """
        table["latent"], table["latent_err"] = self.latent[rows], self.latent_err[rows]
        table[
            "latent"
        ].info.description = "Numbers that the galaxy is decoded from; NaN if it is not"
        table["latent_err"].info.description = "Their standard deviations"


def found_of(
    attempts: Sequence[Attempt], tasks: Sequence[Task], n_latent: int, *, widen: bool = True
) -> FoundDecoded:
    """The fits of all tasks as one catalogue, with flags.

    - `widen`: errors of faint sources, as those of parametric ones.
    """
    bands = tasks[0].blend.n_bands if tasks else 0
    sky = tasks[0].guess.sky.shape[1] if tasks else 0
    plain = empty(tasks, bands, sky)
    n = len(plain.x)
    rows: dict[str, Any] = {name: np.full(n, np.nan) for name in ("latent_norm", "latent_quantile")}
    rows |= {name: np.full(n, np.nan) for name in ("own_chi2", "own_quantile")}
    rows |= {name: np.full((n, n_latent), np.nan) for name in ("latent", "latent_err")}
    found = FoundDecoded(
        **{field.name: getattr(plain, field.name) for field in fields(Found)},
        **rows,
        decoded=np.ones(n, bool),
        decoder_log_odds=np.full(n, np.nan),
    )
    for number, (one, task) in enumerate(zip(attempts, tasks, strict=True)):
        _put(found, number, one, task)
    if widen:
        found.widen(np.arange(n))
    set_flags(found, tasks)
    for number, one in enumerate(attempts):
        rows_ = found.rows(number)
        found.flags[rows_] |= np.where(one.outside, int(Flag.OUT_OF_DOMAIN), 0)
    return found


def _put(found: FoundDecoded, number: int, one: Attempt, task: Task) -> None:
    rows, columns, unit = found.rows(number), one.columns, task.unit
    found.decoded[rows] = one.decoded
    found.kind[rows] = np.where(one.decoded, DECODED, one.kind)
    for axis, name in enumerate("xy"):
        getattr(found, name)[rows] = columns[f"centre_{name}"] + task.blend.origin[axis]
        getattr(found, f"{name}_err")[rows] = columns[f"centre_{name}_err"]
    for name in ("flux", "flux_err", "bulge_flux", "bulge_flux_err"):
        getattr(found, name)[rows] = columns[name] * unit
    for name in _SHAPES:
        for column in (name, f"{name}_err"):
            getattr(found, column)[rows] = columns[column]
    names = ("latent", "latent_err", "latent_norm", "latent_quantile", "own_chi2", "own_quantile")
    for name in names:
        getattr(found, name)[rows] = columns[name]
    found.decoder_log_odds[rows] = one.odds
    found.sky[number] = one.sky * unit[:, None]
    found.chi2[number], found.n_pixels[number] = one.chi2, one.n_pixels
    found.value[number], found.steps[number] = one.value, one.steps
    found.converged[number], found.finite[number] = one.converged, one.finite
    if one.fit is not None:
        found.covariance[number] = one.fit.covariance
    if one.images is not None:
        ny, nx = task.blend.shape
        cut = one.images[:, :, :ny, :nx]
        found.images[number] = cut * unit.astype(cut.dtype)[:, None, None]
