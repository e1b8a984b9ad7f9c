"""Stamps of a survey to learn from as they are, noise and PSF included."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Shaped
from scipy.spatial import KDTree

from diffdeblend.components.decoded import Frame
from diffdeblend.exposure import Exposure
from diffdeblend.psf.stamps import psf_stamps
from diffdeblend.simulate.keys import stream
from diffdeblend.widths import equivalent_sigma


@dataclass(frozen=True, eq=False)
class NoisyStamps:
    """Galaxies as a survey sees them, one in the middle of each stamp, sky subtracted.

    - `data`: `(galaxy, size, size)`, of any unit; NaN masks a pixel.
    - `variance`: of the noise, in the unit of `data` squared, or one number for all pixels;
        infinite, NaN or not positive masks a pixel.
    - `psf`: with the pixel's response, sides odd, `(k, k)` for all stamps or `(galaxy, k, k)`; it
        is normalised. Where a galaxy is not on the middle of its pixel, its PSF is moved instead.
    - `frame`: that the prior is to be learnt in; `pixel_scale`: of the stamps, in arcseconds, by
        default the frame's.
    - `source`: where they come from, in words.

    Masked pixels have data 0 and an infinite variance here.

    **Raises:** `ValueError` for shapes that disagree, a stamp without a usable pixel, a PSF that is
    not finite or narrower than the frame's, or another pixel scale than the frame's.
    """

    data: Float[np.ndarray, "galaxy size size"]
    variance: Float[np.ndarray, "galaxy size size"]
    psf: Float[np.ndarray, "*galaxy k k"]
    frame: Frame
    pixel_scale: float | None = None
    source: str = "stamps"

    def __post_init__(self):
        data, variance = (np.asarray(v, np.float32) for v in (self.data, self.variance))
        size = self.frame.size
        if data.ndim != 3 or data.shape[1:] != (size, size) or not len(data):
            raise ValueError(
                f"`data` needs shape (galaxy, {size}, {size}) in this frame; got {data.shape}."
            )
        if variance.shape not in ((), data.shape):
            raise ValueError(
                f"`variance` needs one number or the shape of `data`, {data.shape}; "
                f"got {variance.shape}."
            )
        variance = np.broadcast_to(variance, data.shape)
        good = np.isfinite(data) & np.isfinite(variance) & (variance > 0)
        dark = ~good.any(axis=(1, 2))
        if dark.any():
            raise ValueError(
                f"`data` and `variance` leave no usable pixel in {int(dark.sum())} of {len(data)} "
                f"stamps, the first {int(np.argmax(dark))}; leave these out."
            )
        object.__setattr__(self, "data", np.where(good, data, np.float32(0)))
        object.__setattr__(self, "variance", np.where(good, variance, np.float32(np.inf)))
        object.__setattr__(self, "psf", _psf(self.psf, len(data), self.frame))
        _check_scale(self.pixel_scale, self.frame)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def sha256(self) -> str:
        """Of data, variance, PSF and frame: the same stamps have the same one."""
        digest = hashlib.sha256(repr((self.data.shape, self.psf.shape, self.frame)).encode())
        for values in (self.data, self.variance, self.psf):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def select(self, rows: Shaped[ArrayLike, "row"]) -> "NoisyStamps":
        """Some of them, by number or by mask."""
        rows = np.asarray(rows)
        return NoisyStamps(
            self.data[rows],
            self.variance[rows],
            self.psf if self.psf.ndim == 2 else self.psf[rows],
            self.frame,
            self.pixel_scale,
            self.source,
        )

    def split(self, held_out: float, seed: int) -> tuple["NoisyStamps", "NoisyStamps"]:
        """Those to learn from, and those held out, in an order of the seed's.

        **Raises:** `ValueError` for a share that is not between 0 and 1, or fewer than two stamps.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"`held_out` must be between 0 and 1; got {held_out}.")
        if len(self) < 2:
            raise ValueError(f"`held_out` needs two stamps; got {len(self)}.")
        order = stream(seed, "held out").permutation(len(self))
        count = int(np.clip(round(held_out * len(self)), 1, len(self) - 1))
        return self.select(order[count:]), self.select(order[:count])


def cut_stamps(
    exposure: Exposure,
    positions: Float[ArrayLike, "galaxy 2"],
    frame: Frame,
    *,
    band: str | None = None,
    others: Float[ArrayLike, "source 2"] | None = None,
    apart: float | None = None,
) -> NoisyStamps:
    """The isolated ones among galaxies of a large exposure, each with the PSF at its place.

    - `positions`: (x, y) in pixels, the first pixel is centred on (0, 0).
    - `band`: its name; may be left out where there is one only.
    - `others`: all that was detected, by default `positions`.
    - `apart`: a galaxy with another source nearer than this is left out; in pixels, by default 0.6
        stamps. So is one whose stamp is not all within the image.

    A stamp is cut at whole pixels; its PSF is moved by what remains, so that nothing is resampled.

    **Raises:** `ValueError` if positions are not finite pairs, the band is unknown or not named, no
    galaxy is left, and as `NoisyStamps` does.
    """
    if band is None and exposure.n_bands > 1:
        raise ValueError(f"`band` must be one of {exposure.bands}; got None.")
    number = 0 if band is None else exposure.band(band)
    places = _pairs("positions", positions)
    around = places if others is None else np.concatenate([places, _pairs("others", others)])
    apart = 0.6 * frame.size if apart is None else float(apart)
    # A position that is in both lists is at distance 0 from itself.
    near = KDTree(np.unique(around, axis=0)).query_ball_point(places, apart)
    alone = np.array([len(found) for found in near]) == 1
    half = frame.size // 2
    middle = np.floor(places + 0.5).astype(int)
    ny, nx = exposure.shape
    whole = ((middle >= half) & (middle < np.array([nx, ny]) - half)).all(axis=1)
    kept = alone & whole
    if not kept.any():
        raise ValueError(
            f"`positions`: of {len(places)} galaxies, {int(whole.sum())} have their stamp within "
            f"the image and {int(alone.sum())} no other source within {apart:.1f} pixels; none has "
            "both."
        )
    x, y = middle[kept].T
    window = np.arange(-half, half + 1)
    at = number, y[:, None, None] + window[:, None], x[:, None, None] + window
    good = np.asarray(exposure.good)[at]
    variance = np.where(good, np.asarray(exposure.variance)[at], np.inf)
    lit = good.any(axis=(1, 2))
    off = (places - middle)[kept][lit]
    psf = _moved(psf_stamps(exposure.psf, number, *places[kept][lit].T), off)
    return NoisyStamps(
        np.where(good, np.asarray(exposure.image)[at], 0)[lit],
        variance[lit],
        psf,
        frame,
        exposure.header.pixel_scale,
        f"{int(lit.sum())} stamps of an exposure, band {exposure.bands[number]}",
    )


def read_stamps(path: str | os.PathLike, frame: Frame) -> NoisyStamps:
    """Stamps from an archive: `.npz`, or `.zarr`.

    Arrays: `data` or `images`, `variance`, `psf` or `psfs`, as of `NoisyStamps`; optional `mask`
    (true is bad) and `pixel_scale`.

    **Raises:** `ValueError` if there is no such file, an array is missing, and as `NoisyStamps`
    does.
    """
    path = Path(path)
    if not path.exists() or path.suffix not in (".npz", ".zarr"):
        raise ValueError(
            f"`path` must be a file .npz or a folder .zarr of stamps; got {str(path)!r}."
        )
    arrays = _opened(path)
    found = {}
    for names in (("data", "images"), ("variance",), ("psf", "psfs")):
        there = [name for name in names if name in arrays]
        if not there:
            raise ValueError(
                f"`path`: {path.name!r} has no array {' or '.join(names)}; it has {sorted(arrays)}."
            )
        found[names[0]] = np.asarray(arrays[there[0]])
    if "mask" in arrays:
        mask = np.asarray(arrays["mask"]).astype(bool)
        found["variance"] = np.where(mask, np.inf, found["variance"])
    scale = float(np.asarray(arrays["pixel_scale"])) if "pixel_scale" in arrays else None
    return NoisyStamps(**found, frame=frame, pixel_scale=scale, source=path.name)


# Helpers.


def _psf(given: Any, n: int, frame: Frame) -> Float[np.ndarray, "*galaxy k k"]:
    psf = np.asarray(given, float)
    if psf.ndim not in (2, 3) or psf.shape[-1] != psf.shape[-2] or psf.shape[-1] % 2 == 0:
        raise ValueError(f"`psf` needs shape (k, k) or (galaxy, k, k), k odd; got {psf.shape}.")
    if psf.ndim == 3 and len(psf) == 1:
        psf = psf[0]
    if psf.ndim == 3 and len(psf) != n:
        raise ValueError(f"`psf` needs one image, or one for each of {n} stamps; got {len(psf)}.")
    total = psf.sum(axis=(-2, -1), keepdims=True)
    if not np.isfinite(psf).all() or not (total > 0).all():
        raise ValueError("`psf` must be finite, each image with a positive sum.")
    psf = psf / total
    width = np.asarray(equivalent_sigma(psf))
    if not (width > 0.98 * frame.psf_sigma).all():
        raise ValueError(
            f"`psf` must be no narrower than the frame's Gaussian, sigma {frame.psf_sigma} pixels; "
            f"the narrowest has {width.min():.3f}. Choose a frame with a smaller `psf_sigma`."
        )
    return psf.astype(np.float32)


def _check_scale(pixel_scale: float | None, frame: Frame) -> None:
    if pixel_scale is None or frame.pixel_scale is None:
        return
    if not abs(pixel_scale / frame.pixel_scale - 1) < 0.01:
        raise ValueError(
            f"`pixel_scale` must be that of the frame, {frame.pixel_scale} arcsec, to 1 %; "
            f"got {pixel_scale}."
        )


def _pairs(name: str, values: Any) -> Float[np.ndarray, "galaxy 2"]:
    pairs = np.asarray(values, float)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or not np.isfinite(pairs).all():
        raise ValueError(f"`{name}` must be finite pairs (x, y); got shape {pairs.shape}.")
    return pairs


def _moved(
    psf: Float[np.ndarray, "galaxy h w"], off: Float[np.ndarray, "galaxy 2"]
) -> Float[np.ndarray, "galaxy k k"]:
    """Square images of PSFs, moved by less than a pixel along x and y."""
    height, width = psf.shape[1:]
    side = max(height, width) + 2
    top, left = (side - height) // 2, (side - width) // 2
    padding = [(0, 0), (top, side - height - top), (left, side - width - left)]
    # An odd side: no mode is on the Nyquist frequency, where a shift would not be real.
    waves = -2j * np.pi * np.fft.fftfreq(side)
    phase = np.exp(waves[:, None] * off[:, 1, None, None] + waves * off[:, 0, None, None])
    return np.fft.ifft2(np.fft.fft2(np.pad(psf, padding)) * phase).real


def _opened(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        import zarr

        group: Any = zarr.open_group(path, mode="r")
        return dict(group.arrays())
    # Damaged files raise all sorts of errors.
    except Exception as error:
        raise ValueError(f"`path`: {str(path)!r} cannot be read: {error}") from error
