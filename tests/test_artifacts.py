import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from texad import artifacts, datasets
from texad.artifacts import SPLITS, STAGES, STUDIES, Run, RunError
from texad.weights import RANDOM_WARNING, Weights


@pytest.fixture
def run(surfaces, tmp_path):
    return Run(surfaces, "steel", tmp_path / "runs")


def finish(run: Run, *stages: str) -> None:
    for stage in stages:
        run.start(stage, seed=1)
        run.finish()


def test_the_folder_is_named_after_data_set_and_category(run, tmp_path):
    assert run.folder == tmp_path / "runs" / "surfaces" / "steel"


def test_the_default_folder_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("TEXAD_RUNS", raising=False)
    before = artifacts.runs_root()
    monkeypatch.chdir(tmp_path)
    assert artifacts.runs_root() == before
    monkeypatch.setenv("TEXAD_RUNS", str(tmp_path / "elsewhere"))
    assert artifacts.runs_root() == tmp_path / "elsewhere"


def test_an_unknown_category_lists_those_there_are_in_one_line(surfaces, tmp_path):
    with pytest.raises(RunError, match="steel") as caught:
        Run(surfaces, "steal", tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"RunError: {caught.value}"]


def test_a_stage_asks_for_the_one_before_it(run):
    with pytest.raises(RunError, match="run notebooks/01_preprocessing.ipynb"):
        run.start(STAGES[2])
    finish(run, STAGES[0])
    with pytest.raises(RunError, match="run notebooks/02_feature_extraction.ipynb"):
        run.start(STAGES[2])


def test_starting_a_stage_again_undoes_the_later_ones(run):
    finish(run, *STAGES)
    assert all(run.is_finished(stage) for stage in STAGES)
    run.start(STAGES[2])
    assert [run.is_finished(stage) for stage in STAGES] == [True, True, False, False, False]


def test_a_study_asks_for_all_five_stages_and_for_no_other_study(run):
    finish(run, *STAGES[:4])
    for study in STUDIES:
        with pytest.raises(RunError, match="run notebooks/05_evaluation.ipynb"):
            run.start(study)
    finish(run, STAGES[4], STUDIES[2], STUDIES[0])
    assert set(run.read()["stages"]) == {*STAGES, STUDIES[2], STUDIES[0]}


def test_starting_a_study_undoes_only_itself_and_starting_a_stage_undoes_all_studies(run):
    finish(run, *STAGES, *STUDIES)
    run.start(STUDIES[0])
    assert set(run.read()["stages"]) == {*STAGES, *STUDIES[1:]}
    run.start(STAGES[4])
    assert set(run.read()["stages"]) == set(STAGES[:4])


def test_the_finished_runs_of_a_data_set_are_those_with_all_five_stages(run, surfaces, tmp_path):
    other = Run(surfaces, "brushed <b>& {ü}nusual", tmp_path / "runs")
    assert run.finished() == []
    finish(run, *STAGES)
    finish(other, *STAGES[:4])
    assert [found.category for found in run.finished()] == [found.category for found in other.finished()] == ["steel"]
    finish(other, STAGES[4], STUDIES[0])
    assert [found.folder for found in run.finished()] == [other.folder, run.folder]


@pytest.mark.parametrize(("categories", "shown"), [(["carpet", "leather"], "leather"), (["tile", "steel"], "tile"), (("a",), "a")])
def test_the_category_that_the_chapters_show_is_leather_or_the_first(categories, shown):
    assert artifacts.lead(categories) == artifacts.lead(iter(categories)) == shown


def test_parameters_seconds_and_memory_are_kept(run):
    large = np.ones(50_000_000)  # 400 MB
    peak = 1e-6 * large.nbytes
    run.start(STAGES[0], seed=7, image_size=64)
    run.finish()
    entry = run.read()["stages"][STAGES[0]]
    assert entry["parameters"] == {"seed": 7, "image_size": 64} and entry["seconds"] >= 0
    if Path("/proc/self/status").exists():
        assert entry["peak_mb"] > peak
    assert run.parameter("image_size") == 64


def test_later_stages_refuse_other_weights_than_those_of_the_features(run):
    finish(run, *STAGES[:2])
    run.write_weights(Weights("random", "0" * 64, {}))
    run.start(STAGES[2], weights="random")
    run.start(STAGES[2], weights="auto")
    with pytest.raises(RunError, match="made with weights random, not imagenet"):
        run.start(STAGES[2], weights="imagenet")


def test_images_come_back_in_the_order_of_the_category(run, surfaces):
    category = datasets.load_category(surfaces, "steel")
    run.write_images(category)
    for split, samples in (("train", category.train), ("test", category.test)):
        table = run.images(split)
        assert run.data_paths(table["path"]) == [sample.path for sample in samples]
        assert table["label"].tolist() == [sample.label for sample in samples]
        assert [run.data_path(mask) for mask in table["mask"]] == [sample.mask for sample in samples]
    assert run.read()["data"]["fingerprint"] == datasets.fingerprint(category)


def splits(run: Run, category: datasets.Category, *options) -> list[list[str]]:
    run.write_images(category, *options)
    return [run.images(split)["path"].tolist() for split in SPLITS]


def test_calibration_images_are_good_images_kept_out_of_the_training(run, surfaces):
    category = datasets.load_category(surfaces, "steel")  # 6 good images for training, 6 for testing
    everything = [sample.path.relative_to(category.root).as_posix() for sample in category.train]
    train, calibration, test = splits(run, category, 0.3, 0)
    assert sorted(train + calibration) == everything and len(calibration) == 2 and len(test) == 6
    assert train == sorted(train) and calibration == sorted(calibration)
    data = run.read()["data"]
    assert (data["n_train"], data["n_calibration"], data["n_test"]) == (4, 2, 6)
    assert "4 for training, 2 for calibration, 6 for testing" in repr(run)
    assert run.read_table("images.csv")["split"].tolist() == ["train"] * 4 + ["calibration"] * 2 + ["test"] * 6


def test_the_choice_of_calibration_images_depends_on_the_seed_only(run, surfaces):
    category = datasets.load_category(surfaces, "steel")
    assert splits(run, category, 0.5, 3) == splits(run, category, 0.5, 3)
    assert len({str(splits(run, category, 0.5, seed)) for seed in range(10)}) > 3


@pytest.mark.parametrize(
    ("n", "fraction", "kept_out"),
    [(96, 0.2, 19), (6, 0.2, 1), (6, 0, 0), (2, 0.01, 1), (2, 0.99, 1), (6, 0.99, 5), (1, 0.2, 0), (3, 0.5, 2)],
)
def test_how_many_images_are_kept_out(n, fraction, kept_out):
    assert len(artifacts._calibration_images(n, fraction, 0)) == kept_out


@pytest.mark.parametrize("fraction", [1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none_is_refused(run, surfaces, fraction):
    with pytest.raises(RunError, match="calibration_fraction must be at least 0 and below 1"):
        run.write_images(datasets.load_category(surfaces, "steel"), fraction)


def test_scores_come_back_and_only_an_empty_p_value_is_missing(run):
    score = np.random.default_rng(0).random(200)
    table = pd.DataFrame({"path": "NA", "defect": "null", "score": score, "p_value": np.where(np.arange(200) < 5, np.nan, score / 3)})
    run.write_table("scores.csv", table)
    pd.testing.assert_frame_equal(run.read_table("scores.csv"), table, rtol=1e-15)


def test_arrays_tables_and_figures_are_whole_files(run):
    run.write_array("maps/test.npy", np.arange(6.0).reshape(2, 3))
    run.write_figure("a.svg", Figure())
    run.write_figure("a.png", Figure())
    np.testing.assert_array_equal(run.read_array("maps/test.npy"), np.arange(6.0).reshape(2, 3))
    files = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    assert files == ["figures/a.png", "figures/a.svg", "maps/test.npy"]


def test_the_same_figure_is_the_same_file(run):
    def draw(name):
        figure = Figure()
        figure.subplots().plot([1, 2], label="line")
        run.write_figure(name, figure)
        return (run.folder / "figures" / name).read_bytes()

    assert draw("a.svg") == draw("b.svg")


def test_json_refuses_what_it_has_no_word_for(tmp_path):
    artifacts.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError):
        artifacts.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_damaged_run_json_is_named(run):
    finish(run, STAGES[0])
    (run.folder / "run.json").write_text("{")
    with pytest.raises(RunError, match="run.json is damaged"):
        run.read()


def test_random_weights_cannot_be_overlooked(run):
    run.write_weights(Weights("random", "0" * 64, {}))
    assert RANDOM_WARNING in repr(run)
    assert "texad-weights-warning" in run._repr_html_()
    run.write_weights(Weights("imagenet", "0" * 64, {}))
    assert "RANDOM" not in repr(run) and "RANDOM" not in run._repr_html_()


def test_names_are_escaped_in_html(surfaces, tmp_path):
    shown = Run(surfaces, "brushed <b>& {ü}nusual", tmp_path)._repr_html_()
    assert "brushed &lt;b&gt;&amp; {ü}nusual" in shown
