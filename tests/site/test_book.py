import json
import re

import pytest
from conftest import ROOT, build_book, copy_book, pages

from texad.runs.run_folder import STAGES, STUDIES
from texad.site import markdown
from texad.site.pages import _slug

PAGES_WITH_NUMBERS = (
    "intro",
    "comparison",
    "hits_and_misses",
    "01-",
    "02-",
    "02_",
    "03_",
    "04_",
    "05_",
    "06_",
    "07_",
    "08_",
    "real_surfaces",
)


def test_there_is_a_page_for_each_chapter_each_category_and_each_text(built):
    names = {
        page.relative_to(built / "book").as_posix() for page in (built / "book").rglob("*.html")
    }
    assert names == {
        *(f"{text.stem}.html" for text in (ROOT / "book").glob("*.md")),
        *(f"run/chapters/{stage}.html" for stage in STAGES + STUDIES),
        "run/comparison.html",
        "run/hits_and_misses.html",
        "run/real_surfaces.html",
        "run/weights.html",
        "run/beyond_one_machine.html",
        "run/results/01-brushed-b-nusual.html",
        "run/results/02-steel.html",
    }


def test_results_pages_show_the_five_figures_and_the_numbers(built, finished):
    runs, _ = finished
    metrics = json.loads((runs / "surfaces" / "steel" / "metrics.json").read_text())
    page = (built / "book" / "run" / "results" / "02-steel.html").read_text()
    assert [f"Figure {i}." in page for i in range(1, 6)] == [True] * 5
    assert f"{metrics['image_auroc']:.3f}" in page and f"{metrics['threshold']:.4g}" in page


def test_every_page_with_numbers_names_the_weights_and_links_to_what_they_are_worth(built):
    for page in pages(built):
        if page.name.startswith(PAGES_WITH_NUMBERS):
            text = page.read_text()
            assert "random" in text, page.name
            assert re.search(r'href="[^"]*weights\.html(#weights)?"', text), page.name


def test_a_failed_category_is_named_on_the_comparison_page(built):
    page = (built / "book" / "run" / "comparison.html").read_text()
    assert "torn failed" in page and "01_preprocessing.ipynb, cell [3]" in page
    assert "*x* &lt;b&gt;" in page


def test_no_raw_markdown_tex_or_traceback_is_left_in_the_pages(built):
    for page in pages(built):
        body = re.sub(
            r"<(script|pre|code)\b.*?</\1>|alttext=\"[^\"]*\"", "", page.read_text(), flags=re.S
        )
        for trace in ("Traceback", ":::", "{cite", "{term}", "$$", "\\("):
            assert trace not in body, (page.name, trace)


@pytest.mark.slow
def test_without_a_run_one_line_says_what_to_do(tmp_path):
    copy_book(tmp_path)
    result = build_book(tmp_path, tmp_path / "no_runs")
    assert result.returncode != 0
    assert result.stderr.strip().splitlines()[-1].startswith("texad: no results in")
    assert "make book" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(("name", "slug"), [("../a b/ü<c>", "a-b-c"), ("/", "category")])
def test_names_of_categories_cannot_break_the_addresses_of_pages(name, slug):
    assert _slug(name) == slug


def test_names_of_categories_cannot_break_the_pages():
    assert markdown.text("a_b*c|d[e]") == r"a\_b\*c\|d\[e\]"
