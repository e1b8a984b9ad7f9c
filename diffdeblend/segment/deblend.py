"""Sources that touch, taken apart by levels and a flood."""

import warnings
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.backend import Backend, on_host
from diffdeblend.segment.bits import LOW_MINIMUM, MANY_MARKERS, NOT_CONNECTED
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.levels import MODES
from diffdeblend.segment.relabel import Split, deblend_stack
from diffdeblend.segment.sources import check_connectivity, check_count
from diffdeblend.segment.split import Settings, split_sources
from diffdeblend.segment.split_on_device import split_on_device

Mode = Literal["exponential", "linear", "sinh"]
ContrastMethod = Literal["basin", "saddle"]

_INFO = {
    LOW_MINIMUM: "non_positive_min_labels",
    MANY_MARKERS: "too_many_markers_labels",
    NOT_CONNECTED: "not_connected_labels",
}
# So many pixels tell whether these data can have given these labels.
_LOOK_AT = 1_000_000


class DeblendWarning(UserWarning):
    """Some sources were deblended in another way than asked for, or not at all."""


class DeblendedStamps(NamedTuple):
    """Labels of many stamps after deblending.

    - `labels`: shape `(stamp, y, x)`; in each stamp from 1: first the sources that are whole, in
        their old order, then the parts of the others.
    - `n_labels`: of each stamp, shape `(stamp,)`.
    - `parents`: the label before of each label, shape `(stamp, label)`: label 1 is in column 0;
        0 where there is none.
    - `flags`: bits as in `LabelImage.flags`, of the same shape.
    """

    labels: Int[np.ndarray, "stamp y x"]
    n_labels: Int[np.ndarray, "stamp"]
    parents: Int[np.ndarray, "stamp label"]
    flags: Int[np.ndarray, "stamp label"]


def deblend_sources(
    data: Any,
    segment_image: LabelImage,
    n_pixels: int,
    *,
    labels: Any = None,
    n_levels: int = 32,
    contrast: float = 0.001,
    mode: Mode = "exponential",
    connectivity: int = 8,
    relabel: bool = True,
    contrast_method: ContrastMethod | None = None,
    backend: Backend = "auto",
) -> LabelImage:
    """Take sources apart that have several peaks.

    Every source is cut at levels between its lowest and its highest pixel. Where it falls into two
    or more parts of enough pixels, each part is a marker, unless it falls apart itself higher up.
    From the markers all pixels of the source are flooded, downhill. A part too faint is given to
    the others. The partition is photutils' (3.1), wherever no two pixels are equally high.

    In the result the labels of whole sources come first, in their old order, then those of the
    parts of each source. `parent_to_deblended_labels` and `flags` tell of them.

    - `data`: shape `(y, x)`; the image that `segment_image` was found in, as a rule smoothed. What
        is not finite has no light and goes to one of its neighbours last of all.
    - `n_pixels`: of a part above the level at which it stands apart. Sources of less than twice as
        many pixels stay whole.
    - `labels`: of the sources to take apart; all if None.
    - `n_levels`, `mode`: how many levels, and their steps. A source with pixels that are not
        positive has "sinh" in place of "exponential".
    - `contrast`: the least share of a source's light that a part needs: 0 keeps all, 1 takes
        nothing apart.
    - `contrast_method`: the light of a part: "basin", all of its pixels; "saddle", what it has
        above the level at which it stands apart. None is "basin".
    - `connectivity`: 8 or 4, that of the detection.
    - `relabel`: number all labels from 1 without gaps; else parts get numbers above all others.
    - `backend`: as in `detect_sources`.

    **Raises:** `ValueError` for shapes that do not fit or another argument out of its range.

    **Warns:** `DeblendWarning` if a source had other levels than asked for, or its pixels do not
    all touch at this `connectivity`: it stays whole then. Also if `data` or `n_pixels` cannot be
    those of the detection.

    ??? cite
        Multi-thresholding: Bertin & Arnouts (1996), A&AS 117, 393, sect. 4.1. Flood: Meyer (1994),
        Signal Processing 38, 113. All as in photutils.
    """
    image = pixel_values(data, 2)
    if not isinstance(segment_image, LabelImage):
        raise ValueError(f"`segment_image` must be a LabelImage; got {type(segment_image)}.")
    if image.shape != segment_image.shape:
        raise ValueError(
            f"`segment_image` needs the shape of `data`, {image.shape}; got {segment_image.shape}."
        )
    settings = check_settings(n_pixels, n_levels, contrast, mode, connectivity, contrast_method)
    chosen = None if labels is None else segment_image.check_labels(labels)
    if segment_image.n_labels:
        _check_detection(image, segment_image, settings.n_pixels)
    return deblend_image(image, segment_image, settings, chosen, relabel, backend)


def deblend_image(
    image: Any,
    segment_image: LabelImage,
    settings: Settings,
    chosen: Int[np.ndarray, "chosen"] | None = None,
    relabel: bool = True,
    backend: Backend = "auto",
) -> LabelImage:
    """`deblend_sources` once its arguments are known to be good."""
    image, split = pixel_values(image, 2), _split_on(backend)
    if segment_image.n_labels == 0:
        return segment_image
    if settings.contrast == 1:
        return segment_image.relabel_consecutive() if relabel else segment_image
    stack, before = image[None], segment_image.data[None]
    made = deblend_stack(stack, before, settings, chosen, relabel, split)
    split = np.flatnonzero(made.count > 1)
    family = {
        int(made.label[row]): made.numbers[row] + np.arange(made.count[row], dtype=np.int32)
        for row in split
    }
    flags = {
        int(made.numbers[row]) + part: int(made.bits[row])
        for row in np.flatnonzero(made.bits)
        for part in range(made.count[row])
    }
    _warn(made.label, made.bits)
    info = {
        name: made.label[(made.bits & bit) > 0]
        for bit, name in _INFO.items()
        if (made.bits & bit).any()
    }
    return LabelImage(made.labels[0], family, flags, info)


def deblend_stamps(
    data: Any,
    labels: Any,
    n_pixels: int,
    *,
    n_levels: int = 32,
    contrast: float = 0.001,
    mode: Mode = "exponential",
    connectivity: int = 8,
    contrast_method: ContrastMethod | None = None,
    backend: Backend = "auto",
) -> DeblendedStamps:
    """`deblend_sources` for many stamps at once, each with labels of its own.

    - `data`: shape `(stamp, y, x)`. `labels`: integers of that shape, as of `detect_stamps`.

    Other arguments are as in `deblend_sources`. Flags in place of warnings.

    **Raises:** `ValueError` as `deblend_sources`.
    """
    stack = pixel_values(data, 3)
    before = np.asarray(labels)
    if before.shape != stack.shape or before.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` needs integers of the shape of `data`, {stack.shape}; "
            f"got {before.dtype} of shape {before.shape}."
        )
    settings = check_settings(n_pixels, n_levels, contrast, mode, connectivity, contrast_method)
    made = deblend_stack(stack, before, settings, None, True, _split_on(backend))
    n_labels = np.bincount(made.stamp, made.count, len(stack)).astype(np.int32)
    parents = np.zeros((len(stack), int(n_labels.max(initial=0))), np.int32)
    flags = np.zeros_like(parents)
    rows = np.repeat(np.arange(len(made.count)), made.count)
    starts = np.cumsum(made.count) - made.count
    column = made.numbers[rows] - 1 + np.arange(len(rows)) - starts[rows]
    parents[made.stamp[rows], column] = made.label[rows]
    flags[made.stamp[rows], column] = made.bits[rows]
    return DeblendedStamps(made.labels, n_labels, parents, flags)


def check_settings(
    n_pixels: Any,
    n_levels: Any,
    contrast: Any,
    mode: Any,
    connectivity: Any,
    contrast_method: Any,
) -> Settings:
    """**Raises:** `ValueError` for the first that is out of its range."""
    check_count("n_pixels", n_pixels)
    check_count("n_levels", n_levels)
    number = isinstance(contrast, Real) and not isinstance(contrast, bool)
    if not number or not 0 <= float(contrast) <= 1:
        raise ValueError(f"`contrast` must be a number from 0 to 1; got {contrast!r}.")
    if mode not in MODES:
        raise ValueError(f'`mode` must be "exponential", "linear" or "sinh"; got {mode!r}.')
    check_connectivity(connectivity)
    if contrast_method not in ("basin", "saddle", None):
        raise ValueError(
            f'`contrast_method` must be "basin", "saddle" or None; got {contrast_method!r}.'
        )
    return Settings(
        int(n_pixels),
        int(n_levels),
        float(contrast),
        mode,
        int(connectivity),
        contrast_method or "basin",
    )


def pixel_values(data: Any, n_axes: int) -> Float[np.ndarray, "..."]:
    """Pixels as floats."""
    values = np.asarray(getattr(data, "value", data))
    if values.ndim != n_axes:
        axes = "(y, x)" if n_axes == 2 else "(stamp, y, x)"
        raise ValueError(f"`data` needs shape {axes}; got {values.shape}.")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"`data` needs real numbers; got {values.dtype}.")
    if values.dtype in (np.float32, np.float64):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def _split_on(backend: Backend) -> Split:
    return split_sources if on_host(backend) else split_on_device


def _warn(label: np.ndarray, bits: np.ndarray) -> None:
    told = {
        LOW_MINIMUM: 'had "sinh" levels, as some of their pixels are not positive',
        MANY_MARKERS: 'had "linear" levels, as there were too many markers',
        NOT_CONNECTED: "stayed whole, as their pixels do not all touch at this `connectivity`",
    }
    for bit, what in told.items():
        found = label[(bits & bit) > 0]
        if found.size:
            shown = ", ".join(str(one) for one in found[:5])
            more = f" and {found.size - 5} more" if found.size > 5 else ""
            warnings.warn(f"Sources {shown}{more} {what}.", DeblendWarning, stacklevel=4)


def _check_detection(image: np.ndarray, segments: LabelImage, n_pixels: int) -> None:
    """Warns where labels cannot be of a detection in this image with so many pixels."""
    least = int(segments.areas.min())
    if least < n_pixels:
        warnings.warn(
            f"`n_pixels` is {n_pixels}, but there are sources of {least} pixels: it cannot be that "
            "of the detection.",
            DeblendWarning,
            stacklevel=3,
        )
    rows = slice(None, None, 1 + image.size // _LOOK_AT)
    inside, seen = segments.data[rows] > 0, image[rows]
    y, x = np.nonzero(inside[:, :-1] != inside[:, 1:])
    left, right = seen[y, x], seen[y, x + 1]
    wrong = np.where(inside[y, x], left < right, right < left)
    # Some are where the mask of a detection ends.
    if wrong.sum() > 0.1 * wrong.size:
        warnings.warn(
            f"{100 * wrong.mean():.0f} % of the pixels on the edges of sources are fainter than "
            "those outside: `data` cannot be those of the detection.",
            DeblendWarning,
            stacklevel=3,
        )
