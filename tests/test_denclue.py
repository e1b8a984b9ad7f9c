"""Attractors: against a plain loop, closed forms, finite differences, and each other's forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asterism_scene import noisy_scene
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import label

from diffdeblend.segment.attractors import find_laplace_maxima, find_targets, merge_attractors
from diffdeblend.segment.dbscan import dbscan_segments
from diffdeblend.segment.denclue import attractor_position, climb
from diffdeblend.segment.density_kernels import KERNELS, kernel_radius
from diffdeblend.segment.grid_ascent import climb_grid, climb_stamp
from diffdeblend.segment.members import (
    cluster_radii,
    find_members,
    influence_radius,
    kernel_width,
)

PLAIN = {
    "gauss": lambda u: np.exp(-0.5 * u**2),
    "uniform": lambda u: (u <= 1) * 1.0,
    "logistic": lambda u: 4 / (np.exp(u) + 2 + np.exp(-u)),
    "epanechnikov": lambda u: np.maximum(1 - u**2, 0),
}


def two_blobs(seed=0, shape=(17, 26)):
    """Light and one cluster off the corner: two Gaussians 9 pixels apart, with noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 6 * np.exp(-((x - 8.3) ** 2 + (y - 7.2) ** 2) / 8)
    light += 4 * np.exp(-((x - 16.9) ** 2 + (y - 9.8) ** 2) / 6)
    light += np.random.default_rng(seed).normal(0, 0.05, shape)
    return light, label(light > 0.4)[0].astype(np.int32)


def members_of(light, labels, dtype=np.float64):
    members = find_members(light[None].astype(dtype), labels[None])
    return members.take(np.flatnonzero(members.sizes >= 9))


def climb_all(members, h, radius, **options):
    return climb(
        members, members.group, members.x, members.y, np.array([h]), np.array([radius]), **options
    )


def plain_climb(members, kernel, h, radius, eps):
    """The mean shift of every pixel, one by one."""
    px, py, w = members.x, members.y, members.light
    ends = []
    for x, y in zip(px.astype(float), py.astype(float), strict=True):
        for _ in range(600):
            d = np.hypot(px - x, py - y)
            k = w * PLAIN[kernel](d / h) * (d <= radius)
            nx, ny = (k * px).sum() / k.sum(), (k * py).sum() / k.sum()
            step = np.hypot(nx - x, ny - y)
            x, y = nx, ny
            if step < eps:
                break
        ends.append((x, y))
    return np.array(ends).T


def test_printed_widths_and_radii():
    """The numbers that ASTErIsM's tutorial prints for its three clusters."""
    r_cluster = np.array([9.10082669322, 4.66908942296, 2.40607019623])
    r_max = np.array([16.8050178165, 8.69104489385, 4.11627970058])
    h = kernel_width(r_cluster, r_max, 0.1, 1.0)
    assert_allclose(h, [1.91110876276, 1.0, 1.0], rtol=1e-10)
    assert_allclose(influence_radius("gauss", h, r_max)[:2], [9.19206967, 4.80980981], rtol=1e-8)
    assert_allclose(kernel_width(r_cluster, r_max, 0.1, 1.0, 1.5)[0], 1.5)
    assert_allclose(influence_radius("gauss", h, r_max, R_max_frac=0.5), r_max / 2)


def test_scales_of_a_rectangle():
    labels = np.zeros((2, 12, 19), np.int32)
    labels[0, 2:7, 3:15] = 4
    labels[1, 9, 1] = 2
    members = find_members(np.ones(labels.shape), labels)
    r_cluster, r_max = cluster_radii(members)
    variance = (12**2 - 1 + 5**2 - 1) / 12 * 60 / 59
    assert_allclose(r_cluster, [np.sqrt(variance), 0])
    assert_allclose(r_max, [np.hypot(5.5, 2), 0])
    assert_array_equal(members.stamp, [0, 1])
    assert_array_equal(members.label, [4, 2])


@pytest.mark.parametrize("kernel", PLAIN)
def test_kernels_and_where_they_end(kernel):
    u = np.linspace(0, 6, 50)
    assert_allclose(KERNELS[kernel](jnp.asarray(u) ** 2), PLAIN[kernel](u), atol=1e-6)
    slope = jax.grad(lambda v: KERNELS[kernel](v**2))(0.0)
    assert np.isfinite(slope)
    if kernel != "uniform":
        assert_allclose(PLAIN[kernel](kernel_radius(kernel, 0.01)), 0.01, rtol=1e-6)
    assert_allclose(kernel_radius("uniform", 0.01), 1)


@pytest.mark.parametrize(
    ("kernel", "h", "radius"),
    [("gauss", 1.3, 99.0), ("gauss", 1.3, 2.6), ("uniform", 3.1, 3.1), ("logistic", 0.8, 9.0),
     ("epanechnikov", 3.1, 3.1)],
)  # fmt: skip
def test_plain_steps_are_those_of_a_loop(kernel, h, radius, x64):
    members = members_of(*two_blobs())
    options = {"kernel": kernel, "eps": 1e-4, "speed_up": False}
    found = climb_all(members, h, radius, **options)
    x, y = plain_climb(members, kernel, h, radius, 1e-4)
    assert found.converged.all()
    assert np.ptp(x) > 6
    # Without an end the loop sums what is cut off here, and the other way round.
    assert_allclose(found.x, x, atol=1e-6)
    assert_allclose(found.y, y, atol=1e-6)


def test_longer_steps_come_to_the_same_attractors(precision):
    members = members_of(*two_blobs(1), dtype=precision)
    plain = climb_all(members, 1.3, 99.0, eps=1e-5, speed_up=False)
    fast = climb_all(members, 1.3, 99.0)
    assert fast.converged.all()
    assert fast.n_rounds < plain.n_rounds
    assert_allclose(fast.x, plain.x, atol=2e-3)
    assert_allclose(fast.y, plain.y, atol=2e-3)


def test_a_lookup_table_is_the_kernel():
    members = members_of(*two_blobs())
    exact = climb_all(members, 1.3, 6.0, speed_up=False)
    table = climb_all(members, 1.3, 6.0, k_table_size=3000)
    coarse = climb_all(members, 1.3, 6.0, k_table_size=12)
    assert np.hypot(table.x - exact.x, table.y - exact.y).max() < 0.02
    assert np.hypot(coarse.x - exact.x, coarse.y - exact.y).max() > 0.02


def test_density_grows_along_paths():
    members = members_of(*two_blobs())
    found = climb_all(members, 1.3, 99.0, paths=True)
    assert_array_equal(found.path_x[0], members.x)
    assert_array_equal(found.path_y[-1], found.y)
    d = (found.path_x[..., None] - members.x) ** 2 + (found.path_y[..., None] - members.y) ** 2
    density = (np.exp(-0.5 * d / 1.3**2) * members.light).sum(-1)
    assert np.diff(density, axis=0).min() > -1e-5 * density.max()


def test_the_second_batch_compiles_nothing(compilations):
    def run(seed):
        light, labels = two_blobs(seed)
        members = members_of(light, labels, np.float32)
        h, radius = np.array([1.2]), np.array([9.0])
        top = climb_grid(members, h)
        return climb(members, members.group, members.x, members.y, h, radius), top

    run(0)
    compilations.clear()
    run(7)
    assert not compilations


def test_grid_ascent_on_the_device_and_on_the_host(x64):
    lights, labels = zip(*(two_blobs(seed) for seed in range(4)), strict=True)
    light, one = np.stack(lights), np.stack([found == 1 for found in labels])
    h = np.array([0.7, 1.0, 1.4, 2.5])
    device = np.asarray(jax.jit(jax.vmap(climb_stamp))(light, one, h))
    members = find_members(light, one.astype(np.int32))
    top = climb_grid(members, h)
    place = members.stamp[members.group], members.y, members.x
    expected = np.full(light.shape, -1)
    expected[place] = members.y[top] * light.shape[2] + members.x[top]
    assert_array_equal(device, expected)
    # A top is its own top, and as high as can be.
    assert_array_equal(top[top], top)
    assert len(np.unique(top)) > 5


def test_level_ground_goes_to_its_first_pixel():
    light = np.zeros((6, 9))
    labels = np.zeros((6, 9), np.int32)
    labels[1:5, 2:8] = 1
    members = find_members(light[None], labels[None])
    assert_array_equal(climb_grid(members, np.array([1.0])), 0)
    inside = jnp.asarray(labels > 0)
    top = np.asarray(jax.jit(climb_stamp)(jnp.asarray(light), inside, 1.0))
    assert set(top[labels > 0]) == {1 * 9 + 2}


def test_grid_ascent_agrees_with_the_climb():
    """At least 98 % of the pixels of blends, on seeds that no setting was chosen on."""
    same = []
    for seed in range(6):
        image = noisy_scene(seed).image
        clusters = dbscan_segments(image, 0.37).labels.data
        members = find_members(image[None], clusters[None])
        members = members.take(np.argsort(members.sizes)[-1:])
        h = kernel_width(*cluster_radii(members), 0.1)
        exact = climb(members, members.group, members.x, members.y, h, 5 * h)
        top = climb_grid(members, h)
        far = np.hypot(members.x[top] - exact.x, members.y[top] - exact.y)
        same.append(far < 2)
    assert np.concatenate(same).mean() > 0.98


def test_slope_of_an_attractor(x64):
    """By implicit differentiation, against finite differences of the converged climb."""
    light, labels = two_blobs()
    light = np.where(labels == labels[7, 8], np.maximum(light, 0), 0)
    start = jnp.array([6.0, 19.0]), jnp.array([8.0, 10.0])
    place = partial(attractor_position, x=start[0], y=start[1])

    def total(values, h):
        x, y = place(values, h=h)
        return x[0] - 2 * y[0] + 3 * x[1] + 0.5 * y[1]

    both = jax.jit(jax.value_and_grad(total, (0, 1)))
    slope, slope_h = both(light, 1.3)[1]
    assert np.isfinite(slope).all()
    for y, x in ((7, 5), (9, 17), (8, 12), (7, 8)):
        step = np.zeros(light.shape)
        step[y, x] = 1e-5
        by_hand = (both(light + step, 1.3)[0] - both(light - step, 1.3)[0]) / 2e-5
        assert_allclose(slope[y, x], by_hand, rtol=1e-6, atol=1e-9)
    by_hand = (both(light, 1.3 + 1e-5)[0] - both(light, 1.3 - 1e-5)[0]) / 2e-5
    assert_allclose(slope_h, by_hand, rtol=1e-6)
    nothing = both(np.zeros(light.shape), 1.3)[1]
    assert_array_equal(nothing[0], 0)


def row_of_pixels(n):
    """Members that are one row of `n` pixels of light 1."""
    return find_members(np.ones((1, 1, n)), np.ones((1, 1, n), np.int32))


def test_attractors_in_no_group_join_the_nearest():
    members = row_of_pixels(12)
    x = np.array([1, 1.5, 2, 2.5, 4.4, 5.9, 8, 8.2, 8.4, 8.6, 8.8, 11.0])
    found = merge_attractors(members, members.group, x, np.zeros(12), np.arange(12))
    assert_array_equal(found.of_pixel, [0] * 5 + [1] * 7)
    # Those that only joined have no part in the mean.
    assert_allclose(found.x, [1.75, 8.4])
    alone = merge_attractors(members, members.group, x, np.zeros(12), np.arange(12), K=6)
    assert_array_equal(alone.of_pixel, 0)
    silent = merge_attractors(
        members, members.group, x, np.zeros(12), np.arange(12), left_out=x < 3
    )
    assert_array_equal(silent.of_pixel, 0)
    assert_allclose(silent.x, 8.4)


def test_pixels_share_attractors():
    """A few attractors with many pixels each weigh as many."""
    members = row_of_pixels(10)
    of_pixel = np.array([1, 1, 1, 1, 2, 0, 0, 0, 0, 0])
    group, x = np.zeros(3, int), np.array([8.0, 2.0, 5.5])
    found = merge_attractors(members, group, x, np.zeros(3), of_pixel)
    assert_array_equal(found.of_pixel, [0] * 4 + [1] * 6)
    assert_allclose(found.x, [2.0, 8.0])


def test_targets_are_maxima_and_a_mesh():
    light, labels = two_blobs()
    members = members_of(light, labels)
    maxima = find_laplace_maxima(members)
    assert_array_equal(members.x[maxima], [8, 17])
    assert_array_equal(members.y[maxima], [7, 10])
    targets = find_targets(members, h_grid=4)
    rest = np.setdiff1d(targets, maxima)
    brightest = np.argmax(members.light)
    rest = rest[rest != brightest]
    assert_array_equal((members.x[rest] - members.x.min()) % 4, 0)
    assert_array_equal((members.y[rest] - members.y.min()) % 4, 0)
    on_mesh = (members.x - members.x.min()) % 4 + (members.y - members.y.min()) % 4 == 0
    assert np.isin(np.flatnonzero(on_mesh), targets).all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: climb_all(m, 1.0, 9.0, kernel="cosine"), "`kernel`"),
        (lambda m: climb_all(m, 1.0, 9.0, eps=0.0), "`eps`"),
        (lambda m: climb_all(m, 1.0, 9.0, k_table_size=1), "`k_table_size`"),
        (lambda m: climb_all(m, 1.0, 9.0, max_steps=0), "`max_steps`"),
        (lambda m: kernel_width(1.0, 1.0, -0.1), "`h_frac`"),
        (lambda m: kernel_width(1.0, 1.0, h_min=0.0), "`h_min`"),
        (lambda m: kernel_width(1.0, 1.0, h_max=0.5), "`h_max`"),
        (lambda m: influence_radius("gauss", 1.0, 1.0, 0.5, 0.1), "exclude each other"),
        (lambda m: influence_radius("gauss", 1.0, 1.0, 0.0), "`R_max_frac`"),
        (lambda m: influence_radius("gauss", 1.0, 1.0, None, 1.0), "`R_max_kern_th`"),
        (lambda m: find_targets(m, h_grid=0), "`h_grid`"),
        (lambda m: find_targets(m, sigma=0), "`sigma`"),
        (lambda m: find_targets(m, gl_th_rel=1.0), "`gl_th_rel`"),
    ],
)
def test_wrong_arguments_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call(members_of(*two_blobs()))
