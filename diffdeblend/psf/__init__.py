"""How a point is seen: one file a family of PSFs."""

from diffdeblend.psf.abstract import AbstractPSF as AbstractPSF
from diffdeblend.psf.analytic import GaussianMixturePSF as GaussianMixturePSF
from diffdeblend.psf.analytic import GaussianPSF as GaussianPSF
from diffdeblend.psf.analytic import KolmogorovPSF as KolmogorovPSF
from diffdeblend.psf.analytic import MoffatPSF as MoffatPSF
from diffdeblend.psf.basis import PSFBasis as PSFBasis
from diffdeblend.psf.basis import constant_basis as constant_basis
from diffdeblend.psf.basis_from_images import psf_basis_from_images as psf_basis_from_images
from diffdeblend.psf.pixels import PixelPSF as PixelPSF
from diffdeblend.psf.sampled import SampledPSF as SampledPSF
