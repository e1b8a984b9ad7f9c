"""A catalogue of the sources of a label image."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import QTable
from jaxtyping import Int

from diffdeblend.measure.apertures import ApertureMeasurements
from diffdeblend.measure.columns import DEFAULT_COLUMNS, FAMILY_OF, OF_DATA, OF_DETECTION, UNITS
from diffdeblend.measure.cutouts import CUTOUTS, Cutout, center_cutouts, cutout_column
from diffdeblend.measure.flags import FLAGS, decode_flags
from diffdeblend.measure.inputs import catalog_planes, check_width
from diffdeblend.measure.measurements import Measurements
from diffdeblend.measure.neighbours import check_mask_method
from diffdeblend.measure.photometry import check_kron_params
from diffdeblend.measure.sky_columns import SkyMeasurements
from diffdeblend.segment.labels import LabelImage

_CUTOUT_NAMES = (*CUTOUTS, *(f"{name}_masked" for name in CUTOUTS))


class SourceCatalog:
    """What is measured of the sources of a label image, in columns.

    `catalog.kron_flux`, or `catalog["kron_flux"]`, is an array with one entry a source, in the
    order of labels. A column is worked out when it is first asked for, for all sources together;
    `columns` names all. Names and rules are photutils' (3.0; errors of Kron fluxes and centroids
    and flags as in 3.1). Catalogues do not change: methods return new ones, and those share what
    was measured. Host side.

    Shapes come from `convolved_data`, photometry from `data`. Pixels that are masked or not finite
    count nowhere; negative ones not in moments. In apertures the light of neighbours is dealt with
    by `aperture_mask_method`. In single precision, unless JAX has double precision switched on,
    are apertures; isophotal sums are always double.

    - `data`: the image less its background, `(y, x)`. It may have a unit; then so have fluxes.
    - `segment_image`: which pixel belongs to which source.
    - `convolved_data`: `data` smoothed as for detection; or `kernel`, to smooth it with.
    - `error`: standard deviation of each pixel, photon noise included; without it errors are NaN.
    - `mask`: true where a pixel is not to be used.
    - `background`: what was taken off `data`; for the columns `background_...`.
    - `wcs`: of astropy, for sky positions; these are None without.
    - `local_bkg_width`: width in pixels of a ring around each source whose level is taken off; 0
        for none.
    - `aperture_mask_method`: "correct" puts the pixel opposite the centroid in the place of a
        neighbour's; "mask" leaves it out; "none" leaves it in.
    - `kron_params`: factor on the Kron radius, least radius, and radius of the least circle.
    - `detection_catalog`: of another image with the same labels. From it come centroids, shapes
        and Kron apertures, `wcs`, `aperture_mask_method` and `kron_params`: for colours.

    **Raises:** `ValueError` for what cannot be, naming it.

    ??? cite
        Bertin & Arnouts (1996), A&AS 117, 393.
    """

    def __init__(
        self,
        data: Any,
        segment_image: LabelImage,
        *,
        convolved_data: Any = None,
        kernel: Any = None,
        error: Any = None,
        mask: Any = None,
        background: Any = None,
        wcs: Any = None,
        local_bkg_width: int = 0,
        aperture_mask_method: str = "correct",
        kron_params: Sequence[float] = (2.5, 1.4, 0.0),
        detection_catalog: "SourceCatalog | None" = None,
    ):
        planes, unit = catalog_planes(
            data, segment_image, convolved_data, kernel, error, mask, background
        )
        check_mask_method(aperture_mask_method)
        params = check_kron_params(tuple(kron_params))
        other = None
        if detection_catalog is not None:
            if not isinstance(detection_catalog, SourceCatalog):
                raise ValueError(
                    "`detection_catalog` must be a SourceCatalog; "
                    f"got {type(detection_catalog).__name__}."
                )
            if not np.array_equal(detection_catalog.segment_image.data, segment_image.data):
                raise ValueError("`detection_catalog` must have the labels of `segment_image`.")
            other = detection_catalog._apertures
            wcs = detection_catalog.wcs
            aperture_mask_method, params = other.own.aperture_mask_method, other.own.kron_params
        own = Measurements(
            planes,
            check_width(local_bkg_width),
            aperture_mask_method,
            params,
            _label_flags(segment_image),
        )
        self.segment_image = segment_image
        self.wcs = wcs
        self.unit = unit
        self.local_bkg_width = own.local_bkg_width
        self.aperture_mask_method = aperture_mask_method
        self.kron_params = params
        self.meta = {
            "local_bkg_width": own.local_bkg_width,
            "aperture_mask_method": aperture_mask_method,
            "kron_params": params,
        }
        self.default_columns = DEFAULT_COLUMNS
        self.custom_properties: Mapping[str, Any] = {}
        self._own, self._detection = own, other
        self._apertures = ApertureMeasurements(own, other)
        self._rows: Any = np.arange(segment_image.n_labels)

    def __getattr__(self, name: str) -> Any:
        if name in FAMILY_OF or name in _CUTOUT_NAMES:
            return self._column(name)
        custom = self.__dict__.get("custom_properties", {})
        if name in custom:
            return custom[name]
        raise AttributeError(f"a SourceCatalog has no {name!r}; see `columns`.")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.columns})

    def __getitem__(self, key: Any) -> Any:
        """A column by its name; else a catalogue of some sources: a number, slice or array."""
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"{key!r} is no column; see `columns`.")
            return getattr(self, key)
        if self.isscalar:
            raise TypeError("a catalogue of one source has no parts.")
        made = self._copy()
        made._rows = self._rows[key]
        made.custom_properties = {n: _part(v, key) for n, v in self.custom_properties.items()}
        return made

    def __len__(self) -> int:
        if self.isscalar:
            raise TypeError("a catalogue of one source has no length.")
        return len(self._rows)

    def __iter__(self) -> Iterator["SourceCatalog"]:
        for row in range(len(self)):
            yield self[row]

    def __repr__(self) -> str:
        with np.printoptions(threshold=25, edgeitems=5):
            return (
                f"<diffdeblend.measure.SourceCatalog>\nLength: {self.n_labels}\n"
                f"labels: {np.atleast_1d(self.label)}"
            )

    @property
    def isscalar(self) -> bool:
        """Whether this is one source, whose columns have no source axis."""
        return np.ndim(self._rows) == 0

    @property
    def n_labels(self) -> int:
        """How many sources."""
        return int(np.size(self._rows))

    @property
    def labels(self) -> Int[np.ndarray, "source"]:
        """The label of each source."""
        return np.atleast_1d(self.label)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, those of one's own at the end."""
        return (*sorted((*FAMILY_OF, "slices", *_CUTOUT_NAMES)), *self.custom_properties)

    @property
    def slices(self) -> Any:
        """Rows and columns of the box of each source; of one source alone, a pair."""
        rows = self._own.boxes[np.atleast_1d(self._rows)].tolist()
        found = [(slice(y0, y1), slice(x0, x1)) for y0, x0, y1, x1 in rows]
        return found[0] if self.isscalar else found

    def select_label(self, label: int) -> "SourceCatalog":
        """The catalogue of one source.

        **Raises:** `ValueError` for a label that is not there.
        """
        return self[int(self._places(label)[0])]

    def select_labels(self, labels: Any) -> "SourceCatalog":
        """The catalogue of some sources, in the order of `labels`.

        **Raises:** `ValueError` for labels that are not there.
        """
        return self[self._places(labels)]

    def add_property(self, name: str, value: Any, *, overwrite: bool = False) -> "SourceCatalog":
        """With a column of one's own: one entry a source.

        **Raises:** `ValueError` for a name that is taken, unless it is one's own and `overwrite` is
        set, or another number of entries.
        """
        known = name in self.custom_properties
        if (not known and (name in self.columns or hasattr(self, name))) or (
            known and not overwrite
        ):
            raise ValueError(f"`name` {name!r} is taken; give another one.")
        if not self.isscalar and (np.ndim(value) == 0 or len(value) != self.n_labels):
            raise ValueError(f"`value` needs {self.n_labels} entries; got {value!r}.")
        made = self._copy()
        made.custom_properties = {**self.custom_properties, name: value}
        return made

    def remove_property(self, name: str) -> "SourceCatalog":
        """Without a column of one's own."""
        return self.remove_properties([name])

    def remove_properties(self, names: Sequence[str]) -> "SourceCatalog":
        """Without some columns of one's own.

        **Raises:** `ValueError` for others.
        """
        self._check_own(names)
        made = self._copy()
        kept = {n: v for n, v in self.custom_properties.items() if n not in names}
        made.custom_properties = kept
        return made

    def rename_property(self, name: str, new_name: str) -> "SourceCatalog":
        """With another name for a column of one's own.

        **Raises:** `ValueError` if it is not one's own, or the new name is taken.
        """
        self._check_own([name])
        made = self.add_property(new_name, self.custom_properties[name])
        return made.remove_property(name)

    def to_table(self, columns: Sequence[str] | str | None = None) -> QTable:
        """A table of astropy, with units.

        - `columns`: names; without it `default_columns`.

        **Raises:** `ValueError` for names that are no columns.
        """
        names = [columns] if isinstance(columns, str) else list(columns or self.default_columns)
        wrong = [name for name in names if name not in self.columns]
        if wrong:
            raise ValueError(f"`columns` must be among `catalog.columns`; not so are {wrong}.")
        table = QTable(meta=dict(self.meta))
        for name in names:
            values = getattr(self, name)
            values = [values] if self.isscalar else values
            unit = UNITS.get(name)
            table[name] = values if unit is None else np.asarray(values) << unit
        return table

    def circular_photometry(self, radius: float) -> tuple[Any, Any]:
        """Flux and error in circles of `radius` pixels around the centroids.

        **Raises:** `ValueError` for a radius that is not positive.
        """
        return self._fluxes(self._apertures.circular_photometry(radius))

    def kron_photometry(self, kron_params: Sequence[float]) -> tuple[Any, Any]:
        """Kron flux and error with other parameters than the catalogue's.

        **Raises:** `ValueError` for bad ones.
        """
        return self._fluxes(self._apertures.kron_photometry(tuple(kron_params)))

    def flux_radius(self, fraction: float) -> Any:
        """Radius in pixels of the circle that holds a fraction of the Kron flux, NaN where none.

        **Raises:** `ValueError` for a fraction that is not above 0 and at most 1.
        """
        if fraction == 0.5:
            return self._apertures.half_light_radius[self._rows]
        return self._apertures.flux_radius(fraction)[self._rows]

    def make_circular_apertures(self, radius: float) -> dict[str, Any]:
        """Middles and radii of circles around the centroids, in pixels: x, y, r."""
        x, y = self.x_centroid, self.y_centroid
        return {"x": x, "y": y, "r": np.full_like(x, radius)}

    def make_kron_apertures(self, kron_params: Sequence[float] | None = None) -> dict[str, Any]:
        """Middles, semi-axes (pixels) and angles (radians) of Kron apertures: x, y, a, b, theta.

        - `kron_params`: other ones than the catalogue's.
        """
        params = None if kron_params is None else tuple(kron_params)
        return {n: v[self._rows] for n, v in self._apertures.kron_ellipses(params).items()}

    def make_cutouts(
        self,
        shape: tuple[int, int],
        *,
        array: Any = None,
        mode: str = "partial",
        fill_value: float = np.nan,
    ) -> Any:
        """A piece of one shape around each centroid; None without centroid.

        - `array`: an image of the shape of the data to take them from; without it the data.
        - `mode`: "partial" fills up outside the image with `fill_value`; "trim" leaves it out.

        **Raises:** `ValueError` for another shape or mode.
        """
        image = self._own.planes.data[0] if array is None else np.asarray(array)
        if image.shape != self.segment_image.shape:
            raise ValueError(
                f"`array` needs the shape of the data, {self.segment_image.shape}; "
                f"got {image.shape}."
            )
        x, y = np.atleast_1d(self.x_centroid), np.atleast_1d(self.y_centroid)
        x = np.where(self._own.used.count[np.atleast_1d(self._rows)] > 0, x, np.nan)
        found: list[Cutout | None] = center_cutouts(image, x, y, shape, mode, fill_value)
        return found[0] if self.isscalar else found

    def decode_flags(self, *, return_bit_values: bool = False) -> list:
        """Names of the bits that are set in `flags`, a list for each source."""
        return decode_flags(self.flags, return_bit_values=return_bit_values)

    def _column(self, name: str) -> Any:
        if name in _CUTOUT_NAMES:
            rows = np.atleast_1d(self._rows)
            pieces = cutout_column(
                self._own.planes, name, self._own.pixels.label[rows], self._own.boxes[rows]
            )
            return pieces[0] if self.isscalar else pieces
        family = FAMILY_OF[name]
        if family.startswith("sky"):
            values = getattr(SkyMeasurements(self.wcs, self._shapes), family)[name]
        elif family in ("kron", "flags"):
            values = getattr(self._apertures, family)[name]
        elif family == "windowed":
            values = self._shapes.windowed[name]
        elif family == "background":
            place = self._shapes.own.isophotal
            values = self._own.background_at(place["x_centroid"], place["y_centroid"])[name]
        elif family in OF_DETECTION:
            values = getattr(self._shapes.own, family)[name]
        else:
            values = getattr(self._own, family)[name]
        if values is None:
            return None if self.isscalar else np.full(self.n_labels, None)
        values = values[self._rows]
        return values << self.unit if self.unit is not None and name in OF_DATA else values

    @property
    def _shapes(self) -> ApertureMeasurements:
        return self._apertures if self._detection is None else self._detection

    def _fluxes(self, values: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
        flux, error = (value[self._rows] for value in values)
        return (flux, error) if self.unit is None else (flux << self.unit, error << self.unit)

    def _places(self, labels: Any) -> Int[np.ndarray, "chosen"]:
        wanted, own = np.atleast_1d(np.asarray(labels)), self.labels
        order = np.argsort(own, kind="stable")
        at = np.searchsorted(own[order], wanted)
        there = own[order][np.minimum(at, len(own) - 1)] == wanted if len(own) else wanted < wanted
        if wanted.dtype.kind not in "iu" or not there.all():
            raise ValueError(
                f"`labels` must be labels of this catalogue; not so are {wanted[~there]}."
            )
        return order[at]

    def _check_own(self, names: Sequence[str]) -> None:
        wrong = [name for name in names if name not in self.custom_properties]
        if wrong:
            own = ", ".join(self.custom_properties) or "none"
            raise ValueError(f"only columns that were added can go, these are {own}; got {wrong}.")

    def _copy(self) -> "SourceCatalog":
        made = object.__new__(SourceCatalog)
        made.__dict__.update(self.__dict__)
        return made


def _part(values: Any, key: Any) -> Any:
    if isinstance(values, list) and not isinstance(key, int | slice | np.integer):
        return [values[i] for i in np.arange(len(values))[key]]
    return values[key]


def _label_flags(segment_image: LabelImage) -> dict[int, int]:
    flags = dict(segment_image.flags_by_label)
    for label in segment_image.deblended_labels.tolist():
        flags[label] = flags.get(label, 0) | FLAGS["deblended"]
    return flags
