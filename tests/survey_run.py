"""Stamps, fits and runs of them with made-up numbers: what rows and catalogues are made of."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from diffdeblend.batch import Found
from diffdeblend.batch.decoded_results import FoundDecoded
from diffdeblend.fit.uncertainty import Covariance
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.stamps.stamps import Stamps, StampsHeader
from diffdeblend.survey.parts import Run, part_about, write_part
from diffdeblend.survey.rows import rows_of

HEADER = StampsHeader(("g", "r"), (24, 20), 12, 3, 0.2, (30.0, 31.0), "nJy")
COUNTS = (1, 2, 3, 0, 2, 1, 3, 3, 0, 1, 2, 1)


def make_stamps(header=HEADER, counts=COUNTS, seed=0, *, cd=False, sky=True, truth=True):
    """Stamps of noise, with so many sources each."""
    rng = np.random.default_rng(seed)
    n, most, (ny, nx) = len(counts), header.most_sources, header.shape
    position = rng.uniform(5, 15, (n, most, 2))
    position[np.arange(most) >= np.array(counts)[:, None]] = np.nan
    known = {"flux_r": rng.uniform(1, 9, (n, most)), "x": position[..., 0]} if truth else {}
    turned = np.array([[-4e-5, 3e-5], [3e-5, 4.2e-5]])
    return Stamps(
        first=0,
        id=1000 + np.arange(n),
        image=rng.normal(size=(n, header.n_bands, ny, nx)).astype(np.float32),
        variance=np.ones((n, header.n_bands), np.float32),
        position=position,
        source_id=np.arange(n * most).reshape(n, most) + 7,
        psf=np.ones((1, header.n_bands, 3, 3), np.float32) / 9,
        psf_index=np.zeros(n, int),
        psf_key=np.zeros(1, int),
        ra=np.linspace(359.9999, 360.0001, n) % 360 if sky else None,
        dec=np.linspace(-60, 80, n) if sky else None,
        cd=np.stack([turned * (1 + 0.1 * k) for k in range(n)]) if cd else None,
        truth=known,
    )


def make_covariance(rng, n_bands, stacks, n_slots, n_sky=1, dtype=np.float32):
    """Of a fit whose unknowns are made up; shapes `(size, numbers)` of its `stacks`."""
    n_shape = sum(size * numbers for size, numbers in stacks)
    n_linear = n_slots + n_sky + 2
    half = rng.normal(size=(n_bands, n_linear, n_linear))
    wide = rng.normal(size=(n_shape, n_shape))
    free = Unknowns(
        shape=tuple(np.ones(of, dtype) for of in stacks),
        image=tuple(np.ones((size, 0), dtype) for size, _ in stacks),
        flux=np.ones((n_slots, n_bands), dtype),
        sky=np.ones((n_bands, n_sky), dtype),
        dx=np.zeros(n_bands, dtype),
        dy=np.zeros(n_bands, dtype),
    )
    return Covariance(
        shape=(wide @ wide.T).astype(dtype),
        alone=(half @ half.transpose(0, 2, 1)).astype(dtype),
        response=rng.normal(size=(n_bands, n_linear, n_shape)).astype(dtype),
        free=free,
        n_effective=np.zeros((), dtype),
    )


def make_found(counts, n_bands=2, seed=0, *, kinds=None, covariance=True, n_sky=1):
    """A fit of blends of so many sources, with made-up numbers."""
    rng = np.random.default_rng(seed)
    n, n_blends = sum(counts), len(counts)
    kind = rng.integers(0, 3, n) if kinds is None else np.asarray(kinds)
    first = np.concatenate([[0], np.cumsum(counts)])
    one = {name: rng.uniform(0.5, 2, n) for name in ("radius", "index")}
    one |= {name: rng.uniform(0.5, 2, n) for name in ("radius_ratio", "shear_ratio")}
    one |= {name: rng.uniform(5, 15, n) for name in ("x", "y")}
    one |= {"ellipticity": rng.uniform(-0.3, 0.3, (n, 2))}
    one |= {"flux": rng.uniform(1, 90, (n, n_bands)), "bulge_flux": rng.random((n, n_bands))}
    errors = {f"{name}_err": rng.uniform(0.1, 1, values.shape) for name, values in one.items()}
    made = [None] * n_blends
    if covariance:
        # Padded to different sizes, as buckets are.
        room = [(count + b % 2, 2 * (count + b % 2)) for b, count in enumerate(counts)]
        made = [make_covariance(rng, n_bands, [(size, 4)], slots, n_sky) for size, slots in room]
    return Found(
        **one | errors,
        bands=n_bands,
        first=first,
        blend=np.repeat(np.arange(n_blends), counts),
        row=np.arange(n),
        kind=kind,
        contest=np.full(n, np.nan),
        flags=rng.integers(0, 300, n),
        sky=rng.normal(size=(n_blends, n_bands, n_sky)),
        chi2=rng.uniform(400, 500, (n_blends, n_bands)),
        n_pixels=np.full((n_blends, n_bands), 480),
        value=rng.random(n_blends),
        steps=rng.integers(3, 9, n_blends),
        converged=np.ones(n_blends, bool),
        finite=np.ones(n_blends, bool),
        covariance=made,
        images=[None] * n_blends,
        origin=np.zeros((n_blends, 2), int),
    )


def make_decoded(counts, decoded, n_latent, n_bands=2, seed=0):
    """The same of a prior's galaxies: `decoded` says of each source whether it is one."""
    rng = np.random.default_rng(seed + 1)
    found = make_found(counts, n_bands, seed, covariance=False)
    n, decoded = len(found.x), np.asarray(decoded)
    found.kind = np.where(decoded, -1, found.kind)
    for b, count in enumerate(counts):
        size = count + 1
        mixed = not decoded[found.rows(b)].all()
        stacks = [(size, 2 + n_latent), *([(size, 7)] if mixed else [])]
        slots = 3 * size if mixed else size
        found.covariance[b] = make_covariance(rng, n_bands, stacks, slots)
    known = np.where(decoded, 1, np.nan)[:, None]
    return FoundDecoded(
        **vars(found),
        decoded=decoded,
        latent=rng.normal(size=(n, n_latent)) * known,
        latent_err=rng.random((n, n_latent)) * known,
        latent_norm=rng.random(n),
        latent_quantile=rng.random(n),
        own_chi2=rng.random(n),
        own_quantile=rng.random(n),
        decoder_log_odds=np.full(n, np.nan),
    )


def make_table(stamps, header=HEADER, seed=0, failed=(), **options):
    """Rows of stamps whose numbers are made up; those at places `failed` have none."""
    counts = stamps.n_sources()
    fitted = [p for p in range(len(stamps)) if counts[p] and p not in failed]
    found = []
    if fitted:
        fit = make_found(counts[fitted].tolist(), header.n_bands, seed + stamps.first)
        found = [(fitted, fit)]
    status = ["ok" if n else "no_sources" for n in counts]
    error = [""] * len(stamps)
    for place in failed:
        status[place], error[place] = "failed", f"RuntimeError: no luck with {place}, at all"
    how = {"covariance": True, "n_latent": None} | options
    return rows_of(stamps, header, found, status, error, **how)


def make_run(folder: Path, header=HEADER, size=4, stamps=None, failed=(), runs=None, **options):
    """A run's folder with its manifest and parts; returns the rows as one table.

    - `size`: stamps of a part. `failed`: places of stamps. `runs`: instead, as `(start, stop)`.
    """
    import pyarrow as pa

    stamps = make_stamps(header) if stamps is None else stamps
    header = replace(header, n_stamps=len(stamps))
    manifest = {
        "format": "diffdeblend survey run",
        "version": 1,
        "store": {"path": "stamps.zarr", "sha256": "ab" * 32, "header": asdict(header)},
        "settings": {"model": "point", "prior": None, "covariance": True},
        "settings_sha256": "cd" * 32,
        "versions": {"diffdeblend": "0"},
        "created": "2020-01-01T00:00:00+00:00",
    }
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    table = make_table(stamps, header, failed=failed, **options)
    given = runs or [(s, min(s + size, len(stamps))) for s in range(0, len(stamps), size)]
    for start, stop in given:
        part = table.slice(start, stop - start)
        write_part(part, folder, Run(start, stop), part_about(manifest))
    return pa.table(table)


def counted(words):
    """How often each comes."""
    return dict(Counter(words))
