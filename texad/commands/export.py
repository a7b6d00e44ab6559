"""`texad export`: write a detector for other programs, and check that these judge as it does."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from texad.commands import messages
from texad.data.inputs import stream
from texad.detector import AnomalyDetector
from texad.io.images import WHITE, read_pixels
from texad.model.preprocessing import STRIDE


def export(
    detector: str,
    *,
    out: str | None = None,
    size: tuple[int, int] | None = None,
    region: str | None = None,
    format: str = "onnx",
    map: str = "places",
    check: Sequence[str] = (),
    progress: bool = True,
) -> int:
    """Write a detector as an ONNX file, and say what it takes and gives.

    Parameters
    ----------
    detector : str
        The file of the detector.
    out : str, optional
        The file to write; by default beside the detector, with its name.
    size : (int, int), optional
        Height and width of the images, in pixels; by default those of the training images, if all
        have the same.
    region : str, optional
        See `AnomalyDetector.load`.
    format : {"onnx"}
    map : {"places", "pixels"}, default "places"
        Whether the anomaly map has a value for each place, or for each pixel of the images.
    check : sequence of str, optional
        Images, as in `texad.data.inputs.stream`, that both the detector and the file judge.
    progress : bool, default True
        Show a progress bar of the check.

    Returns
    -------
    int
        The exit status: 1 if the detector and the file decide differently about an image.

    Raises
    ------
    ValueError
        `detector` is none, `out` does not end in .onnx, `size` is needed or out of range, a package
        is missing, or no image can be compared; in one line.
    """
    suffix = f".{format}"
    file = Path(out).expanduser() if out else Path(detector).with_suffix(suffix)
    if file.suffix != suffix or file.is_dir() or file == Path(detector):
        raise ValueError(
            f"--out: a file that ends in {suffix}, such as steel{suffix}, and is not the detector "
            f"itself, instead of {file}"
        )
    if check and not find_spec("onnxruntime"):
        raise ValueError("--check needs the package onnxruntime: pip install 'texad[export]'")
    loaded = AnomalyDetector.load(detector, progress=progress, region=region)
    loaded.to_onnx(file, size, map)
    height, width = size or loaded.origin_["image_size"]
    resized = loaded.sight_.shape(height, width)
    rows, columns = (height, width) if map == "pixels" else (side // STRIDE for side in resized)
    white = loaded.sight_.white
    deep = f"; levels of 16 bits times 255 / {white}, at most 255" if white < WHITE else ""
    print(
        f"{file} ({file.stat().st_size / 1e6:.1f} MB)\n"
        f"input    image: uint8, (N, {height}, {width}, 3), RGB; "
        f"resized in it to {resized[0]} × {resized[1]}{deep}\n"
        f"outputs  score: float32, (N,); anomalous: bool, (N,), score > {loaded.threshold_:.6g}; "
        f"anomaly_map: float32, (N, {rows}, {columns})"
    )
    return _check(loaded, file, (height, width), check, progress) if check else 0


def _check(
    detector: AnomalyDetector,
    file: Path,
    size: tuple[int, int],
    images: Sequence[str],
    progress: bool,
) -> int:
    """Let ONNX Runtime judge images, too, and say how far it differs; 1 if a decision does."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rows: list[list[float]] = []
    differing: list[str] = []
    left_out: list[str] = []
    paths = tqdm(stream(images, left_out.append), "checking", unit="image", disable=not progress)
    for found in detector.stream(paths):
        if found.anomaly_map is None:
            left_out.append(found.error)
            continue
        pixels = read_pixels(found.path, detector.sight_.white)
        if pixels.shape[:2] != size:
            left_out.append("{} has {} × {} pixels".format(found.path, *pixels.shape))
            continue
        (score,), (anomalous,), (its_map,) = session.run(None, {"image": pixels[None]})
        own_map = found.anomaly_map
        if own_map.shape != its_map.shape:
            own_map = detector.enlarge(own_map, size)
        there = np.isfinite(own_map)  # not so outside a region
        of_map = [np.max(values[there]) for values in (abs(its_map - own_map), own_map)]
        rows.append([abs(score - found.score), of_map[0], found.score, of_map[1]])
        if anomalous != found.anomalous:
            differing.append(f"{found.path} (score {found.score:.9g}, exported {score:.9g})")
    if not rows:
        height, width = size
        raise ValueError(
            f"--check: no image of {height} × {width} pixels to compare: {left_out[0]}"
        )
    highest = np.max(rows, axis=0)
    messages.say(
        *messages.words(
            "compared",
            n=len(rows),
            runtime=f"ONNX Runtime {onnxruntime.__version__}",
            differences=highest[:2],
            largest=highest[2:],
            differing=differing,
            threshold=detector.threshold_,
            left_out=left_out,
        )
    )
    return int(bool(differing))
