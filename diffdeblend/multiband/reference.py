"""Which band's position and shape to hold in all bands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.multiband.priority import checked_priority


def signal_to_noise(flux: Any, flux_err: Any, *flags: Any) -> Float[np.ndarray, "source"]:
    """Flux over error, shape `(source,)`; 0 where nothing is to be had of it.

    That is where the error is not positive, either is not finite, the ratio is negative, or one of
    the `flags` is set: centre interpolated, a measurement failed, no data there.
    """
    flux, flux_err = np.asarray(flux, float), np.asarray(flux_err, float)
    known = np.isfinite(flux) & np.isfinite(flux_err) & (flux_err > 0) & (flux > 0)
    for flag in flags:
        known = known & ~np.asarray(flag, bool)
    return np.where(known, flux / np.where(known, flux_err, 1), 0)


def reference_band(
    detected: Mapping[str, Any],
    signal_to_noise: Mapping[str, Any],
    priority: Sequence[str] | str,
    *,
    sky: Any = None,
    enough: float = 10.0,
    advantage: float = 3.0,
) -> Int[np.ndarray, "source"]:
    """The reference band of each source, as its place in `priority`.

    It is the first band of `priority` that saw the source, but the band of the highest signal to
    noise if that of the first is below `enough` and more than `advantage` lower. Empty sky has the
    first band of all.

    - `detected`: of each band, whether it saw each source, booleans of shape `(source,)`; such as
        `peaks.bands` of merged footprints.
    - `signal_to_noise`: of each source in each band, see `signal_to_noise`; sources that go with
        the same place in all bands.
    - `sky`: which sources are empty sky; None: none.

    **Raises:** `ValueError` if `priority` is empty or names a band that is missing, lengths differ,
    a signal to noise is not finite, or no band saw a source that is not sky.
    """
    names = checked_priority(priority, [name for name in detected if name in signal_to_noise])
    seen = [np.asarray(detected[name], bool) for name in names]
    ratios = [np.asarray(signal_to_noise[name], float) for name in names]
    lengths = {one.shape for one in (*seen, *ratios)}
    if len(lengths) > 1 or len(next(iter(lengths))) != 1:
        raise ValueError(
            "`detected` and `signal_to_noise` need one row for each source in every band; got "
            f"shapes {sorted(lengths)}."
        )
    saw, ratio = np.stack(seen), np.stack(ratios)
    if not np.isfinite(ratio).all():
        raise ValueError("`signal_to_noise` must be finite; use 0 where it is not known.")
    empty = np.zeros(saw.shape[1], bool) if sky is None else np.asarray(sky, bool)
    if empty.shape != saw.shape[1:]:
        raise ValueError(f"`sky` needs shape {saw.shape[1:]}; got {empty.shape}.")
    lost = np.flatnonzero(~saw.any(axis=0) & ~empty)
    if len(lost):
        raise ValueError(
            f"`detected` says that no band saw {len(lost)} sources, the first at place {lost[0]}; "
            "they have no reference."
        )
    first = saw.argmax(axis=0)
    own = np.take_along_axis(ratio, first[None], axis=0)[0]
    # Of equal ones the first in priority.
    better = (own < enough) & (ratio.max(axis=0) - own > advantage)
    return np.where(empty, 0, np.where(better, ratio.argmax(axis=0), first))
