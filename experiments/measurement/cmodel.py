"""How right and how fast is CModel?

Question: are CModel fluxes and their errors right, for galaxies, mixtures and stars at any
brightness, and how many sources a second are measured?
Answer: `cmodel.md`.

    python experiments/measurement/cmodel.py --seed 100
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import galsim
import jax
import numpy as np

from diffdeblend.quantities.cmodel import cmodel
from diffdeblend.quantities.psf_flux import psf_flux


@dataclass(frozen=True)
class Setting:
    """Stamps, PSF, and how many noisy images of each source."""

    size: int = 48
    fwhm: float = 3.5
    n_noise: int = 300
    n_mixed: int = 300
    n_speed: int = 2000
    snrs: tuple[float, ...] = (10, 20, 50, 100, 300)


def draw(profile, psf, x, y, size):
    """Without noise, at a place in pixels of the stamp; the PSF holds the pixel."""
    middle = (size - 1) / 2
    whole = psf if profile is None else galsim.Convolve(profile, psf)
    return whole.drawImage(
        nx=size, ny=size, scale=1, offset=(x - middle, y - middle), method="no_pixel"
    ).array


def psf_of(setting):
    """The stamp that is given to the fit, and the same as GalSim's profile."""
    stamp = galsim.Moffat(beta=3, fwhm=setting.fwhm).drawImage(nx=41, ny=41, scale=1).array
    stamp = (stamp / stamp.sum()).astype(np.float32)
    image = galsim.Image(stamp.astype(float), scale=1)
    return stamp, galsim.InterpolatedImage(
        image, normalization="flux", x_interpolant="lanczos15", flux=1
    )


def kinds():
    """Sources of unit flux, by name."""
    disc, bulge = galsim.Exponential, galsim.DeVaucouleurs
    return {
        "star": None,
        "disc, 1.5 px": disc(half_light_radius=1.5).shear(g1=0.2, g2=-0.1),
        "disc, 3 px": disc(half_light_radius=3).shear(g1=-0.2, g2=0.2),
        "spheroid, 1.5 px": bulge(half_light_radius=1.5).shear(g1=0.1, g2=0.1),
        "spheroid, 3 px": bulge(half_light_radius=3).shear(g1=-0.1, g2=0.1),
        "mixture, 30 %": 0.7 * disc(half_light_radius=3).shear(g1=0.2, g2=0.1)
        + 0.3 * bulge(half_light_radius=1.5),
    }


@jax.jit
def measure(images, variances, psf, x, y):
    """CModel and PSF flux, source after source: on CPU its stamp stays in the cache."""

    def one(args):
        image, variance, x, y = args
        good = variance > 0
        return cmodel(image, variance, good, psf, x, y), psf_flux(image, variance, psf, x, y)

    return jax.lax.map(one, (images, variances, x, y))


def noisy(image, snr, rng, n):
    """Images of one source at a ratio of signal to noise in its own light, and their noise."""
    scale = snr / np.sqrt(np.sum(image**2))
    return (image * scale + rng.normal(size=(n, *image.shape))).astype(np.float32), scale


def calibration(setting, seed):
    """Bias, pull and coverage by kind and brightness."""
    rng = np.random.default_rng(seed)
    stamp, psf = psf_of(setting)
    lines = []
    for name, profile in kinds().items():
        for snr in setting.snrs:
            x, y = setting.size // 2 + rng.uniform(-0.5, 0.5, 2)
            image = draw(profile, psf, x, y, setting.size)
            images, truth = noisy(image, snr, rng, setting.n_noise)
            n = len(images)
            made, point = measure(
                *(images, np.ones_like(images), stamp),
                *(np.full(n, v, np.float32) for v in (x, y)),
            )
            flux, error = np.asarray(made.flux), np.asarray(made.flux_err)
            pull = (flux - truth) / error
            width = 0.7413 * np.subtract(*np.percentile(pull, [75, 25]))
            ratio = np.asarray(made.flux / point.flux)
            lines.append(
                f"| {name} | {snr:.0f} | {100 * (np.mean(flux) / truth - 1):+.2f} "
                f"| {100 * (np.median(flux) / truth - 1):+.2f} "
                f"| {100 * np.std(flux) / truth:.2f} | {100 * np.median(error) / truth:.2f} "
                f"| {100 * np.median(made.flux_err_held) / truth:.2f} "
                f"| {np.median(pull):+.2f} | {width:.2f} "
                f"| {100 * np.mean(np.abs(pull) < 1):.0f} | {100 * np.mean(np.abs(pull) < 2):.0f} "
                f"| {np.median(made.frac_dev):.2f} | {np.median(ratio):.3f} "
                f"| {np.median(error / np.asarray(point.flux_err)):.2f} "
                f"| {100 * np.mean(made.flag):.0f} |"
            )
    head = (
        "| source | SNR | mean bias % | median bias % | scatter % | error % | held % | pull median "
        "| pull sd | in 1 sd % | in 2 sd % | frac_dev | CModel / PSF | error / PSF's | flag % |"
    )
    return [head, "|---|" + "---:|" * 14, *lines]


def mixtures(setting, seed, snr=100.0):
    """Bias of random mixtures of both profiles, noisy."""
    rng = np.random.default_rng(seed)
    stamp, psf = psf_of(setting)
    images, truth, places, share = [], [], [], []
    for _ in range(setting.n_mixed):
        shear = rng.normal(0, 0.15, (2, 2)).clip(-0.4, 0.4)
        radius, part = rng.uniform(1.5, 5), rng.uniform(0, 1)
        both = (1 - part) * galsim.Exponential(half_light_radius=radius).shear(
            g1=shear[0, 0], g2=shear[0, 1]
        ) + part * galsim.DeVaucouleurs(half_light_radius=radius * rng.uniform(0.3, 1)).shear(
            g1=shear[1, 0], g2=shear[1, 1]
        )
        place = setting.size // 2 + rng.uniform(-0.5, 0.5, 2)
        image, scale = noisy(draw(both, psf, *place, setting.size), snr, rng, 1)
        images.append(image[0])
        truth.append(scale)
        places.append(place)
        share.append(part)
    images, places = np.array(images), np.array(places, np.float32)
    made, _ = measure(images, np.ones_like(images), stamp, places[:, 0], places[:, 1])
    off = np.asarray(made.flux) / truth - 1
    pull = (np.asarray(made.flux) - truth) / np.asarray(made.flux_err)
    share = np.array(share)
    lines = []
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1), (0, 1)):
        some = (share >= low) & (share <= high)
        lines.append(
            f"| {low} - {high} | {some.sum()} | {100 * np.mean(off[some]):+.2f} "
            f"| {100 * np.median(off[some]):+.2f} | {100 * np.std(off[some]):.2f} "
            f"| {100 * np.median(np.asarray(made.flux_err)[some] / np.array(truth)[some]):.2f} "
            f"| {np.median(pull[some]):+.2f} | {100 * np.mean(np.abs(pull[some]) < 1):.0f} "
            f"| {100 * np.mean(np.abs(pull[some]) < 2):.0f} |"
        )
    head = (
        "| light in the spheroid | sources | mean bias % | median bias % | scatter % | error % "
        "| pull median | in 1 sd % | in 2 sd % |"
    )
    return [head, "|---|" + "---:|" * 8, *lines]


def speed(setting, seed):
    """Sources a second, cold and warm: one after the other in one thread."""
    rng = np.random.default_rng(seed)
    stamp, psf = psf_of(setting)
    plain = []
    for i, profile in enumerate(kinds().values()):
        image = draw(profile, psf, setting.size // 2, setting.size // 2, setting.size)
        plain.append(image * ((20, 50, 200)[i % 3] / np.sqrt(np.sum(image**2))))
    images = np.array(plain)[np.arange(setting.n_speed) % len(plain)]
    images = (images + rng.normal(size=images.shape)).astype(np.float32)
    places = [np.full(len(images), setting.size // 2, np.float32)] * 2
    lines = []
    for name in ("cold", "warm"):
        begun, spent = time.perf_counter(), time.process_time()
        jax.block_until_ready(measure(images, np.ones_like(images), stamp, *places))
        wall, cpu = time.perf_counter() - begun, time.process_time() - spent
        lines.append(
            f"| {name} | {len(images)} | {wall:.1f} | {cpu:.1f} | {len(images) / cpu:.0f} |"
        )
    head = "| call | sources | s | CPU s | sources a CPU second |"
    return [head, "|---|" + "---:|" * 4, *lines]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("calibration", "mixtures", "speed"))
    args = parser.parse_args()
    setting, text = Setting(), []
    # First, while nothing is compiled.
    for part in (speed, calibration, mixtures):
        if args.only in (None, part.__name__):
            text += [*part(setting, args.seed), ""]
    text.append(f"Seed {args.seed}; {os.cpu_count()} cores.")
    print("\n".join(text))
    if args.out:
        args.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
