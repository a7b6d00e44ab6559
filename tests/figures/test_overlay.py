import numpy as np
import pytest
from PIL import Image

from texad.figures.overlay import overlay


def test_an_overlay_keeps_the_shape_and_glows_only_where_the_map_is_high():
    heat = np.ones((80, 160), dtype=np.float32)
    heat[20:40, 120:140] = 100
    grey = Image.new("RGB", (160, 80), (100, 100, 100))
    covered = np.asarray(overlay(grey, heat, (1, 100))).astype(int)
    assert covered.shape == (80, 160, 3)
    assert np.abs(covered[:, :90] - 100).max() < 12 and covered[30, 130, 0] > 200


@pytest.mark.parametrize("heat", [(0, 0), (1, 1), (0.5, 0.5)])
def test_an_overlay_needs_no_difference_between_the_ends_of_its_scale(heat):
    covered = overlay(Image.new("RGB", (8, 8)), np.zeros((8, 8), dtype=np.float32), heat)
    assert covered.size == (8, 8)


def test_a_map_of_another_size_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"anomaly_map \(8, 4\) must be as large .* \(4, 8\)"):
        overlay(Image.new("RGB", (8, 4)), np.zeros((8, 4), dtype=np.float32), (0, 1))
