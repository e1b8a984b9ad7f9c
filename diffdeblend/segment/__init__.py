"""From an image to labels: smoothing, thresholds, connected pixels, and how blends come apart."""

from diffdeblend.segment.boxes import BoundingBox as BoundingBox
from diffdeblend.segment.boxes import Segment as Segment
from diffdeblend.segment.components import connected_components as connected_components
from diffdeblend.segment.components import drop_small as drop_small
from diffdeblend.segment.deblend import DeblendedStamps as DeblendedStamps
from diffdeblend.segment.deblend import DeblendWarning as DeblendWarning
from diffdeblend.segment.deblend import deblend_sources as deblend_sources
from diffdeblend.segment.deblend import deblend_stamps as deblend_stamps
from diffdeblend.segment.finder import SourceFinder as SourceFinder
from diffdeblend.segment.finder import find_sources as find_sources
from diffdeblend.segment.kernels import make_2dgaussian_kernel as make_2dgaussian_kernel
from diffdeblend.segment.kernels import psf_kernel as psf_kernel
from diffdeblend.segment.labels import LabelImage as LabelImage
from diffdeblend.segment.labels import NoDetectionsWarning as NoDetectionsWarning
from diffdeblend.segment.smooth import smooth as smooth
from diffdeblend.segment.smooth import smooth_stamp as smooth_stamp
from diffdeblend.segment.sources import StampLabels as StampLabels
from diffdeblend.segment.sources import detect_sources as detect_sources
from diffdeblend.segment.sources import detect_stamps as detect_stamps
from diffdeblend.segment.steps import DeblendSteps as DeblendSteps
from diffdeblend.segment.steps import deblend_steps as deblend_steps
from diffdeblend.segment.threshold import combined_significance as combined_significance
from diffdeblend.segment.threshold import detect_threshold as detect_threshold
from diffdeblend.segment.watershed import watershed as watershed
