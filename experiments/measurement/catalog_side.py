"""A catalogue of labelled sources, in a process of its own: `catalog_side.py WHO FILE.npz REPEATS`.

WHO is `ours` or `photutils`; the file has `data`, `error` and `labels`. Columns: label, centroid,
semi-axes, angle, Kron radius, Kron flux and its error, apertures with the exact areas of pixels.
Prints JSON.
"""

import json
import os
import sys
import time
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

COLUMNS = ("label", "x_centroid", "y_centroid", "semimajor_axis", "semiminor_axis", "orientation")
COLUMNS += ("kron_radius", "kron_flux", "kron_flux_err")
# Of photutils before 3.0 and in 3.0.
OLDER = {"x_centroid": "xcentroid", "y_centroid": "ycentroid", "semimajor_axis": "semimajor_sigma"}
OLDER |= {"semiminor_axis": "semiminor_sigma", "kron_flux_err": "kron_fluxerr"}


def ours(data, error, labels):
    """The catalogue of this package."""
    from diffdeblend.measure import SourceCatalog
    from diffdeblend.segment import LabelImage

    catalog = SourceCatalog(data, LabelImage(labels), error=error)
    return {name: np.asarray(getattr(catalog, name)) for name in COLUMNS}


def photutils(data, error, labels):
    """That of photutils."""
    from photutils.segmentation import SegmentationImage, SourceCatalog

    catalog = SourceCatalog(data, SegmentationImage(labels), error=error)
    made = {}
    for name in COLUMNS:
        own = name if hasattr(type(catalog), name) else OLDER[name]
        values = getattr(catalog, own)
        made[name] = np.asarray(getattr(values, "value", values))
    return made


def main() -> None:
    who, path, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    with np.load(path) as file:
        inputs = file["data"], file["error"], file["labels"]
    run = {"ours": ours, "photutils": photutils}[who]
    wall, cpu, found = [], [], {}
    for _ in range(repeats):
        begun, busy = time.perf_counter(), time.process_time()
        found = run(*inputs)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - busy)
    if who == "ours":
        version = "ours"
    else:
        from photutils import __version__

        version = f"photutils {__version__}"
    if len(sys.argv) > 4:
        np.savez(sys.argv[4], **found)
    best = int(np.argmin(wall))
    print(
        json.dumps(
            {
                "version": version,
                "sources": len(found["label"]),
                "cold": wall[0],
                "cold_cpu": cpu[0],
                "warm": wall[best],
                "warm_cpu": cpu[best],
                "kron": float(np.nansum(found["kron_flux"])),
            }
        )
    )


if __name__ == "__main__":
    main()
