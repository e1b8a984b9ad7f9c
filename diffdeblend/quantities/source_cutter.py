"""Sources on stamps, each with all others replaced by noise. Host side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.planes import excluded_planes
from diffdeblend.quantities.psf_stamps import PSFStamps
from diffdeblend.quantities.stamp import (
    ImagePlanes,
    SourceStamp,
    cut_stamps,
    image_planes,
    nearest_index,
)
from diffdeblend.replace_noise import NoiseReplacer, replace_noise


@dataclass(frozen=True, eq=False)
class SourceCutter:
    """Cuts stamps around sources with footprints, or around bare positions; made by `of`.

    - `planes`: the band of the image. `replacer`: where there are footprints, what takes them out.
    - `records`: of these.
    """

    planes: ImagePlanes
    replacer: NoiseReplacer | None
    records: SourceRecords | None

    @classmethod
    def of(
        cls,
        exposure: Exposure,
        records: SourceRecords | Any,
        band: int,
        *,
        pad: int,
        noise: str | float = "measure",
        seed: int = 1,
    ) -> "SourceCutter":
        """For one band, by its place; the rest as for `measure_sources`. `pad`: largest size."""
        header = exposure.header
        planes = image_planes(
            np.asarray(exposure.image[band]),
            np.asarray(exposure.variance[band]),
            np.asarray(exposure.mask[band]),
            planes=header.mask_planes,
            excluded=excluded_planes(header.excluded, header.mask_planes),
            pad=pad,
        )
        if not isinstance(records, SourceRecords):
            return cls(planes, None, None)
        replacer = replace_noise(exposure, records, band=header.bands[band], noise=noise, seed=seed)
        return cls(planes, replacer, records)

    def record_columns(self) -> dict[str, np.ndarray]:
        """Columns of the records; of bare positions none."""
        if self.records is None:
            return {}
        table = self.records.table()
        return {name: np.asarray(table[name]) for name in table.colnames}

    def extent(self, place: Float[np.ndarray, "source 2"]) -> Float[np.ndarray, "source"]:
        """How far the footprint of each goes from its place along either axis, in pixels."""
        if self.records is None:
            return np.zeros(len(place))
        boxes = np.array([_edges(one) for one in self.records.footprints], dtype=float).reshape(
            -1, 4
        )
        middle = np.where(np.isfinite(place), place, 0)
        over = np.hstack([middle - boxes[:, :2], boxes[:, 2:] - 1 - middle])
        return over.max(axis=1, initial=0.0)

    def cut(
        self,
        rows: Int[np.ndarray, "source"],
        place: Float[np.ndarray, "all 2"],
        psf: PSFStamps,
        size: int,
    ) -> SourceStamp:
        """Stamps of some rows, arrays of numpy; with one PSF where it is one for all."""
        where = place[rows]
        images = psf.at(where)
        if self.replacer is None:
            return cut_stamps(self.planes, where[:, 0], where[:, 1], images, size)
        known = np.isfinite(where)
        x0, y0 = (nearest_index(where[:, k]) - size // 2 for k in (0, 1))
        alone = self.replacer.stamps(rows, x0, y0, (size, size))
        dtype = self.planes.image.dtype
        finite = np.isfinite(alone.image) & np.isfinite(alone.variance) & (alone.variance > 0)
        arrays: dict[str, Any] = {
            "image": np.where(finite, alone.image, 0).astype(dtype, copy=False),
            "variance": np.where(finite, alone.variance, 0).astype(dtype, copy=False),
            "mask": alone.mask.astype(np.int32, copy=False),
            "inside": alone.inside,
            "footprint": alone.own,
            "psf": images.astype(dtype, copy=False),
            "x": np.where(known[:, 0], where[:, 0] - x0, np.nan).astype(dtype),
            "y": np.where(known[:, 1], where[:, 1] - y0, np.nan).astype(dtype),
            "x0": x0.astype(np.int32),
            "y0": y0.astype(np.int32),
        }
        return SourceStamp(**arrays, planes=self.planes.planes, excluded=self.planes.excluded)

    def blank(self, psf: PSFStamps, size: int) -> SourceStamp:
        """A stamp of no source."""
        nowhere = np.full((1, 2), np.nan)
        return cut_stamps(self.planes, nowhere[:, 0], nowhere[:, 1], psf.at(nowhere), size)


def _edges(footprint: Any) -> tuple[int, int, int, int]:
    if not footprint.spans.area:
        return 0, 0, 1, 1
    box = footprint.bbox
    return box.ixmin, box.iymin, box.ixmax, box.iymax
