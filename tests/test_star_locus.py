"""Aperture less Kron magnitudes of stars, and what a correction makes of them."""

import numpy as np
import pytest

from diffdeblend.exposure import make_exposure
from diffdeblend.psf import PixelPSF
from diffdeblend.quantities import (
    STANDARD,
    MeasureApertures,
    fit_aperture_correction,
    measure_sources,
)

galsim = pytest.importorskip("galsim")

# All is in one program that takes long to compile.
pytestmark = pytest.mark.slow
SPACING, N = 50, 7


# What a Kron ellipse loses of each PSF beyond an aperture of 12 pixels, at 0.7" and 0.2" a pixel.
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (galsim.Moffat(beta=3, fwhm=3.5), -0.044),
        (galsim.Kolmogorov(fwhm=3.5), -0.048),
        (galsim.Gaussian(fwhm=3.5), -0.008),
    ],
)
def test_the_locus_of_stars_is_that_of_their_psf(profile, expected):
    rng = np.random.default_rng(4)
    side = SPACING * N
    corners = SPACING * np.mgrid[:N, :N].reshape(2, -1).T
    places = corners + SPACING / 2 + rng.uniform(-0.5, 0.5, (N * N, 2))
    flux = 10 ** rng.uniform(4.5, 6, N * N)
    image = rng.normal(size=(side, side))
    for (x, y), (left, top), light in zip(places, corners, flux, strict=True):
        middle = (SPACING - 1) / 2
        image[top : top + SPACING, left : left + SPACING] += (
            light
            * profile.drawImage(
                nx=SPACING, ny=SPACING, scale=1, offset=(x - left - middle, y - top - middle)
            ).array
        )
    psf = profile.drawImage(nx=41, ny=41, scale=1).array
    exposure = make_exposure(
        image[None].astype(np.float32),
        np.ones((1, side, side), np.float32),
        PixelPSF((psf / psf.sum())[None].astype(np.float32)),
    )
    chosen = {name: STANDARD[name] for name in ("psf_shape", "centroid", "shape", "kron")}
    chosen["aperture"] = MeasureApertures(radii=(12.0,))
    found = measure_sources(exposure, np.round(places), measurements=chosen, sizes=(48,))
    wide, kron = found["aperture_flux_12"], found["kron_flux"]
    locus = -2.5 * np.log10(wide / kron)
    assert np.median(locus) == pytest.approx(expected, abs=0.01)
    # Corrected with every other star, the rest are on the same scale, bright or faint.
    x, y, fitted = found["centroid_x"], found["centroid_y"], np.arange(N * N) % 2 == 0
    made = fit_aperture_correction(
        x[fitted], y[fitted], kron[fitted], wide[fitted], (side, side), degree=1
    )
    fixed, _ = made.apply(kron, found["kron_flux_err"], x, y)
    off = -2.5 * np.log10(wide / fixed)[~fitted]
    bright = flux[~fitted] > np.median(flux)
    for some in (bright, ~bright):
        assert abs(np.median(off[some])) < 0.01
