"""The forward pass: images a second against plain torchvision, and against what the processor can
do at all.

Both get the same batch of images in memory, each in the layout that it wants. texad deals it out to
its threads, as its feature extraction does.

The limit: a large float32 matrix product is the fastest arithmetic there is on the machine. If the
network's multiplications and additions went as fast, and nothing else took time, a batch would take
(operations) / (rate of that product).
"""

from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks import material
from benchmarks.material import Options, forward, texad_forward
from benchmarks.measure import Row, median, seconds_in_turn, spread
from texad.model import preprocessing
from texad.model.base import device
from texad.model.preprocessing import Sight

BATCH_SIZE = 16
PLAIN_BAR, LIMIT_BAR = 1.5, 0.75


def run(options: Options) -> list[Row]:
    paths = [sample.path for sample in material.category(options).train][
        : 2 if options.quick else BATCH_SIZE
    ]
    fast, plain = material.networks(options, paths)
    images = preprocessing.load_images(paths, Sight(options.image_size)).to(
        device()
    )  # in the layout that texad gives its images
    own_layout = images.contiguous(memory_format=torch.contiguous_format)
    n, size = (1, 256) if options.quick else (8, 2048)
    a, b, product = (torch.rand(size, size, device=device()) for _ in range(3))

    @torch.inference_mode()
    def products():
        for _ in range(n):
            torch.mm(a, b, out=product)

    seconds = seconds_in_turn(
        {
            "texad": partial(texad_forward, fast, images),
            "torchvision": partial(forward, plain, own_layout),
            "product": products,
        },
        options.repeats,
        "forward",
    )
    operations = count_operations(plain, images[:1])
    return rows(seconds, len(images), operations, n * 2 * size**3)


def rows(
    seconds: dict[str, np.ndarray], n_images: int, operations: int, product_operations: int
) -> list[Row]:
    """The ratios of measured seconds.

    Parameters
    ----------
    seconds : dict of str to ndarray, shape (rounds,)
        Of "texad" and "torchvision" for `n_images` images, and of "product" for
        `product_operations` operations.
    n_images, operations, product_operations : int
        `operations` are those of one image.
    """
    speed = {name: n_images / seconds[name] for name in ("texad", "torchvision")}  # images a second
    rate = product_operations / seconds["product"]
    details = {
        "images_per_second": {name: spread(values) for name, values in speed.items()},
        "operations_per_image": operations,
        "product_operations_per_second": spread(rate),
        "batch_size": n_images,
    }
    limit = operations * speed["texad"] / rate
    return [
        Row("forward", "texad", median(speed["texad"]), "images/s", details=details),
        Row(
            "forward",
            "texad / plain torchvision",
            median(speed["texad"] / speed["torchvision"]),
            at_least=PLAIN_BAR,
        ),
        Row(
            "forward",
            "texad / limit of the processor",
            median(limit),
            at_least=LIMIT_BAR,
            note=f"limit: {median(rate / operations):.3g} images/s",
        ),
        Row(
            "forward", "plain torchvision / limit", median(operations * speed["torchvision"] / rate)
        ),
    ]


@torch.inference_mode()
def count_operations(network: nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of the convolutions, 2 for each multiplication with its addition;
    the rest is not worth counting.

    An output value of a convolution is a sum of (channels in / groups) · kernel height · kernel
    width products.

    Parameters
    ----------
    network : nn.Module
        In eval mode, with its convolutions as `nn.Conv2d`.
    images : Tensor, shape (N, 3, H, W)
    """
    counts = []

    def count(layer: nn.Conv2d, inputs, output: torch.Tensor) -> None:
        height, width = layer.kernel_size
        counts.append(2 * output.numel() * (layer.in_channels // layer.groups) * height * width)

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return sum(counts)
