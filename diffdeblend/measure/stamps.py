"""The sources of many stamps, in a fixed number of places for each."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.backend import Backend, on_host
from diffdeblend.measure.apertures import ApertureMeasurements
from diffdeblend.measure.columns import DEFAULT_COLUMNS, FAMILY_OF
from diffdeblend.measure.flags import FLAGS
from diffdeblend.measure.isophote import isophote
from diffdeblend.measure.kron import kron_photometry
from diffdeblend.measure.measurements import Measurements
from diffdeblend.measure.neighbours import check_mask_method
from diffdeblend.measure.photometry import check_kron_params
from diffdeblend.measure.windows import Planes, cut_window

STAMP_COLUMNS = tuple(name for name in DEFAULT_COLUMNS if name != "sky_centroid")


class StampCatalog(NamedTuple):
    """Sources of stamps, in the order of their labels.

    - `columns`: each of `STAMP_COLUMNS`, `(stamp, slot)`; NaN, or 0 for integers, where no source
        is. As in `SourceCatalog`, in pixels of the stamp.
    - `has`: whether a source is in a slot.
    - `overflow`: stamps with more sources than slots, whose last are left out.
    """

    columns: dict[str, Any]
    has: Bool[Any, "stamp slot"]
    overflow: Bool[Any, "stamp"]

    def table(self) -> Table:
        """A row a source: the number of its stamp from 0, and all columns. Host side."""
        has = np.asarray(self.has)
        made = Table({"stamp": np.nonzero(has)[0]})
        for name, values in self.columns.items():
            made[name] = np.asarray(values)[has]
        return made


def measure_stamps(
    data: Float[Any, "stamp y x"],
    labels: Int[Any, "stamp y x"],
    *,
    convolved_data: Any = None,
    error: Any = None,
    mask: Any = None,
    max_sources: int = 12,
    aperture_mask_method: str = "correct",
    kron_params: tuple[float, ...] = (2.5, 1.4, 0.0),
    backend: Backend = "auto",
) -> StampCatalog:
    """The default table of `SourceCatalog`, of many stamps at once.

    - `data`: less the background. `labels`: of each stamp, from 1.
    - `convolved_data`, `error`, `mask`: as for `SourceCatalog`, of the shape of `data`.
    - `max_sources`: slots of each stamp.
    - `backend`: "host" gives numpy arrays and is the faster one on CPU; "jax" may be used within
        `jit` and differentiated, and needs the labels of a stamp to be 1, 2, ... without a gap;
        "auto" is the one that suits where JAX runs.

    **Raises:** `ValueError` for other shapes or settings.
    """
    host = on_host(backend)
    if not isinstance(max_sources, int) or max_sources < 1:
        raise ValueError(f"`max_sources` must be an integer of at least 1; got {max_sources!r}.")
    check_mask_method(aperture_mask_method)
    params = check_kron_params(kron_params)
    given = {"data": data, "labels": labels, "convolved_data": convolved_data}
    given |= {"error": error, "mask": mask}
    if np.ndim(data) != 3:
        raise ValueError(f"`data` needs shape (stamp, y, x); got {np.shape(data)}.")
    for name, value in given.items():
        if value is not None and np.shape(value) != np.shape(data):
            raise ValueError(
                f"`{name}` needs the shape of `data`, {np.shape(data)}; got {np.shape(value)}."
            )
    planes = Planes(data, labels, convolved_data, error, None, mask)
    if host:
        return _on_host(planes, max_sources, aperture_mask_method, params)
    planes = Planes(*(None if plane is None else jnp.asarray(plane) for plane in planes))
    return _on_device(planes, max_sources, aperture_mask_method, params)


def _on_host(planes: Planes, n_slots: int, method: str, params: tuple) -> StampCatalog:
    planes = Planes(*(None if plane is None else np.asarray(plane) for plane in planes))
    own = Measurements(planes, aperture_mask_method=method, kron_params=params)
    apertures = ApertureMeasurements(own)
    pixels = own.pixels
    n_stamps = len(planes.data)
    number = np.bincount(pixels.stamp, minlength=n_stamps)
    slot = np.arange(pixels.n_sources) - np.repeat(np.cumsum(number) - number, number)
    fits = slot < n_slots
    place = pixels.stamp[fits], slot[fits]
    columns = {}
    for name in STAMP_COLUMNS:
        family = FAMILY_OF[name]
        values = getattr(apertures if family in ("kron", "flags") else own, family)[name]
        empty = 0 if values.dtype.kind in "iu" else np.nan
        columns[name] = np.full((n_stamps, n_slots), empty, values.dtype)
        columns[name][place] = values[fits]
    has = np.arange(n_slots) < number[:, None]
    return StampCatalog(columns, has, number > n_slots)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _on_device(planes: Planes, n_slots: int, method: Any, params: tuple) -> StampCatalog:
    n_stamps, *size = planes.data.shape

    def one(stamp: Array, label: Array) -> dict[str, Array]:
        window = cut_window(planes, stamp, label, jnp.int32(0), jnp.int32(0), tuple(size))
        columns = isophote(window)
        kron = kron_photometry(
            window,
            columns["x_window"],
            columns["y_window"],
            columns["semimajor_axis"],
            columns["semiminor_axis"],
            jnp.deg2rad(columns["orientation"]),
            jnp.zeros_like(columns["area"]),
            method,
            params,
        )
        columns |= {"kron_flux": kron.aperture.flux, "kron_flux_err": kron.aperture.flux_err}
        if planes.error is None:
            for name in ("segment_flux_err", "kron_flux_err"):
                columns[name] = jnp.full_like(columns[name], jnp.nan)
        else:
            # A window has 0 where an error is not finite.
            error, used = planes.error[stamp], (window.labels == label) & window.good
            odd = jnp.sum(jnp.where(used & ~jnp.isfinite(error), jnp.abs(error), 0))
            columns["segment_flux_err"] = jnp.where(odd == 0, columns["segment_flux_err"], odd)
        return columns | {"flags": columns["flags"] | _bits(planes, stamp, window, kron)}

    label = jnp.arange(1, n_slots + 1, dtype=jnp.int32)
    by_slot = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    columns = by_slot(jnp.arange(n_stamps), label)
    number = jnp.max(planes.labels, axis=(1, 2), initial=0)
    has = label <= number[:, None]

    def hide(values: Array) -> Array:
        return jnp.where(has, values, jnp.nan if values.dtype.kind == "f" else 0)

    return StampCatalog(
        {name: hide(columns[name]) for name in STAMP_COLUMNS}, has, number > n_slots
    )


def _bits(planes: Planes, stamp: Array, window: Any, kron: Any) -> Array:
    """Bits of the Kron aperture and of the pixels of the segment. The window is the stamp."""
    segment = window.labels == window.label
    flags = jnp.where(kron.undefined, FLAGS["kron_undefined"], 0)
    light = kron.aperture
    # Which of the two is in an aperture, its sum does not say; a mask is the more likely.
    bad = "non_finite_data" if planes.mask is None else "masked_pixels"
    named = [
        ("kron_minimum_radius", kron.minimum_radius),
        ("kron_no_overlap", light.no_overlap),
        ("kron_partial_overlap", light.partial_overlap),
        ("kron_neighbor_pixels", light.neighbor_pixels),
        ("kron_uncorrected_pixels", light.uncorrected_pixels),
        (f"kron_{bad}", light.bad_pixels),
        ("non_finite_data", jnp.any(segment & ~jnp.isfinite(planes.data[stamp]))),
    ]
    if planes.mask is not None:
        named.append(("masked_pixels", jnp.any(segment & planes.mask[stamp])))
    if planes.error is not None:
        wrong = jnp.any(segment & ~jnp.isfinite(planes.error[stamp]))
        named.append(("non_finite_error", wrong))
    for name, where in named:
        flags |= jnp.where(where, FLAGS[name], 0)
    return flags
