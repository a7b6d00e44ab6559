"""A detector as one ONNX file: from the pixels of an image to its score, without texad and without torch.

ONNX Runtime and others run such a file from C++, C#, Java or JavaScript, beside a camera or on a server. What is in it is what
`AnomalyDetector` does once an image was read: resize, backbone, autoencoder, score, decision.

The resize gives the same whole numbers as `preprocessing.resize`. One grey level more in a few pixels is nothing to the eye, and not nothing to
the backbone, least of all to one with random weights. A bilinear resize is linear: each row of pixels is multiplied by one matrix, then each column by
another. For pixels of 8 bits torch does this in whole numbers, with weights of 16 bits, and rounds to 8 bits after each of the two steps, as Pillow
does (Resample.c). The matrices depend on the size of the image, and so an exported detector takes images of one size.
"""

import copy
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from texad.detector import AnomalyDetector
from texad.io.atomic import replacing
from texad.model import preprocessing
from texad.model.codebook import QuantizedAutoencoder

OPSET = 18  # of ONNX 1.13, 2022
TOP_K = 10  # as in scoring.score_features
OUTPUTS = ("score", "anomalous", "anomaly_map")
EXACT = 2**24  # float32 knows every whole number up to here


class Judgement(nn.Module):
    """What a detector does with images of one size, as one network.

    Parameters
    ----------
    detector : AnomalyDetector
        Fitted. Its tensors are shared.
    height, width : int
        Of the images.
    """

    half_squares: torch.Tensor

    def __init__(self, detector: AnomalyDetector, height: int, width: int):
        super().__init__()
        side = detector.image_size
        self.across = Resampling(width, side) if width != side else nn.Identity()
        self.down = Resampling(height, side) if height != side else nn.Identity()
        self.normalized = detector.normalize
        self.backbone = detector.backbone_
        self.autoencoder = copy.copy(detector.autoencoder_)
        if isinstance(
            self.autoencoder, QuantizedAutoencoder
        ):  # its loop over batches would be in the file, too
            self.autoencoder.nearest = self._nearest  # type: ignore[assignment]  # which takes no size of batches
            self.register_buffer(
                "half_squares", torch.square(self.autoencoder.codebook).sum(dim=1) / 2
            )
        self.threshold = float(np.float32(detector.threshold_))  # as NumPy compares it with a score

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, height, width, 3), uint8, RGB, in; out come `OUTPUTS`: (N,), float32; (N,), bool; (N, H, W), float32."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        pixels = self.down(self.across(pixels).mT).mT / 255  # (N, 3, image_size, image_size)
        prepared = self.autoencoder.prepare(
            self.backbone(preprocessing.normalize(pixels) if self.normalized else pixels)
        )
        errors = torch.square(prepared - self.autoencoder(prepared))  # (N, C, H, W)
        anomaly_map = errors.mean(dim=1)
        values = (errors if self.autoencoder.reduction == "none" else anomaly_map).flatten(
            1
        )  # see scoring.image_score
        score = values.topk(TOP_K).values.mean(dim=1)
        if self.autoencoder.reduction == "local_and_global":
            score = score + values.mean(dim=1)
        return score, score > self.threshold, anomaly_map

    def _nearest(self, codes: torch.Tensor) -> torch.Tensor:
        """As `extended.QuantizedAutoencoder.nearest`, all codes at once."""
        return torch.addmm(
            self.half_squares, codes, self.autoencoder.get_buffer("codebook").T, alpha=-1
        ).argmin(dim=1)


class Resampling(nn.Module):
    """Bilinear interpolation with antialiasing along the last axis, in whole numbers.

    The weights of 16 bits are kept as two matrices of 8 bits: the product of each is exact in float32, and so it is in the fewer digits that graphics
    processors may take instead. Other types are slow in some runtimes, and missing in others.

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
                f"--size: {n_in} pixels are too many to be resized to {n_out} exactly; resize the images beforehand, and leave --size out"
            )
        self.register_buffer("coarse", torch.tensor(coarse.T, dtype=torch.float32))  # (n_in, n_out)
        self.register_buffer("fine", torch.tensor(fine.T, dtype=torch.float32))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(…, n_in) → (…, n_out), float32, whole numbers from 0 to 255."""
        total = 256 * (pixels @ self.coarse).to(torch.int32) + (pixels @ self.fine).to(torch.int32)
        rounded = torch.div(total + 2 ** (self.bits - 1), 2**self.bits, rounding_mode="trunc")
        return rounded.clamp(0, 255).to(
            torch.float32
        )  # rounded weights may add up to a little more than 1


def resampling_weights(n_in: int, n_out: int) -> tuple[np.ndarray, int]:
    """How much each pixel has of each pixel before, by torch's and Pillow's rule for images of 8 bits.

    Parameters
    ----------
    n_in, n_out : int
        Pixels before and after.

    Returns
    -------
    weights : ndarray, int64, shape (n_out, n_in)
        From 0 to 2¹⁵ − 1; those of a row add up to 2 to the power of `bits`, but for rounding.
    bits : int
        As many as the largest weight allows.
    """
    scale = n_in / n_out
    support = max(
        scale, 1.0
    )  # on each side; where the image grows, the nearest two pixels take part
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


def to_onnx(
    detector: AnomalyDetector, file: str | Path, size: tuple[int, int] | None = None
) -> None:
    """Write a detector as an ONNX file.

    Its input `image` is uint8, (N, height, width, 3), RGB. Its outputs are `score`, float32, (N,); `anomalous`, bool, (N,); and `anomaly_map`,
    float32, (N, image_size / 16, image_size / 16). Its metadata hold one entry, `texad`, in JSON: size of the images, parameters, threshold, and
    where the detector comes from.

    Scores agree with `AnomalyDetector.score_samples` to about five digits, since numbers are added up in another order. A decision can differ only where
    a score lies so near to the threshold; the calibration image whose score is the threshold is such a case.

    Parameters
    ----------
    detector : AnomalyDetector
        Fitted.
    file : path
        Where it goes (`.onnx`).
    size : (int, int), optional
        Height and width of the images. By default they are `image_size` × `image_size`, and there is nothing to resize.

    Raises
    ------
    ValueError
        If onnx is not installed, or `size` is out of range.
    """
    check_is_fitted(detector, "threshold_")
    height, width = size or (detector.image_size, detector.image_size)
    if min(height, width) < 1:
        raise ValueError(f"--size: height and width must be at least 1, not {height} and {width}")
    try:
        import onnx
        import onnxscript  # noqa: F401, torch needs it
    except ImportError as error:
        raise ValueError(
            f"an ONNX file needs the package {error.name}: pip install 'texad[export]'"
        ) from error
    detector.backbone_.cpu()
    with torch.enable_grad():  # else the convolutions would be oneDNN's own: see texad.model.onednn
        program = torch.onnx.export(
            Judgement(detector, height, width).eval(),
            (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: "N"},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it was given no file to write
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # lines of Python, and where they lay on this machine
    about = {
        "input": {"height": height, "width": width},
        "parameters": {
            name: getattr(detector, name)
            for name in ("detector", "image_size", "normalize", "false_alarms")
        },
        "threshold": detector.threshold_,
        "rule": detector.rule_,
        "n_calibration": len(detector.calibration_scores_),
        "origin": {
            name: value for name, value in detector.origin_.items() if name != "images"
        },  # thousands of hashes
        "exported_by": {name: version(name) for name in ("texad", "torch", "onnx", "onnxscript")},
    }
    onnx.helper.set_model_props(
        model, {"texad": json.dumps(about, ensure_ascii=False, allow_nan=False)}
    )
    with replacing(Path(file)) as temporary:
        onnx.save_model(model, temporary)
