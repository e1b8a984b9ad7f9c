"""Sources are connected pixels above a threshold."""

import warnings
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from diffdeblend.backend import Backend, on_host
from diffdeblend.segment.components import connected_components, drop_small
from diffdeblend.segment.labels import LabelImage, NoDetectionsWarning
from diffdeblend.segment.runs import Components, label_stack


class StampLabels(NamedTuple):
    """Labels of many stamps.

    - `labels`: shape `(stamp, y, x)`; in each stamp 1, 2, ... in the order of the first pixels,
        row by row, and 0 for background.
    - `n_labels`: of each stamp, shape `(stamp,)`.
    """

    labels: Int[np.ndarray, "stamp y x"]
    n_labels: Int[np.ndarray, "stamp"]


def detect_sources(
    data: Any,
    threshold: Any,
    n_pixels: int,
    *,
    connectivity: int = 8,
    mask: Any = None,
    backend: Backend = "auto",
    inclusive: bool = False,
) -> LabelImage:
    """Groups of at least `n_pixels` connected pixels above a threshold.

    Labels are 1, 2, ... in the order of the first pixels, row by row, as photutils has them. What
    is NaN is no source. If there is none, the result is empty, with a `NoDetectionsWarning`.

    - `data`: shape `(y, x)`, as a rule smoothed and without the sky.
    - `threshold`: in the unit of `data`, one number or shape `(y, x)`.
    - `connectivity`: 8, or 4 to join pixels that share an edge only.
    - `mask`: True on pixels that are of no source, shape `(y, x)`.
    - `backend`: where labels are made: on the host, in JAX, or as the device is.
    - `inclusive`: take pixels that are just at the threshold, too.

    **Raises:** `ValueError` for shapes that do not fit, units that do not fit, or another argument
    out of its range.
    """
    stack, level, hidden = _checked(data, threshold, mask, 2)
    found = _found(stack, level, hidden, n_pixels, connectivity, backend, inclusive)
    if isinstance(found, StampLabels):
        image = LabelImage(found.labels[0])
    else:
        image = LabelImage.from_components(found.labels[0], found.areas, found.boxes)
    if not image.max_label:
        warnings.warn(
            "No sources were found. A lower `threshold` or fewer `n_pixels` may find some.",
            NoDetectionsWarning,
            stacklevel=2,
        )
    return image


def detect_stamps(
    data: Any,
    threshold: Any,
    n_pixels: int,
    *,
    connectivity: int = 8,
    mask: Any = None,
    backend: Backend = "auto",
    inclusive: bool = False,
) -> StampLabels:
    """`detect_sources` for many stamps at once, each with labels of its own.

    - `data`, `mask`: shape `(stamp, y, x)`.
    - `threshold`: one number, one of each stamp, or shape `(stamp, y, x)`.

    Other arguments are as in `detect_sources`. No warning where a stamp is empty.

    **Raises:** `ValueError` as `detect_sources`.
    """
    stack, level, hidden = _checked(data, threshold, mask, 3)
    found = _found(stack, level, hidden, n_pixels, connectivity, backend, inclusive)
    if isinstance(found, StampLabels):
        return found
    return StampLabels(found.labels, np.bincount(found.stamp, minlength=len(stack)))


def _found(
    stack: np.ndarray,
    level: np.ndarray,
    hidden: np.ndarray | None,
    n_pixels: Any,
    connectivity: Any,
    backend: str,
    inclusive: bool,
) -> Components | StampLabels:
    check_count("n_pixels", n_pixels)
    check_connectivity(connectivity)
    above = stack >= level if inclusive else stack > level
    if hidden is not None:
        above &= ~hidden
    if on_host(backend):
        return label_stack(above, n_pixels, connectivity)
    labels, n_labels = _on_device(jnp.asarray(above), int(n_pixels), int(connectivity))
    return StampLabels(np.asarray(labels), np.asarray(n_labels))


# The number of pixels is traced: another one compiles nothing.
@partial(jax.jit, static_argnums=2)
def _on_device(above: Array, n_pixels: int, connectivity: int) -> tuple[Array, Array]:
    def one(mask: Array) -> tuple[Array, Array]:
        return drop_small(connected_components(mask, connectivity)[0], n_pixels)

    return jax.vmap(one)(above)


def _checked(
    data: Any, threshold: Any, mask: Any, n_axes: int
) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, "stamp y x"] | None]:
    """Data, threshold and mask as stacks of stamps, in numbers of one unit."""
    unit = getattr(data, "unit", None)
    other = getattr(threshold, "unit", None)
    if (unit is None) != (other is None) or (unit is not None and not unit.is_equivalent(other)):
        raise ValueError(f"`threshold` needs the unit of `data`, {unit}; got {other}.")
    if unit is not None:
        data, threshold = data.value, threshold.to_value(unit)
    data, level = np.asarray(data), np.asarray(threshold)
    axes = "(y, x)" if n_axes == 2 else "(stamp, y, x)"
    if data.ndim != n_axes:
        raise ValueError(f"`data` needs shape {axes}; got {data.shape}.")
    if n_axes == 3 and level.shape == data.shape[:1]:
        level = level[:, None, None]
    elif level.ndim and level.shape != data.shape:
        raise ValueError(
            f"`threshold` must be one number or of the shape of `data`, {data.shape}; "
            f"got {level.shape}."
        )
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != data.shape:
            raise ValueError(f"`mask` needs the shape of `data`, {data.shape}; got {mask.shape}.")
    if n_axes == 3:
        return data, level, mask
    return data[None], level, None if mask is None else mask[None]


def check_count(name: str, value: Any) -> None:
    """**Raises:** `ValueError` if it is not an integer of at least 1."""
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1; got {value!r}.")


def check_connectivity(connectivity: Any) -> None:
    """**Raises:** `ValueError` if it is neither 4 nor 8."""
    if connectivity not in (4, 8):
        raise ValueError(f"`connectivity` must be 4 or 8; got {connectivity!r}.")
