"""One image subtracted from another: what changed on the sky."""

from diffdeblend.subtract.batch import fit_batch as fit_batch
from diffdeblend.subtract.batch import subtract_batch as subtract_batch
from diffdeblend.subtract.difference import Difference as Difference
from diffdeblend.subtract.filters import ProperFilters as ProperFilters
from diffdeblend.subtract.filters import centred_stamp as centred_stamp
from diffdeblend.subtract.filters import filters_of_transfers as filters_of_transfers
from diffdeblend.subtract.filters import proper_filters as proper_filters
from diffdeblend.subtract.filters import shift_plane as shift_plane
from diffdeblend.subtract.filters import transfer_plane as transfer_plane
from diffdeblend.subtract.fit import SubtractionFit as SubtractionFit
from diffdeblend.subtract.fit import fit_subtraction as fit_subtraction
from diffdeblend.subtract.fit_pair import PairFit as PairFit
from diffdeblend.subtract.fit_pair import fit_pair as fit_pair
from diffdeblend.subtract.fit_pair import misfit as misfit
from diffdeblend.subtract.nodes import NodePSF as NodePSF
from diffdeblend.subtract.nodes import node_psfs as node_psfs
from diffdeblend.subtract.nodes import tiling_for as tiling_for
from diffdeblend.subtract.subtract import subtract as subtract
from diffdeblend.subtract.tiles import subtract_tiles as subtract_tiles
from diffdeblend.subtract.tiling import Tiling as Tiling
from diffdeblend.subtract.tiling import make_tiling as make_tiling
from diffdeblend.subtract.variance import SystematicNoise as SystematicNoise
from diffdeblend.subtract.warp import warp as warp
