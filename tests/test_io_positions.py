"""Positions of sources from any table, in the pixels of the exposure."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdeblend.exposure import Header
from diffdeblend.io import check_positions, read_positions
from diffdeblend.sky import sky_positions

X, Y = np.array([3.25, 40.5, 11.0]), np.array([30.0, 2.75, 19.5])
XY = np.stack([X, Y], axis=-1)


def header(**cards):
    scale = 0.2 / 3600
    given = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": -30.0}
    given |= {"CRPIX1": 12.0, "CRPIX2": 30.0, "CD1_1": -scale, "CD1_2": scale / 3}
    given |= {"CD2_1": scale / 3, "CD2_2": scale, "CUNIT1": "deg", "CUNIT2": "deg"}
    return Header(("g",), wcs=WCS(fits.Header(given | cards)))


def sky():
    return sky_positions(header(), X, Y)


FORMS = {
    "x and y": lambda: Table({"id": [1, 2, 3], "x": X, "y": Y}),
    "in another order": lambda: Table({"y": Y, "x": X}),
    "in capitals": lambda: Table({"X": X, "Y": Y}),
    "of Source Extractor": lambda: Table({"X_IMAGE": X + 1, "Y_IMAGE": Y + 1}),
    "of photutils": lambda: Table({"xcentroid": X, "ycentroid": Y}),
    "single precision": lambda: Table({"x": X.astype("f4"), "y": Y.astype("f4")}),
    "ra and dec": lambda: Table({"ra": sky()[0], "dec": sky()[1]}),
    "with units": lambda: QTable({"RA": sky()[0] * units.deg, "DEC": sky()[1] * units.deg}),
    "in hours and radians": lambda: QTable(
        {"ra": (sky()[0] / 15) * units.hourangle, "dec": np.deg2rad(sky()[1]) * units.rad}
    ),
    "pixels with units": lambda: QTable({"x": X * units.pix, "y": Y * units.pix}),
    "sky of Source Extractor": lambda: Table({"ALPHA_J2000": sky()[0], "DELTA_J2000": sky()[1]}),
    "sky coordinates": lambda: QTable({"where": SkyCoord(*sky(), unit="deg").galactic}),
    "pixels before sky": lambda: Table({"ra": X, "dec": Y, "x": X, "y": Y}),
}


@pytest.mark.parametrize("form", FORMS)
def test_tables(form):
    found = read_positions(FORMS[form](), header())
    assert found.dtype == float
    np.testing.assert_allclose(found, XY, atol=1e-6)


# Plain text cannot hold a column of sky coordinates.
FILES = [
    (form, suffix)
    for form in ("x and y", "ra and dec", "with units", "sky coordinates")
    for suffix in (".ecsv", ".fits", ".csv", ".dat", ".txt")
    if form != "sky coordinates" or suffix in (".ecsv", ".fits")
]


@pytest.mark.parametrize(("form", "suffix"), FILES)
def test_files(tmp_path, form, suffix):
    path = tmp_path / f"a{suffix}"
    writer = {".ecsv": "ascii.ecsv", ".fits": "fits", ".csv": "ascii.csv"}
    table = FORMS[form]()
    if suffix not in (".ecsv", ".fits"):
        table = Table({name: np.asarray(table[name]) for name in table.colnames})
    table.write(path, format=writer.get(suffix, "ascii.commented_header"))
    np.testing.assert_allclose(read_positions(str(path), header()), XY, atol=1e-6)


def test_a_structured_array():
    array = np.array(list(zip(Y, X, strict=True)), dtype=[("y", "f8"), ("x", "f8")])
    np.testing.assert_array_equal(read_positions(array), XY)


def test_a_file_of_source_extractor(tmp_path):
    lines = ["#   1 NUMBER  Running object number", "#   2 X_IMAGE  Position  [pixel]"]
    lines += ["#   3 Y_IMAGE  Position  [pixel]"]
    lines += [f"  {k} {x + 1} {y + 1}" for k, (x, y) in enumerate(XY)]
    (tmp_path / "a.cat").write_text("\n".join(lines) + "\n")
    np.testing.assert_allclose(read_positions(tmp_path / "a.cat"), XY)


def test_fits_with_a_table_of_headers_before(tmp_path):
    """As LDAC catalogues have it."""
    first = fits.BinTableHDU.from_columns([fits.Column("Field", "20A", array=["a"])])
    second = fits.table_to_hdu(FORMS["of Source Extractor"]())
    fits.HDUList([fits.PrimaryHDU(), first, second]).writeto(tmp_path / "a.fits")
    np.testing.assert_allclose(read_positions(tmp_path / "a.fits"), XY)


def test_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", positions=XY)
    np.testing.assert_array_equal(read_positions(tmp_path / "a.npz"), XY)
    np.savez(tmp_path / "b.npz", image=XY)
    with pytest.raises(ValueError, match=r"`positions`: .* holds none"):
        read_positions(tmp_path / "b.npz")


def test_a_single_row():
    np.testing.assert_array_equal(read_positions(Table({"x": [3], "y": [4]})), [[3, 4]])


def test_the_map_s_own_system():
    """ra and dec are ICRS; a map in the equinox of 1975 is a third of a degree off."""
    ra, dec = sky()
    other = header(RADESYS="FK5", EQUINOX=1975.0)
    found = read_positions(Table({"ra": ra, "dec": dec}), other)
    expected = other.wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg"))
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), atol=1e-4)
    assert np.abs(found - XY).max() > 100


def masked():
    table = Table({"x": X, "y": Y}, masked=True)
    table["y"].mask[1] = True
    return table


REFUSED = {
    "no such columns": (Table({"a": X, "b": Y}), r"needs columns x and y.*are \['a', 'b'\]"),
    "half of them": (Table({"x": X, "dec": Y}), r"are \['x', 'dec'\]"),
    "no rows": (Table({"x": [], "y": []}), "`positions` has no rows"),
    "NaN": (Table({"x": [1.0, np.nan], "y": [2.0, 3.0]}), r"must be finite.*row 1 \(nan, 3\)"),
    "infinite": (Table({"x": [np.inf], "y": [2.0]}), r"must be finite.*row 0 \(inf, 2\)"),
    "masked": (masked(), r"must be finite.*row 1 \(40.5, nan\)"),
    "masked integers": (
        Table({"x": np.ma.masked_array([1, 2], [True, False]), "y": [1, 2]}), "finite.*row 0",
    ),
    "text": (Table({"x": ["a"], "y": ["b"]}), "column 'x' must hold one number a row"),
    "several numbers a row": (Table({"x": [[1.0, 2.0]], "y": [1.0]}), "column 'x' must hold one"),
    "pixels in degrees": (QTable({"x": X * units.deg, "y": Y}), "'x' must be in pix; got 'deg'"),
    "ra in pixels": (QTable({"ra": X * units.pix, "dec": Y}), "'ra' must be in deg; got 'pix'"),
    "not on the map": (
        Table({"ra": [150.0, 330.0], "dec": [-30.0, 30.0]}), "finite on the exposure.*row 1",
    ),
    "a list": ([1, 2], "must be a path, an astropy Table or a structured array; got list"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    table, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        read_positions(table, header())


@pytest.mark.parametrize("given_header", [None, Header(("g",))])
def test_sky_without_a_map(given_header):
    with pytest.raises(ValueError, match="sky coordinates, and the exposure has no WCS"):
        read_positions(FORMS["ra and dec"](), given_header)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "empty.ecsv").write_text("")
    (tmp_path / "bytes.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "bytes.fits").write_bytes(bytes(range(256)) * 9)
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "image.fits")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=rf"`positions`.*{path.name}' is no readable table"):
            read_positions(path)
    with pytest.raises(ValueError, match=r"`positions`: there is no file .*absent\.csv"):
        read_positions(tmp_path / "absent.csv")


def test_numbers_without_names_are_not_taken_for_names(tmp_path):
    """The first row must not vanish as a header."""
    (tmp_path / "a.txt").write_text("14.0 33.0\n31.0 36.0\n")
    with pytest.raises(ValueError, match=r"needs columns x and y.*\['col1', 'col2'\]"):
        read_positions(tmp_path / "a.txt")


def test_check_positions():
    found = check_positions([[0, 39], [59, 0]], (40, 60))
    assert found.dtype == float
    np.testing.assert_array_equal(found, [[0, 39], [59, 0]])
    np.testing.assert_array_equal(check_positions(XY, (40, 60)), XY)
    # The edge of the first and of the last pixel.
    check_positions([[-0.5, -0.5], [59.5, 39.5]], (40, 60))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([], "`positions` is empty"),
        (np.zeros((0, 2)), "`positions` is empty"),
        ([1.0, 2.0], r"shape \(n, 2\).*got float64 of shape \(2,\)"),
        ([[1.0, 2.0, 3.0]], r"shape \(n, 2\).*\(1, 3\)"),
        ([["a", "b"]], r"shape \(n, 2\)"),
        ([[1.0, 2.0], [np.nan, 3.0]], r"finite.*row 1 \(nan, 3\)"),
        # x and y the wrong way round: 50 is inside along x, outside along y.
        ([[5.0, 50.0]], r"x from -0\.5 to 59\.5 and y from -0\.5 to 39\.5.*row 0 \(5, 50\)"),
        ([[5.0, 5.0], [59.6, 5.0]], r"row 1 \(59\.6, 5\)"),
        ([[-0.6, 5.0]], r"row 0 \(-0\.6, 5\)"),
        ([[5.0, 39.6]], "row 0"),
        ([[5.0, -1e9]], "row 0"),
        ([[k, 100.0] for k in range(8)], r"row 4 \(4, 100\) and 3 more"),
        ([[1.0, 1.0], [9.0, 9.0], [1.05, 1.05]], "at least 0.1 pixels apart.*rows 0 and 2"),
        ([[1.0, 1.0]] * 5, "rows 0 and 1, .* and 5 more pairs"),
    ],
)
def test_check_positions_refuses(positions, message):
    with pytest.raises(ValueError, match=message):
        check_positions(positions, (40, 60))


@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 7)), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_check_positions_against_a_slow_loop(positions):
    x, y = np.array(positions).T
    inside = ((x >= -0.5) & (x <= 8.5) & (y >= -0.5) & (y <= 4.5)).all()
    apart = all(np.hypot(x[a] - x[b], y[a] - y[b]) > 0.1 for a in range(len(x)) for b in range(a))
    try:
        check_positions(positions, (5, 9))
        allowed = True
    except ValueError:
        allowed = False
    assert allowed == (inside and apart)
