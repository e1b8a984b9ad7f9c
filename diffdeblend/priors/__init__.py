"""What galaxies look like before any data: learned priors, and what they were learnt on."""

from diffdeblend.priors.decoder_prior import DecoderPrior as DecoderPrior
from diffdeblend.priors.decoder_prior import Training as Training
from diffdeblend.priors.flow import CouplingFlow as CouplingFlow
