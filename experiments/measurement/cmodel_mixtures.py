"""Which Gaussians are the truncated profiles of SDSS?

Question: which sums of 6 and 8 Gaussians are an exponential that ends at 4 half-light radii and a
de Vaucouleurs profile that ends at 8?
Answer: the numbers of `LUX` and `LUV` in `diffdeblend/quantities/cmodel_profiles.py`.

    python experiments/measurement/cmodel_mixtures.py

The profiles fall to zero between 3 and 4 and between 7 and 8 radii, as in Hogg & Lang (2013), PASP
125, 719, eqs. 5 to 8; fitted is the light between two circles, as theirs is. The radius stays that
of the profile without end, the light is that within the end, at unit sum.
"""

import numpy as np
from scipy.optimize import least_squares


def profile(r, index, b, inner, outer, soft):
    """Brightness, without a scale."""
    end = np.clip((r - inner) / (outer - inner), 0, 1)
    return np.exp(-b * (r * r + soft * soft) ** (0.5 / index)) * (1 - end**2) ** 2


def fit(n, index, b, inner, outer, soft):
    """Weights of unit sum and variances."""
    r = np.linspace(1e-4, outer * 1.2, 4000) ** 1.0
    r = np.concatenate([np.geomspace(1e-4, 0.3, 1500), np.linspace(0.3, outer * 1.15, 2500)])
    light = profile(r, index, b, inner, outer, soft)
    width = np.gradient(r)
    light /= np.sum(2 * np.pi * r * width * light)
    # Squares of differences of brightness, by area, as an image would see them at some seeing.
    weight = np.sqrt(2 * np.pi * r * width) * np.sqrt(r / (r + 0.05))

    def mixture(numbers):
        share, variance = np.exp(numbers[:n]), np.exp(numbers[n:])
        each = share / (2 * np.pi * variance) * np.exp(-0.5 * r[:, None] ** 2 / variance)
        return each.sum(axis=1)

    def left(numbers):
        total = 30 * (np.exp(numbers[:n]).sum() - 1)
        return np.append(weight * (mixture(numbers) - light), total)

    best = None
    for low in (0.003, 0.01, 0.03, 0.1):
        start = np.log(np.geomspace(low * outer / 8, outer / 3, n) ** 2)
        found = least_squares(left, np.concatenate([np.full(n, -np.log(n)), start]))
        if best is None or found.cost < best.cost:
            best = found
    order = np.argsort(best.x[n:])
    weights = np.exp(best.x[:n])[order]
    variances = np.exp(best.x[n:])[order]
    around = 2 * np.pi * r * width
    off = np.cumsum(around * mixture(best.x)) - np.cumsum(around * light)
    return weights / weights.sum(), variances, np.max(np.abs(off)), best.cost


def main():
    """Print the numbers."""
    for name, args in (
        ("LUX", (6, 1, 1.67834699, 3, 4, 0.0)),
        ("LUV", (8, 4, 7.66924944, 7, 8, 0.02)),
    ):
        weights, variances, off, cost = fit(*args)
        print(name, [float(f"{w:.6g}") for w in weights], [float(f"{v:.6g}") for v in variances])
        print("  light within a circle is off by at most", off, "cost", cost)


if __name__ == "__main__":
    main()
