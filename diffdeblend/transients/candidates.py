"""What has changed: peaks of the significance of a difference, measured and judged."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import QTable
from jaxtyping import Array, Bool, Float
from scipy.ndimage import uniform_filter
from scipy.spatial import KDTree

from diffdeblend.exposure import Exposure
from diffdeblend.header import flux_unit
from diffdeblend.psf.stamps import one_or_each
from diffdeblend.subtract.difference import Difference
from diffdeblend.transients.judge_places import Place, judge_places
from diffdeblend.transients.templates import Pair

TRANSIENT, COSMIC_RAY, DIPOLE, MISFIT = "transient", "cosmic ray", "dipole", "misfit"
_STAMP = 41
# Half a side of the box in which masked pixels are counted and misfit is measured.
_NEAR = 4
_DESCRIPTIONS = {
    "x": "Position along x (column) in the new image; the first pixel is centred on 0",
    "y": "Position along y (row) in the new image; the first pixel is centred on 0",
    "x_err": "Standard deviation of x",
    "y_err": "Standard deviation of y",
    "ra": "Right ascension, ICRS",
    "dec": "Declination, ICRS",
    "significance": "S_corr at the peak; negative for what has faded",
    "flux": "Flux of a point in the difference, in the reference's unit",
    "flux_err": "Standard deviation of the flux",
    "verdict": "What explains it best",
    "S_point": "Significance of a point in white noise",
    "S_delta_new": "Largest significance of light on one pixel of the new image nearby",
    "S_delta_reference": "Largest significance of light on one pixel of the reference nearby",
    "S_left": "Significance of a point without the hits around",
    "Z2": "Largest chi^2 of motion nearby, two degrees of freedom",
    "chi2": "Mean square of the 9 x 9 pixels around without the point, in units of their noise",
    "near_masked": "Fraction of the 9 x 9 pixels around where nothing can be said",
    "band": "Band",
}


def find_candidates(
    difference: Difference,
    new: Exposure,
    reference: Exposure,
    *,
    threshold: float = 5.0,
    separation: int = 2,
    border: int = 4,
    negative: bool = True,
) -> QTable:
    """Peaks of |S_corr|, each with its PSF photometry and a verdict. The strongest first.

    The verdict compares explanations of the white image D around the peak:

    - `"cosmic ray"`: light on single pixels of one of the two images, as told by the PSFs that made
        D, explains it better than a point, or nothing is left of the point once the hits
        around, a track or one beside it, are taken away;
    - `"dipole"`: a source that moved, or was registered badly, explains it better;
    - `"misfit"`: none does: what is left around exceeds what was explained;
    - `"transient"`: a point explains it, or `negative` peaks: a point that has faded.

    - `difference`: of `new` and `reference`, which are asked for their PSFs and noise.
    - `threshold`: least |S_corr|.
    - `separation`: no larger peak within so many pixels on either axis.
    - `border`: pixels at the edge of the image in which no peak is looked for.
    - `negative`: look for what has faded, too.

    Columns: see their descriptions. Significances other than `significance` are those in white
    noise, to be compared with each other.

    **Raises:** `ValueError` for a `threshold` that is not positive, a negative `separation` or
    `border`, or exposures of other shapes or bands.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27 (hits); Springer et al. (2024), AJ 167, 281
        (motion).
    """
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"`threshold` must be a finite positive number; got {threshold!r}.")
    for name, value in (("separation", separation), ("border", border)):
        if value < 0 or int(value) != value:
            raise ValueError(f"`{name}` must be an integer of at least 0; got {value!r}.")
    for name, exposure in (("new", new), ("reference", reference)):
        if exposure.shape != difference.shape or exposure.n_bands != len(difference.beta):
            raise ValueError(
                f"`{name}` needs the shape and bands of `difference`, {difference.shape} and "
                f"{len(difference.beta)}; got {exposure.shape} and {exposure.n_bands}."
            )
    peaks = np.asarray(
        peak_map(
            difference.S_corr,
            difference.bad,
            threshold,
            separation=int(separation),
            border=int(border),
            negative=negative,
        )
    )
    found = []
    for band in range(new.n_bands):
        rows, columns = np.nonzero(peaks[band])
        order = np.argsort(-np.abs(np.asarray(difference.S_corr[band])[rows, columns]))
        found.append(_measured(difference, new, reference, band, columns[order], rows[order]))
    return _table(found, difference, reference)


def judged_significance(
    difference: Difference, candidates: QTable, *, threshold: float = 5.0, reach: float = 12.0
) -> Float[np.ndarray, "band y x"]:
    """S_corr with 0 where it is above `threshold` because of what is no transient. Host side.

    A pixel belongs to the nearest candidate within `reach` pixels.
    """
    judged = np.array(difference.S_corr)
    x, y = np.asarray(candidates["x"], float), np.asarray(candidates["y"], float)
    names = difference.exposure.header.bands
    of = (
        np.asarray(candidates["band"])
        if "band" in candidates.colnames
        else np.full(x.size, names[0])
    )
    kept = np.asarray(candidates["verdict"]) == TRANSIENT
    for band, name in enumerate(names):
        mine = of == name
        if not mine.any():
            continue
        rows, columns = np.nonzero(np.abs(judged[band]) > threshold)
        tree = KDTree(np.stack([x[mine], y[mine]], axis=1))
        distance, nearest = tree.query(np.stack([columns, rows], axis=1))
        known = np.append(kept[mine], True)[np.where(distance <= reach, nearest, mine.sum())]
        judged[band, rows[~known], columns[~known]] = 0
    return judged


@jax.jit
def _largest(values: Float[Array, "band y x"], window: Array) -> Array:
    size = window.shape[0]
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, (1, size, size), (1, 1, 1), "SAME")


def peak_map(
    significance: Float[Array, "band y x"],
    bad: Bool[Array, "band y x"],
    threshold: float,
    *,
    separation: int = 2,
    border: int = 4,
    negative: bool = True,
) -> Bool[Array, "band y x"]:
    """Where |S_corr| is above a threshold and largest around. Pure; `find_candidates` says more.

    Pixels that are bad or not finite are no peaks and make none of their neighbours.
    """
    known = jnp.isfinite(significance) & ~bad
    strength = jnp.abs(significance) if negative else significance
    strength = jnp.where(known, strength, -jnp.inf)
    largest = _largest(strength, jnp.zeros(2 * separation + 1))
    ny, nx = significance.shape[-2:]
    inside = (np.arange(ny) >= border) & (np.arange(ny) < ny - border)
    inside = inside[:, None] & (np.arange(nx) >= border) & (np.arange(nx) < nx - border)
    return (strength == largest) & (strength > threshold) & inside


def pair_at(
    difference: Difference,
    new: Exposure,
    reference: Exposure,
    band: int,
    x: np.ndarray,
    y: np.ndarray,
) -> Pair:
    """PSFs, noise and registration at places of the new image."""
    fit = difference.fit
    if fit is not None:
        dx, dy = (np.asarray(at(x, y))[band] for at in (fit.dx_at, fit.dy_at))
    else:
        dx, dy = (np.full(x.shape, float(v[band])) for v in (difference.dx, difference.dy))
    stamps = [
        one_or_each(new.psf, band, x, y),
        one_or_each(reference.psf, band, x - dx, y - dy),
    ]
    if stamps[0].ndim == stamps[1].ndim == 2 and fit is None:
        # One place stands for all, and is judged with one set of templates.
        dx, dy = dx[0], dy[0]
        numbers = [np.asarray(v) for v in (_noise(new, band), _noise(reference, band))]
        numbers.append(np.asarray(difference.beta[band]))
    else:
        stamps = [np.broadcast_to(s, (x.size, *s.shape[-2:])) for s in stamps]
        numbers = [
            np.full(x.shape, v)
            for v in (_noise(new, band), _noise(reference, band), float(difference.beta[band]))
        ]
    dtype = difference.S.dtype
    return Pair._make(jnp.asarray(v, dtype) for v in (*stamps, *numbers, dx, dy))


def _noise(exposure: Exposure, band: int) -> float:
    """Standard deviation of a pixel of empty sky: more than half of an image is that."""
    values = np.asarray(exposure.variance[band])
    values = values[np.asarray(exposure.good[band])]
    if not values.size:
        return 1.0
    return float(np.sqrt(np.median(values[:: max(1, values.size // 100_000)])))


def _measured(
    difference: Difference,
    new: Exposure,
    reference: Exposure,
    band: int,
    columns: np.ndarray,
    rows: np.ndarray,
) -> dict[str, Any]:
    """The columns of one band's candidates."""
    n = len(columns)
    significance = np.asarray(difference.S_corr[band])[rows, columns]
    if n == 0:
        empty = np.zeros(0)
        return {name: empty for name in _DESCRIPTIONS if name not in ("ra", "dec", "band")}
    # Places are padded to a power of two, so that another number of them compiles nothing.
    padded = np.minimum(np.arange(max(16, 1 << (n - 1).bit_length())), n - 1)
    x, y = columns[padded].astype(float), rows[padded].astype(float)
    half = _STAMP // 2
    image = np.pad(np.nan_to_num(np.asarray(difference.D[band])), half)
    spread = np.arange(_STAMP)
    places = rows[padded][:, None, None] + spread[:, None], columns[padded][:, None, None] + spread
    pair = pair_at(difference, new, reference, band, x, y)
    judged, norm = judge_places(jnp.asarray(image[places]), pair)
    place = Place(*(np.asarray(v, float)[:n] for v in judged))
    norm = np.asarray(norm, float)[:n]
    error = np.asarray(difference.flux_err[band], float)[rows, columns]
    # How much more noise there is than in empty sky: photons of sources, registration.
    excess = np.maximum(error * norm, 1)
    bad = np.asarray(difference.bad[band], float)
    masked = uniform_filter(bad, 2 * _NEAR + 1, mode="constant", cval=1.0)
    position_error = [
        excess / np.sqrt(np.maximum(np.abs(place.point) * bend, 1e-6))
        for bend in (place.curvature_x, place.curvature_y)
    ]
    chi2 = place.chi2 / excess**2
    return {
        "x": columns + place.x,
        "y": rows + place.y,
        "x_err": position_error[0],
        "y_err": position_error[1],
        "significance": significance,
        "flux": place.point / norm,
        "flux_err": error,
        "verdict": _verdicts(place, significance, chi2),
        "S_point": place.point,
        "S_delta_new": place.hit_new,
        "S_delta_reference": place.hit_reference,
        "S_left": place.left,
        "Z2": place.motion,
        "chi2": chi2,
        "near_masked": masked[rows, columns],
    }


def _verdicts(place: Place, significance: np.ndarray, chi2: np.ndarray) -> np.ndarray:
    point = np.abs(place.point)
    n_pixels = (2 * _NEAR + 1) ** 2
    # Five standard deviations of that chi^2 are noise, and PSFs are known to some percent.
    odd = n_pixels * (chi2 - 1) > 0.15 * significance**2 + 5 * np.sqrt(2 * n_pixels)
    hit = place.left < 0.5 * point
    for found, limit in (
        (place.hit_new, place.hit_limit_new),
        (place.hit_reference, place.hit_limit_reference),
    ):
        # What is no point need not be one hit to be several.
        hit |= (found > limit) | (odd & (found > 0.85 * limit))
    # A point's own derivative explains 0.37 of its chi^2 at the steepest place of its side; an
    # ideal dipole is a point to 0.37. In standard deviations halfway, and more than noise away.
    motion = np.sqrt(np.maximum(place.motion, 0))
    moved = motion > 0.85 * point + 1.0
    # Either side of a strong dipole is sharper than a point, too.
    hit &= ~(moved & (motion > np.maximum(place.hit_new, place.hit_reference)))
    return np.select([hit, moved, odd], [COSMIC_RAY, DIPOLE, MISFIT], TRANSIENT)


def _table(found: list[dict[str, Any]], difference: Difference, reference: Exposure) -> QTable:
    header = difference.exposure.header
    table = QTable()
    unit = flux_unit(reference.header)
    for name in found[0]:
        values: Any = np.concatenate([part[name] for part in found])
        if name == "verdict":
            values = values.astype("U10")
        table[name] = values * unit if name.startswith("flux") else values
    if header.wcs is not None:
        ra, dec = header.wcs.all_pix2world(np.asarray(table["x"]), np.asarray(table["y"]), 0)
        table.add_column(ra, 4, "ra")
        table.add_column(dec, 5, "dec")
    if len(found) > 1:
        counts = [len(part["x"]) for part in found]
        table["band"] = np.repeat(np.array(header.bands), counts)
    for name in table.colnames:
        made: Any = table[name]
        made.info.description = _DESCRIPTIONS[name]
    return table
