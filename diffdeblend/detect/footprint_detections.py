"""What a detection of footprints gives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.background.surfaces import Surface, total_background
from diffdeblend.detect.dynamic import SkyMeasurement
from diffdeblend.detect.smoothing import SmoothedImage
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import FootprintSet


@dataclass(frozen=True, eq=False, repr=False)
class FootprintDetections:
    """Footprints of one band of an exposure, and all that led to them. Host side.

    - `positive`, `negative`: footprints above and below the sky; empty where not looked for.
    - `exposure`: without the sky that was measured, with the mask planes `EDGE`, `DETECTED` and
        `DETECTED_NEGATIVE` of this band anew.
    - `band`: name of the band.
    - `smoothed`: what was thresholded, with its noise.
    - `threshold`: of each pixel of it, or one number `(1, 1)`.
    - `sigma`: of the kernel, in pixels, or of the PSF where there is none.
    - `n_grow`: pixels that footprints were grown by.
    - `factor`: that the threshold was multiplied by.
    - `background`: models of the sky that was taken from the band, to be added up.
    - `sky`: how `factor` was found; None without `dynamic`.
    - `settings`: how all was done.
    """

    positive: FootprintSet
    negative: FootprintSet
    exposure: Exposure
    band: str
    smoothed: SmoothedImage
    threshold: Float[np.ndarray, "y x"]
    sigma: float
    n_grow: int
    factor: float
    background: tuple[Surface, ...]
    sky: SkyMeasurement | None
    settings: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"<FootprintDetections: {self.n_positive} positive footprints with "
            f"{self.n_positive_peaks} peaks, {self.n_negative} negative>"
        )

    @property
    def n_positive(self) -> int:
        """Footprints above the sky."""
        return len(self.positive)

    @property
    def n_positive_peaks(self) -> int:
        """Their peaks."""
        return len(self.positive.peaks)

    @property
    def n_negative(self) -> int:
        """Footprints below the sky."""
        return len(self.negative)

    @property
    def n_negative_peaks(self) -> int:
        """Their peaks."""
        return len(self.negative.peaks)

    @property
    def background_image(self) -> Float[np.ndarray, "y x"]:
        """The sum of the models of the sky at each pixel."""
        return total_background(self.background, self.exposure.shape)
