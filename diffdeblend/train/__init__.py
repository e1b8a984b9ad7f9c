"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""

from diffdeblend.train.augment import augment as augment
from diffdeblend.train.catalogs import draw_catalog as draw_catalog
from diffdeblend.train.galaxies import Galaxies as Galaxies
from diffdeblend.train.galaxies import Mixture as Mixture
from diffdeblend.train.galaxies import Population as Population
from diffdeblend.train.galaxies import join as join
from diffdeblend.train.loss import AbstractLoss as AbstractLoss
from diffdeblend.train.loss import CleanLoss as CleanLoss
from diffdeblend.train.loss import NoisyLoss as NoisyLoss
from diffdeblend.train.noisy_stamps import NoisyStamps as NoisyStamps
from diffdeblend.train.noisy_stamps import cut_stamps as cut_stamps
from diffdeblend.train.noisy_stamps import read_stamps as read_stamps
from diffdeblend.train.populations import BulgeDiscKnots as BulgeDiscKnots
from diffdeblend.train.populations import Irregulars as Irregulars
from diffdeblend.train.populations import Sersics as Sersics
from diffdeblend.train.populations import Sizes as Sizes
from diffdeblend.train.real import draw_real as draw_real
from diffdeblend.train.settings import DecoderSettings as DecoderSettings
from diffdeblend.train.train import Progress as Progress
from diffdeblend.train.train import TrainedDecoder as TrainedDecoder
from diffdeblend.train.train import train_decoder as train_decoder
from diffdeblend.train.words import draw_population as draw_population
from diffdeblend.train.words import population_of as population_of
from diffdeblend.train.words import read_population as read_population
