import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from texad.data import datasets
from texad.errors import RunError
from texad.io import paths
from texad.io.atomic import sha256
from texad.io.json_files import write_json
from texad.io.locks import HELD, LOCK
from texad.model.places import Grid
from texad.runs import run_folder as artifacts
from texad.runs.run_folder import SPLITS, STAGES, STUDIES, Run


@pytest.fixture
def run(surfaces, tmp_path):
    return Run(surfaces, "steel", tmp_path / "runs")


def finish(run: Run, *stages: str) -> None:
    for stage in stages:
        run.start(stage, seed=1)
        run.finish()


def test_the_folder_is_named_after_data_set_and_category(run, tmp_path):
    assert run.folder == tmp_path / "runs" / "surfaces" / "steel"


def test_the_default_folder_does_not_depend_on_the_working_directory(
    surfaces, tmp_path, monkeypatch
):
    monkeypatch.delenv("TEXAD_RUNS", raising=False)
    before = paths.runs_root()
    assert before == Path(paths.__file__).parents[2] / "runs"
    monkeypatch.chdir(tmp_path)
    assert paths.runs_root() == before
    monkeypatch.setenv("TEXAD_RUNS", str(tmp_path / "elsewhere"))
    assert paths.runs_root() == tmp_path / "elsewhere"
    assert Run(surfaces, "steel").folder == tmp_path / "elsewhere" / "surfaces" / "steel"


def test_the_default_folder_of_a_package_without_a_checkout_is_in_the_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("TEXAD_RUNS", raising=False)
    monkeypatch.setattr(
        paths, "__file__", str(tmp_path / "site-packages" / "texad" / "io" / "paths.py")
    )
    monkeypatch.chdir(tmp_path)
    assert paths.runs_root() == tmp_path / "runs"


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
    assert (
        [found.category for found in run.finished()]
        == [found.category for found in other.finished()]
        == ["steel"]
    )
    finish(other, STAGES[4], STUDIES[0])
    assert [found.folder for found in run.finished()] == [other.folder, run.folder]


@pytest.mark.parametrize(
    ("categories", "shown"),
    [(["carpet", "leather"], "leather"), (["tile", "steel"], "tile"), (("a",), "a")],
)
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
    run.write(weights={"name": "random", "sha256": "0" * 64})
    run.start(STAGES[2], weights="random")
    run.start(STAGES[2], weights="auto")
    with pytest.raises(
        RunError,
        match="made with weights random, not imagenet: "
        "run notebooks/02_feature_extraction.ipynb with these weights first",
    ):
        run.start(STAGES[2], weights="imagenet")


def test_the_weights_asked_for_are_a_parameter_of_feature_extraction_alone(run):
    for stage in STAGES:
        run.start(stage, weights="auto", seed=0)
        run.finish()
    kept = {stage: entry["parameters"] for stage, entry in run.read()["stages"].items()}
    assert kept == dict.fromkeys(STAGES, {"seed": 0}) | {STAGES[1]: {"seed": 0, "weights": "auto"}}


def test_weights_in_a_record_that_no_name_could_be_are_named_in_one_line(run):
    finish(run, *STAGES[:2])
    run.write(weights={"name": "17\0\n", "sha256": "0" * 64})
    with pytest.raises(RunError, match=r"made with weights 17\\x00\\n, not random") as caught:
        run.start(STAGES[2], weights="random")
    assert str(caught.value).isprintable()


def test_images_come_back_in_the_order_of_the_category(run, surfaces):
    category = datasets.load_category(surfaces, "steel")
    run.write_images(category)
    for split, samples in (("train", category.train), ("test", category.test)):
        table = run.images(split)
        assert run.data_paths(table["path"]) == [sample.path for sample in samples]
        assert table["label"].tolist() == [sample.label for sample in samples]
        assert [run.data_path(mask) for mask in table["mask"]] == [
            sample.mask for sample in samples
        ]
    assert run.read()["data"]["fingerprint"] == datasets.fingerprint(category)


def splits(run: Run, category: datasets.Category, *options) -> list[list[str]]:
    run.write_images(category, *options)
    return [run.images(split)["path"].tolist() for split in SPLITS]


def test_calibration_images_are_good_images_kept_out_of_the_training(run, surfaces):
    category = datasets.load_category(
        surfaces, "steel"
    )  # 6 good images for training, 6 for testing
    everything = [sample.path.relative_to(category.root).as_posix() for sample in category.train]
    train, calibration, test = splits(run, category, 0.3, 0)
    assert sorted(train + calibration) == everything and len(calibration) == 2 and len(test) == 6
    assert train == sorted(train) and calibration == sorted(calibration)
    data = run.read()["data"]
    assert (data["n_train"], data["n_calibration"], data["n_test"]) == (4, 2, 6)
    assert "4 for training, 2 for calibration, 6 for testing" in repr(run)
    assert (
        run.read_table("images.csv")["split"].tolist()
        == ["train"] * 4 + ["calibration"] * 2 + ["test"] * 6
    )


def test_the_choice_of_calibration_images_depends_on_the_seed_only(run, surfaces):
    category = datasets.load_category(surfaces, "steel")
    assert splits(run, category, 0.5, 3) == splits(run, category, 0.5, 3)
    assert len({str(splits(run, category, 0.5, seed)) for seed in range(10)}) > 3


def test_a_group_is_never_divided_and_its_name_is_kept(run, surfaces, tmp_path):
    category = datasets.load_category(surfaces, "steel")
    images = run.write_images(category, 0.4, 0, r"00(\d)")
    assert [*images["group"][images["split"] == "test"]] == ["0", "1", "2"] * 2
    table = tmp_path / "pieces.csv"
    of_piece = dict(zip((sample.path for sample in category.train), "aaabbc", strict=True))
    rows = [f"{path.relative_to(category.root)},{piece}" for path, piece in of_piece.items()]
    table.write_text("\n".join(["path,group", *rows, "test/good/000.png,a"]))
    for seed in range(10):
        run.write_images(category, 0.4, seed, str(table))
        train, calibration, test = (run.images(split)["group"] for split in SPLITS)
        assert {*train} | {*calibration} == {*"abc"} and not {*train} & {*calibration}
        assert [*test] == ["a"] + [""] * 5
    counts = {"n_train": len({*train}), "n_calibration": len({*calibration}), "n_test": 1}
    assert run.read()["data"]["groups"] == {"source": str(table)} | counts
    before = run.read()["data"]["fingerprint"]
    table.write_text(table.read_text().replace(",c", ",d"))
    run.write_images(category, 0.4, 0, str(table))
    assert run.read()["data"]["fingerprint"] != before != datasets.fingerprint(category)
    with pytest.raises(RunError, match="6 of 6 images have no group"):
        run.write_images(category, 0.4, 0, "tile")


@pytest.mark.parametrize("fraction", [1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none_is_refused(run, surfaces, fraction):
    with pytest.raises(RunError, match="calibration_fraction must be at least 0 and below 1"):
        run.write_images(datasets.load_category(surfaces, "steel"), fraction)


def test_scores_come_back_and_only_an_empty_p_value_is_missing(run):
    score = np.random.default_rng(0).random(200)
    table = pd.DataFrame(
        {
            "path": "NA",
            "defect": "null",
            "score": score,
            "p_value": np.where(np.arange(200) < 5, np.nan, score / 3),
        }
    )
    run.write_table("scores.csv", table)
    pd.testing.assert_frame_equal(run.read_table("scores.csv"), table, rtol=1e-15)


def test_where_no_image_was_held_out_the_validation_loss_is_missing(run):
    table = pd.DataFrame({"step": [100], "train_loss": [2.5], "validation_loss": [np.nan]})
    run.write_table("training.csv", table)
    pd.testing.assert_frame_equal(run.read_table("training.csv"), table)


def test_arrays_tables_and_figures_are_whole_files(run):
    run.write_array("maps/test.npy", np.arange(6.0).reshape(2, 3))
    run.write_figure("a.svg", Figure())
    run.write_figure("a.png", Figure())
    np.testing.assert_array_equal(run.read_array("maps/test.npy"), np.arange(6.0).reshape(2, 3))
    files = sorted(
        path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()
    )
    assert files == ["figures/a.png", "figures/a.svg", "maps/test.npy"]


def test_the_same_figure_is_the_same_file(run):
    def draw(name):
        figure = Figure()
        figure.subplots().plot([1, 2], label="line")
        run.write_figure(name, figure)
        return (run.folder / "figures" / name).read_bytes()

    assert draw("a.svg") == draw("b.svg")


def test_json_refuses_what_it_has_no_word_for(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_damaged_run_json_is_named(run):
    finish(run, STAGES[0])
    (run.folder / "run.json").write_text("{")
    with pytest.raises(RunError, match="run.json is damaged"):
        run.read()


def test_the_files_of_a_stage_are_known_by_their_hashes(run):
    finish(run, *STAGES[:3])
    run.start(STAGES[3])
    run.write_table("scores.csv", pd.DataFrame({"score": [1.0]}))
    run.write_array("maps/test.npy", np.ones(3))
    write_json(run.folder / "metrics.json", {"a": 1})  # another stage's
    run.finish()
    assert run.read()["stages"][STAGES[3]]["files"] == {
        name: sha256(run.folder / name) for name in ("scores.csv", "maps/test.npy")
    }


def in_use(run: Run) -> int:
    """Hold the folder as another process would."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(run.folder / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def test_a_run_that_another_process_is_writing_cannot_be_started(run):
    finish(run, *STAGES[:2])
    lock, before = in_use(run), run.read()
    for stage in STAGES[:2]:
        with pytest.raises(
            RunError,
            match="is in use: a batch, or another notebook .* "
            "Wait until it is done, or shut its kernel down",
        ):
            run.start(stage)
    assert run.read() == before
    os.close(lock)
    run.start(STAGES[0])
    run.finish()


def test_a_run_is_in_use_from_start_to_finish_and_can_be_started_again_meanwhile(
    run, surfaces, tmp_path
):
    run.start(STAGES[0])
    with pytest.raises(BlockingIOError):
        in_use(run)
    again = Run(surfaces, "steel", tmp_path / "runs")  # the notebook's first cells once more
    again.start(STAGES[0])
    again.finish()
    os.close(in_use(run))
    with pytest.raises(RunError, match="01_preprocessing is finished already"):
        run.finish()  # its last cell once more: another process may be writing now


def test_a_stage_that_cannot_start_leaves_the_folder_free_or_absent(run):
    with pytest.raises(RunError, match="run notebooks/01_preprocessing.ipynb"):
        run.start(STAGES[1])
    assert not run.folder.exists()
    run.start(STAGES[0])
    with pytest.raises(RunError, match="run notebooks/01_preprocessing.ipynb"):
        run.start(STAGES[1])
    with pytest.raises(BlockingIOError):
        in_use(run)  # stage 1 is still running
    run.finish()


def test_the_kernel_of_a_batch_may_start_in_the_folder_that_its_batch_holds(run, monkeypatch):
    lock = in_use(run)
    monkeypatch.setenv(HELD, str(run.folder))
    finish(run, STAGES[0])
    with pytest.raises(BlockingIOError):
        in_use(run)  # it has not let go of what is not its own
    os.close(lock)


@pytest.mark.parametrize(
    ("name", "words"),
    [("random", "has learnt nothing"), ("texad", "distilled from"), ("my.pth", "a file")],
)
def test_a_run_says_what_its_weights_are(run, name, words):
    run.write(weights={"name": name, "sha256": "0" * 64})
    assert words in repr(run) and words in run._repr_html_()


def test_names_are_escaped_in_html(surfaces, tmp_path):
    shown = Run(surfaces, "brushed <b>& {ü}nusual", tmp_path)._repr_html_()
    assert "brushed &lt;b&gt;&amp; {ü}nusual" in shown


def test_a_run_shows_its_facts_one_a_line(run, surfaces):
    assert repr(run) == "data set: surfaces\ncategory: steel"
    run.write_images(datasets.load_category(surfaces, "steel"))
    run.write(weights={"name": "imagenet", "sha256": "0123456789abcdef"})
    assert repr(run).splitlines() == [
        "data set: surfaces",
        "category: steel",
        "images: 6 for training, 6 for testing",
        "weights: imagenet, a ResNet-50 that was trained on ImageNet (sha256 0123456789ab…)",
    ]
    assert run._repr_html_().startswith(
        "<p><b>data set</b> surfaces<br><b>category</b> steel<br><b>images</b> 6 for training"
    )


def test_run_json_says_of_what_and_by_what_it_was_made(run):
    finish(run, STAGES[0])
    record = run.read()
    assert (record["dataset"], record["category"]) == ("surfaces", "steel")
    assert set(record["versions"]) == {
        "texad",
        "torch",
        "torchvision",
        "numpy",
        "scikit-learn",
        "python",
    }


def test_weights_that_are_no_file_are_named_before_the_stage_begins(run, tmp_path):
    finish(run, STAGES[0])
    with pytest.raises(RunError, match="nowhere.pth"):
        run.start(STAGES[1], weights=str(tmp_path / "nowhere.pth"))


def test_a_run_folder_without_a_record_says_what_to_run(run):
    file = run.folder / "run.json"
    for ask, missing in (
        (lambda: run.data_path("a.png"), "where the images are"),
        (lambda: run.parameter("seed"), "the seed of an earlier stage"),
    ):
        with pytest.raises(RunError) as caught:
            ask()
        assert str(caught.value).startswith(f"{file} does not say {missing}: run ")


def test_names_in_tables_that_look_like_numbers_stay_names(run):
    table = pd.DataFrame(
        {
            "path": ["007", "1e5"],
            "defect": ["1", "2"],
            "mask": ["3.0", "-0"],
            "label": [0, 1],
            "p_value": [1, 1],
        }
    )
    run.write_table("scores.csv", table)
    read = run.read_table("scores.csv")
    for name in ("path", "defect", "mask"):
        assert read[name].tolist() == table[name].tolist()
    assert read["p_value"].dtype == float and read["label"].tolist() == [0, 1]


def test_figures_have_no_border_and_150_dots_an_inch(run):
    figure = Figure(figsize=(4, 4))
    figure.text(0.5, 0.5, "small")
    run.write_figure("a.png", figure)
    with Image.open(run.folder / "figures" / "a.png") as image:
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert max(image.size) < 4 * 150 / 2


def test_a_run_knows_where_its_places_look_and_measures_it_where_it_does_not_say(run, monkeypatch):
    run.start(STAGES[0])
    run.write(places={"stride": 16, "centre": [5.1, -0.3]})
    assert run.grid() == Grid(16, (5.1, -0.3))
    run.finish()
    write_json(run.folder / "run.json", {})  # as before there were places
    monkeypatch.setattr(artifacts, "load_backbone", lambda file: file.name)
    monkeypatch.setattr(artifacts, "grid", lambda backbone: f"that of {backbone}")
    assert run.grid() == "that of backbone.safetensors"
