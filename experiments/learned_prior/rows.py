"""What does a learned prior add, where does it fail, and are its errors honest?

    python experiments/learned_prior/rows.py PRIOR [--real PRIOR --cosmos FOLDER] [--only WORD]

Both are what `decoder.py` wrote, the second one with real galaxies among what it learnt from.
`table.md` has a line for each figure, with the bar beside it. Blends are of seeds from 101 on,
which nothing was chosen on.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench import Bench, Line, Settings, limits, tables
from decoder import errors_in_frame
from score import coverage, image_error, median_error, relative, robust_pull, wins
from unusual import colours, detection, isolated, other_psfs

from diffdeblend.priors import DecoderPrior

HERE = Path(__file__).resolve().parent
# Ours, theirs, and what each was told of the places.
SCARLET = (
    ("decoder", "scarlet-like, true centre", "decoder told pixels, scarlet-like true centres"),
    ("decoder, true centre", "scarlet-like, true centre", "both told true centres"),
    ("decoder", "scarlet-like", "both told pixels"),
)
PEERS = tuple(
    (f"decoder{told}", f"{way}{told}", f"both told {words}")
    for told, words in (("", "pixels"), (", true centre", "true centres"))
    for way in ("Gaussians", "auto")
)


def in_domain(bench: Bench) -> list[Line]:
    """Galaxies such as the prior has learnt."""
    lines = []
    for way in ("decoder", "decoder, true centre"):
        found = bench.typical("A", way)
        lines.append(Line(f"A: median abs(dF/F), {way}", f"{found:.4f}", "0.048", found <= 0.048))
    for ours, theirs, told in SCARLET:
        flux, image = bench.against("A", ours, theirs)
        assert image is not None
        what = f"below that of scarlet-like; {told}"
        met = flux.value >= 0.2 and flux.low > 0
        lines.append(Line(f"A: flux error {what}", limits(flux), "20 %, limit above 0", met))
        met = image.value >= 0.3 and image.low > 0
        lines.append(Line(f"A: relMSE {what}", limits(image), "30 %, limit above 0", met))
    for ours, told in (("decoder", "pixels"), ("decoder, true centre", "true centres")):
        flux, image = bench.against("A", ours, "symmetry, true centre")
        what = f"A: flux error below that of symmetry, it told true centres, decoder {told}"
        met = flux.value >= 0.6 and flux.low > 0
        lines += [Line(what, limits(flux), "60 %", met), Line("the same, relMSE", limits(image))]
    for ours, theirs, told in PEERS:
        flux, image = bench.against("A", ours, theirs)
        what = f"A: flux error; relMSE below those of {theirs.split(',')[0]}, {told}"
        lines.append(Line(what, f"{limits(flux)}; {limits(image)}"))
    for ours, theirs, told in SCARLET:
        share = wins(*(np.abs(bench.error("A", way)) for way in (ours, theirs)))
        what = f"A: sources nearer the truth than scarlet-like; {told}"
        lines.append(Line(what, f"{100 * share:.0f} %"))
    return lines


def on_and_off(bench: Bench) -> list[Line]:
    """The same network with the prior and without."""
    blends = bench.blends("A")
    on, off = bench.by("A", "decoder"), bench.by("A", "decoder, no prior")
    flux, image = bench.against("A", "decoder", "decoder, no prior")
    assert image is not None
    assert on.images is not None
    assert off.images is not None
    mean = [np.mean(image_error(images, blends.truth)) for images in (on.images, off.images)]
    return [
        Line("A: relMSE, prior on against off", limits(image), "25 %", image.value >= 0.25),
        Line("A: flux error, on against off", limits(flux), "8 %", flux.value >= 0.08),
        Line(
            "A: mean relMSE, on and off",
            f"{mean[0]:.4f}, {mean[1]:.4f}",
            "halved",
            bool(mean[0] <= 0.5 * mean[1]),
        ),
    ]


def by_brightness(bench: Bench) -> list[Line]:
    """Faint and bright blends, near and far ones."""
    blends, lines = bench.blends("A"), []
    snr, apart = blends.snr, blends.apart
    for what, chosen, bar in (
        ("S/N below 80", snr < 80, 0.06),
        ("S/N above 150", snr > 150, 0.032),
        ("nearer than 5 pixels", apart < 5, None),
        ("5 to 7 pixels", (apart >= 5) & (apart < 7), None),
        ("farther than 7 pixels", apart >= 7, None),
    ):
        parts = [
            median_error(bench.error("A", way)[chosen])
            for way in ("decoder", "scarlet-like, true centre", "Gaussians", "auto")
        ]
        text = f"{parts[0]:.4f} ({', '.join(f'{p:.4f}' for p in parts[1:])})"
        lines.append(
            Line(
                f"A: {what} (scarlet-like with true centre, Gaussians, auto)",
                text,
                "" if bar is None else f"{bar}",
                None if bar is None else parts[0] <= bar,
            )
        )
    return lines


def bias(bench: Bench) -> list[Line]:
    """Fluxes too high or too low, and the sum of both."""
    lines = []
    for name, bar, bar_sum in (
        ("A", 0.01, 0.012),
        ("S", None, None),
        ("C", None, None),
        ("T", None, None),
    ):
        if name not in bench.chosen:
            continue
        blends, found = bench.blends(name), bench.by(name, "decoder")
        middle = float(np.median(bench.error(name, "decoder")))
        lines.append(
            Line(
                f"{name}: median dF/F",
                f"{middle:+.4f}",
                "" if bar is None else f"{bar}",
                None if bar is None else abs(middle) <= bar,
            )
        )
        both = relative(*(v[..., 0].sum(axis=1) for v in (found.flux, blends.flux)))
        both = median_error(both[blends.snr > 100])
        lines.append(
            Line(
                f"{name}: flux of both, S/N above 100",
                f"{both:.4f}",
                "" if bar_sum is None else f"{bar_sum}",
                None if bar_sum is None else both <= bar_sum,
            )
        )
    return lines


def shifted(bench: Bench) -> list[Line]:
    """Galaxies of other kinds."""
    lines = []
    for name in [name for name in ("S", "C", "T") if name in bench.chosen]:
        for ours, theirs, told in SCARLET:
            own, peer = bench.typical(name, ours), bench.typical(name, theirs)
            what = f"{name}: flux error of decoder and scarlet-like; {told}"
            flux, image = bench.against(name, ours, theirs)
            text = f"{own:.4f}, {peer:.4f}; below by {limits(flux)}; relMSE by {limits(image)}"
            if name == "S":
                lines.append(Line(what, text, "1.05 x", own <= 1.05 * peer))
            else:
                lines.append(Line(what, text, "0.07, 0.8 x", own <= min(0.07, 0.8 * peer)))
        for ours, theirs, told in PEERS:
            flux, image = bench.against(name, ours, theirs)
            own, peer = bench.typical(name, ours), bench.typical(name, theirs)
            what = f"{name}: flux error of decoder and {theirs.split(',')[0]}; {told}"
            text = f"{own:.4f}, {peer:.4f}; below by {limits(flux)}; relMSE by {limits(image)}"
            lines.append(Line(what, text))
    return lines


def calibration(bench: Bench) -> list[Line]:
    """Errors of fluxes in the frame from the Gauss-Newton matrix at the most probable point."""
    lines = []
    for name in bench.chosen:
        for way in ("decoder", "decoder with fallback", "Gaussians", "auto"):
            found, true = bench.by(name, way), bench.blends(name).flux
            sigma = errors_in_frame(found)
            inside = coverage(found.flux, sigma, true)
            _, width = robust_pull(found.flux, sigma, true)
            judged = (name, way) == ("A", "decoder")
            met = 0.58 <= inside[0.68] <= 0.78 and 0.83 <= inside[0.95] <= 0.98
            text = ", ".join(f"{100 * v:.1f}" for v in inside.values()) + f"; {width:.2f}"
            lines.append(
                Line(
                    f"{name}, {way}: coverage of 50, 68, 95, 99.7 %; width of pulls",
                    text,
                    "68: 58-78, 95: 83-98" if judged else "",
                    met if judged else None,
                )
            )
    return lines


PARTS: dict[str, Callable[[Bench], list[Line]]] = {
    "in domain": in_domain,
    "prior on and off": on_and_off,
    "brightness": by_brightness,
    "bias": bias,
    "shift": shifted,
    "detection": detection,
    "calibration": calibration,
    "psf": other_psfs,
    "isolated": isolated,
    "colours": colours,
}
# Of the prior that has seen real galaxies.
AGAIN = ("in domain", "bias", "shift", "detection", "calibration")


def judged(bench: Bench, names: tuple[str, ...], with_tables: bool) -> list[str]:
    """The tables and lines of one prior."""
    lines = []
    if with_tables:
        lines += tables(bench)
        print("\n".join(lines), flush=True)
    lines += ["| what | figure | bar | met |", "|---|---|---|---|"]
    for name in names:
        new = [line.text() for line in PARTS[name](bench)]
        print("\n".join(new), flush=True)
        lines += new
    return lines


def main() -> None:
    from diffdeblend.io import load_prior

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--cosmos", type=Path)
    parser.add_argument("--only", choices=(*PARTS, "tables"))
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--n", type=int, default=Settings.n)
    given = parser.parse_args()
    lines, bench = [], None
    for file, head in ((given.prior, "made-up galaxies alone"), (given.real, "real ones, too")):
        if file is None:
            continue
        prior = load_prior(file)
        assert isinstance(prior, DecoderPrior)
        settings = Settings(seed=given.seed, n=given.n)
        names = tuple(PARTS) if bench is None else AGAIN
        bench = Bench(prior, given.cosmos, settings, bench)
        names = tuple(name for name in names if given.only in (None, name))
        lines += [f"# A prior learnt from {head}", ""]
        lines += [*judged(bench, names, given.only in (None, "tables")), ""]
        if given.only is None:
            # What there is, should the rest fail.
            (HERE / "table.md").write_text("\n".join(lines).rstrip() + "\n")
    if given.cosmos is None:
        print("Real galaxies (sets C and T) were not there.")


if __name__ == "__main__":
    main()
