"""scarlet_lite as a measure function of one's own: `experiments/peer_scores/lite.py:scarlet_lite`.

The deblender of the LSST pipelines: monotone images with a spectrum each. It is GPL, so it lives in
an environment of its own, beside this project's dependencies.
"""

from functools import cache

import numpy as np
from astropy.table import Table

from diffdeblend.score import Measured

# Width of its model PSF and first size of its largest source, pixels, as in its guide.
MODEL_SIGMA, LARGEST = 0.8, 51


def scarlet_lite(exposure, positions=None, *, steps=300, tolerance=1e-6, scale=1e-4):
    """Sources at known places, which it rounds to pixels.

    - `steps`, `tolerance`: of its optimiser adaprox, the better of the two settings that
      `experiments/speed` compares.
    - `scale`: brings electrons to numbers like those of HSC, for which its steps are chosen.
    """
    import lsst.scarlet.lite as scl

    if positions is None:
        raise ValueError("scarlet_lite finds no sources; it needs `positions`.")
    bands, table = exposure.bands, Table({"x": positions[:, 0], "y": positions[:, 1]})
    if not len(positions):
        return Measured(table, images=np.zeros((0, *exposure.image.shape), np.float32))
    image, variance = (np.array(a, np.float32) for a in (exposure.image, exposure.variance))
    psf = np.array(exposure.psf.image, np.float32)
    psf = psf / psf.sum(axis=(1, 2), keepdims=True)
    observation = scl.Observation(
        image * scale,
        variance * scale**2,
        1 / (variance * scale**2),
        psf,
        scl.utils.integrated_circular_gaussian(sigma=MODEL_SIGMA)[None],
        bands=bands,
    )
    start = scl.initialization.FactorizedInitialization(
        observation, [(float(y), float(x)) for x, y in positions], monotonicity=_monotonicity()
    )
    blend = scl.Blend(start.sources, observation).fit_spectra()
    blend.parameterize(scl.component.default_adaprox_parameterization)
    blend.fit(steps, e_rel=tolerance)
    flux = np.zeros((len(positions), len(bands)))
    images = np.zeros((len(positions), *image.shape), np.float32)
    for k, source in enumerate(blend.sources):
        if not source.n_components:
            continue
        model = source.get_model()
        flux[k] = model.data.sum(axis=(1, 2)) / scale
        whole = scl.Image.from_box(observation.bbox, bands=bands, dtype=np.float32)
        images[k] = observation.convolve(whole.insert(model), mode="real").data / scale
    for k, band in enumerate(bands):
        table[f"flux_{band}"] = flux[:, k]
    return Measured(table, images=images)


@cache
def _monotonicity():
    import lsst.scarlet.lite as scl

    return scl.operators.Monotonicity((LARGEST,) * 2)
