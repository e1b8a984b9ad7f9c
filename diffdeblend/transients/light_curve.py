"""The flux of one place over many epochs, from their differences to one reference."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from astropy.table import QTable

from diffdeblend.measure.points import PointFluxes, point_fluxes
from diffdeblend.psf.stamps import one_or_each
from diffdeblend.subtract.difference import Difference

_DESCRIPTIONS = {
    "source": "Row of the position",
    "epoch": "Number of the difference",
    "date": "Date of the new image",
    "band": "Band",
    "x": "Position along x (column) in the new image",
    "y": "Position along y (row) in the new image",
    "flux": "Flux minus that in the reference, in the reference's unit",
    "flux_err": "Standard deviation of the flux",
    "significance": "Flux over its standard deviation",
    "chi2": "Mean square of the stamp without the point, in units of its noise",
    "share": "Share of the PSF's power on pixels in use",
}


def light_curve(
    differences: Iterable[Difference],
    x: Any,
    y: Any,
    *,
    unit: Any = None,
) -> QTable:
    """Forced PSF photometry at given positions on every difference: a row a source, epoch and band.

    Fluxes are those of a point at that very place, whether anything is seen there or not, so that
    they may be added, averaged and compared with a model: nothing is selected. Errors are those of
    the noise of D times what `flux_err` of the difference says of photons and registration there.

    - `differences`: to the same reference, one an epoch; looked at one at a time.
    - `x`, `y`: in pixels of the new images, `(source,)`; or `(epoch, source)` where these are not
        aligned with each other.
    - `unit`: of the reference's flux, for the table.

    A source off the image, or whose pixels are all bad, has a flux of NaN and an infinite error.

    **Raises:** `ValueError` for positions that do not go together, or no differences.
    """
    x, y = (np.atleast_1d(np.asarray(v, float)) for v in (x, y))
    if x.shape != y.shape or x.ndim > 2:
        raise ValueError(
            "`x` and `y` need one shape, (source,) or (epoch, source); "
            f"got {x.shape} and {y.shape}."
        )
    parts: list[dict[str, np.ndarray]] = []
    number = -1
    for number, difference in enumerate(differences):
        if x.ndim == 2 and number >= len(x):
            raise ValueError(f"`x` has {len(x)} epochs, but there are more differences.")
        at_x, at_y = (v[number] if v.ndim == 2 else v for v in (x, y))
        header = difference.exposure.header
        for band, name in enumerate(header.bands):
            measured = forced_fluxes(difference, band, at_x, at_y)
            n = at_x.size
            parts.append(
                {
                    "source": np.arange(n),
                    "epoch": np.full(n, number),
                    "date": np.full(n, header.date or "", dtype="U32"),
                    "band": np.full(n, name, dtype="U32"),
                    "x": at_x,
                    "y": at_y,
                    "flux": measured.flux,
                    "flux_err": measured.error,
                    "significance": measured.flux / measured.error,
                    "chi2": measured.chi2 / np.maximum(measured.n_pixels, 1),
                    "share": measured.share,
                }
            )
    if number < 0:
        raise ValueError("`differences` is empty; a light curve needs at least one.")
    if x.ndim == 2 and len(x) != number + 1:
        raise ValueError(f"`x` has {len(x)} epochs, but there are {number + 1} differences.")
    table = QTable()
    for column in parts[0]:
        values: Any = np.concatenate([part[column] for part in parts])
        table[column] = values * unit if unit is not None and "flux" in column else values
        made: Any = table[column]
        made.info.description = _DESCRIPTIONS[column]
    return table


def forced_fluxes(difference: Difference, band: int, x: np.ndarray, y: np.ndarray) -> PointFluxes:
    """PSF photometry of one band of a difference at positions, in the reference's unit of flux."""
    image = np.asarray(difference.D[band], float)
    bad = np.asarray(difference.bad[band])
    used = np.isfinite(image) & np.asarray(difference.exposure.good[band]) & ~bad
    stamps = one_or_each(difference.exposure.psf, band, x, y)
    found = point_fluxes(image, used.astype(float), stamps, x, y)
    scale = float(difference.F_D[band])
    # In white noise the error is 1 / (F_D |P_D|); photons and registration add to it.
    ny, nx = image.shape
    rows = np.clip(np.round(np.nan_to_num(y)), 0, ny - 1).astype(int)
    columns = np.clip(np.round(np.nan_to_num(x)), 0, nx - 1).astype(int)
    local = np.asarray(difference.flux_err[band], float)[rows, columns]
    power = (stamps**2).sum(axis=(-2, -1))
    excess = np.maximum(local * scale * np.sqrt(power), 1)
    excess = np.where(np.isfinite(excess), excess, 1)
    return PointFluxes(
        found.flux / scale,
        found.error / scale * excess,
        found.chi2 / excess**2,
        found.n_pixels,
        found.share,
    )


class Position(NamedTuple):
    """A place and its standard deviation, in pixels."""

    x: float
    y: float
    x_err: float
    y_err: float


def mean_position(
    detections: Sequence[QTable], x: float, y: float, radius: float = 2.0
) -> Position:
    """The mean place of one source over epochs, by inverse variance. Host side.

    - `detections`: of each epoch, as `find_candidates` made them; the transient nearest to
        `x` and `y` within `radius` pixels counts.

    **Raises:** `ValueError` if no epoch has one there.
    """
    rows = []
    for table in detections:
        distance = np.hypot(np.asarray(table["x"]) - x, np.asarray(table["y"]) - y)
        distance = np.where(np.asarray(table["verdict"]) == "transient", distance, np.inf)
        if distance.size and distance.min() <= radius:
            k = int(distance.argmin())
            rows.append([np.asarray(table[name])[k] for name in ("x", "y", "x_err", "y_err")])
    if not rows:
        raise ValueError(
            f"`detections` have no transient within {radius:g} pixels of ({x:g}, {y:g})."
        )
    values = np.array(rows)
    weight = 1 / values[:, 2:] ** 2
    place = (weight * values[:, :2]).sum(axis=0) / weight.sum(axis=0)
    return Position(*place, *(1 / np.sqrt(weight.sum(axis=0))))
