"""How priors are learnt."""

from diffdeblend.train.mixture import MixtureFit as MixtureFit
from diffdeblend.train.mixture import MixtureSettings as MixtureSettings
from diffdeblend.train.mixture import fit_mixture as fit_mixture
