"""One band as its file has it, and how bands become one exposure."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np

from diffdeblend.exposure import (
    EXCLUDED_PLANES,
    STANDARD_PLANES,
    Exposure,
    Header,
    Numbers,
    ab_zero_point,
    make_exposure,
)
from diffdeblend.io import keywords
from diffdeblend.io.noise import as_variance, estimated_variance
from diffdeblend.io.stamps import placeholder_psf, stacked_stamps
from diffdeblend.planes import mask_bits
from diffdeblend.sky import local_jacobian, pixel_positions, sky_positions

# Bands whose pixels are further apart than this on the sky are not aligned.
_MAXIMUM_OFFSET = 0.1


@dataclass(frozen=True, eq=False)
class Layer:
    """One band of an image with what came with it. All arrays `(y, x)`.

    - `where`: the file and its part, for messages.
    - `headers`: the image's own, then those it inherits from.
    - `unit`: of flux, as astropy reads it; empty for plain counts.
    - `noise`: map of the noise, of a kind of `as_variance`; None if nothing says.
    - `mask`: booleans or bits, whose `planes` are named.
    - `psf`: its image.
    """

    image: np.ndarray
    where: str
    headers: keywords.Headers = ()
    name: str | None = None
    unit: str = ""
    wcs: Any = None
    noise: np.ndarray | None = None
    noise_kind: str = "variance"
    mask: np.ndarray | None = None
    planes: tuple[str, ...] | None = None
    psf: np.ndarray | None = None


def chosen(
    names: Sequence[str | None], bands: Sequence[str] | str | None, one_file: bool
) -> tuple[list[int], list[str | None]]:
    """Which of the bands found are wanted, in which order, and their names.

    `bands` that are all among the names of one file choose from it; otherwise they name all bands
    in their order.

    **Raises:** `ValueError` if there are more or fewer, or the names say another order.
    """
    every = list(range(len(names)))
    if bands is None:
        return every, list(names)
    asked: list[str | None] = [bands] if isinstance(bands, str) else list(bands)
    known = [None if name is None else name.lower() for name in names]
    wanted = [str(band).lower() for band in asked]
    # Names that stand twice cannot choose.
    if all(known.count(band) == 1 for band in wanted):
        places = [known.index(band) for band in wanted]
        if one_file or places == every:
            return places, asked
        if len(places) == len(every):
            found = [names[k] for k in every]
            raise ValueError(f"`bands` are {asked}, but the files given are, in order, {found}.")
    if len(asked) != len(names):
        raise ValueError(f"`bands` has {len(asked)} names, {asked}; found are {list(names)}.")
    return every, asked


def per_band(name: str, value: Any, n_bands: int) -> list[np.ndarray]:
    """An array for all bands as one array each: `(band, y, x)`, `(y, x)`, or one number a band.

    **Raises:** `ValueError` if it is for another number of bands.
    """
    array = np.asarray(value)
    if array.ndim in (0, 2) and (n_bands == 1 or array.ndim == 0):
        array = np.stack([array] * n_bands)
    if array.ndim not in (1, 3) or len(array) != n_bands:
        raise ValueError(
            f"`{name}` needs one plane for each of {n_bands} bands; got {array.shape}."
        )
    return [np.asarray(entry) for entry in array]


def combined(
    layers: Sequence[Layer],
    *,
    psf: Any = None,
    unit: str | None = None,
    zero_points: Numbers | None = None,
    gain: SupportsFloat | None = None,
    mask_planes: Sequence[str] | None = None,
    excluded: Sequence[str] | None = None,
    needs_psf: bool = True,
) -> Exposure:
    """One exposure of several bands.

    - `psf`: used instead of those of the layers.
    - `unit`: of the result. None: that of the first layer. Empty: no unit, numbers as they are.
    - `zero_points`: used instead of those of the headers; for the images as they are in `layers`.
    - `gain`: electrons per unit of flux in `layers`, instead of what the headers say.
    - `mask_planes`, `excluded`: as in `make_exposure`.
    - `needs_psf`: as in `read_fits`.

    **Raises:** `ValueError` if shapes, places on the sky or units disagree, or anything that
    `make_exposure` refuses.
    """
    _check_shapes(layers)
    _check_places(layers)
    wcs = next((layer.wcs for layer in layers if layer.wcs is not None), None)
    if unit == "":
        layers = [replace(layer, unit="") for layer in layers]
    zeros = _zero_points(layers, zero_points, wcs)
    target = layers[0].unit if unit is None else unit
    factors = [_factor(layer, target, zero) for layer, zero in zip(layers, zeros, strict=True)]

    times = [keywords.number(e.headers, "EXPTIME", "EXPOSURE", positive=True) for e in layers]
    reads = [keywords.number(e.headers, "RDNOISE", "READNOIS", "RON") for e in layers]
    ceilings = [keywords.number(e.headers, "SATURATE", "SATLEVEL", positive=True) for e in layers]
    gains = [
        keywords.gain(layer.headers, layer.unit, time) if gain is None else float(gain)
        for layer, time in zip(layers, times, strict=True)
    ]
    planes, bits = _masks(layers, mask_planes, ceilings)
    out = EXCLUDED_PLANES if excluded is None else tuple(excluded)
    unused = sum(1 << k for k, plane in enumerate(planes) if plane in out)
    variance = []
    for layer, mask, gain_here in zip(layers, bits, gains, strict=True):
        used = (mask & np.uint32(unused)) == 0
        try:
            if layer.noise is None:
                variance.append(estimated_variance(layer.image, used, gain_here))
            else:
                variance.append(as_variance(layer.noise, layer.noise_kind, layer.image, used))
        except ValueError as error:
            raise ValueError(f"{layer.where}: {error}") from error
    stamps = [layer.psf for layer in layers if layer.psf is not None]
    if psf is None and len(stamps) == len(layers):
        psf = stacked_stamps(stamps)
    if psf is None and not needs_psf:
        psf = placeholder_psf(len(layers))

    # In the type of the files: a factor of exactly 1 leaves every bit as it is.
    images = [
        layer.image if factor == 1 else layer.image * factor
        for layer, factor in zip(layers, factors, strict=True)
    ]
    variance = [
        plane if factor == 1 else plane * factor**2
        for plane, factor in zip(variance, factors, strict=True)
    ]
    known = [zero for zero in zeros if zero is not None]
    if 0 < len(known) < len(layers):
        without = [layer.where for layer, zero in zip(layers, zeros, strict=True) if zero is None]
        warnings.warn(
            f"there is no zero point in {without}: magnitudes are left out; give `zero_points`.",
            UserWarning,
            stacklevel=3,
        )
    return make_exposure(
        np.stack(images),
        np.stack(variance),
        psf,
        mask=bits,
        mask_planes=planes,
        excluded=excluded,
        bands=_names(layers),
        zero_points=(
            [z + 2.5 * np.log10(f) for z, f in zip(known, factors, strict=True)]
            if len(known) == len(layers)
            else None
        ),
        wcs=wcs,
        unit=target,
        gain=_same([g and g / f for g, f in zip(gains, factors, strict=True)]),
        read_noise=_same(reads),
        saturation=_same([c and c * f for c, f in zip(ceilings, factors, strict=True)]),
        exposure_time=_same(times),
        date=next((d for d in (keywords.text(e.headers, "DATE-OBS") for e in layers) if d), None),
        # The map knows better where there is one.
        pixel_scale=(
            _same([keywords.number(e.headers, "PIXSCALE", positive=True) for e in layers])
            if wcs is None
            else None
        ),
    )


def _names(layers: Sequence[Layer]) -> list[str] | None:
    names = [layer.name for layer in layers]
    if all(name is None for name in names):
        return None
    found = [str(k) if name is None else name for k, name in enumerate(names)]
    if len(set(found)) < len(found):
        raise ValueError(
            f"`bands` must be all different; the files say {found}. Name them with `bands=[...]`."
        )
    return found


def _check_shapes(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if layer.image.shape != layers[0].image.shape:
            raise ValueError(
                f"bands must have one shape; {layers[0].where} has {layers[0].image.shape}, "
                f"{layer.where} has {layer.image.shape}. Resample them to one grid first."
            )
        for name in ("noise", "mask"):
            plane = getattr(layer, name)
            if plane is not None and plane.shape not in ((), layer.image.shape):
                argument = "variance" if name == "noise" else name
                raise ValueError(
                    f"`{argument}` of {layer.where} needs the shape of its image, "
                    f"{layer.image.shape}; got {plane.shape}."
                )


def _check_places(layers: Sequence[Layer]) -> None:
    """Whether the bands that know their place on the sky agree on it."""
    placed = [layer for layer in layers if layer.wcs is not None]
    for layer in placed[1:]:
        ny, nx = layer.image.shape
        x = np.array([0, nx - 1, 0, nx - 1, (nx - 1) / 2])
        y = np.array([0, 0, ny - 1, ny - 1, (ny - 1) / 2])
        sky = sky_positions(Header((), wcs=placed[0].wcs), x, y)
        x_here, y_here = pixel_positions(Header((), wcs=layer.wcs), *sky)
        offset = float(np.max(np.hypot(x_here - x, y_here - y)))
        if not offset <= _MAXIMUM_OFFSET:
            raise ValueError(
                f"the WCS of {placed[0].where} and {layer.where} disagree by {offset:.3g} pixels; "
                f"bands must agree to {_MAXIMUM_OFFSET}. Resample them to one grid first."
            )


def _zero_points(
    layers: Sequence[Layer], zero_points: Numbers | None, wcs: Any
) -> list[float | None]:
    if zero_points is not None:
        values = np.atleast_1d(np.asarray(zero_points, dtype=float))
        if values.shape not in ((1,), (len(layers),)):
            raise ValueError(
                f"`zero_points` needs {len(layers)} numbers, one per band; got {zero_points}."
            )
        return [float(value) for value in np.broadcast_to(values, len(layers))]
    area = None
    if wcs is not None:
        ny, nx = layers[0].image.shape
        jacobian = local_jacobian(Header((), wcs=wcs), (nx - 1) / 2, (ny - 1) / 2)
        area = abs(np.linalg.det(jacobian)) * np.deg2rad(1 / 3600) ** 2
    found = []
    for layer in layers:
        try:
            found.append(keywords.zero_point(layer.headers, layer.unit, area))
        except ValueError as error:
            raise ValueError(f"{layer.where}: {error}") from error
    return found


def _factor(layer: Layer, target: str, zero_point: float | None) -> float:
    """What brings the numbers of a layer to the unit `target`."""
    if layer.unit == target:
        return 1.0
    from astropy import units

    wanted = ab_zero_point(target)  # also checks that the unit is one
    here, there = units.Unit(layer.unit), units.Unit(target)
    if here.is_equivalent(there):
        return float(np.real(here.to(there)))
    if wanted is not None and zero_point is not None:
        return float(10 ** (-0.4 * (zero_point - wanted)))
    raise ValueError(
        f"`unit` {target!r} cannot be made from {layer.where}, whose unit is "
        f"{layer.unit or 'none'!r}"
        + ("." if wanted is None else ", as it has no zero point; give `zero_points`.")
    )


def _masks(
    layers: Sequence[Layer],
    mask_planes: Sequence[str] | None,
    ceilings: Sequence[float | None],
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the planes of all layers together, and the bits, `(band, y, x)`."""
    each = []
    for layer, ceiling in zip(layers, ceilings, strict=True):
        planes = layer.planes if mask_planes is None else tuple(mask_planes)
        if layer.mask is None:
            each.append((planes or (), np.zeros((1, *layer.image.shape), np.uint32)))
        else:
            each.append(mask_bits(layer.mask, (1, *layer.image.shape), planes))
        if ceiling is not None:
            saturated = layer.image >= ceiling
            if saturated.any():
                planes, bits = each.pop()
                names = planes or STANDARD_PLANES
                names = names if "SAT" in names else (*names, "SAT")
                flag = np.uint32(1 << names.index("SAT"))
                each.append((names, bits | np.where(saturated, flag, np.uint32(0))))
    # Bits keep their places if no two layers put a name at different ones.
    every = tuple(dict.fromkeys(name for planes, _ in each for name in planes))
    if len(every) > 32:
        raise ValueError(f"`mask` may have 32 planes; the bands together have {len(every)}.")
    merged = np.zeros((len(layers), *layers[0].image.shape), np.uint32)
    for out, (planes, bits) in zip(merged, each, strict=True):
        if planes == every[: len(planes)]:
            out |= bits[0]
            continue
        for bit, name in enumerate(planes):
            flag = np.uint32(1 << every.index(name))
            out |= np.where((bits[0] >> np.uint32(bit)) & np.uint32(1), flag, np.uint32(0))
    return every or STANDARD_PLANES, merged


def _same(values: Sequence[float | None]) -> float | None:
    """The value of all bands, or None if they differ."""
    first = values[0]
    if first is None or any(v is None or abs(v - first) > 1e-9 * abs(first) for v in values):
        return None
    return first
