"""The rendered image against GalSim: every component, every PSF, every quality."""

from functools import cache, partial

import galsim
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from diffdeblend.components import (
    BulgeDisc,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    MultiGaussian,
    Pixels,
    PointSource,
    Sersic,
)
from diffdeblend.components.gaussian import MIXTURE_SCALES
from diffdeblend.grid import FIT, STANDARD, fine
from diffdeblend.psf import (
    GaussianMixturePSF,
    GaussianPSF,
    KolmogorovPSF,
    MoffatPSF,
    PixelPSF,
)
from diffdeblend.scene import Scene, render

FINE = fine()
# GalSim's own Sersic profiles in Fourier space are good to 1e-5 by default.
REFERENCE = galsim.GSParams(
    minimum_fft_size=2048,
    maximum_fft_size=32768,
    maxk_threshold=1e-6,
    kvalue_accuracy=1e-7,
    integration_relerr=1e-7,
    integration_abserr=1e-9,
)
# For stamps of some 40 pixels: a smaller transform is as wide compared with them.
SMALL = REFERENCE.withParams(minimum_fft_size=1024)

INDICES = (0.5, 1.0, 2.0, 4.0, 6.0)
RADII = (0.15, 0.3, 0.6, 1.0, 2.0, 3.0)
SHEARS = (0.0, 0.3, 0.54)
PIXEL = 0.2
SEEING = 0.7


def by_galsim(profile, psf, shape, x, y, params=REFERENCE):
    """A profile seen through a PSF, both in pixels, with its centre at (x, y)."""
    ny, nx = shape
    image = galsim.ImageD(nx, ny)
    galsim.Convolve([profile, psf], gsparams=params).drawImage(
        image=image, scale=1, offset=(x - (nx - 1) / 2, y - (ny - 1) / 2)
    )
    return image.array


@partial(quick_jit, static_argnames=("shape", "quality"))
def drawn(scene, psf, shape, quality):
    return render(scene, psf, shape, quality=quality)


# Promised are 1.5e-5 and 2e-4 of the peak, and 1e-3 of the flux.
LIMITS = [(FINE, 5e-6, 3e-4), (STANDARD, 5e-5, 1e-3)]


# Sersic profiles in a stamp of a survey: the accuracy that is promised.


def galaxy(index, radius, shear, seed):
    """A galaxy at any angle, within a pixel of the middle of a stamp of 120 pixels."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, np.pi)
    x, y = 59.5 + random.uniform(-1, 1, 2)
    ellipticity = shear * np.array([np.cos(2 * angle), np.sin(2 * angle)])
    return index, radius / PIXEL, ellipticity, x, y


def errors(galaxies, quality):
    """Largest pixel error over the peak, and the relative error of the flux, worst of all."""
    shape = (120, 120)
    worst_pixel = worst_flux = 0.0
    for index, radius, ellipticity, x, y in galaxies:
        scene = Scene([Sersic([1.0], x, y, radius, index, ellipticity)])
        image = np.asarray(
            drawn(scene, KolmogorovPSF([SEEING / PIXEL]), shape, quality)[0], dtype=float
        )
        wanted = reference(index, radius, *ellipticity, x, y)
        worst_pixel = max(worst_pixel, np.abs(image - wanted).max() / wanted.max())
        worst_flux = max(worst_flux, abs(image.sum() / wanted.sum() - 1))
    return worst_pixel, worst_flux


@cache
def reference(index, radius, g1, g2, x, y):
    profile = galsim.Sersic(n=index, half_light_radius=radius)
    if index == 0.5:
        # Its Sersic profile is 3e-5 of the peak off its own Gaussian.
        profile = galsim.Gaussian(half_light_radius=radius)
    profile = profile.shear(g1=g1, g2=g2)
    return by_galsim(profile, galsim.Kolmogorov(fwhm=SEEING / PIXEL), (120, 120), x, y)


# GalSim takes seconds for a steep profile.
STEEP = [pytest.param(n, marks=pytest.mark.slow if n > 2 else ()) for n in INDICES]


@pytest.mark.parametrize(("quality", "limit", "flux_limit"), LIMITS)
@pytest.mark.parametrize("index", STEEP)
def test_sersic_in_a_survey_stamp(index, quality, limit, flux_limit, precision):
    some = [galaxy(index, *case) for case in [(0.15, 0.54, 1), (0.6, 0.3, 2), (3.0, 0.54, 3)]]
    worst_pixel, worst_flux = errors(some, quality)
    assert worst_pixel < limit
    assert worst_flux < flux_limit


@pytest.mark.slow
@pytest.mark.parametrize(("quality", "limit", "flux_limit"), LIMITS)
@pytest.mark.parametrize("index", INDICES)
def test_sersic_in_a_survey_stamp_everywhere(index, quality, limit, flux_limit, precision):
    every = [
        galaxy(index, radius, shear, seed)
        for radius in RADII
        for shear in SHEARS
        for seed in (4, 5)
    ]
    worst_pixel, worst_flux = errors(every, quality)
    assert worst_pixel < limit
    assert worst_flux < flux_limit


# Without corrections the wings of a spheroid come back around the period.
@pytest.mark.parametrize(
    ("index", "radius", "limit"),
    [(0.5, 0.75, 1e-3), (1.0, 2.0, 1e-3), (2.0, 2.0, 1e-3), (4.0, 0.75, 1e-3), (6.0, 2.0, 1e-2)],
)
def test_compact_sources_at_the_quality_of_fits(index, radius, limit):
    shape, (x, y), shear = (60, 60), (29.8, 28.9), 0.54
    scene = Scene([Sersic([1.0], x, y, radius, index, [shear, 0.0])])
    image = drawn(scene, KolmogorovPSF([3.5]), shape, FIT)[0]
    profile = galsim.Sersic(n=index, half_light_radius=radius).shear(g1=shear, g2=0)
    wanted = by_galsim(profile, galsim.Kolmogorov(fwhm=3.5), shape, x, y, SMALL)
    assert np.linalg.norm(image - wanted) < limit * np.linalg.norm(wanted)


# Every component, off the symmetric point: wide stamp, unequal bands, x and y apart, near an edge.

SHAPE = (31, 44)
PLACES = {"inside": (13.3, 17.6), "near a corner": (41.7, 1.2)}
FWHM = (3.5, 4.4)
FLUX = np.array([3.0, -1.5])
RADIUS, RATIO, SHEAR = 3.1, 0.45, np.array([-0.2, 0.35])
PART_FLUX = np.array([[1.0, 2.0], [2.5, 0.7], [-0.3, 0.4], [0.6, 3.0]])
MORPHOLOGY = np.array(
    [[0.1, 0.3, 0.0], [0.5, 2.0, 0.2], [0.4, 0.8, 0.9], [0.0, 0.7, 0.1], [0.2, 0.0, 0.0]]
)


def sheared(profile):
    return profile.shear(g1=SHEAR[0], g2=SHEAR[1])


def pixels_by_galsim():
    blur = galsim.Gaussian(sigma=0.6)
    height, width = MORPHOLOGY.shape
    return galsim.Sum(
        [
            MORPHOLOGY[j, i] / MORPHOLOGY.sum() * blur.shift(i - width // 2, j - height // 2)
            for j in range(height)
            for i in range(width)
        ]
    )


# The component at a place, and GalSim's profile of each of its parts.
COMPONENTS = {
    "point": (lambda x, y: PointSource(FLUX, x, y), [galsim.DeltaFunction()]),
    "gaussian": (
        lambda x, y: Gaussian(FLUX, x, y, RADIUS, SHEAR),
        [sheared(galsim.Gaussian(half_light_radius=RADIUS))],
    ),
    "exponential": (
        lambda x, y: Exponential(FLUX, x, y, RADIUS, SHEAR),
        [sheared(galsim.Exponential(half_light_radius=RADIUS))],
    ),
    "de vaucouleurs": (
        lambda x, y: DeVaucouleurs(FLUX, x, y, RADIUS, SHEAR),
        [sheared(galsim.DeVaucouleurs(half_light_radius=RADIUS))],
    ),
    "sersic": (
        lambda x, y: Sersic(FLUX, x, y, RADIUS, 2.7, SHEAR),
        [sheared(galsim.Sersic(n=2.7, half_light_radius=RADIUS))],
    ),
    "bulge and disc": (
        lambda x, y: BulgeDisc(PART_FLUX[:2], x, y, RADIUS, RATIO, SHEAR),
        [
            sheared(galsim.Exponential(half_light_radius=RADIUS)),
            sheared(galsim.DeVaucouleurs(half_light_radius=RADIUS * RATIO)),
        ],
    ),
    "multi-gaussian": (
        lambda x, y: MultiGaussian(PART_FLUX, x, y, RADIUS / 2, SHEAR),
        [sheared(galsim.Gaussian(half_light_radius=RADIUS / 2 * s)) for s in MIXTURE_SCALES],
    ),
    "pixels": (lambda x, y: Pixels(FLUX, x, y, MORPHOLOGY), [pixels_by_galsim()]),
}


@cache
def component_by_galsim(name, x, y):
    component, profiles = COMPONENTS[name][0](x, y), COMPONENTS[name][1]
    flux = np.asarray(component.flux, dtype=float).reshape(len(profiles), -1)
    return np.stack(
        [
            by_galsim(
                galsim.Sum([f * p for f, p in zip(flux[:, band], profiles, strict=True)]),
                galsim.Kolmogorov(fwhm=FWHM[band]),
                SHAPE,
                x,
                y,
                SMALL,
            )
            for band in range(2)
        ]
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMPONENTS)
def test_component(name, place):
    x, y = PLACES[place]
    wanted = component_by_galsim(name, x, y)
    for quality, limit in ((FINE, 1.5e-5), (STANDARD, 2e-4)):
        image = drawn(Scene([COMPONENTS[name][0](x, y)]), KolmogorovPSF(FWHM), SHAPE, quality)
        for ours, theirs in zip(image, wanted, strict=True):
            # A source in a corner is only half a period from its copy.
            allowed = limit * (1 if place == "inside" else 5)
            assert np.abs(ours - theirs).max() < allowed * np.abs(theirs).max()


@pytest.mark.parametrize("name", [n for n in COMPONENTS if n not in ("point", "pixels")])
def test_wings_are_the_profile_in_real_space(name):
    make, profiles = COMPONENTS[name]
    random = np.random.default_rng(6)
    angle, distance = random.uniform(0, 6.28, 9), np.linspace(4, 60, 9)
    x, y = 12.3 + distance * np.cos(angle), 20.6 + distance * np.sin(angle)
    wings = np.asarray(make(12.3, 20.6).wings(jnp.asarray(x), jnp.asarray(y)))
    for part, profile in zip(wings.reshape(len(profiles), -1), profiles, strict=True):
        wanted = [profile.xValue(dx, dy) for dx, dy in zip(x - 12.3, y - 20.6, strict=True)]
        np.testing.assert_allclose(part, wanted, rtol=2e-4, atol=1e-9)


# Every PSF, with a disc off the middle and a star near the edge.


def mixture_by_galsim(sigma, weight):
    weight = np.asarray(weight) / np.sum(weight)
    return galsim.Sum([w * galsim.Gaussian(sigma=s) for s, w in zip(sigma, weight, strict=True)])


SIGMA, WEIGHT = np.array([[1.5, 2.9], [1.8, 4.1]]), np.array([[2.0, 1.0], [0.4, 0.3]])
PSFS = {
    "gaussian": (GaussianPSF(FWHM), [galsim.Gaussian(fwhm=f) for f in FWHM]),
    "mixture": (
        GaussianMixturePSF(SIGMA, WEIGHT),
        [mixture_by_galsim(*of_band) for of_band in zip(SIGMA, WEIGHT, strict=True)],
    ),
    "moffat": (
        MoffatPSF(FWHM, [2.5, 4.0]),
        [galsim.Moffat(beta=b, fwhm=f) for b, f in zip([2.5, 4.0], FWHM, strict=True)],
    ),
    "kolmogorov": (KolmogorovPSF(FWHM), [galsim.Kolmogorov(fwhm=f) for f in FWHM]),
}


@cache
def disc_and_star_by_galsim(name):
    disc = sheared(galsim.Exponential(half_light_radius=RADIUS)).shift(-11.2, 6.3)
    scene = galsim.Sum([disc, 0.2 * galsim.DeltaFunction().shift(18.3, -13.6)])
    middle = (SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2
    return np.stack([by_galsim(scene, psf, SHAPE, *middle, SMALL) for psf in PSFS[name][1]])


def disc_and_star():
    ones = np.ones(2)
    x, y = (SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2
    return Scene(
        [
            Exponential(ones, x - 11.2, y + 6.3, RADIUS, SHEAR),
            PointSource(0.2 * ones, x + 18.3, y - 13.6),
        ]
    )


# At 3.5 pixels a Moffat profile of beta 2.5 has power beyond Nyquist, which `STANDARD` leaves out.
@pytest.mark.parametrize(("quality", "limit"), [(FINE, 1.5e-5), (STANDARD, 4e-4)])
@pytest.mark.parametrize("name", PSFS)
def test_psf(name, quality, limit):
    wanted = disc_and_star_by_galsim(name)
    image = drawn(disc_and_star(), PSFS[name][0], SHAPE, quality)
    for ours, theirs in zip(image, wanted, strict=True):
        assert np.abs(ours - theirs).max() < limit * theirs.max()


@pytest.mark.parametrize("quality", [FINE, STANDARD])
def test_psf_of_pixels(quality):
    # Larger than the stamp, and more so than the period: its wings must not come back either.
    images = [
        galsim.Kolmogorov(fwhm=f).drawImage(nx=141, ny=121, scale=1, dtype=float).array
        for f in FWHM
    ]
    wanted = disc_and_star_by_galsim("kolmogorov")
    image = drawn(disc_and_star(), PixelPSF(images), SHAPE, quality)
    for ours, theirs, psf in zip(image, wanted, images, strict=True):
        # Little light is beyond the PSF's image, and its power beyond Nyquist is folded.
        assert np.abs(ours * psf.sum() - theirs).max() < 1e-4 * theirs.max()


@pytest.mark.parametrize("quality", [FINE, STANDARD])
def test_a_star_between_pixels_is_the_psf_between_pixels(quality):
    y, x = np.mgrid[-7:8, -6:7]
    psf = np.exp(-0.5 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 + 0.4 * x * y) / 1.6**2)
    psf /= psf.sum()
    star_x, star_y = 30.5, 8.3
    from_x = np.sinc(np.arange(SHAPE[1])[:, None] - star_x - np.arange(-6, 7))
    from_y = np.sinc(np.arange(SHAPE[0])[:, None] - star_y - np.arange(-7, 8))
    image = drawn(Scene([PointSource([1.0], star_x, star_y)]), PixelPSF(psf[None]), SHAPE, quality)
    np.testing.assert_allclose(image[0], from_y @ psf @ from_x.T, atol=5e-5 * psf.max())
