"""Stores of stamps: drawn by our own renderer, and repeated by hard links to a million."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from settings import Settings

from diffdeblend.simulate import Blends, Catalog, Parts, Placed, get_survey, simulate
from diffdeblend.simulate import synthetic_catalog as population
from diffdeblend.stamps import Stamps, StampsHeader, write_stamps

# Stamps that share a PSF; and its pixels, beyond which 1 % of the light of a star lies.
_SHARE, _SIDE = 1024, 41
# Stamps that are drawn together.
_TOGETHER = 1024


@dataclass(frozen=True)
class Apart:
    """One to so many sources, some pixels from each other and in the middle of the stamp."""

    most: int
    least: float
    stamp: float
    pixel: float
    brightest: float
    faintest: float
    needs: tuple[str, ...] = ("magnitude",)

    def __call__(self, table: Any, rng: np.random.Generator) -> Placed:
        magnitude = np.asarray(table["magnitude"])
        rows = np.flatnonzero((magnitude > self.brightest) & (magnitude < self.faintest))
        n = int(rng.integers(1, self.most + 1))
        while True:
            x, y = rng.uniform(-0.25, 0.25, (2, n)) * self.stamp
            apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(n)
            if apart.min() > self.least * self.pixel:
                return Placed.of(rng.choice(rows, n), x, y)


def galaxies(settings: Settings) -> Catalog:
    """A population of the sky's magnitudes and colours; each galaxy one Sersic profile."""
    rng = np.random.default_rng([settings.seed, 1])
    table = population(20_000, rng).table
    n = len(table)
    size, one = np.clip(np.asarray(table["size"]), 0.15, 0.8), np.ones((n, 1))
    shear = np.clip(rng.normal(0, 0.15, (2, n, 1)), -0.4, 0.4)
    index = np.clip(rng.lognormal(np.log(1.5), 0.4, (n, 1)), 0.7, 4.0)
    table["size"] = size
    return Catalog(table, Parts(index, size[:, None], shear[0], shear[1], one))


def seeing(survey: Any, band: Any) -> Any:
    """Of one night and the next: widths differ by a few percent, and ellipticities."""
    import galsim

    def draw(rng: np.random.Generator) -> Any:
        width = band.psf_fwhm * np.clip(rng.normal(1, 0.06), 0.85, 1.2)
        g1, g2 = rng.normal(0, 0.02, 2)
        return galsim.Kolmogorov(fwhm=float(width)).shear(g1=float(g1), g2=float(g2))

    return draw


def draw_store(path: Path, settings: Settings) -> Path:
    """The stamps that are drawn, with what is known of them; whole or not at all."""
    if path.exists():
        return path
    survey = _survey(settings)
    scale = survey.pixel_scale
    sampling = Apart(
        settings.most,
        settings.least,
        settings.size * scale,
        scale,
        settings.brightest,
        settings.faintest,
    )
    catalog, parts = galaxies(settings), []
    for start in range(0, settings.n, _TOGETHER):
        blends = simulate(
            catalog,
            sampling,
            survey,
            min(_TOGETHER, settings.n - start),
            seed=settings.seed,
            start=start,
            stamp=settings.size * scale,
            psf_every=_SHARE,
        )
        parts.append(stamps_of(blends, start, settings))
        print(f"  {start + len(parts[-1])} of {settings.n} stamps drawn", flush=True)
    header = StampsHeader(
        settings.bands,
        (settings.size, settings.size),
        settings.n,
        settings.most,
        scale,
        tuple(map(float, survey.zero_points)),
        "electron",
    )
    temporary = path.with_name(f"{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    write_stamps(_joined(parts), header, temporary)
    temporary.rename(path)
    return path


def _survey(settings: Settings) -> Any:
    from dataclasses import replace

    survey = get_survey("LSST", psf=seeing)
    return replace(survey, bands=tuple(b for b in survey.bands if b.name in settings.bands))


def stamps_of(blends: Blends, first: int, settings: Settings) -> Stamps:
    """Simulated blends as stamps; start positions are the true ones, jittered."""
    n, most = blends.n_blends, settings.most
    truth = blends.truth
    lit = np.arange(most) < blends.n_sources[:, None]

    def padded(values: Any) -> np.ndarray:
        found = np.full((n, most), np.nan)
        found[lit] = np.asarray(values, float)
        return found

    rng = np.random.default_rng([settings.seed, 2, first])
    true = np.stack([padded(truth["x"]), padded(truth["y"])], axis=2)
    places = np.arange(first, first + n)
    psf = blends.psf_images
    cut = (psf.shape[2] - _SIDE) // 2
    psf = psf[:, :, cut : cut + _SIDE, cut : cut + _SIDE] if cut > 0 else psf
    return Stamps(
        first=first,
        id=places + 1,
        image=blends.images,
        variance=np.asarray(blends.variance, np.float32),
        position=true + rng.normal(0, settings.jitter, true.shape),
        source_id=np.where(lit, most * places[:, None] + np.arange(most) + 1, 0),
        psf=np.asarray(psf, np.float32),
        psf_index=blends.psf_index + first // _SHARE,
        psf_key=np.arange(len(psf)) + first // _SHARE,
        ra=10 + 0.1 * (places % 1024 // 32) / 32,
        dec=0.1 * (places // 1024) + 0.1 * (places % 32) / 32,
        truth={"x": true[..., 0], "y": true[..., 1]}
        | {f"flux_{band}": padded(truth[f"flux_{band}"]) for band in settings.bands},
    )


def _joined(parts: list[Stamps]) -> Stamps:
    def all_of(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    names = ("id", "image", "variance", "position", "source_id", "psf", "psf_index", "psf_key")
    return Stamps(
        first=0,
        **{name: all_of(name) for name in (*names, "ra", "dec")},
        truth={n: np.concatenate([p.truth[n] for p in parts]) for n in parts[0].truth},
    )


def repeat_store(small: Path, large: Path, times: int) -> Path:
    """The stamps of a store many times over: shards of images are hard links, and take no room.

    What tells stamps apart (`id`, `source_id`, `ra`, `dec`) is written anew.
    """
    import zarr

    if large.exists():
        return large
    temporary = large.with_name(f"{large.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    source: Any = zarr.open_group(str(small), mode="r")
    n = source["image"].shape[0]
    root: Any = zarr.open_group(str(temporary), mode="w-")
    root.attrs.update(dict(source.attrs) | {"finished": n * times})
    names = [name for name, _ in source.arrays()]
    names += [f"truth/{name}" for name, _ in source["truth"].arrays()]
    for name in names:
        folder = temporary / name
        if name in ("image", "variance"):
            (folder / "c").mkdir(parents=True)
            meta = json.loads((small / name / "zarr.json").read_text())
            shard = meta["chunk_grid"]["configuration"]["chunk_shape"][0]
            if n % shard:
                raise ValueError(f"`small` must hold whole shards of {shard} stamps; has {n}.")
            meta["shape"][0] = n * times
            (folder / "zarr.json").write_text(json.dumps(meta))
            for place in range(n // shard):
                for turn in range(times):
                    other = folder / "c" / str(place + turn * (n // shard))
                    shutil.copytree(small / name / "c" / str(place), other, copy_function=os.link)
            continue
        array = source[name]
        values = array[:]
        if name != "psf":
            values = np.concatenate([values] * times)
        if name == "id":
            values = np.arange(n * times) + 1
        if name == "source_id":
            most = values.shape[1]
            anew = np.arange(n * times * most).reshape(-1, most) + 1
            values = np.where(values > 0, anew, 0)
        if name == "ra":
            values = values + 0.1 * np.repeat(np.arange(times), n)
        with zarr.config.set({"array.write_empty_chunks": True}):
            made = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=array.chunks,
                shards=array.shards,
                compressors=array.compressors,
            )
            made[:] = values
    temporary.rename(large)
    return large


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
