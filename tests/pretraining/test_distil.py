"""The recipe of the packaged weights: the same seed gives the same ones, interrupted or not."""

import csv
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(ROOT / "pretraining"))

import distil  # noqa: E402
import muon  # noqa: E402
import slimming  # noqa: E402


@pytest.fixture(scope="module")
def materials(tmp_path_factory) -> distil.Options:
    """A teacher that has learnt nothing, and a pool of noise."""
    folder = tmp_path_factory.mktemp("pretraining")
    torch.manual_seed(0)
    for name, width in (("teacher", 64), ("start", 8)):
        network = slimming.build(width)
        for block in slimming.blocks(network):
            torch.nn.init.constant_(
                block.bn3.weight, 0.2
            )  # or random maps grow from block to block
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    pool = np.random.default_rng(0).integers(0, 256, (24, 48, 48, 3), dtype=np.uint8)
    np.save(folder / "pool.npy", pool)
    return distil.Options(
        pool=str(folder / "pool.npy"),
        teacher=str(folder / "teacher.safetensors"),
        start=str(folder / "start.safetensors"),
        width=8,
        batch=4,
        sizes=[32, 48],
        held_out=4,
    )


def trained(folder, options, *until) -> tuple[list[list[str]], dict[str, torch.Tensor]]:
    """Train up to each of some steps, as after an interruption; the curve and the weights."""
    for steps in until:
        run = distil.Run(folder, options, "cpu")
        run.train(steps, every=100)
    run.write_weights()
    with open(folder / "steps.csv", newline="") as file:
        return [*csv.reader(file)], load_file(folder / "student.safetensors")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_curve_and_weights_interrupted_or_not(materials, tmp_path):
    curve, weights = trained(tmp_path / "whole", materials, 50)
    again, _ = trained(tmp_path / "again", materials, 50)
    resumed, after = trained(tmp_path / "resumed", materials, 20, 50)
    assert curve == again == resumed and len(curve) == 51
    assert weights.keys() == after.keys() and all(torch.equal(weights[k], after[k]) for k in after)
    losses = np.array([float(row[4]) for row in curve[1:]])
    assert losses[-10:].mean() < losses[:10].mean()
    other, _ = trained(tmp_path / "other", distil.Options(**vars(materials) | {"seed": 1}), 3)
    assert other[1:] != curve[1:4]


@pytest.mark.slow
def test_a_cool_down_writes_weights_and_leaves_the_checkpoint(materials, tmp_path):
    trained(tmp_path, materials, 3)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    plain = load_file(tmp_path / "student.safetensors")
    distil.Run(tmp_path, materials, "cpu").cool_down(3)
    cooled = load_file(tmp_path / "student.safetensors")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert any(not torch.equal(plain[name], cooled[name]) for name in plain)
    # ends at layer3, named as torchvision names it
    slimming.build(8, tmp_path / "student.safetensors")
    assert {name.split(".")[0] for name in cooled} == {"conv1", "bn1", "layer1", "layer2", "layer3"}


@torch.no_grad()
def slimmed(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of a slimmed bottleneck and of the one it was made from."""
    torch.manual_seed(0)
    large, small = (slimming.build(w).layer2[0] for w in (64, width))
    return slimming.slim_block(small, large, *[torch.rand(8, 256, 12, 12)] * 2)


def test_a_bottleneck_as_wide_as_its_teacher_s_gives_what_that_gives():
    torch.testing.assert_close(*slimmed(64), rtol=0, atol=0.02)


def test_a_slimmed_bottleneck_is_near_its_teacher_s_and_the_nearer_the_wider():
    slim, wide = ((given - wanted).square().mean() for given, wanted in map(slimmed, (16, 48)))
    assert wide < 0.7 * slim < 0.1 * slimmed(16)[1].var()


def test_orthogonal_keeps_the_directions_and_makes_their_strengths_alike():
    torch.manual_seed(0)
    left, strengths, right = torch.linalg.svd(torch.randn(8, 20), full_matrices=False)
    for matrix in (left @ torch.diag(strengths) @ right, right.T @ torch.diag(strengths) @ left.T):
        found = torch.linalg.svdvals(muon.orthogonal(matrix))
        assert found.min() > 0.5 and found.max() < 1.3
