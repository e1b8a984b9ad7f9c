"""Stores of stamps: images of a few sources each, with all that a fit needs, on disk."""

from diffdeblend.stamps.blend_stamps import stamps_of_blends as stamps_of_blends
from diffdeblend.stamps.cut_stamps import header_of_cut as header_of_cut
from diffdeblend.stamps.cut_stamps import stamps_of_cut as stamps_of_cut
from diffdeblend.stamps.make_stamps import make_stamps as make_stamps
from diffdeblend.stamps.stamps import Stamps as Stamps
from diffdeblend.stamps.stamps import StampsHeader as StampsHeader
from diffdeblend.stamps.store import StampStore as StampStore
from diffdeblend.stamps.store import open_store as open_store
from diffdeblend.stamps.write_store import StampWriter as StampWriter
from diffdeblend.stamps.write_store import write_stamps as write_stamps
