"""Large images: what is small in them is found, and memory does not grow with their number."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from texad.detector import AnomalyDetector

pytestmark = pytest.mark.slow


def save(file, seed, side, spot=0):
    """A woven surface, and perhaps a dark spot of so many pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    grey = 130 + 22 * np.sin(x / 3 + rng.uniform(0, 6)) * np.sin(y / 4 + rng.uniform(0, 6))
    grey += rng.normal(0, 6, grey.shape)
    row, column = rng.integers(50, side - 50, 2)
    grey[row : row + spot, column : column + spot] *= 0.55
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)
    return str(file)


def test_a_spot_of_16_pixels_is_found_in_an_image_of_3072(tmp_path):
    train = [save(tmp_path / f"train{i}.png", i, 3072) for i in range(4)]
    good = [save(tmp_path / f"good{i}.png", 50 + i, 3072) for i in range(2)]
    bad = [save(tmp_path / f"bad{i}.png", 100 + i, 3072, spot=16) for i in range(2)]
    options = {"weights": "texad", "image_size": 1536, "progress": False}
    made = AnomalyDetector("extended", calibration_fraction=0.25, **options).fit(train)
    judged = list(made.stream(good + bad))
    assert {each.anomaly_map.shape for each in judged} == {(96, 96)}
    peaks = [each.anomaly_map.max() for each in judged]
    assert min(peaks[2:]) > 3 * max(peaks[:2])


# In a process of its own, whose peak is known. What it holds at once, a block of images to learn
# from and a sample of their places, is made small, so that few images fill it.
PEAK = """
import resource, sys
from texad.detector import AnomalyDetector
from texad.model import base, codebook, registry

base.BLOCK, codebook.VECTORS, codebook.IMAGES = 4, 2000, 4
kind, n, *files = sys.argv[1:]
paths = [files[i % len(files)] for i in range(int(n))]
options = {"weights": "texad", "image_size": 448, "progress": False, "calibration_fraction": 0.2}
detector = AnomalyDetector(kind, **options).fit(paths)
peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
for _ in detector.stream(5 * paths):
    pass
peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in other units elsewhere")
@pytest.mark.parametrize("kind", ["published", "extended"])
def test_memory_does_not_grow_with_the_number_of_images(kind, tmp_path):
    files = [save(tmp_path / f"{i}.png", i, 1200) for i in range(6)]

    def peaks(n):  # MB, after the fit to n images, and after judging 5 n
        command = [sys.executable, "-c", PEAK, kind, str(n), *files]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(peak) / 1024 for peak in done.stdout.split()]

    few, many = peaks(10), peaks(50)
    # the features of the 40 images more take 126 MB
    assert many[0] < few[0] + 40 and many[1] < few[1] + 40
