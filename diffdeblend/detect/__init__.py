"""From pixels to sources, and to noise."""

from diffdeblend.detect.detect import Detections as Detections
from diffdeblend.detect.detect import GaussianKernel as GaussianKernel
from diffdeblend.detect.detect import PSFKernel as PSFKernel
from diffdeblend.detect.detect import detect as detect
from diffdeblend.detect.empty_sky import measure_noise_correlation as measure_noise_correlation
from diffdeblend.detect.methods import Dbscan as Dbscan
from diffdeblend.detect.methods import Denclue as Denclue
from diffdeblend.detect.methods import LogWatershed as LogWatershed
from diffdeblend.detect.methods import MeshSky as MeshSky
from diffdeblend.detect.methods import MultiThreshold as MultiThreshold
from diffdeblend.detect.methods import NoSky as NoSky
from diffdeblend.detect.methods import SkewnessSky as SkewnessSky
from diffdeblend.detect.methods import Threshold as Threshold
from diffdeblend.detect.peaks import find_peaks as find_peaks
from diffdeblend.detect.peaks import significance as significance
from diffdeblend.detect.score_image import ScoreImage as ScoreImage
from diffdeblend.detect.score_image import score_image as score_image
from diffdeblend.detect.stamps import StampDetections as StampDetections
from diffdeblend.detect.stamps import detect_batch as detect_batch
