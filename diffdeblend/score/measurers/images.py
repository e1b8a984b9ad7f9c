"""What codes of one image at a time are given of an exposure. Host side, numpy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float

from diffdeblend.exposure import Exposure
from diffdeblend.planes import as_int32, excluded_bits
from diffdeblend.score.measured import add_column


class Pixels(NamedTuple):
    """An exposure as numpy arrays.

    - `image`, `variance`: `(band, y, x)`; 0 and 1 where a pixel is not used.
    - `bad`: pixels that are not used, or None if all are.
    - `bands`: their names.
    """

    image: Float[np.ndarray, "band y x"]
    variance: Float[np.ndarray, "band y x"]
    bad: Bool[np.ndarray, "band y x"] | None
    bands: tuple[str, ...]

    def band(self, name: str | None) -> "Pixels":
        """One band alone, or with None the mean of all.

        A pixel of the mean is used where it is used in every band.

        **Raises:** `ValueError` for an unknown band.
        """
        if name is not None:
            if name not in self.bands:
                raise ValueError(f"`band` must be one of {self.bands}, or None; got {name!r}.")
            k = slice(self.bands.index(name), self.bands.index(name) + 1)
            bad = None if self.bad is None else self.bad[k]
            return Pixels(self.image[k], self.variance[k], bad, (name,))
        variance = self.variance.sum(axis=0, keepdims=True) / len(self.bands) ** 2
        bad = None if self.bad is None else np.asarray(self.bad.any(axis=0, keepdims=True))
        return Pixels(self.image.mean(axis=0, keepdims=True), variance, bad, ("mean",))


def pixels_of(exposure: Exposure) -> Pixels:
    """The pixels of an exposure. In numpy: JAX outside jit compiles for every shape of stamp."""
    header = exposure.header
    image, variance = np.asarray(exposure.image), np.asarray(exposure.variance)
    excluded = as_int32(excluded_bits(header))
    bad = ~(np.isfinite(image) & np.isfinite(variance) & (variance > 0))
    bad |= (np.asarray(exposure.mask) & excluded) != 0
    if not bad.any():
        return Pixels(image, variance, None, exposure.bands)
    return Pixels(np.where(bad, 0, image), np.where(bad, 1, variance), bad, exposure.bands)


def add_fluxes(
    table: Table,
    bands: Sequence[str],
    flux: Float[np.ndarray, "source band"],
    error: Float[np.ndarray, "source band"],
    what: str,
) -> None:
    """Columns `flux_{band}` and `flux_err_{band}`."""
    for k, name in enumerate(bands):
        add_column(table, f"flux_{name}", flux[:, k], what)
        add_column(table, f"flux_err_{name}", error[:, k], "Its standard deviation")


def cut_out(
    image: Float[np.ndarray, "band y x"], segmentation: Bool[np.ndarray, "source y x"]
) -> Float[np.ndarray, "source band y x"]:
    """The image in the pixels of each source, 0 elsewhere."""
    return image * segmentation[:, None]
