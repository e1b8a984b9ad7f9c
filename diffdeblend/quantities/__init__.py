"""What is measured of a source on its stamp: one file a measurement."""

from diffdeblend.quantities.aperture_correction import ApertureCorrection as ApertureCorrection
from diffdeblend.quantities.aperture_correction import (
    fit_aperture_correction as fit_aperture_correction,
)
from diffdeblend.quantities.aperture_flux import MeasureApertures as MeasureApertures
from diffdeblend.quantities.aperture_flux import aperture_flux as aperture_flux
from diffdeblend.quantities.blendedness import blendedness as blendedness
from diffdeblend.quantities.centroid import centroid as centroid
from diffdeblend.quantities.centroid import hold_centroid as hold_centroid
from diffdeblend.quantities.cmodel import CModelSettings as CModelSettings
from diffdeblend.quantities.cmodel import cmodel as cmodel
from diffdeblend.quantities.cmodel import forced_cmodel as forced_cmodel
from diffdeblend.quantities.extendedness import MeasureExtendedness as MeasureExtendedness
from diffdeblend.quantities.extendedness import extendedness as extendedness
from diffdeblend.quantities.extendedness import (
    measure_size_extendedness as measure_size_extendedness,
)
from diffdeblend.quantities.extendedness import size_extendedness as size_extendedness
from diffdeblend.quantities.gaussian_flux import gaussian_flux as gaussian_flux
from diffdeblend.quantities.kron_flux import MeasureKron as MeasureKron
from diffdeblend.quantities.kron_flux import ellipse_flux as ellipse_flux
from diffdeblend.quantities.kron_flux import kron_radius as kron_radius
from diffdeblend.quantities.local_background import (
    MeasureLocalBackground as MeasureLocalBackground,
)
from diffdeblend.quantities.magnitudes import magnitudes as magnitudes
from diffdeblend.quantities.magnitudes import nanojanskys as nanojanskys
from diffdeblend.quantities.measure_cmodel import MeasureCModel as MeasureCModel
from diffdeblend.quantities.measure_cmodel import MeasureForcedCModel as MeasureForcedCModel
from diffdeblend.quantities.measure_sources import measure_sources as measure_sources
from diffdeblend.quantities.moments import adaptive_moments as adaptive_moments
from diffdeblend.quantities.pixel_flags import MeasurePixelFlags as MeasurePixelFlags
from diffdeblend.quantities.psf_flux import psf_flux as psf_flux
from diffdeblend.quantities.shape import MeasureShape as MeasureShape
from diffdeblend.quantities.stamp import ImagePlanes as ImagePlanes
from diffdeblend.quantities.stamp import SourceStamp as SourceStamp
from diffdeblend.quantities.stamp import cut_stamps as cut_stamps
from diffdeblend.quantities.stamp import image_planes as image_planes
from diffdeblend.quantities.standard import STANDARD as STANDARD
from diffdeblend.quantities.standard import WITH_CMODEL as WITH_CMODEL
from diffdeblend.quantities.standard import Measurement as Measurement
