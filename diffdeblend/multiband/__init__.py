"""One list of sources for all bands, measured in each."""

from diffdeblend.multiband.cull import cull_peaks as cull_peaks
from diffdeblend.multiband.merge import merge_detections as merge_detections
from diffdeblend.multiband.merge import peak_rule as peak_rule
from diffdeblend.multiband.reference import reference_band as reference_band
from diffdeblend.multiband.reference import signal_to_noise as signal_to_noise
