"""A set of simulated blends: what a camera would have seen, and what was there."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.psf import SampledPSF
from diffdeblend.simulate.noise import noise_rate
from diffdeblend.simulate.survey import Survey

if TYPE_CHECKING:
    import astropy.wcs


@dataclass(frozen=True, eq=False)
class Blends:
    """Blends of one survey, with their truth. Lives on the host.

    - `images`: electrons, the sky taken off, float32, shape `(blend, band, y, x)`.
    - `isolated`: the noiseless image of each source alone, float32, shape `(source, band, y, x)`,
        source k being row k of `truth`; or None if only blends were drawn.
    - `truth`: a row a source, blend by blend: `blend`, `source` (its number in it), `row` of the
        catalogue, `is_star`, `x`, `y` (pixels, the first pixel is centred on `(0, 0)`), `ra`, `dec`
        (arcseconds from the middle), `radius` (half-light, arcseconds), `g1`, `g2` (reduced shear
        of the part with most light), `turn`, `shear1`, `shear2` (what was done to it), `outside`
        (whether its centre is off the stamp), and in each band `magnitude_{band}` (AB),
        `flux_{band}` (electrons) and, with isolated images, `snr_{band}` and `blendedness_{band}`.
    - `psf_images`: at the survey's pixels, with their response, shape `(psf, band, h, w)`, odd;
        they sum to the share of a star's light that they hold. `psf_index`: which of them each
        blend has, shape `(blend,)`.
    - `survey`: with its bands; `sky`: electrons in a pixel, shape `(band,)`.
    - `noise`: `"all"`, `"background"`, `"galaxy"` or `"none"`; `noise_correlation`: as in
        `Exposure`, or None.
    - `seed`: that the set was made with; `settings`: the other choices.
    """

    images: Float[np.ndarray, "blend band y x"]
    isolated: Float[np.ndarray, "source band y x"] | None
    truth: Table
    psf_images: Float[np.ndarray, "psf band h w"]
    psf_index: Int[np.ndarray, "blend"]
    survey: Survey
    sky: Float[np.ndarray, "band"]
    noise: str
    seed: int
    noise_correlation: Float[np.ndarray, "band h w"] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def n_blends(self) -> int:
        """Number of blends."""
        return len(self.images)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.survey.band_names

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a stamp along y and x."""
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def first(self) -> Int[np.ndarray, "blend+1"]:
        """The sources of blend k are rows `first[k]` to `first[k + 1]` of the truth."""
        return np.searchsorted(np.asarray(self.truth["blend"]), np.arange(self.n_blends + 1))

    @property
    def n_sources(self) -> Int[np.ndarray, "blend"]:
        """Number of sources of each blend."""
        return np.diff(self.first)

    @cached_property
    def wcs(self) -> "astropy.wcs.WCS":
        """The map of every stamp: its middle at (0, 0), ra along +x and dec along +y."""
        return stamp_wcs(self.shape, self.survey.pixel_scale)

    @cached_property
    def psfs(self) -> tuple[SampledPSF, ...]:
        """The PSFs, one object each, so that blends that share one share its transform."""
        return tuple(
            SampledPSF(jnp.asarray(image), oversampling=1, normalise=False)
            for image in self.psf_images
        )

    def psf(self, k: int) -> SampledPSF:
        """How a point is seen in blend k."""
        return self.psfs[int(self.psf_index[k])]

    def rows(self, k: int) -> slice:
        """The rows of the truth that belong to blend k."""
        return slice(int(self.first[k]), int(self.first[k + 1]))

    def positions(self, k: int) -> Float[np.ndarray, "source 2"]:
        """x and y in pixels of the sources of blend k."""
        rows = self.truth[self.rows(k)]
        return np.stack([np.asarray(rows["x"]), np.asarray(rows["y"])], axis=1)

    def isolated_of(self, k: int) -> Float[np.ndarray, "source band y x"]:
        """The images of the sources of blend k, each alone.

        **Raises:** `ValueError` if only blends were drawn.
        """
        if self.isolated is None:
            raise ValueError("`isolated` images were not drawn; simulate with isolated=True.")
        return self.isolated[self.rows(k)]

    def padded_isolated(self) -> Float[np.ndarray, "blend source band y x"]:
        """`isolated` with the same number of sources for each blend, dark beyond its own. A copy.

        **Raises:** `ValueError` if only blends were drawn.
        """
        most = int(self.n_sources.max(initial=0))
        padded = np.zeros((self.n_blends, most, *self.images.shape[1:]), dtype=np.float32)
        for k in range(self.n_blends):
            alone = self.isolated_of(k)
            padded[k, : len(alone)] = alone
        return padded

    def arrays(self, *, channels_last: bool = False) -> dict[str, np.ndarray]:
        """`images`, padded `isolated` and `psf_images` of each blend, as networks are trained on.

        - `channels_last`: with bands on the last axis instead of before y and x.
        """
        found = {"images": self.images, "psf_images": self.psf_images[self.psf_index]}
        if self.isolated is not None:
            found["isolated"] = self.padded_isolated()
        if channels_last:
            found = {name: np.moveaxis(values, -3, -1) for name, values in found.items()}
        return found

    @property
    def variance(self) -> Float[np.ndarray, "blend band y x"]:
        """Of the noise of all blends; see `variance_of`. Made anew each time."""
        if self.noise in ("none", "background"):
            level = self.sky.astype(np.float32)[:, None, None]
            return np.broadcast_to(level, self.images.shape)
        found = np.empty_like(self.images)
        for k in range(self.n_blends):
            found[k] = self.variance_of(k)
        return found

    def variance_of(self, k: int) -> Float[np.ndarray, "band y x"]:
        """Of the noise of blend k.

        Without isolated images, what the sources add is estimated from the image itself, as real
        pipelines do. Without noise it is that of the sky, as a fit needs some.
        """
        if self.noise in ("none", "background"):
            level = self.sky.astype(np.float32)[:, None, None]
            return np.broadcast_to(level, self.images.shape[1:])
        light = self.images[k] if self.isolated is None else self.isolated_of(k).sum(axis=0)
        # Never nothing: there is always a photon or so of the sky, or of the detector.
        return np.maximum(noise_rate(light, self.sky, self.noise), 1.0)

    def exposure(self, k: int) -> Exposure:
        """Blend k as an exposure, with its variance, PSF and WCS."""
        return make_exposure(
            self.images[k],
            self.variance_of(k),
            self.psf(k),
            bands=self.bands,
            zero_points=self.survey.zero_points,
            wcs=self.wcs,
            unit="electron",
            pixel_scale=self.survey.pixel_scale,
            noise_correlation=self.noise_correlation,
        )

    def select(self, numbers: Sequence[int] | np.ndarray | slice) -> "Blends":
        """Some of the blends, numbered anew from 0; all PSFs stay.

        **Raises:** `ValueError` for a blend that is not there.
        """
        chosen = np.arange(self.n_blends)[numbers] if isinstance(numbers, slice) else numbers
        chosen = np.asarray(chosen, dtype=int).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < self.n_blends):
            raise ValueError(
                f"`numbers` must be below {self.n_blends}; got {chosen.min()} to {chosen.max()}."
            )
        rows = [np.arange(int(self.first[k]), int(self.first[k + 1])) for k in chosen]
        picked = np.concatenate([np.zeros(0, int), *rows])
        truth: Any = self.truth[picked]
        truth["blend"] = np.repeat(np.arange(len(chosen)), [len(r) for r in rows])
        return replace(
            self,
            images=self.images[chosen],
            isolated=None if self.isolated is None else self.isolated[picked],
            truth=truth,
            psf_index=self.psf_index[chosen],
        )


def stamp_wcs(shape: tuple[int, int], pixel_scale: float) -> "astropy.wcs.WCS":
    """A TAN projection whose middle is (0, 0), with ra along +x and dec along +y.

    - `pixel_scale`: in arcseconds.
    """
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [0.0, 0.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [pixel_scale / 3600, pixel_scale / 3600]
    return wcs


def join(batches: Sequence[Blends]) -> Blends:
    """Several batches of one set as one.

    **Raises:** `ValueError` for none, or for batches that are not of one survey and noise.
    """
    from astropy.table import vstack

    if not batches:
        raise ValueError("`batches` is empty; give at least one.")
    one = batches[0]
    for other in batches[1:]:
        if (other.survey, other.noise, other.shape) != (one.survey, one.noise, one.shape):
            raise ValueError("`batches` need one survey, one noise and one shape of stamp.")
        if (other.isolated is None) != (one.isolated is None):
            raise ValueError("`batches` need isolated images in all or in none.")
    tables, psf_index, blends, psfs = [], [], 0, 0
    for batch in batches:
        table = batch.truth.copy()
        table["blend"] = np.asarray(table["blend"]) + blends
        tables.append(table)
        psf_index.append(batch.psf_index + psfs)
        blends, psfs = blends + batch.n_blends, psfs + len(batch.psf_images)
    return replace(
        one,
        images=np.concatenate([batch.images for batch in batches]),
        isolated=None
        if one.isolated is None
        else np.concatenate([batch.isolated for batch in batches]),  # type: ignore[misc]
        truth=vstack(tables, metadata_conflicts="silent"),
        psf_images=np.concatenate([batch.psf_images for batch in batches]),
        psf_index=np.concatenate(psf_index),
    )
