"""Images in, feature maps out: a frozen ResNet-50, stopped at layer3.

The early layers of a network see edges, the late ones see objects. layer3 lies between: each of its
14 x 14 places describes a piece of texture by 1024 numbers, which is what a defect changes. Nothing
is trained here, so the features of an image are computed once and kept on disk.

Deep residual learning for image recognition, He et al., 2015, arXiv:1512.03385.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from texad.io.atomic import write_tensors
from texad.io.tensors import read_tensors, refusing
from texad.model import places, preprocessing
from texad.model.base import device
from texad.model.preprocessing import SQUARE, Sight
from texad.model.weights import Weights

CHANNELS = 1024  # of layer3's output
CALIBRATION = 32  # images
LOCATING = 8  # images
STRIDE = preprocessing.STRIDE
LARGE = 1024**2  # pixels of an input that is looked at in strips
STRIP = 512  # pixels, height of a strip
MARGIN = 160  # pixels above and below it: a place sees 145 pixels to each side


class BothLayers(nn.Sequential):
    """A backbone that gives layer2's features beside layer3's: (N, 1024 + 512, H/16, W/16).

    layer2 sees finer detail, in steps of 8 pixels: the mean of 2 × 2 of its places stands beside
    the place of layer3 that lies in the same spot.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = images
        for name, part in self.named_children():
            maps = part(maps)
            if name == "layer2":
                finer = nn.functional.avg_pool2d(maps, 2)
        return torch.cat([maps, finer], dim=1)


def build_backbone(
    weights: Weights, normalize: bool = False, layer2: bool = False
) -> nn.Sequential:
    """Build a ResNet-50 from `conv1` to `layer3`, frozen, in eval mode.

    Parameters
    ----------
    weights : Weights
        Of a ResNet-50, or of a slimmer one: its blocks may have fewer than 64 inner channels in
        layer1, and twice and four times as many in layer2 and layer3 (torchvision's
        `width_per_group`). The maps have 1024 channels all the same.
    normalize : bool, default False
        Subtract the ImageNet mean and divide by its standard deviation first, in a part of its own
        named `normalize`. Off in the published method.
    layer2 : bool, default False
        Give the features of layer2, too, see `BothLayers`. Off in the published method.

    Returns
    -------
    nn.Sequential
        Takes images, (N, 3, H, W), in [0, 1], gives (N, 1024, H/16, W/16), and with layer2 (N,
        1536, H/16, W/16). Its parts have torchvision's names.

    Raises
    ------
    ValueError
        If a tensor is missing, or has another shape than in a ResNet-50 of this width.
    """
    backbone = _resnet50_to_layer3(weights.state_dict, weights.stride_in_1x1, normalize, layer2)
    try:
        _fill(backbone, weights.state_dict)
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n\t")[1:2])
        raise ValueError(
            f"weights {weights.name} do not fit a ResNet-50 up to layer3: {problem}"
        ) from error
    return backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def calibrate_batchnorm(
    backbone: nn.Sequential,
    paths: Sequence[Path],
    *,
    sight: Sight = SQUARE,
    batch_size: int = 16,
    progress: bool = True,
) -> None:
    """Set the BatchNorm statistics of a random backbone to those of the training images, in place.

    A random network's activations grow or shrink from layer to layer, because its BatchNorm layers
    have seen no data. One pass over defect-free images gives every channel the mean and variance it
    should remove. No weight is trained.

    Parameters
    ----------
    backbone : nn.Sequential
        From `build_backbone`, before `fold_batchnorm`.
    paths : sequence of Path
        Training images. Of many, 32 are taken, spread evenly: enough for the mean and variance of a
        channel. All are resized to the shape that most of them have: a batch needs one.
    batch_size : int, default 16
        The variance is that within a batch, averaged over the batches, so these must not be small.
    sight, progress
        See `extraction.extract`.
    """
    paths = _spread(paths, CALIBRATION)
    shape = sight.shape_of_most(paths)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over all batches
    backbone.train()
    backbone.to(device())
    threads = torch.get_num_threads()
    # several would add up a mean in parts, and their number would change the last digits
    torch.set_num_threads(1)
    try:
        with (
            torch.inference_mode(),
            tqdm(total=len(paths), desc="calibration", unit="image", disable=not progress) as bar,
        ):
            for start in range(0, len(paths), batch_size):
                batch = paths[start : start + batch_size]
                backbone(preprocessing.load_images(batch, sight, shape).to(device()))
                bar.update(len(batch))
    finally:
        torch.set_num_threads(threads)
    backbone.eval()


def fold_batchnorm(backbone: nn.Sequential) -> nn.Sequential:
    """Merge every BatchNorm into the convolution before it, in place: the same output, faster.

    In eval mode BatchNorm multiplies and shifts each channel by fixed numbers, which the
    convolution's weights and bias can do by themselves. The ReLU after it, and the addition in
    between, are then done along with the convolution: see `texad.model.onednn`.
    """
    from texad.model.onednn import FusedBottleneck, FusedConvolution

    conv, norm = backbone.get_submodule("conv1"), backbone.get_submodule("bn1")
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    backbone.conv1 = FusedConvolution(fuse_conv_bn_eval(conv, norm), relu=True)
    backbone.bn1 = backbone.relu = nn.Identity()
    for layer in map(backbone.get_submodule, ("layer1", "layer2", "layer3")):
        for name, block in layer.named_children():
            setattr(layer, name, FusedBottleneck(block))
    return backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def locate_places(
    backbone: nn.Sequential,
    paths: Sequence[Path] = (),
    *,
    sight: Sight = SQUARE,
) -> nn.Sequential:
    """Measure where the places of a backbone's maps lie, and keep it as its buffer `centre`.

    Parameters
    ----------
    backbone : nn.Sequential
        From `fold_batchnorm`; changed in place, and its features stay as they are.
    paths : sequence of Path, optional
        Training images. Of many, 8 are taken, spread evenly, and resized to the shape that most of
        them have. Without any, the images are noise,
        fine and coarse; for ImageNet weights the centre is then within two pixels of that of
        photographs.
    sight : Sight
        See `extraction.extract`.

    Returns
    -------
    nn.Sequential
        The backbone itself; see `grid`.
    """
    if paths:
        paths = _spread(paths, LOCATING)
        images = preprocessing.load_images(paths, sight, sight.shape_of_most(paths))
    else:
        rng = torch.Generator().manual_seed(0)
        fine, coarse = (torch.rand(LOCATING, 3, n, n, generator=rng) for n in (160, 20))
        images = (fine + nn.functional.interpolate(coarse, (160, 160), mode="bilinear")) / 2
    found = places.measure(backbone.to(device()), images.to(device()))
    backbone.register_buffer("centre", torch.tensor(found.centre, dtype=torch.float64))
    return backbone


def feature_maps(backbone: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    """Compute the feature maps of images, of large ones in strips, so that memory stays small.

    What the layers pass on takes 40 times the memory of an image. A place depends on a part of the
    image only, its receptive field, and so the image can be cut into horizontal strips that overlap
    by that much: the maps are the same, but for rounding.

    Parameters
    ----------
    backbone : nn.Sequential
    images : Tensor, float32, shape (N, 3, height, width)

    Returns
    -------
    Tensor, float32, shape (N, C, height / 16, width / 16)
        See `n_channels`.
    """
    if images[:1, :1].numel() <= LARGE:
        return backbone(images)
    strips = []
    for top in range(0, images.shape[2], STRIP):
        start = max(0, top - MARGIN)
        maps = [backbone(image[:, :, start : top + STRIP + MARGIN]) for image in images.split(1)]
        first = (top - start) // STRIDE
        strips.append(torch.cat(maps)[:, :, first : first + STRIP // STRIDE])
    return torch.cat(strips, dim=2)


def n_channels(backbone: nn.Sequential) -> int:
    """Return C, the length of a feature vector: 1024, and 1536 with layer2."""
    return CHANNELS + CHANNELS // 2 * isinstance(backbone, BothLayers)


def grid(backbone: nn.Sequential) -> places.Grid:
    """Return where the places of a backbone's maps lie, as `locate_places` found it."""
    down, across = backbone.get_buffer("centre").tolist()
    return places.Grid(STRIDE, (down, across))


def save_backbone(backbone: nn.Sequential, file: Path) -> None:
    """Store a backbone, so that new images can be measured with the same one.

    Parameters
    ----------
    backbone : nn.Sequential
        From `fold_batchnorm`.
    file : Path
        Where it goes (`.safetensors`). Its metadata say `stride_in_1x1`, as in a file of weights,
        `normalize`, `layer2`, and `centre`: the pixel, row and column, on which place (0, 0) is
        centred.

    Raises
    ------
    ValueError
        If the backbone still has BatchNorm layers.
    """
    if any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        raise ValueError(
            "backbone still has BatchNorm layers: fold them with fold_batchnorm before saving it"
        )
    if not hasattr(backbone, "centre"):
        locate_places(backbone)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    facts = {
        "stride_in_1x1": stride_in_1x1(backbone),
        "normalize": hasattr(backbone, "normalize"),
        "layer2": isinstance(backbone, BothLayers),
        "centre": list(grid(backbone).centre),
    }
    write_tensors(file, tensors, {name: str(fact).lower() for name, fact in facts.items()})


def load_backbone(file: Path) -> nn.Sequential:
    """Read a backbone that `save_backbone` wrote; it gives the same features to the last bit.

    Parameters
    ----------
    file : Path

    Returns
    -------
    nn.Sequential
        Folded, frozen, in eval mode, on the CPU. Takes images, (N, 3, H, W), in [0, 1], gives
        (N, C, H/16, W/16), see `n_channels`.

    Raises
    ------
    ValueError
        If the file is no such backbone.
    """
    with refusing(f"{file} is no backbone of texad", "run the feature extraction again"):
        tensors, facts = read_tensors(file)
        return folded_backbone(
            tensors,
            facts["stride_in_1x1"] == "true",
            facts.get("normalize") == "true",
            facts.get("layer2") == "true",
        )


def folded_backbone(
    tensors: dict[str, torch.Tensor],
    stride_in_1x1: bool,
    normalize: bool = False,
    layer2: bool = False,
) -> nn.Sequential:
    """Rebuild a backbone from the tensors of one that was folded.

    Raises
    ------
    RuntimeError, ValueError
        If the tensors are not those of such a backbone.
    """
    backbone = fold_batchnorm(_resnet50_to_layer3(tensors, stride_in_1x1, normalize, layer2).eval())
    if "centre" in tensors:
        backbone.register_buffer("centre", torch.zeros(2, dtype=torch.float64))
    _fill(backbone, tensors)
    backbone.to(memory_format=torch.channels_last)
    if "centre" not in tensors:  # a file of texad 0.1; the images it was fit to may be gone
        return locate_places(backbone).cpu()
    if not backbone.get_buffer("centre").isfinite().all():
        raise ValueError("centre is not finite")
    return backbone


def _spread(paths: Sequence[Path], n: int) -> list[Path]:
    """At most `n` of the paths, from the first to the last."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, n).astype(int))]


def stride_in_1x1(backbone: nn.Sequential) -> bool:
    """Tell whether a backbone is the original network of He et al., see `weights.Weights`."""
    return bool(backbone.get_submodule("layer2.0.conv1").stride == (2, 2))


def _resnet50_to_layer3(
    tensors: dict[str, torch.Tensor], stride_in_1x1: bool, normalize: bool, layer2: bool
) -> nn.Sequential:
    """A network of the width of these tensors, which are not yet in it: it has no memory yet."""
    # only when needed: importing it takes seconds, and some stages do without
    from torchvision.models import resnet50

    first = tensors.get("layer1.0.conv1.weight", torch.empty(0))
    width = (*first.shape, 0)[0] or 64
    with torch.device("meta"):
        whole = resnet50(weights=None, width_per_group=width)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if normalize:
        parts["normalize"] = preprocessing.Normalize()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        parts[name] = getattr(whole, name)
    if stride_in_1x1:
        for layer in (whole.layer2, whole.layer3):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return BothLayers(parts) if layer2 else nn.Sequential(parts)


def _fill(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give a network copies of these tensors, or raise a RuntimeError if they do not fit."""
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    copies = {
        name: tensor.to(kinds.get(name, tensor.dtype), copy=True)
        for name, tensor in tensors.items()
    }
    network.load_state_dict(copies, assign=True)
