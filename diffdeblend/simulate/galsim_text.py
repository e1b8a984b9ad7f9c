"""Objects of GalSim as text and back, without running what the text says.

GalSim writes its objects as Python code. Only calls of its own profiles and of their parts are
understood here, so that a file from elsewhere can do no harm.
"""

import ast
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import galsim

# What profiles are made of. Those that open files are not among them.
_PARTS = (
    "Aperture",
    "BoundsD",
    "BoundsI",
    "GSParams",
    "Image",
    "JacobianWCS",
    "LookupTable",
    "PixelScale",
    "PositionD",
    "PositionI",
    "Shear",
    "ShearWCS",
)
_UNITS = ("arcsec", "arcmin", "degrees", "radians")
_OPENS_FILES = ("RealGalaxy",)
_DTYPES = ("float32", "float64", "int16", "int32", "int64", "complex64", "complex128")


def galsim_text(psf: "galsim.GSObject") -> str:
    """An object of GalSim as text from which `galsim_from_text` makes its equal.

    **Raises:** `ValueError` for an object of which GalSim does not write all.
    """
    # Otherwise numpy leaves out the middle of an image, and digits.
    with np.printoptions(threshold=sys.maxsize, precision=17, floatmode="unique"):
        text = repr(psf)
    try:
        same = galsim_from_text(text) == psf
    except ValueError as error:
        raise ValueError(f"`psf`: {psf} cannot be written as text: {error}") from error
    if not same:
        raise ValueError(
            f"`psf`: {psf} cannot be written as text: GalSim does not write all of it."
        )
    return text


def galsim_from_text(text: str) -> "galsim.GSObject":
    """The object of GalSim that a text of `galsim_text` describes.

    **Raises:** `ValueError` for a text that is none, or calls something else.
    """
    import galsim

    try:
        made = _value(ast.parse(text.strip(), mode="eval").body)
    # GalSim's errors are of many kinds; what they say goes on.
    except (SyntaxError, TypeError, RecursionError, AttributeError, galsim.GalSimError) as error:
        raise ValueError(f"`text` is no object of GalSim: {error}") from error
    if not isinstance(made, galsim.GSObject):
        raise ValueError(f"`text` is no object of GalSim: {text[:80]!r}.")
    return made


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | complex() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
        # Complex numbers are written as sums.
        case ast.BinOp(op=ast.Add()):
            return _value(node.left) + _value(node.right)
        case ast.BinOp(op=ast.Sub()):
            return _value(node.left) - _value(node.right)
        case ast.List():
            return [_value(element) for element in node.elts]
        case ast.Tuple():
            return tuple(_value(element) for element in node.elts)
        case ast.Call():
            arguments = [_value(argument) for argument in node.args]
            named = {word.arg: _value(word.value) for word in node.keywords if word.arg}
            return _callable(ast.unparse(node.func))(*arguments, **named)
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node))
    raise ValueError(f"{ast.unparse(node)[:80]!r} is not understood")


def _callable(name: str) -> Callable[..., Any]:
    import galsim

    home, _, last = name.rpartition(".")
    if name == "array" or (home in ("np", "numpy") and last in _DTYPES):
        return getattr(np, last)
    if home == "coord" and last == "Angle":
        return galsim.Angle
    known = getattr(galsim, last, None) if home.split(".")[0] == "galsim" else None
    profile = isinstance(known, type) and issubclass(known, galsim.GSObject | galsim.Interpolant)
    if known is None or last in _OPENS_FILES or not (profile or last in (*_PARTS, "Angle")):
        raise ValueError(f"{name!r} is not understood")
    return known


def _named(name: str) -> Any:
    import galsim

    home, _, last = name.rpartition(".")
    if home in ("", "np", "numpy") and last in _DTYPES:
        return np.dtype(last)
    if home in ("", "np", "numpy") and last in ("nan", "inf"):
        return float(last)
    if home in ("galsim", "coord") and last in _UNITS:
        return getattr(galsim, last)
    raise ValueError(f"{name!r} is not understood")
