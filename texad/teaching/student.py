"""Notebooks for students, made from the book's own: each solution gives way to an empty cell for an answer.

There is one source, so the two cannot drift: the chapter's notebook holds the exercise and the solution behind it.

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
from pathlib import Path

import nbformat

from texad.io.atomic import replacing
from texad.io.paths import notebooks_folder

EXERCISE = re.compile(
    r"^(?:`{3,}|:{3,})\{exercise\}[ \t]*(?P<title>.*)\n"
    r"(?:[ \t]*:.*\n)*?[ \t]*:label:[ \t]*(?P<label>\S+)",
    re.MULTILINE,
)
START = re.compile(r"(?:`{3,}|:{3,})\{solution-start\}[ \t]*(?P<label>\S*)")
END = re.compile(r"(?:`{3,}|:{3,})\{solution-end\}")
LINK = re.compile(
    r"""(?P<before>\]\(|\]:[ ]|(?:src|href)=["']|\{(?:figure|image)\}[ ])(?P<target>[^\s)"'#:]+)"""
)


class StudentError(ValueError):
    """A notebook, or a file in the way, that the user must look at."""


def student_notebooks(source: Path, out: Path) -> dict[Path, str]:
    """Make the students' notebooks, in memory.

    Parameters
    ----------
    source : Path
        The folder of the chapters' notebooks.
    out : Path
        Where the files will lie, which decides how they point at pictures.

    Returns
    -------
    dict of Path to str
        The path of each file, and its content.

    Raises
    ------
    StudentError
        If an exercise and its solution do not fit together.
    """
    made = {}
    for file in sorted(source.glob("[0-9][0-9]_*.ipynb")):
        made[out / file.name] = (
            nbformat.writes(_without_solutions(nbformat.read(file, as_version=4), file, out)) + "\n"
        )
    if not made:
        raise StudentError(f"no notebooks in {source}")
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
    StudentError
        If a file is there with other content.
    """
    there = {file: file.read_text(encoding="utf-8") for file in made if file.exists()}
    edited = [str(file) for file, text in there.items() if text != made[file]]
    if edited and not force:
        raise StudentError(
            f"not overwritten, since somebody may have worked in them: {', '.join(edited)} (--force overwrites)"
        )
    changed = [file for file in made if there.get(file) != made[file]]
    for file in changed:
        with replacing(file) as temporary:
            temporary.write_text(made[file], encoding="utf-8")
    return changed


# -- one notebook ----------------------------------------------------------------------------------


def _without_solutions(
    notebook: nbformat.NotebookNode, file: Path, out: Path
) -> nbformat.NotebookNode:
    titles: dict[str, str] = {}
    open_exercises: dict[str, str] = {}
    inside, cells = None, []
    for i, cell in enumerate(notebook.cells, start=1):
        where = f"{file.name}, cell {i}"
        text = cell.source.strip() if cell.cell_type == "markdown" else ""
        start, end = START.match(text), END.match(text)
        if start:
            if inside:
                raise StudentError(
                    f"{where}: solution-start, but the solution of {inside} has no solution-end"
                )
            inside = start["label"]
            if inside not in open_exercises:
                raise StudentError(
                    f"{where}: a solution of {inside!r}, but no exercise before it has this label and no solution yet"
                )
            del open_exercises[inside]
            cells.append(nbformat.v4.new_code_cell(f'# Your answer to "{titles[inside]}"\n'))
        elif end and not inside:
            raise StudentError(f"{where}: solution-end without a solution-start")
        if ("solution" in cell.metadata.get("tags", [])) != bool(inside):
            raise StudentError(
                f"{where}: the tag `solution` belongs to the cells from solution-start to solution-end, and to no other"
            )
        if end:
            inside = None
        elif not inside:
            cells.append(_cell(cell, file.parent, out))
            for exercise in EXERCISE.finditer(f"{text}\n"):
                titles[exercise["label"]] = exercise["title"].strip() or exercise["label"]
                open_exercises[exercise["label"]] = where
    if inside:
        raise StudentError(f"{file.name}: the solution of {inside} has no solution-end")
    for label, where in open_exercises.items():
        raise StudentError(f"{where}: the exercise {label} has no solution")
    for i, cell in enumerate(cells, start=1):
        cell.id = f"{file.stem}-{i:02d}"[
            -64:
        ]  # not the source's: they may change while the text does not
    notebook.cells = cells
    notebook.metadata["jupytext"] = {
        "formats": "ipynb"
    }  # a student's notebook has no .py beside it
    nbformat.validate(notebook)
    return notebook


def _cell(cell: nbformat.NotebookNode, source: Path, out: Path) -> nbformat.NotebookNode:
    """A cell that stays: without outputs, its links leading where they led."""
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    else:
        cell.source = LINK.sub(
            lambda link: link["before"] + _moved(link["target"], source, out), cell.source
        )
    return cell


def _moved(target: str, source: Path, out: Path) -> str:
    """The way from `out` to a file that was named from `source`; the notebooks themselves come along and need none."""
    if target.endswith(".ipynb") and "/" not in target or not (source / target).exists():
        return target
    return os.path.relpath(source / target, out).replace(os.sep, "/")


# -- the command line ------------------------------------------------------------------------------


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
            raise StudentError("--out is the folder that the notebooks are made from")
        changed = write(student_notebooks(source, out), force=options.force)
    except (ValueError, OSError) as error:
        print(f"texad: {error}", file=sys.stderr)
        return 2
    print(f"The students' notebooks: {out} ({len(changed)} written)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
