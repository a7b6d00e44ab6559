"""`texad export`: write a detector for other programs."""

from pathlib import Path

from texad.detector import AnomalyDetector
from texad.io.images import WHITE
from texad.model.preprocessing import STRIDE


def export(
    detector: str,
    *,
    out: str | None = None,
    size: tuple[int, int] | None = None,
    region: str | None = None,
    format: str = "onnx",
    map: str = "places",
    progress: bool = True,
) -> str:
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
    progress : bool, default True
        Nothing is shown meanwhile.

    Returns
    -------
    str
        The file, its input and its outputs, a line each.

    Raises
    ------
    ValueError
        `detector` is none, `out` does not end in .onnx, `size` is needed or out of range, or onnx
        is not installed; in one line.
    """
    suffix = f".{format}"
    file = Path(out).expanduser() if out else Path(detector).with_suffix(suffix)
    if file.suffix != suffix or file.is_dir() or file == Path(detector):
        raise ValueError(
            f"--out: a file that ends in {suffix}, such as steel{suffix}, and is not the detector "
            f"itself, instead of {file}"
        )
    loaded = AnomalyDetector.load(detector, progress=progress, region=region)
    loaded.to_onnx(file, size, map)
    height, width = size or loaded.origin_["image_size"]
    resized = loaded.sight_.shape(height, width)
    rows, columns = (height, width) if map == "pixels" else (side // STRIDE for side in resized)
    white = loaded.sight_.white
    deep = f"; levels of 16 bits times 255 / {white}, at most 255" if white < WHITE else ""
    return (
        f"{file} ({file.stat().st_size / 1e6:.1f} MB)\n"
        f"input    image: uint8, (N, {height}, {width}, 3), RGB; "
        f"resized in it to {resized[0]} × {resized[1]}{deep}\n"
        f"outputs  score: float32, (N,); anomalous: bool, (N,), score > {loaded.threshold_:.6g}; "
        f"anomaly_map: float32, (N, {rows}, {columns})"
    )
