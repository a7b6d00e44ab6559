import json
import sys
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, write_category
from helpers import slim_weights
from PIL import Image

from texad.__main__ import main
from texad.detector import AnomalyDetector
from texad.model import onnx_export as export
from texad.model import preprocessing, weights

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 75, 49  # squeezed, one side shrinks to 64, and the other grows
RESIZED = {"published": (64, 64), "extended": (80, 48)}  # the extended detector keeps the aspect


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Good images of a size of their own, and others with a defect."""
    folder = write_category(tmp_path_factory.mktemp("surface"), n_train=8, size=HEIGHT)
    paths = sorted([*folder.glob("train/*/*.png"), *folder.glob("test/*/*.png")])
    for path in paths:
        Image.open(path).crop((0, 0, WIDTH, HEIGHT)).save(path)
    return paths


@pytest.fixture(scope="module", params=["published", "extended"])
def detector(request, images):
    good = [path for path in images if path.parent.parent.name == "train"]
    untrained = {
        "published": partial(weights.untrained, shortcuts=False),  # every convolution counts
        "extended": lambda seed: replace(slim_weights(), name="random"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "untrained", untrained[request.param])
        fitted = AnomalyDetector(
            request.param,
            weights="random",
            image_size=64,
            progress=False,
        ).fit(good)
    scores = np.sort(
        fitted.score_samples(path for path in images if str(path) not in fitted.paths_["train"])
    )
    fitted.threshold_ = float(
        scores[len(scores) // 2 - 1 :][:2].mean()
    )  # half of the images are above it
    return fitted


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    """An ONNX file that resizes by itself."""
    file = tmp_path_factory.mktemp("exported") / "steel.onnx"
    detector.to_onnx(file, (HEIGHT, WIDTH))
    return file


def run(file, pixels):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
        list(export.OUTPUTS), {"image": pixels}
    )


# -- resizing --------------------------------------------------------------------------------------


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """As in the exported network."""
    rows = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32)
    across, down = (
        export.Resampling(pixels.shape[1], side),
        export.Resampling(pixels.shape[0], side),
    )
    return down(across(rows).mT).mT.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (1, 1, 16),
        (1, 700, 64),
        (699, 2, 64),
        (64, 64, 64),
        (63, 65, 64),
        (128, 32, 64),
        (301, 402, 224),
        (97, 1031, 224),
        (700, 700, 48),
    ],
)
def test_resizing_gives_the_grey_levels_of_the_preprocessing(height, width, side):
    rng = np.random.default_rng(height)
    for pixels in (
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.choice(np.array([0, 255], dtype=np.uint8), (height, width, 3)),
    ):
        np.testing.assert_array_equal(resized(pixels, side), preprocessing.resize(pixels, side))


def test_so_it_does_for_sizes_that_nobody_chose():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = np.exp(rng.uniform(0, np.log(600), 2)).astype(int)
        side = int(rng.choice([16, 64, 96]))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        np.testing.assert_array_equal(
            resized(pixels, side),
            preprocessing.resize(pixels, side),
            f"{height} x {width} to {side}",
        )


def test_weights_fall_off_to_both_sides_and_are_rounded_to_sixteen_bits():
    assert [
        part.tolist() if isinstance(part, np.ndarray) else part
        for part in export.resampling_weights(2, 1)
    ] == [[[1 << 14, 1 << 14]], 15]
    weights, bits = export.resampling_weights(
        3, 1
    )  # a triangle from −1.5 to 4.5 at the pixels' middles: 2/3, 1, 2/3, which is 2/7, 3/7, 2/7
    assert (weights.tolist(), bits) == ([[18725, 28087, 18725]], 16)


def test_what_cannot_be_resized_exactly_is_refused():
    white = np.full((16 * 200, 16, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(resized(white, 16), 255)
    with pytest.raises(
        ValueError, match="--size: 6400 pixels are too many to be resized to 16 exactly"
    ):
        export.Resampling(16 * 400, 16)


# -- the whole -------------------------------------------------------------------------------------


def test_scores_decisions_and_maps_are_those_of_the_detector(detector, exported, images):
    images = [
        path for path in images if str(path) not in detector.paths_["train"]
    ]  # rebuilt exactly, those have scores of rounding alone
    expected = list(detector.stream(images))
    score, anomalous, anomaly_map = run(
        exported, np.stack([np.array(Image.open(path)) for path in images])
    )
    np.testing.assert_allclose(score, [each.score for each in expected], rtol=1e-4)
    np.testing.assert_array_equal(anomalous, [each.anomalous for each in expected])
    assert 0 < anomalous.sum() < len(images)
    np.testing.assert_allclose(anomaly_map, [each.anomaly_map for each in expected], rtol=1e-3)
    assert (score.dtype, anomalous.dtype, anomaly_map.dtype, anomaly_map.shape[1:]) == (
        np.float32,
        bool,
        np.float32,
        tuple(side // 16 for side in RESIZED[detector.detector]),
    )


def test_a_map_in_pixels_is_that_of_enlarge(detector, images, tmp_path):
    detector.backbone_.centre[:] = torch.tensor((5.0, -2.0))  # nothing is symmetric
    detector.to_onnx(tmp_path / "pixels.onnx", (HEIGHT, WIDTH), map="pixels")
    # the images that it was fit to may be rebuilt exactly
    path = next(path for path in images if str(path) not in detector.paths_["train"])
    (judged,) = detector.stream([path])
    score, _, anomaly_map = run(tmp_path / "pixels.onnx", np.array(Image.open(path))[None])
    assert anomaly_map.shape == (1, HEIGHT, WIDTH) and anomaly_map.dtype == np.float32
    wanted = detector.enlarge(judged.anomaly_map, (HEIGHT, WIDTH))
    np.testing.assert_allclose(anomaly_map[0], wanted, rtol=1e-3)
    np.testing.assert_allclose(score, judged.score, rtol=1e-4)
    about = json.loads(onnx.load(tmp_path / "pixels.onnx").metadata_props[0].value)
    assert (about["map"], about["places"]) == ("pixels", {"stride": 16, "centre": [5.0, -2.0]})
    with pytest.raises(ValueError, match="map must be one of places, pixels, not 'pixel'"):
        detector.to_onnx(tmp_path / "other.onnx", map="pixel")


def test_an_image_alone_has_the_same_score(exported, images):
    pixels = np.stack([np.array(Image.open(path)) for path in images])
    together, alone = run(exported, pixels)[0], run(exported, pixels[2:3])[0]
    np.testing.assert_allclose(alone, together[2:3], rtol=1e-5)


def test_the_file_needs_nothing_but_plain_onnx(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert not {node.op_type for node in model.graph.node} & {
        "Loop",
        "If",
        "Scan",
        "SplitToSequence",
    }
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 43


def test_the_file_says_what_it_is_and_not_where_it_was_made(detector, exported):
    about = json.loads(
        {entry.key: entry.value for entry in onnx.load(exported).metadata_props}["texad"]
    )
    assert about["threshold"] == detector.threshold_
    assert about["input"] == {"height": HEIGHT, "width": WIDTH}
    assert tuple(about["resized"].values()) == RESIZED[detector.detector]
    assert about["parameters"]["detector"] == detector.detector
    assert about["sight"] == asdict(detector.sight_)
    assert (
        about["origin"]["weights"]["name"] == "random"
        and len(about["origin"]["weights"]["sha256"]) == 64
    )
    assert set(about["exported_by"]) == {"texad", "torch", "onnx", "onnxscript"}
    content = exported.read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(images, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "steel.safetensors"
    AnomalyDetector(weights="random", image_size=64, progress=False).fit(images[-8:]).save(file)
    return file


def test_the_command_says_that_the_map_is_in_pixels(saved, tmp_path, capsys):
    file, size = tmp_path / "steel.onnx", ["--size", "80", "96", "--map", "pixels"]
    assert main(["export", str(saved), "--out", str(file), *size]) == 0
    assert "anomaly_map: float32, (N, 80, 96)" in capsys.readouterr().out
    assert run(file, np.zeros((2, 80, 96, 3), dtype=np.uint8))[2].shape == (2, 80, 96)


def test_without_a_size_images_are_as_large_as_those_for_training(saved, images, capsys):
    assert main(["export", str(saved)]) == 0
    said = capsys.readouterr().out
    assert f"(N, {HEIGHT}, {WIDTH}, 3), RGB; resized in it to 64 × 64\n" in said
    assert "anomaly_map: float32, (N, 4, 4)" in said
    expected = AnomalyDetector.load(saved, progress=False).score_samples(images[:1])
    pixels = np.array(Image.open(images[0]))[None]
    np.testing.assert_allclose(run(saved.with_suffix(".onnx"), pixels)[0], expected, rtol=1e-4)


def test_without_a_size_that_could_stand_for_it_one_is_asked_for(saved, tmp_path, capsys):
    detector = AnomalyDetector.load(saved, progress=False)
    detector.origin_["image_size"] = None  # of images of several sizes
    detector.save(tmp_path / "various.safetensors")
    assert main(["export", str(tmp_path / "various.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "--size HEIGHT WIDTH is needed" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--size", "0", "64"], "--size: height and width must be at least 1, not 0 and 64"),
        (["--size", "64", "90000"], "--size: 90000 pixels are too many"),
        (["--out", "steel.png"], "--out: a file that ends in .onnx"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(saved, capsys, arguments, expected):
    assert main(["export", str(saved), *arguments]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_a_check_compares_the_file_with_the_detector(saved, images, tmp_path, capsys, monkeypatch):
    (tmp_path / "torn.png").write_bytes(b"no image")
    Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    given = ["export", str(saved), "--out", str(tmp_path / "steel.onnx"), "--quiet", "--check"]
    folder = str(images[0].parent)
    assert main([*given, folder, str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"on {len(list(images[0].parent.iterdir()))} images: the score differs by" in said
    assert "Decisions that differ: 0 Not compared: 2: " in said
    assert "small.png has 30 × 20 pixels" in said and "torn.png cannot be read" in said
    assert main([*given, str(tmp_path)]) == 2
    assert "no image of 75 × 49 pixels to compare" in capsys.readouterr().err

    class Broken:
        def __init__(self, file, providers):
            self.session = onnxruntime.InferenceSession(file, providers=providers)

        def run(self, names, given):
            score, anomalous, anomaly_map = self.session.run(names, given)
            return score + 1, ~anomalous, anomaly_map + 2

    broken = SimpleNamespace(InferenceSession=Broken, __version__="0", __spec__=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", broken)
    assert main([*given, folder, "--map", "pixels"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "the score differs by 1 at most" in said and "the anomaly map by 2 at most" in said
    assert f"Decisions that differ: {len(list(images[0].parent.iterdir()))}: {folder}" in said


def test_a_file_that_is_no_detector_is_named(tmp_path, capsys):
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    assert main(["export", str(tmp_path / "other.safetensors")]) == 2
    assert (
        f"texad: {tmp_path / 'other.safetensors'} is no detector of texad"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_without_onnx_the_way_to_get_it_is_shown(saved, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert main(["export", str(saved), "--out", str(tmp_path / "steel.onnx")]) == 2
    assert (
        capsys.readouterr().err
        == f"texad: an ONNX file needs the package {name}: pip install 'texad[export]'\n"
    )
    assert not list(tmp_path.iterdir())
