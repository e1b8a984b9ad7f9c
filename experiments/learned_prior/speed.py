"""How many blends of two galaxies are fitted a second on a core, by second-order steps and by Adam?

    taskset -c 0 python experiments/learned_prior/speed.py PRIOR

Both seek the most probable latents, places and fluxes of the same stamps of 48 x 48 pixels under
the same prior. Adam has the stronger form: fluxes are solved at every step, the Gaussians between
the prior's frame and the data are small matrix products, and blends go side by side. `speed.md` has
processor time, and how far above the best objective each ends. `fit_batch` does more: it begins
from sources, judges them, and fits some again.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from blends import Blends, draw_blends
from blends import Settings as BlendSettings
from components import POSITION_ERROR
from decoder import by_decoder
from model_baselines import stamps_of

from diffdeblend.batch import fit_batch
from diffdeblend.components import Decoder
from diffdeblend.grid import FIT, STANDARD
from diffdeblend.priors import DecoderPrior

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """How much is fitted, and Adam's steps; its rate was chosen on seed 1."""

    seed: int = 151
    n: int = 80
    size: int = 48
    steps: int = 250
    rate: float = 0.1
    together: int = 16
    position_error: float = POSITION_ERROR


class Model(eqx.Module):
    """A blend as Adam sees it: images of unit flux from latents and places."""

    decoder: Decoder
    blur: float = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def images(self, latent, place):
        """`(source, pixel)`."""
        half = self.decoder.frame.size // 2
        box, pixels = jnp.arange(-half, half + 1), jnp.arange(self.size)

        def along(centre):
            far = (pixels[:, None] - centre - box[None]) / self.blur
            return jnp.exp(-0.5 * far**2) / (np.sqrt(2 * np.pi) * self.blur)

        def one(latent, place):
            return along(place[1]) @ self.decoder(latent) @ along(place[0]).T

        return jax.vmap(one)(latent, place).reshape(latent.shape[0], -1)

    def cost(self, free, data, peaks, position_error):
        """Minus the log-probability with fluxes of least chi2."""
        latent, off = free
        unit = self.images(latent, peaks + off)
        # The envelope theorem: the slope is right with fluxes held.
        flux = jax.lax.stop_gradient(jnp.linalg.solve(unit @ unit.T, unit @ data))
        left = data - flux @ unit
        far = jnp.sum(latent**2) + jnp.sum((off / position_error) ** 2)
        return 0.5 * jnp.sum(left**2) + 0.5 * far


@eqx.filter_jit
def _adam(model: Model, data, peaks, steps: int, rate, position_error):
    """The lowest objective of each blend of a batch, `(batch,)`."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
    n, m = peaks.shape[:2]
    start = (jnp.zeros((n, m, model.decoder.n_latent)), jnp.zeros((n, m, 2)))
    slope = jax.vmap(jax.grad(model.cost), (0, 0, 0, None))

    def step(walk, _):
        free, moments = walk
        change, moments = adam.update(slope(free, data, peaks, position_error), moments)
        return (optax.apply_updates(free, change), moments), None

    (free, _), _ = jax.lax.scan(step, (start, adam.init(start)), length=steps)
    return jax.vmap(model.cost, (0, 0, 0, None))(free, data, peaks, position_error), free


def by_adam(blends: Blends, prior: DecoderPrior, settings: Settings) -> np.ndarray:
    """The objective of each blend at the end."""
    blur = np.sqrt(blends.settings.psf_sigma[0] ** 2 - prior.frame.psf_sigma**2)
    model = Model(prior.decoder, float(blur), settings.size)
    data = jnp.asarray(blends.image.reshape(len(blends.image), -1))
    peaks = jnp.asarray(blends.peaks, jnp.float32)
    found = []
    for first in range(0, len(data), settings.together):
        rows = slice(first, first + settings.together)
        value, _ = _adam(
            model, data[rows], peaks[rows], settings.steps,
            jnp.asarray(settings.rate), jnp.asarray(settings.position_error),
        )  # fmt: skip
        found.append(np.asarray(value))
    return np.concatenate(found)


def by_second_order(blends: Blends, prior: DecoderPrior, quality) -> np.ndarray:
    """The objective of each blend at the end, by the package; errors and images are made too."""
    found = by_decoder(blends, prior, quality=quality)
    assert found.fits is not None
    history = np.asarray(found.fits.history)
    return np.nanmin(history, axis=1)


def by_fit_batch(blends: Blends, prior: DecoderPrior, *, fallback: bool) -> np.ndarray:
    """From arrays to a catalogue; its objective has other constants."""
    found = fit_batch(
        stamps_of(blends, False),
        prior=prior,
        fallback=fallback,
        background="none",
        position_error=POSITION_ERROR,
    )
    return np.full(len(found.value), np.nan)


def timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """The result, and the processor seconds of a first and of a second call."""
    began = time.process_time()
    run()
    middle = time.process_time()
    found = run()
    return found, middle - began, time.process_time() - middle


def main() -> None:
    from diffdeblend.io import load_prior

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", type=Path)
    settings = Settings()
    prior = load_prior(parser.parse_args().prior)
    blends = draw_blends(BlendSettings(n=settings.n, seed=settings.seed, size=settings.size))
    load = os.getloadavg()[0]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "second order": lambda: by_second_order(blends, prior, STANDARD),
        "second order, quality of fits": lambda: by_second_order(blends, prior, FIT),
        f"Adam, {settings.steps} steps": lambda: by_adam(blends, prior, settings),
        "fit_batch": lambda: by_fit_batch(blends, prior, fallback=False),
        "fit_batch with fallback": lambda: by_fit_batch(blends, prior, fallback=True),
    }
    found = {name: timed(run) for name, run in ways.items()}
    best = np.nanmin([value for value, _, _ in found.values()], axis=0)
    lines = [
        f"{settings.n} blends of two sources, {settings.size} x {settings.size} pixels, seed "
        f"{settings.seed}; seconds are those of one core, the machine's load {load:.1f}.",
        "",
        "| way | blends a second, warm | first call, s | above the best, median | 90 % |",
    ]
    lines.append("|---" * 5 + "|")
    for name, (value, cold, warm) in found.items():
        above = value - best
        cells = [f"{settings.n / warm:.1f}", f"{cold:.1f}"]
        known = np.isfinite(above).all()
        ends = [np.median(above), np.quantile(above, 0.9)]
        cells += [f"{end:.2f}" if known else "-" for end in ends]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    (HERE / "speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
