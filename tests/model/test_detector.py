"""The detector as an object, without the command line around it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_category
from PIL import Image

from texad import pipeline
from texad.commands import prediction_writer, report
from texad.detector import AnomalyDetector
from texad.figures.overlay import overlay
from texad.io.tensors import read_tensors
from texad.model import registry
from texad.model.backbone import grid
from texad.model.places import Grid, enlarge
from texad.model.preprocessing import Sight
from texad.teaching import explorer

pytestmark = pytest.mark.usefixtures("short_training")


@pytest.fixture(scope="module")
def good(short_training, tmp_path_factory) -> list[Path]:
    return sorted(
        (
            write_category(tmp_path_factory.mktemp("data") / "steel", n_train=12) / "train" / "good"
        ).iterdir()
    )


@pytest.fixture(scope="module")
def fitted(good) -> AnomalyDetector:
    return AnomalyDetector(weights="random", image_size=64, false_alarms=0.2, progress=False).fit(
        good
    )


@pytest.fixture
def loaded(fitted, tmp_path) -> AnomalyDetector:
    """A copy, to be changed."""
    fitted.save(tmp_path / "copy.safetensors")
    return AnomalyDetector.load(tmp_path / "copy.safetensors", progress=False)


def test_fit_finds_the_scale_of_the_heatmaps(fitted):
    kept_out, train = (
        [each.anomaly_map for each in fitted.stream(fitted.paths_["train"], in_place_of)]
        for in_place_of in (range(12), None)
    )
    low, high = fitted.origin_["heat"]
    assert np.isclose(low, np.median(kept_out), rtol=1e-4) and np.isclose(
        high, max(np.max(kept_out), np.max(train)), rtol=1e-4
    )


def test_every_image_calibrates_by_the_one_model_that_has_not_seen_it(fitted, good):
    assert fitted.paths_["train"] == fitted.paths_["calibration"] == [*map(str, good)]
    assert (fitted.n_calibration_, fitted.n_folds_) == (12, 5)
    held_out = fitted.score_samples(good, in_place_of=range(12))
    np.testing.assert_allclose(fitted.calibration_scores_, held_out, rtol=1e-5)
    # the others know the image, and one of them finds it less strange
    assert (fitted.score_samples(good) <= held_out).all()
    assert fitted.train_scores_.mean() < 0.97 * held_out.mean()


def test_a_saved_detector_of_groups_judges_as_before(good, tmp_path):
    groups = [f"piece {i // 2}" for i in range(12)]
    made = AnomalyDetector(weights="random", image_size=64, false_alarms=0.2, progress=False)
    made.fit(good, groups=groups).save(tmp_path / "d.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    assert loaded.calibration_groups_ == groups
    assert (
        (loaded.n_calibration_, loaded.n_folds_) == (made.n_calibration_, made.n_folds_) == (6, 5)
    )
    assert (loaded.rule_, loaded.threshold_) == ("conformal", made.threshold_)
    before, after = ([*one.stream(good, range(12))] for one in (made, loaded))
    for name in ("score", "p_value", "anomalous"):
        assert [getattr(one, name) for one in before] == [getattr(one, name) for one in after]
    # above the threshold exactly when the p-value is small enough
    assert all(one.anomalous == (one.p_value <= 0.2) for one in [*after, *loaded.stream(good)])
    folds = loaded.autoencoder_.folds.tolist()
    assert folds[::2] == folds[1::2]


def test_one_group_is_refused_in_one_line(good):
    made = AnomalyDetector(weights="random", image_size=64, progress=False)
    with pytest.raises(ValueError, match="add images, or groups of them$"):
        made.fit(good, groups=["piece"] * 12)


def test_a_detector_knows_where_its_places_look_and_so_does_its_file(fitted, loaded, tmp_path):
    assert grid(loaded.backbone_) == grid(fitted.backbone_)
    metadata = read_tensors(tmp_path / "copy.safetensors")[1]
    centre = list(grid(fitted.backbone_).centre)
    assert json.loads(metadata["texad"])["places"] == {"stride": 16, "centre": centre}


def test_the_explorer_the_report_and_predict_cover_an_image_alike(tmp_path):
    files = [tmp_path / "good" / f"{i}.png" for i in range(3)]
    files[0].parent.mkdir()
    for i, file in enumerate(files):
        surface = np.full((160, 160, 3), 100, dtype=np.uint8)
        surface[40 + 20 * i : 60 + 20 * i, 90:120] = 140
        Image.fromarray(surface).save(file)
    fitted = AnomalyDetector(
        weights="random", image_size=160, calibration_fraction=0.2, progress=False
    ).fit(files)
    fitted.backbone_.centre[:] = torch.tensor((3.0, -11.0))  # nothing is symmetric
    (reported,) = report.strangest(fitted, tmp_path)["calibration"]
    (judged,) = fitted.stream([tmp_path / reported["name"]])
    low, high = fitted.origin_["heat"]

    by_predict = prediction_writer.heatmap(tmp_path / "predict", 1, judged, fitted)
    scale = np.full((2, 10, 10), low, dtype=np.float32)  # so that all have one scale
    scale[0, 0, 0] = high
    maps = np.stack([judged.anomaly_map, *scale])
    paths = [judged.path] * 3
    explorer.write_pictures(tmp_path, paths, maps, [None] * 3, Sight(160), grid(fitted.backbone_))
    by_explorer = Image.open(tmp_path / "0000.jpg").crop((160, 0, 320, 160))

    def by_hand(centre):
        (large,) = enlarge(judged.anomaly_map[None], Grid(16, centre), 160)
        return overlay(Image.open(judged.path), large, (low, high))

    np.testing.assert_array_equal(reported["covered"], by_hand((3, -11)))
    for picture in (Image.open(tmp_path / "predict" / by_predict), by_explorer):
        # JPEG changes the pixels a little; a map that is displaced by two of them, more
        here, there = (difference(picture, by_hand((3, x))) for x in (-11, -9))
        assert here < 0.5 * there


def difference(one, other) -> float:
    return float(np.square(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@pytest.mark.parametrize("n", [2, 3, 4, 5, 11, 12])
def test_for_the_promise_at_most_half_of_the_images_are_kept_out(n):
    train, calibration = pipeline.keep_out(range(n), 0.2, false_alarms=0.01)
    assert len(calibration) == n // 2 and sorted(train + calibration) == [*range(n)]
    # more only if it was asked for
    assert len(pipeline.keep_out(range(12), 0.75, false_alarms=0.5)[1]) == 9


def test_images_too_small_for_the_extended_detector_are_refused_before_one_is_read():
    with pytest.raises(
        ValueError, match="^image_size of the extended detector must be at least 64 and .*, not 48$"
    ):
        AnomalyDetector("extended", image_size=48).fit(["absent.png", "missing.png"])


SHAPES = [(48, 160), (160, 48), (64, 64), (100, 80)]


@pytest.fixture(scope="module")
def various(short_training, tmp_path_factory) -> list[Path]:
    """Images of several sizes and shapes."""
    folder, rng = tmp_path_factory.mktemp("various"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        pixels = rng.integers(90, 150, (*SHAPES[i % len(SHAPES)], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_a_saved_detector_looks_at_images_as_before(various, tmp_path):
    long = various[:: len(SHAPES)]
    made = AnomalyDetector("extended", weights="random", image_size=64, progress=False).fit(long)
    made.save(tmp_path / "d.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    assert loaded.sight_ == made.sight_ == Sight(64, True, True, True)
    assert loaded.origin_["image_size"] == [48, 160] and loaded.normalize is None
    before, after = ([*one.stream(long)] for one in (made, loaded))
    assert [one.score for one in before] == [one.score for one in after]
    assert after[0].anomaly_map.shape == (2, 7)  # 32 × 112 pixels


@pytest.mark.parametrize("kind", ["published", "extended"])
def test_images_of_any_size_are_learnt_from_and_judged(various, kind, monkeypatch):
    known = registry.DETECTORS[kind]
    sight = replace(known.sight, keep_aspect=True)
    monkeypatch.setitem(registry.DETECTORS, kind, replace(known, sight=sight))
    made = AnomalyDetector(kind, weights="random", image_size=64, progress=False).fit(various)
    assert made.origin_["image_size"] is None and np.isfinite(made.origin_["heat"]).all()
    assert np.isfinite(made.calibration_scores_).all() and np.isfinite(made.train_scores_).all()
    for path, judged in zip(various, made.stream(various, range(12)), strict=True):
        with Image.open(path) as image:
            size = image.height, image.width
        rows, columns = made.sight_.shape(*size)
        assert judged.anomaly_map.shape == (rows // 16, columns // 16)
        large = made.enlarge(judged.anomaly_map, size)
        assert large.shape == size and np.isfinite(large).all()
    # an image that was fit to beside others of its size or of another has one score
    scores = made.score_samples(various, in_place_of=range(12))
    np.testing.assert_allclose(scores, made.calibration_scores_, rtol=1e-4)


def test_a_detector_s_file_may_be_read_by_whom_the_system_lets(fitted, tmp_path):
    (tmp_path / "plain").touch()
    fitted.save(tmp_path / "d.safetensors")
    assert (tmp_path / "d.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "changes, problem",
    [
        (None, "it does not say where it comes from"),
        ({"weights": None}, "it does not say of which weights it is made"),
        ({"weights": {"name": 1, "sha256": ""}}, "it does not say of which weights it is made"),
        ({"n_train": "12"}, "it does not say how many images it has learnt from"),
        ({"heat": [1]}, "the scale of its heatmaps is not two numbers"),
        ({"heat": ["low", "high"]}, "the scale of its heatmaps is not two numbers"),
    ],
)
def test_a_file_with_a_damaged_origin_is_refused_in_one_line(loaded, tmp_path, changes, problem):
    loaded.origin_ = changes and loaded.origin_ | changes
    loaded.save(file := tmp_path / "damaged.safetensors")
    with pytest.raises(ValueError) as refused:
        AnomalyDetector.load(file)
    assert (
        str(refused.value) == f"{file} is no detector of texad ({problem}); "
        f"make one with texad fit FOLDER --out {file}"
    )


def test_a_file_of_before_there_was_a_scale_is_read(loaded, tmp_path):
    del loaded.origin_["heat"]
    loaded.save(tmp_path / "old.safetensors")
    assert AnomalyDetector.load(tmp_path / "old.safetensors").threshold_ == loaded.threshold_


def test_scores_decisions_and_their_distance_from_the_threshold_agree(fitted, good):
    scores = fitted.score_samples(good)
    assert scores.dtype == np.float32 and scores.shape == (12,)
    np.testing.assert_array_equal(
        fitted.decision_function(good), scores - np.float32(fitted.threshold_)
    )
    assert fitted.predict(good).tolist() == [int(score > fitted.threshold_) for score in scores]


def test_an_image_that_cannot_be_read_has_no_score(fitted, good, tmp_path):
    (tmp_path / "torn.png").write_bytes(good[0].read_bytes()[:50])
    for judge in (fitted.score_samples, fitted.decision_function, fitted.predict):
        with pytest.raises(ValueError, match="torn.png cannot be read"):
            judge([good[0], tmp_path / "torn.png"])


@pytest.mark.parametrize(
    ("detector", "paths", "said"),
    [
        ("newest", ["a.png", "b.png"], "detector must be one of .*, not 'newest'"),
        ("published", ["a.png"], "a detector needs at least 2 good images, .* and there are 1"),
        ("published", [], "and there are 0"),
    ],
)
def test_what_no_detector_can_be_made_of_is_refused_before_an_image_is_read(detector, paths, said):
    with pytest.raises(ValueError, match=said):
        AnomalyDetector(detector, weights="random").fit(paths)
