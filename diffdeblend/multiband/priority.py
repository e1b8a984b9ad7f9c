"""The order in which bands are trusted."""

from collections.abc import Iterable, Sequence


def checked_priority(priority: Sequence[str] | str | None, bands: Iterable[str]) -> tuple[str, ...]:
    """Names of bands, the most trusted first; a text such as `"irzyg"` is one letter a band.

    **Raises:** `ValueError` if there are none, one stands twice, or one is not among `bands`.
    """
    known = tuple(bands)
    names = (
        (priority,) if isinstance(priority, str) and priority in known else tuple(priority or ())
    )
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(
            f"`priority` must name bands among {known}, the most trusted first and each once; got "
            f"{priority!r}."
        )
    return names
