"""How a smooth sky is fitted to an image: settings that are called with arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background.cells import cell_levels
from diffdeblend.background.surfaces import CellSurface, ChebyshevSurface, fit_cells, fit_chebyshev


@dataclass(frozen=True)
class SurfaceFit:
    """Clipped means of cells, and a smooth surface through them.

    - `bin_size`: largest height and width of a cell, in pixels; larger than the image stands for
        all of it.
    - `kind`: "chebyshev" for polynomials, "akima", "cubic", "linear" or "constant" for a surface
        that goes through the levels.
    - `degree`: of the polynomials.
    - `ignored`: mask planes whose pixels are not used, where the image has such planes.

    **Raises:** `ValueError` for a setting out of its range.
    """

    bin_size: int = 128
    kind: Literal["chebyshev", "akima", "cubic", "linear", "constant"] = "chebyshev"
    degree: int = 6
    ignored: tuple[str, ...] = ("BAD", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA")

    def __post_init__(self):
        for name, least in (("bin_size", 1), ("degree", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}; got {value!r}.")
        kinds = ("chebyshev", "akima", "cubic", "linear", "constant")
        if self.kind not in kinds:
            raise ValueError(f"`kind` must be one of {kinds}; got {self.kind!r}.")

    def __call__(
        self, image: Float[np.ndarray, "y x"], hidden: Bool[np.ndarray, "y x"] | None = None
    ) -> ChebyshevSurface | CellSurface:
        """The sky of an image; `hidden` is true where a pixel is not used.

        **Raises:** `ValueError` if no pixel is left.
        """
        cells = cell_levels(image, hidden, self.bin_size)
        if self.kind == "chebyshev":
            return fit_chebyshev(cells, self.degree)
        return fit_cells(cells, self.kind)
