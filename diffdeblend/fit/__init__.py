"""From a start and data to a scene with errors."""

from diffdeblend.fit.first_order import FirstOrder as FirstOrder
from diffdeblend.fit.fit import Fit as Fit
from diffdeblend.fit.fit import fit as fit
from diffdeblend.fit.laplace import WeightedSamples as WeightedSamples
from diffdeblend.fit.laplace import samples as samples
from diffdeblend.fit.laplace import weighted_samples as weighted_samples
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from diffdeblend.fit.nuts import Posterior as Posterior
from diffdeblend.fit.nuts import sample_posterior as sample_posterior
from diffdeblend.fit.plug_and_play import PlugAndPlay as PlugAndPlay
from diffdeblend.fit.prior import ShapePrior as ShapePrior
from diffdeblend.fit.prior import shape_prior as shape_prior
from diffdeblend.fit.proximal import ProximalGradient as ProximalGradient
from diffdeblend.fit.uncertainty import Covariance as Covariance
