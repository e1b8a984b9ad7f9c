"""Columns of a wide catalogue by wildcards."""

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any


def matching_columns(table: Any, *patterns: str) -> list[str]:
    """Names of the columns that fit any of the patterns, each once.

    - `table`: an astropy table, or anything with `colnames`; a mapping, or a list of names.
    - `patterns`: `*` stands for any letters, `?` for one, `[gri]` for one of these; capital
        letters are as small ones. In the order of the patterns, and of the table within each.

    **Raises:** `ValueError` for a pattern that fits no column.
    """
    names = [str(name) for name in getattr(table, "colnames", table)]
    found: dict[str, None] = {}
    for pattern in patterns:
        fitting = [name for name in names if fnmatchcase(name.lower(), str(pattern).lower())]
        if not fitting:
            near = get_close_matches(str(pattern).strip("*?").lower(), names, n=5, cutoff=0.4)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise ValueError(
                f"`patterns`: {pattern!r} fits none of the {len(names)} columns{hint}."
            )
        found |= dict.fromkeys(fitting)
    return list(found)


def select_columns(table: Any, *patterns: str) -> Any:
    """A table with the columns that fit any of the patterns, as `select_columns(t, "*kron*")`.

    See `matching_columns`. Of a mapping a dictionary comes back.

    **Raises:** `ValueError` for a pattern that fits no column.
    """
    names = matching_columns(table, *patterns)
    return {name: table[name] for name in names} if isinstance(table, Mapping) else table[names]
