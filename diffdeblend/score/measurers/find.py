"""Sources in many stamps at once: a matched filter for the faint, a sharper one for the close."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import fft as scipy_fft
from scipy.ndimage import maximum_filter

# The stubs of scipy's know only lists.
fft: Any = scipy_fft
# Width of the light of a point in the sharper image, in units of the PSF's: found on simulations of
# up to ten galaxies within 3 arcsec. Narrower ones are all noise.
_SHARP = 1.0
# Power of the PSF below which modes are not sharpened further, in units of the largest.
_FLOOR = 1e-4
# Maxima of the two images closer than this are one source, in pixels.
_SAME = 3.0
# Stamps filtered together: arrays that fit a cache.
_TOGETHER = 8


def find_sources(
    images: Float[np.ndarray, "blend band y x"],
    variance: Float[np.ndarray, "blend band y x"],
    psf_images: Float[np.ndarray, "psf band h w"],
    psf_index: Int[np.ndarray, "blend"],
    *,
    threshold: float = 5.0,
    sharp_threshold: float | None = 5.5,
) -> list[Float[np.ndarray, "source 2"]]:
    """Positions (x, y) in pixels of the sources in each blend, the strongest first. Host side.

    Local maxima of two images, each all bands together: that through the matched filter, which
    finds the faintest, and one in which a point is a Gaussian as high as the PSF, which parts
    neighbours, at the best signal-to-noise ratio for that.

    - `images`: without sky. What is not finite, or of no positive variance, is not used.
    - `threshold`, `sharp_threshold`: least significance in either, in standard deviations; None in
        the place of the second: no sharper image.

    **Raises:** `ValueError` if a threshold is not positive.

    ??? cite
        Kaiser (2004), "The likelihood of point sources in pixellated images"; Zackay & Ofek (2017),
        ApJ 836, 188, for the combination of images with PSFs of their own.
    """
    for name, value in (("threshold", threshold), ("sharp_threshold", sharp_threshold)):
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` must be positive; got {value}.")
    found: list[Any] = [np.zeros((0, 2))] * len(images)
    for number in np.unique(psf_index):
        same = np.flatnonzero(psf_index == number)
        for start in range(0, len(same), _TOGETHER):
            few = same[start : start + _TOGETHER]
            data, noise = _used(images[few], variance[few])
            filters = _Filters(psf_images[number], noise)
            places = _maxima(filters.significance(data, noise, sharp=False), threshold)
            if sharp_threshold is not None:
                close = _maxima(filters.significance(data, noise, sharp=True), sharp_threshold)
                places = [_together(*pair) for pair in zip(close, places, strict=True)]
            for blend, place in zip(few, places, strict=True):
                found[blend] = place
    return found


def _used(images: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As float32, 0 where a pixel is not used."""
    used = np.isfinite(images) & np.isfinite(variance) & (variance > 0)
    zero = np.float32(0)
    return np.where(used, images, zero), np.where(used, variance, zero)


class _Filters:
    """Both filters for stamps that share a PSF, as spectra."""

    def __init__(self, psf: np.ndarray, noise: np.ndarray):
        self.shape: tuple[int, ...] = noise.shape[2:]
        ny, nx = psf.shape[1:]
        self.size: tuple[int, ...] = tuple(
            fft.next_fast_len(n + m, real=True) for n, m in zip(self.shape, (ny, nx), strict=True)
        )
        middle = np.zeros((len(psf), *self.size), np.float32)
        middle[:, :ny, :nx] = psf / psf.sum(axis=(1, 2), keepdims=True)
        spectrum = fft.rfft2(np.roll(middle, (-(ny // 2), -(nx // 2)), (1, 2)))
        # Of a typical pixel: a filter of each pixel's own noise would not be one.
        lit = noise.transpose(1, 0, 2, 3).reshape(len(psf), -1)
        typical = np.array([np.median(v[v > 0]) if (v > 0).any() else np.inf for v in lit])
        weight = (1 / typical).astype(np.float32)[:, None, None]
        self.matched = np.conj(spectrum) * weight
        power = (np.abs(spectrum) ** 2 * weight).sum(axis=0)
        # A Gaussian of the same peak as the mean PSF.
        peak = np.sum(weight[:, 0, 0] * middle.max(axis=(1, 2))) / max(weight.sum(), 1e-30)
        wide = _SHARP / np.sqrt(2 * np.pi * max(float(peak), 1e-6))
        ky = 2 * np.pi * fft.fftfreq(self.size[0])[:, None]
        kx = 2 * np.pi * fft.rfftfreq(self.size[1])
        goal = np.exp(-0.5 * wide**2 * (kx**2 + ky**2)).astype(np.float32)
        self.sharp = self.matched * (goal / np.maximum(power, _FLOOR * power.max()))

    def significance(self, data: np.ndarray, noise: np.ndarray, sharp: bool) -> np.ndarray:
        """Filtered stamps in units of their noise, `(blend, y, x)`."""
        kernel = self.sharp if sharp else self.matched
        total = self._back((fft.rfft2(data, self.size) * kernel).sum(axis=1))
        squared = fft.rfft2(fft.irfft2(kernel, self.size) ** 2)
        flat = np.ptp(noise, axis=(2, 3)) == 0
        if flat.all():
            # The same noise in all pixels: the sum of squares, but for the border.
            spread = np.einsum("nb,b->n", noise[:, :, 0, 0], squared[:, 0, 0].real)[:, None, None]
        else:
            spread = self._back((fft.rfft2(noise, self.size) * squared).sum(axis=1))
        # Where hardly any pixel is used the transform leaves only rounding.
        floor = 1e-3 * np.max(spread, axis=(1, 2), keepdims=True)
        safe = np.sqrt(np.maximum(spread, np.maximum(floor, np.finfo(np.float32).tiny)))
        return np.where(spread > floor, total / safe, 0)

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        return fft.irfft2(spectrum, self.size)[:, : self.shape[0], : self.shape[1]]


def _maxima(image: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Maxima of each image above the threshold, the highest first, to a fraction of a pixel."""
    peak = (image == maximum_filter(image, size=(1, 3, 3))) & (image > threshold)
    # The border of the stamp makes maxima of what lies outside.
    peak[:, [0, -1]] = False
    peak[:, :, [0, -1]] = False
    blend, y, x = np.nonzero(peak)
    high = image[blend, y, x]
    order = np.lexsort((-high, blend))
    blend, y, x, high = blend[order], y[order], x[order], high[order]
    places = np.stack(
        [
            x + _vertex(image[blend, y, x - 1], high, image[blend, y, x + 1]),
            y + _vertex(image[blend, y - 1, x], high, image[blend, y + 1, x]),
        ],
        axis=1,
    )
    return np.split(places, np.searchsorted(blend, np.arange(1, len(image))))


def _vertex(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Place of the vertex of a parabola through three points at -1, 0, 1."""
    bend = left - 2 * middle + right
    return np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0.0)


def _together(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All of the first, and those of the second that are not near one of them."""
    if not len(first) or not len(second):
        return first if len(first) else second
    apart = np.hypot(*(second[:, None] - first).transpose(2, 0, 1)).min(axis=1)
    return np.concatenate([first, second[apart > _SAME]])
