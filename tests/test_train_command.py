"""`diffdeblend train-prior`: what it writes, how it goes on, what it refuses."""

import json
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from quick import hasty

from diffdeblend import train_command
from diffdeblend.cli import main
from diffdeblend.io import load_prior
from diffdeblend.train import DecoderSettings, DenoiserSettings, Galaxies

SMALL = [
    *("--n", "60", "--size", "11", "--psf-sigma", "0.9", "--width", "8", "--steps", "6"),
    *("--batch", "8", "--quiet"),
]


@dataclass(frozen=True)
class Short(DecoderSettings):
    """The usual settings with a report every other step."""

    chunk: int = 2
    warmup: int = 2


@dataclass(frozen=True)
class ShortDenoiser(DenoiserSettings):
    chunk: int = 3
    components: int = 4


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty():
        yield


@pytest.fixture(autouse=True)
def population(monkeypatch):
    """Round Gaussians in place of what takes seconds to draw; the calls that were made."""
    calls = []

    def read(words, frame, n, seed):
        calls.append((words, frame, n, seed))
        rng = np.random.default_rng(seed)
        place = np.arange(frame.size) - frame.size // 2
        sigma = rng.uniform(1, 3, n)[:, None]
        line = np.exp(-0.5 * (place / sigma) ** 2)
        return Galaxies.of_images(line[:, :, None] * line[:, None, :], frame, words)

    monkeypatch.setattr(train_command, "read_population", read)
    monkeypatch.setattr(train_command, "DecoderSettings", Short)
    monkeypatch.setattr(train_command, "DenoiserSettings", ShortDenoiser)
    return calls


def train(path, *options):
    return main(["train-prior", "-o", str(path), "--latents", "3", *SMALL, *options])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where an undisturbed training goes, once there."""
    return tmp_path_factory.mktemp("done") / "prior.eqx"


def test_writes_prior_settings_and_figures(done, population, capsys):
    assert train(done, "--population", "sersic", "--seed", "4") == 0
    assert {file.name for file in done.parent.iterdir()} == {
        *("prior.eqx", "prior.json", "prior_loss.png", "prior_samples.png"),
    }
    (words, frame, n, seed) = population[0]
    assert (words, n, seed) == ("sersic", 60, 4)
    assert (frame.size, frame.psf_sigma, frame.pixel_scale) == (11, 0.9, 0.2)
    prior = load_prior(done)
    assert prior.frame == frame
    assert prior.n_latent == 3
    assert [layer.out_features for layer in prior.decoder.layers] == [8, 121]
    told = json.loads((done.parent / "prior.json").read_text())
    assert told["settings"]["width"] == [8]
    assert told["n_galaxies"] == 60
    assert told["sha256"] == prior.training.settings_hash
    assert told["curves"]["step"] == [2, 4, 6]
    assert told["curves"]["loss"][-1] == pytest.approx(told["loss"], rel=1e-5)
    assert told["seconds"]["total"] > 0
    assert "60 galaxies" in capsys.readouterr().out


def test_interrupted_it_goes_on_to_the_same_prior(done, tmp_path, monkeypatch, capsys):
    if not done.exists():
        train(done, "--population", "sersic", "--seed", "4")
    path, options = tmp_path / "prior.eqx", ("--population", "sersic", "--seed", "4")
    make = train_command.step_bar
    shown = []

    def stop_at_4(total, chunk, out):
        def report(step, *losses):
            shown.append(step)
            if step == 4:
                raise KeyboardInterrupt

        return report

    monkeypatch.setattr(train_command, "step_bar", stop_at_4)
    assert train(path, *options) == 130
    assert not path.exists()
    assert "interrupted" in capsys.readouterr().err
    # Other settings neither go on from it nor destroy it.
    assert train(path, "--population", "sersic", "--seed", "5") == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "--seed 4" in told
    monkeypatch.setattr(train_command, "step_bar", make)
    assert train(path, *options) == 0
    assert shown == [2, 4]
    for ours, theirs in zip(
        jax.tree.leaves(load_prior(path)), jax.tree.leaves(load_prior(done)), strict=True
    ):
        assert np.array_equal(ours, theirs)
    curves = [json.loads(p.with_suffix(".json").read_text())["curves"] for p in (path, done)]
    assert curves[0] == curves[1]
    assert not path.with_suffix(".checkpoint").exists()


def test_what_is_there_stays_unless_told(tmp_path, capsys):
    path = tmp_path / "prior.eqx"
    path.write_text("mine")
    assert train(path) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"seed": 8}))
    (folder / "other").write_text("mine, too")
    assert train(path, "--overwrite", "--half", "--checkpoint", str(folder)) == 0
    assert load_prior(path).n_latent == 3
    assert [file.name for file in folder.iterdir()] == ["other"]


@pytest.mark.slow
def test_a_denoiser(tmp_path):
    path = tmp_path / "denoiser.eqx"
    assert main(["train-prior", "-o", str(path), "--kind", "denoiser", *SMALL]) == 0
    prior = load_prior(path)
    image = np.asarray(prior.prox(prior.mean, 0.3))
    assert image.sum() == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "denoiser_samples.png").exists()


def test_without_matplotlib_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_command, "find_spec", lambda name: None)
    (tmp_path / "prior_loss.png").write_text("of an older run")
    assert train(tmp_path / "prior.eqx", "--population", "sersic", "--seed", "4") == 0
    assert {file.name for file in tmp_path.iterdir()} == {"prior.eqx", "prior.json"}
    assert "diffdeblend[plot]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "32"], "--size must be odd"),
        (["--psf-sigma", "nan"], "--psf-sigma must be positive"),
        (["--pixel-scale", "-1"], "--pixel-scale must be positive"),
        (["--batch", "0"], "--batch must be a whole number"),
        (["--rate", "inf"], "--rate must be positive"),
        (["--kind", "denoiser", "--photons", "100"], "--photons"),
        (["--kind", "denoiser", "--population", "stamps:a.npz"], "without noise"),
    ],
)
def test_wrong_numbers_are_one_line(options, words, tmp_path, population, capsys):
    arguments = ["train-prior", "-o", str(tmp_path / "prior.eqx"), "--quiet", *options]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert not population
    assert not any(tmp_path.iterdir())


def test_wrong_words_are_one_line(tmp_path, monkeypatch, capsys):
    from diffdeblend.train import read_population

    monkeypatch.setattr(train_command, "read_population", read_population)
    arguments = ["train-prior", "-o", str(tmp_path / "prior.eqx"), "--quiet"]
    assert main([*arguments, "--population", "spirals"]) == 2
    told = capsys.readouterr().err
    assert "--population must be" in told
    assert len(told.splitlines()) == 1
    assert main(["train-prior", "-o", str(tmp_path / "prior.npz"), "--quiet"]) == 2
    assert ".eqx" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["train-prior", "--width", "wide"])
    assert end.value.code == 2
    assert not any(tmp_path.iterdir())
