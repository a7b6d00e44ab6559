import os
import re
import shutil
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pypdf import PdfReader

from texad.errors import RunError
from texad.io.json_files import write_json
from texad.site import pdf

pytestmark = pytest.mark.slow

LONG = "x = '" + "-".join(f"{i:03d}" for i in range(100)) + "'"
FOLDED = "hidden_until_printed = 1"

INTRO = """# A small book of `"pages"`

{ref}`The second recap <recap>`, [elsewhere](https://example.org/a),
{download}`a file <picture.svg>`.

## Recap

The first recap.
"""

TWO = """# 2 Pictures, tables and `code` in a chapter whose name is too long for a single line

```{figure} picture.svg
:alt: A square.

A very large picture.
```

| TABLE |
| --- |

:::{admonition} A folded box
:class: dropdown

What the box holds.
:::

LINES

(recap)=
## Recap

The second recap.
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """A small book, built and printed by the command, and the source folder it was built in."""
    if not any(map(shutil.which, pdf.BROWSERS)):
        if os.environ.get("CI") == "true":
            pytest.fail("CI must install Chromium (.ci/run does)")
        pytest.skip("no Chromium to print the book with: sudo apt install chromium")
    source = tmp_path_factory.mktemp("book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text()) | {"sphinx": {}}
    del config["bibtex_bibfiles"]
    (source / "_config.yml").write_text(yaml.safe_dump(config))
    toc = {
        "format": "jb-book",
        "root": "intro",
        "parts": [{"caption": "The only part", "chapters": [{"file": "one"}, {"file": "two"}]}],
    }
    (source / "_toc.yml").write_text(yaml.safe_dump(toc))
    (source / "picture.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="2000" height="4000">'
        '<path d="M0 0H2000V4000H0z"/></svg>'
    )
    (source / "intro.md").write_text(INTRO)
    columns = " | ".join(f"column{i:02d}" for i in range(20))
    (source / "two.md").write_text(
        TWO.replace("TABLE", columns)
        .replace("| --- |", "|" + " --- |" * 20)
        .replace("LINES", "A line.\n\n" * 80)
    )
    write_json(
        source / "runs" / "summary.json",
        {"dataset": "drawn", "seed": 3, "weights": {"name": "random"}},
    )
    cells = [
        new_markdown_cell("# 1 Code"),
        *code_cells(),
        new_markdown_cell("## Recap"),
        new_code_cell(LONG),
    ]
    cells.append(new_code_cell(FOLDED, metadata={"tags": ["hide-input"]}))
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(new_notebook(cells=cells, metadata=language), source / "one.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "notebooks_folder", lambda: source / "notebooks")
        patch.setenv("TEXAD_RUNS", str(source / "runs"))
        assert pdf.main([]) == 0
    return source, PdfReader(source / "_build" / "texad.pdf")


def code_cells():
    notebook = nbformat.read(ROOT / "notebooks" / "04_scoring.ipynb", as_version=4)
    return [new_code_cell(cell.source) for cell in notebook.cells if cell.cell_type == "code"]


@cache
def texts(reader):
    return [page.extract_text() for page in reader.pages]


def squashed(text):
    return re.sub(r"\s+", "", text)


def outline(reader):
    found = []

    def walk(items, level):
        for item in items:
            if isinstance(item, list):
                walk(item, level + 1)
            else:
                found.append((level, item.title, reader.get_destination_page_number(item) + 1))

    walk(reader.outline, 1)
    return found


def links(page):
    return [
        annotation["/A"] if "/A" in annotation else annotation
        for annotation in (entry.get_object() for entry in page.get("/Annots", []))
    ]


def test_the_title_page_says_what_the_book_is_and_of_which_run(printed):
    _, reader = printed
    title = squashed(texts(reader)[0])
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    for expected in (
        config["title"],
        config["author"],
        "Data set drawn, weights random (a network that has learnt nothing), seed 3",
        pdf.LICENCES,
    ):
        assert squashed(expected) in title


def test_the_numbers_in_the_contents_are_those_of_the_pages(printed):
    _, reader = printed
    pages = texts(reader)
    entries = [
        (title, number)
        for level, title, number in outline(reader)
        if level <= 2 and title != "Contents"
    ]
    lines = ["Contents", *(f"{title} {number}" for title, number in entries), f"2 / {len(pages)}"]
    lines.insert(3, "The only part")
    assert squashed(pages[1]) == squashed("".join(lines))
    for title, number in entries:
        assert squashed(title) in squashed(pages[number - 1])
    ends = [page.splitlines()[-1] for page in pages]
    assert ends == [f"{i} / {len(pages)}" for i in range(1, len(pages) + 1)]


def test_the_outline_has_each_chapter_with_its_sections(printed):
    _, reader = printed
    assert [(level, title) for level, title, _ in outline(reader)] == [
        (1, "Contents"),
        (1, 'A small book of "pages"'),
        (2, "Recap"),
        (1, "1 Code"),
        (2, "Recap"),
        (1, "2 Pictures, tables and code in a chapter whose name is too long for a single line"),
        (2, "Recap"),
    ]
    chapters = [(title, number) for level, title, number in outline(reader) if level == 1]
    title, last = chapters[-1]
    assert len({number for _, number in chapters}) == len(chapters)  # each on a new page
    assert len(reader.pages) > last  # and its name stands at the top of each page
    assert all(squashed(page).startswith(squashed(title)) for page in texts(reader)[last - 1 :])


def test_no_line_of_code_is_lost(printed):
    _, reader = printed
    text = squashed(
        "".join(re.sub(r"^.*\n|\n.*$", "", page) for page in texts(reader))
    )  # without the lines that each page has
    for cell in [*code_cells(), new_code_cell(LONG), new_code_cell(FOLDED)]:
        for line in cell.source.splitlines():
            assert squashed(line) in text, line


def test_nothing_is_cut_off_or_stays_folded(printed):
    _, reader = printed
    text = squashed("".join(texts(reader)))
    assert all(f"column{i:02d}" in text for i in range(20))
    assert squashed("What the box holds.") in text
    assert text.count("Aline.") == 80
    assert "Showcodecellsource" not in text


def test_links_lead_to_the_right_page_and_none_to_a_file(printed):
    _, reader = printed
    number = {title: number for _, title, number in outline(reader)}['A small book of "pages"']
    on_page = links(reader.pages[number - 1])
    assert [link["/URI"] for link in on_page if "/URI" in link] == ["https://example.org/a"]
    assert not [
        link["/URI"]
        for page in reader.pages
        for link in links(page)
        if link.get("/URI", "").startswith("file")
    ]
    targets = [str(link["/Dest"]) for link in on_page if "/Dest" in link]
    (target,) = targets  # three sections are called Recap
    assert (
        reader.get_destination_page_number(reader.named_destinations[target]) + 1
        == outline(reader)[-1][2]
    )


def test_the_file_is_fit_to_be_printed_and_read_aloud(printed):
    _, reader = printed
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert (reader.metadata.title, reader.metadata.author) == (config["title"], config["author"])
    assert reader.root_object["/MarkInfo"]["/Marked"] and reader.root_object["/Lang"] == "en"
    for page in reader.pages:
        assert [round(float(side) / 72 * 25.4) for side in page.mediabox[2:]] == [210, 297]
        for font in page["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            is_embedded = inner["/Subtype"] == "/Type3" or any(
                name.startswith("/FontFile") for name in inner["/FontDescriptor"]
            )
            assert is_embedded, font


def test_a_missing_picture_is_named_and_no_file_is_left(printed, tmp_path):
    source, _ = printed
    site = shutil.copytree(source / "_build" / "html", tmp_path / "html")
    (picture,) = site.rglob("_images/*.svg")
    picture.unlink()
    with pytest.raises(RunError, match=r"lacks a picture: .*\.svg"):
        pdf.print_book(site, tmp_path / "out" / "book.pdf", "T", "A")
    assert not list((tmp_path / "out").iterdir())


def test_without_a_book_or_a_browser_one_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    with pytest.raises(RunError, match="make book"):
        pdf.print_book(tmp_path, tmp_path / "book.pdf", "T", "A")
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    assert pdf.main(["--out", str(tmp_path / "book.pdf")]) == 2
    error = capsys.readouterr().err
    assert "sudo apt install chromium" in error and error.count("\n") == 1


def test_a_build_that_fails_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "chromium", lambda: "")
    monkeypatch.setattr(
        pdf, "notebooks_folder", lambda: Path(tmp_path) / "notebooks"
    )  # there is nothing to build
    assert pdf.main(["--out", str(tmp_path / "book.pdf")]) not in (0, 2)
    assert not (tmp_path / "book.pdf").exists()
