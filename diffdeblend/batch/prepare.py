"""From a blend to the task of fitting it: units, model error, stamp, start. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.task import Task, first_guess
from diffdeblend.batch.trim import nearest_pixel, sources_box, trimmed
from diffdeblend.components import Kind
from diffdeblend.deblend.start import psf_half_radius, radii_in_image
from diffdeblend.detect.peaks import psf_images, sky_level
from diffdeblend.fourier import mode_counts
from diffdeblend.grid import Quality
from diffdeblend.psf import AbstractPSF

# Half-light radius that a source is expected to have, at most, in units of the PSF's.
_TYPICAL = 1.2
# Rough signal-to-noise ratio from which a galaxy shows more than one component.
_BRIGHT = 500.0
# A median of that many pixels knows the sky to a fiftieth of the noise; of all, it takes as long
# as the fit.
_SKY_PIXELS = 2500
# Of so many PSFs each is looked at; of more, so many.
_MANY_PSFS = 64
# Highest modes in units of Nyquist, for drawing and for the exact matrix.
_CUTS, _MATRIX_CUTS = (0.7, 0.78, 0.9, 1.0), (0.5, 0.7, 1.0)


@dataclass
class Preparation:
    """Turns blends into tasks; remembers the widths of PSFs that it has seen.

    - `model_error`: fraction of the local light by which models may be wrong.
    - `sky_terms`: coefficients that a sky has which is still in the data.
    - `trim`: whether to cut stamps down to where the sources are.
    - `index`: Sersic index to start from.
    - `position_error`: standard deviation of the positions given, in pixels.
    - `bright_kind`: what sources are taken for whose light is so bright that the simplest galaxy
        will not do; None for no difference.
    - `sizes`: heights and widths of stamps that programs are compiled for.
    """

    model_error: float
    sky_terms: int
    trim: bool
    index: float
    sizes: tuple[int, ...]
    position_error: float = 0.5
    bright_kind: Kind | None = None

    def __post_init__(self):
        # Kept beside its PSF, so that no other PSF can get the same id.
        self._radii: dict[int, tuple[AbstractPSF, float]] = {}

    def task(self, blend: Blend, kind: Int[np.ndarray, "source"]) -> Task:
        """The task of fitting a blend with sources of these kinds."""
        psf_radius = self._psf_radius(blend.psf)
        level = np.zeros(blend.n_bands)
        if self.sky_terms:
            step = max(1, int(np.sqrt(blend.data[0].size / _SKY_PIXELS)))
            few, used = blend.data[:, ::step, ::step], blend.weight[:, ::step, ::step] > 0
            level = np.where(used.any(axis=(1, 2)), sky_level(few, used), 0)
        light = blend.data - level.astype(blend.data.dtype)[:, None, None]
        weighted = np.einsum("byx,byx->yx", blend.weight, light)
        depth = blend.weight.sum(axis=0)
        if self.trim:
            box = sources_box(weighted, depth, blend.positions, psf_radius)
            blend = trimmed(blend, box)
            part = (slice(box[1], box[3]), slice(box[0], box[2]))
            light, weighted, depth = light[:, *part], weighted[part], depth[part]
        safe = np.where(depth > 0, depth, 1)
        image, noise = weighted / safe, np.where(depth > 0, 1 / np.sqrt(safe), np.inf)
        radius = radii_in_image(image, noise, blend.positions, psf_radius)
        # A faint source in the light of a bright one looks wide and bright.
        peak = own_light(image, blend.positions)
        home = np.minimum(radius, _TYPICAL * psf_radius)
        radius = np.where(peak > 0.3 * peak.max(), radius, home)
        if self.bright_kind is not None:
            pixel = nearest_pixel(blend.positions, image.shape)
            snr = peak * radius * np.sqrt(np.pi * depth[pixel[:, 1], pixel[:, 0]])
            kind = np.where(
                (snr > _BRIGHT) & (radius > 0.5 * psf_radius), int(self.bright_kind), kind
            )
        weight = self._lenient(blend.weight, light)
        unit = noise_unit(blend.weight)
        of_band = unit.astype(blend.data.dtype)[:, None, None]
        scaled = replace(blend, data=blend.data / of_band, weight=weight * of_band * of_band)
        return Task(
            scaled,
            unit,
            first_guess(
                blend.positions, radius, home, kind, self.index, (blend.n_bands, self.sky_terms)
            ),
            self.sizes,
            self.position_error,
        )

    def _lenient(self, weight: np.ndarray, light: np.ndarray) -> np.ndarray:
        """Weights that allow for models wrong by a fraction of the light."""
        if self.model_error == 0:
            return weight
        # Smoothed over three pixels: the allowance must not follow the noise.
        smooth = gaussian_filter(light, (0, 1.0, 1.0), truncate=3.0)
        allowance = (self.model_error * np.maximum(smooth, 0)) ** 2
        return weight / (1 + weight * allowance)

    def _psf_radius(self, psf: AbstractPSF) -> float:
        if id(psf) not in self._radii:
            self._radii[id(psf)] = (psf, psf_half_radius(psf))
        return self._radii[id(psf)][1]


def own_light(
    image: Float[np.ndarray, "y x"], positions: Float[np.ndarray, "source 2"]
) -> Float[np.ndarray, "source"]:
    """Brightness at each position, less that on the other side of the brightest source."""
    pixel = nearest_pixel(positions, image.shape)
    peak = image[pixel[:, 1], pixel[:, 0]]
    brightest = int(np.argmax(peak))
    opposite = nearest_pixel(2 * positions[brightest] - positions, image.shape)
    other = np.maximum(image[opposite[:, 1], opposite[:, 0]], 0)
    return np.where(np.arange(len(peak)) == brightest, peak, peak - other)


def noise_unit(weight: Float[np.ndarray, "band y x"]) -> Float[np.ndarray, "band"]:
    """A power of two near the noise of each band: data in it need no care in float32.

    A power of two changes no bit but the exponent: data in another unit give the same fit.
    """
    largest = weight.max(axis=(1, 2)).astype(float)
    with np.errstate(divide="ignore"):
        exponent = np.where(largest > 0, np.round(-0.5 * np.log2(largest)), 0)
    return 2.0**exponent


def quality_for(psfs: Sequence[AbstractPSF]) -> Quality:
    """How finely to draw what is seen through these PSFs.

    Modes that are left out hold less than a millionth of the power of a star, and less than a
    hundredth of what fixes its position in the exact matrix.
    """
    seen = {id(psf): psf for psf in psfs}
    if len(seen) > _MANY_PSFS:
        seen = dict(list(seen.items())[:: len(seen) // _MANY_PSFS])
    # Half of the plane: the other has the same power.
    kx, ky = 2 * np.fft.rfftfreq(128), 2 * np.abs(np.fft.fftfreq(128))[:, None]
    ring = np.rint(64 * np.maximum(kx, ky)).astype(int).ravel()
    counts, squared = mode_counts(128), kx**2 + ky**2
    cut, matrix = _CUTS[0], _MATRIX_CUTS[0]
    for psf in seen.values():
        power = counts * np.abs(np.fft.rfft2(psf_images(psf, 61), (128, 128))) ** 2
        cut = max(cut, _enough(power, ring, _CUTS, 1e-6))
        matrix = max(matrix, _enough(power * squared, ring, _MATRIX_CUTS, 1e-2))
    # At 1.2 the wings of bright galaxies come back and move their flux by most of a sigma.
    return Quality(padding=1.5, cut=cut, corrections=False, matrix=matrix)


def _enough(power: np.ndarray, ring: np.ndarray, cuts: Sequence[float], left_out: float) -> float:
    """The least cut beyond which there is next to nothing, in any band.

    - `ring`: of each mode, its highest frequency along an axis in 64ths of Nyquist.
    """
    by_ring = np.stack([np.bincount(ring, band.ravel()) for band in power])
    for cut in cuts:
        beyond = by_ring[:, int(64 * cut) + 1 :].sum(axis=1)
        if (beyond <= left_out * by_ring.sum(axis=1)).all():
            return cut
    return cuts[-1]
