"""From labels to a catalogue: positions, shapes and fluxes, one file a family of measurements."""

from diffdeblend.measure.catalog import SourceCatalog as SourceCatalog
from diffdeblend.measure.flags import FLAGS as FLAGS
from diffdeblend.measure.flags import decode_flags as decode_flags
from diffdeblend.measure.isophote import isophote as isophote
from diffdeblend.measure.stamps import StampCatalog as StampCatalog
from diffdeblend.measure.stamps import measure_stamps as measure_stamps
from diffdeblend.measure.total_error import calc_total_error as calc_total_error
