import numpy as np
import pytest

from texad import evaluation


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = rng.integers(0, 10, 60).astype(float)  # with ties
    pairs = [(a > n) + 0.5 * (a == n) for a in scores[labels == 1] for n in scores[labels == 0]]
    assert evaluation.image_auroc(labels, scores) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("label", [0, 1])
def test_auroc_of_one_kind_of_image_is_none(label):
    assert evaluation.image_auroc(np.full(4, label), np.arange(4.0)) is None


def test_auroc_by_defect_compares_each_kind_with_all_good_images():
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array([1.0, 2.0, 3.0, 1.5, 0.5])
    defects = np.array(["good", "good", "cut", "hole", "hole"])
    assert evaluation.auroc_by_defect(labels, scores, defects) == {"cut": 1.0, "hole": 0.25}


def test_decision_metrics_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    predictions = np.array([0, 0, 1, 1, 1, 0, 1])
    result = evaluation.decision_metrics(labels, predictions)
    assert result["confusion"] == {"tn": 2, "fp": 1, "fn": 1, "tp": 3}
    assert result["accuracy"] == pytest.approx(5 / 7)
    assert result["precision"] == result["recall"] == result["f1"] == pytest.approx(3 / 4)


def test_decision_metrics_without_any_alarm_are_zero():
    result = evaluation.decision_metrics(np.array([0, 1]), np.array([0, 0]))
    assert result["precision"] == result["recall"] == result["f1"] == 0.0


def test_confusion_matrix_has_four_counts_also_for_one_kind_of_image():
    assert evaluation.decision_metrics(np.zeros(3), np.zeros(3))["confusion"] == {"tn": 3, "fp": 0, "fn": 0, "tp": 0}


def test_upsample_keeps_constants_and_the_place_of_the_peak():
    maps = np.full((2, 4, 4), 0.5, dtype=np.float32)
    maps[1, 3, 0] = 2.0
    large = evaluation.upsample(maps, 16)
    assert large.shape == (2, 16, 16)
    np.testing.assert_allclose(large[0], 0.5)
    assert np.argwhere(large[1] == large[1].max()).mean(axis=0).tolist() > [12, 0]
    row, column = np.argwhere(large[1] == large[1].max()).mean(axis=0)
    assert row >= 12 and column <= 3


def test_pixel_auroc_is_perfect_where_the_map_is_the_mask():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 2:4, 2:4] = True
    assert evaluation.pixel_auroc(masks, masks.astype(np.float32)) == 1.0
    assert evaluation.pixel_auroc(masks, -masks.astype(np.float32)) == 0.0
    assert evaluation.pixel_auroc(np.zeros_like(masks), masks.astype(np.float32)) is None


def test_pixel_auroc_refuses_maps_of_another_size():
    with pytest.raises(ValueError, match="upsample"):
        evaluation.pixel_auroc(np.zeros((1, 8, 8), dtype=bool), np.zeros((1, 4, 4)))
