"""A small store of stars that fits fast, and how to compare the parts of runs of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from diffdeblend.stamps import Stamps, StampsHeader, write_stamps
from diffdeblend.survey import FitSettings
from diffdeblend.survey.parts import list_parts, read_part

SETTINGS = FitSettings(model="point", covariance=False)
N = 24
SIDE = 24


def make_stars(n=N, seed=0):
    """Stamps of one or two stars each, in one band."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    v, u = np.mgrid[-7:8, -7:8]
    psf = np.exp(-(u**2 + v**2) / 2 / 1.5**2)
    position = rng.uniform(7, 17, (n, 2, 2))
    position[::2, 1] = np.nan
    image = rng.normal(size=(n, SIDE, SIDE))
    for number, own in enumerate(position):
        for px, py in own[np.isfinite(own[:, 0])]:
            image[number] += 40 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2 / 1.5**2)
    return Stamps(
        first=0,
        id=500 + np.arange(n),
        image=image[:, None].astype(np.float32),
        variance=np.ones((n, 1), np.float32),
        position=position,
        source_id=np.arange(2 * n).reshape(n, 2),
        psf=np.broadcast_to(psf / psf.sum(), (2, 1, 15, 15)).astype(np.float32),
        psf_index=np.arange(n) % 2,
        psf_key=np.arange(2),
        mask=np.zeros((n, SIDE, SIDE), np.uint8),
    )


def write_stars(path, stamps=None):
    """A store of them; returns its path."""
    stamps = make_stars() if stamps is None else stamps
    header = StampsHeader(("r",), (SIDE, SIDE), len(stamps), 2, 0.2, (30.0,))
    write_stamps(replace(stamps, psf=np.array(stamps.psf)), header, path)
    return Path(path)


def rows(out):
    """All rows of the parts, by the stamp's number; each must be there once."""
    found = {}
    for run, path in list_parts(Path(out)):
        for row in read_part(path, run).to_pylist():
            assert row["row"] not in found
            found[row["row"]] = row
    return found


def same(one, other):
    """Whether rows are equal to the bit."""
    return repr(one) == repr(other)
