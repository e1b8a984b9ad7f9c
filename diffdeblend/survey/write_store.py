"""Stores of stamps, written shard by shard."""

from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.survey.layout import CHUNK, FORMAT, PSF, SHARD, TRUTH, VERSION
from diffdeblend.survey.stamps import Stamps, StampsHeader


def write_stamps(stamps: Stamps, header: StampsHeader, path: str | Path) -> Path:
    """Stamps as a store of their own: a Zarr folder, sharded."""
    import zarr
    from zarr.codecs import BloscCodec

    path = Path(path)
    root: Any = zarr.open_group(str(path), mode="w-")

    def put(name: str, values: np.ndarray, room: tuple[int, int] = (CHUNK, SHARD)) -> None:
        chunk, shard = room
        values = np.asarray(values)
        array = root.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(chunk, *values.shape[1:]),
            shards=(shard, *values.shape[1:]),
            compressors=BloscCodec(cname="zstd", shuffle="bitshuffle"),
        )
        array[:] = values

    with zarr.config.set({"array.write_empty_chunks": True}):
        for name in ("id", "position", "source_id", "psf_index", "ra", "dec", "cd", "crowded"):
            values = getattr(stamps, name)
            if values is not None:
                put(name, values, (16 * CHUNK, 16 * SHARD))
        for name in ("image", "variance", "mask"):
            if getattr(stamps, name) is not None:
                put(name, getattr(stamps, name))
        put(PSF, stamps.psf)
        for name, values in stamps.truth.items():
            put(f"{TRUTH}/{name}", values, (16 * CHUNK, 16 * SHARD))
    root.attrs.update(
        {
            "format": FORMAT,
            "version": VERSION,
            "bands": list(header.bands),
            "pixel_scale": header.pixel_scale,
            "zero_points": None if header.zero_points is None else list(header.zero_points),
            "unit": header.unit,
            "oversampling": header.oversampling,
        }
    )
    return path
