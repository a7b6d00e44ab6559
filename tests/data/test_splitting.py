import numpy as np
import pytest

from texad.data import splitting


@pytest.mark.parametrize(
    ("n", "fraction", "kept_out"),
    [
        (96, 0.2, 19),
        (6, 0.2, 1),
        (6, 0, 0),
        (2, 0.01, 1),
        (2, 0.99, 1),
        (6, 0.99, 5),
        (1, 0.2, 0),
        (3, 0.5, 2),
    ],
)
def test_how_many_images_are_kept_out(n, fraction, kept_out):
    train, calibration = splitting.keep_out(range(n), fraction, 0)
    assert len(calibration) == kept_out and len(train) == n - kept_out


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
def test_each_image_is_either_kept_or_held_out(n, fraction):
    kept, held_out = splitting.split(n, fraction, np.random.default_rng(0))
    assert sorted([*kept, *held_out]) == list(range(n))
    assert (np.diff(kept) > 0).all() and (np.diff(held_out) > 0).all()
    assert len(held_out) >= (n > 1 and fraction > 0) and (len(kept) > 0 or n == 0)
