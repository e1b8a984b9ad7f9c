"""A large image taken apart: sources found, blends cut and fitted, one catalogue, one model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.table import QTable
from jaxtyping import ArrayLike, Float, Int

from diffdeblend.batch.blend import Blend, used_pixels
from diffdeblend.batch.cut import cut_blends, image_level
from diffdeblend.batch.decoded_columns import (
    decoded_counts,
    prior_settings,
    support_of,
)
from diffdeblend.batch.decoded_results import DECODED, FoundDecoded
from diffdeblend.batch.draw import draw_sources
from diffdeblend.batch.fit_batch import fit_batch
from diffdeblend.batch.results import Found
from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Sources, make_catalog, versions
from diffdeblend.deblend.choose import n_parameters
from diffdeblend.deblend.clock import Clock
from diffdeblend.deblend.measure import signal_to_noise
from diffdeblend.deblend.parametric import mixture_settings
from diffdeblend.detect.detect import Detections, PSFKernel, detect
from diffdeblend.detect.methods import MeshSky, MultiThreshold, Threshold
from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.priors import DecoderPrior, ParametricPrior

# The filter's significance, at which one peak in a million of noise alone is taken for a source.
_SIGNIFICANT = 5.0
# Sides of the windows that sources are drawn on.
_WINDOWS = (32, 64, 128, 256)
# Half-light radii of a source that its window holds; of a Sersic profile of index 4 that is 84 %.
_REACH = 6.0
# Sources drawn together: their windows take a few tens of megabytes.
_TOGETHER = 512
# Side of the stamp of an analytic PSF.
_PSF_SIZE = 65


@dataclass(frozen=True, eq=False)
class DeblendedImage:
    """A large image taken apart. Host side, numpy arrays.

    - `exposure`: what was given.
    - `detections`: how the sources were found; None where their positions were given.
    - `found`: the fits, blend by blend; `boxes`: stamp (x0, y0, x1, y1) of each blend.
    - `sources`: positions, fluxes, shapes and flags of all sources, in the order of the positions.
    - `catalog`: the same as a table with units, and the number of the blend of each.
    - `model`: all sources as the camera sees them, `(band, y, x)`.
    - `background`: the sky, same shape: in the stamps that of the fits, elsewhere what was measured
        before.
    - `residual`: data minus both, 0 where a pixel is not used.
    - `summary`: settings, figures of merit, seconds by stage.
    """

    exposure: Exposure
    detections: Detections | None
    found: Found
    boxes: Int[np.ndarray, "blend 4"]
    sources: Sources
    catalog: QTable
    model: Float[np.ndarray, "band y x"]
    background: Float[np.ndarray, "band y x"]
    residual: Float[np.ndarray, "band y x"]
    summary: dict[str, Any] = field(repr=False)


def deblend_image(
    exposure: Exposure,
    positions: Float[ArrayLike, "source 2"] | Detections | None = None,
    *,
    model: str | None = None,
    prior: DecoderPrior | ParametricPrior | None = None,
    temperature: float = 1.0,
    fallback: bool = True,
    robust: bool = False,
    background: str = "constant",
    free_form: bool = False,
    model_error: float = 0.02,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DeblendedImage:
    """Take a large image apart: detect, cut into blends, fit them in batches, gather.

    - `positions`: (x, y) of each source in pixels, good to half a pixel, or what `detect` found;
        None: those of `find`.
    - `model`, `temperature`, `fallback`, `robust`, `background`, `model_error`: as in `fit_batch`;
        `prior`: as in `deblend`.
    - `free_form`: whether sources may be refined with free pixels where residuals ask for it.
    - `report`: called with a line of text as each stage begins; `progress`: as `report` of
        `fit_batch`.

    An image without any source is an empty catalogue.

    **Raises:** `ValueError` as `detect`, `cut_blends` and `fit_batch` do.
    """
    clock = Clock(report)
    decodes = isinstance(prior, DecoderPrior)
    if isinstance(prior, DecoderPrior):
        prior.check(exposure.header.pixel_scale)
    # Before the search for sources: whether the exposure has what it asks for.
    mixture = isinstance(prior, ParametricPrior)
    placed = prior.on(exposure, temperature=temperature) if mixture else prior
    clock.stage("detect")
    if positions is None:
        positions = find(exposure)
    found_before = positions if isinstance(positions, Detections) else None
    clock.stage("cut")
    if found_before is not None and not found_before.n_sources:
        blends: list[Blend] = []
    else:
        blends = cut_blends(exposure, positions)
    clock.stage("fit")
    found = fit_batch(
        blends,
        model=model,
        prior=placed,
        temperature=1.0 if mixture else temperature,
        fallback=fallback,
        robust=robust,
        background=background,
        free_form=free_form,
        model_error=model_error,
        # Of decoded galaxies they are the model; others are drawn, beyond their stamps, too.
        images=decodes,
        report=progress,
    )
    clock.stage("models")
    data, weight = used_pixels(exposure)
    if decodes:
        image, snr = _pasted(found, exposure, weight)
    else:
        image, snr = _drawn(found, exposure, weight)
    sky = _sky(found, blends, data, weight, found_before)
    residual = np.where(weight > 0, data - image - sky, 0).astype(data.dtype)
    order = np.argsort(found.row, kind="stable")
    sources = _sources(found, order, exposure.n_bands, snr)
    catalog: Any = make_catalog(sources, exposure.header)
    if isinstance(found, FoundDecoded):
        found.add_latents(catalog, order)
    catalog.add_column(found.blend[order], index=1, name="blend")
    catalog["blend"].info.description = "Number of the blend, from 0; it was fitted as one"
    clock.stage(None)
    used = max(int((weight > 0).sum()), 1)
    summary = {
        "settings": {
            "model": "auto" if model is None and not decodes else model,
            **prior_settings(prior, temperature, fallback, robust),
            **mixture_settings(prior, temperature),
            "background": background,
            "free_form": free_form,
            "model_error": model_error,
            "detection": None if found_before is None else found_before.settings,
        },
        "n_sources": len(catalog),
        "n_blends": len(blends),
        "reduced_chi2": float(np.sum(weight * residual**2) / used),
        "reduced_chi2_by_band": {
            band: float(np.sum(w * r**2) / max(int((w > 0).sum()), 1))
            for band, w, r in zip(exposure.bands, weight, residual, strict=True)
        },
        **(decoded_counts(sources.model, sources.flags) if decodes else {}),
        "not_converged": int((~found.converged).sum()),
        "versions": versions(),
        "seconds": {k: round(s, 3) for k, s in {**clock.seconds, "total": clock.total}.items()},
    }
    boxes = [(*b.origin, b.origin[0] + b.shape[1], b.origin[1] + b.shape[0]) for b in blends]
    return DeblendedImage(
        exposure,
        found_before,
        found,
        np.array(boxes, int).reshape(-1, 4),
        sources,
        catalog,
        image,
        sky,
        residual,
        summary,
    )


def find(exposure: Exposure) -> Detections:
    """Sources at 5 sigma of a point, through the matched filter of the PSF of each band."""
    return detect(
        exposure,
        n_sigma=_SIGNIFICANT,
        kernel=PSFKernel(),
        # A filter that sums over many pixels sees a small error of the sky.
        sky=MeshSky(masked=True),
        segmentation=Threshold(1),
        deblending=MultiThreshold(1, contrast=0.005),
        apertures=(),
    )


def _drawn(
    found: Found, exposure: Exposure, weight: np.ndarray
) -> tuple[Float[np.ndarray, "band y x"], Float[np.ndarray, "source"]]:
    """All sources on one image, and the signal-to-noise ratio of each, were it alone."""
    ny, nx = exposure.shape
    image = np.zeros((exposure.n_bands, ny, nx), np.float32)
    snr = np.full(len(found.x), np.nan)
    psf = psf_images(exposure.psf, _PSF_SIZE).astype(np.float32)[None]
    place = np.isfinite(found.x) & np.isfinite(found.y)
    reach = np.where(np.isfinite(found.radius), _REACH * found.radius, 0) + psf.shape[-1] / 4
    window = np.searchsorted(_WINDOWS, 2 * reach).clip(max=len(_WINDOWS) - 1)
    for number, size in enumerate(_WINDOWS):
        rows = np.flatnonzero(place & (window == number))
        corner = np.floor(np.stack([found.x, found.y], 1)[rows]).astype(int) - size // 2
        for start in range(0, len(rows), _TOGETHER):
            few, low = rows[start : start + _TOGETHER], corner[start : start + _TOGETHER]
            values = {name: getattr(found, name)[few] for name in _DRAWN}
            values |= {"x": found.x[few] - low[:, 0], "y": found.y[few] - low[:, 1]}
            drawn = draw_sources(values, psf, np.zeros(len(few), int), (size, size))
            for row, light, (x0, y0) in zip(few, drawn, low, strict=True):
                part = (slice(max(y0, 0), y0 + size), slice(max(x0, 0), x0 + size))
                inside = light[:, max(-y0, 0) : ny - y0, max(-x0, 0) : nx - x0]
                image[:, *part] += inside
                snr[row] = np.sqrt(np.sum(weight[:, *part] * inside**2))
    return image, snr


def _pasted(
    found: Found, exposure: Exposure, weight: np.ndarray
) -> tuple[Float[np.ndarray, "band y x"], Float[np.ndarray, "source"]]:
    """The same from the images of the fits, cut where their stamps end."""
    image = np.zeros((exposure.n_bands, *exposure.shape), np.float32)
    snr = np.full(len(found.x), np.nan)
    for number, each in enumerate(found.images):
        if found.finite[number] and each is not None:
            x0, y0 = found.origin[number]
            part = (slice(y0, y0 + each.shape[2]), slice(x0, x0 + each.shape[3]))
            image[:, *part] += each.sum(axis=0)
            snr[found.rows(number)] = signal_to_noise(each, weight[:, *part])
    return image, snr


_DRAWN = (
    *("radius", "index", "radius_ratio", "shear_ratio", "ellipticity"),
    *("flux", "bulge_flux", "kind"),
)


def _sky(
    found: Found,
    blends: Sequence[Blend],
    data: np.ndarray,
    weight: np.ndarray,
    before: Detections | None,
) -> Float[np.ndarray, "band y x"]:
    """The mean level of the fits of all stamps that a pixel is in; elsewhere the one before."""
    shape = data.shape
    if found.sky.shape[2] == 0:
        # Fits without a sky take the data as they are.
        return np.zeros(shape, np.float32)
    sky = image_level(data, weight) if before is None else before.background
    sky = sky.astype(np.float32)
    total, count = np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)
    for number, blend in enumerate(blends):
        if found.finite[number]:
            (x0, y0), (ny, nx) = blend.origin, blend.shape
            part = (slice(y0, y0 + ny), slice(x0, x0 + nx))
            total[:, *part] += found.sky[number][:, :1, None]
            count[part] += 1
    return np.where(count > 0, total / np.maximum(count, 1), sky)


def _sources(found: Found, order: np.ndarray, n_bands: int, snr: np.ndarray) -> Sources:
    """A row for each position given, in their `order`."""
    kinds, names = found.kind[order], found.model
    # Of a decoded galaxy: its place, its latents and its fluxes.
    n_latent = found.latent.shape[1] if isinstance(found, FoundDecoded) else 0
    numbers = [
        2 + n_latent + n_bands if kind == DECODED else n_parameters(Kind(int(kind)), n_bands)
        for kind in kinds
    ]
    bulge = (kinds == Kind.BULGE_DISC)[:, None]
    shape = {"g1": found.ellipticity[order, 0], "g2": found.ellipticity[order, 1]}
    shape |= {"g1_err": found.ellipticity_err[order, 0], "g2_err": found.ellipticity_err[order, 1]}
    for name in ("radius", "index", "radius_ratio", "shear_ratio"):
        shape |= {key: getattr(found, key)[order] for key in (name, f"{name}_err")}
    return Sources(
        x=found.x[order],
        y=found.y[order],
        x_err=found.x_err[order],
        y_err=found.y_err[order],
        flux=found.flux[order],
        flux_err=found.flux_err[order],
        model=[names[row] for row in order],
        shape=shape,
        bulge_flux=np.where(bulge, found.bulge_flux[order], np.nan),
        flags=found.flags[order],
        reduced_chi2=found.reduced_chi2[found.blend[order]],
        n_parameters=np.array(numbers, int),
        snr=snr[order],
        support=support_of(found, order),
    )
