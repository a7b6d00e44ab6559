import dataclasses

import numpy as np
import pytest
import torch
from conftest import needs_shared
from helpers import slim_weights
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet50

from texad.model import backbone as backbone_module
from texad.model import extraction, onednn, preprocessing, weights
from texad.model.backbone import (
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    load_backbone,
    n_channels,
    save_backbone,
)
from texad.model.preprocessing import Sight


@pytest.fixture(scope="module")
def loaded():
    return weights.untrained(0, shortcuts=False)  # every convolution counts


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    return files


def torchvisions_own(state_dict, x, width=64):
    whole = resnet50(weights=None, width_per_group=width)
    whole.load_state_dict(state_dict, strict=False)
    seen = {}
    whole.layer3.register_forward_hook(lambda module, inputs, output: seen.update(layer3=output))
    with torch.inference_mode():
        whole.eval()(x)
    return seen["layer3"]


@torch.inference_mode()
def test_backbone_computes_what_torchvision_computes(loaded):
    x = torch.rand(2, 3, 224, 224)
    result = build_backbone(loaded)(x)
    assert result.shape == (2, 1024, 14, 14)
    torch.testing.assert_close(
        result,
        torchvisions_own(loaded.state_dict, x),
        rtol=1e-3,
        atol=1e-3 * float(result.abs().max()),
    )


@torch.inference_mode()
def test_a_slimmer_backbone_gives_as_many_channels_and_is_stored(tmp_path):
    slim = dataclasses.replace(slim_weights(24), stride_in_1x1=False)
    before = {name: tensor.clone() for name, tensor in slim.state_dict.items()}
    x = torch.rand(2, 3, 64, 64)
    backbone = build_backbone(slim)
    assert backbone.layer3[0].conv2.weight.shape == (96, 96, 3, 3)
    result = backbone(x)
    assert result.shape == (2, 1024, 4, 4)
    expected = torchvisions_own(slim.state_dict, x, 24)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    folded = fold_batchnorm(backbone)
    save_backbone(folded, tmp_path / "backbone.safetensors")
    assert torch.equal(load_backbone(tmp_path / "backbone.safetensors")(x), folded(x))
    # the weights are no part of the backbone, which may calibrate its own
    assert all(torch.equal(slim.state_dict[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "layer3.5.conv3.weight"])
@pytest.mark.parametrize(
    "tensor", [torch.zeros(40, 64, 1, 1), torch.zeros(()), torch.zeros(0, 64, 1, 1), None]
)
def test_tensors_of_no_one_width_are_refused_in_one_line(name, tensor):
    tensors = slim_weights(24).state_dict | {name: tensor}
    if tensor is None:
        del tensors[name]
    broken = dataclasses.replace(slim_weights(24), state_dict=tensors)
    with pytest.raises(ValueError, match=r"^weights slim.safetensors do not fit .*layer\d.*$"):
        build_backbone(broken)


def test_nothing_behind_layer3_is_there(loaded):
    assert [name for name, _ in build_backbone(loaded).named_children()][-1] == "layer3"


@torch.inference_mode()
def test_with_layer2_a_place_is_described_by_both_layers(loaded, paths, tmp_path):
    one, both = (fold_batchnorm(build_backbone(loaded, layer2=on)) for on in (False, True))
    x = preprocessing.load_images(paths, Sight(64))
    layer2 = one[:-1](x)
    assert one[:-1][-1] is one.layer2 and layer2.shape == (5, 512, 8, 8)
    maps = both(x)
    assert maps.shape == (5, n_channels(both), 4, 4) and n_channels(one) == 1024
    assert torch.equal(maps[:, :1024], one(x))
    means = layer2.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(maps[:, 1024:], means)
    save_backbone(both, tmp_path / "backbone.safetensors")
    assert torch.equal(load_backbone(tmp_path / "backbone.safetensors")(x), maps)
    F = extraction.extract(both, paths, tmp_path / "f.npy", sight=Sight(64), progress=False)
    np.testing.assert_allclose(F, maps.numpy(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_original_network_has_its_stride_in_the_first_convolution(loaded):
    original = build_backbone(dataclasses.replace(loaded, stride_in_1x1=True))
    for layer in (original.layer2, original.layer3):
        assert layer[0].conv1.stride == (2, 2) and layer[0].conv2.stride == (1, 1)
    x = torch.rand(1, 3, 64, 64)
    assert original(x).shape == (1, 1024, 4, 4)
    assert not torch.allclose(original(x), build_backbone(loaded)(x))


@torch.inference_mode()
def test_folding_changes_nothing_but_the_layers(loaded, paths):
    backbone = build_backbone(loaded)
    calibrate_batchnorm(backbone, paths, sight=Sight(64), progress=False)
    x = preprocessing.load_images(paths, Sight(64))
    before = backbone(x)
    folded = fold_batchnorm(backbone)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    torch.testing.assert_close(folded(x), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


@torch.inference_mode()
def test_calibration_gives_each_channel_mean_zero_and_variance_one(loaded, paths):
    backbone = build_backbone(loaded)
    calibrate_batchnorm(backbone, paths, sight=Sight(224), batch_size=5, progress=False)
    assert not backbone.training
    seen = {}
    backbone.layer3[5].bn3.register_forward_hook(
        lambda module, inputs, output: seen.update(output=output.clone())
    )
    backbone(preprocessing.load_images(paths, Sight(224)))
    assert seen["output"].mean(dim=(0, 2, 3)).abs().max() < 0.05
    # PyTorch normalises with the biased variance and remembers the unbiased one: n values apart by
    # n / (n - 1)
    torch.testing.assert_close(
        seen["output"].var(dim=(0, 2, 3)), torch.ones(1024), rtol=0.05, atol=0
    )


def test_of_many_images_a_few_are_enough_for_the_calibration(loaded, paths, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(backbone_module, "CALIBRATION", 3)
    monkeypatch.setattr(
        preprocessing,
        "load_images",
        lambda paths, *options: asked.extend(paths) or torch.rand(3, 3, 32, 32),
    )
    calibrate_batchnorm(build_backbone(loaded), paths, sight=Sight(32), progress=False)
    assert asked == [paths[0], paths[2], paths[4]]


def test_extracted_features_are_the_backbones_and_lie_on_disk(loaded, paths, tmp_path):
    backbone = build_backbone(loaded)
    result = extraction.extract(
        backbone, paths, tmp_path / "f" / "train.npy", sight=Sight(64), batch_size=2, progress=False
    )
    assert (
        isinstance(result, np.memmap)
        and result.shape == (5, 1024, 4, 4)
        and result.dtype == np.float32
    )
    with torch.inference_mode():
        expected = backbone(preprocessing.load_images(paths, Sight(64))).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert [file.name for file in (tmp_path / "f").iterdir()] == ["train.npy"]


@torch.inference_mode()
def test_a_backbone_normalizes_by_itself_and_so_does_the_stored_one(loaded, paths, tmp_path):
    plain, normalizing = (fold_batchnorm(build_backbone(loaded, on)) for on in (False, True))
    images = preprocessing.load_images(paths, Sight(32))
    expected = plain(preprocessing.Normalize()(images))
    assert torch.equal(normalizing(images), expected)
    assert not torch.allclose(plain(images), expected)
    assert plain.state_dict().keys() == normalizing.state_dict().keys()
    save_backbone(normalizing, tmp_path / "backbone.safetensors")
    again = load_backbone(tmp_path / "backbone.safetensors")
    assert [name for name, _ in again.named_children()][:2] == ["normalize", "conv1"]
    assert torch.equal(again(images), expected)


def test_an_unreadable_image_leaves_no_half_file(loaded, paths, tmp_path):
    paths[3].write_text("no image")
    with pytest.raises(ValueError, match=paths[3].name):
        extraction.extract(
            build_backbone(loaded),
            paths,
            tmp_path / "f" / "x.npy",
            sight=Sight(32),
            progress=False,
        )
    assert not list((tmp_path / "f").iterdir())


def test_features_that_are_not_finite_are_refused(loaded, paths, tmp_path):
    backbone = build_backbone(loaded)
    with torch.no_grad():
        backbone.layer3[5].bn3.bias.fill_(torch.inf)
    with pytest.raises(ValueError, match="not finite"):
        extraction.extract(backbone, paths, tmp_path / "x.npy", sight=Sight(32), progress=False)


def test_no_images_give_an_empty_file_that_loads(loaded, tmp_path):
    result = extraction.extract(
        build_backbone(loaded),
        [],
        tmp_path / "calibration.npy",
        sight=Sight(64),
        progress=False,
    )
    assert (
        result.shape == extraction.load(tmp_path / "calibration.npy").shape == (0, 1024, 4, 4)
        and result.dtype == np.float32
    )


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_saved_backbone_gives_the_same_features_to_the_last_bit(
    loaded, paths, tmp_path, stride_in_1x1
):
    backbone = build_backbone(dataclasses.replace(loaded, stride_in_1x1=stride_in_1x1))
    calibrate_batchnorm(backbone, paths, sight=Sight(64), progress=False)
    folded = fold_batchnorm(backbone)
    save_backbone(folded, tmp_path / "b" / "backbone.safetensors")
    again = load_backbone(tmp_path / "b" / "backbone.safetensors")
    x = preprocessing.load_images(paths, Sight(64))
    with torch.inference_mode():
        assert torch.equal(again(x), folded(x)) and folded(x).std() > 0
    assert not again.training and not any(
        parameter.requires_grad for parameter in again.parameters()
    )
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["backbone.safetensors"]


def test_a_backbone_with_batchnorm_is_not_saved(loaded, tmp_path):
    with pytest.raises(ValueError, match="fold_batchnorm"):
        save_backbone(build_backbone(loaded), tmp_path / "backbone.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_is_no_saved_backbone_is_named(loaded, tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file(
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        tmp_path / "few.safetensors",
        {"stride_in_1x1": "false"},
    )
    save_file(loaded.state_dict, tmp_path / "weights.safetensors")  # of a network, but not folded
    for name in ("text", "few", "weights", "absent"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is no backbone of texad"):
            load_backbone(tmp_path / f"{name}.safetensors")


def test_weights_of_another_shape_are_refused(loaded):
    broken = loaded.state_dict | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(ValueError, match="conv1.weight"):
        build_backbone(dataclasses.replace(loaded, state_dict=broken))


def test_real_weights_tell_a_real_defect_from_a_good_surface(tmp_path):
    root = needs_shared("data/magnetic_tile")
    backbone = build_backbone(
        weights.load(needs_shared("weights/resnet50_imagenet_layer3.safetensors"))
    )
    chosen = sorted((root / "train" / "good").iterdir())[:4]
    result = extraction.extract(backbone, chosen, tmp_path / "x.npy", progress=False)
    # the mean activation that these weights give on these images; it is off by half where the
    # stride is misplaced
    assert result.shape == (4, 1024, 14, 14) and (result >= 0).all() and 0.2 < result.mean() < 0.8


# -- fused convolutions ----------------------------------------------------------------------------


def test_fused_blocks_give_what_the_plain_ones_do_with_a_gradient_or_without(loaded):
    """Without gradients oneDNN's fused call runs, with them torch's plain ones."""
    folded = fold_batchnorm(build_backbone(loaded))
    x = torch.rand(2, 3, 64, 64)
    plain = folded(x.requires_grad_())
    with torch.inference_mode():
        fused = folded(x.detach())
    assert plain.requires_grad and torch.isfinite(plain).all() and plain.std() > 0
    torch.testing.assert_close(
        fused, plain.detach(), rtol=1e-3, atol=1e-5 * float(plain.detach().abs().max())
    )


def missing(*args):
    raise AttributeError("this torch has no such call")


@pytest.mark.parametrize(
    "broken",
    [
        (torch._C._nn, "mkldnn_reorder_conv2d_weight", missing),
        (torch.ops.mkldnn, "_convolution_pointwise", missing),
        (torch.ops.mkldnn, "_convolution_pointwise", lambda x, *rest: torch.zeros_like(x)),
    ],
)
def test_where_fused_calls_are_missing_or_wrong_the_plain_ones_are_used(
    loaded, monkeypatch, broken
):
    folded = fold_batchnorm(build_backbone(loaded))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        right = folded(x)
        assert onednn.fused_calls_work() == onednn.has_onednn(x)
        monkeypatch.setattr(*broken)
        onednn.fused_calls_work.cache_clear()
        try:
            assert not onednn.fused_calls_work()
            plain = folded(x)
        finally:
            onednn.fused_calls_work.cache_clear()
    torch.testing.assert_close(plain, right, rtol=1e-3, atol=1e-5 * float(right.abs().max()))


@torch.inference_mode()
def test_fused_blocks_leave_alone_what_others_may_want_to_see(loaded):
    """The outputs of layer1 and layer2, which chapter 7 looks at, are not those that a block
    overwrites.
    """
    folded = fold_batchnorm(build_backbone(loaded))
    x = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    seen, kept = {}, {"x": (x, x.clone())}
    for name in ("layer1", "layer2"):
        folded.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: kept.update({name: (output, output.clone())})
        )
    seen["first"], seen["again"] = folded(x), folded(x)
    assert all(torch.equal(now, before) for now, before in kept.values()) and len(kept) == 3
    assert torch.equal(seen["first"], seen["again"])


@torch.inference_mode()
def test_weights_that_are_loaded_after_a_first_use_are_used(loaded):
    folded = fold_batchnorm(build_backbone(loaded))
    x = torch.rand(1, 3, 64, 64)
    before = folded(x)
    folded.load_state_dict({name: 2 * tensor for name, tensor in folded.state_dict().items()})
    assert not torch.allclose(folded(x), before)


def test_features_do_not_depend_on_batches_or_threads(loaded, paths, tmp_path):
    folded = fold_batchnorm(build_backbone(loaded))
    cores, results = torch.get_num_threads(), []
    try:
        for threads, batch_size in ((1, 4), (2, 4), (3, 4), (2, 1)):
            torch.set_num_threads(threads)
            results.append(
                extraction.extract(
                    folded,
                    paths,
                    tmp_path / "f.npy",
                    sight=Sight(64),
                    batch_size=batch_size,
                    progress=False,
                ).copy()
            )
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(cores)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    np.testing.assert_allclose(
        results[3], results[0], rtol=1e-3, atol=1e-5 * np.abs(results[0]).max()
    )


# -- many items, few results -----------------------------------------------------------------------


def test_results_come_in_order_and_only_a_few_ahead():
    started = []
    results = extraction.in_order(lambda i: started.append(i) or i * i, range(100))
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    waiting = (
        2 * torch.get_num_threads() + 2
    )  # in the queue, and one more that waits for room in it
    assert len(started) <= 10 + waiting + 1
    assert [*results] == [i * i for i in range(10, 100)]


def test_an_error_comes_in_its_turn_and_ends_the_rest():
    started = []

    def fail_at_5(i):
        started.append(i)
        if i == 5:
            raise ValueError("five")
        return i

    got = []
    with pytest.raises(ValueError, match="five"):
        got.extend(extraction.in_order(fail_at_5, range(1000)))
    assert len(started) <= 5 + 2 * torch.get_num_threads() + 2


def test_a_large_image_in_strips_has_the_same_maps(loaded, monkeypatch):
    backbone = backbone_module.fold_batchnorm(backbone_module.build_backbone(loaded))
    images = torch.rand(2, 3, 720, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = backbone_module.feature_maps(backbone, images)
        monkeypatch.setattr(backbone_module, "LARGE", 48 * 700)
        monkeypatch.setattr(backbone_module, "STRIP", 192)  # four, the last one shorter
        strips = backbone_module.feature_maps(backbone, images)
        monkeypatch.setattr(backbone_module, "MARGIN", 32)  # less than a place sees
        torn = backbone_module.feature_maps(backbone, images)
    assert whole.shape == strips.shape == (2, 1024, 45, 3)
    near = 1e-5 * whole.abs().max()
    assert (whole - strips).abs().max() < near < (whole - torn).abs().max()
