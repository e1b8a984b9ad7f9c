"""From pixels to positions, and to noise."""

from diffdeblend.detect.empty_sky import measure_noise_correlation as measure_noise_correlation
from diffdeblend.detect.peaks import find_peaks as find_peaks
from diffdeblend.detect.peaks import significance as significance
