"""Detector files that an earlier version wrote must load and give the same scores."""

import lzma
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from texad.detector import AnomalyDetector
from texad.model.backbone import grid

FILES = Path(__file__).parent / "written_before"


@pytest.mark.parametrize(
    ("kind", "score", "threshold"),
    [
        ("published", 1.2229880094528198, 1.2489292621612549),
        ("extended", 20.452857971191406, 22.447574615478516),
    ],
)
def test_a_detector_of_version_0_1_loads_and_judges_as_before(tmp_path, kind, score, threshold):
    """Nearly all of their weights are zero, so that the files are small when they are packed."""
    packed = (FILES / f"{kind}.safetensors.xz").read_bytes()
    (tmp_path / "old.safetensors").write_bytes(lzma.decompress(packed))
    noise = np.random.default_rng(0).integers(90, 150, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png")
    detector = AnomalyDetector.load(tmp_path / "old.safetensors", progress=False)
    assert detector.rule_ == "conformal" and detector.threshold_ == pytest.approx(threshold)
    assert detector.score_samples([tmp_path / "0.png"]) == pytest.approx([score], rel=1e-4)
    assert np.isfinite(grid(detector.backbone_).centre).all()  # measured, since the file has none
