"""Where places look: measured by another experiment than the package's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import needs_shared
from torch.nn import functional

from texad import pipeline
from texad.io.tensors import read_tensors
from texad.model import backbone, preprocessing, weights
from texad.model.places import Grid, enlarge, enlarge_each, measure
from texad.model.preprocessing import Sight

SHARED_WEIGHTS = "weights/resnet50_imagenet_layer3.safetensors"


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))


# -- measure ---------------------------------------------------------------------------------------


def test_the_centre_of_a_shifted_grid_is_found(noise):
    def network(x):  # the squares begin 3 rows above the image and 1 column to its left
        return functional.avg_pool2d(functional.pad(x, (1, -1, 3, -3)), 8)

    found = measure(network, noise)
    assert found.stride == 8
    np.testing.assert_allclose(found.centre, (3.5 - 3, 3.5 - 1), atol=0.6)


def test_several_layers_brought_to_one_size_have_one_centre(noise):
    def network(x):
        fine, coarse = functional.avg_pool2d(x, 4), functional.avg_pool2d(x, 8)
        return torch.cat([fine, functional.interpolate(coarse, fine.shape[2:])], dim=1)

    found = measure(network, noise)
    assert found.stride == 4
    np.testing.assert_allclose(found.centre, (1.5, 1.5), atol=0.5)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 64), (16, 128)])
def test_small_images_have_a_centre_too(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    down, across = measure(torch.nn.AvgPool2d(16), images).centre
    assert 5 < down < 10 and 5 < across < 10


def test_where_nothing_changes_the_centre_is_that_of_the_convolutions():
    grey = torch.full((1, 3, 64, 64), 0.5)  # and inverted it is the same
    assert measure(torch.nn.AvgPool2d(8), grey) == Grid(8, (0, 0))


def test_maps_of_other_proportions_are_refused(noise):
    with pytest.raises(ValueError, match="12 × 8 places .* images of 96 × 128 pixels"):
        measure(torch.nn.AvgPool2d((8, 16)), noise)


def test_the_centre_depends_on_the_seed_alone(noise):
    kernel = torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))

    def network(x):
        return functional.conv2d(x, kernel, stride=4, padding=2).relu()

    threads, drawn = torch.get_num_threads(), torch.get_rng_state()
    try:
        found = set()
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.add(measure(network, noise, seed=5))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1 and torch.equal(torch.get_rng_state(), drawn)


# -- the physical test -----------------------------------------------------------------------------


@torch.inference_mode()
def mean_offset(network, images, grid, n) -> np.ndarray:
    """How far the changed places lie, on average, from where the grid has them, in pixels."""
    rng = np.random.default_rng(12345)
    height, width = images.shape[2:]
    plain = [network(image[None]) for image in images]
    offsets = []
    for k in range(n):
        # every distance from a place comes equally often
        y = 48 + 16 * int(rng.integers((height - 96) // 16)) + 5 * k % 16
        x = 48 + 16 * int(rng.integers((width - 96) // 16)) + (7 * k + k // 16) % 16
        changed = images[k % len(images)][None].clone()
        changed[..., y - 3 : y + 4, x - 3 : x + 4] *= -1
        changed[..., y - 3 : y + 4, x - 3 : x + 4] += 1
        energy = np.square((network(changed) - plain[k % len(images)]).numpy()[0]).sum(axis=0)
        rows, columns = np.indices(energy.shape)
        seen = [np.average(axis, weights=energy) for axis in (rows, columns)]
        offsets.append(np.array((y, x)) - grid.stride * np.array(seen) - grid.centre)
    return np.mean(offsets, axis=0)


def test_random_places_look_where_they_were_measured_to():
    made = backbone.build_backbone(weights.untrained(0))
    images = torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        made.train()(images)  # as calibrate_batchnorm does
    made = backbone.locate_places(backbone.fold_batchnorm(made.eval()))
    grid = backbone.grid(made)
    assert grid.stride == 16 and np.abs(grid.centre).max() < 1
    assert np.abs(mean_offset(made, images, grid, 16)).max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (320, 320), (224, 320)])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("name", ["random", "imagenet"])
def test_places_look_where_they_were_measured_to(name, stride_in_1x1, size):
    photographs = sorted(needs_shared("data/magnetic_tile/train/good").iterdir())
    loaded = weights.load("random" if name == "random" else needs_shared(SHARED_WEIGHTS))
    loaded = replace(loaded, stride_in_1x1=stride_in_1x1)
    made = pipeline.make_backbone(
        loaded, photographs[::10], sight=Sight(max(size)), progress=False
    ).cpu()
    grid = backbone.grid(made)
    if size[0] != size[1]:
        images = preprocessing.load_images(photographs[:80:10], Sight(max(size)))
        grid = measure(made, images[:, :, : size[0]])
    others = preprocessing.load_images(photographs[5:165:10], Sight(max(size)))[:, :, : size[0]]
    assert np.abs(mean_offset(made, others, grid, 128)).max() < 1


# -- enlarge ---------------------------------------------------------------------------------------


def test_the_peak_lies_on_the_centre_of_its_place():
    maps = np.zeros((1, 4, 6), dtype=np.float32)
    maps[0, 2, 4] = 1
    (large,) = enlarge(maps, Grid(16, (5, -3)), (64, 96))
    assert large.shape == (64, 96) and large.dtype == np.float32
    assert np.argwhere(large == 1).tolist() == [[2 * 16 + 5, 4 * 16 - 3]]


def test_ramps_are_kept_between_the_outermost_centres_and_held_beyond():
    rows, columns = np.indices((5, 4))
    ramp = (3 * rows - 2 * columns + 7).astype(np.float32)
    (large,) = enlarge(ramp[None], Grid(8, (2, 6)), (40, 32))
    y, x = np.indices((40, 32))
    wanted = 3 * np.clip((y - 2) / 8, 0, 4) - 2 * np.clip((x - 6) / 8, 0, 3) + 7
    np.testing.assert_allclose(large, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [(7, 31), (16, 16), (64, 48), (129, 200)])
def test_squares_of_pixels_are_enlarged_as_torch_does_it(size):
    maps = np.random.default_rng(0).random((3, 4, 3), dtype=np.float32)
    wanted = functional.interpolate(torch.tensor(maps)[None], size, mode="bilinear")[0].numpy()
    found = enlarge(maps, Grid(8, (3.5, 3.5)), (32, 24), size)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_picture_of_another_size_shows_the_same_place_of_the_surface():
    maps = np.zeros((1, 14, 14), dtype=np.float32)
    maps[0, 3, 9] = 1
    for height, width in ((224, 224), (1000, 300), (160, 641)):
        (large,) = enlarge(maps, Grid(16, (5, 6)), 224, (height, width))
        peak = np.array(np.unravel_index(large.argmax(), large.shape))
        seen = (peak + 0.5) * 224 / (height, width) - 0.5
        assert np.abs(seen - (3 * 16 + 5, 9 * 16 + 6)).max() <= 0.75


def test_one_map_after_the_other_gives_the_same():
    maps = np.random.default_rng(0).random((7, 4, 4), dtype=np.float32)
    each = list(enlarge_each(maps, Grid(16, (1, 2)), [64] * 7, (8, 12)))
    np.testing.assert_allclose(each, enlarge(maps, Grid(16, (1, 2)), 64, (8, 12)), rtol=1e-6)


# -- kept with the backbone ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def located() -> torch.nn.Sequential:
    made = backbone.fold_batchnorm(backbone.build_backbone(weights.untrained(0)))
    made.register_buffer("centre", torch.tensor((5.1, -0.3), dtype=torch.float64))
    return made


def test_the_centre_is_kept_to_the_last_digit_and_said_in_the_file(located, tmp_path):
    backbone.save_backbone(located, tmp_path / "b.safetensors")
    again = backbone.load_backbone(tmp_path / "b.safetensors")
    assert backbone.grid(again) == Grid(16, (5.1, -0.3))
    assert read_tensors(tmp_path / "b.safetensors")[1]["centre"] == "[5.1, -0.3]"


def test_a_backbone_without_a_centre_gets_one_when_it_is_read(located):
    tensors = {key: value for key, value in located.state_dict().items() if key != "centre"}
    read = backbone.folded_backbone(tensors, False)
    assert np.abs(backbone.grid(read).centre).max() < 1 and read.centre.device.type == "cpu"


@pytest.mark.parametrize("centre", [[np.nan, 0.0], [0.0, np.inf], [1.0], [1.0, 2.0, 3.0]])
def test_a_centre_that_is_none_is_refused(located, centre):
    tensors = located.state_dict() | {"centre": torch.tensor(centre, dtype=torch.float64)}
    with pytest.raises((ValueError, RuntimeError), match="centre"):
        backbone.folded_backbone(tensors, False)
