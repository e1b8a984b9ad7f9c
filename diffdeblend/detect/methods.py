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
    source_free_background,
)
from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.segment import (
    LabelImage,
    Validation,
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
    """Finds connected sources.

    `image` is without the sky, and `threshold` above it; `level` is the sky that was taken away.
    """

    def __call__(
        self,
        image: np.ndarray,
        threshold: np.ndarray,
        mask: Bool[np.ndarray, "y x"],
        level: np.ndarray,
    ) -> LabelImage: ...


class Deblending(Protocol):
    """Splits sources that are several; `image` and `level` as for `Segmentation`."""

    def __call__(self, image: np.ndarray, labels: LabelImage, level: np.ndarray) -> LabelImage: ...


def mask_or_none(mask: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"] | None:
    """None for a mask that hides nothing: most steps are faster without one."""
    return mask if mask.any() else None


def median_scatter(
    stack: Float[np.ndarray, "stamp y x"], mask: Bool[np.ndarray, "stamp y x"]
) -> Float[np.ndarray, "stamp"]:
    """Scatter of each stamp by its median deviation, NaN where none of its pixels is used."""
    used = np.isfinite(stack) & ~mask
    values = np.where(used, stack, np.nan).reshape(len(stack), -1)
    scatter = np.full(len(stack), np.nan, stack.dtype)
    there = used.any(axis=(1, 2))
    middle = np.nanmedian(values[there], axis=1, keepdims=True)
    scatter[there] = MAD_TO_STD * np.nanmedian(np.abs(values[there] - middle), axis=1)
    return scatter


@dataclass(frozen=True)
class MeshSky:
    """Clipped statistics in boxes, joined by a spline: see `estimate_background`.

    - `box_size`: in pixels; larger than the image stands for all of it.
    - `exclude_percentile`, `estimator`: None for 10 and SExtractor's mode; masked, 90 and the mean.
    - `masked`: mask sources and measure again, so that their faint light does not lift the level:
        see `source_free_background`.
    """

    box_size: int = 64
    filter_size: int = 3
    exclude_percentile: float | None = None
    estimator: str | None = None
    rms_estimator: str = "std"
    masked: bool = False

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky:
        settings: dict[str, Any] = {
            "mask": mask_or_none(mask),
            "filter_size": self.filter_size,
            "rms_estimator": self.rms_estimator,
        }
        if self.estimator is not None:
            settings["estimator"] = self.estimator
        # None has a meaning there, and none where sources are masked.
        if self.exclude_percentile is not None or not self.masked:
            settings["exclude_percentile"] = self.exclude_percentile
        if self.masked:
            made, _ = source_free_background(image, self.box_size, **settings)
        else:
            made = estimate_background(image, self.box_size, **settings)
        return Sky(made.background, made.background_rms, made)


@dataclass(frozen=True)
class SkewnessSky:
    """One level, where the quietest part is least skewed: see `skewness_background`."""

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
            mask=mask_or_none(mask),
        )
        flat = np.ones_like(image)
        return Sky(flat * float(made.level), flat * float(made.sigma), made)


@dataclass(frozen=True)
class NoSky:
    """The sky is taken away already. Its noise is that of all pixels, by their median deviation."""

    def __call__(self, image: np.ndarray, mask: Bool[np.ndarray, "y x"]) -> Sky:
        rms = median_scatter(image[None], mask[None])
        return Sky(np.zeros_like(image), np.full_like(image, rms[0]), None)


@dataclass(frozen=True)
class Threshold:
    """Connected pixels above a threshold: see `detect_sources`.

    - `inclusive`: take pixels that are just at the threshold, too.
    """

    n_pixels: int = 5
    connectivity: Literal[4, 8] = 8
    inclusive: bool = False

    def __call__(
        self,
        image: np.ndarray,
        threshold: np.ndarray,
        mask: Bool[np.ndarray, "y x"],
        level: np.ndarray,
    ) -> LabelImage:
        return detect_sources(
            image,
            threshold,
            self.n_pixels,
            connectivity=self.connectivity,
            mask=mask_or_none(mask),
            inclusive=self.inclusive,
        )


@dataclass(frozen=True)
class Dbscan:
    """Clusters of pixels above a threshold, dense in light: see `dbscan_segments`.

    - `with_sky`: density is that of the light with the sky, as ASTErIsM has it.
    """

    eps: float = 1.5
    K: float | None = 1.5
    K_pix: bool = True
    norm: Literal["sum", "mean", "area"] = "sum"
    min_size: int = 25
    with_sky: bool = True

    def __call__(
        self,
        image: np.ndarray,
        threshold: np.ndarray,
        mask: Bool[np.ndarray, "y x"],
        level: np.ndarray,
    ) -> LabelImage:
        sky = level if self.with_sky else np.zeros_like(level)
        found = dbscan_segments(
            image + sky,
            threshold + sky,
            eps=self.eps,
            K=self.K,
            K_pix=self.K_pix,
            norm=self.norm,
            min_size=self.min_size,
            mask=mask_or_none(mask),
        )
        return found.labels


@dataclass(frozen=True)
class MultiThreshold:
    """Peaks that many thresholds part, and a watershed from them: see `deblend_sources`."""

    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.001
    mode: Literal["exponential", "linear", "sinh"] = "exponential"
    connectivity: Literal[4, 8] = 8

    def __call__(self, image: np.ndarray, labels: LabelImage, level: np.ndarray) -> LabelImage:
        return deblend_sources(
            image,
            labels,
            self.n_pixels,
            n_levels=self.n_levels,
            contrast=self.contrast,
            mode=self.mode,
            connectivity=self.connectivity,
        )


@dataclass(frozen=True)
class Denclue:
    """Where the light climbs to: see `denclue_deblend`.

    - `watershed`: pixels go to the top that a flood reaches them from, and not where they climb.
    - `validation`: which parts are sources; None for all.
    - `with_sky`: weights are those of the light with the sky, as ASTErIsM has it.
    """

    method: Literal["grid", "exact"] = "grid"
    h_frac: float = 0.1
    h_min: float = 1.0
    min_size: int = 9
    gl_downsampling: bool = False
    watershed: bool = False
    validation: Validation | None = None
    with_sky: bool = True

    def __call__(self, image: np.ndarray, labels: LabelImage, level: np.ndarray) -> LabelImage:
        return denclue_deblend(
            image + level if self.with_sky else image,
            labels,
            method="exact" if self.gl_downsampling else self.method,
            h_frac=self.h_frac,
            h_min=self.h_min,
            min_size=self.min_size,
            gl_downsampling=self.gl_downsampling,
            assignment="watershed" if self.watershed else "attractor",
            validation=self.validation,
        ).labels


@dataclass(frozen=True)
class LogWatershed:
    """Maxima of the Laplacian of a Gaussian, and a watershed from them: see `glw_deblend`."""

    sigma: float = 1.25
    gl_th_rel: float = 0.1
    min_size: int = 9

    def __call__(self, image: np.ndarray, labels: LabelImage, level: np.ndarray) -> LabelImage:
        return glw_deblend(
            image, labels, sigma=self.sigma, gl_th_rel=self.gl_th_rel, min_size=self.min_size
        )
