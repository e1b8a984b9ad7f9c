"""What is to be drawn: all sources of many blends in flat arrays, in the pixels of one survey."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.sampling import Placed
from diffdeblend.simulate.survey import Survey

_SHAPE = ("index", "radius", "g1", "g2")


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources one after the other, blend by blend, and their parts likewise.

    - `blend`: the blend that each source is in, ascending; `row`: its row of the catalogue.
    - `x`, `y`: centres in pixels, the first pixel is centred on `(0, 0)`.
    - `flux`: electrons in each band, `(source, band)`, float64.
    - `first`: shape `(source + 1,)`; the parts of source k are `first[k]` to `first[k + 1]`.
    - `index`, `radius`, `g1`, `g2`, `share`: of each part its Sersic index, half-light radius in
        pixels before the shear, reduced shear, and share of the source's flux. A radius of 0 is a
        point.
    - `turn`, `shear1`, `shear2`: what was done to each source: rotation in radians, then shear.
    - `real`: whether a source is a real image instead of parts.
    """

    blend: Int[np.ndarray, "source"]
    row: Int[np.ndarray, "source"]
    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    flux: Float[np.ndarray, "source band"]
    first: Int[np.ndarray, "source+1"]
    index: Float[np.ndarray, "part"]
    radius: Float[np.ndarray, "part"]
    g1: Float[np.ndarray, "part"]
    g2: Float[np.ndarray, "part"]
    share: Float[np.ndarray, "part"]
    turn: Float[np.ndarray, "source"]
    shear1: Float[np.ndarray, "source"]
    shear2: Float[np.ndarray, "source"]
    real: np.ndarray

    @property
    def owner(self) -> Int[np.ndarray, "part"]:
        """The source that each part belongs to."""
        return np.repeat(np.arange(len(self.blend)), np.diff(self.first))


def lay_out(
    catalog: Catalog,
    placed: Sequence[Placed],
    survey: Survey,
    shape: tuple[int, int],
    *,
    magnitudes: Float[np.ndarray, "row band"] | None = None,
    floor: bool = False,
) -> Sources:
    """The sources that were placed, one `Placed` a blend, as this survey sees them.

    - `shape`: pixels of a stamp, (ny, nx); places are counted from its middle.
    - `magnitudes`: of all rows of the catalogue, where they are known already.
    - `floor`: whole electrons, as the BlendingToolKit counts them; else exact.

    **Raises:** `ValueError` for rows that the catalogue does not have, or magnitudes that it lacks.
    """
    counts = np.array([len(p.row) for p in placed], dtype=int)
    row = _joined([p.row for p in placed]).astype(int)
    wrong = (row < 0) | (row >= len(catalog.table))
    if wrong.any():
        raise ValueError(
            f"`placed` asks for rows {row[wrong][:5].tolist()}; "
            f"the catalogue has {len(catalog.table)}."
        )
    if magnitudes is None:
        magnitudes = catalog.magnitudes(survey)
    dim = _joined([p.dim for p in placed])
    x, y, shear1, shear2, turn = (
        _joined([getattr(p, name) for p in placed]) for name in ("x", "y", "g1", "g2", "turn")
    )
    if catalog.parts is None:
        shapes = {name: np.zeros((len(row), 0)) for name in (*_SHAPE, "share")}
    else:
        shapes = {
            name: np.asarray(getattr(catalog.parts, name))[row] for name in (*_SHAPE, "share")
        }
    there = shapes["share"] > 0
    owner = np.repeat(np.arange(len(row)), there.sum(axis=1))
    own = (shapes["g1"][there] + 1j * shapes["g2"][there]) * np.exp(2j * turn[owner])
    lens = shear1[owner] + 1j * shear2[owner]
    # Reduced shears add like velocities: Bernstein & Jarvis (2002), AJ 123, 583, eq. 2.13.
    seen = (own + lens) / (1 + np.conj(lens) * own)
    return Sources(
        blend=np.repeat(np.arange(len(placed)), counts),
        row=row,
        x=x / survey.pixel_scale + (shape[1] - 1) / 2,
        y=y / survey.pixel_scale + (shape[0] - 1) / 2,
        flux=survey.electrons(magnitudes[row] + dim[:, None], floor=floor),
        first=np.concatenate([[0], np.cumsum(there.sum(axis=1))]),
        index=shapes["index"][there],
        radius=shapes["radius"][there] / survey.pixel_scale,
        g1=seen.real,
        g2=seen.imag,
        share=shapes["share"][there],
        turn=turn,
        shear1=shear1,
        shear2=shear2,
        real=catalog.is_real[row],
    )


def _joined(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.asarray(v, dtype=float).reshape(-1) for v in values)])
