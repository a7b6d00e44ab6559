"""The book on paper: one PDF with title page, contents, outline and page numbers.

It is printed by Chromium:

    python -m texad.site.pdf        builds the book and writes _build/texad.pdf

The pages of the HTML book are put into one document, in the order of the table of contents, and
this is printed. Sphinx has a builder for a single page (singlehtml), but the theme's pages do not
survive it: ids of different pages collide, so that links, above all citations, lead to the wrong
place; pictures are looked for in the wrong folder; chapters become sections of the introduction.
Printing each page on its own and merging the files would lose the links between pages and what
screen readers need.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

from texad import __version__
from texad.errors import RunError
from texad.io.atomic import replacing
from texad.io.json_files import read_json
from texad.io.paths import notebooks_folder, runs_root
from texad.model.weights import ABOUT

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #555">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)
LICENCES = "Text and figures: CC BY 4.0. Code: MIT. Data sets and weights keep their own licences."


def chromium() -> str:
    """Path of the installed browser.

    Raises
    ------
    RunError
        If there is none.
    """
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    raise RunError("no Chromium to print the book with: sudo apt install chromium")


def print_book(site: Path, out: Path, title: str, author: str, lines: Sequence[str] = ()) -> int:
    """Print a built book.

    Parameters
    ----------
    site : Path
        The folder of the HTML book, with an `index.html`.
    out : Path
        The PDF to write.
    title, author : str
        For the title page and the file's metadata.
    lines : sequence of str
        What else the title page says.

    Returns
    -------
    int
        Number of pages.

    Raises
    ------
    RunError
        If there is no browser or no book, or a picture of the book is missing.
    """
    if not (site / "index.html").exists():
        raise RunError(f"no book in {site}: run `make book` first")
    book = {
        "title": title,
        "author": author,
        "lines": lines,
        "css": (HERE / "print.css").read_text(encoding="utf-8"),
    }
    with replacing(out.resolve()) as temporary, sync_playwright() as playwright:
        with playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        ) as browser:
            context = browser.new_context(
                color_scheme="light",
                viewport={"width": 643, "height": 950},  # paper without its margins
                offline=True,
            )
            context.add_init_script(path=HERE / "print.js")
            page = context.new_page()
            page.emulate_media(media="print", color_scheme="light")
            _open_as_one(page, site, book)
            _print_with_numbers(page, temporary)
            headings = page.evaluate("texadPrint.headings()")
        writer = PdfWriter(temporary, incremental=True)  # appends to, and so keeps, Chromium's file
        writer.add_metadata({"/Title": title, "/Author": author})
        _space_outline(writer, headings)
        writer.write(temporary)
        return len(writer.pages)


def _open_as_one(page: Page, site: Path, book: dict) -> None:
    """Load each page of the book, with its scripts, and leave all as one document in `page`."""
    page.goto((site / "index.html").resolve().as_uri())
    page.wait_for_selector("article.bd-article")  # the index only leads to the root page
    page.wait_for_load_state()
    root = page.url
    book["chapters"] = page.evaluate("texadPrint.chapters()")
    for chapter in book["chapters"]:
        page.goto(chapter["url"])
        chapter |= page.evaluate("chapters => texadPrint.collect(chapters)", book["chapters"])
    page.goto(root)
    if missing := page.evaluate("book => texadPrint.compose(book)", book):
        raise RunError(f"the book lacks a picture: {missing[0]}")


def _print_with_numbers(page: Page, file: Path) -> None:
    """Print, read each heading's page, fill in the contents, and print again.

    The numbers have a column of their own, so no page moves. Chromium knows no `target-counter`.
    """
    _print(page, file)
    reader = PdfReader(file)
    places = {
        name.lstrip("/"): number + 1
        for name, place in reader.named_destinations.items()
        if (number := reader.get_destination_page_number(place)) is not None
    }
    page.evaluate("pages => texadPrint.number(pages)", places)
    _print(page, file)


def _print(page: Page, file: Path) -> None:
    page.pdf(
        path=file,
        format="A4",
        outline=True,
        tagged=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        margin={"top": "24mm", "right": "20mm", "bottom": "22mm", "left": "20mm"},
    )


def _space_outline(writer: PdfWriter, headings: list[str]) -> None:
    """Restore the spaces that Chromium loses in the outline where a heading takes two lines."""
    spaced = {"".join(heading.split()): heading for heading in headings}
    todo = [writer.get_outline_root().get("/First")]
    while todo:
        if (reference := todo.pop()) is not None:
            item = reference.get_object()
            title = spaced.get("".join(item["/Title"].split()), item["/Title"])
            item[NameObject("/Title")] = TextStringObject(title)
            todo += [item.get("/First"), item.get("/Next")]


# -- the command line ------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m texad.site.pdf", description="Build the book and print it to one PDF."
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the PDF (default: _build/texad.pdf, in the checkout)",
    )
    options = parser.parse_args(arguments)
    try:
        chromium()  # before the build, which takes longer
        checkout = notebooks_folder().parent
        command: list[str | Path] = [
            Path(sys.executable).with_name("jupyter-book"),
            *("build", "--warningiserror", "--nitpick", "--keep-going", "--quiet", checkout),
        ]
        if status := subprocess.run(command, stdout=sys.stderr).returncode:
            return status  # the build has said why
        config = yaml.safe_load((checkout / "_config.yml").read_text(encoding="utf-8"))
        summary = read_json(runs_root() / "summary.json")
        weights = summary["weights"]["name"]
        lines = [
            f"Data set {summary['dataset']}, weights {weights} ({ABOUT.get(weights, 'a file')}), "
            f"seed {summary['seed']}, texad {__version__}.",
            f"© {config['copyright']} {config['author']}",
            LICENCES,
        ]
        out = options.out or checkout / "_build" / "texad.pdf"
        site = checkout / "_build" / "html"
        n_pages = print_book(site, out, config["title"], config["author"], lines)
    except (ValueError, OSError, BrowserError) as error:
        print(f"texad: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"The book, {n_pages} pages: {out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
