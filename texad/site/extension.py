"""The book, as a Sphinx extension: pages of the last run, and what a site needs to work anywhere.

`pages` writes the pages before Sphinx reads the table of contents, `mathml` makes formulas that
need no script, `icons` makes the theme's icons small, `repository` links pages to their source. The
look is in book/static/texad.css.
"""

import html
import json
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from texad import __version__
from texad.errors import RunError
from texad.io.paths import runs_root
from texad.site.pages import assemble
from texad.site.sphinx import icons, mathml, repository

# Sphinx's search fetches the pages it found, to show a line of each; browsers allow no page that is
# a file to fetch another.
SEARCH_FILES = 'DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:"'


def setup(app: Sphinx) -> dict:
    """Write the pages, since Sphinx reads the table of contents next, and connect the rest."""
    try:
        assemble(runs_root(), Path(app.srcdir) / "book" / "run")
    except RunError as error:  # one line; other exceptions come with Jupyter Book's traceback
        sys.exit(f"texad: {error}")
    for part in (icons, mathml, repository):
        part.setup(app)
    app.add_js_file(None, body=SEARCH_FILES, priority=300)
    # each after the extension, or the theme, whose work it changes
    app.connect("config-inited", _number_no_figures, priority=900)
    app.connect("html-page-context", _adapt_page, priority=900)
    app.connect("build-finished", _escape_titles, priority=900)
    return {"version": __version__, "parallel_read_safe": True}


def _number_no_figures(app: Sphinx, config: Config) -> None:
    """The method's figures have numbers of their own, 1 to 5; a second count would confuse."""
    config["numfig"] = False


def _adapt_page(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    # Pages run no code, and Jupyter Book's scripts for that would load from the network.
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in str(file)]
    # Screen readers know an entry of a bibliography only as an item of its list, and a table's
    # empty corner only as no header.
    for old, new in (('role="doc-biblioentry"', 'role="listitem"'), ("<th></th>", "<td></td>")):
        context["body"] = context.get("body", "").replace(old, new)
    # The theme prints the title above a page on paper as markup; a category may be named like some.
    if "pagetitle" in context:
        context["pagetitle"] = html.escape(context["pagetitle"])


def _escape_titles(app: Sphinx, exception: Exception | None) -> None:
    """Escape the titles in the search's index, which the search page takes for markup."""
    file = Path(app.outdir) / "searchindex.js"
    if exception is None and app.builder.name == "html":
        start, end = "Search.setIndex(", ")"
        index = json.loads(file.read_text(encoding="utf-8").removeprefix(start).removesuffix(end))
        index["alltitles"] = {
            html.escape(html.unescape(title)): places
            for title, places in index["alltitles"].items()
        }
        content = json.dumps(index, separators=(",", ":"), sort_keys=True)
        file.write_text(f"{start}{content}{end}", encoding="utf-8")
