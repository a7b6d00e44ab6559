import numpy as np
import pytest
from conftest import needs_shared

from texad import pipeline
from texad.data import datasets, groups
from texad.evaluation import near_copies as rule
from texad.evaluation.near_copies import near_copies
from texad.model import weights


def surfaces(n: int, seed: int = 0) -> np.ndarray:
    """Features of independent images, with what they share and with a light of their own."""
    rng = np.random.default_rng(seed)
    shared, light = rng.normal(size=(1, 16, 7, 7)), rng.normal(size=(n, 16, 1, 1))
    return (rng.normal(size=(n, 16, 7, 7)) + 3 * shared + 3 * light).astype(np.float32)


def names(n: int) -> list[str]:
    return [f"{i}.png" for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 20, 300])
def test_independent_images_are_no_near_copies(n):
    found = near_copies([surfaces(n)], names(n))
    assert found.n == 0 and found.pairs == [] and not found.many


def test_exposures_of_a_piece_are_found_across_the_splits():
    train, calibration = np.split(surfaces(25), [20])
    noise = np.random.default_rng(1).normal(size=(3, 16, 7, 7))
    calibration[:3] = train[[2, 4, 6]] + 1 + 0.3 * noise
    found = near_copies([train, calibration], names(25))
    assert found.many and (found.n, found.n_compared) == (6, 25)
    assert {*found.pairs} < {("2.png", "20.png"), ("4.png", "21.png"), ("6.png", "22.png")}
    assert len(found.pairs) == 2  # no image twice


def test_one_pair_among_many_images_is_a_coincidence():
    features = surfaces(100)
    features[7] = features[3]
    found = near_copies([features], names(100))
    assert found.pairs == [("3.png", "7.png")] and found.n == 2 and not found.many


def test_of_many_images_some_are_compared_with_all(monkeypatch):
    monkeypatch.setattr(rule, "MOST", 10)
    features = surfaces(40)
    features[20:] = features[:20] + 0.1 * surfaces(20, seed=1)
    found = near_copies([features[:33], features[33:]], names(40))
    assert found.many and (found.n, found.n_compared) == (10, 10)
    assert all(int(b[:-4]) - int(a[:-4]) == 20 for a, b in found.pairs)


def test_features_without_any_pattern_are_no_near_copies():
    assert near_copies([np.ones((9, 4, 1, 1), np.float32)], names(9)).n == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("category", "one_of_each_group", "many"),
    [
        ("magnetic_tile", False, True),
        ("magnetic_tile", True, False),
        ("elpv_poly_blocks", False, True),
        ("piped_flr02_tl", False, False),
    ],
)
def test_real_surfaces_in_groups(category, one_of_each_group, many, tmp_path):
    root = needs_shared(f"data/{category}")
    data = datasets.load_category(root.parent, root.name)
    images = [sample.path for sample in data.train]
    group_of = dict(zip(images, groups.groups(images, data.root), strict=True))
    images = sorted(images, key=lambda path: group_of[path])[:120]
    if one_of_each_group:
        images = [*{group_of[path]: path for path in group_of}.values()]
    loaded = weights.load(str(needs_shared("weights/resnet50_imagenet_layer3.safetensors")))
    backbone = pipeline.make_backbone(loaded, images, progress=False)
    features = pipeline.extract(backbone, {"train": images}, tmp_path, progress=False)["train"]
    assert near_copies([features], [*map(str, images)]).many == many
