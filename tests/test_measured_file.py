"""What was measured comes back from its file as it was."""

import json
import zipfile

import numpy as np
import pytest
from astropy.table import Table

from diffdeblend.score import Measured, Measurements, read_measurements, write_measurements


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    full = Table({"x": [1.5, 2.5], "y": [3.0, 4.0], "flux_r": [1e4, np.nan], "name": ["a", "bc"]})
    full["x"].unit = "pix"
    empty = Table({"x": np.zeros(0), "y": np.zeros(0)})
    return Measurements(
        measured={
            "one": [
                Measured(full, rng.random((2, 5, 6)) > 0.5, rng.random((2, 3, 5, 6))),
                Measured(empty),
            ],
            "two": [Measured(empty), Measured(full)],
        },
        seconds={"one": 1.5, "two": 0.25},
        first_seconds={"one": float("nan"), "two": 0.125},
        errors={"one": {1: "ValueError: no"}, "two": {}},
    )


def test_all_comes_back(made, tmp_path):
    write_measurements(made, tmp_path / "found.npz")
    found = read_measurements(tmp_path / "found.npz")
    assert found.names == made.names
    assert found.seconds == made.seconds
    assert np.isnan(found.first_seconds["one"])
    assert found.first_seconds["two"] == 0.125
    assert found.errors == made.errors
    for name in made.names:
        for one, other in zip(found.measured[name], made.measured[name], strict=True):
            assert one.catalog.colnames == other.catalog.colnames
            for column in one.catalog.colnames:
                assert one.catalog[column].unit == other.catalog[column].unit
                assert one.catalog[column].dtype == other.catalog[column].dtype
                assert np.array_equal(
                    one.catalog[column],
                    other.catalog[column],
                    equal_nan=one.catalog[column].dtype.kind == "f",
                )
            for part in ("segmentation", "images"):
                mine, theirs = getattr(one, part), getattr(other, part)
                assert (mine is None) == (theirs is None)
                assert mine is None or np.array_equal(mine, theirs)


def test_what_cannot_be_read(made, tmp_path):
    path = tmp_path / "found.npz"
    write_measurements(made, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="needs a whole file of diffdeblend measurements"):
        read_measurements(path)
    with pytest.raises(FileNotFoundError):
        read_measurements(tmp_path / "absent.npz")
    with zipfile.ZipFile(path, "w") as archive, archive.open("head.npy", "w") as file:
        head = {"format": "diffdeblend measurements", "version": 7}
        np.save(file, np.array(json.dumps(head)))
    with pytest.raises(ValueError, match="version 7"):
        read_measurements(path)
