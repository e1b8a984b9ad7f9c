"""Execute the notebooks, each in its own folder; what they show is not kept."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SECONDS = 600  # for one cell


def execute(path: Path) -> bool:
    """Whether a notebook runs from top to bottom; prints how that went."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, resources={"metadata": {"path": str(path.parent)}}
    )
    begun = time.perf_counter()
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{path.name}: {error}")
        return False
    print(f"{path.name}: {time.perf_counter() - begun:.1f} s")
    return True


def main() -> int:
    paths = sorted(FOLDER.glob("*.ipynb"))
    if not paths:
        print(f"there are no notebooks in {FOLDER.name}/")
        return 1
    failed = [path.name for path in paths if not execute(path)]
    print(f"notebooks: {len(paths) - len(failed)} of {len(paths)} executed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
