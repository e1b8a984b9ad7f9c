"""The command: fast help, one-line errors, and all that it writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from example_result import FWHM, make_deblended, tilted_wcs

import diffdeblend
from diffdeblend import commands, deblend_options, image_options
from diffdeblend.cli import main, make_parser
from diffdeblend.commands import read_exposure
from diffdeblend.deblend import MODELS
from diffdeblend.exposure import make_exposure
from diffdeblend.io.fits import write_fits
from diffdeblend.io.noise import VARIANCE_KINDS
from diffdeblend.io.npz import write_npz
from diffdeblend.io.results import read_models, write_results
from diffdeblend.io.scene import load_scene
from diffdeblend.listing import listing, with_error
from diffdeblend.progress import Progress, covered
from diffdeblend.psf import GaussianPSF, KolmogorovPSF, PixelPSF

FILES = {
    "catalog.ecsv",
    "catalog.fits",
    "figure.png",
    "models.fits",
    "scene.eqx",
    "summary.json",
}
HEAVY = ("jax", "jaxlib", "galsim", "matplotlib", "astropy", "numpy", "scipy", "equinox")


def run(*arguments, **settings):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, **settings
    )


# --- help, version, grammar ---------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["deblend", "--help"], ["--version"], []])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from diffdeblend.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        f"print('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("LOADED")


def test_help_answers_in_half_a_second():
    # The best of some, as the machine may be busy with other tests.
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        done = run("-m", "diffdeblend", "--help")
        seconds.append(time.perf_counter() - begun)
        assert done.returncode == 0
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"diffdeblend {diffdeblend.__version__}\n"


def test_words_are_those_of_the_library():
    """The parser lists them itself, to load nothing."""
    assert set(deblend_options.MODELS) == set(MODELS)
    assert image_options.VARIANCE_KINDS == VARIANCE_KINDS


@pytest.mark.parametrize(
    "arguments",
    [
        ["blend"],
        ["deblend", "--model", "spiral"],
        ["deblend", "--frobnicate"],
        ["deblend", "x.npz", "--psf-fwhm", "0.7"],
        ["deblend", "x.npz", "--psf-fwhm", "-1px"],
        ["deblend", "x.npz", "--psf-fwhm", "nanpx"],
        ["deblend", "x.npz", "--zero-points", "bright"],
    ],
)
def test_wrong_options_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("diffdeblend: error: ")
    assert said.count("\n") == 1


# --- errors of the user ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blend():
    return make_deblended(zero_points=(27.0,) * 5, wcs=tilted_wcs())


@pytest.fixture
def archive(blend, tmp_path):
    """An .npz with positions."""
    positions = np.stack([blend.sources.x, blend.sources.y], axis=1)
    write_npz(blend.exposure, tmp_path / "blend.npz", positions)
    return tmp_path / "blend.npz"


def failing(arguments, capsys):
    """What a command says that ends with exit code 2."""
    assert main(["deblend", "--quiet", *map(str, arguments)]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("diffdeblend: error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_no_such_file(tmp_path, capsys):
    said = failing([tmp_path / "none.npz", "-o", tmp_path / "out"], capsys)
    assert "there is no file" in said


def test_truncated_file(archive, capsys):
    archive.write_bytes(archive.read_bytes()[:-200])
    assert "cut short" in failing([archive, "-o", archive.parent / "out"], capsys)


def test_output_that_cannot_be_made(archive, capsys):
    said = failing([archive, "-o", archive / "below_a_file"], capsys)
    assert "cannot be made" in said


def test_options_without_input(tmp_path, capsys):
    said = failing(["-o", tmp_path / "out", "--psf", "psf.fits", "image.fits"], capsys)
    assert "INPUT is missing" in said
    assert "--psf" in said


def test_fits_options_with_an_archive(archive, capsys):
    said = failing([archive, "-o", archive.parent / "out", "--mask", "mask.fits"], capsys)
    assert "go with FITS input" in said
    said = failing([archive, archive, "-o", archive.parent / "out"], capsys)
    assert "must be one .npz file" in said


def test_bad_positions(archive, capsys):
    out = ["-o", archive.parent / "out"]
    Table({"x": [5.0, 500.0], "y": [5.0, 5.0]}).write(archive.parent / "far.ecsv")
    assert "must lie within" in failing(
        [archive, *out, "--positions", archive.parent / "far.ecsv"], capsys
    )
    Table({"a": [5.0]}).write(archive.parent / "odd.ecsv")
    assert "needs columns x and y" in failing(
        [archive, *out, "--positions", archive.parent / "odd.ecsv"], capsys
    )
    assert "unknown" not in failing([archive, *out, "--positions", "none.csv"], capsys)


def test_unknown_band(archive, capsys):
    said = failing([archive, "-o", archive.parent / "out", "--bands", "g,q"], capsys)
    assert "`bands`" in said


def test_debug_shows_where(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        main(["deblend", "--quiet", "--debug", "-o", str(tmp_path / "o"), "none.npz"])


def test_interrupt(archive, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "deblend", interrupt)
    assert main(["deblend", str(archive), "-o", str(archive.parent / "out")]) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not list((archive.parent / "out").iterdir())


# --- reading -----------------------------------------------------------------------------------


def read(*arguments):
    chosen = make_parser().parse_args(["deblend", *map(str, arguments)])
    return read_exposure([Path(name) for name in chosen.input], chosen)


def test_reads_an_archive(archive, blend):
    exposure = read(archive)
    np.testing.assert_array_equal(exposure.image, blend.exposure.image)
    assert read(archive, "--bands", "i,g").bands == ("i", "g")
    assert read(archive, "--zero-points", "30").header.zero_points == (30.0,) * 5
    assert read(archive, "--exclude-planes", "BAD,SAT").header.excluded == ("BAD", "SAT")
    assert read(archive, "--exclude-planes", "").header.excluded == ()


def test_psf_of_a_width(archive, blend, tmp_path):
    for source in (archive, tmp_path / "blend.fits"):
        write_fits(blend.exposure, tmp_path / "blend.fits")
        psf = read(source, "--psf-fwhm", "3.5px").psf
        assert isinstance(psf, KolmogorovPSF)
        np.testing.assert_allclose(psf.fwhm, 3.5)
        widths = ("1px", "2px", "3pix", "0.8arcsec", '1.0"')
        psf = read(source, "--psf-fwhm", *widths).psf
        np.testing.assert_allclose(psf.fwhm, [1, 2, 3, 4, 5], rtol=1e-4)
        assert read(source, "--bands", "g,r", "--psf-fwhm", "2px").psf.n_bands == 2
        with pytest.raises(ValueError, match="one width, or one for each of 5 bands"):
            read(source, "--psf-fwhm", "1px", "2px")
        with pytest.raises(ValueError, match="say the same thing"):
            read(source, "--psf", "a.fits", "--psf-fwhm", "2px")


def test_width_in_arcseconds_needs_a_scale(tmp_path):
    write_npz(make_deblended().exposure, tmp_path / "blend.npz")
    with pytest.raises(ValueError, match="no WCS"):
        read(tmp_path / "blend.npz", "--psf-fwhm", "0.7arcsec")


def test_reads_a_file_per_band(blend, tmp_path):
    """Images, weights, a mask and PSFs in files of their own."""
    rng = np.random.default_rng(5)
    stamp = np.ones((5, 7))
    for k, band in enumerate(("g", "r")):
        header = fits.Header({"FILTER": band, "MAGZERO": 27.0 + k})
        image = np.asarray(blend.exposure.image[k])
        fits.writeto(tmp_path / f"{band}.fits", image, header)
        weight = rng.uniform(1, 2, image.shape).astype("f4")
        weight[3, 4 + k] = 0
        fits.writeto(tmp_path / f"wht_{band}.fits", weight)
        fits.writeto(tmp_path / f"psf_{band}.fits", stamp * (k + 1))
    mask = np.zeros(image.shape, dtype="u1")
    mask[7, 9] = 1
    fits.writeto(tmp_path / "mask.fits", mask)

    def files(kind):
        return [tmp_path / f"{kind}{band}.fits" for band in ("g", "r")]

    exposure = read(
        *files(""), "--psf", *files("psf_"), "--weight", *files("wht_"),
        "--mask", tmp_path / "mask.fits",
    )  # fmt: skip
    assert exposure.bands == ("g", "r")
    assert exposure.header.zero_points == (27.0, 28.0)
    assert isinstance(exposure.psf, PixelPSF)
    good = np.asarray(exposure.good)
    assert not good[:, 7, 9].any()
    assert not good[0, 3, 4]
    assert good[1, 3, 4]
    assert good.sum() == good.size - 4
    same = read(
        *files(""), "--psf", *files("psf_"), "--variance", *files("wht_"),
        "--variance-kind", "weight", "--mask", tmp_path / "mask.fits",
    )  # fmt: skip
    np.testing.assert_array_equal(same.variance, exposure.variance)
    with pytest.raises(ValueError, match="--psf FILE, or the seeing with"):
        read(*files(""))
    with pytest.raises(ValueError, match="say the same thing"):
        read(*files(""), "--weight", "a", "--variance", "b")


# --- the whole command, with a deblending that is already done ---------------------------------


@pytest.fixture
def done(archive, blend, monkeypatch):
    """The command runs, but what it deblends is known. Gives what `deblend` was called with."""
    calls = []

    def deblend(exposure, positions, **settings):
        calls.append((exposure, positions, settings))
        for stage in ("start", "fit"):
            settings["report"](stage)
        # A program that was never compiled before, so that compiling shows.
        jnp.arange(4 + len(calls)).sum().block_until_ready()
        return blend

    monkeypatch.setattr(commands, "deblend", deblend)
    return calls


def test_writes_prints_and_times(archive, done, blend, capsys):
    pytest.importorskip("matplotlib")
    out = archive.parent / "a" / "b"
    assert main(["deblend", str(archive), "-o", str(out), "--model", "sersic"]) == 0
    text, progress = capsys.readouterr()
    assert {path.name for path in out.iterdir()} == FILES

    exposure, positions, settings = done[0]
    np.testing.assert_array_equal(exposure.image, blend.exposure.image)
    np.testing.assert_allclose(positions[:, 0], blend.sources.x)
    assert settings["model"] == "sersic"
    assert settings["background"] == "constant"
    assert settings["free_form"] is True

    for stage in ("load", "read", "start", "fit", "write"):
        assert f"  {stage} " in progress
    for word in ("sersic", "bulge_disc", "AB magnitude", "NEAR_EDGE: ", "reduced chi2 1.010"):
        assert word in text
    assert str(out) in text

    summary = json.loads((out / "summary.json").read_text())
    wanted = {"inputs", "settings", "versions", "n_sources", "reduced_chi2"}
    wanted |= {"reduced_chi2_by_band", "n_converged", "seconds"}
    assert wanted <= set(summary)
    assert summary["inputs"]["images"] == [str(archive)]
    assert summary["settings"]["bands"] == list("grizy")
    seconds = summary["seconds"]
    assert list(seconds) == ["load", "read", "start", "fit", "write", "compile", "total"]
    parts = sum(value for stage, value in seconds.items() if stage != "total")
    assert seconds["total"] == pytest.approx(parts, abs=0.01)

    table = QTable.read(out / "catalog.ecsv")
    assert table.meta["inputs"]["images"] == [str(archive)]
    np.testing.assert_array_equal(table["flux_g"].value, blend.catalog["flux_g"].value)
    assert load_scene(out / "scene.eqx")[1]["bands"] == list("grizy")
    models = read_models(out / "models.fits")
    np.testing.assert_array_equal(models.sources, blend.models)


def test_options_reach_the_fit(archive, done, tmp_path, capsys):
    Table({"x": [5.0, 9.0], "y": [5.0, 7.5]}).write(tmp_path / "xy.csv")
    arguments = ["--positions", "xy.csv", "--background", "linear", "--no-free-form", "--quiet"]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert main(["deblend", str(archive), *arguments]) == 0
    finally:
        os.chdir(before)
    assert (tmp_path / "deblended" / "summary.json").is_file()
    _, positions, settings = done[0]
    np.testing.assert_array_equal(positions, [[5.0, 5.0], [9.0, 7.5]])
    assert settings["background"] == "linear"
    assert settings["free_form"] is False
    assert capsys.readouterr().err == ""


def test_without_positions_peaks_are_found(blend, done, tmp_path):
    write_npz(blend.exposure, tmp_path / "none.npz")
    assert main(["deblend", str(tmp_path / "none.npz"), "-o", str(tmp_path / "o"), "--quiet"]) == 0
    assert done[0][1] is None
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["inputs"]["positions"] == "peaks found in the image"


def test_without_input_the_bundled_blend(archive, done, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "bundled_blend", lambda: archive)
    assert main(["deblend", "-o", str(tmp_path / "o"), "--quiet"]) == 0
    assert len(done) == 1


def test_without_matplotlib_there_is_no_figure(archive, done, blend, monkeypatch, capsys):
    from diffdeblend.io import results

    out = archive.parent / "out"
    out.mkdir()
    (out / "figure.png").write_text("of an older run")
    monkeypatch.setattr(results, "find_spec", lambda name: None)
    assert main(["deblend", str(archive), "-o", str(out), "--quiet"]) == 0
    assert {path.name for path in out.iterdir()} == FILES - {"figure.png"}
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_cache_is_switched_on(archive, done, tmp_path):
    import jax

    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    try:
        arguments = ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "o"), "--quiet"]
        assert main(["deblend", str(archive), *arguments]) == 0
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
        assert (tmp_path / "cache").is_dir()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_warnings_are_one_line(archive, blend, monkeypatch, capsys):
    import warnings

    def deblend(*_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("BUNIT is\nodd", UserWarning, stacklevel=1)
        return blend

    monkeypatch.setattr(commands, "deblend", deblend)
    assert main(["deblend", str(archive), "-o", str(archive.parent / "o")]) == 0
    assert "diffdeblend: warning: BUNIT is odd\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_went_away(archive, blend):
    """As in `diffdeblend deblend | head -1`: no traceback."""
    code = (
        "import sys\n"
        "from example_result import make_deblended, tilted_wcs\n"
        "from diffdeblend import commands\n"
        "found = make_deblended()\n"
        "commands.deblend = lambda *_, **__: found\n"
        "from diffdeblend.cli import main\n"
        f"sys.exit(main(['deblend', {str(archive)!r}, '-o', {str(archive.parent / 'o')!r}]))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            timeout=300,
        )
    finally:
        os.close(writing)
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


# --- the real thing ----------------------------------------------------------------------------


def test_from_a_file_to_a_catalogue(tmp_path, capsys):
    """One point on a small stamp: the whole way, with the real deblending."""
    truth = make_deblended(n_sources=2, bands=("r",), shape=(25, 31))
    image = truth.models[1] + truth.background + truth.residual
    exposure = make_exposure(image, 1.0, GaussianPSF(np.array([FWHM])), bands=("r",))
    x, y = truth.sources.x[1], truth.sources.y[1]
    write_npz(exposure, tmp_path / "point.npz", np.array([[x + 0.4, y - 0.3]]))
    arguments = ["--model", "point", "-o", str(tmp_path / "o")]
    assert main(["deblend", str(tmp_path / "point.npz"), *arguments]) == 0
    assert "point" in capsys.readouterr().out
    row = QTable.read(tmp_path / "o" / "catalog.fits")[0]
    assert abs(row["x"].value - x) < 5 * row["x_err"].value
    assert abs(row["y"].value - y) < 5 * row["y_err"].value
    flux = truth.sources.flux[1, 0]
    assert abs(row["flux_r"].value - flux) < 5 * row["flux_err_r"].value
    scene, _ = load_scene(tmp_path / "o" / "scene.eqx")
    assert float(scene.components()[0].x) == pytest.approx(row["x"].value, abs=1e-4)
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert 0.8 < summary["reduced_chi2"] < 1.2
    assert summary["seconds"]["compile"] > 0
    models = read_models(tmp_path / "o" / "models.fits")
    assert models.sources.shape == (1, 1, 25, 31)


# --- results -----------------------------------------------------------------------------------


def test_models_come_back(tmp_path):
    found = make_deblended(wcs=tilted_wcs(shear=0.1), unit="nJy", masked=True)
    written = write_results(found, tmp_path)
    assert set(written) <= FILES
    models = read_models(tmp_path / "models.fits")
    for ours, theirs in (
        (models.sources, found.models),
        (models.background, found.background),
        (models.residual, found.residual),
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert models.ids == (1, 2, 3, 4)
    assert models.kinds == tuple(found.sources.model)
    assert models.bands == found.exposure.bands
    assert models.unit == "nJy"
    there = models.wcs.all_pix2world(3.0, 5.0, 0)
    np.testing.assert_allclose(there, found.exposure.header.wcs.all_pix2world(3.0, 5.0, 0))
    with fits.open(tmp_path / "models.fits") as hdus:
        names = [hdu.name for hdu in hdus[1:]]
        assert hdus["SOURCE_2"].header["BAND3"] == "i"
        assert hdus["SOURCE_2"].header["XCENTRE"] == pytest.approx(found.sources.x[1])
    assert names == ["SOURCE_1", "SOURCE_2", "SOURCE_3", "SOURCE_4", "BACKGROUND", "RESIDUAL"]


@pytest.mark.parametrize("content", [b"", b"SIMPLE", b"nothing" * 1000])
def test_models_that_are_none(tmp_path, content):
    (tmp_path / "models.fits").write_bytes(content)
    with pytest.raises(ValueError, match="is no readable models"):
        read_models(tmp_path / "models.fits")
    with pytest.raises(ValueError, match="there is no file"):
        read_models(tmp_path / "other.fits")


def test_truncated_models(tmp_path):
    write_results(make_deblended(), tmp_path)
    whole = (tmp_path / "models.fits").read_bytes()
    (tmp_path / "models.fits").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no readable models"):
        read_models(tmp_path / "models.fits")


def test_a_failed_run_leaves_no_half_file(tmp_path, monkeypatch):
    from diffdeblend.io import results

    found = make_deblended()
    write_results(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Broken:
        def writeto(self, path):
            Path(path).write_bytes(b"half")
            raise OSError("disk full")

    monkeypatch.setattr(results, "model_hdus", lambda _: Broken())
    with pytest.raises(OSError, match="disk full"):
        write_results(found, tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) == set(before)
    assert after["models.fits"] == before["models.fits"]


def test_summary_has_no_nan(tmp_path):
    from diffdeblend.io.results import write_summary

    values = {"a": np.float32("nan"), "b": np.arange(2), "c": (np.inf, None, True), "d": Path("x")}
    write_summary(values, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text) == {"a": None, "b": [0, 1], "c": [None, None, True], "d": "x"}


# --- the table and the progress ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3456, 0.5, "12.35±0.50"),
        (1234.5, 123.0, "1234±123"),
        (-0.001234, 0.00045, "-0.00123±0.00045"),
        (3.0, float("nan"), "3"),
        (float("nan"), 1.0, "-"),
        (5.0, 0.0, "5"),
        (1.0, 1e-12, "1.000000±0.000000"),
    ],
)
def test_numbers_with_errors(value, error, text):
    assert with_error(value, error) == text


def test_listing():
    found = make_deblended(n_sources=3, bands=("g", "r"), zero_points=(27.0, 28.0))
    shapes, fluxes, magnitudes, flags = listing(found.catalog, ("g", "r")).split("\n\n")
    assert shapes.splitlines()[0].split()[:4] == ["id", "x", "y", "model"]
    assert shapes.splitlines()[2].split()[3:6] == ["point", "-", "-"]
    assert fluxes.splitlines()[0].split() == ["id", "g", "r", "flux"]
    assert fluxes.splitlines()[1].split()[1] == f"{found.sources.flux[0, 0]:.0f}±12"
    assert magnitudes.splitlines()[-1].split()[1] == "-"
    assert flags.startswith("NEGATIVE_FLUX: ")
    assert max(map(len, fluxes.splitlines())) < 60


def test_listing_of_tiny_numbers_on_the_sky():
    found = make_deblended(wcs=tilted_wcs(), unit="Jy", bands=("r",), n_sources=1)
    table = found.catalog
    for name in ("flux_r", "flux_err_r"):
        table[name] = table[name] * 1e-9
    text = listing(table, ("r",))
    assert "flux [1e-6 Jy]" in text
    assert 'radius ["]' in text
    assert f"{table['ra'][0].value:.6f}" in text


def test_time_covered_by_intervals():
    assert covered([], (0.0, 1.0)) == 0
    # One within the other, one overlapping, one half outside, one outside.
    intervals = [(1.0, 5.0), (2.0, 3.0), (4.0, 6.0), (-1.0, 0.5), (20.0, 30.0)]
    assert covered(intervals, (0.0, 10.0)) == pytest.approx(5.5)


def test_compiling_is_counted_apart(capsys):
    import jax

    progress = Progress(sys.stderr)
    with progress.listening():
        progress.begin("one")
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((13, 7))).block_until_ready()
        progress.begin("two")
        time.sleep(0.02)
        progress.end()
        progress.end()
    seconds = progress.seconds
    assert list(seconds) == ["one", "two", "compile", "total"]
    assert 0 < seconds["compile"] < seconds["total"]
    assert seconds["two"] >= 0.02
    # Nothing is heard any more.
    progress.begin("three")
    jax.jit(lambda x: jnp.sin(x) + 3)(jnp.ones(17)).block_until_ready()
    progress.end()
    assert progress.seconds["compile"] == seconds["compile"]
    assert capsys.readouterr().err.count("\n") == 3
