"""scarlet2 as a measure: free pixels and spectra, with constraints."""

from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.detect import find_peaks
from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.score.measured import Measured, catalog_of
from diffdeblend.score.measurers.images import add_fluxes, pixels_of


def scarlet2(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    steps: int = 1000,
    tolerance: float = 1e-4,
    noise: float = 0.05,
    threshold: float = 5.0,
    images: bool = True,
    most: int | None = None,
) -> Measured:
    """Every source a free image with a spectrum, as scarlet2's own guide to first steps has it.

    All sources are galaxies, started from Gaussian moments; spectra are positive, images between 0
    and 1. `flux_{band}` has no error, NaN: this fit gives none. A blend takes some seconds.

    - `positions`: x and y, in pixels. None: those of `diffdeblend.detect.find_peaks`.
    - `steps`, `tolerance`: of the fit: `max_iter` and `e_rel`.
    - `noise`: the image is multiplied so that this is the median standard deviation of a pixel.
        scarlet2 chooses steps for images in the units of HSC and is not unit invariant.
    - `threshold`: of `find_peaks`.
    - `images`: whether to give deblended images, as the camera sees them.
    - `most`: largest number of sources; the brightest are kept and `truncated` says so.

    **Raises:** `ImportError` without scarlet2, which may need an environment of its own; what
    scarlet2 raises.

    ??? cite
        Sampson et al. (2024), Astronomy and Computing 49, 100875.
    """
    try:
        package: Any = import_module("scarlet2")
        constraints: Any = import_module("numpyro.distributions").constraints
    except ImportError as error:
        raise ImportError(
            "the measure `scarlet2` needs scarlet2 and numpyro: pip install scarlet2 numpyro"
        ) from error
    places = find_peaks(exposure, threshold=threshold) if positions is None else positions
    places = np.asarray(places, float).reshape(-1, 2)
    pixels = pixels_of(exposure)
    shape = len(places), len(pixels.bands)
    flux = np.zeros(shape)
    models = np.zeros((*shape, *exposure.shape), np.float32)
    if len(places):
        # Its checks only print, and raise where the box of a source exceeds the image.
        package.set_validation(False)
        scale = noise / float(np.sqrt(np.median(pixels.variance)))
        weights = 1 / (pixels.variance * scale**2)
        if pixels.bad is not None:
            weights = np.where(pixels.bad, 0, weights)
        observation = package.Observation(
            pixels.image * scale,
            weights=weights,
            psf=np.asarray(_psf_images(exposure)),
            channels=list(pixels.bands),
        )
        frame = package.Frame.from_observations(observation)
        observation.match(frame)
        # It prints where a spectrum is negative.
        with redirect_stdout(StringIO()), package.Scene(frame) as scene:
            for x, y in places:
                centre = jnp.asarray([y, x])
                try:
                    spectrum, image = package.init.from_gaussian_moments(observation, centre)
                except ValueError:
                    spectrum = package.init.pixel_spectrum(observation, centre)
                    image = package.init.compact_morphology()
                # A measured spectrum may be negative in a faint band, and the fit is then NaN.
                package.Source(centre, jnp.maximum(spectrum, 1e-6), image)
        with package.Parameters(scene):
            for number, source in enumerate(scene.sources):
                package.Parameter(
                    source.spectrum,
                    name=f"spectrum:{number}",
                    constraint=constraints.positive,
                    stepsize=partial(package.relative_step, factor=0.05),
                )
                package.Parameter(
                    source.morphology,
                    name=f"image:{number}",
                    constraint=constraints.unit_interval,
                    stepsize=partial(package.relative_step, factor=1e-3),
                )
        found: Any = scene.fit(observation, max_iter=steps, e_rel=tolerance, progress_bar=False)
        for number, source in enumerate(found.sources):
            flux[number] = np.asarray(package.measure.flux(source)) / scale
            if images:
                alone = found.evaluate_source(source)
                models[number] = np.asarray(observation.render(alone)) / scale
    table = catalog_of(places, exposure.header, exposure.shape)
    add_fluxes(table, pixels.bands, flux, np.full(shape, np.nan), "Total flux, unit of the image")
    made = Measured(table, None, models if images else None)
    return made.brightest(most, flux.sum(axis=1))


def _psf_images(exposure: Exposure) -> np.ndarray:
    size = max(3, min(min(exposure.shape) - 1 | 1, 41))
    return psf_images(exposure.psf, size).astype(np.float32)
