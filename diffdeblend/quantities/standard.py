"""The measurements that are made if no others are asked for, in their order."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Array

from diffdeblend.quantities.aperture_flux import MeasureApertures
from diffdeblend.quantities.centroid import measure_centroid
from diffdeblend.quantities.extendedness import MeasureExtendedness, measure_size_extendedness
from diffdeblend.quantities.gaussian_flux import measure_gaussian_flux
from diffdeblend.quantities.kron_flux import MeasureKron
from diffdeblend.quantities.local_background import MeasureLocalBackground
from diffdeblend.quantities.measure_cmodel import MeasureCModel
from diffdeblend.quantities.pixel_flags import MeasurePixelFlags
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.quantities.shape import MeasureShape, measure_psf_shape
from diffdeblend.quantities.stamp import SourceStamp

Measurement = Callable[[SourceStamp, Mapping[str, Mapping[str, Array]]], dict[str, Array]]

# To add one: `{**STANDARD, "mine": my_function}`.
STANDARD: Mapping[str, Measurement] = MappingProxyType(
    {
        "psf_shape": measure_psf_shape,
        "centroid": measure_centroid,
        "pixel": MeasurePixelFlags(),
        "shape": MeasureShape(),
        "psf": measure_psf_flux,
        "gaussian": measure_gaussian_flux,
        "aperture": MeasureApertures(),
        "kron": MeasureKron(),
        "local_background": MeasureLocalBackground(),
    }
)

# The same with CModel, and what it says of stars and galaxies: for catalogues of galaxies.
WITH_CMODEL: Mapping[str, Measurement] = MappingProxyType(
    {
        **STANDARD,
        "cmodel": MeasureCModel(),
        "extendedness": MeasureExtendedness(),
        "size_extendedness": measure_size_extendedness,
    }
)
