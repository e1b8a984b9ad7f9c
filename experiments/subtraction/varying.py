"""Which filters for a PSF that varies: one a tile, planes within tiles, or a few for all?

Answer: planes within tiles. For the same error they need fewer transforms than terms of low rank
over the whole image, and they do not care how the PSF varies beyond the next tile.

Stars of 3e5 electrons are put all over a field of 1024 x 1024 pixels; the PSFs of the two images
vary by about 15 % in width and 0.1 in shear. What a star leaves in the score is given in units of
its noise, photon noise of the star included. Transforms are counted in those of the whole image,
for the score and its variance; low rank takes four terms for the variance, tiles one each.

Run: `python experiments/subtraction/varying.py`; what it wrote is in `varying.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import galsim
import numpy as np


@dataclass(frozen=True)
class Settings:
    """The field and its noise; variances in electrons squared."""

    side: int = 1024
    stamp: int = 33
    plane: int = 64
    beta: float = 0.8
    variance_new: float = 964.0
    variance_reference: float = 325.0
    flux: float = 3e5
    tiles: tuple[int, ...] = (512, 256, 128)
    ranks: tuple[int, ...] = (4, 6, 8, 10, 12)
    degrees: tuple[int, ...] = (2, 3, 4)


SETTINGS = Settings()


def transfers(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Transfer planes of new and reference at a place."""
    u, v = 2 * x / SETTINGS.side - 1, 2 * y / SETTINGS.side - 1
    bowl = u * u + v * v - 2 / 3
    laws = (
        (
            3.5 * (1 - 0.07 * u + 0.06 * v + 0.05 * bowl),
            0.03 * u + 0.05 * v - 0.02,
            0.03 - 0.05 * u,
        ),
        (
            2.6 * (1 + 0.06 * u + 0.05 * v + 0.04 * bowl),
            0.05 * u - 0.02 * v + 0.02,
            0.04 * v - 0.01,
        ),
    )
    new, reference = (transfer(*law) for law in laws)
    return new, reference


def transfer(fwhm: float, g1: float, g2: float) -> np.ndarray:
    size = SETTINGS.stamp
    profile = galsim.Moffat(beta=3.5, fwhm=fwhm).shear(g1=g1, g2=g2)
    image = profile.drawImage(nx=size, ny=size, scale=1.0).array.astype(float)
    padded = np.zeros((SETTINGS.plane, SETTINGS.plane))
    padded[:size, :size] = image / image.sum()
    return np.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))


def score_filters(x: float, y: float) -> np.ndarray:
    """The two filters of the score at a place, shape (2, ky, kx)."""
    new, reference = transfers(x, y)
    beta, vn, vr = SETTINGS.beta, SETTINGS.variance_new, SETTINGS.variance_reference
    power = vn * abs(reference) ** 2 + vr * beta**2 * abs(new) ** 2 + 1e-8 * (vn + vr * beta**2)
    return np.stack(
        [
            beta * np.conj(new) * abs(reference) ** 2 / power,
            beta**2 * np.conj(reference) * abs(new) ** 2 / power,
        ]
    )


def to_image(plane: np.ndarray) -> np.ndarray:
    return np.fft.irfft2(plane, (SETTINGS.plane, SETTINGS.plane))


def residual(filters: np.ndarray, x: float, y: float) -> float:
    """What a star leaves in the score that these filters make, in sigmas."""
    new, reference = transfers(x, y)
    left = to_image(filters[0] * SETTINGS.beta * new - filters[1] * reference) * SETTINGS.flux
    exact = score_filters(x, y)
    variance = 0.0
    for k, (psf, scale, sky) in enumerate(
        (
            (new, SETTINGS.beta, SETTINGS.variance_new),
            (reference, 1.0, SETTINGS.variance_reference),
        )
    ):
        noise = sky + SETTINGS.flux * scale * to_image(psf)
        variance = variance + to_image(np.fft.rfft2(noise) * np.fft.rfft2(to_image(exact[k]) ** 2))
    return float(np.abs(left / np.sqrt(variance)).max())


def in_tiles(tile: int, planes: bool) -> list[float]:
    """Residuals over the tiles in three corners of the field."""
    left = []
    far = SETTINGS.side - tile
    for x0, y0 in ((0, 0), (far, far), (far, 0)):
        half = tile / 2
        middle = score_filters(x0 + half, y0 + half)
        west, east = (score_filters(x0 + d, y0 + half) for d in (0, tile))
        south, north = (score_filters(x0 + half, y0 + d) for d in (0, tile))
        for u in (-0.5, -0.25, 0, 0.25, 0.5):
            for v in (-0.5, -0.25, 0, 0.25, 0.5):
                plane = (west + east + south + north) / 4 + u * (east - west) + v * (north - south)
                place = x0 + (u + 0.5) * tile, y0 + (v + 0.5) * tile
                left.append(residual(plane if planes else middle, *place))
    return left


def low_rank() -> Callable[[int, int], list[float]]:
    """Residuals with a few filters for the whole field, whose shares are polynomials."""
    axis = np.linspace(0, SETTINGS.side, 9)
    nodes = [(x, y) for y in axis for x in axis]
    filters = np.array([score_filters(*node) for node in nodes])
    flat = filters.view(float).reshape(len(nodes), -1)
    shares, sizes, terms = np.linalg.svd(flat, full_matrices=False)
    rng = np.random.default_rng(0)
    corners = [[20, 20], [1000, 20], [20, 1000], [1000, 1000]]
    places = np.concatenate([rng.uniform(20, SETTINGS.side - 20, (60, 2)), corners])

    def design(x: np.ndarray, y: np.ndarray, degree: int) -> np.ndarray:
        vander = np.polynomial.chebyshev.chebvander
        a, b = (vander(2 * p / SETTINGS.side - 1, degree) for p in (x, y))
        pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        return np.stack([a[:, i] * b[:, j] for i, j in pairs], axis=1)

    def residuals(rank: int, degree: int) -> list[float]:
        known = design(*np.array(nodes).T, degree)
        weights = np.linalg.lstsq(known, shares[:, :rank] * sizes[:rank], rcond=None)[0]
        made = design(*places.T, degree) @ weights @ terms[:rank]
        made = made.view(complex).reshape(len(places), *filters.shape[1:])
        return [residual(f, *place) for f, place in zip(made, places, strict=True)]

    return residuals


def main() -> None:
    rows = []
    for tile in SETTINGS.tiles:
        share = ((tile + 48) / tile) ** 2
        for planes, transforms in ((False, 6), (True, 8)):
            name = f"tiles of {tile}, " + ("planes" if planes else "one filter each")
            rows.append((name, share * transforms, in_tiles(tile, planes)))
    residuals = low_rank()
    for rank in SETTINGS.ranks:
        for degree in SETTINGS.degrees:
            name = f"low rank, {rank} terms of degree {degree}"
            rows.append((name, 8 + rank, residuals(rank, degree)))
    print("| filters | transforms | worst residual, sigma | median |")
    print("|---|---|---|---|")
    for name, transforms, left in rows:
        print(f"| {name} | {transforms:.1f} | {max(left):.2f} | {np.median(left):.2f} |")


if __name__ == "__main__":
    main()
