"""What a galaxy prior learns from: many galaxies alone, in one frame, and mixtures of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Shaped

from diffdeblend.components.decoded import Frame
from diffdeblend.simulate.keys import stream


@dataclass(frozen=True, eq=False)
class Galaxies:
    """Galaxies without noise, each alone and centred in a stamp of the frame.

    - `images`: as seen through the frame's Gaussian and sampled at pixel centres, of unit sum and
        nowhere negative, `(galaxy, size, size)`, float32.
    - `outside`: share of a galaxy's light that lies beyond the stamp, and is not in its image.
    - `frame`: size, pixel scale and Gaussian.
    - `source`: where they come from, in words, for the record of what was learnt from.
    - `features`: of what was drawn, one number a galaxy; empty where nothing is known.
    - `origin`: galaxies of one number are the same one, turned or stretched. By default all differ.

    **Raises:** `ValueError` for shapes that disagree, or images that are not finite, negative or
    not of unit sum.
    """

    images: Float[np.ndarray, "galaxy size size"]
    outside: Float[np.ndarray, "galaxy"]
    frame: Frame
    source: str
    features: Mapping[str, Float[np.ndarray, "galaxy"]] = field(default_factory=dict)
    origin: Int[np.ndarray, "galaxy"] | None = None

    def __post_init__(self):
        images = np.asarray(self.images, np.float32)
        shape = (self.frame.size, self.frame.size)
        if images.ndim != 3 or images.shape[1:] != shape:
            raise ValueError(
                f"`images` needs shape (galaxy, {shape[0]}, {shape[1]}) in this frame; "
                f"got {images.shape}."
            )
        # In double: a sum of a thousand pixels in single precision is 1e-6 off.
        sums = images.sum(axis=(1, 2), dtype=float)
        good = np.isfinite(sums) & (images.min(axis=(1, 2), initial=np.inf) >= 0)
        good &= abs(sums - 1) < 1e-4
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                "`images` must be finite, nowhere negative and of unit sum; galaxy "
                f"{row} has least {images[row].min()} and sum {sums[row]}. "
                "`of_images` mends what can be mended."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "outside", np.asarray(self.outside, float))
        origin = np.arange(len(images)) if self.origin is None else np.asarray(self.origin)
        object.__setattr__(self, "origin", origin)
        columns = {"outside": self.outside, "origin": origin, **self.features}
        for name, values in columns.items():
            if np.shape(values) != (len(images),):
                raise ValueError(
                    f"`{name}` needs one number for each of {len(images)} galaxies; "
                    f"got shape {np.shape(values)}."
                )

    @classmethod
    def of_images(
        cls,
        images: Float[ArrayLike, "galaxy size size"],
        frame: Frame,
        source: str,
        **others: ArrayLike,
    ) -> "Galaxies":
        """From your own images without noise in the frame: cut at 0 and normalised.

        - `others`: `outside`, by default 0; all else are features.

        **Raises:** `ValueError` for another shape, or an image without light.
        """
        light = np.maximum(np.asarray(images, float), 0)
        total = light.sum(axis=(1, 2), keepdims=True)
        if not (total > 0).all() or not np.isfinite(total).all():
            row = int(np.argmin((total > 0) & np.isfinite(total)))
            raise ValueError(f"`images` needs light in every image; galaxy {row} has none.")
        outside = others.pop("outside", np.zeros(len(light)))
        features = {name: np.asarray(values, float) for name, values in others.items()}
        return cls((light / total).astype(np.float32), np.asarray(outside), frame, source, features)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Of the images and their frame: the same galaxies have the same one."""
        digest = hashlib.sha256(repr((self.images.shape, self.frame)).encode())
        digest.update(self.images.tobytes())
        return digest.hexdigest()

    def select(self, rows: Shaped[ArrayLike, "row"]) -> "Galaxies":
        """Some of them, by number or by mask."""
        rows, origin = np.asarray(rows), self.origin
        assert origin is not None
        return Galaxies(
            self.images[rows],
            self.outside[rows],
            self.frame,
            self.source,
            {name: values[rows] for name, values in self.features.items()},
            origin[rows],
        )

    def split(self, held_out: float, seed: int) -> tuple["Galaxies", "Galaxies"]:
        """Those to learn from, and those held out, in an order of the seed's.

        All that come from one galaxy go to one side.

        - `held_out`: share of the galaxies, between 0 and 1; both sides get one at least.

        **Raises:** `ValueError` for another share, or fewer than two different galaxies.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"`held_out` must be between 0 and 1; got {held_out}.")
        kinds, own = np.unique(np.asarray(self.origin), return_inverse=True)
        if len(kinds) < 2:
            raise ValueError(f"`held_out` needs two different galaxies; got {len(kinds)}.")
        rng = stream(seed, "held out")
        count = int(np.clip(round(held_out * len(kinds)), 1, len(kinds) - 1))
        out = np.zeros(len(kinds), bool)
        out[rng.permutation(len(kinds))[:count]] = True
        order = rng.permutation(len(self))
        return self.select(order[~out[own[order]]]), self.select(order[out[own[order]]])


def join(given: Sequence[Galaxies]) -> Galaxies:
    """All galaxies of several sets, one set after the other.

    Features are kept where any has them, NaN for the others.

    **Raises:** `ValueError` for sets of different frames, or none.
    """
    if not given:
        raise ValueError("`given` needs one set of galaxies at least; got none.")
    frames = list(dict.fromkeys(one.frame for one in given))
    if len(frames) > 1:
        raise ValueError(f"`given` must be of one frame; got {frames}.")
    names = list(dict.fromkeys(name for one in given for name in one.features))
    features = {
        name: np.concatenate([one.features.get(name, np.full(len(one), np.nan)) for one in given])
        for name in names
    }
    origins, first = [], 0
    for one in given:
        kinds, own = np.unique(np.asarray(one.origin), return_inverse=True)
        origins.append(first + own)
        first += len(kinds)
    return Galaxies(
        np.concatenate([one.images for one in given]),
        np.concatenate([one.outside for one in given]),
        frames[0],
        " + ".join(dict.fromkeys(one.source for one in given)),
        features,
        np.concatenate(origins),
    )


class Population(Protocol):
    """Anything that draws galaxies: the same seed gives the same ones."""

    def __call__(self, n: int, frame: Frame, seed: int, /) -> Galaxies: ...


@dataclass(frozen=True, eq=False)
class Mixture:
    """Galaxies of several populations, each with its share of the number.

    - `populations`: functions such as `Sersics()`; two that are the same draw different galaxies.
    - `shares`: one each, positive; only their ratios count.

    **Raises:** `ValueError` if there are none, or not one positive share for each.
    """

    populations: tuple[Population, ...]
    shares: tuple[float, ...]

    def __post_init__(self):
        if not self.populations or len(self.shares) != len(self.populations):
            raise ValueError(
                f"`shares` needs one number for each of {len(self.populations)} populations; "
                f"got {self.shares}."
            )
        if not all(np.isfinite(share) and share > 0 for share in self.shares):
            raise ValueError(f"`shares` must be finite and positive; got {self.shares}.")

    def __call__(self, n: int, frame: Frame, seed: int) -> Galaxies:
        """Draw, one population after the other; `split` puts them in a random order.

        **Raises:** `ValueError` for fewer galaxies than there are populations, and as those do.
        """
        check_number(n, len(self.populations))
        ends = np.round(n * np.cumsum(self.shares) / np.sum(self.shares)).astype(int)
        counts = np.diff(ends, prepend=0)
        seeds = stream(seed, "mixture").integers(0, 2**31, len(counts))
        drawn = [
            population(int(count), frame, int(own))
            for population, count, own in zip(self.populations, counts, seeds, strict=True)
            if count > 0
        ]
        return join(drawn)


def check_number(n: int, least: int = 1) -> None:
    """**Raises:** `ValueError` if `n` is no number of galaxies of at least `least`."""
    if isinstance(n, bool) or int(n) != n or n < least:
        raise ValueError(f"`n` must be a number of galaxies, at least {least}; got {n}.")
