"""What a source can look like: one file a family of shapes."""

from diffdeblend.components.abstract import AbstractComponent as AbstractComponent
from diffdeblend.components.any_source import AnySource as AnySource
from diffdeblend.components.any_source import AnyStack as AnyStack
from diffdeblend.components.any_source import Kind as Kind
from diffdeblend.components.any_source import any_stack as any_stack
from diffdeblend.components.decoded import Decoded as Decoded
from diffdeblend.components.decoded import Decoder as Decoder
from diffdeblend.components.decoded import Frame as Frame
from diffdeblend.components.gaussian import Gaussian as Gaussian
from diffdeblend.components.gaussian import MultiGaussian as MultiGaussian
from diffdeblend.components.pixels import Pixels as Pixels
from diffdeblend.components.pixels import to_pixels as to_pixels
from diffdeblend.components.point import PointSource as PointSource
from diffdeblend.components.sersic import BulgeDisc as BulgeDisc
from diffdeblend.components.sersic import DeVaucouleurs as DeVaucouleurs
from diffdeblend.components.sersic import Exponential as Exponential
from diffdeblend.components.sersic import Sersic as Sersic
from diffdeblend.components.stack import Stack as Stack
from diffdeblend.components.stack import stack_components as stack_components
