"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""

from diffdeblend.train.loss import AbstractLoss as AbstractLoss
from diffdeblend.train.loss import CleanLoss as CleanLoss
from diffdeblend.train.loss import NoisyLoss as NoisyLoss
from diffdeblend.train.settings import DecoderSettings as DecoderSettings
from diffdeblend.train.train import Progress as Progress
from diffdeblend.train.train import TrainedDecoder as TrainedDecoder
from diffdeblend.train.train import train_decoder as train_decoder
