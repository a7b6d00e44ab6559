r"""Formulas as MathML, made when the book is built.

Every current browser draws MathML by itself, so a page needs neither a script nor a network for
its formulas, and screen readers read them. math-core converts TeX to MathML Core, the part of
MathML that browsers know, and refuses TeX that it does not understand. Numbers of equations are
left to Sphinx.
"""

import html
import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
converter = LatexToMathML(fancy_error=False)

# math-core does not know split, and would number the others by itself
LINES = re.compile(r"\\(begin|end)\{(?:align\*?|equation\*?|split)\}")
AFTER_SYMBOL = re.compile(r"(?<!\\)(\\[%&#$_{}]) ")  # math-core drops this space in \text


def setup(app: Sphinx) -> None:
    """Offer Sphinx the choice `html_math_renderer: mathml`."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_visit_inline, None), block_renderers=(_visit_block, None)
    )


def to_mathml(tex: str, display: str = "inline") -> str:
    r"""Convert a formula to MathML Core.

    Parameters
    ----------
    tex : str
        The text between the dollars, or a whole environment: ``\begin{align} … \end{align}``.
    display : {"inline", "block"}

    Returns
    -------
    str
        A `math` element, with the TeX as `alttext`.

    Raises
    ------
    math_core.LatexError
        If a command, an environment or an argument is unknown, missing or out of place.

    Examples
    --------
    >>> to_mathml(r"\mu + 3")
    '<math alttext="\\mu + 3"><mi>μ</mi><mo>+</mo><mn>3</mn></math>'
    """
    source = LINES.sub(lambda found: rf"\{found[1]}{{aligned}}", tex.strip())
    if r"\\" in source and r"\begin" not in source:  # Sphinx allows lines without an environment
        source = rf"\begin{{aligned}}{source}\end{{aligned}}"
    source = AFTER_SYMBOL.sub(r"\1{} ", source)
    made = converter.convert_with_local_state(source, displaystyle=display == "block")
    return made.replace("<math", f'<math alttext="{html.escape(tex.strip())}"', 1)


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_formula(node, node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    # The class makes the theme's script give a wide formula a tab stop, to scroll it by keyboard.
    kind = "math pst-scrollable-table-container notranslate nohighlight"
    self.body.append(self.starttag(node, "div", CLASS=kind))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    parts = [part for part in node.astext().split("\n\n") if part.strip()]
    self.body += [*(_formula(node, part, "block") for part in parts), "</div>\n"]
    raise nodes.SkipNode


def _formula(node: nodes.Element, tex: str, display: str) -> str:
    try:
        return to_mathml(tex, display)
    except LatexError as error:
        logger.warning(
            f"no MathML for the formula {tex.strip()}: {error}",
            location=node,
            type="texad",
            subtype="math",
        )
        return f'<code class="notranslate">{html.escape(tex)}</code>'
