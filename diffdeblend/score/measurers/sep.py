"""Source Extractor's way, by sep: thresholds, segments, Kron apertures."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from diffdeblend.exposure import Exposure
from diffdeblend.score.measured import Measured, add_column, catalog_of
from diffdeblend.score.measurers.images import Pixels, add_fluxes, cut_out, pixels_of

# Of Source Extractor's PHOT_AUTOPARAMS: aperture in Kron radii, and the least, in units of a and b.
_KRON, _LEAST = 2.5, 3.5


def sep(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    band: str | None = None,
    threshold: float = 1.5,
    area: int = 5,
    most: int | None = None,
    images: bool = True,
) -> Measured:
    """Detection, segments and fluxes by `sep` in one band, or in the mean of all.

    Detections and segments are those of `sep.extract(image, threshold, err=globalrms,
    minarea=area)`, where `globalrms` is that of `sep.Background(image)`; all its columns are in the
    catalogue. A deblended image is the image in the pixels of a segment, in all bands.
    `flux_{band}` is the flux in a Kron aperture (FLUX_AUTO of Source Extractor: the ellipse of the
    detection, 2.5 Kron radii of the detection image and at least 3.5 a) without the pixels of other
    segments; its error is from the variance of the exposure. Sources in a blend share an aperture's
    light only as far as segments part it, and Kron apertures leave out some 5 % of a galaxy.

    - `positions`: not used; sep finds its own.
    - `band`: name of the band for detection; None: the mean of all.
    - `threshold`: in units of `globalrms`. `area`: least number of pixels.
    - `most`: largest number of sources; the brightest are kept and `truncated` says so.
    - `images`: whether to give deblended images; they take memory.

    **Raises:** `ValueError` for an unknown band; `ImportError` without sep.

    ??? cite
        Bertin & Arnouts (1996), A&AS 117, 393; Barbary (2016), JOSS 1, 58; Kron (1980), ApJS 43,
        305.
    """
    pixels = pixels_of(exposure)
    seen = pixels.band(band)
    found, segments = _extract(seen, threshold, area)
    table = catalog_of(np.stack([found["x"], found["y"]], axis=1), exposure.header, exposure.shape)
    for name in found.dtype.names or ():
        if name not in table.colnames:
            add_column(table, name, found[name].copy(), f"As sep.extract gives it: {name}")
    flux, error = _auto(pixels, seen, found, segments)
    add_fluxes(table, pixels.bands, flux, error, "Flux in the Kron aperture, unit of the image")
    each = segments == np.arange(1, len(found) + 1)[:, None, None]
    every = Measured(table, each).brightest(most, found["flux"])
    if not images:
        return every
    assert every.segmentation is not None
    return Measured(every.catalog, every.segmentation, cut_out(pixels.image, every.segmentation))


def sep_multiband(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    threshold: float = 1.5,
    area: int = 5,
    merge: float = 1.0,
    most: int | None = None,
) -> Measured:
    """Detections by `sep` in each band, merged: a catalogue alone.

    Bands are gone through in their order; what is within `merge` of a source that is known is that
    source, and keeps the place and the aperture of the band where it was first seen. `flux_{band}`
    as in `sep`, without segments: the light of neighbours in the aperture is counted.

    - `merge`: arcseconds; pixels where the exposure does not know the size of its pixels.
    - the rest: as in `sep`; `threshold` is in units of each band's own `globalrms`.

    **Raises:** `ValueError` for a `merge` that is not positive; `ImportError` without sep.
    """
    if not merge > 0:
        raise ValueError(f"`merge` must be positive; got {merge}.")
    pixels = pixels_of(exposure)
    reach = merge / (exposure.header.pixel_scale or 1.0)
    kept: list[Any] = []
    seen_in: list[int] = []
    flux = np.zeros((0, len(pixels.bands)))
    error = flux
    for number, name in enumerate(pixels.bands):
        seen = pixels.band(name)
        found, _ = _extract(seen, threshold, area)
        if kept and len(found):
            known = KDTree([(row["x"], row["y"]) for row in kept])
            apart, _ = known.query(np.stack([found["x"], found["y"]], axis=1))
            found = found[apart > reach]
        kept += list(found)
        seen_in += [number] * len(found)
        values, sigma = _auto(pixels, seen, found, None)
        flux, error = np.concatenate([flux, values]), np.concatenate([error, sigma])
    places = np.array([(row["x"], row["y"]) for row in kept]).reshape(-1, 2)
    table = catalog_of(places, exposure.header, exposure.shape)
    names = np.array(pixels.bands)[np.array(seen_in, int)]
    add_column(table, "band", names, "Band in which the source was first seen")
    for name in ("a", "b", "theta"):
        values = np.array([row[name] for row in kept], float)
        add_column(table, name, values, f"As sep.extract gives it: {name}")
    add_fluxes(table, pixels.bands, flux, error, "Flux in the Kron aperture, unit of the image")
    # Of different bands: signal-to-noise compares, flux does not.
    ratio = np.divide(flux, error, out=np.zeros_like(flux), where=error > 0)
    return Measured(table).brightest(most, np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1)))


def _package() -> Any:
    try:
        import sep as package
    except ImportError as error:
        raise ImportError(
            "the measure `sep` needs sep: pip install 'diffdeblend[interop]'"
        ) from error
    return package


def _own(image: np.ndarray) -> np.ndarray:
    """In memory that sep may write to, as it asks for."""
    return np.array(image, order="C")


def _extract(seen: Pixels, threshold: float, area: int) -> tuple[np.ndarray, np.ndarray]:
    """What `sep.extract` finds in one image, and its segments, 0 for none."""
    package = _package()
    image = _own(seen.image[0])
    mask = None if seen.bad is None else _own(seen.bad[0])
    noise = package.Background(image, mask=mask).globalrms
    return package.extract(
        image, threshold, err=noise, mask=mask, minarea=area, segmentation_map=True
    )


def _auto(
    pixels: Pixels, seen: Pixels, found: np.ndarray, segments: np.ndarray | None
) -> tuple[Float[np.ndarray, "source band"], Float[np.ndarray, "source band"]]:
    """Flux and error of each source in its Kron aperture, in all bands."""
    shape = len(found), len(pixels.bands)
    flux, error = np.zeros(shape), np.zeros(shape)
    if not len(found):
        return flux, error
    package = _package()
    # Rounding may bring an angle of float32 out of the range that sep accepts.
    theta = np.clip(found["theta"].astype(float), -np.pi / 2, np.pi / 2)
    ellipses = [found[name].astype(float) for name in ("x", "y", "a", "b")]
    others: dict[str, Any] = {}
    if segments is not None:
        others = {"segmap": segments, "seg_id": np.arange(1, len(found) + 1, dtype=np.int32)}
    mask = None if seen.bad is None else _own(seen.bad[0])
    image = _own(seen.image[0])
    kron, _ = package.kron_radius(image, *ellipses, theta, 6.0, mask=mask, **others)
    # Where noise makes the sum of light negative, the radius means nothing.
    radius = np.maximum(_KRON * np.nan_to_num(kron, nan=0.0, posinf=0.0, neginf=0.0), _LEAST)
    radius = np.minimum(radius, 6.0 * _KRON)
    for k in range(shape[1]):
        mask = None if pixels.bad is None else _own(pixels.bad[k])
        flux[:, k], error[:, k], _ = package.sum_ellipse(
            _own(pixels.image[k]),
            *ellipses,
            theta,
            radius,
            var=_own(pixels.variance[k]),
            mask=mask,
            **others,
        )
    return flux, error
