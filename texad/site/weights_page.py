"""The page on the weights of the package: how they were made, and what they are worth."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from texad.io.atomic import sha256
from texad.io.tensors import read_tensors
from texad.model import weights
from texad.model.backbone import build_backbone
from texad.model.preprocessing import IMAGE_SIZE
from texad.model.registry import DETECTORS
from texad.site import markdown, real_surfaces

COMPARED = ("random", "texad", "ImageNet")
WIDE_GAP = 0.05  # of AUROC, between random and ImageNet: less says nothing about the way between


def page(runs: Path, folder: Path) -> str:
    """Make the page in Markdown.

    Parameters
    ----------
    runs, folder : Path
        See `real_surfaces.page`.
    """
    rows = _rows(real_surfaces.by_surface(real_surfaces.results(runs, folder)[0]))
    slim, full = weights.load("texad"), weights.untrained(0)
    networks = [build_backbone(each) for each in (slim, full)]
    return markdown.render(
        "weights",
        facts=read_tensors(weights.PACKAGED)[1],
        file=weights.PACKAGED.name,
        megabytes=weights.PACKAGED.stat().st_size / 1e6,
        sha256=sha256(weights.PACKAGED),
        width=len(slim.state_dict["layer1.0.conv1.weight"]),
        millions=[sum(p.numel() for p in network.parameters()) / 1e6 for network in networks],
        operations=_operations(networks[0]) / _operations(networks[1]),
        compared=COMPARED,
        rows=rows,
        better_maps=[(row["surface"], row["detector"]) for row in rows if _random_is_better(row)],
        ways=[(by, row["surface"], row["detector"]) for row in rows if (by := _way(row))],
        behind=[
            (means["ImageNet"] - means["texad"], row["surface"], row["detector"])
            for row in rows
            if (means := row["means"]).keys() >= {"ImageNet", "texad"}
        ],
    )


def _rows(surfaces: dict[tuple[str, str], list[real_surfaces.Seeds]]) -> list[dict]:
    """A row for each surface and detector that ran with the weights of the package."""
    rows = []
    for (_, category), own in surfaces.items():
        for detector in DETECTORS:
            by_weights = {seeds.weights: seeds for seeds in own if seeds.detector == detector}
            if "texad" in by_weights:
                found = {name: by_weights[name] for name in COMPARED if name in by_weights}
                means = {name: seeds.mean("image_auroc") for name, seeds in found.items()}
                rows.append(
                    {
                        "surface": category,
                        "detector": detector,
                        "seeds": found,
                        "means": {name: mean for name, mean in means.items() if mean is not None},
                    }
                )
    return rows


def _way(row: dict) -> float | None:
    """How much of the way from random to ImageNet in image AUROC; None if that is no way."""
    low, reached, high = (row["means"].get(name) for name in COMPARED)
    if None in (low, reached, high) or high - low <= WIDE_GAP:
        return None
    return (reached - low) / (high - low)


def _random_is_better(row: dict) -> bool:
    """Whether the heatmaps of random weights cover the defects better than the package's do."""
    known = [
        row["seeds"][name].mean("aupro") for name in ("random", "texad") if name in row["seeds"]
    ]
    return len(known) == 2 and None not in known and known[0] > known[1]


@torch.inference_mode()
def _operations(network: nn.Module) -> int:
    """Floating-point operations for one image."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    return int(counter.get_total_flops())
