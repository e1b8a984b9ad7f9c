"""SFFT on one pair, run by the Python of its own environment.

python sfft_side.py REFERENCE.fits NEW.fits RESULT.npz

Images come without their sky. NumPy backend, two threads, kernel of 13 pixels with quadratic
variation; the time is the faster of two calls.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import warnings

import numpy as np
from astropy.io import fits
from sfft.CustomizedPacket import Customized_Packet


def main(reference: str, new: str, result: str) -> None:
    """Subtract twice, write the difference, print the seconds."""
    warnings.simplefilter("ignore")
    times = []
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "difference.fits")
        for _ in range(2):
            wall, cpu = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                Customized_Packet.CP(
                    FITS_REF=reference, FITS_SCI=new, FITS_mREF=reference, FITS_mSCI=new,
                    ForceConv="REF", GKerHW=6, FITS_DIFF=out, KerPolyOrder=2, BGPolyOrder=1,
                    ConstPhotRatio=False, BACKEND_4SUBTRACT="Numpy",
                    NUM_CPU_THREADS_4SUBTRACT=2,
                )  # fmt: skip
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        np.savez(result, D=fits.getdata(out))
    wall, cpu = np.min(times, axis=0)
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
