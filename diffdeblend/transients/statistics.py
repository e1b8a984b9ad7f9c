"""How far a difference is what it should be: noise of unit variance but for what changed."""

import numpy as np

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.subtract.difference import Difference


def difference_statistics(difference: Difference, border: int = 50) -> dict[str, float]:
    """Numbers of the significance S_corr and of D, over all bands, without masked pixels.

    `scorr_mean`, `scorr_std`, `scorr_robust_sigma` (of the median deviation), `scorr_kurtosis`
    (excess), `fraction_beyond_5_sigma`; `d_robust_sigma`. NaN if no pixel is left.

    - `border`: pixels at the edges that are left out; of a small image a tenth of its shorter side
        at most.
    """
    ny, nx = difference.shape
    border = min(border, min(ny, nx) // 10)
    inside = (..., slice(border, ny - border), slice(border, nx - border))
    exposure = difference.exposure
    use = ~np.asarray(difference.bad)[inside] & np.asarray(exposure.good)[inside]
    score = np.asarray(difference.S_corr)[inside][use]
    image = np.asarray(difference.D)[inside][use]
    if not score.size:
        names = ("mean", "std", "robust_sigma", "kurtosis")
        nothing = {f"scorr_{name}": np.nan for name in names}
        return nothing | {"fraction_beyond_5_sigma": np.nan, "d_robust_sigma": np.nan}
    mean = float(score.mean(dtype=float))
    square = (score - np.float32(mean)) ** 2
    variance = float(square.mean(dtype=float))
    fourth = float(np.square(square).mean(dtype=float))
    return {
        "scorr_mean": mean,
        "scorr_std": float(np.sqrt(variance)),
        "scorr_robust_sigma": _robust_sigma(score),
        "scorr_kurtosis": fourth / variance**2 - 3 if variance > 0 else np.nan,
        "fraction_beyond_5_sigma": float(np.mean(np.abs(score) > 5)),
        "d_robust_sigma": _robust_sigma(image),
    }


def _robust_sigma(values: np.ndarray) -> float:
    return MAD_TO_STD * float(np.median(np.abs(values - np.median(values))))
