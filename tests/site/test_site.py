"""The built book as its readers meet it: files, opened in a browser that reaches nothing else."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit
from xml.etree import ElementTree

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, build_book, copy_book, pages
from helpers import visit
from math_core import LatexError

from texad.runs.run_folder import STAGES, STUDIES
from texad.site.sphinx.mathml import to_mathml
from texad.site.sphinx.repository import links, source_of

SCREENS = pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
CHAPTER = "book/run/chapters/03_autoencoder_training.html"
REFERENCE = re.compile(
    r'<(?:img|script|iframe|source)\b[^>]*?\ssrc="([^"]+)"|<link\b[^>]*?\shref="([^"]+)"'
)


def references(page: Path) -> set[str]:
    """Addresses of the images, scripts and styles that a page loads."""
    found = {
        unescape(src or href) for src, href in REFERENCE.findall(page.read_text(encoding="utf-8"))
    }
    return {address for address in found if not address.startswith("data:")}


# -- whole, offline, on every screen ---------------------------------------------------------------


@SCREENS
def test_every_page_is_whole_without_a_network(built, browser, width, scheme):
    """No request, no error, nothing missing, nothing wider than the screen."""
    targets, seen = [], {}
    with visit(browser, width, scheme) as (page, problems):
        page.goto((built / "index.html").as_uri())
        page.wait_for_url(
            (built / "book" / "intro.html").as_uri()
        )  # the path that make book prints leads to the book
        for file in pages(built):
            page.goto(file.as_uri(), wait_until="load")
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            assert page.title(), file
            broken = page.evaluate(
                "[...document.images].filter(i => !i.complete || i.naturalWidth === 0)"
                ".map(i => i.src)"
            )
            assert not broken, (file, broken)
            assert not page.evaluate("[...document.images].filter(i => !i.alt).map(i => i.src)"), (
                file
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width, file
            seen[file.resolve()] = set(
                page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            )
            targets += [
                (file, url)
                for url in page.evaluate("[...document.links].map(a => a.href)")
                if url.startswith("file:")
            ]
    assert not problems, problems
    for file, url in targets:
        path, fragment = urldefrag(url)
        target = Path(unquote(urlsplit(path).path)).resolve()
        assert target.exists(), (file, url)
        if fragment and target in seen:
            assert unquote(fragment) in seen[target], (file, url)


def test_no_page_names_a_file_of_the_network(built):
    for page in pages(built):
        assert not [
            address
            for address in references(page)
            if urlsplit(address).scheme or address.startswith("//")
        ], page
        assert "mathjax" not in re.sub(r'class="[^"]*"', "", page.read_text()).lower(), page


def test_pages_and_site_are_small(built):
    for page in pages(built):
        files = {
            page,
            *(
                (page.parent / unquote(urlsplit(address).path)).resolve()
                for address in references(page)
            ),
        }
        assert sum(file.stat().st_size for file in files) < 3e6, page
    assert sum(file.stat().st_size for file in built.rglob("*") if file.is_file()) < 60e6


# -- for everyone ----------------------------------------------------------------------------------


@SCREENS
def test_axe_finds_no_serious_barrier(built, browser, width, scheme):
    with visit(browser, width, scheme) as (page, _):
        for file in pages(built):
            page.goto(file.as_uri(), wait_until="load")
            page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
            page.wait_for_timeout(600)  # what unfolds fades in, and would be too pale before
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            # preload is axe's way to read style sheets once more; a page that is a file may not
            violations = (
                Axe()
                .run(page, options={"preload": False, "resultTypes": ["violations"]})
                .response["violations"]
            )
            barriers = [
                (
                    violation["id"],
                    [(node["target"], node["html"][:200]) for node in violation["nodes"]],
                )
                for violation in violations
                if violation["impact"] in ("serious", "critical")
            ]
            assert not barriers, (file, barriers)


def test_captions_code_and_figures_can_be_read(built, browser):
    for scheme in ("light", "dark"):
        with visit(browser, 1280, scheme) as (page, _):
            page.goto((built / CHAPTER).as_uri())
            style = (
                "element => ({...Object.fromEntries(['fontWeight', 'filter', 'backgroundColor']"
                ".map(n => [n, getComputedStyle(element)[n]]))})"
            )
            assert int(page.locator("figcaption p").first.evaluate(style)["fontWeight"]) >= 400
            figure = page.locator("article figure img").first.evaluate(style)
            assert figure["filter"] == "none"
            assert scheme == "light" or figure["backgroundColor"] == "rgb(255, 255, 255)"
            code = page.locator("div.cell_input pre").first
            code.evaluate("pre => pre.textContent = '0'.repeat(88)")
            assert code.evaluate("pre => pre.scrollWidth <= pre.clientWidth"), (
                "88 characters must fit"
            )


def test_paper_is_white_and_cuts_nothing_off(built, browser):
    with visit(browser, 700, "dark") as (page, _):
        page.goto((built / CHAPTER).as_uri())
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(34, 34, 34)"
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.highlight .n')).color")
            == "rgb(34, 34, 34)"
        )
        assert not page.evaluate(
            "[...document.querySelectorAll('article pre')]"
            ".filter(p => p.scrollWidth > p.clientWidth).length"
        )
        assert not page.locator("button.copybtn:visible").count()


# -- search and copy -------------------------------------------------------------------------------


@SCREENS
def test_the_search_finds_a_word(built, browser, width, scheme):
    with visit(browser, width, scheme) as (page, problems):
        page.goto((built / "book" / "intro.html").as_uri())
        page.locator(".search-button__button:visible").first.click()
        page.keyboard.type("bottleneck")
        page.keyboard.press("Enter")
        results = page.locator("#search-results li a")
        results.first.wait_for()
        page.wait_for_function(
            "!document.querySelector('#search-progress')?.textContent.includes('.')"
        )
        assert any(
            "03_autoencoder_training" in (result.get_attribute("href") or "")
            for result in results.all()
        )
        results.first.click()
        page.wait_for_url(lambda url: "search.html" not in url)
        assert "bottleneck" in page.inner_text("article").lower()
    assert not problems, problems


def test_the_copy_button_copies_the_code(built, browser):
    with visit(browser) as (page, problems):
        page.goto((built / CHAPTER).as_uri())
        cell = (
            page.locator("div.cell_input div.highlight").filter(has_text="torch.manual_seed").first
        )
        code = cell.locator("pre").inner_text()
        cell.hover()
        cell.locator("button.copybtn").click()
        page.evaluate(
            "document.querySelector('article').prepend(document.createElement('textarea'))"
        )
        page.locator("article textarea").focus()
        page.keyboard.press("Control+V")
        assert page.locator("article textarea").input_value().strip() == code.strip()
    assert not problems, problems


# -- the threshold explorer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "category"),
    [
        ("book/run/results/02-steel.html", "steel"),
        ("book/run/chapters/05_evaluation.html", "brushed <b>& {ü}nusual"),
    ],
)
def test_the_explorer_on_a_page_counts_as_the_runs_scores_say(
    built, finished, browser, address, category
):
    scores = pd.read_csv(finished[0] / "surfaces" / category / "scores.csv")
    test = scores[scores["split"] == "test"]
    called = []

    def counts() -> list[int]:
        threshold = float(explorer.get_attribute("data-threshold"))
        expected = [
            int(((test["label"] == y) & ((test["score"] > threshold) == bool(p))).sum())
            for y in (0, 1)
            for p in (0, 1)
        ]
        shown = [
            int(explorer.locator(f"[data-count={name}]").inner_text())
            for name in ("tn", "fp", "fn", "tp")
        ]
        assert shown == expected, threshold
        called.append(shown[1] + shown[3])

    with visit(browser) as (page, problems):
        page.goto((built / address).as_uri())
        explorer = page.locator(".texad-explorer")
        explorer.locator(".handle").scroll_into_view_if_needed()
        counts()
        box = explorer.locator(".handle").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        for x in (-4000, 4000):
            page.mouse.move(x, box["y"], steps=3)
            counts()
        page.mouse.up()
        explorer.get_by_role("slider").press("ArrowLeft")
        counts()
        page.wait_for_function(
            "document.querySelector('.texad-explorer [aria-live] img').naturalWidth > 0"
        )
    assert called[1:] == [len(test), 0, 1]
    assert not problems, problems


# -- formulas --------------------------------------------------------------------------------------


def test_formulas_are_drawn_by_the_browser_alone(built, browser):
    with visit(browser) as (page, _):
        page.goto((built / CHAPTER).as_uri())
        formulas = page.locator("article math").all()
        assert len(formulas) > 10 and all(formula.get_attribute("alttext") for formula in formulas)
        fraction = page.locator("article math[display=block] mfrac").first.bounding_box()
        assert fraction["height"] > 25  # numerator above denominator


@pytest.mark.parametrize(
    ("tex", "parts"),
    [
        (r"\hat F", ['<mover accent="true"><mi>F</mi><mo stretchy="false">ˆ</mo></mover>']),
        (
            r"\lVert F\rVert^2",
            ['<mo stretchy="false" form="prefix">‖</mo>', "<mn>2</mn></msup>"],
        ),
        (
            r"\frac{1}{N} \sum_{i=1}^{N} x_i",
            ["<mfrac>", "<munderover><mo>∑</mo>", "<msub><mi>x</mi><mi>i</mi></msub>"],
        ),
        (r"x \in \mathbb{R}^{N \times C}", ["<mo>∈</mo>", "<mi>ℝ</mi>", "×</mo>"]),
        (r"\mu + 3\sigma", ["<mi>μ</mi><mo>+</mo><mn>3</mn><mi>σ</mi>"]),
        (r"\boldsymbol{\theta} \mathcal R", ["<mi>𝜽</mi>", "<mi>ℛ"]),
        (
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            ["<mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr>"],
        ),
        (
            r"\begin{aligned}a &= b\\c &= d\end{aligned}",
            ["text-align: right", "<mi>a</mi></mtd>", "<mo>=</mo><mi>d</mi>"],
        ),
        (r"\begin{align}a &= b\end{align}", ["text-align: right", "<mi>a</mi></mtd>"]),
        ("a \\\\ b", ["<mtr>"]),
        (r"a < b, \text{if a\_b \& c}", ["<mo>&lt;</mo>", "if a_b &amp; c"]),
    ],
)
def test_tex_becomes_mathml(tex, parts):
    made = to_mathml(tex, "block")
    math = ElementTree.fromstring(made)  # well-formed
    assert math.get("alttext") == tex and math.get("display") == "block"
    for part in parts:
        assert part in re.sub("\N{NO-BREAK SPACE}", " ", made)
    assert "(1)" not in made  # numbers are Sphinx's


@pytest.mark.parametrize(
    "tex",
    [
        r"\nosuch x",
        r"\frac{1",
        "x_{",
        "a & b",
        r"\begin{nosuch}a\end{nosuch}",
        r"\begin{align}a",
        r"\left( a",
        r"\sqrt",
        r"\label{x} a",
    ],
)
def test_tex_that_would_be_garbled_is_refused(tex):
    with pytest.raises(LatexError):
        to_mathml(tex)


@pytest.mark.slow
def test_a_wrong_formula_fails_the_build_and_names_the_page(tmp_path):
    (tmp_path / "conf.py").write_text(
        'extensions = ["texad.site.sphinx.mathml"]\nhtml_math_renderer = "mathml"\n'
    )
    (tmp_path / "index.rst").write_text(
        "T\n=\n\n:eq:`loss`\n\n.. math:: L = 1\n   :label: loss\n\n.. toctree::\n\n   wrong\n"
    )
    (tmp_path / "wrong.rst").write_text("W\n=\n\nA formula :math:`\\nosuch` here.\n")
    for builder, page in (("html", "index.html"), ("singlehtml", "index.html")):
        command = [
            sys.executable,
            "-m",
            "sphinx",
            "-b",
            builder,
            "-W",
            "--keep-going",
            "-E",
            tmp_path,
            tmp_path / builder,
        ]
        result = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=120
        )
        assert result.returncode != 0
        assert "wrong.rst" in result.stderr and r"\nosuch" in result.stderr
        made = (tmp_path / builder / page).read_text()
        assert 'id="equation-loss"' in made and '#equation-loss"' in made and "(1)" in made


# -- links to the repository -----------------------------------------------------------------------


def test_without_an_address_no_page_offers_a_link_to_the_repository(built):
    for page in pages(built):
        text = page.read_text()
        assert "texad-links" not in text and "mybinder" not in text and "colab" not in text, page


def test_with_an_address_pages_link_to_their_source_and_chapters_can_be_run(finished, tmp_path):
    copy_book(tmp_path)
    config = (tmp_path / "_config.yml").read_text()
    assert '  url: ""' in config
    (tmp_path / "_config.yml").write_text(
        config.replace('  url: ""', "  url: https://github.com/somebody/texad")
    )
    runs, _ = finished
    result = build_book(tmp_path, runs)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    for page in pages(tmp_path / "_build" / "html"):
        name = page.relative_to(tmp_path / "_build" / "html").with_suffix("").as_posix()
        text = page.read_text()
        own = re.findall(
            r'<a href="([^"]*)">([^<]*)</a>',
            "".join(re.findall(r'<nav class="texad-links".*?</nav>', text)),
        )
        offered = {title: address for address, title in own}
        is_chapter = page.stem in STAGES + STUDIES
        assert text.count("mybinder.org") == text.count("colab.research") == is_chapter, (
            name
        )  # no second button of the theme
        if is_chapter:
            assert offered["Open in Binder"].endswith(
                f"/somebody/texad/main?urlpath=lab/tree/notebooks/{page.stem}.ipynb"
            )
            assert offered["Open in Colab"].endswith(
                f"/somebody/texad/blob/main/notebooks/{page.stem}.ipynb"
            )
        if name.startswith("book/run/") and not is_chapter or name == "search":
            assert not offered, name
        else:
            path = offered["View source"].removeprefix(
                "https://github.com/somebody/texad/blob/main/"
            )
            assert (ROOT / path).is_file(), path


def test_addresses_of_other_hosts_and_branches():
    notebook = "notebooks/04_scoring.ipynb"
    assert links("", "main", notebook) == []
    assert links("https://github.com/a/b.git/", "dev/x", notebook)[0] == (
        "Open in Binder",
        "https://mybinder.org/v2/gh/a/b/dev%2Fx?urlpath=lab/tree/notebooks/04_scoring.ipynb",
    )
    assert links("https://gitlab.com/a/b", "main", notebook) == [
        ("View source", f"https://gitlab.com/a/b/-/blob/main/{notebook}")
    ]
    assert links("https://codeberg.org/a/b", "main", "book/x.md") == [
        ("View source", "https://codeberg.org/a/b/src/branch/main/book/x.md")
    ]
    assert links("https://github.com/a/b", "main", "book/x.md") == [
        ("View source", "https://github.com/a/b/blob/main/book/x.md")
    ]
    assert source_of("book/run/results/01-a", "book/run/results/01-a.md") is None
    assert source_of("book/your_data", "book/your_data.md") == "book/your_data.md"
