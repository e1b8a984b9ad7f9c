"""Galaxies and stars made up: where no catalogue is at hand, with a population like the sky's."""

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from diffdeblend.simulate.catalog import WAVELENGTHS, Catalog, Parts, standard_columns

# AB magnitudes at rest wavelengths (nm), 0 at 620 nm: rounded colours of local galaxies, in the
# manner of Coleman, Wu & Weedman (1980), ApJS 43, 393; from red and old to blue and young.
_REST = np.array([90.0, 121.6, 150, 220, 300, 380, 420, 475, 620, 760, 900, 1250, 1650, 2200, 3000])
_SEQUENCES = np.array(
    [
        [9.5, 6.5, 6.0, 5.2, 3.6, 2.3, 1.20, 0.75, 0, -0.35, -0.60, -0.90, -1.10, -0.90, -0.40],
        [7.0, 4.2, 3.6, 3.0, 2.3, 1.6, 0.90, 0.55, 0, -0.28, -0.48, -0.75, -0.95, -0.80, -0.40],
        [5.0, 2.4, 1.9, 1.7, 1.4, 1.1, 0.60, 0.38, 0, -0.18, -0.30, -0.50, -0.65, -0.55, -0.25],
        [3.5, 0.9, 0.6, 0.6, 0.6, 0.5, 0.25, 0.17, 0, -0.05, -0.10, -0.20, -0.30, -0.20, 0.00],
    ]
)
# Mean of the bulge's share of the light in each sequence, the first mostly spheroids.
_BULGE = np.array([0.8, 0.35, 0.12, 0.03])
_HC_OVER_K = 1.43878e7  # nm K


def synthetic_catalog(
    n: int,
    rng: np.random.Generator,
    *,
    brightest: float = 18.0,
    faintest: float = 26.0,
    slope: float = 0.3,
    radius: float = 0.32,
    radius_scatter: float = 0.17,
) -> Catalog:
    r"""Galaxies of disc (index 1) and bulge (index 4), with magnitudes in 23 bands.

    - `n`: number of galaxies. The same `rng` gives the same ones.
    - `brightest`, `faintest`: AB magnitude in i, between which the logarithm of counts rises by
        `slope` a magnitude.
    - `radius`: median half-light radius in arcseconds of the disc, or of a pure bulge, at i = 24.
        It falls by 0.1 dex a magnitude, with a log-normal scatter of `radius_scatter` dex.

    The columns `{band}_ab` cover all bands of surveycodex and JHK. Colours are those of four
    sequences of spectra at a redshift drawn for the magnitude, and 0.05 mag (rms) of their own; the
    share of blue galaxies grows with magnitude. Discs, a fifth as thick as wide, are seen from
    random directions; a bulge has its disc's position angle and is rounder and smaller. `ra` and
    `dec` are not there.

    **Raises:** `ValueError` for fewer than one galaxy or an empty range of magnitudes.

    ??? cite
        Counts and redshifts, $p(z) \propto z^2 e^{-z/z_0}$, $z_0 = 0.0417\, i - 0.744$ for
        20.5 < i < 25.5: LSST Science Book (2009), arXiv:0912.0201, section 3.7.
    """
    magnitude = _counts(n, rng, brightest, faintest, slope)
    redshift = np.minimum(rng.gamma(3.0, np.maximum(0.0417 * magnitude - 0.744, 0.02)), 4.0)
    # Red and early: 40 % at i = 18, 8 % at 26. The bluest: 5 and 40 %.
    faint = np.clip((magnitude - 18) / 8, 0, 1)
    limits = np.stack([0.4 - 0.32 * faint, 0.7 - 0.42 * faint, 0.95 - 0.35 * faint])
    kind = (rng.random(n) > limits).sum(axis=0)
    bulge = np.clip(rng.normal(_BULGE[kind], 0.15), 0, 1)
    # Most of what looks like a bulge of a few percent, and a disc of a few percent, is neither.
    bulge = np.where(bulge < 0.03, 0.0, np.where(bulge > 0.9, 1.0, bulge))
    offset = -0.1 * (magnitude - 24) + radius_scatter * rng.normal(size=n)
    disc_radius = np.clip(radius * 10**offset, 0.02, 10.0)
    ratio = rng.uniform(0.2, 0.6, n)
    bulge_radius = np.where(bulge == 1, disc_radius, ratio * disc_radius)
    inclination = rng.random(n)  # its cosine
    disc_q = np.sqrt(0.04 + 0.96 * inclination**2)
    # Bulges share the view, but are 0.6 as thick as wide.
    bulge_q = np.sqrt(0.36 + 0.64 * inclination**2)
    angle = rng.uniform(0, np.pi, n)
    shares = np.stack([1 - bulge, bulge], axis=1)
    q = np.stack([disc_q, bulge_q], axis=1)
    there, g = shares > 0, (1 - q) / (1 + q)
    parts = Parts(
        np.tile([1.0, 4.0], (n, 1)),
        np.where(there, np.stack([disc_radius, bulge_radius], axis=1), 0),
        np.where(there, g * np.cos(2 * angle)[:, None], 0),
        np.where(there, g * np.sin(2 * angle)[:, None], 0),
        shares,
    )
    table = Table({"redshift": redshift, "sequence": kind, "bulge_share": bulge})
    rest = np.log(np.array(list(WAVELENGTHS.values())) / (1 + redshift)[:, None])
    colour = np.empty_like(rest)
    for k, sequence in enumerate(_SEQUENCES):
        colour[kind == k] = np.interp(rest[kind == k], np.log(_REST), sequence)
    _add_magnitudes(table, magnitude, colour + 0.05 * rng.normal(size=colour.shape))
    return Catalog(
        standard_columns(table, magnitude=magnitude, size=parts.half_light_radius()), parts
    )


def star_catalog(
    n: int,
    rng: np.random.Generator,
    *,
    brightest: float = 18.0,
    faintest: float = 26.0,
    slope: float = 0.12,
    scatter: float = 0.05,
) -> Catalog:
    r"""Stars: points that radiate as black bodies, with the magnitudes of `synthetic_catalog`.

    - `n`: number of stars. The same `rng` gives the same ones.
    - `brightest`, `faintest`: AB magnitude in i, between which the logarithm of counts rises by
        `slope` a magnitude.

    Temperatures (column `temperature`, in K) are log-normal, from a median of 5500 K at i = 18 to
    3600 K at 26: faint stars are mostly red dwarfs. $f_\nu \propto \lambda^{-3} /
    (e^{hc / \lambda k T} - 1)$ and `scatter` magnitudes (rms) in each band.

    **Raises:** `ValueError` for fewer than one star or an empty range of magnitudes.
    """
    magnitude = _counts(n, rng, brightest, faintest, slope)
    median = 5500 - 1900 * np.clip((magnitude - 18) / 8, 0, 1)
    temperature = np.clip(median * np.exp(0.18 * rng.normal(size=n)), 2600, 12000)
    wavelength = np.array(list(WAVELENGTHS.values()))
    colour = 2.5 * np.log10(
        wavelength**3 * np.expm1(_HC_OVER_K / (wavelength * temperature[:, None]))
    )
    table = Table({"redshift": np.zeros(n), "temperature": temperature})
    _add_magnitudes(table, magnitude, colour + scatter * rng.normal(size=colour.shape))
    zero = np.zeros((n, 1))
    parts = Parts(zero + 1, zero, zero, zero, zero + 1)
    return Catalog(
        standard_columns(table, magnitude=magnitude, size=np.zeros(n), is_star=True), parts
    )


def _counts(
    n: int, rng: np.random.Generator, brightest: float, faintest: float, slope: float
) -> Float[np.ndarray, "row"]:
    """Magnitudes by the inverse of the cumulative counts, of which the logarithm is a line."""
    if int(n) != n or n < 1:
        raise ValueError(f"`n` must be a number of sources, at least 1; got {n}.")
    if not (np.isfinite(faintest - brightest) and faintest > brightest):
        raise ValueError(f"`faintest` must be above `brightest`; got {faintest} and {brightest}.")
    u, rise = rng.random(n), slope * np.log(10) * (faintest - brightest)
    if abs(rise) < 1e-9:
        return brightest + (faintest - brightest) * u
    return brightest + (faintest - brightest) * np.log1p(u * np.expm1(rise)) / rise


def _add_magnitudes(
    table: Table, magnitude: Float[np.ndarray, "row"], colour: Float[np.ndarray, "row band"]
) -> None:
    """Colours are shifted so that the magnitude in i is the given one."""
    colour = colour - colour[:, [list(WAVELENGTHS).index("i")]]
    for k, band in enumerate(WAVELENGTHS):
        table[f"{band}_ab"] = magnitude + colour[:, k]
