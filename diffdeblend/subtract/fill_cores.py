"""Cores of saturated stars, filled with the PSFs of their places."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.ndimage import binary_erosion, find_objects, label

from diffdeblend.psf import AbstractPSF
from diffdeblend.subtract.fill_jointly import fill_jointly
from diffdeblend.subtract.fit import SubtractionFit
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.psf_stamps import psf_stamps

# Around a core: as far as its pixels have a say in the difference.
_MARGIN = 16
_SIDES, _NUMBERS = (65, 129, 257), (8, 32, 128)
_STEPS = 12


def fill_cores(
    pair: ImagePair,
    psf_new: AbstractPSF,
    psf_reference: AbstractPSF,
    band: int,
    fields: SubtractionFit | None = None,
) -> ImagePair:
    """The pair with large holes filled again, with PSFs and shift of their places. On the host.

    `fill_jointly` has one pair of PSFs for all of the image: with those of the middle, the core
    of a saturated star in a corner came out wrong enough to leave 40 sigmas beside it.
    """
    if pair.missing_new is None or pair.missing_reference is None:
        return pair
    missing = np.asarray(pair.missing_new) | np.asarray(pair.missing_reference)
    boxes = _core_boxes(missing)
    if not boxes:
        return pair
    ny, nx = missing.shape
    largest = max(max(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes)
    wanted = largest + 2 * _MARGIN
    side = min(next((s for s in _SIDES if s >= wanted), _SIDES[-1]), ny, nx)
    number = next((n for n in _NUMBERS if n >= len(boxes)), len(boxes))
    y, x = (np.array([(box[axis].start + box[axis].stop) // 2 for box in boxes]) for axis in (0, 1))
    # Rows that fill up repeat the first.
    y, x = (np.concatenate([v, np.repeat(v[:1], number - len(v))]) for v in (y, x))
    corner_y, corner_x = np.clip(y - side // 2, 0, ny - side), np.clip(x - side // 2, 0, nx - side)
    places = np.s_[corner_y, corner_x]

    def cut(image: Array) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (side, side))
        return jnp.asarray(windows[places])

    names = ("new", "reference", "variance_new", "variance_reference")
    names += ("missing_new", "missing_reference")
    stamps = [cut(getattr(pair, name)) for name in names]
    local = [
        psf_stamps(psf, band, x.astype(float), y.astype(float), pair.new.dtype)
        for psf in (psf_new, psf_reference)
    ]
    shifts = [jnp.broadcast_to(shift, y.shape) for shift in (pair.dx, pair.dy)]
    if fields is not None:
        shifts = [at(x, y)[band].astype(pair.new.dtype) for at in (fields.dx_at, fields.dy_at)]
    filled = _fill(pair, stamps, local, shifts)
    images = [np.array(pair.new), np.array(pair.reference)]
    holes = np.asarray(pair.missing_new), np.asarray(pair.missing_reference)
    for row in range(len(boxes)):
        window = np.s_[corner_y[row] : corner_y[row] + side, corner_x[row] : corner_x[row] + side]
        near = np.zeros(missing.shape, bool)[window]
        # Only the hole itself: the stamp may cut others.
        box = boxes[row]
        near[
            box[0].start - corner_y[row] : box[0].stop - corner_y[row],
            box[1].start - corner_x[row] : box[1].stop - corner_x[row],
        ] = True
        for image, hole, stamp in zip(images, holes, filled, strict=True):
            use = near & hole[window]
            image[window][use] = np.asarray(stamp[row])[use]
    return eqx.tree_at(
        lambda pair: (pair.new, pair.reference), pair, tuple(map(jnp.asarray, images))
    )


@jax.jit
def _fill(
    pair: ImagePair, stamps: list[Array], psfs: list[Array], shifts: list[Array]
) -> tuple[Array, Array]:
    def one(parts: list[Array], psfs: list[Array], shift: list[Array]) -> tuple[Array, Array]:
        local = ImagePair(
            new=parts[0],
            reference=parts[1],
            variance_new=parts[2],
            variance_reference=parts[3],
            missing_new=parts[4],
            missing_reference=parts[5],
            sigma_new=pair.sigma_new,
            sigma_reference=pair.sigma_reference,
            beta=pair.beta,
            dx=shift[0],
            dy=shift[1],
            noise=pair.noise,
        )
        filled = fill_jointly(local, psfs[0], psfs[1], steps=_STEPS)
        return filled.new, filled.reference

    return jax.vmap(one)(stamps, psfs, shifts)


def _core_boxes(missing: np.ndarray) -> list[tuple[slice, slice]]:
    """Boxes of holes that are at least 3 x 3 pixels large, two pixels wider than their cores."""
    labelled, count = label(binary_erosion(missing, np.ones((3, 3), bool)))  # type: ignore[misc]
    if not count:
        return []
    ny, nx = missing.shape
    return [
        (
            slice(max(box[0].start - 2, 0), min(box[0].stop + 2, ny)),
            slice(max(box[1].start - 2, 0), min(box[1].stop + 2, nx)),
        )
        for box in find_objects(labelled)
        if box is not None
    ]
