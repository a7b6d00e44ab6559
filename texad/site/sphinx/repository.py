"""Links from a page to its source in the repository, and to places that run its notebook.

The address of the repository is given once, in _config.yml (`repository:`); until then there are no
links. The theme has buttons for this too, but they suppose that pages have the same paths in the
repository as in the book. That is not so for the chapters: the book's are executed copies of those
in notebooks/.
"""

from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit

from jinja2 import Template
from sphinx.application import Sphinx
from sphinx.config import Config

from texad.runs.run_folder import STAGES, STUDIES

# the part of a file's address between repository and branch; most hosts do as GitHub
FILES = {"gitlab": "-/blob", "codeberg": "src/branch", "gitea": "src/branch", "bitbucket": "src"}

NAV = Template(
    '<nav class="texad-links" aria-label="Source of this page">'
    '{% for text, address in links %}<a href="{{ address }}">{{ text }}</a>{% endfor %}</nav>',
    autoescape=True,
)


def setup(app: Sphinx) -> None:
    """Take the address from Jupyter Book's settings, and add the links to the pages."""
    app.add_config_value("texad_repository", ("", ""), "html")
    app.connect("config-inited", _take_address)
    app.connect("html-page-context", _add_links)


def links(url: str, branch: str, source: str) -> list[tuple[str, str]]:
    """Make text and address of the links for a file of the repository.

    Parameters
    ----------
    url : str
        Address of the repository; empty if it is not known.
    branch : str
    source : str
        Path of the file in the repository. A notebook can be run on Binder and on Colab, if the
        repository is on GitHub.
    """
    if not url:
        return []
    home = urlsplit(url.rstrip("/").removesuffix(".git"))
    files = next((form for name, form in FILES.items() if name in home.netloc), "blob")
    file = f"{files}/{quote(branch)}/{quote(source)}"
    found = [("View source", f"{home.geturl()}/{file}")]
    if home.netloc == "github.com" and source.endswith(".ipynb"):
        binder = f"{home.path}/{quote(branch, safe='')}?urlpath=lab/tree/{quote(source)}"
        found = [
            ("Open in Binder", f"https://mybinder.org/v2/gh{binder}"),
            ("Open in Colab", f"https://colab.research.google.com/github{home.path}/{file}"),
            *found,
        ]
    return found


def source_of(page: str, file: str) -> str | None:
    """Path in the repository of what a page was made of; None for pages that a run has written."""
    path = PurePosixPath(page)
    if path.parent == PurePosixPath("book/run/chapters") and path.name in STAGES + STUDIES:
        return f"notebooks/{path.name}.ipynb"
    return None if path.is_relative_to("book/run") else file


def _take_address(app: Sphinx, config: Config) -> None:
    """Keep the address from the theme, which would stop at a host that it does not know."""
    options = config.html_theme_options
    config["texad_repository"] = (
        options.pop("repository_url", ""),
        options.pop("repository_branch", "") or "main",
    )


def _add_links(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    if app.builder.name != "html" or page not in app.env.found_docs:
        return
    source = source_of(page, str(app.env.doc2path(page, base=False)))
    url, branch = app.config.texad_repository
    if source and (found := links(url, branch, source)):
        nav = NAV.render(links=found)
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{nav}", 1)
