"""Populations of made-up galaxies, broad enough that real ones lie within them.

Each is a function `(n, frame, seed) -> Galaxies` with its settings as fields. Half-light radii are
log-normal and drawn again where they lie beyond their limits; axis ratios are uniform, and
position angles random. Lengths are in arcseconds.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from diffdeblend.components.decoded import Frame
from diffdeblend.simulate.keys import stream
from diffdeblend.train.galaxies import Galaxies, check_number
from diffdeblend.train.render import Shapes, draw_shapes

# Half-light radius of an exponential disc in units of its scale length.
_EXPONENTIAL = 1.67834699


@dataclass(frozen=True)
class Sizes:
    """Half-light radii, of the round profile before shear: log-normal between limits.

    By default as wide as to hold the real galaxies of COSMOS down to magnitude 25, which have 0.1
    to 0.9, and the larger ones of wider surveys.

    - `median`, `least`, `largest`: in arcseconds; `scatter`: of the natural logarithm.
    """

    median: float = 0.3
    scatter: float = 0.7
    least: float = 0.05
    largest: float = 1.5

    def __post_init__(self):
        if not (0 < self.least < self.largest < np.inf and self.median > 0 and self.scatter > 0):
            raise ValueError(
                "`median` and `scatter` must be positive, and `least` positive and below "
                f"`largest`; got {self}."
            )

    def draw(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "galaxy"]:
        """Log-normal between the limits, by the inverse of its cumulative distribution."""
        from scipy.special import ndtr, ndtri

        low, high = (
            ndtr(np.log(limit / self.median) / self.scatter) for limit in (self.least, self.largest)
        )
        return self.median * np.exp(self.scatter * ndtri(rng.uniform(low, high, n)))


@dataclass(frozen=True)
class Sersics:
    """Single Sersic profiles.

    - `sizes`: half-light radii.
    - `index`: least and greatest Sersic index; its logarithm is uniform.
    - `axis_ratio`: least axis ratio; uniform up to 1.
    - `jitter`: scatter of the centre about the middle pixel, in pixels, on each axis.
    """

    sizes: Sizes = Sizes()
    index: tuple[float, float] = (0.5, 6.0)
    axis_ratio: float = 0.2
    jitter: float = 0.1

    def __post_init__(self):
        if not 0.5 <= self.index[0] <= self.index[1] <= 6.2:
            raise ValueError(f"`index` must rise within 0.5 to 6.2; got {self.index}.")
        _check_ratio(self.axis_ratio)

    def __call__(self, n: int, frame: Frame, seed: int) -> Galaxies:
        """Draw. **Raises:** `ValueError` for no galaxy, or a frame without a pixel scale."""
        scale = _begin(n, frame)
        rng = stream(seed, "sersic")
        radius = self.sizes.draw(n, rng) / scale
        index = _log_uniform(self.index, n, rng)
        g1, g2 = _random_shear(n, self.axis_ratio, rng)
        x, y = rng.normal(0, self.jitter, (2, n))
        parts = (v[:, None] for v in (radius, index, g1, g2, x, y, np.ones(n)))
        shapes = Shapes(*parts)
        features = {"radius": radius * scale, "index": index, "g1": g1, "g2": g2}
        return _drawn(shapes, frame, self, features)


@dataclass(frozen=True)
class BulgeDiscKnots:
    """A disc, a bulge in its middle, and knots of young stars that are spread as the disc is.

    - `sizes`: half-light radii of the discs.
    - `bulge`: least and greatest share of the bulge in the light, uniform; `pure`: probability
        that there is none.
    - `bulge_index`: least and greatest Sersic index of bulges, uniform.
    - `radius_ratio`: least and greatest half-light radius of the bulge in units of the disc's.
    - `knots`: least and greatest share of the knots in the light, uniform, of `n_knots`: fewest and
        most; (0, 0) for none.
    - `axis_ratio`: least axis ratio of discs, uniform up to 1; a bulge has the same position angle
        and an axis ratio between its disc's and 1.
    - `off_centre`: scatter of the bulge about the disc's centre, in units of the disc's radius.
    - `jitter`: scatter of the disc's centre about the middle pixel, in pixels.

    Knots are points, placed as by `galsim.RandomKnots` with an exponential profile.
    """

    sizes: Sizes = Sizes()
    bulge: tuple[float, float] = (0.0, 0.7)
    pure: float = 0.2
    bulge_index: tuple[float, float] = (2.0, 4.5)
    radius_ratio: tuple[float, float] = (0.15, 0.8)
    knots: tuple[float, float] = (0.0, 0.35)
    n_knots: tuple[int, int] = (4, 32)
    axis_ratio: float = 0.2
    off_centre: float = 0.03
    jitter: float = 0.1

    def __post_init__(self):
        for name in ("bulge", "knots"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"`{name}` must be shares, rising from 0 to 1; got {low}, {high}.")
        if not 0.5 <= self.bulge_index[0] <= self.bulge_index[1] <= 6.2:
            raise ValueError(f"`bulge_index` must rise within 0.5 to 6.2; got {self.bulge_index}.")
        if not 1 <= self.n_knots[0] <= self.n_knots[1]:
            raise ValueError(f"`n_knots` must be rising numbers from 1; got {self.n_knots}.")
        _check_ratio(self.axis_ratio)

    def __call__(self, n: int, frame: Frame, seed: int) -> Galaxies:
        """Draw. **Raises:** `ValueError` for no galaxy, or a frame without a pixel scale."""
        scale = _begin(n, frame)
        rng = stream(seed, "bulge disc knots")
        radius = self.sizes.draw(n, rng) / scale
        bulge = rng.uniform(*self.bulge, n) * (rng.random(n) >= self.pure)
        index = rng.uniform(*self.bulge_index, n)
        ratio = _log_uniform(self.radius_ratio, n, rng)
        disc_q = rng.uniform(self.axis_ratio, 1, n)
        bulge_q = rng.uniform(disc_q, 1)
        angle = rng.uniform(0, np.pi, n)
        g1, g2 = _shear(np.stack([disc_q, bulge_q], axis=1), angle[:, None])
        x, y = rng.normal(0, self.jitter, (2, n))
        off_x, off_y = self.off_centre * radius * rng.normal(size=(2, n))
        light = rng.uniform(*self.knots, n)
        blobs = {}
        if self.knots[1] > 0:
            along, across = _knots(radius, g1[:, 0], g2[:, 0], self.n_knots[1], rng)
            there = rng.integers(self.n_knots[0], self.n_knots[1] + 1, n)
            share = (np.arange(self.n_knots[1]) < there[:, None]) * (light / there)[:, None]
            blobs = {
                "blob_x": x[:, None] + along,
                "blob_y": y[:, None] + across,
                "blob_sigma": np.zeros_like(along),
                "blob_share": (1 - bulge[:, None]) * share,
            }
        disc_share = (1 - bulge) * (1 - light)
        shapes = Shapes(
            radius=np.stack([radius, radius * ratio], axis=1),
            index=np.stack([np.ones(n), index], axis=1),
            g1=g1,
            g2=g2,
            x=np.stack([x, x + off_x], axis=1),
            y=np.stack([y, y + off_y], axis=1),
            share=np.stack([disc_share, bulge], axis=1),
            **blobs,
        )
        features = {"radius": radius * scale, "g1": g1[:, 0], "g2": g2[:, 0]}
        features |= {"bulge_share": bulge, "knots_share": (1 - bulge) * light}
        return _drawn(shapes, frame, self, features)


@dataclass(frozen=True)
class Irregulars:
    """Clumps of different brightness in a faint disc, none of them in the middle.

    - `sizes`: half-light radii of the discs.
    - `clumps`: share of the clumps in the light, least and greatest, uniform; of `n_clumps`: fewest
        and most. Their brightness has an exponential distribution.
    - `clump_size`: sigma of the clumps' Gaussians in units of the disc's radius, from least to
        greatest.
    - `axis_ratio`: least axis ratio, uniform up to 1, of disc and places of clumps alike.
    - `jitter`: scatter of the centre of light about the middle pixel, in pixels.

    The centre of light of the whole is the centre.
    """

    sizes: Sizes = Sizes()
    clumps: tuple[float, float] = (0.2, 0.8)
    n_clumps: tuple[int, int] = (2, 8)
    clump_size: tuple[float, float] = (0.05, 0.4)
    axis_ratio: float = 0.2
    jitter: float = 0.1

    def __post_init__(self):
        if not 0 <= self.clumps[0] <= self.clumps[1] <= 1:
            raise ValueError(f"`clumps` must be shares, rising from 0 to 1; got {self.clumps}.")
        if not 1 <= self.n_clumps[0] <= self.n_clumps[1]:
            raise ValueError(f"`n_clumps` must be rising numbers from 1; got {self.n_clumps}.")
        if not 0 < self.clump_size[0] <= self.clump_size[1]:
            raise ValueError(f"`clump_size` must be rising and positive; got {self.clump_size}.")
        _check_ratio(self.axis_ratio)

    def __call__(self, n: int, frame: Frame, seed: int) -> Galaxies:
        """Draw. **Raises:** `ValueError` for no galaxy, or a frame without a pixel scale."""
        scale = _begin(n, frame)
        rng = stream(seed, "irregular")
        most = self.n_clumps[1]
        radius = self.sizes.draw(n, rng) / scale
        g1, g2 = _random_shear(n, self.axis_ratio, rng)
        dx, dy = _knots(radius, g1, g2, most, rng)
        there = rng.integers(self.n_clumps[0], most + 1, n)
        weight = rng.exponential(size=(n, most)) * (np.arange(most) < there[:, None])
        light = rng.uniform(*self.clumps, n)
        share = light[:, None] * weight / weight.sum(axis=1, keepdims=True)
        x, y = (rng.normal(0, self.jitter, n) - (share * offset).sum(axis=1) for offset in (dx, dy))
        size = _log_uniform(self.clump_size, (n, most), rng)
        shapes = Shapes(
            *(v[:, None] for v in (radius, np.ones(n), g1, g2, x, y, 1 - light)),
            blob_x=x[:, None] + dx,
            blob_y=y[:, None] + dy,
            blob_sigma=size * radius[:, None],
            blob_share=share,
        )
        features = {"radius": radius * scale, "g1": g1, "g2": g2, "clumps_share": light}
        return _drawn(shapes, frame, self, features)


def describe(settings: object) -> str:
    """A population in words: its name, and the settings that are not as usual."""
    usual = type(settings)()
    own = [
        f"{one.name}={getattr(settings, one.name)!r}"
        for one in fields(settings)  # type: ignore[arg-type]
        if getattr(settings, one.name) != getattr(usual, one.name)
    ]
    return f"{type(settings).__name__}({', '.join(own)})"


def pixel_scale_of(frame: Frame) -> float:
    """**Raises:** `ValueError` if the frame has none: sizes in arcseconds would mean nothing."""
    if frame.pixel_scale is None:
        raise ValueError("`frame` needs a `pixel_scale`, for sizes in arcseconds; it has None.")
    return float(frame.pixel_scale)


def _begin(n: int, frame: Frame) -> float:
    check_number(n)
    return pixel_scale_of(frame)


def _drawn(
    shapes: Shapes, frame: Frame, settings: object, features: dict[str, np.ndarray]
) -> Galaxies:
    images, outside = draw_shapes(shapes, frame)
    return Galaxies(images, outside, frame, describe(settings), features)


def _log_uniform(
    limits: tuple[float, float], shape: int | tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), shape))


def _check_ratio(axis_ratio: float) -> None:
    # Thinner ones reach beyond the period that they are drawn on.
    if not 0.1 <= axis_ratio <= 1:
        raise ValueError(f"`axis_ratio` must be between 0.1 and 1; got {axis_ratio}.")


def _random_shear(
    n: int, axis_ratio: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "galaxy"], Float[np.ndarray, "galaxy"]]:
    return _shear(rng.uniform(axis_ratio, 1, n), rng.uniform(0, np.pi, n))


def _shear(
    q: Float[np.ndarray, "*n"], angle: Float[np.ndarray, "*n"]
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    g = (1 - q) / (1 + q)
    return g * np.cos(2 * angle), g * np.sin(2 * angle)


def _knots(
    radius: Float[np.ndarray, "galaxy"],
    g1: Float[np.ndarray, "galaxy"],
    g2: Float[np.ndarray, "galaxy"],
    most: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "galaxy knot"], Float[np.ndarray, "galaxy knot"]]:
    """Places spread as the light of a sheared exponential disc."""
    n = len(radius)
    # r exp(-r) is the density of the radius: a gamma distribution.
    distance = (radius / _EXPONENTIAL)[:, None] * rng.gamma(2.0, size=(n, most))
    turn = rng.uniform(0, 2 * np.pi, (n, most))
    x, y = distance * np.cos(turn), distance * np.sin(turn)
    norm = 1 / np.sqrt(1 - g1**2 - g2**2)
    xx, xy, yy = ((norm * v)[:, None] for v in (1 + g1, g2, 1 - g1))
    return xx * x + xy * y, xy * x + yy * y
