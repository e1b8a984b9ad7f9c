"""Images and stamps on which something is wrong go through every step, and say so."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty, one_size
from scipy.ndimage import label

from diffdeblend.background import estimate_background, stamp_background
from diffdeblend.measure import SourceCatalog, decode_flags, measure_stamps
from diffdeblend.segment import (
    LabelImage,
    deblend_sources,
    deblend_stamps,
    denclue_deblend,
    detect_sources,
    detect_stamps,
    glw_deblend,
    smooth,
)

SHAPE, SLOTS = (40, 36), 4


@pytest.fixture(autouse=True)
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


def blend():
    """Two sources that touch, off the middle, one at the border, on noise."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.random.default_rng(3).normal(0, 1, SHAPE)
    for height, x0, y0 in ((90.0, 12.3, 14.8), (60.0, 18.9, 16.2), (70.0, 34.2, 33.0)):
        image += height * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 9)
    return image


def odd(kind):
    """An image and its mask."""
    image, mask = blend(), np.zeros(SHAPE, bool)
    if kind == "not finite":
        image[13:16, 10:13], image[16, 19], image[33, 35] = np.nan, np.inf, -np.inf
    elif kind == "all NaN":
        image[:] = np.nan
    elif kind == "all masked":
        mask[:] = True
    elif kind == "nothing":
        image[:] = 0
    elif kind == "one pixel":
        image = np.zeros(SHAPE)
        image[39, 0] = 50.0
    elif kind == "saturated":
        image = np.minimum(image, 25.0)
    elif kind == "negative":
        image = -np.abs(image) - 5
    elif kind == "crowded":
        image[2::5, 2::5] += 300.0
    return image, mask


KINDS = (
    *("fine", "not finite", "all NaN", "all masked", "nothing", "one pixel", "saturated"),
    *("negative", "crowded"),
)
STACK, MASK = (np.stack(v) for v in zip(*map(odd, KINDS), strict=True))
N_SOURCES = {
    kind: label((image > 5) & ~mask, np.ones((3, 3)))[1]
    for kind, image, mask in zip(KINDS, STACK, MASK, strict=True)
}
assert N_SOURCES["crowded"] > 40


@pytest.mark.parametrize("kind", KINDS)
def test_images_go_through_every_step(kind):
    image, mask = odd(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if kind in ("all NaN", "all masked"):
            with pytest.raises(ValueError, match=r"`mask`|`data`"):
                estimate_background(image, 20, mask=mask)
        else:
            sky = estimate_background(image, 20, mask=mask, exclude_percentile=90)
            assert np.isfinite(sky.background).all()
            assert np.isfinite(sky.background_rms).all()
        found = detect_sources(image, 5.0, 1, mask=mask)
        assert found.n_labels == N_SOURCES[kind]
        assert not found.data[mask | ~(image > 5)].any()
        parts = deblend_sources(image, found, 1)
        for labels in (
            parts,
            denclue_deblend(image, found).labels,
            glw_deblend(image, found),
        ):
            np.testing.assert_array_equal(labels.data > 0, found.data > 0)
            assert labels.n_labels >= found.n_labels
    error = np.ones(SHAPE)
    table = SourceCatalog(image, parts, error=error, mask=mask).to_table()
    assert len(table) == parts.n_labels
    assert np.isfinite(table["segment_flux"]).all()
    if kind in ("fine", "saturated"):
        assert np.isfinite(table["kron_flux"]).all()


def test_segments_without_light_or_pixels_are_flagged():
    """Labels that came from elsewhere: over nothing, dark sky, masked pixels."""
    given = np.zeros(SHAPE, np.int32)
    given[10:20, 8:24], given[30:37, 30:36] = 1, 2
    for kind in KINDS:
        image, mask = odd(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            whole = deblend_sources(image, LabelImage(given), 5)
            denclue = denclue_deblend(image, given)
        np.testing.assert_array_equal(whole.data > 0, given > 0)
        np.testing.assert_array_equal(denclue.labels.data > 0, given > 0)
        assert np.isfinite(denclue.sources.attractor_x).all()
        found = SourceCatalog(image, LabelImage(given), error=np.ones(SHAPE), mask=mask)
        flags = [set(one) for one in decode_flags(found.flags)]
        dark = kind in ("all NaN", "all masked", "nothing", "negative", "one pixel")
        for row in range(2):
            assert ("undefined_shape" in flags[row]) == dark
            assert np.isnan(found.x_centroid[row]) == dark
            assert np.isnan(found.kron_flux[row]) == dark
            assert ("all_masked" in flags[row]) == (kind in ("all NaN", "all masked"))
            assert ("non_finite_data" in flags[row]) == (kind in ("all NaN", "not finite"))
        assert "edge_touch" in flags[1]


@pytest.mark.parametrize("backend", ["host", pytest.param("jax", marks=pytest.mark.slow)])
def test_stamps_go_through_every_step(backend):
    stack = STACK.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        convolved = np.asarray(smooth(stack, np.ones((3, 3)), mask=MASK, backend=backend))
        found = detect_stamps(stack, 5.0, 1, mask=MASK, backend=backend)
        parts = deblend_stamps(stack, found.labels, 1, backend=backend)
    assert dict(zip(KINDS, found.n_labels.tolist(), strict=True)) == N_SOURCES
    assert convolved.shape == stack.shape
    np.testing.assert_array_equal(parts.labels > 0, found.labels > 0)
    table = measure_stamps(
        *(stack, parts.labels),
        error=np.ones_like(stack),
        mask=MASK,
        max_sources=SLOTS,
        backend=backend,
    )
    number = np.asarray(parts.n_labels)
    np.testing.assert_array_equal(table.overflow, number > SLOTS)
    np.testing.assert_array_equal(table.has, np.arange(SLOTS) < number[:, None])
    assert np.asarray(table.overflow).tolist() == [kind == "crowded" for kind in KINDS]
    flux = np.asarray(table.columns["segment_flux"])
    np.testing.assert_array_equal(np.isfinite(flux), table.has)
    for name, values in table.columns.items():
        if np.asarray(values).dtype.kind == "f":
            assert np.isnan(np.asarray(values)[~np.asarray(table.has)]).all(), name
    bits = decode_flags(np.asarray(table.columns["flags"])[KINDS.index("one pixel"), 0])
    assert {"singular_covariance", "edge_touch"} <= set(bits)


def test_the_sky_of_stamps_on_the_device():
    good = ~MASK & np.isfinite(STACK)
    run = jax.jit(jax.vmap(lambda data, good: stamp_background(data, good, (20, 18))))
    found = run(jnp.asarray(STACK, jnp.float32), good)
    known = [np.isfinite(one).all() for one in np.asarray(found.background)]
    assert known == [kind not in ("all NaN", "all masked") for kind in KINDS]
