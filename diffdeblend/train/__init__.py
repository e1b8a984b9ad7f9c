"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""

from diffdeblend.train.mixture import MixtureFit as MixtureFit
from diffdeblend.train.mixture import MixtureSettings as MixtureSettings
from diffdeblend.train.mixture import fit_mixture as fit_mixture
from diffdeblend.train.parametric import catalog_features as catalog_features
from diffdeblend.train.parametric import fitted_features as fitted_features
from diffdeblend.train.parametric import learn_parametric as learn_parametric
