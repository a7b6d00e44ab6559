"""The code that a notebook runs, as one hash; when it changes, the results are out of date.

A notebook runs its own cells, and the rooms of the package that these import, with all rooms that
those import in turn. A room is what lies at the top of the package: a folder such as
`texad/model`, or a file such as `texad/errors.py`. Nobody keeps a list of them: they are read from
the import statements. A notebook that starts `texad` in a process of its own, as a command or by
`-m`, says so in a string, and so it runs the command line, too.
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import nbformat

PACKAGE = Path(__file__).resolve().parents[1]
COMMAND_LINE = "__main__"
STARTS_TEXAD = r"^-m$|-m texad\b|^\s*texad\s"  # and not the name of weights
ABOVE_NOTEBOOKS = {"batch", "site"}  # the command line imports them: to run notebooks, to show them


def of_notebook(notebook: nbformat.NotebookNode, package: Path = PACKAGE) -> str:
    """SHA-256 over the cells of a notebook and the rooms that it uses.

    Parameters
    ----------
    notebook : NotebookNode
    package : Path, optional
        The package's folder.

    Returns
    -------
    str
        In hexadecimal.
    """
    files = [file for room in rooms(notebook, package) for file in _files(package, room)]
    return _sha256(package, files, [notebook])


def of_everything() -> str:
    """SHA-256 over the whole package and all notebooks, by which machines compare their code."""
    notebooks = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))
    return _sha256(
        PACKAGE, _files(PACKAGE, "."), [nbformat.read(file, as_version=4) for file in notebooks]
    )


def rooms(notebook: nbformat.NotebookNode, package: Path = PACKAGE) -> set[str]:
    """Names of the rooms that a notebook uses, directly or through others.

    Parameters
    ----------
    notebook : NotebookNode
    package : Path, optional

    Returns
    -------
    set of str
        For instance {"data", "errors", "io"}.
    """
    from IPython.core.inputtransformer2 import TransformerManager  # slow, and not for a scheduler

    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    source = "\n".join(TransformerManager().transform_cell(cell) for cell in cells)
    found: set[str] = set()
    new = {_room(package, name) for name in _imported(source)}
    if any(
        isinstance(node, ast.Constant) and re.search(STARTS_TEXAD, str(node.value))
        for node in ast.walk(ast.parse(source))
    ):
        new.add(COMMAND_LINE)
    while new:
        found.add(room := new.pop())
        names = {
            _room(package, name)
            for file in _files(package, room)
            if file.suffix == ".py"
            for name in _imported(file.read_text("utf-8"))
        }
        new |= names - found - (ABOVE_NOTEBOOKS if room == COMMAND_LINE else set())
    return found


def _sha256(
    package: Path, files: Iterable[Path], notebooks: Iterable[nbformat.NotebookNode]
) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    for notebook in notebooks:
        for cell in notebook.cells:
            digest.update(cell.source.encode())
    return digest.hexdigest()


def _files(package: Path, room: str) -> list[Path]:
    """Files of a room, templates and scripts included, but not what Python or an editor leaves."""
    folder = package / room
    return [
        file
        for file in (folder.rglob("*") if folder.is_dir() else [package / f"{room}.py"])
        if file.is_file()
        and not re.search(r"(^|/)(\.|__pycache__)", file.relative_to(package).as_posix())
    ]


def _room(package: Path, name: str) -> str:
    """The room of an imported name; the package itself gives names, too."""
    return name if (package / name).is_dir() or (package / f"{name}.py").exists() else "__init__"


@cache
def _imported(source: str) -> frozenset[str]:
    """What a source imports from the package: the word after `texad`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [f"{name}.__init__".split(".") for name in names]
    return frozenset(room for package, room, *_ in parts if package == "texad")
