"""A slimmer ResNet-50 that starts where its teacher stands.

A bottleneck squeezes its input to `width` inner channels (times 1, 2, 4 in layer1, 2, 3), convolves
them, and widens them again. Many inner channels say nearly the same, so a slimmer network can come
close to its teacher before any training: choose the channels from which the others can be told, and
solve for the weights by least squares, block by block, on the slim network's own activations
(He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", 2017,
arXiv:1707.06168).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

TEACHER_WIDTH = 64
RIDGE = 1e-3  # of the mean square of the inputs


def build(width: int, weights: Path | dict[str, Tensor] | None = None) -> ResNet:
    """Build a ResNet-50 up to layer3, in eval mode, the stride in the 1x1 convolution.

    Parameters
    ----------
    width : int
        Inner channels of a bottleneck of layer1; ResNet-50 has 64.
    weights : path or dict of str to Tensor, optional
        A .safetensors file, or what it holds.
    """
    network = ResNet(Bottleneck, [3, 4, 6, 1], width_per_group=width)
    network.layer4 = network.avgpool = network.fc = nn.Identity()
    for layer in (network.layer2, network.layer3):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    if weights is not None:
        network.load_state_dict(load_file(weights) if isinstance(weights, Path) else weights)
    return network.eval().to(memory_format=torch.channels_last)


def stem(network: ResNet, images: Tensor) -> Tensor:
    """Return what enters layer1."""
    return network.maxpool(network.relu(network.bn1(network.conv1(images))))


def layers(network: ResNet, stemmed: Tensor) -> list[Tensor]:
    """Return the outputs of layer1, layer2 and layer3."""
    found = []
    for layer in (network.layer1, network.layer2, network.layer3):
        stemmed = layer(stemmed)
        found.append(stemmed)
    return found


def blocks(network: ResNet) -> Iterator[Bottleneck]:
    """Yield the bottlenecks from the front."""
    for layer in (network.layer1, network.layer2, network.layer3):
        yield from layer


def columns(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return the inputs of a convolution as a matrix: a row a place, a last column of ones."""
    rows = F.unfold(x.float(), conv.kernel_size, padding=conv.padding, stride=conv.stride)
    rows = rows.transpose(1, 2).flatten(0, 1)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


def fit(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, target: Tensor) -> None:
    """Set a convolution and its BatchNorm to give `target` from `x`, by least squares.

    The ridge draws the solution towards the weights that the convolution has.

    Parameters
    ----------
    x, target : Tensor, shape (N, C, H, W)
        Inputs, and the wanted outputs of the BatchNorm.
    """
    size, width = conv.weight[0].numel(), len(conv.weight)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    old = torch.cat(
        [
            conv.weight.flatten(1) * scale[:, None],
            (norm.bias - norm.running_mean * scale)[:, None],
        ],
        1,
    ).double()
    gram = torch.zeros(size + 1, size + 1, dtype=torch.double)
    moment = torch.zeros(size + 1, width, dtype=torch.double)
    for part, wanted in zip(x.split(16), target.split(16), strict=True):
        a = columns(part, conv)
        error = wanted.float().permute(0, 2, 3, 1).flatten(0, 2) - a @ old.T.float()
        gram += a.T @ a
        moment += a.T @ error
    ridge = RIDGE * gram.diagonal()[:-1].mean()
    new = old + torch.linalg.solve(gram + ridge * torch.eye(size + 1).double(), moment).T
    weight = new[:, :-1]
    mean = weight @ gram[:-1, -1] / gram[-1, -1]
    square = ((weight @ gram[:-1, :-1]) * weight).sum(1) / gram[-1, -1]
    deviation = (square - mean**2).clamp(min=1e-8).sqrt()
    conv.weight.copy_((weight / deviation[:, None]).view_as(conv.weight))
    norm.weight.copy_(deviation)
    norm.bias.copy_(new[:, -1] + mean)
    norm.running_mean.copy_(mean / deviation)
    norm.running_var.fill_(1 - norm.eps)


def choose(x: Tensor, weight: Tensor, count: int) -> Tensor:
    """Choose the channels of `x` from which a convolution's outputs are told best, one by one.

    Each step takes the channel that explains most of what the outputs still lack; then what it
    explains is removed from all others (a pivoted Cholesky decomposition).

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    weight : Tensor, shape (outputs, C, kernel, kernel)
    count : int

    Returns
    -------
    Tensor of int64, shape (count,)
        In ascending order.
    """
    rows = x.float().permute(0, 2, 3, 1).flatten(0, 2)
    rows = (rows - rows.mean(0)).double()
    left = rows.T @ rows / len(rows)
    w = weight.double().permute(0, 2, 3, 1).flatten(0, 2)
    taken: list[int] = []
    for _ in range(count):
        spread = left.diagonal().clamp(min=1e-12)
        gain = (w @ left).square().sum(0) / spread
        gain[taken] = -1
        taken.append(best := int(gain.argmax()))
        left = left - left[:, best, None] * left[best] / spread[best]
    return torch.tensor(sorted(taken))


def run(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Pass maps through modules, 16 pictures at a time."""
    return torch.cat([nn.Sequential(*modules)(part) for part in x.split(16)])


def slim_block(small: Bottleneck, large: Bottleneck, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Set a slim bottleneck from its model, on the inputs that each has; return their outputs."""
    relu, nothing = nn.ReLU(), nn.Identity()
    one = run([large.conv1, large.bn1], y)
    two = run([relu, large.conv2, large.bn2], one)
    three = run([relu, large.conv3, large.bn3], two)
    first = choose(one.relu(), large.conv2.weight, small.conv1.out_channels)
    second = choose(two.relu(), large.conv3.weight, small.conv2.out_channels)
    small.conv1.weight.copy_(large.conv1.weight[first])
    small.conv2.weight.copy_(large.conv2.weight[second][:, first])
    small.conv3.weight.copy_(large.conv3.weight[:, second])
    for k, kept in ((1, first), (2, second), (3, slice(None))):
        new, old = getattr(small, f"bn{k}"), getattr(large, f"bn{k}")
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(new, name).copy_(getattr(old, name)[kept])
    if large.downsample is not None:
        small.downsample.load_state_dict(large.downsample.state_dict())
    missing = run([large.downsample or nothing], y) - run([small.downsample or nothing], x)
    fit(small.conv1, small.bn1, x, one[:, first])
    inner = run([small.conv1, small.bn1, relu], x)
    fit(small.conv2, small.bn2, inner, two[:, second])
    inner = run([small.conv2, small.bn2, relu], inner)
    fit(small.conv3, small.bn3, inner, three + missing)
    return run([small], x), run([large], y)


@torch.no_grad()
def slim(teacher: ResNet, width: int, images: Tensor) -> ResNet:
    """Build a slimmer network from a teacher.

    Parameters
    ----------
    teacher : ResNet
        From `build`.
    width : int
    images : Tensor, shape (N, 3, H, W)
        A few hundred, as the teacher takes them.
    """
    student = build(width)
    for name in ("conv1", "bn1"):
        getattr(student, name).load_state_dict(getattr(teacher, name).state_dict())
    x = y = torch.cat([stem(teacher, part) for part in images.split(16)])
    for small, large in zip(blocks(student), blocks(teacher), strict=True):
        x, y = slim_block(small, large, x, y)
    return student
