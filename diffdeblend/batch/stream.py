"""More blends than memory holds: windows of them, one after the other."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.fit_batch import MANY, fit_batch
from diffdeblend.batch.results import Found

# What a blend takes beside its pixels: results and matrices, in bytes.
_BESIDES = 50_000
_LEAST = 16


def fit_stream(blends: Iterable[Blend], *, memory: float = 1e9, **settings: Any) -> Iterator[Found]:
    """`fit_batch` for any number of blends, which need not fit into memory together.

    Blends are taken from an iterator as they are needed, in windows of as many as `memory` allows;
    the results of each window are given back as it is finished, in the order of the blends. What is
    found does not depend on where one window ends.

    - `memory`: bytes that a window of blends and what is under way may take.
    - `settings`: as in `fit_batch`.

    **Raises:** as `fit_batch`.
    """
    source = iter(blends)
    window = list(islice(source, 1))
    while window:
        # A third each for the blends, their padded copies, and what is on its way.
        each = window[0].data.nbytes + window[0].weight.nbytes + _BESIDES
        room = max(_LEAST, int(memory / 3 / each))
        window += islice(source, room - len(window))
        # The same programs for all windows: the last one is short.
        settings.setdefault("fine", room >= MANY)
        yield fit_batch(window, memory=memory / 3, **settings)
        window = list(islice(source, 1))
