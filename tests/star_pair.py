"""Two images of a field of stars, of which one has brightened, with all that is true of them."""

from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

SHAPE = (150, 190)
SIGMAS = 1.5, 1.3  # of the Gaussian PSFs, in pixels
SKIES = 300.0, 260.0
GAIN = 2.0


@dataclass(frozen=True)
class Pair:
    """Images as of a camera; `x`, `y`, `flux` of stars in the reference; what is new."""

    new: np.ndarray
    reference: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    beta: float
    shift: tuple[float, float]
    transient: tuple[float, float, float]  # x and y in the new image, flux in the reference's unit


def gaussian_stamp(sigma, size=25, x=0.0, y=0.0):
    """Of unit sum, through square pixels."""
    edges = np.arange(size + 1) - size / 2

    def along(at):
        return np.diff(erf((edges - at) / (np.sqrt(2) * sigma))) / 2

    return along(y)[:, None] * along(x)


def draw(shape, x, y, flux, sigma):
    """Points through a Gaussian PSF."""
    size = 25
    half = size // 2
    image = np.zeros((shape[0] + 2 * half, shape[1] + 2 * half))
    for at_x, at_y, light in zip(x, y, flux, strict=True):
        column, row = round(at_x), round(at_y)
        if not (0 <= column < shape[1] and 0 <= row < shape[0]):
            continue
        stamp = gaussian_stamp(sigma, size, at_x - column, at_y - row)
        image[row : row + size, column : column + size] += light * stamp
    return image[half:-half, half:-half]


def star_pair(
    seed=1, n=40, shape=SHAPE, beta=0.8, shift=(0.2, -0.15), sigmas=SIGMAS, bright=3e4
) -> Pair:
    """A pair with Poisson noise and a transient of S/N some 30."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(6, shape[1] - 7, n), rng.uniform(6, shape[0] - 7, n)
    flux = np.exp(rng.uniform(np.log(bright / 30), np.log(bright), n))
    place = 0.62 * shape[1], 0.41 * shape[0]
    # Alone, so that its flux is told by nothing else.
    near = np.hypot(x - place[0], y - place[1]) < 12
    flux[near] = 0
    light = draw(shape, x, y, flux, sigmas[1])
    new = beta * draw(shape, x + shift[0], y + shift[1], flux, sigmas[0])
    alpha = 3000.0
    new += beta * draw(shape, [place[0]], [place[1]], [alpha], sigmas[0])
    images = []
    for image, sky in ((new, SKIES[0]), (light, SKIES[1])):
        images.append(rng.poisson((image + sky) * GAIN) / GAIN)
    return Pair(*images, x, y, flux, beta, shift, (*place, alpha))


def write_image(path, image, **cards):
    """As a camera does: 16 bits, unsigned; with a WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt, wcs.wcs.crpix, wcs.wcs.crval = (-1e-4, 1e-4), (80, 70), (10.0, -5.0)
    header = wcs.to_header()
    header.update({"GAIN": GAIN, "OBJECT": "a field", "FILTER": "r"} | cards)
    fits.PrimaryHDU(np.round(image).astype(np.uint16), header).writeto(path)
    return path
