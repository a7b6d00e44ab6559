"""What a notebook's results depend on is read from the code, not from a list."""

import ast
import shutil

import nbformat
import pytest

from texad.batch import code
from texad.io.paths import notebooks_folder
from texad.runs.run_folder import STAGES, STUDIES

CHAPTERS = (*STAGES, *STUDIES)
BY_HAND = STUDIES[-1]  # chapter 9, which starts `python -m texad` in a process of its own


def notebook(stage: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, and the hash of each chapter."""
    folder = tmp_path_factory.mktemp("copy") / "texad"
    shutil.copytree(code.PACKAGE, folder)
    return folder, {stage: code.of_notebook(notebook(stage), folder) for stage in CHAPTERS}


@pytest.mark.parametrize(
    ("file", "out_of_date"),
    [
        ("evaluation/drift.py", CHAPTERS),
        ("model/scoring.py", CHAPTERS),
        ("io/atomic.py", CHAPTERS),
        ("errors.py", CHAPTERS),
        ("teaching/explorer.css", CHAPTERS),
        ("commands/check.py", (BY_HAND,)),
        ("commands/report.py", (BY_HAND,)),
        ("commands/prediction_writer.py", (BY_HAND,)),
        ("commands/new.html", (BY_HAND,)),
        ("data/inputs.py", CHAPTERS),
        ("detector.py", (BY_HAND,)),
        ("__main__.py", (BY_HAND,)),
        ("site/pages.py", ()),
        ("batch/notebooks.py", ()),
        ("model/__pycache__/new.pyc", ()),
        ("model/.scoring.py.swp", ()),
    ],
)
def test_what_uses_a_file_is_out_of_date_when_it_changes(package, file, out_of_date):
    folder, before = package
    path = folder / file
    existed = path.exists()
    assert existed or path.suffix in (".html", ".pyc", ".swp")
    path.parent.mkdir(exist_ok=True)
    saved = path.read_bytes() if existed else b""
    path.write_bytes(saved + b"\n# changed\n")
    try:
        after = {stage: code.of_notebook(notebook(stage), folder) for stage in CHAPTERS}
    finally:
        path.write_bytes(saved) if existed else path.unlink()
    assert tuple(stage for stage in CHAPTERS if after[stage] != before[stage]) == out_of_date


def test_a_changed_cell_makes_its_own_chapter_out_of_date():
    changed = notebook(STAGES[0])
    changed.cells[-1].source += " "
    assert code.of_notebook(changed) != code.of_notebook(notebook(STAGES[0]))


@pytest.mark.parametrize(
    ("cell", "rooms"),
    [
        ("import texad.errors", {"errors"}),
        ("def late():\n    from texad import errors", {"errors"}),
        ("%matplotlib inline\nimport numpy as np\nimport texadder.io", set()),
        ("from texad import __version__", {"__init__"}),
    ],
)
def test_rooms_are_read_from_any_kind_of_import(cell, rooms):
    found = code.rooms(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]))
    assert found >= rooms and (found == rooms or rooms == {"__init__"})


@pytest.mark.parametrize(
    "cell", ['run(["python", "-m", "texad"])', "!texad fit good --out a", "!python -m texad"]
)
def test_the_command_line_is_used_by_a_notebook_that_starts_it(cell):
    found = code.rooms(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]))
    assert found >= {"__main__", "commands", "evaluation"} and not found & {"batch", "site"}


def test_no_module_of_the_package_imports_relatively():
    """`code.rooms` looks for the package's name."""
    for file in code.PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level], file
