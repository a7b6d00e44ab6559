import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import v2

from texad.model import preprocessing
from texad.model.preprocessing import Sight


def test_image_is_resized_and_scaled_as_torchvision_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 180, 3), dtype=np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    expected = v2.Compose(
        [v2.PILToTensor(), v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True)]
    )(Image.open(file))
    images = preprocessing.load_images([file])
    assert images.shape == (1, 3, 224, 224) and images.dtype == torch.float32
    # older versions of torchvision round elsewhere: by at most one grey level, 4e-3
    assert (images[0] - expected).abs().max() <= 1 / 255 + 1e-7
    resized = functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None], (224, 224), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(images, resized / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "size", [(300, 180), (97, 131)]
)  # height and width: smaller and larger than the result
def test_pillow_resizes_to_the_same_but_for_one_level(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = np.asarray(
        Image.fromarray(pixels).resize((160, 160), Image.Resampling.BILINEAR)
    ).astype(int)
    ours = preprocessing.resize(pixels, 160)
    assert ours.dtype == np.uint8 and abs(ours.astype(int) - theirs).max() <= 1
    np.testing.assert_array_equal(preprocessing.resize(Image.fromarray(pixels), 160), ours)


def test_grey_image_gets_three_equal_channels(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "grey.png")
    images = preprocessing.load_images([tmp_path / "grey.png"], Sight(16))
    assert torch.equal(images[0, 0], images[0, 1]) and torch.equal(images[0, 0], images[0, 2])


def test_batches_keep_the_order_and_the_remainder(tmp_path):
    paths = []
    for value in range(5):
        paths.append(tmp_path / f"{value}.png")
        Image.new("RGB", (16, 16), (value * 50,) * 3).save(paths[-1])
    batches = list(preprocessing.image_batches(paths, Sight(16), batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [round(float(image[0, 0, 0]) * 255) for batch in batches for image in batch] == [
        0,
        50,
        100,
        150,
        200,
    ]


def test_normalize_is_imagenets_mean_and_standard_deviation():
    x = torch.rand(2, 3, 4, 4)
    expected = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(x)
    torch.testing.assert_close(preprocessing.Normalize()(x), expected)


@pytest.mark.parametrize("size", [0, -16, 100])
def test_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match="image_size .*multiple of 16"):
        Sight(size)


def test_thin_scratch_survives_in_the_smaller_mask(tmp_path):
    mask = np.zeros((512, 512), dtype=np.uint8)
    mask[100, :] = 255  # one pixel thin
    Image.fromarray(mask).save(tmp_path / "mask.png")
    small = preprocessing.load_mask(tmp_path / "mask.png", Sight(64))
    assert small.dtype == bool and small.shape == (64, 64)
    assert small[12].all() and small.sum() == 64


def test_no_mask_is_an_empty_mask():
    assert not preprocessing.load_mask(None, Sight(32)).any()
