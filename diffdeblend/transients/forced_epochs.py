"""A transient and its host, fitted to all epochs at once without a difference image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import QTable
from jaxtyping import Array, Float

from diffdeblend.background import ConstantBackground
from diffdeblend.components import PointSource, Sersic
from diffdeblend.exposure import Exposure
from diffdeblend.fit.arrow import Normal, from_vectors, hold, linear_vector
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.normal_matrix import fixed_terms, with_curvature
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.prior import shape_prior
from diffdeblend.fit.unknowns import Unknowns, free_numbers, unknowns_of
from diffdeblend.grid import STANDARD
from diffdeblend.psf import PixelPSF
from diffdeblend.psf.stamps import psf_stamps
from diffdeblend.scene import Scene

_STEPS = 25
# The longest step of a mapped shape parameter.
_LONGEST = 0.7
_HOST = ("flux", "x", "y", "radius", "index", "ellipticity")
_DESCRIPTIONS = {
    "source": "Row of the position",
    "epoch": "Number of the exposure",
    "date": "Date of the exposure",
    "flux": "Flux of the transient in the unit of an epoch of scale 1",
    "flux_err": "Standard deviation of the flux, the host's shape and flux being fitted too",
    "chi2": "Mean square residual of the stamp in units of its noise",
    "host_flux": "Flux of the host in the unit of an epoch of scale 1",
    "host_flux_err": "Standard deviation of the host's flux",
    "host_x": "Position of the host along x (column)",
    "host_y": "Position of the host along y (row)",
    "converged": "Whether the last steps changed nothing",
}


def forced_epochs(
    epochs: Sequence[Exposure],
    x: Any,
    y: Any,
    *,
    scale: Any = None,
    off: Any = None,
    host: Any = None,
    band: int = 0,
    size: int = 41,
    dtype: Any = None,
) -> QTable:
    """Fluxes of transients in aligned epochs, each with its host: a row a source and epoch.

    Around each position a Sersic galaxy, whose flux and shape are the same in all epochs, a point
    at the position, whose flux is free in each, and a constant sky of each epoch are fitted by
    Gauss-Newton steps with an epoch in the place of a band, each with its own PSF. Nothing is
    resampled, and no reference without the transient is needed, though epochs that are known to
    have none tell host and transient apart.

    - `epochs`: aligned exposures of one shape, sky taken away or not.
    - `x`, `y`: of the transients, in pixels, `(source,)`; held.
    - `scale`: flux in each epoch of a source of unit flux, `(epoch,)`; ones if None.
    - `off`: epochs in which no source has the transient, booleans `(epoch,)`; none if None.
    - `host`: where the galaxies are, `(source, 2)`, x and y; those of the transients if None.
        They are fitted within a pixel or two.
    - `band`: of the exposures, by number.
    - `size`: height and width of the stamps, odd.
    - `dtype`: of the fit; that of the images if None.

    **Raises:** `ValueError` for epochs that differ in shape, positions off the image, or arguments
    of another shape.
    """
    x, y = (np.atleast_1d(np.asarray(v, float)) for v in (x, y))
    shape = _checked(epochs, x, y, size)
    n = len(epochs)
    scales = np.ones(n) if scale is None else np.asarray(scale, float)
    if scales.shape != (n,) or not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"`scale` needs {n} positive numbers, one an epoch; got {scale!r}.")
    dark = np.zeros(n, bool) if off is None else np.asarray(off)
    if dark.shape != (n,) or dark.dtype != bool:
        raise ValueError(f"`off` needs {n} booleans, one an epoch; got {off!r}.")
    places = np.stack([x, y], axis=1) if host is None else np.asarray(host, float)
    if places.shape != (x.size, 2):
        raise ValueError(f"`host` needs shape ({x.size}, 2); got {places.shape}.")
    # Stamps end at the border of the image, where pixels of no weight stand for the rest.
    half = size // 2
    middle = np.round(np.stack([x, y], axis=1)).astype(int)
    rows = middle[:, 1, None, None] + np.arange(size)[:, None]
    columns = middle[:, 0, None, None] + np.arange(size)
    inside = np.zeros(tuple(s + 2 * half for s in shape), bool)
    inside[half:-half, half:-half] = True
    data, weight, psfs = [], [], []
    for exposure in epochs:
        for values, into in ((exposure.data[band], data), (exposure.weight[band], weight)):
            into.append(np.pad(np.asarray(values), half)[rows, columns])
        psfs.append(psf_stamps(exposure.psf, band, x, y))
    kind = dtype or epochs[0].image.dtype
    corner = middle - half
    start = [*(places - corner).T, x - corner[:, 0], y - corner[:, 1]]
    found = _fit_all(
        *(jnp.asarray(np.stack(v, axis=1), kind) for v in (data, weight, _same_size(psfs))),
        jnp.asarray(scales, kind),
        jnp.asarray(~dark, kind),
        *(jnp.asarray(v, kind) for v in start),
    )
    return _table(TiedFit(*(np.asarray(v) for v in found)), epochs, corner)


class TiedFit(NamedTuple):
    """What the fit of one source found; see `forced_epochs`. `converged`: the last step was none.

    `flux`, `flux_err`, `chi2` have the shape `(epoch,)`.
    """

    flux: Any
    flux_err: Any
    chi2: Any
    host_flux: Any
    host_flux_err: Any
    host_x: Any
    host_y: Any
    converged: Any


def fit_tied(
    data: Float[Array, "epoch y x"],
    weight: Float[Array, "epoch y x"],
    psf: Float[Array, "epoch h w"],
    scale: Float[Array, "epoch"],
    on: Float[Array, "epoch"],
    host_x: Float[Array, ""],
    host_y: Float[Array, ""],
    x: Float[Array, ""],
    y: Float[Array, ""],
) -> TiedFit:
    """Fit one host and one transient to all epochs. Pure; vmap it over sources.

    - `on`: 1 where there may be a transient, else 0.
    """
    n = data.shape[0]
    # Of the right size: the first step is linear in the fluxes, the others are not.
    zero = jnp.zeros(n, data.dtype)
    scene = Scene(
        [
            Sersic(scale, host_x, host_y, _like(3.0, data), _like(1.5, data), zero[:2] * 0),
            PointSource(zero, x, y),
        ],
        ConstantBackground(zero),
    )
    free = free_numbers(
        scene,
        lambda s: (
            *(getattr(s.sources[0].members, name) for name in _HOST),
            s.sources[1].members.flux,
            getattr(s.background, "coefficients"),  # noqa: B009
        ),
    )
    problem = make_problem(data, weight, PixelPSF(psf), free, shape_prior(scene), STANDARD)
    fixed = fixed_terms(scene, problem)
    like = unknowns_of(scene)
    n_linear, n_shape = linear_vector(like).shape[1], like.flat_shape.size
    tie = _ties(scale, on, n_linear, n_shape)
    held = jnp.concatenate([linear_vector(free).reshape(-1), free.flat_shape])

    def unknowns(reduced: Array) -> Unknowns:
        full = tie @ reduced
        return from_vectors(full[: n * n_linear].reshape(n, n_linear), full[n * n_linear :], like)

    def at(reduced: Array) -> tuple[Array, Array, Array, Array]:
        """Objective, chi^2 of each epoch, slope and matrix."""
        known = evaluate(unknowns(reduced), scene, problem, fixed, True)
        slope = jnp.concatenate(
            [linear_vector(known.gradient).reshape(-1), known.gradient.flat_shape]
        )
        matrix = _dense(hold(with_curvature(known.normal, known.curvature), free))
        # A held number has the identity's row; it must not pull on what it is tied to.
        matrix = matrix * held * held[:, None]
        return known.value, known.chi2, tie.T @ (slope * held), tie.T @ matrix @ tie

    n_flux, n_reduced = 1 + 2 * n, 1 + 2 * n + n_shape
    is_shape = jnp.arange(n_reduced) >= n_flux
    start = jnp.zeros(n_reduced, data.dtype).at[n_flux:].set(like.flat_shape)

    # One place in the program where all is evaluated: it is what takes long to compile.
    def step(state: tuple, k: Array) -> tuple[tuple, None]:
        best, trial, damping, _ = state
        new = (trial, *at(trial))
        better = new[1] <= best[1] + 1e-6 * jnp.abs(new[1])
        done = better & (best[1] - new[1] < 0.02)
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)
        damping = jnp.clip(jnp.where(better, damping / 5, damping * 6), 1e-7, 1e5)
        # The fluxes first, at the shapes of the start.
        extra = jnp.where(is_shape, jnp.where(k == 0, 1e8, damping), damping * 1e-3)
        move = -_solve(best[4], best[3], extra)
        longest = jnp.max(jnp.where(is_shape, jnp.abs(move), 0))
        move = move * jnp.minimum(1, _LONGEST / jnp.maximum(longest, 1e-9))
        return (best, best[0] + move, damping, done), None

    nowhere = jnp.zeros((n_reduced, n_reduced), data.dtype)
    best = (start, _like(jnp.inf, data), zero, jnp.zeros_like(start), nowhere)
    state, _ = jax.lax.scan(
        step, (best, start, _like(1e-2, data), jnp.asarray(False)), jnp.arange(_STEPS)
    )
    (reduced, _, chi2, _, matrix), _, _, converged = state
    variance = jnp.diagonal(_inverse(matrix))
    error = jnp.sqrt(jnp.maximum(variance, 0))
    found = unknowns(reduced)
    used = jnp.maximum(jnp.sum(weight > 0, axis=(1, 2)), 1)
    return TiedFit(
        reduced[1 : 1 + n] * on,
        jnp.where(on > 0, error[1 : 1 + n], 0),
        chi2 / used,
        reduced[0],
        error[0],
        found.shape[0][0, 0],
        found.shape[0][0, 1],
        converged,
    )


_fit_all = jax.jit(jax.vmap(fit_tied, in_axes=(0, 0, 0, None, None, 0, 0, 0, 0)))


def _like(value: float, array: Array) -> Array:
    return jnp.asarray(value, array.dtype)


def _ties(scale: Array, on: Array, n_linear: int, n_shape: int) -> Array:
    """Matrix from (host, transient and sky of each epoch, shapes) to all numbers of the fit."""
    n = scale.size
    band = np.arange(n)
    tie = jnp.zeros((n * n_linear + n_shape, 1 + 2 * n + n_shape), scale.dtype)
    tie = tie.at[band * n_linear, 0].set(scale)
    tie = tie.at[band * n_linear + 1, 1 + band].set(scale * on)
    tie = tie.at[band * n_linear + 2, 1 + n + band].set(1)
    shape = np.arange(n_shape)
    return tie.at[n * n_linear + shape, 1 + 2 * n + shape].set(1)


def _dense(normal: Normal) -> Array:
    """The whole matrix: the unknowns of each band in turn, then the shapes."""
    n, n_linear, n_shape = normal.cross.shape
    cross = normal.cross.reshape(n * n_linear, n_shape)
    linear = jnp.zeros((n * n_linear, n * n_linear), cross.dtype)
    for b in range(n):
        part = slice(b * n_linear, (b + 1) * n_linear)
        linear = linear.at[part, part].set(normal.band[b])
    return jnp.concatenate(
        [
            jnp.concatenate([linear, cross], axis=1),
            jnp.concatenate([cross.T, normal.shape], axis=1),
        ]
    )


def _scaled(matrix: Array) -> tuple[Array, Array]:
    """The matrix with a diagonal of ones; what nothing depends on is held."""
    diagonal = jnp.diagonal(matrix)
    on = diagonal > 0
    scale = jnp.where(on, 1 / jnp.sqrt(jnp.where(on, diagonal, 1)), 0)
    return matrix * scale * scale[:, None] + jnp.diag(jnp.where(on, 0.0, 1.0)), scale


def _solve(matrix: Array, right: Array, extra: Array) -> Array:
    unit, scale = _scaled(matrix)
    ridge = 20 * jnp.finfo(matrix.dtype).eps
    lower = jnp.linalg.cholesky(unit + jnp.diag(extra + ridge))
    return scale * jax.scipy.linalg.cho_solve((lower, True), scale * right)


def _inverse(matrix: Array) -> Array:
    unit, scale = _scaled(matrix)
    ridge = 20 * jnp.finfo(matrix.dtype).eps
    one = jnp.eye(len(matrix), dtype=matrix.dtype)
    lower = jnp.linalg.cholesky(unit + ridge * one)
    return scale * jax.scipy.linalg.cho_solve((lower, True), one) * scale[:, None]


def _same_size(psfs: list[np.ndarray]) -> list[np.ndarray]:
    """The PSFs of all epochs on stamps of the largest one's size."""
    size = [max(p.shape[k] for p in psfs) for k in (1, 2)]
    return [
        np.pad(p, ((0, 0), *(((s - m) // 2,) * 2 for s, m in zip(size, p.shape[1:], strict=True))))
        for p in psfs
    ]


def _checked(
    epochs: Sequence[Exposure], x: np.ndarray, y: np.ndarray, size: int
) -> tuple[int, int]:
    if not len(epochs):
        raise ValueError("`epochs` is empty; give at least one exposure.")
    shapes = {exposure.shape for exposure in epochs}
    if len(shapes) > 1:
        raise ValueError(f"`epochs` need one shape; got {sorted(shapes)}. Align them first.")
    if size < 9 or size % 2 == 0:
        raise ValueError(f"`size` must be odd and at least 9; got {size}.")
    shape = shapes.pop()
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"`x` and `y` need one shape (source,); got {x.shape} and {y.shape}.")
    near = (x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5)
    if not near.all():
        k = int(np.flatnonzero(~near)[0])
        raise ValueError(f"`x` and `y` must lie on the image; source {k} is at ({x[k]}, {y[k]}).")
    return shape


def _table(found: TiedFit, epochs: Sequence[Exposure], corner: np.ndarray) -> QTable:
    n_sources, n = found.flux.shape
    table = QTable()
    columns: dict[str, Any] = {
        "source": np.repeat(np.arange(n_sources), n),
        "epoch": np.tile(np.arange(n), n_sources),
        "date": np.tile([exposure.header.date or "" for exposure in epochs], n_sources),
        "flux": found.flux.ravel(),
        "flux_err": found.flux_err.ravel(),
        "chi2": found.chi2.ravel(),
        "host_flux": np.repeat(found.host_flux, n),
        "host_flux_err": np.repeat(found.host_flux_err, n),
        "host_x": np.repeat(found.host_x + corner[:, 0], n),
        "host_y": np.repeat(found.host_y + corner[:, 1], n),
        "converged": np.repeat(found.converged, n),
    }
    for name, values in columns.items():
        table[name] = values
        made: Any = table[name]
        made.info.description = _DESCRIPTIONS[name]
    return table
