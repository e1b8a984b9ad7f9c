"""How the light of a blend is shared out among its sources."""

from diffdeblend.allocate.apportion import apportion as apportion
from diffdeblend.allocate.apportion import shares as shares
from diffdeblend.allocate.by_models import ModelImage as ModelImage
from diffdeblend.allocate.by_models import allocate_models as allocate_models
from diffdeblend.allocate.deblend_footprints import deblend_footprints as deblend_footprints
from diffdeblend.allocate.monotone import monotone as monotone
from diffdeblend.allocate.overlap import Overlap as Overlap
from diffdeblend.allocate.overlap import overlap as overlap
from diffdeblend.allocate.psf_test import fit_points as fit_points
from diffdeblend.allocate.stray_flux import stray_shares as stray_shares
from diffdeblend.allocate.templates import median_smoothed as median_smoothed
from diffdeblend.allocate.templates import symmetric_templates as symmetric_templates
