"""The PSF of an image from its own stars."""

from diffdeblend.stars.determine import DetermineSettings as DetermineSettings
from diffdeblend.stars.determine import StarPSF as StarPSF
from diffdeblend.stars.determine import determine_psf as determine_psf
from diffdeblend.stars.select import reserve_stars as reserve_stars
from diffdeblend.stars.select import stellar_locus as stellar_locus
