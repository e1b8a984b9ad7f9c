"""Forced photometry over epochs against what was put into them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy import units
from astropy.table import QTable
from quick import hasty

from diffdeblend import KolmogorovPSF, PointSource, Scene, Sersic, make_exposure, render
from diffdeblend.grid import fine
from diffdeblend.subtract.difference import Difference
from diffdeblend.transients import forced_epochs, light_curve, mean_position

SHAPE = (60, 95)
F_D = 0.2


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def gaussian(sigma, size=21, dx=0.0, dy=0.0):
    y, x = np.mgrid[:size, :size] - size // 2.0
    image = np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * sigma**2))
    return image / image.sum()


def difference(image, sigma, bad=None, noise=1.0, date=None):
    """A difference that is `image`, with a PSF so wide and so much noise above white."""
    psf = gaussian(sigma)
    norm = F_D**2 * (psf**2).sum()
    maps = np.ones((5, 1, *SHAPE), np.float32)
    one = jnp.ones(1)
    return Difference(
        make_exposure(image, 1.0, psf, date=date),
        *(jnp.asarray(m) for m in maps[:3]),
        jnp.asarray(maps[3] * noise / np.sqrt(norm)),
        jnp.zeros((1, *SHAPE), bool) if bad is None else jnp.asarray(bad)[None],
        *(one * v for v in (0.8, 0, 0, 0, F_D, norm)),
    )


def test_fluxes_are_those_put_in_and_errors_their_scatter():
    rng = np.random.default_rng(0)
    widths, levels = (1.2, 1.9, 1.5), np.array([0.0, 300.0, -150.0])
    x, y = rng.uniform(5, 89, 12), rng.uniform(5, 54, 12)
    x[0], y[0] = 0.3, 58.8
    x[1:] = 8.0 * np.arange(1, 12) + rng.uniform(-0.5, 0.5, 11)
    pulls = []
    for _ in range(6):
        made = []
        for width, level in zip(widths, levels, strict=True):
            padded = np.pad(rng.normal(size=SHAPE), 15)
            for a, b in zip(x, y, strict=True):
                i, j = round(a) + 5, round(b) + 5
                padded[j : j + 21, i : i + 21] += (
                    F_D * level * gaussian(width, 21, a - round(a), b - round(b))
                )
            made.append(difference(padded[15:-15, 15:-15], width, date="2026-01-01"))
        table = light_curve(made, x, y, unit=units.nJy)
        assert table["flux"].unit == units.nJy
        flux, error = (table[c].value.reshape(3, 12) for c in ("flux", "flux_err"))
        pulls.append((flux - levels[:, None]) / error)
    pulls = np.array(pulls)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))
    np.testing.assert_allclose(pulls.mean(axis=(0, 2)), 0, atol=3.5 / np.sqrt(72))
    # In a corner only part of the PSF is there to measure.
    assert error[0, 0] > 1.2 * error[0, 5]
    np.testing.assert_allclose(
        error[0, 5], 1 / (F_D * np.sqrt((gaussian(1.2) ** 2).sum())), rtol=1e-3
    )


def test_more_noise_and_bad_pixels_are_told():
    bad = np.zeros(SHAPE, bool)
    bad[20:45, 30:60] = True
    quiet, loud = (
        light_curve([difference(np.zeros(SHAPE), 1.4, bad, n)], [10, 45, 400], [30, 32, 5])
        for n in (1, 2.5)
    )
    assert loud["flux_err"][0] == pytest.approx(2.5 * quiet["flux_err"][0])
    for row in (1, 2):
        assert np.isnan(quiet["flux"][row])
        assert np.isinf(quiet["flux_err"][row])


def test_positions_may_differ_by_epoch_and_wrong_ones_are_refused():
    made = [difference(np.zeros(SHAPE), 1.4)] * 2
    table = light_curve(made, [[10, 20], [11, 21]], [[5, 6], [7, 8]])
    np.testing.assert_array_equal(table["x"], [10, 20, 11, 21])
    np.testing.assert_array_equal(table["source"], [0, 1, 0, 1])
    with pytest.raises(ValueError, match="`x` has 3 epochs, but there are 2"):
        light_curve(made, np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="`x` has 1 epochs"):
        light_curve(made, np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="`x` and `y` need one shape"):
        light_curve(made, [1, 2], [1])
    with pytest.raises(ValueError, match="`differences` is empty"):
        light_curve([], [1], [1])


def test_the_mean_position_weighs_by_errors_and_skips_what_is_no_transient():
    def found(x, error, verdict):
        return QTable(
            {
                "x": [x, 50.0],
                "y": [9.0, 1.0],
                "x_err": [error] * 2,
                "y_err": [0.5] * 2,
                "verdict": [verdict] * 2,
            }
        )

    tables = [
        found(20.0, 0.1, "transient"),
        found(20.6, 0.2, "transient"),
        found(21.5, 0.01, "dipole"),
    ]
    place = mean_position(tables, 20.2, 9.1)
    assert place.x == pytest.approx(20.12)
    assert place.x_err == pytest.approx(1 / np.sqrt(125))
    assert place.y_err == pytest.approx(0.5 / np.sqrt(2))
    with pytest.raises(ValueError, match="no transient within"):
        mean_position(tables, 30, 9)


SCALE = np.array([1.0, 0.7, 1.2, 0.5])
SEEING, NOISE = (2.6, 3.4, 4.4, 3.0), (4.0, 5.0, 6.0, 4.0)
LIGHT = np.array([0.0, 700.0, 400.0, 900.0])


@jax.jit
def drawn(scenes, psf):
    return jax.vmap(lambda scene: render(scene, psf, (39, 39), quality=fine())[0])(scenes)


def hosted(rng, n, noise=1.0):
    """Epochs with so many galaxies, each with a transient; positions of both."""
    side, psfs = 39, [KolmogorovPSF([f]) for f in SEEING]
    at = np.array([19.0, 19.0])
    places = at + rng.uniform(-0.5, 0.5, (n, 2))
    hosts = places + rng.uniform(-1.5, 1.5, (n, 2))
    epochs = []
    for k, psf in enumerate(psfs):
        scenes = [
            Scene(
                [
                    Sersic([SCALE[k] * 5000], *h, 3.0, 1.5, [0.15, -0.1]),
                    PointSource([SCALE[k] * LIGHT[k]], *p),
                ]
            )
            for p, h in zip(places, hosts, strict=True)
        ]
        images = drawn(jax.tree.map(lambda *leaves: jnp.stack(leaves), *scenes), psf)
        image = 20.0 + np.concatenate(np.asarray(images), axis=1)
        image = image + rng.normal(0, noise * NOISE[k], image.shape)
        stamp = render(Scene([PointSource([1.0], 16.0, 16.0)]), psf, (33, 33), quality=fine())[0]
        epochs.append(
            make_exposure(image, NOISE[k] ** 2, np.asarray(stamp), date=f"2026-01-0{k + 1}")
        )
    offset = side * np.arange(n)[:, None] * [1, 0]
    return epochs, places + offset, hosts + offset


@pytest.mark.slow
def test_a_transient_on_its_host_is_told_apart_over_epochs():
    epochs, places, hosts = hosted(np.random.default_rng(1), 10)
    off = np.array([True, False, False, False])
    near = hosts + 0.3
    table = forced_epochs(epochs, *places.T, scale=SCALE, off=off, host=near, size=35)
    flux, error = (np.asarray(table[c], float).reshape(10, 4) for c in ("flux", "flux_err"))
    assert table["converged"].all()
    np.testing.assert_array_equal(flux[:, 0], 0)
    pulls = (flux[:, 1:] - LIGHT[1:]) / error[:, 1:]
    assert pulls.std() == pytest.approx(1, abs=0.4)
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=1)
    np.testing.assert_allclose(table["chi2"], 1, atol=0.2)
    host_pull = (table["host_flux"] - 5000) / table["host_flux_err"]
    assert np.abs(host_pull).max() < 4
    np.testing.assert_allclose(
        np.asarray(table["host_x"]).reshape(10, 4)[:, 0], hosts[:, 0], atol=0.3
    )
    # An epoch that is known to be empty says how bright the host is.
    free = forced_epochs(epochs, *places.T, scale=SCALE, host=near, size=35)
    assert (np.asarray(free["flux_err"]).reshape(10, 4)[:, 1:] > 1.05 * error[:, 1:]).all()


@pytest.mark.slow
def test_without_noise_the_fluxes_are_exact():
    epochs, places, hosts = hosted(np.random.default_rng(2), 4, noise=0.0)
    table = forced_epochs(
        epochs,
        *places.T,
        scale=SCALE,
        off=LIGHT == 0,
        host=hosts,
        size=35,
    )
    flux = np.asarray(table["flux"]).reshape(4, 4)
    np.testing.assert_allclose(flux, np.broadcast_to(LIGHT, flux.shape), atol=20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": []}, "`epochs` is empty"),
        ({"scale": [1, 2]}, "`scale` needs 4"),
        ({"off": [1, 0, 0, 0]}, "`off` needs 4 booleans"),
        ({"host": [1, 2]}, "`host` needs shape"),
        ({"size": 10}, "`size` must be odd"),
        ({"x": [500.0]}, "must lie on the image"),
        ({"x": [5.0, 6.0]}, "`x` and `y` need one shape"),
    ],
)
def test_bad_input_of_forced_epochs_is_named(change, words):
    made = [make_exposure(np.ones((30, 24)), 1.0, gaussian(1.2, 9)) for _ in range(4)]
    given = {"epochs": made, "x": [5.0], "y": [7.0]} | change
    with pytest.raises(ValueError, match=words):
        forced_epochs(**given)
