"""Cosmic rays: light that is sharper than the PSF lets any light be."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.widths import FWHM_PER_SIGMA

# Steps to the two neighbours of a pair: along x, along y, and both diagonals.
_PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Below the sky by more than this a neighbour is a flaw, and says nothing of the pixel beside it.
_FLOOR = -3.0
_LEAST_STARS = 8


@dataclass(frozen=True)
class Sharpness:
    """How sharp a star is: mean brightness of two opposite neighbours of its pixels over theirs.

    - `ratios`: along x, along y, and along the diagonals (1, 1) and (1, -1).
    - `fwhm`: of the Gaussian that falls off like that, in pixels.
    - `n_stars`: how many it was measured on; 0 if it was given.
    """

    ratios: tuple[float, float, float, float]
    fwhm: float
    n_stars: int

    @staticmethod
    def of_fwhm(fwhm: float) -> "Sharpness":
        """That of a round Gaussian."""
        fall = float(np.exp(-0.5 * (FWHM_PER_SIGMA / fwhm) ** 2))
        return Sharpness((fall, fall, fall**2, fall**2), float(fwhm), 0)


def star_sharpness(
    residual: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    *,
    n_sigma: float = 25.0,
    percentile: float = 20.0,
) -> Sharpness | None:
    r"""The sharpness of the stars of an image, or None where fewer than 8 look like stars.

    At a peak, $\sqrt{I_- I_+} / I_0$ of two opposite neighbours does not depend on where in the
    pixel a Gaussian lies; no star is sharper. Cosmic rays are kept out by all eight neighbours
    having to be above the noise; galaxies only raise it, hence the low percentile.

    - `residual`: image without its sky; `variance`: of its pixels; `bad`: not to be used.
    - `n_sigma`: least brightness of a peak, in its noise.
    """
    ny, nx = residual.shape
    # Squares: a root of every pixel takes longer.
    y, x = np.divmod(
        np.flatnonzero((residual > 0) & (residual * residual > n_sigma**2 * variance)), nx
    )
    inside = (y > 1) & (y < ny - 2) & (x > 1) & (x < nx - 2)
    y, x = y[inside], x[inside]
    around = _around(residual, y, x)
    peak = residual[y, x]
    # Brighter than the neighbours, each of them well above the noise, and none of them bad.
    noise = np.sqrt(_around(variance, y, x))
    star = (around <= peak).all(0) & (around > 3 * noise).all(0)
    star &= ~_around(bad, y, x).any(0) & ~bad[y, x]
    if star.sum() < _LEAST_STARS:
        return None
    around, peak = around[:, star], peak[star]
    fall = np.sqrt(around[0::2] * around[1::2]) / peak
    ratios = np.percentile(fall, percentile, axis=1)
    typical = np.median(fall[:2])
    fwhm = FWHM_PER_SIGMA / np.sqrt(-2 * np.log(min(typical, 0.98)))
    return Sharpness(tuple(float(r) for r in ratios), float(fwhm), int(star.sum()))  # type: ignore[arg-type]


def find_cosmic_rays(
    residual: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    sharpness: Sharpness,
    *,
    n_sigma: float = 5.0,
    grow_sigma: float = 3.0,
    tolerance: float = 0.08,
    rounds: int = 4,
) -> Bool[np.ndarray, "y x"]:
    r"""Pixels that are brighter than their neighbours allow, if all light came through the PSF.

    Of a point, and more so of anything wider, two opposite neighbours of a pixel have on average
    at least r times its brightness, where r is the PSF's fall over that step. A pixel is a cosmic
    ray if it is `n_sigma` above the sky and, along any of the four directions,

    $$ I_0 - \frac{I_- + I_+}{2 r} > n_\sigma
       \sqrt{V_0 + \frac{V_- + V_+}{4 r^2} + (t I_0)^2}. $$

    What is found is replaced by what its neighbours allow, and the pixels next to it are looked
    at again, with a lower threshold: so the wide ones are eaten from their edges. Pixels beside
    saturated ones are not touched: there, too, the neighbours are bright. Within two pixels of a
    ray what is as far below the sky belongs to it: resampled images ring. Hot pixels are found
    just the same.

    - `residual`: image without its sky; `variance`: of its pixels.
    - `bad`: saturated or dead, which neither are found nor count as neighbours.
    - `sharpness`: `star_sharpness` of this image, or `Sharpness.of_fwhm`.
    - `n_sigma`, `grow_sigma`: thresholds of the first pixel and of those beside one found.
    - `tolerance`: by which share of a pixel the PSF may be wrong.
    - `rounds`: how often the neighbours of what was found are looked at.

    ??? cite
        The third condition of the SDSS photometric pipeline (Lupton et al. 2001); L.A.Cosmic
        (van Dokkum 2001) asks for the same with a Laplacian and a median.
    """
    image = np.pad(residual, 1, mode="edge")
    noise = np.pad(np.asarray(variance, np.float32), 1, mode="edge")
    # A pair with a flaw, or across the border, says nothing.
    dull = np.pad(np.asarray(bad, bool), 1, constant_values=True)
    image = np.where(dull, np.float32(0), image)
    np.maximum(image, np.float32(_FLOOR) * np.sqrt(noise), out=image)
    found = np.zeros(image.shape, bool)
    width = image.shape[1]
    at = np.flatnonzero((image > np.float32(n_sigma) * np.sqrt(noise)) & ~dull)
    flat, flat_noise = image.reshape(-1), noise.reshape(-1)
    flat_dull, flat_found = dull.reshape(-1), found.reshape(-1)
    limit = n_sigma
    for turn in range(rounds + 1):
        excess, allowed = _excess(flat, flat_noise, flat_dull, at, sharpness, width, tolerance)
        hit = excess > limit
        rays = at[hit]
        if not rays.size:
            break
        flat_found[rays] = True
        flat[rays] = allowed[hit]
        if turn == rounds:
            break
        steps = np.array([y * width + x for y, x in _PAIRS])
        beside = np.unique((rays[:, None] + np.concatenate([steps, -steps])).ravel())
        beside = beside[~flat_dull[beside] & ~flat_found[beside]]
        limit = grow_sigma
        at = beside[flat[beside] > limit * np.sqrt(flat_noise[beside])]
    rays = found[1:-1, 1:-1].copy()
    return rays | _ringing(residual, variance, bad, rays, grow_sigma)


def _ringing(
    residual: np.ndarray, variance: np.ndarray, bad: np.ndarray, rays: np.ndarray, n_sigma: float
) -> np.ndarray:
    """Pixels below the sky beside a ray: where an image was resampled, its rays ring."""
    ny, nx = rays.shape
    y, x = (places[:, None, None] for places in np.nonzero(rays))
    step = np.arange(-2, 3)
    y, x = np.clip(y + step[:, None], 0, ny - 1), np.clip(x + step, 0, nx - 1)
    low = residual[y, x] < -n_sigma * np.sqrt(variance[y, x])
    out = np.zeros_like(rays)
    out[np.broadcast_to(y, low.shape)[low], np.broadcast_to(x, low.shape)[low]] = True
    return out & ~bad


def _excess(
    image: np.ndarray,
    variance: np.ndarray,
    dull: np.ndarray,
    at: np.ndarray,
    sharpness: Sharpness,
    width: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """By how many sigma each pixel is too bright in its worst direction; and what would do."""
    centre, own = image[at], variance[at] + (tolerance * image[at]) ** 2
    worst = np.full(at.size, -np.inf, np.float32)
    allowed = np.array(centre)
    for (dy, dx), ratio in zip(_PAIRS, sharpness.ratios, strict=True):
        step = dy * width + dx
        before, after = at - step, at + step
        most = (image[before] + image[after]) / (2 * ratio)
        noise = own + (variance[before] + variance[after]) / (4 * ratio**2)
        known = ~(dull[before] | dull[after])
        value = np.where(known, (centre - most) / np.sqrt(noise), -np.inf)
        allowed = np.where(value > worst, np.minimum(centre, most), allowed)
        worst = np.maximum(worst, value)
    return worst, allowed


def _around(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The eight neighbours, opposite ones side by side, in the order of the pairs."""
    return np.stack([values[y + s * dy, x + s * dx] for dy, dx in _PAIRS for s in (-1, 1)])
