"""`diffdeblend fit-survey`: what is understood, what is refused, and a run from end to end."""

import json

import numpy as np
import pytest
from astropy.table import Table
from survey_stars import write_stars

from diffdeblend.cli import main, make_parser
from diffdeblend.survey.settings import FitSettings
from diffdeblend.survey_command import engine_of, settings_of

PLAIN = ("--model", "point", "--batch", "8", "--quiet")


def chosen(*options):
    return make_parser().parse_args(["fit-survey", "stamps.zarr", "out", *options])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_stars(tmp_path_factory.mktemp("command") / "stamps.zarr")


def test_settings_are_those_of_the_options():
    assert settings_of(chosen()) == FitSettings()
    options = "--model sersic --background linear --position-error 0.3 --model-error 0 --free-form"
    wanted = FitSettings("sersic", "linear", 0.3, 0.0, True, covariance=False)
    assert settings_of(chosen(*options.split(), "--no-covariance")) == wanted
    options = "--prior tiny --temperature 2 --no-fallback --robust"
    wanted = FitSettings(prior="tiny", temperature=2.0, fallback=False, robust=True)
    assert settings_of(chosen(*options.split())) == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--batch 0", "'0' is no integer from 1"),
        ("--shard 0/4", "'0/4' is no I/N"),
        ("--shard 5/4", "'5/4' is no I/N"),
        ("--limit -3", "'-3' is no integer"),
        ("--position-error 0", "'0' is no positive number"),
        ("--model-error 1", "'1' is no share"),
        ("--model multi_gaussian", "invalid choice"),
        ("--engine ray", "invalid choice"),
    ],
)
def test_wrong_options_are_one_line(capsys, options, words):
    with pytest.raises(SystemExit) as stopped:
        main(["fit-survey", "stamps.zarr", "out", *options.split()])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--engine local --workers 2", "go with --engine dask"),
        ("--workers 2 --scheduler-file s.json", "--scheduler-file are there already"),
        ("--robust", "--robust needs --prior"),
        ("--prior tiny --temperature 0", "--temperature must be positive"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    asked = chosen(*options.split())
    with pytest.raises(ValueError, match=words):
        (engine_of if "--engine" in options or "--workers" in options else settings_of)(asked)


def test_a_run_goes_on_and_sums_up(store, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["fit-survey", str(store), str(out), *PLAIN, "--limit", "8"]) == 0
    assert "8 of 8 stamps fitted" in capsys.readouterr().out
    assert main(["fit-survey", str(store), str(out), *PLAIN]) == 0
    told = capsys.readouterr().out
    assert "16 of 16 stamps fitted" in told
    assert "in all 24 of 24 stamps" in told
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stamps"]["finished"] == 24
    assert summary["last_run"]["done"] == 16
    assert (out / "figure.png").is_file()
    assert main(["catalog", str(out), str(tmp_path / "found.fits")]) == 0
    table = Table.read(tmp_path / "found.fits")
    assert len(np.unique(table["stamp_id"])) == 24
    # Again: nothing is left to do.
    assert main(["fit-survey", str(store), str(out), *PLAIN]) == 0
    assert "0 of 0 stamps fitted" in capsys.readouterr().out


def test_shards_do_not_sum_up(store, tmp_path, capsys):
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        assert main(["fit-survey", str(store), str(out), *PLAIN, "--shard", shard]) == 0
        assert not (out / "summary.json").exists()
    capsys.readouterr()
    assert main(["fit-survey", str(store), str(out), *PLAIN]) == 0
    assert "in all 24 of 24 stamps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "sersic"), "was made with other settings (model 'point', now 'sersic')"),
        (("--model", "point", "--model-error", "0"), "model_error 0.02, now 0.0"),
    ],
)
def test_another_run_is_refused_in_a_line(store, tmp_path, capsys, options, words):
    out = tmp_path / "out"
    assert main(["fit-survey", str(store), str(out), *PLAIN, "--limit", "1"]) == 0
    capsys.readouterr()
    assert main(["fit-survey", str(store), str(out), "--quiet", *options]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_no_store_is_a_line(tmp_path, capsys):
    assert main(["fit-survey", str(tmp_path / "none"), str(tmp_path / "out"), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "there is no" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
