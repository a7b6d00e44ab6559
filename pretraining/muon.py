"""Muon: gradient steps whose every direction counts alike.

A few directions dominate the gradient of a convolution's weights, seen as a matrix, and so they do
AdamW's steps. Muon averages the gradients and replaces the singular values of the average by ones,
so that weak directions are learned as fast as strong ones (Jordan et al., "Muon: an optimizer for
hidden layers in neural networks", 2024). The scale of a step is that of Liu et al., "Muon is
scalable for LLM training", 2025, arXiv:2502.16982: a rate that suits AdamW suits Muon.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of a polynomial that moves singular values towards 1
ITERATIONS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with about the singular vectors of another, its singular values near 1."""
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).float()


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    weight_decay : float
    momentum : float, default 0.95
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ):
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every weight along its averaged gradient; `closure` is not called."""
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                scale = 0.2 * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(orthogonal(ahead).view(weight.shape), alpha=group["lr"] * scale)
