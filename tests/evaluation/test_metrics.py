import tracemalloc

import numpy as np
import pytest
from helpers import naive_aupro
from scipy import stats
from sklearn import metrics as sklearn_metrics

from texad.evaluation import pixel_metrics as pixel_metrics_module
from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import (
    auroc_by_defect,
    auroc_by_severity,
    average_precision,
    decision_metrics,
    f1_max,
    image_auroc,
)
from texad.evaluation.pixel_metrics import N_BINS, pixel_metrics
from texad.model.threshold import predict


def tied(n_normal: int, n_anomalous: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores in random order, with many ties; anomalous images score a bit higher."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [n_normal, n_anomalous]))
    return labels, (rng.integers(0, 8, len(labels)) + 2 * labels).astype(float)


# -- scores of images ------------------------------------------------------------------------------


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    labels, scores = tied(35, 25)
    pairs = [(a > n) + 0.5 * (a == n) for a in scores[labels == 1] for n in scores[labels == 0]]
    assert image_auroc(labels, scores) == pytest.approx(np.mean(pairs))


ONE_NUMBER = [
    image_auroc,
    auroc_interval,
    average_precision,
    f1_max,
]


@pytest.mark.parametrize("function", ONE_NUMBER)
@pytest.mark.parametrize("label", [0, 1])
def test_one_kind_of_image_has_no_number(function, label):
    assert function(np.full(4, label), np.arange(4.0)) is None


@pytest.mark.parametrize("function", ONE_NUMBER)
def test_bad_labels_and_scores_are_named(function):
    with pytest.raises(ValueError, match=r"labels \(3,\) and scores \(2,\)"):
        function([0, 1, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="scores must be finite; number 1 is not"):
        function([0, 1, 1], [1.0, np.nan, 2.0])


@pytest.mark.parametrize(("n_normal", "n_anomalous"), [(35, 25), (12, 40), (3, 1)])
def test_auroc_interval_holds_the_areas_that_are_not_too_far_away(n_normal, n_anomalous):
    """Wilson's interval for 3/2 trials per image of the rarer kind, on a fine grid."""
    labels, scores = tied(n_normal, n_anomalous)
    areas = np.linspace(0, 1, 200_001)
    variance = areas * (1 - areas) / (1.5 * min(n_normal, n_anomalous))
    inside = areas[(image_auroc(labels, scores) - areas) ** 2 <= 1.959963985**2 * variance]
    assert auroc_interval(labels, scores) == pytest.approx((inside.min(), inside.max()), abs=1e-5)


@pytest.mark.parametrize("area", np.linspace(0.001, 0.999, 37))
def test_no_variance_by_hanley_and_mcneil_is_larger_than_two_thirds_of_a_share(area):
    """The bound in the docstring, with many images: 2/3 of the variance of one trial per image."""
    one_kind, other_kind = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    assert one_kind + other_kind <= 2 / 3 * area * (1 - area) + 1e-12


def test_auroc_interval_is_wider_than_if_every_pair_were_a_trial():
    """Normal 1, 3; anomalous 2, 4: three of four pairs are right, and 3 trials are counted."""
    low, high = auroc_interval([0, 1, 0, 1], [1, 2, 3, 4])
    expected = stats.binomtest(3, 4).proportion_ci(method="wilson")  # 4 trials: a bit narrower
    assert 0 < low < expected.low < 0.75 < expected.high < high < 1


def test_auroc_interval_of_two_pairs_of_images_is_wilsons_for_three_trials():
    assert auroc_interval([0, 0, 1, 1], [1, 2, 3, 4]) == pytest.approx(wilson(3, 3))
    assert auroc_interval([0, 0, 1, 1], [3, 4, 1, 2]) == pytest.approx(wilson(0, 3))


def test_auroc_interval_turns_with_the_scores():
    labels, scores = tied(30, 20)
    low, high = auroc_interval(labels, scores)
    assert auroc_interval(labels, -scores) == pytest.approx((1 - high, 1 - low))
    assert auroc_interval(labels, np.exp(scores)) == (low, high)  # only the order counts


def test_more_images_make_a_narrower_interval_also_at_an_auroc_of_one():
    few, many = (auroc_interval([0] * n + [1] * n, range(2 * n)) for n in (5, 50))
    assert few[0] < many[0] < few[1] == many[1] == 1


@pytest.mark.parametrize(("n_normal", "n_anomalous"), [(24, 40), (40, 24), (5, 100), (1, 1)])
def test_a_higher_auroc_never_has_a_lower_end(n_normal, n_anomalous):
    """An anomalous image climbs past the normal ones; at last all are above them, with 1.000."""
    labels = np.repeat([0, 1], [n_normal, n_anomalous])
    ends, areas = [], []
    for above in {0, n_anomalous // 2, n_anomalous - 1}:
        for height in np.arange(n_normal) + 0.5:  # of the next one, among the normal images
            scores = np.r_[np.arange(n_normal), np.repeat(n_normal, above), height]
            scores = np.r_[scores, np.full(n_anomalous, -1.0)][: len(labels)]
            areas.append(image_auroc(labels, scores))
            ends.append(auroc_interval(labels, scores))
    ends = np.array(ends)[np.argsort(areas)]
    assert max(areas) == 1 and (np.diff(ends, axis=0) >= 0).all()


LOWEST_COVERAGE = {  # of 95%, as the docstring says, less what 1,000 repetitions may be off
    "normal": 0.94,
    "rounded": 0.95,
    "exponential": 0.93,
    "spread": 0.92,
    "like the other kind": 0.90,
}


def many_tests(kind, area, n_normal, n_anomalous, rng, n=1000):
    """Scores of `n` tests, shapes (n, n_normal) and (n, n_anomalous), and their true AUROC."""
    normal, anomalous = rng.normal(size=(n, n_normal)), rng.normal(size=(n, n_anomalous))
    if kind == "exponential":
        return (
            rng.exponential(size=normal.shape),
            rng.exponential(area / (1 - area), anomalous.shape),
            area,
        )
    if kind == "like the other kind":  # the others are far away
        far = rng.random(anomalous.shape) >= 2 * (1 - area)
        return normal, anomalous + 100 * far, area
    spread = 3 if kind == "spread" else 1
    distance = np.hypot(1, spread) * stats.norm.ppf(area)
    if kind == "rounded":
        values = np.arange(-12, 25)
        p = np.diff(stats.norm.cdf(np.arange(-12, 26) - 0.5))
        q = np.diff(stats.norm.cdf(np.arange(-12, 26) - 0.5 - distance))
        area = q @ np.heaviside(values[:, None] - values, 0.5) @ p
        return np.round(normal), np.round(anomalous + distance), area
    return normal, spread * anomalous + distance, area


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOWEST_COVERAGE)
@pytest.mark.parametrize(
    ("n_normal", "n_anomalous"),
    [(10, 10), (24, 40), (100, 10), (200, 60), (120, 200)],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(kind, n_normal, n_anomalous):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [n_normal, n_anomalous])
    coverage, widths, ends = {}, [], {}
    for area in (0.7, 0.9, 0.95, 0.99, 0.999):
        normal, anomalous, truth = many_tests(kind, area, n_normal, n_anomalous, rng)
        every = np.hstack([normal, anomalous])
        ranks = stats.rankdata(every, axis=1)[:, n_normal:].sum(axis=1)
        right = ranks - n_anomalous * (n_anomalous + 1) / 2  # pairs in the right order
        for pairs, scores in zip(right, every, strict=True):
            if pairs not in ends:  # the interval knows of the scores only how many pairs are right
                ends[pairs] = auroc_interval(labels, scores)
        low, high = np.array([ends[pairs] for pairs in right]).T
        coverage[area] = float(np.mean((low <= truth) & (truth <= high)))
        widths.append(np.mean(high - low))
    assert min(coverage.values()) >= LOWEST_COVERAGE[kind], coverage
    assert np.mean(widths) < 1.5 / min(n_normal, n_anomalous) ** 0.5  # and not by being endless


@pytest.mark.parametrize("confidence", [95, 1, 0, -0.5, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(
        ValueError,
        match=f"^confidence must be above 0 and below 1 .*, not {confidence}$",
    ):
        auroc_interval([0, 1], [1, 2], confidence=confidence)


def test_average_precision_by_hand_and_by_scikit_learn():
    # from the top: anomalous (1 of 1), normal, anomalous (2 of 3)
    assert average_precision([1, 0, 1, 0], [4, 3, 2, 1]) == pytest.approx((1 + 2 / 3) / 2)
    labels, scores = tied(35, 25)
    assert average_precision(labels, scores) == sklearn_metrics.average_precision_score(
        labels, scores
    )


def best_f1(labels, scores):
    thresholds = [scores.min() - 1, *scores]
    return max(
        sklearn_metrics.f1_score(labels, predict(scores, t), zero_division=0) for t in thresholds
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("seed", range(5))
def test_f1_max_is_the_best_of_all_thresholds_and_its_threshold_reaches_it(dtype, seed):
    labels, scores = tied(20, 20, seed)
    scores = scores.astype(dtype)
    f1, threshold = f1_max(labels, scores)
    assert f1 == pytest.approx(best_f1(labels, scores))
    assert sklearn_metrics.f1_score(labels, predict(scores, threshold)) == pytest.approx(f1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_f1_max_may_call_everything_anomalous(dtype):
    labels, scores = np.array([1, 1, 1, 0]), np.array([0.1, 0.2, 0.3, 0.4], dtype=dtype)
    f1, threshold = f1_max(labels, scores)
    assert f1 == pytest.approx(6 / 7) and predict(scores, threshold).all()


def test_f1_max_takes_the_highest_of_equally_good_thresholds():
    # one hit and no false alarm: 2/3. All four called anomalous: 2/3, too.
    assert f1_max([0, 1, 0, 1], [1, 1, 3, 4]) == (pytest.approx(2 / 3), 3.0)


# -- groups of images ------------------------------------------------------------------------------


def test_auroc_by_defect_compares_each_kind_with_all_good_images():
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array([1.0, 2.0, 3.0, 1.5, 0.5])
    defects = np.array(["good", "good", "cut", "hole", "hole"])
    assert auroc_by_defect(labels, scores, defects) == {"cut": 1.0, "hole": 0.25}


def test_auroc_by_severity_compares_each_third_with_all_good_images():
    labels = np.array([0, 1, 1, 1, 0, 1, 1, 1])
    scores = np.array([1.0, 5.0, 0.0, 1.5, 2.0, 0.5, 5.0, 1.5])
    severity = np.array([0.0, 9.0, 1.0, 3.0, 0.0, 2.0, 8.0, 4.0])
    assert auroc_by_severity(labels, scores, severity) == {
        "mild": 0.0,
        "medium": 0.5,
        "severe": 1.0,
    }
    assert auroc_by_severity(labels, scores, severity, n_groups=1)["1 of 1"] == image_auroc(
        labels, scores
    )
    by_six = auroc_by_severity(labels, scores, severity, n_groups=6)
    assert by_six["1 of 6"] == 0.0 and list(by_six) == [f"{i} of 6" for i in (1, 2, 3, 4, 5, 6)]


def test_equal_severities_stay_together_and_groups_may_be_empty():
    labels, scores = np.array([0, 1, 1, 1]), np.array([1.0, 2.0, 0.0, 3.0])
    assert auroc_by_severity(labels, scores, np.ones(4)) == {
        "mild": pytest.approx(2 / 3),
        "medium": None,
        "severe": None,
    }
    two = auroc_by_severity(labels[:3], scores[:3], np.array([0.0, 5.0, 1.0]))
    assert two == {"mild": 0.0, "medium": None, "severe": 1.0}


def test_unknown_severities_are_left_out():
    labels, scores = np.array([0, 1, 1, 1, 1]), np.array([1.0, 0.0, 2.0, 3.0, 4.0])
    severity = np.array([np.nan, np.nan, 1.0, 2.0, 3.0])
    assert auroc_by_severity(labels, scores, severity) == {
        "mild": 1.0,
        "medium": 1.0,
        "severe": 1.0,
    }
    nothing = {"mild": None, "medium": None, "severe": None}
    assert auroc_by_severity(labels, scores, np.full(5, np.nan)) == nothing
    assert auroc_by_severity(labels[1:], scores[1:], severity[1:]) == nothing  # no good image
    with pytest.raises(ValueError, match="severity"):
        auroc_by_severity(labels, scores, severity[1:])
    with pytest.raises(ValueError, match="n_groups must be at least 1"):
        auroc_by_severity(labels, scores, severity, n_groups=0)


# -- decisions -------------------------------------------------------------------------------------


def wilson(n, total):
    """The interval of a rate of false alarms."""
    return decision_metrics([0] * total, [1] * n + [0] * (total - n))["false_alarm_interval"]


def test_intervals_of_rates_begin_at_0_and_end_at_1_exactly_where_all_images_agree():
    for total in range(1, 200):
        assert wilson(0, total)[0] == 0.0 and wilson(total, total)[1] == 1.0
    # z = 1.96, 0 of 4: the upper end is z² / (n + z²)
    assert wilson(0, 4)[1] == pytest.approx(1.959963985**2 / (4 + 1.959963985**2))


@pytest.mark.parametrize(("n", "total"), [(3, 40), (39, 40), (1, 1)])
def test_intervals_of_rates_hold_the_rates_that_are_not_too_far_away(n, total):
    """Wilson's interval: all p with abs(n / total − p) <= z · √(p (1 − p) / total)."""
    rates = np.linspace(0, 1, 200_001)
    inside = rates[(n / total - rates) ** 2 <= 1.959963985**2 * rates * (1 - rates) / total]
    assert wilson(n, total) == pytest.approx((inside.min(), inside.max()), abs=1e-5)


def test_decision_metrics_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    predictions = np.array([0, 0, 1, 1, 1, 0, 1])
    result = decision_metrics(labels, predictions)
    assert result["confusion"] == {"tn": 2, "fp": 1, "fn": 1, "tp": 3}
    assert result["accuracy"] == pytest.approx(5 / 7)
    assert result["precision"] == result["recall"] == result["f1"] == pytest.approx(3 / 4)
    assert (result["false_alarm_rate"], result["miss_rate"]) == (
        pytest.approx(1 / 3),
        pytest.approx(1 / 4),
    )
    assert result["false_alarm_interval"] == wilson(1, 3)
    assert result["miss_interval"] == wilson(1, 4)


@pytest.mark.filterwarnings("error")
def test_decision_metrics_without_any_alarm_are_zero():
    result = decision_metrics(np.array([0, 1]), np.array([0, 0]))
    assert (
        result["precision"] == result["recall"] == result["f1"] == result["false_alarm_rate"] == 0.0
    )


@pytest.mark.filterwarnings("error")
def test_confusion_matrix_has_four_counts_also_for_one_kind_of_image():
    result = decision_metrics(np.zeros(3), np.zeros(3))
    assert result["confusion"] == {"tn": 3, "fp": 0, "fn": 0, "tp": 0}
    assert (
        result["miss_rate"] is None
        and result["miss_interval"] is None
        and result["false_alarm_rate"] == 0.0
    )
    assert decision_metrics(np.ones(3), np.ones(3))["false_alarm_interval"] is None
    assert result["precision"] == result["recall"] == result["f1"] == 0.0


def test_rates_where_as_many_are_right_as_wrong():
    result = decision_metrics([0, 0, 1, 1], [0, 1, 0, 1])
    assert result["false_alarm_rate"] == result["miss_rate"] == result["accuracy"] == 0.5


# -- maps ------------------------------------------------------------------------------------------


def maps_and_masks(seed, levels=None, offset=0):
    """Images of three sizes; two regions that touch at a corner are one."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros(shape, dtype=bool) for shape in ((12, 9), (8, 8), (10, 11))]
    masks[0][1:4, 1:4] = masks[0][4:7, 4:6] = masks[0][9:11, 1:3] = masks[2][2:9, 3:5] = masks[2][
        0, 0
    ] = True
    maps = [
        rng.integers(0, levels, mask.shape) if levels else rng.random(mask.shape) for mask in masks
    ]
    return masks, [
        (values + offset + (mask * (levels or 1) // 4)).astype(np.float32)
        for mask, values in zip(masks, maps, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("levels", "offset"), [(6, 0), (6, -5), (None, 0), (None, -0.5)])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1])
def test_pixel_metrics_agree_with_naive_ones(seed, levels, offset, max_fpr):
    masks, maps = maps_and_masks(seed, levels, offset)
    result = pixel_metrics(masks, maps, max_fpr)
    # a bin of random numbers may hold two values
    assert result["aupro"] == pytest.approx(
        naive_aupro(masks, maps, max_fpr), abs=1e-12 if levels else 1e-3
    )
    pixels = (np.concatenate([array.ravel() for array in arrays]) for arrays in (masks, maps))
    assert result["pixel_auroc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(*pixels), abs=1e-12 if levels else 1e-4
    )


def test_aupro_by_hand():
    """Two regions, of one pixel and of two, and four normal pixels. From the top: small region,
    normal, half the large one, normal, ...
    """
    mask = np.array([[1, 0, 1, 1, 0, 0, 0]])
    values = np.array([[9, 8, 7, 5, 6, 4, 3]])
    # FPR 0 to 1/4 at overlap 1/2; 1/4 to 1/2 at 3/4; beyond it at 1
    assert pixel_metrics([mask], [values], max_fpr=0.25)["aupro"] == pytest.approx(1 / 2)
    assert pixel_metrics([mask], [values], max_fpr=0.5)["aupro"] == pytest.approx(5 / 8)
    assert pixel_metrics([mask], [values], max_fpr=0.3)["aupro"] == pytest.approx(
        (0.25 * 0.5 + 0.05 * 0.75) / 0.3
    )
    assert pixel_metrics([mask], [values], max_fpr=1)["aupro"] == pytest.approx(
        (0.25 * 0.5 + 0.25 * 0.75 + 0.5) / 1
    )
    assert pixel_metrics([mask], [np.ones((1, 7))]) == {
        "pixel_auroc": 0.5,
        "aupro": pytest.approx(0.15),
        "peak_in_mask": pytest.approx(3 / 7),
    }  # all tied


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((20, 20), dtype=bool)
    mask[:10, :10] = mask[15, 15] = True
    found = mask.copy()
    found[15, 15] = False  # the small one is missed
    result = pixel_metrics([mask], [found.astype(np.float32)], max_fpr=1e-9)
    assert result["aupro"] == pytest.approx(0.5)
    assert result["pixel_auroc"] > 0.99


def test_pixel_metrics_are_perfect_where_the_map_is_the_mask():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 2:4, 2:4] = masks[1, 5:8, 0:3] = True
    assert pixel_metrics(masks, masks.astype(np.float32)) == {
        "pixel_auroc": 1.0,
        "aupro": 1.0,
        "peak_in_mask": 1.0,
    }
    assert pixel_metrics(masks, -masks.astype(np.float32)) == {
        "pixel_auroc": 0.0,
        "aupro": 0.0,
        "peak_in_mask": 0.0,
    }


@pytest.mark.parametrize("masks", [np.zeros((2, 8, 8)), np.ones((2, 8, 8)), np.zeros((0, 8, 8))])
def test_pixels_of_one_kind_have_no_number(masks):
    assert pixel_metrics(masks, np.zeros_like(masks)) == {
        "pixel_auroc": None,
        "aupro": None,
        "peak_in_mask": None,
    }


def test_the_share_of_peaks_in_the_mask_by_hand():
    mask = np.array([[True, False, False]])
    maps = np.array([[[3, 1, 2]], [[1, 3, 2]], [[3, 3, 1]], [[1, 9, 9]]], dtype=np.float32)
    masks = [mask, mask, mask, np.zeros_like(mask)]  # the last image is good
    assert pixel_metrics(masks, maps)["peak_in_mask"] == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_zero_with_a_sign_is_zero():
    assert pixel_metrics([[[1, 0]]], [[[-0.0, 0.0]]])["pixel_auroc"] == 0.5


def test_bins_grow_with_the_value():
    rng = np.random.default_rng(0)
    values = np.sort(rng.normal(size=5000) * 10.0 ** rng.integers(-30, 30, 5000)).astype(np.float32)
    bins = pixel_metrics_module._bins(values)
    assert (np.diff(bins) >= 0).all() and bins.min() >= 0 and bins.max() < N_BINS
    whole = np.arange(-16384, 16385, dtype=np.float32)
    assert len(set(pixel_metrics_module._bins(whole))) == len(whole)


def test_pixel_metrics_refuse_what_does_not_fit_and_name_the_image():
    mask, good = np.zeros((8, 8), dtype=bool), np.zeros((8, 8))
    with pytest.raises(ValueError, match=r"map \(4, 4\) of image 1 .*enlarge"):
        pixel_metrics([mask, mask], [good, np.zeros((4, 4))])
    with pytest.raises(ValueError, match=r"mask \(8,\) and map \(8,\) of image 0"):
        pixel_metrics(mask, good)  # one image instead of many
    for bad in (np.nan, np.inf, 1e39):  # the last one is more than a float32 can hold
        with (
            np.errstate(over="ignore"),
            pytest.raises(ValueError, match="map of image 1 is not finite"),
        ):
            pixel_metrics([mask, mask], [good, np.full((8, 8), bad)])
    with pytest.raises(ValueError, match="ended after 1 images"):
        pixel_metrics([mask, mask], [good])
    for max_fpr in (30, 1.5, 0, -0.1, float("nan")):
        with pytest.raises(
            ValueError, match=f"^max_fpr must be above 0 and at most 1, not {max_fpr}$"
        ):
            pixel_metrics([mask], [good], max_fpr=max_fpr)


def test_ten_thousand_maps_need_no_more_memory_than_a_few():
    """Together the maps and masks of 10,000 images of 64 x 64 pixels would take 205 MB, and their
    sorting more.
    """
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:30, 20:30] = True
    noise = rng.random((16, 64, 64), dtype=np.float32)

    def maps():
        for i in range(10_000):
            yield noise[i % 16] + mask * np.float32(i % 2)

    tracemalloc.start()
    result = pixel_metrics((mask for _ in range(10_000)), maps())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert result["pixel_auroc"] == pytest.approx(0.75, abs=0.02)
