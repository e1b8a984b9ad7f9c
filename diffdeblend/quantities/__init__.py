"""What is measured of a source on its stamp: one file a measurement."""

from diffdeblend.quantities.stamp import ImagePlanes as ImagePlanes
from diffdeblend.quantities.stamp import SourceStamp as SourceStamp
from diffdeblend.quantities.stamp import cut_stamps as cut_stamps
from diffdeblend.quantities.stamp import image_planes as image_planes
