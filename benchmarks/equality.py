"""Speed must not change the result: scores of the fast path against a plain reference in float32.

The reference uses nothing that was made faster: Pillow decodes, torchvision resizes, its network
has its BatchNorm layers and the default layout, and the autoencoder, errors and scores are NumPy,
written out. Both use the same weights. A second comparison, without a bar, lets Pillow resize, too:
its rounding differs by one level in some pixels, and a network may be sensitive to that.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, resize
from tqdm import tqdm

from benchmarks import material
from benchmarks.material import Options, forward
from benchmarks.measure import Row
from texad.model import autoencoder, scoring

BATCH_SIZE = 16
BAR = 1e-4


def run(options: Options) -> list[Row]:
    data = material.category(options)
    train, test = ([sample.path for sample in split] for split in (data.train, data.test))
    fast, plain = material.networks(options, train)
    with material.folder(options) as folder:
        fitted, _ = autoencoder.fit(
            material.extracted(options, fast, train, folder / "train.npy"),
            steps=20 if options.quick else 300,
        )
        scores, _ = scoring.score_features(
            fitted, material.extracted(options, fast, test, folder / "test.npy")
        )
    reference, by_pillow, n_different = [], [], 0
    for start in tqdm(range(0, len(test), BATCH_SIZE), desc="reference", unit="batch"):
        batch = test[start : start + BATCH_SIZE]
        images, resized_by_pillow = (
            pixels(batch, options.image_size, resized)
            for resized in (torchvision_resize, pillow_resize)
        )
        n_different += int(np.sum(np.abs(images - resized_by_pillow) > 0.5 / 255))
        for given, scored in ((images, reference), (resized_by_pillow, by_pillow)):
            scored.append(
                reference_scores(fitted, forward(plain.cpu(), torch.from_numpy(given)).numpy())
            )
    details = {
        "images": len(test),
        "share_of_pixel_values_that_pillow_rounds_otherwise": n_different
        / (len(test) * images[0].size),
    }
    return rows(scores, np.concatenate(reference), np.concatenate(by_pillow), details)


def rows(
    scores: np.ndarray, reference: np.ndarray, by_pillow: np.ndarray, details: dict
) -> list[Row]:
    """How far scores lie from the reference, and whether they rank the images the same.

    Parameters
    ----------
    scores, reference, by_pillow : ndarray, shape (N,)
        `by_pillow` are those of the reference when Pillow resizes the images.
    details : dict
    """
    share = details["share_of_pixel_values_that_pillow_rounds_otherwise"]
    note = f"pixel values that Pillow rounds otherwise: {share:.2%}"
    return [
        Row(
            "equality",
            "largest difference of a score, relative",
            relative(scores, reference),
            "",
            at_most=BAR,
            details=details,
        ),
        Row(
            "equality",
            "pairs of images in another order",
            swapped_pairs(scores, reference),
            "",
            at_most=0,
        ),
        Row(
            "equality",
            "largest difference, if Pillow resizes",
            relative(scores, by_pillow),
            "",
            note=note,
        ),
    ]


def relative(scores: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference, each relative to its own reference."""
    return float(np.max(np.abs(scores.astype(float) - reference) / np.abs(reference)))


def swapped_pairs(scores: np.ndarray, reference: np.ndarray) -> int:
    """Pairs of images that one ranks differently from the other; a tie in one of them only counts,
    too.
    """
    order, other = (np.sign(values[:, None] - values[None, :]) for values in (scores, reference))
    return int(np.sum(np.triu(order != other)))


def pixels(paths: list[Path], image_size: int, resized: Callable) -> np.ndarray:
    """Image files as Pillow decodes them, resized: (N, 3, image_size, image_size), float32, in [0,
    1].
    """
    images = []
    for path in paths:
        with Image.open(path) as image:
            small = resized(image.convert("RGB"), image_size)
        images.append(small.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    return np.stack(images)


def torchvision_resize(image: Image.Image, size: int) -> np.ndarray:
    return resize(pil_to_tensor(image), [size, size], antialias=True).permute(1, 2, 0).numpy()


def pillow_resize(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def reference_scores(
    fitted: autoencoder.Autoencoder, features: np.ndarray, top_k: int = 10
) -> np.ndarray:
    """The mean of the ten largest of all squared errors of an image, shape (N,), written out in
    NumPy.
    """
    weights = {name: tensor.numpy() for name, tensor in fitted.state_dict().items()}

    def linear(values: np.ndarray, name: str) -> np.ndarray:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    vectors = features.transpose(0, 2, 3, 1)  # (N, H, W, C)
    code = linear(np.maximum(linear(vectors, "encoder.0"), 0), "encoder.2")
    errors = np.square(vectors - linear(np.maximum(linear(code, "decoder.0"), 0), "decoder.2"))
    return np.sort(errors.reshape(len(errors), -1), axis=1)[:, -top_k:].mean(axis=1)
