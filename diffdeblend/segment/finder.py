"""Detection and deblending in one call."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffdeblend.backend import Backend
from diffdeblend.segment.deblend import (
    ContrastMethod,
    Mode,
    check_settings,
    deblend_image,
)
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.sources import check_count, detect_sources
from diffdeblend.segment.split import Settings


@dataclass(frozen=True)
class SourceFinder:
    """Finds sources above a threshold, and takes those apart that touch.

    Called with an image and a threshold. The same as `detect_sources` and `deblend_sources` one
    after the other, where arguments are told of.

    - `n_pixels`: of a source, or two numbers: of a source, and of a part when it is taken apart.
    - `deblend`: whether to take sources apart; the arguments of that are not used else.

    **Raises:** `ValueError` for an argument out of its range.
    """

    n_pixels: int | tuple[int, int]
    connectivity: int = 8
    deblend: bool = True
    n_levels: int = 32
    contrast: float = 0.001
    mode: Mode = "exponential"
    relabel: bool = True
    contrast_method: ContrastMethod | None = None
    backend: Backend = "auto"

    def __post_init__(self):
        pair = np.ravel(np.asarray(self.n_pixels, dtype=object))
        if len(pair) not in (1, 2):
            raise ValueError(f"`n_pixels` must be one integer or two; got {self.n_pixels!r}.")
        for count in pair:
            check_count("n_pixels", count)
        self._settings()

    def __call__(self, data: Any, threshold: Any, mask: Any = None) -> LabelImage:
        """The sources of an image; without any, an empty result and a `NoDetectionsWarning`.

        - `data`: shape `(y, x)`, as a rule smoothed and without the sky.
        - `threshold`: one number or shape `(y, x)`, in the unit of `data`.
        - `mask`: True on pixels that are of no source.

        **Raises:** `ValueError` as `detect_sources`.
        """
        settings = self._settings()
        first = int(np.ravel(self.n_pixels)[0])
        found = detect_sources(
            data,
            threshold,
            first,
            connectivity=self.connectivity,
            mask=mask,
            backend=self.backend,
        )
        if not self.deblend:
            return found
        return deblend_image(data, found, settings, relabel=self.relabel, backend=self.backend)

    def _settings(self) -> Settings:
        return check_settings(
            np.ravel(self.n_pixels)[-1],
            self.n_levels,
            self.contrast,
            self.mode,
            self.connectivity,
            self.contrast_method,
        )


def find_sources(
    data: Any, threshold: Any, n_pixels: int | tuple[int, int], *, mask: Any = None, **options: Any
) -> LabelImage:
    """`SourceFinder(n_pixels, **options)(data, threshold, mask)`."""
    return SourceFinder(n_pixels, **options)(data, threshold, mask)
