"""A quiz that checks itself in the page, without a server and without scripts.

Each answer is a radio button with a remark behind it. A style sheet shows the remark of the chosen
answer, and hides the others. So a quiz works in JupyterLab, in the book opened from a folder, by
mouse, by touch and by keyboard.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from texad.io.templates import templates

TEMPLATE = templates(Path(__file__).parent).get_template("quiz.html.j2")


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

    @property
    def answers(self) -> list[tuple[str, bool, str]]:
        """Each answer, whether it is right, and its remark.

        The order gives nothing away, and is the same in every run.
        """
        answers = [(self.right, True, self.why)]
        answers += [(answer, False, remark) for answer, remark in self.wrong.items()]
        return sorted(answers, key=lambda answer: _digest(answer[0]))

    def __post_init__(self) -> None:
        if not self.wrong or self.right in self.wrong:
            raise ValueError(
                f"question {self.text!r} needs wrong answers, "
                "and the right one must not be among them"
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
        return TEMPLATE.render(questions=self.questions, inline=_inline, digest=_digest)


def _inline(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
