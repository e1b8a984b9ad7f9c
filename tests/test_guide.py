"""The steps of photutils' guide on segmentation, one by one, and the numbers that it prints.

One column of it is wrong there (x and y of the background's positions are swapped, mended in
photutils 3.0); here are the right ones.
"""

import hashlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from guide_image import hundred_gaussians
from quick import hasty, one_size

from diffdeblend.background import estimate_background
from diffdeblend.measure import SourceCatalog, calc_total_error, decode_flags
from diffdeblend.segment import (
    SourceFinder,
    deblend_sources,
    detect_sources,
    make_2dgaussian_kernel,
    smooth,
)

# The labels that the guide picks, and what it prints of them.
LABELS = [1, 5, 20, 50, 75, 80]
X = [235.3128, 258.2727, 346.9920, 5.2910, 42.9629, 130.7542]
Y = [1.4483, 11.9418, 66.8323, 178.9449, 249.8825, 297.1048]
AREA = [47, 79, 98, 57, 79, 25]
SEGMENT_FLUX = [445.6095, 472.4109, 571.3138, 257.4050, 428.7122, 108.7877]
KRON_FLUX = [509.74, 661.22, 811.70, 614.46, 617.18, 246.91]
# Of the first and last rows of its table of all.
MORE_KRON = {
    **dict(zip((2, 3, 4), (544.31, 722.26, 704.23), strict=True)),
    **dict(zip(range(90, 95), (866.40, 870.31, 811.81, 652.12, 942.22), strict=True)),
}
BACKGROUND_MEAN = [5.2026137494, 5.2229743435, 5.2702094547]
BACKGROUND_MEAN += [5.2466148918, 5.2249844756, 5.2642197829]
BACKGROUND_SUM = [244.5228462210, 412.6149731353, 516.4805265603]
BACKGROUND_SUM += [299.0570488310, 412.7737735748, 131.6054945730]
BACKGROUND_CENTROID = [5.2023095805, 5.2230864451, 5.2702114208]
BACKGROUND_CENTROID += [5.2468556084, 5.2251518366, 5.2653235208]
# Without the smoothed image.
PLAIN_X = [235.24243, 258.29728, 346.94871, 5.2694265, 43.030177, 130.64209]
PLAIN_Y = [1.2020749, 11.899213, 66.802889, 178.9268, 249.92847, 297.11218]
SEGMENT_FLUX_ERR = [14.634553, 19.060458, 21.674279, 16.431396, 19.175229, 10.882015]


@pytest.fixture(scope="module", params=["float32", "float64"])
def guide(request):
    """The guide up to the label images."""
    with jax.enable_x64(request.param == "float64"), hasty(), one_size():
        image = hundred_gaussians("doc")
        assert image.sum() == pytest.approx(826182.2450125171, rel=1e-12)
        image = image.astype(request.param)
        sky = estimate_background(image, (50, 50), filter_size=(3, 3), estimator="median")
        data = image - sky.background
        threshold = 1.5 * sky.background_rms
        convolved = smooth(data, make_2dgaussian_kernel(3.0, size=5))
        detected = detect_sources(convolved, threshold, n_pixels=10)
        labels = deblend_sources(convolved, detected, n_pixels=10, n_levels=32, contrast=0.001)
        yield SimpleNamespace(
            sky=sky,
            data=data,
            threshold=threshold,
            convolved=convolved,
            detected=detected,
            labels=labels,
            catalog=SourceCatalog(data, labels, convolved_data=convolved),
            single=request.param == "float32",
        )


def printed(guide, values, step):
    """As printed with digits of `step`; in single precision also to 5 digits."""
    return pytest.approx(np.array(values), abs=0.5001 * step, rel=1e-5 if guide.single else 0)


def test_sky_and_threshold(guide):
    assert guide.sky.background_mesh.shape == (6, 10)
    tolerance = 1e-6 if guide.single else 1e-12
    assert guide.sky.background_median == pytest.approx(5.163614820781, rel=tolerance)
    assert guide.sky.background_rms_median == pytest.approx(2.096824681416, rel=tolerance)
    kinds = {np.asarray(v).dtype for v in (guide.data, guide.threshold, guide.convolved)}
    assert kinds == {np.dtype("float32" if guide.single else "float64")}


def test_sources_before_and_after_deblending(guide):
    assert repr(guide.detected).splitlines()[1:] == [
        "shape: (300, 500)",
        "n_labels: 87",
        "labels: [ 1  2  3  4  5 ... 83 84 85 86 87]",
    ]
    assert guide.labels.n_labels == 94
    digest = hashlib.sha256(guide.labels.data.astype(np.int32).tobytes()).hexdigest()
    assert digest.startswith("6c50bb63de9618f8")
    finder = SourceFinder(n_pixels=10)
    np.testing.assert_array_equal(finder(guide.convolved, guide.threshold).data, guide.labels.data)
    # The three panels: the parent at these rows and columns, and its two parts.
    piece = np.s_[273:297, 425:444]
    parent = int(guide.detected.data[281, 434])
    parts = guide.labels.parent_to_deblended_labels[parent]
    assert len(parts) == 2
    inside = guide.detected.data[piece] == parent
    np.testing.assert_array_equal(inside, np.isin(guide.labels.data[piece], parts))


def test_label_images_are_modified(guide):
    assert guide.labels.remove_border_labels(5, relabel=True).n_labels == 85
    mask = np.zeros(guide.labels.shape, bool)
    mask[:100, :100] = True
    for partial, left in ((True, 87), (False, 89)):
        kept = guide.labels.remove_masked_labels(mask, partial_overlap=partial)
        assert kept.n_labels == left
    assert guide.labels.keep_labels(LABELS).labels.tolist() == LABELS
    fewer = guide.labels.remove_labels(LABELS)
    assert (fewer.n_labels, fewer.max_label) == (88, 94)
    assert fewer.relabel_consecutive().max_label == 88
    joined = guide.labels.reassign_labels([93, 94], 93)
    assert joined.n_labels == 93
    assert joined.get_area(93) == guide.labels.get_areas([93, 94]).sum()


def test_the_table(guide):
    assert repr(guide.catalog).splitlines()[1:] == [
        "Length: 94",
        "labels: [ 1  2  3  4  5 ... 90 91 92 93 94]",
    ]
    table = guide.catalog.to_table()
    assert len(table) == 94
    assert table["segment_flux_err"].unit is None
    assert np.isnan(table["segment_flux_err"]).all()
    assert np.isnan(table["kron_flux_err"]).all()
    chosen = guide.catalog.select_labels(LABELS).to_table()
    assert chosen["label"].tolist() == LABELS
    assert np.asarray(chosen["kron_flux"]) == printed(guide, KRON_FLUX, 0.01)
    more = guide.catalog.select_labels(list(MORE_KRON)).kron_flux
    assert more == printed(guide, list(MORE_KRON.values()), 0.01)
    columns = ["label", "x_centroid", "y_centroid", "area", "segment_flux"]
    table = guide.catalog.select_labels(LABELS).to_table(columns=columns)
    assert table.colnames == columns
    assert np.asarray(table["x_centroid"]) == printed(guide, X, 1e-4)
    assert np.asarray(table["y_centroid"]) == printed(guide, Y, 1e-4)
    assert table["area"].value.tolist() == AREA
    assert np.asarray(table["segment_flux"]) == printed(guide, SEGMENT_FLUX, 1e-4)


def test_kron_apertures(guide):
    ellipses = guide.catalog.make_kron_apertures()
    a, b = guide.catalog.semimajor_axis, guide.catalog.semiminor_axis
    np.testing.assert_allclose(ellipses["a"], 2.5 * guide.catalog.kron_radius * a, rtol=1e-6)
    np.testing.assert_allclose(ellipses["b"], 2.5 * guide.catalog.kron_radius * b, rtol=1e-6)
    np.testing.assert_array_equal(ellipses["x"], guide.catalog.x_centroid)
    # More than half of these faint sources have the least radius.
    assert np.isclose(guide.catalog.kron_radius, 1.4, rtol=1e-7).sum() == 53
    names = decode_flags(guide.catalog.flags)
    assert sum("kron_minimum_radius" in name for name in names) == 53
    assert sum("deblended" in name for name in names) == 14


def test_background_and_errors(guide):
    error = calc_total_error(guide.data, guide.sky.background_rms, 500.0)
    found = SourceCatalog(
        guide.data, guide.labels, background=guide.sky.background, error=error
    ).select_labels(LABELS)
    digits = {"rel": 2e-6 if guide.single else 1e-7}
    assert found.background_mean == pytest.approx(np.array(BACKGROUND_MEAN), **digits)
    assert found.background_sum == pytest.approx(np.array(BACKGROUND_SUM), **digits)
    assert found.background_centroid == pytest.approx(
        np.array(BACKGROUND_CENTROID), abs=5e-6 if guide.single else 1e-6
    )
    assert found.x_centroid == pytest.approx(np.array(PLAIN_X), rel=1e-5 if guide.single else 5e-8)
    assert found.y_centroid == pytest.approx(np.array(PLAIN_Y), rel=1e-5 if guide.single else 5e-8)
    assert found.segment_flux == printed(guide, SEGMENT_FLUX, 1e-4)
    assert found.segment_flux_err == pytest.approx(np.array(SEGMENT_FLUX_ERR), rel=1e-6)
    if guide.single:
        return
    # Of photutils 3.1; what it printed before left the weights of pixels at edges unsquared.
    even = SourceCatalog(
        *(guide.data, guide.detected),
        convolved_data=guide.convolved,
        error=np.full_like(guide.data, 2),
    )
    expected = np.array([18.6400, 22.8870, 27.1742, 33.4219])
    assert even.kron_flux_err[:4] == pytest.approx(expected, abs=5.001e-5)


def test_masked_pixels(guide):
    mask = np.zeros(guide.data.shape, bool)
    mask[66:69, 346:349] = True
    before = guide.catalog.select_label(20)
    after = SourceCatalog(guide.data, guide.labels, convolved_data=guide.convolved, mask=mask)
    after = after.select_label(20)
    assert (before.area, after.area, after.segment_area) == (98, 89, 98)
    assert before.segment_flux == printed(guide, 571.31, 0.01)
    assert after.segment_flux == printed(guide, 500.83, 0.01)
    assert (after.x_centroid, after.y_centroid) == printed(guide, (346.99358, 66.81111), 1e-5)


def test_a_kernel_in_place_of_the_smoothed_image(guide):
    kernel = make_2dgaussian_kernel(3.0, size=5)
    found = SourceCatalog(guide.data, guide.labels, kernel=kernel)
    for name in ("x_centroid", "y_centroid", "semimajor_axis"):
        np.testing.assert_allclose(found[name], guide.catalog[name], rtol=1e-6)
    with pytest.raises(ValueError, match="`kernel`"):
        SourceCatalog(guide.data, guide.labels, kernel=kernel, convolved_data=guide.convolved)
