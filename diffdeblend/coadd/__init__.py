"""Many epochs made one image without loss."""

from diffdeblend.coadd.coadd import Coadd as Coadd
from diffdeblend.coadd.coadd import coadd as coadd
from diffdeblend.coadd.sums import Epoch as Epoch
from diffdeblend.coadd.sums import Plane as Plane
from diffdeblend.coadd.sums import Sums as Sums
from diffdeblend.coadd.sums import add_epoch as add_epoch
from diffdeblend.coadd.sums import epoch_sums as epoch_sums
from diffdeblend.coadd.sums import finish as finish
from diffdeblend.coadd.sums import make_plane as make_plane
