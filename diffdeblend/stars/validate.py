"""How well a PSF draws stars, those kept out of its determination above all."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from astropy.table import Table
from jaxtyping import ArrayLike, Float

from diffdeblend.exposure import Exposure
from diffdeblend.psf import PSFBasis
from diffdeblend.stars.determine import StarPSF
from diffdeblend.stars.pixels import checked_pixels
from diffdeblend.stars.sources import measure_peaks
from diffdeblend.stars.stamps import cut_stars, neighbour_light

_STEPS = 4


@dataclass(frozen=True, eq=False)
class PSFReport:
    """What is left of stars when the PSF is taken away. Host side.

    - `table`: a row a star: `x`, `y`, `flux`, `flux_err` and `sky` of the fit of the PSF to it,
        `snr`, `chi2` (per degree of freedom), `residual` (||star - model|| / ||star||), `noise`
        (what photons and sky make of it), `excess` (`residual` without `noise`, in quadrature),
        sizes and ellipticities of star and model under one weight: `size`, `e1`, `e2`,
        `model_size`, `model_e1`, `model_e2`.
    - `stamps`, `models`: of the stars, without sky, and what was fitted, `(star, size, size)`; NaN
        in `stamps` where a pixel is not used.
    """

    table: Table
    stamps: Float[np.ndarray, "star size size"] = field(repr=False)
    models: Float[np.ndarray, "star size size"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size_error(self) -> float:
        """Median of (T of star - T of model) / T of model over the stars, T the squared size."""
        star, model = (np.asarray(self.table[name], float) for name in ("size", "model_size"))
        return float(np.nanmedian((star / model) ** 2 - 1))

    @property
    def ellipticity_error(self) -> tuple[float, float]:
        """Medians of e1 and e2 of star less model."""
        star, model = (
            np.stack([np.asarray(self.table[f"{what}{name}"], float) for name in ("e1", "e2")])
            for what in ("", "model_")
        )
        one, two = np.nanmedian(star - model, axis=1)
        return float(one), float(two)

    @property
    def chi2(self) -> float:
        """Median over the stars of chi2 per degree of freedom."""
        return float(np.median(np.asarray(self.table["chi2"], float)))

    @property
    def excess(self) -> float:
        """Median over the stars of the residual in excess of noise, as a fraction of the star."""
        residual, noise = (np.asarray(self.table[name], float) for name in ("residual", "noise"))
        square = residual**2 - noise**2
        return float(np.sqrt(max(np.median(square), 0.0)))


def validate_psf(
    image: ArrayLike | Exposure,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    psf: StarPSF | PSFBasis | None = None,
    *,
    positions: ArrayLike | None = None,
    stars: Literal["reserved", "used"] = "reserved",
    size: int = 21,
) -> PSFReport:
    """Fits the PSF to stars, each with a flux, a place and a sky of its own. Host side.

    - `image`, `variance`, `mask`: as of `determine_psf`; the variance with the stars' own noise.
    - `psf`: what was determined, or any `PSFBasis` together with `positions`.
    - `positions`: (x, y) of the stars in pixels, shape `(n, 2)`; default those of the `StarPSF`.
    - `stars`: which of those.
    - `size`: of the stamps, odd.

    **Raises:** `ValueError` for arguments that disagree, or a list without a star.
    """
    pixels, v, masked = checked_pixels(image, variance, mask)
    if isinstance(psf, StarPSF):
        basis = psf.psf
    elif isinstance(psf, PSFBasis):
        basis = psf
    else:
        raise ValueError(f"`psf` must be a StarPSF or a PSFBasis; got {type(psf).__name__}.")
    if size % 2 == 0 or size < 5:
        raise ValueError(f"`size` must be odd and at least 5; got {size}.")
    if positions is not None:
        xy = np.asarray(positions, float).reshape(-1, 2)
    elif isinstance(psf, StarPSF):
        rows: Table = psf.reserved if stars == "reserved" else psf.used
        xy = np.stack([np.asarray(rows["x"], float), np.asarray(rows["y"], float)], axis=1)
    else:
        raise ValueError("`positions` is needed with a PSFBasis.")
    if not len(xy):
        raise ValueError(f"there is no star to validate with: {stars!r} is empty.")
    x, y = xy.T
    n = len(x)
    flux = np.ones(n)
    gone = None
    if isinstance(psf, StarPSF):
        # Other sources' light is not the PSF's fault.
        all_x, all_y, bright = _with_others(psf.table, x, y)
        fwhm = np.full(len(all_x), psf.fwhm)
        gone = neighbour_light(all_x, all_y, bright, fwhm, np.arange(n), size)
        gone = gone > np.sqrt(np.median(v[~masked]))
    cut = cut_stars(pixels, v, masked, x, y, flux, size, inverse_gain=0.0, gone=gone)
    stack = [np.asarray(a[:n], float) for a in (cut.data, cut.good)]
    data, good = stack[0], stack[1] > 0
    enough = good.mean(axis=(1, 2)) > 0.5
    if not enough.any():
        raise ValueError("no star has half of its pixels free of masks and neighbours.")
    data, good, x, y = data[enough], good[enough], x[enough], y[enough]
    weight = np.where(good, 1 / np.asarray(cut.sky_variance[:n], float)[enough], 0)
    drawn = np.asarray(basis.images_at(x, y)[:, 0], float)
    solution, model = _fit(data, weight, drawn, x - np.round(x), y - np.round(y))
    return _report(data, good, weight, solution, model, np.round(x), np.round(y), drawn)


def _with_others(
    table: Table, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stars first, then all other sources, with their fluxes."""
    tx, ty = np.asarray(table["x"], float), np.asarray(table["y"], float)
    away = np.hypot(tx[:, None] - x, ty[:, None] - y).min(axis=1)
    other = (away > 1.5) & (np.asarray(table["flux"]) > 0)
    flux = np.concatenate([np.zeros(len(x)), np.asarray(table["flux"])[other]])
    return np.concatenate([x, tx[other]]), np.concatenate([y, ty[other]]), flux


def _shifted(
    drawn: np.ndarray, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PSFs moved by fractions of a pixel, and their derivatives, cut or padded to `size`."""
    side = max(drawn.shape[1], size) + 8
    side += 1 - side % 2
    margin = (side - drawn.shape[1]) // 2
    wide = np.pad(drawn, ((0, 0), (margin, margin), (margin, margin)))
    ky = 2 * np.pi * np.fft.fftfreq(side)[None, :, None]
    kx = 2 * np.pi * np.fft.rfftfreq(side)[None, None, :]
    modes = np.fft.rfft2(wide) * np.exp(-1j * (kx * x[:, None, None] + ky * y[:, None, None]))
    middle = slice((side - size) // 2, (side + size) // 2)
    value, by_x, by_y = (
        np.fft.irfft2(modes * factor, s=(side, side))[:, middle, middle]
        for factor in (1, -1j * kx, -1j * ky)
    )
    return value, by_x, by_y


def _fit(
    data: np.ndarray, weight: np.ndarray, drawn: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flux, x, y, sky and the error of the flux of each star, and the models without sky."""
    n, size = data.shape[0], data.shape[1]
    flux = np.full(n, np.nan)
    start = (x.copy(), y.copy())
    for _ in range(_STEPS):
        value, by_x, by_y = _shifted(drawn, x, y, size)
        if np.isnan(flux).any():
            flux = np.sum(weight * value * data, (1, 2)) / np.sum(weight * value**2, (1, 2))
        slope = flux[:, None, None]
        design = np.stack([value, slope * by_x, slope * by_y, np.ones_like(value)], 1)
        design = design.reshape(n, 4, -1)
        heavy = design * weight.reshape(n, 1, -1)
        target = data.reshape(n, -1, 1)
        gram = heavy @ design.swapaxes(1, 2)
        found = np.linalg.solve(gram, heavy @ target)[..., 0]
        flux, sky = found[:, 0], found[:, 3]
        x = np.clip(x + found[:, 1], start[0] - 1, start[0] + 1)
        y = np.clip(y + found[:, 2], start[1] - 1, start[1] + 1)
    value, _, _ = _shifted(drawn, x, y, size)
    error = np.sqrt(np.linalg.inv(gram)[:, 0, 0])
    return np.stack([flux, x, y, sky, error], 1), flux[:, None, None] * value


def _report(
    data: np.ndarray,
    good: np.ndarray,
    weight: np.ndarray,
    solution: np.ndarray,
    model: np.ndarray,
    x0: np.ndarray,
    y0: np.ndarray,
    drawn: np.ndarray,
) -> PSFReport:
    n, size = data.shape[0], data.shape[1]
    star = data - solution[:, 3, None, None]
    left = np.where(good, star - model, 0)
    variance = np.where(good, 1 / np.where(good, weight, 1), 0)
    norm = np.sqrt(np.sum(np.where(good, star, 0) ** 2, (1, 2)))
    middle = np.full(n, (size - 1) / 2)
    shapes = {}
    # Stars and models side by side, as one tall image, each measured under the same weight.
    sigma = _sigma_of(drawn)
    filled = np.where(good, star, model)
    for name, stack in (("", filled), ("model_", model)):
        tall = stack.reshape(n * size, size)
        peaks = measure_peaks(
            tall.astype(np.float32),
            np.ones_like(tall, dtype=np.float32),
            np.zeros(tall.shape, bool),
            middle + solution[:, 1],
            middle + solution[:, 2] + size * np.arange(n),
            sigma=min(sigma, (size - 1) / 6),
        )
        shapes |= {f"{name}size": peaks.size, f"{name}e1": peaks.e1, f"{name}e2": peaks.e2}
    residual = np.sqrt(np.sum(left**2, (1, 2))) / norm
    noise = np.sqrt(np.sum(variance, (1, 2))) / norm
    table = Table(
        {
            "x": x0 + solution[:, 1],
            "y": y0 + solution[:, 2],
            "flux": solution[:, 0],
            "flux_err": solution[:, 4],
            "sky": solution[:, 3],
            "snr": solution[:, 0] / solution[:, 4],
            "chi2": np.sum(left**2 * weight, (1, 2)) / (good.sum((1, 2)) - 4),
            "residual": residual,
            "noise": noise,
            "excess": np.sqrt(np.maximum(residual**2 - noise**2, 0)),
            **shapes,
        }
    )
    return PSFReport(table, np.where(good, star, np.nan), model)


def _sigma_of(drawn: np.ndarray) -> float:
    """Sigma of the mean PSF by its peak: that of a Gaussian as high."""
    return float(1 / np.sqrt(2 * np.pi * drawn.mean(axis=0).max()))
