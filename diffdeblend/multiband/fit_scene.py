"""What fits of all bands together say that each source of a blend looks like. Host side."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.allocate.by_models import ModelImage
from diffdeblend.batch.cut import cut_blends
from diffdeblend.batch.draw import draw_sources
from diffdeblend.batch.fit_batch import fit_batch
from diffdeblend.batch.results import Found
from diffdeblend.exposure import Exposure
from diffdeblend.psf import PSFBasis
from diffdeblend.psf.as_images import psf_images

# Sides of the windows that models are drawn on, and half-light radii that one holds.
_WINDOWS = (64, 256)
_REACH = 8.0
# One shape to compile for: most sources that are fitted together, and side of a stamp. What does
# not fit in is divided: shares of light ask for rough models only.
_SOURCES = 8
_SIZE = 64
_TOGETHER = 512
# Side of the stamp of an analytic PSF.
_PSF_SIZE = 65
_DRAWN = (
    *("radius", "index", "radius_ratio", "shear_ratio", "ellipticity"),
    *("flux", "bulge_flux", "kind"),
)


@dataclass(frozen=True, eq=False)
class SceneModels:
    """Fitted sources, in the order of the positions given.

    - `found`: the fits, blend by blend; `row`: place in `found` of each position.
    - `images`: `(band, y, x)` of each on its window.
    - `corner`: first pixel (x, y) of each window. `positions`: as given.
    """

    found: Found
    row: Int[np.ndarray, "source"]
    images: tuple[Float[np.ndarray, "band y x"], ...]
    corner: Int[np.ndarray, "source 2"]
    positions: Float[np.ndarray, "source 2"]

    def of_band(self, band: int) -> list[ModelImage]:
        """The models in one band."""
        return [
            ModelImage(image[band], int(x0), int(y0), float(x), float(y))
            for image, (x0, y0), (x, y) in zip(
                self.images, self.corner, self.positions, strict=True
            )
        ]


def fit_scene(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"],
    *,
    hidden: Bool[np.ndarray, "y x"] | None = None,
    model: str = "sersic",
    report: Callable[[int, int], None] | None = None,
) -> SceneModels:
    """Fit sources in all bands at once, and draw them.

    - `exposure`: without its sky; what is left is fitted as a level of each blend.
    - `positions`: (x, y) of each source in pixels.
    - `hidden`: pixels that are left out, of sources that are not fitted.
    - `model`: as of `fit_batch`. Shares of light ask for no more than a Sersic profile.

    **Raises:** `ValueError` as `cut_blends` and `fit_batch` do.
    """
    seen = exposure
    if hidden is not None:
        # Whatever planes are excluded: what has no finite variance is not used.
        variance = np.where(hidden, np.float32(np.inf), np.asarray(exposure.variance))
        seen = eqx.tree_at(lambda e: e.variance, exposure, variance)
    blends = cut_blends(seen, positions, max_sources=_SOURCES, max_size=_SIZE)
    found = fit_batch(
        blends,
        model=model,
        background="constant",
        report=report,
        sizes=(_SIZE,),
        sources=(_SOURCES,),
        restarts=1,
    )
    row = np.argsort(found.row, kind="stable")
    images, corner = _draw(found, row, exposure, positions)
    return SceneModels(found, row, images, corner, positions)


def _draw(
    found: Found, row: np.ndarray, exposure: Exposure, positions: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    x, y = found.x[row], found.y[row]
    known = np.isfinite(x) & np.isfinite(y)
    # A source whose fit failed is dark: its window lies about its peak.
    x, y = np.where(known, x, positions[:, 0]), np.where(known, y, positions[:, 1])
    psf = exposure.psf
    if isinstance(psf, PSFBasis):
        # Of a full window of places: one program for any number.
        stamps, index = np.asarray(psf.images_at(*_padded(x, y)), np.float32), np.arange(len(x))
    else:
        stamps = psf_images(psf, _PSF_SIZE).astype(np.float32)[None]
        index = np.zeros(len(x), int)
    reach = np.where(np.isfinite(found.radius[row]), _REACH * found.radius[row], 0)
    window = np.searchsorted(_WINDOWS, 2 * (reach + stamps.shape[-1] / 4))
    window = window.clip(max=len(_WINDOWS) - 1)
    corner = np.zeros((len(x), 2), int)
    images: list[np.ndarray] = [np.zeros(0)] * len(x)
    for number, size in enumerate(_WINDOWS):
        rows = np.flatnonzero(window == number)
        corner[rows] = np.floor(np.stack([x, y], 1)[rows]).astype(int) - size // 2
        for start in range(0, len(rows), _TOGETHER):
            few = rows[start : start + _TOGETHER]
            values = {name: getattr(found, name)[row[few]] for name in _DRAWN}
            values |= {"x": x[few] - corner[few, 0], "y": y[few] - corner[few, 1]}
            for place, image in zip(
                few, draw_sources(values, stamps, index[few], (size, size)), strict=True
            ):
                images[place] = image
    return tuple(images), corner


def _padded(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    room = (1 << max(len(x) - 1, 15).bit_length()) - len(x)
    return np.pad(x, (0, room)), np.pad(y, (0, room))
