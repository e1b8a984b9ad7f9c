"""Stamps in memory: a run of them from a store, or to be written to one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# Of an array of three axes: a header is compared, and written as JSON.
NestedTuples = tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class StampsHeader:
    """What all stamps of a store share.

    - `bands`: their names. `shape`: pixels along y and x.
    - `pixel_scale`: arcseconds. `zero_points`: AB magnitude of one unit of flux in each band, or
        None. `unit`: of flux, as astropy reads it; empty for plain counts.
    - `n_stamps`: how many there are. `most_sources`: of a stamp.
    - `oversampling`: samples of the PSF's images a pixel, on each axis.
    - `noise_correlation`: of the noise of neighbouring pixels, `(band, h, w)` in nested tuples, as
        in `Exposure`; None where pixels are independent.
    """

    bands: tuple[str, ...]
    shape: tuple[int, int]
    n_stamps: int
    most_sources: int
    pixel_scale: float | None = None
    zero_points: tuple[float, ...] | None = None
    unit: str = ""
    oversampling: int = 1
    noise_correlation: NestedTuples | None = None

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return len(self.bands)


def nested(values: Any) -> NestedTuples | None:
    """An array of three axes, or nested lists, as nested tuples; None stays None."""
    if values is None:
        return None
    return tuple(tuple(tuple(map(float, row)) for row in plane) for plane in values)


@dataclass(frozen=True, eq=False)
class Stamps:
    """A run of stamps. Lives on the host, in numpy arrays with a leading axis of the stamps.

    - `first`: number in the store of the first of them.
    - `id`: of each, `(stamp,)`, unique in a store.
    - `image`: linear flux a pixel, `(stamp, band, y, x)`; what is not finite is not used.
    - `variance`: same shape, or `(stamp, band)` where it is one number a band.
    - `mask`: not zero where a pixel is bad, shape of `image` or `(stamp, y, x)`; or None.
    - `position`: x and y of each source in pixels, NaN beyond the last,
        `(stamp, most_sources, 2)`.
    - `source_id`: of each source, 0 beyond the last, `(stamp, most_sources)`.
    - `psf`: images, `(psf, band, h, w)`, odd in height and width: how a point is seen, the share of
        its light that the image holds in sum. `psf_index`: which of them each stamp has,
        `(stamp,)`. `psf_key`: of each image, the same number for the same image in all of the
        store, `(psf,)`.
    - `ra`, `dec`: of the middle of the stamp, ICRS, degrees, `(stamp,)`; or None.
    - `cd`: how a step in pixels moves on the sky there, `(stamp, 2, 2)`, degrees, rows towards
        east and north, columns along x and y; or None: north is up and east is left.
    - `truth`: what is known of the sources, under names such as `flux_r` and `x`, each
        `(stamp, most_sources)`; empty for real data.
    - `crowded`: stamps whose sources are part of a larger group, `(stamp,)`; or None.
    - `unreadable`: what is wrong with stamps that could not be read, by their place in this run.
        Their arrays are NaN.
    """

    first: int
    id: Int[np.ndarray, "stamp"]
    image: Float[np.ndarray, "stamp band y x"]
    variance: Float[np.ndarray, "stamp band *yx"]
    position: Float[np.ndarray, "stamp source 2"]
    source_id: Int[np.ndarray, "stamp source"]
    psf: Float[np.ndarray, "psf band h w"]
    psf_index: Int[np.ndarray, "stamp"]
    psf_key: Int[np.ndarray, "psf"]
    mask: Shaped[np.ndarray, "stamp *byx"] | None = None
    ra: Float[np.ndarray, "stamp"] | None = None
    dec: Float[np.ndarray, "stamp"] | None = None
    cd: Float[np.ndarray, "stamp 2 2"] | None = None
    crowded: Shaped[np.ndarray, "stamp"] | None = None
    truth: Mapping[str, Float[np.ndarray, "stamp source"]] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def part(self, start: int, stop: int) -> "Stamps":
        """Some of them, by their place in this run."""
        own = slice(start, stop)

        def cut(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[own]

        return Stamps(
            first=self.first + start,
            id=self.id[own],
            image=self.image[own],
            variance=self.variance[own],
            position=self.position[own],
            source_id=self.source_id[own],
            psf=self.psf,
            psf_index=self.psf_index[own],
            psf_key=self.psf_key,
            mask=cut(self.mask),
            ra=cut(self.ra),
            dec=cut(self.dec),
            cd=cut(self.cd),
            crowded=cut(self.crowded),
            truth={name: values[own] for name, values in self.truth.items()},
            unreadable={
                place - start: why
                for place, why in self.unreadable.items()
                if start <= place < stop
            },
        )

    def n_sources(self) -> Int[np.ndarray, "stamp"]:
        """Number of sources of each stamp: those before the first that has no position."""
        return has_position(self.position).sum(axis=1)


def has_position(
    position: Float[np.ndarray, "stamp source 2"],
) -> Bool[np.ndarray, "stamp source"]:
    """Which places for sources hold one: those before the first that has no position."""
    return np.logical_and.accumulate((~np.isnan(position)).any(axis=2), axis=1)
