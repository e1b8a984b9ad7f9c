"""Footprints and peaks of an image: smooth, threshold, connect, grow."""

from collections.abc import Sequence
from dataclasses import asdict
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from diffdeblend.background.surface_fit import SurfaceFit
from diffdeblend.background.surfaces import ChebyshevSurface, Surface
from diffdeblend.detect.dynamic import Direction, SkyMeasurement, measure_sky
from diffdeblend.detect.footprint_detections import FootprintDetections
from diffdeblend.detect.footprint_steps import (
    FootprintSteps,
    footprints_of,
    lowered,
    widened,
    with_image,
)
from diffdeblend.detect.psf_width import determinant_radius
from diffdeblend.detect.smoothing import SmoothedImage, gaussian_kernel, smooth_image
from diffdeblend.detect.thresholds import ThresholdType, threshold_level
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import FootprintSet
from diffdeblend.one_band import band_of, with_planes
from diffdeblend.planes import as_int32, bits_of
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.segment.kernels import psf_kernel

_STATISTICS_PLANES = ("BAD", "SAT", "EDGE", "NO_DATA")
_PLANES = ("DETECTED", "DETECTED_NEGATIVE")
# More peaks a footprint than this: noise above the threshold nearly everywhere.
_CROWDED, _VERY_CROWDED, _LARGEST_FACTOR = 150, 450, 5.0


def detect_footprints(
    exposure: Exposure,
    *,
    band: str | None = None,
    threshold: float = 5.0,
    threshold_type: ThresholdType = "pixel_stdev",
    include_multiplier: float = 1.0,
    min_pixels: int = 1,
    polarity: Literal["positive", "negative", "both"] = "positive",
    kernel: Literal["gaussian", "psf"] | None = "gaussian",
    sigma: float | None = None,
    grow: float = 2.4,
    stencil: Literal["circle", "manhattan"] = "circle",
    combined: bool = True,
    local_background: SurfaceFit | None = SurfaceFit(64, "akima"),  # noqa: B008
    wide_background: SurfaceFit | None = None,
    background: SurfaceFit | None = SurfaceFit(),  # noqa: B008
    dynamic: Direction | None = None,
    tweak: bool = True,
    excluded: Sequence[str] | None = None,
    avoid: Sequence[str] = (),
    seed: int = 0,
) -> FootprintDetections:
    """Find connected pixels that stand out of the noise of a smoothed image, and their peaks.

    The sky is taken to be subtracted; what is left of it is measured afterwards between the
    footprints, and taken away.

    - `band`: where to look; may be left out where there is but one.
    - `threshold`, `threshold_type`: pixels at or above it are found; see `threshold_level`.
    - `include_multiplier`: a footprint needs one pixel at so many times the threshold.
    - `min_pixels`: fewest pixels of a footprint before it is grown.
    - `polarity`: look for light above the sky, below, or both.
    - `kernel`: "gaussian" smooths with a round Gaussian of `sigma` pixels, by default the
        determinant radius of the PSF in the middle of the image, a little worse than "psf", the
        PSF itself, but quicker and without its noise. None: no smoothing.
    - `grow`: margin around footprints, in units of `sigma`, with a `stencil`. `combined`: those
        that touch afterwards become one.
    - `local_background`: taken away to find the peaks of footprints that have several; None: not.
    - `wide_background`: taken away while sources are looked for, and put back.
    - `background`: of what is left of the sky; None to leave it.
    - `dynamic`: measure the noise between the sources and scale the threshold by it: see
        `measure_sky`, as well as for the two directions. `tweak`: take away the level of the sky
        that is found there, before anything is looked for.
    - `excluded`: mask planes whose pixels count nowhere; their neighbours stand in for them. None:
        those of the header but for `SAT`, as stars would lose their middles.
    - `avoid`: mask planes whose pixels are of no footprint, though they count in the smoothing.
    - `seed`: of the places where `dynamic` measures the sky.

    Peaks are integer pixels of the smoothed image with its value there, the strongest first, and
    their significance: value over noise ("pixel_stdev", "stdev" and "variance"; else 0). Those
    with a local background have the value without it.

    **Raises:** `ValueError` for an argument out of its range, a kernel larger than the image, or
    an image without sky; `InsufficientSourcesError` as `measure_sky`.

    ??? cite
        The steps of source detection in the LSST Science Pipelines (Bosch et al. 2018, PASJ 70,
        S5, section 4.7.1). Here plateaus have one peak, and negative peaks are sorted by depth.
    """
    settings: dict[str, Any] = {
        name: asdict(value) if isinstance(value, SurfaceFit) else value
        for name, value in locals().items()
        if name != "exposure"
    }
    _check(threshold, include_multiplier, min_pixels, polarity, kernel, grow, stencil)
    k = band_of(exposure, band)
    image, variance = np.asarray(exposure.image)[k], np.asarray(exposure.variance)[k]
    mask = np.asarray(exposure.mask)[k]
    header = exposure.header

    def on(planes: Sequence[str]) -> np.ndarray | None:
        bits = bits_of(planes, header.mask_planes)
        return (mask & as_int32(bits)) != 0 if bits else None

    names = [p for p in header.excluded if p != "SAT"] if excluded is None else list(excluded)
    unknown = {*names, *avoid} - {*header.mask_planes, *header.excluded}
    if unknown:
        raise ValueError(
            f"`excluded` and `avoid` must be among {header.mask_planes}; got {sorted(unknown)}."
        )
    hidden = on(names)
    psf = None
    if sigma is None or kernel == "psf" or dynamic is not None:
        psf = np.asarray(psf_stamp(exposure.psf, exposure.shape)[k])
    width = determinant_radius(psf) if sigma is None and psf is not None else float(sigma or 0)
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"`sigma` must be finite and positive, in pixels; got {sigma!r}.")
    taps = None
    if kernel is not None:
        taps = gaussian_kernel(width) if kernel == "gaussian" or psf is None else psf_kernel(psf)
    searched = image
    if wide_background is not None:
        searched = image - wide_background(image, on(_without_detected(wide_background))).image()
    smoothed = smooth_image(searched, variance, hidden, taps)
    models: list[Surface] = []
    sky = None
    if dynamic is not None:
        assert psf is not None
        sky = _sky(searched, variance, smoothed, psf, hidden, dynamic, threshold, width, grow, seed)
        if tweak:
            # Again without it: what stands out is above the sky.
            smoothed = lowered(smoothed, sky.level)
            again = _sky(
                *(searched - sky.level, variance, smoothed, psf, hidden, dynamic),
                *(threshold, width, grow, seed),
            )
            smoothed = lowered(smoothed, again.level)
            level = sky.level + again.level
            models.append(ChebyshevSurface(np.array([level]), 0, exposure.shape))
            searched = searched - np.asarray(level, image.dtype)
            sky = again
    factor = 1.0 if sky is None else sky.factor
    spoiled = on(avoid)
    if spoiled is not None:
        smoothed = with_image(smoothed, np.where(spoiled, np.nan, smoothed.image))
    statistics_hidden = None
    if threshold_type == "stdev":
        statistics_hidden = widened(on(_STATISTICS_PLANES), smoothed)
    local = None
    if local_background is not None:
        surface = local_background(searched, on(_without_detected(local_background)))
        local = with_image(smoothed, smoothed.image - surface.image())
    n_grow = int(grow * width + 0.5)

    def steps(scale: float) -> FootprintSteps:
        level = threshold_level(smoothed, threshold * scale, threshold_type, statistics_hidden)
        again = None
        if local is not None:
            other = threshold_level(local, threshold * scale, threshold_type, statistics_hidden)
            again = local, other
        return FootprintSteps(
            *(smoothed, level, again, int(min_pixels), float(include_multiplier)),
            *(n_grow, stencil, combined),
        )

    made = steps(factor)
    found = {sign: footprints_of(made, sign) for sign in _signs(polarity, background)}
    # A measured noise needs no such guess, which a crowded field would mislead.
    while dynamic == "lsst" and factor < _LARGEST_FACTOR:
        crowd = max((len(s.peaks) / len(s) for s in found.values() if len(s)), default=0)
        if crowd <= _CROWDED:
            break
        factor = min(factor * (1.4 if crowd > _VERY_CROWDED else 1.2), _LARGEST_FACTOR)
        made = steps(factor)
        found = {sign: footprints_of(made, sign) for sign in found}
    detected = {sign: set_.to_mask() for sign, set_ in found.items()}
    kept = image - sum((m.image() for m in models), np.float32(0)) if models else image
    if background is not None:
        busy = on(_without_detected(background))
        busy = np.zeros(image.shape, bool) if busy is None else busy
        if "EDGE" in background.ignored:
            busy |= smoothed.edge
        for sign, plane in ((1, "DETECTED"), (-1, "DETECTED_NEGATIVE")):
            if sign in detected and plane in background.ignored:
                busy |= detected[sign]
        models.append(background(kept, busy))
        kept = kept - models[-1].image()
    wanted = {"positive": (1,), "negative": (-1,), "both": (1, -1)}[polarity]
    planes = {p: detected[s] for p, s in zip(_PLANES, (1, -1), strict=True) if s in wanted}
    planes["EDGE"] = smoothed.edge
    nothing = FootprintSet.from_mask(np.zeros(exposure.shape, bool))
    return FootprintDetections(
        found[1] if 1 in wanted else nothing,
        found[-1] if -1 in wanted else nothing,
        with_planes(exposure, k, kept if models else None, planes, _PLANES),
        exposure.bands[k],
        smoothed,
        made.level.threshold,
        width,
        n_grow,
        factor,
        tuple(models),
        sky,
        settings,
    )


def _signs(polarity: str, background: SurfaceFit | None) -> tuple[int, ...]:
    if polarity == "both" or background is not None:
        # What is found below the sky is masked when the sky is measured, whatever is asked for.
        return (1, -1)
    return (1,) if polarity == "positive" else (-1,)


def _sky(
    image: np.ndarray,
    variance: np.ndarray,
    smoothed: SmoothedImage,
    psf: np.ndarray,
    hidden: np.ndarray | None,
    direction: Direction,
    threshold: float,
    sigma: float,
    grow: float,
    seed: int,
) -> SkyMeasurement:
    return measure_sky(
        *(image, variance, smoothed, psf),
        unused=hidden,
        direction=direction,
        threshold=threshold,
        sigma=sigma,
        grow=grow,
        seed=seed,
    )


def _without_detected(fit: SurfaceFit) -> tuple[str, ...]:
    """Planes to ignore, those of an earlier detection not among them."""
    return tuple(plane for plane in fit.ignored if plane not in _PLANES)


def _check(
    threshold: Any,
    include_multiplier: Any,
    min_pixels: Any,
    polarity: Any,
    kernel: Any,
    grow: Any,
    stencil: Any,
) -> None:
    for name, value, least in (
        ("threshold", threshold, 0),
        ("include_multiplier", include_multiplier, 0),
        ("grow", grow, -1e-300),
    ):
        if not (isinstance(value, Real) and np.isfinite(float(value)) and float(value) > least):
            raise ValueError(f"`{name}` must be a finite positive number; got {value!r}.")
    if not isinstance(min_pixels, Integral) or min_pixels < 1:
        raise ValueError(f"`min_pixels` must be an integer of at least 1; got {min_pixels!r}.")
    for name, value, known in (
        ("polarity", polarity, ("positive", "negative", "both")),
        ("kernel", kernel, ("gaussian", "psf", None)),
        ("stencil", stencil, ("circle", "manhattan", "box")),
    ):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}; got {value!r}.")
