"""The backbone's arithmetic, with fewer passes over memory.

A convolution is followed by a ReLU, or by an addition and a ReLU. Each of them alone reads its
whole input and writes its whole output, and on a processor this costs almost as much as the
convolution itself. oneDNN, the library behind torch's convolutions on processors, can do all in one
pass. torch compiles its networks to these calls; here they are called directly, so that no compiler
is needed.

They are no public part of torch. So they are tried once, on a small convolution: where they are
missing, or give other numbers than the plain convolution, the plain one is used.

The features are the same but for the order in which numbers are added up.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

# shapes of the input for which the reordered weights are kept: full batches, the last one, and a
# single image
KEPT = 4


class FusedConvolution(nn.Conv2d):
    """A convolution and what follows it, in one pass. Its tensors are named as a convolution's.

    Parameters
    ----------
    conv : nn.Conv2d
        With a bias. The tensors are shared with it.
    relu : bool
        Apply a ReLU at the end.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool):
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            device="meta",
        )
        self.weight, self.bias, self.relu = conv.weight, conv.bias, relu
        # the weights as oneDNN likes them for an input of this shape and so many threads
        self._reordered: dict[tuple, torch.Tensor] = {}

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Compute relu(conv(x) + added), each only if given; `added` is overwritten.

        (N, C, H, W) in, (N, C', H', W') out.
        """
        if has_onednn(x) and fused_calls_work():
            return self.fused(x, added)
        return self.plain(x, added)

    def plain(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Compute it step by step, on any device and with gradients."""
        y = super().forward(x)
        y = y if added is None else y.add_(added)
        return y.relu_() if self.relu else y

    def fused(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the same by oneDNN's fused calls."""
        sizes: tuple[Any, ...] = (self.padding, self.stride, self.dilation, self.groups)
        weight = self._reordered.get(case := (x.shape, torch.get_num_threads()))
        if weight is None:
            # takes the shape, which torch's own type leaves out
            reorder: Callable[..., torch.Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            weight = reorder(self.weight.to_mkldnn(), *sizes, x.shape)
            kept = self._reordered if len(self._reordered) < KEPT else {}
            self._reordered = kept | {case: weight}
        relu = "relu" if self.relu else None
        if added is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, *sizes, relu or "none", [], ""
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            added, x, weight, self.bias, *sizes, "add", 1.0, relu, [], ""
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._reordered = {}
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:  # to another device, or another type
        self._reordered = {}
        return super()._apply(*args, **kwargs)


class FusedBottleneck(nn.Module):
    """torchvision's `Bottleneck` with its BatchNorm folded: three convolutions and a shortcut.

    Where the input is added as it is, it is overwritten by the output.
    """

    def __init__(self, block: Bottleneck):
        super().__init__()
        self.conv1 = FusedConvolution(fuse_conv_bn_eval(block.conv1, block.bn1), relu=True)
        self.conv2 = FusedConvolution(fuse_conv_bn_eval(block.conv2, block.bn2), relu=True)
        # the ReLU is that of the sum
        self.conv3 = FusedConvolution(fuse_conv_bn_eval(block.conv3, block.bn3), relu=True)
        self.downsample = block.downsample and nn.Sequential(
            FusedConvolution(fuse_conv_bn_eval(*block.downsample), relu=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x) if self.downsample else x
        return self.conv3(self.conv2(self.conv1(x)), shortcut)


def has_onednn(x: torch.Tensor) -> bool:
    """Tell whether oneDNN may compute with `x` here: on a processor, and without gradients."""
    return bool(
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_grad_enabled()
    )


@functools.cache
def fused_calls_work() -> bool:
    """Tell whether the fused calls are there, and equal the plain convolution; tried once."""
    conv = nn.Conv2d(8, 8, 3, padding=1, device="meta")  # "meta" draws no random numbers
    conv.weight = nn.Parameter(torch.arange(576.0).sin().view(8, 8, 3, 3), requires_grad=False)
    conv.bias = nn.Parameter(torch.arange(8.0).cos(), requires_grad=False)
    x = torch.arange(720.0).cos().view(2, 8, 5, 9).to(memory_format=torch.channels_last)
    try:
        return all(
            torch.allclose(layer.fused(x, added()), layer.plain(x, added()), rtol=1e-4, atol=1e-4)
            for layer in (FusedConvolution(conv, relu=True), FusedConvolution(conv, relu=False))
            for added in (lambda: None, x.clone)  # it is overwritten
        )
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
