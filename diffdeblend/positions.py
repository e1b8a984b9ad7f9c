"""Where the sources are said to be, and whether that can be."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

# Closer than this, two positions are one source entered twice.
_MINIMUM_SEPARATION = 0.1
_SHOWN = 5


def check_positions(positions: Any, shape: tuple[int, int]) -> Float[np.ndarray, "source 2"]:
    """Positions `(x, y)` as an array of floats, if they can be those of sources.

    - `shape`: pixels of the image along y and x.

    **Raises:** `ValueError`, naming the rows, if they are not `(n, 2)` numbers, at least one,
    finite, inside the image, and at least 0.1 pixels apart.
    """
    array = np.asarray(positions)
    if array.size == 0:
        raise ValueError("`positions` is empty; give at least one source.")
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            "`positions` needs numbers of shape (n, 2), x and y of each source; "
            f"got {array.dtype} of shape {array.shape}."
        )
    array = check_finite(array.astype(float))
    ny, nx = shape
    x, y = array[:, 0], array[:, 1]
    outside = ~((x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5))
    if outside.any():
        raise ValueError(
            f"`positions` must lie within x from -0.5 to {nx - 0.5} and y from -0.5 to "
            f"{ny - 0.5}; outside are {_rows(array, outside)}."
        )
    pairs = sorted(KDTree(array).query_pairs(_MINIMUM_SEPARATION))
    if pairs:
        shown = ", ".join(f"{a} and {b}" for a, b in pairs[:_SHOWN])
        more = f" and {len(pairs) - _SHOWN} more pairs" if len(pairs) > _SHOWN else ""
        raise ValueError(
            f"`positions` must be at least {_MINIMUM_SEPARATION} pixels apart; "
            f"closer are rows {shown}{more}."
        )
    return array


def check_finite(positions: np.ndarray, place: str = "") -> np.ndarray:
    """The positions, shape `(n, 2)`, if all are finite numbers.

    - `place`: where they are not, for the message.

    **Raises:** `ValueError` that names the rows.
    """
    wrong = np.any(~np.isfinite(positions), axis=1)
    if wrong.any():
        raise ValueError(
            f"`positions` must be finite{place}; not so are {_rows(positions, wrong)}."
        )
    return positions


def _rows(positions: np.ndarray, wrong: np.ndarray) -> str:
    places = np.flatnonzero(wrong)
    shown = ", ".join(
        f"row {k} ({positions[k, 0]:g}, {positions[k, 1]:g})" for k in places[:_SHOWN]
    )
    return shown + (f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else "")
