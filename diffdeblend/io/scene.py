"""Scenes in files: a line of JSON that says what is there, then the numbers."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx

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
    Decoded,
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
from diffdeblend.io.priors import DECODER_PARTS
from diffdeblend.io.structure import Form, read_module, write_module
from diffdeblend.scene import Scene

FORMAT = "diffdeblend scene"
# To be raised when files of the new form cannot be read by older code. 2: stacks share decoders.
FORMAT_VERSION = 2

# Classes that a file may name. Nothing else is ever made from a name in a file.
KNOWN: Mapping[str, type[eqx.Module]] = {
    known.__name__: known
    for known in (
        Scene,
        Stack,
        AnySource,
        AnyStack,
        BulgeDisc,
        Decoded,
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
    told = {
        "bands": None if header is None else list(header.bands),
        "zero_points": (
            None if header is None or header.zero_points is None else list(header.zero_points)
        ),
        "unit": None if header is None else header.unit,
    }
    write_module(scene, path, _form(classes), told)


def load_scene(
    path: str | os.PathLike, *, classes: Sequence[type[eqx.Module]] = ()
) -> tuple[Scene, dict[str, Any]]:
    """A scene from a file of `save_scene`, and the file's head.

    The head has `bands`, `zero_points` and `unit`, None where they were not given. Nothing in the
    file is run: classes are looked up in `KNOWN` and `classes`, and pickles are refused.

    **Raises:** `ValueError` for a file that is missing, of another kind, of a newer version, cut
    short or damaged, or that needs float64 while JAX has it switched off.
    """
    return read_module(path, _form(classes), (Scene,))


def _form(classes: Sequence[type[eqx.Module]]) -> Form:
    known = {**DECODER_PARTS, **KNOWN, **{given.__name__: given for given in classes}}
    return Form(FORMAT, FORMAT_VERSION, "scene", known)
