"""Galaxies with the shapes of a catalogue, in the frame of a prior."""

import numpy as np
from jaxtyping import ArrayLike, Int

from diffdeblend.components.decoded import Frame
from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.keys import stream
from diffdeblend.train.galaxies import Galaxies, check_number
from diffdeblend.train.populations import pixel_scale_of
from diffdeblend.train.render import Shapes, draw_shapes
from diffdeblend.train.rows import all_before_any, check_variation, checked_rows


def draw_catalog(
    catalog: Catalog,
    n: int,
    frame: Frame,
    seed: int,
    *,
    rows: Int[ArrayLike, "row"] | None = None,
    dilation: float = 0.2,
    shear: float = 0.1,
    jitter: float = 0.1,
) -> Galaxies:
    """Draws galaxies of a catalogue of shapes, each about equally often, none twice alike.

    - `catalog`: as of `synthetic_catalog`, `read_catsim` or `read_cosmos`.
    - `rows`: to draw from; by default all that are neither stars nor real images, with a half-light
        radius of a quarter of the stamp at most, beyond which a galaxy is not in its stamp.
    - `dilation`: sizes are multiplied by up to 1 + `dilation`, or divided by it, log-uniform.
    - `shear`: greatest reduced shear, in a random direction, its modulus uniform. Turns and
        reflections are random.
    - `jitter`: scatter of the centre about the middle pixel, in pixels.

    `origin` is the row; features are `row`, `dilation` and `magnitude`.

    **Raises:** `ValueError` for a row that has no shape, no row that is small enough, a frame
    without a pixel scale, or a shear of 1 and more.
    """
    check_number(n)
    scale = pixel_scale_of(frame)
    check_variation(dilation, shear, jitter)
    chosen, parts = _rows(catalog, rows, frame.size * scale / 4), catalog.parts
    assert parts is not None
    rng = stream(seed, "catalogue")
    own = chosen[all_before_any(n, len(chosen), rng)]
    size = np.exp(rng.uniform(-1, 1, n) * np.log1p(dilation))
    lens = rng.uniform(0, shear, n) * np.exp(1j * rng.uniform(0, 2 * np.pi, n))
    g = parts.g1[own] + 1j * parts.g2[own]
    g = np.where(rng.random((n, 1)) < 0.5, g, g.conj())
    g = g * np.exp(1j * rng.uniform(0, 2 * np.pi, n))[:, None]
    # One shear after another: the sum of complex reduced shears.
    g = (g + lens[:, None]) / (1 + g * lens.conj()[:, None])
    x, y = rng.normal(0, jitter, (2, n))
    zero = np.zeros_like(parts.share[own])
    shapes = Shapes(
        radius=parts.radius[own] * size[:, None] / scale,
        index=parts.index[own],
        g1=g.real,
        g2=g.imag,
        x=x[:, None] + zero,
        y=y[:, None] + zero,
        share=parts.share[own],
    )
    images, outside = draw_shapes(shapes, frame)
    magnitude = np.asarray(catalog.table["magnitude"], float)[own]
    features = {"row": own.astype(float), "dilation": size, "magnitude": magnitude}
    return Galaxies(images, outside, frame, f"{len(chosen)} galaxies of a catalogue", features, own)


def _rows(
    catalog: Catalog, rows: Int[ArrayLike, "row"] | None, largest: float
) -> Int[np.ndarray, "row"]:
    if catalog.parts is None:
        raise ValueError("`catalog` has real images only; `draw_real` draws them.")
    shaped = catalog.parts.share.sum(axis=1) > 0
    if rows is None:
        size = np.asarray(catalog.table["size"], float)
        star = np.asarray(catalog.table["is_star"], bool)
        chosen = np.flatnonzero(shaped & ~star & (size <= largest))
        if not len(chosen):
            raise ValueError(
                f"`catalog` has no galaxy with a half-light radius up to {largest:.2f} arcsec, a "
                "quarter of the stamp."
            )
        return chosen
    chosen = checked_rows(rows, len(catalog))
    if not shaped[chosen].all():
        raise ValueError(f"`rows` must have shapes; {chosen[~shaped[chosen]]} are real images.")
    return chosen
