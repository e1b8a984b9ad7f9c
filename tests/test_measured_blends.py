"""Blends in all bands: children as if they were alone, and programs that are found again."""

import logging

import equinox as eqx
import jax
import numpy as np
import pytest

from diffdeblend.allocate import deblend_footprints
from diffdeblend.detect.detect_footprints import detect_footprints
from diffdeblend.footprints import SourceRecords
from diffdeblend.multiband import measure_bands
from diffdeblend.quantities.aperture_flux import MeasureApertures
from diffdeblend.quantities.centroid import measure_centroid
from diffdeblend.quantities.measure_sources import measure_sources
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.quantities.shape import measure_psf_shape
from diffdeblend.simulate import draw_field, make_field

FEW = {
    "psf_shape": measure_psf_shape,
    "centroid": measure_centroid,
    "psf": measure_psf_flux,
    "aperture": MeasureApertures(radii=(6.0,)),
}
SHAPE = (70, 90)
# So wide that footprints become one.
GROW = 5.0
PLACES = ((33.2, 35.3), (52.2, 35.3))


def pair(members, noise="gaussian"):
    """One or both of two equal stars, so far apart that only the outskirts of footprints meet."""
    x, y = np.array([PLACES[k] for k in members]).T
    limit = 10 ** (-0.4 * (26.0 - 31.4))
    columns = {"x": x, "y": y, "flux_r": np.full(len(x), 400 / 5 * limit)}
    return draw_field(columns, SHAPE, "r", depth=26.0, fwhm=0.7, noise=noise, seed=5).exposure


def by_templates(exposure):
    """Columns of the sources, light shared out by templates."""
    found = detect_footprints(exposure, grow=GROW)
    records = SourceRecords.from_footprints(found.positive)
    records = deblend_footprints(found.exposure, records, band="r")
    columns = measure_sources(found.exposure, records, measurements=FEW, sizes=(64,))
    return columns | {"n_child": records.n_child}


def by_models(exposure):
    """The same, by fits of all sources together."""
    settings = {"measurements": FEW, "sizes": (64,), "detection": {"grow": GROW}}
    made = measure_bands(exposure, deblending="scene", **settings)
    return {**made.measured["r"], "n_child": np.asarray(made.catalog["deblend_n_child"])}


@pytest.mark.slow
@pytest.mark.parametrize("measured", [by_templates, by_models])
def test_children_of_a_pair_measure_as_if_alone(measured):
    both = pair((0, 1))
    noise = np.asarray(both.image) - np.asarray(pair((0, 1), "none").image)
    blend = measured(both)
    np.testing.assert_array_equal(blend["n_child"], [2, 0, 0])
    for member in (0, 1):
        # The same noise about one star.
        lone = pair((member,), "none")
        lone = eqx.tree_at(lambda e: e.image, lone, np.asarray(lone.image) + noise)
        alone = measured(lone)
        assert len(alone["psf_flux"]) == 1
        row = 1 + int(np.abs(blend["centroid_x"][1:] - PLACES[member][0]).argmin())
        for name in ("psf_flux", "aperture_flux_6"):
            away = blend[name][row] - alone[name][0]
            assert abs(away) < alone[f"{name}_err"][0], (name, member)
    # The parent is measured as a whole.
    assert np.isfinite(blend["psf_flux"][0])


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


@pytest.mark.slow
def test_cuts_on_the_catalogue_count_stars_and_galaxies_as_the_truth_does():
    field = make_field(
        (512, 512),
        "gri",
        n_stars=60,
        n_galaxies=60,
        star_magnitudes=(18.5, 24.0),
        galaxy_magnitudes=(19.0, 24.5),
        separation=16.0,
        border=12.0,
        seed=100,
    )
    catalog = measure_bands(field.exposure).catalog

    def column(name):
        return np.asarray(getattr(catalog[name], "value", catalog[name]))

    good = (column("deblend_n_child") == 0) & ~column("cmodel_flag_i").astype(bool)
    good &= column("cmodel_flux_i") > 10 * column("cmodel_flux_err_i")
    stellar = column("ref_extendedness_value") < 1
    is_star = np.asarray(field.truth["is_star"], bool)
    assert abs((good & stellar).sum() - is_star.sum()) <= 0.1 * is_star.sum()
    assert abs((good & ~stellar).sum() - (~is_star).sum()) <= 0.1 * (~is_star).sum()
    x, y = (np.asarray(field.truth[axis]) for axis in "xy")
    apart = np.hypot(column("centroid_x")[:, None] - x, column("centroid_y")[:, None] - y)
    row, near = apart.argmin(axis=1), apart.min(axis=1) < 1.5
    # No galaxy is called a star but where it is smaller than 0.3 arcseconds, or faint.
    called = good & stellar & near
    half_light = (np.asarray(field.truth["radius"]) * np.asarray(field.truth["share"])).sum(axis=1)
    plain = ~is_star & (half_light > 1.5) & (np.asarray(field.truth["snr_i"]) > 50)
    assert plain.sum() > 5
    assert not plain[row[called]].any()
    stars = called & is_star[row]
    for flux in ("psf", "cmodel"):
        for one, two in ("gr", "ri"):
            colour = column(f"{flux}_color_{one}_{two}")[stars]
            error = column(f"{flux}_color_{one}_{two}_err")[stars]
            ends = (np.asarray(field.truth[f"mag_{band}"]) for band in (one, two))
            true = np.subtract(*ends)[row[stars]]
            assert abs(np.median(colour - true)) < 0.01
            # The locus is a line: its width is that of the errors.
            pull = (colour - true) / error
            assert 0.6 < 0.7413 * np.subtract(*np.percentile(pull, [75, 25])) < 1.4
