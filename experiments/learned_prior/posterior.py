"""Are the errors under a learned prior honest, if the whole posterior is asked and not its peak?

    python experiments/learned_prior/posterior.py PRIOR [--way WAY] [--n N] [--n-sbc N]

Coverage of fluxes in set A, and simulation-based calibration: galaxies drawn from the prior itself,
of which the truth must be anywhere in the posterior with equal chance. Draws are by Hamiltonian
Monte Carlo (`nuts`, needs blackjax), from the Gaussian of the fit (`laplace`), or those weighed by
the posterior (`weighed`).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from bench import Line
from blends import Blends, draw_blends
from blends import Settings as BlendSettings
from components import POSITION_ERROR, Estimate
from decoder import by_decoder
from score import uniform_chance, weighted_coverage, weighted_rank

from diffdeblend.components import Decoded
from diffdeblend.fit.laplace import samples, weighted_samples
from diffdeblend.fit.nuts import sample_posterior
from diffdeblend.fit.prior import shape_prior
from diffdeblend.grid import STANDARD
from diffdeblend.priors import DecoderPrior
from diffdeblend.scene import Scene, render_each

HERE = Path(__file__).resolve().parent

WAYS = {"nuts": "NUTS", "laplace": "Gaussian of the fit", "weighed": "weighed draws"}


@dataclass(frozen=True)
class Settings:
    """Numbers of blends and draws; seeds as in `rows.py`."""

    seed: int = 101
    n: int = 50
    n_sbc: int = 100
    draws: int = 1000
    nuts_draws: int = 300


class Draws(NamedTuple):
    """Draws from posteriors: fluxes in the frame and squared lengths of latents.

    - `flux`, `length`: `(blend, source, draw)`; `weight`: `(blend, draw)`.
    - `effective`: number of independent draws that they are worth, `(blend,)`.
    """

    flux: np.ndarray
    length: np.ndarray
    weight: np.ndarray
    effective: np.ndarray


def draw_posterior(found: Estimate, settings: Settings, way: str) -> Draws:
    """Of every blend, one after the other; one band. `way` is a key of `WAYS`."""
    assert found.total is not None
    parts = []
    for k, (start, exposure) in enumerate(zip(found.starts, found.exposures, strict=True)):
        fit, prior, key = (
            found.fit(k),
            shape_prior(start, position_error=POSITION_ERROR),
            jax.random.key(k),
        )
        if way == "nuts":
            run = sample_posterior(
                fit, exposure, prior, key, settings.nuts_draws, quality=STANDARD, chains=2
            )
            scenes, effective = run.scenes, float(run.effective_size)
            weight = np.full(2 * settings.nuts_draws, 1 / (2 * settings.nuts_draws))
        elif way == "laplace":
            scenes, effective = samples(fit, key, settings.draws), float(settings.draws)
            weight = np.full(settings.draws, 1 / settings.draws)
        else:
            drawn = weighted_samples(fit, exposure, prior, key, settings.draws, quality=STANDARD)
            scenes, effective = drawn.scenes, float(drawn.effective_size)
            weight = np.asarray(drawn.weights)
        members = scenes.sources[0].members
        assert isinstance(members, Decoded)
        share = found.flux[k, :, 0] / found.total[k, :, 0]
        flux = np.asarray(members.flux)[:, :, 0].T * share[:, None]
        length = np.sum(np.asarray(members.latent) ** 2, axis=-1).T
        parts.append((flux, length, weight, effective))
        if k % 10 == 9:
            print(k + 1, "blends", flush=True)
    return Draws(*(np.stack(part) for part in zip(*parts, strict=True)))


def draw_from_prior(prior: DecoderPrior, settings: Settings, size: int = 33) -> tuple:
    """Blends of galaxies of the prior itself, drawn by our own renderer, and their latents."""
    base = BlendSettings(population="star", n=settings.n_sbc, seed=settings.seed + 40, size=size)
    # Places, fluxes and noise are those of blends of points.
    points = draw_blends(base)
    rng = np.random.default_rng(base.seed + 1)
    latent = rng.standard_normal((base.n, 2, prior.n_latent)).astype(np.float32)
    psf = _psf(points)

    @jax.jit
    def drawn(flux, x, y, latent):
        scene = Scene([prior.source(flux[i], x[i], y[i], latent[i]) for i in range(2)])
        return render_each(scene, psf, (size, size), quality=STANDARD)[0]

    truth = np.stack(
        [
            np.asarray(drawn(points.total[k].astype(np.float32), points.x[k], points.y[k], one))
            for k, one in enumerate(latent)
        ]
    ).astype(float)
    # As bright, in signal-to-noise, as the points were to be.
    scale = points.snr / np.sqrt(np.sum(truth.sum(axis=1) ** 2, axis=(1, 2, 3)))
    truth *= scale[:, None, None, None, None]
    noise = points.image - points.truth.sum(axis=1)
    image = (truth.sum(axis=1) + noise).astype(np.float32)
    total = points.total * scale[:, None, None]
    return points._replace(image=image, truth=truth, total=total), latent


def _psf(blends: Blends):
    from diffdeblend.psf import PixelPSF

    return PixelPSF(blends.psf.astype(np.float32))


def covered(blends: Blends, draws: Draws, what: str) -> list[Line]:
    """Coverage of the fluxes in the frame."""
    n = draws.flux.shape[-1]
    flux, true = draws.flux.reshape(-1, n), blends.flux[..., 0].reshape(-1)
    weight = np.repeat(draws.weight, 2, axis=0)
    inside = weighted_coverage(flux, weight, true)
    text = ", ".join(f"{100 * v:.1f}" for v in inside.values())
    # The two sources of a blend are taken to be independent.
    error = [100 * np.sqrt(share * (1 - share) / len(true)) for share in (0.68, 0.95)]
    text += f" (68 and 95 to {error[0]:.1f} and {error[1]:.1f})"
    text += f"; {len(blends.image)} blends, effective draws {np.median(draws.effective):.0f}"
    met = 0.62 <= inside[0.68] <= 0.74 and 0.91 <= inside[0.95] <= 0.98
    return [Line(f"A, {what}: coverage of 50, 68, 95, 99.7 %", text, "68: 62-74, 95: 91-98", met)]


def ranked(blends: Blends, latent: np.ndarray, draws: Draws, what: str) -> list[Line]:
    """Simulation-based calibration (Talts et al. 2018) of fluxes and lengths of latents."""
    lines = []
    # A source of each blend: the two of one are not independent.
    for name, value, true in (
        ("flux", draws.flux[:, 0], blends.flux[:, 0, 0]),
        ("|z|", draws.length[:, 0], np.sum(latent**2, axis=-1)[:, 0]),
    ):
        rank = weighted_rank(value, draws.weight, true)
        chance = uniform_chance(rank)
        lines.append(
            Line(
                f"draws of the prior, {what}: chance of the ranks of {name}",
                f"{chance:.3f} ({len(rank)} blends)",
                "0.01",
                chance > 0.01,
            )
        )
    return lines


def main() -> None:
    from diffdeblend.io import load_prior

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", type=Path)
    parser.add_argument("--way", choices=WAYS, default="nuts")
    parser.add_argument("--n", type=int, default=Settings.n)
    parser.add_argument("--n-sbc", type=int, default=Settings.n_sbc)
    given = parser.parse_args()
    prior = load_prior(given.prior)
    assert isinstance(prior, DecoderPrior)
    settings = Settings(n=given.n, n_sbc=given.n_sbc)
    what, lines = WAYS[given.way], []
    if settings.n:
        blends = draw_blends(BlendSettings(n=settings.n, seed=settings.seed))
        lines += covered(
            blends, draw_posterior(by_decoder(blends, prior), settings, given.way), what
        )
        print("\n".join(line.text() for line in lines), flush=True)
    if settings.n_sbc:
        own, latent = draw_from_prior(prior, settings)
        draws = draw_posterior(by_decoder(own, prior), settings, given.way)
        lines += ranked(own, latent, draws, what)
    text = ["| what | figure | bar | met |", "|---|---|---|---|", *(line.text() for line in lines)]
    print("\n".join(text))
    (HERE / f"posterior_{given.way}.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
