"""From pixels to positions."""

from diffdeblend.detect.peaks import find_peaks as find_peaks
from diffdeblend.detect.peaks import significance as significance
