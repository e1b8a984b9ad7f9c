"""Missing pixels of two images, filled so that the one explains the other. On the host."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.fft import irfft2, rfft2
from scipy.ndimage import binary_erosion, find_objects, label
from scipy.sparse import csr_array
from scipy.sparse.linalg import cg

from diffdeblend.fourier import fast_length
from diffdeblend.psf.stamps import psf_stamps
from diffdeblend.subtract.filters import EPSILON
from diffdeblend.subtract.inputs import BandPair

# Pixels beyond the half width of a PSF that have a say in a missing one.
_MARGIN = 5
# Holes share the PSFs of the middle of such a cell; large ones have their own.
_CELL = 128
_STEPS = 30
# What the data do not say stays as it is: a share of what a pixel that one image lacks is known by.
_RIDGE = 1e-4
# More unknowns than this are faster found with transforms of all of the image.
MOST = 60_000


def fill_missing(
    pair: BandPair,
    gamma: float,
    beta: float,
    shift: Any,
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
    r"""Both images with values of missing pixels that leave least in the proper difference.

    The difference is white noise where nothing is new, thus its sum of squares is smallest for
    the most likely values: a column through a star that one image lacks is filled as the other
    image has it, and the core that both lack so that nothing rings around it. The squares have
    the matrix $K_{nn}(p - p')$ between missing pixels of N, where $K_{nn}$ is the autocorrelation
    of the filter of N; likewise $K_{nr}$ and $K_{rr} = \delta - K_{nn}$. Missing pixels are few,
    so this is a sparse system, with the PSFs and the shift of their place.

    - `pair`: with first guesses in its holes.
    - `gamma`: background of the new image that is taken off.
    - `beta`: flux of a star in the new image over that in the reference.
    - `shift`: function of x and y, arrays, that gives dx and dy.
    """
    new, reference = pair.new - pair.new.dtype.type(gamma), np.array(pair.reference)
    holes = pair.missing_new, pair.missing_reference
    y, x, image = _unknowns(holes)
    if not y.size:
        return new, reference
    group, middle_x, middle_y = _groups(holes[0] | holes[1], y, x)
    stamps = [
        psf_stamps(psf, pair.band, middle_x, middle_y).astype(np.float32)
        for psf in (pair.psf_new, pair.psf_reference)
    ]
    reach = max(s.shape[-1] for s in stamps) // 2 + _MARGIN
    scaled = beta * pair.sigma_reference / pair.sigma_new
    dx, dy = (np.asarray(v, np.float32) for v in shift(middle_x, middle_y))
    kernels = _kernels(stamps[0], stamps[1], scaled, dx, dy, reach)
    scale = np.float32(pair.sigma_new), np.float32(pair.sigma_reference)
    images = [
        np.pad(v / s, reach, "symmetric") for v, s in zip((new, reference), scale, strict=True)
    ]
    right, matrix = _system(images, kernels, y, x, image, group, reach)
    solution, _ = cg(matrix, right, maxiter=_STEPS, rtol=1e-4)
    for k, values in enumerate((new, reference)):
        mine = image == k
        values[y[mine], x[mine]] += scale[k] * solution[mine].astype(values.dtype)
    return new, reference


def _unknowns(holes: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Row, column and image (0 or 1) of every missing pixel."""
    places = [np.divmod(np.flatnonzero(hole), hole.shape[1]) for hole in holes]
    y, x = (np.concatenate([place[axis] for place in places]) for axis in (0, 1))
    return y, x, np.repeat([0, 1], [len(place[0]) for place in places])


def _groups(
    missing: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[Int[np.ndarray, "unknown"], np.ndarray, np.ndarray]:
    """Which unknowns share their PSFs, and the places (x, y) of these."""
    key = (y // _CELL) * (missing.shape[1] // _CELL + 1) + x // _CELL
    for number, box in enumerate(core_boxes(missing), start=1):
        inside = (y >= box[0].start) & (y < box[0].stop) & (x >= box[1].start) & (x < box[1].stop)
        # What is larger than a cell has the PSFs of its parts.
        if max(side.stop - side.start for side in box) <= _CELL:
            key[inside] = -number
    _, group = np.unique(key, return_inverse=True)
    count = np.bincount(group)
    return group, np.bincount(group, x) / count, np.bincount(group, y) / count


def core_boxes(missing: np.ndarray) -> list[tuple[slice, slice]]:
    """Boxes of holes that are at least 3 x 3 pixels large, two pixels wider than their cores."""
    labelled, count = label(binary_erosion(missing, np.ones((3, 3), bool)))  # type: ignore[misc]
    if not count:
        return []
    ny, nx = missing.shape
    return [
        (
            slice(max(box[0].start - 2, 0), min(box[0].stop + 2, ny)),
            slice(max(box[1].start - 2, 0), min(box[1].stop + 2, nx)),
        )
        for box in find_objects(labelled)
        if box is not None
    ]


def _kernels(
    psf_new: Float[np.ndarray, "place h w"],
    psf_reference: Float[np.ndarray, "place g v"],
    scaled: float,
    dx: Float[np.ndarray, "place"],
    dy: Float[np.ndarray, "place"],
    reach: int,
) -> list[list[Float[np.ndarray, "place size size"]]]:
    """K of each image with each, as weights of the pixels around a place, in units of the noise."""
    side = fast_length(3 * reach)
    hats = [_hat(psf, side) for psf in (psf_new, psf_reference)]
    power = [np.real(hat) ** 2 + np.imag(hat) ** 2 for hat in hats]
    floor = np.float32(EPSILON * (1 + scaled**2))
    inverse = 1 / (power[1] + np.float32(scaled**2) * power[0] + floor)
    ky = (2 * np.pi * np.fft.fftfreq(side)).astype(np.float32)[:, None]
    kx = (2 * np.pi * np.fft.rfftfreq(side)).astype(np.float32)
    phase_x, phase_y = np.exp(-1j * kx * dx[:, None, None]), np.exp(-1j * ky * dy[:, None, None])
    cross = np.float32(-scaled) * inverse * hats[0] * np.conj(hats[1]) * phase_x * phase_y
    # Pixel p + d is weighted with K(-d): the transform of the conjugate.
    return [
        [_stamp(power[1] * inverse, side, reach), _stamp(np.conj(cross), side, reach)],
        [
            _stamp(cross, side, reach),
            _stamp(np.float32(scaled**2) * power[0] * inverse, side, reach),
        ],
    ]


def _hat(stamps: np.ndarray, side: int) -> np.ndarray:
    """Transforms of stamps of odd sides, the middle pixel on (0, 0)."""
    high, wide = stamps.shape[1:]
    whole = np.zeros((len(stamps), side, side), np.float32)
    whole[:, :high, :wide] = stamps
    return np.asarray(rfft2(np.roll(whole, (-(high // 2), -(wide // 2)), axis=(1, 2))))


def _stamp(planes: np.ndarray, side: int, reach: int) -> np.ndarray:
    image = np.asarray(irfft2(planes, s=(side, side)))
    at = np.arange(-reach, reach + 1) % side
    return np.ascontiguousarray(image[:, at[:, None], at], np.float32)


def _system(
    images: list[np.ndarray],
    kernels: list[list[np.ndarray]],
    y: np.ndarray,
    x: np.ndarray,
    image: np.ndarray,
    group: np.ndarray,
    reach: int,
) -> tuple[Float[np.ndarray, "unknown"], Any]:
    """Right side and matrix of the normal equations; images with `reach` pixels around them."""
    size = 2 * reach + 1
    width = images[0].shape[1]
    # Which unknown a pixel of an image is: those of the mirror image are known.
    numbers = [np.zeros(one.size, np.int32) for one in images]
    place = (y + reach) * width + x + reach
    for k, number in enumerate(numbers):
        number[place[image == k]] = np.flatnonzero(image == k) + 1
    around = (np.arange(-reach, reach + 1)[:, None] * width + np.arange(-reach, reach + 1)).ravel()
    right = np.zeros(y.size, np.float32)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for k in (0, 1):
        for one in np.unique(group[image == k]):
            mine = np.flatnonzero((group == one) & (image == k))
            near = place[mine][:, None] + around
            for other in (0, 1):
                kernel = kernels[k][other][one].reshape(size * size)
                right[mine] -= images[other].take(near) @ kernel
                unknown = numbers[other].take(near).ravel()
                known = np.flatnonzero(unknown)
                row, column = np.divmod(known, size * size)
                entries.append((mine[row], unknown[known] - 1, kernel[column]))
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = csr_array((values, (rows, columns)), shape=(y.size, y.size))
    # Two places of a pair may have different PSFs.
    matrix = (matrix + matrix.T) * np.float32(0.5)
    ridge = csr_array((np.full(y.size, _RIDGE, np.float32), (np.arange(y.size),) * 2))
    return right, matrix + ridge
