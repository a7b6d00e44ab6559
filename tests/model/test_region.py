"""A region: what lies outside counts in no fit, score, calibration, map or export."""

import csv
import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import texad
from PIL import Image
from sklearn.metrics import roc_auc_score

from texad.__main__ import main
from texad.detector import AnomalyDetector
from texad.io.tensors import read_tensors
from texad.model import onnx_export, preprocessing
from texad.model.preprocessing import Sight

SIZE, NUMBER = 160, slice(8, 40)  # pixels of a plate, and rows of its serial number


def plate(file, seed, bad=False):
    """A woven surface with a serial number of its own; a bad one has a dark spot below it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    grey = 130 + 22 * np.sin(x / 3 + rng.uniform(0, 6)) * np.sin(y / 4 + rng.uniform(0, 6))
    grey += rng.normal(0, 6, grey.shape)
    for k in range(rng.integers(3, 8)):
        grey[NUMBER, 16 + 18 * k : 16 + 18 * k + rng.integers(3, 14)] = rng.choice([0, 255])
    if bad:
        row, column = rng.integers(60, SIZE - 24, 2)
        grey[row : row + 10, column : column + 10] *= 0.75
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB").save(file)
    return file


def save_mask(file, black=NUMBER):
    pixels = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    pixels[black] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return str(file)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """A data set of one category, a mask, and a folder with a mask of each image."""
    folder = tmp_path_factory.mktemp("data") / "plates"
    for split, n, seed in (("train/good", 20, 0), ("test/good", 10, 100), ("test/spot", 10, 200)):
        for i in range(n):
            plate(folder / "one" / split / f"{i:03}.png", seed + i, bad=split == "test/spot")
    region = save_mask(folder.parent / "region.png")
    for i in range(20):
        save_mask(folder.parent / "masks" / f"{i:03}.png")
    return folder / "one", region, str(folder.parent / "masks")


@pytest.fixture(scope="module", params=["published", "extended"])
def fitted(request, plates, short_training):
    folder, region, _ = plates
    options = {"weights": "texad", "image_size": 64, "progress": False, "region": region}
    return AnomalyDetector(request.param, **options).fit(sorted(folder.glob("train/*/*")))


# -- whether it helps ------------------------------------------------------------------------------


def auroc(rows):
    return roc_auc_score(
        ["spot" in row["path"] for row in rows], [float(row["score"]) for row in rows]
    )


@pytest.mark.slow
def test_a_serial_number_outside_the_region_hides_no_defect(plates, tmp_path):
    folder, region, _ = plates
    found = []
    for name, options in (("whole", []), ("part", ["--region", region])):
        file = tmp_path / f"{name}.safetensors"
        quiet = [*options, "--detector", "extended", "--weights", "texad", "--quiet"]
        assert main(["fit", str(folder), "--out", str(file), *quiet]) == 0
        test = str(folder / "test")
        assert main(["predict", str(file), test, "--out", str(tmp_path / name), "--quiet"]) == 0
        with (tmp_path / name / "predictions.csv").open() as table:
            found.append(auroc([*csv.DictReader(table)]))
    assert found[0] < 0.9 and found[1] > 0.99


@pytest.mark.slow
def test_nor_does_it_in_a_run(plates, tmp_path):
    folder, region, _ = plates
    for name, options in (("whole", []), ("part", ["-p", "region", region])):
        done = texad(
            *("run", "--dataset", folder.parent, "--weights", "texad", "--quiet"),
            *("--out", tmp_path / name, "-p", "detector", "extended", *options),
        )
        assert done.returncode == 0, done.stderr
    found = [
        json.loads(next((tmp_path / name).rglob("metrics.json")).read_text())["image_auroc"]
        for name in ("whole", "part")
    ]
    assert found[0] < 0.9 and found[1] > 0.99


# -- one mask --------------------------------------------------------------------------------------


def test_what_lies_outside_changes_nothing(fitted, plates, tmp_path):
    here = plate(tmp_path / "a.png", 7)
    pixels = np.array(Image.open(here))
    pixels[NUMBER] = 255 - pixels[NUMBER]
    Image.fromarray(pixels).save(tmp_path / "b.png")
    one, other = fitted.stream([here, tmp_path / "b.png"])
    assert one.score == other.score and np.isfinite(one.score)
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    assert np.isnan(one.anomaly_map[0]).all() and np.isfinite(one.anomaly_map[1:]).all()


def test_the_mask_is_in_the_file_and_its_place_is_not(fitted, plates, tmp_path):
    folder, region, _ = plates
    fitted.save(tmp_path / "d.safetensors")
    content = (tmp_path / "d.safetensors").read_bytes()
    assert region.encode() not in content
    assert str(folder.parent).encode() not in content
    loaded = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    assert loaded.sight_ == fitted.sight_
    test = sorted(folder.glob("test/*/*"))[:3]
    np.testing.assert_array_equal(loaded.score_samples(test), fitted.score_samples(test))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == content


def test_a_damaged_mask_in_a_file_is_refused_in_one_line(fitted, tmp_path):
    fitted.save(tmp_path / "d.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    loaded.sight_ = replace(loaded.sight_, region=b"no PNG")
    loaded.save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"d\.safetensors is no detector of texad \(cannot ident"):
        AnomalyDetector.load(tmp_path / "d.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("where", onnx_export.MAPS)
def test_an_exported_detector_has_the_region(fitted, plates, tmp_path, where):
    folder, _, _ = plates
    fitted.to_onnx(tmp_path / "d.onnx", map=where)
    images = sorted(folder.glob("test/*/*"))[8:12]
    expected = list(fitted.stream(images))
    score, _, maps = onnxruntime.InferenceSession(
        tmp_path / "d.onnx", providers=["CPUExecutionProvider"]
    ).run(list(onnx_export.OUTPUTS), {"image": np.stack([Image.open(f) for f in images])})
    np.testing.assert_allclose(score, [each.score for each in expected], rtol=1e-4)
    wanted = [each.anomaly_map for each in expected]
    if where == "pixels":
        wanted = [fitted.enlarge(each, (SIZE, SIZE)) for each in wanted]
    assert np.isnan(wanted).any()
    np.testing.assert_allclose(maps, wanted, rtol=1e-3)


def test_a_detector_that_averages_neighbours_is_not_exported_with_a_region(fitted, tmp_path):
    if fitted.detector == "published":
        pytest.skip("no published detector averages neighbours")
    fitted.save(tmp_path / "d.safetensors")
    old = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    for model in old.autoencoder_.modules():
        if hasattr(model, "widths"):
            model.widths["averaged"] = 1
    with pytest.raises(ValueError, match="^region: a detector of an earlier version"):
        old.to_onnx(tmp_path / "d.onnx")


def test_another_region_may_be_given_later(fitted, plates, tmp_path, capsys):
    folder, _, _ = plates
    fitted.save(tmp_path / "d.safetensors")
    below = save_mask(tmp_path / "below.png", slice(80, None))
    more = ["--region", below, "--false-alarms", "0.1", "--quiet"]
    assert main(["calibrate", str(tmp_path / "d.safetensors"), str(folder), *more]) == 0
    capsys.readouterr()
    loaded = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False)
    assert loaded.sight_ == replace(fitted.sight_, region=below).holding_mask()
    (judged,) = loaded.stream([folder / "test" / "good" / "000.png"])
    there = np.isfinite(judged.anomaly_map)
    assert there[:2].all() and not there[2:].any()


# -- a mask for each image -------------------------------------------------------------------------


def test_a_folder_of_masks_has_to_be_given_again(plates, tmp_path, capsys, short_training):
    folder, _, masks = plates
    made = AnomalyDetector(weights="texad", image_size=64, progress=False, region=masks).fit(
        sorted(folder.glob("train/*/*"))
    )
    made.save(tmp_path / "d.safetensors")
    content = (tmp_path / "d.safetensors").read_bytes()
    assert (
        masks.encode() not in content
        and "region" not in read_tensors(tmp_path / "d.safetensors")[0]
    )
    image = str(folder / "test" / "spot" / "003.png")
    judge = ["predict", str(tmp_path / "d.safetensors"), image, "--quiet"]
    assert main(judge) == 2
    said = capsys.readouterr().err
    assert "region is needed" in said and "the folder masks" in said and said.count("\n") == 1
    again = AnomalyDetector.load(tmp_path / "d.safetensors", progress=False, region=masks)
    assert again.score_samples([image]) == made.score_samples([image])
    assert main([*judge, "--region", masks]) == 0
    # images without a mask of their own, and programs that have no folder
    other = plate(tmp_path / "other.png", 3)
    assert main([*judge[:2], str(other), "--region", masks, "--quiet"]) == 2
    assert "masks has no mask named other.png" in capsys.readouterr().out
    export = ["export", str(tmp_path / "d.safetensors"), "--region", masks]
    assert main(export) == 2
    assert "an ONNX file holds one mask for all images, and" in capsys.readouterr().err


def test_an_image_without_a_mask_is_named_before_anything_is_computed(plates, tmp_path):
    folder, region, _ = plates
    save_mask(tmp_path / "masks" / "000.png")
    made = AnomalyDetector(weights="random", region=tmp_path / "masks", progress=False)
    with pytest.raises(ValueError, match="masks has no mask named 001.png"):
        made.fit(sorted(folder.glob("train/*/*")))
    assert not hasattr(made, "backbone_")


def test_a_region_that_is_not_there_is_refused_in_one_line(plates, tmp_path, capsys):
    out = ["--out", str(tmp_path / "d.safetensors"), "--weights", "random", "--quiet"]
    assert main(["fit", str(plates[0]), *out, "--region", "nowhere.png"]) == 2
    assert "region nowhere.png does not exist" in capsys.readouterr().err


# -- reading ---------------------------------------------------------------------------------------


def test_a_mask_held_is_the_mask_of_the_file(plates):
    sight = Sight(64, region=plates[1])
    held = sight.holding_mask()
    assert isinstance(held.region, bytes) and held.holding_mask() == held != sight
    for of_file, of_bytes in zip(
        sight.inside("any.png", (64, 96)), held.inside("any.png", (64, 96)), strict=True
    ):
        np.testing.assert_array_equal(of_file, of_bytes)
    x = [preprocessing.load_image(next(plates[0].glob("test/*/*")), s) for s in (sight, held)]
    assert torch.equal(*x)
