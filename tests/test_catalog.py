"""The catalogue: columns that explain themselves, ellipses on the sky, files and back."""

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from example_result import Example, make_deblended, make_sources, tilted_wcs
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdeblend.deblend.catalog import (
    FLAG_MEANINGS,
    Flag,
    ellipse,
    flag_names,
    flux_unit,
    make_catalog,
)
from diffdeblend.exposure import Header
from diffdeblend.io.results import catalog_hdus, with_provenance

BANDS = ("g", "r", "i")
ZERO_POINTS = (31.4, 31.4, 27.0)


def header(wcs=None, zero_points=None, unit=""):
    return Header(bands=BANDS, wcs=wcs, zero_points=zero_points, unit=unit)


def distorted_wcs():
    """TAN-SIP with a distortion of several percent across the stamp, sheared and turned."""
    wcs = tilted_wcs(scale=0.3, turn=-50.0, shear=0.2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    from astropy.wcs import Sip

    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], a[1, 1], b[0, 2] = 1e-3, -5e-4, 8e-4
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


@pytest.mark.parametrize("wcs", [None, tilted_wcs()], ids=["no wcs", "wcs"])
@pytest.mark.parametrize("zero_points", [None, ZERO_POINTS], ids=["no zero", "zero"])
def test_every_column_is_described_and_has_its_unit(wcs, zero_points):
    table = make_catalog(make_sources(Example(bands=BANDS)), header(wcs, zero_points, "nJy"))
    for name in table.colnames:
        assert table[name].info.description, name
    wanted = {
        "x": u.pix,
        "y_err": u.pix,
        "flux_g": u.nJy,
        "flux_err_i": u.nJy,
        "radius": u.pix,
        "index": u.dimensionless_unscaled,
        "position_angle": u.deg,
    }
    if wcs is not None:
        wanted |= {"ra": u.deg, "dec": u.deg, "radius_arcsec": u.arcsec}
        wanted |= {"position_angle_sky": u.deg, "axis_ratio_sky": u.dimensionless_unscaled}
    if zero_points is not None:
        wanted |= {"mag_r": u.mag, "mag_err_r": u.mag}
    for name, unit in wanted.items():
        assert table[name].unit == unit, name
    assert ("ra" in table.colnames) == (wcs is not None)
    assert ("mag_g" in table.colnames) == (zero_points is not None)
    assert list(table["id"]) == [1, 2, 3, 4]


def test_flags_are_explained():
    table = make_catalog(make_sources(Example(bands=BANDS)), header())
    assert set(FLAG_MEANINGS) == set(Flag)
    for flag in Flag:
        assert f"{flag.value} {flag.name}: " in table["flags"].info.description
        assert table.meta["flags"][flag.name]["value"] == flag.value
    assert flag_names(int(table["flags"][-1])) == ["NEGATIVE_FLUX", "NEAR_EDGE"]
    assert flag_names(0) == []


def test_bulge_fraction_only_where_there_is_a_bulge():
    sources = make_sources(Example(bands=BANDS))
    table = make_catalog(sources, header())
    share = table["bulge_fraction_r"].value
    assert share[2] == pytest.approx(0.3)
    assert np.isnan(share[[0, 1, 3]]).all()
    none = make_catalog(replace(sources, bulge_flux=np.full_like(sources.flux, np.nan)), header())
    assert "bulge_fraction_r" not in none.colnames


def test_magnitudes():
    table = make_catalog(make_sources(Example(bands=BANDS)), header(zero_points=ZERO_POINTS))
    flux, error = table["flux_i"].value, table["flux_err_i"].value
    np.testing.assert_allclose(10 ** (0.4 * (27.0 - table["mag_i"].value)), flux)
    # First order in error over flux, against a finite difference.
    step = 1e-4
    moved = -2.5 * np.log10(1 + step * error / flux) / step
    np.testing.assert_allclose(table["mag_err_i"].value, -moved, rtol=1e-3)
    assert table["flux_g"][-1].value < 0
    assert np.isnan(table["mag_g"][-1].value)
    assert np.isnan(table["mag_err_g"][-1].value)
    assert np.isfinite(table["mag_g"][:-1].value).all()


shears = st.tuples(st.floats(0.01, 0.9), st.floats(0.0, 2 * np.pi))


@given(shears, st.floats(0.1, 30.0))
@settings(deadline=None, max_examples=60)
def test_ellipse_in_pixels_is_that_of_the_shear(polar, radius):
    size, phase = polar
    g1, g2 = size * np.cos(phase), size * np.sin(phase)
    arrays = (np.array([value]) for value in (radius, g1, g2))
    (r,), (ratio,), (angle,) = ellipse(*arrays, np.eye(2)[None])
    assert r == pytest.approx(radius)
    assert ratio == pytest.approx((1 - size) / (1 + size))
    difference = (angle - np.rad2deg(phase) / 2 + 90) % 180 - 90
    assert abs(difference) < 1e-6
    assert 0 <= angle < 180


@pytest.mark.parametrize("wcs", [tilted_wcs(0.2, 25.0, 0.3), distorted_wcs()], ids=["tan", "sip"])
def test_ellipse_on_the_sky_against_its_points_on_the_sky(wcs):
    """The oracle walks along the half-light ellipse and asks astropy where each point is."""
    sources = make_sources(Example(bands=BANDS, n_sources=6), seed=3)
    table = make_catalog(sources, header(wcs))
    turn = np.linspace(0, 2 * np.pi, 7201)
    # A small ellipse: the sky is flat and the distortion linear across it.
    shrink = 1e-3
    for k in np.flatnonzero(np.isfinite(sources.shape["radius"])):
        radius, g1, g2 = (sources.shape[name][k] for name in ("radius", "g1", "g2"))
        shear = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        edge = shrink * radius * shear @ np.stack([np.cos(turn), np.sin(turn)])
        ra, dec = wcs.all_pix2world(sources.x[k] + edge[0], sources.y[k] + edge[1], 0)
        centre = SkyCoord(*wcs.all_pix2world(sources.x[k], sources.y[k], 0), unit="deg")
        points = SkyCoord(ra, dec, unit="deg")
        distance = centre.separation(points).to_value(u.arcsec) / shrink
        longest = int(np.argmax(distance))
        angle = centre.position_angle(points[longest]).deg
        row = table[k]
        assert row["ra"].value == pytest.approx(centre.ra.deg, abs=1e-9)
        assert row["dec"].value == pytest.approx(centre.dec.deg, abs=1e-9)
        long, short = distance.max(), distance.min()
        assert row["radius_arcsec"].value == pytest.approx(np.sqrt(long * short), rel=1e-4)
        assert row["axis_ratio_sky"].value == pytest.approx(short / long, rel=1e-4)
        difference = (row["position_angle_sky"].value - angle + 90) % 180 - 90
        assert abs(difference) < 0.1
    assert np.isnan(table["radius_arcsec"][1].value)  # a point has no size


def test_position_angle_is_east_of_north():
    """North up, east left: what is long along x is long along east, at 90 degrees."""
    sources = make_sources(Example(bands=BANDS, n_sources=1))
    shape = {**sources.shape, "g1": np.array([0.3]), "g2": np.array([0.0])}
    table = make_catalog(replace(sources, shape=shape), header(tilted_wcs(0.5, 0.0)))
    assert table["position_angle"][0].value == pytest.approx(0, abs=1e-6)
    assert table["position_angle_sky"][0].value == pytest.approx(90, abs=0.01)
    assert table["radius_arcsec"][0].value == pytest.approx(0.5 * sources.shape["radius"][0])
    # Towards +x and +y is towards west and north: 180 - 45.
    shape = {**sources.shape, "g1": np.array([0.0]), "g2": np.array([0.3])}
    table = make_catalog(replace(sources, shape=shape), header(tilted_wcs(0.5, 0.0)))
    assert table["position_angle"][0].value == pytest.approx(45, abs=1e-6)
    assert table["position_angle_sky"][0].value == pytest.approx(135, abs=0.01)


def test_ellipse_errors():
    sources = make_sources(Example(bands=BANDS, n_sources=1))

    def errors(g1, g2, g_err):
        shape = {**sources.shape, "g1": np.array([g1]), "g2": np.array([g2])}
        shape |= {"g1_err": np.array([g_err]), "g2_err": np.array([g_err])}
        row = make_catalog(replace(sources, shape=shape), header())[0]
        return row["axis_ratio_err"].value, row["position_angle_err"].value

    # Well measured: linear propagation, dq/d|g| = -2 / (1 + |g|)^2 and d(angle) = dg / 2|g|.
    ratio, angle = errors(0.24, 0.18, 1e-4)
    assert ratio == pytest.approx(2 / 1.3**2 * 1e-4, rel=1e-2)
    assert angle == pytest.approx(np.rad2deg(1e-4 / 0.6), rel=1e-2)
    # Round: the axis ratio has no derivative, but an error; the angle is unknown.
    ratio, angle = errors(0.0, 0.0, 0.01)
    assert 0.01 < ratio < 0.05
    assert angle == pytest.approx(180 / np.sqrt(12))
    # Wildly uncertain: finite all the same.
    assert np.isfinite(errors(0.5, 0.5, 3.0)).all()


@pytest.mark.parametrize("unit", ["", "nJy", "nmgy", "DN", "electron / s", "MJy / sr"])
def test_files_give_back_numbers_units_and_descriptions(tmp_path, unit):
    found = make_deblended(n_sources=5, wcs=tilted_wcs(), unit=unit)
    table = with_provenance(found.catalog, found.summary)
    table.write(tmp_path / "t.ecsv", format="ascii.ecsv")
    catalog_hdus(table).writeto(tmp_path / "t.fits")
    for name in ("t.ecsv", "t.fits"):
        back = QTable.read(tmp_path / name)
        assert back.colnames == table.colnames
        for column in table.colnames:
            assert back[column].info.description == table[column].info.description
            ours, theirs = (t[column] for t in (table, back))
            units = [getattr(c, "unit", None) or u.dimensionless_unscaled for c in (ours, theirs)]
            assert units[0] == units[1], column
            if column == "model":
                assert [str(m) for m in np.asarray(theirs).astype(str)] == list(ours)
            else:
                np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))
    meta = QTable.read(tmp_path / "t.ecsv").meta
    assert meta["inputs"] == {"images": ["example"]}
    assert meta["settings"] == {"model": "auto"}
    assert meta["versions"]["jax"]
    assert meta["flags"]["MASKED"]["value"] == 64


def test_fits_header_is_readable_without_astropys_comments(tmp_path):
    from astropy.io import fits

    found = make_deblended(unit="electron / s")
    catalog_hdus(found.catalog).writeto(tmp_path / "t.fits")
    cards = fits.getheader(tmp_path / "t.fits", "CATALOG")
    place = found.catalog.colnames.index("flux_r") + 1
    # FITS has no electrons: the unit stands in the words.
    assert cards[f"TCOMM{place}"] == "Total flux in r [electron / s]"
    assert cards["FLAG6"].startswith("64 MASKED: ")
    assert '"versions"' in cards["PROVENAN"]


def test_unreadable_unit_becomes_dimensionless():
    assert flux_unit(header(unit="furlongs per fortnight")) == u.dimensionless_unscaled


def test_wrong_bands_are_refused():
    with pytest.raises(ValueError, match="`flux` needs shape"):
        make_catalog(make_sources(Example(bands=("g", "r"))), header())
