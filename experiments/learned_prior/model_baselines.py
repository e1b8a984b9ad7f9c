"""Fitted profiles and symmetric templates: the ways that the package has without a learnt prior."""

import numpy as np
from blends import Blends
from components import Estimate, fit_components, position_error
from positive_mixture import PositiveMixture

from diffdeblend.allocate import deblend_footprints
from diffdeblend.batch import Blend, blend_of_arrays, fit_batch
from diffdeblend.batch.draw import draw_sources
from diffdeblend.components import MultiGaussian
from diffdeblend.components.gaussian import MIXTURE_SCALES
from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import Footprint, Peaks, SourceRecords, SpanSet
from diffdeblend.psf import PixelPSF


def symmetric_templates(blends: Blends, **settings) -> Estimate:
    """The children of `deblend_footprints`: all stamps side by side as one field."""
    n, _, ny, nx = blends.image.shape
    field = blends.image[:, 0].reshape(n * ny, nx)
    exposure = make_exposure(field, 1.0, PixelPSF(blends.psf.astype(np.float32)))
    parents = []
    for k, peaks in enumerate(blends.peaks):
        x, y = peaks.T.astype(np.int32)
        marked = Peaks(x, y, blends.image[k, 0][y, x].astype(float))
        whole = Footprint(SpanSet.from_box((0, nx, 0, ny)), marked)
        parents.append(whole.shifted(0, k * ny))
    found = deblend_footprints(exposure, SourceRecords.from_footprints(parents), **settings)
    light = [float(one.image.sum()) for one in found.footprints[n:]]
    return Estimate(np.array(light).reshape(n, -1, 1))


def stamps_of(blends: Blends, centre: bool) -> list[Blend]:
    """What `fit_batch` is given."""
    psf = PixelPSF(blends.psf.astype(np.float32))
    return [
        blend_of_arrays(image, 1.0, psf, at)
        for image, at in zip(blends.image, blends.places(centre), strict=True)
    ]


def profiles(blends: Blends, model: str, *, centre: bool = False, **settings) -> Estimate:
    """`fit_batch` with a model of its own."""
    pixels = bool(settings.get("free_form", False))
    found = fit_batch(
        stamps_of(blends, centre),
        model=model,
        background="none",
        position_error=position_error(centre),
        images=pixels,
        trim=not pixels,
        **settings,
    )
    names = ("x", "y", "radius", "index", "radius_ratio", "shear_ratio", "ellipticity", "flux")
    values = {name: getattr(found, name) for name in (*names, "bulge_flux", "kind")}
    n, m, bands, ny, nx = blends.truth.shape
    # No model is left in a stamp but its own: the wings beyond are no part of the flux.
    drawn = draw_sources(values, blends.psf[None], np.zeros(n * m, int), (ny, nx))
    images = drawn.reshape(n, m, bands, ny, nx)
    if pixels:
        for k, kept in enumerate(found.images):
            if kept is not None:
                images[k] = np.asarray(kept)[:m, :, :ny, :nx]
    total, error = (v.reshape(n, m, bands) for v in (found.flux, found.flux_err))
    return Estimate(images.sum(axis=(-2, -1)), images, total, error)


def positive_mixtures(blends: Blends, *, prior: bool = True, centre: bool = False) -> Estimate:
    """Six concentric Gaussians of one shape with positive weights."""

    def make(x: float, y: float, radius: float) -> PositiveMixture:
        dark = np.zeros(blends.image.shape[1], np.float32)
        return PositiveMixture(dark, x, y, radius, np.zeros(2, np.float32))

    return fit_components(blends, make, prior=prior, centre=centre)


def signed_mixtures(blends: Blends) -> Estimate:
    """The package's `MultiGaussian`: four Gaussians with weights of either sign, a weak prior."""

    def make(x: float, y: float, radius: float) -> MultiGaussian:
        dark = np.zeros((len(MIXTURE_SCALES), blends.image.shape[1]), np.float32)
        return MultiGaussian(dark, x, y, radius, np.zeros(2, np.float32))

    return fit_components(blends, make)
