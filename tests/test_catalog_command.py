"""One table of a survey run: rows, units, missing and damaged parts, the command."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import QTable, Table
from quick import hasty
from survey_run import COUNTS, HEADER, counted, make_run, make_stamps

from diffdeblend.cli import main
from diffdeblend.stamps import StampsHeader, write_stamps
from diffdeblend.survey import FitSettings, fit_survey
from diffdeblend.survey.catalog import merge_parts
from diffdeblend.survey.columns import columns_of
from diffdeblend.survey.covariance import flux_covariance
from diffdeblend.survey.hats import write_hats
from diffdeblend.survey.parts import list_parts
from diffdeblend.survey.status import STATUS_MEANINGS

N = sum(COUNTS)
FAILED = (5, 6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of twelve stamps in three parts, two of which failed; its folder and its rows."""
    folder = tmp_path_factory.mktemp("survey") / "run"
    return folder, make_run(folder, failed=FAILED).to_pylist()


def by_source(rows, name):
    """Numbers of all sources, one after the other."""
    return [value for row in rows for value in row[name]]


def same(one, other):
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_row_a_source_with_what_became_of_its_stamp(run, tmp_path):
    folder, rows = run
    merged = merge_parts(folder, tmp_path / "c.parquet")
    assert (merged.rows, merged.n_stamps, merged.n_missing) == (N, 12, 0)
    assert merged.status == {"ok": 8, "no_sources": 2, "failed": 2}
    table = pq.read_table(tmp_path / "c.parquet")
    assert not any(column.null_count for column in table.columns)
    found = {name: table.column(name).to_numpy() for name in table.column_names}
    owner = np.repeat(np.arange(12), COUNTS)
    same(found["stamp_id"], 1000 + owner)
    same(found["stamp_row"], owner)
    same(found["status"], [rows[o]["status"] for o in owner])
    same(found["error"], [rows[o]["error"] for o in owner])
    for name in ("stamp_ra", "stamp_dec"):
        same(found[name], [rows[o][name.removeprefix("stamp_")] for o in owner])
    for name in ("chi2", "reduced_chi2", "n_pixels", "sky_g", "converged"):
        same(found[name], [rows[o][name] for o in owner])
    same(found["ra"], by_source(rows, "source_ra"))
    same(found["dec"], by_source(rows, "source_dec"))
    for name in ("source_id", "x", "flux_g", "flux_err_r", "radius", "model", "flags", "snr"):
        same(found[name], by_source(rows, name))
    lost = np.isin(owner, FAILED)
    assert np.isnan(found["flux_r"][lost]).all()
    assert np.isnan(found["mag_r"][lost]).all()
    assert np.isfinite(found["ra"]).all()
    same(found["mag_r"][~lost], 31 - 2.5 * np.log10(found["flux_r"][~lost]))
    wanted = 2.5 / np.log(10) * found["flux_err_g"] / found["flux_g"]
    np.testing.assert_allclose(found["mag_err_g"], wanted)
    # Of the covariances of a stamp those of each source.
    for place, row in enumerate(table.to_pylist()):
        whole = flux_covariance(rows[owner[place]])
        s = place - int(np.flatnonzero(owner == owner[place])[0])
        same(flux_covariance(row), whole[2 * s : 2 * s + 2, 2 * s : 2 * s + 2])


def test_a_row_a_stamp_is_what_the_parts_hold(run, tmp_path):
    folder, rows = run
    merged = merge_parts(folder, tmp_path / "c.parquet", rows="stamps")
    assert merged.rows == 12
    found = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert repr(found) == repr(rows)


@pytest.mark.parametrize("rows", ["sources", "stamps"])
def test_astropy_and_pyarrow_read_it_with_units_and_words(run, tmp_path, rows):
    folder, _ = run
    merge_parts(folder, tmp_path / "c.parquet", rows=rows)
    schema = pq.read_schema(tmp_path / "c.parquet")
    table = Table.read(tmp_path / "c.parquet")
    frame = pq.read_table(tmp_path / "c.parquet")
    n = N if rows == "sources" else 12
    assert len(table) == frame.num_rows == n
    assert table.colnames == schema.names
    for column in columns_of(schema):
        assert table[column.name].description == column.description != ""
        assert u.Unit(table[column.name].unit or "") == u.Unit(column.unit)
    assert table["flux_r"].unit == u.nJy
    same(table["status"], frame["status"].to_pylist())
    assert table.meta["flags"]["MOVED"]["value"] == 16
    assert set(table.meta["statuses"]) == {str(word) for word in STATUS_MEANINGS}
    assert table.meta["run"]["settings_sha256"] == "cd" * 32
    assert json.loads(schema.metadata[b"diffdeblend"]) == table.meta
    if rows == "sources":
        quantities = QTable.read(tmp_path / "c.parquet")
        assert quantities["ra"].unit == u.deg
        same(quantities["flux_g"].to_value(u.uJy), frame["flux_g"].to_numpy() * 1e-3)


def test_pandas_reads_it(run, tmp_path):
    pandas = pytest.importorskip("pandas")
    folder, _ = run
    merge_parts(folder, tmp_path / "c.parquet")
    frame = pandas.read_parquet(tmp_path / "c.parquet")
    table = Table.read(tmp_path / "c.parquet")
    assert list(frame.columns) == table.colnames
    same(table["flux_g"], frame["flux_g"].to_numpy())
    same(table["status"], frame["status"])


@pytest.mark.parametrize("rows", ["sources", "stamps"])
def test_fits_holds_the_same(run, tmp_path, rows):
    folder, _ = run
    merge_parts(folder, tmp_path / "c.parquet", rows=rows)
    merged = merge_parts(folder, tmp_path / "c.fits", rows=rows)
    table, other = Table.read(tmp_path / "c.fits"), Table.read(tmp_path / "c.parquet")
    table.convert_bytestring_to_unicode()
    assert len(table) == merged.rows
    lists = [name for name in other.colnames if other[name].dtype == object]
    assert table.colnames == [name for name in other.colnames if name not in lists]
    assert bool(lists) == (rows == "stamps")
    for name in table.colnames:
        # astropy masks empty words.
        values = np.ma.getdata(table[name])
        same(values, other[name])
        assert values.dtype.kind == other[name].dtype.kind
        assert table[name].unit == other[name].unit
        assert table[name].description == other[name].description
    assert (
        table.meta["FLAG4"]
        == "16 MOVED: the centre ended more than 1.5 pixels from where it started"
    )
    assert json.loads(table.meta["PROVENAN"])["run"]["store"]["path"] == "stamps.zarr"
    assert (tmp_path / "c.fits").stat().st_size % 2880 == 0


def test_latents_and_other_units_in_both_formats(tmp_path):
    header = replace(HEADER, unit="nmgy", zero_points=None)
    make_run(tmp_path / "run", header, n_latent=3)
    for kind in ("parquet", "fits"):
        merge_parts(tmp_path / "run", tmp_path / f"c.{kind}")
    merge_parts(tmp_path / "run", tmp_path / "s.parquet", rows="stamps")
    lengths = [len(row) for row in Table.read(tmp_path / "s.parquet")["latent"]]
    assert lengths == [3 * count for count in COUNTS]
    one, other = Table.read(tmp_path / "c.parquet"), Table.read(tmp_path / "c.fits")
    assert one["latent"].shape == other["latent"].shape == (N, 3)
    assert other["replaced"].dtype == bool
    assert "mag_g" not in one.colnames
    same(one["flux_g"], other["flux_g"])


def test_runs_without_sky_zero_points_or_covariance(tmp_path):
    header = replace(HEADER, unit="", zero_points=None)
    stamps = make_stamps(header, sky=False, truth=False)
    make_run(tmp_path / "run", header, stamps=stamps, covariance=False)
    merge_parts(tmp_path / "run", tmp_path / "c.parquet")
    table = Table.read(tmp_path / "c.parquet")
    assert {"ra", "stamp_ra", "mag_r", "flux_covariance", "true_x"}.isdisjoint(table.colnames)
    assert table["flux_r"].unit is None
    with pytest.raises(ValueError, match="has no flux_covariance"):
        flux_covariance(dict(table[0]))


def test_runs_without_any_source(tmp_path):
    make_run(tmp_path / "run", stamps=make_stamps(counts=(0, 0)))
    for kind in ("parquet", "fits"):
        assert merge_parts(tmp_path / "run", tmp_path / f"c.{kind}").rows == 0
        assert len(Table.read(tmp_path / f"c.{kind}")) == 0


@pytest.mark.parametrize(
    "runs",
    [
        [(0, 5), (0, 3), (3, 8), (6, 12)],
        [(0, 12), (4, 8)],
        [(0, 1), (0, 12), (11, 12)],
    ],
)
def test_where_parts_overlap_every_stamp_counts_once(run, tmp_path, runs):
    folder, _ = run
    make_run(tmp_path / "run", failed=FAILED, runs=runs)
    for name, of in (("a", folder), ("b", tmp_path / "run")):
        for rows in ("sources", "stamps"):
            merge_parts(of, tmp_path / f"{name}_{rows}.parquet", rows=rows)
    for rows in ("sources", "stamps"):
        one, other = (pq.read_table(tmp_path / f"{name}_{rows}.parquet") for name in "ab")
        assert repr(one.to_pylist()) == repr(other.to_pylist())


def test_the_first_of_overlapping_parts_counts(tmp_path):
    """Both hold stamps 2 and 3, with other numbers."""
    make_run(tmp_path / "run", runs=[(0, 4)])
    other = make_stamps(seed=5)
    make_run(tmp_path / "other", stamps=other, runs=[(2, 12)])
    for _, path in list_parts(tmp_path / "other"):
        shutil.copy(path, next(list_parts(tmp_path / "run"))[1].parent / path.name)
    merge_parts(tmp_path / "run", tmp_path / "c.parquet", rows="stamps")
    found = pq.read_table(tmp_path / "c.parquet")
    wanted = make_stamps().position[2, :, 0].tolist()
    assert found.column("x")[2].as_py()[0] != other.position[2, 0, 0]
    assert len(found.column("x")[2].as_py()) == len(wanted)
    assert found.column("true_x")[2].as_py() == wanted
    assert found.column("true_x")[4].as_py() == other.position[4, :2, 0].tolist()


def test_rows_are_written_in_groups_that_bound_the_memory(run, tmp_path, monkeypatch):
    folder, rows = run
    monkeypatch.setattr("diffdeblend.survey.catalog_files._GROUP", 8)
    merge_parts(folder, tmp_path / "c.parquet")
    file = pq.ParquetFile(tmp_path / "c.parquet")
    sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    assert max(sizes) <= 8
    assert sum(sizes) == N
    same(file.read(["x"]).column("x").to_numpy(), by_source(rows, "x"))


def test_missing_stamps_are_counted_and_refused_unless_asked_for(tmp_path, capsys):
    make_run(tmp_path / "run", runs=[(0, 3), (5, 9)])
    with pytest.raises(ValueError, match=r"5 of 12 stamps of .* are not fitted; run fit-survey"):
        merge_parts(tmp_path / "run", tmp_path / "c.parquet")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    words = ["catalog", str(tmp_path / "run"), str(tmp_path / "c.parquet"), "--quiet"]
    assert main(words) == 2
    assert "5 of 12 stamps" in capsys.readouterr().err
    assert main([*words, "--partial"]) == 0
    said = capsys.readouterr().out
    assert f"{sum(COUNTS[:3] + COUNTS[5:9])} sources of 7 stamps" in said
    assert "not fitted yet: 5 of 12 stamps" in said
    assert Table.read(tmp_path / "c.parquet").meta["n_missing"] == 5


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "text"])
def test_a_damaged_part_is_named_in_one_line(tmp_path, capsys, harm):
    make_run(tmp_path / "run")
    _, path = list(list_parts(tmp_path / "run"))[1]
    content = path.read_bytes()
    changed = bytearray(content)
    changed[200] ^= 255
    path.write_bytes(
        {"cut": content[:-9], "empty": b"", "flipped": bytes(changed), "text": b"<html>"}[harm]
    )
    words = ["catalog", str(tmp_path / "run"), str(tmp_path / "c.fits"), "--quiet"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert path.name in said
    assert "damaged" in said
    assert "run fit-survey again" in said
    assert not (tmp_path / "c.fits").exists()


def test_parts_of_other_columns_are_refused(tmp_path):
    make_run(tmp_path / "run")
    _, path = list(list_parts(tmp_path / "run"))[2]
    pq.write_table(pq.read_table(path).drop_columns(["g1"]), path)
    with pytest.raises(ValueError, match=r"other columns than those before it \(g1\)"):
        merge_parts(tmp_path / "run", tmp_path / "c.parquet")


def test_parts_of_another_version_are_refused(tmp_path):
    make_run(tmp_path / "run")
    _, path = next(list_parts(tmp_path / "run"))
    table = pq.read_table(path)
    for told, said in (({}, "'of no format'"), ({"format": "new 2"}, "'new 2'")):
        pq.write_table(table.replace_schema_metadata(told), path)
        with pytest.raises(ValueError, match=f"is {said}, not 'diffdeblend survey part 1'"):
            merge_parts(tmp_path / "run", tmp_path / "c.parquet")


def test_what_is_asked_for_wrongly_is_refused_before_any_work(run, tmp_path):
    folder, _ = run
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    (tmp_path / "x.fits").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    shutil.copy(folder / "manifest.json", tmp_path / "fresh" / "manifest.json")
    for arguments, words in (
        ((folder, tmp_path / "c.csv"), r"`path` must end in .parquet or .fits; got .*c.csv"),
        ((folder, tmp_path / "c.fits", "pixels"), "`rows` must be sources or stamps; got 'pixels'"),
        ((folder, there), "there.parquet' is there; ask for it to be overwritten"),
        ((folder, tmp_path / "x.fits"), "x.fits' is a folder"),
        ((folder, tmp_path / "no" / "c.fits"), "there is no folder"),
        ((tmp_path / "empty", tmp_path / "c.fits"), "no folder of a survey run"),
        ((tmp_path / "fresh", tmp_path / "c.fits"), "has no parts: no stamp is fitted yet"),
    ):
        with pytest.raises(ValueError, match=words):
            merge_parts(*arguments)
    assert there.read_text() == "mine"
    merge_parts(folder, there, overwrite=True)
    assert len(Table.read(there)) == N


def test_the_command_says_what_it_wrote(run, tmp_path, capsys):
    folder, _ = run
    words = ["catalog", str(folder), str(tmp_path / "c.fits")]
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{tmp_path / 'c.fits'}: {N} sources of 12 stamps",
        "  ok 8, no_sources 2, failed 2",
        "  2 stamps failed: NaN in the table, the reason in its column error",
    ]
    assert said.err == ""
    assert main(words) == 2
    assert "is there" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--rows", "stamps"]) == 0
    assert "c.fits: 12 stamps" in capsys.readouterr().out
    assert counted(Table.read(tmp_path / "c.fits")["status"]) == merged_counts(folder, tmp_path)


def merged_counts(folder, tmp_path):
    return dict(merge_parts(folder, tmp_path / "counts.parquet").status)


def test_hats_without_its_package_says_what_to_install(run, tmp_path, capsys, monkeypatch):
    folder, _ = run
    monkeypatch.setattr("diffdeblend.survey.hats.find_spec", lambda name: None)
    for words in (["survey.hats"], ["survey", "--hats"]):
        where = [str(tmp_path / words[0]), *words[1:]]
        assert main(["catalog", str(folder), *where, "--quiet"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "pip install hats-import" in said
    assert main(["catalog", str(folder), str(tmp_path / "s.hats"), "--rows", "stamps"]) == 2
    assert "--rows of HATS must be sources" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_hats_holds_every_source_in_a_pixel_of_its_place(run, tmp_path):
    pytest.importorskip("hats_import")
    hats = pytest.importorskip("hats")
    from hats.pixel_math import spatial_index_to_healpix

    folder, rows = run
    merged = write_hats(folder, tmp_path / "survey.hats", pixel_rows=5)
    assert merged.rows == N
    catalog = hats.read_hats(tmp_path / "survey.hats")
    assert catalog.catalog_info.total_rows == N
    assert len(catalog.get_healpix_pixels()) > 1
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted(tmp_path.glob("survey.hats/**/Npix*.parquet"))]
    )
    assert sorted(table.column("source_id").to_pylist()) == sorted(by_source(rows, "source_id"))
    assert table.schema.field("flux_r").metadata[b"unit"] == b"nJy"
    assert spatial_index_to_healpix(table.column("_healpix_29").to_numpy(), 3).size == N
    assert sorted(path.name for path in tmp_path.iterdir()) == ["survey.hats"]


@pytest.mark.slow
def test_fits_of_a_store_become_a_catalogue_near_the_truth(tmp_path):
    """Stars: fluxes within their errors, magnitudes, a stamp of NaN that failed."""
    rng = np.random.default_rng(8)
    header = StampsHeader(("r",), (24, 24), 6, 2, 0.2, (27.0,), "nJy")
    y, x = np.mgrid[:24, :24]
    stamps = make_stamps(header, (1,) * 6)
    flux = rng.uniform(500, 900, 6)
    for k in range(6):
        (a, b), width = stamps.position[k, 0], 1.6
        light = np.exp(-((x - a) ** 2 + (y - b) ** 2) / 2 / width**2) / (2 * np.pi * width**2)
        stamps.image[k] += flux[k] * light
    stamps.image[4] = np.nan
    v, u_ = np.mgrid[-9:10, -9:10]
    image = np.exp(-(u_**2 + v**2) / 2 / 1.6**2)
    psf = (image / image.sum())[None, None].astype(np.float32)
    truth = {"flux_r": np.stack([flux, np.full(6, np.nan)], axis=1)}
    write_stamps(replace(stamps, psf=psf, truth=truth), header, tmp_path / "s.zarr")
    with hasty():
        how = FitSettings(model="point", model_error=0)
        fit_survey(tmp_path / "s.zarr", tmp_path / "run", how, batch=4)
    merged = merge_parts(tmp_path / "run", tmp_path / "c.parquet")
    assert merged.status == {"ok": 5, "bad_input": 1}
    table = QTable.read(tmp_path / "c.parquet")
    same(table["true_flux_r"].to_value(u.nJy), flux)
    sound = table["status"] == "ok"
    same(np.flatnonzero(~sound), [4])
    assert np.isnan(table["flux_r"][4])
    off = ((table["flux_r"] - flux * u.nJy) / table["flux_err_r"]).to_value("")[sound]
    assert (np.abs(off) < 4).all()
    assert np.std(off) > 0.2
    variance = (table["flux_err_r"] ** 2).to_value(u.nJy**2)[sound]
    np.testing.assert_allclose(table["flux_covariance"].to_value(u.nJy**2)[sound, 0], variance)
    wanted = 27 - 2.5 * np.log10(flux[sound])
    np.testing.assert_allclose(table["mag_r"].to_value(u.mag)[sound], wanted, atol=0.1)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from diffdeblend.cli import main\n"
        "try: main(['catalog', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'pyarrow', 'astropy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert "diffdeblend catalog RUN FILE" in done.stdout
