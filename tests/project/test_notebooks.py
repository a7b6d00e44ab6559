import ast
import os
import re
import subprocess
import sys

import jupytext
import nbclient
import nbformat
import pandas as pd
import pytest
from conftest import LEAD, ROOT

from texad.detector import AnomalyDetector
from texad.errors import DataError, RunError
from texad.runs.run_folder import STAGES, STUDIES

NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = STAGES + STUDIES


def papermill(stage, out, *parameters, **options) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        NOTEBOOKS / f"{stage}.ipynb",
        out,
    ]
    pairs = [part for name, value in parameters for part in ("-p", name, value)]
    return subprocess.run(
        [*map(str, command), *map(str, pairs)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_there_is_a_notebook_for_each_stage_and_study_and_no_other():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(CHAPTERS)
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == list(CHAPTERS)


@pytest.mark.parametrize("stage", CHAPTERS)
def test_pairs_are_in_sync(stage):
    script = jupytext.read(NOTEBOOKS / f"{stage}.py")
    notebook = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4)

    def essence(cells):
        kept = ("tags", "mystnb", "jupyter")
        return [
            (cell.cell_type, cell.source, *(cell.metadata.get(name) for name in kept))
            for cell in cells
        ]

    assert essence(script.cells) == essence(notebook.cells), "run make sync"


@pytest.mark.parametrize("stage", CHAPTERS)
def test_notebooks_carry_no_outputs(stage):
    notebook = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, "run make sync"


# Definitions, and facts with their source beside them
NO_RESULTS = {"0.5", "1.3 million"}


def results_in_prose(text: str) -> list[str]:
    """Numbers in prose that look like results.

    A result is typed as a decimal fraction ("0.94", "3.5 seconds"), a percentage ("12 %", "12%") or
    a count of a count ("3 of 40"). These must come from the run. Not looked at: mathematics, code,
    links, and what stands in `NO_RESULTS`. The limit of this rule: a lone whole number ("224
    pixels", "10 largest") passes, since it may be a definition.
    """
    for skipped in (
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"\$[^$]*\$",
        r"`[^`]*`",
        r"\]\([^)]*\)",
        r"https?://\S+",
        *map(re.escape, NO_RESULTS),
    ):
        text = re.sub(skipped, " ", text, flags=re.S)
    return re.findall(r"\d+\.\d+|\d+ ?%|\b\d+ (?:out )?of \d+", text)


@pytest.mark.parametrize("stage", CHAPTERS)
def test_no_result_is_typed_into_the_prose(stage):
    for cell in nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(
                r"```\{exercise\}(.*?)```", r"\1", cell.source, flags=re.S
            )  # what an exercise says is prose, too
            assert not results_in_prose(text), cell.source


def test_the_rule_for_results_catches_them():
    assert results_in_prose("The AUROC is 0.94, or 94 %, in 3.5 s; 3 of 40 were missed.") == [
        "0.94",
        "94 %",
        "3.5",
        "3 of 40",
    ]
    assert not results_in_prose(
        "0.5 is guessing; $k = 0.1$, `0.25`, 14 × 14 places, [a](b/1.2.html)"
    )


@pytest.mark.parametrize("stage", CHAPTERS)
def test_chapters_have_all_their_parts(stage):
    text = "\n".join(
        cell.source for cell in nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells
    )
    for part in (
        "You will learn",
        "![",
        "What could go wrong",
        "*What to look for:*",
        "## Exercises",
        "## Quiz",
        "## Recap",
        "**Further reading.**",
    ):
        assert part in text, part
    assert (
        text.count("{exercise}")
        == text.count("{solution-start}")
        == text.count("{solution-end}")
        >= 2
    )


@pytest.mark.parametrize("stage", CHAPTERS)
def test_every_solution_runs(finished, stage):
    """papermill stops at an error, so a finished notebook has run its solutions."""
    out, result = finished
    assert result.returncode == 0
    notebook = nbformat.read(out / "surfaces" / LEAD / "notebooks" / f"{stage}.ipynb", as_version=4)
    solutions = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "solution" in cell.metadata.get("tags", [])
    ]
    assert len(solutions) >= 2
    assert all(
        cell.execution_count and not any(o.output_type == "error" for o in cell.outputs)
        for cell in solutions
    )


def test_the_commands_of_chapter_9_do_what_it_says(finished):
    """It types them into a process of their own, as its reader would, and shows what they print."""
    out, _ = finished
    folder = out / "surfaces" / LEAD
    notebook = nbformat.read(folder / "notebooks" / "09_your_own_textures.ipynb", as_version=4)
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    )
    typed = dict(
        re.findall(
            r"^\$ texad (\w+) (.*?)(?=^\$ texad|\Z)", printed, flags=re.MULTILINE | re.DOTALL
        )
    )
    assert (
        list(typed) == ["fit", "predict", "check", "calibrate"]
        and printed.count("$ texad check") == 2
    )
    assert (
        not re.search(r"^texad: ", printed, flags=re.MULTILINE) and "Traceback" not in printed
    )  # no error
    assert (
        "Fit to 6 images by 5 models" in typed["fit"] and "Detector: my.safetensors" in typed["fit"]
    )
    assert (
        "Calibrated with 3 images" in typed["calibrate"]
        and "Detector: darker.safetensors" in typed["calibrate"]
    )
    table = pd.read_csv(folder / "detector" / "line" / "predictions.csv")
    assert len(table) == 6 and set(table["decision"]) <= {"normal", "anomalous"}
    assert AnomalyDetector.load(folder / "detector" / "my.safetensors").origin_["n_train"] == 6


@pytest.mark.parametrize("stage", CHAPTERS)
def test_code_fits_the_page(stage):
    for cell in nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and "remove-input" not in cell.metadata.get("tags", []):
            assert all(
                len(line) <= 88 for line in cell.source.splitlines() if not line.startswith("from")
            ), cell.source


def shows_a_picture(source: str) -> bool:
    last = ast.parse(source).body[-1:]
    shown = ast.unparse(last[0].value) if last and isinstance(last[0], ast.Expr) else ""
    return shown == "figure" or shown.startswith(
        ("plots.", "result_figures.", "study_plots.", "heatmaps(")
    )


@pytest.mark.parametrize("stage", CHAPTERS)
def test_pictures_have_captions_and_alternative_texts(stage):
    cells = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells
    pictures = [cell for cell in cells if cell.cell_type == "code" and shows_a_picture(cell.source)]
    assert pictures
    for cell in pictures:
        described = cell.metadata.get("mystnb", {})
        assert described.get("figure", {}).get("caption") and described.get("image", {}).get(
            "alt"
        ), cell.source


@pytest.mark.slow
def test_an_unknown_category_is_one_line_that_lists_those_there_are(tmp_path):
    result = papermill("04_scoring", tmp_path / "x.ipynb", ("category", "nonsense"), cwd=tmp_path)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("RunError")]
    assert all(name in line for name in ("nonsense", "carpet", "grid", "leather", "tile", "wood"))


@pytest.mark.slow
@pytest.mark.parametrize("position", [1, 4])
def test_a_notebook_says_which_one_to_run_first(surfaces, tmp_path, position):
    parameters = ("dataset", surfaces), ("category", "steel"), ("runs", tmp_path / "runs")
    result = papermill(STAGES[position], tmp_path / "x.ipynb", *parameters)
    assert result.returncode != 0
    assert any(
        line.startswith("RunError") and "01_preprocessing.ipynb" in line
        for line in result.stderr.splitlines()
    )


@pytest.mark.slow
def test_an_unknown_detector_is_one_line_that_names_those_there_are(surfaces, tmp_path):
    parameters = (
        ("dataset", surfaces),
        ("category", "steel"),
        ("runs", tmp_path / "runs"),
        ("detector", "extendet"),
    )
    result = papermill("01_preprocessing", tmp_path / "x.ipynb", *parameters)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("RunError")]
    choices = "published, extended (default published)"
    problem = f"RunError: parameter detector must be one of {choices}, not 'extendet'"
    assert line == f"{problem} (did you mean 'extended'?)"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "stage, name, value, words",
    [  # what papermill makes of -p category 01, -p image_size 2.24e2 and so on
        (0, "category", 1, "of type str (default leather), not 1; papermill leaves it text by -r"),
        (0, "image_size", 224.0, "of type int (default 224), not 224.0"),
        (0, "calibration_fraction", "0,3", "of type float (default 0.2), not '0,3'"),
        (0, "normalize", "false", "of type bool (default None), not 'false'"),
        (0, "white", 4095.0, "of type int (default 0), not 4095.0"),
        (0, "groups", 1, "of type str (default empty), not 1"),
        (0, "seed", "0,1", "of type int (default 0), not '0,1'"),
        (0, "calibration_fraction", 2, "at least 0 and below 1 (default 0.2), not 2"),
        (1, "feature_batch_size", 2.0, "of type int (default 2), not 2.0"),
        (2, "steps", 1e3, "of type int (default 1000), not 1000.0"),
        (3, "rule", "sigmas", "one of auto, sigma, held_out, conformal (default auto), not 'sig"),
        (4, "n_heatmaps", True, "of type int (default 6), not True"),
    ],
)
def test_values_that_papermill_makes_of_text_are_one_line(
    surfaces, tmp_path, monkeypatch, stage, name, value, words
):
    monkeypatch.chdir(NOTEBOOKS)
    notebook = nbformat.read(f"{STAGES[stage]}.ipynb", as_version=4)
    parameters, start = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    names: dict = {}
    exec(parameters.source, names)
    names |= {"dataset": str(surfaces), "category": "steel", "runs": str(tmp_path / "runs")}
    with pytest.raises((RunError, DataError)) as caught:
        exec(start.source, names | {name: value})
    message = str(caught.value)
    assert message.startswith(f"parameter {name} must be {words}") and message.isprintable()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_run_all_from_the_notebooks_folder_and_papermill_from_another_share_the_run_folder(
    tmp_path,
):
    """JupyterLab starts a kernel in the notebook's folder, papermill in the caller's."""
    environment = os.environ | {
        "TEXAD_DATA": str(tmp_path / "data"),
        "TEXAD_RUNS": str(tmp_path / "runs"),
        "TEXAD_WEIGHTS": "random",
    }
    notebook = nbformat.read(NOTEBOOKS / "01_preprocessing.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    client.execute(env=environment)
    assert (tmp_path / "runs" / "synthetic" / "leather" / "images.csv").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = papermill(
        "03_autoencoder_training", tmp_path / "x.ipynb", cwd=elsewhere, env=environment
    )
    assert (
        "run notebooks/02_feature_extraction.ipynb" in result.stderr
    )  # so it found what 01 had left
