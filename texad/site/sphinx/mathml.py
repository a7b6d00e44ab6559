r"""Formulas as MathML, made when the book is built.

Every current browser draws MathML by itself, so a page needs neither a script nor a network for its formulas, and screen
readers read them. latex2mathml knows TeX; this module mends what browsers do not understand of its output (they implement MathML
Core, which is smaller than MathML), and refuses what it would garble.
"""

import html
import re
import unicodedata
from xml.etree.ElementTree import Element, tostring

from docutils import nodes
from latex2mathml.commands import FUNCTIONS, MATRICES
from latex2mathml.converter import Converter
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# A formula has at most one number, that of Sphinx; "align" would count by itself.
ENVIRONMENTS = {"aligned": "split", "align": "align*", "equation": "split", "equation*": "split"}
KNOWN_ENVIRONMENTS = {command.removeprefix("\\") for command in MATRICES}
CHILDREN = {
    "mfrac": 2,
    "mroot": 2,
    "msub": 2,
    "msup": 2,
    "msubsup": 3,
    "munder": 2,
    "mover": 2,
    "munderover": 3,
}
SPACES = {
    "negativethinmathspace": "-0.167em",
    "negativemediummathspace": "-0.222em",
    "negativethickmathspace": "-0.278em",
}


class MathError(ValueError):
    """A formula that cannot be made MathML of."""


def setup(app: Sphinx) -> None:
    """Offer Sphinx the choice `html_math_renderer: mathml`."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_visit_inline, None), block_renderers=(_visit_block, None)
    )


def to_mathml(tex: str, display: str = "inline") -> str:
    r"""Convert a formula.

    Parameters
    ----------
    tex : str
        What stands between the dollars, or a whole environment as ``\begin{align} … \end{align}``.
    display : {"inline", "block"}

    Returns
    -------
    str
        A `math` element, with the TeX as `alttext`.

    Raises
    ------
    MathError
        If a command, an environment or an argument is unknown, missing or out of place.
    """
    source = re.sub(
        r"\\(begin|end)\{([^}]*)\}",
        lambda m: rf"\{m[1]}{{{ENVIRONMENTS.get(m[2], m[2])}}}",
        tex.strip(),
    )
    if r"\\" in source and r"\begin" not in source:
        source = (
            rf"\begin{{split}}{source}\end{{split}}"  # Sphinx allows lines without an environment
        )
    for name in re.findall(r"\\begin\{([^}]*)\}", source):
        if name not in KNOWN_ENVIRONMENTS:
            raise MathError(f"unknown environment {name}")
    try:
        math = Converter(display=display).convert_to_element(source)
    except Exception as error:  # on wrong TeX it raises errors of its own, but also IndexError, StopIteration and others
        raise MathError(type(error).__name__) from error
    math.set("alttext", tex.strip())
    for element in math.iter():
        _mend(element)
    return tostring(math, encoding="unicode")


def _mend(element: Element) -> None:
    text = element.text or ""
    if re.match(r"\\[A-Za-z]", text):
        raise MathError(f"unknown command {text}")
    if text == "&" or element.get("linebreak") == "newline":
        raise MathError(r"& or \\ outside of an environment")
    if len(element) != CHILDREN.get(element.tag, len(element)):
        raise MathError(f"an argument is missing ({element.tag})")
    text = html.unescape(text)  # the converter writes characters as references, but not all
    if element.tag == "mtext":
        text = re.sub(r"\\([_%$#&{}])", r"\1", text)
    elif text == "‖" and element.get("form") is None:
        # without a side to belong to, a norm's bars get the spaces of a relation
        element.attrib.update(lspace="0", rspace="0", stretchy="false")
    elif element.get("mathvariant", "normal") != "normal":
        variant = element.attrib.pop("mathvariant")  # a letter of its own in MathML Core
        text = "".join(_letter(letter, variant) for letter in text)
    elif element.tag == "mi" and f"\\{text}" in FUNCTIONS:
        element.tag = "mo"  # keeps the distance that log x needs
        element.attrib.update(lspace="0.167em", rspace="0.167em")
    if element.text:
        element.text = text
    if element.tag == "mspace":
        element.set("width", SPACES.get(element.get("width", "0"), element.get("width", "0")))


def _letter(letter: str, variant: str) -> str:
    """The mathematical letter or digit of a style, as the 𝜽 of \\boldsymbol{\\theta}."""
    if variant == "italic":
        return letter  # as a letter in a formula is anyway
    name = re.sub(r"^(LATIN|GREEK) | LETTER", "", unicodedata.name(letter, ""))
    style = variant.upper().replace("BOLD-", "BOLD ").replace("SERIF-", "SERIF ")
    for full in (f"MATHEMATICAL {style} {name}", f"{style} {name}"):
        try:
            return unicodedata.lookup(full)
        except KeyError:
            pass
    raise MathError(f"no {variant} {letter}")


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_formula(node, node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    # The class makes the theme's script give a wide formula a tab stop, so that it can be scrolled with the keyboard.
    self.body.append(
        self.starttag(
            node, "div", CLASS="math pst-scrollable-table-container notranslate nohighlight"
        )
    )
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body += [
        _formula(node, part, "block") for part in node.astext().split("\n\n") if part.strip()
    ]
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _formula(node: nodes.Element, tex: str, display: str) -> str:
    try:
        return to_mathml(tex, display)
    except MathError as error:
        logger.warning(
            "no MathML for the formula %s: %s",
            tex.strip(),
            error,
            location=node,
            type="texad",
            subtype="math",
        )
        return f'<code class="notranslate">{html.escape(tex)}</code>'
