"""A catalogue of the sources of a label image."""

from collections.abc import Iterator, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from jaxtyping import Int

from diffdeblend.measure import sky
from diffdeblend.measure.columns import (
    DEFAULT_COLUMNS,
    FAMILIES,
    FAMILY_OF,
    OF_DATA,
    OF_DETECTION,
    UNITS,
)
from diffdeblend.measure.cutouts import CUTOUTS, center_cutouts, cutout_column
from diffdeblend.measure.flags import FLAGS, decode_flags
from diffdeblend.measure.inputs import catalog_planes, check_kron_params, check_width
from diffdeblend.measure.measurements import Measurements
from diffdeblend.segment.labels import LabelImage
