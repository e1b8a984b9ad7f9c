"""The proper coadd of epochs: sufficient for whatever comes next, with white noise."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.coadd.scale import Light, flux_ratio, middle_piece
from diffdeblend.coadd.sums import (
    Epoch,
    Maps,
    Plane,
    Sums,
    add_epoch,
    finish_bands,
    make_plane,
)
from diffdeblend.detect.methods import SkyMethod
from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.header import Header
from diffdeblend.planes import with_plane
from diffdeblend.psf import AbstractPSF, PixelPSF

# A median of that many pixels knows the noise to 1/400.
_NOISE_PIXELS = 250_000


class Coadd(eqx.Module):
    """What several epochs say together. All maps have the shape `(band, y, x)`.

    - `exposure`: the proper coadd R: noise of unit variance and without correlation in empty sky,
        with its PSF and the first epoch's WCS. A source of flux f, in the unit of the first epoch,
        has f F_R in it. Variance is 1, that of the empty sky; the header's `gain` is the effective
        one, with which the variance on sources is 1 + light / gain. The mask says INTRP where an
        epoch was filled, and NO_DATA where no epoch saw anything.
    - `F_R`: `(band,)`.
    - `score`: signal-to-noise of a point at each pixel against empty sky: what to detect on.
        Masked pixels of single epochs are allowed for exactly.
    - `flux`, `flux_err`: of a point at each pixel, in the unit of the first epoch; errors with the
        photons of sources, as the epochs' variance tells. NaN and infinity where nothing is known.
    - `n_epochs`: how many epochs use a pixel.
    - `scale`, `sigma`: F and noise of a pixel of empty sky of each epoch, `(epoch, band)`.
    - `effective_gain`: `(band,)`, NaN where an epoch does not tell its gain.

    ??? cite
        Zackay & Ofek (2017), ApJ 836, 188.
    """

    exposure: Exposure
    F_R: Float[Array, "band"]
    score: Float[Array, "band y x"]
    flux: Float[Array, "band y x"]
    flux_err: Float[Array, "band y x"]
    n_epochs: Int[Array, "band y x"]
    scale: Float[Array, "epoch band"]
    sigma: Float[Array, "epoch band"]
    effective_gain: Float[Array, "band"]

    @property
    def psf(self) -> AbstractPSF:
        """That of the coadd."""
        return self.exposure.psf


def coadd(
    epochs: Iterable[Exposure] | Callable[[], Iterable[Exposure]],
    *,
    scale: str | Any = "light",
    shift: Any = None,
    sky: SkyMethod | None = None,
    psf_size: int | None = None,
    passes: int = 2,
) -> Coadd:
    """Add epochs up such that no information on what does not vary is lost.

    Epochs are looked at one at a time, and only sums are kept: memory does not grow with their
    number. Each has its PSF, as in the middle of the image, and its sky taken away.

    - `epochs`: aligned exposures of one shape and the same bands; a list, a function that returns
        an iterator and is called for each pass, or an iterator, for which there is but one pass.
    - `scale`: flux in each epoch of a source that has 1 in the first: `"light"` measures it on
        the brighter pixels of both, `"zero_points"` takes it from the headers; or numbers, one an
        epoch, `(epoch,)`, or `(epoch, band)`.
    - `shift`: position in each epoch minus position in the coadd, in pixels, `(epoch, 2)`, x and y;
        allowed for as a phase in the PSF. None for none.
    - `sky`: a `SkyMethod` as `MeshSky()`, whose level is taken from every epoch first. None where
        that is done.
    - `psf_size`: height and width of the coadd's PSF, odd; by default that of the largest PSF, and
        half as much again.
    - `passes`: in the first, masked pixels of an epoch are filled from around them; in each further
        one by what the coadd before says is there. Epochs without masked pixels need but one.

    **Raises:** `ValueError` for no epochs, epochs that differ in shape or bands, scales or shifts
    that are not one an epoch, or a scale that cannot be measured.
    """
    if passes < 1:
        raise ValueError(f"`passes` must be at least 1; got {passes}.")
    if psf_size is not None and (psf_size < 3 or psf_size % 2 == 0):
        raise ValueError(f"`psf_size` must be odd and at least 3; got {psf_size}.")
    open_epochs, again = _opener(epochs)
    total = _Total(scale, _shifts(shift), sky)
    before = None
    for _ in range(passes if again else 1):
        total = total.emptied()
        for exposure in open_epochs():
            total.add(exposure, before)
        sums = total.checked()
        before = sums
        if not total.masked:
            break
    assert before is not None
    plane = total.plane
    assert plane is not None
    size = _psf_size(psf_size, total.largest, plane)
    return _finished(total, before, finish_bands(before, plane, size))


@dataclass
class _Total:
    """Sums under way. Scales are measured in the first pass and kept for the others."""

    how: Any
    shifts: np.ndarray | None
    sky: SkyMethod | None
    sums: Sums | None = None
    plane: Plane | None = None
    first: Exposure | None = None
    lights: tuple[Light, ...] = ()
    scales: tuple[np.ndarray, ...] = ()
    sigmas: tuple[np.ndarray, ...] = ()
    gains: tuple[float | None, ...] = ()
    largest: int = 0
    number: int = 0
    masked: bool = False

    def emptied(self) -> "_Total":
        return replace(self, sums=None, number=0, gains=(), masked=False)

    def add(self, exposure: Exposure, before: Sums | None) -> None:
        """One more epoch."""
        if self.first is None:
            self._begin(exposure)
        self._check(exposure)
        bands = range(exposure.n_bands)
        image = np.asarray(exposure.image)
        good = np.asarray(exposure.good)
        if self.sky is not None:
            sky = self.sky
            image = np.stack([image[b] - sky(image[b], ~good[b]).level for b in bands])
        self.masked |= not good.all()
        stamps = _stamps(exposure)
        k = self.number
        if len(self.scales) <= k:
            sigma = np.array([_noise(exposure, good, b) for b in bands])
            self.sigmas = (*self.sigmas, sigma)
            self.scales = (*self.scales, self._scale(exposure, image, good, stamps))
        self.gains = (*self.gains, exposure.header.gain)
        dx, dy = np.zeros(2) if self.shifts is None else self._shift(k)
        dtype = exposure.image.dtype
        n = exposure.n_bands
        epoch = Epoch(
            jnp.asarray(np.where(good, image, 0), dtype),
            jnp.asarray(np.where(good, np.asarray(exposure.variance), 1), dtype),
            jnp.asarray(good),
            jnp.asarray(stamps, dtype),
            jnp.asarray(self.scales[k], dtype),
            jnp.asarray(self.sigmas[k], dtype),
            jnp.full(n, dx, dtype),
            jnp.full(n, dy, dtype),
            jnp.full(n, exposure.header.gain or 1.0, dtype),
        )
        assert self.plane is not None
        self.sums = add_epoch(self.sums, epoch, self.plane, before)
        self.number += 1

    def checked(self) -> Sums:
        """The sums after the last epoch."""
        if self.sums is None:
            raise ValueError("`epochs` is empty; a coadd needs at least one.")
        for name, given in (("shift", self.shifts), ("scale", self.how)):
            if given is not None and not isinstance(given, str) and len(given) != self.number:
                raise ValueError(
                    f"`{name}` needs one entry an epoch, {self.number}; got {len(given)}."
                )
        return self.sums

    def _begin(self, exposure: Exposure) -> None:
        stamps = _stamps(exposure)
        self.first = exposure
        # Later epochs may have wider PSFs; the plane has room for twice the first one.
        room = 2 * max(stamps.shape[1:]) + 1
        self.plane = make_plane(exposure.shape, (room, room))

    def _check(self, exposure: Exposure) -> None:
        assert self.first is not None
        if exposure.shape != self.first.shape or exposure.bands != self.first.bands:
            raise ValueError(
                f"`epochs` need one shape and the same bands, {self.first.shape} and "
                f"{self.first.bands}; epoch {self.number} has {exposure.shape} and "
                f"{exposure.bands}. Align them first."
            )
        self.largest = max(self.largest, *_stamps(exposure).shape[1:])

    def _shift(self, k: int) -> np.ndarray:
        assert self.shifts is not None
        if k >= len(self.shifts):
            raise ValueError(f"`shift` needs one entry an epoch; got {len(self.shifts)}.")
        return self.shifts[k]

    def _scale(
        self,
        exposure: Exposure,
        image: np.ndarray,
        good: np.ndarray,
        stamps: np.ndarray,
    ) -> np.ndarray:
        """F of an epoch, `(band,)`."""
        assert self.first is not None
        n = exposure.n_bands
        if isinstance(self.how, str):
            if self.how == "zero_points":
                return _from_zero_points(exposure.header, self.first.header)
            if self.how != "light":
                raise ValueError(
                    f"`scale` must be light, zero_points or numbers; got {self.how!r}."
                )
            variance = np.asarray(exposure.variance)
            lights = tuple(
                middle_piece(image[b], variance[b], good[b], stamps[b]) for b in range(n)
            )
            if self.number == 0:
                self.lights = lights
                return np.ones(n)
            moved = np.zeros(2) if self.shifts is None else self._shift(self.number)
            if self.shifts is not None:
                moved = moved - self.shifts[0]
            found = [flux_ratio(a, b, *moved) for a, b in zip(self.lights, lights, strict=True)]
            return np.array(found)
        if self.number >= len(self.how):
            raise ValueError(f"`scale` needs one entry an epoch; got {len(self.how)}.")
        given = np.broadcast_to(np.asarray(self.how[self.number], float), (n,))
        if not (np.isfinite(given) & (given > 0)).all():
            raise ValueError(f"`scale` must be finite and positive; got {given.tolist()}.")
        return given


def _opener(epochs: Any) -> tuple[Callable[[], Iterator[Exposure]], bool]:
    """What starts a pass over the epochs, and whether it can be done again."""
    if isinstance(epochs, Exposure):
        raise ValueError("`epochs` must be several exposures, as a list; got one exposure.")
    if callable(epochs):
        start: Any = epochs
        return lambda: iter(start()), True
    if not isinstance(epochs, Iterable):
        raise ValueError(f"`epochs` must be exposures, as a list; got {type(epochs).__name__}.")
    return lambda: iter(epochs), not isinstance(epochs, Iterator)


def _shifts(shift: Any) -> np.ndarray | None:
    if shift is None:
        return None
    array = np.asarray(shift, float)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(f"`shift` needs finite numbers of shape (epoch, 2); got {array.shape}.")
    return array


def _stamps(exposure: Exposure) -> np.ndarray:
    """The PSF in the middle of the image, `(band, h, w)`, of unit sum."""
    ny, nx = exposure.shape
    middle = exposure.psf.at(jnp.asarray((nx - 1) / 2), jnp.asarray((ny - 1) / 2))
    stamps = psf_images(middle, max(3, min(41, (min(ny, nx) - 1) | 1)))
    return stamps / stamps.sum(axis=(1, 2), keepdims=True)


def _noise(exposure: Exposure, good: np.ndarray, band: int) -> float:
    """Standard deviation of a pixel of empty sky: more than half of an image is that."""
    values = np.asarray(exposure.variance)[band][good[band]]
    if not values.size:
        return 1e6  # An epoch that sees nothing has no say.
    return float(np.sqrt(np.median(values[:: max(1, values.size // _NOISE_PIXELS)])))


def _from_zero_points(header: Header, first: Header) -> np.ndarray:
    if header.zero_points is None or first.zero_points is None:
        raise ValueError("`scale` is zero_points, but an epoch has none in its header.")
    difference = np.array(header.zero_points) - np.array(first.zero_points)
    return 10 ** (0.4 * difference)


def _psf_size(size: int | None, largest: int, plane: Plane) -> tuple[int, int]:
    wanted = size or (3 * largest // 2) | 1
    return min(wanted, (plane.rows - 1) | 1), min(wanted, (plane.columns - 1) | 1)


def _finished(total: _Total, sums: Sums, maps: Maps) -> Coadd:
    assert total.first is not None
    first = total.first
    square, cube = (np.asarray(v, float) for v in (sums.square, sums.cube))
    told = all(gain is not None for gain in total.gains)
    gain = square**1.5 / cube if told else np.full(len(square), np.nan)
    zero_points = first.header.zero_points
    if zero_points is not None:
        shift = 2.5 * np.log10(np.sqrt(square))
        zero_points = tuple(float(z) for z in np.array(zero_points) + shift)
    planes, unseen = with_plane(first.header.mask_planes, "NO_DATA")
    planes, filled = with_plane(planes, "INTRP")
    count = np.asarray(sums.count)
    mask = np.where(count == 0, np.uint32(1 << unseen), np.uint32(0))
    mask |= np.where(count < total.number, np.uint32(1 << filled), np.uint32(0))
    header = replace(
        first.header,
        zero_points=zero_points,
        unit="",
        mask_planes=planes,
        gain=float(gain[0]) if told and len(gain) == 1 else None,
        read_noise=None,
        saturation=None,
        exposure_time=None,
        date=None,
    )
    exposure = Exposure(
        image=maps.image,
        variance=jnp.ones_like(maps.image),
        mask=jnp.asarray(mask.view(np.int32)),
        psf=PixelPSF(maps.psf),
        header=header,
    )
    return Coadd(
        exposure,
        jnp.sqrt(sums.square),
        maps.score,
        maps.flux,
        maps.flux_err,
        sums.count,
        jnp.asarray(np.array(total.scales), maps.image.dtype),
        jnp.asarray(np.array(total.sigmas), maps.image.dtype),
        jnp.asarray(gain, maps.image.dtype),
    )
