"""Smooth surfaces through the levels of cells, and their sum: the sky as a list. Host side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from diffdeblend.background.cells import CellLevels
from diffdeblend.background.mesh_repair import fill_holes
from diffdeblend.polynomials import term_powers

# Fewest nodes along an axis that each kind needs, and what stands in where there are fewer.
_LEAST_NODES = {"akima": 5, "cubic": 3, "linear": 2, "constant": 1}
# How often levels are moved to the middles of their cells: each time with a better slope.
_MOVES = 3


class Surface(Protocol):
    """A sky over an image."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def image(self) -> Float[np.ndarray, "y x"]: ...


@dataclass(frozen=True, eq=False)
class ChebyshevSurface:
    """Products of Chebyshev polynomials of x and y.

    - `coefficients`: of `diffdeblend.polynomials.term_powers`, in the unit of the image.
    - `degree`: largest sum of the two degrees. `shape`: pixels of the image, (ny, nx).
    """

    coefficients: Float[np.ndarray, "term"]
    degree: int
    shape: tuple[int, int]

    def image(self) -> Float[np.ndarray, "y x"]:
        """The surface at each pixel, float32."""
        square = np.zeros((self.degree + 1, self.degree + 1))
        for value, (i, j) in zip(self.coefficients, term_powers(self.degree), strict=True):
            square[j, i] = value
        level, square[0, 0] = square[0, 0], 0
        along_y, along_x = (_terms(n, self.degree) for n in self.shape)
        # The level last: single precision keeps the digits of small differences.
        out = (along_y @ square).astype(np.float32) @ along_x.T.astype(np.float32)
        out += np.float32(level)
        return out


@dataclass(frozen=True, eq=False)
class CellSurface:
    """A surface through the levels of cells at their middles, along y and then along x.

    Beyond the outermost middles it goes on straight.

    - `levels`: shape `(my, mx)`, in the unit of the image.
    - `y`, `x`: middles of the cells, in pixels.
    - `shape`: pixels of the image, (ny, nx).
    - `kind`: "akima", "cubic" (natural), "linear" or "constant"; with few nodes along an axis the
        next in this row that they suffice for.
    """

    levels: Float[np.ndarray, "my mx"]
    y: Float[np.ndarray, "my"]
    x: Float[np.ndarray, "mx"]
    shape: tuple[int, int]
    kind: str = "akima"

    def image(self) -> Float[np.ndarray, "y x"]:
        """The surface at each pixel, float32."""
        middle = float(np.median(self.levels))
        columns = _interpolated(self.y, (self.levels - middle).T, self.shape[0], self.kind)
        out = _interpolated(self.x, columns.T, self.shape[1], self.kind)
        out += np.float32(middle)
        return out


def fit_chebyshev(cells: CellLevels, degree: int) -> ChebyshevSurface:
    """Least squares through the levels of cells, weighted by their inverse variance.

    The mean of each polynomial over a cell is compared with the level, not its value in the
    middle: cells of 128 pixels would leave 0.05 of a parabola of 10 over 1,024 pixels. With few
    cells along an axis the degree along it is one less than these, and mixed terms end before.

    **Raises:** `ValueError` if no cell has a level.
    """
    used = np.isfinite(cells.level)
    _check_some(used)
    along = []
    for edges in (cells.edges_y, cells.edges_x):
        terms = _terms(int(edges[-1]), degree)
        along.append(np.add.reduceat(terms, edges[:-1], axis=0) / np.diff(edges)[:, None])
    mean_y, mean_x = along
    my, mx = cells.level.shape
    # A triangle of powers that fits into the cells: i / (mx - 1) + j / (my - 1) <= 1.
    kept = np.array(
        [
            i < mx and j < my and i * (my - 1) + j * (mx - 1) <= (my - 1) * (mx - 1)
            for i, j in term_powers(degree)
        ]
    )
    design = np.stack([np.outer(mean_y[:, j], mean_x[:, i]) for i, j in term_powers(degree)])[kept]
    scatter = cells.std[used]
    # Cells without any scatter, as of one pixel or an image without noise: that of the others.
    some = scatter > 0
    scatter = np.where(some, scatter, np.median(scatter[some]) if some.any() else 1.0)
    weight = np.sqrt(np.maximum(cells.n[used], 1)) / scatter
    weight /= weight.max()
    columns = design[:, used].T * weight[:, None]
    found = np.zeros(len(kept))

    def fit(level: np.ndarray) -> np.ndarray:
        found[kept] = np.linalg.lstsq(columns, level[used] * weight, rcond=None)[0]
        return np.tensordot(found[kept], design, 1)

    _fit_moved(cells, fit)
    return ChebyshevSurface(found, degree, cells.shape)


def fit_cells(cells: CellLevels, kind: str = "akima", least: float = 0.02) -> CellSurface:
    """The surface through the levels of cells.

    - `least`: a cell with less than this share of its pixels takes its level from others near, if
        there are any.

    **Raises:** `ValueError` if no cell has a level, or for another kind.
    """
    if kind not in _LEAST_NODES:
        raise ValueError(f"`kind` must be one of {sorted(_LEAST_NODES)}; got {kind!r}.")
    used = np.isfinite(cells.level)
    _check_some(used)
    well = used & (cells.n >= least * cells.area)
    well = well if well.any() else used
    levels = _fit_moved(cells, lambda level: fill_holes(np.where(well, level, np.nan)[None])[0])
    return CellSurface(levels, *cells.middles, cells.shape, kind)


def _fit_moved(
    cells: CellLevels, fit: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "my mx"]:
    """The levels that `fit` gives for those of cells, moved to their middles along its slope."""
    mesh = fit(cells.level)
    if not (cells.shift_y.any() or cells.shift_x.any()):
        return mesh
    for _ in range(_MOVES):
        move = np.zeros(mesh.shape)
        for axis, (at, shift) in enumerate(
            zip(cells.middles, (cells.shift_y, cells.shift_x), strict=True)
        ):
            if len(at) > 1:
                move += shift * np.gradient(mesh, at, axis=axis)
        mesh = fit(cells.level - move)
    return mesh


def total_background(
    models: Sequence[Surface], shape: tuple[int, int] | None = None
) -> Float[np.ndarray, "y x"]:
    """The sum of surfaces at each pixel, float32.

    - `shape`: of the image; needed where there may be no model.

    **Raises:** `ValueError` for models of different shapes, or none and no shape.
    """
    shapes = {tuple(model.shape) for model in models} | ({shape} if shape is not None else set())
    if len(shapes) != 1:
        raise ValueError(f"`models` must be of one shape, that of the image; got {shapes}.")
    total = np.zeros(shapes.pop(), np.float32)
    for model in models:
        total += model.image()
    return total


def _check_some(used: np.ndarray) -> None:
    if not used.any():
        raise ValueError(
            "All pixels of `image` are masked or not finite: there is no sky to measure."
        )


def _terms(length: int, degree: int) -> Float[np.ndarray, "pixel term"]:
    at = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
    return np.polynomial.chebyshev.chebvander(at, degree)


def _interpolated(
    nodes: np.ndarray, values: np.ndarray, length: int, kind: str
) -> Float[np.ndarray, "row pixel"]:
    """Values `(row, node)` at the pixels 0, 1, ... of an axis; float32."""
    kinds = list(_LEAST_NODES)
    kind = next(k for k in kinds[kinds.index(kind) :] if len(nodes) >= _LEAST_NODES[k])
    if kind == "constant":
        nearest = np.abs(np.arange(length)[:, None] - nodes).argmin(axis=1)
        return values.astype(np.float32)[:, nearest]
    slopes = None if kind == "linear" else _slopes(nodes, values, kind)
    out = np.empty((len(values), length), np.float32)
    borders = np.ceil(nodes).astype(int)
    borders[0], borders[-1] = 0, length
    for k in range(len(nodes) - 1):
        here = slice(borders[k], borders[k + 1])
        step = nodes[k + 1] - nodes[k]
        t = (np.arange(length)[here] - nodes[k]) / step
        inside = np.clip(t, 0, 1)
        # Cubic of Hermite; with straight lines outside of the nodes.
        at = np.stack(
            [
                (1 + 2 * inside) * (1 - inside) ** 2,
                inside**2 * (3 - 2 * inside),
                step * (inside * (1 - inside) ** 2 + np.minimum(t, 0)),
                step * (inside**2 * (inside - 1) + np.maximum(t - 1, 0)),
            ]
        ).astype(np.float32)
        low, high = values[:, k], values[:, k + 1]
        if slopes is None:
            first = last = (high - low) / step
        else:
            first, last = slopes[:, k], slopes[:, k + 1]
        ends = np.stack([low, high, first, last], axis=1)
        out[:, here] = ends.astype(np.float32) @ at
    return out


def _slopes(nodes: np.ndarray, values: np.ndarray, kind: str) -> Float[np.ndarray, "row node"]:
    # Here: it takes long to load.
    from scipy.interpolate import Akima1DInterpolator, CubicSpline

    if kind == "cubic":
        return CubicSpline(nodes, values, axis=1, bc_type="natural")(nodes, 1)
    return Akima1DInterpolator(nodes, values, axis=1)(nodes, 1)
