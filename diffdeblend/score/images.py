"""How like the truth an image of a source is.

Images have shape `(..., y, x)` and are compared one by one; results have shape `(...)`. NumPy, in
double precision; `ssim`, `snr` and `compare` in single, with errors below 1e-6, if the images are.
What compares truth and found sees errors of the flux, unless its `mode` is "btk": then PSNR and
SSIM divide each image by its own maximum, as BlendingToolKit 1.0 does, so that an image of half the
flux is perfect.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, DTypeLike

_MODES = ("flux", "btk")

# Wang et al. (2004), section III.C.
_K1, _K2 = 0.01, 0.03
_WINDOW = 7
# What leaving out windows in which both images are alike may add to a SSIM.
_SSIM_TOLERANCE = 1e-7


def msr(truth: ArrayLike, found: ArrayLike) -> Float[np.ndarray, "..."]:
    """Mean square residual, in the unit of the images squared."""
    t, p = _pair(truth, found)
    d = p - t
    return _dot(d, d) / (t.shape[-1] * t.shape[-2])


def rmse(truth: ArrayLike, found: ArrayLike) -> Float[np.ndarray, "..."]:
    """Root mean square error, in the unit of the images.

    (BlendingToolKit 1.0 calls it MSE.) It falls as a stamp grows; `relative_residual` does not.
    """
    return np.sqrt(msr(truth, found))


def relative_residual(truth: ArrayLike, found: ArrayLike) -> Float[np.ndarray, "..."]:
    """Root of the sum of squared errors over that of the squared truth; NaN if that is dark."""
    t, p = _pair(truth, found)
    d = p - t
    return np.sqrt(_ratio(_dot(d, d), _dot(t, t)))


def psnr(truth: ArrayLike, found: ArrayLike, *, mode: str = "flux") -> Float[np.ndarray, "..."]:
    """Peak signal-to-noise ratio in decibels; infinite if nothing differs.

    - `mode`: "flux", 10 log10(max(truth)^2 / MSR); or "btk", where each image is divided by its own
        maximum first, which hides the flux.

    NaN where a maximum that is divided by is not positive.

    **Raises:** `ValueError` if shapes differ or the mode is another.
    """
    t, p = _scaled(truth, found, mode)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(msr(t, p))


def ssim(
    truth: ArrayLike, found: ArrayLike, *, mode: str = "flux", window: int = _WINDOW
) -> Float[np.ndarray, "..."]:
    """Structural similarity: 1 if nothing differs.

    Mean over all square windows inside the image, with sample covariances.

    - `mode`: "flux", both images divided by the maximum of the truth; or "btk", each by its own,
        which hides the flux.
    - `window`: its width in pixels, odd.

    NaN where a maximum that is divided by is not positive.

    **Raises:** `ValueError` if shapes differ, the mode is another, or the window does not fit.

    ??? cite
        Wang, Bovik, Sheikh & Simoncelli (2004), IEEE Trans. Image Process. 13, 600, eq. 13.
    """
    t, p = _scaled(truth, found, mode, _precision(truth, found))
    _check_window(window, t.shape)
    ny, nx = t.shape[-2:]
    pairs = zip(t.reshape(-1, ny, nx), p.reshape(-1, ny, nx), strict=True)
    return np.array([_Difference(*pair).ssim(1.0, window) for pair in pairs]).reshape(t.shape[:-2])


def cosine_similarity(truth: ArrayLike, found: ArrayLike) -> Float[np.ndarray, "..."]:
    """Cosine of the angle between the images as vectors; it does not see the flux.

    NaN if one of them is dark.
    """
    t, p = _pair(truth, found)
    return _ratio(_dot(t, p), np.sqrt(_dot(t, t) * _dot(p, p)))


def compare(truth: ArrayLike, found: ArrayLike, *, btk: bool = False) -> dict[str, np.ndarray]:
    """All figures at once, which is faster, by name: one image a row, `(image, y, x)`.

    `msr`, `rmse`, `relative_residual`, `psnr`, `ssim`, `cosine`; with `btk` also `psnr_btk` and
    `ssim_btk`, of mode "btk". In single precision if both images are: errors stay below 1e-6.

    **Raises:** `ValueError` if shapes differ, or an image is smaller than the window of `ssim`.
    """
    dtype = _precision(truth, found)
    t, p = _pair(truth, found, dtype)
    _check_window(_WINDOW, t.shape)
    pixels = t.shape[-1] * t.shape[-2]
    top = _positive(_highest(t))
    dd, like = np.empty(len(t)), np.empty(len(t))
    for k, (one, other) in enumerate(zip(t, p, strict=True)):
        difference = _Difference(one, other)
        dd[k], like[k] = difference.square, difference.ssim(float(top[k]), _WINDOW)
    tt, pp, tp = _dot(t, t), _dot(p, p), _dot(t, p)
    with np.errstate(divide="ignore"):
        columns = {
            "msr": dd / pixels,
            "rmse": np.sqrt(dd / pixels),
            "relative_residual": np.sqrt(_ratio(dd, tt)),
            "psnr": -10 * np.log10(dd / pixels / top.astype(float) ** 2),
            "ssim": like,
            "cosine": _ratio(tp, np.sqrt(tt * pp)),
        }
    if btk:
        columns |= {"psnr_btk": psnr(t, p, mode="btk"), "ssim_btk": ssim(t, p, mode="btk")}
    return columns


def iou(
    truth: Bool[np.ndarray, "... y x"], found: Bool[np.ndarray, "... y x"]
) -> Float[np.ndarray, "..."]:
    """Pixels that both have over pixels that one has; NaN where neither has any.

    **Raises:** `ValueError` if shapes differ or the arrays are not boolean.
    """
    a, b = np.asarray(truth), np.asarray(found)
    for name, array in (("truth", a), ("found", b)):
        if array.dtype != bool:
            raise ValueError(f"`{name}` needs booleans, true on the source; got {array.dtype}.")
    _same_shape(a, b)
    both = np.count_nonzero(a & b, axis=(-1, -2))
    one = np.count_nonzero(a | b, axis=(-1, -2))
    return _ratio(np.asarray(both, float), np.asarray(one, float))


def true_segmentation(
    isolated: ArrayLike, sky: ArrayLike, noise_factor: float = 3.0
) -> Bool[np.ndarray, "... y x"]:
    """Pixels in which a source alone is brighter than the noise of the sky so many times.

    - `isolated`: noiseless images. `sky`: variance of the sky a pixel, of shape `(...)`.

    **Raises:** `ValueError` for a factor or a variance that is negative.
    """
    sky = np.asarray(sky, float)
    if noise_factor < 0 or (sky < 0).any():
        raise ValueError(
            f"`noise_factor` and `sky` must be at least 0; got {noise_factor} and {sky}."
        )
    return np.asarray(isolated) > (noise_factor * np.sqrt(sky))[..., None, None]


def blendedness(isolated: ArrayLike) -> Float[np.ndarray, "... source"]:
    """How much of the light where a source shines belongs to others: 0 alone, towards 1 buried.

    1 - (S_k . S_k) / (S_all . S_k) of noiseless images `(..., source, y, x)` of the sources of one
    blend; 0 for a source without light.

    **Raises:** `ValueError` for fewer axes.
    """
    s = _image("isolated", isolated, axes=3)
    flat = s.reshape(*s.shape[:-2], s.shape[-2] * s.shape[-1])
    products = flat @ np.swapaxes(flat, -1, -2)
    own, at = np.diagonal(products, axis1=-2, axis2=-1), products.sum(axis=-1)
    return 1 - np.divide(own, at, out=np.ones_like(own), where=own > 0)


def snr(isolated: ArrayLike, sky: ArrayLike) -> Float[np.ndarray, "..."]:
    """Signal-to-noise ratio of a source alone, its image known: sqrt(sum I^2 / (I + sky)).

    - `isolated`: noiseless image in electrons. `sky`: variance of the sky a pixel, shape `(...)`.

    Pixels without any noise do not count.
    """
    s = _image("isolated", isolated, dtype=_precision(isolated))
    variance = s + np.asarray(sky, s.dtype)[..., None, None]
    # Rounding leaves light below zero where there is none.
    if variance.size and not variance.min() > 0:
        s, variance = np.where(variance > 0, s, 0), np.where(variance > 0, variance, 1)
    return np.sqrt(_dot(s, s / variance))


def residual_images(blend: ArrayLike, isolated: ArrayLike) -> Float[np.ndarray, "source ..."]:
    """What is left for each source if all others were known: the blend minus the other sources.

    - `blend`: `(..., y, x)`. `isolated`: noiseless images, `(source, ..., y, x)`.

    **Raises:** `ValueError` if the shapes do not belong together.
    """
    image, sources = np.asarray(blend, float), np.asarray(isolated, float)
    if sources.shape[1:] != image.shape:
        raise ValueError(
            f"`isolated` needs shape (source, {', '.join(map(str, image.shape))}); "
            f"got {sources.shape}."
        )
    return image - (sources.sum(axis=0) - sources)


class _Difference:
    """Two images and how they differ."""

    def __init__(self, t: np.ndarray, p: np.ndarray):
        self.t, self.p = t, p
        self.d = p - t
        self.d2 = self.d * self.d
        # Of each row and of each column.
        self.energy = (
            self.d2 @ np.ones(t.shape[1], t.dtype),
            np.ones(t.shape[0], t.dtype) @ self.d2,
        )
        self.square = float(self.energy[0].sum(dtype=float))

    def ssim(self, top: float, window: int) -> float:
        """Mean similarity if `top` is the range; NaN if that is not a number."""
        if not (np.isfinite(self.square) and np.isfinite(top)):
            return np.nan
        c1, c2 = (_K1 * top) ** 2, (_K2 * top) ** 2
        n = window**2
        sample = n / (n - 1)
        ny, nx = self.t.shape
        windows = (ny - window + 1) * (nx - window + 1)
        # A window's 1 - SSIM is at most mean(d)^2 / c1 + var(d) / c2, so that all windows in a
        # strip together stay below the strip's sum of d^2 times this. Four may be left out.
        budget = _SSIM_TOLERANCE * windows / (1 / c1 + sample / c2) / 4
        box = tuple(_loud(energy, budget, window) for energy in self.energy)
        t, p, d, d2 = (image[box] for image in (self.t, self.p, self.d, self.d2))
        if t.size == 0:
            return 1.0
        mean_t, mean_d, error, squares = _window_means((t, d, d2, t * t + p * p), window)
        # By the difference of the images, not by their product: nothing cancels, and single
        # precision is enough.
        means = mean_t + mean_d
        means *= means
        mean_t *= mean_t
        means += mean_t
        mean_d *= mean_d
        error -= mean_d
        error *= sample
        squares -= means
        squares *= sample
        squares += c2
        error /= squares
        means += c1
        mean_d /= means
        # 1 - (1 - a)(1 - b)
        unlike = mean_d + error
        mean_d *= error
        unlike -= mean_d
        # The last columns are windows that run on in the next row.
        columns = t.shape[1] - window + 1
        rows = unlike[:, :columns] @ np.ones(columns, t.dtype)
        return 1 - float(rows.sum(dtype=float)) / windows


def _check_window(window: int, shape: tuple[int, ...]) -> None:
    """Checks that a window has a middle and fits."""
    if window % 2 == 0 or not 3 <= window <= min(shape[-2:]):
        raise ValueError(
            f"`window` must be odd, at least 3, and fit the image of {shape[-2:]} pixels; "
            f"got {window}."
        )


def _loud(energy: np.ndarray, budget: float, window: int) -> slice:
    """The rows that are left if windows wholly in a quiet strip at either end are left out."""
    first = int(energy.cumsum().searchsorted(budget, side="right"))
    last = len(energy) - int(energy[::-1].cumsum().searchsorted(budget, side="right"))
    if first >= last:
        return slice(0, 0)
    return slice(max(first - window + 1, 0), last + window - 1)


def _window_means(images: Sequence[np.ndarray], window: int) -> Iterator[np.ndarray]:
    """Means over square windows, by the first pixel of each.

    Rows are as long as those of the images: the last `window - 1` columns hold windows that run on
    in the next row, of all images alike. All images are one row of numbers to the sums: NumPy is
    four times slower with two axes.
    """
    ny, nx = images[0].shape
    rows = ny - window + 1
    flat = np.zeros(len(images) * ny * nx + window - 1, images[0].dtype)
    for k, image in enumerate(images):
        flat[k * ny * nx : (k + 1) * ny * nx].reshape(ny, nx)[:] = image
    sums = _running_sum(_running_sum(flat, window, nx), window, 1)
    sums *= 1 / window**2
    for k in range(len(images)):
        means = sums[k * ny * nx :][: rows * nx].reshape(rows, nx)
        # These run on in the next image, which is another one for each.
        means[-1, nx - window + 1 :] = 0
        yield means


def _running_sum(a: np.ndarray, window: int, step: int) -> np.ndarray:
    """Sums of numbers a step apart, by doubling: four additions for a window of seven."""
    n = len(a) - (window - 1) * step
    total: np.ndarray | None = None
    width, start, block = 1, 0, a
    while True:
        if window & width:
            piece = block[start * step :][:n]
            total = piece.copy() if total is None else np.add(total, piece, out=total)
            start += width
        if 2 * width > window:
            break
        block = block[: len(block) - width * step] + block[width * step :]
        width *= 2
    assert total is not None
    return total


def _scaled(
    truth: ArrayLike, found: ArrayLike, mode: str, dtype: DTypeLike = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Both images in units of a maximum, NaN where that is not positive."""
    if mode not in _MODES:
        raise ValueError(f"`mode` must be one of {_MODES}; got {mode!r}.")
    t, p = _pair(truth, found, dtype)
    top = _positive(_highest(t))
    top_found = _positive(_highest(p)) if mode == "btk" else top
    return t * (1 / top)[..., None, None], p * (1 / top_found)[..., None, None]


def _highest(images: np.ndarray) -> np.ndarray:
    """The brightest pixel of each image."""
    # Along one axis, which is faster than along two.
    *front, ny, nx = images.shape
    return images.reshape(*front, ny * nx).max(axis=-1)


def _positive(values: np.ndarray) -> np.ndarray:
    """The same, NaN where not positive."""
    return np.where(values > 0, values, np.array(np.nan, values.dtype))


def _precision(*images: ArrayLike) -> DTypeLike:
    """Single only if all images are."""
    single = all(np.asarray(values).dtype == np.float32 for values in images)
    return np.float32 if single else np.float64


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of the product over the pixels: by BLAS, image by image, twice as fast as einsum."""
    rows = (array.reshape(-1, array.shape[-1] * array.shape[-2]) for array in (a, b))
    sums = np.array([x @ y for x, y in zip(*rows, strict=True)], float)
    return sums.reshape(a.shape[:-2])


def _pair(
    truth: ArrayLike, found: ArrayLike, dtype: DTypeLike = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one shape."""
    t, p = _image("truth", truth, dtype=dtype), _image("found", found, dtype=dtype)
    _same_shape(t, p)
    return t, p


def _same_shape(t: np.ndarray, p: np.ndarray) -> None:
    """Checks that there is something to compare, pixel by pixel."""
    if t.shape != p.shape:
        raise ValueError(f"`found` needs the shape of `truth`, {t.shape}; got {p.shape}.")


def _image(
    name: str, values: ArrayLike, axes: int = 2, dtype: DTypeLike = np.float64
) -> np.ndarray:
    """The same as an array of numbers, with at least so many axes."""
    array = np.asarray(values, dtype)
    if array.ndim < axes:
        shape = "(..., source, y, x)" if axes == 3 else "(..., y, x)"
        raise ValueError(f"`{name}` needs shape {shape}; got {array.shape}.")
    return array


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) != 0)
