"""What the benchmarks share: their options, images, the two networks, and the command line of
texad.
"""

import contextlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet50
from tqdm import tqdm

from texad.data import datasets, synthetic
from texad.io.atomic import replacing
from texad.model import autoencoder, extraction, weights
from texad.model.backbone import build_backbone, calibrate_batchnorm, fold_batchnorm
from texad.model.base import device
from texad.model.preprocessing import Sight

FEATURE_BATCH = (
    inspect.signature(extraction.extract).parameters["batch_size"].default
)  # images in a forward pass of texad
LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes
    ----------
    repeats : int
        Rounds of each pair.
    quick : bool
        Tiny sizes, to see that everything works; the values then mean nothing.
    weights : str
        "random" (calibrated on the images), "texad", "imagenet", or a file.
    data, category : str
        A real category to measure with; with an empty `data`, synthetic leather.
    sizes : tuple of int
        Numbers of training images of the benchmark `memory`.
    anomalib_python : str
        The interpreter of an environment with anomalib; empty for none.
    work : Path
        Folder for what is made once and kept (images).
    """

    repeats: int = 5
    quick: bool = False
    weights: str = "random"
    data: str = ""
    category: str = ""
    sizes: tuple[int, ...] = (250, 1000, 4000)
    anomalib_python: str = ""
    work: Path = Path(tempfile.gettempdir()) / "texad-benchmarks"

    @property
    def image_size(self) -> int:
        return 64 if self.quick else 224


# -- images ----------------------------------------------------------------------------------------


def category(options: Options) -> datasets.Category:
    """The category to measure with: a real one, or synthetic leather as the book has it."""
    if options.data:
        return datasets.load_category(options.data, options.category)
    sizes = dict(n_train=6, n_good=3, n_defective=5, size=64) if options.quick else {}
    root = options.work / ("synthetic-quick" if options.quick else "synthetic")
    return datasets.load_category(
        synthetic.write(root, "leather", progress=True, **sizes).parent, "leather"
    )


def photographs(options: Options) -> list[Path]:
    """PNG files of 1024 x 1024 pixels with the noise of a camera, about as large on disk as those
    of MVTec AD; made once.
    """
    n, size = (4, 128) if options.quick else (48, 1024)
    names = sorted(synthetic.CATEGORIES)
    files = [options.work / f"photographs-{size}" / f"{i:03d}.png" for i in range(n)]
    for i, file in enumerate(
        tqdm(
            files,
            desc="drawing photographs",
            unit="image",
            disable=all(file.exists() for file in files),
        )
    ):
        if not file.exists():
            with replacing(file) as temporary:
                Image.fromarray(
                    synthetic.texture(names[i % len(names)], np.random.default_rng(i), size)
                ).save(temporary)
    return files


# -- the two networks
# --------------------------------------------------------------------------------


def networks(options: Options, paths: list[Path]) -> tuple[nn.Module, nn.Module]:
    """texad's backbone as its feature extraction uses it, and plain torchvision with the same
    weights.

    Parameters
    ----------
    options : Options
    paths : list of Path
        Images that a random network is calibrated on.

    Returns
    -------
    fast, plain : nn.Module
        On `device()`. Both take (N, 3, H, W) and give (N, 1024, H/16, W/16). The plain one is
        `plain_network`.
    """
    loaded = (
        weights.untrained(0, shortcuts=False)
        if options.weights == "random"
        else weights.load(options.weights)
    )  # every convolution counts
    backbone = build_backbone(loaded)
    if loaded.is_random:
        calibrate_batchnorm(backbone, paths[:32], sight=Sight(options.image_size), progress=False)
    plain = plain_network(
        {name: tensor.cpu().clone() for name, tensor in backbone.state_dict().items()},
        loaded.stride_in_1x1,
    )
    return fold_batchnorm(backbone).to(device()), plain.to(device())


def plain_network(state_dict: dict[str, torch.Tensor], stride_in_1x1: bool = False) -> nn.Module:
    """torchvision's ResNet-50 as anyone would use it: BatchNorm in place, default layout, cut after
    layer3.

    Parameters
    ----------
    state_dict : dict of str to Tensor
        Named as in torchvision's `resnet50`, up to layer3.
    stride_in_1x1 : bool, default False
        As in `texad.model.weights.Weights`.
    """
    width = len(state_dict["layer1.0.conv1.weight"])
    whole = resnet50(weights=None, width_per_group=width)
    plain = nn.Sequential()
    for name in LAYERS:
        plain.add_module(name, getattr(whole, name))
    if stride_in_1x1:
        for layer in (plain.layer2, plain.layer3):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    plain.load_state_dict(state_dict)
    return plain.eval().requires_grad_(False)


@torch.inference_mode()
def forward(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One forward pass."""
    return network(images)


def texad_forward(network: nn.Module, images: torch.Tensor) -> None:
    """Forward passes as `extraction.extract` makes them, on images in memory: small batches, a
    thread for each core.
    """
    for _ in extraction.in_order(partial(forward, network), images.split(FEATURE_BATCH)):
        pass


def extracted(options: Options, backbone: nn.Module, paths: list[Path], file: Path) -> np.ndarray:
    """Features of images, as the package extracts and opens them."""
    return extraction.extract(backbone, paths, file, sight=Sight(options.image_size))


def untrained_autoencoder() -> nn.Module:
    """An autoencoder of the published widths, where only its speed matters."""
    torch.manual_seed(0)
    return autoencoder.Autoencoder().eval().requires_grad_(False)


# -- texad as users start it
# -------------------------------------------------------------------------


def run_texad(*arguments: object) -> None:
    """`texad run` in a process of its own, with the defaults of a user: no run folder of theirs is
    touched.
    """
    command = [sys.executable, "-m", "texad", "run", "--quiet", *map(str, arguments)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TEXAD_RUNS", "TEXAD_DATA", "TEXAD_WEIGHTS")
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"texad run failed with status {done.returncode}: {done.stderr[-2000:]}")


@contextlib.contextmanager
def folder(options: Options):
    """An empty folder that vanishes afterwards: nothing in it is found again, so every measurement
    starts cold.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        yield Path(name)


@contextlib.contextmanager
def quietly():
    """Without the banners and progress bars of what is measured, so that the benchmark's own can be
    read.
    """
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
