"""Pictures of a PSF: what they show is what they were given."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("matplotlib")

from matplotlib.quiver import Quiver

from diffdeblend.panels import panels
from diffdeblend.plot_psf import (
    plot_basis,
    plot_fields,
    plot_magnitude_size,
    plot_psf_shape,
    plot_residuals,
    plot_star_residuals,
    psf_figure,
    weighted_ellipticity,
)
from diffdeblend.simulate import elliptical_psf, elliptical_stamp
from diffdeblend.widths import equivalent_fwhm

SHAPE = (60, 100)


@pytest.fixture(scope="module")
def psf():
    return elliptical_psf(SHAPE, lambda u, v: 4.0 + 0.5 * u, 3.6, 30.0)


def table(n=12):
    rng = np.random.default_rng(0)
    used = np.arange(n) % 3 == 0
    reserved = np.arange(n) % 3 == 1
    columns = {"mag": np.linspace(-12, -6, n), "size": rng.uniform(1, 2, n), "is_star": used}
    return Table({**columns, "used": used, "reserved": reserved})


def report(n=5) -> Any:
    stamps = np.stack([(k + 1) * elliptical_stamp(3.5, 3.0, 20.0, 15) for k in range(n)])
    columns: dict[str, Any] = {
        name: np.linspace(1, 2, n)
        for name in ("size", "model_size", "e1", "e2", "model_e1", "model_e2", "excess")
    }
    rows = Table({"flux": np.arange(n) + 1.0, "snr": np.arange(n) + 50.0, **columns})
    models = stamps.copy()
    stamps[:, 2, 3] = np.nan
    stamps[2] *= 1.02
    return SimpleNamespace(table=rows, stamps=stamps, models=models)


def drawn(page):
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=40)
    return content.getbuffer().nbytes > 2000


def test_the_shape_is_that_of_the_ellipse():
    stamps = np.stack([elliptical_stamp(4.0, 4.0, 0.0, 31), elliptical_stamp(4.4, 3.6, 25.0, 31)])
    # The pixel widens it: 1/12 in variance.
    wanted = np.sqrt(16 + 8 * np.log(2) / 12)
    assert equivalent_fwhm(stamps)[0] == pytest.approx(wanted, rel=0.01)
    e1, e2 = weighted_ellipticity(stamps)
    np.testing.assert_allclose([e1[0], e2[0]], 0, atol=1e-9)
    size = (4.4**2 - 3.6**2) / (4.4**2 + 3.6**2)
    assert np.hypot(e1[1], e2[1]) == pytest.approx(size, rel=0.07)
    assert np.rad2deg(np.arctan2(e2[1], e1[1])) / 2 == pytest.approx(25, abs=0.5)


def test_images_and_fields_are_shown(psf):
    page = plot_basis(psf)
    shown = [axes.images[0].get_array() for axes in page.axes]
    assert len(shown) == min(psf.n_basis, 8)
    np.testing.assert_array_equal(shown[1], psf.images[0, 1])
    page = plot_fields(psf)
    fields = [axes for axes in page.axes if axes.images and axes.get_title().startswith("field")]
    assert len(fields) == len(shown)
    corner = np.asarray(psf.weights(99.0, 59.0))[0, 0]
    assert fields[0].images[0].get_array()[-1, -1] == pytest.approx(corner, rel=1e-5)
    assert drawn(page)


def test_whiskers_lie_along_the_longer_axis(psf):
    (axes,) = panels(None, [1], (3, 3))
    page = plot_psf_shape(psf, on=axes)
    fwhm = axes.images[0].get_array()
    assert fwhm[0, -1] > fwhm[0, 0] + 0.3
    arrows = next(one for one in axes.collections if isinstance(one, Quiver))
    angle = np.rad2deg(np.arctan2(arrows.V, arrows.U))
    # On the right the PSF is longest along 30 degrees.
    assert angle.reshape(8, 8)[:, -1] == pytest.approx(30, abs=1)
    assert drawn(page)


def test_all_sources_are_in_the_diagram_of_sizes():
    (axes,) = panels(None, [1], (3, 3))
    page = plot_magnitude_size(table(), on=axes)
    points = [one.get_offsets() for one in axes.collections]
    assert [len(some) for some in points] == [4, 0, 4, 4]
    np.testing.assert_allclose(points[2][:, 0], np.linspace(-12, -6, 12)[::3])
    assert drawn(page)


def test_what_is_left_of_the_brightest_stars_is_shown():
    page = plot_star_residuals(report(), n=3)
    assert len(page.axes) == 9
    assert page.axes[0].get_title() == "S/N 54"
    left = page.axes[8].images[0].get_array()
    # The third star is 2 % brighter than its model.
    assert left[7, 7] == pytest.approx(0.02, abs=1e-6)
    page = plot_residuals(report())
    assert len(page.axes) == 2
    assert drawn(page)


@pytest.mark.slow
def test_one_page_has_all(psf):
    found: Any = SimpleNamespace(psf=psf, table=table())
    assert drawn(psf_figure(found, report()))
    assert drawn(psf_figure(found))
