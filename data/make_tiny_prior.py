"""The learned prior that comes with the package: of made-up galaxies alone.

    python data/make_tiny_prior.py

writes `tiny_prior.eqx` beside this file, in minutes on two cores; interrupted, the same command
goes on. No image and no catalogue of real galaxies enters.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from diffdeblend.components import Frame
from diffdeblend.io import save_prior
from diffdeblend.priors import DecoderPrior
from diffdeblend.progress import step_bar
from diffdeblend.train import DecoderSettings, draw_population, train_decoder

HERE = Path(__file__).parent

SEED = 1
# Made-up galaxies only: `broad` has nothing but profiles, knots and clumps.
POPULATION = "broad"
NUMBER = 40_000
FRAME = Frame(size=33, psf_sigma=0.8, pixel_scale=0.2)
SETTINGS = DecoderSettings(n_latent=16, widths=(256, 256), photons=3000.0, steps=12_000)
LICENCE = "BSD-3-Clause"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "tiny_prior.eqx")
    output = parser.parse_args().output
    checkpoint = output.with_suffix(".checkpoint")
    galaxies = draw_population(POPULATION, NUMBER, FRAME, SEED)
    bar = step_bar(SETTINGS.steps, SETTINGS.chunk, sys.stderr)
    trained = train_decoder(
        galaxies,
        SETTINGS,
        seed=SEED,
        report=lambda told: bar(told.step, told.loss, told.validation_loss),
        checkpoint=checkpoint,
    )
    bar(None)
    told = trained.prior.training
    words = f"{NUMBER} made-up galaxies: {told.population}; licence {LICENCE}"
    prior = DecoderPrior(trained.prior.decoder, replace(told, population=words))
    save_prior(prior, output, half=True)
    checkpoint.unlink(missing_ok=True)
    print(f"loss {told.loss:.4g}, of galaxies held out {told.validation_loss:.4g}")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB, {told.settings_hash}")


if __name__ == "__main__":
    main()
