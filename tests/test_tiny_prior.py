"""The learned prior that comes with the package."""

import hashlib
import json
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from diffdeblend.cli import main
from diffdeblend.components import Frame
from diffdeblend.io import bundled, bundled_prior

ROOT = Path(__file__).parents[1]
FILE = ROOT / "data" / "tiny_prior.eqx"


@pytest.fixture(scope="module")
def prior():
    return bundled_prior()


def test_it_says_what_it_is(prior):
    assert prior.frame == Frame(size=33, psf_sigma=0.8, pixel_scale=0.2)
    told = prior.training
    assert "made-up" in told.population
    assert "BSD-3-Clause" in told.population
    assert hashlib.sha256(told.settings.encode()).hexdigest() == told.settings_hash
    settings = json.loads(told.settings)["settings"]
    assert settings["n_latent"] == prior.n_latent
    assert told.validation_loss < 100
    assert FILE.stat().st_size < 3e6
    assert told.settings_hash in (ROOT / "data" / "README.md").read_text()


def test_it_draws_galaxies(prior):
    images = np.asarray(prior.decode(prior.sample(jax.random.key(0), 50)))
    assert images.min() > 0
    assert np.allclose(images.sum(axis=(1, 2)), 1, atol=1e-5)
    place = np.arange(33) - 16
    centre = np.stack([(images.sum(axis=axis) * place).sum(axis=1) for axis in (1, 2)])
    # Centred galaxies were learnt from, and most of the light is near the centre.
    assert abs(np.median(centre)) < 0.2
    assert np.median(images[:, 8:25, 8:25].sum(axis=(1, 2))) > 0.8


def test_it_comes_with_the_wheel():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"]["data/tiny_prior.eqx"] == (
        "diffdeblend/tiny_prior.eqx"
    )


def test_only_who_asks_for_it_needs_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bundled, "_NAME", "not_there.eqx")
    with pytest.raises(ValueError, match="train-prior"):
        bundled_prior()
    monkeypatch.chdir(tmp_path)
    assert main(["deblend", "--prior", "tiny", "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "tiny" in told
    assert len(told.splitlines()) == 1
