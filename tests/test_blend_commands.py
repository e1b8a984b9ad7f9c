"""`diffdeblend simulate` and `diffdeblend score`, from the command line to the files."""

import json
import shutil

import numpy as np
import pytest
from astropy.table import Table

from diffdeblend.cli import main
from diffdeblend.score import read_scores
from diffdeblend.simulate import count_blends, read_blends, read_surveys, simulate

SMALL = ["--bands", "g,r", "--stamp", "8", "--max-shift", "2", "--most", "2", "--quiet"]
OWN_SAMPLING = """
from diffdeblend.simulate import Placed

def one(table, rng):
    return Placed.of([rng.integers(len(table))], 0.5, -0.5)
"""
OWN_MEASURE = """
import numpy as np
from astropy.table import Table
from diffdeblend.score import Measured

def middle(exposure, positions=None, shift=0.0):
    ny, nx = exposure.shape
    flux = np.asarray(exposure.image)[1].sum()
    table = Table({"x": [(nx - 1) / 2 + shift], "y": [(ny - 1) / 2], "flux_r": [flux]})
    table["flux_err_r"] = np.sqrt(np.asarray(exposure.variance)[1].sum())
    return Measured(table)

def peak(image, psf, x, y):
    return float(image.max())
"""


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of seven blends, written in batches."""
    path = tmp_path_factory.mktemp("made") / "blends.zarr"
    assert run("simulate", "--n", 7, "--seed", 3, "--batch", 3, *SMALL, "-o", path) == 0
    return path


def test_simulate_writes_a_set(made):
    blends = read_blends(made)
    assert blends.images.shape == (7, 2, 40, 40)
    assert blends.seed == 3
    summary = json.loads((made / "summary.json").read_text())
    assert summary["n_blends"] == 7
    assert summary["n_sources"] == len(blends.truth)
    assert summary["blends_per_second"] > 0
    assert (made / "figure.png").stat().st_size > 10_000


def test_an_interrupted_set_goes_on(made, tmp_path, capsys):
    path = tmp_path / "blends.zarr"
    command = ["simulate", "--seed", 3, *SMALL, "-o", path]
    assert run(*command, "--n", 4) == 0
    assert run(*command, "--n", 7) == 0
    again, whole = read_blends(path), read_blends(made)
    assert np.array_equal(again.images, whole.images)
    assert np.array_equal(again.truth["x"], whole.truth["x"])
    assert run(*command, "--n", 7) == 2
    assert "holds 7 blends of these settings" in capsys.readouterr().err
    assert run(*command, "--n", 9, "--noise", "none") == 2
    assert "of other settings" in capsys.readouterr().err
    assert run(*command, "--n", 2, "--overwrite") == 0
    assert count_blends(path) == 2


@pytest.mark.slow
def test_several_surveys_stars_and_an_own_sampling(tmp_path):
    (tmp_path / "own.py").write_text(OWN_SAMPLING)
    path = tmp_path / "two.zarr"
    sampling = ["--sampling", f"{tmp_path / 'own.py'}:one", "--stamp", 6]
    options = ["--survey", "LSST,HSC", "--bands", "g", "--no-isolated", "--quiet"]
    assert run("simulate", "--n", 2, *sampling, *options, "-o", path) == 0
    found = read_surveys(path)
    assert [found[name].shape for name in ("LSST", "HSC")] == [(30, 30), (35, 35)]
    assert found["HSC"].isolated is None
    assert np.array_equal(found["LSST"].truth["row"], found["HSC"].truth["row"])
    stars = tmp_path / "stars.zarr"
    assert run("simulate", "--n", 2, "--stars", 1, *SMALL, "-o", stars) == 0
    assert read_blends(stars).truth["is_star"].all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--survey", "Hubble"], "there is no survey 'Hubble'"),
        (["--n", "0"], "--n and --batch must be at least 1"),
        (["--sampling", "many"], "--sampling must be one of uniform"),
        (["--sampling", "absent.py:f"], "is not there"),
        (["--density", "5"], "--sampling uniform has no use for --density"),
        (["--catalog", "absent.fits"], "absent.fits"),
        (["--stars", "2"], "no share between 0 and 1"),
        (["--sampling", "pair", "--separation", "wide"], "no number and no range"),
        (["--bands", "g,q"], "has no band 'q'"),
    ],
)
def test_simulate_says_what_is_wrong(options, words, tmp_path, capsys):
    try:
        code = run("simulate", "--quiet", *options, "-o", tmp_path / "blends.zarr")
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "blends.zarr").exists()


@pytest.mark.slow
def test_score_runs_measures_side_by_side(made, tmp_path, capsys):
    pytest.importorskip("sep")
    (tmp_path / "own.py").write_text(OWN_MEASURE)
    out = tmp_path / "scores"
    own = f"{tmp_path / 'own.py'}:middle"
    command = ["score", made, "--measure", f"sep,{own}", "--batch", 4, "--quiet", "-o", out]
    assert run(*command, "--target", f"aperture,{tmp_path / 'own.py'}:peak") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_blends"] == 7
    assert list(summary["measures"]) == ["sep", "middle"]
    names = {"precision", "recall", "f1", "flux_bias", "flux_scatter", "coverage_68"}
    for figures in summary["measures"].values():
        assert names | {"seconds_per_blend"} <= set(figures)
    scores = read_scores(out / "scores.npz")
    assert scores["sep"].n_blends == 7
    assert "aperture0" in scores["sep"].per_source.colnames
    assert "peak_true" in scores["middle"].per_source.colnames
    # The detection is in the middle of each blend, one a blend.
    assert len(scores["middle"].detections) == 7
    truth = read_blends(made).truth
    at = np.hypot(truth["x"] - 19.5, truth["y"] - 19.5)
    hit = [at[truth["blend"] == k].min() <= 5 for k in range(7)]
    assert summary["measures"]["middle"]["precision"] == pytest.approx(np.mean(hit))
    assert "measure" in Table.read(out / "table.ecsv").colnames
    assert (out / "figure.png").exists()
    assert "middle" in capsys.readouterr().out
    # Nothing is measured twice, or the seconds would differ; what has changed is.
    assert run(*command, "--target", f"aperture,{tmp_path / 'own.py'}:peak") == 0
    assert json.loads((out / "summary.json").read_text())["measures"] == summary["measures"]
    (tmp_path / "own.py").write_text(OWN_MEASURE.replace("shift=0.0", "shift=9.0"))
    assert run(*command, "--target", f"aperture,{tmp_path / 'own.py'}:peak") == 0
    again = json.loads((out / "summary.json").read_text())["measures"]
    assert again["sep"] == summary["measures"]["sep"]
    assert again["middle"]["precision"] < summary["measures"]["middle"]["precision"]


def test_a_measure_that_fails_is_said(made, tmp_path, capsys):
    (tmp_path / "own.py").write_text("def broken(exposure, positions=None):\n    return 1 / 0\n")
    out = tmp_path / "scores"
    assert (
        run("score", made, "--measure", f"{tmp_path / 'own.py'}:broken", "-o", out, "--quiet") == 0
    )
    assert "broken failed for 7 of 7 blends; blend 0: ZeroDivisionError" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["measures"]["broken"]["recall"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--measure", "sextractor"], "a measure must be one of diffdeblend"),
        (["--band", "q"], "`band` must be one of"),
        (["--target", "size"], "--target must be of ellipticity"),
        (["--survey", "HSC"], "`survey` must be one of ['LSST']"),
        (["--n", "0"], "--n and --batch must be at least 1"),
    ],
)
def test_score_says_what_is_wrong(made, options, words, tmp_path, capsys):
    assert run("score", made, "--measure", "peaks", *options, "-o", tmp_path / "s", "--quiet") == 2
    assert words in capsys.readouterr().err


def test_sets_that_cannot_be_read(made, tmp_path, capsys):
    assert run("score", tmp_path / "absent.zarr") == 2
    assert "there is no folder" in capsys.readouterr().err
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(made, damaged)
    next(
        path
        for path in (damaged / "LSST" / "images").rglob("*")
        if path.is_file() and "c" in path.parts
    ).unlink()
    with pytest.raises(ValueError, match="is damaged: 1 of"):
        read_blends(damaged)
    shutil.rmtree(damaged)
    shutil.copytree(made, damaged)
    chunk = next(p for p in (damaged / "LSST" / "images" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is damaged"):
        read_blends(damaged)
    head = damaged / "zarr.json"
    head.write_text(head.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match="of version 9 of its format"):
        read_blends(damaged)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no Zarr folder"):
        read_blends(tmp_path / "empty")


def test_what_is_read_is_what_was_simulated(made):
    from diffdeblend.simulate import Uniform, get_survey, stream, synthetic_catalog

    catalog = synthetic_catalog(10_000, stream(3, "galaxies"))
    sampling = Uniform(most=2, stamp=8.0, max_shift=2.0)
    expected = simulate(catalog, sampling, get_survey("LSST").with_bands("gr"), 7, seed=3)
    found = read_blends(made)
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.isolated, expected.isolated)
    assert found.survey == expected.survey
    assert found.truth.colnames == expected.truth.colnames
    assert found.truth["flux_r"].unit == "electron"
    assert np.array_equal(found.psf_images, expected.psf_images)
    part = read_blends(made, start=2, stop=5)
    assert np.array_equal(part.images, expected.images[2:5])
    assert part.truth["blend"].min() == 0
