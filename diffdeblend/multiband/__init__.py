"""One list of sources for all bands, measured in each."""

from diffdeblend.multiband.cull import cull_peaks as cull_peaks
from diffdeblend.multiband.forced import FORCED as FORCED
from diffdeblend.multiband.forced import FORCED_CMODEL as FORCED_CMODEL
from diffdeblend.multiband.forced import forced_photometry as forced_photometry
from diffdeblend.multiband.measure_bands import BandCatalog as BandCatalog
from diffdeblend.multiband.measure_bands import measure_bands as measure_bands
from diffdeblend.multiband.merge import merge_detections as merge_detections
from diffdeblend.multiband.merge import peak_rule as peak_rule
from diffdeblend.multiband.reference import reference_band as reference_band
from diffdeblend.multiband.reference import signal_to_noise as signal_to_noise
