"""The catalogue against photutils and the tables of its guide, and what it does on its own."""

import warnings

import astropy.units as u
import jax
import numpy as np
import pytest
from astropy.wcs import WCS
from guide_image import hundred_gaussians
from quick import hasty, one_size
from scipy.ndimage import label

from diffdeblend.measure import FLAGS, SourceCatalog, calc_total_error, decode_flags
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.smooth import smooth


@pytest.fixture(autouse=True)
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


SHAPES = ("semimajor_axis", "semiminor_axis", "eccentricity", "elongation", "ellipticity", "fwhm")
EXACT = (
    *("label", "bbox_xmin", "bbox_xmax", "bbox_ymin", "bbox_ymax", "area", "segment_area"),
    *("max_value", "min_value", "max_value_index", "min_value_index"),
    *("cutout_min_value_index", "cutout_max_value_index"),
    *("min_value_xindex", "min_value_yindex", "max_value_xindex", "max_value_yindex"),
)
CLOSE = (
    *SHAPES,
    *("x_centroid", "y_centroid", "cutout_centroid", "covariance", "covariance_eigvals"),
    *("ellipse_cxx", "ellipse_cyy", "ellipse_cxy", "equivalent_radius", "perimeter", "gini"),
    *("covariance_xx", "covariance_xy", "covariance_yy", "inertia_tensor"),
    *("segment_flux", "segment_flux_err", "background_sum", "background_mean"),
    *("background_centroid", "x_centroid_quad", "y_centroid_quad", "moments"),
    *("kron_radius", "kron_flux"),
)


def plain(values):
    return np.asarray(getattr(values, "value", values), float)


def sky_of(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 5 + 0.002 * x - 0.001 * y + 1e-6 * x * y


def tan_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval = [200, 100], [359.99, 40]
    wcs.wcs.cdelt, wcs.wcs.ctype = [-1e-4, 1.2e-4], ["RA---TAN", "DEC--TAN"]
    wcs.wcs.pc = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    return wcs


@pytest.fixture(scope="module")
def field():
    """Image, labels and what goes with them; noise that differs from pixel to pixel."""
    image = hundred_gaussians("v3")
    background = sky_of(image.shape)
    data = image - background
    grid = np.arange(-2, 3)
    row = np.exp(-0.5 * (grid / 1.27) ** 2)
    kernel = np.outer(row, row) / row.sum() ** 2
    convolved = np.asarray(smooth(data, kernel, backend="host"))
    labels, _ = label(convolved > 2, np.ones((3, 3)))
    counts = np.bincount(labels.ravel())
    labels[counts[labels] < 10] = 0
    error = np.sqrt(4 + np.maximum(data, 0) / 3)
    return {
        "data": data,
        "labels": LabelImage(labels.astype(np.int32)),
        # Of one kind in all tests, so that they share programs.
        "more": {
            "convolved_data": convolved,
            "error": error,
            "background": background,
            "mask": np.zeros(data.shape, bool),
        },
    }


def spoilt(field):
    """With a mask, and pixels that are not finite."""
    rng = np.random.default_rng(3)
    data, more = field["data"].copy(), dict(field["more"])
    data[rng.random(data.shape) < 0.002] = np.nan
    more["mask"] = rng.random(data.shape) < 0.01
    # One source without any pixel.
    more["mask"][field["labels"].data == field["labels"].labels[7]] = True
    return data, more


def compare(ours, theirs, names, rtol, **more):
    for name in names:
        expected = plain(getattr(theirs, name))
        np.testing.assert_allclose(
            plain(ours[name]), expected, rtol=rtol, err_msg=name, **{"atol": 1e-12, **more}
        )


@pytest.mark.parametrize("bad", [pytest.param(False, marks=pytest.mark.slow), True])
def test_columns_are_those_of_photutils(field, bad, x64):
    segmentation = pytest.importorskip("photutils.segmentation")
    data, more = spoilt(field) if bad else (field["data"], field["more"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = segmentation.SourceCatalog(data, field["labels"].to_photutils(), **more)
        ours = SourceCatalog(data, field["labels"], **more)
        compare(ours, theirs, EXACT, 0, atol=0)
        names = CLOSE if not bad else [n for n in CLOSE if "quad" not in n]
        compare(ours, theirs, names, 1e-10)
        compare(ours, theirs, ["moments_central"], 1e-10, atol=1e-6)
        angle = np.abs(plain(ours.orientation) - plain(theirs.orientation)) % 180
        assert np.nanmax(np.minimum(angle, 180 - angle)) < 1e-9
    assert np.isnan(ours.area).sum() == bad


@pytest.mark.slow
def test_other_apertures_are_those_of_photutils(field, x64):
    segmentation = pytest.importorskip("photutils.segmentation")
    more = {**field["more"], "local_bkg_width": 12}
    theirs = segmentation.SourceCatalog(field["data"], field["labels"].to_photutils(), **more)
    ours = SourceCatalog(field["data"], field["labels"], **more)
    # Where there is no first moment photutils keeps the least radius of the catalogue.
    known = np.isfinite(ours.kron_radius_measured)
    assert known.sum() > 40
    for params in ((2.0, 1.2), (3.0, 1.0)):
        found, expected = ours.kron_photometry(params)[0], theirs.kron_photometry(params)[0]
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-10, atol=1e-8)
    found, expected = ours.circular_photometry(4.3)[0], theirs.circular_photometry(4.3)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-8)
    for fraction in (0.2, 0.9):
        found, expected = ours.flux_radius(fraction), plain(theirs.flux_radius(fraction))
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    one = ours[3:9]
    ellipses = one.make_kron_apertures()
    for row, aperture in enumerate(theirs[3:9].make_kron_apertures()):
        np.testing.assert_allclose([ellipses["x"][row], ellipses["y"][row]], aperture.positions)
        np.testing.assert_allclose(
            [ellipses["a"][row], ellipses["b"][row]], [aperture.a, aperture.b]
        )
        turned = ellipses["theta"][row] - float(plain(aperture.theta))
        assert abs(np.sin(turned)) < 1e-8


def test_the_level_around_a_source_is_taken_off(field):
    segmentation = pytest.importorskip("photutils.segmentation")
    more = {**field["more"], "local_bkg_width": 12}
    theirs = segmentation.SourceCatalog(field["data"] + 3, field["labels"].to_photutils(), **more)
    ours = SourceCatalog(field["data"] + 3, field["labels"], **more)
    names = ("local_background", "segment_flux", "min_value", "max_value")
    compare(ours, theirs, names, 1e-9)
    assert np.median(ours.local_background) == pytest.approx(3, abs=0.5)


@pytest.mark.slow
def test_single_precision_is_good_enough(field):
    data, more = field["data"].astype(np.float32), field["more"]
    exact = SourceCatalog(field["data"], field["labels"], **more)
    more = {n: v if v.dtype == bool else v.astype(np.float32) for n, v in more.items()}
    single = SourceCatalog(data, field["labels"], **more)
    for name in (*SHAPES, "x_centroid", "y_centroid", "segment_flux", "segment_flux_err"):
        np.testing.assert_allclose(single[name], exact[name], rtol=1e-5, err_msg=name)
    assert single.kron_flux.dtype == np.float32


def test_flags_say_what_is_wrong(field):
    data, more = spoilt(field)
    more["error"] = more["error"].copy()
    y, x = np.argwhere(field["labels"].data == 4)[5]
    more["error"][y, x] = np.inf
    ours = SourceCatalog(data, field["labels"], **more)
    for source in (0, 3, 7, 20, 40):
        one = ours[source]
        mine = field["labels"].data == one.label
        names = decode_flags(one.flags)
        assert ("masked_pixels" in names) == more["mask"][mine].any()
        assert ("non_finite_data" in names) == (~np.isfinite(data[mine])).any()
        assert ("non_finite_error" in names) == (~np.isfinite(more["error"][mine])).any()
        assert ("all_masked" in names) == more["mask"][mine].all()
        border = np.ones_like(mine)
        border[1:-1, 1:-1] = False
        assert ("edge_touch" in names) == (mine & border).any()
    gone = ours.select_label(field["labels"].labels[7])
    assert {"undefined_shape", "kron_undefined"} <= set(decode_flags(gone.flags))
    assert np.isnan([gone.kron_flux, gone.segment_flux, gone.max_value, gone.perimeter]).all()
    assert decode_flags(FLAGS["deblended"] | 1) == ["masked_pixels", "deblended"]
    assert decode_flags([3, 0], return_bit_values=True) == [[1, 2], []]
    with pytest.raises(ValueError, match="`flags`"):
        decode_flags(1 << 30)


@pytest.mark.parametrize("double", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["one pixel", "line", "negative", "plateau", "everything"])
def test_odd_sources_are_measured_without_complaint(kind, double):
    with jax.enable_x64(double):
        check_odd_source(kind)


def check_odd_source(kind):
    data = np.full((20, 31), 0.5)
    labels = np.zeros(data.shape, np.int32)
    where = {"one pixel": np.s_[0:1, 30:31], "line": np.s_[4:5, 3:12]}.get(kind, np.s_[5:9, 2:9])
    labels[where] = 3
    if kind == "everything":
        labels[:] = 3
    data[labels > 0] = -2 if kind == "negative" else 7
    found = SourceCatalog(data, LabelImage(labels), error=np.ones_like(data))
    table = found.to_table([n for n in found.columns if not n.startswith("sky")])
    assert len(table) == 1
    bits = decode_flags(found.flags)[0]
    assert ("undefined_shape" in bits) == (kind == "negative")
    assert ("singular_covariance" in bits) == (kind in ("one pixel", "line"))
    if kind == "one pixel":
        assert found.semimajor_axis[0] == pytest.approx(np.sqrt(1 / 12), rel=1e-6)
        assert (found.x_centroid[0], found.y_centroid[0]) == (30, 0)
    elif kind != "negative":
        assert found.segment_flux[0] == pytest.approx(7 * (labels > 0).sum())


def test_a_kron_radius_out_of_its_ellipse_is_undefined():
    """Dark pixels near and light far away: a mean radius beyond 6 is none, as in photutils."""
    segmentation = pytest.importorskip("photutils.segmentation")
    y, x = np.mgrid[:41, :47]
    r = np.hypot(x - 22, y - 19)
    labels = (r < 3).astype(np.int32)
    convolved = np.exp(-(r**2) / 6)
    data = np.where(r < 3, 1.0, np.where(r < 6, -0.9, 0.8))
    data = np.where(r < 9, data, 0)
    theirs = segmentation.SourceCatalog(
        data, segmentation.SegmentationImage(labels), convolved_data=convolved
    )
    ours = SourceCatalog(data, LabelImage(labels), convolved_data=convolved)
    assert np.isnan(plain(theirs.kron_radius)).all()
    assert np.isnan([ours.kron_radius[0], ours.kron_flux[0]]).all()
    assert "kron_undefined" in decode_flags(ours.flags)[0]


def test_sky_positions_and_their_errors(field):
    wcs = tan_wcs()
    ours = SourceCatalog(field["data"], field["labels"], wcs=wcs, **field["more"])[3:30]
    at = wcs.pixel_to_world(ours.x_centroid, ours.y_centroid)
    assert at.separation(ours.sky_centroid).arcsec.max() < 1e-9
    corner = wcs.pixel_to_world(ours.bbox_xmax + 0.5, ours.bbox_ymin - 0.5)
    assert corner.separation(ours.sky_bbox_lr).arcsec.max() < 1e-9
    by = []
    for dx, dy in ((1e-3, 0), (0, 1e-3)):
        moved = wcs.pixel_to_world(ours.x_centroid + dx, ours.y_centroid + dy)
        east, north = ours.sky_centroid.spherical_offsets_to(moved)
        by.append(np.stack([east.arcsec, north.arcsec]) / 1e-3)
    by = np.stack(by, axis=1)
    turned = np.einsum("ijn,njk,lkn->nil", by, ours.covariance, by)
    major = np.linalg.eigh(turned)[1][:, :, 1]
    angle = np.rad2deg(np.arctan2(major[:, 0], major[:, 1]))
    apart = np.abs(angle - ours.sky_orientation) % 180
    assert np.minimum(apart, 180 - apart).max() < 1e-3
    # What the two errors leave open is their correlation, at most 1.
    errors = np.einsum("ijn,nj->ni", by**2, ours.centroid_err**2)
    crossed = np.abs(ours.sky_centroid_err**2 - errors)
    most = 2 * np.abs(by[:, 0] * by[:, 1]).T * np.prod(ours.centroid_err, axis=1)[:, None]
    assert (crossed <= most * (1 + 1e-6)).all()
    assert (crossed > 0).any()
    assert ours.sky_centroid_ra_err.shape == (27,)


def test_centroid_errors_are_those_of_many_noises(field):
    rng = np.random.default_rng(8)
    labels = field["labels"].keep_labels(field["labels"].labels[[2, 11, 30]])
    # Bright, so that no pixel becomes negative, whose light would not count.
    data = field["data"].clip(0) + 30
    error = np.full(data.shape, 2.0)
    given = SourceCatalog(data, labels, error=error)
    found = [
        SourceCatalog(data + rng.normal(0, 2, data.shape), labels).centroid for _ in range(400)
    ]
    np.testing.assert_allclose(np.std(found, axis=0), given.centroid_err, rtol=0.15)


def test_a_part_is_the_same_as_of_the_whole(field):
    whole = SourceCatalog(field["data"], field["labels"], **field["more"])
    chosen = whole.labels[[5, 1, 9]]
    part = whole.select_labels(chosen)
    np.testing.assert_array_equal(part.label, chosen)
    np.testing.assert_array_equal(part.segment_flux, whole.segment_flux[[5, 1, 9]])
    one = part[1]
    assert one.isscalar
    assert one.x_centroid == whole.x_centroid[1]
    assert one.slices == whole.slices[1]
    assert [source.label for source in part] == chosen.tolist()
    masked = one.data_cutout_masked
    assert masked.sum() == pytest.approx(one.segment_flux)
    assert one.conv_data_cutout.shape == one.data_cutout.shape == one.segment_cutout.shape
    with pytest.raises(TypeError):
        len(one)
    with pytest.raises(ValueError, match="`labels`"):
        whole.select_label(10_000)
    with pytest.raises(AttributeError, match="columns"):
        _ = whole.flux_of_nothing


def test_own_columns_come_and_go(field):
    whole = SourceCatalog(field["data"], field["labels"], **field["more"])
    values = np.arange(whole.n_labels)
    more = whole.add_property("rank", values)
    assert "rank" not in whole.columns
    np.testing.assert_array_equal(more[3:6].rank, [3, 4, 5])
    renamed = more.rename_property("rank", "place")
    assert list(renamed.to_table(["label", "place"])["place"]) == values.tolist()
    assert "place" not in renamed.remove_property("place").columns
    for name in ("rank", "area", "wcs"):
        with pytest.raises(ValueError, match="`name`"):
            more.add_property(name, values)
    with pytest.raises(ValueError, match="entries"):
        whole.add_property("short", values[:3])


def test_units_and_tables(field):
    unit = u.nJy
    more = {n: v if v.dtype == bool else v * unit for n, v in field["more"].items()}
    ours = SourceCatalog(field["data"] * unit, field["labels"], wcs=tan_wcs(), **more)[:4]
    table = ours.to_table(["label", "sky_centroid", "area", "orientation", "segment_flux"])
    assert table["segment_flux"].unit == unit
    assert table["area"].unit == u.pix**2
    assert table["orientation"].unit == u.deg
    assert table.meta["kron_params"] == (2.5, 1.4, 0.0)
    assert "labels: [" in repr(ours)
    assert "Length: 4" in repr(ours)
    with pytest.raises(ValueError, match="`columns`"):
        ours.to_table("colour")
    more["error"] = field["more"]["error"]
    with pytest.raises(ValueError, match="unit"):
        SourceCatalog(field["data"] * unit, field["labels"], **more)


def test_another_band_with_the_shapes_of_the_first(field):
    first = SourceCatalog(field["data"], field["labels"], **field["more"])
    more = {name: field["more"][name] for name in ("error", "mask")}
    second = SourceCatalog(2 * field["data"], field["labels"], **more, detection_catalog=first)
    np.testing.assert_array_equal(second.x_centroid, first.x_centroid)
    np.testing.assert_array_equal(second.kron_radius, first.kron_radius)
    np.testing.assert_allclose(second.kron_flux, 2 * first.kron_flux, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(second.segment_flux, 2 * first.segment_flux)
    other = field["labels"].remove_label(int(field["labels"].labels[0]))
    with pytest.raises(ValueError, match="`detection_catalog`"):
        SourceCatalog(field["data"], other, detection_catalog=first)


def test_no_source_gives_empty_columns():
    data = np.ones((12, 17), np.float32)
    empty = SourceCatalog(data, LabelImage(np.zeros(data.shape, np.int32)), error=data)
    assert len(empty) == 0
    table = empty.to_table([n for n in empty.columns if not n.startswith("sky")])
    assert len(table) == 0


def test_cutouts_around_centroids(field):
    ours = SourceCatalog(field["data"], field["labels"])[:5]
    for cutout, one in zip(ours.make_cutouts((9, 12)), ours, strict=True):
        y, x = round(float(one.y_centroid)), round(float(one.x_centroid))
        assert cutout.data.shape == (9, 12)
        assert cutout.data[y - cutout.y0, x - cutout.x0] == field["data"][y, x]
    trimmed = ours.make_cutouts((9, 12), mode="trim")
    assert all(np.isfinite(cutout.data).all() for cutout in trimmed)
    with pytest.raises(ValueError, match="`mode`"):
        ours.make_cutouts((3, 3), mode="strict")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"error": np.ones((3, 3))}, "`error`"),
        ({"mask": np.zeros((300, 500))}, "`mask`"),
        ({"kernel": np.ones((3, 3)), "convolved_data": np.ones((300, 500))}, "`kernel`"),
        ({"local_bkg_width": 1.5}, "`local_bkg_width`"),
        ({"aperture_mask_method": "both"}, "`aperture_mask_method`"),
        ({"kron_params": (2.5,)}, "`kron_params`"),
        ({"detection_catalog": 3}, "`detection_catalog`"),
    ],
)
def test_bad_settings_are_named(field, change, named):
    with pytest.raises(ValueError, match=named):
        SourceCatalog(field["data"], field["labels"], **change)


def test_total_error_is_that_of_photutils(precision):
    utils = pytest.importorskip("photutils.utils")
    rng = np.random.default_rng(1)
    data = rng.normal(0, 5, (13, 21)).astype(precision)
    noise, gain = np.full(data.shape, 2, precision), rng.uniform(0, 3, data.shape).astype(precision)
    gain[2:5] = 0
    for given in (gain, precision and 500.0):
        ours = calc_total_error(data, noise, given)
        np.testing.assert_allclose(ours, utils.calc_total_error(data, noise, given), rtol=2e-6)
        assert ours.dtype == precision
    with_units = calc_total_error(data * u.ct, noise * u.ct, gain * u.electron / u.ct)
    assert with_units.unit == u.ct
    for wrong in ((data * u.ct, noise, gain), (data * u.ct, noise * u.s, gain * u.electron / u.ct)):
        with pytest.raises(ValueError, match="unit"):
            calc_total_error(*wrong)
    with pytest.raises(ValueError, match="`effective_gain`"):
        calc_total_error(data, noise, -1.0)
