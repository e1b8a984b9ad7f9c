"""What does a denoiser give to free pixels, against the same pixels without one?

    python experiments/learned_prior/denoiser.py [--n N] [--steps STEPS]

learns a denoiser of galaxies with bulge, disc and knots; `denoiser.md` has the errors on blends of
other such galaxies. Without one, the logarithms of the same pixels are fitted by Adam, from the
same start and from a flat one; or by the same turns, of which each only holds pixels near to where
they are: what the way of fitting does, and not the network. Places are the nearest pixels, held.
"""

import argparse
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench import limits
from blends import Blends, Settings, draw_blends
from jaxtyping import Array
from score import reduction, relative, summary

from diffdeblend.components import Frame, Pixels, Stack
from diffdeblend.fit import FirstOrder, PlugAndPlay
from diffdeblend.fit.fit import Method, solve
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import FIT
from diffdeblend.priors import DenoiserPrior
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render_each
from diffdeblend.train import BulgeDiscKnots, DenoiserSettings, train_denoiser

HERE = Path(__file__).resolve().parent


def learn(n: int, steps: int) -> DenoiserPrior:
    """Places are held at the nearest pixel: so far may galaxies be off centre."""
    galaxies = BulgeDiscKnots(jitter=0.3)(n, Frame(33, 0.8, 0.2), 1)
    return train_denoiser(galaxies, DenoiserSettings(steps=steps), seed=1).prior


@eqx.filter_jit
def separate(method: Method, start: Pixels, images, places, psf):
    """The image of each source, blend after blend, `(blend, source, band, y, x)`."""

    def one(given):
        image, at = given
        flux = jnp.broadcast_to(jnp.sum(image, axis=(1, 2)) / len(at), (len(at), len(image)))
        members = jax.vmap(
            lambda f, p: eqx.tree_at(lambda s: (s.flux, s.x, s.y), start, (f, p[0], p[1]))
        )(flux, at)
        scene = Scene([Stack(members, jnp.ones(len(at), bool), jnp.arange(len(at)))])
        free = free_numbers(scene, None)
        problem = make_problem(image, jnp.ones_like(image), psf, free, None, FIT)
        found = scene_of(solve(scene, problem, method).unknowns, scene)
        return render_each(found, psf, image.shape[1:], quality=FIT)[0]

    return jax.lax.map(one, (images, places))


def as_it_is(value: Array, sigma: Array) -> Array:
    """No denoiser."""
    return value


def measured(name: str, method: Method, start: Pixels, blends: Blends) -> tuple[np.ndarray, str]:
    """|dF/F|, `(blend, source)`, and a line of the table."""
    given = jnp.asarray(blends.image), jnp.asarray(blends.peaks, jnp.float32)
    psf = PixelPSF(blends.psf.astype(np.float32))
    separate(method, start, *given, psf)
    began = time.process_time()
    images = np.asarray(separate(method, start, *given, psf))
    pace = 1e3 * (time.process_time() - began) / len(images)
    flux, true = images.sum(axis=(-2, -1))[..., 0], blends.flux[..., 0]
    judged = summary(flux, true, images, blends.truth)
    cells = [f"{judged[k]:.4f}" for k in ("median", "mean", "bias", "relMSE")]
    line = f"| {name} | {' | '.join(cells)} | {pace:.0f} |"
    print(line, flush=True)
    return np.abs(relative(flux, true)), line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8000)
    given = parser.parse_args()
    prior = learn(10_000, given.steps)
    blends = draw_blends(Settings(n=given.n))
    start = prior.source([1.0], 0.0, 0.0)
    flat = eqx.tree_at(lambda s: s.morphology, start, jnp.full((33, 33), 33.0**-2))
    adam = FirstOrder(optax.adam(0.1), max_steps=400, patience=400)
    still = eqx.tree_at(lambda p: p.denoiser, prior, as_it_is)
    ours, line = measured("denoiser", PlugAndPlay(prior), start, blends)
    lines = [
        f"Set A, {given.n} blends, seed {blends.settings.seed}:",
        "",
        "| way | median abs(dF/F) | mean | median dF/F | relMSE | core-ms a blend | lower by |",
        "|---" * 7 + "|",
        f"{line} |",
    ]
    for name, method, begin in (
        ("Adam, from the mean galaxy", adam, start),
        ("Adam, from a flat one", adam, flat),
        ("turns without a denoiser", PlugAndPlay(still), start),
    ):
        theirs, line = measured(name, method, begin, blends)
        lines.append(f"{line} {limits(reduction(ours, theirs))} |")
    (HERE / "denoiser.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
