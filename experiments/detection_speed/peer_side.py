"""What the peers do, in whichever Python has them: `python peer_side.py PEER IMAGES.npy REPEATS`.

PEER is `photutils` or `sep`; images are one field `(y, x)` or stamps `(stamp, y, x)`. The same
pipeline as ours: sky, smoothing, detection of 10 pixels above 1.5 sigma, deblending at 32 levels
and a contrast of 0.001, and the default table with Kron fluxes and errors. Prints JSON.
"""

import json
import sys
import time
import warnings

import numpy as np

N_SIGMA, N_PIXELS, N_LEVELS, CONTRAST = 1.5, 10, 32, 0.001
BOX = {True: 64, False: 32}


def photutils_field(image, box, seconds):
    from astropy.convolution import convolve
    from photutils.background import Background2D
    from photutils.segmentation import (
        SourceCatalog,
        deblend_sources,
        detect_sources,
        make_2dgaussian_kernel,
    )

    kernel = make_2dgaussian_kernel(3.0, size=5)
    clock = Clock(seconds)
    background = Background2D(image, box, filter_size=3)
    data, rms = image - background.background, background.background_rms
    clock.end("background")
    smoothed = convolve(data, kernel)
    clock.end("smooth")
    labels = detect_sources(smoothed, N_SIGMA * rms, N_PIXELS)
    clock.end("detect")
    if labels is None:
        return 0
    labels = deblend_sources(
        smoothed, labels, N_PIXELS, n_levels=N_LEVELS, contrast=CONTRAST, progress_bar=False
    )
    clock.end("deblend")
    table = SourceCatalog(data, labels, convolved_data=smoothed, error=rms).to_table()
    clock.end("catalogue")
    return len(table)


def sep_field(image, box, seconds):
    import sep

    clock = Clock(seconds)
    background = sep.Background(image, bw=box, bh=box)
    data, rms = image - background.back(), background.rms()
    clock.end("background")
    kernel = np.outer(*[np.exp(-0.5 * (np.arange(-2, 3) / (3 / 2.3548)) ** 2)] * 2)
    found = sep.extract(
        data,
        N_SIGMA,
        err=rms,
        minarea=N_PIXELS,
        filter_kernel=kernel,
        filter_type="conv",
        deblend_nthresh=N_LEVELS,
        deblend_cont=CONTRAST,
        clean=False,
    )
    clock.end("smooth, detect, deblend")
    if not len(found):
        return 0
    shape = found["x"], found["y"], found["a"], found["b"], np.clip(found["theta"], -1.57, 1.57)
    radius, _ = sep.kron_radius(data, *shape, 6.0)
    good = np.isfinite(radius) & (radius > 0)
    shape = [s[good] for s in shape]
    sep.sum_ellipse(data, *shape, 2.5 * np.maximum(radius[good], 1.4), err=rms, subpix=0)
    clock.end("catalogue")
    return len(found)


class Clock:
    """Seconds of each stage, summed."""

    def __init__(self, seconds):
        self.seconds, self.last = seconds, time.perf_counter()

    def end(self, stage):
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now


def peak():
    """Largest resident memory of this process, MB; what getrusage tells is the parent's, too."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main():
    peer, path, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    images = np.load(path)
    whole = images.ndim == 2
    if peer == "photutils":
        import photutils as module

        run = photutils_field
    else:
        import sep as module

        run = sep_field
        if whole:
            module.set_extract_pixstack(5_000_000)
            module.set_sub_object_limit(8192)
    before = peak()
    totals, stages, largest = [], [], 0
    for _ in range(repeats):
        seconds, begun = {}, time.perf_counter()
        count = sum(run(image, BOX[whole], seconds) for image in ([images] if whole else images))
        totals.append(time.perf_counter() - begun)
        stages.append(seconds)
        largest = largest or peak()
    best = int(np.argmin(totals))
    print(
        json.dumps(
            {
                "version": module.__version__,
                "sources": count,
                "cold": totals[0],
                "warm": totals[best],
                "stages": stages[best],
                "peak": largest,
                "before": before,
            }
        )
    )


if __name__ == "__main__":
    main()
