"""A detector as one ONNX file: from the pixels of an image to its score, without texad or torch.

ONNX Runtime and others run such a file from C++, C#, Java or JavaScript, beside a camera or on a
server. It does what `AnomalyDetector` does once an image was read: resize, backbone, autoencoder,
score, decision.

The resize gives the same whole numbers as `preprocessing.resize`. One grey level more in a few
pixels is nothing to the eye, and not nothing to the backbone, least of all to one with random
weights. A bilinear resize is linear: each row of pixels is multiplied by one matrix, then each
column by another. For pixels of 8 bits torch does this in whole numbers, with weights of 16 bits,
and rounds to 8 bits after each of the two steps, as Pillow does (Resample.c). The matrices depend
on the size of the image, and so an exported detector takes images of one size.
"""

import copy
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from texad.errors import check_choice
from texad.io.atomic import replacing
from texad.model import places
from texad.model.base import FeatureAutoencoder
from texad.model.codebook import QuantizedAutoencoder
from texad.model.cross import CrossFitted, members
from texad.model.preprocessing import Sight

OPSET = 18  # of ONNX 1.13, 2022
TOP_K = 10  # as in scoring.score_features
MAPS = ("places", "pixels")
OUTPUTS = ("score", "anomalous", "anomaly_map")
EXACT = 2**24  # float32 knows every whole number up to here


class Judgement(nn.Module):
    """A detector for images of one size, as one network.

    Parameters
    ----------
    backbone : nn.Module
        Its tensors are shared, as are those of the autoencoder.
    autoencoder : FeatureAutoencoder or CrossFitted
    threshold : float
    size, resized : (int, int)
        Height and width of the images, and what they are resized to, in pixels.
    grid : Grid, optional
        Where the places of the anomaly map lie: it is then given in pixels of the images.
    region : (ndarray, ndarray) or (None, None)
        Pixels and places that count, from `Sight.inside`; by default all.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    inside: torch.Tensor
    there: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        autoencoder: FeatureAutoencoder | CrossFitted,
        threshold: float,
        size: tuple[int, int],
        resized: tuple[int, int],
        grid: places.Grid | None = None,
        region: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None),
    ):
        super().__init__()
        self.down, self.across = (
            Resampling(n_in, n_out) if n_in != n_out else nn.Identity()
            for n_in, n_out in zip(size, resized, strict=True)
        )
        self.backbone = backbone
        pixels, there = region
        self.models = nn.ModuleList(Scoring(model, there) for model in members(autoencoder))
        self.in_pixels, self.has_region = grid is not None, pixels is not None
        if pixels is not None and there is not None:
            self.register_buffer("inside", torch.from_numpy(pixels))
            self.register_buffer("there", torch.from_numpy(there.astype(np.float32)))
        if grid:
            shape = tuple(round(side / grid.stride) for side in resized)
            matrices = places.interpolation(shape, grid, resized, size)
            for name, matrix in zip(("rows", "columns"), matrices, strict=True):
                self.register_buffer(name, torch.from_numpy(matrix))
        self.threshold = float(np.float32(threshold))  # as NumPy compares it with a score

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Judge images: (N, height, width, 3), uint8, RGB, in; `OUTPUTS` out.

        Their shapes and types are (N,), float32; (N,), bool; (N, H, W) or (N, height, width),
        float32. Outside the region, maps are NaN.
        """
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        pixels = self.down(self.across(pixels).mT).mT  # (N, 3, *resized)
        if self.has_region:  # see preprocessing.load_images
            total = (pixels.to(torch.int64) * self.inside).sum(dim=(2, 3), keepdim=True)
            pixels = torch.where(self.inside, pixels, (total / self.inside.sum()).round())
        features = self.backbone(pixels / 255)
        if self.has_region:  # the mean of an image is that of its places inside
            features = torch.where(self.there > 0, features, torch.nan)
        score, anomaly_map = self.models[0](features)
        for model in self.models[1:]:  # see scoring.score_features
            by_model, its_map = model(features)
            is_lower = by_model < score
            score = torch.where(is_lower, by_model, score)
            anomaly_map = torch.where(is_lower[:, None, None], its_map, anomaly_map)
        if self.has_region:
            anomaly_map = self._enlarge(torch.where(self.there > 0, anomaly_map, 0))
            share = self._enlarge(self.there)
            anomaly_map = torch.where(share >= 0.5, anomaly_map / share, torch.nan)
        else:
            anomaly_map = self._enlarge(anomaly_map)
        return score, score > self.threshold, anomaly_map

    def _enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Do as `places.enlarge`, where maps are wanted in pixels."""
        return self.rows @ maps @ self.columns.T if self.in_pixels else maps


class Scoring(nn.Module):
    """From features to score and anomaly map, by one autoencoder."""

    half_squares: torch.Tensor
    counted: torch.Tensor

    def __init__(self, autoencoder: FeatureAutoencoder, there: np.ndarray | None = None):
        super().__init__()
        self.has_region = there is not None
        if there is not None:
            self.register_buffer("counted", torch.from_numpy(np.flatnonzero(there)))
        self.autoencoder = copy.copy(autoencoder)
        if isinstance(self.autoencoder, QuantizedAutoencoder):
            # its loop over batches would be in the file, too
            self.autoencoder.nearest = self._nearest  # type: ignore[assignment]
            self.register_buffer(
                "half_squares", torch.square(self.autoencoder.codebook).sum(dim=1) / 2
            )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score feature maps: (N, C, H, W) in, (N,) and (N, H, W) out."""
        prepared = self.autoencoder.prepare(features)
        errors = torch.square(prepared - self.autoencoder(prepared))  # (N, C, H, W)
        anomaly_map = errors.mean(dim=1)
        # see scoring.image_score
        values = errors if self.autoencoder.reduction == "none" else anomaly_map
        if self.has_region:
            values = values.flatten(-2)[..., self.counted]
        values = values.flatten(1)
        score = values.topk(min(TOP_K, values.shape[1])).values.mean(dim=1)
        if self.autoencoder.reduction == "local_and_global":
            score = score + values.mean(dim=1)
        return score, anomaly_map

    def _nearest(self, codes: torch.Tensor) -> torch.Tensor:
        """Do as `QuantizedAutoencoder.nearest`, all codes at once."""
        return torch.addmm(
            self.half_squares, codes, self.autoencoder.get_buffer("codebook").T, alpha=-1
        ).argmin(dim=1)


class Resampling(nn.Module):
    """Bilinear interpolation with antialiasing along the last axis, in whole numbers.

    The weights of 16 bits are kept as two matrices of 8 bits: the product of each is exact in
    float32, and so it is in the fewer digits that graphics processors may take instead. Other types
    are slow in some runtimes, and missing in others.

    Parameters
    ----------
    n_in, n_out : int
        Pixels before and after.

    Raises
    ------
    ValueError
        If so many pixels take part in one that float32 is not exact.
    """

    coarse: torch.Tensor
    fine: torch.Tensor

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        weights, self.bits = resampling_weights(n_in, n_out)
        coarse, fine = np.divmod(weights, 256)
        if 255 * max(coarse.sum(axis=1).max(), fine.sum(axis=1).max()) > EXACT:
            raise ValueError(
                f"--size: {n_in} pixels are too many to be resized to {n_out} exactly; "
                "make the images smaller beforehand, and give their new size"
            )
        self.register_buffer("coarse", torch.tensor(coarse.T, dtype=torch.float32))  # (n_in, n_out)
        self.register_buffer("fine", torch.tensor(fine.T, dtype=torch.float32))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize the last axis: (…, n_in) → (…, n_out), float32, whole numbers from 0 to 255."""
        total = 256 * (pixels @ self.coarse).to(torch.int32) + (pixels @ self.fine).to(torch.int32)
        rounded = torch.div(total + 2 ** (self.bits - 1), 2**self.bits, rounding_mode="trunc")
        # rounded weights may add up to a little more than 1
        return rounded.clamp(0, 255).to(torch.float32)


def resampling_weights(n_in: int, n_out: int) -> tuple[np.ndarray, int]:
    """Compute the weight of each pixel before in each pixel after, as torch and Pillow do.

    Parameters
    ----------
    n_in, n_out : int
        Pixels before and after.

    Returns
    -------
    weights : ndarray, int64, shape (n_out, n_in)
        From 0 to 2¹⁵ − 1; those of a row add up to 2 to the power of `bits`, but for rounding.
        For images of 8 bits.
    bits : int
        As many as the largest weight allows.
    """
    scale = n_in / n_out
    support = max(scale, 1.0)  # on each side; where the image grows, the nearest two take part
    centres = scale * (np.arange(n_out)[:, None] + 0.5)
    pixels = np.arange(n_in)
    within = (pixels >= np.trunc(centres - support + 0.5)) & (
        pixels < np.trunc(centres + support + 0.5)
    )
    weights = within * np.maximum(0, 1 - np.abs((pixels + 0.5 - centres) / support))
    weights /= weights.sum(axis=1, keepdims=True)
    bits = next(
        bits
        for bits in range(23)
        if bits == 22 or int(0.5 + weights.max() * 2 ** (bits + 1)) >= 2**15
    )
    return (weights * 2**bits + 0.5).astype(np.int64), bits


def write(
    file: Path,
    *,
    backbone: nn.Module,
    autoencoder: FeatureAutoencoder | CrossFitted,
    threshold: float,
    grid: places.Grid,
    size: tuple[int, int],
    sight: Sight,
    map: str = "places",
    about: dict[str, Any],
) -> None:
    """Write a detector as an ONNX file; `AnomalyDetector.to_onnx` says what is in it.

    Parameters
    ----------
    file : Path
    backbone : nn.Module
        Folded, on the CPU.
    autoencoder : FeatureAutoencoder or CrossFitted
    threshold : float
    grid : Grid
        Where the places of the anomaly map lie.
    size : (int, int)
        Height and width of the images, in pixels.
    sight : Sight
        What they are resized to, and where they count: one region for all images.
    map : {"places", "pixels"}, default "places"
        Whether the anomaly map has a value for each place, or for each pixel of the images.
    about : dict
        Facts about the detector for the metadata of the file.

    Raises
    ------
    ValueError
        If onnx is not installed, `size` is out of range, there is no such `map`, or a detector of
        an earlier version, which averages neighbours, has got a region.
    """
    check_choice("map", map, MAPS)
    if sight.region and any(model.widths.get("averaged") for model in members(autoencoder)):
        raise ValueError(
            "region: a detector of an earlier version, which averages neighbours, cannot be "
            "exported with a region: fit it anew, with texad fit --region"
        )
    height, width = size
    if min(height, width) < 1:
        raise ValueError(f"--size: height and width must be at least 1, not {height} and {width}")
    resized = sight.shape(height, width)
    try:
        import onnx
        import onnxscript  # noqa: F401, torch needs it
    except ImportError as error:
        raise ValueError(
            f"an ONNX file needs the package {error.name}: pip install 'texad[export]'"
        ) from error
    with torch.enable_grad():  # else the convolutions would be oneDNN's own: see texad.model.onednn
        program = torch.onnx.export(
            Judgement(
                backbone,
                autoencoder,
                threshold,
                size,
                resized,
                grid if map == "pixels" else None,
                sight.inside(file, resized),
            ).eval(),
            (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it was given no file to write
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # lines of Python, and where they lay on this machine
    about = about | {
        "input": {"height": height, "width": width},
        "resized": dict(zip(("height", "width"), resized, strict=True)),
        "map": map,
        "places": asdict(grid),
        "threshold": threshold,
        "exported_by": {name: version(name) for name in ("texad", "torch", "onnx", "onnxscript")},
    }
    onnx.helper.set_model_props(
        model, {"texad": json.dumps(about, ensure_ascii=False, allow_nan=False)}
    )
    with replacing(file) as temporary:
        onnx.save_model(model, temporary)
