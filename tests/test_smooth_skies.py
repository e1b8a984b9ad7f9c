"""Clipped statistics, cells and the smooth surfaces through them."""

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from diffdeblend.background import (
    CellSurface,
    ChebyshevSurface,
    SurfaceFit,
    cell_levels,
    clipped_statistics,
    total_background,
)

KINDS = ("chebyshev", "akima", "cubic", "linear")


def clipped_slowly(values, sigma=3.0, rounds=3):
    """The rule, line by line."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    centre, half = middle, sigma * 0.741301109252802 * (high - low)
    for _ in range(rounds):
        kept = values[np.abs(values - centre) <= half]
        centre, half = kept.mean(), sigma * kept.std(ddof=1)
    return centre, half / sigma, kept.size


@pytest.mark.parametrize("kind", ["normal", "wild", "skewed"])
def test_clipping_follows_its_rule(kind):
    random = np.random.default_rng(3)
    values = random.normal(100.0, 3.0, 20_001)
    if kind == "wild":
        values[:700] = 1e7
    if kind == "skewed":
        values[:1000] += random.exponential(60.0, 1000)
    found = clipped_statistics(values)
    assert found == pytest.approx(clipped_slowly(values), rel=1e-9)
    single = clipped_statistics(values.astype(np.float32).reshape(59, 339))
    assert single == pytest.approx(clipped_slowly(values), rel=1e-5)


def test_clipped_scatter_of_a_gaussian():
    values = np.random.default_rng(10).normal(size=1_000_000)
    found = clipped_statistics(values)
    assert abs(found.mean) < 0.003
    assert 0.980 < found.std < 0.990
    assert clipped_statistics(values, unbias=True).std == pytest.approx(values.std(), abs=1e-3)


def test_clipping_leaves_out_what_is_masked_or_odd():
    random = np.random.default_rng(4)
    values = random.normal(size=(40, 50))
    mask = np.zeros(values.shape, bool)
    mask[:20, 30:] = True
    values[mask] += 3
    values[30, ::7] = np.nan
    values[31, ::9] = np.inf
    good = ~mask & np.isfinite(values)
    assert clipped_statistics(values, mask) == pytest.approx(clipped_slowly(values[good]))
    nothing = clipped_statistics(values, np.ones_like(mask))
    assert np.isnan(nothing.mean)
    assert nothing.n == 0
    with pytest.raises(ValueError, match="`mask` needs booleans"):
        clipped_statistics(values, mask.T)
    with pytest.raises(ValueError, match="`rounds` must be"):
        clipped_statistics(values, rounds=0)


def test_cells_are_even_and_clipped_one_by_one():
    random = np.random.default_rng(5)
    image = random.normal(size=(130, 211)).astype(np.float32)
    hidden = random.random(image.shape) < 0.2
    hidden[:33, :53] = True
    cells = cell_levels(image, hidden, 50)
    assert np.diff(cells.edges_y).tolist() == [43, 43, 44]
    assert np.diff(cells.edges_x).tolist() == [42, 42, 42, 42, 43]
    assert cells.shape == image.shape
    part = np.s_[43:86, 84:126]
    slow = clipped_slowly(image[part][~hidden[part]].astype(float))
    assert (cells.level[1, 2], cells.std[1, 2], cells.n[1, 2]) == pytest.approx(slow, abs=1e-6)
    assert cells.n_used[0, 0] == np.count_nonzero(~hidden[:43, :42])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 500), (40, 500), (70, 30)])
def test_a_plane_is_met_without_noise(kind, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = (1000 + 0.02 * x - 0.01 * y).astype(np.float32)
    model = SurfaceFit(64, kind, ignored=())(plane)
    assert model.image().dtype == np.float32
    # The tilt within a cell is all that a single cell along an axis cannot see.
    lost = sum(s * n / 2 for s, n in zip((0.01, 0.02), shape, strict=True) if n <= 64)
    assert np.abs(model.image() - plane).max() < 1e-4 * np.ptp(plane) + 1.01 * lost + 2e-4


def test_akima_is_that_of_scipy_between_the_middles():
    levels = np.random.default_rng(6).normal(size=(6, 8))
    y, x = np.arange(6) * 20 + 9.5, np.arange(8) * 15.0 + 7
    found = CellSurface(levels, y, x, (120, 120)).image()
    along = Akima1DInterpolator(y, levels, axis=0)(np.arange(10, 109))
    expected = Akima1DInterpolator(x, along, axis=1)(np.arange(7, 112))
    assert found[10:109, 7:112] == pytest.approx(expected, abs=1e-5)
    # Outside it goes on straight, here along the nodes of a column.
    step = found[1, 7] - found[0, 7]
    assert found[:8, 7] == pytest.approx(found[0, 7] + np.arange(8) * step, abs=1e-5)


def test_polynomials_see_the_mean_of_a_cell():
    u = np.linspace(-1, 1, 1024)
    parabola = 10 * np.broadcast_to(u[:, None] ** 2, (1024, 300))
    model = SurfaceFit(128, degree=6)(parabola)
    assert isinstance(model, ChebyshevSurface)
    assert np.abs(model.image() - parabola).max() < 0.005


@pytest.fixture(scope="module")
def field_with_sky():
    return made_field_with_sky(100)


def made_field_with_sky(seed):
    galsim = pytest.importorskip("galsim")
    random = np.random.default_rng(seed)
    n = 1024
    image = galsim.Image(np.zeros((n, n), np.float32), xmin=0, ymin=0)
    mask = np.zeros((n, n), bool)
    y, x = np.mgrid[:n, :n]
    for k in range(300):
        flux, cx, cy = 10 ** random.uniform(2, 4.5), *random.uniform(0, n, 2)
        half = 2.0 if k % 2 else random.uniform(1.5, 4)
        shape = galsim.Moffat(3, half_light_radius=half) if k % 2 else galsim.Exponential(1.0)
        profile = shape.withFlux(flux) if k % 2 else shape.dilate(half).withFlux(flux)
        stamp = profile.drawImage(nx=61, ny=61, scale=1, method="no_pixel")
        stamp.setCenter(round(cx), round(cy))
        box = stamp.bounds & image.bounds
        image[box] += stamp[box]
        radius = min(30, 6 * half + 2 * np.log10(flux))
        near = np.s_[max(int(cy) - 31, 0) : int(cy) + 32, max(int(cx) - 31, 0) : int(cx) + 32]
        mask[near] |= (x[near] - cx) ** 2 + (y[near] - cy) ** 2 < radius**2
    u, v = 2 * x / (n - 1) - 1, 2 * y / (n - 1) - 1
    sky = 10 * (0.3 * u - 0.2 * v + 0.6 * u**2 - 0.4 * u * v + 0.3 * v**2)
    noise = random.normal(size=(n, n))
    return (image.array + sky + noise).astype(np.float32), mask, sky


@pytest.mark.parametrize(("kind", "limit"), [("chebyshev", 0.05), ("akima", 0.1)])
def test_sky_between_sources(kind, limit, field_with_sky):
    image, mask, sky = field_with_sky
    found = SurfaceFit(128, kind)(image, mask).image()
    assert np.sqrt(np.mean((found - sky) ** 2)) < limit


def test_a_list_of_models_gives_the_image_back():
    image = np.random.default_rng(8).normal(500, 3, (200, 260)).astype(np.float32)
    left, models = image, []
    for fit in (SurfaceFit(64, "akima"), SurfaceFit(128), SurfaceFit(64, "cubic")):
        models.append(fit(left))
        left = left - models[-1].image()
    assert abs(left.mean()) < 0.1
    assert np.abs(left + total_background(models) - image).max() <= 4 * np.spacing(np.float32(500))
    assert not total_background((), (3, 4)).any()
    with pytest.raises(ValueError, match="of one shape"):
        total_background(models, (3, 4))


def test_cells_with_few_pixels_take_the_level_of_others():
    image = np.full((300, 300), 5.0, np.float32)
    image[100:200, 100:200] = 1e4
    hidden = image > 100
    hidden[150, 150] = False
    for kind in KINDS[1:]:
        assert SurfaceFit(100, kind)(image, hidden).image() == pytest.approx(5.0)


def test_no_sky_at_all_is_an_error():
    image = np.ones((20, 30))
    with pytest.raises(ValueError, match="no sky to measure"):
        SurfaceFit()(image, np.ones((20, 30), bool))
    with pytest.raises(ValueError, match="no sky to measure"):
        SurfaceFit(kind="akima")(np.full((20, 30), np.nan))
    with pytest.raises(ValueError, match="`bin_size` must be"):
        SurfaceFit(0)
    with pytest.raises(ValueError, match="`kind` must be"):
        SurfaceFit(kind="quintic")  # type: ignore[arg-type]
