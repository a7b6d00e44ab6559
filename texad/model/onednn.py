"""The backbone's arithmetic, with fewer passes over memory.

A convolution is followed by a ReLU, or by an addition and a ReLU. Each of them alone reads its whole input and writes its whole output, and on a
processor this costs almost as much as the convolution itself. oneDNN, the library behind torch's convolutions on processors, can do all in one
pass, while the numbers are at hand anyway. torch compiles its networks to these calls; here they are called directly, so that no compiler is needed.

The features are the same but for the order in which numbers are added up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck

KEPT = 4  # shapes of the input for which the reordered weights are kept: full batches, the last one, and a single image


class FusedConvolution(nn.Conv2d):
    """A convolution and what follows it, in one pass. Its tensors have the names of a plain convolution's.

    Parameters
    ----------
    conv : nn.Conv2d
        With a bias. The tensors are shared with it.
    relu : bool
        Is it followed by a ReLU?
    """

    def __init__(self, conv: nn.Conv2d, relu: bool):
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
        )
        sizes: dict[str, Any] = {name: getattr(conv, name) for name in names}
        super().__init__(**sizes, device="meta")
        self.weight, self.bias, self.relu = conv.weight, conv.bias, relu
        self._reordered: dict[
            tuple, torch.Tensor
        ] = {}  # the weights as oneDNN likes them for an input of this shape and so many threads

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """relu(conv(x) + added), or a part of it: (N, C, H, W) in, (N, C', H', W') out. `added` is overwritten."""
        if not _has_onednn(x):
            y = functional.conv2d(
                x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
            )
            y = y if added is None else y.add_(added)
            return y.relu_() if self.relu else y
        sizes: tuple[Any, ...] = (self.padding, self.stride, self.dilation, self.groups)
        weight = self._reordered.get(case := (x.shape, torch.get_num_threads()))
        if weight is None:
            reorder: Callable[..., torch.Tensor] = (
                torch._C._nn.mkldnn_reorder_conv2d_weight
            )  # takes the shape, which torch's own type leaves out
            weight = reorder(self.weight.to_mkldnn(), *sizes, x.shape)
            self._reordered = (
                {case: weight} if len(self._reordered) >= KEPT else self._reordered | {case: weight}
            )
        activation: tuple[str, list, str] = ("relu" if self.relu else "none", [], "")
        if added is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, *sizes, *activation
            )
        add: tuple[str, float, str | None, list, str] = (
            "add",
            1.0,
            "relu" if self.relu else None,
            [],
            "",
        )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            added, x, weight, self.bias, *sizes, *add
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._reordered = {}
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:  # to another device, or another type
        self._reordered = {}
        return super()._apply(*args, **kwargs)


class FusedBottleneck(nn.Module):
    """torchvision's `Bottleneck` after BatchNorm was folded: three convolutions, and the input added to what they make of it.

    Where the input is added as it is, it is overwritten by the output.
    """

    def __init__(self, block: Bottleneck):
        super().__init__()
        self.conv1 = FusedConvolution(block.conv1, relu=True)
        self.conv2 = FusedConvolution(block.conv2, relu=True)
        self.conv3 = FusedConvolution(block.conv3, relu=True)  # of the sum
        self.downsample = block.downsample and nn.Sequential(
            FusedConvolution(block.downsample[0], relu=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x) if self.downsample else x
        return self.conv3(self.conv2(self.conv1(x)), shortcut)


def _has_onednn(x: torch.Tensor) -> bool:
    usable = bool(
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )
    return usable and not torch.is_grad_enabled()
