"""Rows of a survey run: columns, covariances of fluxes, places on the sky, parts on disk."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import hasty
from survey_run import HEADER, make_decoded, make_found, make_run, make_stamps, make_table

from diffdeblend import GaussianPSF, Scene, make_exposure, render
from diffdeblend.background import ConstantBackground
from diffdeblend.batch import fit_batch, make_blend
from diffdeblend.components import BulgeDisc, Kind, PointSource
from diffdeblend.fit import fit
from diffdeblend.grid import FIT
from diffdeblend.stamps import write_stamps
from diffdeblend.survey import FitSettings
from diffdeblend.survey.columns import arrow_schema, columns_of, row_columns
from diffdeblend.survey.covariance import (
    flux_covariance,
    flux_triangles,
    from_triangle,
    own_triangles,
)
from diffdeblend.survey.job import Job
from diffdeblend.survey.on_worker import lose
from diffdeblend.survey.parts import Run, is_whole, list_parts, part_path, read_part, write_part
from diffdeblend.survey.places import source_sky
from diffdeblend.survey.retry import replace_rows
from diffdeblend.survey.rows import rows_of
from diffdeblend.survey.settings import Programs

COUNTS = (1, 3, 2, 2)
HOW = {"covariance": True, "n_latent": None}


def test_values_of_fits_stand_bit_for_bit_in_the_rows_of_their_stamps():
    stamps = make_stamps()
    places = [7, 1, 10]
    found = make_found([3, 2, 2], seed=4)
    status = ["ok" if p in places else "failed" for p in range(len(stamps))]
    table = rows_of(stamps, HEADER, [(places, found)], status, [""] * len(stamps), **HOW)
    for b, place in enumerate(places):
        row = table.slice(place, 1).to_pylist()[0]
        own = found.rows(b)
        assert row["id"] == 1000 + place
        assert row["row"] == place
        assert row["n_sources"] == len(row["x"]) == own.stop - own.start
        assert row["x"] == found.x[own].tolist()
        assert row["flux_r"] == found.flux[own, 1].tolist()
        assert row["flux_err_g"] == found.flux_err[own, 0].tolist()
        assert row["bulge_flux_err_r"] == found.bulge_flux_err[own, 1].tolist()
        assert row["g2_err"] == found.ellipticity_err[own, 1].tolist()
        assert row["model"] == found.model[own]
        assert row["flags"] == found.flags[own].tolist()
        assert row["sky_r"] == found.sky[b, 1, 0]
        assert row["chi2"] == found.chi2[b].sum()
        assert row["reduced_chi2"] == found.reduced_chi2[b]
        snr = np.hypot(*(found.flux[own] / found.flux_err[own]).T)
        np.testing.assert_allclose(row["snr"], snr)
        assert row["source_id"] == stamps.source_id[place, : own.stop - own.start].tolist()
        assert row["true_flux_r"] == stamps.truth["flux_r"][place, : len(row["x"])].tolist()
    # What was not fitted: the positions given, and nothing else.
    row = table.slice(2, 1).to_pylist()[0]
    assert row["x"] == stamps.position[2, :, 0].tolist()
    assert np.isnan([*row["flux_r"], *row["x_err"], *row["flux_covariance"], row["sky_g"]]).all()
    assert row["model"] == ["", "", ""]
    assert table.slice(3, 1).to_pylist()[0]["flux_covariance"] == []


def test_the_columns_do_not_depend_on_what_was_found():
    stamps = make_stamps()
    n = len(stamps)
    full = make_table(stamps, n_latent=5)
    none = rows_of(stamps, HEADER, [], ["failed"] * n, ["x"] * n, covariance=True, n_latent=5)
    empty = rows_of(
        stamps.part(3, 4), HEADER, [], ["no_sources"], [""], covariance=True, n_latent=5
    )
    assert full.schema.equals(none.schema, check_metadata=True)
    assert full.schema.equals(empty.schema, check_metadata=True)
    # No number is missing: what is not known is NaN, which all readers understand.
    assert not any(column.null_count for table in (full, none, empty) for column in table.columns)


def test_every_column_has_a_unit_that_astropy_reads_and_a_description():
    named = {"stamp_sky": True, "source_sky": True, "truth": ("flux_r", "x", "hlr"), "n_latent": 4}
    columns = row_columns(HEADER, covariance=True, **named)
    assert len({column.name for column in columns}) == len(columns)
    by_name = {column.name: column for column in columns}
    wanted = {
        "x": u.pix,
        "flux_r": u.nJy,
        "flux_err_g": u.nJy,
        "true_flux_r": u.nJy,
        "sky_r": u.nJy / u.pix**2,
        "flux_covariance": u.nJy**2,
        "ra": u.deg,
        "source_dec": u.deg,
        "index": u.dimensionless_unscaled,
    }
    for name, unit in wanted.items():
        assert u.Unit(by_name[name].unit) == unit, name
    schema = arrow_schema(columns)
    for column, field in zip(columns, schema, strict=True):
        assert column.description
        assert field.metadata == {
            b"unit": column.unit.encode(),
            b"description": column.description.encode(),
            b"per": b"source" if column.by_source else b"stamp",
        } | ({b"size": b"4"} if column.name.startswith("latent") and column.size else {})
    assert columns_of(schema) == columns
    assert schema.field("latent").type == pa.list_(pa.float64())
    counts = row_columns(HEADER.__class__(("r",), (9, 9), 1, 1), covariance=False)
    assert {"ra", "source_ra", "flux_covariance", "latent"}.isdisjoint(c.name for c in counts)
    assert next(c.unit for c in counts if c.name == "flux_r") == ""


def test_latents_of_decoded_galaxies_come_back():
    decoded = [True, False, True, True, False]
    found = make_decoded((2, 3), decoded, 4)
    stamps = make_stamps().part(1, 3)
    table = rows_of(
        stamps, HEADER, [([0, 1], found)], ["ok"] * 2, [""] * 2, covariance=True, n_latent=4
    )
    rows = table.to_pylist()
    latent = np.concatenate([row["latent"] for row in rows])
    np.testing.assert_array_equal(latent.reshape(-1, 4), found.latent)
    assert [m for row in rows for m in row["model"]] == found.model
    assert [r for row in rows for r in row["replaced"]] == [not d for d in decoded]
    np.testing.assert_array_equal(rows[1]["latent_quantile"], found.latent_quantile[2:])


def slow_covariance(found, blend, slots_of):
    """The oracle: sums over the slots of each source, number by number."""
    one = found.covariance[blend]
    shape, alone, response = (np.asarray(v, float) for v in (one.shape, one.alone, one.response))
    names = [(s, b) for s in range(len(slots_of)) for b in range(found.bands)]
    matrix = np.zeros((len(names), len(names)))
    for i, (s, b) in enumerate(names):
        for j, (t, c) in enumerate(names):
            for own in slots_of[s]:
                for other in slots_of[t]:
                    matrix[i, j] += response[b, own] @ shape @ response[c, other]
                    matrix[i, j] += alone[b, own, other] if b == c else 0
    sigma = np.sqrt(np.diagonal(matrix))
    error = found.flux_err[found.rows(blend)].reshape(-1)
    return matrix / np.outer(sigma, sigma) * np.outer(error, error)


def test_covariances_of_fluxes_add_up_the_slots_of_each_source():
    kinds = [Kind.BULGE_DISC, Kind.POINT, Kind.BULGE_DISC, Kind.SERSIC, Kind.POINT, Kind.SERSIC]
    found = make_found(COUNTS, kinds=[*kinds, Kind.BULGE_DISC, Kind.BULGE_DISC], n_sky=3)
    slots = [[[0, 1]], [[0], [1, 2], [3]], [[0], [1]], [[0, 1], [2, 3]]]
    for blend, triangle in enumerate(flux_triangles(found)):
        assert triangle.dtype == np.float32
        wanted = slow_covariance(found, blend, slots[blend])
        np.testing.assert_allclose(from_triangle(triangle), wanted, rtol=1e-4, atol=1e-5)
        error = found.flux_err[found.rows(blend)].reshape(-1)
        np.testing.assert_allclose(np.diagonal(from_triangle(triangle)), error**2, rtol=1e-6)


def test_covariances_of_decoded_and_mixed_blends():
    decoded = [True, False, True, True, True, False]
    found = make_decoded((3, 2, 1), decoded, 3)
    found.kind[[1, 5]] = int(Kind.BULGE_DISC)
    # With room for one more source than there are; the second of three is a bulge and a disc.
    slots = [[[0], [4 + 1, 4 + 2], [2]], [[0], [1]], [[2, 3]]]
    for blend, triangle in enumerate(flux_triangles(found)):
        wanted = slow_covariance(found, blend, slots[blend])
        np.testing.assert_allclose(from_triangle(triangle), wanted, rtol=1e-4, atol=1e-5)


def test_what_has_no_error_has_no_covariance():
    found = make_found((2, 1))
    found.flux_err[0, 1] = np.nan
    found.covariance[1] = None
    first, second = (from_triangle(t) for t in flux_triangles(found))
    known = np.arange(4) != 1
    assert np.isnan(first[1]).all()
    assert np.isfinite(first[np.ix_(known, known)]).all()
    assert np.isnan(second).all()


@given(st.integers(0, 9), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_triangles_and_matrices(size, seed):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    matrix = matrix + matrix.T
    triangle = matrix[np.triu_indices(size)]
    np.testing.assert_array_equal(from_triangle(triangle), matrix)


@given(st.lists(st.integers(0, 4), max_size=6), st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_triangles_of_single_sources(counts, n_bands):
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(n * n_bands, n * n_bands)) for n in counts]
    flat = [m[np.triu_indices(len(m))] for m in matrices]
    found = own_triangles(np.concatenate([np.zeros(0), *flat]), np.array(counts, int), n_bands)
    upper = np.triu_indices(n_bands)
    wanted = [
        m[s * n_bands : (s + 1) * n_bands, s * n_bands : (s + 1) * n_bands][upper]
        for m, n in zip(matrices, counts, strict=True)
        for s in range(n)
    ]
    np.testing.assert_array_equal(found, np.reshape(wanted, found.shape))


def test_no_covariance_is_said_to_be_missing():
    row = make_table(make_stamps(), covariance=False).slice(0, 1).to_pylist()[0]
    with pytest.raises(ValueError, match="`row` has no flux_covariance"):
        flux_covariance(row)
    with pytest.raises(ValueError, match=r"n \(n \+ 1\) / 2 numbers; got an array of shape \(5,\)"):
        from_triangle(np.zeros(5))


PSF = GaussianPSF([3.0, 3.4])
NOISE = 3.0


def two_sources(seed=None, brightness=1.0):
    """A bulge and disc and a star that overlap, with noise or without; and their scene."""
    disc, bulge, star = (
        [brightness * f for f in of] for of in ([4e4, 5e4], [3e4, 2e4], [2e4, 1e4])
    )
    scene = Scene(
        [
            BulgeDisc([disc, bulge], 14.0, 15.0, 3.5, 0.4, [0.2, 0.1], 0.7),
            PointSource(star, 18.0, 17.0),
        ],
        ConstantBackground(jnp.zeros(2)),
    )
    image = np.asarray(render(scene, PSF, (32, 32)))
    if seed is not None:
        image = image + np.random.default_rng(seed).normal(scale=NOISE, size=image.shape)
    return scene, make_exposure(image, np.full(2, NOISE**2), PSF)


def correlation_of(matrix):
    sigma = np.sqrt(np.diagonal(matrix))
    return matrix / np.outer(sigma, sigma)


@pytest.mark.slow
def test_covariances_are_those_of_a_single_fit():
    with hasty():
        scene, exposure = two_sources()
        kinds = [np.array([Kind.BULGE_DISC, Kind.POINT])]
        blend = make_blend(exposure, [(14.0, 15.0), (18.0, 17.0)])
        found = fit_batch([blend], kinds=kinds, model_error=0, covariance=True)
        single = fit(scene, exposure)
    made = from_triangle(flux_triangles(found)[0])
    # Slots of the single fit, stack by stack: disc, bulge, star; here no table of slots is used.
    order = [type(stack.members).__name__ for stack in single.scene.sources]
    adds = np.array([[1, 1, 0], [0, 0, 1]]) if order[0] == "BulgeDisc" else np.eye(3)[:0]
    if order[0] == "PointSource":
        adds = np.array([[0, 1, 1], [1, 0, 0]])
    wanted = np.zeros((2, 2, 2, 2))
    for b in range(2):
        for c in range(2):
            wanted[:, b, :, c] = adds @ np.asarray(single.covariance.band(b, c))[:3, :3] @ adds.T
    wanted = wanted.reshape(4, 4)
    np.testing.assert_allclose(correlation_of(made), correlation_of(wanted), atol=0.02)
    assert np.abs(correlation_of(wanted)[0, 2]) > 0.05
    # At this signal-to-noise ratio nothing is widened.
    np.testing.assert_allclose(np.diagonal(made), np.diagonal(wanted), rtol=0.05)


@pytest.mark.slow
def test_covariances_are_the_scatter_of_fluxes():
    n = 600
    positions = [(14.0, 15.0), (18.0, 17.0)]
    blends = [make_blend(two_sources(seed)[1], positions) for seed in range(n)]
    kinds = [np.array([Kind.BULGE_DISC, Kind.POINT])] * n
    found = fit_batch(blends, kinds=kinds, model_error=0, covariance=True)
    told = np.mean([from_triangle(t) for t in flux_triangles(found)], axis=0)
    scatter = np.cov(found.flux.reshape(n, 4).T)
    # A correlation of n pairs is known within 1 / sqrt(n), a variance within sqrt(2 / n).
    np.testing.assert_allclose(correlation_of(told), correlation_of(scatter), atol=4 / np.sqrt(n))
    ratio = np.diagonal(told) / np.diagonal(scatter)
    np.testing.assert_allclose(ratio, 1, atol=4 * np.sqrt(2 / n))


def tan_wcs(ra, dec, cd, shape):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] - 1) / 2 + 1, (shape[0] - 1) / 2 + 1]
    wcs.wcs.cd = cd
    return wcs


@pytest.mark.parametrize("with_cd", [True, False], ids=["cd", "north up"])
def test_places_on_the_sky_are_those_of_astropy(with_cd):
    stamps = make_stamps(cd=with_cd)
    rng = np.random.default_rng(2)
    owner = np.repeat(np.arange(len(stamps)), 5)
    x, y = rng.uniform(-300, 300, (2, len(owner)))
    ra, dec = source_sky(stamps, HEADER, owner, x, y)
    scale = HEADER.pixel_scale / 3600
    for stamp in range(len(stamps)):
        cd = stamps.cd[stamp] if with_cd else np.diag([-scale, scale])
        wcs = tan_wcs(stamps.ra[stamp], stamps.dec[stamp], cd, HEADER.shape)
        own = owner == stamp
        wanted = wcs.all_pix2world(np.stack([x[own], y[own]], axis=1), 0)
        np.testing.assert_allclose((ra[own] - wanted[:, 0] + 180) % 360, 180, atol=1e-9)
        np.testing.assert_allclose(dec[own], wanted[:, 1], atol=1e-9)
    assert (ra >= 0).all()
    assert (ra < 360).all()


@given(
    st.floats(0, 360, exclude_max=True),
    st.floats(-90, 90),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3),
)
@settings(deadline=None, max_examples=100)
def test_places_keep_their_distance_from_the_middle_also_at_the_poles(ra, dec, dx, dy):
    stamps = make_stamps().part(0, 1)
    stamps.ra[:], stamps.dec[:] = ra, dec
    x, y = np.array([dx + 9.5]), np.array([dy + 11.5])
    (found_ra,), (found_dec,) = source_sky(stamps, HEADER, np.array([0]), x, y)
    assert 0 <= found_ra < 360
    one, other = np.deg2rad([ra, dec]), np.deg2rad([found_ra, found_dec])
    towards = [[np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)] for a, d in (one, other)]
    angle = np.arctan2(np.linalg.norm(np.cross(*towards)), np.dot(*towards))
    wanted = np.arctan(np.deg2rad(np.hypot(dx, dy) * 0.2 / 3600))
    assert angle == pytest.approx(wanted, abs=1e-12)


def test_nothing_is_said_of_the_sky_where_it_is_not_known():
    table = make_table(make_stamps(sky=False))
    assert {"ra", "dec", "source_ra", "source_dec"}.isdisjoint(table.column_names)
    with pytest.raises(ValueError, match="`stamps` must have ra, dec"):
        source_sky(make_stamps(sky=False), HEADER, np.array([0]), np.zeros(1), np.zeros(1))


def test_parts_of_equal_values_are_equal_files_and_say_what_they_are_of(tmp_path):
    table = make_run(tmp_path / "a", size=4)
    make_run(tmp_path / "b", size=4)
    parts = list(list_parts(tmp_path / "a"))
    assert [run for run, _ in parts] == [Run(0, 4), Run(4, 8), Run(8, 12)]
    for run, path in parts:
        assert path.read_bytes() == part_path(tmp_path / "b", run).read_bytes()
        assert is_whole(run, path)
        schema = pq.read_schema(path)
        assert schema.metadata[b"store_sha256"] == b"ab" * 32
        assert schema.metadata[b"settings_sha256"] == b"cd" * 32
        assert json.loads(schema.metadata[b"versions"])["diffdeblend"]
        assert schema.field("flux_r").metadata[b"unit"] == b"nJy"
        own = table.slice(run.start, len(run))
        assert equal(read_part(path, run), own)
        assert equal(read_part(path, run, ["id", "x"]), own.select(["id", "x"]))


def test_rows_that_were_fitted_again_take_their_places_with_all_columns(tmp_path):
    """Lists of lists and covariances, too."""
    stamps = make_stamps()
    before = make_run(tmp_path / "run", n_latent=3, failed=(5, 6))
    after = make_table(stamps, n_latent=3, seed=9)
    again = tmp_path / "again"
    write_part(after.slice(5, 2), again, Run(5, 7))
    assert replace_rows(tmp_path / "run", again, Run(0, len(stamps))) == 2
    found = pa.concat_tables([read_part(path, run) for run, path in list_parts(tmp_path / "run")])
    wanted = pa.concat_tables([before.slice(0, 5), after.slice(5, 2), before.slice(7)])
    assert equal(found, wanted)
    schema = pq.read_schema(part_path(tmp_path / "run", Run(4, 8)))
    assert schema.equals(pq.read_schema(part_path(tmp_path / "run", Run(0, 4))), True)


@pytest.mark.parametrize("prior", [None, "tiny"])
def test_stamps_that_are_given_up_have_the_columns_of_all_others(tmp_path, prior):
    stamps = make_stamps()
    write_stamps(stamps, replace(HEADER, n_stamps=len(stamps)), tmp_path / "s.zarr")
    settings = FitSettings(prior=prior, covariance=prior is not None)
    programs = Programs(FIT, False, None, None)
    job = Job(str(tmp_path / "s.zarr"), str(tmp_path / "run"), settings, programs)
    store, fitter = job.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffdeblend.survey.fit_stamps.fit_batch", broken)
        others = replace(fitter, patient=True).fit(store.read(0, 3))
    assert lose(store, fitter, job, Run(3, 6)).status == {"killed_worker": 3}
    found = read_part(part_path(tmp_path / "run", Run(3, 6)))
    assert ("latent" in found.column_names) == (prior is not None)
    assert ("flux_covariance" in found.column_names) == settings.covariance
    assert found.schema.equals(others.schema)
    assert others.column("status").to_pylist() == ["failed"] * 3


def broken(*_, **__):
    raise RuntimeError("no luck")


def equal(one, other):
    """Whether two tables are the same bit by bit, NaN and all."""
    return one.schema.equals(other.schema) and all(
        a.combine_chunks().to_pylist().__repr__() == b.combine_chunks().to_pylist().__repr__()
        for a, b in zip(one.columns, other.columns, strict=True)
    )


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A part of six stamps: where it is, and what is in it."""
    folder = tmp_path_factory.mktemp("part")
    path = write_part(make_table(make_stamps().part(0, 6)), folder, Run(0, 6))
    return folder, path.read_bytes()


@given(st.data())
@settings(deadline=None, max_examples=80)
def test_a_part_that_is_cut_is_not_whole(part, data):
    folder, content = part
    path = folder / "cut.parquet"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert not is_whole(Run(0, 6), path)
    with pytest.raises(ValueError, match=r"cut.parquet' is damaged: .*run fit-survey again"):
        read_part(path)


@given(st.data())
@settings(deadline=None, max_examples=120)
def test_a_part_with_a_changed_byte_is_refused_or_reads_as_it_was(part, data):
    folder, content = part
    place = data.draw(st.integers(0, len(content) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    path = folder / "changed.parquet"
    path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
    before = folder / "before.parquet"
    before.write_bytes(content)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    try:
        found = read_part(path, Run(0, 6))
    except ValueError:
        # Nothing else may be raised.
        return
    # Pages have checksums; of what is around them, some bits say nothing of values.
    if 4 <= place < footer:
        assert equal(found, read_part(before))


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1" * 40, b"PAR1" + bytes(100) + b"\x10\0\0\0PAR1", b"<html>" * 99],
    ids=["empty", "start", "magic alone", "no footer", "text"],
)
def test_what_is_no_parquet_is_not_whole(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    assert not is_whole(Run(0, 1), path)
    with pytest.raises(ValueError, match="is damaged"):
        read_part(path)


def test_a_part_of_other_columns_or_of_other_stamps_is_not_whole(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1, 2]}), path)
    assert not is_whole(Run(0, 2), path)
    with pytest.raises(ValueError, match="it has no column 'row'"):
        read_part(path)
    whole = write_part(make_table(make_stamps().part(0, 6)), tmp_path, Run(0, 6))
    assert not is_whole(Run(0, 7), whole)
    with pytest.raises(ValueError, match="it has 6 rows, not 7"):
        read_part(whole, Run(0, 7))
    assert not is_whole(Run(0, 1), tmp_path)
    assert not is_whole(Run(0, 1), tmp_path / "none.parquet")
