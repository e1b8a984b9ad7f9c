"""ProperImage on one pair, run by the Python of its own environment.

python properimage_side.py REFERENCE.fits NEW.fits RESULT.npz

The defaults of its documentation's fits of flux ratio and shift; the time is that of `subtract`
from the paths, the fastest of two calls.
"""

import json
import sys
import time
import warnings

import numpy as np
from properimage import single_image
from properimage.operations import subtract


def main(reference: str, new: str, result: str) -> None:
    """Subtract twice, write D and S_corr, print the seconds."""
    warnings.simplefilter("ignore")
    times = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        images = single_image.SingleImage(reference), single_image.SingleImage(new)
        difference, _psf, score, mask = subtract(
            *images, align=False, inf_loss=0.15, smooth_psf=False, fitted_psf=True,
            beta=True, shift=True, iterative=False,
        )  # fmt: skip
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    np.savez(result, D=difference.real, S_corr=score.real, bad=np.broadcast_to(mask, score.shape))
    wall, cpu = np.min(times, axis=0)
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
