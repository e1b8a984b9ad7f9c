"""What a batch of fits found, ragged again: a row a source, a row a blend. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

from diffdeblend.batch.task import Guess, Task
from diffdeblend.components import AnySource, Kind
from diffdeblend.deblend.catalog import FLAG_MEANINGS, Flag, versions
from diffdeblend.fit import Fit

_SHAPES = ("radius", "index", "radius_ratio", "shear_ratio")

# Signal-to-noise ratio, all bands together, at which what is not linear in a fit adds as much to an
# error as what is; and the least ratio to reckon with. Found on simulations, and scored on others:
# experiments/calibration.
_CURVED, _FAINTEST = 6.4, 3.0


@dataclass(eq=False)
class Found:
    """Values and errors of all sources and blends, filled in as fits end.

    A row a source, in the order of the blends:
    - `blend`: the blend that a source is in; `row`: its row in the caller's catalogue.
    - `kind`: a `Kind`.
    - `x`, `y`: centre in pixels of the image that the stamp was cut from; `radius` (half-light, in
        pixels), `index`, `radius_ratio`, `shear_ratio`, `ellipticity` (g1, g2): as in `AnySource`.
    - `flux`: total flux, `(source, band)`; `bulge_flux`: that of the bulge, 0 without one.
    - each with its error, one standard deviation, under its name with `_err`: that of the linear
        theory, widened for faint sources (but for `x`, `y` and `ellipticity`) by a factor
        sqrt(1 + (6.4 / SNR)^2) that was found on simulations.
    - `contest`: of a source of a refined blend, how much of the change of its light is contested
        by neighbours, see `contested` of `diffdeblend.batch.free_form`; NaN elsewhere.
    - `flags`: bits of `Flag`.

    A row a blend:
    - `first`: first row of its sources, and one entry more at the end.
    - `sky`: coefficients, `(blend, band, n)`; `chi2`, `n_pixels`: `(blend, band)`; of a blend with
        free pixels with the weights given, of others with those that allow for `model_error`.
    - `value`: half of chi2 minus the log-prior.
    - `steps`, `converged`, `finite`: as in `Fit`.
    - `covariance`: of each blend, where it was asked for, in units of the noise.
    - `images`: of the sources of each blend as the camera sees them, `(source, band, y, x)` on the
        stamp that was fitted, where they were asked for.
    - `origin`: where in the image that stamp begins, (x, y): a trimmed one begins later than the
        blend that was given.
    """

    bands: int
    first: Int[np.ndarray, "blend_1"]
    blend: Int[np.ndarray, "source"]
    row: Int[np.ndarray, "source"]
    kind: Int[np.ndarray, "source"]
    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    radius: Float[np.ndarray, "source"]
    index: Float[np.ndarray, "source"]
    radius_ratio: Float[np.ndarray, "source"]
    shear_ratio: Float[np.ndarray, "source"]
    ellipticity: Float[np.ndarray, "source 2"]
    flux: Float[np.ndarray, "source band"]
    bulge_flux: Float[np.ndarray, "source band"]
    x_err: Float[np.ndarray, "source"]
    y_err: Float[np.ndarray, "source"]
    radius_err: Float[np.ndarray, "source"]
    index_err: Float[np.ndarray, "source"]
    radius_ratio_err: Float[np.ndarray, "source"]
    shear_ratio_err: Float[np.ndarray, "source"]
    ellipticity_err: Float[np.ndarray, "source 2"]
    flux_err: Float[np.ndarray, "source band"]
    bulge_flux_err: Float[np.ndarray, "source band"]
    contest: Float[np.ndarray, "source"]
    flags: Int[np.ndarray, "source"]
    sky: Float[np.ndarray, "blend band n"]
    chi2: Float[np.ndarray, "blend band"]
    n_pixels: Int[np.ndarray, "blend band"]
    value: Float[np.ndarray, "blend"]
    steps: Int[np.ndarray, "blend"]
    converged: Bool[np.ndarray, "blend"]
    finite: Bool[np.ndarray, "blend"]
    covariance: list[Any]
    images: list[Any]
    origin: Int[np.ndarray, "blend 2"]

    @property
    def n_blends(self) -> int:
        """Number of blends."""
        return len(self.first) - 1

    def rows(self, blend: int) -> slice:
        """The rows of the sources of a blend."""
        return slice(int(self.first[blend]), int(self.first[blend + 1]))

    @property
    def model(self) -> list[str]:
        """Name of the model of each source."""
        return [Kind(int(k)).name.lower() for k in self.kind]

    @property
    def reduced_chi2(self) -> Float[np.ndarray, "blend"]:
        """chi2 over the number of used pixels of all bands."""
        return self.chi2.sum(axis=1) / np.maximum(self.n_pixels.sum(axis=1), 1)

    def put(self, numbers: Sequence[int], tasks: Sequence[Task], fit: Fit) -> None:
        """Take in the fits of some blends, stacked, with the tasks that they were made for."""
        stack, sigma = fit.scene.sources[0], fit.errors.sources[0]
        values, errors = stack.members, sigma.members
        assert isinstance(values, AnySource)
        assert isinstance(errors, AnySource)
        count = np.array([len(task.guess.kind) for task in tasks])
        size = np.asarray(stack.active).shape[1]
        chosen = np.arange(size) < count[:, None]
        rows = np.concatenate([np.arange(self.first[n], self.first[n + 1]) for n in numbers])
        place = np.repeat(np.arange(len(tasks)), count)
        unit = np.stack([task.unit for task in tasks])[place]
        origin = np.array([task.blend.origin for task in tasks], float)[place]
        self.kind[rows] = np.asarray(values.kind)[: len(tasks)][chosen]

        def of(members: Any, name: str) -> np.ndarray:
            return np.asarray(getattr(members, name), float)[: len(tasks)][chosen]

        for name in (*_SHAPES, "ellipticity"):
            getattr(self, name)[rows] = of(values, name)
            getattr(self, f"{name}_err")[rows] = of(errors, name)
        scale = np.array([task.scale for task in tasks], float)[place]
        self.radius[rows] *= scale
        self.radius_err[rows] *= scale
        for axis, name in enumerate("xy"):
            # The first of some pixels summed into one is half of their width from their middle.
            at = scale * of(values, name) + (scale - 1) / 2
            getattr(self, name)[rows] = at + origin[:, axis]
            getattr(self, f"{name}_err")[rows] = scale * of(errors, name)
        parts = of(values, "flux")
        bulge = (self.kind[rows] == Kind.BULGE_DISC)[:, None]
        self.flux[rows] = parts.sum(axis=1) * unit
        self.bulge_flux[rows] = np.where(bulge, parts[:, 1] * unit, 0)
        self.flux_err[rows] = np.asarray(fit.flux_error, float)[: len(tasks)][chosen] * unit
        self.bulge_flux_err[rows] = np.where(bulge, of(errors, "flux")[:, 1] * unit, 0)
        self.widen(rows)
        chosen_blends = np.asarray(numbers)
        units = np.stack([task.unit for task in tasks])
        background = fit.scene.background
        if background is not None:
            sky = np.asarray(background.coefficients, float)[: len(tasks)]
            area = np.array([task.scale**2 for task in tasks])
            self.sky[chosen_blends] = sky * units[:, :, None] / area[:, None, None]
        self.chi2[chosen_blends] = np.asarray(fit.chi2)[: len(tasks)]
        self.n_pixels[chosen_blends] = np.asarray(fit.n_pixels)[: len(tasks)]
        history = np.asarray(fit.history, float)[: len(tasks)]
        last = np.maximum(np.asarray(fit.steps)[: len(tasks)] - 1, 0)
        self.value[chosen_blends] = np.take_along_axis(
            history, np.minimum(last, history.shape[1] - 1)[:, None], axis=1
        )[:, 0]
        self.steps[chosen_blends] = np.asarray(fit.steps)[: len(tasks)]
        self.converged[chosen_blends] = np.asarray(fit.converged)[: len(tasks)]
        self.finite[chosen_blends] = np.asarray(fit.finite)[: len(tasks)]

    def widen(self, rows: Int[np.ndarray, "n"]) -> None:
        """Add what a linear error leaves out where the noise is not small against the light."""
        ratio = np.divide(
            np.maximum(self.flux[rows], 0),
            self.flux_err[rows],
            where=self.flux_err[rows] > 0,
            out=np.zeros_like(self.flux[rows]),
        )
        squared = np.maximum(np.sum(ratio**2, axis=1), _FAINTEST**2)
        factor = np.sqrt(1 + _CURVED**2 / squared)
        self.flux_err[rows] *= factor[:, None]
        self.bulge_flux_err[rows] *= factor[:, None]
        for name in _SHAPES:
            getattr(self, f"{name}_err")[rows] *= factor

    def guess(self, blend: int, like: Task) -> Guess:
        """A start at what was found, in pixels of the stamp; the prior's homes are those before."""
        rows = self.rows(blend)
        x0, y0 = like.blend.origin
        bulge = self.bulge_flux[rows]
        return Guess(
            kind=self.kind[rows].copy(),
            x=self.x[rows] - x0,
            y=self.y[rows] - y0,
            radius=self.radius[rows].copy(),
            index=self.index[rows].copy(),
            radius_ratio=self.radius_ratio[rows].copy(),
            shear_ratio=self.shear_ratio[rows].copy(),
            ellipticity=self.ellipticity[rows].copy(),
            home_x=like.guess.home_x,
            home_y=like.guess.home_y,
            home_radius=like.guess.home_radius,
            flux=np.nan_to_num(np.stack([self.flux[rows] - bulge, bulge], axis=1) / like.unit),
            sky=np.nan_to_num(self.sky[blend] / like.unit[:, None]),
        )

    def table(self, bands: Sequence[str] | None = None) -> Table:
        """The sources as a table, a row each, with a description of every column.

        - `bands`: names of the bands; their numbers without.

        **Raises:** `ValueError` for another number of names than bands.
        """
        names = [str(b) for b in range(self.bands)] if bands is None else list(bands)
        if len(names) != self.bands:
            raise ValueError(f"`bands` needs {self.bands} names; got {len(names)}.")
        table: Any = Table()

        def add(name: str, values: np.ndarray, description: str) -> None:
            table[name] = values
            table[name].info.description = description

        add("blend", self.blend, "Number of the blend, from 0")
        add("row", self.row, "Row of the source in the catalogue given, from 0")
        add("model", np.array(self.model, dtype=str), "Kind of model")
        for name, unit in (("x", "pixels"), ("y", "pixels"), ("radius", "pixels")):
            what = (
                "Half-light radius before the shear" if name == "radius" else f"Centre along {name}"
            )
            add(name, getattr(self, name), f"{what}, {unit}")
            add(f"{name}_err", getattr(self, f"{name}_err"), f"Its standard deviation, {unit}")
        for number, name in enumerate(("g1", "g2")):
            add(name, self.ellipticity[:, number], "Reduced shear")
            add(f"{name}_err", self.ellipticity_err[:, number], "Its standard deviation")
        for name, what in (
            ("index", "Sersic index"),
            ("shear_ratio", "Shear of bulge over disc"),
            ("radius_ratio", "Radius of bulge over disc"),
        ):
            add(name, getattr(self, name), what)
            add(f"{name}_err", getattr(self, f"{name}_err"), "Its standard deviation")
        for number, band in enumerate(names):
            add(f"flux_{band}", self.flux[:, number], "Total flux, unit of the data")
            add(f"flux_{band}_err", self.flux_err[:, number], "Its standard deviation")
            add(f"bulge_flux_{band}", self.bulge_flux[:, number], "Flux of the bulge")
        add("reduced_chi2", self.reduced_chi2[self.blend], "chi2 per used pixel of the blend")
        add("steps", self.steps[self.blend], "Steps of the fit of the blend")
        add("contest", self.contest, "How much of the change by free pixels neighbours contest")
        add("flags", self.flags, "Bits; see the table's meta")
        table.meta["flags"] = {int(flag): text for flag, text in FLAG_MEANINGS.items()}
        table.meta["versions"] = versions()
        return table


def empty(tasks: Sequence[Task], bands: int, sky: int) -> Found:
    """Room for the results of these tasks, NaN until they come."""
    count = np.array([len(task.guess.kind) for task in tasks], int)
    first = np.concatenate([[0], np.cumsum(count)])
    n, n_blends = int(first[-1]), len(tasks)
    rows = [task.blend.rows for task in tasks]
    made: dict[str, Any] = {}
    for names, shape in (
        (("x", "y", *_SHAPES), (n,)),
        (("ellipticity",), (n, 2)),
        (("flux", "bulge_flux"), (n, bands)),
    ):
        for name in names:
            made[name], made[f"{name}_err"] = np.full(shape, np.nan), np.full(shape, np.nan)
    return Found(
        **made
        | {
            "bands": bands,
            "first": first,
            "blend": np.repeat(np.arange(n_blends), count),
            "row": np.concatenate(rows) if rows else np.zeros(0, int),
            "kind": np.full(n, int(Kind.SERSIC)),
            "contest": np.full(n, np.nan),
            "flags": np.zeros(n, int),
            "sky": np.zeros((n_blends, bands, sky)),
            "chi2": np.full((n_blends, bands), np.nan),
            "n_pixels": np.zeros((n_blends, bands), int),
            "value": np.full(n_blends, np.inf),
            "steps": np.zeros(n_blends, int),
            "converged": np.zeros(n_blends, bool),
            "finite": np.zeros(n_blends, bool),
            "covariance": [None] * n_blends,
            "images": [None] * n_blends,
            "origin": np.array([task.blend.origin for task in tasks], int).reshape(-1, 2),
        }
    )


def set_flags(found: Found, tasks: Sequence[Task]) -> None:
    """Set the flags of all sources, and NaN where nothing was measured."""
    unmeasured = ~np.isfinite(found.flux_err) | (found.flux_err <= 0)
    found.flux[unmeasured], found.flux_err[unmeasured] = np.nan, np.nan
    galaxy = found.kind != Kind.POINT
    sersic = found.kind == Kind.SERSIC
    shapes: dict[str, Any] = {"radius": galaxy, "ellipticity": galaxy}
    bulge = found.kind == Kind.BULGE_DISC
    shapes |= {"index": sersic, "radius_ratio": bulge, "shear_ratio": bulge}
    # What a kind does not have, or what was held, has no value to speak of.
    for name, has in shapes.items():
        for column in (name, f"{name}_err"):
            getattr(found, column)[np.logical_not(has)] = np.nan
    none = np.zeros(0)
    start_x = np.concatenate([none, *[t.guess.home_x + t.blend.origin[0] for t in tasks]])
    start_y = np.concatenate([none, *[t.guess.home_y + t.blend.origin[1] for t in tasks]])
    blend = found.blend
    pixels = found.n_pixels.sum(axis=1)
    excess = (found.reduced_chi2 - 1)[blend]
    poor = (found.reduced_chi2[blend] > 1.5) & (
        excess > 5 * np.sqrt(2 / np.maximum(pixels, 1))[blend]
    )
    shape = np.hypot(found.ellipticity[:, 0], found.ellipticity[:, 1])
    bound = (found.index < 0.557) | (found.index > 6.143) | (shape > 0.99 * 0.92)
    crowded = np.array([task.blend.crowded for task in tasks], bool)[blend]
    near = np.concatenate([none, *[_near_edge(found, n, task) for n, task in enumerate(tasks)]])
    for flag, where in (
        (Flag.NOT_CONVERGED, ~found.converged[blend]),
        (Flag.NON_FINITE, ~found.finite[blend] | unmeasured.any(axis=1)),
        (Flag.NEGATIVE_FLUX, (found.flux < 0).any(axis=1)),
        (Flag.AT_BOUND, galaxy & bound),
        (Flag.MOVED, np.hypot(found.x - start_x, found.y - start_y) > 1.5),
        (Flag.NEAR_EDGE, near.astype(bool)),
        (Flag.POOR_FIT, poor),
        (Flag.CROWDED, crowded),
    ):
        found.flags |= np.where(where, int(flag), 0)


def _near_edge(found: Found, number: int, task: Task) -> np.ndarray:
    rows = found.rows(number)
    x, y = found.x[rows] - task.blend.origin[0], found.y[rows] - task.blend.origin[1]
    ny, nx = task.blend.shape
    return np.minimum.reduce([x, y, nx - 1 - x, ny - 1 - y]) < 3
