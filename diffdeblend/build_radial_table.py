r"""Where the radial table comes from: `python -m diffdeblend.build_radial_table` writes it.

The transform of a Sersic profile is computed exactly, along a path in the complex plane on which
nothing oscillates; fitted at each node of $\ln n$ by a short Chebyshev series; and splined over the
nodes. Host only, float64, about 20 s. The package itself only reads the result.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.chebyshev import chebval, chebvander
from numpy.polynomial.polynomial import polyval
from scipy.interpolate import CubicSpline
from scipy.special import gammaincinv, gammaln, hankel1

PATH = Path(__file__).with_name("radial_table.npz")
INDEX_DOMAIN = (0.5, 6.2)
NODES = 128
TERMS = 20
# The spline's end condition is felt over a few nodes (1e-6 at n = 0.5 with one spare node, 2e-7
# with five): the fit goes on beyond the domain, the table keeps one interval of it.
SPARE_NODES = 5

# Scales of the variable and of its prefactor: polynomials in ln n, constant term first, from a
# search for the smallest error. Against a kappa three times smaller at n = 6 and a taper of 0.05
# for all n, both equally fast, this takes the worst error from 2e-5 to 3e-7 and the largest
# coefficient from 15 to 2, which is what float32 feels.
LOG_KAPPA = (-0.63, 1.95, 0.40, 0.02)
LOG_TAPER = (-0.91, 0.08, -0.70, -0.28)

FREQUENCIES = np.concatenate([[0.0], np.logspace(-3.5, 4, 360)])
# An error counts relative to S where S is large, absolutely where it is far below this.
FLOOR = 0.01
# Enough to keep the coefficients small and smooth in n, and no more.
RIDGE = 2e-6


def exact_transform(k: np.ndarray, index: float, step: float = 0.03) -> np.ndarray:
    r"""Hankel transform of the Sersic profile of unit flux and unit half-light radius.

    With the path of integration turned to $r = s e^{i\theta}$, where both factors decay:
    $$S(k) = \frac{\mathrm{Re}\,\bigl[e^{2i\theta} \int s\, H_0^{(1)}(k s e^{i\theta})
    \exp(-b s^{1/n} e^{i\theta/n})\, ds\bigr]}{n\, \Gamma(2n)\, b^{-2n}}$$

    - `k`: frequencies in radians per half-light radius, positive, shape `(k,)`.
    - `index`: $n$.
    - `step`: of the trapezoidal rule in $\ln s$, which converges exponentially.

    Returns shape `(k,)`; errors below 1e-11 for $n$ in 0.46 to 6.8.
    """
    b = gammaincinv(2 * index, 0.5)
    theta = min(0.999 * np.pi / 2, 0.4 * np.pi * index)
    end = index * np.log(45 / (b * np.cos(theta / index)))
    log_s = np.arange(-23, end + step, step)
    s, turn = np.exp(log_s), np.exp(1j * theta)
    decay = np.exp(-b * s ** (1 / index) * np.exp(1j * theta / index))
    weight = step * (s * turn) ** 2 * decay
    log_norm = np.log(index) + gammaln(2 * index) - 2 * index * np.log(b)
    result = np.empty(len(k))
    for i, frequency in enumerate(k):
        # H0 decays as exp(-Im z): beyond this nothing is left, and far beyond it scipy gives NaN.
        near = frequency * s * turn.imag < 60
        result[i] = np.sum(weight[near] * hankel1(0, frequency * turn * s[near])).real
    return result * np.exp(-log_norm)


def fit_series(index: float, terms: int = TERMS) -> tuple[np.ndarray, float]:
    r"""Coefficients $c_j$ of the closed form at one index, and the largest weighted residual.

    Least squares over `FREQUENCIES` with weight $1 / (S + 0.01)$, under $\sum c_j = 1$, so that
    $S(0) = 1$ exactly, here as between the nodes.
    """
    kappa = np.exp(polyval(np.log(index), LOG_KAPPA))
    taper = np.exp(polyval(np.log(index), LOG_TAPER))
    exact = np.concatenate([[1.0], exact_transform(FREQUENCIES[1:], index)])
    u = np.exp(-np.log1p((kappa * FREQUENCIES) ** 2) / (2 * index))
    prefactor = u / (1 + (taper * FREQUENCIES) ** 2)
    weight = 1 / (np.abs(exact) + FLOOR)
    # The constraint takes c_0 out: T_j - 1 vanishes at k = 0.
    columns = (weight * prefactor)[:, None] * (chebvander(2 * u - 1, terms - 1)[:, 1:] - 1)
    target = weight * (exact - prefactor)
    rows = np.concatenate([columns, RIDGE * np.eye(terms - 1)])
    c = np.linalg.lstsq(rows, np.concatenate([target, np.zeros(terms - 1)]))[0]
    return np.concatenate([[1 - c.sum()], c]), float(np.abs(columns @ c - target).max())


def fit_powers() -> tuple[np.ndarray, np.ndarray]:
    r"""What real space needs, in powers of $1/n$, constant term first; to 1e-8 in the domain.

    Returns the series of $b_n - 2n$ and of $\ln(I_e \sqrt{n})$, where $I_e$ is the surface
    brightness at the half-light radius.
    """
    index = np.exp(np.linspace(np.log(0.4), np.log(8), 2001))
    b = gammaincinv(2 * index, 0.5)
    log_flux = np.log(2 * np.pi * index) + gammaln(2 * index) + b - 2 * index * np.log(b)
    targets = b - 2 * index, 0.5 * np.log(index) - log_flux
    fits = [Chebyshev.fit(1 / index, target, 7) for target in targets]
    return fits[0].convert(kind=Polynomial).coef, fits[1].convert(kind=Polynomial).coef


def build() -> dict[str, np.ndarray]:
    r"""The table: a cubic in $\ln n$ for each interval between nodes.

    Returns
    - `pieces`: shape `(interval, 4, 2 + term)`, highest power first, in units of the interval.
        Columns: $\ln \kappa^2$, $\ln$ of the squared taper, $c_0, c_1, ...$
    - `start`, `step`: $\ln n$ at the start of the first interval, and the length of each.
    - `b_series`, `brightness_series`: those of `fit_powers`.
    """
    first, last = np.log(INDEX_DOMAIN)
    step = (last - first) / (NODES - 1)
    nodes = first + step * np.arange(-SPARE_NODES, NODES + SPARE_NODES)
    columns = [
        [2 * polyval(node, LOG_KAPPA), 2 * polyval(node, LOG_TAPER), *fit_series(np.exp(node))[0]]
        for node in nodes
    ]
    spline = CubicSpline(nodes, np.array(columns))
    inside = slice(SPARE_NODES - 1, SPARE_NODES + NODES)
    in_steps = step ** np.array([3, 2, 1, 0])
    pieces = spline.c[:, inside] * in_steps[:, None, None]
    b_series, brightness_series = fit_powers()
    return {
        "pieces": np.ascontiguousarray(np.moveaxis(pieces, 0, 1)),
        "start": nodes[inside][0],
        "step": np.array(step),
        "b_series": b_series,
        "brightness_series": brightness_series,
    }


def evaluate(table: dict[str, np.ndarray], k: np.ndarray, index: float) -> np.ndarray:
    """The closed form with a table, in plain numpy, shape `(k,)`: what the package must give."""
    place = (np.log(index) - table["start"]) / table["step"]
    interval = int(np.clip(np.floor(place), 0, len(table["pieces"]) - 1))
    row = (place - interval) ** np.array([3, 2, 1, 0]) @ table["pieces"][interval]
    u = np.exp(-np.log1p(np.exp(row[0]) * k**2) / (2 * index))
    return u / (1 + np.exp(row[1]) * k**2) * chebval(2 * u - 1, row[2:])


def main() -> None:
    """Build, report the errors between the nodes, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PATH)
    path = parser.parse_args().output
    table = build()
    k = np.logspace(-4, 5, 500)
    for index in (0.5, 0.51, 0.6, 0.8, 1, 1.5, 2.5, 4, 5, 6, 6.2):
        exact = exact_transform(k, index)
        error = np.abs(evaluate(table, k, index) - exact) / (np.abs(exact) + FLOOR)
        print(f"n = {index:4}: |dS| / (S + {FLOOR}) <= {error.max():.1e}")
    np.savez(path, allow_pickle=False, **table)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
