import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from conftest import ROOT

from texad.artifacts import STAGES
from texad.book import pages as book_pages

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES_WITH_NUMBERS = ("intro", "comparison", "01-", "02-", "02_", "03_", "04_", "05_")


def build(source, runs) -> subprocess.CompletedProcess:
    """Build the book from a copy, so that the checkout's own pages stay as they are."""
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("run"))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--warningiserror", "--nitpick", "--keep-going"]
    environment = os.environ | {"TEXAD_RUNS": str(runs)}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture(scope="module")
def built(finished, tmp_path_factory):
    source = tmp_path_factory.mktemp("book")
    runs, _ = finished
    summary = json.loads((runs / "summary.json").read_text())
    failed = dict.fromkeys(summary["categories"][0]) | {"category": "torn", "error": "01_preprocessing.ipynb, cell [3]: ValueError: *x* <b>"}
    with_failure = source / "runs"
    shutil.copytree(runs, with_failure)
    (with_failure / "summary.json").write_text(json.dumps(summary | {"categories": [*summary["categories"], failed]}))
    result = build(source, with_failure)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return source / "_build" / "html"


def pages(built):
    return sorted((built / "book").rglob("*.html"))


def test_there_is_a_page_for_each_chapter_and_each_category(built):
    names = {page.relative_to(built / "book").as_posix() for page in pages(built)}
    assert names == {
        "intro.html", "your_data.html", "references.html", "run/comparison.html",
        "run/results/01-brushed-b-nusual.html", "run/results/02-steel.html",
        *(f"run/chapters/{stage}.html" for stage in STAGES),
    }  # fmt: skip


def test_results_pages_show_the_five_figures_and_the_numbers(built, finished):
    runs, _ = finished
    metrics = json.loads((runs / "surfaces" / "steel" / "metrics.json").read_text())
    page = (built / "book" / "run" / "results" / "02-steel.html").read_text()
    assert [f"Figure {i}." in page for i in range(1, 6)] == [True] * 5
    assert f"{metrics['image_auroc']:.3f}" in page and f"{metrics['threshold']:.4g}" in page


def test_the_warning_about_random_weights_is_on_every_page_with_numbers(built):
    for page in pages(built):
        if page.name.startswith(PAGES_WITH_NUMBERS):
            assert "RANDOM WEIGHTS" in page.read_text(), page.name


def test_a_failed_category_is_named_on_the_comparison_page(built):
    page = (built / "book" / "run" / "comparison.html").read_text()
    assert "torn failed" in page and "01_preprocessing.ipynb, cell [3]" in page
    assert "*x* &lt;b&gt;" in page


def test_no_raw_markdown_or_traceback_is_left_in_the_pages(built):
    for page in pages(built):
        body = re.sub(r"<(script|pre|code)\b.*?</\1>", "", page.read_text(), flags=re.S)
        assert "Traceback" not in body and ":::" not in body and "{cite" not in body, page.name


def test_without_a_run_one_line_says_what_to_do(tmp_path):
    result = build(tmp_path, tmp_path / "no_runs")
    assert result.returncode != 0
    assert result.stderr.strip().splitlines()[-1].startswith("texad: no results in")
    assert "make book" in result.stderr and "Traceback" not in result.stderr


def test_names_of_categories_cannot_break_the_pages():
    assert book_pages._slug("../a b/ü<c>") == "a-b-c"
    assert book_pages._text("a_b*c|d[e]") == r"a\_b\*c\|d\[e\]"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must install Chromium (.ci/run does)")
        pytest.skip("no Chromium to look at the book with: sudo apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_whole_in_a_browser(built, browser, width, scheme):
    """No console error, no missing image, file or link target, nothing wider than the screen.

    One thing comes from the network, MathJax; a browser without network reports it, and this alone is let pass.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"request: {request.url}"))
    page.on("console", lambda message: problems.append(f"console: {message.text} {message.location}") if message.type == "error" else None)
    page.goto((built / "index.html").as_uri())
    page.wait_for_url((built / "book" / "intro.html").as_uri())  # the path that make book prints leads to the book
    targets, seen = [], {}
    for file in pages(built):
        page.goto(file.as_uri(), wait_until="load")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        assert page.title(), file
        broken = page.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src)")
        assert not broken, (file, broken)
        assert not page.evaluate("[...document.images].filter(i => !i.alt).map(i => i.src)"), file
        assert page.evaluate("document.documentElement.scrollWidth") <= width, file
        seen[file.resolve()] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
        targets += [(file, url) for url in page.evaluate("[...document.links].map(a => a.href)") if url.startswith("file:")]
    context.close()
    assert not [problem for problem in problems if "mathjax" not in problem.lower()], problems
    for file, url in targets:
        path, fragment = urldefrag(url)
        target = type(built)(unquote(urlsplit(path).path)).resolve()
        assert target.exists(), (file, url)
        if fragment and target in seen:
            assert unquote(fragment) in seen[target], (file, url)
