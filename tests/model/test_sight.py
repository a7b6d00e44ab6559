"""Images of several sizes: their aspect ratio is kept, and what is not there never counts."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from texad import pipeline
from texad.evaluation.near_copies import near_copies
from texad.evaluation.pixel_metrics import pixel_metrics
from texad.io.images import read_image, read_size
from texad.model import autoencoder, codebook, extraction, preprocessing, registry, scoring, weights
from texad.model.backbone import grid
from texad.model.places import Grid, enlarge, extent
from texad.model.preprocessing import Sight

SIZES = [(40, 100), (100, 40), (64, 64)]  # height and width
SIGHT = Sight(64, keep_aspect=True)
SHAPES = [(48, 96), (96, 48), (64, 64)]


# -- shape -----------------------------------------------------------------------------------------


@given(st.sampled_from([64, 96, 224, 448]), st.integers(1, 9000), st.integers(1, 9000))
def test_the_shape_has_the_area_and_nearly_the_aspect_ratio(size, height, width):
    shape = Sight(size, keep_aspect=True).shape(height, width)
    assert all(side >= 16 and side % 16 == 0 for side in shape)
    assert 2 / 3 <= math.prod(shape) / size**2 <= 3 / 2
    # rounded to 16 pixels, and an image of less than a row of places is squeezed
    wanted = np.clip(size * math.sqrt(height / width), 16, size**2 / 16)
    assert abs(shape[0] - wanted) <= 8 and abs(shape[1] - size**2 / wanted) <= 8
    assert Sight(size, keep_aspect=True).shape(width, height) == shape[::-1]
    assert Sight(size).shape(height, width) == (size, size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
def test_the_size_is_that_of_the_upright_image(tmp_path, suffix, orientation):
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", **({} if suffix == "bmp" else {"exif": exif}))
    upright = read_image(tmp_path / f"a.{suffix}")
    assert read_size(tmp_path / f"a.{suffix}") == (upright.height, upright.width)


# -- through the stages ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Six images of three sizes, their backbone and their features."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (*SIZES[i % 3], 3), dtype=np.uint8)).save(path)
    backbone = pipeline.make_backbone(
        weights.load("texad"), paths, sight=SIGHT, progress=False
    ).cpu()
    features = pipeline.extract(backbone, {"train": paths}, folder, SIGHT, progress=False)
    return paths, backbone, features["train"]


@torch.inference_mode()
def test_a_smaller_map_lies_in_the_corner_and_the_rest_is_missing(mixed):
    paths, backbone, features = mixed
    assert features.shape == (6, 1024, 6, 6)
    for i, path in enumerate(paths):
        own = backbone(preprocessing.load_image(path, SIGHT)).numpy()
        rows, columns = extent(features[i])
        assert (16 * rows, 16 * columns) == SHAPES[i % 3] == SIGHT.shape_of(path)
        found = features[i][:, :rows, :columns]
        np.testing.assert_allclose(found, own[0], rtol=1e-3, atol=1e-4 * own.max())
        assert np.isnan(features[i]).sum() == features[i].size - own.size


def test_images_of_one_batch_have_one_shape(mixed):
    paths, _, _ = mixed
    with pytest.raises(ValueError, match=r"1\.png becomes 96 × 48 pixels.*0\.png 48 × 96"):
        preprocessing.load_images(paths[:2], SIGHT)
    sorted_paths = [paths[i] for i in (0, 3, 1, 4, 2)]
    batches = preprocessing.image_batches(sorted_paths, SIGHT)
    assert [tuple(batch.shape) for batch in batches] == [
        (2, 3, 48, 96),
        (2, 3, 96, 48),
        (1, 3, 64, 64),
    ]


@pytest.mark.parametrize("detector", ["published", "extended"])
def test_missing_places_change_neither_a_fit_nor_a_score(detector):
    whole = np.random.default_rng(0).normal(size=(4, 16, 5, 4)).astype(np.float32)
    padded = np.pad(whole, ((0, 0), (0, 0), (0, 2), (0, 3)), constant_values=np.nan)
    own = {
        "published": {"hidden": 8, "bottleneck": 4, "steps": 20},
        "extended": {"bottleneck": 4, "words": 6},
    }[detector]
    fitted, again = (registry.fit(detector, F, **own, progress=False)[0] for F in (whole, padded))
    for name, tensor in fitted.state_dict().items():
        found = again.state_dict()[name]
        found = found[:5, :4] if name == "unit" else found
        torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6)
    expected, maps = scoring.score_features(fitted, whole, progress=False)
    scores, padded_maps = scoring.score_features(again, padded, progress=False)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_allclose(padded_maps[:, :5, :4], maps, rtol=1e-4)
    assert np.isnan(padded_maps[:, 5:]).all() and np.isnan(padded_maps[:, :, 4:]).all()


def test_where_sizes_differ_all_places_have_one_unit():
    features = np.random.default_rng(0).normal(size=(4, 16, 4, 4)).astype(np.float32)
    features[::2, :, 2:] = np.nan
    features[1::2, :, :, 2:] = np.nan
    fitted, _ = codebook.fit(features, bottleneck=4, words=6, progress=False)
    assert (fitted.unit == fitted.unit[0, 0]).all() and fitted.unit[0, 0] > 0
    alone = scoring.score_features(fitted, features[:1, :, :2], top_k=4, progress=False)[0]
    padded = scoring.score_features(fitted, features[:1], top_k=4, progress=False)[0]
    np.testing.assert_allclose(alone, padded, rtol=1e-5)


def test_an_average_of_neighbours_leaves_missing_ones_out():
    whole = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(whole, (0, 2, 0, 3), value=torch.nan)
    found = codebook.average(padded)
    torch.testing.assert_close(found[:, :, :4, :5], codebook.average(whole))
    assert torch.isnan(found[:, :, 4:]).all() and torch.isnan(found[..., 5:]).all()


def test_features_that_are_half_missing_are_refused():
    features = np.ones((3, 16, 2, 2), dtype=np.float32)
    features[1, 3, 0, 0] = np.nan  # one channel of a place
    with pytest.raises(ValueError, match="finite"):
        autoencoder.fit(features, hidden=4, bottleneck=2, steps=2, progress=False)


@pytest.mark.parametrize("reduction", scoring.REDUCTIONS)
def test_the_score_is_that_of_the_places_that_are_there(reduction):
    errors = np.random.default_rng(0).random((3, 4, 5, 6), dtype=np.float32)
    holed = errors.copy()
    holed[0, :, 3:], holed[1, :, 2, 2] = np.nan, np.nan
    found = scoring.image_score(holed, top_k=7, reduction=reduction)
    there = [errors[:1, :, :3], errors[1:2].reshape(1, 4, 30, 1)[:, :, np.arange(30) != 14]]
    wanted = [scoring.image_score(each, 7, reduction)[0] for each in (*there, errors[2:])]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_an_image_of_fewer_places_than_top_k_is_scored_by_all_of_them():
    errors = np.full((2, 1, 4, 4), np.nan)
    errors[0, 0, 0, :3] = 1, 2, 6
    errors[1] = 1
    assert scoring.image_score(errors, 10).tolist() == [3, 1]


# -- maps ------------------------------------------------------------------------------------------


def test_a_map_is_enlarged_as_if_missing_places_were_cut_off():
    whole = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    padded = np.pad(whole, ((0, 0), (0, 2), (0, 1)), constant_values=np.nan)
    where = Grid(16, (5, 6))
    np.testing.assert_array_equal(
        enlarge(padded, where, (48, 64), (30, 50)), enlarge(whole, where, (48, 64), (30, 50))
    )


def test_a_hole_in_a_map_stays_a_hole_and_does_not_spread():
    maps = np.ones((1, 5, 5), dtype=np.float32)
    maps[0, 2, 2] = np.nan
    (large,) = enlarge(maps, Grid(16, (7.5, 7.5)), 80)
    assert np.isnan(large[39:41, 39:41]).all()
    missing = np.argwhere(np.isnan(large))
    assert np.abs(missing - 39.5).max() <= 8  # nearer to the hole than to another place
    np.testing.assert_allclose(large[~np.isnan(large)], 1, rtol=1e-6)


def test_pixels_that_are_missing_are_in_no_metric():
    rng = np.random.default_rng(0)
    masks, maps = rng.random((4, 8, 12)) > 0.8, rng.random((4, 8, 12), dtype=np.float32)
    masks[:, :, 7] = False  # no region lies on both sides
    holed = maps.copy()
    holed[:, :, 7:] = np.nan
    assert pixel_metrics(masks, holed) == pytest.approx(
        pixel_metrics(masks[:, :, :7], maps[:, :, :7])
    )


def test_images_of_several_sizes_are_judged_in_their_own(mixed, tmp_path):
    paths, backbone, features = mixed
    labels = np.array([0, 0, 0, 1, 1, 1])
    masks = [None] * 3 + [tmp_path / f"{i}.png" for i in range(3)]
    for file, (height, width) in zip(masks[3:], SIZES, strict=True):
        damaged = np.zeros((height, width), dtype=np.uint8)
        damaged[:20, :20] = 255
        Image.fromarray(damaged).save(file)
    read = [preprocessing.load_mask(*pair) for pair in zip(masks, [SIGHT] * 6, paths, strict=True)]
    assert [mask.shape for mask in read] == 2 * SHAPES and not any(m.any() for m in read[:3])
    with pytest.raises(ValueError, match="image is needed"):
        preprocessing.load_mask(None, SIGHT)
    maps = np.where(np.isnan(features[:, 0]), np.float32(np.nan), np.float32(0))
    maps[3:, 0, 0] = 1  # where the damage is
    test = pd.DataFrame(
        {"label": labels, "score": labels, "prediction": labels, "defect": labels.astype(str)}
    )
    found = pipeline.evaluate(test, {}, maps, labels == 1, read.__getitem__, grid(backbone))
    assert found["pixel_auroc"] > 0.9 and found["peak_in_mask"] == 1


def test_near_copies_are_found_among_images_of_several_sizes(mixed, tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 8, 6, 6))
    features[::2, :, 4:] = np.nan
    features[1::2, :, :, 3:] = np.nan
    assert near_copies([features], range(12)).n == 0
    again = features[[3]] + 0.1
    assert near_copies([features, again], range(13)).pairs == [(3, 12)]


def test_all_splits_are_stored_in_one_shape(mixed, tmp_path):
    paths, backbone, _ = mixed
    features = pipeline.extract(
        backbone,
        {"train": paths[:1], "test": paths[1:2], "calibration": []},
        tmp_path,
        SIGHT,
        progress=False,
    )
    assert {F.shape[1:] for F in features.values()} == {(1024, 6, 6)}
    assert extraction.map_size([], SIGHT) == (4, 4)


# -- region ----------------------------------------------------------------------------------------


def save_mask(file, shape, black):
    """A mask that is white but for some rows."""
    pixels = np.full(shape, 255, dtype=np.uint8)
    pixels[black] = 0
    Image.fromarray(pixels).save(file)
    return str(file)


@pytest.fixture()
def plate(tmp_path):
    """Two images that differ in their uppermost third alone, and a region without it."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (96, 64, 3), dtype=np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        pixels[:32] = rng.integers(0, 256, (32, 64, 3))
        Image.fromarray(pixels).save(path)
    return paths, save_mask(tmp_path / "region.png", (96, 64), slice(32))


def test_what_lies_outside_the_region_does_not_count(plate, tmp_path):
    paths, region = plate
    sight = Sight(96, region=region)
    x = preprocessing.load_images(paths, sight)
    assert torch.equal(x[0], x[1]) and (x[0, :, :32] == x[0, :, :1, :1]).all()
    backbone = pipeline.make_backbone(weights.load("texad"), paths, sight=sight, progress=False)
    F = pipeline.extract(backbone, {"test": paths}, tmp_path, sight, progress=False)["test"]
    missing = np.isnan(F[:, 0])
    assert missing[:, :2].all() and not missing[:, 2:].any()
    for detector, own in (
        ("published", {"hidden": 8, "bottleneck": 4, "steps": 5}),
        ("extended", {"bottleneck": 8, "words": 8}),
    ):
        fitted, _ = registry.fit(detector, F, **own, progress=False)
        scores, maps = scoring.score_features(fitted, F, progress=False)
        assert scores[0] == scores[1] and np.isfinite(scores[0])
        (large,) = enlarge(maps[:1], grid(backbone), 96)
        assert np.isnan(large[:24]).all() and np.isfinite(large[48:]).all()


def test_each_image_may_have_a_region_of_its_own(plate, tmp_path):
    paths, _ = plate
    (tmp_path / "masks").mkdir()
    save_mask(tmp_path / "masks" / "a.png", (96, 64), slice(32))
    sight = Sight(96, region=str(tmp_path / "masks"))
    assert sight.inside(paths[0], (96, 96))[0].mean() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="masks has no mask named b.png"):
        preprocessing.load_images(paths, sight)


def test_a_region_that_is_none_is_refused(plate, tmp_path):
    paths, _ = plate
    black = save_mask(tmp_path / "black.png", (96, 64), slice(96))
    with pytest.raises(ValueError, match="black.png leaves nothing to judge"):
        preprocessing.load_image(paths[0], Sight(96, region=black))
    with pytest.raises(ValueError, match="^region nowhere.png does not exist"):
        registry.sight("published", region="nowhere.png")
