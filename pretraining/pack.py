"""Pack a student into a small file of weights, at about a byte a weight.

A filter of layer3 is stored in whole numbers from -127 to 127; what one step of them is worth
differs from filter to filter. The BatchNorm behind a convolution multiplies each channel by a
number of its own anyway, so the step goes into this number, as do the mean and the variance that
BatchNorm has seen (Jacob et al., 2018, arXiv:1712.05877, section 3.2, folds them the same way).
They are then 0 and 1, and are left out.

The layers before layer3 stay in 16 bits: they are a sixth of the weights, and whatever they get
wrong runs through all that follows. In 8 bits they would be to blame for nine tenths of the error.
"""

import argparse
import sys
from pathlib import Path

import torch

from texad.io.atomic import sha256, write_tensors
from texad.io.tensors import read_tensors
from texad.model.weights import TEACHER_SHA256

TEACHER = {
    "teacher": "ResNet-50 of He et al., 2015, as distributed with Keras Applications",
    "teacher_sha256": TEACHER_SHA256,
    "licence": "MIT, Copyright (c) 2016 Shaoqing Ren",
}
FACTS = ("pictures", "steps", "commit", "command")
EPSILON = 1e-5  # torch's BatchNorm adds it to the variance


def pack(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round the weights of a ResNet-50 up to layer3, and fold mean and variance.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Named as in torchvision's `resnet50`.

    Returns
    -------
    dict of str to Tensor
        Convolutions in float16, or int8 in layer3; scale and shift of BatchNorm in float32.
    """
    packed = {}
    for name, kernel in tensors.items():
        if kernel.ndim != 4:
            continue
        norm = name.removesuffix(".weight").replace("conv", "bn")
        norm = norm.replace("downsample.0", "downsample.1")
        scale = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + EPSILON).sqrt()
        packed[f"{norm}.bias"] = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale
        if name.startswith("layer3."):
            step = kernel.abs().amax(dim=(1, 2, 3)).clamp(min=torch.finfo().tiny) / 127
            packed[name] = (kernel / step[:, None, None, None]).round().to(torch.int8)
            scale = scale * step
        else:
            packed[name] = kernel.half()
        packed[f"{norm}.weight"] = scale * (1 + EPSILON) ** 0.5  # the loaded variance is 1
    return packed


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Pack a student into a small file of weights.")
    parser.add_argument("student", type=Path, help="what the training wrote (.safetensors)")
    parser.add_argument("out", type=Path, help="for instance texad/model/texad.safetensors")
    parser.add_argument(
        "--fact",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"what the student's metadata do not say: {', '.join(FACTS)}",
    )
    given = parser.parse_args()
    tensors, facts = read_tensors(given.student)
    facts = TEACHER | facts | dict(fact.split("=", 1) for fact in given.fact)
    if missing := [name for name in FACTS if not facts.get(name)]:
        print(f"pack.py: --fact is needed for {', '.join(missing)}", file=sys.stderr)
        return 2
    facts |= {"packed": "true", "student_sha256": sha256(given.student)}
    write_tensors(given.out, pack(tensors), facts)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB, sha256 {sha256(given.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
