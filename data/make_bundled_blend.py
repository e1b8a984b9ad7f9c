"""The blend that comes with the package, drawn by GalSim.

    python data/make_bundled_blend.py

writes `bundled_blend.npz` and `bundled_blend_truth.ecsv` beside this file.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
from astropy import units as u
from astropy.table import QTable

HERE = Path(__file__).parent

SEED = 1
BANDS = ("g", "r", "i", "z", "y")
PIXEL_SCALE = 0.2
NY, NX = 57, 61
PSF_SIZE = 41
UNIT, ZERO_POINT = "nJy", 31.4

# About what the Rubin telescope collects in ten years, under a dark sky.
SEEING = (0.84, 0.76, 0.70, 0.68, 0.66)
ELECTRONS_ZERO_POINT = (28.4, 28.2, 27.9, 27.5, 26.7)  # AB magnitude of one electron a second
SKY_MAGNITUDE = (22.3, 21.2, 20.5, 19.6, 18.6)  # of a square arcsecond
SECONDS = (2400.0, 5400.0, 5400.0, 4800.0, 4800.0)
# What the sky subtraction left in each band, in sigma of the sky's noise in a pixel.
SKY_RESIDUAL = (0.15, -0.2, 0.25, 0.2, -0.15)


@dataclass(frozen=True)
class Source:
    """A source of the blend. With a bulge, `magnitudes`, `radius` and `index` are of the disc.

    - `x`, `y`: in pixels, the first pixel is centred on `(0, 0)`.
    - `magnitudes`, `bulge`: AB, in each band.
    - `radius`: half-light radius in arcseconds before the PSF; `bulge_radius`: of the bulge.
    - `g`: reduced shear; positive `g[0]` stretches along x.
    """

    model: str
    x: float
    y: float
    magnitudes: tuple[float, ...]
    radius: float = np.nan
    index: float = np.nan
    g: tuple[float, float] = (np.nan, np.nan)
    bulge: tuple[float, ...] | None = None
    bulge_radius: float = np.nan

    def fluxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the star, galaxy or disc, and of the bulge, in each band."""
        main = flux(self.magnitudes)
        return main, np.zeros_like(main) if self.bulge is None else flux(self.bulge)


SOURCES = (
    Source(
        "bulge_disc",
        24.3,
        29.2,
        magnitudes=(21.85, 21.30, 21.00, 20.82, 20.72),
        radius=1.25,
        index=1.0,
        g=(0.22, 0.14),
        bulge=(23.60, 22.25, 21.55, 21.20, 21.00),
        bulge_radius=0.35,
    ),
    Source("point", 37.8, 37.4, magnitudes=(23.90, 22.55, 21.45, 20.95, 20.70)),
    Source(
        "sersic",
        35.9,
        18.6,
        magnitudes=(22.55, 22.40, 22.30, 22.30, 22.25),
        radius=0.80,
        index=1.0,
        g=(-0.18, 0.36),
    ),
    Source(
        "sersic",
        13.2,
        40.3,
        magnitudes=(24.60, 23.25, 22.35, 21.95, 21.70),
        radius=0.45,
        index=3.0,
        g=(0.10, -0.15),
    ),
    Source(
        "sersic",
        46.6,
        28.1,
        magnitudes=(24.50, 24.25, 24.15, 24.10, 24.05),
        radius=0.40,
        index=0.8,
        g=(-0.30, -0.10),
    ),
    Source(
        "sersic",
        15.8,
        19.9,
        magnitudes=(25.40, 24.70, 24.10, 23.85, 23.75),
        radius=0.50,
        index=1.6,
        g=(0.05, 0.25),
    ),
)


def flux(magnitude: tuple[float, ...]) -> np.ndarray:
    """In `UNIT`, from AB magnitudes."""
    return 10 ** (-0.4 * (np.array(magnitude) - ZERO_POINT))


def psf(band: int) -> galsim.GSObject:
    """Of the atmosphere; the pixel is added by GalSim when it draws."""
    return galsim.Kolmogorov(fwhm=SEEING[band])


def draw(source: Source, band: int) -> np.ndarray:
    """What a band receives of a source without noise, per pixel."""
    main, bulge = (values[band] for values in source.fluxes())
    # Finer than by default: the noise is to be the only error.
    fine = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-4, maximum_fft_size=8192)
    if source.model == "point":
        seen = psf(band) * main
    else:
        light = galsim.Sersic(source.index, half_light_radius=source.radius, flux=main)
        if source.bulge is not None:
            light += galsim.DeVaucouleurs(half_light_radius=source.bulge_radius, flux=bulge)
        seen = galsim.Convolve(light.shear(g1=source.g[0], g2=source.g[1]), psf(band))
    middle = (NX - 1) / 2, (NY - 1) / 2
    offset = source.x - middle[0], source.y - middle[1]
    image = galsim.ImageD(NX, NY, scale=PIXEL_SCALE)
    return seen.withGSParams(fine).drawImage(image, offset=offset).array


def flawed() -> np.ndarray:
    """Where pixels are bad, [band, y, x]: a dead column in two bands and a cosmic ray in one."""
    bad = np.zeros((len(BANDS), NY, NX), dtype=bool)
    bad[[2, 3], 44:53, 27] = True
    for step in range(7):
        bad[1, 6 + step // 2, 44 + step : 46 + step] = True
    return bad


def make_arrays() -> dict[str, np.ndarray]:
    """What goes into the archive."""
    gaussian = galsim.GaussianDeviate(SEED)
    images, variances, psfs = [], [], []
    for band in range(len(BANDS)):
        electrons = SECONDS[band] * 10 ** (-0.4 * (ZERO_POINT - ELECTRONS_ZERO_POINT[band]))
        sky = flux((SKY_MAGNITUDE[band],))[0] * PIXEL_SCALE**2
        light = sum(draw(source, band) for source in SOURCES)
        # Poisson noise of more than a thousand electrons a pixel: Gaussian. In this form a last
        # digit that differs between machines moves a pixel by a last digit, never by an electron.
        variance = (sky + light) / electrons
        noise = np.zeros((NY, NX))
        gaussian.generate(noise)
        residual = SKY_RESIDUAL[band] * np.sqrt(sky / electrons)
        images.append(light + residual + noise * np.sqrt(variance))
        variances.append(variance)
        stamp = galsim.ImageD(PSF_SIZE, PSF_SIZE, scale=PIXEL_SCALE)
        psfs.append(psf(band).drawImage(stamp).array)
    image, bad = np.array(images), flawed()
    image[[2, 3]] = np.where(bad[[2, 3]], np.nan, image[[2, 3]])
    image[1] = np.where(bad[1], 400 + 10 * image[1], image[1])
    # As a detection would give them.
    positions = np.array([[round(2 * s.x) / 2, round(2 * s.y) / 2] for s in SOURCES])
    return {
        "images": image.astype(np.float32),
        "variance": np.array(variances, dtype=np.float32),
        "mask": bad,
        "psfs": np.array(psfs, dtype=np.float32),
        "bands": np.array(BANDS),
        "zero_points": np.full(len(BANDS), ZERO_POINT, dtype=np.float32),
        "pixel_scale": np.array(PIXEL_SCALE),
        "positions": positions.astype(np.float32),
        "unit": np.array(UNIT),
    }


def make_truth() -> QTable:
    """What the fit should find, named as in its catalogue."""
    main, bulge = (np.array(part) for part in zip(*(s.fluxes() for s in SOURCES), strict=True))
    table = QTable()
    table["id"] = np.arange(1, len(SOURCES) + 1)
    table["x"] = np.array([s.x for s in SOURCES]) * u.pix
    table["y"] = np.array([s.y for s in SOURCES]) * u.pix
    table["model"] = [s.model for s in SOURCES]
    for number, band in enumerate(BANDS):
        table[f"flux_{band}"] = (main + bulge)[:, number] * u.Unit(UNIT)
    for number, band in enumerate(BANDS):
        part = [bulge[k, number] if s.bulge else np.nan for k, s in enumerate(SOURCES)]
        table[f"bulge_flux_{band}"] = part * u.Unit(UNIT)
    table["radius"] = np.array([s.radius / PIXEL_SCALE for s in SOURCES]) * u.pix
    # Of the disc where there is a bulge; the catalogue has none there.
    table["index"] = [np.nan if s.bulge else s.index for s in SOURCES]
    table["g1"] = [s.g[0] for s in SOURCES]
    table["g2"] = [s.g[1] for s in SOURCES]
    table["radius_ratio"] = [round(s.bulge_radius / s.radius, 6) for s in SOURCES]
    for name, text in {
        "x": "centre; the first pixel is centred on (0, 0)",
        "y": "centre; the first pixel is centred on (0, 0)",
        "radius": "half-light radius before the PSF; of the disc if there is a bulge",
        "index": "Sersic index; NaN for a star and for a bulge (4) with a disc (1)",
        "g1": "reduced shear, positive along x",
        "g2": "reduced shear, positive along x = y",
        "radius_ratio": "half-light radius of the bulge over that of the disc",
    }.items():
        table[name].info.description = text
    sky = [
        share * np.sqrt(flux((m,))[0] * PIXEL_SCALE**2 / (t * 10 ** (-0.4 * (ZERO_POINT - zero))))
        for share, m, t, zero in zip(
            SKY_RESIDUAL, SKY_MAGNITUDE, SECONDS, ELECTRONS_ZERO_POINT, strict=True
        )
    ]
    table.meta = {
        "made by": "data/make_bundled_blend.py with GalSim",
        "seed": SEED,
        "licence": "BSD-3-Clause",
        "sky residual, nJy a pixel": {
            b: round(float(s), 6) for b, s in zip(BANDS, sky, strict=True)
        },
        "seeing, FWHM in arcsec": dict(zip(BANDS, SEEING, strict=True)),
    }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to")
    folder = parser.parse_args().output
    np.savez_compressed(folder / "bundled_blend.npz", **make_arrays())
    make_truth().write(folder / "bundled_blend_truth.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
