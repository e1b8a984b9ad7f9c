"""What changes between epochs: candidates, their verdicts, light curves."""

from diffdeblend.transients.candidates import find_candidates as find_candidates
from diffdeblend.transients.candidates import peak_map as peak_map
from diffdeblend.transients.judge_places import Place as Place
from diffdeblend.transients.judge_places import judge_place as judge_place
from diffdeblend.transients.judge_places import judge_places as judge_places
from diffdeblend.transients.templates import Pair as Pair
from diffdeblend.transients.templates import Templates as Templates
from diffdeblend.transients.templates import templates as templates
