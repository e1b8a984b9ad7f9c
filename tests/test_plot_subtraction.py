"""Figures of differences and coadds, drawn without a screen."""

import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import QTable
from matplotlib.figure import Figure
from star_pair import gaussian_stamp

from diffdeblend import make_exposure
from diffdeblend.coadd import Coadd
from diffdeblend.plot_subtraction import (
    coadd_figure,
    plot_candidates,
    plot_histogram,
    subtraction_figure,
)
from diffdeblend.subtract import Difference
from diffdeblend.transients import difference_statistics

SHAPE = (40, 65)


def exposure(rng, bands=1):
    image = rng.normal(size=(bands, *SHAPE)).astype(np.float32)
    stamps = np.stack([gaussian_stamp(1.5, 15)] * bands)
    mask = np.zeros((bands, *SHAPE), bool)
    mask[:, 3, 4] = True
    return make_exposure(image, 1.0, stamps, mask=mask)


@pytest.fixture
def found():
    """A difference of noise, with a place of which nothing is known."""
    rng = np.random.default_rng(2)
    whole = exposure(rng, 2)
    maps = jnp.asarray(rng.normal(size=(4, 2, *SHAPE)).astype(np.float32))
    bad = np.zeros((2, *SHAPE), bool)
    bad[:, 10:14, 20:30] = True
    maps = maps.at[1, :, 10:14, 20:30].set(100.0)
    numbers = jnp.ones(2)
    return Difference(whole, *maps, jnp.asarray(bad), *[numbers] * 6), rng


@pytest.fixture
def candidates():
    return QTable(
        {
            "x": [5.0, 60.2, 33.0],
            "y": [4.0, 38.7, 20.0],
            "significance": [9.0, -6.0, 5.5],
            "flux": [100.0, -50.0, 40.0],
            "flux_err": [11.0, 8.0, 7.0],
            "verdict": ["transient", "cosmic ray", "dipole"],
            "band": ["0", "0", "1"],
        }
    )


def test_all_of_a_difference_on_one_page(found, candidates, tmp_path):
    difference, rng = found
    page = subtraction_figure(difference, exposure(rng, 2), exposure(rng, 2), candidates)
    assert isinstance(page, Figure)
    titles = [axes.get_title() for axes in page.axes]
    for words in ("New", "Reference", "Difference D", "Significance S_corr", "2 candidates"):
        assert words in titles
    # Of the other band there is one.
    marks = subtraction_figure(
        difference, exposure(rng, 2), exposure(rng, 2), candidates, band=1
    ).axes[3]
    assert [text.get_text() for text in marks.get_legend().get_texts()] == ["dipole (1)"]
    page.savefig(tmp_path / "page.png")
    none = subtraction_figure(difference, exposure(rng, 2), exposure(rng, 2), candidates[:0])
    none.savefig(tmp_path / "none.png")


def test_what_is_unknown_is_left_out(found):
    difference, _ = found
    known = ~np.asarray(difference.bad) & np.asarray(difference.exposure.good)
    page = plot_histogram(difference)
    counts = page.axes[0].patches[0].get_data().values
    assert counts.sum() == known[0].sum()
    assert counts[-1] == 0
    numbers = difference_statistics(difference, border=0)
    values = np.asarray(difference.S_corr)[known].astype(float)
    assert numbers["scorr_mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert numbers["scorr_std"] == pytest.approx(values.std(), rel=1e-5)
    assert numbers["fraction_beyond_5_sigma"] == 0
    middle = np.median(values)
    assert numbers["scorr_robust_sigma"] == pytest.approx(
        1.4826 * np.median(np.abs(values - middle)), rel=1e-4
    )
    kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2 - 3
    assert numbers["scorr_kurtosis"] == pytest.approx(kurtosis, rel=1e-3)


def test_borders_are_left_out_but_not_all_of_a_small_image(found):
    difference, _ = found
    edge = difference.S_corr.at[:, :4].set(50.0).at[:, :, -4:].set(50.0)
    spoilt = Difference(
        difference.exposure, difference.S, edge, *list(vars(difference).values())[3:]
    )
    assert difference_statistics(spoilt)["fraction_beyond_5_sigma"] == 0
    assert difference_statistics(spoilt, border=0)["fraction_beyond_5_sigma"] > 0.1


def test_stamps_of_candidates_at_the_border_too(found, candidates):
    difference, rng = found
    page = plot_candidates(difference, exposure(rng, 2), exposure(rng, 2), candidates, size=15)
    titles = [axes.get_title() for axes in page.axes]
    assert titles == ["New", "Reference", "transient +9.0", "New", "Reference", "cosmic ray -6.0"]
    assert page.axes[5].images[0].get_array().shape == (8, 12)
    with pytest.raises(ValueError, match="none to show"):
        plot_candidates(difference, exposure(rng, 2), exposure(rng, 2), candidates[:0])


def test_a_coadd_is_shown(tmp_path):
    rng = np.random.default_rng(4)
    maps = [jnp.asarray(rng.normal(size=(1, *SHAPE)), jnp.float32) for _ in range(3)]
    number = np.full((1, *SHAPE), 3)
    number[0, 20, 30] = 0
    one = jnp.ones(1)
    whole = Coadd(
        exposure(rng), one, *maps, jnp.asarray(number), jnp.ones((3, 1)), jnp.ones((3, 1)), one
    )
    page = coadd_figure(whole)
    assert page.axes[0].images[0].get_array().mask[20, 30]
    assert page.axes[2].images[0].get_clim() == (0, 3)
    page.savefig(tmp_path / "page.png")
