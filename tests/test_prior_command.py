"""`diffdeblend deblend --prior`."""

import json
import pickle

import jax
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from quick import hasty

from diffdeblend.batch.decoded_columns import decoded_counts
from diffdeblend.cli import main
from diffdeblend.components import Frame
from diffdeblend.deblend.catalog import Flag
from diffdeblend.io import save_prior
from diffdeblend.prior_inputs import prior_lines
from diffdeblend.priors import DecoderPrior
from diffdeblend.train.network import make_decoder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A prior of 2 latents around a round Gaussian of 1.5 pixels, untrained."""
    path = tmp_path_factory.mktemp("prior") / "small.eqx"
    save_prior(untrained(Frame(11, 0.8, None)), path)
    return path


def untrained(frame):
    place = np.arange(11) - 5
    mean = -0.5 * (place**2 + place[:, None] ** 2).astype(np.float32) / 1.5**2
    return DecoderPrior(make_decoder(mean, (4,), 2, frame, jax.random.key(0)))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Three Gaussian galaxies of sigma 1.88 as seen, of which two touch, and where they are."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:40, :64].astype(float)
    at, flux = np.array([[20.2, 18.9], [26.1, 20.3], [48.0, 22.0]]), [900.0, 600.0, 700.0]
    # 1.5 pixels in the frame; the PSF has a sigma of 1.4, the frame's 0.8.
    variance = 1.5**2 + 1.4**2 - 0.8**2
    light = rng.normal(0, 0.5, x.shape)
    for (x0, y0), total in zip(at, flux, strict=True):
        light += (
            total
            / (2 * np.pi * variance)
            * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / variance)
        )
    folder = tmp_path_factory.mktemp("image")
    fits.PrimaryHDU(light.astype(np.float32)).writeto(folder / "image.fits")
    fits.PrimaryHDU(np.full(x.shape, 0.25, np.float32)).writeto(folder / "variance.fits")
    u, v = np.mgrid[-12:13, -12:13]
    psf = np.exp(-0.5 * (u**2 + v**2) / 1.4**2)
    fits.PrimaryHDU((psf / psf.sum()).astype(np.float32)).writeto(folder / "psf.fits")
    (folder / "at.csv").write_text("x,y\n" + "".join(f"{a},{b}\n" for a, b in np.round(at)))
    options = ["--variance", "variance.fits", "--psf", "psf.fits", "--positions", "at.csv"]
    options = [str(folder / word) if "." in word else word for word in options]
    return [str(folder / "image.fits"), *options], at, np.array(flux)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["never", "always"])
def test_sources_are_decoded(split, small, image, tmp_path, capsys):
    arguments, at, flux = image
    options = ["--prior", str(small), "--no-fallback", "--split", split, "--quiet"]
    with hasty():
        assert main(["deblend", *arguments, *options, "-o", str(tmp_path)]) == 0
    assert "3 decoded, " in capsys.readouterr().out
    table = QTable.read(tmp_path / "catalog.ecsv")
    assert set(table["model"]) == {"decoded"}
    name = next(name for name in table.colnames if name.startswith("flux_"))
    assert np.allclose(table[name].value, flux, rtol=0.1)
    assert np.allclose(table["x"].value, at[:, 0], atol=0.2)
    assert np.isfinite(table["latent_quantile"]).all()
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["n_decoded"] == 3
    assert told["n_replaced"] == 0
    assert told["settings"]["fallback"] is False
    assert told["inputs"]["prior"] == str(small)
    with fits.open(tmp_path / "models.fits") as hdus:
        assert np.std(hdus["RESIDUAL"].data) == pytest.approx(0.5, rel=0.1)
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "2"], "--temperature needs --prior"),
        (["--no-fallback"], "--no-fallback needs --prior"),
        (["--robust"], "--robust needs --prior"),
        (["--prior", "SMALL", "--model", "sersic"], "--model and --prior"),
        (["--prior", "SMALL", "--temperature", "0"], "--temperature must be positive"),
        (["--prior", "not_there.eqx"], "not_there.eqx"),
    ],
)
def test_wrong_options_are_one_line(options, words, small, tmp_path, capsys):
    options = [str(small) if word == "SMALL" else word for word in options]
    assert main(["deblend", *options, "--quiet", "-o", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


def truncated(path, folder):
    path.write_bytes(path.read_bytes()[:-7])


def pickled(path, folder):
    path.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))


def with_other_pixels(path, folder):
    save_prior(untrained(Frame(11, 0.8, 0.2)), path)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CDELT1": -0.3 / 3600, "CDELT2": 0.3 / 3600})
    fits.PrimaryHDU(np.zeros((40, 64), np.float32), header).writeto(folder / "image.fits")


def with_a_wider_frame(path, folder):
    save_prior(untrained(Frame(11, 1.9, None)), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncated, "is cut short"),
        (pickled, "is no prior of diffdeblend"),
        (with_other_pixels, "the prior was trained for 0.2"),
        (with_a_wider_frame, "is narrower than the frame of the prior"),
    ],
)
def test_priors_that_cannot_be_used_are_one_line(change, words, small, image, tmp_path, capsys):
    path, out = tmp_path / "prior.eqx", tmp_path / "out"
    path.write_bytes(small.read_bytes())
    change(path, tmp_path)
    arguments = list(image[0])
    if (tmp_path / "image.fits").exists():
        arguments[0] = str(tmp_path / "image.fits")
    assert main(["deblend", *arguments, "--prior", str(path), "--quiet", "-o", str(out)]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert not out.exists() or not any(out.iterdir())


def test_counts_in_words():
    models = ["decoded", "point", "decoded", "sersic", "point"]
    strange = int(Flag.OUT_OF_DOMAIN)
    counts = decoded_counts(models, np.array([0, strange | 1, strange, 4, 0]))
    assert counts == {
        "n_decoded": 2,
        "n_out_of_domain": 2,
        "n_replaced": 3,
        "replaced_by": {"point": 2, "sersic": 1},
    }
    assert prior_lines(counts) == [
        "2 decoded, 2 out of the prior's domain; 3 replaced (2 point, 1 sersic)"
    ]
    assert prior_lines({"n_sources": 3}) == []
