"""Learned priors as pictures: how they were learnt, and what they draw.

Needs matplotlib, of which no global state is touched.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from diffdeblend.panels import (
    COLOURS,
    INK,
    Canvas,
    in_rows,
    label_axes,
    page_of,
    panels,
    show_image,
)
from diffdeblend.priors import DecoderPrior, DenoiserPrior, ParametricPrior

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# From the brightest pixel down to this share of it, in powers of ten.
_DECADES = 4.0
# In a panel more points are but a blot.
_MOST_POINTS = 2000
_LABEL = {"fontsize": 9, "color": INK, "rotation": 90, "ha": "right", "va": "center"}


class Curves(Protocol):
    """What a training tells of its way: `TrainedDecoder` and `TrainedDenoiser` do."""

    @property
    def step(self) -> Int[np.ndarray, "report"]: ...
    @property
    def loss(self) -> Float[np.ndarray, "report"]: ...
    @property
    def validation_loss(self) -> Float[np.ndarray, "report"]: ...


def plot_training(trained: Curves, *, on: Canvas = None) -> "Figure":
    """Losses by step, of galaxies learnt from and of those held out.

    Of a decoder the information in the latents has a second panel.

    - `on`: a figure to draw in, axes to draw on, or None for a new figure.
    """
    curves = {"loss": (trained.loss, trained.validation_loss)}
    decoded: Any = trained
    if hasattr(trained, "information"):
        curves["information [nat]"] = (decoded.information, decoded.validation_information)
    axes = panels(on, [len(curves)], (4.6, 3.2))
    for panel, (name, pair) in zip(axes, curves.items(), strict=True):
        for values, word, colour in zip(pair, ("learnt from", "held out"), COLOURS, strict=False):
            panel.plot(trained.step, values, color=colour, label=word, marker=".")
        # The first reports are of what has learnt nothing yet, and would hide all others.
        late = np.concatenate([values[len(values) // 4 :] for values in pair])
        low, high = float(late.min()), float(late.max())
        margin = 0.1 * (high - low) or 1.0
        panel.set_ylim(low - margin, high + 2 * margin)
        label_axes(panel, "step", name)
    axes[0].legend(frameon=False, fontsize=8)
    return page_of(axes)


def plot_galaxies(
    groups: Mapping[str, Float[ArrayLike, "galaxy y x"]], *, columns: int = 10, on: Canvas = None
) -> "Figure":
    """Galaxies in rows, a group after the other, on a logarithmic scale.

    - `groups`: images of each, by a name that stands beside them. Each image is shown from its
        brightest pixel down to 1e-4 of that.
    - `columns`: galaxies in a row.
    - `on`: a figure to draw in, axes to draw on, one a galaxy, or None for a new figure.

    **Raises:** `ValueError` if there are none.
    """
    images = {name: np.asarray(own, float) for name, own in groups.items()}
    if not images or min(len(own) for own in images.values()) == 0:
        raise ValueError("`groups` needs at least one galaxy in each group.")
    rows = [n for own in images.values() for n in in_rows(len(own), columns)]
    axes = iter(drawn := panels(on, rows, (1.05, 1.05)))
    for name, own in images.items():
        for number, (panel, image) in enumerate(zip(axes, own, strict=False)):
            peak = max(float(np.nanmax(image)), np.finfo(float).tiny)
            shown = np.log10(np.maximum(image / peak, 10.0**-_DECADES))
            show_image(panel, shown, "", 8, cmap="magma", vmin=-_DECADES, vmax=0)
            if number % columns == 0:
                panel.text(-0.06, 0.5, name, transform=panel.transAxes, **_LABEL)
            if number == len(own) - 1:
                break
    return page_of(drawn)


def plot_samples(
    prior: DecoderPrior,
    images: Float[ArrayLike, "galaxy y x"] | None = None,
    *,
    n: int = 20,
    seed: int = 0,
    on: Canvas = None,
) -> "Figure":
    """Galaxies drawn from a prior, below some that it was learnt from. See `plot_galaxies`.

    - `images`: galaxies of the frame, of which some are shown, drawn at random.
    - `n`: how many of each; `seed`: of the draws.
    """
    groups: dict[str, Any] = {}
    if images is not None and len(given := np.asarray(images)):
        chosen = np.random.default_rng(seed).permutation(len(given))[:n]
        groups["learnt from"] = given[chosen]
    groups["samples"] = np.asarray(prior.decode(prior.sample(jax.random.key(seed), n)))
    return plot_galaxies(groups, on=on)


def plot_denoised(
    prior: DenoiserPrior,
    images: Float[ArrayLike, "galaxy y x"],
    *,
    sigma: float = 0.3,
    n: int = 10,
    seed: int = 0,
    on: Canvas = None,
) -> "Figure":
    """Galaxies, the same with noise, and what a denoiser makes of them. See `plot_galaxies`.

    - `images`: galaxies of the frame, of which `n` are shown, drawn at random by `seed`.
    - `sigma`: of the noise, on the scale of the prior's `transform`.
    """
    given = np.asarray(images, np.float32)
    rng = np.random.default_rng(seed)
    clean = jnp.asarray(given[rng.permutation(len(given))[:n]])
    noise = rng.normal(0, sigma, clean.shape).astype(np.float32)
    noisy = prior.transform.forward(clean) + noise
    mended = jax.vmap(prior.denoise, (0, None))(noisy, jnp.float32(sigma))
    groups = {
        "galaxies": clean,
        "with noise": prior.transform.inverse(noisy),
        "denoised": prior.transform.inverse(mended),
    }
    return plot_galaxies(groups, on=on)


def plot_features(
    prior: ParametricPrior,
    values: Float[ArrayLike, "galaxy feature"] | None = None,
    *,
    seed: int = 0,
    on: Canvas = None,
) -> "Figure":
    """What a mixture has learnt: each of its features, and each pair of them, in a triangle.

    Along the diagonal are densities; below, samples of the prior over the galaxies that it was
    learnt from. Data with errors are wider than the prior, which has them taken out.

    - `values`: features of galaxies, in the order of `prior.names`.
    - `seed`: of the samples, and of which galaxies are shown where there are thousands.
    - `on`: a figure to draw in, axes to draw on, row by row, or None for a new figure.

    **Raises:** `ValueError` for another number of features.
    """
    names, rng = prior.names, np.random.default_rng(seed)
    groups = {"samples": np.asarray(prior.sample(jax.random.key(seed), _MOST_POINTS), float)}
    if values is not None:
        given = np.asarray(values, float)
        if given.ndim != 2 or given.shape[1] != len(names) or not len(given):
            raise ValueError(
                f"`values` needs a row a galaxy of {len(names)} features; got {given.shape}."
            )
        groups = {"learnt from": given[rng.permutation(len(given))[:_MOST_POINTS]], **groups}
    everything = np.concatenate(list(groups.values()))
    # The wide component's few samples would leave no room for the others.
    low, high = np.quantile(everything, (0.005, 0.995), axis=0)
    low, high = low - 0.1 * (high - low) - 1e-6, high + 0.1 * (high - low) + 1e-6
    axes = panels(on, range(1, len(names) + 1), (1.9, 1.7))
    places = [(row, column) for row in range(len(names)) for column in range(row + 1)]
    for panel, (row, column) in zip(axes, places, strict=True):
        for (name, own), colour in zip(groups.items(), COLOURS, strict=False):
            if row == column:
                edges = np.linspace(low[row], high[row], 31)
                heights = np.histogram(own[:, row], edges)[0] / len(own)
                panel.stairs(heights, edges, color=colour, label=name)
            else:
                panel.plot(own[:, column], own[:, row], ".", color=colour, ms=1.5, alpha=0.4)
        panel.set_xlim(low[column], high[column])
        if row == column:
            panel.set_yticks([])
        else:
            panel.set_ylim(low[row], high[row])
        last, first = row == len(names) - 1, column == 0 and row > 0
        label_axes(panel, names[column] if last else "", names[row] if first else "")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.05, 1))
    return page_of(axes)
