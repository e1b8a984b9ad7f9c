"""Mixtures of shapes at the command line: learnt, written, and used to take blends apart."""

import json
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from quick import hasty

from diffdeblend.batch import fit_batch
from diffdeblend.cli import main
from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Flag, Sources, make_catalog
from diffdeblend.header import Header
from diffdeblend.io import load_prior, save_prior
from diffdeblend.plot_priors import plot_features
from diffdeblend.priors import ParametricPrior, gaussian_mixture
from diffdeblend.train import learn_parametric, read_features, read_fitted, usual_settings


def train(path, *options):
    options = ["--kind", "parametric", "--quiet", *options]
    return main(["train-prior", "-o", str(path), *options])


def fitted(n, seed=0, **header):
    """A catalogue of Sersic fits: ln(radius) and index scatter by 0.2, their errors by as much."""
    rng = np.random.default_rng(seed)
    true = {"radius": 3 * np.exp(0.2 * rng.normal(size=n)), "index": 2 + 0.2 * rng.normal(size=n)}
    true |= {"g1": 0.1 * rng.normal(size=n), "g2": 0.1 * rng.normal(size=n)}
    sigma = {"radius": 0.2 * true["radius"], "index": np.full(n, 0.2)}
    sigma |= {name: np.full(n, 0.1) for name in ("g1", "g2")}
    shape = {name: np.full(n, np.nan) for name in ("radius_ratio", "shear_ratio")}
    shape |= {name: true[name] + sigma[name] * rng.normal(size=n) for name in true}
    # The scatter of a logarithm is what the error of a radius is divided by.
    shape["radius"] = true["radius"] * np.exp(0.2 * rng.normal(size=n))
    sigma["radius"] = 0.2 * shape["radius"]
    shape |= {f"{name}_err": sigma.get(name, shape[name]) for name in list(shape)}
    flux = rng.uniform(50, 100, (n, 2))
    one = np.ones(n)
    return make_catalog(
        Sources(
            *(10 * one, 10 * one, one, one, flux, one[:, None] + 0 * flux),
            model=["sersic"] * (n - 2) + ["point", "free_form"],
            shape=shape,
            bulge_flux=np.nan * flux,
            flags=np.where(np.arange(n) == 3, int(Flag.NOT_CONVERGED), 0),
            reduced_chi2=one,
            n_parameters=np.full(n, 8),
            snr=flux[:, 0],
        ),
        Header(("g", "i"), **header),
    )


@pytest.mark.slow
def test_learns_from_galaxies_made_up(tmp_path, capsys):
    path = tmp_path / "shapes.eqx"
    options = ["--n", "300", "--seed", "2", "--components", "1,2"]
    assert train(path, *options) == 0
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"shapes.eqx", "shapes.json", "shapes_features.png"}
    prior = load_prior(path)
    features = read_features("synthetic", n=300, seed=2)
    assert prior.names == features.names
    told = json.loads((tmp_path / "shapes.json").read_text())
    assert told["n_galaxies"] == len(features.rows)
    assert told["sha256"] == prior.training.settings_hash
    assert told["decided_by"]["n_components"] == [1, 2]
    assert told["decided_by"]["seed"] == 2
    assert "e2, logit_index" in capsys.readouterr().out
    # The mean of a mixture of EM is that of the points, but for the wide component's share.
    weights = np.exp(np.asarray(prior.mixture.log_weights))
    middle = weights @ np.asarray(prior.mixture.means)
    spread = features.values.std(axis=0)
    assert np.allclose(middle / spread, features.values.mean(axis=0) / spread, atol=0.1)
    assert train(path, *options) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_errors_of_fits_are_taken_out(tmp_path):
    catalog = fitted(600, zero_points=(25.0, 24.0), pixel_scale=0.2)
    catalog.write(tmp_path / "catalog.ecsv")
    table = read_fitted(tmp_path / "catalog.ecsv")
    assert table.names == ("g", "i")
    assert (table.zero_points, table.pixel_scale) == ((25.0, 24.0), 0.2)
    assert table.kind.tolist()[-3:] == [Kind.SERSIC, Kind.POINT, -1]
    assert np.flatnonzero(~table.converged).tolist() == [3]
    words = f"fits:{tmp_path / 'catalog.ecsv'}"
    features = read_features(words, bands=("i",))
    assert len(features.rows) == 597
    magnitude = 24 - 2.5 * np.log10(table.flux[features.rows, 1])
    assert np.allclose(features.values[:, 4], magnitude, atol=0.01)
    assert np.allclose(np.exp(features.values[:, 0]), 0.2 * table.radius[features.rows])
    shapes = read_features(words)
    settings = usual_settings(len(shapes.rows))
    assert settings.counts == (1, 2, 4, 8, 12)
    prior = learn_parametric(shapes, population=words, settings=usual_settings(30))
    # Of the narrow one of both components: half of the variance that is seen is that of the errors.
    assert np.log(0.6) - 0.05 < float(prior.mixture.means[0, 0]) < np.log(0.6) + 0.05
    spread = np.sqrt(np.asarray(prior.mixture.covariances)[0, 0, 0])
    assert shapes.values[:, 0].std() > 0.26
    assert 0.17 < spread < 0.23


def test_tables_of_fits_in_other_forms(tmp_path):
    from diffdeblend.io.results import write_catalog

    catalog = fitted(40, zero_points=(25.0, 24.0), pixel_scale=0.3)
    write_catalog(catalog, {}, lambda name: tmp_path / name)
    both = [read_fitted(tmp_path / f"catalog.{end}") for end in ("ecsv", "fits")]
    for name in vars(both[0]):
        assert np.array_equal(
            *(np.asarray(getattr(one, name)) for one in both), equal_nan=name not in ("names",)
        ), name
    plain = Table(catalog)
    plain.rename_columns(["flux_err_g", "flux_err_i"], ["flux_g_err", "flux_i_err"])
    plain.meta.clear()
    plain.write(tmp_path / "found.ecsv")
    again = read_fitted(tmp_path / "found.ecsv")
    assert again.names == ("g", "i")
    assert again.pixel_scale is None
    words = f"fits:{tmp_path / 'found.ecsv'}"
    assert read_features(words, n=11, pixel_scale=0.3).values.shape == (11, 4)
    with pytest.raises(ValueError, match="`pixel_scale` is not in the table"):
        read_features(words)
    with pytest.raises(ValueError, match="no zero points"):
        read_features(words, pixel_scale=0.3, bands=("i",))
    with pytest.raises(ValueError, match="`table` lacks the columns"):
        read_fitted(Table({"x": [1.0]}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "31"], "--kind parametric has no use for --size"),
        (["--half"], "--kind parametric has no use for --half"),
        (["--steps", "10"], "--kind parametric has no use for --steps"),
        (["--kind", "decoder", "--bands", "i"], "--kind decoder has no use for --bands"),
        (["--population", "broad"], "--population must be `synthetic`"),
        (["--population", "fits:nowhere.ecsv"], "there is no file 'nowhere.ecsv'"),
        (["--pixel-scale", "0.2"], "--pixel-scale is of fits"),
        (["--n", "60", "--components", "20"], "--components needs at least 10 a component"),
        (["--n", "60", "--components", "0"], "--components must be at least 1"),
        (["--n", "60", "--bands", "q"], "lacks q_ab"),
        (["--n", "60", "--family", "multi_gaussian"], "--family must be sersic or bulge_disc"),
    ],
)
def test_wrong_options_are_one_line(options, words, tmp_path, capsys):
    assert train(tmp_path / "prior.eqx", *options) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def small(**changed):
    """A narrow prior of shapes: radii of 0.6 arcsec, indices near 1."""
    shapes = ("ln_radius", "e1", "e2", "logit_index")
    given = {"names": shapes, "bands": ()} | changed
    n = len(given["names"])
    mean = np.array([np.log(0.6), 0, 0, -2.3, 22.0])[:n]
    spread = np.diag(np.array([0.05, 0.2, 0.2, 0.1, 1.0])[:n] ** 2)
    mixture = gaussian_mixture([1.0], mean[None], spread[None])
    return ParametricPrior(mixture, 0.1, "sersic", given["names"], given["bands"])


def test_figure_has_a_panel_a_pair():
    prior = small()
    page = plot_features(prior, np.zeros((5, 4)) + np.asarray(prior.mixture.means[0]))
    assert len(page.axes) == 10
    labels = [axes.get_xlabel() for axes in page.axes[-4:]]
    assert labels == list(prior.names)
    with pytest.raises(ValueError, match="`values` needs a row a galaxy of 4 features"):
        plot_features(prior, np.zeros((5, 3)))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Two faint round Gaussian galaxies; 0.2 arcsec a pixel, if the header says so."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:40, :64].astype(float)
    at = np.array([[20.2, 18.9], [44.0, 21.0]])
    light = rng.normal(0, 1, x.shape)
    for x0, y0 in at:
        light += 150 / (2 * np.pi * 6) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 6)
    folder = tmp_path_factory.mktemp("image")
    plain = fits.PrimaryHDU(light.astype(np.float32))
    plain.writeto(folder / "plain.fits")
    for name, value in (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 10.0)):
        plain.header[name] = value
    for name, value in (("CRVAL2", 0.0), ("CDELT1", -0.2 / 3600), ("CDELT2", 0.2 / 3600)):
        plain.header[name] = value
    plain.header["CRPIX1"] = plain.header["CRPIX2"] = 1.0
    plain.writeto(folder / "image.fits")
    fits.PrimaryHDU(np.ones(x.shape, np.float32)).writeto(folder / "variance.fits")
    u, v = np.mgrid[-12:13, -12:13]
    psf = np.exp(-0.5 * (u**2 + v**2) / 1.4**2)
    fits.PrimaryHDU((psf / psf.sum()).astype(np.float32)).writeto(folder / "psf.fits")
    (folder / "at.csv").write_text("x,y\n" + "".join(f"{a},{b}\n" for a, b in np.round(at)))
    return folder


def deblend(folder, name, *options):
    given = ["--variance", "variance.fits", "--psf", "psf.fits", "--positions", "at.csv"]
    given = [str(folder / word) if "." in word else word for word in given]
    return main(["deblend", str(folder / name), *given, *options, "--quiet"])


@pytest.mark.slow
@pytest.mark.parametrize("split", ["never", "always"])
def test_faint_sources_are_as_the_prior_says(split, image, tmp_path):
    save_prior(small(), tmp_path / "narrow.eqx")
    options = ["--prior", str(tmp_path / "narrow.eqx"), "--model", "sersic", "--split", split]
    with hasty():
        assert deblend(image, "image.fits", *options, "-o", str(tmp_path / "with")) == 0
        assert deblend(image, "image.fits", *options[2:], "-o", str(tmp_path / "without")) == 0
    one, other = (QTable.read(tmp_path / word / "catalog.ecsv") for word in ("with", "without"))
    # A signal-to-noise ratio of 15 says little against a prior of 5 %.
    assert np.allclose(one["radius"].value, 3, rtol=0.05)
    assert (np.abs(np.log(other["radius"].value / 3)) > 0.1).any()
    assert (one["radius_err"].value < 0.6 * other["radius_err"].value).all()
    assert (one["index"].value < 1.3).all()
    told = json.loads((tmp_path / "with" / "summary.json").read_text())
    assert told["settings"]["prior_family"] == "sersic"
    assert told["settings"]["model"] == "sersic"
    assert "n_decoded" not in told


@pytest.mark.parametrize(
    ("changed", "name", "options", "words"),
    [
        ({}, "plain.fits", [], "--prior has sizes in arcseconds"),
        ({}, "image.fits", ["--model", "point"], "of which `model` 'point' makes no source"),
        ({}, "image.fits", ["--robust"], "--robust needs a --prior that decodes"),
        ("light", "image.fits", [], "--prior has magnitudes: the input needs --zero-points"),
        (
            "light",
            "image.fits",
            ["--zero-points", "25"],
            "magnitudes in i; the input has the bands",
        ),
    ],
)
def test_what_the_image_must_have(changed, name, options, words, image, tmp_path, capsys):
    given = changed or {}
    if changed == "light":
        given = {"names": ("ln_radius", "e1", "e2", "logit_index", "magnitude"), "bands": ("i",)}
    save_prior(small(**given), tmp_path / "narrow.eqx")
    given = ["--prior", str(tmp_path / "narrow.eqx"), *options, "-o", str(tmp_path / "out")]
    assert deblend(image, name, *given) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


def test_a_batch_says_what_to_write():
    prior = small()
    with pytest.raises(ValueError, match=r"give `prior=prior\.on\(exposure\)`"):
        fit_batch([], prior=prior)
    placed = prior.on(pixel_scale=0.2, temperature=2.0)
    assert float(placed.temperature) == 2
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": "point"}, "`model` 'point' makes no source"),
        ({"temperature": 2.0}, r"`prior\.on\(\.\.\., temperature=\.\.\.\)`"),
        ({"robust": True}, "`robust` is for a prior that decodes"),
    ]
    for wrong, words in cases:
        with pytest.raises(ValueError, match=words):
            fit_batch([], prior=placed, **wrong)
    with pytest.raises(ValueError, match="`temperature` must be a positive number"):
        prior.on(pixel_scale=0.2, temperature=0.0)


def test_few_galaxies_make_no_narrow_components():
    assert usual_settings(97).floor == 0.5
    assert usual_settings(97).counts == (1, 2, 4)
    assert usual_settings(5000).floor == 0.2
