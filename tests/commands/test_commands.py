import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from texad.__main__ import main
from texad.commands import prediction_writer
from texad.data import inputs
from texad.detector import AnomalyDetector, Prediction
from texad.model.threshold import conformal_threshold, p_values

pytestmark = pytest.mark.usefixtures("short_training")
QUICK = ["--weights", "random", "--image-size", "64", "--quiet"]
SPLIT = ["--false-alarms", "0.034", "--calibration-fraction", "0.2"]  # 29 of 60 images kept out


def said(capsys) -> str:
    """What was printed, on one line, however it was wrapped."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def noise(file: Path, seed: int = 0, size: int = 64) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(seed).integers(90, 150, (size, size, 3), dtype=np.uint8)
    ).save(file)
    return file


def read(folder: Path) -> tuple[list[dict], list[dict]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return table, [
        json.loads(line)
        for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def steel(short_training, tmp_path_factory) -> Path:
    """A category: 60 good images to learn from, 40 new ones, 4 with a bright square."""
    return write_category(
        tmp_path_factory.mktemp("data") / "steel", n_train=60, n_good=40, n_defective=4, size=64
    )


@pytest.fixture(scope="module")
def detector(steel, tmp_path_factory) -> Path:
    """Fit to the category; 29 images kept out promise a false-alarm rate of 1 in 30."""
    file = tmp_path_factory.mktemp("detectors") / "steel.safetensors"
    assert main(["fit", str(steel), "--out", str(file), *SPLIT, *QUICK]) == 0
    return file


@pytest.fixture(scope="module")
def crossed(steel, tmp_path_factory) -> Path:
    """Fit to the category by five models, so that all 60 images calibrate."""
    file = tmp_path_factory.mktemp("crossed") / "steel.safetensors"
    assert main(["fit", str(steel), "--out", str(file), "--false-alarms", "0.034", *QUICK]) == 0
    return file


# -- fit -------------------------------------------------------------------------------------------


def test_fit_calibrates_with_all_images_and_says_what_is_expected_and_proven(
    steel, tmp_path, capsys
):
    file = tmp_path / "steel.safetensors"
    assert main(["fit", str(steel), "--out", str(file), "--false-alarms", "0.034", *QUICK]) == 0
    text = said(capsys)
    assert "Fit to 60 images by 5 models, each without a part of them." in text
    assert "is called anomalous with a probability of about 3.4% or less." in text
    # two of 60 images are rejected: 2 (2 + 5 - 1) / (60 + 5)
    assert "Proven is a probability of at most 18.5%; with more images this falls towards 6.8%" in (
        text
    )
    assert "averages over all choices of 60 images" in text and "Promised:" not in text
    assert "with 60 images to calibrate with is 1.64% (1 in 61)" in text
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<img") == 2 * 8 and "Kept out" not in page
    assert "60, each judged by the one of 5 models that had not seen it" in page
    assert "by the one that had not (60 images)" in page
    names = re.findall(r"<figcaption>(\S+)<br>score ([\d.]+)", page)
    loaded = AnomalyDetector.load(file)
    worst = np.sort(loaded.calibration_scores_)[:-9:-1]
    assert [score for _, score in names] == [f"{score:.4g}" for score in worst]
    assert len({name for name, _ in names}) == 8
    images = loaded.origin_["images"]
    assert images["train"] == images["calibration"] and len({*images["train"]}) == 60


def test_fit_leaves_a_detector_and_a_page_and_says_what_it_promises(steel, tmp_path, capsys):
    file = tmp_path / "new folder" / "steel.safetensors"
    assert main(["fit", str(steel), "--out", str(file), *SPLIT, *QUICK]) == 0
    text = said(capsys)
    assert (
        "60 good images (the folder is laid out as MVTec AD; only its train/good is taken)" in text
    )
    assert (
        "Fit to 31 images, and 29 kept out to calibrate with." in text and "rule conformal" in text
    )
    assert (
        "Promised: a good image, made as these were, is called anomalous" in text
        and "with a probability of at most 3.4%" in text
    )
    assert "with 29 images to calibrate with is 3.33% (1 in 30)" in text
    assert "broken by (1) other light" in text and "RANDOM WEIGHTS" in text
    assert "The images, of 64 × 64 pixels, are resized to 64 × 64." in text
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    assert "The strangest good images" in page and page.count("<img") == 2 * (8 + 4)
    assert {each.name for each in file.parent.iterdir()} == {"steel.safetensors", "steel.html"}
    loaded = AnomalyDetector.load(file)
    assert (
        len(loaded.origin_["images"]["train"]) == 31
        and len(loaded.origin_["images"]["calibration"]) == 29
    )


@pytest.mark.parametrize(
    "n, kind", [(2, "published"), (3, "published"), (3, "extended"), (10, "published")]
)
def test_of_few_images_the_detector_works_and_says_that_it_promises_nothing(
    tmp_path, capsys, n, kind
):
    for i in range(n):
        noise(tmp_path / "few" / f"{i}.png", i)
    file = tmp_path / "few.safetensors"
    assert main(["fit", str(tmp_path / "few"), "--out", str(file), "--detector", kind, *QUICK]) == 0
    text = said(capsys)
    assert (
        "NO false-alarm rate is promised. For 5% at least 19 good images are needed" in text
        and "fit with 19 good images or more, or ask for less: --false-alarms" in text
    )
    assert "too few to know how a good surface varies" in text and "Expect false alarms" in text
    assert main(["predict", str(file), str(tmp_path / "few"), "--quiet"]) == 0


@pytest.fixture
def exposures(tmp_path) -> Path:
    """Twelve pieces of a surface, in two exposures each."""
    for i in range(12):
        dark = Image.open(noise(tmp_path / "tiles" / f"{i}_dark.png", i))
        dark.point([min(255, level + 5) for level in range(256)] * 3).save(
            tmp_path / "tiles" / f"{i}_light.png"
        )
    return tmp_path / "tiles"


def test_near_copies_are_told_where_nobody_has_named_groups(exposures, tmp_path, capsys):
    file = tmp_path / "tiles.safetensors"
    assert main(["fit", str(exposures), "--out", str(file), *QUICK]) == 0
    text, page = said(capsys), file.with_suffix(".html").read_text("utf-8")
    assert "WARNING: 24 of 24 images are near-copies of others, such as" in text
    assert re.search(r" (\d+)_(dark|light).png and \1_(dark|light).png, or (\d+)_", text)
    assert "with --groups" in text and "24 of 24 images are near-copies" in page


def test_a_group_is_on_one_side_of_the_split(exposures, tmp_path, capsys, monkeypatch):
    kept = {}
    fit = AnomalyDetector.fit

    def spy(self, *arguments, **options):
        kept[self] = fit(self, *arguments, **options).paths_
        return self

    monkeypatch.setattr(AnomalyDetector, "fit", spy)
    arguments = ["fit", str(exposures), "--out", str(tmp_path / "a.safetensors"), *QUICK]
    arguments += ["--calibration-fraction", "0.2"]
    assert main([*arguments, "--groups", r"(\d+)_"]) == 0
    rows = [f"{path.name},{path.name.split('_')[0]}" for path in exposures.iterdir()]
    (exposures / "groups.csv").write_text("\n".join(["path,group", *rows]))
    assert main(arguments) == 0
    text = said(capsys)
    assert "12 groups of images (by (\\d+)_): a group is never divided" in text
    assert f"12 groups of images (by {exposures / 'groups.csv'})" in text
    assert "near-copies" not in text and len(kept) == 2
    for paths in kept.values():
        train, calibration = (
            {Path(path).name.split("_")[0] for path in paths[part]}
            for part in ("train", "calibration")
        )
        assert not train & calibration and len(train) + len(calibration) == 12
    assert "must be kept out of the fit" in text and "19 groups of images" in text
    assert main([*arguments, "--groups", "piece"]) == 2
    assert "groups piece: 24 of 24 images have no group, such as 0_dark.png and " in said(capsys)


def test_with_groups_the_rate_is_that_of_images_of_new_groups(exposures, tmp_path, capsys):
    file = tmp_path / "tiles.safetensors"
    groups = ["--groups", r"(\d+)_", "--false-alarms"]
    assert main(["fit", str(exposures), "--out", str(file), *QUICK, *groups, "0.1"]) == 0
    text = said(capsys)
    assert "Expected: a good image of a new group, made as these were" in text
    # of 12 groups one is rejected: 2 (1 + 5 - 1) / (12 + 5)
    assert "at most 58.8%" in text and "over all choices of 12 groups of images" in text
    assert "7.69% (1 in 13)" in text and "(1 in 13)" in file.with_suffix(".html").read_text("utf-8")
    loaded = AnomalyDetector.load(file)
    pieces = {}
    for group, fold in zip(
        loaded.calibration_groups_, loaded.autoencoder_.folds.tolist(), strict=True
    ):
        pieces.setdefault(group, set()).add(fold)
    assert len(pieces) == 12 and all(len(folds) == 1 for folds in pieces.values())
    assert main(["fit", str(exposures), "--out", str(file), *QUICK, *groups, "0.05"]) == 0
    text = said(capsys)
    assert "For 5% at least 19 groups of good images are needed, and there were 12." in text
    assert "--false-alarms 0.077 takes no more than 12 groups." in text
    assert (
        main(["fit", str(exposures), "--out", str(file), *QUICK, "--groups", "_(dark|light)"]) == 0
    )
    assert main(["fit", str(exposures), "--out", str(file), *QUICK, "--groups", "(png)"]) == 2
    assert "all 24 images are in one group, 'png': there must be two at least" in said(capsys)


@pytest.mark.slow
def test_fit_says_how_small_a_defect_can_be_in_pixels_of_the_images(tmp_path, capsys):
    for i, (height, width) in enumerate([(200, 1000), (64, 64), (64, 64), (64, 64)]):
        pixels = np.random.default_rng(i).integers(90, 150, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    out = ["--out", str(tmp_path / "detector" / "steel.safetensors")]
    assert main(["fit", str(tmp_path), *out, *QUICK]) == 0
    text = said(capsys)
    assert "all are resized to the same area: 2: 64 × 64 (3), 1000 × 200 (1)." in text
    # 64 of the squeezed width show 1000
    assert "that shrink most, of 1000 × 200 pixels, are resized to 64 × 64." in text
    assert "about 188 pixels across (12 after resizing)" in text
    page = (tmp_path / "detector" / "steel.html").read_text(encoding="utf-8")
    assert "about 188 pixels across" in page and page.count('class="wide"') == 1


def test_an_image_with_a_defect_among_the_good_ones_is_pointed_out(steel, tmp_path, capsys):
    folder = tmp_path / "good ones"
    shutil.copytree(steel / "train" / "good", folder)
    shutil.copy(steel / "test" / "spot" / "000.png", folder / "bad.png")
    assert (
        main(
            [
                "fit",
                str(folder),
                "--out",
                str(tmp_path / "d.safetensors"),
                "--false-alarms",
                "0.034",
                *QUICK,
            ]
        )
        == 0
    )
    assert re.search(r"may have a defect.* LOOK at \d+: (\S+, )*bad.png", said(capsys))
    assert "stands apart from the others" in (tmp_path / "d.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kept_out", [[], ["--calibration-fraction", "0.5"]])
def test_the_strangest_images_are_left_out_and_named(steel, tmp_path, capsys, kept_out):
    folder, file = tmp_path / "good ones", tmp_path / "d.safetensors"
    shutil.copytree(steel / "train" / "good", folder)
    shutil.copy(steel / "test" / "spot" / "000.png", folder / "bad.png")
    given = ["fit", str(folder), "--out", str(file), "--false-alarms", "0.05", *QUICK, *kept_out]
    assert main([*given, "--drop", "1"]) == 0
    text = said(capsys)
    assert "Left out, as the strangest of the good images (--drop): bad.png." in text
    assert "LOOK at 1: bad.png" not in text
    assert f"expect up to {100 * (0.05 + 1 / 61):.3g}% instead" in text
    page = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "<h3>Left out</h3>" in page and page.count('alt="bad.png"') == 1
    known = AnomalyDetector.load(file).origin_["images"]
    assert sum(map(len, known.values())) == (60 if kept_out else 120)
    assert main([*given, "--drop", "31"]) == 2
    assert "--drop must be at least 0 and at most 30 (half of the good images)" in said(capsys)


@pytest.mark.parametrize(
    "options, problem",
    [
        (
            ["--false-alarms", "5"],
            "false_alarms, the false-alarm rate, must be above 0 and below 1",
        ),
        (["--calibration-fraction", "1"], "calibration_fraction must be at least 0 and below 1"),
        (["--image-size", "100"], "must be at least 16 and a multiple of 16, not 100"),
        (
            ["--image-size", "48", "--detector", "extended"],
            "image_size of the extended detector must be at",
        ),
        (["--detector", "publishd"], "detector must be one of published, extended"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--weights", "imagnet"], "did you mean 'imagenet'?"),
        (["--unreadable-limit", "2"], "unreadable_limit must be at least 0 and at most 1"),
    ],
)
def test_options_are_checked_before_anything_is_computed(steel, tmp_path, capsys, options, problem):
    assert main(["fit", str(steel), "--out", str(tmp_path / "d"), *QUICK, *options]) == 2
    assert problem in said(capsys) and list(tmp_path.iterdir()) == []


def test_no_file_but_a_detector_is_replaced(steel, tmp_path, capsys):
    photo = noise(tmp_path / "photo.png")
    before = photo.read_bytes()
    assert main(["fit", str(steel), "--out", str(photo), *QUICK]) == 2
    assert "is there already, and is no detector" in said(capsys) and photo.read_bytes() == before
    assert main(
        ["fit", str(steel), "--out", str(tmp_path), *QUICK]
    ) == 2 and "is a folder: name a file in it" in said(capsys)
    assert main(
        ["fit", str(steel), "--out", str(photo / "d"), *QUICK]
    ) == 2 and "cannot be written" in said(capsys)
    assert (
        main(
            [
                "fit",
                str(steel),
                "--out",
                str(tmp_path / "d"),
                "--report",
                str(tmp_path / "d"),
                *QUICK,
            ]
        )
        == 2
    )
    assert "cannot both be" in said(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "FOLDER"],
        ["fitt"],
        ["fit", "FOLDER", "--out", "x", "--false-alarm", "0.1"],
        ["predict", "x"],
        ["predict", "x", "y", "--out", "o", "--format", "jsonl"],
    ],
)
def test_what_is_misspelt_or_missing_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage: texad" in capsys.readouterr().err


# -- predict ---------------------------------------------------------------------------------------


def test_predictions_are_printed_with_the_detector_s_own_scores(detector, steel, capsys):
    images = sorted(map(str, (steel / "test" / "good").iterdir()))[:6] + sorted(
        map(str, (steel / "test" / "spot").iterdir())
    )
    assert main(["predict", str(detector), *images, "--quiet"]) == 0
    printed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    loaded = AnomalyDetector.load(detector, progress=False)
    scores = loaded.score_samples(images)
    assert [row["path"] for row in printed] == images and list(printed[0]) == [
        "path",
        "score",
        "p_value",
        "decision",
        "seconds",
        "error",
    ]
    assert np.array_equal([np.float32(row["score"]) for row in printed], scores)
    assert np.allclose(
        [float(row["p_value"]) for row in printed],
        p_values(loaded.calibration_scores_, scores),
        rtol=1e-5,
    )
    assert [row["decision"] for row in printed] == [
        "anomalous" if score > loaded.threshold_ else "normal" for score in scores
    ]
    assert {row["decision"] for row in printed[6:]} == {"anomalous"} and all(
        float(row["seconds"]) > 0 for row in printed
    )
    assert main(["predict", str(detector), *images, "--quiet", "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == images and np.array_equal(
        np.array([line["score"] for line in lines], np.float32), scores
    )


def test_with_out_both_files_and_the_heatmaps_are_written(detector, steel, tmp_path, capsys):
    out = tmp_path / "results"
    spot, good = steel / "test" / "spot" / "000.png", steel / "test" / "good" / "000.png"
    assert (
        main(["predict", str(detector), str(spot), str(good), "--out", str(out), "--heatmaps"]) == 0
    )
    table, lines = read(out)
    assert (
        [row["heatmap"] for row in table]
        == [line["heatmap"] for line in lines]
        == ["0000001_000.jpg", "0000002_000.jpg"]
    )
    assert sorted(file.name for file in (out / "heatmaps").iterdir()) == [
        "0000001_000.jpg",
        "0000002_000.jpg",
    ]
    with Image.open(out / "heatmaps" / "0000001_000.jpg") as picture:
        assert picture.size == (64, 64)
    captured = capsys.readouterr()
    assert captured.out == "" and "1 anomalous" in captured.err
    assert main(["predict", str(detector), str(good), "--out", str(out)]) == 2
    assert (
        "predictions.csv is there already, and would be lost" in capsys.readouterr().err
        and read(out)[0] == table
    )


@pytest.mark.parametrize(
    "name",
    ["../../escape.png", "a/b\\c:d.png", "\udcff\x1b[31m.png", "." * 300 + ".png", "CON.png"],
)
def test_no_name_leads_a_heatmap_out_of_its_folder(tmp_path, name, detector, monkeypatch):
    monkeypatch.setattr(prediction_writer, "thumbnail", lambda *_: Image.new("RGB", (8, 8)))
    folder = tmp_path / "heatmaps"
    found = Prediction(name, 1.0, 1.0, False, 0.1, np.ones((4, 4), dtype=np.float32))
    written = prediction_writer.heatmap(folder, 7, found, AnomalyDetector.load(detector))
    assert (
        written.startswith("0000007_")
        and [file.name for file in folder.iterdir()] == [written]
        and len(written) < 80
    )
    assert [file.name for file in tmp_path.iterdir()] == [
        "heatmaps"
    ] and written.encode().decode().isprintable()


def test_an_unreadable_image_is_a_row_and_the_others_go_on(detector, steel, tmp_path, capsys):
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\nxx")
    good = steel / "test" / "good" / "001.png"
    assert (
        main(
            [
                "predict",
                str(detector),
                str(torn),
                str(tmp_path / "missing.png"),
                str(good),
                "--out",
                str(tmp_path / "o"),
                "--heatmaps",
            ]
        )
        == 0
    )
    table, lines = read(tmp_path / "o")
    by_name = {Path(row["path"]).name: row for row in table}
    assert by_name["torn.png"]["decision"] == by_name["missing.png"]["decision"] == "unreadable"
    assert by_name["001.png"]["decision"] in ("normal", "anomalous")
    row = by_name["torn.png"]
    assert row["score"] == row["p_value"] == row["heatmap"] == ""
    assert "torn.png cannot be read" in row["error"]
    scores = {Path(line["path"]).name: line["score"] for line in lines}
    assert scores["torn.png"] is None and scores["001.png"] is not None
    assert "missing.png cannot be read (No such file" in capsys.readouterr().err


def test_the_exit_status_says_whether_all_are_known_to_be_good(detector, steel, tmp_path, capsys):
    loaded = AnomalyDetector.load(detector)
    images = sorted(map(str, (steel / "test" / "good").iterdir()))
    normal = [path for path, flag in zip(images, loaded.predict(images), strict=True) if not flag][
        :2
    ]
    spot, torn, empty = (
        str(steel / "test" / "spot" / "000.png"),
        str(tmp_path / "torn.png"),
        str(tmp_path / "empty"),
    )
    Path(torn).write_bytes(b"no image")
    Path(empty).mkdir()

    def status(*paths, fail=True):
        return main(["predict", str(detector), *paths, "--quiet", *["--fail-on-anomaly"] * fail])

    assert status(*normal) == 0 and status(*normal, spot) == 1 and status(torn, spot) == 1
    assert (
        status(*normal, torn) == 3 and status(*normal, empty) == 3
    )  # nobody knows whether all are good
    assert status(torn) == status(empty) == status(torn, fail=False) == 2
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(normal[0], mixed)
    assert status(str(mixed)) == 0
    (mixed / "phone.heic").write_bytes(b"which nothing here can read")
    assert status(str(mixed)) == 3 and "1 of .heic" in capsys.readouterr().err
    assert status(str(mixed), fail=False) == 0
    assert status(*normal, spot, torn, fail=False) == 0
    assert "RANDOM WEIGHTS" in capsys.readouterr().err


def test_what_cannot_be_done_is_one_line(detector, steel, tmp_path, capsys):
    good = str(steel / "test" / "good" / "000.png")
    for arguments, problem in [
        ([good, good], "is no detector of texad"),
        ([str(tmp_path / "none.safetensors"), good], "is no detector of texad (No such file"),
        (
            [str(detector), good, "--heatmaps"],
            "--heatmaps needs a folder to write to: give --out FOLDER",
        ),
    ]:
        assert main(["predict", *arguments]) == 2
        assert problem in said(capsys) and not (tmp_path / "o").exists()


def test_a_name_is_no_formula_in_the_table_and_itself_in_json(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1.png", "@sum.png", "new\nline.png", "plain, comma.png"):
        noise(Path(name))
    assert (
        main(
            [
                "predict",
                str(detector),
                "=1+1.png",
                "@sum.png",
                "new\nline.png",
                "plain, comma.png",
                "--out",
                "o",
                "--quiet",
            ]
        )
        == 0
    )
    table, lines = read(Path("o"))
    assert [row["path"] for row in table] == [
        "'=1+1.png",
        "'@sum.png",
        "new\nline.png",
        "plain, comma.png",
    ]
    assert [line["path"] for line in lines] == [
        "=1+1.png",
        "@sum.png",
        "new\nline.png",
        "plain, comma.png",
    ]


def test_rows_are_in_the_order_of_the_paths_and_a_sum_is_last(detector, tmp_path, capsys):
    for name in ("10.png", "2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(tmp_path / name)
    given = [str(tmp_path / name) for name in ("b", "10.png", "missing.png", "2.png")]
    assert main(["predict", str(detector), *given, "--out", str(tmp_path / "o")]) == 0
    table, _ = read(tmp_path / "o")
    names = [os.path.relpath(row["path"], tmp_path) for row in table]
    assert names == ["2.png", "10.png", "b/1.png", "missing.png"]
    odd = sum(row["decision"] == "anomalous" for row in table)
    assert f"\ntexad: 3 judged, {odd} anomalous, 1 unreadable, in" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 exist on Linux")
def test_a_name_that_is_no_utf_8_keeps_its_bytes(detector, tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    os.rename(noise(tmp_path / "x.png"), name)
    assert (
        main(
            [
                "predict",
                str(detector),
                os.fsdecode(name),
                "--out",
                str(tmp_path / "o"),
                "--heatmaps",
                "--quiet",
            ]
        )
        == 0
    )
    assert name in (tmp_path / "o" / "predictions.csv").read_bytes()
    assert (
        os.fsencode(json.loads((tmp_path / "o" / "predictions.jsonl").read_text())["path"]) == name
    )


def start(*arguments, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "texad", *map(str, arguments)]

    def listen():  # a shell lets what it runs in the background ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=listen, **options
    )


@pytest.mark.slow
def test_results_come_as_the_paths_come_and_ctrl_c_keeps_them(detector, steel, tmp_path):
    """As with a camera, the next path is given only when the result before it has been read."""
    process = start("predict", detector, "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("path,score")
    for i in range(3):
        path = steel / "test" / "good" / f"{i:03d}.png"
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(f"{path},")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and "stopped" in error
        and "Traceback" not in error
        and "Fatal" not in error
    )


@pytest.mark.slow
def test_ctrl_c_leaves_whole_rows(detector, steel, tmp_path):
    process = start(
        "predict",
        detector,
        *[steel / "test" / "good"] * 200,
        "--out",
        tmp_path / "o",
        stderr=subprocess.PIPE,
    )
    for _ in range(600):
        if (tmp_path / "o" / "predictions.jsonl").exists() and (
            tmp_path / "o" / "predictions.jsonl"
        ).stat().st_size > 1000:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    table, lines = read(tmp_path / "o")
    assert process.returncode == 130 and "they stay" in error and "Traceback" not in error
    assert (
        len(table) >= 5
        and len(table) - len(lines) in (0, 1)
        and all(row["decision"] for row in table)
    )


@pytest.mark.slow
def test_a_reader_that_has_read_enough_is_no_error(detector, steel):
    process = start(
        "predict", detector, *[steel / "test" / "good"] * 50, "--quiet", stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(timeout=60) == 141 and "Traceback" not in error and "Broken" not in error
    process.stderr.close()


def test_no_paths_on_the_standard_input_are_nothing_judged(detector, monkeypatch, capsys):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert main(["predict", str(detector), "-"]) == 2
    assert "the standard input names no image" in said(capsys)


# -- check and calibrate ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brighter(steel, tmp_path_factory) -> Path:
    """The new good images under stronger light, with stronger contrast."""
    folder = tmp_path_factory.mktemp("brighter")
    for file in (steel / "test" / "good").iterdir():
        pixels = np.asarray(Image.open(file)).astype(float)
        Image.fromarray(np.clip((pixels - 120) * 2 + 150, 0, 255).astype(np.uint8)).save(
            folder / file.name
        )
    return folder


def test_a_line_that_has_not_changed_is_not_suspected(detector, steel, tmp_path, capsys):
    page = tmp_path / "check.html"
    assert main(["check", str(detector), str(steel), "--out", str(page), "--quiet"]) == 0
    text = said(capsys)
    assert (
        "only its test/good is taken" in text
        and "No drift seen: go on." in text
        and "40 new good images and of 29 calibration images" in text
    )
    html = page.read_text(encoding="utf-8")
    assert "No drift seen" in html and "<svg" in html and "<script" not in html


@pytest.mark.slow
def test_check_judges_new_images_as_the_calibration_images_were(crossed, steel, capsys):
    assert main(["check", str(crossed), str(steel), "--quiet"]) == 0
    text = said(capsys)
    assert "Each new image was judged by one of the 5 models alone" in text
    loaded = AnomalyDetector.load(crossed, progress=False)
    paths = sorted((steel / "test" / "good").iterdir())
    by_one = loaded.score_samples(paths, range(len(paths)))
    above = (by_one > loaded.threshold_).sum()
    assert f"{above} of 40 new good images" in text
    by_each = []
    for model in loaded.autoencoder_.models:
        alone = AnomalyDetector.load(crossed, progress=False)
        alone.autoencoder_ = model
        by_each.append(alone.score_samples(paths))
    folds = loaded.autoencoder_.folds.numpy()[: len(paths)]
    assert np.array_equal(by_one, np.array(by_each)[folds, range(len(paths))])
    assert np.array_equal(loaded.score_samples(paths), np.min(by_each, axis=0))


@pytest.mark.slow
def test_calibrate_with_new_images_ends_what_the_folds_shared(crossed, steel, tmp_path, capsys):
    file = tmp_path / "again.safetensors"
    assert main(["calibrate", str(crossed), str(steel), "--out", str(file), "--quiet"]) == 0
    text = said(capsys)
    assert "Calibrated with 40 images." in text and "Promised: a good image" in text
    again = AnomalyDetector.load(file, progress=False)
    assert again.n_folds_ == 1 and again.n_calibration_ == 40
    images = inputs.good_images(steel, "test", progress=False)
    expected = AnomalyDetector.load(crossed, progress=False).score_samples(images.paths)
    assert np.array_equal(again.calibration_scores_, expected)
    known = steel / "train" / "good"
    assert main(["calibrate", str(crossed), str(known), "--out", str(file), "--quiet"]) == 2
    assert "holds only images that the detector knows" in said(capsys)


def test_another_light_is_drift_and_a_reason_to_fit_again(detector, brighter, tmp_path, capsys):
    page = tmp_path / "check.html"
    assert main(["check", str(detector), str(brighter), "--out", str(page), "--quiet"]) == 1
    text = said(capsys)
    assert (
        "DRIFT: a typical good image is now as strange as the strangest were" in text
        and "texad fit" in text
    )
    assert "DRIFT" in page.read_text(encoding="utf-8")


def test_too_few_new_images_are_said_to_be(detector, steel, tmp_path, capsys):
    shutil.copytree(
        steel / "test" / "good", tmp_path / "one", ignore=lambda _, names: sorted(names)[1:]
    )
    assert main(["check", str(detector), str(tmp_path / "one"), "--quiet"]) == 0
    assert "Too few images to see anything: at least 2 are needed" in said(capsys)


def test_images_that_the_detector_knows_are_left_out_or_refused(detector, steel, tmp_path, capsys):
    for command in ("check", "calibrate"):
        options = ["--out", str(tmp_path / "new")] if command == "calibrate" else []
        known = steel / "train" / "good"
        status = main([command, str(detector), str(known), *options, "--quiet"])
        text = said(capsys)
        if command == "check":
            assert status == 2 and "holds only images that the detector knows" in text
        else:  # those kept out may be used again: it was not fit to them
            assert (
                status == 0
                and "the detector knows them from fit or calibration: 31; 29 are left." in text
            )
    again, before = AnomalyDetector.load(tmp_path / "new"), AnomalyDetector.load(detector)
    assert (
        sorted(again.calibration_scores_) == sorted(before.calibration_scores_)
        and again.threshold_ == before.threshold_
    )


@pytest.mark.slow
def test_calibrate_sets_the_threshold_and_nothing_else(detector, steel, tmp_path, capsys):
    file = tmp_path / "new.safetensors"
    original = detector.read_bytes()
    assert (
        main(
            [
                "calibrate",
                str(detector),
                str(steel),
                "--out",
                str(file),
                "--false-alarms",
                "0.05",
                "--quiet",
            ]
        )
        == 0
    )
    assert "Calibrated with 40 images" in said(capsys) and detector.read_bytes() == original
    before, after = AnomalyDetector.load(detector), AnomalyDetector.load(file)
    images = inputs.good_images(steel, "test", progress=False)
    assert np.allclose(after.calibration_scores_, before.score_samples(images.paths), rtol=1e-6)
    assert (
        after.threshold_ == conformal_threshold(after.calibration_scores_, 0.05)
        and after.false_alarms == 0.05
    )
    for name, tensor in before.autoencoder_.state_dict().items():
        assert np.array_equal(tensor, after.autoencoder_.state_dict()[name])
    assert main(["check", str(file), str(steel), "--quiet"]) == 2  # now it knows these
    assert "holds only images that the detector knows" in said(capsys)


@pytest.mark.slow
def test_calibrate_without_out_replaces_the_detector(detector, brighter, tmp_path, capsys):
    file = tmp_path / "own.safetensors"
    shutil.copy(detector, file)
    assert main(["calibrate", str(file), str(brighter), "--quiet"]) == 0
    assert (
        "CAUTION: a typical one of these images is as strange as the strangest were before"
        in said(capsys)
    )
    assert AnomalyDetector.load(file).threshold_ > AnomalyDetector.load(detector).threshold_
    assert main(["check", str(file), str(brighter), "--quiet"]) == 2


def test_calibrate_refuses_what_would_promise_nothing(detector, steel, tmp_path, capsys):
    shutil.copytree(
        steel / "test" / "good", tmp_path / "few", ignore=lambda _, names: sorted(names)[10:]
    )
    file = tmp_path / "own.safetensors"
    shutil.copy(detector, file)
    assert main(["calibrate", str(file), str(tmp_path / "few"), "--quiet"]) == 2
    text = said(capsys)
    assert (
        "10 images cannot promise a false-alarm rate of 3.4%, which takes at least 29" in text
        and "--false-alarms 0.091" in text
    )
    assert file.read_bytes() == detector.read_bytes()
    assert (
        main(["calibrate", str(file), str(tmp_path / "few"), "--false-alarms", "0.091", "--quiet"])
        == 0
    )
    assert AnomalyDetector.load(file).rule_ == "conformal"


@pytest.mark.slow
def test_a_detector_made_in_python_says_that_it_cannot_tell_which_images_it_knows(
    detector, steel, tmp_path, capsys
):
    plain = AnomalyDetector.load(detector)
    del plain.origin_["images"], plain.origin_["heat"]
    plain.save(tmp_path / "plain.safetensors")
    assert main(["check", str(tmp_path / "plain.safetensors"), str(steel), "--quiet"]) == 0
    assert "make sure that none of these is among them" in said(capsys)
    image = str(steel / "test" / "spot" / "000.png")
    assert (
        main(
            [
                "predict",
                str(tmp_path / "plain.safetensors"),
                image,
                "--out",
                str(tmp_path / "o"),
                "--heatmaps",
                "--quiet",
            ]
        )
        == 0
    )
    assert len(list((tmp_path / "o" / "heatmaps").iterdir())) == 1


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "fit", "predict", "check", "calibrate"])
def test_help_is_quick_since_it_imports_nothing_large(command):
    code = f"""
import sys
from texad.__main__ import main
try:
    main("{command} --help".split())
except SystemExit:
    assert not {{"torch", "numpy", "jinja2"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: texad {command}" in done.stdout
    assert "xit status" in done.stdout or command in ("fit", "calibrate")
