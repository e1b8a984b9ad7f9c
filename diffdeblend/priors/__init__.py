"""What galaxies are like before the data: learnt priors. How they are learnt: `train`."""

from diffdeblend.priors.mixture import GaussianMixture as GaussianMixture
from diffdeblend.priors.mixture import gaussian_mixture as gaussian_mixture
