"""One batch of stamps through the fit: a bad stamp is a row, never a failed batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.batch import Blend, Found, blend_of_arrays, fit_batch
from diffdeblend.batch.fit_batch import MANY
from diffdeblend.batch.prepare import quality_for
from diffdeblend.batch.task import SOURCES, padded_to
from diffdeblend.priors import DecoderPrior, ParametricPrior
from diffdeblend.progress import one_line
from diffdeblend.psf import SampledPSF
from diffdeblend.stamps.stamps import Stamps, StampsHeader
from diffdeblend.survey.rows import n_latent_of, rows_of
from diffdeblend.survey.settings import FitSettings, Programs
from diffdeblend.survey.status import Status

if TYPE_CHECKING:
    import pyarrow

# PSFs that are kept between batches, so that stamps that share one share its transform.
_KEPT = 64
# Fewer stamps than this may fail in the same way by chance, as neighbours in the store.
_ENOUGH = 16


@dataclass(eq=False)
class Fitter:
    """Fits batches of stamps, all in the same way.

    - `header`: of the store. `settings`, `programs`: how. `prior`: learned, or None.
    - `patient`: whether stamps may all fail in the same way, as those that have failed before.

    Remembers the PSFs of the batch before, as neighbours often share them.

    **Raises:** `ValueError` for a prior that does not fit the store.
    """

    header: StampsHeader
    settings: FitSettings
    programs: Programs
    prior: Any = None
    patient: bool = False
    _psfs: dict[int, SampledPSF | str] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self._models = models_of(self.prior, self.settings, self.header)
        noise = self.header.noise_correlation
        self._noise = None if noise is None else np.array(noise, np.float32)

    def fit(self, stamps: Stamps) -> "pyarrow.Table":
        """A row for every stamp."""
        status = np.full(len(stamps), str(Status.OK), dtype=object)
        error = np.full(len(stamps), "", dtype=object)
        count = stamps.n_sources()
        psfs = self._psfs_of(stamps)
        blends: list[Blend] = []
        places: list[int] = []
        for place in range(len(stamps)):
            if place in stamps.unreadable:
                status[place], error[place] = Status.UNREADABLE, stamps.unreadable[place]
            elif count[place] == 0:
                status[place] = Status.NO_SOURCES
            else:
                try:
                    blends.append(self._blend(stamps, place, int(count[place]), psfs))
                    places.append(place)
                except ValueError as wrong:
                    status[place], error[place] = Status.BAD_INPUT, one_line(wrong)
        found = []
        results = self._fitted(blends, places)
        alike = len(results) >= _ENOUGH and len({str(result) for _, result in results}) == 1
        if alike and not self.patient:
            # No stamp is to blame for what all of them have.
            raise ValueError(f"no stamp can be fitted: {results[0][1]}")
        for own, result in results:
            if isinstance(result, Found):
                found.append((own, result))
                stopped = ~result.converged
                status[np.array(own)[stopped]] = Status.NOT_CONVERGED
            else:
                status[own], error[own] = Status.FAILED, result
        return self._rows(stamps, found, status.tolist(), error.tolist())

    def without_fit(self, stamps: Stamps, status: Status, error: str) -> "pyarrow.Table":
        """The same rows for stamps that are not fitted."""
        return self._rows(stamps, [], [str(status)] * len(stamps), [error] * len(stamps))

    def _rows(
        self,
        stamps: Stamps,
        found: Sequence[tuple[list[int], Found]],
        status: list[str],
        error: list[str],
    ) -> "pyarrow.Table":
        return rows_of(
            stamps,
            self.header,
            found,
            status,
            error,
            covariance=self.settings.covariance,
            n_latent=n_latent_of(self.prior),
        )

    def _blend(
        self, stamps: Stamps, place: int, n_sources: int, psfs: Sequence[SampledPSF | str]
    ) -> Blend:
        """One of the stamps, checked.

        **Raises:** `ValueError` for what cannot be fitted.
        """
        psf = psfs[stamps.psf_index[place]]
        if isinstance(psf, str):
            raise ValueError(psf)
        mask = None if stamps.mask is None else stamps.mask[place] != 0
        own = stamps.position[place, :n_sources]
        blend = blend_of_arrays(
            stamps.image[place], stamps.variance[place], psf, own, mask, self._noise
        )
        if not blend.weight.any():
            raise ValueError("no pixel is used: all are masked, or not finite.")
        return blend

    def _fitted(
        self, blends: Sequence[Blend], places: Sequence[int]
    ) -> list[tuple[list[int], Found | str]]:
        """Fits with the places of their stamps; halved where one fails, down to one that does."""
        if not blends:
            return []
        try:
            return [(list(places), self._fit(blends))]
        except Exception as wrong:
            if len(blends) == 1:
                return [(list(places), f"{type(wrong).__name__}: {one_line(wrong)}")]
            half = len(blends) // 2
            first = self._fitted(blends[:half], places[:half])
            return first + self._fitted(blends[half:], places[half:])

    def _fit(self, blends: Sequence[Blend]) -> Found:
        settings = self.settings
        return fit_batch(
            blends,
            background=settings.background,
            position_error=settings.position_error,
            model_error=settings.model_error,
            free_form=settings.free_form,
            covariance=settings.covariance,
            quality=self.programs.quality,
            sizes=self.programs.sizes,
            sources=self.programs.sources,
            fine=self.programs.fine,
            **self._models,
        )

    def _psfs_of(self, stamps: Stamps) -> list[SampledPSF | str]:
        """The PSF of each image, or what is wrong with it."""
        found = [
            self._psfs[key] if key in self._psfs else psf_of(image, self.header.oversampling)
            for key, image in zip(stamps.psf_key.tolist(), stamps.psf, strict=True)
        ]
        kept = list(zip(stamps.psf_key.tolist(), found, strict=True))[-_KEPT:]
        self._psfs = dict(kept)
        return found


def models_of(prior: Any, settings: FitSettings, header: StampsHeader) -> dict[str, Any]:
    """The arguments of `fit_batch` that say how sources look.

    - `prior`: learned, or None.

    **Raises:** `ValueError` for a prior that does not fit stamps such as these.
    """
    if prior is None:
        return {"model": settings.model}
    if isinstance(prior, ParametricPrior):
        if settings.robust or not settings.fallback:
            raise ValueError("`robust` and `fallback` need a `prior` that decodes galaxies.")
        placed = prior.on(
            pixel_scale=header.pixel_scale,
            zero_points=header.zero_points,
            bands=header.bands,
            temperature=settings.temperature,
        )
        return {"model": settings.model, "prior": placed}
    if not isinstance(prior, DecoderPrior):
        raise ValueError(
            "`prior` must be one that draws galaxies, or knows their shapes; got a "
            f"{type(prior).__name__}."
        )
    if settings.model is not None:
        raise ValueError(
            f"`model` and `prior` both say how sources look; got {settings.model!r} and "
            f"{settings.prior!r}."
        )
    prior.check(header.pixel_scale)
    return {
        "prior": prior,
        "temperature": settings.temperature,
        "fallback": settings.fallback,
        "robust": settings.robust,
    }


def psf_of(image: np.ndarray, oversampling: int) -> SampledPSF | str:
    """A PSF from its image, or what is wrong with it."""
    if not np.isfinite(image).all():
        return "`psf` must be finite; some of its pixels are not."
    try:
        return SampledPSF(image, oversampling, normalise=False)
    except ValueError as wrong:
        return one_line(wrong)


def programs_for(header: StampsHeader, psfs: Sequence[Any], *, decodes: bool) -> Programs:
    """What to compile for stamps seen through PSFs such as these."""
    quality, fine = quality_for(list(psfs)), header.n_stamps >= MANY
    if decodes:
        return Programs(quality, fine, None, None)
    size, most = max(header.shape), max(1, header.most_sources)
    sizes = [rung for rung in (32, 64, 128, 256) if rung <= 0.75 * size]
    # None for single sources alone: it would take long to compile, and be no faster.
    sources = [rung for rung in SOURCES if rung < most]
    return Programs(quality, fine, (*sizes, size), (*sources, padded_to(most, SOURCES)))
