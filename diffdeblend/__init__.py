"""Differentiable modelling of astronomical images in JAX: sky, PSF and sources in one model.

Names are loaded when they are first used, so that the command line answers at once. The two verbs
share their names with their folders: `from diffdeblend.deblend import deblend` and
`from diffdeblend.fit import fit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "background": (
        "ConstantBackground",
        "MeshBackground",
        "PolynomialBackground",
        "SplineBackground",
    ),
    "column_names": ("select_columns",),
    "components": (
        "AbstractComponent",
        "BulgeDisc",
        "DeVaucouleurs",
        "Exponential",
        "Gaussian",
        "MultiGaussian",
        "Pixels",
        "PointSource",
        "Sersic",
        "Stack",
    ),
    "deblend": ("Deblended",),
    "detect": ("Detections", "find_peaks"),
    "exposure": ("Exposure", "Header", "make_exposure"),
    "fit": ("Fit", "FirstOrder", "LevenbergMarquardt", "ProximalGradient", "ShapePrior"),
    "grid": ("FIT", "STANDARD", "Quality", "fine"),
    "io": ("load_scene", "read", "save_scene", "write_results"),
    "measure": ("SourceCatalog",),
    "programs": ("keep_programs",),
    "psf": (
        "AbstractPSF",
        "GaussianMixturePSF",
        "GaussianPSF",
        "KolmogorovPSF",
        "MoffatPSF",
        "PSFBasis",
        "PixelPSF",
        "SampledPSF",
    ),
    "segment": ("LabelImage",),
    "scene": ("Scene", "render", "render_each", "residual"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# pyright knows the names from the imports below.
__all__ = ["__version__", *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from diffdeblend.background import ConstantBackground as ConstantBackground
    from diffdeblend.background import MeshBackground as MeshBackground
    from diffdeblend.background import PolynomialBackground as PolynomialBackground
    from diffdeblend.background import SplineBackground as SplineBackground
    from diffdeblend.column_names import select_columns as select_columns
    from diffdeblend.components import AbstractComponent as AbstractComponent
    from diffdeblend.components import BulgeDisc as BulgeDisc
    from diffdeblend.components import DeVaucouleurs as DeVaucouleurs
    from diffdeblend.components import Exponential as Exponential
    from diffdeblend.components import Gaussian as Gaussian
    from diffdeblend.components import MultiGaussian as MultiGaussian
    from diffdeblend.components import Pixels as Pixels
    from diffdeblend.components import PointSource as PointSource
    from diffdeblend.components import Sersic as Sersic
    from diffdeblend.components import Stack as Stack
    from diffdeblend.deblend import Deblended as Deblended
    from diffdeblend.detect import Detections as Detections
    from diffdeblend.detect import find_peaks as find_peaks
    from diffdeblend.exposure import Exposure as Exposure
    from diffdeblend.exposure import Header as Header
    from diffdeblend.exposure import make_exposure as make_exposure
    from diffdeblend.fit import FirstOrder as FirstOrder
    from diffdeblend.fit import Fit as Fit
    from diffdeblend.fit import LevenbergMarquardt as LevenbergMarquardt
    from diffdeblend.fit import ProximalGradient as ProximalGradient
    from diffdeblend.fit import ShapePrior as ShapePrior
    from diffdeblend.grid import FIT as FIT
    from diffdeblend.grid import STANDARD as STANDARD
    from diffdeblend.grid import Quality as Quality
    from diffdeblend.grid import fine as fine
    from diffdeblend.io import load_scene as load_scene
    from diffdeblend.io import read as read
    from diffdeblend.io import save_scene as save_scene
    from diffdeblend.io import write_results as write_results
    from diffdeblend.measure import SourceCatalog as SourceCatalog
    from diffdeblend.programs import keep_programs as keep_programs
    from diffdeblend.psf import AbstractPSF as AbstractPSF
    from diffdeblend.psf import GaussianMixturePSF as GaussianMixturePSF
    from diffdeblend.psf import GaussianPSF as GaussianPSF
    from diffdeblend.psf import KolmogorovPSF as KolmogorovPSF
    from diffdeblend.psf import MoffatPSF as MoffatPSF
    from diffdeblend.psf import PixelPSF as PixelPSF
    from diffdeblend.psf import PSFBasis as PSFBasis
    from diffdeblend.psf import SampledPSF as SampledPSF
    from diffdeblend.scene import Scene as Scene
    from diffdeblend.scene import render as render
    from diffdeblend.scene import render_each as render_each
    from diffdeblend.scene import residual as residual
    from diffdeblend.segment import LabelImage as LabelImage


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
