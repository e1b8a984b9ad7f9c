"""What an exposure lets through, what it refuses, and what it makes of flawed pixels."""

import re
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io.fits import Header as FitsHeader
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from diffdeblend.exposure import (
    STANDARD_PLANES,
    Exposure,
    Header,
    ab_zero_point,
    make_exposure,
)
from diffdeblend.psf import GaussianPSF, PixelPSF
from diffdeblend.sky import local_jacobian, pixel_positions, sky_positions

SHAPE = (2, 7, 11)
PSF = np.stack([np.eye(5)[::-1] + 1, np.outer(np.arange(1, 6), np.arange(2, 7))])


def arrays(seed=1):
    """Image and variance of two unequal bands on a grid that is not square."""
    random = np.random.default_rng(seed)
    variance = random.uniform(0.5, 2, SHAPE) * np.array([1.0, 30.0])[:, None, None]
    return random.normal(size=SHAPE) * np.sqrt(variance), variance


def exposure(**changes):
    image, variance = arrays()
    given = {"image": image, "variance": variance, "psf": PSF, "bands": ("g", "r")} | changes
    return make_exposure(**given)


def sky_map(projection="TAN", crval=(150.1, 2.2), scale=0.2, angle=25.0, flip=-1, **cards):
    """A map rotated by `angle`, with the reference pixel off the middle."""
    header = FitsHeader()
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    degrees = scale / 3600
    header.update(
        {"NAXIS": 2, "NAXIS1": 60, "NAXIS2": 40, "CTYPE1": f"RA---{projection}"}
        | {"CTYPE2": f"DEC--{projection}", "CRVAL1": crval[0], "CRVAL2": crval[1]}
        | {"CRPIX1": 12.0, "CRPIX2": 30.0, "CUNIT1": "deg", "CUNIT2": "deg"}
        | {"CD1_1": flip * degrees * c, "CD1_2": -degrees * s}
        | {"CD2_1": flip * degrees * s, "CD2_2": degrees * c, "RADESYS": "ICRS"}
        | cards
    )
    return WCS(header)


SIP = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-4, "B_0_2": -3e-4, "A_1_1": 1e-4}
# Strong, so that a map without them is wrong by many times the tolerance below.
TPV = {"PV1_1": 1.0, "PV1_4": 30.0, "PV2_1": 1.0, "PV2_5": -20.0}
MAPS = {
    "TAN": lambda: sky_map(),
    "not mirrored": lambda: sky_map(flip=1, angle=-70),
    "at 0h": lambda: sky_map(crval=(359.9999, -40.0)),
    "at the pole": lambda: sky_map(crval=(10.0, 89.999)),
    "TAN-SIP": lambda: sky_map("TAN-SIP", **SIP),
    "TPV": lambda: sky_map("TPV", **TPV),
    "declination first": lambda: sky_map(CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=2.2,
                                         CRVAL2=150.1),
    "FK5, equinox 1975": lambda: sky_map(RADESYS="FK5", EQUINOX=1975.0),
    "galactic": lambda: sky_map(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


def test_values_come_through():
    image, variance = arrays()
    made = exposure(zero_points=(27.0, 28.5), gain=2, date="2020-01-02")
    assert made.image.dtype == jnp.float32
    assert made.mask.dtype == jnp.int32
    assert made.bands == ("g", "r")
    assert made.n_bands == 2
    assert made.shape == (7, 11)
    np.testing.assert_allclose(made.image, image, rtol=1e-6)
    np.testing.assert_allclose(made.weight, 1 / variance, rtol=1e-6)
    np.testing.assert_array_equal(made.data, made.image)
    assert np.asarray(made.good).all()
    assert made.header.zero_points == (27.0, 28.5)
    assert made.header.gain == 2.0
    assert made.header.date == "2020-01-02"
    assert isinstance(made.psf, PixelPSF)
    np.testing.assert_allclose(made.psf.image, PSF / PSF.sum(axis=(1, 2), keepdims=True), rtol=1e-6)


def test_one_band_from_two_axes():
    image, variance = arrays()
    made = make_exposure(image[0], variance[0], PSF[0], mask=image[0] > 1)
    assert made.image.shape == (1, 7, 11)
    assert made.bands == ("0",)
    np.testing.assert_array_equal(made.flag("BAD")[0], image[0] > 1)


@pytest.mark.parametrize("variance", [2.5, [2.5, 7.0], np.array([2.5])])
def test_variance_by_number(variance):
    made = exposure(variance=variance)
    expected = np.broadcast_to(np.reshape(variance, (-1, 1, 1)), SHAPE)
    np.testing.assert_array_equal(made.variance, expected)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", "i2", ">i4", "u2", "f2"])
def test_types_of_files(dtype):
    image = np.arange(77).reshape(1, 7, 11).astype(dtype)
    made = make_exposure(image, 1.0, PSF[:1])
    assert made.image.dtype == jnp.float32
    np.testing.assert_array_equal(made.image, np.arange(77).reshape(1, 7, 11))


def test_double_where_it_is_asked_for():
    image, _ = arrays()
    with jax.enable_x64(True):
        assert exposure().image.dtype == jnp.float64
        np.testing.assert_array_equal(exposure().image, image)
        assert exposure(image=image.astype("f4")).image.dtype == jnp.float32
    assert exposure().image.dtype == jnp.float32


def test_numpy_masked_pixels_are_not_used():
    image, _ = arrays()
    hidden = np.zeros(SHAPE, bool)
    hidden[1, 2, 8] = True
    made = exposure(image=np.ma.masked_array(image, hidden))
    np.testing.assert_array_equal(made.good, ~hidden)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["image", "variance"])
def test_what_is_not_finite_is_not_used(which, value):
    image, variance = arrays()
    {"image": image, "variance": variance}[which][1, 2, 8] = value
    made = exposure(image=image, variance=variance)
    expected = np.ones(SHAPE, bool)
    expected[1, 2, 8] = False

    def chi2(level):
        return jnp.sum(made.weight * (made.data - level) ** 2)

    for run in (lambda f: f, jax.jit):
        np.testing.assert_array_equal(run(lambda e: e.good)(made), expected)
        for name in ("weight", "data"):
            result = np.asarray(run(lambda e, name=name: getattr(e, name))(made))
            assert np.isfinite(result).all()
            assert result[1, 2, 8] == 0
            assert (result[expected] != 0).all()
        assert np.isfinite(run(jax.grad(chi2))(0.3))


def test_gradient_past_a_pixel_that_is_not_used_is_finite():
    image, variance = arrays()
    image[0, 1, 3], variance[1, 4, 9], variance[0, 5, 5] = np.nan, np.inf, np.nan
    # Where the derivative of 1/variance is infinite.
    variance[1, 2, 8] = 0
    made = exposure(image=image, variance=variance, mask=variance == 0)

    def chi2(image, variance):
        changed = Exposure(image, variance, made.mask, made.psf, made.header)
        return jnp.sum(changed.weight * changed.data**2)

    for gradient in jax.jit(jax.grad(chi2, argnums=(0, 1)))(made.image, made.variance):
        assert np.isfinite(np.asarray(gradient)).all()


def test_variance_of_zero_after_the_checks_has_no_weight():
    made = exposure()
    broken = Exposure(made.image, made.variance * 0, made.mask, made.psf, made.header)
    assert np.asarray(broken.weight).max() == 0
    assert not np.asarray(broken.good).any()


def test_boolean_mask_is_the_plane_bad():
    mask = np.zeros(SHAPE, bool)
    mask[0, 6, 2] = True
    made = exposure(mask=mask)
    assert made.header.mask_planes == STANDARD_PLANES
    np.testing.assert_array_equal(made.good, ~mask)
    np.testing.assert_array_equal(made.mask, mask.astype(int))


def test_mask_for_all_bands():
    mask = np.zeros(SHAPE[1:], bool)
    mask[6, 2] = True
    np.testing.assert_array_equal(exposure(mask=mask).good, np.stack([~mask, ~mask]))


def test_bits_without_names_are_not_excluded():
    mask = np.full(SHAPE, 2**15 + 1)
    made = exposure(mask=mask)
    assert made.header.mask_planes == tuple(f"BIT{k}" for k in range(16))
    assert np.asarray(made.good).all()
    assert np.asarray(made.flag("BIT15")).all()
    assert not np.asarray(made.flag("BIT14")).any()


def test_bits_with_names():
    mask = np.zeros(SHAPE, np.uint16)
    mask[0, 0, 0], mask[1, 2, 3], mask[1, 3, 3] = 1, 2, 4 + 8
    made = exposure(mask=mask, mask_planes=("CR", "MINE", "SAT"))
    assert made.header.mask_planes == ("CR", "MINE", "SAT", "BIT3")
    bad = np.argwhere(~np.asarray(made.good)).tolist()
    assert bad == [[0, 0, 0], [1, 3, 3]]
    chosen = exposure(mask=mask, mask_planes=("CR", "MINE", "SAT"), excluded=["MINE"])
    assert np.argwhere(~np.asarray(chosen.good)).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_the_highest_bit(dtype):
    mask = np.zeros(SHAPE, dtype)
    mask[1, 2, 3] = np.array(2**31).astype(dtype)
    planes = [f"P{k}" for k in range(31)] + ["TOP"]
    made = exposure(mask=mask, mask_planes=planes, excluded="TOP")
    assert np.argwhere(~np.asarray(jax.jit(lambda e: e.good)(made))).tolist() == [[1, 2, 3]]
    assert np.argwhere(np.asarray(made.flag("TOP"))).tolist() == [[1, 2, 3]]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6), st.sets(st.integers(0, 31)))
@settings(max_examples=30, deadline=None)
def test_every_bit_is_the_flag_of_its_name(values, excluded):
    mask = np.array(values, np.int64).reshape(1, 2, 3)
    mask[0, 0, 0] = 0  # one pixel stays in use
    planes = [f"P{k}" for k in range(32)]
    out = [f"P{k}" for k in excluded]
    made = make_exposure(
        np.ones((1, 2, 3)), 1.0, PSF[:1], mask=mask, mask_planes=planes, excluded=out
    )
    for k in (0, 5, 30, 31):
        np.testing.assert_array_equal(made.flag(f"P{k}"), (mask >> k) & 1 == 1)
    bits = sum(1 << k for k in excluded)
    np.testing.assert_array_equal(made.good, mask & bits == 0)


def test_saturated_pixels_get_their_plane():
    image, _ = arrays()
    image[0, 1, 2], image[1, 3, 4], image[1, 5, 5] = 50, 51, np.nan
    made = exposure(image=image, saturation=50)
    assert np.argwhere(np.asarray(made.flag("SAT"))).tolist() == [[0, 1, 2], [1, 3, 4]]
    assert np.asarray(made.weight)[0, 1, 2] == 0
    # Also where the mask's own names know no such plane.
    unnamed = exposure(image=image, saturation=50, mask=np.ones(SHAPE, int))
    assert unnamed.header.mask_planes == ("BIT0", "SAT")
    np.testing.assert_array_equal(unnamed.flag("SAT"), made.flag("SAT"))


def test_with_mask_adds_to_a_plane():
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE[1:], bool)
    first[1, 2, 3], second[4, 5] = True, True
    made = exposure(mask=first)
    more = made.with_mask("BAD", second)
    np.testing.assert_array_equal(more.flag("BAD"), first | second)
    # The same header, so that jit does not compile again.
    assert more.header is made.header
    np.testing.assert_array_equal(made.flag("BAD"), first)


def test_with_mask_makes_a_new_plane():
    flagged = np.zeros(SHAPE, bool)
    flagged[1, 2, 3] = True
    made = exposure().with_mask("GHOST", flagged)
    assert made.header.mask_planes == (*STANDARD_PLANES, "GHOST")
    np.testing.assert_array_equal(made.flag("GHOST"), flagged)
    assert np.asarray(made.good).all()
    # A standard plane that an unnamed mask lacks is excluded once it is there.
    unnamed = exposure(mask=np.full(SHAPE, 2)).with_mask("CR", flagged)
    assert unnamed.header.mask_planes == ("BIT0", "BIT1", "CR")
    np.testing.assert_array_equal(unnamed.good, ~flagged)


def test_with_mask_under_jit():
    flagged = np.zeros(SHAPE, bool)
    flagged[1, 2, 3] = True
    made = jax.jit(lambda e, f: e.with_mask("CR", f))(exposure(), flagged)
    np.testing.assert_array_equal(made.good, ~flagged)


def test_a_second_call_does_not_compile_again():
    traces = []

    @jax.jit
    def total(e):
        traces.append(1)
        return e.weight.sum()

    made = exposure()
    total(made)
    total(made.with_mask("CR", np.ones(SHAPE, bool)))
    assert len(traces) == 1


def test_bands_by_name():
    assert exposure().band("r") == 1
    with pytest.raises(ValueError, match=r"bands \('g', 'r'\); got 'i'"):
        exposure().band("i")


def test_any_psf():
    made = exposure(psf=GaussianPSF(np.array([2.0, 3.0])))
    assert isinstance(made.psf, GaussianPSF)


def test_zero_points_from_the_unit():
    assert exposure(unit="nJy").header.zero_points == pytest.approx((31.4, 31.4), abs=1e-9)
    assert exposure(unit="nmgy").header.zero_points == (22.5, 22.5)
    assert exposure(unit="adu").header.zero_points is None
    assert exposure(zero_points=27).header.zero_points == (27.0, 27.0)


@pytest.mark.parametrize("unit", ["Jy", "nJy", "3 uJy", "erg / (s cm2 Hz)", "W / (m2 Hz)"])
def test_ab_zero_point_against_astropy(unit):
    assert ab_zero_point(unit) == pytest.approx(units.Unit(unit).to(units.ABmag), abs=1e-8)


def band_of_nan():
    image, _ = arrays()
    image[1] = np.nan
    return image


def bad_variance(value):
    _, variance = arrays()
    variance[0, 2, 3] = variance[1, 4, 5] = variance[1, 4, 6] = value
    return variance


REFUSED = {
    "variance of another shape": ({"variance": np.ones((2, 11, 7))}, r"`variance`.*\(2, 7, 11\)"),
    "variance of one band": ({"variance": np.ones((7, 11))}, "`variance` needs the shape"),
    "no variance": ({"variance": None}, "`variance` is missing"),
    "mask of another shape": ({"mask": np.zeros((2, 11, 7), bool)}, "`mask` needs the shape"),
    "mask of floats": ({"mask": np.zeros(SHAPE)}, "`mask` must be booleans or integers"),
    "mask of 33 bits": ({"mask": np.full(SHAPE, 2**32)}, "`mask` may use bits 0 to 31"),
    "image of one axis": ({"image": np.ones(7)}, r"`image` needs shape.*got \(7,\)"),
    "image of four axes": ({"image": np.ones((1, 2, 7, 11))}, "`image` needs shape"),
    "image without pixels": ({"image": np.ones((2, 0, 11))}, "`image` needs shape"),
    "complex image": ({"image": np.ones(SHAPE, complex)}, "`image` must be real.*complex"),
    "image of text": ({"image": np.full(SHAPE, "a")}, "`image` must be real numbers"),
    "image with a unit": ({"image": np.ones(SHAPE) * units.nJy}, "`image` must be plain.*nJy"),
    "too few bands": ({"bands": ["g"]}, r"`bands` needs 2 names.*\('g',\)"),
    "a word for bands": ({"bands": "gr"}, "`bands` needs 2 names"),
    "bands twice": ({"bands": ["g", "g"]}, r"`bands` must be all different; got \('g', 'g'\)"),
    "bands of numbers": ({"bands": [1, 2]}, "`bands` must be names"),
    "an empty band": ({"bands": ["g", ""]}, "`bands` must be names"),
    "too few zero points": ({"zero_points": [27.0]}, "`zero_points` needs 2 finite numbers"),
    "zero points of NaN": ({"zero_points": [27.0, np.nan]}, "`zero_points` needs 2 finite"),
    "zero points and unit": (
        {"zero_points": 27.0, "unit": "nJy"},
        r"contradict `unit` 'nJy'.*31\.400",
    ),
    "no unit": ({"unit": "parrots"}, "`unit` must be a unit that astropy reads; got 'parrots'"),
    "magnitudes": ({"unit": "mag"}, "`unit` must be linear"),
    "surface magnitudes": ({"unit": "mag / arcsec2"}, "`unit` must be linear"),
    "unit as object": ({"unit": units.nJy}, "`unit` must be a string"),
    "no psf": ({"psf": None}, "`psf` is missing"),
    "psf of other bands": ({"psf": PSF[:1]}, r"`psf` needs shape \(2, h, w\)"),
    "psf object of other bands": ({"psf": GaussianPSF(np.array([2.0]))}, "`psf` needs 2 bands"),
    "psf of even size": ({"psf": np.ones((2, 5, 4))}, "`psf` needs odd.*5 x 4"),
    "psf of zeros": ({"psf": np.stack([PSF[0], 0 * PSF[1]])}, "`psf`.*positive sum; band 'r'"),
    "psf of negative sum": ({"psf": -PSF}, "`psf`.*positive sum; band 'g'"),
    "psf of NaN": ({"psf": PSF * np.nan}, "`psf` must be finite"),
    "all masked": (
        {"mask": np.stack([np.zeros((7, 11), bool), np.ones((7, 11), bool)])},
        "band 'r' of `image` has no usable pixel: of 77, 0 are not finite.*77 are masked",
    ),
    "all NaN": ({"image": band_of_nan()}, "band 'r' of `image` has no usable.*77 are not finite"),
    "variance all infinite": ({"variance": [1.0, np.inf]}, "band 'r' of `image` has no usable"),
    "all saturated": ({"saturation": 1e-9, "image": np.ones(SHAPE)}, "band 'g' of `image`"),
    "variance of zero": (
        {"variance": bad_variance(0.0)},
        r"`variance` must be positive.*3 pixels.*'g': 1, 'r': 2.*Mask them",
    ),
    "negative variance": ({"variance": bad_variance(-1.0)}, "`variance` must be positive"),
    "out of range": ({"variance": np.full(SHAPE, 1e-50)}, "do not fit float32.*unit"),
    "image out of range": ({"image": np.full(SHAPE, 1e300)}, "do not fit float32"),
    "planes in small letters": ({"mask_planes": ["bad"]}, "`mask_planes` must be.*'bad'"),
    "planes twice": ({"mask_planes": ["A", "A"]}, "`mask_planes` must be at most 32 different"),
    "excluded unknown": ({"excluded": ["GHOST"]}, r"`excluded` must be among.*\['GHOST'\]"),
    "gain of zero": ({"gain": 0}, "`gain` must be finite and positive"),
    "gain of text": ({"gain": "high"}, "`gain` must be one number"),
    "negative read noise": ({"read_noise": -1}, "`read_noise` must be finite"),
    "exposure time of NaN": ({"exposure_time": np.nan}, "`exposure_time` must be finite"),
    "pixel scale of zero": ({"pixel_scale": 0.0}, "`pixel_scale` must be finite"),
    "no map": ({"wcs": "TAN"}, "`wcs` must be a celestial"),
    "map without area": (
        {"wcs": sky_map(CD1_1=1e-5, CD1_2=1e-5, CD2_1=2e-5, CD2_2=2e-5)},
        "`wcs` must give each",
    ),
    "map of pixels": ({"wcs": WCS(naxis=2)}, "`wcs` must be a celestial"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    changes, message = REFUSED[name]
    # Where the tests run under a type checker, it catches wrong types first.
    with pytest.raises((ValueError, TypeCheckError)) as caught:
        exposure(**changes)
    assert isinstance(caught.value, TypeCheckError) or re.search(message, str(caught.value))


def test_bad_variance_is_allowed_where_it_is_not_used():
    variance = bad_variance(0.0)
    image, _ = arrays()
    assert (
        np.asarray(exposure(variance=variance, mask=variance <= 0).good) == (variance > 0)
    ).all()
    image[variance <= 0] = np.nan
    assert (np.asarray(exposure(image=image, variance=variance).good) == (variance > 0)).all()


def test_shapes_that_disagree_are_refused_without_make_exposure():
    made = exposure()
    with pytest.raises((ValueError, TypeCheckError)):
        Exposure(made.image, made.variance[:, :, :5], made.mask, made.psf, made.header)
    with pytest.raises(ValueError, match="need one shape"):
        Exposure(made.image, made.variance, made.mask, made.psf, Header(bands=("g",)))


@pytest.mark.parametrize(
    ("plane", "flagged", "message"),
    [
        ("BAD", np.zeros(SHAPE), "`flagged` needs booleans"),
        ("BAD", np.zeros((2, 11, 7), bool), "`flagged` needs booleans of shape"),
        ("ghost", np.zeros(SHAPE, bool), "`mask_planes` must be names of capital"),
    ],
)
def test_with_mask_refuses(plane, flagged, message):
    with pytest.raises(ValueError, match=message):
        exposure().with_mask(plane, flagged)


def test_unknown_plane():
    with pytest.raises(ValueError, match=r"`plane` must be one of the mask planes.*'GHOST'"):
        exposure().flag("GHOST")


@pytest.mark.parametrize("name", MAPS)
def test_sky_against_astropy(name):
    """Right ascension and declination are ICRS whatever the map's own system and order."""
    wcs = MAPS[name]()
    header = Header(("g",), wcs=wcs)
    x, y = np.array([3.2, 50.5, 11.0]), np.array([37.1, 4.4, 29.0])
    sky = wcs.pixel_to_world(x, y).icrs
    ra, dec = sky_positions(header, x, y)
    back = SkyCoord(ra, dec, unit="deg")
    assert back.separation(sky).arcsec.max() < 1e-6
    x_back, y_back = pixel_positions(header, ra, dec)
    np.testing.assert_allclose(x_back, x, atol=1e-4)
    np.testing.assert_allclose(y_back, y, atol=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_jacobian_against_offsets_on_the_sky(name):
    """East and north of a pixel from the one before, by astropy's spherical trigonometry."""
    wcs = MAPS[name]()
    header = Header(("g",), wcs=wcs)
    x, y = np.array([40.3, 7.0]), np.array([8.0, 33.3])
    jacobian = local_jacobian(header, x, y)
    assert jacobian.shape == (2, 2, 2)
    centre = wcs.pixel_to_world(x, y).icrs
    for column, (dx, dy) in enumerate([(0.5, 0.0), (0.0, 0.5)]):
        ahead = wcs.pixel_to_world(x + dx, y + dy).icrs
        behind = wcs.pixel_to_world(x - dx, y - dy).icrs
        step = []
        for end in (ahead, behind):
            length, angle = centre.separation(end).arcsec, centre.position_angle(end).rad
            step.append([length * np.sin(angle), length * np.cos(angle)])
        expected = np.subtract(*np.array(step))
        np.testing.assert_allclose(jacobian[:, :, column], expected.T, atol=2e-6)


def test_jacobian_of_a_known_map():
    """North up, east left: x grows to the west."""
    jacobian = local_jacobian(Header(("g",), wcs=sky_map(angle=0, scale=0.3)), 11.0, 29.0)
    np.testing.assert_allclose(jacobian, [[-0.3, 0.0], [0.0, 0.3]], atol=1e-7)


def test_jacobian_sees_the_distortion():
    plain, bent = (local_jacobian(Header(("g",), wcs=MAPS[m]()), 55.0, 3.0) for m in ("TAN", "TPV"))
    assert np.abs(plain - bent).max() > 1e-3


def test_pixel_scale():
    assert exposure(wcs=sky_map(scale=0.3)).header.pixel_scale == pytest.approx(0.3, rel=1e-6)
    assert exposure(wcs=sky_map(), pixel_scale=0.7).header.pixel_scale == 0.7
    assert exposure().header.pixel_scale is None


def test_no_map_no_sky():
    for call in (sky_positions, pixel_positions, local_jacobian):
        with pytest.raises(ValueError, match="`header` has no WCS"):
            call(Header(("g",)), 1.0, 2.0)


def test_places_that_the_map_cannot_show_are_nan():
    header = Header(("g",), wcs=MAPS["TAN-SIP"]())
    x, y = pixel_positions(header, [150.1, 330.0, 120.0], [2.2, -2.2, -60.0])
    assert np.isfinite([x[0], y[0]]).all()
    assert np.isnan(x[1:]).all()
    assert np.isnan(y[1:]).all()


def test_a_cube_map_is_cut_to_the_sky():
    header = sky_map().to_header()
    header.update({"WCSAXES": 3, "CTYPE3": "WAVE", "CRVAL3": 5e-7, "CDELT3": 1e-8, "CRPIX3": 1.0})
    made = exposure(wcs=WCS(header, naxis=3))
    assert made.header.wcs.naxis == 2
    assert made.header.pixel_scale == pytest.approx(0.2, rel=1e-6)


def test_headers_are_compared_by_identity():
    header = exposure().header
    assert header == header
    assert header != replace(header)
    assert hash(header) != hash(replace(header))


def test_import_does_not_load_the_map():
    code = "import sys, diffdeblend.exposure; sys.exit('astropy.wcs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
