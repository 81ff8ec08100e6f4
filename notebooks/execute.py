"""Execute the notebooks and keep what they show in them.

    python notebooks/execute.py [NAME.ipynb ...]

Without names, all of them.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(file: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel, and nothing that would change without them.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(file, as_version=4)
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    where = {"metadata": {"path": str(file.parent)}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", record_timing=False, resources=where)
    client.execute(env=os.environ | {"PYTHONPATH": path})
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> None:
    for file in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(file), file)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
