"""The error of each pixel, with the photon noise of the sources in it."""

from typing import Any

import astropy.units as u
import numpy as np


def calc_total_error(data: Any, bkg_error: Any, effective_gain: Any) -> Any:
    """$\\sqrt{\\sigma_{bkg}^2 + \\max(I, 0) / g}$ for each pixel.

    - `data`: the image less its background; any shape.
    - `bkg_error`: all noise but that of the photons of sources, of the same shape or one number.
    - `effective_gain`: photons for a unit of `data`, of the same shape or one number. Where it is 0
        no photon noise is added.

    Floats keep their type. Either all three are without units, or the first two have the same and
    the gain turns it into electrons or photons; then the error has it too.

    **Raises:** `ValueError` for shapes that differ, negative gains, or units that do not match.
    """
    units: list[Any] = [getattr(value, "unit", None) for value in (data, bkg_error, effective_gain)]
    if any(unit is not None for unit in units):
        if any(unit is None for unit in units):
            raise ValueError(
                "`data`, `bkg_error` and `effective_gain` must all have units or none; "
                f"got {', '.join(str(unit) for unit in units)}."
            )
        if units[0] != units[1]:
            raise ValueError(f"`bkg_error` needs the unit of `data`, {units[0]}; got {units[1]}.")
        counted = u.Unit(units[0] * units[2])
        if counted not in (u.electron, u.photon):
            raise ValueError(
                "`effective_gain` times `data` must be in electrons or photons; "
                f"got {counted.to_string() or 'no unit'}."
            )
    plain = [np.asarray(getattr(v, "value", v)) for v in (data, bkg_error, effective_gain)]
    image, noise, gain = (v if v.dtype.kind == "f" else v.astype(float) for v in plain)
    for name, value in (("bkg_error", noise), ("effective_gain", gain)):
        if value.ndim and value.shape != image.shape:
            raise ValueError(
                f"`{name}` needs the shape of `data`, {image.shape}, or one number; "
                f"got {value.shape}."
            )
    if (gain < 0).any():
        raise ValueError(f"`effective_gain` must be at least 0; got {gain.min()}.")
    # One number has no say in the type of an image.
    gain = gain.astype(image.dtype) if not gain.ndim else gain
    noise = noise.astype(image.dtype) if not noise.ndim else noise
    photons = np.maximum(image, 0) / np.where(gain > 0, gain, 1)
    variance = noise**2 + np.where(gain > 0, photons, 0)
    error = np.sqrt(variance)
    return error if units[0] is None else error << units[0]
