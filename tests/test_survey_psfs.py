"""PSFs of surveys: their widths, where they come from, and how they are drawn."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import galsim
import jax
import numpy as np
import pytest
from astropy.io import fits
from quick import quick_jit

from diffdeblend import Exponential, PointSource, Scene, fine, render
from diffdeblend.psf import PixelPSF
from diffdeblend.simulate.galsim_text import galsim_from_text, galsim_text
from diffdeblend.simulate.psf_files import image_psf, psf_from_file, psf_from_folder
from diffdeblend.simulate.survey import Band, Survey, get_survey
from diffdeblend.simulate.survey_file import survey_from_dict, survey_to_dict
from diffdeblend.simulate.telescope import (
    default_psf,
    delivered_psf,
    draw_psfs,
    needed_oversampling,
    pixel_psf,
    sampled_psf,
    space_psf,
    varies,
)

OWN = Survey(
    "Own",
    0.25,
    (Band("g", 0.9, 28.0, 22.1, 300.0, 480.0), Band("r", 0.8, 28.1, 21.2, 400.0, 620.0)),
    mirror_diameter=4.0,
    obscuration=0.36,
)
GENTLE = galsim.GSParams(maxk_threshold=1e-6, kvalue_accuracy=1e-7, folding_threshold=3e-4)


def overlap(small, large, apart):
    """Area that two circles share."""
    if apart <= large - small:
        return np.pi * small**2
    if apart >= large + small:
        return 0.0
    a = np.arccos((apart**2 + small**2 - large**2) / (2 * apart * small))
    b = np.arccos((apart**2 + large**2 - small**2) / (2 * apart * large))
    sides = (small + large - apart, apart + small - large, apart + large - small)
    triangle = np.sqrt(np.prod(sides) * (apart + small + large)) / 2
    return small**2 * a + large**2 * b - triangle


def passed_by_mirror(k, wavelength, diameter, obscured):
    """What a mirror with a hole of this share of its area passes: it overlaps with itself."""
    apart = k * wavelength / diameter / np.pi * 180 * 3600 / np.pi
    hole = np.sqrt(obscured)
    area = overlap(1, 1, apart) - 2 * overlap(hole, 1, apart) + overlap(hole, hole, apart)
    return area / (np.pi * (1 - obscured))


def width(psf, guess):
    """FWHM along x, from GalSim's image of the PSF."""
    step = guess / 24
    quick = psf.withGSParams(folding_threshold=0.02)
    row = quick.drawImage(nx=61, ny=1, scale=step, method="no_pixel", dtype=float).array[0]
    at = np.linspace(0, 30, 3001)
    profile = np.interp(at, np.arange(31), row[30:] / row[30])
    return 2 * step * at[np.argmax(profile < 0.5)]


@pytest.mark.parametrize("name", ["LSST", "SDSS", "Euclid_NISP"])
def test_default_is_seeing_through_a_mirror(name):
    survey = get_survey(name)
    for band, psf in zip(survey.bands, draw_psfs(survey), strict=True):
        for k in np.array([0.3, 2.0, 5.0, 8.0]) / band.psf_fwhm:
            # Fried (1966); the FWHM is 0.976 of wavelength over Fried's length.
            seeing = np.exp(-3.44 * (k * band.psf_fwhm / 0.976 / 2 / np.pi) ** (5 / 3))
            mirror = passed_by_mirror(
                k, band.wavelength * 1e-9, survey.mirror_diameter, survey.obscuration
            )
            assert psf.kValue(k, 0).real == pytest.approx(seeing * mirror, abs=2e-3)


# The widths that these surveys state are 0.17, 0.095 and 0.087 arcsec.
@pytest.mark.parametrize(
    ("name", "band", "wanted"),
    [("Euclid_VIS", "IE", 0.220), ("COSMOS", "f814w", 0.132), ("Roman_WFI", "F106", 0.124)],
)
def test_space_has_the_width_that_it_states(name, band, wanted):
    survey = get_survey(name)
    stated = survey.band(band).psf_fwhm
    assert width(default_psf(survey, survey.band(band)), stated) == pytest.approx(wanted, abs=1e-3)
    assert width(space_psf(survey, survey.band(band)), stated) == pytest.approx(stated, rel=3e-3)


def test_ground_can_have_the_width_that_it_states():
    survey = get_survey("SDSS")
    for band in survey.bands:
        assert width(default_psf(survey, band), band.psf_fwhm) > 1.007 * band.psf_fwhm
        ours = width(delivered_psf(survey, band), band.psf_fwhm)
        assert ours == pytest.approx(band.psf_fwhm, rel=3e-3)


def test_diffraction_that_is_wider_is_left_alone():
    survey = get_survey("Roman_WFI_Deep")
    assert isinstance(space_psf(survey, survey.band("F213")), galsim.Airy)


def test_without_a_mirror_there_is_no_diffraction():
    survey = replace(OWN, mirror_diameter=0).with_band("r", wavelength=None)
    for make in (default_psf, delivered_psf):
        assert make(survey, survey.band("r")) == galsim.Kolmogorov(fwhm=0.8)
    assert space_psf(survey, survey.band("r")) == galsim.Gaussian(fwhm=0.8)


# Which PSFs a survey takes.


def varying(survey, band):
    return lambda rng: galsim.Gaussian(fwhm=band.psf_fwhm * rng.uniform(0.8, 1.2))


ONE = galsim.Moffat(beta=2.5, fwhm=0.7)
KINDS = {
    "object": (ONE, (ONE, ONE)),
    "function": (
        lambda survey, band: galsim.Gaussian(fwhm=band.psf_fwhm),
        (galsim.Gaussian(fwhm=0.9), galsim.Gaussian(fwhm=0.8)),
    ),
    "list": ([ONE, galsim.Gaussian(fwhm=1)], (ONE, galsim.Gaussian(fwhm=1))),
    "dict": ({"r": ONE, "g": default_psf, "i": ONE}, (default_psf(OWN, OWN.bands[0]), ONE)),
}


@pytest.mark.parametrize(("psf", "wanted"), KINDS.values(), ids=KINDS)
def test_takes_psfs_of_every_kind(psf, wanted):
    survey = replace(OWN, psf=psf)
    assert draw_psfs(survey) == wanted
    assert not varies(survey)


def test_a_psf_that_varies_follows_its_numbers():
    survey = replace(OWN, psf=varying)
    assert varies(survey)
    drawn = [draw_psfs(survey, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # One band after the other, from the same generator.
    rng = np.random.default_rng(1)
    assert drawn[0] == tuple(galsim.Gaussian(fwhm=w * rng.uniform(0.8, 1.2)) for w in (0.9, 0.8))
    half = replace(OWN, psf=(ONE, varying))
    assert varies(half)
    assert draw_psfs(half, np.random.default_rng(1))[0] == ONE


def test_psfs_are_brought_to_unit_flux():
    assert draw_psfs(replace(OWN, psf=ONE * 3))[0].flux == pytest.approx(1, rel=1e-12)


# Files.


def stars(count=3):
    """Images that are not symmetric, so that a turned one is seen."""
    y, x = np.mgrid[-8:9, -8:9]
    turned = np.array([0.0, 0.2, 0.4])[:count, None, None]
    return np.exp(-0.5 * (x**2 + 0.8 * y**2 + turned * x * y) / 2.1**2)


@pytest.mark.parametrize("name", ["psf.fits", "psf.fits.gz", "psf.npy"])
def test_reads_a_file(name, tmp_path):
    image = stars(1)[0]
    if name.endswith("npy"):
        np.save(tmp_path / name, image)
    else:
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)]).writeto(tmp_path / name)
    survey = replace(OWN, psf=psf_from_file(tmp_path / name))
    for psf in draw_psfs(survey):
        drawn = psf.drawImage(nx=17, ny=17, scale=0.25, method="no_pixel", dtype=float).array
        np.testing.assert_allclose(drawn, image / image.sum(), atol=2e-6)
    again = survey_from_dict(json.loads(json.dumps(survey_to_dict(survey, strict=True))))
    assert again == survey == pickle.loads(pickle.dumps(survey))


def test_reads_a_plane_or_a_file_for_each_band(tmp_path):
    fits.PrimaryHDU(stars(2)).writeto(tmp_path / "cube.fits")
    for name, image in zip("gr", stars(2), strict=True):
        fits.PrimaryHDU(image).writeto(tmp_path / f"{name}.fits")
    cube = draw_psfs(replace(OWN, psf=psf_from_file(tmp_path / "cube.fits", 0.1)))
    each = draw_psfs(replace(OWN, psf=psf_from_file(tmp_path / "{band}.fits", 0.1)))
    assert cube == each == tuple(image_psf(image, 0.1) for image in stars(2))
    assert cube[0] != cube[1]


def test_the_pixel_is_taken_out_where_it_is_included():
    star = galsim.Kolmogorov(fwhm=1.1)
    seen = star.drawImage(nx=61, ny=61, scale=0.2, dtype=float).array

    def error(included):
        again = pixel_psf([image_psf(seen, 0.2, included)], 0.2, 61)[0] * seen.sum()
        return np.abs(again - seen).max() / seen.max()

    assert error(True) < 5e-4
    # It would count twice.
    assert error(False) > 0.01


def test_a_folder_is_chosen_from_by_its_numbers(tmp_path, monkeypatch):
    # Folders list their files in any order.
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    for name, image in zip("bca", stars(3), strict=True):
        fits.PrimaryHDU(image).writeto(tmp_path / f"{name}.fits")
    (tmp_path / "README.txt").write_text("not a PSF")
    survey = replace(OWN, psf=psf_from_folder(tmp_path, 0.2))
    by_name = [image_psf(stars(3)[place], 0.2) for place in (2, 0, 1)]
    seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        chosen = [int(rng.integers(3)) for _ in survey.bands]
        drawn = draw_psfs(survey, np.random.default_rng(seed))
        assert drawn == tuple(by_name[place] for place in chosen)
        seen |= set(chosen)
    assert seen == {0, 1, 2}
    again = survey_from_dict(json.loads(json.dumps(survey_to_dict(survey, strict=True))))
    assert again == survey == pickle.loads(pickle.dumps(survey))


# As text.

OBJECTS = {
    "sum": ONE + galsim.Gaussian(sigma=1.234567890123, flux=0.1),
    "turned": galsim.Gaussian(sigma=1).shear(g1=0.1, g2=0.2).rotate(20 * galsim.degrees),
    "shifted": galsim.Moffat(beta=3, fwhm=0.7).dilate(1.1).shift(0.1, -0.2),
    "convolution": galsim.Convolve(galsim.Kolmogorov(fwhm=0.7), galsim.Airy(lam_over_diam=0.02)),
    "optics": galsim.OpticalPSF(lam=700, diam=2.4, defocus=0.1, obscuration=0.3, nstruts=3),
    "atmosphere": galsim.VonKarman(lam=700, r0=0.15, L0=25),
    "accuracy": galsim.Gaussian(sigma=1, gsparams=galsim.GSParams(maxk_threshold=1e-5)),
    "image": image_psf(np.random.default_rng(0).random((35, 41)), 0.2, True),
    "lanczos": galsim.InterpolatedImage(
        galsim.Image(stars(1)[0].astype(np.float32)),
        wcs=galsim.JacobianWCS(0.2, 0.01, 0, 0.2),
        x_interpolant=galsim.Lanczos(7),
    ),
}


@pytest.mark.parametrize("psf", OBJECTS.values(), ids=OBJECTS)
def test_objects_are_written_as_text(psf):
    assert galsim_from_text(galsim_text(psf)) == psf


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "galsim.fits.read('a.fits')",
        "galsim.InterpolatedImage('a.fits')",
        "galsim.RealGalaxy(1)",
        "galsim.config.Process(1)",
        "np.load(1)",
        "[x for x in (1,)]",
        "galsim.Gaussian(sigma=1).drawImage()",
        "galsim.Gaussian(sigma=-",
        "galsim.Gaussian(width=1)",
        "galsim.PositionD(1, 2)",
        "3",
        "",
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r"`text` is no object of GalSim|is not understood"):
        galsim_from_text(text)


# Drawn.


def drawn(scene, psf, shape, quality):
    return quick_jit(lambda scene, psf: render(scene, psf, shape, quality=quality)[0])(scene, psf)


@pytest.mark.parametrize(
    ("name", "band", "psf", "oversampling"),
    [
        ("LSST", "i", default_psf, 2),
        ("PanSTARRS", "g", default_psf, 1),
        ("Euclid_VIS", "IE", space_psf, 2),
        ("Roman_WFI", "F106", space_psf, 3),
    ],
)
def test_scenes_through_samples_are_those_of_galsim(name, band, psf, oversampling, x64):
    survey = get_survey(name, psf=psf).with_bands((band,))
    scale, (star,) = survey.pixel_scale, draw_psfs(survey)
    assert needed_oversampling([star], scale) == oversampling
    # What a draw leaves in GalSim's objects must not change what is needed.
    star.drawImage(nx=3, ny=3, scale=scale)
    samples = sampled_psf([star], scale, 91, None)
    assert samples.oversampling == oversampling
    x, y, ny, nx = 15.37, 13.6, 29, 33
    disc = Exponential([300.0], x + 3.1, y + 2.2, 2.1, [0.2, -0.1])
    scene = Scene([PointSource([700.0], x, y), disc])
    image = drawn(scene, samples, (ny, nx), fine(float(oversampling)))
    profile = galsim.Exponential(half_light_radius=2.1 * scale).shear(g1=0.2, g2=-0.1)
    both = (
        star.shift((x - 16) * scale, (y - 14) * scale) * 700
        + galsim.Convolve(profile, star).shift((x - 12.9) * scale, (y - 11.8) * scale) * 300
    )
    seen = both.withGSParams(GENTLE)
    wanted = seen.drawImage(nx=nx, ny=ny, scale=scale, dtype=float).array
    assert np.abs(image - wanted).max() < 1e-5 * wanted.max()


def test_pixels_cannot_tell_what_samples_can(x64):
    # A star between pixels of Roman: why there are samples.
    survey = get_survey("Roman_WFI", psf=space_psf).with_bands(("F106",))
    (star,) = draw_psfs(survey)
    scene = Scene([PointSource([1.0], 14.5, 14.5)])
    pixels = pixel_psf([star], survey.pixel_scale, 61)
    by_pixels = drawn(scene, PixelPSF(pixels), (30, 30), fine(3.0)) * pixels.sum()
    samples = sampled_psf([star], survey.pixel_scale, 61, 3)
    by_samples = drawn(scene, samples, (30, 30), fine(3.0))
    # GalSim puts the middle of an image of even size between its pixels.
    wanted = star.drawImage(nx=30, ny=30, scale=survey.pixel_scale, dtype=float).array
    assert np.abs(by_samples - wanted).max() < 1e-5 * wanted.max()
    assert np.abs(by_pixels - wanted).max() > 0.1 * wanted.max()


@pytest.mark.parametrize("oversampling", [1, 2, 3, 4])
def test_samples_hold_the_pixels(oversampling, x64):
    psfs = draw_psfs(OWN)
    samples = sampled_psf(psfs, 0.25, 31, oversampling)
    pixels = pixel_psf(psfs, 0.25, 31)
    assert samples.image.shape[1] % 2 == 1
    assert samples.pixel_image.shape == pixels.shape == (2, 31, 31)
    np.testing.assert_allclose(samples.pixel_image, pixels, atol=2e-6 * pixels.max())
    for ours, psf in zip(pixels, psfs, strict=True):
        drawn = psf.drawImage(nx=31, ny=31, scale=0.25, dtype=float).array
        np.testing.assert_allclose(ours, drawn, atol=5e-5 * drawn.max())
        # The wings that are outside are not put inside.
        assert ours.sum() < 0.997


def test_samples_are_of_the_precision_that_is_on():
    assert sampled_psf([ONE], 0.25, 5).image.dtype == np.float32
    with jax.enable_x64(True):
        assert sampled_psf([ONE], 0.25, 5).image.dtype == np.float64


# The image of a galaxy of g1 = 0.3 and its PSF at the same pixels: the shear that KSB finds.
@pytest.mark.parametrize(("name", "band", "wanted"), [("LSST", "r", 0.3090), ("HSC", "g", 0.3098)])
def test_ksb_finds_the_shear_with_these_pixels(name, band, wanted):
    survey = get_survey(name).with_bands(band)
    scale, (psf,) = survey.pixel_scale, draw_psfs(survey)
    galaxy = galsim.Exponential(half_light_radius=0.5).shear(g1=0.3)
    image = galsim.Convolve(galaxy, psf).drawImage(nx=61, ny=61, scale=scale)

    def shear(star):
        star = galsim.Image(np.ascontiguousarray(star), scale=scale)
        return galsim.hsm.EstimateShear(image, star, shear_est="KSB").corrected_g1

    ours = shear(pixel_psf([psf], scale, 61)[0])
    assert ours == pytest.approx(wanted, abs=2e-4)
    # At another scale, or without the pixel, it would be another.
    assert abs(shear(psf.drawImage().array) - ours) > 2e-3
    assert (
        abs(shear(psf.drawImage(nx=61, ny=61, scale=scale, method="no_pixel").array) - ours) > 2e-3
    )


# Bad input.

WRONG = {
    "no wavelength": (
        lambda _: draw_psfs(OWN.with_band("g", wavelength=None)),
        "`wavelength` of band 'g' is not known",
    ),
    "no object": (lambda _: draw_psfs(replace(OWN, psf=0.7)), "GSObject for band 'g'.*got float"),
    "no object made": (
        lambda _: draw_psfs(replace(OWN, psf=lambda survey, band: None)),
        "`psf` of Own must give a galsim.GSObject .*got NoneType",
    ),
    "no rng": (lambda _: draw_psfs(replace(OWN, psf=varying)), "`rng` is needed: .* varies"),
    "takes no rng": (
        lambda _: draw_psfs(replace(OWN, psf=lambda s, b: lambda: ONE), np.random.default_rng(0)),
        "must take one argument, a numpy Generator",
    ),
    "dark": (lambda _: draw_psfs(replace(OWN, psf=ONE * 0)), "positive flux; got 0"),
    "no file": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_file(path / "a_{band}.fits"))),
        "there is no file .*a_g.fits",
    ),
    "no FITS file": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_file(path / "text.fits"))),
        "text.fits' is no FITS file",
    ),
    "too many planes": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_file(path / "three.npy"))),
        "has 3 images, and Own the bands",
    ),
    "no light": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_file(path / "dark.npy"))),
        "dark.npy.*: `image` of a PSF must be finite with a positive sum",
    ),
    "no folder": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_folder(path / "none"))),
        "`folder`: there is no folder",
    ),
    "empty folder": (
        lambda path: draw_psfs(replace(OWN, psf=psf_from_folder(path / "empty"))),
        "`folder`: .* has no file that ends in",
    ),
    "image of one axis": (lambda _: image_psf(np.ones(3), 0.2), r"two axes; got shape \(3,\)"),
    "no pixel": (lambda _: image_psf(np.ones((3, 3)), 0), "`pixel_scale` must be positive; got 0"),
    "even side": (lambda _: sampled_psf([ONE], 0.2, 8), "`side` must be an odd number.*got 8"),
    "even pixels": (lambda _: pixel_psf([ONE], 0.2, 8), "`side` must be an odd number.*got 8"),
    "no samples": (lambda _: sampled_psf([ONE], 0.2, 9, 0), "`oversampling` must be an .*got 0"),
    "no objects": (lambda _: sampled_psf([], 0.2, 9), "`objects` needs one .* got none"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.fits").write_text("text")
    np.save(tmp_path / "three.npy", np.ones((3, 5, 5)))
    np.save(tmp_path / "dark.npy", np.zeros((5, 5)))
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
