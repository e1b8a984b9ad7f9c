"""The figure: what it shows, for any number of sources and bands, and in which colours."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from example_result import make_deblended, tilted_wcs

pytest.importorskip("matplotlib")

from matplotlib.patches import Ellipse

from diffdeblend.painter import Painter, by_wavelength, residual_significance
from diffdeblend.plot import figure

FIVE = ("g", "r", "i", "z", "y")


def painter(found):
    exposure = found.exposure
    return Painter(
        exposure.bands, np.asarray(exposure.variance), np.asarray(exposure.good), found.models
    )


@pytest.mark.parametrize(
    ("n", "bands", "settings"),
    [
        (1, ("r",), {}),
        (2, ("F606W", "F814W"), {"masked": True}),
        (4, FIVE, {"zero_points": (27.0,) * 5, "wcs": tilted_wcs(), "masked": True}),
        (9, ("red", "blue", "other"), {"shape": (80, 30)}),
        (30, ("u", "g", "r"), {"shape": (60, 90), "unit": "nJy"}),
    ],
)
def test_any_number_of_sources_and_bands(n, bands, settings):
    pyplot_before = "matplotlib.pyplot" in sys.modules
    page = figure(make_deblended(n_sources=n, bands=bands, **settings))
    # Data, model, residual, colour bar, and one for each source.
    assert len(page.axes) == 4 + n
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=40)
    assert content.getbuffer().nbytes > 5000
    # No backend was chosen and no figure was registered for the user's session.
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_before


def test_labels_and_marks():
    found = make_deblended(zero_points=(27.0,) * 5)
    page = figure(found)
    titles = [axes.get_title() for axes in page.axes]
    assert titles[:3] == ["Data (g blue to y red)", "Model", "Residual, all bands"]
    magnitude = found.catalog["mag_r"][0].value
    assert titles[4] == f"1  Sérsic\nr = {magnitude:.2f}"
    assert titles[5].startswith("2  point\n")
    assert [text.get_text() for text in page.axes[0].texts] == ["1", "2", "3", "4"]
    ellipse = page.axes[0].patches[0]
    assert isinstance(ellipse, Ellipse)
    row = found.catalog[0]
    assert ellipse.center == pytest.approx((row["x"].value, row["y"].value))
    assert np.sqrt(ellipse.width * ellipse.height) / 2 == pytest.approx(row["radius"].value)
    assert ellipse.height / ellipse.width == pytest.approx(row["axis_ratio"].value)
    assert ellipse.angle == pytest.approx(row["position_angle"].value)
    assert "reduced χ² 1.01" in page.texts[0].get_text()


def test_label_without_a_magnitude_is_the_flux():
    page = figure(make_deblended(unit="electron"))
    assert page.axes[4].get_title().endswith(" electron")
    # Negative flux in the band that the label quotes: no magnitude, but a flux.
    found = make_deblended(bands=("r", "i", "z"), zero_points=(27.0,) * 3)
    assert figure(found).axes[-1].get_title().endswith("r: -3")


def test_images_are_upright_and_the_model_is_the_model():
    found = make_deblended(n_sources=1, shape=(30, 50))
    page = figure(found)
    shown = page.axes[1].images[0]
    assert shown.origin == "lower"
    brightest = np.unravel_index(np.argmax(shown.get_array().sum(axis=2)), (30, 50))
    row = found.catalog[0]
    assert np.hypot(brightest[1] - row["x"].value, brightest[0] - row["y"].value) < 1


def test_many_sources_are_shown_close_up():
    few, many = (figure(make_deblended(n_sources=n, shape=(90, 90))) for n in (4, 12))
    assert np.ptp(few.axes[4].get_xlim()) == 90
    windows = [np.ptp(axes.get_xlim()) for axes in many.axes[4:]]
    assert np.ptp(windows) < 1e-9
    assert windows[0] < 60
    for axes in many.axes[4:]:
        assert axes.get_xlim()[0] >= -0.5
        assert axes.get_ylim()[1] <= 89.5


def test_values_that_are_not_finite():
    """A fit that failed is still shown."""
    found = make_deblended()
    catalog = found.catalog.copy()
    for name in ("x", "y", "radius", "flux_r"):
        catalog[name][1] = np.nan
    models = found.models.copy()
    models[1] = np.nan
    page = figure(replace(found, catalog=catalog, models=models))
    page.savefig(io.BytesIO(), format="png", dpi=30)
    dark = figure(replace(found, models=-np.abs(found.models)))
    dark.savefig(io.BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize(
    ("bands", "order"),
    [
        (FIVE, [0, 1, 2, 3, 4]),
        (("y", "i", "g"), [2, 1, 0]),
        (("HSC-Z", "HSC-R2", "HSC-G"), [2, 1, 0]),
        (("Ks", "lsst_r", "J"), [1, 2, 0]),
        (("F160W", "F814W", "F435W"), [2, 1, 0]),
        (("F1500W", "F150W", "r"), [2, 1, 0]),
        (("F444W", "F090W", "F277W"), [1, 2, 0]),
        (("r", "narrow", "g"), [0, 1, 2]),  # not known: as given
        (("0", "1"), [0, 1]),
    ],
)
def test_bands_are_ordered_by_wavelength(bands, order):
    assert by_wavelength(bands) == order


def test_residual_significance():
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.5, 4, (3, 80, 90))
    residual = rng.normal(0, np.sqrt(variance))
    good = rng.uniform(size=variance.shape) < 0.7
    good[:, :5] = False
    variance[~good] = np.nan
    shown = residual_significance(np.where(good, residual, 0), variance, good)
    assert shown.mask[:5].all()
    assert shown.mask.sum() == (~good.any(axis=0)).sum()
    # Of unit variance however many bands a pixel has.
    for count in (1, 2, 3):
        values = shown[good.sum(axis=0) == count].compressed()
        assert values.std() == pytest.approx(1, abs=0.06)


def test_colours():
    """Bluer than the mean looks blue, redder looks red, in whatever order the bands come."""
    found = make_deblended(n_sources=2, bands=("i", "r", "g"))
    shape, tilt = found.models[0, 1], np.array([0.5, 1.0, 2.0])[:, None, None]
    models = np.stack([shape * tilt, shape[::-1, ::-1] / tilt])
    paint = painter(replace(found, models=models))
    for image, sign in ((models[0], 1), (models[1], -1)):
        colours = paint(image).reshape(-1, 3).astype(int)
        red, _, blue = colours[np.argmax(colours.sum(axis=1))]
        assert sign * (blue - red) > 30
    brightest = paint(models.sum(axis=0))
    assert brightest.max() >= 250
    # No plateau: the maximum is in few pixels.
    assert (brightest.max(axis=2) >= 254).sum() < 6
    assert paint.reference == 1


def test_pixels_without_a_band_keep_their_colour_from_the_others():
    found = make_deblended(masked=True)
    exposure = found.exposure
    good = np.asarray(exposure.good)
    paint = painter(found)
    colours = paint(np.asarray(exposure.data) - found.background, good)
    assert not good[0, 3:6, 10:14].any()
    unused = (colours == (70, 76, 92)).all(axis=2)
    assert unused[-5:, -6:].all()
    # Masked in g only; r still gives some blue.
    assert not unused[3:6, 10:14].any()
    assert unused.sum() == 30


def test_one_scale_for_all_panels():
    found = make_deblended()
    paint = painter(found)
    half = paint(0.5 * found.models[0]).astype(int)
    whole = paint(found.models[0]).astype(int)
    assert half.max() < whole.max()
