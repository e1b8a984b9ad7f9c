"""From an exposure and positions to a catalogue: the whole of deblending in one call."""

from diffdeblend.deblend.deblend import MODELS as MODELS
from diffdeblend.deblend.deblend import Deblended as Deblended
from diffdeblend.deblend.deblend import deblend as deblend
