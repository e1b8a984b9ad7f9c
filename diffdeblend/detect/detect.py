"""The one call: sky, noise, sources, blends and a catalogue of an image."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from astropy.table import QTable
from jaxtyping import Float

from diffdeblend.detect.describe import describe_column
from diffdeblend.detect.methods import (
    Deblending,
    MeshSky,
    MultiThreshold,
    Segmentation,
    Sky,
    SkyMethod,
    Threshold,
    mask_or_none,
)
from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.header import Header, flux_unit
from diffdeblend.measure import SourceCatalog, calc_total_error
from diffdeblend.planes import as_int32, excluded_bits
from diffdeblend.segment import LabelImage, make_2dgaussian_kernel, psf_kernel, smooth
from diffdeblend.segment.threshold import matched_filter

_PSF_SIZE = 25


@dataclass(frozen=True)
class GaussianKernel:
    """Smoothing by a round Gaussian; by default about as SExtractor's own filter.

    - `fwhm`: in pixels; `size`: of the stamp, odd.
    """

    fwhm: float = 2.0
    size: int = 3


@dataclass(frozen=True)
class PSFKernel:
    """Smoothing by the exposure's PSF in the middle of the image, the matched filter of a point.

    - `size`: of the stamp, odd.
    """

    size: int = _PSF_SIZE


Kernel = GaussianKernel | PSFKernel | np.ndarray | None


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found on an image. Host side; the same type where nothing was found.

    - `labels`: which pixel belongs to which source.
    - `catalog`: a row a source, in the order of the labels; see `detect`.
    - `measured`: the catalogue that `catalog` is taken from, for more columns and apertures: that
        of the detection image first, then, where there are several bands, one of each band.
    - `skies`: the sky of each band.
    - `image`: what sources were looked for in, without the sky, `(y, x)`; of several bands their
        mean by inverse variance. `smoothed`: the same after the kernel. `threshold`: in its unit.
    - `parents`: labels before blends were taken apart.
    - `header`: that of the exposure.
    - `settings`: how all was done.
    """

    labels: LabelImage
    catalog: QTable
    measured: tuple[SourceCatalog, ...]
    skies: tuple[Sky, ...]
    image: Float[np.ndarray, "y x"]
    smoothed: Float[np.ndarray, "y x"]
    threshold: Float[np.ndarray, "y x"]
    parents: LabelImage
    header: Header
    settings: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Detections: {self.n_sources} sources on {self.image.shape} pixels>"

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return self.labels.n_labels

    @property
    def positions(self) -> Float[np.ndarray, "source 2"]:
        """Centroids (x, y) in pixels; where light gives none, the middle of the pixels."""
        found = self.measured[0]
        x, y = (np.asarray(getattr(found, name), float) for name in ("x_centroid", "y_centroid"))
        boxes = self.labels.boxes.astype(float)
        ny, nx = self.labels.shape
        lost = ~(np.isfinite(x) & np.isfinite(y)) | (np.abs(x - (nx - 1) / 2) > nx / 2)
        lost |= np.abs(y - (ny - 1) / 2) > ny / 2
        x = np.where(lost, (boxes[:, 2] + boxes[:, 3] - 1) / 2, x)
        y = np.where(lost, (boxes[:, 0] + boxes[:, 1] - 1) / 2, y)
        return np.stack([x, y], axis=1)

    @property
    def background(self) -> Float[np.ndarray, "band y x"]:
        """The sky of each band."""
        return np.stack([sky.level for sky in self.skies])

    @property
    def background_rms(self) -> Float[np.ndarray, "band y x"]:
        """Scatter of the noise of each band's sky."""
        return np.stack([sky.rms for sky in self.skies])


def detect(
    exposure: Exposure,
    *,
    n_sigma: float = 1.5,
    kernel: Kernel = GaussianKernel(),
    sky: SkyMethod = MeshSky(),  # noqa: B008
    segmentation: Segmentation = Threshold(),  # noqa: B008
    deblending: Deblending | None = MultiThreshold(),  # noqa: B008
    gain: Any = None,
    local_bkg_width: int = 0,
    apertures: Sequence[float] = (5.0,),
    report: Callable[[str], None] | None = None,
) -> Detections:
    """Find the sources of an image, take touching ones apart, and measure them.

    Sky and scatter of each band are measured and the sky is taken away; the image is smoothed;
    pixels above `n_sigma` times the scatter that touch are a source, and one with several peaks is
    split. Several bands are searched as one: their mean by inverse variance, or with `PSFKernel`
    each through its own matched filter.

    - `exposure`: bands in which a pixel is not in use have no say there; where none has, there is
        no source.
    - `n_sigma`: in standard deviations of a pixel before smoothing; with `PSFKernel` of the
        smoothed image, which makes it the significance of a point.
    - `kernel`: a `GaussianKernel`, a `PSFKernel`, an image of odd height and width, or None.
    - `sky`: `MeshSky`, `SkewnessSky`, `NoSky`, or a function like them.
    - `segmentation`: `Threshold`, `Dbscan`, or a function like them.
    - `deblending`: `MultiThreshold`, `Denclue`, `LogWatershed`, a function like them, or None.
    - `gain`: electrons in a unit of the image, one number or `(y, x)`: errors are then those of the
        sky and of the photons of each source. Without it they are those of `exposure.variance`.
    - `local_bkg_width`: of the rectangular annulus whose level is taken from fluxes; 0 for none.
    - `apertures`: radii in pixels of circular apertures, whose fluxes are in the columns
        `aperture_flux_<radius>` and `aperture_flux_err_<radius>`.
    - `report`: called with a line of text as each stage begins.

    `catalog` has the columns of photutils' default table, named as there: `label`, `x_centroid`,
    `y_centroid`, `ra` and `dec` where there is a WCS, boxes, `area`, `semimajor_axis`,
    `semiminor_axis`, `orientation`, `segment_flux`, `kron_flux`, errors, `flags`. Of several bands,
    positions and shapes are those of the image that was searched, and the fluxes of each band are
    measured in the same apertures as `segment_flux_<band>` and `kron_flux_<band>`.

    **Raises:** `ValueError` for an `n_sigma` that is not positive, a kernel of even size, or what
    the methods refuse.
    """
    say = report or _silent
    for radius in apertures:
        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"`apertures` must be finite positive radii; got {radius!r}.")
    if not (isinstance(n_sigma, Real) and np.isfinite(float(n_sigma)) and n_sigma > 0):
        raise ValueError(f"`n_sigma` must be a finite positive number; got {n_sigma!r}.")
    say("sky")
    bad = _unused(exposure)
    images, skies = [], []
    for band, image in enumerate(np.asarray(exposure.image)):
        skies.append(sky(image, bad[band]))
        images.append(image - skies[-1].level.astype(image.dtype, copy=False))
    hidden = np.asarray(bad.all(axis=0))
    say("detect")
    image, level, rms = _combined(images, skies, bad)
    smoothed, noise = _smoothed(image, rms, images, skies, bad, kernel, exposure)
    threshold = np.multiply(noise, n_sigma, dtype=smoothed.dtype)
    parents = segmentation(smoothed, threshold, hidden, level)
    say("deblend")
    labels = parents
    if deblending is not None and parents.n_labels:
        labels = deblending(smoothed, parents, level)
    say("measure")
    common: dict[str, Any] = {"wcs": exposure.header.wcs, "local_bkg_width": local_bkg_width}
    pairs = zip(images, skies, strict=True)
    errors = [_error(exposure, k, image_k, sky_k, gain) for k, (image_k, sky_k) in enumerate(pairs)]
    one = exposure.n_bands == 1
    first = SourceCatalog(
        image,
        labels,
        convolved_data=None if kernel is None else smoothed,
        error=errors[0] if one else rms,
        background=level if one else None,
        mask=mask_or_none(hidden),
        **common,
    )
    measured = [first]
    if not one:
        for data, error, of, unused in zip(images, errors, skies, bad, strict=True):
            measured.append(
                SourceCatalog(
                    data,
                    labels,
                    error=error,
                    background=of.level,
                    mask=mask_or_none(unused),
                    detection_catalog=first,
                    **common,
                )
            )
    settings = {
        "n_sigma": float(n_sigma),
        "kernel": _described(kernel),
        "sky": _described(sky),
        "segmentation": _described(segmentation),
        "deblending": _described(deblending),
        "gain": "a map" if np.ndim(gain) else gain,
        "local_bkg_width": local_bkg_width,
        "apertures": [float(radius) for radius in apertures],
    }
    catalog = _table(measured, exposure.header, settings)
    return Detections(
        labels,
        catalog,
        tuple(measured),
        tuple(skies),
        image,
        smoothed,
        threshold,
        parents,
        exposure.header,
        settings,
    )


def _silent(_: str) -> None:
    """Nobody listens."""


def _unused(exposure: Exposure) -> np.ndarray:
    """Pixels of each band that are masked or not finite; unknown variance does not hide light."""
    bits = np.asarray(exposure.mask) & as_int32(excluded_bits(exposure.header))
    return (bits != 0) | ~np.isfinite(np.asarray(exposure.image))


def _combined(
    images: list[np.ndarray], skies: list[Sky], bad: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image of all bands, the sky that was taken from it, and the scatter of its noise."""
    if len(images) == 1:
        return images[0], skies[0].level, skies[0].rms
    total = np.zeros_like(images[0])
    level, depth = np.zeros_like(total), np.zeros_like(total)
    for image, sky, unused in zip(images, skies, bad, strict=True):
        weight = np.divide(1, sky.rms**2, where=(sky.rms > 0) & ~unused, out=np.zeros_like(total))
        total += weight * np.where(unused, 0, image)
        level += weight * sky.level
        depth += weight
    depth = np.maximum(depth, np.finfo(depth.dtype).tiny)
    return total / depth, level / depth, 1 / np.sqrt(depth)


def _smoothed(
    image: np.ndarray,
    rms: np.ndarray,
    images: list[np.ndarray],
    skies: list[Sky],
    bad: np.ndarray,
    kernel: Kernel,
    exposure: Exposure,
) -> tuple[np.ndarray, np.ndarray]:
    """The image to search, and what one standard deviation is there."""
    mask = mask_or_none(np.asarray(bad.all(axis=0)))
    if kernel is None:
        return image, rms
    if isinstance(kernel, GaussianKernel):
        made = make_2dgaussian_kernel(kernel.fwhm, kernel.size)
        return smooth(image, made, mask=mask, backend="host"), rms
    if not isinstance(kernel, PSFKernel):
        return smooth(image, kernel, mask=mask, backend="host"), rms
    ny, nx = exposure.shape
    middle = exposure.psf.at(jnp.asarray((nx - 1) / 2), jnp.asarray((ny - 1) / 2))
    stamps = psf_images(middle, kernel.size)
    # The filter turns them itself.
    psfs = [psf_kernel(stamp, kernel.size)[::-1, ::-1] for stamp in stamps]
    weights = [
        np.divide(1, sky.rms**2, where=(sky.rms > 0) & ~unused, out=np.zeros_like(image))
        for sky, unused in zip(skies, bad, strict=True)
    ]
    total, squared = matched_filter(images, weights, psfs)
    # Brought to the unit of the image: the flux that a point of this peak has, over its peak.
    floor = np.maximum(squared, 1e-3 * squared.max(initial=0) + np.finfo(squared.dtype).tiny)
    peak = float(np.mean([psf.max() for psf in psfs]))
    return total / floor * peak, peak / np.sqrt(floor)


def _error(exposure: Exposure, band: int, image: np.ndarray, sky: Sky, gain: Any) -> np.ndarray:
    """Standard deviation of each pixel of a band; 0 where it is not known."""
    if gain is not None:
        return np.asarray(calc_total_error(image, sky.rms, gain))
    variance = np.asarray(exposure.variance)[band]
    known = np.isfinite(variance) & (variance > 0)
    return np.sqrt(np.where(known, variance, 0))


def _described(method: Any) -> Any:
    """A method's name and settings, for the record."""
    if method is None:
        return None
    if isinstance(method, np.ndarray):
        return {"name": "array", "shape": list(method.shape)}
    name = getattr(method, "__name__", type(method).__name__)
    try:
        return {"name": name, **asdict(method)}
    except TypeError:
        return {"name": name}


def _table(measured: list[SourceCatalog], header: Header, settings: dict[str, Any]) -> QTable:
    """The default columns, with fluxes of each band where there are several."""
    table: Any = measured[0].to_table()
    table.meta.clear()
    if "sky_centroid" in table.colnames:
        place = table.colnames.index("sky_centroid")
        sky = table["sky_centroid"]
        table.remove_column("sky_centroid")
        if header.wcs is not None:
            icrs = sky.icrs
            table.add_column(icrs.dec.to("deg"), index=place, name="dec")
            table.add_column(icrs.ra.to("deg"), index=place, name="ra")
    bands = ["", *(f"_{band}" for band in header.bands)]
    for end, found in zip(bands, measured, strict=False):
        if end:
            for name in ("segment_flux", "kron_flux"):
                table[f"{name}{end}"] = getattr(found, name)
                table[f"{name}_err{end}"] = getattr(found, f"{name}_err")
        for radius in settings["apertures"]:
            flux, error = found.circular_photometry(radius)
            table[f"aperture_flux_{radius:g}{end}"] = flux
            table[f"aperture_flux_err_{radius:g}{end}"] = error
    for name in table.colnames:
        if "_flux" in name and header.unit and getattr(table[name], "unit", None) is None:
            table[name] = table[name] * flux_unit(header)
        table[name].info.description = describe_column(name)
    table.meta["settings"] = settings
    table.meta["bands"] = list(header.bands)
    return table
