"""The images of fitted sources, of many blends, by one compiled program."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.components import AnySource, AnyStack, Kind
from diffdeblend.components.any_source import lit_parts
from diffdeblend.cores import available_cores
from diffdeblend.grid import STANDARD, Quality
from diffdeblend.psf import PixelPSF
from diffdeblend.scene import Scene, render

# Sources drawn by one call: few enough to hold, many enough to be worth the call.
_TOGETHER = 16


def draw_sources(
    sources: Mapping[str, np.ndarray],
    psf_images: Float[np.ndarray, "psf band h w"],
    psf_of: Int[np.ndarray, "source"],
    shape: tuple[int, int],
    *,
    quality: Quality = STANDARD,
) -> Float[np.ndarray, "source band y x"]:
    """The noiseless image of each source alone. Host side, on all cores.

    Sources whose fit failed are dark. One program is compiled for all stamps of a shape.

    - `sources`: arrays with a row a source, as the fields of `Found` of the same names: `x`, `y`,
        `radius`, `index`, `radius_ratio`, `shear_ratio`, `ellipticity`, `flux`, `bulge_flux` and
        `kind`.
    - `psf_images`: of each PSF; `psf_of`: which one each source is seen through.
    - `shape`: pixels of the stamps, along y and x.
    """
    values = _values(sources)
    n = len(psf_of)
    images = np.zeros((n, psf_images.shape[1], *shape), np.float32)
    double = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]

    def some(start: int) -> None:
        rows = slice(start, min(start + _TOGETHER, n))
        # Repeats of the last one fill up: the same program for any number.
        padded = np.minimum(np.arange(start, start + _TOGETHER), n - 1)
        few, places = np.unique(psf_of[padded], return_inverse=True)
        # One, or as many as sources: no number of its own for the last few.
        room = 1 if len(psf_images) == 1 else _TOGETHER
        psfs = psf_images[np.concatenate([few, np.full(room - len(few), few[0])])]
        # A switch that was set for the caller's thread alone would not reach this one.
        with jax.enable_x64(double):
            drawn = _draw(
                {name: jnp.asarray(value[padded]) for name, value in values.items()},
                jnp.asarray(psfs, jnp.float32),
                jnp.asarray(places.reshape(-1), jnp.int32),
                jnp.asarray(rows.stop - start, jnp.int32),
                shape,
                quality,
            )
            images[rows] = np.asarray(drawn)[: rows.stop - start]

    starts = range(0, n, _TOGETHER)
    if n:
        # Alone, so that others find its program.
        some(0)
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(some, starts[1:]))
    return images


def _values(sources: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of `AnySource`, with what a kind does not have filled in, and failures dark."""
    flux, kind = sources["flux"], sources["kind"]
    good = np.isfinite(flux).all(axis=1) & np.isfinite(sources["x"]) & np.isfinite(sources["y"])
    bulge = np.where((kind == Kind.BULGE_DISC)[:, None], sources["bulge_flux"], 0)
    parts = np.zeros((len(flux), AnySource.parts, flux.shape[1]), np.float32)
    parts[:, 0] = np.where(good[:, None], flux - bulge, 0)
    parts[:, 1] = np.where(good[:, None], bulge, 0)
    values = {"flux": parts, "kind": kind.astype(np.int32)}
    defaults = {"x": 0, "y": 0, "radius": 1, "index": 1, "radius_ratio": 0.4, "shear_ratio": 1}
    for name, default in (defaults | {"ellipticity": 0}).items():
        given = sources[name]
        values[name] = np.where(np.isfinite(given), given, default).astype(np.float32)
    return values


@eqx.filter_jit
def _draw(
    members: dict[str, Array],
    psfs: Float[Array, "psf band h w"],
    psf_of: Int[Array, "source"],
    count: Int[Array, ""],
    shape: tuple[int, int],
    quality: Quality,
) -> Float[Array, "source band y x"]:
    """The first `count` sources, one by one; the others stay dark and cost nothing."""
    n, n_bands = len(psf_of), psfs.shape[1]

    def body(i: Array, images: Array) -> Array:
        one = AnySource(**{name: value[i] for name, value in members.items()})
        stack = AnyStack(
            jax.tree.map(lambda leaf: leaf[None], one),
            jnp.ones(1, bool),
            jnp.zeros(1, jnp.int32),
            # No kind of a batch has more than two parts; of one with a single part, the second
            # belongs to nobody.
            jnp.where(jnp.arange(2) < lit_parts(one.kind), 0, 1),
            jnp.arange(2),
        )
        image = render(Scene([stack]), PixelPSF(psfs[psf_of[i]]), shape, quality=quality)
        return images.at[i].set(image)

    empty = jnp.zeros((n, n_bands, *shape), psfs.dtype)
    return jax.lax.fori_loop(0, count, body, empty)
