"""The PSF as the stars of an image show it."""

from diffdeblend.stars.determine import DetermineSettings as DetermineSettings
from diffdeblend.stars.determine import StarPSF as StarPSF
from diffdeblend.stars.determine import determine_psf as determine_psf
from diffdeblend.stars.exposure_psf import StarMethod as StarMethod
from diffdeblend.stars.exposure_psf import exposure_psf as exposure_psf
from diffdeblend.stars.kl import KarhunenLoeve as KarhunenLoeve
from diffdeblend.stars.kl import kl_psf as kl_psf
from diffdeblend.stars.kl_stamps import centred_stamps as centred_stamps
from diffdeblend.stars.kl_stamps import middling_stars as middling_stars
from diffdeblend.stars.kl_stamps import stamp_side as stamp_side
from diffdeblend.stars.kl_stamps import whole_pixel_stamps as whole_pixel_stamps
from diffdeblend.stars.select import reserve_stars as reserve_stars
from diffdeblend.stars.select import stellar_locus as stellar_locus
from diffdeblend.stars.validate import PSFReport as PSFReport
from diffdeblend.stars.validate import validate_psf as validate_psf
