"""Populations by name, for the command line and for records of what was learnt from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from diffdeblend.components.decoded import Frame
from diffdeblend.simulate import read_catalog, read_cosmos
from diffdeblend.simulate.cosmos import cosmos_files
from diffdeblend.train.catalogs import draw_catalog
from diffdeblend.train.galaxies import Galaxies, Mixture, Population
from diffdeblend.train.noisy_stamps import NoisyStamps, read_stamps
from diffdeblend.train.populations import BulgeDiscKnots, Irregulars, Sersics
from diffdeblend.train.real import draw_real

# What real galaxies lie within, by size, concentration, asymmetry, ellipticity and peak.
BROAD = "bulge_disc_knots=0.4,sersic=0.25,irregular=0.35"


def _catalog(file: str) -> Population:
    return partial(draw_catalog, read_catalog(file))


def _cosmos(folder: str) -> Population:
    # Without the file of the selection there are no cuts but those of the fits.
    cuts = "marginal" if len(cosmos_files(folder)) > 2 else "none"
    return partial(draw_real, read_cosmos(folder, kind="real", exclusion=cuts, taper=(5, 10)))


_PLAIN: dict[str, Callable[[], Population]] = {
    "bulge_disc": partial(BulgeDiscKnots, knots=(0.0, 0.0)),
    "bulge_disc_knots": BulgeDiscKnots,
    "irregular": Irregulars,
    "sersic": Sersics,
}
_OF_FILES: dict[str, Callable[[str], Population]] = {"catalog": _catalog, "cosmos": _cosmos}
ACCEPTED = (
    f"`broad`, {', '.join(f'`{word}`' for word in _PLAIN)}, `catalog:FILE`, `cosmos:FOLDER`, or "
    "several with shares, as `bulge_disc_knots=0.6,cosmos:FOLDER=0.4`; or `stamps:FILE` alone, "
    ".npz or .zarr"
)


def read_population(words: str, frame: Frame, n: int, seed: int) -> Galaxies | NoisyStamps:
    """Galaxies to learn from, by words.

    - `words`: one population, or several with commas, each with an equal share or `=SHARE`. `broad`
        stands for `BROAD`. `catalog:FILE` has shapes of CatSim or COSMOS, `cosmos:FOLDER` real
        images in GalSim's form.
    - `frame`, `n`, `seed`: of the galaxies drawn. `stamps:FILE` has a number of its own, and the
        noise of a survey.

    **Raises:** `ValueError` for a word that is not known, listing those that are, a share that is
    no positive number, or files that cannot be read.
    """
    if words.strip().startswith("stamps:"):
        return read_stamps(words.strip().removeprefix("stamps:"), frame)
    return draw_population(words, n, frame, seed)


def draw_population(words: str, n: int, frame: Frame, seed: int) -> Galaxies:
    """As `read_population`, of all words but `stamps:`."""
    return population_of(words)(n, frame, seed)


def population_of(words: str) -> Population:
    """The function that draws what words stand for.

    **Raises:** as `read_population`.
    """
    expanded = [part for word in words.split(",") for part in _broad(word.strip())]
    pairs = [_share(word) for word in expanded]
    populations = tuple(_one(word) for word, _ in pairs)
    return populations[0] if len(pairs) == 1 else Mixture(populations, tuple(s for _, s in pairs))


def _broad(word: str) -> list[str]:
    """The words that it stands for, with its share in all of them."""
    name, share = _share(word)
    if name != "broad":
        return [word]
    pairs = [_share(one) for one in BROAD.split(",")]
    return [f"{one}={share * part}" for one, part in pairs]


def _share(word: str) -> tuple[str, float]:
    name, sign, share = word.rpartition("=")
    # A path may have a sign of equality in it.
    if not sign or "/" in share or share.endswith((".fits", ".npz", ".zarr")):
        return word, 1.0
    try:
        number = float(share)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise ValueError(f"`population` needs a positive number after `=`; got {word!r}.")
    return name, number


def _one(word: str) -> Population:
    name, colon, file = word.partition(":")
    if not colon and name in _PLAIN:
        return _PLAIN[name]()
    if name == "stamps" and colon:
        raise ValueError(
            "`population`: stamps have noise, and are learnt from alone: `stamps:FILE`."
        )
    if colon and name in _OF_FILES:
        if not file or not Path(file).exists():
            raise ValueError(f"`population`: there is no file or folder {file!r}, of {word!r}.")
        return _OF_FILES[name](file)
    raise ValueError(f"`population` must be {ACCEPTED}; got {word!r}.")
