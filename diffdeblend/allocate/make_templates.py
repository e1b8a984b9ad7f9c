"""The template of every peak of many blends."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.allocate.blends import OpenBlend, put_around
from diffdeblend.allocate.monotone import monotone
from diffdeblend.allocate.psf_test import moved_psf
from diffdeblend.allocate.templates import median_smoothed, symmetric_templates

# Reach of a template from its peak, in pixels, and how many such stamps one program makes.
_BUCKETS = ((8, 256), (16, 128), (32, 64), (64, 16), (128, 4), (256, 1), (512, 1))
_POINTS_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Template:
    """A stamp whose middle pixel is the peak; `patched`: in part mirrored along one axis."""

    stamp: Float[np.ndarray, "h w"]
    patched: bool = False


def symmetric_of(
    blends: Sequence[OpenBlend],
    chosen: Bool[np.ndarray, "peak"],
    shape: tuple[int, int],
    *,
    smooth: bool,
    decline: bool,
) -> dict[int, Template]:
    """Symmetric templates of the chosen peaks, by their place among all. Host side.

    - `shape`: pixels of the image: beyond it nobody knows what is opposite to a pixel, and the
        image mirrored along one axis stands in.
    - `smooth`: through a median of 5 x 5 pixels; `decline`: made to fall from the peak outwards.
    """
    todo: dict[int, list[tuple[int, OpenBlend, int]]] = {}
    reaches = {}
    for blend in blends:
        for k in range(blend.n_peaks):
            place = blend.first + k
            if not chosen[place]:
                continue
            reach = reaches[place] = _reach(blend, k, shape)
            bucket = next((n for n, (half, _) in enumerate(_BUCKETS) if half >= max(reach)), -1)
            if min(reach) >= 0:
                todo.setdefault(bucket, []).append((place, blend, k))
    made = {}
    for bucket, tasks in todo.items():
        half, together = _BUCKETS[bucket]
        side = 2 * half + 1
        for start in range(0, len(tasks), together):
            some = tasks[start : start + together]
            image = np.zeros((together, side, side), np.float32)
            inside, off = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
            reach = np.zeros((2, together), np.int32)
            for n, (place, blend, k) in enumerate(some):
                x, y = int(blend.peak_x[k]), int(blend.peak_y[k])
                reach[:, n] = np.minimum(reaches[place], half)
                far = {"reach_x": int(reach[0, n]), "reach_y": int(reach[1, n])}
                put_around(image[n], blend.image, x, y, **far)
                put_around(inside[n], blend.inside, x, y, **far)
                off[n] = _off_image(blend, x, y, half, shape)
            stamps = np.asarray(_made(image, inside, off, *reach, smooth, decline))
            patched = np.any(off & inside, axis=(1, 2))
            for n, (place, _, _) in enumerate(some):
                made[place] = Template(_trimmed(stamps[n], reach[:, n]), bool(patched[n]))
    return made


def points_of(
    psf: Float[np.ndarray, "n h w"],
    flux: Float[np.ndarray, "n"],
    dx: Float[np.ndarray, "n"],
    dy: Float[np.ndarray, "n"],
) -> list[Template]:
    """Points of some flux at places (dx, dy) from their peaks. Host side."""
    out: list[Template] = []
    for start in range(0, len(psf), _POINTS_TOGETHER):
        some = slice(start, start + _POINTS_TOGETHER)
        n = len(psf[some])
        given = [np.asarray(v[some], np.float32) for v in (psf, flux, dx, dy)]
        fill = [np.zeros((_POINTS_TOGETHER - n, *v.shape[1:]), np.float32) for v in given]
        stamps = _points(*map(np.concatenate, zip(given, fill, strict=True)))
        out += [Template(one) for one in np.asarray(stamps)[:n]]
    return out


@jax.jit
def _points(psf: Array, flux: Array, dx: Array, dy: Array) -> Array:
    size = max(psf.shape[1:])
    moved = jax.vmap(lambda p, x, y: moved_psf(p, x, y, size))(psf, dx, dy)
    return flux[:, None, None] * moved


@partial(jax.jit, static_argnums=(5, 6))
def _made(
    image: Float[Array, "n h w"],
    inside: Bool[Array, "n h w"],
    off: Bool[Array, "n h w"],
    reach_x: Int[Array, "n"],
    reach_y: Int[Array, "n"],
    smooth: bool,
    decline: bool,
) -> Float[Array, "n h w"]:
    made = symmetric_templates(image, inside)
    # Where the mirror image is off the image, mirrored along one axis alone as far as that is on.
    edge = image
    for flipped in (np.s_[:, ::-1], np.s_[:, :, ::-1]):
        edge = jnp.where(inside[flipped], jnp.minimum(edge, image[flipped]), edge)
    made = jnp.where(inside & off, jnp.maximum(edge, 0), made)
    if smooth:
        made = median_smoothed(made, reach_x, reach_y)
        # A median is that of its surroundings: it may reach where the source is not.
        made = jnp.where(inside, made, 0)
    return monotone(made) if decline else made


def _reach(blend: OpenBlend, k: int, shape: tuple[int, int]) -> tuple[int, int]:
    """How far along x and y a pixel of the parent and its mirror may be from the peak."""
    reach = []
    for at, low, length, whole in (
        (int(blend.peak_x[k]), blend.box.ixmin, blend.inside.shape[1], shape[1]),
        (int(blend.peak_y[k]), blend.box.iymin, blend.inside.shape[0], shape[0]),
    ):
        before, after = at, length - 1 - at
        # Where the image ends the other side counts alone.
        first = after if low == 0 and before >= 0 else before
        last = before if low + length == whole and after >= 0 else after
        reach.append(min(max(first, before), max(last, after)))
    return reach[0], reach[1]


def _off_image(
    blend: OpenBlend, x: int, y: int, half: int, shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Pixels of a stamp whose mirror is off the image."""
    offset = np.arange(-half, half + 1)
    mirror_x, mirror_y = blend.box.ixmin + x - offset, blend.box.iymin + y - offset
    off_x = (mirror_x < 0) | (mirror_x >= shape[1])
    off_y = (mirror_y < 0) | (mirror_y >= shape[0])
    return np.logical_or(off_y[:, None], off_x[None, :])


def _trimmed(stamp: np.ndarray, reach: np.ndarray) -> np.ndarray:
    half = stamp.shape[0] // 2
    x, y = int(reach[0]), int(reach[1])
    return stamp[half - y : half + y + 1, half - x : half + x + 1]
