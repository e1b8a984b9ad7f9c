"""Draws the medians of `table.md`.

python experiments/learned_prior/figure.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
REAL = "decoder, also of real galaxies"
WAYS = ("scarlet-like", "Gaussians", "auto", "decoder", REAL)


def medians(text: str) -> dict[str, dict[str, float]]:
    """For each set the median flux error of each way."""
    found: dict[str, dict[str, float]] = {}
    real, own = False, None
    for line in text.splitlines():
        if line.startswith("# "):
            real, own = "real" in line, None
        elif line.startswith("Set "):
            own = found.setdefault(line[4], {})
        elif line.startswith("| what"):
            own = None
        elif own is not None and line.startswith("| ") and not line.startswith("| way"):
            way, value = (cell.strip() for cell in line.split("|")[1:3])
            if real and "decoder" in way:
                own[way.replace("decoder", REAL)] = float(value)
            elif not real:
                own[way] = float(value)
    return found


def main() -> None:
    found = medians((HERE / "table.md").read_text())
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for ax, told in zip(axes, ("", ", true centre"), strict=True):
        for i, way in enumerate(WAYS):
            heights = [100 * found[name].get(way + told, float("nan")) for name in found]
            places = [k + 0.16 * (i - 2) for k in range(len(found))]
            ax.bar(places, heights, 0.15, label=way)
        ax.set_xticks(range(len(found)), list(found))
        ax.set_title("true centres told" if told else "nearest pixels told")
        ax.set_xlabel("set of blends")
    axes[0].set_ylabel("median |dF/F|, %")
    axes[1].legend(frameon=False, fontsize="small")
    figure.savefig(HERE / "figure.png", dpi=110)


if __name__ == "__main__":
    main()
