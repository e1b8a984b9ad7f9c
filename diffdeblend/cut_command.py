"""What `diffdeblend cut` does, once the command line is understood."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.batch.cut import cut_blends
from diffdeblend.batch.image import find
from diffdeblend.commands import read_exposure, warnings_in_a_line
from diffdeblend.exposure import Exposure
from diffdeblend.io.npz import read_npz_positions
from diffdeblend.io.positions import read_ids, read_positions
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.stamps.check_store import check_format
from diffdeblend.stamps.cut_stamps import header_of_cut, stamps_of_cut
from diffdeblend.stamps.write_store import StampWriter

# Numbers of sources that are looked at at a time.
_BLOCK = 65536


def run_cut(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend cut`: read, detect, cut, write, print.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        files = [Path(name) for name in chosen.input]
        if not files:
            raise ValueError("INPUT is missing; give an image, before all options.")
        if chosen.append and chosen.overwrite:
            raise ValueError("--append and --overwrite contradict each other; give one of them.")
        if chosen.size < 8:
            raise ValueError(f"--size must be at least 8; got {chosen.size}.")
        path, names = Path(chosen.output), [str(file.absolute()) for file in files]
        known = _known(path, chosen)
        if names in known["images"]:
            print(f"{path} has the stamps of {', '.join(chosen.input)} already")
            return
        progress.begin("read")
        exposure = read_exposure(files, chosen)
        if chosen.positions is None and files[0].suffix.lower() != ".npz":
            progress.begin("detect")
        positions, ids, off = _sources(files, exposure, chosen)
        if positions is None:
            progress.end()
            print(f"no sources in {', '.join(chosen.input)}; nothing is written")
            return
        progress.begin("cut")
        if ids is None:
            ids = known["last_id"] + 1 + np.arange(_count(positions))
        options: dict[str, Any] = {"max_sources": chosen.max_sources, "max_size": chosen.size}
        blends = cut_blends(exposure, positions, **options)
        progress.begin("write")
        header = header_of_cut(exposure, chosen.size, blends)
        begun: dict[str, Any] = {"images": [], "whole": 0}
        if chosen.overwrite and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        keep = known["stamps"] if path.exists() else None
        with StampWriter(path, header, append=True, attributes=begun, keep=keep) as writer:
            runs = stamps_of_cut(
                blends,
                exposure,
                size=chosen.size,
                source_id=ids,
                psf_shape=known["psf_shape"],
                first=known["stamps"],
            )
            for stamps in runs:
                writer.append(stamps)
            # With the last stamps: an image counts once it is whole.
            writer.close({"images": [*known["images"], names], "whole": writer.n_stamps})
        progress.end()
    n_sources = sum(blend.n_sources for blend in blends)
    crowded = sum(blend.crowded for blend in blends)
    print(
        f"{len(blends)} stamps of {chosen.size} x {chosen.size} pixels with {n_sources} sources in "
        f"{','.join(exposure.bands)}; {crowded} are crowded"
    )
    if off:
        print(f"{off} position{' is' if off == 1 else 's are'} off the image")
    print(f"written to {path}, which has {writer.n_stamps} stamps")


def _known(path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """What is in the store already: images, stamps of whole ones, the last number of a source.

    **Raises:** `ValueError` if there is something, and it is not to be added to.
    """
    nothing = {"images": [], "stamps": 0, "last_id": 0, "psf_shape": None}
    # What is replaced is taken away once there is something to put in its place.
    if not path.exists() or chosen.overwrite:
        return nothing
    if not chosen.append:
        raise ValueError(f"-o: {str(path)!r} exists; see --append and --overwrite.")
    root = check_format(path)
    # Of a store that was not made by this command, all stamps count.
    stamps = int(root.attrs.get("whole", 0 if "images" in root.attrs else root.attrs["finished"]))
    if not stamps or "psf" not in root:
        return nothing
    size = root["image"].shape[2:]
    if size != (chosen.size, chosen.size):
        raise ValueError(
            f"--size must be {size[1]}, as in the store; got {chosen.size}."
            if size[0] == size[1]
            else f"-o: {str(path)!r} has stamps of {size[1]} x {size[0]} pixels, not square ones."
        )
    last = 0
    if "source_id" in root:
        blocks = (
            root["source_id"][low : min(low + _BLOCK, stamps)] for low in range(0, stamps, _BLOCK)
        )
        last = max(int(block.max()) for block in blocks)
    return {
        "images": root.attrs.get("images", []),
        "stamps": stamps,
        "last_id": last,
        "psf_shape": root["psf"].shape[2:],
    }


def _sources(
    files: list[Path], exposure: Exposure, chosen: argparse.Namespace
) -> tuple[Any, np.ndarray | None, int]:
    """Positions or detections, None if there are no sources; their ids; how many were off."""
    ids = None
    if chosen.positions is not None:
        found = read_positions(chosen.positions, exposure.header)
        ids = read_ids(chosen.positions)
    elif files[0].suffix.lower() == ".npz" and len(read_npz_positions(files[0])):
        found = read_npz_positions(files[0])
    else:
        detected = find(exposure)
        return (detected if detected.n_sources else None), None, 0
    ny, nx = exposure.shape
    there = ((found >= -0.5) & (found <= (nx - 0.5, ny - 0.5))).all(axis=1)
    off = int((~there).sum())
    if not there.any():
        return None, None, off
    return found[there], None if ids is None else ids[there], off


def _count(positions: Any) -> int:
    return len(positions) if isinstance(positions, np.ndarray) else positions.n_sources
