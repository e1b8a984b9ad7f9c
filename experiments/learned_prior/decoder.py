"""Blends taken apart with a learned prior, and how that prior is learnt.

    python experiments/learned_prior/decoder.py OUT [--cosmos FOLDER]

learns a prior that `rows.py` scores and writes it to the file OUT: of made-up galaxies alone, or
with real ones among them, those of the odd rows; blends to score have those of the even ones.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blends import Blends
from components import Estimate, fit_components, position_error
from model_baselines import stamps_of

from diffdeblend.batch import FoundDecoded, fit_batch
from diffdeblend.components import Decoded, Frame
from diffdeblend.priors import DecoderPrior

if TYPE_CHECKING:
    from diffdeblend.train import Galaxies

# A prior of so large a variance is none.
FREE = 1e4


@dataclass(frozen=True)
class Settings:
    """What is learnt from, numbers of galaxies; all was chosen on blends of seed 3.

    - `recipe`: bulge, disc and knots by the recipe of set A, the domain of the prior.
    - `sersic`: single profiles, somewhat smaller than those of set S.
    - `broad`: the package's own default populations.
    - `real`: real galaxies.
    """

    recipe: int = 10_000
    sersic: int = 8_000
    broad: int = 12_000
    real: int = 0
    seed: int = 1
    steps: int = 12_000
    n_latent: int = 16
    size: int = 33
    psf_sigma: float = 0.8


MADE_UP = Settings()
WITH_REAL = Settings(recipe=9_000, sersic=3_000, broad=6_000, real=4_000)


def by_decoder(
    blends: Blends, prior: DecoderPrior, temperature: float = 1.0, **settings: Any
) -> Estimate:
    """Each source a galaxy of the prior, in the same shape in all bands."""

    def make(x: float, y: float, radius: float) -> Decoded:
        return prior.source(np.zeros(blends.image.shape[1], np.float32), x, y)

    return fit_components(blends, make, temperature=temperature, **settings)


def by_batch(
    blends: Blends, prior: DecoderPrior, *, fallback: bool, centre: bool = False
) -> tuple[Estimate, FoundDecoded]:
    """The same by `fit_batch`, which judges its sources and may give them another model."""
    found = fit_batch(
        stamps_of(blends, centre),
        prior=prior,
        fallback=fallback,
        background="none",
        position_error=position_error(centre),
        images=True,
        trim=False,
    )
    assert isinstance(found, FoundDecoded)
    n, m, bands, ny, nx = blends.truth.shape
    images = np.zeros(blends.truth.shape)
    for k, kept in enumerate(found.images):
        if kept is not None:
            images[k] = np.asarray(kept)[:m, :, :ny, :nx]
    total, error = (v.reshape(n, m, bands) for v in (found.flux, found.flux_err))
    return Estimate(images.sum(axis=(-2, -1)), images, total, error), found


def latents(found: Estimate) -> np.ndarray:
    """Of each source, `(blend, source, latent)`."""
    assert found.fits is not None
    return np.asarray(found.fits.scene.sources[0].members.latent)


def errors_in_frame(found: Estimate) -> np.ndarray:
    """One standard deviation of the fluxes in the frame, `(blend, source, band)`."""
    assert found.total is not None
    assert found.error is not None
    return found.error * np.abs(found.flux / np.where(found.total == 0, np.nan, found.total))


def draw_galaxies(settings: Settings, cosmos: Path | None) -> "Galaxies":
    """Galaxies of all kinds, in the frame of the prior; real ones are of the odd rows."""
    from diffdeblend.simulate import read_cosmos
    from diffdeblend.train import (
        BulgeDiscKnots,
        Irregulars,
        Mixture,
        Sersics,
        Sizes,
        draw_real,
        join,
    )  # fmt: skip

    frame = Frame(settings.size, settings.psf_sigma, 0.2)
    recipe = BulgeDiscKnots(
        sizes=Sizes(0.45, 0.4), bulge=(0.0, 0.6), pure=0.0, bulge_index=(4.0, 4.0),
        radius_ratio=(0.6, 0.6), knots=(0.0, 0.3), n_knots=(15, 15), axis_ratio=0.25,
        off_centre=0.0,
    )  # fmt: skip
    broad = Mixture((BulgeDiscKnots(), Sersics(), Irregulars()), (0.4, 0.25, 0.35))
    seed = 10 * settings.seed
    parts = [
        recipe(settings.recipe, frame, seed + 1),
        Sersics(sizes=Sizes(0.5, 0.5))(settings.sersic, frame, seed + 2),
        broad(settings.broad, frame, seed + 3),
    ]
    if settings.real:
        if cosmos is None:
            raise ValueError("`cosmos` must be given to learn from real galaxies.")
        # Farther out is Hubble's noise.
        catalog = read_cosmos(cosmos, kind="real", exclusion="none", taper=(5.0, 10.0))
        odd = np.arange(len(catalog))[1::2]
        parts.append(draw_real(catalog, settings.real, frame, seed + 4, rows=odd))
    return join(parts)


def main() -> None:
    from diffdeblend.io import save_prior
    from diffdeblend.train import DecoderSettings, train_decoder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cosmos", type=Path)
    given = parser.parse_args()
    settings = MADE_UP if given.cosmos is None else WITH_REAL
    began, at = time.process_time(), time.perf_counter()
    galaxies = draw_galaxies(settings, given.cosmos)
    drawn = time.process_time()
    found = train_decoder(
        galaxies,
        DecoderSettings(n_latent=settings.n_latent, steps=settings.steps),
        seed=settings.seed,
        report=lambda p: print(p.step, f"{p.loss:.2f} {p.validation_loss:.2f}", flush=True),
    )
    print(
        f"{len(galaxies)} galaxies: drawn {drawn - began:.0f} s, learnt"
        f" {time.process_time() - drawn:.0f} s of processor,"
        f" {time.perf_counter() - at:.0f} s in all"
    )
    save_prior(found.prior, given.out)


if __name__ == "__main__":
    main()
