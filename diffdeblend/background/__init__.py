"""The sky under the sources: models of it, one file a family, and what measures it."""

from diffdeblend.background.background_map import BackgroundMap as BackgroundMap
from diffdeblend.background.cells import CellLevels as CellLevels
from diffdeblend.background.cells import cell_levels as cell_levels
from diffdeblend.background.clipped import ClippedStatistics as ClippedStatistics
from diffdeblend.background.clipped import clipped_statistics as clipped_statistics
from diffdeblend.background.local import local_background as local_background
from diffdeblend.background.mesh import estimate_background as estimate_background
from diffdeblend.background.models import AbstractBackground as AbstractBackground
from diffdeblend.background.models import ConstantBackground as ConstantBackground
from diffdeblend.background.models import MeshBackground as MeshBackground
from diffdeblend.background.models import PolynomialBackground as PolynomialBackground
from diffdeblend.background.skewness import SkewnessBackground as SkewnessBackground
from diffdeblend.background.skewness import skewness_background as skewness_background
from diffdeblend.background.skewness import stamp_skewness_background as stamp_skewness_background
from diffdeblend.background.source_masked import SourceFreeBackground as SourceFreeBackground
from diffdeblend.background.source_masked import source_free_background as source_free_background
from diffdeblend.background.spline import SplineBackground as SplineBackground
from diffdeblend.background.stamp import StampBackground as StampBackground
from diffdeblend.background.stamp import stamp_background as stamp_background
from diffdeblend.background.surface_fit import SurfaceFit as SurfaceFit
from diffdeblend.background.surfaces import CellSurface as CellSurface
from diffdeblend.background.surfaces import ChebyshevSurface as ChebyshevSurface
from diffdeblend.background.surfaces import Surface as Surface
from diffdeblend.background.surfaces import fit_cells as fit_cells
from diffdeblend.background.surfaces import fit_chebyshev as fit_chebyshev
from diffdeblend.background.surfaces import total_background as total_background
