"""`diffdeblend simulate --format stamps`: the same blends, in a store with their truth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from diffdeblend.cli import main
from diffdeblend.simulate import read_blends
from diffdeblend.stamps import StampWriter, open_store, write_stamps
from diffdeblend.stamps.blend_stamps import stamps_of_blends

SMALL = ["--bands", "g,r", "--stamp", "5", "--max-shift", "1", "--most", "3", "--quiet"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def blends(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "blends.zarr"
    assert run("simulate", "--n", 12, "--seed", 3, *SMALL, "-o", path) == 0
    return read_blends(path)


def test_stamps_are_the_blends(blends, tmp_path, capsys):
    path = tmp_path / "stamps.zarr"
    command = ["simulate", "--seed", 3, "--batch", 4, *SMALL, "--format", "stamps", "-o", path]
    assert run(*command, "--n", 5) == 0
    # It goes on where it stopped.
    assert run(*command, "--n", 12) == 0
    assert "sources, seed 3" in capsys.readouterr().out
    store = open_store(path)
    header = store.header
    assert (header.bands, header.shape, header.n_stamps) == (("g", "r"), blends.shape, 12)
    assert header.pixel_scale == blends.survey.pixel_scale
    assert header.zero_points == tuple(blends.survey.zero_points)
    assert header.unit == "electron"
    found = store.read(0, 12)
    assert found.id.tolist() == list(range(12))
    np.testing.assert_array_equal(found.image, blends.images)
    np.testing.assert_array_equal(found.variance, blends.variance)
    assert found.n_sources().tolist() == blends.n_sources.tolist()
    assert found.ra is None
    for k in range(12):
        n = blends.n_sources[k]
        np.testing.assert_array_equal(found.position[k, :n], blends.positions(k))
        np.testing.assert_array_equal(found.psf[found.psf_index[k]], blends.psf_images[0])
        truth = blends.truth[blends.rows(k)]
        for name in ("flux_r", "is_star", "magnitude_g", "x", "radius", "row"):
            np.testing.assert_allclose(found.truth[name][k, :n], truth[name], rtol=1e-6)
            assert np.isnan(found.truth[name][k, n:]).all()
        assert found.source_id[k, :n].tolist() == [1_000_000 * k + i + 1 for i in range(n)]
    assert not {"blend", "ra", "dec"} & set(found.truth)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["n_sources"] == len(blends.truth)
    assert (path / "figure.png").stat().st_size > 1000
    assert run(*command, "--n", 12) == 2
    assert "holds 12 blends of these settings" in capsys.readouterr().err
    assert run(*command, "--n", 13, "--noise", "none") == 2
    assert "of other settings" in capsys.readouterr().err
    assert run(*command[:-4], "-o", path, "--n", 13) == 2
    assert "holds no blends" in capsys.readouterr().err
    assert run(*command, "--n", 2, "--overwrite", "--noise", "background", "--no-isolated") == 0
    again = open_store(path).read(0, 2)
    assert again.variance.shape == (2, 2)


def test_the_variance_is_a_number_where_it_is_one(blends):
    stamps, _ = stamps_of_blends(replace(blends, noise="background"), first=40)
    np.testing.assert_allclose(stamps.variance, np.tile(blends.sky, (12, 1)), rtol=1e-6)
    assert stamps.id.tolist() == list(range(40, 52))


def test_a_source_outside_comes_last_and_has_no_position(blends):
    truth = blends.truth.copy()
    k = int(np.argmax(blends.n_sources))
    first = blends.rows(k).start
    truth["outside"][first] = True
    stamps, _ = stamps_of_blends(replace(blends, truth=truth))
    n = blends.n_sources[k]
    assert stamps.n_sources()[k] == n - 1
    np.testing.assert_array_equal(stamps.position[k, : n - 1], blends.positions(k)[1:])
    assert stamps.truth["x"][k, n - 1] == truth["x"][first]
    assert stamps.source_id[k, n - 1] == 0


def test_correlated_noise_comes_along(blends, tmp_path):
    row = np.array([0.3, 1.0, 0.3])
    noise = np.stack([np.outer(row, row)] * len(blends.bands))
    stamps, header = stamps_of_blends(replace(blends, noise_correlation=noise))
    write_stamps(stamps, header, tmp_path / "s.zarr")
    found = open_store(tmp_path / "s.zarr").header.noise_correlation
    np.testing.assert_array_equal(np.array(found), noise)
    assert stamps_of_blends(blends)[1].noise_correlation is None
    with pytest.raises(ValueError, match="another `noise_correlation` than the store"):
        StampWriter(tmp_path / "s.zarr", replace(header, noise_correlation=None), append=True)


def test_stamps_are_of_one_survey(tmp_path, capsys):
    path = tmp_path / "two.zarr"
    command = ["simulate", "--survey", "LSST,HSC", "--format", "stamps", *SMALL, "-o", path]
    assert run(*command) == 2
    assert "--format stamps needs one survey; got 'LSST,HSC'" in capsys.readouterr().err
    assert not path.exists()
