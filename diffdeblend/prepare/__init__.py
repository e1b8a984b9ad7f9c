"""From a raw image to an exposure that can be used: sky, noise, flaws, PSF and place."""

from diffdeblend.prepare.align import Alignment as Alignment
from diffdeblend.prepare.align import align as align
from diffdeblend.prepare.align import find_alignment as find_alignment
from diffdeblend.prepare.band import Preparation as Preparation
from diffdeblend.prepare.cosmic_rays import Sharpness as Sharpness
from diffdeblend.prepare.cosmic_rays import find_cosmic_rays as find_cosmic_rays
from diffdeblend.prepare.cosmic_rays import star_sharpness as star_sharpness
from diffdeblend.prepare.flaws import saturation_level as saturation_level
from diffdeblend.prepare.interpolate import fill_masked as fill_masked
from diffdeblend.prepare.noise import gain_of_sky as gain_of_sky
from diffdeblend.prepare.noise import pixel_variance as pixel_variance
from diffdeblend.prepare.prepare import Prepared as Prepared
from diffdeblend.prepare.prepare import prepare as prepare
from diffdeblend.prepare.sky import Sky as Sky
from diffdeblend.prepare.sky import measure_sky as measure_sky
from diffdeblend.prepare.source import Source as Source
from diffdeblend.prepare.source import as_source as as_source
from diffdeblend.prepare.star_lists import bright_points as bright_points
from diffdeblend.prepare.star_lists import match_stars as match_stars
