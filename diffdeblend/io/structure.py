"""Modules in files: a line of JSON that says what is there, then the numbers."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import numpy as np

from diffdeblend import __version__
from diffdeblend.files import whole_file

_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")
# A head is a few kilobytes; without a limit a foreign file would be read as one line.
_LONGEST_HEAD = 16 * 2**20


class Form(NamedTuple):
    """What a kind of file is called, and what may be in it.

    - `name`: first word of the head; `version`: to be raised when files of the new form cannot be
        read by older code.
    - `field`: of the head and of messages: what the file holds.
    - `classes`: that a file may name, modules and dataclasses that are static in them. Nothing else
        is ever made from a name in a file.
    """

    name: str
    version: int
    field: str
    classes: Mapping[str, type]


def write_module(
    module: eqx.Module, path: str | os.PathLike, form: Form, told: Mapping[str, Any]
) -> None:
    """Write a module exact to the last bit; the file appears whole or not at all.

    - `told`: what else the head tells, as JSON has it.

    **Raises:** `ValueError` if it holds something that cannot be described.
    """
    structure = _describe(module, form.classes, form.field)
    payload = io.BytesIO()
    eqx.tree_serialise_leaves(payload, module)
    numbers = payload.getvalue()
    head = {
        "format": form.name,
        "version": form.version,
        "diffdeblend": __version__,
        **told,
        "bytes": len(numbers),
        "sha256": hashlib.sha256(numbers).hexdigest(),
        form.field: structure,
    }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(head, allow_nan=False).encode() + b"\n")
        file.write(numbers)


def read_module(
    path: str | os.PathLike, form: Form, kinds: tuple[type[eqx.Module], ...]
) -> tuple[Any, dict[str, Any]]:
    """A module from a file of `write_module`, and the file's head.

    - `kinds`: what the module must be.

    Nothing in the file is run: classes are looked up in `form`, and pickles are refused.

    **Raises:** `ValueError` for a file that is missing, of another kind, of a newer version, cut
    short or damaged, or that needs float64 while JAX has it switched off.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEAD)
        numbers = file.read()
    head = _head(line, path, form)
    if head["version"] > form.version:
        raise ValueError(
            f"`path`: {str(path)!r} is of version {head['version']} of the format, made by "
            f"diffdeblend {head.get('diffdeblend')}; this one reads up to {form.version}. Update."
        )
    if len(numbers) < head.get("bytes", 0):
        raise ValueError(
            f"`path`: {str(path)!r} is cut short: {len(numbers)} bytes of {head['bytes']}."
        )
    if hashlib.sha256(numbers).hexdigest() != head.get("sha256"):
        raise ValueError(f"`path`: {str(path)!r} is damaged: its checksum does not fit.")
    try:
        template = _rebuild(head.get(form.field), form.classes, form.field)
        if not isinstance(template, kinds):
            _refuse(form.field, f"is no {' or '.join(kind.__name__ for kind in kinds)}")
        payload = io.BytesIO(numbers)
        module = eqx.tree_deserialise_leaves(payload, template)
    except ValueError as error:
        raise ValueError(f"`path`: {str(path)!r}: {error}") from error
    # equinox checks shapes and types of the leaves by raising RuntimeError.
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"`path`: {str(path)!r} has arrays that its head does not announce: {error}"
        ) from error
    if payload.read(1):
        raise ValueError(f"`path`: {str(path)!r} has more arrays than its head announces.")
    return module, head


def _head(line: bytes, path: Path, form: Form) -> dict[str, Any]:
    foreign = (
        f"`path`: {str(path)!r} is no {form.field} of diffdeblend, or its first line is cut short."
    )
    try:
        head = json.loads(line)
    # Also UnicodeDecodeError and JSONDecodeError; a deeply nested line ends in RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(foreign) from error
    if (
        not isinstance(head, dict)
        or head.get("format") != form.name
        or not isinstance(head.get("version"), int)
        or not isinstance(head.get("bytes", 0), int)
    ):
        raise ValueError(foreign)
    return head


def _describe(value: Any, known: Mapping[str, type], where: str) -> Any:
    """What stands at a place of a module, as JSON; the numbers of arrays left out."""
    if isinstance(value, eqx.Module):
        name = type(value).__name__
        if known.get(name) is not type(value):
            raise ValueError(
                f"`{where}` is a {name}, which no reader would know; pass `classes=[{name}]` to "
                "both, where there is such an argument."
            )
        return {
            "class": name,
            "fields": {
                f.name: (
                    {"static": _static(getattr(value, f.name), known, f"{where}.{f.name}")}
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


def _static(value: Any, known: Mapping[str, type], where: str) -> Any:
    """A value that is part of the structure: only what comes back from JSON as it was."""
    # A subclass, such as a NumPy scalar or an enum, would come back as something else.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return tuple(_static(part, known, where) for part in value)
    if is_dataclass(value) and known.get(type(value).__name__) is type(value):
        own = {f.name: _static(getattr(value, f.name), known, where) for f in fields(value)}
        return {"class": type(value).__name__, "fields": own}
    raise ValueError(
        f"`{where}` must be a bool, an int, a float, a str, None or a tuple of these; "
        f"got {value!r}."
    )


def _as_static(value: Any, known: Mapping[str, type], where: str) -> Any:
    """A value of `_static` again, of which JSON has made lists and dictionaries."""
    if isinstance(value, list):
        return tuple(_as_static(part, known, where) for part in value)
    if not isinstance(value, dict):
        return value
    kind = known.get(str(value.get("class")))
    if kind is None or issubclass(kind, eqx.Module) or not isinstance(value.get("fields"), dict):
        return _refuse(where, f"is a {value.get('class')!r}, which cannot stand there")
    try:
        parts = value["fields"].items()
        # By its constructor, which refuses what makes no sense.
        return kind(**{str(name): _as_static(part, known, where) for name, part in parts})
    except TypeError as error:
        return _refuse(where, f"has the wrong fields ({error})")


def _rebuild(described: Any, known: Mapping[str, type], where: str) -> Any:
    """The place of the module again, with shapes and types in place of arrays."""
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


def _module(name: Any, described: Any, known: Mapping[str, type], where: str) -> eqx.Module:
    if not isinstance(name, str) or name not in known or not isinstance(described, dict):
        _refuse(where, f"is a {name!r}; known are {', '.join(sorted(known))}")
    kind = known[name]
    if not issubclass(kind, eqx.Module):
        _refuse(where, f"is a {name}, which is no module")
    expected = {f.name: f for f in fields(kind)}
    # A field that is younger than the file has its default.
    absent = set(expected) - set(described)
    if not set(described) <= set(expected) or any(
        expected[field_name].default is MISSING for field_name in absent
    ):
        _refuse(where, f"has the fields {sorted(described)}, and {name} has {sorted(expected)}")
    # Around `__init__`, as equinox does when it unflattens: a stack's members have one axis more
    # than a constructor accepts.
    module = object.__new__(kind)
    for field_name, declared in expected.items():
        at = f"{where}.{field_name}"
        if field_name in absent:
            object.__setattr__(module, field_name, declared.default)
            continue
        value = described[field_name]
        if declared.metadata.get("static", False):
            if not isinstance(value, dict) or set(value) != {"static"}:
                _refuse(at, "is not marked as static")
            value = _as_static(value["static"], known, at)
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
    raise ValueError(f"the head does not describe what it should: `{where}` {what}.")
