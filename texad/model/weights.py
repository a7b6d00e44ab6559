"""Weights of the backbone: ImageNet, those of the package, a file of the user's, or random.

A ResNet-50 that has learnt to tell a thousand kinds of objects apart on ImageNet also describes
textures well. Its weights are a download of 98 MB. Where they cannot be had, the package has
weights of its own: a slimmer network that was trained to give the features of the ImageNet one
(distillation; FitNets, Romero et al., 2015, arXiv:1412.6550). A random network has learnt nothing,
and serves for comparison.

Deep residual learning for image recognition, He et al., 2015, arXiv:1512.03385.
"""

import hashlib
import os
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from texad.errors import did_you_mean, printable
from texad.io.atomic import sha256
from texad.io.download import download, open_url
from texad.io.tensors import read_tensors, refusing

ENVIRONMENT_VARIABLE = "TEXAD_WEIGHTS"
NAMES = ("auto", "texad", "imagenet", "random")
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
LAST = "layer3.5.conv3.weight"  # of what is needed
TIMEOUT_S = 5.0  # for an answer from the server of the ImageNet weights
# torchvision names its files by the first 8 digits
IMAGENET_SHA256 = "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"
PACKAGED = Path(__file__).with_name("texad_weights.safetensors")  # its metadata say how it was made
# of He et al., as distributed with Keras Applications, in torch's layout: the teacher of PACKAGED
TEACHER_SHA256 = "1bc9d6a52ae3a1ff19c8cc00ebd00b71bba2a955af312f4ac72d144c3f950c89"
ABOUT = {
    "texad": "distilled from a ResNet-50 that was trained on ImageNet",
    "imagenet": "a ResNet-50 that was trained on ImageNet",
    "random": "a network that has learnt nothing",
}  # in a few words; other names are those of files

RANDOM_WARNING = (
    "RANDOM WEIGHTS: these numbers come from a backbone that has learnt nothing (its BatchNorm "
    "statistics were calibrated on the training images). They show how the method works, not how "
    "well it works. The weights texad, which are part of the package, have learnt."
)


class RandomWeightsWarning(UserWarning):
    """Warning that the backbone is a random network, so results say little about the method."""


@dataclass(frozen=True)
class Weights:
    """The weights of a ResNet-50 up to layer3.

    Attributes
    ----------
    name : str
        "texad", "imagenet", "random", or the name of the file.
    sha256 : str
        SHA-256 of the file; for "random", that of the initial tensors.
    state_dict : dict of str to Tensor
        Named as in torchvision's `resnet50`.
    stride_in_1x1 : bool
        True for the original network of He et al., whose stride-2 step sits in the 1x1 convolution
        of the first block of layer2 and layer3; torchvision puts it in the 3x3 convolution.
    """

    name: str
    sha256: str
    state_dict: dict[str, torch.Tensor]
    stride_in_1x1: bool = False

    @property
    def is_random(self) -> bool:
        return self.name == "random"


def check(weights: str | Path) -> str:
    """Check what the user asked for, without looking for the file in the network.

    Parameters
    ----------
    weights : {"auto", "texad", "imagenet", "random"} or path

    Returns
    -------
    str
        The name, or the absolute path.

    Raises
    ------
    ValueError
        If `weights` is neither a known name nor a file of a known kind.
    FileNotFoundError
        If it is a path and there is no such file.
    """
    weights = str(weights)
    if weights in NAMES:
        return weights
    path = Path(weights).expanduser()
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"weights {weights!r}{did_you_mean(weights, NAMES)}: choose auto, texad, imagenet, "
            "random, or a file ending in .safetensors, .pth, .pt or .ckpt"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"weights file {path} does not exist; choose another file, or auto, texad, imagenet "
            "or random"
        )
    return str(path.resolve())


def resolve(weights: str | Path = "auto") -> str:
    """Turn what the user asked for into what will be loaded.

    Parameters
    ----------
    weights : {"auto", "texad", "imagenet", "random"} or path
        "auto" is the environment variable TEXAD_WEIGHTS if set, else "imagenet" if the file is
        cached or its server answers within seconds, else "texad".

    Returns
    -------
    str
        "texad", "imagenet", "random", or an absolute path.

    Raises
    ------
    ValueError, FileNotFoundError
        As `check`.
    """
    weights = check(weights)
    if weights == "auto":
        weights = check(os.environ.get(ENVIRONMENT_VARIABLE) or "auto")
    if weights != "auto":
        return weights
    if imagenet_file().exists():
        return "imagenet"
    with suppress(OSError), open_url(_imagenet_url(), method="HEAD", timeout=TIMEOUT_S):
        return "imagenet"
    return "texad"


def load(weights: str | Path = "auto", seed: int = 0) -> Weights:
    """Load the weights of a ResNet-50 up to layer3, downloading them if need be.

    Parameters
    ----------
    weights : {"auto", "texad", "imagenet", "random"} or path
        See `resolve`. A file is a state dict of torchvision's `resnet50`, whole or ending at
        layer3, of any `width_per_group`; or a checkpoint that holds one, such as Lightning and
        DataParallel write, whose names begin with something more (`module.`, `model.`).
    seed : int, default 0
        Seed of the random initialisation; used by "random" only, with a `RandomWeightsWarning`.

    Raises
    ------
    ValueError
        If a file holds no ResNet-50 state dict, or holds code, which is not run; or if what is
        cached as "imagenet" is something else.
    ConnectionError
        If "imagenet" is asked for, not cached, and cannot be downloaded.
    """
    resolved = resolve(weights)
    if resolved == "random":
        warnings.warn(RANDOM_WARNING, RandomWeightsWarning, stacklevel=2)
        return untrained(seed)
    named = {"texad": lambda: PACKAGED, "imagenet": _downloaded}
    file = named[resolved]() if resolved in named else Path(resolved)
    with refusing(
        f"weights file {file} is no plain state dict of tensors up to layer3",
        "save model.state_dict() of a ResNet-50, with torchvision's names (conv1.weight, …)",
    ):
        if file.suffix == ".safetensors":
            tensors, facts = read_tensors(file)
        else:
            tensors, facts = _loaded(file), {}
        state_dict = _up_to_layer3(_network(tensors))
        if facts.get("packed") == "true":
            state_dict = _unpacked(state_dict)
    return Weights(
        name=resolved if resolved in named else file.name,
        sha256=sha256(file),
        state_dict=state_dict,
        stride_in_1x1=facts.get("stride_in_1x1", "").lower() == "true",
    )


def _loaded(file: Path) -> Any:
    """What torch.save has written, unless it may be code; torch would advise to run it then."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # of TorchScript
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            "it is damaged, or holds a whole model or other objects, which may be code and are not "
            "loaded"
        ) from error


def _network(loaded: Any) -> dict[str, torch.Tensor]:
    """The tensors of the one ResNet-50 in what was loaded, named as torchvision does."""
    tensors = dict(_named("", loaded))
    found = [name for name in tensors if f".{name}".endswith(f".{LAST}")]
    if len(found) != 1:
        several = ", ".join(map(printable, found[:3]))
        raise ValueError(f"it has {'several networks: ' + several if found else f'no {LAST}'}")
    before = found[0].removesuffix(LAST)
    return {
        name.removeprefix(before): tensor
        for name, tensor in tensors.items()
        if name.startswith(before)
    }


def _named(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in dictionaries of dictionaries, with their names joined by dots."""
    if isinstance(value, torch.Tensor):
        yield name, value
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from _named(f"{name}.{key}" if name else str(key), each)


def _unpacked(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo `pretraining/pack.py`: in float32, and with the mean 0 and the variance 1 left out."""
    tensors = {name: tensor.float() for name, tensor in packed.items()}
    for name, shift in packed.items():
        if name.endswith(".bias"):
            norm = name.removesuffix(".bias")
            tensors[f"{norm}.running_mean"] = torch.zeros_like(shift)
            tensors[f"{norm}.running_var"] = torch.ones_like(shift)
    return tensors


def _downloaded() -> Path:
    """Return the file of ImageNet weights, not from torch.hub: that follows any redirection.

    It also trusts eight digits of a hash, and those only of what it has just downloaded.
    """
    file, url = imagenet_file(), _imagenet_url()
    elsewhere = f"set {ENVIRONMENT_VARIABLE} to a file, or choose weights texad"
    if not file.exists():
        try:
            download(url, file, IMAGENET_SHA256, "ResNet-50 weights")
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"the ImageNet weights could not be downloaded ({error}); put {url} at {file}, "
                f"or {elsewhere}"
            ) from error
    elif sha256(file) != IMAGENET_SHA256:
        raise ValueError(
            f"weights file {file} is not the one of {url} (its SHA-256 is wrong): "
            f"delete it to have it downloaded, or {elsewhere}"
        )
    return file


def untrained(seed: int, shortcuts: bool = True) -> Weights:
    """Make random weights.

    Parameters
    ----------
    seed : int
    shortcuts : bool, default True
        Each residual block begins with nothing but its shortcut, since its last scale is zero
        (Goyal et al., 2017, arXiv:1706.02677, section 5.1): a place is then described by what lies
        at this place. Without, every block mixes in, untaught, what lies around it, and a small
        defect is lost among it: chapter 7 shows how much.

    Returns
    -------
    Weights
        Named "random".
    """
    from torchvision.models import resnet50  # takes seconds, and most stages do without

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = resnet50(weights=None, zero_init_residual=shortcuts)
    state_dict = _up_to_layer3(network.state_dict())
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        digest.update(name.encode())
        digest.update(state_dict[name].numpy().tobytes())
    return Weights("random", digest.hexdigest(), state_dict)


def kind(name: str, sha256: str) -> str:
    """Name weights as a table does that compares several: "ImageNet" for those of both makers."""
    return "ImageNet" if sha256 in (IMAGENET_SHA256, TEACHER_SHA256) else name


def _up_to_layer3(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3")
    return {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in stages}


def _imagenet_url() -> str:
    from torchvision.models import ResNet50_Weights  # takes seconds, and most stages do without

    return ResNet50_Weights.IMAGENET1K_V1.url


def imagenet_file() -> Path:
    """Return where ImageNet weights are kept: torchvision's place, which others share."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_imagenet_url()).name
