"""Where a label is: its box, and what is in it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from diffdeblend.segment.labels import LabelImage


class BoundingBox(NamedTuple):
    """The smallest box around a source, in pixels; the upper ends are not in it."""

    ixmin: int
    ixmax: int
    iymin: int
    iymax: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.iymax - self.iymin, self.ixmax - self.ixmin

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an image."""
        return slice(self.iymin, self.iymax), slice(self.ixmin, self.ixmax)


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """One label of an image, with cutouts of its box."""

    image: "LabelImage"
    label: int

    def __repr__(self) -> str:
        return (
            f"<diffdeblend.segment.Segment>\nlabel: {self.label}\nslices: {self.slices}\n"
            f"area: {self.area}"
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the smallest box."""
        return self.image.slices[self.image.get_index(self.label)]

    @property
    def bbox(self) -> BoundingBox:
        """The smallest box."""
        return BoundingBox(*ends(self.slices[1]), *ends(self.slices[0]))

    @property
    def area(self) -> int:
        """Pixels of the label."""
        return self.image.get_area(self.label)

    @property
    def data(self) -> Int[np.ndarray, "y x"]:
        """The labels in the box, with other labels set to 0."""
        cutout = self.image.data[self.slices]
        return np.where(cutout == self.label, cutout, 0)

    @property
    def data_masked(self) -> np.ma.MaskedArray:
        """The labels in the box; all but this one are masked."""
        return self.make_cutout(self.image.data, masked_array=True)

    def make_cutout(self, data: Any, masked_array: bool = False) -> Any:
        """The box of this label in another image of the same shape.

        - `masked_array`: mask the pixels that are not of this label.

        **Raises:** `ValueError` for another shape.
        """
        if np.shape(data) != self.image.shape:
            raise ValueError(f"`data` needs shape {self.image.shape}; got {np.shape(data)}.")
        cutout = np.asarray(data)[self.slices]
        if not masked_array:
            return cutout
        return np.ma.masked_array(cutout, mask=self.image.data[self.slices] != self.label)


def ends(along: slice) -> tuple[int, int]:
    """Where a slice begins, and where it is over."""
    return along.start, along.stop
