"""A quiz that checks itself in the page, without a server and without scripts.

Each answer is a radio button with a remark behind it. A style sheet shows the remark of the answer that is chosen, and hides the
others. So a quiz works in JupyterLab, in the book opened from a folder, by mouse, by touch and by keyboard.
"""

import hashlib
import html
import re
from dataclasses import dataclass

STYLE = """\
<style>
.texad-quiz fieldset { border: 1px solid #8888; border-radius: 6px; margin: 0 0 1em; padding: 0.6em 1em; min-width: 0; }
.texad-quiz legend { float: left; width: 100%; font-size: 1em; font-weight: 600; margin: 0 0 0.4em; }
.texad-quiz .answer { clear: both; padding: 0.15em 0; }
.texad-quiz label { display: inline; cursor: pointer; padding-left: 0.3em; }
.texad-quiz .remark { display: none; margin: 0.2em 0 0.4em 1.6em; padding-left: 0.7em; border-left: 4px solid #d55e00; }
.texad-quiz .remark.right { border-left-color: #009e73; }
.texad-quiz input:checked ~ [role="status"] .remark { display: block; }
</style>"""


@dataclass(frozen=True)
class Question:
    """A question with one right answer.

    Parameters
    ----------
    text : str
        Words between backticks are shown as code, here and below.
    right : str
        The right answer. Where it is a number, compute it: it is then true in every run.
    why : str
        Why it is right.
    wrong : dict of str to str
        Wrong answers, each with what is wrong about it.

    Raises
    ------
    ValueError
        If there is no wrong answer, or the right one is among them.
    """

    text: str
    right: str
    why: str
    wrong: dict[str, str]

    def __post_init__(self) -> None:
        if not self.wrong or self.right in self.wrong:
            raise ValueError(
                f"question {self.text!r} needs wrong answers, and the right one must not be among them"
            )


class Quiz:
    """Questions, shown one below the other.

    Parameters
    ----------
    *questions : Question
    """

    def __init__(self, *questions: Question):
        self.questions = questions

    def __repr__(self) -> str:
        return "\n".join(
            f"{i}. {question.text}" for i, question in enumerate(self.questions, start=1)
        )

    def _repr_html_(self) -> str:
        blocks = [_question(i, question) for i, question in enumerate(self.questions, start=1)]
        return f'{STYLE}\n<form class="texad-quiz">\n' + "\n".join(blocks) + "\n</form>"


def _question(number: int, question: Question) -> str:
    name = f"quiz-{_digest(question.text)[:8]}"
    remarks = {question.right: ("right", f"Right. {question.why}")}
    remarks |= {
        answer: ("wrong", f"Not quite. {remark}") for answer, remark in question.wrong.items()
    }
    answers = sorted(
        remarks, key=_digest
    )  # an order that gives nothing away, and is the same in every run
    rows = []
    for i, answer in enumerate(answers):
        kind, remark = remarks[answer]
        rows.append(
            f'<div class="answer"><input type="radio" name="{name}" id="{name}-{i}"><label for="{name}-{i}">{_inline(answer)}</label>'
            f'<div role="status"><p class="remark {kind}">{_inline(remark)}</p></div></div>'
        )
    return (
        f"<fieldset><legend>{number}. {_inline(question.text)}</legend>\n"
        + "\n".join(rows)
        + "\n</fieldset>"
    )


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
