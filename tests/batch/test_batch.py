import json
import shutil

import nbformat
import pandas as pd
import pytest
from conftest import LEAD, run_arguments, texad, write_category

from texad.__main__ import main
from texad.batch import notebooks as jobs
from texad.data import datasets
from texad.model import codebook, registry
from texad.model.cross import members
from texad.runs import parameters
from texad.runs.run_folder import STAGES, STUDIES, Run


def snapshot(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "summary" not in path.name
    }


def test_a_batch_leaves_everything_that_it_should(finished):
    out, result = finished
    assert result.returncode == 0, result.stderr
    assert "KeyboardInterrupt" not in result.stderr  # of a kernel that is shut down
    for category in ("steel", LEAD):
        folder = out / "surfaces" / category
        files = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        studies = (
            *(f"notebooks/{study}.ipynb" for study in STUDIES),
            "comparison.csv",
            "ablations.csv",
            "extended.csv",
            "detector/my.safetensors",
            "detector/my.html",
            "detector/line/predictions.csv",
            "detector/line/predictions.jsonl",
        )
        assert files == {
            *(".lock", "run.json", "images.csv", "backbone.safetensors"),
            *("features/train.npy", "features/calibration.npy", "features/test.npy"),
            *("autoencoder.safetensors", "training.csv"),
            *("scores.csv", "maps/test.npy", "metrics.json"),
            *("figures/1_score_distribution.svg", "figures/2_heatmaps.png"),
            *("figures/3_roc_curve.svg", "figures/4_confusion_matrix.svg"),
            "figures/5_scores_by_defect.svg",
            *(f"notebooks/{stage}.ipynb" for stage in STAGES),
            *(f"pictures/{i:04d}.jpg" for i in range(6)),
            *(studies if category == LEAD else ()),
        }


def test_metrics_agree_with_scores(finished):
    out, _ = finished
    folder = out / "surfaces" / "steel"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) >= {
        *("image_auroc", "accuracy", "precision", "recall", "f1", "confusion", "threshold"),
        *("pixel_auroc", "n_train", "n_test", "weights"),
    }
    scores = pd.read_csv(folder / "scores.csv")
    assert list(scores.columns) == [
        "path",
        "split",
        "defect",
        "label",
        "group",
        "score",
        "prediction",
        "p_value",
    ]
    train, calibration, test = (
        scores[scores["split"] == split] for split in ("train", "calibration", "test")
    )
    counts = len(train), len(calibration), len(test)
    # of six good images none is kept out, so nothing is known of p-values
    assert counts == (metrics["n_train"], metrics["n_calibration"], metrics["n_test"]) == (6, 0, 6)
    assert scores["p_value"].isna().all()
    assert metrics["threshold"] == pytest.approx(
        train["score"].mean() + 3 * train["score"].std(ddof=0), rel=1e-5
    )
    assert (test["prediction"] == (test["score"] > metrics["threshold"])).all()
    anomalous, normal = test[test["label"] == 1]["score"], test[test["label"] == 0]["score"]
    assert metrics["image_auroc"] == pytest.approx(
        sum((a > n) + 0.5 * (a == n) for a in anomalous for n in normal) / 9
    )
    assert metrics["confusion"]["tp"] == int(
        ((test["label"] == 1) & (test["prediction"] == 1)).sum()
    )
    assert metrics["weights"]["name"] == "random" and len(metrics["weights"]["sha256"]) == 64


def test_summary_has_a_row_for_each_category(finished):
    out, result = finished
    summary = json.loads((out / "summary.json").read_text())
    assert [row["category"] for row in summary["categories"]] == [LEAD, "steel"]
    assert summary["weights"]["name"] == "random" and summary["seed"] == 0
    assert pd.read_csv(out / "summary.csv")["images"].tolist() == [12, 12]
    assert "steel" in result.stdout and "image_auroc" in result.stdout
    assert "RANDOM WEIGHTS" in result.stderr


def test_run_json_says_what_made_the_results(finished):
    out, _ = finished
    record = json.loads((out / "surfaces" / "steel" / "run.json").read_text())
    assert record["weights"]["name"] == "random" and len(record["data"]["fingerprint"]) == 64
    assert record["stages"][STAGES[2]]["parameters"]["steps"] == 2
    assert record["stages"][STAGES[2]]["cores"] == jobs.cores() and record["stages"][STAGES[2]][
        "threads"
    ] == max(1, jobs.cores() // 2)
    assert (
        record["stages"][STAGES[0]]["parameters"]["detector"] == "published"
        and record["rule"] == "sigma"
    )
    assert set(record["versions"]) >= {"texad", "torch", "python"}


def test_a_second_run_does_nothing(finished, surfaces):
    out, _ = finished
    before = snapshot(out)
    assert texad(*run_arguments(surfaces, out, "--jobs", 2, "--studies")).returncode == 0
    assert snapshot(out) == before


def test_only_the_category_that_the_chapters_show_runs_solutions_and_asides(finished, surfaces):
    out, _ = finished
    for stage in STAGES:
        tags = {
            name: tags_of(out / "surfaces" / name / "notebooks" / f"{stage}.ipynb")
            for name in (LEAD, "steel")
        }
        assert "solution" in tags[LEAD] and not jobs.ASIDES & tags["steel"]
        first = {
            name: nbformat.read(
                out / "surfaces" / name / "notebooks" / f"{stage}.ipynb", as_version=4
            )
            .cells[0]
            .source
            for name in tags
        }
        assert jobs.LEFT_OUT in first["steel"] and jobs.LEFT_OUT not in first[LEAD]
    assert "aside" in tags_of(out / "surfaces" / LEAD / "notebooks" / f"{STAGES[3]}.ipynb")
    assert current(Run(surfaces, "steel", out), surfaces, STAGES) == [False] * 5, (
        "to be shown, they must be made again"
    )
    assert (
        current(Run(surfaces, "steel", out), surfaces, STAGES, in_full=False)
        == current(Run(surfaces, LEAD, out), surfaces, STAGES, in_full=False)
        == [True] * 5
    )


def tags_of(notebook) -> set[str]:
    return {
        tag
        for cell in nbformat.read(notebook, as_version=4).cells
        for tag in cell.metadata.get("tags", [])
    }


GIVEN = {
    "weights": "random",
    "seed": 0,
    "image_size": 64,
    "steps": 2,
    "hidden": 32,
    "bottleneck": 8,
}  # as in QUICK


def current(run: Run, surfaces, stages, in_full: bool = True) -> list[bool]:
    data = datasets.load_category(surfaces, run.category)
    fingerprint = datasets.fingerprint(data)
    return [
        jobs.is_current(
            run,
            stage,
            {name: GIVEN[name] for name in GIVEN if name in parameters.defaults(stage)},
            data,
            fingerprint,
            in_full,
        )
        for stage in stages
    ]


def test_studies_are_out_of_date_when_the_scores_of_any_category_have_changed(finished, surfaces):
    out, _ = finished
    run = Run(surfaces, LEAD, out)
    assert current(run, surfaces, STAGES + STUDIES) == [True] * 9
    other = out / "surfaces" / "steel" / "scores.csv"
    saved = other.read_bytes()
    try:
        other.write_bytes(saved.replace(b"0", b"1", 1))
        assert current(run, surfaces, STAGES + STUDIES) == [True] * 5 + [False] * 4
    finally:
        other.write_bytes(saved)
    assert current(run, surfaces, STUDIES) == [True] * 4


def test_a_study_that_fails_is_one_line_and_leaves_the_results_of_the_categories(
    finished, surfaces, tmp_path
):
    shutil.copytree(finished[0], tmp_path / "runs")
    before, summary = snapshot(tmp_path / "runs"), (tmp_path / "runs" / "summary.json").read_bytes()
    result = texad(
        *run_arguments(surfaces, tmp_path / "runs", "--studies", "-p", "categories", "steal")
    )
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if " failed: " in line]
    assert (
        line.startswith(f"texad: {LEAD} failed: 06_comparison.ipynb, cell [")
        and "RunError" in line
        and "did you mean 'steel'" in line
    )
    assert (tmp_path / "runs" / "summary.json").read_bytes() == summary
    after = snapshot(tmp_path / "runs")
    notebooks = tmp_path / "runs" / "surfaces" / LEAD / "notebooks"
    assert set(after) - set(before) == {notebooks / "06_comparison.failed.ipynb"}
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed <= {"run.json"}  # where the study no longer counts
    stages = json.loads((notebooks.parent / "run.json").read_text())["stages"]
    assert set(stages) == {*STAGES, *STUDIES[1:]}


@pytest.mark.slow
@pytest.mark.parametrize(("calibration", "n_models", "n"), [("split", 1, 2), ("auto", 5, 6)])
def test_the_extended_detector_goes_through_the_same_notebooks(
    surfaces, tmp_path, calibration, n_models, n
):
    options = [
        part
        for pair in (
            ("detector", "extended"),
            ("words", 4),
            ("calibration", calibration),
            ("calibration_fraction", 0.4),
            ("false_alarms", 0.4),
        )
        for part in ("-p", *pair)
    ]
    result = texad(*run_arguments(surfaces, tmp_path / "runs", "--category", "steel", *options))
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs" / "surfaces" / "steel"
    record = json.loads((folder / "run.json").read_text())
    trained = registry.load(folder / "autoencoder.safetensors")
    assert record["stages"][STAGES[0]]["parameters"]["detector"] == "extended"
    assert len(members(trained)) == n_models
    for model in members(trained):
        assert isinstance(model, codebook.QuantizedAutoencoder) and model.codebook.shape == (4, 8)
    assert record["rule"] == "conformal"  # two calibration images are enough for this false_alarms
    scores = pd.read_csv(folder / "scores.csv")
    test = scores[scores["split"] == "test"]
    kept_out = (
        scores[scores["split"] == "calibration"]["score"]
        if n_models == 1
        else scores[scores["split"] == "train"]["held_out_score"]
    )
    assert len(kept_out) == n and scores["score"].notna().all() and kept_out.notna().all()
    assert (
        record["threshold"]
        == record["thresholds"]["conformal"]
        == pytest.approx(kept_out.nlargest(int(0.4 * (n + 1))).iloc[-1])
    )
    assert test["prediction"].tolist() == (test["p_value"] <= 0.4).astype(int).tolist()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["threshold"] == record["threshold"] and metrics["confusion"]["tp"] == int(
        (test["prediction"] * test["label"]).sum()
    )


def test_only_what_changed_is_run_again_and_the_same_seed_gives_the_same_scores(
    finished, surfaces, tmp_path
):
    shutil.copytree(finished[0] / "surfaces" / "steel", tmp_path / "runs" / "surfaces" / "steel")
    folder = tmp_path / "runs" / "surfaces" / "steel"
    expected = (folder / "scores.csv").read_bytes()
    features = (folder / "features" / "test.npy").stat().st_mtime_ns
    assert (
        texad(
            *run_arguments(surfaces, tmp_path / "runs", "--category", "steel", "-p", "steps", 1)
        ).returncode
        == 0
    )
    assert (folder / "features" / "test.npy").stat().st_mtime_ns == features
    assert (folder / "scores.csv").read_bytes() != expected
    assert texad(*run_arguments(surfaces, tmp_path / "runs", "--category", "steel")).returncode == 0
    assert (folder / "features" / "test.npy").stat().st_mtime_ns == features
    assert (folder / "scores.csv").read_bytes() == expected


@pytest.mark.slow
def test_one_bad_category_does_not_stop_the_others(surfaces, tmp_path):
    data = tmp_path / "surfaces"
    shutil.copytree(surfaces / "steel", data / "steel")
    write_category(data / "torn", seed=9)
    (data / "torn" / "test" / "spot" / "001.png").write_bytes(b"no image")
    result = texad(*run_arguments(data, tmp_path / "runs"))
    assert result.returncode == 1
    line = next(line for line in result.stderr.splitlines() if "torn failed" in line)
    assert ".ipynb, cell [" in line and "001.png" in line
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())["categories"]
    assert [(row["category"], bool(row["error"])) for row in summary] == [
        ("steel", False),
        ("torn", True),
    ]
    assert list((tmp_path / "runs" / "surfaces" / "torn" / "notebooks").glob("*.failed.ipynb"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category", "steal"], "did you mean 'steel'"),
        (["--weights", "imagnet"], "did you mean 'imagenet'"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--dataset", ""], "no folder"),
        (["-p", "botleneck", "3"], "did you mean 'bottleneck'"),
        (["-p", "steps", "many"], "steps must be of type int"),
        (["-p", "detektor", "extended"], "did you mean 'detector'"),
        (["-p", "seed", "1"], "option of its own"),
        (["--jobs", "0"], "jobs must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2(
    surfaces, tmp_path, capsys, arguments, message
):
    assert main(list(map(str, run_arguments(surfaces, tmp_path / "runs", *arguments)))) == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and message in shown
    assert not (tmp_path / "runs").exists()


def test_help_explains_the_options(capsys):
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--dataset",
        "--category",
        "--weights",
        "--out",
        "--jobs",
        "--seed",
        "-p",
        "--studies",
        "--scheduler",
    ):
        assert option in shown


@pytest.mark.slow
def test_groups_stay_together_and_one_on_both_sides_of_the_test_is_told(tmp_path):
    folder = write_category(tmp_path / "data" / "tiles", n_train=12)
    arguments = run_arguments(folder.parent, tmp_path / "runs", "-p", "calibration", "split")
    result = texad(*arguments, "-p", "groups", "png")
    assert "12 images are in one group" in result.stderr and result.returncode == 1
    rows = [f"train/good/{i:03d}.png,{i // 3}" for i in range(12)] + ["test/good/000.png,2"]
    (folder / "groups.csv").write_text("\n".join(["path,group", *rows]))
    assert texad(*arguments).returncode == 0
    run = Run(folder.parent, "tiles", tmp_path / "runs")
    train, calibration = (set(run.images(split)["group"]) for split in ("train", "calibration"))
    assert train | calibration == {*"0123"} and not train & calibration
    chapter = (run.folder / "notebooks" / f"{STAGES[0]}.ipynb").read_text("utf-8")
    assert "1 of 6 test images are of groups that the training has, too" in chapter
    data = datasets.load_category(folder.parent, "tiles")
    assert run.read()["data"]["fingerprint"] != datasets.fingerprint(data)  # another table: again


def test_every_notebook_has_the_common_parameters_and_no_other_twice():
    seen = []
    for stage in STAGES:
        names = set(parameters.defaults(stage))
        assert names >= set(parameters.COMMON)
        seen += names - set(parameters.COMMON)
    assert len(seen) == len(set(seen))


def test_a_parameter_of_a_study_that_a_stage_has_too_starts_with_the_same_value():
    known = {name: value for stage in STAGES for name, value in parameters.defaults(stage).items()}
    for study in STUDIES:
        own = parameters.defaults(study)
        assert own.keys() >= set(parameters.COMMON)
        assert {name: known.get(name, value) for name, value in own.items()} == own


def test_a_stage_run_by_hand_is_run_again_by_the_batch(finished, surfaces):
    out, _ = finished
    run = Run(surfaces, "steel", out)
    saved = (run.folder / "run.json").read_bytes()
    try:
        stages = run.read()["stages"]
        stages[STAGES[3]].pop("code")  # what a notebook leaves that no batch has executed
        run.write(stages=stages)
        assert current(run, surfaces, STAGES, in_full=False) == [True, True, True, False, True]
    finally:
        (run.folder / "run.json").write_bytes(saved)
