"""Catalogues of many stamps: the host's and the device's are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crowded import crowded_field
from scipy.ndimage import gaussian_filter, label

from diffdeblend.measure import SourceCatalog, measure_stamps
from diffdeblend.segment.labels import LabelImage


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


def test_stamps_are_measured_as_images_are(stamps, x64):
    data, labels, convolved, error = stamps
    more = {"convolved_data": convolved, "error": error, "max_sources": 4}
    host = measure_stamps(data, labels, backend="host", **more)
    device = measure_stamps(data, labels, backend="jax", **more)
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
            data[i], LabelImage(labels[i]), convolved_data=convolved[i], error=error[i]
        )
        n = min(number[i], 4)
        for name, values in host.columns.items():
            np.testing.assert_allclose(values[i, :n], one[name][:n], rtol=1e-9, err_msg=name)
            if values.dtype.kind == "f":
                assert np.isnan(values[i, n:]).all()


def test_fluxes_and_centroids_have_derivatives(stamps, x64):
    data, labels = (part[:3] for part in stamps[:2])

    def total(values):
        found = measure_stamps(values, labels, backend="jax", max_sources=4).columns
        fluxes = jnp.where(jnp.isnan(found["kron_flux"]), 0, found["kron_flux"])
        places = jnp.where(jnp.isnan(found["x_centroid"]), 0, found["x_centroid"])
        return jnp.sum(fluxes) + 100 * jnp.sum(places)

    value, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(data))
    assert np.isfinite(slope).all()
    run = jax.jit(total)
    assert run(data) == pytest.approx(float(value))
    rng = np.random.default_rng(2)
    change = rng.normal(size=data.shape)
    step = 1e-4
    finite = (run(data + step * change) - run(data - step * change)) / (2 * step)
    assert np.sum(slope * change) == pytest.approx(float(finite), rel=1e-6)


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
