"""The book, as a Sphinx extension: pages made from the last run, and what a site needs to work anywhere.

`pages` writes the pages before Sphinx reads the table of contents, `mathml` makes formulas that need no script, `icons` makes the
theme's icons small, `repository` links pages to their source. The look is in book/static/texad.css.
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
from texad.site.pages import assemble, copy_pictures
from texad.site.sphinx import icons, mathml, repository

# Sphinx's search fetches the pages it found, to show a line of each; browsers allow no page that is a file to fetch another.
SEARCH_FILES = 'DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:"'


def setup(app: Sphinx) -> dict:
    """Entry point for Sphinx; writes the pages, since the table of contents is read right after."""
    try:
        assemble(runs_root(), Path(app.srcdir) / "book" / "run")
    except RunError as error:  # one line; other exceptions come with Jupyter Book's traceback
        sys.exit(f"texad: {error}")
    icons.setup(app)
    mathml.setup(app)
    repository.setup(app)
    app.add_js_file(None, body=SEARCH_FILES, priority=300)
    app.connect(
        "config-inited", _number_no_figures, priority=900
    )  # after the extension that switches numbers on
    app.connect("html-page-context", _leave_out_thebe)
    app.connect("html-page-context", _help_screen_readers)
    app.connect("html-page-context", _escape_page_title, priority=900)  # after the theme has set it
    app.connect("build-finished", _copy_pictures)
    app.connect(
        "build-finished", _escape_titles, priority=900
    )  # after the search's index is written
    return {"version": __version__, "parallel_read_safe": True}


def _number_no_figures(app: Sphinx, config: Config) -> None:
    """The method's figures have numbers of their own, 1 to 5; a second count through the whole book would only confuse."""
    config["numfig"] = False


def _leave_out_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Pages run no code, and Jupyter Book's scripts for that would load from the network and be declared twice."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in str(file)]


def _help_screen_readers(
    app: Sphinx, page: str, template: str, context: dict, doctree: object
) -> None:
    """They know an entry of a bibliography only as an item of its list, and a table's empty corner only as no header."""
    for old, new in (('role="doc-biblioentry"', 'role="listitem"'), ("<th></th>", "<td></td>")):
        context["body"] = context.get("body", "").replace(old, new)


def _escape_page_title(
    app: Sphinx, page: str, template: str, context: dict, doctree: object
) -> None:
    """The theme prints the title above a page on paper as markup, and a category may be named like some."""
    if "pagetitle" in context:
        context["pagetitle"] = html.escape(context["pagetitle"])


def _copy_pictures(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        copy_pictures(Path(app.srcdir) / "book" / "run", Path(app.outdir) / "book" / "run")


def _escape_titles(app: Sphinx, exception: Exception | None) -> None:
    """Sphinx's search puts the titles of sections that it found into its page as they stand in the index, as markup: a category may be named like some."""
    file = Path(app.outdir) / "searchindex.js"
    if exception is None and app.builder.name == "html":
        start, end = "Search.setIndex(", ")"
        index = json.loads(file.read_text(encoding="utf-8").removeprefix(start).removesuffix(end))
        index["alltitles"] = {
            html.escape(html.unescape(title)): places
            for title, places in index["alltitles"].items()
        }
        file.write_text(
            f"{start}{json.dumps(index, separators=(',', ':'), sort_keys=True)}{end}",
            encoding="utf-8",
        )
