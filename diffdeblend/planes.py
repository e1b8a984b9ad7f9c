"""The bits of a mask: which planes there are, and which of them spoil a pixel."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffdeblend.header import EXCLUDED_PLANES, STANDARD_PLANES, Header

_MASK_BITS = 32


def mask_bits(
    mask: Any, shape: tuple[int, ...], mask_planes: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the planes of a mask, and its bits as uint32 of `shape` (band, y, x).

    See `make_exposure` for `mask` and `mask_planes`.

    **Raises:** `ValueError` for another shape or type, or more than 32 planes.
    """
    planes = None if mask_planes is None else tuple(mask_planes)
    if planes is not None:
        check_planes(planes)
    if mask is None:
        return planes or STANDARD_PLANES, np.zeros(shape, np.uint32)
    array = np.asarray(np.ma.filled(mask, 1) if np.ma.isMaskedArray(mask) else mask)
    if array.dtype.kind not in "iub":
        raise ValueError(f"`mask` must be booleans or integers (bit planes); got {array.dtype}.")
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"`mask` needs the shape of `image`, {shape}, or {shape[1:]}; got {array.shape}."
        )
    if array.dtype.kind == "b":
        planes, bit = with_plane(planes or STANDARD_PLANES, "BAD")
        bits = np.where(array, np.uint32(1 << bit), np.uint32(0))
    else:
        info = np.iinfo(np.int32)
        if array.min() < info.min or array.max() > np.iinfo(np.uint32).max:
            raise ValueError(
                f"`mask` may use bits 0 to {_MASK_BITS - 1}; "
                f"got values from {array.min()} to {array.max()}."
            )
        bits = array.astype(np.int64).astype(np.uint32)  # bit 31 of an int32 is its sign
        used = int(np.bitwise_or.reduce(bits, axis=None)).bit_length()
        if planes is None:
            # A mask that flags nothing is true under any names.
            planes = tuple(f"BIT{k}" for k in range(used)) or STANDARD_PLANES
        planes = planes + tuple(f"BIT{k}" for k in range(len(planes), used))
        check_planes(planes)
    # Own memory: a broadcast view cannot be reinterpreted as int32.
    return planes, np.ascontiguousarray(np.broadcast_to(bits, shape))


def check_planes(planes: tuple[str, ...]) -> None:
    """**Raises:** `ValueError` for names that cannot be planes, double ones, or too many."""
    for plane in planes:
        # The names become FITS keywords, which know only these letters.
        if not (isinstance(plane, str) and re.fullmatch("[A-Z][A-Z0-9_]*", plane)):
            raise ValueError(
                f"`mask_planes` must be names of capital letters, digits and _; got {plane!r}."
            )
    if len(set(planes)) < len(planes) or len(planes) > _MASK_BITS:
        raise ValueError(
            f"`mask_planes` must be at most {_MASK_BITS} different names; got {planes}."
        )


def with_plane(planes: tuple[str, ...], plane: str) -> tuple[tuple[str, ...], int]:
    """The planes with `plane` among them, and its bit."""
    if plane not in planes:
        planes = (*planes, plane)
        check_planes(planes)
    return planes, planes.index(plane)


def without_name(planes: tuple[str, ...], plane: str) -> tuple[str, ...]:
    """The planes without one of them; the others keep their places."""
    if plane == planes[-1]:
        return planes[:-1]
    planes = tuple(f"BIT{bit}" if name == plane else name for bit, name in enumerate(planes))
    check_planes(planes)
    return planes


def named_bits(names: Sequence[str] | str, planes: tuple[str, ...]) -> int:
    """The bits of some planes as one number.

    **Raises:** `ValueError` for a name that is no plane.
    """
    asked = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in asked if name not in planes]
    if unknown:
        raise ValueError(f"`planes` must be among the mask planes {planes}; got {unknown}.")
    return bits_of(asked, planes)


def excluded_planes(excluded: Sequence[str] | None, planes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of planes that spoil a pixel; the usual ones for None.

    **Raises:** `ValueError` for a name that is no plane.
    """
    if excluded is None:
        return EXCLUDED_PLANES
    names = (excluded,) if isinstance(excluded, str) else tuple(excluded)
    # Standard planes may be excluded before they exist: `with_mask` adds them.
    unknown = [name for name in names if name not in (*planes, *STANDARD_PLANES)]
    if unknown:
        raise ValueError(f"`excluded` must be among the mask planes {planes}; got {unknown}.")
    return names


def bits_of(names: Iterable[str], planes: tuple[str, ...]) -> int:
    """The bits of some planes as one number; names that are no planes have none."""
    wanted = set(names)
    return sum(1 << bit for bit, plane in enumerate(planes) if plane in wanted)


def excluded_bits(header: Header) -> int:
    """The bits of the planes that spoil a pixel, as one number."""
    return bits_of(header.excluded, header.mask_planes)


def as_int32(bits: int) -> np.int32:
    """The same 32 bits as a signed number."""
    return np.uint32(bits).view(np.int32)
