"""The images of a run, brought to its backbone in another way: detectors compared at one input."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from texad.model import extraction, weights
from texad.model.backbone import (
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    folded_backbone,
    load_backbone,
    locate_places,
    stride_in_1x1,
)
from texad.model.preprocessing import Sight
from texad.model.registry import DETECTORS
from texad.runs.run_folder import SPLITS, STAGES, Run


def sight_of(detector: str, run: Run) -> Sight:
    """Return how a detector looks at a run's images, with the size, region and white of the run."""
    own = run.sight()
    if run.parameter("detector") == detector:
        return own
    its = DETECTORS[detector].sight
    return replace(its, size=own.size, region=own.region, white=own.white)


def features_at(
    run: Run, sight: Sight, folder: Path
) -> tuple[nn.Sequential, dict[str, np.ndarray]]:
    """Extract the features of a run's images at another input, with the weights of the run.

    Parameters
    ----------
    run : Run
        Whose features are extracted.
    sight : Sight
        How the images are brought to the backbone. If this is how the run does it, its features are
        opened, and nothing is computed.
    folder : Path
        Where new features go, a file for each split.

    Returns
    -------
    backbone : nn.Sequential
        Folded. Weights that have learnt keep the place of the map's grid that chapter 2 has
        measured, which input and category move by less than a pixel; random ones are calibrated and
        located anew.
    features : dict of str to ndarray, float32, shape (N, C, H, W)
        Of each split, memory-mapped. Places that are missing are NaN.
    """
    own = run.folder / "features"
    backbone = load_backbone(run.folder / "backbone.safetensors")
    if sight == run.sight():
        return backbone, {split: extraction.load(own / f"{split}.npy") for split in SPLITS}
    record = run.read()
    paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}
    if record["weights"]["name"] == "random":
        seed = record["stages"][STAGES[1]]["parameters"]["seed"]
        backbone = build_backbone(weights.untrained(seed), sight.normalize, sight.layer2)
        calibrate_batchnorm(backbone, paths["train"], sight=sight, progress=False)
        locate_places(fold_batchnorm(backbone), paths["train"], sight=sight)
    else:
        backbone = folded_backbone(
            backbone.state_dict(), stride_in_1x1(backbone), sight.normalize, sight.layer2
        )
    size = extraction.map_size([path for those in paths.values() for path in those], sight)
    options: dict[str, Any] = {"sight": sight, "size": size, "progress": False}
    return backbone, {
        split: extraction.extract(backbone, those, folder / f"{split}.npy", **options)
        for split, those in paths.items()
    }
