"""How a blended pair's children measure against the same sources alone.

Each pair is a star or a disc with another within a few pixels. A child's flux is compared with that
measured on a noiseless image of its source alone, through the same place and shape where these are
forced; the difference over its error is the pull. Run as

    python experiments/measurement/children.py --deblending scene --seed 100
"""

import argparse
import time

import numpy as np

from diffdeblend.multiband import forced_photometry, measure_bands
from diffdeblend.simulate import draw_field

STEP = 48
DEPTH = 26.0
FLUXES = ("psf", "gaussian", "kron")


def pairs(n: int, separation: tuple[float, float], snr: tuple[float, float], seed: int) -> dict:
    """Columns of n x n pairs on a grid; rows come in twos."""
    rng = np.random.default_rng(seed)
    y, x = (axis.ravel().astype(float) for axis in np.mgrid[:n, :n] * STEP + STEP / 2)
    apart, angle = rng.uniform(*separation, x.size), rng.uniform(0, 2 * np.pi, x.size)
    at_x, at_y = (axis + rng.uniform(-0.5, 0.5, x.size) for axis in (x, y))
    limit = 10 ** (-0.4 * (DEPTH - 31.4)) / 5
    size = 2 * x.size
    columns = {"x": np.empty(size), "y": np.empty(size)}
    for sign, rows in ((-0.5, slice(0, None, 2)), (0.5, slice(1, None, 2))):
        columns["x"][rows] = at_x + sign * apart * np.cos(angle)
        columns["y"][rows] = at_y + sign * apart * np.sin(angle)
    columns["flux_r"] = limit * np.exp(rng.uniform(*np.log(snr), size))
    columns["radius"] = np.where(rng.random(size) < 0.5, 0.0, rng.uniform(1.0, 2.5, size))
    turn, shear = rng.uniform(0, 2 * np.pi, size), rng.uniform(0, 0.3, size)
    columns["g1"], columns["g2"] = shear * np.cos(turn), shear * np.sin(turn)
    columns["index"] = np.ones(size)
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deblending", choices=("scene", "symmetric"), default="scene")
    parser.add_argument("--side", type=int, default=8, help="pairs along each side")
    parser.add_argument("--separation", type=float, nargs=2, default=(7.0, 10.0), help="pixels")
    parser.add_argument("--snr", type=float, nargs=2, default=(50.0, 300.0))
    parser.add_argument("--seed", type=int, default=100)
    settings = parser.parse_args()
    columns = pairs(settings.side, settings.separation, settings.snr, settings.seed)
    shape = (settings.side * STEP, settings.side * STEP)
    options = {"depth": DEPTH, "fwhm": 0.7}
    field = draw_field(columns, shape, "r", seed=settings.seed, **options)
    start, cpu = time.time(), time.process_time()
    made = measure_bands(field.exposure, deblending=settings.deblending)
    print(f"{time.time() - start:.0f} s, CPU {time.process_time() - cpu:.0f} s: {made.summary}")
    catalog = made.catalog
    children = np.flatnonzero(np.asarray(catalog["parent"]) > 0)
    x, y = (np.asarray(catalog[f"centroid_{axis}"])[children] for axis in "xy")
    apart = np.hypot(x[:, None] - columns["x"], y[:, None] - columns["y"])
    true, close = apart.argmin(axis=1), apart.min(axis=1) < 1.0
    print(f"{len(children)} children, {close.sum()} within a pixel of a source")
    children, true = children[close], true[close]
    expected = {name: np.full(len(children), np.nan) for name in FLUXES}
    for member in (0, 1):
        # The members of one kind alone, without noise.
        alone = {name: values[member::2] for name, values in columns.items()}
        lone = draw_field(alone, shape, "r", noise="none", **options).exposure
        mine = np.flatnonzero(true % 2 == member)
        held = {
            name: np.asarray(getattr(catalog[name], "value", catalog[name]))[children[mine]]
            for name in ("centroid_x", "centroid_y", "shape_xx", "shape_yy", "shape_xy")
        }
        held["shape_flag"] = np.asarray(catalog["shape_flag"])[children[mine]]
        held["kron_radius"] = np.asarray(catalog["ref_kron_radius"])[children[mine]]
        at = forced_photometry(lone, held)["r"]
        for name in FLUXES:
            expected[name][mine] = at[f"{name}_flux"]
    for name in FLUXES:
        flux = np.asarray(catalog[f"{name}_flux_r"].value)[children]
        error = np.asarray(catalog[f"{name}_flux_err_r"].value)[children]
        good = np.isfinite(flux / error) & ~np.asarray(catalog[f"{name}_flag_r"])[children]
        pull = ((flux - expected[name]) / error)[good]
        bias = (flux / expected[name] - 1)[good]
        spread = 0.741 * np.subtract(*np.percentile(pull, [75, 25]))
        print(
            f"{name:9} n {good.sum():4} pull {np.median(pull):+.2f} +- {spread:.2f} (rms "
            f"{np.std(pull):.2f}), flux {np.median(bias):+.4f}, |flux| {np.median(abs(bias)):.4f}"
        )


if __name__ == "__main__":
    main()
