"""How long a subtraction takes: of two frames, of a large field with PSFs that vary, from files.

python experiments/subtraction/speed.py [--real DIR] [--size 4096]

DIR has the two aligned exposures of ESO 085-030. Prints the first call and the best of the warm
ones, on the clock and of all cores together, each beside its bar. Run it with
OPENBLAS_NUM_THREADS=1 on a machine that does nothing else.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffdeblend.exposure import Exposure
from diffdeblend.psf import PSFBasis
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.simulate.star_field import elliptical_psf, star_field
from diffdeblend.subtract import fit_subtraction, node_psfs, subtract, subtract_tiles, tiling_for
from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.variance import SystematicNoise
from diffdeblend.transients.find_transients import find_transients

BETA, SKY = 0.8, 100.0
SHAPE = (682, 1024)
REAL = ("aligned_eso085-030-005.fit", "aligned_eso085-030-004.fit")


@dataclass(frozen=True)
class Timing:
    """Seconds: of the first call, and of the best of the later ones."""

    name: str
    first: tuple[float, float]
    warm: tuple[float, float]
    bar: tuple[float | None, float | None]

    def __str__(self) -> str:
        bars = [
            f"{what} <= {bar * 1e3:.0f} ms"
            for what, bar in zip(("wall", "CPU"), self.bar, strict=True)
            if bar is not None
        ]
        return (
            f"{self.name:44s} first {self.first[0]:6.2f} s wall {self.first[1]:6.2f} s CPU; "
            f"warm {self.warm[0] * 1e3:7.1f} ms wall {self.warm[1] * 1e3:7.1f} ms CPU; "
            f"bar: {', '.join(bars) or 'none'}"
        )


def timed(
    name: str,
    function: Callable[[], Any],
    *,
    wall: float | None = None,
    cpu: float | None = None,
    repeats: int = 7,
) -> Timing:
    """Time a function whose result holds arrays."""

    def once() -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        return time.perf_counter() - start, time.process_time() - used

    first = once()
    runs = np.array([once() for _ in range(repeats)])
    made = Timing(name, first, (float(runs[:, 0].min()), float(runs[:, 1].min())), (wall, cpu))
    print(made, flush=True)
    return made


def exposures(shape: tuple[int, int], n: int, *, varies: bool) -> list[Exposure]:
    """Two images of the same stars, the new one with a broader PSF."""
    made = []
    for width in (3.2, 2.6):
        wide: Any = (lambda u, v, w=width: w * (1 + 0.05 * u * v + 0.03 * u)) if varies else width
        psf = elliptical_psf(shape, wide, 1.06 * width, size=31)
        made.append(star_field(shape, n, psf=psf, sky=SKY, seed=3).exposure)
    return made


def image_pair(new: Exposure, reference: Exposure) -> ImagePair:
    """Both as arrays on the device, of one band."""
    noise = SystematicNoise(*(jnp.asarray(v, jnp.float32) for v in (0.02, 0.02, 0.0, 0.0)))
    sigma, beta, dx, dy = (jnp.asarray(v, jnp.float32) for v in (SKY**0.5, BETA, 0.1, -0.1))
    return ImagePair(
        new=jnp.asarray(new.image[0]),
        reference=jnp.asarray(reference.image[0]),
        variance_new=jnp.asarray(new.variance[0]),
        variance_reference=jnp.asarray(reference.variance[0]),
        missing_new=None,
        missing_reference=None,
        sigma_new=sigma,
        sigma_reference=sigma,
        beta=beta,
        dx=dx,
        dy=dy,
        noise=noise,
    )


def of_a_frame() -> None:
    """Two frames of 682 x 1024 pixels, one pair of PSFs."""
    new, reference = exposures(SHAPE, 300, varies=False)
    pair = image_pair(new, reference)
    psfs = [psf_stamp(e.psf, e.shape)[0] for e in (new, reference)]

    def program(names: tuple[str, ...], systematics: bool) -> Callable[[], Any]:
        @eqx.filter_jit
        def run(pair: ImagePair, psf_new: Any, psf_reference: Any) -> list[Any]:
            maps = subtract_constant(pair, psf_new, psf_reference, systematics=systematics)
            return [getattr(maps, name) for name in names]

        return lambda: run(pair, *psfs)

    scores = ("S_corr", "flux", "flux_err")
    timed("frame: D, S", program(("D", "S"), False), wall=0.015)
    timed("frame: S_corr, flux, errors", program(scores, False), wall=0.030)
    timed("frame: the same with registration noise", program(scores, True), wall=0.060)
    timed("frame: fit", lambda: fit_subtraction(new, reference).beta, wall=0.300)
    timed("frame: subtract, fit included", lambda: subtract(new, reference).S_corr)


def of_a_field(side: int) -> None:
    """A field of side x side pixels with 8 x 8 tiles, and with one pair of PSFs."""
    shape = (side, side)
    new, reference = exposures(shape, 4000, varies=True)
    pair = image_pair(new, reference)
    tiling = tiling_for(new.psf, reference.psf, shape, side // 8)
    nodes = [node_psfs(e.psf, tiling)[0] for e in (new, reference)]
    assert isinstance(new.psf, PSFBasis)

    @eqx.filter_jit
    def tiles(pair: ImagePair, psf_new: Any, psf_reference: Any) -> tuple[Any, Any]:
        maps = subtract_tiles(
            pair, psf_new, psf_reference, tiling=tiling, systematics=False, difference=False
        )
        return maps.S_corr, maps.flux

    @eqx.filter_jit
    def constant(pair: ImagePair, psf_new: Any, psf_reference: Any) -> tuple[Any, Any]:
        maps = subtract_constant(pair, psf_new, psf_reference, systematics=False)
        return maps.S_corr, maps.flux

    stamps = [psf_stamp(e.psf, e.shape)[0] for e in (new, reference)]
    name = f"field of {side}: S_corr, flux"
    timed(f"{name}, {len(nodes[0].images)} images", lambda: tiles(pair, *nodes), wall=1.6)
    timed(f"{name}, one pair of PSFs", lambda: constant(pair, *stamps), wall=1.2)


def of_files(folder: Path) -> None:
    """All of it, from two FITS files to candidates."""
    paths = [folder / name for name in REAL]

    def run() -> Any:
        return find_transients(*paths, registration_noise=0.05).difference.S_corr

    timed("files: everything", run, cpu=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="folder of the two real exposures")
    parser.add_argument("--size", type=int, default=4096, help="side of the large field")
    given = parser.parse_args()
    of_a_frame()
    of_a_field(given.size)
    if given.real is not None:
        of_files(given.real)


if __name__ == "__main__":
    main()
