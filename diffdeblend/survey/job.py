"""What a worker is told: where the stamps are, how to fit them, where the parts go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffdeblend.io.bundled import named_prior_file
from diffdeblend.io.priors import load_prior
from diffdeblend.priors import DecoderPrior
from diffdeblend.stamps.store import StampStore, open_store
from diffdeblend.survey.fit_stamps import Fitter, programs_for, psf_of
from diffdeblend.survey.settings import FitSettings, Programs

# Stamps whose PSFs tell how finely to draw.
_LOOKED_AT = 64


@dataclass(frozen=True)
class Job:
    """A run of fits: small, and sent to workers, who open the store themselves.

    - `store`, `out`: absolute paths, the same on all machines. `settings`, `programs`: how to fit.
    - `cache`: folder of compiled programs, or None.
    - `again`: all of these stamps failed before.
    - `about`: what parts say of their run, see `part_about`.
    """

    store: str
    out: str
    settings: FitSettings
    programs: Programs
    cache: str | None = None
    again: bool = False
    about: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> tuple[StampStore, Fitter]:
        """The store and what fits its stamps."""
        # Who made the job has looked at all files.
        store = open_store(self.store, checked=True)
        prior = prior_of(self.settings)
        return store, Fitter(store.header, self.settings, self.programs, prior, self.again)


def prior_of(settings: FitSettings) -> Any:
    """The learned prior that the settings name, or None.

    **Raises:** `ValueError` for a file that holds none.
    """
    if settings.prior is None:
        return None
    return load_prior(named_prior_file(settings.prior))


def choose_programs(store: StampStore, settings: FitSettings) -> Programs:
    """What to compile for a store; by the PSFs of some stamps from all of it.

    **Raises:** `ValueError` if none of these PSFs is sound.
    """
    header = store.header
    places = np.unique(np.linspace(0, header.n_stamps - 1, _LOOKED_AT).astype(int))
    psfs = [psf_of(image, header.oversampling) for image in store.psfs_at(places.tolist())[1]]
    sound = [psf for psf in psfs if not isinstance(psf, str)]
    if not sound:
        raise ValueError(f"`store`: none of its PSFs can be used: {psfs[0]}")
    decodes = isinstance(prior_of(settings), DecoderPrior)
    return programs_for(header, sound, decodes=decodes)
