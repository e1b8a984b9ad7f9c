"""From an image to labels: smoothing, thresholds, connected pixels, and how blends come apart."""

from diffdeblend.segment.asterism import AsterismResult as AsterismResult
from diffdeblend.segment.asterism import asterism as asterism
from diffdeblend.segment.cluster_points import cluster_points as cluster_points
from diffdeblend.segment.components import connected_components as connected_components
from diffdeblend.segment.components import drop_small as drop_small
from diffdeblend.segment.dbscan import DBSCANSegments as DBSCANSegments
from diffdeblend.segment.dbscan import dbscan_segments as dbscan_segments
from diffdeblend.segment.dbscan import dbscan_stamps as dbscan_stamps
from diffdeblend.segment.deblend import DeblendedStamps as DeblendedStamps
from diffdeblend.segment.deblend import DeblendWarning as DeblendWarning
from diffdeblend.segment.deblend import deblend_sources as deblend_sources
from diffdeblend.segment.deblend import deblend_stamps as deblend_stamps
from diffdeblend.segment.denclue import attractor_position as attractor_position
from diffdeblend.segment.denclue_deblend import DenclueResult as DenclueResult
from diffdeblend.segment.denclue_deblend import denclue_deblend as denclue_deblend
from diffdeblend.segment.finder import SourceFinder as SourceFinder
from diffdeblend.segment.finder import find_sources as find_sources
from diffdeblend.segment.glw import glw_deblend as glw_deblend
from diffdeblend.segment.labels import BoundingBox as BoundingBox
from diffdeblend.segment.labels import LabelImage as LabelImage
from diffdeblend.segment.labels import NoDetectionsWarning as NoDetectionsWarning
from diffdeblend.segment.labels import Segment as Segment
from diffdeblend.segment.sources import StampLabels as StampLabels
from diffdeblend.segment.sources import detect_sources as detect_sources
from diffdeblend.segment.sources import detect_stamps as detect_stamps
from diffdeblend.segment.validate_children import Validation as Validation
