"""Pages in Markdown for MyST, made of the templates in `templates/`.

Whatever a template prints is escaped for Markdown, as Jinja2 does for HTML, so that names of
folders and files can break nothing. Only whole numbers, and what the filters below return, are
printed as they are; so is a fragment marked `safe`.
"""

import re
from pathlib import Path

from markupsafe import Markup

from texad import __version__
from texad.errors import printable
from texad.io.templates import templates
from texad.model.weights import ABOUT


def text(name: str) -> Markup:
    r"""Escape a name from a folder, on one line.

    Examples
    --------
    >>> text("a_b*c")
    Markup('a\\_b\\*c')
    """
    name = printable(" ".join(name.split()))
    return Markup(re.sub(r"([\\`*_{}\[\]()#+.!|<>$~^@:&%-])", r"\\\1", name))


def code(name: str) -> Markup:
    """Set a name as code, between more backticks than it has in a row."""
    ticks = "`" * (1 + _longest_run(name))
    pad = " " if "`" in name else ""
    return Markup(f"{ticks}{pad}{printable(name)}{pad}{ticks}")


def fenced(content: str, language: str = "") -> Markup:
    """Set lines between two fences, which are longer than any run of backticks in them."""
    fence = "`" * max(3, 1 + _longest_run(content))
    return Markup(f"{fence}{language}\n{content}\n{fence}")


def number(value: float | None, form: str = ".3f") -> Markup:
    """Format a number as a format specification says; a dash if it is not known."""
    return Markup("–" if value is None else format(value, form))


def hours(value: float) -> Markup:
    """Write a time given in hours, long ones in days."""
    return Markup(f"{value / 24:.1f} days" if value >= 48 else f"{value:.1f} hours")


def render(template: str, **data: object) -> str:
    """Make a page of the template `templates/<template>.md.j2`."""
    return environment.get_template(f"{template}.md.j2").render(data).strip() + "\n"


def _longest_run(content: str) -> int:
    return max(map(len, re.findall("`+", content)), default=0)


def _harmless(value: object) -> object:
    return value if isinstance(value, (Markup, int)) else text(str(value))


environment = templates(Path(__file__).with_name("templates"), _harmless)
environment.filters |= {
    function.__name__: function for function in (code, fenced, hours, number, printable)
}
environment.globals |= {"about_weights": ABOUT, "version": __version__}
