"""What a deblender says about one blend, and how it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

from diffdeblend.header import Header
from diffdeblend.positions import check_finite

_REQUIRED = ("x", "y")
# What a measure function may say of itself.
_BATCHED, _SURVEYS = "batched", "all_surveys"
_Function = TypeVar("_Function", bound=Callable[..., Any])


# Compared by identity: arrays have no single truth value.
@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one blend: a row for each source, and images where there are some.

    - `catalog`: a row a source, with at least `x` and `y`, in pixels of the stamp, the first one
        centred on 0. Scores also use, where they are there: `ra` and `dec` (arcseconds from the
        middle of the stamp), `flux_{band}` and `flux_err_{band}` in the unit of the image, `g1` and
        `g2` (reduced shear).
    - `segmentation`: the pixels that belong to each source, or None.
    - `images`: each source alone, or None. One image for all bands has one band.

    **Raises:** `ValueError` for a catalogue without `x` or `y`, or lengths that differ.
    """

    catalog: Table
    segmentation: Bool[np.ndarray, "source y x"] | None = None
    images: Float[np.ndarray, "source band y x"] | None = None

    def __post_init__(self):
        missing = [name for name in _REQUIRED if name not in self.catalog.colnames]
        if missing:
            raise ValueError(
                f"`catalog` needs the columns x and y, in pixels; it has no {' and '.join(missing)}"
                f", but {', '.join(self.catalog.colnames) or 'no columns'}."
            )
        for name, value, axes in (
            ("segmentation", self.segmentation, 3),
            ("images", self.images, 4),
        ):
            if value is not None and (value.ndim != axes or len(value) != len(self.catalog)):
                raise ValueError(
                    f"`{name}` needs {axes} axes and as many entries as the catalogue has rows, "
                    f"{len(self.catalog)}; got shape {value.shape}."
                )

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return len(self.catalog)

    @property
    def positions(self) -> Float[np.ndarray, "source 2"]:
        """x and y of each source, in pixels."""
        columns: Any = self.catalog
        return np.stack([np.asarray(columns[name], float) for name in _REQUIRED], axis=1)

    def rows(self, chosen: Int[np.ndarray, "n"]) -> "Measured":
        """Some of the sources, in this order."""
        table: Any = self.catalog
        return Measured(
            table[chosen],
            None if self.segmentation is None else self.segmentation[chosen],
            None if self.images is None else self.images[chosen],
        )

    def brightest(self, most: int | None, flux: Float[np.ndarray, "source"]) -> "Measured":
        """The `most` sources of largest flux, in their order, all if None.

        With a new column, `truncated`: whether there were more.

        **Raises:** `ValueError` for a `most` below 1.
        """
        if most is not None and most < 1:
            raise ValueError(f"`most` must be at least 1, or None; got {most}.")
        kept, cut = self, most is not None and len(self.catalog) > most
        if cut:
            # NaN would come first if it were sorted as it is.
            order = np.argsort(-np.nan_to_num(flux, nan=-np.inf), kind="stable")
            kept = self.rows(np.sort(order[:most]))
        table = kept.catalog.copy(copy_data=False)
        add_column(table, "truncated", np.full(len(table), cut), "Whether more sources were found")
        return replace(kept, catalog=table)


@dataclass(frozen=True)
class Measure:
    """A measure function with its settings.

    - `function`: of an exposure and positions, `(source, 2)` x and y in pixels, or None where it
        has to find them; with the settings by name. Gives a `Measured`.
    - `name`: that of the function without. Names that come twice get a number: `sep0`, `sep1`.
    - `settings`: by name.
    - `batched`: whether the function takes all blends at once: `function(blends, positions)` with
        `positions` a list with an entry a blend, or None, and gives a list of `Measured`.
        By default what the function says, by the decorator `batched`.
    - `surveys`: whether the function takes one exposure for each survey, as a dict by the survey's
        name, and positions as such a dict. By default what it says, by `all_surveys`.
    - `origin`: the word by which `load_measure` found the function; other processes find it so.
    """

    function: Callable[..., Any]
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    batched: bool | None = None
    surveys: bool | None = None
    origin: str | None = None

    def __post_init__(self):
        if not callable(self.function):
            raise ValueError(f"`function` of a measure must be callable; got {self.function!r}.")
        named = self.name or getattr(self.function, "__name__", type(self.function).__name__)
        object.__setattr__(self, "name", named)
        object.__setattr__(self, "settings", dict(self.settings))
        for name, mark in (("batched", _BATCHED), ("surveys", _SURVEYS)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, bool(getattr(self.function, mark, False)))


def batched(function: _Function) -> _Function:
    """Marks a measure function that takes all blends at once; see `Measure`."""
    setattr(function, _BATCHED, True)
    return function


def all_surveys(function: _Function) -> _Function:
    """Marks a measure function that takes an exposure of each survey; see `Measure`."""
    setattr(function, _SURVEYS, True)
    return function


def add_column(table: Table, name: str, values: Any, description: str) -> None:
    """A column with its description."""
    columns: Any = table
    columns[name] = values
    columns[name].info.description = description


def catalog_of(
    positions: Float[np.ndarray, "source 2"], header: Header, shape: tuple[int, int]
) -> Table:
    """A table with `x`, `y` and, where the header knows of the sky, `ra` and `dec`.

    - `shape`: pixels of the stamp along y and x.
    """
    positions = np.asarray(positions, float).reshape(-1, 2)
    table = Table()
    for axis, name in enumerate(_REQUIRED):
        add_column(table, name, positions[:, axis], f"Centre along {name}, pixels")
    sky = offsets(check_finite(positions), header, shape)
    if sky is not None:
        add_column(table, "ra", sky[0], "Offset from the middle along right ascension, arcsec")
        add_column(table, "dec", sky[1], "Offset from the middle along declination, arcsec")
    return table


def offsets(
    positions: Float[np.ndarray, "source 2"], header: Header, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Arcseconds from the middle of the stamp to the east and to the north; None if not known.

    With a WCS, on the plane that touches the sky in the middle; with a pixel scale alone, x goes
    east.
    """
    middle = (np.array([shape[1], shape[0]]) - 1) / 2
    if header.wcs is None:
        if header.pixel_scale is None:
            return None
        dx, dy = ((positions - middle) * header.pixel_scale).T
        return dx, dy
    points = np.concatenate([positions, middle[None]])
    ra, dec = np.radians(header.wcs.pixel_to_world_values(points[:, 0], points[:, 1]))
    turn, dec, home = ra[:-1] - ra[-1], dec[:-1], dec[-1]
    # Gnomonic projection: Calabretta & Greisen (2002), A&A 395, 1077, section 5.1.3.
    depth = np.sin(home) * np.sin(dec) + np.cos(home) * np.cos(dec) * np.cos(turn)
    east = np.cos(dec) * np.sin(turn) / depth
    north = (np.cos(home) * np.sin(dec) - np.sin(home) * np.cos(dec) * np.cos(turn)) / depth
    return 3600 * np.degrees(east), 3600 * np.degrees(north)
