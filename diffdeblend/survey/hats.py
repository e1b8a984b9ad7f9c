"""A run's catalogue in HATS, the format that LSDB reads: sources divided by their places."""

import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path

from diffdeblend.survey.catalog import Merged, check_free, merge_parts

# More rows than this in a pixel of the sky are divided further.
_PIXEL_ROWS = 1_000_000
# Rows in memory at a time.
_CHUNK = 100_000


def write_hats(
    out: str | Path,
    path: str | Path,
    *,
    allow_missing: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    pixel_rows: int = _PIXEL_ROWS,
) -> Merged:
    """All sources of a run as a HATS catalogue, a folder; by the package `hats-import`.

    - `out`: folder of the run. `path`: of the catalogue; its last part is the catalogue's name.
    - `allow_missing`, `overwrite`: as in `merge_parts`.
    - `workers`: threads. `pixel_rows`: the most rows of one pixel of the sky.

    The folder is there whole or not at all.

    **Raises:** `ImportError` without `hats-import`. `ValueError` as `merge_parts`, and for sources
    whose places on the sky are not known.
    """
    if find_spec("hats_import") is None:
        raise ImportError(
            "HATS catalogues are made by the package hats-import: pip install hats-import."
        )
    import pyarrow.parquet as pq
    from dask.distributed import Client
    from hats_import import (  # pyright: ignore[reportMissingImports]
        ImportArguments,
        pipeline_with_client,
    )
    from hats_import.catalog.file_readers import (  # pyright: ignore[reportMissingImports]
        ParquetPyarrowReader,
    )

    path = Path(path).absolute()
    if not (path.is_dir() and overwrite):
        check_free(path, overwrite)
    # Beside it: a rename is atomic only within one file system.
    room = path.parent / f".{uuid.uuid4().hex}-{path.name}"
    room.mkdir()
    try:
        file = room / "sources.parquet"
        merged = merge_parts(out, file, allow_missing=allow_missing)
        if not {"ra", "dec"} <= set(pq.read_schema(file).names):
            raise ValueError(
                f"`out`: {str(out)!r} has no places on the sky, which HATS goes by: its store "
                "lacks ra, dec, or both cd and a pixel scale."
            )
        if not merged.rows:
            raise ValueError(f"`out`: {str(out)!r} has no sources.")
        arguments = ImportArguments(
            output_path=room / "made",
            output_artifact_name=path.name,
            input_file_list=[file],
            file_reader=ParquetPyarrowReader(chunksize=_CHUNK),
            use_schema_file=file,
            expected_total_rows=merged.rows,
            pixel_threshold=pixel_rows,
            sort_columns="stamp_id",
            progress_bar=False,
        )
        with Client(
            processes=False, n_workers=1, threads_per_worker=workers, dashboard_address=":0"
        ) as client:
            pipeline_with_client(arguments, client)
        if path.is_dir():
            shutil.rmtree(path)
        (room / "made" / path.name).rename(path)
    finally:
        shutil.rmtree(room)
    return Merged(path, merged.rows, merged.n_stamps, merged.n_missing, merged.status)
