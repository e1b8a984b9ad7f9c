"""From an image to labels: smoothing, thresholds, connected pixels, and how blends come apart."""

from diffdeblend.segment.components import connected_components as connected_components
from diffdeblend.segment.components import drop_small as drop_small
from diffdeblend.segment.labels import BoundingBox as BoundingBox
from diffdeblend.segment.labels import LabelImage as LabelImage
from diffdeblend.segment.labels import NoDetectionsWarning as NoDetectionsWarning
from diffdeblend.segment.labels import Segment as Segment
from diffdeblend.segment.sources import StampLabels as StampLabels
from diffdeblend.segment.sources import detect_sources as detect_sources
from diffdeblend.segment.sources import detect_stamps as detect_stamps
