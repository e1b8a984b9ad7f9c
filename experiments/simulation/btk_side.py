"""What the BlendingToolKit does, in an environment of its own; run by the other two scripts.

    python btk_side.py draw CATSIM.fits PLACES.npz IMAGES.npy
    python btk_side.py time CATSIM.fits N REPEATS PROCESSES

`draw` writes the noiseless image of each galaxy alone. `time` prints JSON: seconds and CPU seconds
of each call, peak resident memory in MB, and seconds since the process started.
"""

import json
import resource
import sys
import time

START = time.perf_counter()

import btk  # noqa: E402
import numpy as np  # noqa: E402
from btk.catalog import CatsimCatalog  # noqa: E402
from btk.draw_blends import CatsimGenerator  # noqa: E402
from btk.sampling_functions import SamplingFunction  # noqa: E402
from btk.survey import get_surveys  # noqa: E402

SIDE = 24.0


class Given(SamplingFunction):
    """One galaxy a blend, at given places, in turn."""

    def __init__(self, row, x, y):
        super().__init__(stamp_size=SIDE, max_number=1, min_number=1)
        self.row, self.x, self.y, self.next = row, x, y, 0

    @property
    def compatible_catalogs(self):
        return "CatsimCatalog"

    def __call__(self, table, **_):
        k, self.next = self.next, self.next + 1
        chosen = table[[int(self.row[k])]]
        chosen["ra"], chosen["dec"] = [self.x[k]], [self.y[k]]
        return chosen


class Three(SamplingFunction):
    """So many galaxies a blend, within a tenth of the stamp."""

    def __init__(self, number, seed=0):
        super().__init__(stamp_size=SIDE, max_number=number, min_number=number, seed=seed)
        self.number = number

    @property
    def compatible_catalogs(self):
        return "CatsimCatalog"

    def __call__(self, table, **_):
        chosen = table[self.rng.integers(0, len(table), self.number)]
        chosen["ra"], chosen["dec"] = self.rng.uniform(-SIDE / 10, SIDE / 10, (2, self.number))
        return chosen


def draw(path, places, out):
    """Galaxies alone, `(source, band, y, x)`."""
    given = np.load(places)
    n = len(given["row"])
    sampling = Given(given["row"], given["x"], given["y"])
    generator = CatsimGenerator(
        CatsimCatalog.from_file(path), sampling, get_surveys("LSST"), n, add_noise="none"
    )
    np.save(out, next(generator).isolated_images[:, 0])


def clock(path, n, repeats, processes):
    """Three galaxies a blend in six bands."""
    calls = []
    generator = CatsimGenerator(
        CatsimCatalog.from_file(path),
        Three(3),
        get_surveys("LSST"),
        n,
        njobs=processes,
        add_noise="all",
    )
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        batch = next(generator)
        calls.append((time.perf_counter() - begun, time.process_time() - used))
    assert batch.blend_images.shape == (n, 6, 120, 120)
    print(
        json.dumps(
            {
                "version": btk.__version__,
                "calls": calls,
                "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "process": time.perf_counter() - START,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "draw":
        draw(*sys.argv[2:])
    else:
        clock(sys.argv[2], *(int(a) for a in sys.argv[3:6]))
