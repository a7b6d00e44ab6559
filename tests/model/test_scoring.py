from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import needs_shared

from texad.model import autoencoder, codebook, extraction, registry, scoring, weights
from texad.model.autoencoder import Autoencoder
from texad.model.backbone import build_backbone, fold_batchnorm
from texad.model.preprocessing import Sight
from texad.model.threshold import (
    RULES,
    check_rule,
    conformal_threshold,
    images_needed,
    p_values,
    predict,
    sigma_threshold,
    thresholds_by_rule,
)

RNG = np.random.default_rng(0)
F = RNG.normal(size=(3, 5, 4, 4)).astype(np.float32)
F_HAT = RNG.normal(size=(3, 5, 4, 4)).astype(np.float32)


def test_error_map_is_the_squared_difference():
    expected = np.empty_like(F)
    for index in np.ndindex(F.shape):
        expected[index] = (F[index] - F_HAT[index]) * (F[index] - F_HAT[index])
    np.testing.assert_allclose(scoring.error_map(F, F_HAT), expected, rtol=1e-6)


def test_score_is_the_mean_of_the_ten_largest_of_all_values():
    errors = scoring.error_map(F, F_HAT)
    expected = [np.mean(sorted(image.ravel().tolist(), reverse=True)[:10]) for image in errors]
    np.testing.assert_allclose(scoring.image_score(errors), expected, rtol=1e-6)


def test_other_reading_averages_over_channels_first():
    errors = scoring.error_map(F, F_HAT)
    expected = [
        np.mean(sorted(image.mean(axis=0).ravel().tolist(), reverse=True)[:3]) for image in errors
    ]
    np.testing.assert_allclose(
        scoring.image_score(errors, top_k=3, reduction="channel_mean"), expected, rtol=1e-6
    )
    assert not np.allclose(scoring.image_score(errors, top_k=3), expected)


def test_the_extended_reading_adds_the_mean_of_the_whole_anomaly_map_by_hand():
    errors = np.array(
        [[[[1.0, 2.0], [3.0, 4.0]], [[3.0, 0.0], [1.0, 8.0]]]]
    )  # one image, two channels: A = 2, 1, 2, 6
    assert scoring.image_score(errors, top_k=2, reduction="local_and_global").tolist() == [
        (6 + 2) / 2 + (2 + 1 + 2 + 6) / 4
    ]
    assert scoring.image_score(errors, top_k=4, reduction="local_and_global").tolist() == [
        2 * 11 / 4
    ]


def test_without_a_reduction_the_score_is_the_detectors_own():
    published = Autoencoder(channels=5, hidden=4, bottleneck=2).eval()
    fitted, _ = codebook.fit(F, bottleneck=2, words=4, steps=1, progress=False)
    assert (published.reduction, fitted.reduction) == ("none", "local_and_global")
    for detector in (published, fitted):
        own, _ = scoring.score_features(detector, F, top_k=3, progress=False)
        named, maps = scoring.score_features(
            detector, F, top_k=3, reduction=detector.reduction, progress=False
        )
        np.testing.assert_array_equal(own, named)
        other, _ = scoring.score_features(
            detector, F, top_k=3, reduction="channel_mean", progress=False
        )
        assert not np.allclose(own, other)
    np.testing.assert_allclose(own, other + maps.mean(axis=(1, 2)), rtol=1e-5)


def test_the_published_detector_sees_the_features_as_they_are():
    published = Autoencoder(channels=5, hidden=4, bottleneck=2)
    np.testing.assert_array_equal(scoring.prepare(published, F), F)


@pytest.mark.parametrize(
    ("n", "false_alarms", "rule"),
    [
        (0, 0.05, "sigma"),
        (1, 0.05, "sigma"),
        (2, 0.05, "held_out"),
        (18, 0.05, "held_out"),
        (19, 0.05, "conformal"),
        (19, 0.01, "held_out"),
    ],
)
def test_the_rule_of_the_extended_detector_is_the_best_for_which_there_are_images_enough(
    n, false_alarms, rule
):
    assert registry.default_rule("extended", n, false_alarms) == rule
    assert registry.default_rule("published", n, false_alarms) == "sigma"
    check_rule(rule, n, false_alarms)  # what it chooses can be used


def test_anomaly_map_is_the_mean_over_channels():
    errors = scoring.error_map(F, F_HAT)
    assert scoring.anomaly_map(errors).shape == (3, 4, 4)
    np.testing.assert_allclose(
        scoring.anomaly_map(errors)[1, 2, 3], errors[1, :, 2, 3].mean(), rtol=1e-6
    )


def test_threshold_uses_the_population_standard_deviation():
    scores = [1.0, 2.0, 3.0, 6.0]
    mu = sum(scores) / 4
    sigma = (sum((score - mu) ** 2 for score in scores) / 4) ** 0.5
    assert sigma_threshold(np.array(scores)) == pytest.approx(mu + 3 * sigma)
    assert sigma_threshold(np.array(scores), n_sigma=1) == pytest.approx(mu + sigma)


def test_a_score_at_the_threshold_is_normal():
    assert predict(np.array([0.9, 1.0, 1.1]), 1.0).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "scores must hold at least one score"),
        ([1.0, np.nan], "scores must be finite, and 1 of 2 are not"),
        ([np.inf, 1.0, 2.0], "scores must be finite, and 1 of 3 are not"),
    ],
)
def test_threshold_refuses_scores_without_meaning(scores, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        sigma_threshold(np.array(scores))


@pytest.mark.parametrize("n_sigma", [float("nan"), float("inf"), float("-inf")])
def test_threshold_refuses_an_n_sigma_without_meaning(n_sigma):
    with pytest.raises(
        ValueError, match=f"^n_sigma must be a finite number, for instance 3, not {n_sigma}$"
    ):
        sigma_threshold(np.arange(3.0), n_sigma)


def test_single_precision_scores_have_the_threshold_of_the_same_double_precision_ones():
    scores = np.random.default_rng(3).random(50, dtype=np.float32)
    assert sigma_threshold(scores) == sigma_threshold(scores.astype(np.float64))
    assert p_values(scores, scores[:1]).dtype == np.float64


def test_the_top_one_is_the_largest():
    errors = scoring.error_map(F, F_HAT)
    np.testing.assert_array_equal(scoring.image_score(errors, top_k=1), errors.max(axis=(1, 2, 3)))


@pytest.mark.parametrize("top_k", [0, -1, 81])
def test_top_k_out_of_range_is_refused(top_k):
    with pytest.raises(ValueError, match="at least 1 and at most 80"):
        scoring.image_score(scoring.error_map(F, F_HAT), top_k=top_k)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="none, channel_mean, local_and_global"):
        scoring.image_score(F, reduction="median")


def test_no_images_have_no_scores():
    scores, maps = scoring.score_features(
        Autoencoder(channels=5, hidden=4, bottleneck=2), F[:0], progress=False
    )
    assert scores.shape == (0,) and maps.shape == (0, 4, 4)


def test_batches_give_the_same_scores_as_all_at_once():
    torch.manual_seed(0)
    autoencoder = Autoencoder(channels=5, hidden=4, bottleneck=2).eval()
    errors = scoring.error_map(F, scoring.reconstruct(autoencoder, F))
    scores, maps = scoring.score_features(autoencoder, F, batch_size=2, progress=False)
    np.testing.assert_allclose(scores, scoring.image_score(errors), rtol=1e-5)
    np.testing.assert_allclose(maps, scoring.anomaly_map(errors), rtol=1e-5)


def test_scores_and_maps_are_single_precision():
    scores, maps = scoring.score_features(
        Autoencoder(channels=5, hidden=4, bottleneck=2).eval(), F, progress=False
    )
    assert scores.dtype == maps.dtype == np.float32


def test_a_bar_shows_the_batches_unless_it_is_unwanted(capsys):
    autoencoder = Autoencoder(channels=5, hidden=4, bottleneck=2).eval()
    scoring.score_features(autoencoder, F, batch_size=2)
    shown = capsys.readouterr().err
    assert "scoring:" in shown and "2/2" in shown and ("batch/s" in shown or "s/batch" in shown)
    scoring.score_features(autoencoder, F, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "sizes"), [({}, [8, 8, 8, 8, 3]), ({"batch_size": 10}, [10, 10, 10, 5])]
)
def test_one_batch_is_in_memory_at_a_time_and_what_was_read_is_given_back(
    options, sizes, monkeypatch
):
    many = np.repeat(F[:1], 35, axis=0)
    seen, given_back = [], []
    autoencoder = Autoencoder(channels=5, hidden=4, bottleneck=2).eval()
    autoencoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(scoring, "release", given_back.append)
    scoring.score_features(autoencoder, many, progress=False, **options)
    assert seen == sizes and [array is many for array in given_back] == [True] * len(sizes)


# -- p-values and the conformal threshold ----------------------------------------------------------


def naive_p_value(calibration: list, score: float) -> Fraction:
    return Fraction(1 + sum(other >= score for other in calibration), len(calibration) + 1)


def test_p_values_by_hand():
    # of the calibration scores 1, 2, 2, 3: four are at least 0, three at least 2, one at least 3,
    # none at least 4
    assert p_values(np.array([2.0, 1.0, 3.0, 2.0]), np.array([0.0, 2.0, 3.0, 4.0])).tolist() == [
        1.0,
        0.8,
        0.4,
        0.2,
    ]


def test_without_calibration_images_nothing_is_known_against_any_image():
    assert p_values(np.array([]), np.array([1.0, 1e9])).tolist() == [1.0, 1.0]


def test_conformal_threshold_by_hand():
    calibration = np.arange(1.0, 20.0)  # 19 images: 1, 2, …, 19
    assert conformal_threshold(calibration[::-1], 0.05) == 19  # the ⌈20 · 0.95⌉ = 19th smallest
    assert conformal_threshold(calibration, 0.1) == 18
    assert conformal_threshold(calibration, 0.14) == 18  # ⌈20 · 0.86⌉ = ⌈17.2⌉
    assert conformal_threshold(calibration, 0.15) == 17
    assert (
        conformal_threshold(np.arange(1.0, 100.0), 0.29) == 71
    )  # 100 · 0.29 is 28.999999999999996 in floats


def test_exactly_enough_images_are_enough_for_every_round_alpha():
    for m in range(2, 400):
        assert images_needed(1 / m) == m - 1
        assert conformal_threshold(np.arange(m - 1.0), 1 / m) == m - 2
        if m > 2:
            with pytest.raises(
                ValueError,
                match=f"needs at least {m - 1} calibration images, and there are {m - 2}",
            ):
                conformal_threshold(np.arange(m - 2.0), 1 / m)


@pytest.mark.parametrize(
    ("false_alarms", "needed"),
    [(0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (0.07, 14), (0.5, 1), (0.9, 1)],
)
def test_images_needed_by_hand(false_alarms, needed):
    assert images_needed(false_alarms) == needed


@pytest.mark.parametrize("false_alarms", [1e-12, 8.460617862160206e-22, 2.8e-291, 5e-324])
def test_an_alpha_however_small_needs_a_number_of_images(false_alarms):
    needed = images_needed(false_alarms)
    assert needed * Fraction(false_alarms) == pytest.approx(1, rel=1e-9)
    with pytest.raises(ValueError, match=f"false_alarms = {false_alarms} needs at least {needed} "):
        conformal_threshold(np.arange(99.0), false_alarms)


def test_too_few_images_names_alpha_and_both_numbers():
    way_out = "add good images, or choose a larger false_alarms$"
    with pytest.raises(
        ValueError,
        match=r"^false_alarms = 0\.05 needs at least 19 calibration images, and there are 18: "
        + way_out,
    ):
        conformal_threshold(np.ones(18))
    with pytest.raises(ValueError, match="there are 0"):
        conformal_threshold(np.array([]), 0.05)


@pytest.mark.parametrize("false_alarms", [0, 1, -0.1, 1.5, float("nan")])
def test_an_alpha_that_is_no_rate_is_refused(false_alarms):
    with pytest.raises(ValueError, match="false_alarms"):
        conformal_threshold(np.arange(99.0), false_alarms)
    with pytest.raises(ValueError, match="false_alarms"):
        check_rule("conformal", 99, false_alarms)


def test_scores_that_are_not_finite_are_refused_by_name():
    broken = np.array([1.0, np.nan])
    for call, name in (
        (lambda: conformal_threshold(broken, 0.5), "calibration_scores"),
        (lambda: p_values(broken, F.ravel()), "calibration_scores"),
        (lambda: p_values(F.ravel(), broken), "scores"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be finite, and 1 of 2 are not"):
            call()


def test_above_the_conformal_threshold_is_exactly_a_p_value_of_at_most_alpha():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 120))
        calibration = rng.integers(0, rng.integers(1, 40), n).astype(float)  # with many ties
        scores = np.concatenate([calibration, np.arange(-1.0, 41.0)])
        p = p_values(calibration, scores)
        assert p.tolist() == [float(naive_p_value(calibration.tolist(), score)) for score in scores]
        false_alarms = rng.choice(
            [
                0.01,
                0.05,
                0.07,
                0.1,
                0.29,
                0.3,
                0.57,
                1 / 49,
                rng.uniform(0.001, 0.999),
                rng.integers(1, n + 1) / (n + 1),
            ]
        )
        if n >= images_needed(false_alarms):
            np.testing.assert_array_equal(
                predict(scores, conformal_threshold(calibration, false_alarms)),
                p <= false_alarms,
            )
        else:
            assert (p > false_alarms).all()


def test_each_group_counts_as_one_image():
    scores, groups = [1.0, 2.0, 3.0, 4.0, 9.0], ["a", "a", "b", "b", "c"]
    # at least 2.5: half of a's images count nothing, both of b's one, c's another
    assert p_values(scores, [2.5, 3.5, 9.0, 9.5], groups) == pytest.approx(
        [3 / 4, 2.5 / 4, 0.5, 0.25]
    )
    assert conformal_threshold(scores, 0.25, groups) == 9
    assert conformal_threshold(scores, 0.5, groups) == 4
    with pytest.raises(ValueError, match="19 calibration groups of images, and there are 3"):
        conformal_threshold(scores, 0.05, groups)
    found = thresholds_by_rule(np.ones(3), np.array(scores), false_alarms=0.25, groups=groups)
    assert found["conformal"] == 9 and found["held_out"] is not None
    alone = thresholds_by_rule(np.ones(3), np.array(scores), 3.0, 0.25, ["same"] * 5)
    assert alone["conformal"] is None and alone["held_out"] is None
    with pytest.raises(ValueError, match="groups must name one for each of 5 scores, not 2"):
        p_values(scores, [1.0], groups[:2])


def test_with_groups_too_above_the_threshold_is_a_p_value_of_at_most_alpha():
    rng = np.random.default_rng(3)
    for _ in range(100):
        n = int(rng.integers(20, 120))
        calibration = rng.integers(0, 30, n).astype(float)
        groups = [str(each) for each in rng.integers(0, 15, n)]
        scores = np.arange(-1.0, 31.0)
        p = p_values(calibration, scores, groups)
        t = conformal_threshold(calibration, 0.2, groups)
        np.testing.assert_array_equal(predict(scores, t), p <= 0.2)
    ones = p_values(calibration, scores, list(map(str, range(n))))
    np.testing.assert_allclose(ones, p_values(calibration, scores))


def test_the_three_rules_side_by_side():
    train, calibration = np.array([1.0, 3.0]), np.arange(19.0)
    result = thresholds_by_rule(train, calibration, n_sigma=2, false_alarms=0.05)
    assert result == {"sigma": 4.0, "held_out": pytest.approx(9 + 2 * 30**0.5), "conformal": 18.0}
    assert tuple(result) == RULES
    assert thresholds_by_rule(train, calibration[:18])["conformal"] is None
    assert thresholds_by_rule(train, calibration[:1])["held_out"] is None
    assert thresholds_by_rule(train, calibration[:2])["held_out"] == 0.5 + 3 * 0.5
    assert thresholds_by_rule(train, calibration, false_alarms=0.1)["conformal"] == 17.0
    assert (
        registry.default_rule("extended", 19) == "conformal"
        and registry.default_rule("extended", 18) == "held_out"
    )
    assert thresholds_by_rule(train, calibration[:0]) == {
        "sigma": 5.0,
        "held_out": None,
        "conformal": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("3sigma", 50), "rule must be one of sigma, held_out, conformal, not '3sigma'"),
        (
            ("held_out", 1),
            r"rule held_out needs at least 2 calibration images \(or groups\), and there are 1",
        ),
        (
            ("conformal", 18),
            r"rule conformal needs at least 19 calibration images \(or groups\) for "
            r"false_alarms = 0\.05, and there are 18",
        ),
    ],
)
def test_a_rule_out_of_reach_is_said_before_the_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_rule(*arguments)
    check_rule("sigma", 0)
    check_rule("held_out", 2)
    check_rule("conformal", 19)


# -- the promise -----------------------------------------------------------------------------------

ALPHAS = (0.01, 0.05, 0.1)


def check_promise(false_alarm_rate) -> None:
    """Over 200 random splits, the false-alarm rate is on the average at most α + 0.01.

    Parameters
    ----------
    false_alarm_rate : callable
        Takes a random generator, which draws one split, and α; gives the share of good images in it
        that are rejected.
    """
    for false_alarms in ALPHAS:
        rng = np.random.default_rng(0)
        average = np.mean([false_alarm_rate(rng, false_alarms) for _ in range(200)])
        assert average <= false_alarms + 0.01, f"false_alarms {false_alarms}: {average:.3f}"


def simulated(rng, n):
    """Skewed scores; those of images that the autoencoder was fit to are smaller by a quarter."""
    return rng.lognormal(0, 0.6, n), 0.75 * rng.lognormal(0, 0.6, n)


def test_conformal_keeps_its_promise_on_skewed_scores():
    def rate(rng, false_alarms):
        calibration, fresh = simulated(rng, 150)[0], simulated(rng, 500)[0]
        return np.mean(fresh > conformal_threshold(calibration, false_alarms))

    check_promise(rate)


def test_sigma_breaks_it_on_skewed_scores():
    def rate(rng, false_alarms):
        seen, fresh = simulated(rng, 150)[1], simulated(rng, 500)[0]
        return np.mean(fresh > sigma_threshold(seen))

    with pytest.raises(AssertionError, match=r"false_alarms 0\.01"):
        check_promise(rate)


@pytest.fixture(scope="module")
def real_scores(tmp_path_factory):
    """Scores of real good images by an autoencoder fit to 60 of them: those 60, and 320 others."""
    root = needs_shared("data/magnetic_tile")
    backbone = fold_batchnorm(
        build_backbone(weights.load(needs_shared("weights/resnet50_imagenet_layer3.safetensors")))
    )
    good = sorted((root / "train" / "good").iterdir())
    chosen = [
        *(good[i] for i in np.random.default_rng(0).choice(len(good), 260, replace=False)),
        *sorted((root / "test" / "good").iterdir()),
    ]
    F_real = extraction.extract(
        backbone, chosen, tmp_path_factory.mktemp("real") / "x.npy", sight=Sight(96), progress=False
    )
    fitted, _ = autoencoder.fit(
        F_real[:60], hidden=256, bottleneck=128, steps=900, batch_size=64, progress=False
    )
    scores, _ = scoring.score_features(fitted, F_real, progress=False)
    return scores[:60], scores[60:]


def test_conformal_keeps_its_promise_on_real_surfaces(real_scores):
    _, good = real_scores

    def rate(rng, false_alarms):
        shuffled = rng.permutation(good)
        return np.mean(shuffled[150:] > conformal_threshold(shuffled[:150], false_alarms))

    check_promise(rate)


def test_sigma_breaks_it_on_real_surfaces(real_scores):
    seen, good = real_scores

    def rate(rng, false_alarms):
        return np.mean(rng.permutation(good)[150:] > sigma_threshold(seen))

    with pytest.raises(AssertionError, match=r"false_alarms 0\.01"):
        check_promise(rate)


def fit_mean(points):
    """The simplest detector: the distance from the mean of the points that it was fit to."""
    return lambda others: np.linalg.norm(others - points.mean(axis=0), axis=1)


def test_the_least_strange_of_five_models_keeps_its_promise_with_twenty_images_and_sigma_does_not():
    n, K = 20, 5

    def cross(rng, false_alarms):
        points, fresh = rng.standard_t(4, (n, 12)), rng.standard_t(4, (60, 12))
        folds = rng.permutation(n) % K
        held_out, new = np.empty(n), np.empty((K, len(fresh)))
        for fold in range(K):
            score = fit_mean(points[folds != fold])
            held_out[folds == fold], new[fold] = score(points[folds == fold]), score(fresh)
        return np.mean(p_values(held_out, new.min(axis=0)) <= false_alarms)

    def sigma(rng, false_alarms):
        points, fresh = rng.standard_t(4, (n, 12)), rng.standard_t(4, (60, 12))
        score = fit_mean(points)
        return np.mean(score(fresh) > sigma_threshold(score(points)))

    check_promise(cross)
    with pytest.raises(AssertionError, match=r"false_alarms 0\.01"):
        check_promise(sigma)


# -- several models --------------------------------------------------------------------------------


def some_features(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 6, 4, 4)).astype(np.float32)


OPTIONS = {
    "published": {"hidden": 8, "bottleneck": 2, "steps": 20, "progress": False},
    "extended": {"bottleneck": 2, "words": 5, "steps": 4, "progress": False},
}
DETECTORS = pytest.mark.parametrize("detector", list(OPTIONS))


@DETECTORS
def test_a_training_image_is_scored_by_the_model_that_has_not_seen_it(detector):
    features = some_features(12)
    fitted, _ = registry.cross_fit(detector, features, **OPTIONS[detector])
    scores, maps = scoring.score_held_out(fitted, features, top_k=3, progress=False)
    for i, fold in enumerate(fitted.folds.tolist()):
        own, own_map = scoring.score_features(
            fitted.models[fold], features[i : i + 1], top_k=3, progress=False
        )
        np.testing.assert_allclose(scores[i], own[0], rtol=1e-5)
        np.testing.assert_allclose(maps[i], own_map[0], rtol=1e-4, atol=1e-6)


@DETECTORS
def test_a_new_image_is_scored_by_the_model_to_which_it_looks_least_strange(detector):
    fitted, _ = registry.cross_fit(detector, some_features(12), **OPTIONS[detector])
    new = some_features(20)
    scores, maps = scoring.score_features(fitted, new, top_k=3, progress=False)
    alone = [scoring.score_features(model, new, top_k=3, progress=False) for model in fitted.models]
    by_model = np.stack([each for each, _ in alone])
    np.testing.assert_array_equal(scores, by_model.min(axis=0))
    chosen = by_model.argmin(axis=0)
    assert len(set(chosen)) > 1
    for i, k in enumerate(chosen):
        np.testing.assert_array_equal(maps[i], alone[k][1][i])


def test_the_images_that_are_named_are_scored_in_their_order():
    model = Autoencoder(channels=6, hidden=4, bottleneck=2).eval()
    features = some_features(9)
    some = np.array([7, 2, 2, 5])
    for all_of_them, named in zip(
        scoring.score_features(model, features, top_k=3, progress=False),
        scoring.score_features(model, features, images=some, top_k=3, batch_size=3, progress=False),
        strict=True,
    ):
        np.testing.assert_allclose(named, all_of_them[some], rtol=1e-5)
