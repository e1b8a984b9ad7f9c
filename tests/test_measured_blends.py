"""Blends in all bands: children as if they were alone, and programs that are found again."""

import logging

import equinox as eqx
import jax
import numpy as np
import pytest

from diffdeblend.multiband import measure_bands
from diffdeblend.quantities.aperture_flux import MeasureApertures
from diffdeblend.quantities.centroid import measure_centroid
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.simulate import draw_field, make_field

FEW = {
    "centroid": measure_centroid,
    "psf": measure_psf_flux,
    "aperture": MeasureApertures(radii=(6.0,)),
}
SHAPE = (70, 90)
PLACES = ((33.2, 35.3), (52.2, 35.3))


def pair(members, noise="gaussian"):
    """One or both of two equal stars, so far apart that only the outskirts of footprints meet."""
    x, y = np.array([PLACES[k] for k in members]).T
    limit = 10 ** (-0.4 * (26.0 - 31.4))
    columns = {"x": x, "y": y, "flux_r": np.full(len(x), 400 / 5 * limit)}
    return draw_field(columns, SHAPE, "r", depth=26.0, fwhm=0.7, noise=noise, seed=5).exposure


@pytest.mark.parametrize("deblending", ["symmetric", pytest.param("scene", marks=pytest.mark.slow)])
def test_children_of_a_pair_measure_as_if_alone(deblending):
    both = pair((0, 1))
    noise = np.asarray(both.image) - np.asarray(pair((0, 1), "none").image)
    settings = {"deblending": deblending, "measurements": FEW, "sizes": (64,)}
    # So wide that footprints become one.
    settings["detection"] = {"grow": 5.0}
    catalog = measure_bands(both, **settings).catalog
    np.testing.assert_array_equal(catalog["deblend_n_child"], [2, 0, 0])
    np.testing.assert_array_equal(catalog["parent"], [0, 1, 1])
    x = np.asarray(catalog["centroid_x"])
    for member in (0, 1):
        # The same noise about one star.
        lone = pair((member,), "none")
        lone = eqx.tree_at(lambda e: e.image, lone, np.asarray(lone.image) + noise)
        alone = measure_bands(lone, **settings).catalog
        assert len(alone) == 1
        row = 1 + int(np.abs(x[1:] - PLACES[member][0]).argmin())
        for name in ("psf_flux", "aperture_flux_6"):
            child = float(catalog[f"{name}_r"].value[row])
            single = float(alone[f"{name}_r"].value[0])
            error = float(alone[f"{name}_err_r"].value[0])
            assert abs(child - single) < error, (name, member)
    # The parent is measured as a whole, with the light of both.
    one, two = np.asarray(catalog["aperture_flux_6_r"].value)[1:]
    assert np.isfinite(catalog["psf_flux_r"].value[0])
    assert one == pytest.approx(two, rel=0.05)


def programs_of(caplog):
    """Names of programs compiled so far."""
    return [r.message for r in caplog.records if r.message.startswith("Compiling ")]


@pytest.mark.slow
def test_another_image_of_the_same_shape_compiles_nothing(caplog):
    fields = [
        make_field((300, 340), "gr", n_stars=20, n_galaxies=50, seed=seed) for seed in (1, 2, 3)
    ]
    settings = {"measurements": FEW, "sizes": (64,)}
    made = [measure_bands(fields[0].exposure, **settings)]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        made += [measure_bands(field.exposure, **settings) for field in fields[1:]]
    assert not programs_of(caplog)
    # Numbers of sources and blends were different.
    assert len({len(one.catalog) for one in made}) > 1
    assert all(one.summary["n_children"] > 2 for one in made)
