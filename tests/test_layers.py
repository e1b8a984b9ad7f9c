"""Imports run one way, and what no module may do, none does."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffdeblend"

# A module imports from rows above its own, and from within its own folder.
LAYERS = (
    {"parameters", "grid", "cores", "backend", "polynomials", "widths", "grow", "files"},
    {"radial", "fourier", "build_radial_table", "column_names"},
    {"background", "psf", "components"},
    {"header", "own_code"},
    {"sky", "noise", "planes", "wings"},
    {"exposure", "positions"},
    {"one_band"},
    {"scene"},
    {"fit"},
    {"priors"},
    {"segment"},
    {"footprints"},
    {"replace_noise"},
    {"measure"},
    {"quantities"},
    {"detect"},
    {"allocate"},
    {"stars"},
    {"prepare"},
    {"subtract", "coadd"},
    {"deblend"},
    {"batch"},
    {"characterize", "transients"},
    {"multiband"},
    {"simulate"},
    {"train"},
    {"score"},
    {"painter", "panels", "plot_columns"},
    {"stretch"},
    {"plot", "plot_blends", "plot_scores", "plot_segments", "plot_psf", "plot_subtraction"},
    {"plot_detections", "plot_footprints", "plot_mask_planes"},
    {"plot_measured", "plot_priors", "plot_survey"},
    {"io"},
    {"progress", "listing", "programs"},
    {"stamps"},
    {"survey"},
    {"image_options", "epoch_options"},
    {"catalog_options"},
    {"blend_options", "deblend_options", "detect_options", "measure_options"},
    {"psf_options", "subtract_options", "coadd_options", "train_options"},
    {"survey_options", "catalog_options", "cut_options"},
    {"prior_inputs"},
    {"image_command", "epoch_inputs", "parametric_command"},
    {"commands"},
    {"detect_command", "simulate_command", "score_command"},
    {"catalog_command"},
    {"psf_command", "subtract_command", "coadd_command", "measure_command", "train_command"},
    {"survey_command", "catalog_command", "cut_command"},
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# These talk to a user; the others return what they have to say.
FOR_USERS = {
    *("progress", "listing", "commands", "simulate_command", "score_command"),
    *("detect_command", "image_command", "psf_command", "subtract_command", "coadd_command"),
    *(
        "catalog_command",
        "measure_command",
        "train_command",
        "cli",
        "__main__",
        "build_radial_table",
    ),
    *("survey_command", "catalog_command", "cut_command"),
}
# The user calls these to set JAX up.
SETS_JAX_UP = FOR_USERS | {"programs"}
# Of the files beside one exposure, only the results of a blend know of `deblend` and of figures.
KNOW_DEBLEND = {"io.results", "io.__init__"}
# Not installed with the core: who uses them says so when they are absent.
OPTIONAL = {"galcheat", "sep", "photutils", "skimage", "scarlet2", "ipywidgets"}
OPTIONAL |= {"hats_import", "astroscrappy", "astroalign", "reproject", "dask", "distributed"}
LAZY = {"matplotlib", "galsim", "surveycodex", "zarr", "yaml", "pyarrow"} | OPTIONAL
USE_OPTIONAL = {"simulate", "score", "plot_scores", "background", "segment", "measure", "prepare"}
USE_OPTIONAL |= {"stamps", "survey"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
}


def declared() -> set[str]:
    """Packages that the core and the figures may import; fitsio and sep are not among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["dependencies"] + project["optional-dependencies"]["plot"]
    names = {line.split(">")[0].split(",")[0].split("[")[0].strip() for line in named}
    return names - {"pyyaml"} | {"yaml"}


def imports(tree: ast.AST) -> list[tuple[str, ...]]:
    """Dotted names of what is imported anywhere below; `from a import b` may mean `a.b`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [tuple(name.split(".")) for name in found]


def violations(module: str, source: str) -> set[str]:
    """What is wrong with a module, in words."""
    tree = ast.parse(source)
    own = module.split(".")[0]
    wrong = set()
    if not ast.get_docstring(tree):
        wrong.add("no docstring")
    if len(source.splitlines()) > 500:
        wrong.add("too long")
    at_once = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    wrong |= {f"{name[0]} at once" for n in at_once for name in imports(n) if name[0] in LAZY}
    for name in imports(tree):
        if name[0] == "diffdeblend":
            # What the package itself defines, as its version, is free to all.
            if own == "__init__" or name[1] not in RANK or name[1] == own:
                continue
            if RANK[name[1]] >= RANK.get(own, -1):
                wrong.add(f"imports {name[1]}")
            if own == "io" and name[1] in ("deblend", "plot") and module not in KNOW_DEBLEND:
                wrong.add(f"imports {name[1]}")
        elif name[0] in OPTIONAL and own in USE_OPTIONAL:
            continue
        elif name[0] not in sys.stdlib_module_names | declared():
            wrong.add(f"imports {name[0]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and own not in FOR_USERS:
            called = ast.unparse(node.func)
            if called == "print":
                wrong.add("prints")
            # Reading how JAX is set up is no harm.
            if called.endswith("config.update") and own not in SETS_JAX_UP:
                wrong.add("configures JAX")
        elif isinstance(node, ast.Assign | ast.AugAssign) and own not in FOR_USERS:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(ast.unparse(target).startswith("jax.config") for target in targets):
                wrong.add("configures JAX")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_to_its_place(module):
    assert not violations(module, MODULES[module])


def test_every_module_has_a_layer():
    assert {module.split(".")[0] for module in MODULES} - {"__init__"} <= set(RANK)


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("grid", "from diffdeblend.fourier import shift", "imports fourier"),
        ("psf.pixels", "from diffdeblend.components import Stack", "imports components"),
        ("scene", "import diffdeblend.fit.fit", "imports fit"),
        ("scene", "from diffdeblend import fit", "imports fit"),
        ("fit.fit", "def f():\n    from diffdeblend.deblend import deblend", "imports deblend"),
        ("io.npz", "from diffdeblend.deblend import deblend", "imports deblend"),
        ("plot", "from diffdeblend.io import read", "imports io"),
        ("unheard_of", "from diffdeblend.grid import Grid", "imports grid"),
        ("io.fits", "import fitsio", "imports fitsio"),
        ("detect.peaks", "import sep", "imports sep"),
        ("plot", "import matplotlib.pyplot as plt", "matplotlib at once"),
        ("psf.analytic", "from galsim import Moffat", "galsim at once"),
        ("fit.fit", "print(1)", "prints"),
        ("exposure", "jax.config.update('jax_enable_x64', True)", "configures JAX"),
        ("exposure", "jax.config.jax_enable_x64 = True", "configures JAX"),
        ("grid", "x = 1\n" * 500, "too long"),
    ],
)
def test_a_planted_mistake_is_seen(module, line, wrong):
    assert wrong in violations(module, f'"""Docstring."""\n{line}\n')


def test_a_missing_docstring_is_seen():
    assert violations("grid", "x = 1\n") == {"no docstring"}
