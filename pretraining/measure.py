"""What weights are worth: image AUROC of a cheap detector on real surfaces.

The detector is a principal component analysis of layer3's maps in place of the autoencoder, so one
file takes a minute or two. Weights are judged by how far they come on the way from random
weights to the teacher's. The surfaces judge; pictures are never chosen by them.

    python measure.py RUN/student.safetensors --cache measured.json
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from distil import INPUTS, as_input
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from slimming import build, layers, stem
from torch import Tensor

from texad.model.backbone import build_backbone, calibrate_batchnorm
from texad.model.preprocessing import Sight, load_images
from texad.model.weights import untrained

SIDE = 224
COMPONENTS = 64
HIGHEST = 10  # places whose errors make an image's score
TRAINING = 200  # images, spread evenly


def load(paths: Sequence[Path]) -> Tensor:
    """Return images as uint8, (N, 3, 224, 224)."""
    parts = [paths[i : i + 64] for i in range(0, len(paths), 64)]
    return torch.cat([(load_images(p, Sight(SIDE)) * 255).round().byte() for p in parts])


def surface(folder: Path) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return training images, test images, and which of the latter are defective."""
    training = sorted((folder / "train" / "good").iterdir())
    test = sorted(p for kind in (folder / "test").iterdir() for p in kind.iterdir())
    chosen = np.linspace(0, len(training) - 1, min(TRAINING, len(training))).astype(int)
    defective = np.array([p.parent.name != "good" for p in test])
    return load([training[i] for i in chosen]), load(test), defective


@torch.no_grad()
def maps(network: Callable[[Tensor], Tensor], images: Tensor, name: str) -> Tensor:
    """Return layer3's maps as (N, places, 1024)."""
    found = []
    for part in images.split(16):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(network(as_input(part.float() / 255, name)))
    return torch.cat(found).float().flatten(2).transpose(1, 2)


def auroc(training: Tensor, test: Tensor, defective: np.ndarray) -> float:
    """Fit the components to the places of the training images; score the test images."""
    rows = training.flatten(0, 1)
    mean = rows.mean(0)
    covariance = torch.cov(rows.T)
    kept = torch.linalg.eigh(covariance).eigenvectors[:, -COMPONENTS:]
    centred = test - mean
    lost = centred.square().sum(2) - (centred @ kept).square().sum(2)
    return float(roc_auc_score(defective, lost.topk(HIGHEST, 1).values.mean(1).numpy()))


def of_file(file: Path) -> Callable[[Tensor], Tensor]:
    """Return layer3 of a file of weights, whatever its width."""
    state = load_file(file)
    network = build(len(state["layer1.0.conv1.weight"]), state)
    return lambda images: layers(network, stem(network, images))[2]


def of_random(folder: Path, name: str) -> Callable[[Tensor], Tensor]:
    """Return layer3 of random weights, their BatchNorm calibrated on a surface."""
    network = build_backbone(untrained(0), normalize=name == "normalised")
    paths = sorted((folder / "train" / "good").iterdir())
    calibrate_batchnorm(network, paths, progress=False)
    if name == "normalised":  # `maps` has done it
        network.normalize = torch.nn.Identity()
    return network


def main() -> None:
    here = Path(os.environ.get("TEXAD_SHARED", Path(__file__).parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", help="weights (.safetensors)")
    parser.add_argument("--shared", type=Path, default=here)
    parser.add_argument("--cache", type=Path, help="file that keeps what was measured (.json)")
    options = parser.parse_args()
    teacher = options.shared / "weights" / "resnet50_imagenet_layer3.safetensors"
    cache = options.cache
    known = json.loads(cache.read_text()) if cache and cache.exists() else {}
    columns = {"random": None, "ImageNet": teacher} | {str(f): f for f in options.files}
    hashes = {
        title: hashlib.sha256(file.read_bytes()).hexdigest() if file else "random"
        for title, file in columns.items()
    }
    folders = sorted(p for p in (options.shared / "data").iterdir() if p.is_dir())
    for folder in folders:
        missing = [t for t, h in hashes.items() if f"{h} {folder.name}" not in known]
        training, test, defective = surface(folder) if missing else (None, None, None)
        for title in missing:
            found = []
            for name in INPUTS:
                file = columns[title]
                network = of_file(file) if file else of_random(folder, name)
                found.append(auroc(*(maps(network, x, name) for x in (training, test)), defective))
            known[f"{hashes[title]} {folder.name}"] = found
            if cache:
                cache.write_text(json.dumps(known, indent=1))
    print("| surface | input |", *(f"{Path(t).stem} |" for t in columns), "part of the way |")
    print("| --- | --- |", "---: |" * (len(columns) + 1))
    for folder in folders:
        for i, name in enumerate(INPUTS):
            values = [known[f"{h} {folder.name}"][i] for h in hashes.values()]
            gap = values[1] - values[0]
            way = f"{(values[-1] - values[0]) / gap:.0%}" if gap > 0.05 else ""
            print(f"| {folder.name} | {name} |", *(f"{v:.3f} |" for v in values), f"{way} |")


if __name__ == "__main__":
    main()
