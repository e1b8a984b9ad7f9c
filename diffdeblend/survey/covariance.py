"""Covariance of the fluxes of a stamp: of fits to upper triangles, and back to matrices."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.batch import Found
from diffdeblend.batch.decoded_results import FoundDecoded
from diffdeblend.components import Kind


def flux_triangles(found: Found) -> list[Float[np.ndarray, "n"]]:
    """Covariance of the fluxes of each blend, as upper triangles.

    Numbers go source by source, in each of them band by band; the triangle row by row. Correlations
    are those of the linear theory, marginal over all else in the fit; the diagonal is the squared
    error that is told of each flux, widened for faint sources. NaN where a flux has no error, and
    where no covariance was kept.

    Returns arrays in single precision, in the unit of flux squared.
    """
    made: list[Any] = [None] * found.n_blends
    count = np.diff(found.first)
    groups: dict[Any, list[int]] = {}
    for number, one in enumerate(found.covariance):
        key: Any = None
        if one is not None:
            key = one.alone.shape, one.response.shape, tuple(part.shape for part in one.free.shape)
        groups.setdefault((int(count[number]), key), []).append(number)
    for (n, key), numbers in groups.items():
        rows = found.first[numbers][:, None] + np.arange(n)
        error = found.flux_err[rows].reshape(len(numbers), -1)
        correlation = np.full((*error.shape, error.shape[1]), np.nan)
        if key is not None:
            correlation = _correlations(found, numbers, rows)
        matrices = error[:, :, None] * correlation * error[:, None, :]
        upper = np.triu_indices(error.shape[1])
        packed = matrices[:, upper[0], upper[1]].astype(np.float32)
        for place, number in enumerate(numbers):
            made[number] = packed[place]
    return made


def flux_covariance(row: Mapping[str, Any]) -> Float[np.ndarray, "n n"]:
    """The covariance of all fluxes of a stamp from its row, in the unit of flux squared.

    Numbers go source by source, in each band by band: n is the number of sources times that of
    bands. To be reshaped to `(source, band, source, band)`.

    - `row`: of a part, or of a catalogue of stamps, as a dictionary of its columns; or of sources,
        whose matrix is that of the bands of the source.

    **Raises:** `ValueError` for a row without a covariance, or one of no triangle's length.
    """
    if "flux_covariance" not in row:
        raise ValueError("`row` has no flux_covariance: the run was made without `covariance`.")
    return from_triangle(np.asarray(row["flux_covariance"]))


def from_triangle(triangle: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m m"]:
    """A symmetric matrix from its upper triangle, row by row.

    **Raises:** `ValueError` if the length is that of no triangle.
    """
    size = round((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    if triangle.ndim != 1 or size * (size + 1) // 2 != len(triangle):
        raise ValueError(
            f"`triangle` must have n (n + 1) / 2 numbers; got an array of shape {triangle.shape}."
        )
    matrix = np.empty((size, size), triangle.dtype)
    first, second = np.triu_indices(size)
    matrix[first, second] = matrix[second, first] = triangle
    return matrix


def own_triangles(
    triangles: Float[np.ndarray, "n"], count: Int[np.ndarray, "stamp"], n_bands: int
) -> Float[np.ndarray, "source m"]:
    """Of the covariances of whole stamps, one after the other, the triangles of each source.

    - `count`: sources of each stamp.
    """
    size = count * n_bands
    lengths = size * (size + 1) // 2
    begin = np.repeat(np.cumsum(lengths) - lengths, count)
    width = np.repeat(size, count)
    first = np.cumsum(count) - count
    place = np.arange(count.sum()) - np.repeat(first, count)
    one, other = np.triu_indices(n_bands)
    i, j = place[:, None] * n_bands + one, place[:, None] * n_bands + other
    return triangles[begin[:, None] + i * width[:, None] - i * (i - 1) // 2 + j - i]


def _correlations(
    found: Found, numbers: list[int], rows: Int[np.ndarray, "blend source"]
) -> Float[np.ndarray, "blend n n"]:
    """Of the fluxes of blends whose covariances have the same shapes."""
    kept = [found.covariance[number] for number in numbers]
    adds = _membership(found, rows, kept[0])[:, None]
    slots = adds.shape[-1]

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(one, name)) for one in kept]).astype(float)

    alone = stacked("alone")[:, :, :slots, :slots]
    response = adds @ stacked("response")[:, :, :slots]
    k, n_bands, n, n_shapes = response.shape
    response = response.transpose(0, 2, 1, 3).reshape(k, n * n_bands, n_shapes)
    whole = response @ stacked("shape") @ response.transpose(0, 2, 1)
    by_band = whole.reshape(k, n, n_bands, n, n_bands)
    own = adds @ alone @ adds.transpose(0, 1, 3, 2)
    for band in range(n_bands):
        by_band[:, :, band, :, band] += own[:, band]
    diagonal = np.arange(n * n_bands)
    sigma = np.sqrt(np.maximum(whole[:, diagonal, diagonal], 0))
    scale = np.divide(1, sigma, out=np.zeros_like(sigma), where=sigma > 0)
    correlation = np.clip(scale[:, :, None] * whole * scale[:, None, :], -1, 1)
    correlation[:, diagonal, diagonal] = 1
    return correlation


def _membership(
    found: Found, rows: Int[np.ndarray, "blend source"], like: Any
) -> Bool[np.ndarray, "blend source slot"]:
    """Which slots of the fit are whose light; a bulge and its disc have one each."""
    kind = found.kind[rows]
    parts = np.where(kind == Kind.BULGE_DISC, 2, 1)
    first = np.cumsum(parts, axis=1) - parts
    if isinstance(found, FoundDecoded):
        # Every source has a place among the decoded ones, and then one among the others.
        decoded = found.decoded[rows]
        size = like.free.shape[0].shape[0]
        first = np.where(decoded, np.arange(rows.shape[1]), size + first)
        parts = np.where(decoded, 1, parts)
    slot = np.arange(like.free.flux.shape[0])
    inside = (slot >= first[:, :, None]) & (slot < (first + parts)[:, :, None])
    return inside.astype(float)
