import os
import subprocess
import sys

import jupytext
import nbclient
import nbformat
import pytest
from conftest import ROOT

from texad.artifacts import STAGES

NOTEBOOKS = ROOT / "notebooks"


def papermill(stage, out, *parameters, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", NOTEBOOKS / f"{stage}.ipynb", out]
    pairs = [part for name, value in parameters for part in ("-p", name, value)]
    return subprocess.run([*map(str, command), *map(str, pairs)], capture_output=True, text=True, timeout=120, **options)


def test_there_is_a_notebook_for_each_stage_and_no_other():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(STAGES)
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_pairs_are_in_sync(stage):
    script = jupytext.read(NOTEBOOKS / f"{stage}.py")
    notebook = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4)

    def essence(cells):
        return [(cell.cell_type, cell.source, cell.metadata.get("tags"), cell.metadata.get("mystnb")) for cell in cells]

    assert essence(script.cells) == essence(notebook.cells), "run make sync"


@pytest.mark.parametrize("stage", STAGES)
def test_notebooks_carry_no_outputs(stage):
    notebook = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, "run make sync"


@pytest.mark.parametrize("stage", STAGES)
def test_pictures_have_captions_and_alternative_texts(stage):
    for cell in nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells:
        last = cell.source.strip().splitlines()[-1:] if cell.cell_type == "code" else []
        if last and (last[0].startswith("plotting.") or last[0] == "figure" or cell.source.strip().endswith(")\n)")):
            described = cell.metadata.get("mystnb", {})
            assert described.get("figure", {}).get("caption") and described.get("image", {}).get("alt"), cell.source


def test_an_unknown_category_is_one_line_that_lists_those_there_are(tmp_path):
    result = papermill("04_scoring", tmp_path / "x.ipynb", ("category", "nonsense"), cwd=tmp_path)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("RunError")]
    assert all(name in line for name in ("nonsense", "carpet", "grid", "leather", "tile", "wood"))


@pytest.mark.parametrize("position", [1, 4])
def test_a_notebook_says_which_one_to_run_first(surfaces, tmp_path, position):
    parameters = ("dataset", surfaces), ("category", "steel"), ("runs", tmp_path / "runs")
    result = papermill(STAGES[position], tmp_path / "x.ipynb", *parameters)
    assert result.returncode != 0
    assert any(line.startswith("RunError") and "01_preprocessing.ipynb" in line for line in result.stderr.splitlines())


def test_run_all_from_the_notebooks_folder_and_papermill_from_another_share_the_run_folder(tmp_path):
    """The defaults: synthetic leather. JupyterLab starts a kernel in the notebook's folder, papermill in the caller's."""
    environment = os.environ | {"TEXAD_DATA": str(tmp_path / "data"), "TEXAD_RUNS": str(tmp_path / "runs"), "TEXAD_WEIGHTS": "random"}
    notebook = nbformat.read(NOTEBOOKS / "01_preprocessing.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute(env=environment)
    assert (tmp_path / "runs" / "synthetic" / "leather" / "images.csv").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = papermill("03_autoencoder_training", tmp_path / "x.ipynb", cwd=elsewhere, env=environment)
    assert "run notebooks/02_feature_extraction.ipynb" in result.stderr  # so it found what 01 had left
