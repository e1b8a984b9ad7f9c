"""Catalogues of many stamps: the host's and the device's are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crowded import crowded_field
from quick import hasty, one_size
from scipy.ndimage import gaussian_filter, label

from diffdeblend.measure import FLAGS, SourceCatalog, measure_stamps
from diffdeblend.segment.components import connected_components
from diffdeblend.segment.deblend_stamp import deblend_stamp
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.smooth import smooth_stamp
from diffdeblend.segment.split import Settings


@pytest.fixture(autouse=True)
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


@pytest.fixture(scope="module")
def stamps():
    """Four stamps that are not square, one without a source."""
    field = crowded_field((80, 72), 30, seed=4).astype(float) - 1003
    field[40:, 36:] = np.random.default_rng(1).normal(0, 1, (40, 36))
    parts = [field[y : y + 40, x : x + 36] for y in (0, 40) for x in (0, 36)]
    convolved = [gaussian_filter(part, 1.3) for part in parts]
    labels = []
    for part in convolved:
        found, _ = label(part > 60)
        found[(np.bincount(found.ravel()) < 5)[found]] = 0
        labels.append(LabelImage(found.astype(np.int32)).relabel_consecutive().data)
    data, labels = np.stack(parts), np.stack(labels)
    return data, labels, np.stack(convolved), np.sqrt(np.maximum(data, 0) + 1000)


def measured(stamps, backend, rows=slice(None), **change):
    """Everything given, always of the same kinds: one program for all tests."""
    data, labels, convolved, error = stamps
    more = {"convolved_data": convolved, "error": error, "mask": np.zeros(data.shape, bool)}
    more = {"data": data, "labels": labels} | more | change
    more = {name: value[rows] for name, value in more.items()}
    return measure_stamps(**more, max_sources=4, backend=backend)


@pytest.mark.slow
def test_stamps_are_measured_as_images_are(stamps, x64, compilations):
    data, labels, convolved, error = stamps
    host, device = (measured(stamps, backend) for backend in ("host", "jax"))
    number = labels.max(axis=(1, 2))
    assert number.min() == 0
    assert number.max() > 4
    for found in (host, device):
        np.testing.assert_array_equal(found.overflow, number > 4)
        np.testing.assert_array_equal(found.has, np.arange(4) < number[:, None])
    for name, values in host.columns.items():
        np.testing.assert_allclose(device.columns[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
    for i in range(4):
        one = SourceCatalog(
            data[i],
            LabelImage(labels[i]),
            convolved_data=convolved[i],
            error=error[i],
            mask=np.zeros(data[i].shape, bool),
        )
        n = min(number[i], 4)
        for name, values in host.columns.items():
            np.testing.assert_allclose(values[i, :n], one[name][:n], rtol=1e-9, err_msg=name)
            if values.dtype.kind == "f":
                assert np.isnan(values[i, n:]).all()
    # Neither other content nor other companions make a difference to a stamp, or a new program.
    compilations.clear()
    turned = [measured(stamps, backend, slice(None, None, -1)) for backend in ("host", "jax")]
    assert not compilations
    for before, after in zip((host, device), turned, strict=True):
        for name, values in before.columns.items():
            same = np.asarray(after.columns[name])[::-1]
            np.testing.assert_array_equal(same, np.asarray(values), err_msg=name)


def test_what_is_wrong_is_the_same_on_the_device(stamps, x64):
    data, labels, _, error = stamps
    rng = np.random.default_rng(7)
    data, error = data.copy(), error.copy()
    data[rng.random(data.shape) < 0.004] = np.nan
    error[rng.random(data.shape) < 0.004] = np.nan
    mask = rng.random(data.shape) < 0.01
    change = {"data": data, "error": error, "mask": mask}
    host, device = (measured(stamps, backend, **change).columns for backend in ("host", "jax"))
    # Of what is in apertures, a device tells less.
    bits = sum(bit for name, bit in FLAGS.items() if not name.startswith("kron"))
    np.testing.assert_array_equal(device["flags"] & bits, host["flags"] & bits)
    for name in ("masked_pixels", "non_finite_data", "non_finite_error"):
        assert (
            0 < np.count_nonzero(host["flags"] & FLAGS[name]) < (labels.max((1, 2)) > 0).sum() * 4
        )
    for name in (
        "x_centroid",
        "area",
        "segment_flux",
        "segment_flux_err",
        "max_value",
        "kron_flux",
    ):
        np.testing.assert_allclose(device[name], host[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_a_batch_is_the_loop_over_its_stamps(stamps, precision):
    stamps = [part if part.dtype == np.int32 else part.astype(precision) for part in stamps]
    together = measured(stamps, "jax").columns
    for i in range(4):
        alone = measured(stamps, "jax", slice(i, i + 1)).columns
        for name, values in alone.items():
            # Sums in another order.
            rtol = 0 if values.dtype.kind == "i" else 100 * np.finfo(precision).eps
            np.testing.assert_allclose(values[0], together[name][i], rtol=rtol, err_msg=name)


def test_programs_for_devices_do_not_call_the_host(stamps):
    data = jnp.asarray(stamps[0][0])

    def chain(data):
        smoothed = smooth_stamp(data, (jnp.ones(3), jnp.ones(3)))
        found, n = connected_components(smoothed > 60, 8)
        parts = deblend_stamp(smoothed, found, Settings(5))
        return measure_stamps(data[None], parts.labels[None], backend="jax", max_sources=4), n

    assert "callback" not in str(jax.make_jaxpr(chain)(data))


@pytest.mark.slow
def test_fluxes_and_centroids_have_derivatives(stamps, x64):
    # The last stamp is empty, as are some slots of others.
    data, labels = (part[1:] for part in stamps[:2])
    n_sources = labels.max(axis=(1, 2))
    assert n_sources.min() == 0

    @jax.jit
    @jax.value_and_grad
    def total(values, weight_of_flux, weight_of_place):
        found = measure_stamps(values, labels, backend="jax", max_sources=4)
        fluxes = jnp.where(found.has, found.columns["kron_flux"], 0)
        places = jnp.where(found.has, found.columns["x_centroid"], 0)
        slots = jnp.arange(1.0, 5)
        return jnp.sum(slots * (weight_of_flux * fluxes + weight_of_place * places))

    rng = np.random.default_rng(2)
    change, step = rng.normal(size=data.shape), 1e-4
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        value, slope = total(data, *weights)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
        ahead, behind = (total(data + sign * step * change, *weights)[0] for sign in (1, -1))
        finite = float(ahead - behind) / (2 * step)
        assert np.sum(slope * change) == pytest.approx(finite, rel=1e-6)
    assert not np.asarray(slope)[n_sources == 0].any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"backend": "gpu"}, "`backend`"),
        ({"max_sources": 0}, "`max_sources`"),
        ({"error": np.ones((2, 3))}, "`error`"),
        ({"kron_params": (1, 2, 3, 4)}, "`kron_params`"),
    ],
)
def test_bad_settings_are_named(stamps, change, named):
    with pytest.raises(ValueError, match=named):
        measure_stamps(*stamps[:2], **change)
