"""The image as detection looks at it: smoothed, with the noise that is left. Host side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.segment.kernels import make_2dgaussian_kernel
from diffdeblend.segment.smooth import smooth
from diffdeblend.widths import FWHM_PER_SIGMA

# A smoothed pixel needs so much of the kernel's weight on pixels that are in use.
_LEAST_SEEN = 0.5


@dataclass(frozen=True, eq=False)
class SmoothedImage:
    """An image after the kernel, NaN where the kernel does not fit or sees too little.

    - `image`: shape `(y, x)`, in the unit of the image (a kernel of sum 1).
    - `noise`: standard deviation of its pixels, if those of the image are independent; one number
        `(1, 1)` where the variance is the same all over.
    - `reach_y`, `reach_x`: width of the border where the kernel does not fit, in pixels.
    """

    image: Float[np.ndarray, "y x"]
    noise: Float[np.ndarray, "y x"]
    reach_y: int
    reach_x: int

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns where the kernel fits."""
        ny, nx = self.image.shape
        return slice(self.reach_y, ny - self.reach_y), slice(self.reach_x, nx - self.reach_x)

    @property
    def middle(self) -> Float[np.ndarray, "y x"]:
        """The part of the image where the kernel fits."""
        return self.image[self.region]

    @property
    def edge(self) -> Bool[np.ndarray, "y x"]:
        """True where the kernel does not fit."""
        edge = np.ones(self.image.shape, bool)
        edge[self.region] = False
        return edge


def gaussian_kernel(sigma: float, n_sigma: float = 7.0) -> Float[np.ndarray, "y x"]:
    """A Gaussian sampled at the centres of pixels, of sum 1, about `n_sigma` times sigma wide.

    - `sigma`: in pixels.

    **Raises:** `ValueError` if it is not finite and positive.
    """
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"`sigma` must be finite and positive, in pixels; got {sigma!r}.")
    width = int(n_sigma * sigma + 0.5) // 2 * 2 + 1
    return make_2dgaussian_kernel(float(sigma) * FWHM_PER_SIGMA, width, "center")


def smooth_image(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    hidden: Bool[np.ndarray, "y x"] | None,
    kernel: Float[np.ndarray, "y x"] | None,
) -> SmoothedImage:
    """An image convolved with a kernel, and the noise of the result.

    Pixels that are hidden count nowhere: the others around stand in for them, with the noise that
    this costs, where they have half of the weight of the kernel.

    - `variance`: of each pixel, unit of the image squared; taken as independent.
    - `hidden`: true where a pixel is not used, as those that are not finite, or whose variance is
        not, are not.
    - `kernel`: odd in height and width, of positive sum; None for the image as it is.

    **Raises:** `ValueError` for a kernel that does not fit into the image.
    """
    image, variance = np.asarray(image), np.asarray(variance)
    good = _good(image, variance, hidden)
    if kernel is None:
        shown, noise = image, np.sqrt(_uniform(variance) if good is None else variance * good)
        if good is not None:
            shown = np.where(good, image, np.asarray(np.nan, image.dtype))
        return SmoothedImage(shown, noise, 0, 0)
    if any(k > n for k, n in zip(kernel.shape, image.shape, strict=True)):
        raise ValueError(
            f"`kernel` of {kernel.shape} pixels does not fit into an image of {image.shape}."
        )
    taps = kernel / kernel.sum()
    squares = taps**2
    reach_y, reach_x = (n // 2 for n in taps.shape)
    if good is None:
        out = smooth(image, taps, backend="host")
        level = _uniform(variance)
        if level.size == 1:
            noise = np.sqrt(level * squares.sum()).astype(image.dtype)
        else:
            noise = np.sqrt(smooth(variance, squares, backend="host", normalize=False))
    else:
        share = smooth(good.astype(image.dtype), taps, backend="host", normalize=False)
        seen = share >= _LEAST_SEEN
        share = np.where(seen, share, np.asarray(np.nan, share.dtype))
        out = smooth(np.where(good, image, 0), taps, backend="host", normalize=False) / share
        known = np.where(good, variance, 0)
        squared = smooth(known, squares, backend="host", normalize=False)
        noise = np.sqrt(squared) / share
    made = SmoothedImage(out, noise, reach_y, reach_x)
    for side in (slice(0, reach_y), slice(out.shape[0] - reach_y, None)):
        out[side] = np.nan
    for side in (slice(0, reach_x), slice(out.shape[1] - reach_x, None)):
        out[:, side] = np.nan
    return made


def _good(
    image: np.ndarray, variance: np.ndarray, hidden: np.ndarray | None
) -> Bool[np.ndarray, "y x"] | None:
    """Pixels in use; None if all are."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums tell nearly always, and leave no image behind.
        plain = np.isfinite(image.sum()) and np.isfinite(variance.sum()) and variance.min() > 0
    if plain and (hidden is None or not hidden.any()):
        return None
    with np.errstate(invalid="ignore"):
        good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    if hidden is not None:
        good &= ~hidden
    return None if good.all() else good


def _uniform(variance: np.ndarray) -> np.ndarray:
    """One number `(1, 1)` for a variance that is the same all over."""
    first = variance[:1, :1]
    # A broadcast number, and a quick look before the long one.
    if (variance[0] == first).all() and (variance == first).all():
        return first.copy()
    return variance
