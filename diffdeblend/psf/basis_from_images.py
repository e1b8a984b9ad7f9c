"""A varying PSF from images of it at a few places."""

import numpy as np
from jaxtyping import ArrayLike, Float

from diffdeblend.polynomials import chebyshev_design, n_terms
from diffdeblend.psf.basis import PSFBasis

_HIGHEST_DEGREE = 4


def psf_basis_from_images(
    images: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    shape: tuple[int, int],
    *,
    n_basis: int | None = None,
    inf_loss: float | None = None,
    degree: int | None = None,
    weight: ArrayLike | None = None,
) -> PSFBasis:
    """The PSF between places where images of it are known: a smooth field in few images. Host side.

    Each pixel is fitted with a polynomial of the place. The first image of the basis is the mean
    over the image; the others are the principal components of what the fit varies by, with zero
    sum. They come in the order of their power: a smaller `n_basis`, or a larger `inf_loss`, gives
    the first ones of the same basis.

    - `images`: at the nodes, shape `(n, h, w)`, or `(n, band, h, w)`; `h` and `w` odd, centred on
        the middle pixel; each brought to unit sum.
    - `x`, `y`: places of the nodes in pixels, shape `(n,)`, any order, no grid needed.
    - `shape`: pixels of the image over which the PSF varies, (ny, nx).
    - `n_basis`: images to keep; default as `inf_loss` says.
    - `inf_loss`: share of the PSF's power (its square, summed over pixels and nodes) that may be
        lost; default 1e-6, thus 0.1 % of its norm. In several bands the one that needs most
        images decides.
    - `degree`: of the fields; default 4, or as high as half as many terms as nodes allow.
    - `weight`: of each node in the fit, shape `(n,)`, such as the square of a star's S/N.

    **Raises:** `ValueError` for shapes that disagree, a stamp without light, nodes too few or too
    badly placed for `degree`, or settings out of range.
    """
    stamps = _checked_images(images)
    x, y = (_checked_axis(name, axis, len(stamps)) for name, axis in (("x", x), ("y", y)))
    w = np.ones(len(stamps)) if weight is None else _checked_axis("weight", weight, len(stamps))
    if (w < 0).any() or not w.any():
        raise ValueError("`weight` must be at least 0, and not all of it 0.")
    if inf_loss is not None and not 0 <= inf_loss < 1:
        raise ValueError(f"`inf_loss` must be at least 0 and below 1; got {inf_loss}.")
    if n_basis is not None and (inf_loss is not None or n_basis < 1):
        raise ValueError(
            f"`n_basis` must be at least 1, and stand without `inf_loss`; got {n_basis} and "
            f"{inf_loss}."
        )
    degree, design = _design(x, y, w, shape, degree)
    # One fit for all pixels: (n, term) against (n, band h w).
    root = np.sqrt(w)[:, None]
    flat = stamps.reshape(len(stamps), -1)
    fitted = np.linalg.lstsq(design * root, flat * root, rcond=None)[0]
    bands = fitted.reshape(fitted.shape[0], *stamps.shape[1:]).swapaxes(0, 1)
    parts = [_components(band, design * root, w.sum()) for band in bands]
    keep = n_basis
    if keep is None:
        lost = 1e-6 if inf_loss is None else inf_loss
        keep = max(int(np.argmax(left <= lost)) + 1 for _, _, left in parts)
    keep = min(keep, parts[0][0].shape[0])
    return PSFBasis(
        np.stack([p[:keep] for p, _, _ in parts]),
        np.stack([a[:keep] for _, a, _ in parts]),
        shape,
        degree,
    )


def _components(
    fitted: Float[np.ndarray, "term h w"], design: Float[np.ndarray, "n term"], total_weight: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, coefficients, and the share of power left out behind each image."""
    terms, height, width = fitted.shape
    flat = fitted.reshape(terms, -1)
    # The mean over the nodes; deviations from it have zero sum, as all stamps have unit sum.
    share = (design.T @ design)[0] / total_weight
    mean = share @ flat
    deviation = flat.copy()
    deviation[0] -= mean
    # Components of the values at the nodes, found among the few terms: design = q r.
    r = np.linalg.qr(design, mode="r")
    u, power, rows = np.linalg.svd(r @ deviation, full_matrices=False)
    coefficients = np.linalg.solve(r, u * power)
    n = min(len(power), terms - 1)
    first = np.eye(1, terms)
    images = np.concatenate([mean[None], rows[:n]]).reshape(-1, height, width)
    left = np.append(np.cumsum((power[:n] ** 2)[::-1])[::-1], 0.0)
    left = left / (total_weight * np.sum(mean**2) + np.sum(power**2))
    # The last one leaves nothing out.
    left[-1] = 0.0
    return images, np.concatenate([first, coefficients.T[:n]]), left


def _design(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, shape: tuple[int, int], degree: int | None
) -> tuple[int, np.ndarray]:
    used = w > 0
    if degree is not None:
        if int(degree) != degree or degree < 0:
            raise ValueError(f"`degree` must be an integer of at least 0; got {degree}.")
        design = chebyshev_design(x, y, shape, int(degree))
        if np.linalg.matrix_rank(design[used]) < n_terms(degree):
            raise ValueError(
                f"`degree` {degree} has {n_terms(degree)} terms, which {used.sum()} nodes at these "
                "places do not fix; give a lower one, or more nodes."
            )
        return int(degree), design
    for trial in range(_HIGHEST_DEGREE, 0, -1):
        design = chebyshev_design(x, y, shape, trial)
        # Hardly fixed is not enough: the fields would run away between the nodes.
        if used.sum() >= 2 * n_terms(trial) and np.linalg.cond(design[used]) < 1e3:
            return trial, design
    return 0, chebyshev_design(x, y, shape, 0)


def _checked_images(images: ArrayLike) -> Float[np.ndarray, "n band h w"]:
    stamps = np.asarray(images, dtype=float)
    if stamps.ndim == 3:
        stamps = stamps[:, None]
    if stamps.ndim != 4 or 0 in stamps.shape:
        raise ValueError(
            f"`images` needs shape (n, h, w) or (n, band, h, w); got {np.shape(images)}."
        )
    total = stamps.sum(axis=(2, 3), keepdims=True)
    if not (np.isfinite(total) & (total > 0)).all():
        raise ValueError("`images` must be finite, each with a positive sum.")
    return stamps / total


def _checked_axis(name: str, values: ArrayLike, n: int) -> Float[np.ndarray, "n"]:
    axis = np.asarray(values, dtype=float)
    if axis.shape != (n,) or not np.isfinite(axis).all():
        raise ValueError(
            f"`{name}` needs one finite number for each of the {n} images; got shape {axis.shape}."
        )
    return axis
