"""The page on the weights of the package, made of runs with several weights."""

import copy
import re

import pytest

from texad.io.json_files import read_json, write_json
from texad.io.paths import notebooks_folder
from texad.model import weights
from texad.site import record, weights_page

AUROC = {"random": 0.6, "texad": 0.78, "ImageNet": 0.8}


@pytest.fixture
def page(tmp_path):
    """Make the page of a record with one surface, and these weights."""

    def made(*names):
        content = read_json(notebooks_folder().parent / "book" / record.FILE)
        first = next(run for run in content["runs"] if run["category"] == "magnetic_tile")
        content["runs"] = []
        for name in names:
            digest = weights.TEACHER_SHA256 if name == "ImageNet" else "0" * 64
            run = copy.deepcopy(first) | {"weights": {"name": name, "sha256": digest}}
            run["metrics"]["image_auroc"] = AUROC[name]
            content["runs"].append(run)
        write_json(tmp_path / "book" / record.FILE, content)
        return weights_page.page(tmp_path / "no runs", tmp_path / "book" / "run")

    return made


def squashed(text):
    return " ".join(text.split())


def test_the_page_says_what_the_weights_are_worth_beside_imagenets(page):
    text = squashed(page("ImageNet", "texad", "random"))
    assert "| Surface | Detector | random | texad | ImageNet |" in text
    assert r"| magnetic\_tile | published | 0.600 | 0.780 | 0.800 |" in text
    assert "go at least **90%** of the way" in text
    assert "their AUROC is **0.020** below that of ImageNet's weights" in text


def test_what_is_not_recorded_is_a_dash_or_said(page):
    assert r"| magnetic\_tile | published | – | 0.780 | – |" in page("texad")
    assert "No results with these weights are recorded yet." in squashed(page("ImageNet"))


def test_the_page_says_how_the_file_was_made(page):
    text = page("texad")
    assert f"`{weights.load('texad').sha256}`" in text and f"`{weights.TEACHER_SHA256}`" in text
    (share,) = re.findall(r"(\d+)% of the operations", text)
    assert 0 < int(share) < 100
