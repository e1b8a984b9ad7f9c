"""The sky of one raw image and its noise, fast: between the sources, with what slopes taken out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from diffdeblend.background.mesh import estimate_background
from diffdeblend.background.mesh_repair import fill_holes, filter_mesh, spline_matrix
from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.widths import FWHM_PER_SIGMA

# Standard deviation of a Gaussian cut at three of its own: the clipped scatter is that too small.
_CLIPPED = 0.9865783
_ROUNDS = 3
# Pixels from one to the next of those that the first look is taken of.
_SKIP = 2
# A box of which less is left takes its values from its neighbours.
_LEAST = 0.1
# What slopes across the image: a spline of boxes would make it flat in the outer half-boxes.
_DEGREE = 2


@dataclass(frozen=True, repr=False)
class Sky:
    """Level and noise of the sky at every pixel, in the unit of the image.

    - `level`, `rms`: shape `(y, x)`, float32.
    - `sources`: true where something stood out, with a margin; shape `(y, x)`.
    - `level_mesh`, `rms_mesh`: of the boxes, shape `(my, mx)`. `box_size`: of a box, `(ny, nx)`.
    """

    level: Float[np.ndarray, "y x"]
    rms: Float[np.ndarray, "y x"]
    sources: Bool[np.ndarray, "y x"]
    level_mesh: Float[np.ndarray, "my mx"]
    rms_mesh: Float[np.ndarray, "my mx"]
    box_size: tuple[int, int]

    def __repr__(self) -> str:
        return (
            f"<Sky boxes of {self.box_size}: median {np.median(self.level_mesh):.6g}, "
            f"rms {np.median(self.rms_mesh):.6g}>"
        )


def measure_sky(
    image: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    *,
    box_size: int = 128,
    fwhm: float = 3.0,
    n_sigma: float = 3.0,
    grow: int = 6,
) -> Sky:
    """Level and noise of the sky between the sources.

    A clipped level of every second pixel says what stands out from the image smoothed by the width
    of a star; there, and `grow` pixels around, it is masked. What is left is clipped at three
    standard deviations about its mean, box by box. The scatter is brought to that of a whole
    Gaussian: clipping makes it 1.3 % too small. A quadratic over the image is taken out first and
    given back, so that a slope goes on to the border.

    - `bad`: true where a pixel is not to be used.
    - `box_size`: about so many pixels; boxes are made so that they divide the image evenly.
    - `fwhm`: of a star, in pixels. `n_sigma`: what stands out, in sigma of the smoothed image.

    **Raises:** `ValueError` if no pixel can be used, or the sky does not vary at all.
    """
    if bad.all():
        raise ValueError("`mask` leaves no pixel of `image` to measure the sky on.")
    box = tuple(int(np.ceil(n / _boxes(n, box_size))) for n in image.shape)
    first = _first_look(image, bad, box)
    slope = _slope(first.mesh, box, image.shape)
    flat = image - slope
    flat[bad] = 0
    level, rms = first.mesh - _slope_at_boxes(first.mesh, box), first.rms
    # The first rms has clipped wings of sources in it; twice as high a mask would miss them.
    seen = _standing_out(flat, bad, level, rms, box, fwhm, n_sigma, grow)
    if (seen | bad).mean() > 0.98:
        seen = np.zeros_like(bad)
    hidden = seen | bad
    level, rms = _between(flat, hidden, level, rms, box)
    # Anew from what is left without the sources: the first look was too rough for the border.
    level_mesh = level + _slope_at_boxes(first.mesh, box)
    level = filter_mesh((level_mesh - _slope_at_boxes(level_mesh, box))[None], (3, 3))[0]
    rms = filter_mesh(rms[None], (3, 3))[0]
    if not (rms > 0).all():
        raise ValueError("`image` has a sky without noise: more than half of it has one value.")
    return Sky(
        level=_slope(level_mesh, box, image.shape) + _at_pixels(level, box, image.shape),
        rms=_at_pixels(rms, box, image.shape),
        sources=seen,
        level_mesh=level + _slope_at_boxes(level_mesh, box),
        rms_mesh=rms,
        box_size=(box[0], box[1]),
    )


def _boxes(length: int, box_size: int) -> int:
    """How many along an axis: at least four, if they keep 48 pixels."""
    return max(round(length / box_size), min(4, length // 48), 1)


@dataclass(frozen=True)
class _Look:
    mesh: np.ndarray
    rms: np.ndarray


def _first_look(image: np.ndarray, bad: np.ndarray, box: tuple[int, ...]) -> _Look:
    few, few_bad, step = image[::_SKIP, ::_SKIP], bad[::_SKIP, ::_SKIP], _SKIP
    if few_bad.mean() > 0.9:
        few, few_bad, step = image, bad, 1
    # Boxes are a whole number of the pixels looked at, so these begin late by few pixels.
    small = max(1, -(-box[0] // step)), max(1, -(-box[1] // step))
    # Zero is what numbers are where they are not used: NaN would draw a warning.
    found = estimate_background(
        np.where(few_bad, np.float32(0), few).astype(np.float32),
        small,
        mask=few_bad,
        exclude_percentile=None if few_bad.mean() > 0.5 else 90.0,
        backend="host",
    )
    shape = tuple(-(-n // b) for n, b in zip(image.shape, box, strict=True))
    mesh = np.asarray(found.background_mesh, np.float64)[: shape[0], : shape[1]]
    rms = np.asarray(found.background_rms_mesh, np.float64)[: shape[0], : shape[1]]
    return _Look(_padded(mesh, shape), _padded(rms, shape))


def _padded(mesh: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    short = [(0, n - m) for n, m in zip(shape, mesh.shape, strict=True)]
    return np.pad(mesh, short, mode="edge")


def _powers(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Powers of x and y: no more along an axis than its boxes can tell."""
    along_y, along_x = (min(_DEGREE, n - 1) for n in shape)
    all_powers = ((i, j) for i in range(along_x + 1) for j in range(along_y + 1))
    return [(i, j) for i, j in all_powers if i + j <= _DEGREE]


def _design(shape: tuple[int, ...], box: tuple[int, ...]) -> np.ndarray:
    v, u = (_middles(n, b) for n, b in zip(shape, box, strict=True))
    return np.stack([np.outer(v**j, u**i).ravel() for i, j in _powers(shape)], -1)


def _middles(n: int, box: int) -> np.ndarray:
    """Middles of boxes, in -1..1 over all of them."""
    return ((np.arange(n) + 0.5) * box - 0.5) / max(n * box - 1, 1) * 2 - 1


def _coefficients(mesh: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    design = _design(mesh.shape, box)
    weight = np.ones(mesh.size)
    fit = np.zeros(design.shape[1])
    for _ in range(4):
        fit = np.linalg.lstsq(design * weight[:, None], mesh.ravel() * weight, rcond=None)[0]
        off = np.abs(mesh.ravel() - design @ fit)
        scale = MAD_TO_STD * np.median(off) + 1e-30
        # A box full of a galaxy must not tilt the sky of all others.
        weight = 1 / np.sqrt(1 + (off / (3 * scale)) ** 2)
    return fit


def _slope_at_boxes(mesh: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    return (_design(mesh.shape, box) @ _coefficients(mesh, box)).reshape(mesh.shape)


def _slope(mesh: np.ndarray, box: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    v, u = (
        np.arange(n) / max(m * b - 1, 1) * 2 - 1
        for n, m, b in zip(shape, mesh.shape, box, strict=True)
    )
    # A product of two small matrices, not a full map per term.
    table = np.zeros((_DEGREE + 1, _DEGREE + 1))
    for value, (i, j) in zip(_coefficients(mesh, box), _powers(mesh.shape), strict=True):
        table[j, i] = value
    along_x = table @ (u[None, :] ** np.arange(_DEGREE + 1)[:, None])
    along_y = v[:, None] ** np.arange(_DEGREE + 1)[None, :]
    return (along_y @ along_x).astype(np.float32)


def _at_pixels(mesh: np.ndarray, box: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    matrix_y, matrix_x = (
        spline_matrix(n, b, m) for n, b, m in zip(mesh.shape, box, shape, strict=True)
    )
    full = (matrix_y @ mesh @ matrix_x.T).astype(np.float32)
    # A spline overshoots.
    return np.clip(full, np.float32(mesh.min()), np.float32(mesh.max()), out=full)


def _standing_out(
    flat: np.ndarray,
    bad: np.ndarray,
    level: np.ndarray,
    rms: np.ndarray,
    box: tuple[int, ...],
    fwhm: float,
    n_sigma: float,
    grow: int,
) -> np.ndarray:
    """Pixels whose smoothed value is far from the sky, above or below, with a margin."""
    width = fwhm / FWHM_PER_SIGMA
    point = np.zeros(2 * int(4 * width + 0.5) + 3)
    point[point.size // 2] = 1
    noise = np.sum(gaussian_filter1d(point, width, truncate=3.0) ** 2)
    smooth = flat - _at_pixels(level, box, flat.shape)
    smooth[bad] = 0
    for axis in (1, 0):
        smooth = gaussian_filter1d(smooth, width, axis=axis, mode="constant", truncate=3.0)
    limit = _at_pixels(rms, box, flat.shape) * np.float32(n_sigma * noise)
    marked = (np.abs(smooth, out=smooth) > limit).view(np.uint8)
    for axis in (1, 0) if grow else ():
        marked = maximum_filter1d(marked, 2 * grow + 1, axis=axis, mode="constant")
    return marked.astype(bool)


def _between(
    flat: np.ndarray, hidden: np.ndarray, level: np.ndarray, rms: np.ndarray, box: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Clipped mean and scatter of what is not hidden, box by box, without sorting."""
    shape = level.shape
    full = [n * b for n, b in zip(shape, box, strict=True)]
    extra = [(0, f - n) for f, n in zip(full, flat.shape, strict=True)]
    cells = (shape[0], box[0], shape[1], box[1])
    values = np.pad(flat, extra).reshape(cells)
    free = np.pad(~hidden, extra).reshape(cells)
    kept = np.zeros(shape)
    for _ in range(_ROUNDS):
        middle = level[:, None, :, None].astype(np.float32)
        reach = (3 * rms)[:, None, :, None].astype(np.float32)
        off = values - middle
        use = free & (np.abs(off) <= reach)
        off *= use
        kept = np.count_nonzero(use, axis=(1, 3)).astype(float)
        some = np.maximum(kept, 1)
        mean = np.einsum("iajb->ij", off) / some
        square = np.einsum("iajb,iajb->ij", off, off) / some
        known = kept >= _LEAST * box[0] * box[1]
        known = known if known.any() else kept == kept.max()
        scatter = np.sqrt(np.maximum(square - mean**2, 0)) / _CLIPPED
        level = np.where(known, level + mean, level)
        rms = np.where(known, scatter, rms)
    holes = ~(kept >= _LEAST * box[0] * box[1])
    if holes.any() and not holes.all():
        level, rms = np.where(holes, np.nan, level), np.where(holes, np.nan, rms)
        level, rms = fill_holes(level[None])[0], fill_holes(rms[None])[0]
    return level, rms
