"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""

from diffdeblend.train.galaxies import Galaxies as Galaxies
from diffdeblend.train.galaxies import Mixture as Mixture
from diffdeblend.train.galaxies import Population as Population
from diffdeblend.train.galaxies import join as join
from diffdeblend.train.loss import AbstractLoss as AbstractLoss
from diffdeblend.train.loss import CleanLoss as CleanLoss
from diffdeblend.train.loss import NoisyLoss as NoisyLoss
from diffdeblend.train.populations import BulgeDiscKnots as BulgeDiscKnots
from diffdeblend.train.populations import Irregulars as Irregulars
from diffdeblend.train.populations import Sersics as Sersics
from diffdeblend.train.populations import Sizes as Sizes
from diffdeblend.train.settings import DecoderSettings as DecoderSettings
from diffdeblend.train.train import Progress as Progress
from diffdeblend.train.train import TrainedDecoder as TrainedDecoder
from diffdeblend.train.train import train_decoder as train_decoder
