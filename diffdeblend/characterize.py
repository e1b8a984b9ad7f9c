"""What an image says of itself: its sky, its cosmic rays, its stars and its PSF, in turns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from astropy.table import QTable
from jaxtyping import Float

from diffdeblend.background import source_free_background
from diffdeblend.background.surface_fit import SurfaceFit
from diffdeblend.background.surfaces import Surface, total_background
from diffdeblend.detect.psf_width import determinant_radius
from diffdeblend.exposure import Exposure
from diffdeblend.prepare import fill_masked, find_cosmic_rays, star_sharpness
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.quantities.aperture_flux import MeasureApertures
from diffdeblend.quantities.centroid import measure_centroid
from diffdeblend.quantities.extendedness import measure_size_extendedness
from diffdeblend.quantities.measure_sources import measure_sources
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.quantities.shape import MeasureShape, measure_psf_shape
from diffdeblend.quantities.standard import Measurement
from diffdeblend.stars import StarMethod, StarPSF, exposure_psf
from diffdeblend.widths import FWHM_PER_SIGMA

# Margin around what stands out of the sky, in widths of a star.
_GROW = 1.5
# Of what a round changes of the sky, in standard deviations of a pixel: boxes have noise, too.
_SKY_TOLERANCE = 0.02
# Enough stars to judge a PSF by, and few to lose.
_STARS = StarMethod(reserve=0.2)
# What shows that stars have one size, and galaxies have not.
SIZES_AND_FLUXES: Mapping[str, Measurement] = MappingProxyType(
    {
        "psf_shape": measure_psf_shape,
        "centroid": measure_centroid,
        "shape": MeasureShape(),
        "psf": measure_psf_flux,
        "aperture": MeasureApertures(radii=(12.0,)),
        "size_extendedness": measure_size_extendedness,
    }
)
# Of stamps, in pixels: an aperture of 12 with its margin, and one program.
_STAMP = 48
# Of a star, in pixels, where an exposure's PSF has no width.
_FIRST_SIGMA = 1.5


@dataclass(frozen=True, eq=False)
class Characterized:
    """An exposure with the sky taken off and a PSF of its own, and how it came to be.

    - `exposure`: without the sky; its PSF that of its stars; cosmic rays on the plane `"CR"`,
        what was filled in their place on `"INTRP"`.
    - `background`: of each band the surfaces taken off: a first one, and what it missed;
        their sum plus the image is the image as it was.
    - `stars`: of each band the PSF and its stars, those used and those held back.
    - `catalogs`: of each band, a row a source that stands out: position, fluxes, size, and
        `calib_psf_candidate`, `calib_psf_used`, `calib_psf_reserved`, and what was asked to be
        measured, by the names of `measure_sources`.
    - `history`: a row a band and round: `sigma` (determinant radius of the PSF, pixels),
        `background` (median), `background_moved` (by this round, rms
        over the noise), `noise`, `n_stars`, `n_used`, `n_cosmic_rays`.
    - `settled`: of each band, whether the last round changed next to nothing.
    """

    exposure: Exposure
    background: tuple[tuple[Surface, ...], ...]
    stars: tuple[StarPSF, ...]
    catalogs: Mapping[str, QTable] = field(repr=False)
    history: QTable = field(repr=False)
    settled: tuple[bool, ...]

    @property
    def catalog(self) -> QTable:
        """The catalogue of the first band."""
        return self.catalogs[self.exposure.bands[0]]

    @property
    def sky(self) -> Float[np.ndarray, "band y x"]:
        """All that was taken off, at every pixel. Made anew at each access."""
        shape = self.exposure.shape
        return np.stack([total_background(one, shape) for one in self.background])


def characterize(
    exposure: Exposure,
    *,
    method: StarMethod = _STARS,
    sigma: float | None = None,
    background: SurfaceFit | None = SurfaceFit(),  # noqa: B008
    cosmic_rays: Literal["auto"] | None = "auto",
    rounds: int = 2,
    max_rounds: int = 6,
    tolerance: float = 0.005,
    measurements: Mapping[str, Measurement] | None = SIZES_AND_FLUXES,
    **star_settings: float,
) -> Characterized:
    """Background, stars and PSF of an exposure, in turns until they stay the same. Host side.

    Each round takes off what is left of the sky between the sources, masks cosmic rays, finds the
    stars and determines the PSF from them; the next round's sky is measured with sources masked
    as wide as that PSF.

    - `exposure`: with its sky or what is left of it. Its PSF is only where the first round starts;
        any `GaussianPSF` does.
    - `method`: how the PSF is taken from stars. By default a fifth of the stars is held back to
        judge it by.
    - `sigma`: width in pixels that the first round takes a star to have; default that of the
        exposure's PSF, or 1.5 where that has no core to measure, as one that only holds the place.
    - `background`: how the sky is fitted between the sources; None: no sky is taken off.
    - `cosmic_rays`: "auto": find and fill them where enough stars say how sharp one is; None: no.
    - `rounds`, `max_rounds`: at least and at most so many. It ends where the width of the PSF
        changes by less than `tolerance` and the sky by less than 0.02 of the noise (rms).
    - `measurements`: of the sources of the catalogues, each on the image as it is, neighbours
        included; by default the flux in 12 pixels, moments, PSF flux and extendedness by size.
        None: no more than finding stars has shown.
    - `star_settings`: fields of `method` to replace, as `reserve=0.1`.

    **Raises:** `ValueError` for settings out of range, or an image without a star.
    """
    if not 1 <= rounds <= max_rounds:
        raise ValueError(
            f"`rounds` must be at least 1 and at most `max_rounds`; got {rounds} and {max_rounds}."
        )
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be positive; got {tolerance}.")
    if sigma is not None and not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"`sigma` must be a positive number of pixels, or None; got {sigma}.")
    if cosmic_rays not in ("auto", None):
        raise ValueError(f'`cosmic_rays` must be "auto" or None; got {cosmic_rays!r}.')
    method = replace(method, **star_settings)  # type: ignore[arg-type]
    if sigma is None:
        widths = [_first_width(exposure, band) for band in range(exposure.n_bands)]
    else:
        widths = [float(sigma)] * exposure.n_bands
    original = np.asarray(exposure.image, np.float32)
    surfaces: list[list[Surface]] = [[] for _ in range(exposure.n_bands)]
    image = original.copy()
    good, rays = np.asarray(exposure.good), np.zeros(original.shape, bool)
    noise = [
        float(np.sqrt(np.median(v[g])))
        for v, g in zip(np.asarray(exposure.variance), good, strict=True)
    ]
    history: list[dict[str, float | str]] = []
    for number in range(1, max_rounds + 1):
        moved = [0.0] * exposure.n_bands
        if background is not None:
            for band in range(exposure.n_bands):
                # The first surface, and what it missed: anew in each round, so that rounds settle.
                kept = surfaces[band][:1]
                left = original[band] - kept[0].image() if kept else original[band]
                found = _sky(left, ~good[band] | rays[band], background, widths[band])
                before = surfaces[band][1].image() if number > 2 else np.float32(0)
                taken = found.image()
                moved[band] = float(np.sqrt(np.mean((taken - before) ** 2))) / noise[band]
                surfaces[band] = [*kept, found]
                image[band] = left - taken
        now = eqx.tree_at(lambda e: e.image, exposure, jnp.asarray(image, exposure.image.dtype))
        if cosmic_rays is not None:
            now, rays = _without_rays(now, widths)
        psf, stars = exposure_psf(now, method)
        now = eqx.tree_at(lambda e: e.psf, now, psf)
        found_widths = [_width(now, band) for band in range(exposure.n_bands)]
        settled = tuple(
            abs(new / old - 1) < tolerance and change < _SKY_TOLERANCE
            for new, old, change in zip(found_widths, widths, moved, strict=True)
        )
        widths = found_widths
        for band in range(exposure.n_bands):
            table = stars[band].table
            row: dict[str, float | str] = {"band": exposure.bands[band], "round": number}
            row["sigma"] = widths[band]
            row["background"] = float(np.median(original[band] - image[band]))
            row["background_moved"] = moved[band]
            row["noise"] = noise[band]
            row["n_stars"] = int(np.asarray(table["is_star"], bool).sum())
            row["n_used"] = int(np.asarray(table["used"], bool).sum())
            row["n_cosmic_rays"] = int(rays[band].sum())
            history.append(row)
        if number >= rounds and all(settled):
            break
    catalogs = {
        name: _catalog(now, stars[band], name, measurements)
        for band, name in enumerate(exposure.bands)
    }
    return Characterized(
        now, tuple(tuple(one) for one in surfaces), stars, catalogs, QTable(rows=history), settled
    )


def _sky(image: np.ndarray, hidden: np.ndarray, background: SurfaceFit, sigma: float) -> Surface:
    """The sky of an image, sources masked as wide as the PSF is now."""
    fwhm = FWHM_PER_SIGMA * sigma
    # What a star's wings add beyond where it stands out of the noise.
    grow = max(3, round(_GROW * fwhm))
    known = np.where(hidden, np.float32(0), image)
    box = min(background.bin_size, *image.shape)
    found = source_free_background(known, box, mask=hidden, fwhm=fwhm, grow=grow)
    return background(known, found.mask)


def _without_rays(exposure: Exposure, widths: list[float]) -> tuple[Exposure, np.ndarray]:
    """Cosmic rays filled and on their planes, and where they are."""
    image = np.array(exposure.image)
    rays = np.zeros(image.shape, bool)
    for band, sigma in enumerate(widths):
        bad = ~np.asarray(exposure.good[band])
        variance = np.where(bad, np.float32(1), np.asarray(exposure.variance[band]))
        residual = np.where(bad, np.float32(0), image[band])
        sharpness = star_sharpness(residual, variance, bad)
        if sharpness is None:
            continue
        rays[band] = find_cosmic_rays(residual, variance, bad, sharpness)
        if rays[band].any():
            filled = fill_masked(residual, bad | rays[band], fwhm=FWHM_PER_SIGMA * sigma)
            image[band][rays[band]] = filled[rays[band]]
    if not rays.any():
        return exposure, rays
    found = eqx.tree_at(lambda e: e.image, exposure, jnp.asarray(image, exposure.image.dtype))
    found = found.with_mask("CR", rays).with_mask("INTRP", rays)
    return found, rays


def _catalog(
    exposure: Exposure,
    stars: StarPSF,
    band: str,
    measurements: Mapping[str, Measurement] | None,
) -> QTable:
    """The sources of a band with what each was for."""
    table = stars.table
    columns = {
        "id": np.arange(1, len(table) + 1),
        "x": np.asarray(table["x"], float),
        "y": np.asarray(table["y"], float),
        "flux": np.asarray(table["flux"], float),
        "flux_err": np.asarray(table["flux_err"], float),
        "size": np.asarray(table["size"], float),
        "calib_psf_candidate": np.asarray(table["is_star"], bool),
        "calib_psf_used": np.asarray(table["used"], bool),
        "calib_psf_reserved": np.asarray(table["reserved"], bool),
        "reason": np.asarray(table["reason"]),
    }
    if measurements:
        places = np.stack([columns["x"], columns["y"]], axis=1)
        columns |= measure_sources(
            exposure, places, band=band, measurements=measurements, sizes=(_STAMP,)
        )
    return QTable(columns)


def _first_width(exposure: Exposure, band: int) -> float:
    """Width to begin with."""
    try:
        return _width(exposure, band)
    except ValueError:
        return _FIRST_SIGMA


def _width(exposure: Exposure, band: int) -> float:
    """Determinant radius of the PSF in the middle of the image."""
    return determinant_radius(psf_stamp(exposure.psf, exposure.shape)[band])
