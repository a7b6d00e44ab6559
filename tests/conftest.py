"""What the tests share: small data sets, their runs, the book built of them, and a browser."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TEXAD_SHARED", ROOT.parent / "shared"))
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


# Whole batches, the built book, and features of many real images.
SLOW_FIXTURES = {"finished", "built", "batch", "hostile", "quick", "real_scores", "magnetic_tile"}


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items):
    """Mark tests by what they ask for: a browser, or what takes long to make."""
    for item in items:
        asked = set(item.fixturenames)
        if "browser" in asked:
            item.add_marker(pytest.mark.browser)
        if asked & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)


def needs_shared(relative: str) -> Path:
    """A file of the real material, or a skip that says what is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(
            f"real material {relative} is absent; set TEXAD_SHARED to the folder that holds it"
        )
    return path


def write_category(
    folder: Path,
    *,
    n_train: int = 6,
    n_good: int = 3,
    n_defective: int = 3,
    size: int = 64,
    seed: int = 0,
) -> Path:
    """A tiny category in MVTec AD's layout: noise on grey, and a bright square as defect `spot`."""
    rng = np.random.default_rng(seed)

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def surface() -> np.ndarray:
        return rng.integers(90, 150, (size, size, 3), dtype=np.uint8)

    for i in range(n_train):
        save(folder / "train" / "good" / f"{i:03d}.png", surface())
    for i in range(n_good):
        save(folder / "test" / "good" / f"{i:03d}.png", surface())
    for i in range(n_defective):
        image, mask = surface(), np.zeros((size, size), dtype=np.uint8)
        row, column = rng.integers(8, size - 24, 2)
        image[row : row + 16, column : column + 16] = 255
        mask[row : row + 16, column : column + 16] = 255
        save(folder / "test" / "spot" / f"{i:03d}.png", image)
        save(folder / "ground_truth" / "spot" / f"{i:03d}_mask.png", mask)
    return folder


# A name that needs care. It is the first in order, so the studies are of this category.
LEAD = "brushed <b>& {ü}nusual"


@pytest.fixture(scope="module")
def short_training():
    """Detectors that train for a few steps: enough for squares on noise, and over at once."""
    from texad.model import registry

    with pytest.MonkeyPatch.context() as patch:
        for name, known in registry.DETECTORS.items():
            steps = max(1, known.steps // 40)
            short = dataclasses.replace(
                known,
                fit=functools.partial(known.fit, steps=steps),
                steps=steps,
                shared_steps=2 * steps,
            )
            patch.setitem(registry.DETECTORS, name, short)
        yield


@pytest.fixture(scope="session")
def surfaces(tmp_path_factory) -> Path:
    """A data set of two tiny categories."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_category(folder / "steel", seed=1)
    write_category(folder / LEAD, seed=2)
    return folder


QUICK = [
    "-p",
    "image_size",
    "64",
    "-p",
    "steps",
    "2",
    "-p",
    "hidden",
    "32",
    "-p",
    "bottleneck",
    "8",
]


def texad(*arguments, **options) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "texad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, **options)


def run_arguments(dataset, out, *more) -> list:
    """Arguments of a batch that is quick, since its images and networks are small."""
    return [
        "run",
        "--dataset",
        dataset,
        "--weights",
        "random",
        "--out",
        out,
        "--quiet",
        *QUICK,
        *more,
    ]


@pytest.fixture(scope="session")
def finished(surfaces, tmp_path_factory):
    """Runs of a batch over both tiny categories, with the studies, and the command's output."""
    out = tmp_path_factory.mktemp("batch") / "runs"
    return out, texad(*run_arguments(surfaces, out, "--jobs", 2, "--studies"))


def copy_book(source: Path) -> None:
    """Copy what the book is built from, so that the checkout's own pages stay as they are."""
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("run"))


def build_book(source: Path, runs: Path) -> subprocess.CompletedProcess:
    """Build a copied book, as `make book` does."""
    command = [
        Path(sys.executable).with_name("jupyter-book"),
        "build",
        source,
        "--warningiserror",
        "--nitpick",
        "--keep-going",
    ]
    environment = os.environ | {"TEXAD_RUNS": str(runs)}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, env=environment
    )


@pytest.fixture(scope="session")
def built(finished, tmp_path_factory) -> Path:
    """The built book of the small runs, with one more category that failed."""
    source = tmp_path_factory.mktemp("book")
    runs, _ = finished
    summary = json.loads((runs / "summary.json").read_text())
    failed = dict.fromkeys(summary["categories"][0]) | {
        "category": "torn",
        "error": "01_preprocessing.ipynb, cell [3]: ValueError: *x* <b>",
    }
    with_failure = source / "runs"
    shutil.copytree(runs, with_failure)
    (with_failure / "summary.json").write_text(
        json.dumps(summary | {"categories": [*summary["categories"], failed]})
    )
    copy_book(source)
    result = build_book(source, with_failure)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return source / "_build" / "html"


def pages(built: Path) -> list[Path]:
    """Pages of the built book that readers meet: the table of contents and the search."""
    return [*sorted((built / "book").rglob("*.html")), built / "search.html"]


@pytest.fixture(
    scope="module"
)  # not for the session: the book's own printing to PDF cannot start a browser beside it
def browser():
    """Chromium, or a skip that says how to get it."""
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must install Chromium (.ci/run does)")
        pytest.skip("no Chromium to look at the book with: sudo apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()
