"""Scenes in files: a line of JSON that says what is there, then the numbers."""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import jax
import numpy as np

from diffdeblend import __version__
from diffdeblend.background import (
    ConstantBackground,
    MeshBackground,
    PolynomialBackground,
    SplineBackground,
)
from diffdeblend.components import (
    AnySource,
    AnyStack,
    BulgeDisc,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    MultiGaussian,
    Pixels,
    PointSource,
    Sersic,
    Stack,
)
from diffdeblend.exposure import Header
from diffdeblend.io.files import whole_file
from diffdeblend.scene import Scene

FORMAT = "diffdeblend scene"
# To be raised when files of the new form cannot be read by older code.
FORMAT_VERSION = 1

# Classes that a file may name. Nothing else is ever made from a name in a file.
KNOWN: Mapping[str, type[eqx.Module]] = {
    known.__name__: known
    for known in (
        Scene,
        Stack,
        AnySource,
        AnyStack,
        BulgeDisc,
        DeVaucouleurs,
        Exponential,
        Gaussian,
        MultiGaussian,
        Pixels,
        PointSource,
        Sersic,
        ConstantBackground,
        MeshBackground,
        PolynomialBackground,
        SplineBackground,
    )
}
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")
# A head is a few kilobytes; without a limit a foreign file would be read as one line.
_LONGEST_HEAD = 16 * 2**20


def save_scene(
    scene: Scene,
    path: str | os.PathLike,
    header: Header | None = None,
    *,
    classes: Sequence[type[eqx.Module]] = (),
) -> None:
    """Write a scene to a file that `load_scene` reads, exact to the last bit.

    The first line is JSON: format, version, structure of the scene, and the names and zero points
    of the bands if `header` is given. The arrays follow in the order of the structure, each as
    NumPy's own format has it. The file appears whole or not at all.

    - `classes`: components and backgrounds of your own.

    **Raises:** `ValueError` if the scene holds something that cannot be described.
    """
    structure = _describe(scene, _known(classes), "scene")
    payload = io.BytesIO()
    eqx.tree_serialise_leaves(payload, scene)
    numbers = payload.getvalue()
    head = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "diffdeblend": __version__,
        "bands": None if header is None else list(header.bands),
        "zero_points": (
            None if header is None or header.zero_points is None else list(header.zero_points)
        ),
        "unit": None if header is None else header.unit,
        "bytes": len(numbers),
        "sha256": hashlib.sha256(numbers).hexdigest(),
        "scene": structure,
    }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(head, allow_nan=False).encode() + b"\n")
        file.write(numbers)


def load_scene(
    path: str | os.PathLike, *, classes: Sequence[type[eqx.Module]] = ()
) -> tuple[Scene, dict[str, Any]]:
    """A scene from a file of `save_scene`, and the file's head.

    The head has `bands`, `zero_points` and `unit`, None where they were not given. Nothing in the
    file is run: classes are looked up in `KNOWN` and `classes`, and pickles are refused.

    **Raises:** `ValueError` for a file that is missing, of another kind, of a newer version, cut
    short or damaged, or that needs float64 while JAX has it switched off.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEAD)
        numbers = file.read()
    head = _head(line, path)
    if head["version"] > FORMAT_VERSION:
        raise ValueError(
            f"`path`: {str(path)!r} is of version {head['version']} of the format, made by "
            f"diffdeblend {head.get('diffdeblend')}; this one reads up to {FORMAT_VERSION}. Update."
        )
    if len(numbers) < head.get("bytes", 0):
        raise ValueError(
            f"`path`: {str(path)!r} is cut short: {len(numbers)} bytes of {head['bytes']}."
        )
    if hashlib.sha256(numbers).hexdigest() != head.get("sha256"):
        raise ValueError(f"`path`: {str(path)!r} is damaged: its checksum does not fit.")
    try:
        template = _rebuild(head.get("scene"), _known(classes), "scene")
        if not isinstance(template, Scene):
            _refuse("scene", "is no Scene")
        payload = io.BytesIO(numbers)
        scene = eqx.tree_deserialise_leaves(payload, template)
    except ValueError as error:
        raise ValueError(f"`path`: {str(path)!r}: {error}") from error
    # equinox checks shapes and types of the leaves by raising RuntimeError.
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"`path`: {str(path)!r} has arrays that its head does not announce: {error}"
        ) from error
    if payload.read(1):
        raise ValueError(f"`path`: {str(path)!r} has more arrays than its head announces.")
    return scene, head


def _known(classes: Sequence[type[eqx.Module]]) -> dict[str, type[eqx.Module]]:
    return {**KNOWN, **{given.__name__: given for given in classes}}


def _head(line: bytes, path: Path) -> dict[str, Any]:
    foreign = f"`path`: {str(path)!r} is no scene of diffdeblend, or its first line is cut short."
    try:
        head = json.loads(line)
    # Also UnicodeDecodeError and JSONDecodeError; a deeply nested line ends in RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(foreign) from error
    if (
        not isinstance(head, dict)
        or head.get("format") != FORMAT
        or not isinstance(head.get("version"), int)
        or not isinstance(head.get("bytes", 0), int)
    ):
        raise ValueError(foreign)
    return head


def _describe(value: Any, known: Mapping[str, type[eqx.Module]], where: str) -> Any:
    """What stands at a place of the scene, as JSON; the numbers of arrays left out."""
    if isinstance(value, eqx.Module):
        name = type(value).__name__
        if known.get(name) is not type(value):
            raise ValueError(
                f"`{where}` is a {name}, which `load_scene` would not know; pass "
                f"`classes=[{name}]` to both."
            )
        return {
            "class": name,
            "fields": {
                f.name: (
                    {"static": _static(getattr(value, f.name), f"{where}.{f.name}")}
                    if f.metadata.get("static", False)
                    else _describe(getattr(value, f.name), known, f"{where}.{f.name}")
                )
                for f in fields(value)
            },
        }
    if isinstance(value, jax.Array | np.ndarray):
        if str(value.dtype) not in _DTYPES:
            raise ValueError(f"`{where}` must be real numbers or booleans; got {value.dtype}.")
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_describe(v, known, f"{where}[{k}]") for k, v in enumerate(value)]}
    if value is None:
        return None
    raise ValueError(f"`{where}` must be arrays, modules, tuples or None; got {value!r}.")


def _static(value: Any, where: str) -> Any:
    """A value that is part of the structure: only what JSON gives back as it was."""
    # A subclass, such as a NumPy scalar or an enum, would come back as something else.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return tuple(_static(part, where) for part in value)
    raise ValueError(
        f"`{where}` must be a bool, an int, a float, a str, None or a tuple of these; "
        f"got {value!r}."
    )


def _rebuild(described: Any, known: Mapping[str, type[eqx.Module]], where: str) -> Any:
    """The place of the scene again, with shapes and types in place of arrays."""
    if described is None:
        return None
    if not isinstance(described, dict):
        _refuse(where, f"is {described!r}")
    keys = set(described)
    if keys == {"class", "fields"}:
        return _module(described["class"], described["fields"], known, where)
    if keys == {"shape", "dtype"}:
        return _array(described["shape"], described["dtype"], where)
    if keys in ({"tuple"}, {"list"}):
        ((kind, parts),) = described.items()
        if not isinstance(parts, list):
            _refuse(where, f"is {parts!r}")
        values = [_rebuild(part, known, f"{where}[{k}]") for k, part in enumerate(parts)]
        return tuple(values) if kind == "tuple" else values
    return _refuse(where, f"has the keys {sorted(keys)}")


def _as_tuple(value: Any) -> Any:
    """What JSON has made lists of."""
    return tuple(_as_tuple(part) for part in value) if isinstance(value, list) else value


def _module(
    name: Any, described: Any, known: Mapping[str, type[eqx.Module]], where: str
) -> eqx.Module:
    if not isinstance(name, str) or name not in known or not isinstance(described, dict):
        _refuse(where, f"is a {name!r}; known are {', '.join(sorted(known))}")
    kind = known[name]
    expected = {f.name: f for f in fields(kind)}
    if set(described) != set(expected):
        _refuse(where, f"has the fields {sorted(described)}, and {name} has {sorted(expected)}")
    # Around `__init__`, as equinox does when it unflattens: a stack's members have one axis more
    # than a constructor accepts.
    module = object.__new__(kind)
    for field_name, declared in expected.items():
        at = f"{where}.{field_name}"
        value = described[field_name]
        if declared.metadata.get("static", False):
            if not isinstance(value, dict) or set(value) != {"static"}:
                _refuse(at, "is not marked as static")
            value = _static(_as_tuple(value["static"]), at)
        else:
            value = _rebuild(value, known, at)
        object.__setattr__(module, field_name, value)
    return module


def _array(shape: Any, dtype: Any, where: str) -> jax.ShapeDtypeStruct:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        _refuse(where, f"has the shape {shape!r}")
    if dtype not in _DTYPES:
        _refuse(where, f"has the type {dtype!r}")
    if dtype in ("float64", "int64") and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            f"`{where}` was saved as {dtype}; switch that on before loading, with "
            "`jax.config.update('jax_enable_x64', True)`."
        )
    return jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))


def _refuse(where: str, what: str) -> NoReturn:
    raise ValueError(f"the head is not that of a scene: `{where}` {what}.")
