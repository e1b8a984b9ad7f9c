"""Many blends at once: each is found as if it were alone, in any company, unit and order."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import hasty, quick_jit

from diffdeblend import (
    STANDARD,
    ConstantBackground,
    FirstOrder,
    GaussianPSF,
    LevenbergMarquardt,
    Scene,
    Stack,
    make_exposure,
    render,
)
from diffdeblend.batch import Blend, blend_of_arrays, fit_batch, fit_stream, make_blend
from diffdeblend.batch.prepare import quality_for
from diffdeblend.batch.program import Setup, fit_in_turn
from diffdeblend.batch.queue import fit_in_queue
from diffdeblend.batch.task import Bucket, Task, first_guess, pack_tasks, padded_to
from diffdeblend.batch.trim import sources_box
from diffdeblend.components import AnySource, Kind
from diffdeblend.deblend.catalog import Flag
from diffdeblend.deblend.start import start_scene
from diffdeblend.fit import fit
from diffdeblend.fit.prior import shape_prior

FWHM = np.array([3.2, 2.8])
PSF = GaussianPSF(FWHM.astype(np.float32))
NOISE = np.array([1.0, 0.7])
SKY = np.array([3.0, -2.0])
POINT, SERSIC, BULGE_DISC = Kind.POINT, Kind.SERSIC, Kind.BULGE_DISC
# Two sizes, so that a lone source goes through the program of four: compiling takes all the time.
# Converged well, so that two fits of one blend differ by rounding alone.
SETTINGS = {
    "model": "sersic",
    "model_error": 0.0,
    "sizes": (32, 64),
    "method": LevenbergMarquardt(tolerance=1e-3),
}


class Drawn(NamedTuple):
    """A simulated stamp: data `(band, y, x)`, positions given, and what is in it."""

    data: np.ndarray
    positions: np.ndarray
    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def blend(self, **changes) -> Blend:
        return blend_of_arrays(
            **{
                "data": self.data,
                "variance": NOISE**2,
                "psf": PSF,
                "positions": self.positions,
                **changes,
            }
        )


@quick_jit
def rendered(members):
    """Four sources of any kind; dark ones do no harm."""
    stack = Stack(jax.vmap(AnySource)(**members), jnp.ones(4, bool), jnp.arange(4))
    return render(Scene([stack]), PSF, (32, 32), quality=STANDARD)


def simulate(seed, n, shape=(32, 32), kinds=None, flux=None, radius=None) -> Drawn:
    """Sources well inside the stamp, some 12 pixels apart, with total fluxes `(n, band)`."""
    draw = np.random.default_rng(seed)
    cells = draw.permutation([[9.0, 9.5], [21.5, 8.5], [9.5, 21.0], [21.0, 20.5]])
    x, y = (cells + draw.uniform(-1.2, 1.2, (4, 2))).T
    total = draw.uniform(500, 2000, (n, 2)) if flux is None else np.asarray(flux, float)
    kind = np.full(4, int(SERSIC))
    kind[:n] = kind[:n] if kinds is None else kinds
    sizes = draw.uniform(1.5, 2.3, 4)
    sizes[:n] = sizes[:n] if radius is None else radius
    parts = np.zeros((4, AnySource.parts, 2))
    share = np.where(kind[:n, None] == BULGE_DISC, 0.4, 0.0)
    parts[:n, 0], parts[:n, 1] = (1 - share) * total, share * total
    members = {
        "flux": parts,
        "x": x,
        "y": y,
        "radius": sizes,
        "index": draw.uniform(0.8, 1.8, 4),
        "radius_ratio": np.full(4, 0.3),
        "ellipticity": draw.uniform(-0.25, 0.25, (4, 2)),
        "kind": kind,
        "shear_ratio": np.full(4, 0.7),
    }
    image = np.asarray(rendered(members))[:, : shape[0], : shape[1]]
    noise = NOISE[:, None, None] * draw.normal(size=image.shape)
    data = (image + SKY[:, None, None] + noise).astype(np.float32)
    given_places = np.stack([x, y], axis=1)[:n] + draw.normal(scale=0.15, size=(n, 2))
    return Drawn(data, given_places, total, x[:n], y[:n])


COUNTS = [1 + n % 4 for n in range(12)]


@pytest.fixture(scope="module")
def drawn():
    """Stamps of 1 to 4 sources and of many shapes."""
    return [simulate(n, count, (32 - n % 3, 28 + n % 5)) for n, count in enumerate(COUNTS)]


@pytest.fixture(scope="module")
def blends(drawn):
    return [stamp.blend() for stamp in drawn]


@pytest.fixture(scope="module")
def found(blends):
    return fit_batch(blends, **SETTINGS)


SOURCE_FIELDS = (
    *("row", "kind", "flags", "x", "y", "radius", "index", "ellipticity", "flux", "bulge_flux"),
    *("x_err", "y_err", "radius_err", "index_err", "ellipticity_err", "flux_err"),
)
BLEND_FIELDS = ("sky", "chi2", "n_pixels", "value", "steps", "converged", "finite")


def assert_same_bits(first, second, pairs):
    """Blends of two results, as pairs of their numbers, agree in everything that was found."""
    for a, b in pairs:
        for name in SOURCE_FIELDS:
            one, other = getattr(first, name)[first.rows(a)], getattr(second, name)[second.rows(b)]
            np.testing.assert_array_equal(one, other, err_msg=f"{name} of blends {a}, {b}")
        for name in BLEND_FIELDS:
            one, other = getattr(first, name)[a], getattr(second, name)[b]
            np.testing.assert_array_equal(one, other, err_msg=f"{name} of blends {a}, {b}")


def pulls_of(found, drawn):
    true = np.concatenate([stamp.flux for stamp in drawn])
    return (found.flux - true) / found.flux_err


def test_ragged_in_ragged_out(drawn, blends, found):
    assert found.n_blends == len(blends)
    assert found.bands == 2
    assert np.diff(found.first).tolist() == COUNTS
    assert found.blend.tolist() == [n for n, count in enumerate(COUNTS) for _ in range(count)]
    assert found.row.tolist() == [row for count in COUNTS for row in range(count)]
    assert found.flux.shape == found.flux_err.shape == (sum(COUNTS), 2)
    assert found.sky.shape == (len(blends), 2, 1)
    # In the order given: all sources of a stamp lie within a pixel of their own place.
    for n, stamp in enumerate(drawn):
        rows = found.rows(n)
        places = np.stack([found.x[rows], found.y[rows]], axis=1)
        assert np.abs(places - stamp.positions).max() < 1


def test_table_has_a_row_a_source_and_says_what_its_columns_are(found):
    table = found.table(("g", "r"))
    assert len(table) == sum(COUNTS)
    assert all(table[name].info.description for name in table.colnames)
    for name in ("x", "y", "radius", "x_err"):
        assert "pixels" in table[name].info.description or str(table[name].unit) == "pix", name
    np.testing.assert_array_equal(table["blend"], found.blend)
    np.testing.assert_array_equal(table["flux_r"], found.flux[:, 1])
    np.testing.assert_array_equal(table["flux_g_err"], found.flux_err[:, 0])
    assert set(table["model"]) == {"sersic"}
    with pytest.raises(ValueError, match="2 names"):
        found.table(("g", "r", "i"))


def test_origin_and_rows_of_a_cut_blend_are_kept(blends, found):
    moved = [
        replace(blend, origin=(1000 * n, -7), rows=blend.rows + 50 * n)
        for n, blend in enumerate(blends)
    ]
    again = fit_batch(moved, **SETTINGS)
    np.testing.assert_allclose(again.x, found.x + 1000 * found.blend, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.y, found.y - 7, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(again.row, found.row + 50 * found.blend)
    np.testing.assert_array_equal(again.flux, found.flux)
    np.testing.assert_array_equal(again.flags, found.flags)


def test_truth_is_found_within_errors(drawn, found):
    assert found.converged.all()
    assert (found.flags == 0).all()
    pulls = pulls_of(found, drawn)
    places = [
        (found.x - np.concatenate([stamp.x for stamp in drawn])) / found.x_err,
        (found.y - np.concatenate([stamp.y for stamp in drawn])) / found.y_err,
        (found.sky[:, :, 0] - SKY).ravel(),
    ]
    for pull in (pulls, *places):
        assert np.abs(pull).max() < 5
    for pull in (pulls, *places[:2]):
        assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.5
    assert np.abs(found.sky[:, :, 0] - SKY).max() < 0.3
    assert np.abs(found.reduced_chi2 - 1).max() < 0.15


@pytest.mark.slow
def test_nothing_depends_on_order_or_chunks(blends, found):
    # So little memory that each task is a chunk: another program, of capacity one.
    backwards = fit_batch(blends[::-1], memory=1.0, **SETTINGS)
    last = len(blends) - 1
    assert_same_bits(found, backwards, [(n, last - n) for n in range(len(blends))])


def test_nothing_depends_on_company(blends, found):
    for n in (0, 3, 6):
        assert_same_bits(found, fit_batch([blends[n]], **SETTINGS), [(n, 0)])


def spoiled(stamp, place, value):
    data = stamp.data.copy()
    data[(..., *place)] = value
    return stamp._replace(data=data)


def bad_blends():
    """What surveys hold too, by name."""
    stamp = simulate(70, 2)
    noise = np.random.default_rng(71).normal(size=stamp.data.shape) * NOISE[:, None, None]
    pair = simulate(72, 1, flux=[[1500.0, 1800.0]])
    near = pair.positions + np.array([[0.0, 0.0], [0.15, 0.0]])
    one_band = stamp.data.copy()
    one_band[1] = np.nan
    return {
        "nan": stamp.blend(data=np.full_like(stamp.data, np.nan)),
        "masked": stamp.blend(mask=np.ones(stamp.data.shape, bool)),
        "one band masked": stamp.blend(data=one_band),
        "noise": stamp.blend(data=noise.astype(np.float32)),
        "zero": stamp.blend(data=np.zeros_like(stamp.data)),
        "one source twice": pair.blend(positions=near),
        "bright pixel": spoiled(stamp, (13, 17), 1e6).blend(),
        "absurd pixel": spoiled(stamp, (13, 17), 1e12).blend(),
        "absurd hole": spoiled(stamp, (13, 17), -1e12).blend(),
        "bright centre": spoiled(
            stamp, tuple(np.round(stamp.positions[0, ::-1]).astype(int)), 1e8
        ).blend(),
    }


@pytest.fixture(scope="module")
def with_bad(blends):
    """The blends with bad ones between them: numbers of the good ones and of the bad, and fits."""
    bad = bad_blends()
    mixed, good, names = [], [], {}
    for n, blend in enumerate(blends):
        good.append(len(mixed))
        mixed.append(blend)
        if n < len(bad):
            name = list(bad)[n]
            names[name] = len(mixed)
            mixed.append(bad[name])
    return good, names, fit_batch(mixed, **SETTINGS)


def test_bad_blends_do_not_touch_their_neighbours(found, with_bad):
    good, _, together = with_bad
    assert_same_bits(found, together, list(enumerate(good)))


@pytest.mark.parametrize("name", list(bad_blends()))
def test_bad_blends_are_finite_or_flagged(with_bad, name):
    _, names, together = with_bad
    rows = together.rows(names[name])
    numbers = np.column_stack(
        [together.flux[rows], together.flux_err[rows], together.x[rows], together.y[rows]]
    )
    whole = np.isfinite(numbers).all(axis=1)
    flags = together.flags[rows]
    assert (whole | (flags & Flag.NON_FINITE > 0)).all()
    if name in ("nan", "masked"):
        assert (flags & Flag.NON_FINITE).all()
        assert np.isnan(together.flux[rows]).all()
        assert np.isnan(together.flux_err[rows]).all()
        assert (together.n_pixels[names[name]] == 0).all()
    if name == "one band masked":
        assert np.isnan(together.flux[rows, 1]).all()
        assert (flags & Flag.NON_FINITE).all()
        stamp = simulate(70, 2)
        pull = (together.flux[rows] - stamp.flux)[:, 0] / together.flux_err[rows, 0]
        assert np.abs(pull).max() < 5
    if name in ("noise", "zero"):
        assert whole.all()
        assert (np.abs(together.flux[rows]) < 5 * together.flux_err[rows]).all()
    if name == "one source twice":
        # Nobody can share the light out, and the errors say so.
        unsure = together.flux_err[rows] > 0.3 * np.array([1500.0, 1800.0])
        assert (unsure | (flags[:, None] > 0)).all()
        total = together.flux[rows].sum(axis=0)
        np.testing.assert_allclose(total, [1500.0, 1800.0], rtol=0.05)
    if "pixel" in name or "hole" in name or "centre" in name:
        assert (flags & (Flag.POOR_FIT | Flag.NON_FINITE | Flag.NOT_CONVERGED)).all()


@pytest.mark.parametrize("exponent", [13, -13])
def test_a_power_of_two_in_the_unit_changes_no_bit(drawn, found, exponent):
    unit = np.float32(2.0**exponent)
    scaled = [stamp.blend(data=unit * stamp.data, variance=(unit * NOISE) ** 2) for stamp in drawn]
    again = fit_batch(scaled, **SETTINGS)
    for name in ("flux", "flux_err", "sky"):
        np.testing.assert_array_equal(getattr(again, name), unit * getattr(found, name), name)
    for name in ("x", "y", "radius", "index", "ellipticity", "x_err", "chi2", "steps", "flags"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name), name)


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_any_unit_gives_the_same_fluxes(drawn, found, unit):
    scaled = [
        stamp.blend(data=np.float32(unit) * stamp.data, variance=(unit * NOISE) ** 2)
        for stamp in drawn
    ]
    again = fit_batch(scaled, **SETTINGS)
    assert (np.abs(again.flux / unit - found.flux) < 0.05 * found.flux_err).all()
    np.testing.assert_allclose(again.flux_err / unit, found.flux_err, rtol=0.01)
    assert again.converged.all()


def test_a_second_call_compiles_nothing(found, compilations):
    # Not much wider or narrower: those would be drawn more or less finely, by another program.
    psf = GaussianPSF(np.array([3.4, 2.7], np.float32))
    stamps = [simulate(100 + n, 1 + n % 3, (30, 31)) for n in range(9)]
    others = [stamp.blend(psf=psf, variance=2 * NOISE**2) for stamp in stamps]
    compilations.clear()
    method = LevenbergMarquardt(tolerance=2e-3)
    again = fit_batch(others, **(SETTINGS | {"method": method}))
    assert np.isfinite(again.flux).all()
    assert compilations == []


KINDS = [
    np.array([POINT, BULGE_DISC, SERSIC, SERSIC], int),
    np.array([BULGE_DISC, POINT, SERSIC, SERSIC], int),
]


@pytest.fixture(scope="module")
def of_kinds():
    """A bright star, a bright bulge with its disc, and two faint galaxies, in two orders."""
    light = {POINT: [3000.0, 2500.0], BULGE_DISC: [9000.0, 8000.0], SERSIC: [70.0, 50.0]}
    size = {POINT: 1.0, BULGE_DISC: 4.0, SERSIC: 1.0}
    return [
        simulate(
            40 + n,
            4,
            kinds=kinds,
            flux=[light[Kind(k)] for k in kinds],
            radius=[size[Kind(k)] for k in kinds],
        )
        for n, kinds in enumerate(KINDS)
    ]


@pytest.mark.slow
def test_kinds_that_are_given_are_kept(of_kinds):
    wanted = [*KINDS, np.array([SERSIC, SERSIC, POINT, BULGE_DISC], int)]
    stamps = [*of_kinds, of_kinds[0]]
    found = fit_batch([stamp.blend() for stamp in stamps], kinds=wanted, **SETTINGS)
    assert found.kind.tolist() == np.concatenate(wanted).tolist()
    assert found.converged[:2].all()
    right = slice(0, 8)
    pulls = pulls_of(found, stamps)[right]
    assert np.abs(pulls).max() < 5
    bulge = found.kind == BULGE_DISC
    assert (found.bulge_flux[~bulge] == 0).all()
    share = (found.bulge_flux / found.flux)[right][bulge[right]]
    assert (np.abs(share - 0.4) < 0.15).all()
    # What a kind does not have has no value.
    assert np.isnan(found.radius[found.kind == POINT]).all()
    assert (np.isfinite(found.index) == (found.kind == SERSIC)).all()
    assert (np.isfinite(found.radius_ratio) == bulge).all()
    # A wrong kind is seen in chi2.
    assert found.value[2] > found.value[0] + 50


@pytest.mark.slow
def test_auto_finds_the_kinds(of_kinds, drawn):
    stamps = [*of_kinds, drawn[1]]
    found = fit_batch([stamp.blend() for stamp in stamps], **(SETTINGS | {"model": "auto"}))
    assert found.kind[:8].tolist() == np.concatenate(KINDS).tolist()
    assert (found.kind[8:] == SERSIC).all()
    assert np.abs(pulls_of(found, stamps)).max() < 5
    assert found.converged.all()


def test_agrees_with_the_single_fit(drawn, found):
    n = 3
    stamp = drawn[n]
    exposure = make_exposure(
        stamp.data,
        np.broadcast_to(NOISE[:, None, None] ** 2, stamp.data.shape).astype(np.float32),
        PSF,
    )
    start = start_scene(
        exposure, stamp.positions, background=ConstantBackground(np.zeros(2, np.float32))
    )
    with hasty():
        single = fit(
            start,
            exposure,
            method=SETTINGS["method"],
            prior=shape_prior(start, position_error=0.5),
            quality=quality_for([PSF]),
        )
    assert single.converged
    rows = found.rows(n)
    members, errors = single.scene.sources[0].members, single.errors.sources[0].members
    flux = np.asarray(members.flux)[: COUNTS[n], 0]
    assert (np.abs(found.flux[rows] - flux) < 0.05 * found.flux_err[rows]).all()
    for name in ("x", "y", "radius", "index", "ellipticity"):
        value = np.asarray(getattr(members, name))[: COUNTS[n]]
        sigma = np.asarray(getattr(errors, name))[: COUNTS[n]]
        error = getattr(found, f"{name}_err")[rows]
        assert (np.abs(getattr(found, name)[rows] - value) < 0.1 * error).all(), name
        np.testing.assert_allclose(error, sigma, rtol=0.05, err_msg=name)
    np.testing.assert_allclose(
        found.flux_err[rows], np.asarray(single.flux_error)[: COUNTS[n]], rtol=0.03
    )


@pytest.mark.slow
def test_an_optax_transformation_goes_through_the_same_driver(blends, found, compilations):
    settings = SETTINGS | {"method": FirstOrder(optax.adam(0.5), max_steps=150), "restarts": 0}
    with hasty():
        again = fit_batch(blends[:3], **settings)
    last = int(again.first[-1])
    away = (again.flux - found.flux[:last]) / found.flux_err[:last]
    assert (again.value < found.value[:3] + 3).all()
    assert np.abs(away).max() < 1
    compilations.clear()
    fit_batch(blends[3:4], **settings)
    assert compilations == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "spiral"}, "`model`.*spiral"),
        ({"model": "multi_gaussian"}, "`model`.*multi_gaussian"),
        ({"background": "mesh"}, "`background`.*mesh"),
        ({"model_error": 1.0}, "`model_error`.*1.0"),
        ({"model_error": -0.1}, "`model_error`.*-0.1"),
        ({"model_error": np.nan}, "`model_error`.*nan"),
        ({"kinds": [[1, 1]]}, "`kinds`.*2; got 1"),
        ({"kinds": [[1], [1, 1, 1]]}, "`kinds` of blend 1 needs 2"),
        ({"kinds": [[1], [1, 3]]}, "`kinds` of blend 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(blends, changes, message):
    with pytest.raises(ValueError, match=message):
        fit_batch(blends[:2], **(SETTINGS | changes))


def test_blends_of_other_bands_are_refused(drawn, blends):
    one_band = blend_of_arrays(drawn[0].data[0], 1.0, GaussianPSF([3.0]), drawn[0].positions)
    with pytest.raises(ValueError, match=r"`blends`.*bands.*\[1, 2\]"):
        fit_batch([blends[0], one_band], **SETTINGS)


def test_no_blends_are_no_results():
    found = fit_batch([], **SETTINGS)
    assert found.n_blends == 0
    assert len(found.flux) == 0


@pytest.fixture(scope="module")
def in_double(drawn):
    """The blends in double precision, each followed by itself as seen through a wider PSF."""
    with hasty(), jax.enable_x64(True):
        psfs = GaussianPSF(FWHM), GaussianPSF(FWHM + 0.7)
        data = [stamp.data.astype(float) for stamp in drawn]
        twice = [
            stamp.blend(data=d, psf=p) for stamp, d in zip(drawn, data, strict=True) for p in psfs
        ]
        assert twice[0].data.dtype == np.float64
        return fit_batch(twice, **SETTINGS)


@pytest.mark.slow
def test_precisions_agree(found, in_double):
    double = in_double.flux[in_double.blend % 2 == 0]
    error = in_double.flux_err[in_double.blend % 2 == 0]
    assert in_double.converged[::2].all()
    assert (double != double.astype(np.float32)).all(), "not in double precision"
    away = np.abs(double - found.flux) / error
    assert np.mean(away < 0.05) >= 0.99
    np.testing.assert_allclose(found.flux_err, error, rtol=0.01)


@pytest.mark.slow
def test_each_blend_is_seen_through_its_own_psf(in_double):
    own = in_double.blend % 2 == 0
    # What is seen through a wider PSF is smaller before it.
    assert (in_double.radius[~own] < in_double.radius[own]).all()


_ON_DEVICES = """
import sys
import jax
import numpy as np
from diffdeblend import GaussianPSF, LevenbergMarquardt
from diffdeblend.batch import blend_of_arrays, fit_batch

put, used = jax.device_put, set()
def device_put(values, device=None, **options):
    used.add(device)
    return put(values, device, **options)
jax.device_put = device_put
kept = np.load(sys.argv[1])
psf = GaussianPSF(kept["fwhm"].astype(np.float32))
blends = [
    blend_of_arrays(kept[f"data{n}"], kept["variance"], psf, kept[f"positions{n}"])
    for n in range(12)
]
found = fit_batch(
    blends, model="sersic", model_error=0.0, sizes=(32, 64),
    method=LevenbergMarquardt(tolerance=1e-3),
)
used.discard(None)
np.savez(sys.argv[2], flux=found.flux, devices=len(jax.devices()), used=len(used))
"""


@pytest.mark.slow
def test_several_devices_give_the_same(drawn, found, tmp_path):
    arrays = {f"data{n}": stamp.data for n, stamp in enumerate(drawn)}
    arrays |= {f"positions{n}": stamp.positions for n, stamp in enumerate(drawn)}
    np.savez(tmp_path / "in.npz", fwhm=FWHM, variance=NOISE**2, **arrays)
    flags = "--xla_force_host_platform_device_count=4"
    subprocess.run(
        [sys.executable, "-c", _ON_DEVICES, tmp_path / "in.npz", tmp_path / "out.npz"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    made = np.load(tmp_path / "out.npz")
    assert made["devices"] == made["used"] == 4
    np.testing.assert_array_equal(made["flux"], found.flux)


def masked_columns(stamp):
    """True on the column that the first source is on, and on one beside it."""
    mask = np.zeros(stamp.data.shape, bool)
    column = round(float(stamp.positions[0, 0]))
    mask[:, :, column] = True
    mask[0, :, column + 1] = True
    return mask


def test_a_masked_column_biases_no_flux(drawn):
    masks = [masked_columns(stamp) for stamp in drawn]
    ruined = [
        stamp._replace(data=np.where(mask, np.float32(4e4), stamp.data))
        for stamp, mask in zip(drawn, masks, strict=True)
    ]
    masked = [stamp.blend(mask=mask) for stamp, mask in zip(ruined, masks, strict=True)]
    again = fit_batch(masked, trim=False, **SETTINGS)
    whole = fit_batch([stamp.blend() for stamp in drawn], trim=False, **SETTINGS)
    pulls = pulls_of(again, drawn)
    assert np.abs(pulls).max() < 5
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size / 2)
    first = again.first[:-1]
    assert (again.flux_err[first] > 1.02 * whole.flux_err[first]).all()
    left = [np.count_nonzero(~mask, axis=(1, 2)) for mask in masks]
    np.testing.assert_array_equal(again.n_pixels, left)


def test_what_is_under_a_mask_does_not_matter(drawn):
    stamp = drawn[5]
    mask = masked_columns(stamp)
    bits = []
    for value in (np.nan, 1e30, np.inf, 0.0):
        data = np.where(mask, np.float32(value), stamp.data)
        variance = np.where(mask, np.float32(-1.0), np.float32(1.0))
        bits.append(stamp.blend(data=data, variance=variance, mask=mask))
    # Without a mask what is not finite is not used either; nor what an exposure excludes.
    data = np.where(mask, np.float32(np.nan), stamp.data)
    bits.append(stamp.blend(data=data, variance=1.0))
    exposure = make_exposure(data, np.ones_like(data), PSF)
    bits.append(make_blend(exposure, stamp.positions))
    found = fit_batch(bits, **SETTINGS)
    assert np.isfinite(found.flux).all()
    assert_same_bits(found, found, [(0, n) for n in range(1, len(bits))])


@given(value=st.integers(1, 5000), ladder=st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_padded_to_is_the_least_rung(value, ladder):
    rungs = sorted(set(ladder))
    size = padded_to(value, rungs)
    assert size >= value
    allowed = [*rungs, *(rungs[-1] * k for k in range(1, 5001))]
    assert size == min(rung for rung in allowed if rung >= value)


@st.composite
def tasks(draw):
    """One task, of up to 4 sources on a stamp of up to 16 pixels."""
    n, ny, nx = draw(st.integers(1, 4)), draw(st.integers(1, 16)), draw(st.integers(1, 16))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    kind = np.array(draw(st.lists(st.sampled_from([0, 1, 2]), min_size=n, max_size=n)))
    places = random.uniform(0, 1, (n, 2)) * (nx - 1, ny - 1)
    data, weight = random.normal(size=(2, ny, nx)), random.uniform(1, 2, (2, ny, nx))
    blend = Blend(
        data.astype(np.float32),
        weight.astype(np.float32),
        draw(st.sampled_from([PSF, WIDE, WIDER])),
        places,
        (0, 0),
        np.arange(n),
    )
    guess = first_guess(places, np.full(n, 1.7), np.full(n, 1.3), kind, 1.5, (2, 1))
    return Task(blend, np.ones(2), guess, (16,))


WIDE, WIDER = (GaussianPSF(np.full(2, w, np.float32)) for w in (4.0, 5.0))


@settings(deadline=None, max_examples=60)
@given(given_tasks=st.lists(tasks(), min_size=1, max_size=5), spare=st.integers(0, 3))
def test_padding_is_dark_and_valid(given_tasks, spare):
    capacity = len(given_tasks) + spare
    bucket = Bucket(16, 4, 8)
    packed, psfs = pack_tasks(given_tasks, bucket, capacity)
    assert all(len(leaf) == capacity for leaf in packed if leaf is not None)
    for name in ("data", "weight", "start", "home"):
        assert np.isfinite(getattr(packed, name)).all(), name
    # What radii and indices must be, of padding too.
    assert (packed.start[..., 2:4] > 0).all()
    assert (packed.home[..., 2] > 0).all()
    assert np.isin(packed.kind, list(Kind)).all()
    pixels = np.zeros(packed.weight.shape, bool)
    for i, task in enumerate(given_tasks):
        (ny, nx), n = task.blend.shape, task.blend.n_sources
        pixels[i, :, :ny, :nx] = True
        np.testing.assert_array_equal(packed.data[i, :, :ny, :nx], task.blend.data)
        np.testing.assert_array_equal(packed.weight[i, :, :ny, :nx], task.blend.weight)
        assert packed.active[i].tolist() == [True] * n + [False] * (4 - n)
        # Each part of each source has one slot; the other slots point beyond all sources.
        wanted = [(s, p) for s in range(n) for p in range(2 if task.guess.kind[s] == 2 else 1)]
        slots = list(zip(packed.slot_owner[i].tolist(), packed.slot_part[i].tolist(), strict=True))
        assert slots[: len(wanted)] == wanted
        assert all(owner == 4 for owner, _ in slots[len(wanted) :])
        width = np.asarray(psfs.fwhm)[packed.psf[i]]
        np.testing.assert_array_equal(width, task.blend.psf.fwhm)
    assert (packed.data[~pixels] == 0).all()
    assert (packed.weight[~pixels] == 0).all()
    assert not packed.active[len(given_tasks) :].any()


@st.composite
def fields(draw):
    """Sum of weighted light, its weight, and places in the stamp, its rim included."""
    ny, nx = draw(st.integers(1, 40)), draw(st.integers(1, 50))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    n = draw(st.integers(1, 5))
    places = random.uniform(-0.5, 1.0, (n, 2)) * (nx, ny)
    places = np.clip(places, -0.5, (nx - 0.5, ny - 0.5))
    depth = np.where(random.uniform(size=(ny, nx)) < draw(st.sampled_from([0, 0.1, 1])), 0, 2.0)
    light = random.normal(size=(ny, nx)) + draw(st.sampled_from([-9.0, 0.0, 0.5, 9.0]))
    return light * depth, depth, places


@settings(deadline=None, max_examples=200)
@given(field=fields(), psf_radius=st.floats(0.5, 6.0))
def test_the_box_holds_every_source_and_lies_in_the_stamp(field, psf_radius):
    weighted, depth, places = field
    ny, nx = depth.shape
    x0, y0, x1, y1 = sources_box(weighted, depth, places, psf_radius)
    assert 0 <= x0 < x1 <= nx
    assert 0 <= y0 < y1 <= ny
    assert (places >= (x0 - 0.5, y0 - 0.5)).all()
    assert (places <= (x1 - 0.5, y1 - 0.5)).all()
    # Two and a half radii around each source, as far as there are pixels.
    reach = 2.5 * psf_radius
    assert (np.maximum(places - reach, 0) >= (x0, y0)).all()
    assert (np.minimum(places + reach, (nx - 1, ny - 1)) <= (x1 - 1, y1 - 1)).all()


def test_the_box_follows_the_light_and_leaves_the_rest():
    lines, columns = np.mgrid[:60, :80]
    light = 20.0 * np.exp(-0.5 * ((columns - 20) / 5) ** 2 - 0.5 * ((lines - 25) / 2) ** 2)
    x0, y0, x1, y1 = sources_box(light, np.ones(light.shape), np.array([[20.3, 24.8]]), 1.5)
    assert x0 < 12
    assert 29 < x1 < 60
    assert 0 < y0 < 21
    assert 29 < y1 < 50


@pytest.mark.slow
def test_windows_of_a_stream_are_one_batch(blends, found):
    # Little memory: the least window, 16 blends, is more than these; so twice as many.
    windows = list(fit_stream((blend for blend in [*blends, *blends]), memory=1.0, **SETTINGS))
    assert [window.n_blends for window in windows] == [16, 2 * len(blends) - 16]
    n = len(blends)
    assert_same_bits(windows[0], found, [(k, k % n) for k in range(16)])
    assert_same_bits(windows[1], found, [(k, (16 + k) % n) for k in range(2 * n - 16)])
    assert list(fit_stream([], **SETTINGS)) == []


@pytest.mark.slow
def test_queue_finds_what_fits_in_turn_find(drawn):
    """The program of accelerators, run on a CPU: more tasks than lanes, of unequal length."""
    size, method = 32, LevenbergMarquardt(tolerance=1e-3)
    tasks = []
    for stamp in drawn[:7]:
        n = len(stamp.positions)
        radius = np.full(n, 1.9)
        guess = first_guess(stamp.positions, radius, radius, np.full(n, int(SERSIC)), 1.5, (2, 1))
        tasks.append(Task(stamp.blend(), np.ones(2), guess, (size, 64)))
    packed, psfs = pack_tasks(tasks, Bucket(size, 4, 4), 8)
    setup = Setup(quality_for([PSF]), "constant")
    count = jnp.asarray(len(tasks))
    with hasty():
        queue, turns = fit_in_queue(packed, psfs, count, method, setup, 3)
        turn = fit_in_turn(packed, psfs, count, method, setup)
    sigma = np.asarray(turn.flux_error)[: len(tasks)]
    flux = [np.asarray(f.scene.sources[0].members.flux).sum(axis=2) for f in (queue, turn)]
    apart = np.abs(flux[0] - flux[1])[: len(tasks)] / np.where(sigma > 0, sigma, np.inf)
    assert apart.max() < 0.05
    assert np.asarray(queue.converged)[: len(tasks)].all()
    np.testing.assert_allclose(
        np.asarray(queue.flux_error)[: len(tasks)], sigma, rtol=0.02, atol=1e-6
    )
    # Idle lanes count; those that are done are given another task.
    useful = int(np.asarray(turn.steps)[: len(tasks)].sum())
    assert useful <= int(turns) < 3 * int(np.asarray(turn.steps).max()) * 3
