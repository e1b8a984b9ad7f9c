"""Files of the LSST pipelines (afw): where their pixels begin.

Image, mask with its planes from MP_<name> cards, variance, WCS, zero point and filter are read by
`read_fits`, as those of other files. Their PSF is an object that only the pipelines can evaluate:
give it as a stamp.
"""

import os

from diffdeblend.files import as_paths
from diffdeblend.io.hdus import open_fits


def read_afw_origin(path: str | os.PathLike) -> tuple[int, int]:
    """x and y, in the pipelines' numbers, of the first pixel of a file: (0, 0) if it has none.

    Positions in catalogues of the pipelines count from there; take it off to have pixels of the
    exposure.

    **Raises:** `ValueError` if the file cannot be read.
    """
    (only,) = as_paths(path)
    opened = open_fits(only)
    for part in opened.parts:
        if "LTV1" in part.header and "LTV2" in part.header:
            return -round(float(part.header["LTV1"])), -round(float(part.header["LTV2"]))
    return 0, 0
