import hashlib
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from texad.errors import DataError
from texad.runs.run_folder import STAGES, STUDIES
from texad.teaching import student

EXERCISE = "Some words.\n\n```{exercise} Other widths\n:label: widths\n\nTry *another* width.\n```"
START = "```{solution-start} widths\n:class: dropdown\n```"
END = "```{solution-end}\n```"
SECRET = "the secret answer"


def solution(*texts, start=START, end=END):
    cells = [
        new_markdown_cell(start),
        new_markdown_cell(SECRET),
        new_code_cell(f"# {SECRET}"),
        *map(new_markdown_cell, texts),
        new_markdown_cell(end),
    ]
    for cell in cells:
        cell.metadata["tags"] = ["solution"]
    return cells


def notebook(folder, *cells, name="01_preprocessing.ipynb"):
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(
        new_notebook(
            cells=list(cells),
            metadata={"jupytext": {"x": 1}, "kernelspec": {"name": "python3", "display_name": "P"}},
        ),
        folder / name,
    )
    return folder


def made(source, out=None):
    out = out or source.parent / "student"
    return {
        file.name: nbformat.reads(text, as_version=4)
        for file, text in student.student_notebooks(source, out).items()
    }


def test_a_solution_gives_way_to_a_cell_for_the_answer_and_all_else_stays(tmp_path):
    code = new_code_cell(
        "1 + 1",
        outputs=[new_output("stream", text="2")],
        execution_count=3,
        metadata={"tags": ["parameters"]},
    )
    (result,) = made(
        notebook(
            tmp_path / "notebooks",
            new_markdown_cell("# One"),
            code,
            new_markdown_cell(EXERCISE),
            *solution("more"),
            new_markdown_cell("Recap"),
        )
    ).values()
    nbformat.validate(result)
    assert [(cell.cell_type, cell.source) for cell in result.cells] == [
        ("markdown", "# One"),
        ("code", "1 + 1"),
        ("markdown", EXERCISE),
        ("code", '# Your answer to "Other widths"\n'),
        ("markdown", "Recap"),
    ]
    assert (
        result.cells[1].metadata.tags == ["parameters"]
        and not result.cells[1].outputs
        and result.cells[1].execution_count is None
    )
    assert SECRET not in nbformat.writes(result) and '"solution"' not in nbformat.writes(result)
    assert result.metadata.kernelspec.name == "python3"


def test_colon_fences_several_exercises_and_exercises_without_a_title(tmp_path):
    one = (
        ":::{exercise}\n:class: x\n:label: plain\n\nOne.\n:::\n\n"
        "````{exercise} Two `k`\n:label: two\nTwo.\n````"
    )
    cells = [new_markdown_cell(one)]
    for label in ("two", "plain"):
        cells += solution(
            start=f":::{{solution-start}} {label}\n:class: dropdown\n:::",
            end=":::{solution-end}\n:::",
        )
    (result,) = made(notebook(tmp_path / "notebooks", *cells)).values()
    assert [cell.source for cell in result.cells[1:]] == [
        '# Your answer to "Two `k`"\n',
        '# Your answer to "plain"\n',
    ]


def test_the_files_are_the_same_again_though_the_sources_ids_change(tmp_path):
    texts = []
    for _ in range(2):  # nbformat gives each new cell a random id
        notebook(tmp_path / "notebooks", new_markdown_cell(EXERCISE), *solution())
        texts.append(student.student_notebooks(tmp_path / "notebooks", tmp_path / "student"))
    assert texts[0] == texts[1]
    (text,) = texts[0].values()
    ids = [cell.id for cell in nbformat.reads(text, as_version=4).cells]
    assert len(set(ids)) == len(ids)


def test_links_lead_where_they_led(tmp_path):
    source = tmp_path / "notebooks"
    text = '![a](../book/a.svg) [b](../book/a.svg#x) <img src="../book/a.svg">\n'
    text += "```{figure} ../book/a.svg\n```\n"
    text += "[c](02_x.ipynb) [d](https://a.b/c) [e](#f) [g](near.csv)"
    notebook(source, new_markdown_cell(text))
    (tmp_path / "book").mkdir()
    for name in ("book/a.svg", "notebooks/near.csv", "notebooks/02_x.ipynb"):
        (tmp_path / name).touch()
    (source / "02_x.ipynb").write_text(nbformat.writes(new_notebook()))
    beside = made(source, tmp_path / "student")["01_preprocessing.ipynb"].cells[0].source
    assert beside == text.replace("near.csv", "../notebooks/near.csv")
    deeper = made(source, tmp_path / "a" / "b")["01_preprocessing.ipynb"].cells[0].source
    assert deeper == text.replace("../book", "../../book").replace(
        "near.csv", "../../notebooks/near.csv"
    )


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([new_markdown_cell(EXERCISE)], "no solution of the exercise Other widths"),
        (solution(), "cell 1: a solution of 'widths', but no exercise"),
        (
            [new_markdown_cell(EXERCISE), *solution(), *solution()],
            "cell 6: a solution of 'widths', but no exercise",
        ),
        (
            [new_markdown_cell(EXERCISE), *solution()[:-1]],
            "cell 2: the tag `solution` belongs",
        ),
        (
            [new_markdown_cell(EXERCISE), *solution(START)],
            "cell 5: a solution of 'widths', but no exercise",
        ),
        (
            [new_markdown_cell(EXERCISE), *solution(), new_markdown_cell(END)],
            "cell 6: the tag `solution` belongs",
        ),
        ([new_markdown_cell(EXERCISE), *solution()[1:]], "cell 2: the tag `solution` belongs"),
        (
            [new_markdown_cell(EXERCISE), *solution()[:2], new_markdown_cell("untagged")],
            "cell 2: the tag `solution` belongs",
        ),
    ],
)
def test_what_does_not_fit_together_is_one_line(tmp_path, cells, message):
    with pytest.raises(DataError) as raised:
        made(notebook(tmp_path / "notebooks", *cells))
    assert (
        message in str(raised.value)
        and "\n" not in str(raised.value)
        and "01_preprocessing.ipynb" in str(raised.value)
    )


def test_a_students_work_is_not_overwritten_and_nothing_is_written_then(tmp_path):
    source = notebook(tmp_path / "notebooks", new_markdown_cell(EXERCISE), *solution())
    notebook(source, new_markdown_cell("Two"), name="02_feature_extraction.ipynb")
    files = student.student_notebooks(source, tmp_path / "student")
    first, second = files
    assert student.write(files) == [first, second]
    before = first.stat().st_mtime_ns
    assert student.write(files) == [] and first.stat().st_mtime_ns == before
    second.write_text("my work")
    first.unlink()
    with pytest.raises(DataError, match=r"02_feature_extraction\.ipynb.*--force"):
        student.write(files)
    assert second.read_text() == "my work" and not first.exists()
    assert student.write(files, force=True) == [first, second]
    assert second.read_text() == files[second]
    assert {file.name for file in (tmp_path / "student").iterdir()} == {first.name, second.name}


def test_the_command_makes_a_notebook_of_each_chapter(tmp_path, capsys):
    sources = sorted((ROOT / "notebooks").glob("*.ipynb"))
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in sources]
    assert student.main(["--out", str(tmp_path / "student")]) == 0
    assert str(tmp_path / "student") in capsys.readouterr().out
    assert [file.stem for file in sorted((tmp_path / "student").iterdir())] == list(
        STAGES + STUDIES
    )
    for file in (tmp_path / "student").iterdir():
        written = nbformat.read(file, as_version=4)
        nbformat.validate(written)
        assert not any(
            "solution" in cell.metadata.get("tags", []) or "{solution" in cell.source
            for cell in written.cells
        )
    (tmp_path / "student" / "01_preprocessing.ipynb").write_text("{}")
    assert student.main(["--out", str(tmp_path / "student")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("texad: not overwritten") and error.count("\n") == 1
    assert student.main(["--out", str(ROOT / "notebooks"), "--force"]) == 2
    assert [hashlib.sha256(file.read_bytes()).digest() for file in sources] == digests


def test_importing_the_module_loads_neither_torch_nor_sphinx():
    code = (
        "import sys, texad.teaching.student; "
        "print(*sorted({'torch', 'sphinx', 'pandas', 'matplotlib'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
