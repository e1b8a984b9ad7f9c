"""What users measure on images of single sources, on found and on true ones alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

# (image, psf, x, y) -> number or numbers.
Target = Callable[[np.ndarray, np.ndarray, float, float], Any]


@dataclass(frozen=True)
class AllBands:
    """A target measure that wants all bands: image `(band, y, x)` and PSF `(band, h, w)`."""

    function: Target

    def __call__(self, image: np.ndarray, psf: np.ndarray, x: float, y: float) -> Any:
        """What the function says."""
        return self.function(image, psf, x, y)


def checked_targets(targets: Mapping[str, Target] | None) -> dict[str, Target]:
    """The target measures by name.

    **Raises:** `ValueError` for what is no mapping from names to functions.
    """
    chosen = dict(targets or {})
    for name, function in chosen.items():
        if not isinstance(name, str) or not name or not callable(function):
            raise ValueError(
                "`target_measures` needs functions (image, psf, x, y) by name; "
                f"got {name!r}: {function!r}."
            )
    return chosen


class TargetColumns:
    """Outputs of target measures, filled in source by source: found and true."""

    def __init__(self, targets: Mapping[str, Target], n_rows: int):
        self._targets = targets
        self._n_rows = n_rows
        self._values: dict[tuple[str, bool], np.ndarray] = {}
        # A number stays `name`, a tuple of one becomes `name0`.
        self._single: dict[str, bool] = {}

    def put(
        self,
        row: int,
        true: bool,
        image: Float[np.ndarray, "band y x"],
        psf: Float[np.ndarray, "band h w"],
        band: int,
        x: float,
        y: float,
    ) -> None:
        """Measure one image.

        **Raises:** `ValueError` if a function returns another number of numbers than before.
        """
        # One image for all bands is one of this band.
        plane = image[band if len(image) > 1 else 0]
        for name, function in self._targets.items():
            every = isinstance(function, AllBands)
            value = function(image if every else plane, psf if every else psf[band], x, y)
            single, numbers = np.ndim(value) == 0, np.atleast_1d(np.asarray(value, float))
            size = numbers.shape
            column = self._values.get((name, true))
            if column is None:
                known = self._values.get((name, not true))
                size = size if known is None else known.shape[1:]
                column = np.full((self._n_rows, *size), np.nan)
                self._values[name, true] = column
                self._single.setdefault(name, single)
            if numbers.shape != column.shape[1:] or single != self._single[name] or len(size) != 1:
                raise ValueError(
                    f"`target_measures` {name!r} must return one number, or always as many; "
                    f"got {value!r}."
                )
            column[row] = numbers

    def columns(self) -> dict[str, np.ndarray]:
        """By name: `name` and `name_true`, or `name0`, `name0_true`, `name1`, ... of several.

        NaN where not measured. Without a single source there is nothing to tell the number of
        outputs by: then `name`.
        """
        found = {}
        for name in self._targets:
            known = self._values.get((name, True), self._values.get((name, False)))
            n = 1 if known is None else known.shape[1]
            for i in range(n):
                label = name if self._single.get(name, True) else f"{name}{i}"
                for true in (False, True):
                    values = self._values.get((name, true))
                    empty = np.full(self._n_rows, np.nan)
                    found[label + "_true" * true] = empty if values is None else values[:, i]
        return found
