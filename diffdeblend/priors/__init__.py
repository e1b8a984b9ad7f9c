"""What galaxies look like before any data: learned priors, and what they were learnt on."""

from diffdeblend.priors.decoder_prior import DecoderPrior as DecoderPrior
from diffdeblend.priors.decoder_prior import Training as Training
from diffdeblend.priors.denoiser_prior import Denoiser as Denoiser
from diffdeblend.priors.denoiser_prior import DenoiserPrior as DenoiserPrior
from diffdeblend.priors.denoiser_prior import LogTransform as LogTransform
from diffdeblend.priors.denoiser_prior import ScoreDenoiser as ScoreDenoiser
from diffdeblend.priors.flow import CouplingFlow as CouplingFlow
from diffdeblend.priors.mixture import GaussianMixture as GaussianMixture
from diffdeblend.priors.mixture import gaussian_mixture as gaussian_mixture
from diffdeblend.priors.parametric_prior import ParametricPrior as ParametricPrior
from diffdeblend.priors.scene_prior import MixturePrior as MixturePrior
from diffdeblend.priors.scene_prior import PixelPrior as PixelPrior
