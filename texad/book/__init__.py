"""The book, as a Sphinx extension: pages made from the last run, and what a site needs to work anywhere.

`pages` writes the pages before Sphinx reads the table of contents.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from texad import __version__
from texad.artifacts import runs_root
from texad.book.pages import NoRunError, assemble


def setup(app: Sphinx) -> dict:
    """Entry point for Sphinx; writes the pages, since the table of contents is read right after."""
    try:
        assemble(runs_root(), Path(app.srcdir) / "book" / "run")
    except NoRunError as error:
        sys.exit(f"texad: {error}")  # one line; any other exception would come with Sphinx's and Jupyter Book's tracebacks
    app.connect("config-inited", _number_no_figures, priority=900)  # after the extension that switches numbers on
    app.connect("html-page-context", _leave_out_thebe)
    return {"version": __version__, "parallel_read_safe": True}


def _number_no_figures(app: Sphinx, config: Config) -> None:
    """The method's figures have numbers of their own, 1 to 5; a second count through the whole book would only confuse."""
    config["numfig"] = False


def _leave_out_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Pages run no code, and Jupyter Book's scripts for that would load from the network and be declared twice."""
    context["script_files"] = [file for file in context["script_files"] if "thebe" not in str(file)]
