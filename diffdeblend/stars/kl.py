"""Principal components of the stars' images: the Karhunen-Loeve basis of a PSF."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float
from scipy.ndimage import gaussian_filter

from diffdeblend.polynomials import chebyshev_design, n_terms
from diffdeblend.psf import PSFBasis


@dataclass(frozen=True, eq=False)
class KarhunenLoeve:
    """A PSF from the principal components of star images. Host side.

    - `psf`: as many components as were kept.
    - `power`: share of each component in the power of all, the largest first, shape `(n,)`; those
        kept are the first.
    - `at_stars`: what the fields of `psf` were fitted to, shape `(basis, n)`.
    """

    psf: PSFBasis
    power: Float[np.ndarray, "n"]
    at_stars: Float[np.ndarray, "basis n"]

    @property
    def n_basis(self) -> int:
        """How many components were kept."""
        return self.psf.n_basis


def kl_psf(
    stamps: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    shape: tuple[int, int],
    *,
    inf_loss: float | None = None,
    n_basis: int | None = None,
    degree: int = 3,
    remove_mean: bool = True,
    smooth: float = 0.0,
) -> KarhunenLoeve:
    r"""PSF as a sum of the principal components of star images with fields fitted to the stars.

    With the covariance $C_{ij}$ of the pixels of stars i and j and its eigenvectors $v_k$, the
    images are $p_k = \sum_j v_{jk}\, o_j$, and the field $a_k$ is a polynomial through the values
    $v_{jk}$ at the stars. A larger `inf_loss` gives the first ones of the same basis.

    It has the noise of the stars in it, and the jitter of stamps that are not centred; the
    profile that `determine_psf` fits has neither.

    - `stamps`: of the stars, without sky, shape `(n, h, w)`, `h` and `w` odd; each is brought to
        unit sum.
    - `x`, `y`: places of the stars, shape `(n,)`, in pixels.
    - `shape`: pixels of the image, (ny, nx).
    - `inf_loss`: share of the stars' power that may be left out; default 0.25. Of 1 component the
        field is a constant.
    - `n_basis`: components to keep, in place of `inf_loss`.
    - `degree`: of the fields; lowered to what the number of stars supports.
    - `remove_mean`: whether each stamp's mean over its pixels is taken off for the covariance.
    - `smooth`: sigma in pixels of a Gaussian with which the components are smoothed; 0 for none.
        It widens the PSF.

    **Raises:** `ValueError` for shapes that disagree, values that are not finite, stars without
    light, or settings out of range.

    ??? cite
        Lauer (2002), SPIE 4847, 167, section 3.
    """
    flat, size = _flat_stamps(stamps)
    n = len(flat)
    x, y = (np.asarray(axis, dtype=float) for axis in (x, y))
    for name, axis in (("x", x), ("y", y)):
        if axis.shape != (n,) or not np.isfinite(axis).all():
            raise ValueError(
                f"`{name}` needs one finite number for each of the {n} stars; "
                f"got shape {axis.shape}."
            )
    if inf_loss is not None and (n_basis is not None or not 0 <= inf_loss < 1):
        raise ValueError(
            "`inf_loss` must be at least 0 and below 1, and stand without `n_basis`; got "
            f"{inf_loss} and {n_basis}."
        )
    if n_basis is not None and not 1 <= n_basis <= n:
        raise ValueError(f"`n_basis` must be between 1 and the {n} stars; got {n_basis}.")
    if not (np.isfinite(smooth) and smooth >= 0):
        raise ValueError(f"`smooth` must be a finite number of at least 0; got {smooth}.")
    about = flat - flat.mean(axis=1, keepdims=True) if remove_mean else flat
    power, vectors = np.linalg.eigh(about @ about.T)
    power, vectors = np.maximum(power[::-1], 0), vectors[:, ::-1]
    # A vector's sign is arbitrary: let the first image be of positive light, and others so.
    sign = np.sign(vectors.sum(axis=0))
    vectors = vectors * np.where(sign == 0, 1, sign)
    power = power / power.sum()
    keep = n_basis
    if keep is None:
        left = 1 - np.cumsum(power)
        keep = int(np.argmax(left <= (0.25 if inf_loss is None else inf_loss) + 1e-12)) + 1
    images = (vectors[:, :keep].T @ flat).reshape(keep, *size)
    if smooth:
        images = gaussian_filter(images, smooth, axes=(1, 2))
    at_stars = vectors[:, :keep].T
    degree, coefficients = _fitted_fields(at_stars, x, y, shape, degree)
    psf = PSFBasis(images[None], coefficients[None], shape, degree)
    return KarhunenLoeve(psf, power, at_stars)


def _fitted_fields(
    at_stars: Float[np.ndarray, "basis n"],
    x: np.ndarray,
    y: np.ndarray,
    shape: tuple[int, int],
    degree: int,
) -> tuple[int, Float[np.ndarray, "basis term"]]:
    """Degree, and coefficients of the fields through the stars."""
    if int(degree) != degree or degree < 0:
        raise ValueError(f"`degree` must be an integer of at least 0; got {degree}.")
    if len(at_stars) == 1:
        return 0, np.ones((1, 1))
    for trial in range(int(degree), -1, -1):
        design = chebyshev_design(x, y, shape, trial)
        # As many stars as terms would follow each star's noise.
        if len(x) >= 2 * n_terms(trial) and np.linalg.cond(design) < 1e4:
            return trial, np.linalg.lstsq(design, at_stars.T, rcond=None)[0].T
    return 0, at_stars.mean(axis=1, keepdims=True)


def _flat_stamps(stamps: ArrayLike) -> tuple[Float[np.ndarray, "n pixel"], tuple[int, int]]:
    cube = np.asarray(stamps, dtype=float)
    if cube.ndim != 3 or 0 in cube.shape or cube.shape[1] % 2 == 0 or cube.shape[2] % 2 == 0:
        raise ValueError(f"`stamps` needs shape (n, h, w), h and w odd; got {cube.shape}.")
    total = cube.sum(axis=(1, 2), keepdims=True)
    if not (np.isfinite(cube).all() and (total > 0).all()):
        raise ValueError("`stamps` must be finite, each with a positive sum.")
    return (cube / total).reshape(len(cube), -1), (cube.shape[1], cube.shape[2])
