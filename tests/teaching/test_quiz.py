import ast

import nbformat
import pytest
from conftest import LEAD, ROOT

from texad.runs.run_folder import STAGES, STUDIES
from texad.teaching import quiz

CHAPTERS = STAGES + STUDIES


def questions_in(stage) -> list[ast.Call]:
    """The calls of quiz.Question in a notebook."""
    calls = []
    for cell in nbformat.read(ROOT / "notebooks" / f"{stage}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            calls += [
                node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
            ]
    return [call for call in calls if ast.unparse(call.func) == "quiz.Question"]


@pytest.mark.parametrize("stage", CHAPTERS)
def test_every_chapter_has_a_quiz_and_its_numbers_are_computed(stage):
    """A right answer with a digit is an expression: computed in every run, it cannot be wrong."""
    found = questions_in(stage)
    assert len(found) >= 3
    for call in found:
        (right,) = [keyword.value for keyword in call.keywords if keyword.arg == "right"]
        text = ast.unparse(right)
        assert not (isinstance(right, ast.Constant) and any(c.isdigit() for c in text)), text
        assert not isinstance(right, ast.JoinedStr) or any(
            isinstance(part, ast.FormattedValue) for part in right.values
        ), text


@pytest.mark.parametrize("stage", CHAPTERS)
def test_every_quiz_is_shown_in_the_run(finished, stage):
    out, _ = finished
    notebook = nbformat.read(out / "surfaces" / LEAD / "notebooks" / f"{stage}.ipynb", as_version=4)
    shown = [
        output.data["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output and "texad-quiz" in output.data.get("text/html", "")
    ]
    assert len(shown) == 1
    assert (
        shown[0].count("<fieldset>")
        == len(questions_in(stage))
        == shown[0].count('class="remark right"')
    )


def test_a_right_answer_must_not_be_among_the_wrong_ones():
    with pytest.raises(ValueError, match="right one must not be among"):
        quiz.Question("?", right="a", why="", wrong={"a": ""})
    with pytest.raises(ValueError, match="needs wrong answers"):
        quiz.Question("?", right="a", why="", wrong={})


def test_text_cannot_break_the_page():
    shown = quiz.Quiz(
        quiz.Question("<b> `x < y`?", right="<i>", why="&", wrong={'"': "'"})
    )._repr_html_()
    assert "&lt;b&gt; <code>x &lt; y</code>?" in shown and "<i>" not in shown and "&amp;" in shown


def test_the_remark_of_the_chosen_answer_appears(browser, tmp_path):
    page = browser.new_page()
    file = tmp_path / "quiz.html"
    question = quiz.Question("Which?", right="this", why="So it is.", wrong={"that": "No."})
    file.write_text(
        "<!doctype html><html lang='en'><title>quiz</title>"
        f"{quiz.Quiz(question)._repr_html_()}</html>"
    )
    page.goto(file.as_uri())
    assert not page.get_by_text("So it is.").is_visible()
    page.get_by_label("that").check()
    assert page.get_by_text("No.").is_visible() and not page.get_by_text("So it is.").is_visible()
    page.keyboard.press("ArrowDown")  # the keyboard moves the choice to the other answer
    assert page.get_by_text("So it is.").is_visible() and not page.get_by_text("No.").is_visible()
    page.close()
