"""A deblended blend with known numbers, made without a fit: what plots, tables and files show."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from astropy.wcs import WCS

from diffdeblend.background import ConstantBackground
from diffdeblend.components import BulgeDisc, Gaussian, PointSource
from diffdeblend.deblend.catalog import Flag, Sources, make_catalog
from diffdeblend.deblend.deblend import Deblended
from diffdeblend.exposure import make_exposure
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene

FWHM, SIGMA, SKY = 3.5, 1.0, 0.4


@dataclass(frozen=True)
class Example:
    """What the example holds; every source is drawn as an elliptical Gaussian."""

    n_sources: int = 4
    bands: tuple[str, ...] = ("g", "r", "i", "z", "y")
    shape: tuple[int, int] = (40, 52)
    zero_points: tuple[float, ...] | None = None
    unit: str = ""
    wcs: Any = None
    masked: bool = False


def tilted_wcs(scale: float = 0.2, turn: float = 30.0, shear: float = 0.0) -> WCS:
    """A TAN map: `scale` arcseconds a pixel, north turned by `turn` degrees, and sheared."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [20.0, 15.0]
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = scale / 3600 * np.diag([-1.0, 1.0]) @ rotation @ np.array([[1, shear], [0, 1]])
    return wcs


def make_sources(example: Example, seed: int = 0) -> Sources:
    """Sources of all models in turn, ever fainter; the last one negative in the first band."""
    rng = np.random.default_rng(seed)
    n, n_bands = example.n_sources, len(example.bands)
    ny, nx = example.shape
    kinds = ("sersic", "point", "bulge_disc", "multi_gaussian", "free_form", "gaussian")
    model = [kinds[k % len(kinds)] for k in range(n)]
    point = np.array([kind == "point" for kind in model])
    indexed = np.array([kind == "sersic" for kind in model])
    bulge = np.array([kind == "bulge_disc" for kind in model])
    colour = 1 + rng.uniform(-0.1, 0.25, (n, 1)) * np.arange(n_bands)
    flux = np.geomspace(4000, 150, n)[:, None] * colour
    if n > 1:
        flux[-1, 0] = -3.0

    def where(mask, values):
        return np.where(mask, values, np.nan)

    radius = rng.uniform(1.5, 3.5, n)
    angle, size = rng.uniform(0, np.pi, n), rng.uniform(0.05, 0.4, n)
    shape = {
        "radius": where(~point, radius),
        "radius_err": where(~point, 0.02 * radius),
        "index": where(indexed, 1.7),
        "index_err": where(indexed, 0.1),
        "g1": where(~point, size * np.cos(2 * angle)),
        "g1_err": where(~point, 0.01),
        "g2": where(~point, size * np.sin(2 * angle)),
        "g2_err": where(~point, 0.012),
        "radius_ratio": where(bulge, 0.4),
        "radius_ratio_err": where(bulge, 0.05),
        "shear_ratio": where(bulge, 0.8),
        "shear_ratio_err": where(bulge, 0.2),
    }
    flags = np.zeros(n, dtype=int)
    flags[-1] = Flag.NEGATIVE_FLUX | Flag.NEAR_EDGE
    return Sources(
        x=rng.uniform(6, nx - 7, n),
        y=rng.uniform(6, ny - 7, n),
        x_err=np.full(n, 0.01),
        y_err=np.full(n, 0.02),
        flux=flux,
        flux_err=np.full((n, n_bands), 12.0),
        model=model,
        shape=shape,
        bulge_flux=where(bulge[:, None], 0.3 * flux),
        flags=flags,
        reduced_chi2=rng.uniform(0.9, 1.1, n),
        n_parameters=np.full(n, 6 + n_bands),
        snr=np.abs(flux).sum(axis=1) / 12,
    )


def draw(sources: Sources, shape: tuple[int, int]) -> np.ndarray:
    """Image of each source, `(source, band, y, x)`."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    psf = (FWHM / 2.355) ** 2
    images = []
    for k, (x, y) in enumerate(zip(sources.x, sources.y, strict=True)):
        radius = np.nan_to_num(sources.shape["radius"][k]) / np.sqrt(2 * np.log(2))
        g1, g2 = np.nan_to_num(sources.shape["g1"][k]), np.nan_to_num(sources.shape["g2"][k])
        shear = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        covariance = radius**2 * shear @ shear.T + psf * np.eye(2)
        inverse, norm = np.linalg.inv(covariance), 2 * np.pi * np.sqrt(np.linalg.det(covariance))
        dx, dy = xx - x, yy - y
        form = inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2 + 2 * inverse[0, 1] * dx * dy
        images.append(sources.flux[k][:, None, None] * np.exp(-0.5 * form) / norm)
    return np.stack(images)


def make_scene(sources: Sources) -> Scene:
    """A scene of the sources; of several kinds, so that it has several stacks."""
    members = []
    for k, kind in enumerate(sources.model):
        x, y, flux = (jnp.asarray(value[k]) for value in (sources.x, sources.y, sources.flux))
        shape = {name: values[k] for name, values in sources.shape.items()}
        g = jnp.asarray([shape["g1"], shape["g2"]])
        if kind == "point":
            members.append(PointSource(flux, x, y))
        elif kind == "bulge_disc":
            parts = jnp.stack([0.7 * flux, 0.3 * flux])
            members.append(BulgeDisc(parts, x, y, shape["radius"], shape["radius_ratio"], g))
        else:
            members.append(Gaussian(flux, x, y, shape["radius"], g))
    sky = jnp.full(sources.flux.shape[1], SKY)
    return Scene(members, ConstantBackground(sky))


def make_deblended(example: Example | None = None, seed: int = 0, **settings: Any) -> Deblended:
    """The result of a deblending that found the truth. `settings`: fields of `Example`."""
    example = replace(example or Example(), **settings)
    sources = make_sources(example, seed)
    models = draw(sources, example.shape)
    sky = np.full(models.shape[1:], SKY)
    noise = np.random.default_rng(seed + 1).normal(0, SIGMA, sky.shape)
    mask = np.zeros(sky.shape, dtype=bool)
    if example.masked:
        mask[0, 3:6, 10:14] = True
        mask[:, -5:, -6:] = True
    exposure = make_exposure(
        models.sum(axis=0) + sky + noise,
        np.full(sky.shape, SIGMA**2),
        GaussianPSF(jnp.full(len(example.bands), FWHM)),
        mask=mask,
        bands=example.bands,
        zero_points=example.zero_points,
        unit=example.unit,
        wcs=example.wcs,
    )
    summary = {
        "inputs": {"images": ["example"]},
        "settings": {"model": "auto"},
        "versions": {},
        "n_sources": len(models),
        "reduced_chi2": 1.01,
        "reduced_chi2_by_band": dict.fromkeys(example.bands, 1.01),
        "n_converged": len(models),
        "seconds": {"fit": 0.1},
    }
    return Deblended(
        exposure=exposure,
        scene=make_scene(sources),
        fit=None,  # type: ignore[arg-type]  # nothing of what is tested with this reads it
        sources=sources,
        catalog=make_catalog(sources, exposure.header),
        models=models,
        background=sky,
        residual=np.where(mask, 0, noise),
        summary=summary,
    )
