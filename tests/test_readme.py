"""What the README says to type and to run is right."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from quick import hasty

from diffdeblend.cli import make_parser

ROOT = Path(__file__).parents[1]
FIRST_LOOK = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[plot]' && "
    ".venv/bin/diffdeblend deblend"
)


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


def blocks(text, language):
    """The code blocks of a language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_first_look_is_there(readme):
    assert FIRST_LOOK in readme.splitlines()


def test_commands_of_ci_are_there(readme):
    commands = re.findall(r'^run "(.+)"$', (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert len(commands) == 4
    assert set(commands) <= set(readme.splitlines())


def test_shown_commands_are_understood(readme):
    shown = "\n".join(blocks(readme, "(?:bash|sh|console)")).replace("\\\n", " ")
    found = re.findall(
        r"(?:^|[\s/])diffdeblend "
        r"((?:deblend|detect|measure|psf|subtract|coadd|simulate|score|train-prior|fit-survey|catalog|cut|-).*)$",
        shown,
        flags=re.MULTILINE,
    )
    assert found
    # These say something and end; any other end is an option that the parser does not know.
    for arguments in (line for line in found if line.split()[-1] not in ("--version", "--help")):
        make_parser().parse_args(shlex.split(arguments, comments=True))


# Each of these takes a quarter of a minute and has its own tests.
LONG = ("deblend(", "fit(", "fit_batch(", "measure_blends(", "measure_bands(", "find_transients(")
LONG += ("fit_survey(",)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_python_runs(readme, tmp_path, monkeypatch, whole):
    """As one programme from top to bottom, beside the project's data; or what is quick of it.

    Of what takes long, the quick run looks whether there is what is imported.
    """
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    found = blocks(readme, "python")
    assert found
    names = {"__name__": "readme"}
    with hasty():
        for number, block in enumerate(found, start=1):
            tree = ast.parse(block)
            if not whole and any(call in block for call in LONG):
                tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            exec(compile(tree, f"README.md, block {number} of Python", "exec"), names)
