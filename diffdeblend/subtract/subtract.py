"""An exposure less another: what is new on the sky, and how sure that is."""

from dataclasses import replace
from numbers import Real
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.exposure import Exposure
from diffdeblend.header import Header
from diffdeblend.polynomials import chebyshev_design, field_maps
from diffdeblend.psf import PixelPSF
from diffdeblend.psf.stamps import psf_stamp, varies
from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.difference import Difference
from diffdeblend.subtract.fill_jointly import fill_jointly
from diffdeblend.subtract.fill_missing import MOST, fill_missing
from diffdeblend.subtract.fit import SubtractionFit, fit_subtraction
from diffdeblend.subtract.inputs import BandPair, band_pair, check_pair
from diffdeblend.subtract.maps import ImagePair, Maps
from diffdeblend.subtract.nodes import NodePSF, node_psfs, tiling_for
from diffdeblend.subtract.tiles import subtract_tiles
from diffdeblend.subtract.tiling import Tiling
from diffdeblend.subtract.variance import SystematicNoise
from diffdeblend.subtract.warp import warp

# Of what is known of a point: a pixel that lost more can say nothing.
_MOST_LOST = 0.5

Varying = Literal["auto", "constant", "tiles"]


def subtract(
    new: Exposure,
    reference: Exposure,
    *,
    fit: bool | SubtractionFit | None = True,
    beta: Any = None,
    dx: Any = 0.0,
    dy: Any = 0.0,
    gamma: Any = 0.0,
    shift_degree: int = 3,
    registration_noise: Literal["fit"] | float = "fit",
    flux_ratio_noise: Literal["fit"] | float = "fit",
    psf_noise: Literal["fit"] | float = "fit",
    varying: Varying = "auto",
    tile: int = 256,
) -> Difference:
    """Proper image subtraction: the difference, and the significance and flux of a point in it.

    The exposures are on the same pixels but for a small shift, without sky, their variances hold
    the noise of sky and sources, and each has its PSF; `diffdeblend.prepare` makes such. Masked
    pixels are filled first, so that nothing rings around a saturated star.

    - `fit`: whether to measure flux ratio, shift and background; or what `fit_subtraction` found;
        False or None to use the four arguments that follow.
    - `beta`: flux of a star in the new exposure over that in the reference; `dx`, `dy`: its
        position in the new one minus that in the reference; `gamma`: background of the new one
        less beta times that of the reference. One number, or one a band. Not together with a fit.
    - `shift_degree`: of the polynomials of the fitted shift, 0 to 3; fewer stars allow less.
    - `registration_noise`: standard deviation of positions in pixels; `flux_ratio_noise`: of beta
        from star to star, relative; `psf_noise`: of the width of either PSF, relative. `"fit"`:
        what the fit left beyond the noise, 0 without a fit. They grow with the light, so that a
        bright star that could not be subtracted better is not taken for news.
    - `varying`: `"constant"`: one pair of PSFs, those in the middle; `"tiles"`: PSFs at their
        place, in overlapping tiles; `"auto"`: tiles if a PSF varies.
    - `tile`: about the side of a tile, in pixels.

    **Raises:** `ValueError` for exposures that differ in shape, or a setting that is not accepted.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27.
    """
    check_pair(new, reference)
    systematic = {
        "registration_noise": registration_noise,
        "flux_ratio_noise": flux_ratio_noise,
        "psf_noise": psf_noise,
    }
    _check_settings(systematic, varying)
    pairs = [band_pair(new, reference, band) for band in range(new.n_bands)]
    measured = fit if isinstance(fit, SubtractionFit) else None
    if fit is True:
        if beta is not None:
            raise ValueError("`beta` is measured by the fit; give `fit=None` with it.")
        measured = fit_subtraction(new, reference, shift_degree=shift_degree, pairs=pairs)
    if measured is None:
        given = [
            _per_band(name, value, new.n_bands)
            for name, value in (
                ("beta", 1.0 if beta is None else beta),
                ("dx", dx),
                ("dy", dy),
                ("gamma", gamma),
            )
        ]
        if (given[0] <= 0).any():
            raise ValueError(f"`beta` must be positive; got {beta!r}.")
        ratio, shift_x, shift_y, level = given
        fields, left = None, np.zeros((3, new.n_bands))
    else:
        if measured.shape != new.shape or len(measured.beta) != new.n_bands:
            raise ValueError(
                f"`fit` is of an image of shape {measured.shape} in {len(measured.beta)} bands; "
                f"got exposures of shape {new.shape} in {new.n_bands} bands."
            )
        ratio, level = np.asarray(measured.beta), np.asarray(measured.gamma)
        middle = (new.shape[1] - 1) / 2, (new.shape[0] - 1) / 2
        shift_x = np.asarray(measured.dx_at(*middle))
        shift_y = np.asarray(measured.dy_at(*middle))
        fields = measured if measured.degree else None
        left = [measured.residual, measured.residual_beta, measured.residual_width]
    position, flux_ratio, width = (
        np.asarray(found) if value == "fit" else np.full(new.n_bands, float(value))
        for found, value in zip(left, systematic.values(), strict=True)
    )
    tiled = varying == "tiles" or (varying == "auto" and (varies(new.psf) or varies(reference.psf)))
    results = []
    for band, pair in enumerate(pairs):
        kinds = (position, position, flux_ratio, width)
        noise = SystematicNoise(*(jnp.asarray(kind[band], pair.new.dtype) for kind in kinds))
        numbers = [jnp.asarray(v[band], pair.new.dtype) for v in (ratio, shift_x, shift_y, level)]
        images = _image_pair(pair, numbers, noise)
        results.append(
            _band_maps(pair, images, level[band], fields, new, reference, tile if tiled else None)
        )
    return _difference(new, results, (ratio, shift_x, shift_y, level), measured)


def _image_pair(pair: BandPair, numbers: list[Array], noise: SystematicNoise) -> ImagePair:
    """The images of a band on the device, background matched."""
    beta, dx, dy, gamma = numbers
    dtype = pair.new.dtype
    flawed = bool(pair.missing_new.any() or pair.missing_reference.any())
    return ImagePair(
        jnp.asarray(pair.new) - gamma,
        jnp.asarray(pair.reference),
        jnp.asarray(pair.variance_new),
        jnp.asarray(pair.variance_reference),
        jnp.asarray(pair.missing_new) if flawed else None,
        jnp.asarray(pair.missing_reference) if flawed else None,
        jnp.asarray(pair.sigma_new, dtype),
        jnp.asarray(pair.sigma_reference, dtype),
        beta,
        dx,
        dy,
        noise,
    )


@eqx.filter_jit
def _warped(image: Array, x: Array, y: Array, dx: Array, dy: Array, degree: int) -> Array:
    maps = field_maps(jnp.stack([x, y]), (image.shape[0], image.shape[1]), degree)
    return warp(image, maps[0] - dx, maps[1] - dy)


def _band_maps(
    pair: BandPair,
    images: ImagePair,
    gamma: float,
    fields: SubtractionFit | None,
    new: Exposure,
    reference: Exposure,
    tile: int | None,
) -> Maps:
    dtype = pair.new.dtype
    psf_new, psf_reference = (
        psf_stamp(e.psf, e.shape)[pair.band].astype(dtype) for e in (new, reference)
    )
    uncertain = any(float(v) > 0 for v in jax.tree.leaves(images.noise))
    # Before the warp: beside a hole, the slopes are made of what it was filled with.
    images = _without_holes(pair, images, psf_new, psf_reference, gamma, fields)
    if fields is not None:
        x, y = (c[pair.band].astype(dtype) for c in (fields.shift_x, fields.shift_y))
        warped = _warped(images.reference, x, y, images.dx, images.dy, fields.degree)
        images = eqx.tree_at(lambda images: images.reference, images, warped)
    if tile is None:
        return _constant(images, psf_new, psf_reference, uncertain)
    tiling = tiling_for(new.psf, reference.psf, new.shape, tile)
    psfs = [node_psfs(e.psf, tiling)[pair.band] for e in (new, reference)]
    return _tiles(images, psfs[0], psfs[1], tiling, uncertain)


def _without_holes(
    pair: BandPair,
    images: ImagePair,
    psf_new: Array,
    psf_reference: Array,
    gamma: float,
    fields: SubtractionFit | None,
) -> ImagePair:
    if images.missing_new is None:
        return images
    unknowns = np.count_nonzero(pair.missing_new) + np.count_nonzero(pair.missing_reference)
    if unknowns > MOST:
        return _filled(images, psf_new, psf_reference)

    def shift(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        if fields is None:
            return tuple(np.full(x.shape, float(v)) for v in (images.dx, images.dy))
        design = chebyshev_design(x, y, fields.shape, fields.degree)
        return tuple(design @ np.asarray(c[pair.band]) for c in (fields.shift_x, fields.shift_y))

    filled = fill_missing(pair, gamma, float(images.beta), shift)
    return eqx.tree_at(lambda i: (i.new, i.reference), images, tuple(map(jnp.asarray, filled)))


_filled = eqx.filter_jit(fill_jointly)


@eqx.filter_jit
def _constant(images: ImagePair, psf_new: Array, psf_reference: Array, uncertain: bool) -> Maps:
    return subtract_constant(images, psf_new, psf_reference, systematics=uncertain)


@eqx.filter_jit
def _tiles(
    images: ImagePair,
    psf_new: NodePSF,
    psf_reference: NodePSF,
    tiling: Tiling,
    uncertain: bool,
) -> Maps:
    return subtract_tiles(images, psf_new, psf_reference, tiling=tiling, systematics=uncertain)


def _difference(
    new: Exposure,
    results: list[Maps],
    numbers: tuple[np.ndarray, ...],
    measured: SubtractionFit | None,
) -> Difference:
    def stacked(name: str) -> Array:
        return jnp.stack([getattr(maps, name) for maps in results])

    image = stacked("D")
    exposure = Exposure(
        image, jnp.ones_like(image), new.mask, PixelPSF(stacked("psf")), _unitless(new.header)
    )
    beta, dx, dy, gamma = (jnp.asarray(v, image.dtype) for v in numbers)
    return Difference(
        exposure=exposure,
        S=stacked("S"),
        S_corr=stacked("S_corr"),
        flux=stacked("flux"),
        flux_err=stacked("flux_err"),
        bad=stacked("lost") > _MOST_LOST,
        beta=beta,
        dx=dx,
        dy=dy,
        gamma=gamma,
        F_D=stacked("F_D"),
        F_S=stacked("F_S"),
        fit=measured,
    )


def _unitless(header: Header) -> Header:
    """D is in units of its noise: neither a unit of flux nor a zero point is true of it."""
    return replace(header, unit="", zero_points=None, gain=None, read_noise=None, saturation=None)


def _per_band(name: str, value: Any, n_bands: int) -> Float[np.ndarray, "band"]:
    array = np.asarray(value, float)
    if array.shape not in ((), (n_bands,)) or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be one finite number, or one for each of {n_bands} bands; "
            f"got {value!r}."
        )
    return np.broadcast_to(array, (n_bands,))


def _check_settings(systematic: dict[str, Any], varying: Any) -> None:
    for name, value in systematic.items():
        if isinstance(value, str) and value == "fit":
            continue
        if not isinstance(value, Real) or not 0 <= float(value) < np.inf:
            raise ValueError(
                f'`{name}` must be "fit" or a finite number, 0 or more; got {value!r}.'
            )
    if varying not in ("auto", "constant", "tiles"):
        raise ValueError(f'`varying` must be "auto", "constant" or "tiles"; got {varying!r}.')
