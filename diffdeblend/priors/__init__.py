"""What galaxies look like before any data: learned priors, and what they were learnt on."""

from diffdeblend.priors.mixture import GaussianMixture as GaussianMixture
from diffdeblend.priors.mixture import gaussian_mixture as gaussian_mixture
from diffdeblend.priors.parametric_prior import ParametricPrior as ParametricPrior
from diffdeblend.priors.parametric_prior import Record as Record
from diffdeblend.priors.scene_prior import MixturePrior as MixturePrior
