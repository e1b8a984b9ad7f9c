"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""

from diffdeblend.train.galaxies import Galaxies as Galaxies
from diffdeblend.train.galaxies import Mixture as Mixture
from diffdeblend.train.galaxies import Population as Population
from diffdeblend.train.galaxies import join as join
from diffdeblend.train.populations import BulgeDiscKnots as BulgeDiscKnots
from diffdeblend.train.populations import Irregulars as Irregulars
from diffdeblend.train.populations import Sersics as Sersics
from diffdeblend.train.populations import Sizes as Sizes
