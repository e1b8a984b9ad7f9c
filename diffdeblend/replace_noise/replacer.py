"""An exposure in which every source is noise but the one that is looked at."""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.heavy import HeavyFootprint
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.one_band import band_of, with_planes
from diffdeblend.planes import as_int32, excluded_bits
from diffdeblend.replace_noise.draw import draw_replacement
from diffdeblend.replace_noise.stamps import LoneStamps, lone_stamps

# Planes of the source that is looked at, and of those that are noise.
THIS, OTHER = "THISDET", "OTHERDET"


@dataclass(frozen=True, eq=False)
class NoiseReplacer:
    """One band of an exposure with noise in place of sources; made by `replace_noise`. Host side.

    It does not change: `insert` and `remove` return another one. Each pixel has one value of noise
    whoever is in or out, so that the order does not matter.

    - `original`: the exposure as it was given; `records`: its sources; `band`: place of the band.
    - `base`: the image of the band with all sources replaced; `others`: where that is.
    - `row`: of the source that is in; None for none.
    """

    original: Exposure
    records: SourceRecords = field(repr=False)
    band: int
    base: Float[np.ndarray, "y x"] = field(repr=False)
    others: np.ndarray = field(repr=False)
    row: int | None = None

    @property
    def exposure(self) -> Exposure:
        """What the exposure looks like now, with planes THISDET and OTHERDET."""
        image = self.base
        mine = np.zeros(self.others.shape, bool)
        if self.row is not None:
            own = self.heavy(self.row)
            place = own.spans.indices(self.original.shape)
            image = image.copy()
            image[place] = own.image
            mine[place] = True
        planes = {THIS: mine, OTHER: self.others & ~mine}
        return with_planes(self.original, self.band, image, planes, cleared=(THIS, OTHER))

    def insert(self, id: int) -> "NoiseReplacer":
        """With a source of this id in, and no other.

        **Raises:** `ValueError` for an id that is not there.
        """
        return replace(self, row=self.records.row(id))

    def remove(self, id: int) -> "NoiseReplacer":
        """With the source of this id replaced again; nothing changes if it is not in.

        **Raises:** `ValueError` for an id that is not there.
        """
        return replace(self, row=None) if self.records.row(id) == self.row else self

    def end(self) -> Exposure:
        """The exposure as it was given."""
        return self.original

    def heavy(self, row: int) -> HeavyFootprint:
        """The pixels that are put in for the source of a row: its own; of a source without any
        those of its nearest ancestor that has, or of the image."""
        own = self.records.footprints[int(self.records.heavy_row()[row])]
        if isinstance(own, HeavyFootprint):
            return own
        return HeavyFootprint.from_exposure(
            own.clipped(self.original.shape), self.original, self.original.bands[self.band]
        )

    def stamps(
        self,
        rows: Int[np.ndarray, "n"],
        x0: Int[np.ndarray, "n"],
        y0: Int[np.ndarray, "n"],
        shape: tuple[int, int],
    ) -> LoneStamps:
        """Each source of some rows alone on its stamp; see `lone_stamps`."""
        return lone_stamps(
            self.original, self.records, rows, x0, y0, shape, band=self.band, base=self.base
        )


def replace_noise(
    exposure: Exposure,
    records: SourceRecords,
    *,
    band: str | None = None,
    noise: str | float = "measure",
    offset: float = 0.0,
    seed: int = 1,
) -> NoiseReplacer:
    """Replace all sources by noise, to put them in one by one.

    - `records`: all rows are replaced; a source without pixels of its own is that of its nearest
        ancestor that has, or of the image.
    - `band`: name; None for the only one.
    - `noise`, `offset`, `seed`: see `draw_replacement`. Where the exposure has a correlation of
        its noise, what is drawn has it, too.

    **Raises:** `ValueError` for an unknown band or noise.
    """
    k = band_of(exposure, band)
    image = np.asarray(exposure.image[k])
    variance = np.asarray(exposure.variance[k])
    excluded = as_int32(excluded_bits(exposure.header))
    good = (np.asarray(exposure.mask[k]) & excluded) == 0
    where = np.zeros(image.shape, bool)
    for one in records.footprints:
        # What reaches beyond the image is nobody's.
        where[one.spans.clipped(image.shape).indices()] = True
    correlation = exposure.noise_correlation
    drawn = draw_replacement(
        image,
        variance,
        good,
        where,
        noise=noise,
        offset=offset,
        seed=seed,
        correlation=None if correlation is None else np.asarray(correlation[k]),
    )
    return NoiseReplacer(exposure, records, k, np.where(where, drawn, image), where)
