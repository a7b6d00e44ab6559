import hashlib
import http.server
import threading
import time
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import needs_shared
from helpers import slim_weights
from safetensors.torch import save_file
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torchvision.models import ResNet50_Weights, resnet50

from pretraining import pack
from texad.io import download as downloads
from texad.io.atomic import sha256
from texad.io.tensors import read_tensors
from texad.model import extraction, weights
from texad.model.backbone import build_backbone, fold_batchnorm


@pytest.fixture(scope="module")
def state_dict():
    torch.manual_seed(3)
    return resnet50(weights=None).state_dict()


@pytest.fixture(scope="module")
def slim():
    torch.manual_seed(3)
    return resnet50(weights=None, width_per_group=4)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """An empty download cache, and no environment variable."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(
        downloads, "SCHEMES", ("http",)
    )  # the server of these tests has no certificate
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def no_network(no_cache, monkeypatch):
    monkeypatch.setattr(
        type(ResNet50_Weights.IMAGENET1K_V1),
        "url",
        "http://127.0.0.1:9/resnet50-00000000.pth",
        raising=False,
    )
    return no_cache


@pytest.fixture
def server(no_cache, state_dict, tmp_path, monkeypatch):
    """A server on this machine that has the weights, as torchvision's has: the start of the hash
    stands in the name.
    """
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(state_dict, folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    file = (folder / "weights.pth").rename(folder / f"resnet50-{digest[:8]}.pth")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/{file.name}"
        monkeypatch.setattr(type(ResNet50_Weights.IMAGENET1K_V1), "url", url, raising=False)
        monkeypatch.setattr(weights, "IMAGENET_SHA256", digest)
        yield file
        running.shutdown()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_gives_the_tensors_up_to_layer3(tmp_path, state_dict, suffix, whole):
    content = (
        state_dict
        if whole
        else {n: t for n, t in state_dict.items() if not n.startswith(("layer4", "fc"))}
    )
    file = tmp_path / f"mine{suffix}"
    save_file(content, file) if suffix == ".safetensors" else torch.save(content, file)
    loaded = weights.load(file)
    assert loaded.name == file.name and not loaded.is_random and not loaded.stride_in_1x1
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {name.split(".")[0] for name in loaded.state_dict} == {
        "conv1",
        "bn1",
        "layer1",
        "layer2",
        "layer3",
    }
    assert torch.equal(
        loaded.state_dict["layer3.5.conv3.weight"], state_dict["layer3.5.conv3.weight"]
    )


def test_metadata_says_where_the_stride_is(tmp_path, state_dict):
    save_file(state_dict, tmp_path / "original.safetensors", {"stride_in_1x1": "true"})
    assert weights.load(tmp_path / "original.safetensors").stride_in_1x1


def test_random_weights_come_with_a_warning_and_depend_on_the_seed_alone():
    with pytest.warns(weights.RandomWeightsWarning, match="RANDOM WEIGHTS"):
        first, second, other = (weights.load("random", seed) for seed in (1, 1, 2))
    assert first.is_random and first.sha256 == second.sha256 != other.sha256
    assert torch.equal(first.state_dict["conv1.weight"], second.state_dict["conv1.weight"])


def test_auto_takes_the_environment_variable(tmp_path, state_dict, monkeypatch):
    save_file(state_dict, tmp_path / "mine.safetensors")
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(tmp_path / "mine.safetensors"))
    assert weights.resolve("auto") == str(tmp_path / "mine.safetensors")


@torch.inference_mode()
def test_blocks_of_untrained_weights_begin_as_shortcuts():
    """What a place is described by lies within 11 pixels: a filter of 7, then the largest of 3 that
    are 2 pixels apart; the rest only skips places.
    """
    for shortcuts in (True, False):
        backbone = build_backbone(weights.untrained(0, shortcuts))
        x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        changed = x.clone()
        changed[:, :, 56:] = 0
        difference = (
            (backbone(changed) - backbone(x)).abs().amax((0, 1, 3))
        )  # of each row of places, 16 pixels apart
        assert difference[-2:].min() > 0
        assert (difference[:4].max() == 0) == shortcuts
    assert (
        weights.load("random", 0).sha256
        == weights.untrained(0).sha256
        != weights.untrained(0, shortcuts=False).sha256
    )


def test_auto_without_network_takes_those_of_the_package(no_network, recwarn):
    start = time.monotonic()
    assert weights.resolve("auto") == "texad" and not recwarn
    assert time.monotonic() - start < 4 * weights.TIMEOUT_S


def test_the_package_has_weights_that_say_how_they_were_made(no_network):
    loaded = weights.load("texad")
    assert loaded.name == "texad" and loaded.sha256 == sha256(weights.PACKAGED)
    assert build_backbone(loaded)(torch.rand(1, 3, 64, 64)).shape == (1, 1024, 4, 4)
    facts = read_tensors(weights.PACKAGED)[1]
    assert all(facts[name] for name in pack.FACTS)
    assert facts["teacher_sha256"] == weights.TEACHER_SHA256
    assert weights.PACKAGED.stat().st_size < 9e6
    notice = weights.PACKAGED.with_name("texad_weights_LICENSE.txt").read_text()
    assert "MIT License" in notice and "Shaoqing Ren" in notice


def test_auto_with_a_cached_file_asks_no_network(no_network):
    no_network.mkdir(parents=True)
    (no_network / "resnet50-00000000.pth").touch()
    assert weights.resolve("auto") == "imagenet"


def test_imagenet_is_downloaded_and_its_hash_checked(server, state_dict):
    assert weights.resolve("auto") == "imagenet"
    loaded = weights.load("imagenet")
    assert (
        loaded.name == "imagenet"
        and loaded.sha256 == hashlib.sha256(server.read_bytes()).hexdigest()
    )
    assert torch.equal(loaded.state_dict["conv1.weight"], state_dict["conv1.weight"])


def test_a_download_with_the_wrong_hash_is_refused(server, no_cache):
    server.write_bytes(server.read_bytes()[:-1] + b"?")
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        weights.load("imagenet")
    assert not list(no_cache.iterdir())


def test_a_cached_file_that_is_another_is_not_used(no_network):
    no_network.mkdir(parents=True)
    (no_network / "resnet50-00000000.pth").write_bytes(b"short")
    with pytest.raises(
        ValueError, match="00000000.pth is not the one of http.*delete it to have it downloaded"
    ):
        weights.load("imagenet")


def test_imagenet_without_network_says_where_to_put_the_file(no_network):
    with pytest.raises(ConnectionError, match=f"put http.* at {no_network}"):
        weights.load("imagenet")


def test_a_name_that_is_misspelt_gets_the_right_one():
    with pytest.raises(ValueError, match="did you mean 'imagenet'"):
        weights.check("imagnet")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        weights.check(tmp_path / "nowhere.pth")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A slimmer network in a file as the package ships one."""
    facts = dict.fromkeys(pack.FACTS, "known") | {"stride_in_1x1": "true"}
    del facts["commit"]
    save_file(slim_weights().state_dict, tmp_path / "student.safetensors", facts)
    files = [str(tmp_path / name) for name in ("student.safetensors", "packed.safetensors")]
    monkeypatch.setattr("sys.argv", ["pack.py", *files])
    assert pack.main() == 2 and not (tmp_path / "packed.safetensors").exists()
    monkeypatch.setattr("sys.argv", ["pack.py", *files, "--fact", "commit=1234"])
    assert pack.main() == 0
    return tmp_path / "packed.safetensors"


@torch.inference_mode()
def test_a_packed_file_gives_nearly_the_same_features_at_a_third_of_the_size(packed):
    whole = packed.with_name("student.safetensors")
    assert packed.stat().st_size < 0.35 * whole.stat().st_size
    loaded = weights.load(packed)
    assert loaded.stride_in_1x1 and loaded.state_dict["layer3.0.conv1.weight"].is_floating_point()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    right, rounded = (build_backbone(weights.load(file))(x) for file in (whole, packed))
    assert 0 < (rounded - right).norm() < 0.02 * right.norm()


@pytest.mark.slow
def test_a_packed_student_scores_real_images_as_the_whole_one_does(tmp_path):
    """By what 32 principal components of good images leave of the others."""
    student = needs_shared("distil/half_width.safetensors")
    root = needs_shared("data/magnetic_tile")
    files = [
        sorted(root.glob(f"{split}/*/*"))[::step] for split, step in (("train", 40), ("test", 8))
    ]
    tensors, facts = read_tensors(student)
    save_file(pack.pack(tensors), tmp_path / "packed.safetensors", facts | {"packed": "true"})
    scores = []
    for file in (student, tmp_path / "packed.safetensors"):
        backbone = fold_batchnorm(build_backbone(weights.load(file)))
        train, test = (
            extraction.extract(backbone, paths, tmp_path / "f.npy", progress=False)
            .transpose(0, 2, 3, 1)
            .reshape(-1, 1024)
            for paths in files
        )
        pca = PCA(32, random_state=0).fit(train)
        rest = test - pca.inverse_transform(pca.transform(test))
        errors = np.sort(np.square(rest).mean(axis=1).reshape(len(files[1]), -1))
        scores.append(errors[:, -10:].mean(axis=1))
    assert spearmanr(*scores).statistic > 0.999
    good = [path.parent.name == "good" for path in files[1]]
    whole, packed = (roc_auc_score(good, -each) for each in scores)
    assert abs(whole - packed) < 0.01 and whole > 0.7


def test_a_packed_file_says_where_it_comes_from(packed):
    facts = read_tensors(packed)[1]
    student = hashlib.sha256(packed.with_name("student.safetensors").read_bytes()).hexdigest()
    assert facts["commit"] == "1234" and facts["student_sha256"] == student
    assert {*pack.FACTS} <= {*facts}


@pytest.mark.parametrize(
    "name, wrapped",
    {
        "data_parallel.pth": lambda own: {f"module.{name}": each for name, each in own.items()},
        "checkpoint.pth": lambda own: {
            "epoch": 3,
            "args": Namespace(lr=0.1),
            "state_dict": {f"module.{name}": each for name, each in own.items()},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        },
        "lightning.ckpt": lambda own: {
            "pytorch-lightning_version": "2.5",
            "state_dict": {f"model.{name}": each for name, each in own.items()}
            | {"head.weight": torch.zeros(2)},
            "hyper_parameters": {"lr": 0.1},
        },
        "deep.pt": lambda own: {"model": {"backbone": {f"net.{n}": t for n, t in own.items()}}},
    }.items(),
)
def test_a_checkpoint_of_a_resnet50_is_one(tmp_path, slim, name, wrapped):
    state_dict = slim.state_dict()
    torch.save(wrapped(state_dict), tmp_path / name)
    loaded = weights.load(tmp_path / name).state_dict
    assert "conv1.weight" in loaded and "layer4.0.conv1.weight" not in loaded
    assert all(torch.equal(each, state_dict[name]) for name, each in loaded.items())
    build_backbone(weights.load(tmp_path / name))


@pytest.mark.filterwarnings("error::UserWarning")
def test_whole_models_and_several_networks_are_refused_in_one_line_of_ours(tmp_path, slim):
    torch.save(slim, tmp_path / "whole.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "script.pth"))
    both = {"student": slim.state_dict(), "teacher": slim.state_dict()}
    torch.save(both, tmp_path / "both.pth")
    reasons = {
        "whole.pth": "holds a whole model",
        "script.pth": "holds a whole model",
        "both.pth": "several networks: student.layer3.5.conv3.weight, teacher.",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=name) as caught:
            weights.load(tmp_path / name)
        message = str(caught.value)
        assert message.isprintable() and reason in message and "weights_only" not in message
        assert "save model.state_dict()" in message


def test_files_that_are_no_resnet50_are_refused(tmp_path):
    torch.save({"layer3.5.conv2.weight": torch.zeros(1), 3: "three"}, tmp_path / "mixed.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.pth").touch()
    for file in tmp_path.iterdir():
        with pytest.raises(ValueError, match=file.name):
            weights.load(file)


def test_the_real_weights_are_what_they_should_be():
    loaded = weights.load(needs_shared("weights/resnet50_imagenet_layer3.safetensors"))
    assert loaded.sha256 == "1bc9d6a52ae3a1ff19c8cc00ebd00b71bba2a955af312f4ac72d144c3f950c89"
    assert loaded.stride_in_1x1
