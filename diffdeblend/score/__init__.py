"""How good a deblender is: measure functions run over simulated blends, and what they are worth."""

from diffdeblend.score.join import join_scores as join_scores
from diffdeblend.score.load_measure import load_measure as load_measure
from diffdeblend.score.matching import match as match
from diffdeblend.score.measured import Measure as Measure
from diffdeblend.score.measured import Measured as Measured
from diffdeblend.score.measured import all_surveys as all_surveys
from diffdeblend.score.measured import batched as batched
from diffdeblend.score.measured import catalog_of as catalog_of
from diffdeblend.score.measured_file import read_measurements as read_measurements
from diffdeblend.score.measured_file import write_measurements as write_measurements
from diffdeblend.score.run import Measurements as Measurements
from diffdeblend.score.run import measure_blends as measure_blends
from diffdeblend.score.score import Scores as Scores
from diffdeblend.score.score import score as score
from diffdeblend.score.score import score_all as score_all
from diffdeblend.score.scores_file import read_scores as read_scores
from diffdeblend.score.scores_file import write_scores as write_scores
from diffdeblend.score.shapes import adaptive_moments as adaptive_moments
from diffdeblend.score.shapes import ksb_ellipticity as ksb_ellipticity
from diffdeblend.score.stream import score_parts as score_parts
from diffdeblend.score.summary import binned as binned
from diffdeblend.score.summary import rank_average_precision as rank_average_precision
from diffdeblend.score.summary import scores_table as scores_table
from diffdeblend.score.targets import AllBands as AllBands
