"""How each step of a detection is done: settings that are called with arrays."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background import (
    BackgroundMap,
    SkewnessBackground,
    estimate_background,
    skewness_background,
    source_masked_background,
)
from diffdeblend.segment import (
    LabelImage,
    dbscan_segments,
    deblend_sources,
    denclue_deblend,
    detect_sources,
    glw_deblend,
)


class Sky(NamedTuple):
    """The sky of one band.

    - `level`, `rms`: what it adds to each pixel, and the scatter of its noise, `(y, x)`.
    - `made`: how it was found: a `BackgroundMap` or a `SkewnessBackground`, None where neither.
    """

    level: Float[np.ndarray, "y x"]
    rms: Float[np.ndarray, "y x"]
    made: BackgroundMap | SkewnessBackground | None


class SkyMethod(Protocol):
    """Finds the sky of an image; `mask` is true where a pixel is not to be used."""

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky: ...


class Segmentation(Protocol):
    """Finds connected sources; `threshold` is above the sky, in the unit of `image`."""

    def __call__(
        self, image: np.ndarray, threshold: Any, mask: Bool[np.ndarray, "y x"]
    ) -> LabelImage: ...


class Deblending(Protocol):
    """Splits sources that are several."""

    def __call__(self, image: np.ndarray, labels: LabelImage) -> LabelImage: ...


@dataclass(frozen=True)
class MeshSky:
    """Clipped statistics in boxes, joined by a spline: see `estimate_background`.

    - `box_size`: in pixels; larger than the image stands for all of it.
    - `masked`: mask sources and measure again, so that their faint light does not lift the level:
        see `source_masked_background`.
    """

    box_size: int = 64
    filter_size: int = 3
    exclude_percentile: float = 10.0
    estimator: str = "sextractor"
    rms_estimator: str = "std"
    masked: bool = False

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky:
        settings: dict[str, Any] = {
            "mask": mask if mask.any() else None,
            "filter_size": self.filter_size,
            "exclude_percentile": self.exclude_percentile,
            "rms_estimator": self.rms_estimator,
        }
        if self.masked:
            made = source_masked_background(image, self.box_size, **settings)
        else:
            made = estimate_background(image, self.box_size, estimator=self.estimator, **settings)
        return Sky(made.background, made.background_rms, made)


@dataclass(frozen=True)
class SkewnessSky:
    """One level, where the quietest part of the image is least skewed: see `skewness_background`."""

    sub_block_frac_size: float | None = 0.1
    skewness_range: float | None = 0.1
    min_size_ratio: float = 0.1
    resampling_size: int = 1_000_000
    sigma: Literal["mad", "mad_std", "std"] = "mad"

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky:
        made = skewness_background(
            image,
            sub_block_frac_size=self.sub_block_frac_size,
            skewness_range=self.skewness_range,
            min_size_ratio=self.min_size_ratio,
            resampling_size=self.resampling_size,
            sigma=self.sigma,
            mask=mask if mask.any() else None,
        )
        flat = np.ones_like(image)
        return Sky(flat * float(made.level), flat * float(made.sigma), made)


@dataclass(frozen=True)
class NoSky:
    """The sky is taken away already. Its noise is that of all pixels, by their median deviation."""

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky:
        used = image[~mask & np.isfinite(image)]
        rms = 1.4826 * np.median(np.abs(used - np.median(used))) if used.size else np.nan
        return Sky(np.zeros_like(image), np.full_like(image, rms), None)


@dataclass(frozen=True)
class Threshold:
    """Connected pixels above a threshold: see `detect_sources`."""

    n_pixels: int = 5
    connectivity: Literal[4, 8] = 8

    def __call__(
        self, image: np.ndarray, threshold: Any, mask: Bool[np.ndarray, "y x"]
    ) -> LabelImage:
        return detect_sources(
            image,
            threshold,
            self.n_pixels,
            connectivity=self.connectivity,
            mask=mask if mask.any() else None,
        )
