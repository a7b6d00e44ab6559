"""Notebooks for students, made from the book's own: an empty answer cell replaces each solution.

There is one source, so the two cannot drift: the chapter's notebook holds the exercise and the
solution behind it::

    a Markdown cell that holds        ```{exercise} Title
                                      :label: some-label
    then, each tagged `solution`,
      a Markdown cell that is         ```{solution-start} some-label
      Markdown and code cells
      a Markdown cell that is         ```{solution-end}

    python -m texad.teaching.student        writes student/NN_*.ipynb
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor
from nbformat.v4 import new_code_cell

from texad.errors import DataError
from texad.io.atomic import write_text
from texad.io.paths import notebooks_folder

EXERCISE = re.compile(
    r"^(?:`{3,}|:{3,})\{exercise\}[ \t]*(?P<title>.*)\n"
    r"(?:[ \t]*:.*\n)*?[ \t]*:label:[ \t]*(?P<label>\S+)",
    re.MULTILINE,
)
START = re.compile(r"\s*(?:`{3,}|:{3,})\{solution-start\}[ \t]*(\S*)")
END = re.compile(r"\s*(?:`{3,}|:{3,})\{solution-end\}")
LINK = re.compile(
    r"""(?P<before>\]\(|\]:[ ]|(?:src|href)=["']|\{(?:figure|image)\}[ ])"""
    r"""(?P<target>[^\s)"'#:]+)"""
)


def student_notebooks(source: Path, out: Path) -> dict[Path, str]:
    """Make the students' notebooks, in memory.

    Parameters
    ----------
    source : Path
        The folder of the chapters' notebooks.
    out : Path
        The folder the files are meant for, which decides how they link to pictures.

    Returns
    -------
    dict of Path to str
        The path of each file, and its content.

    Raises
    ------
    DataError
        If there is no notebook, or exercises and solutions do not match.
    """
    made = {}
    for file in sorted(source.glob("[0-9][0-9]_*.ipynb")):
        notebook = _without_solutions(nbformat.read(file, as_version=4), file, out)
        made[out / file.name] = nbformat.writes(notebook) + "\n"
    if not made:
        raise DataError(f"no notebooks in {source}")
    return made


def write(made: dict[Path, str], *, force: bool = False) -> list[Path]:
    """Write the files, all or none.

    Parameters
    ----------
    made : dict of Path to str
    force : bool
        Overwrite files that differ, which may hold a student's answers.

    Returns
    -------
    list of Path
        Those that were written; a file that is equal already is left alone.

    Raises
    ------
    DataError
        If a file is there with other content.
    """
    changed = [
        file
        for file, text in made.items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]
    edited = [str(file) for file in changed if file.exists()]
    if edited and not force:
        raise DataError(
            "not overwritten, since somebody may have worked in them: "
            f"{', '.join(edited)} (--force overwrites)"
        )
    for file in changed:
        write_text(file, made[file])
    return changed


def _without_solutions(
    notebook: nbformat.NotebookNode, file: Path, out: Path
) -> nbformat.NotebookNode:
    unsolved: dict[str, str] = {}
    cells, kinds = [], ""
    for i, cell in enumerate(notebook.cells, start=1):
        text = cell.source if cell.cell_type == "markdown" else ""
        tagged = "solution" in cell.metadata.get("tags", [])
        start = START.match(text)
        kind = "S" if start else "E" if END.match(text) else "."
        kinds += kind if tagged == (kind != ".") else "s" if tagged else "!"
        if start:
            if start[1] not in unsolved:
                raise DataError(
                    f"{file.name}, cell {i}: a solution of {start[1]!r}, but no exercise before it "
                    "has this label and no solution yet"
                )
            cells.append(new_code_cell(f'# Your answer to "{unsolved.pop(start[1])}"\n'))
        for exercise in EXERCISE.finditer(f"{text}\n"):
            unsolved[exercise["label"]] = exercise["title"].strip() or exercise["label"]
        cell.source = LINK.sub(partial(_moved, file.parent, out), text) if text else cell.source
        cells.append(cell)
    if wrong := re.sub(r"^(\.|Ss*E)*", "", kinds):
        raise DataError(
            f"{file.name}, cell {len(kinds) - len(wrong) + 1}: the tag `solution` belongs to "
            "the cells from a solution-start to its solution-end, and to no others"
        )
    if unsolved:
        raise DataError(f"{file.name}: no solution of the exercise {', '.join(unsolved.values())}")
    notebook.cells = cells
    notebook, _ = TagRemovePreprocessor(remove_cell_tags={"solution"}).preprocess(notebook, {})
    notebook, _ = ClearOutputPreprocessor().preprocess(notebook, {})
    for i, cell in enumerate(notebook.cells, start=1):  # not the source's ids: they may change
        cell.id = f"{file.stem}-{i:02d}"[-64:]
    notebook.metadata["jupytext"] = {"formats": "ipynb"}  # a student's notebook has no .py
    return notebook


def _moved(source: Path, out: Path, link: re.Match) -> str:
    """A link as seen from `out`; the notebooks themselves come along and stay as they are."""
    target = link["target"]
    if (source / target).exists() and not ("/" not in target and target.endswith(".ipynb")):
        target = os.path.relpath(source / target, out).replace(os.sep, "/")
    return link["before"] + target


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m texad.teaching.student",
        description="Write notebooks with exercises and without solutions.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="DIR",
        help="where they go (default: student, beside notebooks)",
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite notebooks that somebody may have worked in"
    )
    options = parser.parse_args(arguments)
    try:
        source = notebooks_folder()
        out = (options.out or source.parent / "student").resolve()
        if out == source:
            raise DataError("--out is the folder that the notebooks are made from")
        changed = write(student_notebooks(source, out), force=options.force)
    except (ValueError, OSError) as error:
        print(f"texad: {error}", file=sys.stderr)
        return 2
    print(f"The students' notebooks: {out} ({len(changed)} written)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
