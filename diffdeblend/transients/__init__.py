"""What changes between epochs: candidates, their verdicts, light curves."""

from diffdeblend.transients.candidates import find_candidates as find_candidates
from diffdeblend.transients.candidates import judged_significance as judged_significance
from diffdeblend.transients.candidates import peak_map as peak_map
from diffdeblend.transients.epoch import Epoch as Epoch
from diffdeblend.transients.epoch import make_epoch as make_epoch
from diffdeblend.transients.find_transients import Transients as Transients
from diffdeblend.transients.find_transients import find_transients as find_transients
from diffdeblend.transients.forced_epochs import TiedFit as TiedFit
from diffdeblend.transients.forced_epochs import fit_tied as fit_tied
from diffdeblend.transients.forced_epochs import forced_epochs as forced_epochs
from diffdeblend.transients.judge_places import Place as Place
from diffdeblend.transients.judge_places import judge_place as judge_place
from diffdeblend.transients.judge_places import judge_places as judge_places
from diffdeblend.transients.light_curve import Position as Position
from diffdeblend.transients.light_curve import forced_fluxes as forced_fluxes
from diffdeblend.transients.light_curve import light_curve as light_curve
from diffdeblend.transients.light_curve import mean_position as mean_position
from diffdeblend.transients.statistics import difference_statistics as difference_statistics
from diffdeblend.transients.templates import Pair as Pair
from diffdeblend.transients.templates import Templates as Templates
from diffdeblend.transients.templates import templates as templates
