"""What does a denoiser give to free pixels, against the same pixels without one?

    python experiments/learned_prior/denoiser.py [--n N] [--steps STEPS]

learns a denoiser of galaxies with bulge, disc and knots, and prints the errors on blends of other
such galaxies. Without one, the logarithms of the same pixels are fitted by Adam, from the same
start and from a flat one.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from blends import Blends, Settings, draw_blends
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


def measured(name: str, method: Method, start: Pixels, blends: Blends) -> np.ndarray:
    """Prints a line; |dF/F|, `(blend, source)`."""
    given = jnp.asarray(blends.image), jnp.asarray(blends.peaks, jnp.float32)
    psf = PixelPSF(blends.psf.astype(np.float32))
    separate(method, start, *given, psf)
    began = time.process_time()
    images = np.asarray(separate(method, start, *given, psf))
    pace = 1e3 * (time.process_time() - began) / len(images)
    flux, true = images.sum(axis=(-2, -1))[..., 0], blends.flux[..., 0]
    cells = [f"{k} {v:.4f}" for k, v in summary(flux, true, images, blends.truth).items()]
    print(f"{name}: {', '.join(cells)}; {pace:.0f} ms of processor a blend", flush=True)
    return np.abs(relative(flux, true))


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
    ours = measured("denoiser", PlugAndPlay(prior), start, blends)
    for name, begin in (("none, from the mean galaxy", start), ("none, from a flat one", flat)):
        theirs = measured(name, adam, begin, blends)
        print("lower by", *(f"{v:.3f}" for v in reduction(ours, theirs)))


if __name__ == "__main__":
    main()
