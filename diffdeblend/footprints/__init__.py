"""Footprints: which pixels and which peaks a detection has, with their values or without."""

from diffdeblend.footprints.footprint import Footprint as Footprint
from diffdeblend.footprints.footprint_set import FootprintSet as FootprintSet
from diffdeblend.footprints.heavy import HeavyFootprint as HeavyFootprint
from diffdeblend.footprints.peaks import Peaks as Peaks
from diffdeblend.footprints.records import SourceRecords as SourceRecords
from diffdeblend.footprints.spans import SpanSet as SpanSet
from diffdeblend.footprints.stamps import FootprintStamps as FootprintStamps
from diffdeblend.footprints.stamps import dilate_stamp as dilate_stamp
from diffdeblend.footprints.stamps import erode_stamp as erode_stamp
