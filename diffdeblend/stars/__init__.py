"""The PSF as the stars of an image show it."""

from diffdeblend.stars.kl import KarhunenLoeve as KarhunenLoeve
from diffdeblend.stars.kl import kl_psf as kl_psf
from diffdeblend.stars.kl_stamps import centred_stamps as centred_stamps
from diffdeblend.stars.kl_stamps import middling_stars as middling_stars
from diffdeblend.stars.kl_stamps import stamp_side as stamp_side
from diffdeblend.stars.kl_stamps import whole_pixel_stamps as whole_pixel_stamps
