"""Catalogues: what is drawn from them is what their authors and GalSim mean."""

import multiprocessing
import pickle
from pathlib import Path
from types import SimpleNamespace

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdeblend.simulate.catalog import (
    WAVELENGTHS,
    Catalog,
    Parts,
    concatenate,
    standard_columns,
    with_bands,
)
from diffdeblend.simulate.catsim import CATSIM_COLUMNS, read_catsim
from diffdeblend.simulate.cosmos import read_cosmos
from diffdeblend.simulate.read_catalog import read_catalog
from diffdeblend.simulate.synthetic import star_catalog, synthetic_catalog

DATA = Path(__file__).parents[2] / "shared" / "data"
CATSIM, COSMOS = DATA / "catsim_sample.fits", DATA / "cosmos_sample"
needs_catsim = pytest.mark.skipif(
    not CATSIM.exists(), reason="shared/data/catsim_sample.fits is not beside the project"
)
needs_cosmos = pytest.mark.skipif(
    not COSMOS.exists(), reason="shared/data/cosmos_sample is not beside the project"
)


def survey(name="LSST", **wavelengths):
    bands = wavelengths or {name: WAVELENGTHS[name] for name in "ugrizy"}
    return SimpleNamespace(
        name=name,
        band_names=tuple(bands),
        bands=tuple(SimpleNamespace(name=b, wavelength=w) for b, w in bands.items()),
    )


def profile(parts, row):
    """By GalSim, of unit flux."""
    total = []
    for index, radius, g1, g2, share in zip(*(values[row] for values in parts._all()), strict=True):
        if share > 0:
            shape = galsim.DeltaFunction()
            if radius > 0:
                shape = galsim.Sersic(index, half_light_radius=radius).shear(g1=g1, g2=g2)
            total.append(share * shape)
    return galsim.Add(total)


def drawn(light):
    seen = galsim.Convolve(light, galsim.Kolmogorov(fwhm=0.7)).shift(0.13, -0.31)
    return seen.drawImage(nx=53, ny=47, scale=0.2, dtype=float).array


def assert_same_image(ours, theirs, accuracy=1e-5):
    ours, theirs = drawn(ours), drawn(theirs)
    np.testing.assert_allclose(ours, theirs, atol=accuracy * theirs.max())


# CatSim.


def catsim_table(n=6, **others):
    """Two parts off each other's axes, an active nucleus, and rows with fewer parts."""
    rng = np.random.default_rng(3)
    table = Table({"ra": rng.uniform(0, 0.1, n), "dec": rng.uniform(0, 0.1, n)})
    for name in ("bulge", "disk", "agn"):
        table[f"fluxnorm_{name}"] = rng.uniform(0.5, 2, n) * 1e-18
    for axes, size in (("d", 0.6), ("b", 0.25)):
        table[f"a_{axes}"] = size * rng.uniform(1, 2, n)
        table[f"b_{axes}"] = table[f"a_{axes}"] * rng.uniform(0.3, 1, n)
    for name in ("disk", "bulge"):
        table[f"pa_{name}"] = rng.uniform(0, 360, n)
    for band in "ugrizy":
        table[f"{band}_ab"] = rng.uniform(22, 26, n)
    table["fluxnorm_bulge"][1], table["a_b"][1], table["b_b"][1] = 0, 0, 0
    table["fluxnorm_disk"][2], table["fluxnorm_agn"][2] = 0, 0
    for name, values in others.items():
        table[name] = values
    return table


def by_the_recipe(row):
    """As the BlendingToolKit draws it, of unit flux."""
    names = ("disk", "bulge", "agn")
    total = sum(row[f"fluxnorm_{name}"] for name in names)
    flux = {name: row[f"fluxnorm_{name}"] / total for name in names}
    parts = []
    for name, axes, shape in (
        ("disk", "d", galsim.Exponential),
        ("bulge", "b", galsim.DeVaucouleurs),
    ):
        if flux[name] > 0:
            a, b = row[f"a_{axes}"], row[f"b_{axes}"]
            light = shape(flux=flux[name], half_light_radius=np.sqrt(a * b))
            parts.append(light.shear(q=b / a, beta=row[f"pa_{name}"] * galsim.degrees))
    if flux["agn"] > 0:
        parts.append(galsim.Gaussian(flux=flux["agn"], sigma=1e-8))
    return galsim.Add(parts)


@pytest.mark.parametrize("row", range(3))
def test_catsim_is_drawn_by_the_recipe(row):
    table = catsim_table()
    catalog = read_catsim(table)
    assert_same_image(profile(catalog.parts, row), by_the_recipe(table[row]))


@needs_catsim
def test_the_catsim_sample_is_drawn_by_the_recipe():
    catalog, table = read_catsim(CATSIM), Table.read(CATSIM)
    assert len(catalog) == 100
    bulges = np.flatnonzero(table["fluxnorm_bulge"] > 0)[:3]
    for row in [*bulges, 0, 57]:
        assert_same_image(profile(catalog.parts, row), by_the_recipe(table[row]))
    np.testing.assert_array_equal(catalog.table["magnitude"], table["i_ab"])
    np.testing.assert_array_equal(catalog.magnitudes(survey())[:, 4], table["z_ab"])


def test_an_ellipse_is_the_same_with_its_axes_exchanged():
    table = catsim_table()
    turned = table.copy()
    turned["a_d"], turned["b_d"] = table["b_d"], table["a_d"]
    turned["pa_disk"] = table["pa_disk"] + 90
    one, other = read_catsim(table).parts, read_catsim(turned).parts
    for a, b in zip(one._all(), other._all(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_galaxies_that_cannot_be_drawn_are_left_out():
    table = catsim_table()
    for name in ("bulge", "disk", "agn"):
        table[f"fluxnorm_{name}"][0] = 0
    table["b_d"][3] = 0  # infinitely thin
    table["a_d"][4], table["b_d"][4] = 0, 0  # a point
    table["pa_disk"][5] = np.nan
    catalog = read_catsim(table)
    np.testing.assert_array_equal(catalog.table["row"], [1, 2, 4])
    np.testing.assert_array_equal(catalog.parts.radius[2, [0, 2]], 0)
    np.testing.assert_allclose(catalog.parts.share.sum(axis=1), 1)


def test_catsim_lists_all_missing_columns_and_where_to_find_them():
    table = catsim_table()
    table.remove_columns(["a_d", "fluxnorm_bulge", "i_ab"])
    with pytest.raises(ValueError, match=r"'fluxnorm_bulge', 'a_d', 'i_ab'.*OneDegSq.fits"):
        read_catsim(table)


@pytest.mark.parametrize("name", ["t.fits", "t.ecsv", "t.csv", "t.txt"])
def test_catsim_from_any_form_of_file(tmp_path, name):
    table = catsim_table()
    form = {"format": "ascii.basic"} if name == "t.txt" else {}
    table.write(tmp_path / name, **form)
    found = read_catalog(tmp_path / name)
    np.testing.assert_allclose(found.parts.g2, read_catsim(table).parts.g2, rtol=1e-12)
    assert found.parts.radius.dtype == np.dtype("=f8")


def test_what_is_no_catalogue_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_catalog(tmp_path / "absent.fits")
    (tmp_path / "bad.fits").write_text("nothing")
    with pytest.raises(ValueError, match="holds no table"):
        read_catalog(tmp_path / "bad.fits")
    with pytest.raises(ValueError, match=f"{CATSIM_COLUMNS[0]}.*sersicfit.*'apples'"):
        read_catalog(Table({"apples": [1]}))


# COSMOS, profiles.


def cosmos_tables(n=12):
    """In the form of GalSim's 23.5 sample, with all the cases that its code knows."""
    rng = np.random.default_rng(5)
    sersic, both = rng.uniform(0.2, 1, (n, 8)), rng.uniform(0.2, 1, (n, 16))
    sersic[:, 2] = rng.uniform(0.5, 5.5, n)
    sersic[:3, 2] = 0.2, 6.5, 0.62  # below and above what GalSim draws; between steps
    sersic[:, 7], both[:, 7], both[:, 15] = rng.uniform(-3, 3, (3, n))
    sersic[3, 3] = 1.2  # no axis ratio
    status = np.full((n, 5), 2)
    status[6, 0], status[7, 4], status[8, [0, 4]] = 0, 5, 0
    ident = np.arange(n) + 100
    main = Table({"IDENT": ident, "RA": rng.uniform(149, 150, n), "DEC": rng.uniform(1, 2, n)})
    main["MAG"], main["stamp_flux"] = rng.uniform(20, 23, n), rng.uniform(1, 9, n)
    main["WEIGHT"] = 1.0
    fit = Table({"IDENT": ident, "sersicfit": sersic, "bulgefit": both, "fit_status": status})
    fit["use_bulgefit"] = (np.arange(n) % 3 == 1).astype(int)
    fit["viable_sersic"] = np.ones(n, int)
    fit["hlr"], fit["flux"] = rng.uniform(0.2, 0.8, (n, 3)), rng.uniform(1, 5, (n, 3))
    fit["HSC_i"] = rng.uniform(20, 23, n)
    selection = Table({"IDENT": ident, "dmag": rng.normal(0, 0.2, n)})
    selection["peak_image_pixel_count"] = rng.uniform(0.5, 1, n)
    selection["average_mask_adjacent_pixel_count"] = 0.3
    selection["sn_ellip_gauss"], selection["min_mask_dist_pixels"] = 40.0, 20.0
    selection["sn_ellip_gauss"][9:] = 15.0, 5.0, 40.0
    selection["peak_image_pixel_count"][11] = 0
    selection["min_mask_dist_pixels"][[4, 11]] = 5.0
    selection["dmag"][5] = -1.0
    return main, fit, selection


def cosmos_folder(folder, name="real_galaxy_catalog_23.5_own", selection=True):
    tables = dict(zip(("", "_fits", "_selection"), cosmos_tables(), strict=True))
    for end, table in tables.items():
        if selection or end != "_selection":
            table.write(folder / f"{name}{end}.fits")
    return folder / f"{name}.fits"


def test_cosmos_profiles_are_those_of_galsim(tmp_path):
    path = cosmos_folder(tmp_path)
    theirs = galsim.COSMOSCatalog(str(path), exclusion_level="none", use_real=False)
    ours = read_cosmos(tmp_path, exclusion="none")
    assert len(ours) == 12
    for row in range(6):
        galaxy = theirs.makeGalaxy(row, gal_type="parametric")
        assert_same_image(profile(ours.parts, row), galaxy.withFlux(1.0))
    np.testing.assert_allclose(ours.parts.index[:4:3, 0], [0.3, ours.parts.index[3, 0]])
    exact = read_cosmos(path, exclusion="none", index_step=0).parts.index[:, 0]
    assert exact[2] == 0.62
    assert ours.parts.index[2, 0] == pytest.approx(0.6)
    np.testing.assert_allclose(ours.magnitudes(survey("HSC", i=773.0, z=891.0)).T[0], theirs_i())
    np.testing.assert_allclose(ours.magnitudes(survey("HSC", z=891.0))[:, 0], ours.table["MAG"])


def theirs_i():
    return cosmos_tables()[1]["HSC_i"]


@pytest.mark.parametrize("exclusion", ["none", "bad_stamp", "bad_fits", "marginal"])
@pytest.mark.parametrize("sample", ["23.5", "own"])
def test_cosmos_cuts_are_those_of_galsim(tmp_path, exclusion, sample):
    path = cosmos_folder(tmp_path, f"catalog_{sample}")
    theirs = galsim.COSMOSCatalog(str(path), exclusion_level=exclusion, use_real=False)
    ours = read_cosmos(path, exclusion=exclusion)
    np.testing.assert_array_equal(ours.table["row"], theirs.orig_index)
    assert (len(ours) == 12) == (exclusion == "none")


def test_cosmos_tables_need_no_files(tmp_path):
    main, fit, selection = cosmos_tables()
    one = read_cosmos((main, fit, selection))
    other = read_catalog(cosmos_folder(tmp_path, "catalog_own"))
    np.testing.assert_array_equal(one.table["row"], other.table["row"])
    np.testing.assert_array_equal(one.parts.g1, other.parts.g1)
    assert {"ra", "dec", "magnitude", "size", "is_star"} <= set(one.table.colnames)


def test_magnitudes_of_cosmos_may_be_in_either_file():
    main, fit, _ = cosmos_tables()
    main["HSC_r"], fit["mag_auto"] = 21.5, main["MAG"] + 1
    del main["MAG"]
    found = read_cosmos((main, fit), exclusion="none")
    np.testing.assert_allclose(
        found.magnitudes(survey("HSC", r=626.0, i=773.0)), np.stack([main["HSC_r"], fit["HSC_i"]]).T
    )
    np.testing.assert_array_equal(found.table["magnitude"], fit["mag_auto"])


def test_cosmos_without_a_usable_fit_is_left_out():
    main, fit, _ = cosmos_tables()
    fit["viable_sersic"][0] = 0
    fit["flux"][1] = -1.0, 5.0, -3.0  # of a bulge and disc
    fit["hlr"][2] = np.nan
    found = read_cosmos((main, fit), exclusion="none")
    np.testing.assert_array_equal(found.table["row"], np.arange(3, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, f, s: (m[:-1], f, s), "12 rows"),
        (lambda m, f, s: (m[::-1], f, s), "IDENT"),
        (lambda m, f, s: (m, f), "NAME_selection.fits"),
        (lambda m, f, s: (m, f, s[:-1]), "selection has 11 rows"),
        (lambda m, f, s: (m, f["IDENT", "hlr", "bulgefit", "viable_sersic"], s), "use_bulgefit"),
        (lambda m, f, s: (m["IDENT", "RA"], f, s), "mag_auto"),
        (lambda m, f, s: m, "two or three"),
        (lambda m, f, s: (m,), "got 1"),
    ],
)
def test_cosmos_tables_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read_cosmos(change(*cosmos_tables()))


def test_cosmos_settings_are_checked(tmp_path):
    main, fit, _ = cosmos_tables()
    for name, value in (("kind", "imaginary"), ("exclusion", "some"), ("index_step", -1)):
        with pytest.raises(ValueError, match=name):
            read_cosmos((main, fit), **{name: value})
    with pytest.raises(ValueError, match=r"needs one NAME\.fits"):
        read_cosmos(tmp_path)
    with pytest.raises(ValueError, match=r"GAL_FILENAME.*flux_radius"):
        read_cosmos((main, fit), kind="real", exclusion="none")


# COSMOS, images.


@needs_cosmos
def test_real_galaxies_are_those_of_galsim():
    ours = read_cosmos(COSMOS, kind="real", exclusion="none", centred=False)
    path = next(COSMOS.glob("*_example.fits"))
    theirs = galsim.COSMOSCatalog(str(path), exclusion_level="none")
    assert ours.is_real.all()
    for row in (0, 41):
        galaxy = theirs.makeGalaxy(row, gal_type="real", noise_pad_size=0)
        one, other = drawn(ours.real.galaxy(row)), drawn(galaxy.withFlux(1.0))
        np.testing.assert_array_equal(one, other)
    some = ours.select([41, 7])
    assert_same_image(some.real.galaxy(0), ours.real.galaxy(41), 1e-9)


@needs_cosmos
def test_real_galaxies_are_centred_and_faded_out():
    off = []
    for centred in (False, True):
        real = read_cosmos(COSMOS, kind="real", exclusion="none", centred=centred).real
        for row in range(0, 12, 2):
            seen = galsim.Convolve(real.galaxy(row), galsim.Gaussian(fwhm=0.15))
            image = seen.drawImage(nx=128, ny=128, scale=0.05)
            found = galsim.hsm.FindAdaptiveMom(image).moments_centroid - image.true_center
            off.append(0.05 * np.hypot(found.x, found.y))
    before, after = np.split(np.array(off), 2)
    assert np.median(before) > 0.01
    assert np.median(after) < 0.5 * np.median(before)
    real = read_cosmos(COSMOS, kind="real", exclusion="none", taper=(2.0, 4.0)).real
    image = real.galaxy(3)
    assert image.flux == pytest.approx(1)
    seen = galsim.Convolve(image, galsim.Gaussian(fwhm=0.3)).drawImage(nx=60, ny=60, scale=0.1)
    assert abs(seen.array[:5]).max() < 1e-4 * seen.array.max()


def _fluxes(real):
    return [drawn(real.galaxy(row)).sum() for row in range(2)]


@needs_cosmos
def test_real_galaxies_travel_to_other_processes():
    real = read_cosmos(COSMOS, kind="real", exclusion="none").select([9, 30]).real
    here = _fluxes(real)  # files are open now, and still it is pickled
    assert len(pickle.dumps(real)) < 2000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_fluxes, (real,)), here)


@needs_cosmos
def test_images_that_are_absent_are_missed_at_once(tmp_path):
    for file in COSMOS.glob("real_galaxy_catalog*.fits"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"3 files of images.*real_galaxy_images_extension.fits"):
        read_catalog(tmp_path)
    fit = next(tmp_path.glob("*_fits.fits"))
    table = Table.read(fit)
    table.remove_column("flux_radius")
    fits.writeto(fit, table.as_array(), overwrite=True)
    with pytest.raises(ValueError, match="flux_radius"):
        read_cosmos(tmp_path, kind="real", exclusion="none")


@needs_cosmos
def test_stamps_that_sum_to_nothing_are_left_out(tmp_path):
    for file in COSMOS.iterdir():
        (tmp_path / file.name).symlink_to(file.resolve())
    (main,) = tmp_path.glob("*_example.fits")
    table = Table.read(main)
    table["stamp_flux"][[0, 5]] = -1.0, 0.0
    main.unlink()
    table.write(main)
    found = read_cosmos(tmp_path, kind="real", exclusion="none")
    np.testing.assert_array_equal(found.table["row"], np.delete(np.arange(100), [0, 5]))
    np.testing.assert_array_equal(found.real.index, found.table["row"])


@needs_cosmos
def test_the_folder_is_recognised():
    catalog = read_catalog(COSMOS, taper=(3, 6))
    assert catalog.real.taper == (3, 6)
    assert len(catalog) == 100
    np.testing.assert_allclose(catalog.table["size"][0], 9.132363 * 0.03, rtol=1e-6)
    magnitudes = catalog.magnitudes(survey("HSC", g=484.0, u=380.0))
    np.testing.assert_array_equal(magnitudes.T, [catalog.table["HSC_g"], catalog.table["MAG"]])


# One catalogue of several.


def galaxies(n=30, seed=1):
    return synthetic_catalog(n, np.random.default_rng(seed))


def test_galaxies_and_stars_make_one_catalogue():
    stars = star_catalog(4, np.random.default_rng(2))
    both = concatenate([galaxies(), stars, read_catsim(catsim_table())])
    np.testing.assert_array_equal(np.flatnonzero(both.table["is_star"]), range(30, 34))
    assert both.parts.share.shape == (40, 3)
    np.testing.assert_allclose(both.parts.share.sum(axis=1), 1)
    np.testing.assert_array_equal(both.parts.share[30:34, 0], 1)
    np.testing.assert_array_equal(both.table["g_ab"][30:34], stars.table["g_ab"])
    assert np.isnan(both.table["redshift"][-1])
    assert np.isfinite(both.magnitudes(survey())).all()
    with pytest.raises(ValueError, match=r"K \(6 rows, from K_ab"):
        both.magnitudes(survey("own", K=2150.0))
    with pytest.raises(ValueError, match="empty"):
        concatenate([])


@needs_cosmos
def test_real_galaxies_and_stars_make_one_catalogue():
    real = read_cosmos(COSMOS, kind="real", exclusion="none")
    both = concatenate([star_catalog(3, np.random.default_rng(2)), real, real.select([5])])
    np.testing.assert_array_equal(np.flatnonzero(both.is_real), np.arange(3, 104))
    np.testing.assert_array_equal(both.parts.share.sum(axis=1), np.repeat([1, 0], [3, 101]))
    assert_same_image(both.real.galaxy(103), real.real.galaxy(5), 1e-9)
    assert both.real.files == real.real.files
    with pytest.raises(ValueError, match="parametric shape"):
        both.real.galaxy(2)
    # Of stars in `g_ab`, of galaxies in `HSC_g`, where neither is in `MAG`.
    found = both.magnitudes(survey("HSC", g=484.0))[:, 0]
    np.testing.assert_array_equal(found[:3], both.table["g_ab"][:3])
    np.testing.assert_array_equal(found[3:], both.table["HSC_g"][3:])


def test_rows_are_selected_alike_everywhere():
    catalog = galaxies()
    mask = catalog.table["magnitude"] < 25
    some, same = catalog.select(mask), catalog.select(np.flatnonzero(mask))
    for one, other in zip(some.parts._all(), same.parts._all(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(some.table["row"], np.flatnonzero(mask))
    np.testing.assert_array_equal(some.parts.share[:, 1], some.table["bulge_share"])
    assert len(catalog.select([2])) == 1
    with pytest.raises(ValueError, match="below 30"):
        catalog.select([30])
    with pytest.raises(ValueError, match="length 30"):
        catalog.select(mask[:-1])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"share": [[0.5, 0.4]]}, "share"),
        ({"share": [[1.5, -0.5]]}, "share"),
        ({"radius": [[1.0, np.nan]]}, "radius"),
        ({"index": [[0.0, 4.0]]}, "index"),
        ({"g1": [[0.8, 0.0]]}, "g1"),
        ({"g2": [[0.8]]}, "g2"),
    ],
)
def test_parts_that_mean_nothing_are_refused(change, name):
    good = {"index": [[1.0, 4.0]], "radius": [[0.5, 0.2]], "g1": [[0.1, 0.0]]}
    good |= {"g2": [[0.7, 0.0]], "share": [[0.5, 0.5]]}
    Parts(**{key: np.array(value) for key, value in good.items()})
    with pytest.raises(ValueError, match=f"`{name}`"):
        Parts(**{key: np.array(value) for key, value in (good | change).items()})


def test_the_half_light_radius_of_a_sum():
    index, share = np.array([[1.0, 4.0], [0.7, 2.5]]), np.array([[0.6, 0.4], [0.2, 0.8]])
    radius, zero = np.array([[0.8, 0.3], [1.5, 0.2]]), np.zeros((2, 2))
    parts = Parts(index, radius, zero, zero, share)
    for row, found in enumerate(parts.half_light_radius()):
        assert found == pytest.approx(profile(parts, row).calculateHLR(scale=0.02, size=1024), 5e-3)
    point = Parts(*(np.array([[v]]) for v in (1.0, 0.0, 0.0, 0.0, 1.0)))
    assert point.half_light_radius() == [0]


def test_a_catalogue_needs_its_columns_and_rows():
    parts = galaxies().parts
    with pytest.raises(ValueError, match="'row', 'magnitude', 'size', 'is_star'"):
        Catalog(Table({"a": np.zeros(30)}), parts)
    table = standard_columns(
        Table({"a": np.zeros(3)}), magnitude=np.full(3, 22.0), size=np.full(3, 0.5)
    )
    with pytest.raises(ValueError, match="each of the 3"):
        Catalog(table, parts)
    with pytest.raises(ValueError, match="nothing to draw"):
        Catalog(table)


# Magnitudes of other bands.


def test_missing_bands_are_listed():
    with pytest.raises(ValueError, match=r"own_x or x_ab, own_J or J_ab.*with_bands"):
        read_catsim(catsim_table()).magnitudes(survey("own", x=500.0, r=620.0, J=1250.0))


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(300, 1100), st.integers(0, 2**31))
def test_a_power_law_is_interpolated_exactly(slope, wavelength, seed):
    rng = np.random.default_rng(seed)
    level = rng.uniform(20, 25, 6)
    catalog = read_catsim(
        catsim_table(
            **{f"{b}_ab": level + slope * np.log10(WAVELENGTHS[b] / 500.0) for b in "ugrizy"}
        )
    )
    own = survey("own", x=wavelength, r=625.0)
    if not WAVELENGTHS["u"] <= wavelength <= WAVELENGTHS["y"] * 1.01:
        if not WAVELENGTHS["u"] * 0.99 <= wavelength:
            with pytest.raises(ValueError, match=r"own_x.*extrapolate"):
                with_bands(catalog, own)
        found = with_bands(catalog, own, extrapolate=True)
    else:
        found = with_bands(catalog, own)
    expected = np.stack([level + slope * np.log10(w / 500.0) for w in (wavelength, 625.0)], axis=1)
    np.testing.assert_allclose(found.magnitudes(own), expected, atol=1e-9)
    assert "own_x" not in catalog.table.colnames


def test_a_spectrum_is_interpolated_between_its_neighbours():
    catalog = galaxies()
    wavelengths = np.array([380.0, 450.0, 560.0, 700.0, 800.0, 910.0, 1100.0, 2000.0])
    own = survey("own", **{f"b{k}": w for k, w in enumerate(wavelengths)})
    names = ["u", "g", "r", "i", "z", "y", "J", "H", "K"]
    found = with_bands(catalog, own, columns={f"{b}_ab": WAVELENGTHS[b] for b in names})
    at = np.log([WAVELENGTHS[b] for b in names])
    for row in range(5):
        spectrum = [catalog.table[f"{b}_ab"][row] for b in names]
        expected = np.interp(np.log(wavelengths), at, spectrum)
        np.testing.assert_allclose(found.magnitudes(own)[row], expected, atol=1e-9)


def test_interpolated_bands_of_a_joint_catalogue():
    main, fit, _ = cosmos_tables()
    fit["HSC_g"] = fit["HSC_i"] + 1.0
    both = concatenate([read_cosmos((main, fit), exclusion="none"), galaxies(5)])
    own = survey("own", x=np.sqrt(WAVELENGTHS["g"] * WAVELENGTHS["i"]))
    found = with_bands(both, own).magnitudes(own)[:, 0]
    np.testing.assert_allclose(found[:12], fit["HSC_i"] + 0.5)
    table = both.table[12:]
    assert ((found[12:] > table["i_ab"] - 0.3) & (found[12:] < table["g_ab"] + 0.3)).all()
    kept = with_bands(both.with_columns(own_x=np.zeros(17)), own)
    np.testing.assert_array_equal(kept.magnitudes(own), 0)
    with pytest.raises(ValueError, match="two wavelengths"):
        with_bands(both, own, columns={"HSC_i": 770.0})
    with pytest.raises(ValueError, match="12 rows with fewer"):
        with_bands(both, own, columns={"g_ab": 480.0, "HSC_i": 770.0, "i_ab": 750.0})


# Made up.


def test_every_survey_can_be_drawn():
    surveycodex = pytest.importorskip("surveycodex")
    catalog = concatenate([galaxies(), star_catalog(5, np.random.default_rng(0))])
    assert len(surveycodex.available_surveys) >= 11
    for name in surveycodex.available_surveys:
        given = surveycodex.get_survey(name)
        bands = {
            b: given.get_filter(b).effective_wavelength.to_value("nm")
            for b in given.available_filters
        }
        found = catalog.magnitudes(survey(name, **bands))
        assert np.isfinite(found).all()
        for band, wavelength in bands.items():
            # A band of that name elsewhere differs by little.
            assert abs(WAVELENGTHS[band] - wavelength) < 0.06 * wavelength


def test_made_up_galaxies_are_like_the_skys():
    catalog = galaxies(20000)
    table, parts = catalog.table, catalog.parts
    magnitude = np.asarray(table["magnitude"])
    np.testing.assert_array_equal(magnitude, table["i_ab"])
    counts, edges = np.histogram(magnitude, np.arange(20, 26.5, 1))
    slope, _ = np.polyfit(edges[:-1], np.log10(counts), 1)
    assert slope == pytest.approx(0.3, abs=0.02)
    size_slope, _ = np.polyfit(magnitude, np.log10(table["size"]), 1)
    assert size_slope == pytest.approx(-0.1, abs=0.01)
    assert np.hypot(parts.g1, parts.g2).max() < 0.67  # an axis ratio of 0.2
    # No direction is preferred, nor any angle between bulge and disc.
    ellipticity = parts.g1 + 1j * parts.g2
    assert abs(ellipticity[:, 0].mean()) < 5 * abs(ellipticity[:, 0]).std() / np.sqrt(20000)
    both = (parts.share > 0).all(axis=1) & (abs(ellipticity[:, 0]) > 0.05)
    assert 0.3 < both.mean() < 0.9
    np.testing.assert_allclose(np.angle(ellipticity[both, 0] / ellipticity[both, 1]), 0, atol=1e-9)
    assert (parts.radius[both, 1] < parts.radius[both, 0]).all()
    z = np.asarray(table["redshift"])[abs(magnitude - 24) < 0.5]
    # The mean of the gamma distribution.
    assert z.mean() == pytest.approx(3 * (0.0417 * 24 - 0.744), rel=0.05)
    g_r = np.asarray(table["g_ab"] - table["r_ab"])
    near = z_between(table, 0.0, 0.1)
    assert np.median(g_r[near & (table["sequence"] == 0)]) == pytest.approx(0.85, abs=0.15)
    assert np.median(g_r[near & (table["sequence"] == 3)]) < 0.3


def z_between(table, low, high):
    return (table["redshift"] > low) & (table["redshift"] < high)


def test_made_up_stars_are_black_bodies():
    from astropy import units
    from astropy.modeling.physical_models import BlackBody

    stars = star_catalog(3000, np.random.default_rng(4))
    wavelength = np.array([WAVELENGTHS[b] for b in "gi"]) * units.nm
    bodies = BlackBody(np.asarray(stars.table["temperature"]) * units.K)
    colour = -2.5 * np.log10(bodies(wavelength[0]).value / bodies(wavelength[1]).value)
    off = np.asarray(stars.table["g_ab"] - stars.table["i_ab"]) - colour
    assert abs(off.mean()) < 0.01
    assert off.std() == pytest.approx(0.05 * np.sqrt(2), rel=0.1)
    assert (stars.parts.radius == 0).all()
    assert stars.table["is_star"].all()


@pytest.mark.parametrize("make", [synthetic_catalog, star_catalog])
def test_the_same_generator_makes_the_same_catalogue(make):
    one, same, other = (make(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in one.table.colnames:
        np.testing.assert_array_equal(one.table[name], same.table[name])
    assert (one.table["magnitude"] != other.table["magnitude"]).all()
    for wrong in ({"n": 0}, {"faintest": 10.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            make(**{"n": 5, "rng": np.random.default_rng(0)} | wrong)
