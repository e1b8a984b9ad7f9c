"""The PSF of an image from its own stars, in one call."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from astropy.table import Table
from jaxtyping import ArrayLike, Float

from diffdeblend.exposure import Exposure
from diffdeblend.polynomials import chebyshev_design
from diffdeblend.psf import PSFBasis
from diffdeblend.stars.backbone import Backbone, shape_at
from diffdeblend.stars.components import component_psf
from diffdeblend.stars.find_stars import Chosen, find_stars
from diffdeblend.stars.nodes import basis_of_fields, images_of_fields
from diffdeblend.stars.pixels import checked_pixels
from diffdeblend.stars.profile_fit import fit_linear_stars
from diffdeblend.stars.profiles import width_at_half
from diffdeblend.stars.refine import refine_psf
from diffdeblend.stars.residual import fit_residual
from diffdeblend.stars.sources import sky_variance
from diffdeblend.stars.stamps import StarStack, cut_stars, estimate_inverse_gain, neighbour_light
from diffdeblend.widths import FWHM_PER_SIGMA

Method = Literal["moffat", "moffat+residual", "gaussian", "mixture", "kl"]
METHODS: tuple[Method, ...] = ("moffat", "moffat+residual", "gaussian", "mixture", "kl")
# Sizes of stamps that a fit is compiled for, in pixels.
_SIZES = (13, 17, 21, 25, 31, 37, 45, 61)
# A neighbour's light that may stay in a pixel, in standard deviations of the sky.
_FAINT = 0.3
# Least share of good pixels within the FWHM of a star.
_CORE = 0.95
# Share of power that a basis may lack; components of star images carry the stars' noise.
_INF_LOSS, _KL_INF_LOSS = 1e-6, 0.25
_WIDER = 4


@dataclass(frozen=True)
class DetermineSettings:
    """How a PSF is determined; see `determine_psf`."""

    method: Method = "moffat+residual"
    degree: int = 3
    n_basis: int | None = None
    inf_loss: float | None = None
    smooth: float = 0.0
    refine: bool = False
    reserve: float = 0.2
    seed: int = 0
    min_snr: float = 30.0
    max_stars: int = 160
    size: int | None = None
    fit_size: int | None = None
    model_error: float = 0.01

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {METHODS}; got {self.method!r}.")
        if self.degree not in (0, 1, 2, 3):
            raise ValueError(f"`degree` must be 0, 1, 2 or 3; got {self.degree!r}.")
        for name in ("size", "fit_size"):
            value = getattr(self, name)
            if value is not None and (value % 2 == 0 or value < 5):
                raise ValueError(f"`{name}` must be odd and at least 5; got {value}.")
        if self.smooth and self.method != "kl":
            raise ValueError(f'`smooth` is for the method "kl"; {self.method!r} is smooth already.')
        if not 0 <= self.reserve < 1:
            raise ValueError(f"`reserve` must be at least 0 and below 1; got {self.reserve}.")
        if self.max_stars < 1:
            raise ValueError(f"`max_stars` must be at least 1; got {self.max_stars}.")
        for name in ("min_snr", "model_error", "smooth"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0; got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class StarPSF:
    """A PSF with the stars that it is of. Host side.

    - `psf`: the PSF at every place of the image, of one band.
    - `table`: a row a source, the brightest first: `x`, `y` (pixels), `flux`, `flux_err`, `snr`,
        `size` (sigma, pixels), `mag` (-2.5 log10 flux), `is_star`, `reserved`, `used` (in the
        determination), `chi2` (per pixel, of the used) and `reason` why a source was not used.
    - `fwhm`: in pixels, in the middle of the image; `beta`: of the Moffat profile, infinite for a
        Gaussian, NaN for a mixture.
    - `fields`: coefficients of FWHM, g1, g2 and 1 / beta over the image, `(4, term)`; of a mixture
        the FWHM of the narrower Gaussian, and the share of the wider.
    - `spectrum`: norm of each image of the basis over the whole image, as a fraction of the first.
    - `settings`: how it was done.
    """

    psf: PSFBasis
    table: Table
    fwhm: float
    beta: float
    fields: Float[np.ndarray, "shape term"]
    spectrum: Float[np.ndarray, "basis"]
    settings: dict[str, Any] = field(repr=False)

    @property
    def used(self) -> Table:
        """The stars of the determination."""
        return _rows(self.table, "used")

    @property
    def reserved(self) -> Table:
        """The stars kept out of it, to judge it by."""
        return _rows(self.table, "reserved")


def _rows(table: Table, name: str) -> Table:
    found = table[np.asarray(table[name], bool)]
    assert isinstance(found, Table)
    return found


def determine_psf(
    image: ArrayLike | Exposure,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    **settings: Any,
) -> StarPSF:
    r"""The PSF of an image from its own stars, and how it varies. Host side.

    Stars are what shares one size at all magnitudes. An elliptical Moffat profile integrated over
    pixels, whose FWHM, shear and steepness are smooth fields, is fitted to all of them at once
    together with the flux, the sub-pixel place and the local sky of each; fields only vary as far
    as the stars demand it. Smooth functions are then added for what the profile misses, again only
    as far as the stars demand it. Masked pixels and those with a neighbour's light are left out;
    outliers count less. Stars so bright that they are wider than others are not used.

    - `image`: without the sky, shape `(y, x)`; or an `Exposure` of one band, which brings the next
        two along.
    - `variance`: same shape, with or without the sources' own noise. `mask`: True for pixels that
        are no good, as saturated ones.
    - `positions`: (x, y) of sources, shape `(n, 2)`; without them peaks are looked for.
    - `method`: "moffat+residual"; "moffat" without the added functions; "gaussian"; "mixture", two
        Gaussians of one shape; or "kl", principal components of the star images (see `kl_psf`)
        brought to their middle by the places of the Moffat fit.
    - `degree`: highest degree of the fields, 0 for a PSF that is the same everywhere.
    - `n_basis`, `inf_loss`: images in the basis, or the share of power that it may lack (default
        1e-6, thus 0.1 % of the norm; 0.25 with "kl", whose images have the stars' noise).
    - `smooth`: of the images of "kl", sigma in pixels.
    - `refine`: fit the basis' images and fields anew, pixel by pixel, with all stars; held to the
        start as tightly as stars that are left out like best. Takes seconds.
    - `reserve`: fraction of the stars that are kept out to judge the PSF by, drawn by `seed`.
    - `min_snr`: of a star. `max_stars`: the brightest of each part of the image up to so many.
    - `size`: of the PSF's images, odd; default about ten times the FWHM. `fit_size`: of the pixels
        around a star that are fitted; default about six times.
    - `model_error`: added to the noise of a pixel, as a fraction of the star's light in it.

    **Raises:** `ValueError` for shapes that disagree, wrong settings, an image without a star.

    ??? cite
        Moffat (1969), A&A 3, 455. All stars and a polynomial of the place at once: Jarvis et al.
        (2021), MNRAS 501, 1282 (Piff).
    """
    options = DetermineSettings(**settings)
    pixels, v, masked = checked_pixels(image, variance, mask)
    given = None if positions is None else _checked_positions(positions)
    chosen = find_stars(
        pixels, v, masked, given, options.min_snr, options.reserve, options.seed, options.max_stars
    )
    fwhm = FWHM_PER_SIGMA * chosen.size
    fit_size = options.fit_size or _size_for(6 * fwhm)
    # One of few, so that another seeing seldom compiles anything.
    size = options.size or _size_for(10 * fwhm - 1)
    stack, crowded = _stack(pixels, v, masked, chosen, fit_size, fwhm)
    if not stack.good.any():
        raise ValueError("no star of `image` has pixels free of neighbours and masks.")
    shape = (pixels.shape[0], pixels.shape[1])
    degree = options.degree
    index = chosen.used
    terms = chebyshev_design(chosen.peaks.x[index], chosen.peaks.y[index], shape, degree).T
    fit, stack, limit = fit_linear_stars(
        stack, terms, chosen.peaks.peak[index], fwhm, degree, options.method, options.model_error
    )
    found, sigma = None, fwhm / FWHM_PER_SIGMA
    if options.method == "moffat+residual":
        corrected = fit_residual(stack, terms, fit, options.model_error)
        fit, found, sigma = corrected.backbone, corrected.coefficients, corrected.sigma
    inf_loss = options.inf_loss
    if options.n_basis is None and inf_loss is None:
        inf_loss = _KL_INF_LOSS if options.method == "kl" else _INF_LOSS
    if options.method == "kl":
        wide, _ = _stack(pixels, v, masked, chosen, size + _WIDER, fwhm)
        wide = wide._replace(good=wide.good & stack.good.any((1, 2), keepdims=True))
        psf = component_psf(
            wide,
            fit,
            terms,
            shape,
            inf_loss=inf_loss,
            n_basis=options.n_basis,
            degree=degree,
            smooth=options.smooth,
        ).psf
    else:
        psf = basis_of_fields(
            fit.fields,
            found,
            sigma,
            shape,
            size,
            degree,
            profile=fit.profile,
            n_basis=options.n_basis,
            inf_loss=inf_loss,
        )
    width = 0.0
    if options.refine:
        exact = None
        if options.method != "kl":
            exact = images_of_fields(fit, found, sigma, terms, stack.data.shape[1])
        psf, width = refine_psf(
            psf, stack, fit, options.model_error, exact=exact, seed=options.seed
        )
    centre = np.array([[(shape[1] - 1) / 2], [(shape[0] - 1) / 2]])
    middle = shape_at(fit.fields, chebyshev_design(centre[0], centre[1], shape, degree).T)
    return StarPSF(
        psf,
        _table(chosen, crowded, fit, stack, limit),
        float(width_at_half(middle, fit.profile)[0]),
        _beta(options.method, float(middle.t[0])),
        fit.fields,
        _spectrum(psf),
        {
            **asdict(options),
            "inf_loss": inf_loss,
            "size": size,
            "fit_size": fit_size,
            "linear_limit": limit,
            "refine_width": width,
        },
    )


def _beta(method: str, t: float) -> float:
    return {"gaussian": np.inf, "mixture": np.nan}.get(method, 1 / t)


def _size_for(wanted: float) -> int:
    return next((size for size in _SIZES if size >= wanted), _SIZES[-1])


def _stack(
    image: np.ndarray,
    variance: np.ndarray,
    masked: np.ndarray,
    chosen: Chosen,
    size: int,
    fwhm: float,
) -> tuple[StarStack, np.ndarray]:
    """The stars' pixels, and which of them are too crowded to be used."""
    peaks, index = chosen.peaks, chosen.used
    x, y, flux = peaks.x[index], peaks.y[index], peaks.flux[index]
    level = sky_variance(variance, masked)
    widths = FWHM_PER_SIGMA * np.where(np.isfinite(peaks.size), peaks.size, chosen.size)
    near = neighbour_light(
        peaks.x, peaks.y, np.maximum(peaks.flux, 0), np.clip(widths, 1, 4 * fwhm), index, size
    )
    gone = near > _FAINT * np.sqrt(level)
    stack = cut_stars(
        image,
        variance,
        masked,
        x,
        y,
        flux,
        size,
        inverse_gain=estimate_inverse_gain(image, variance, masked, x, y, level),
        gone=gone,
    )
    offset = np.arange(size) - size // 2
    core = offset[:, None] ** 2 + offset**2 <= (0.75 * fwhm) ** 2
    good = stack.good.copy()
    crowded = good[:, core].mean(axis=1) < _CORE
    # A row of the stack without a good pixel counts for nothing.
    good[crowded] = False
    return stack._replace(good=good), crowded


def _table(
    chosen: Chosen, crowded: np.ndarray, fit: Backbone, stack: StarStack, limit: float
) -> Table:
    peaks, index = chosen.peaks, chosen.used
    n = len(peaks)
    reason = chosen.reason.copy()
    reason[index[crowded]] = "neighbour"
    kept = index[~crowded]
    used = np.zeros(n, bool)
    used[kept] = True
    outlier = index[~crowded & (fit.weight < 0.1)]
    used[outlier] = False
    reason[outlier] = "outlier"
    too_bright = (
        chosen.is_star & (peaks.peak > limit) & (used | chosen.reserved | (reason == "outlier"))
    )
    used &= ~too_bright
    reason[too_bright] = "not linear"
    columns: dict[str, np.ndarray] = {
        "x": peaks.x.copy(),
        "y": peaks.y.copy(),
        "flux": peaks.flux.copy(),
        "chi2": np.full(n, np.nan),
    }
    inside = np.flatnonzero(~crowded)
    for name, values in (
        ("x", stack.x0 + fit.x),
        ("y", stack.y0 + fit.y),
        ("flux", fit.flux),
        ("chi2", fit.chi2),
    ):
        columns[name][kept] = values[inside]
    with np.errstate(invalid="ignore", divide="ignore"):
        mag = np.where(columns["flux"] > 0, -2.5 * np.log10(columns["flux"]), np.nan)
    return Table(
        {
            "x": columns["x"],
            "y": columns["y"],
            "flux": columns["flux"],
            "flux_err": peaks.flux_err,
            "snr": peaks.snr,
            "size": peaks.size,
            "e1": peaks.e1,
            "e2": peaks.e2,
            "mag": mag,
            "is_star": chosen.is_star,
            "reserved": chosen.reserved & ~too_bright,
            "used": used,
            "chi2": columns["chi2"],
            "reason": reason,
        }
    )


def _spectrum(psf: PSFBasis) -> np.ndarray:
    """Norm of every component over the image."""
    x, y = np.meshgrid(np.linspace(0, psf.shape[1] - 1, 9), np.linspace(0, psf.shape[0] - 1, 9))
    fields = (
        chebyshev_design(x.ravel(), y.ravel(), psf.shape, psf.degree)
        @ np.asarray(psf.coefficients[0], float).T
    )
    norm = np.sqrt((fields**2).mean(0) * (np.asarray(psf.images[0], float) ** 2).sum((1, 2)))
    return norm / norm[0]


def _checked_positions(positions: ArrayLike) -> np.ndarray:
    found = np.asarray(positions, float)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise ValueError(f"`positions` needs finite (x, y), shape (n, 2); got {found.shape}.")
    return found
