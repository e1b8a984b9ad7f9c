"""What a measure function found in simulated blends, held against the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float

from diffdeblend.score import images
from diffdeblend.score.columns import (
    MeasuredLike,
    coordinate_columns,
    detection_rows,
    judged_detections,
    with_fluxes,
)
from diffdeblend.score.detection import Counts, efficiency_matrix
from diffdeblend.score.matching import Distance, Matching, match, nearest_neighbour
from diffdeblend.score.summary import blend_counts, summarise
from diffdeblend.score.targets import Target, TargetColumns, checked_targets
from diffdeblend.simulate.keys import DEFAULT_SEED

Matcher = Callable[[np.ndarray, np.ndarray], Matching]

_IMAGE_COLUMNS = ("msr", "rmse", "relative_residual", "psnr", "ssim", "cosine", "iou")
_BTK_COLUMNS = ("psnr_btk", "ssim_btk")


class BlendsLike(Protocol):
    """What is used of a set of blends."""

    @property
    def images(self) -> Any: ...
    @property
    def isolated(self) -> Any: ...
    @property
    def truth(self) -> Table: ...
    @property
    def psf_images(self) -> Any: ...
    @property
    def psf_index(self) -> Any: ...
    @property
    def sky(self) -> Any: ...
    @property
    def bands(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Scores:
    """How one measure function did on a set of blends.

    - `per_source`: one row a true source, in the order of the blends: all columns of the truth, and
        `judged`: whether it counts; `detected`; `found`: its row in the catalogue of its blend, -1
        where lost; `distance_detection`: to that detection, NaN where lost, in the unit of the
        coordinates; `distance_closest_galaxy` (pixels, infinite if alone); `magnitude`, `size`,
        `snr`, `blendedness` in the band of the scores, where they are known; `msr`, `rmse`,
        `relative_residual`, `psnr`, `ssim`, `cosine` (and `psnr_btk`, `ssim_btk`) of the deblended
        image, `iou` of the segmentation; for each band of the catalogue `found_flux_r`,
        `found_flux_err_r`, `flux_error_r` (relative), `pull_r`; `colour_error_g_r` (magnitudes);
        target measures `name` and `name_true`. NaN is what was not measured.
    - `detections`: one row a detection: `blend`, `found` (its row there), `x`, `y`, `source` (-1 if
        it is none), `matched`, `judged` (false for a detection of a source that does not count),
        and the fluxes.
    - `summary`: one row a figure, see `summarise`.
    - `settings`: what `score` was told, and `n_blends`; numbers and names only.
    """

    per_source: Table
    detections: Table
    summary: Table
    settings: dict[str, Any]

    @property
    def n_blends(self) -> int:
        """Number of blends, empty ones included."""
        return int(self.settings["n_blends"])

    @property
    def counts(self) -> Counts:
        """Pairs, detections and sources that count, of all blends together."""
        matched, found, truth = blend_counts(self.per_source, self.detections, self.n_blends)
        return Counts(int(matched.sum()), int(found.sum()), int(truth.sum()))

    @property
    def matches(self) -> list[Matching]:
        """The pairs of each blend, whether they count or not."""
        n_truth, n_found = (
            np.bincount(np.asarray(table["blend"], int), minlength=self.n_blends)
            for table in (self.per_source, self.detections)
        )
        blend, found, apart = (
            np.asarray(self.per_source[name]) for name in ("blend", "found", "distance_detection")
        )
        start = np.concatenate([[0], np.cumsum(n_truth)])
        matches = []
        for i in range(self.n_blends):
            rows = np.flatnonzero((blend == i) & (found >= 0))
            sizes = int(n_truth[i]), int(n_found[i])
            matches.append(Matching(rows - start[i], found[rows], apart[rows], *sizes))
        return matches

    def value(self, metric: str) -> float:
        """A figure of the summary.

        **Raises:** `ValueError` for one that it has not.
        """
        known = np.asarray(self.summary["metric"]).tolist()
        if metric not in known:
            raise ValueError(f"`metric` must be one of {known}; got {metric!r}.")
        return float(np.asarray(self.summary["value"])[known.index(metric)])

    def efficiency(self, *, normalized: bool = False) -> Float[np.ndarray, "found truth"]:
        """Number of blends in which so many sources were found of so many, of those that count."""
        matched, _, truth = blend_counts(self.per_source, self.detections, self.n_blends)
        return efficiency_matrix(matched, truth, normalized=normalized)

    def judging(self, judged: Bool[np.ndarray, "source"]) -> "Scores":
        """The scores if only these sources count; a detection of another is left out.

        - `judged`: one entry a row of `per_source`, such as `scores.per_source["snr"] > 20`.

        **Raises:** `ValueError` for another shape or what is not true or false.
        """
        judged = _mask(judged, len(self.per_source))
        sources, found = self.per_source.copy(), self.detections.copy()
        sources["judged"] = judged
        found["judged"] = judged_detections(sources, found)
        return replace(
            self,
            per_source=sources,
            detections=found,
            summary=summarise(sources, found, self.settings),
        )


def score(
    blends: BlendsLike,
    measured: Sequence[MeasuredLike],
    *,
    band: str = "r",
    max_distance: float = 5.0,
    distance: Distance | None = None,
    coordinates: tuple[str, str] = ("x", "y"),
    matcher: Matcher | None = None,
    judged: Bool[np.ndarray, "source"] | None = None,
    noise_factor: float = 3.0,
    target_measures: Mapping[str, Target] | None = None,
    colours: Sequence[tuple[str, str]] | None = None,
    btk: bool = False,
    draws: int = 200,
    confidence: float = 0.6826894921,
    seed: int = DEFAULT_SEED,
) -> Scores:
    """Match what was found with what is there, and compare the two.

    - `blends`: a set of blends with their isolated images, `(source, band, y, x)`, one a row of the
        truth. SNR and blendedness of the truth are taken if it has them.
    - `measured`: what was found in each, in their order. Images and segmentations may be absent;
        images of one band are of `band`.
    - `band`: in which images and segmentations are compared.
    - `max_distance`, `distance`: as in `match`; `coordinates`: the columns, of truth and of
        catalogues, that these take. Or a `matcher`: a function of both coordinates, such as
        `match_rows`.
    - `judged`: which rows of the truth count; if None those whose centre is on the stamp. What does
        not count is measured all the same.
    - `noise_factor`: the true segmentation is where a source is brighter than so many standard
        deviations of the sky.
    - `target_measures`: functions (image, psf, x, y) by name, that return a number or several.
        Images have shape (y, x) and are of `band`, unless the function is given as
        `AllBands(function)`. They see the deblended image at the found position, and the isolated
        image at the true one; (x, y) in pixels, the PSF at the pixels of the image.
    - `colours`: pairs of bands; neighbouring ones if None.
    - `btk`: adds `psnr_btk` and `ssim_btk`, which do not see the flux.
    - `draws`, `confidence`, `seed`: of the intervals of the summary, see `Bootstrap`; with 0 draws
        there are none.

    **Raises:** `ValueError` if the arguments do not belong together.
    """
    truth, bands = blends.truth, tuple(blends.bands)
    n_blends = len(blends.images)
    if band not in bands:
        raise ValueError(f"`band` must be one of {bands}; got {band!r}.")
    if blends.isolated is None:
        raise ValueError("`blends` needs isolated images; draw the set with them.")
    stamp = (len(bands), *np.shape(blends.images)[2:])
    if np.shape(blends.isolated) != (len(truth), *stamp):
        raise ValueError(
            f"`blends.isolated` needs shape {(len(truth), *stamp)}, a row for each of the truth; "
            f"got {np.shape(blends.isolated)}."
        )
    if len(measured) != n_blends:
        raise ValueError(f"`measured` needs one entry for {n_blends} blends; got {len(measured)}.")
    for a, b in colours or ():
        if a not in bands or b not in bands:
            raise ValueError(f"`colours` needs pairs of bands of {bands}; got {(a, b)!r}.")
    targets = checked_targets(target_measures)
    blend = np.asarray(truth["blend"])
    n = np.bincount(blend, minlength=n_blends)
    if len(n) > n_blends or (np.diff(blend) < 0).any():
        raise ValueError(f"`blends` needs a truth sorted by blend, from 0 to {n_blends - 1}.")
    if judged is not None:
        judged = _mask(judged, len(truth))
    elif "outside" in truth.colnames:
        judged = ~np.asarray(truth["outside"], bool)
    else:
        judged = np.ones(len(truth), bool)

    where = bands.index(band)
    here, there = (
        coordinate_columns(truth, names, "blends.truth") for names in (coordinates, ("x", "y"))
    )
    start = np.concatenate([[0], np.cumsum(n)])
    names = (*_IMAGE_COLUMNS, *(_BTK_COLUMNS if btk else ()), "distance_detection")
    new: dict[str, np.ndarray] = {name: np.full(len(truth), np.nan) for name in names}
    found = np.full(len(truth), -1)
    neighbour = np.empty(len(truth))
    known = {
        name: np.asarray(truth[column], float)
        for name, column in (
            ("magnitude", f"magnitude_{band}"),
            ("size", "radius"),
            ("snr", f"snr_{band}"),
            ("blendedness", f"blendedness_{band}"),
        )
        if column in truth.colnames
    }
    light = {name: np.empty(len(truth)) for name in ("snr", "blendedness")}
    sky = float(np.asarray(blends.sky)[where])
    outputs = TargetColumns(targets, len(truth))
    parts = []
    for i, result in enumerate(measured):
        first, rows = int(start[i]), slice(int(start[i]), int(start[i + 1]))
        isolated = np.asarray(blends.isolated[rows])
        own = isolated[:, where]
        positions, found_at = _found_positions(result, coordinates, i)
        _check_shapes(result, stamp, i)
        if matcher is None:
            pairs = match(here[rows], positions, max_distance, distance)
        else:
            pairs = matcher(here[rows], positions)
        at, there_at = first + pairs.truth_index, pairs.found_index
        found[at], new["distance_detection"][at] = there_at, pairs.distance
        neighbour[rows] = nearest_neighbour(there[rows])
        if "blendedness" not in known:
            light["blendedness"][rows] = images.blendedness(own)
        if "snr" not in known:
            light["snr"][rows] = images.snr(own, sky)
        if result.images is not None and len(pairs):
            # One image for all bands is one of the band of the scores.
            seen = np.asarray(result.images)[there_at, where if result.images.shape[1] > 1 else 0]
            for name, values in images.compare(own[pairs.truth_index], seen, btk=btk).items():
                new[name][at] = values
        if result.segmentation is not None and len(pairs):
            true = images.true_segmentation(own[pairs.truth_index], sky, noise_factor)
            new["iou"][at] = images.iou(true, np.asarray(result.segmentation)[there_at])
        if targets:
            psf = np.asarray(blends.psf_images[int(blends.psf_index[i])])
            for k in range(int(n[i])):
                outputs.put(first + k, True, isolated[k], psf, where, *there[first + k])
            if result.images is not None:
                for row, k in zip(at, there_at, strict=True):
                    outputs.put(row, False, np.asarray(result.images[k]), psf, where, *found_at[k])
        parts.append((pairs, found_at))

    per_source = truth.copy()
    per_source.meta = {}
    per_source["judged"] = judged
    per_source["detected"] = found >= 0
    per_source["found"] = found
    per_source["distance_closest_galaxy"] = neighbour
    for name, values in (light | known | new).items():
        per_source[name] = values
    detections = detection_rows(measured, parts)
    with_fluxes(per_source, detections, measured, bands, start, colours)
    for name, values in outputs.columns().items():
        if name in per_source.colnames:
            raise ValueError(f"`target_measures` must not be named as the column {name!r}.")
        per_source[name] = values
    detections["judged"] = judged_detections(per_source, detections)
    settings = {
        "n_blends": n_blends,
        "band": band,
        "bands": list(bands),
        "max_distance": float(max_distance),
        "coordinates": list(coordinates),
        "noise_factor": float(noise_factor),
        "target_measures": [
            name.removesuffix("_true") for name in outputs.columns() if name.endswith("_true")
        ],
        "draws": int(draws),
        "confidence": float(confidence),
        "seed": int(seed),
    }
    return Scores(per_source, detections, summarise(per_source, detections, settings), settings)


def score_all(
    blends: BlendsLike, measured: Mapping[str, Sequence[MeasuredLike]], **settings: Any
) -> dict[str, Scores]:
    """Scores of several measure functions on the same blends, by name; the rest as in `score`."""
    return {name: score(blends, found, **settings) for name, found in measured.items()}


def _found_positions(
    result: MeasuredLike, coordinates: tuple[str, str], i: int
) -> tuple[np.ndarray, np.ndarray]:
    """What detections are matched by, and where they are in pixels."""
    if not len(result.catalog):
        return np.zeros((0, 2)), np.zeros((0, 2))
    name = f"measured[{i}].catalog"
    pixels = coordinate_columns(result.catalog, ("x", "y"), name)
    if tuple(coordinates) == ("x", "y"):
        return pixels, pixels
    return coordinate_columns(result.catalog, coordinates, name), pixels


def _check_shapes(result: MeasuredLike, stamp: tuple[int, ...], i: int) -> None:
    """Images and segmentations have a row for each detection, and the pixels of the blend."""
    n, (n_bands, *pixels) = len(result.catalog), stamp
    both = (n, n_bands, *pixels), (n, 1, *pixels)
    if result.images is not None and np.shape(result.images) not in both:
        raise ValueError(
            f"`measured[{i}].images` needs shape {both[0]}, or one band; "
            f"got {np.shape(result.images)}."
        )
    if result.segmentation is not None and np.shape(result.segmentation) != (n, *pixels):
        raise ValueError(
            f"`measured[{i}].segmentation` needs shape {(n, *pixels)}; "
            f"got {np.shape(result.segmentation)}."
        )


def _mask(values: np.ndarray, n: int) -> np.ndarray:
    """The same, checked."""
    values = np.asarray(values)
    if values.shape != (n,) or values.dtype != bool:
        raise ValueError(
            f"`judged` needs {n} booleans, one a source; got {values.dtype}, {values.shape}."
        )
    return values
