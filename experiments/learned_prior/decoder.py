"""Blends taken apart with a learned prior, and how that prior is learnt.

    python experiments/learned_prior/decoder.py OUT [--cosmos FOLDER] [--n N] [--steps STEPS]

learns the prior that `rows.py` scores and writes it to the file OUT. Real galaxies, if there are
any, are those of the odd rows; blends to score have those of the even ones.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blends import Blends
from components import Estimate, fit_components

from diffdeblend.components import Decoded, Frame
from diffdeblend.priors import DecoderPrior

# A prior of so large a variance is none.
FREE = 1e4


@dataclass(frozen=True)
class Settings:
    """What is learnt from: `n` galaxies, `real` of them (a share) real ones, if there are any."""

    n: int = 16_000
    seed: int = 1
    steps: int = 12_000
    real: float = 0.25
    size: int = 33
    psf_sigma: float = 0.8


def by_decoder(
    blends: Blends, prior: DecoderPrior, temperature: float = 1.0, **settings: Any
) -> Estimate:
    """Each source a galaxy of the prior, in the same shape in all bands."""

    def make(x: float, y: float, radius: float) -> Decoded:
        return prior.source(np.zeros(blends.image.shape[1], np.float32), x, y)

    return fit_components(blends, make, temperature=temperature, **settings)


def latents(found: Estimate) -> np.ndarray:
    """Of each source, `(blend, source, latent)`."""
    assert found.fits is not None
    return np.asarray(found.fits.scene.sources[0].members.latent)


def errors_in_frame(found: Estimate) -> np.ndarray:
    """One standard deviation of the fluxes in the frame, `(blend, source, band)`."""
    assert found.total is not None
    assert found.error is not None
    return found.error * np.abs(found.flux / np.where(found.total == 0, np.nan, found.total))


def draw_galaxies(settings: Settings, cosmos: Path | None):
    """A broad mixture: no population that blends are scored on is there alone."""
    from diffdeblend.train import BulgeDiscKnots, Irregulars, Mixture, Sersics, join

    frame = Frame(settings.size, settings.psf_sigma, 0.2)
    made_up = Mixture((BulgeDiscKnots(), Sersics(), Irregulars()), (0.5, 0.35, 0.15))
    if cosmos is None:
        return made_up(settings.n, frame, settings.seed)
    n_real = int(settings.real * settings.n)
    from diffdeblend.simulate import read_cosmos
    from diffdeblend.train import draw_real

    # Farther out is Hubble's noise.
    catalog = read_cosmos(cosmos, kind="real", exclusion="none", taper=(5.0, 10.0))
    odd = np.arange(len(catalog))[1::2]
    real = draw_real(catalog, n_real, frame, settings.seed, rows=odd)
    return join([made_up(settings.n - n_real, frame, settings.seed), real])


def main() -> None:
    from diffdeblend.io import save_prior
    from diffdeblend.train import DecoderSettings, train_decoder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cosmos", type=Path)
    parser.add_argument("--n", type=int, default=Settings.n)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    given = parser.parse_args()
    settings = Settings(n=given.n, steps=given.steps)
    began = time.process_time()
    galaxies = draw_galaxies(settings, given.cosmos)
    drawn = time.process_time()
    found = train_decoder(
        galaxies,
        DecoderSettings(steps=settings.steps),
        seed=settings.seed,
        report=lambda p: print(p.step, f"{p.loss:.2f} {p.validation_loss:.2f}", flush=True),
    )
    print(f"drawn {drawn - began:.0f} s, learnt {time.process_time() - drawn:.0f} s of processor")
    save_prior(found.prior, given.out)


if __name__ == "__main__":
    main()
