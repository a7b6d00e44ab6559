import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from texad.commands.messages import words
from texad.evaluation import drift
from texad.model.threshold import conformal_threshold, n_rejected


def naive_distance(a, b) -> float:
    return max(abs(np.mean(a <= x) - np.mean(b <= x)) for x in [*a, *b])


def naive_p_value(a, b) -> float:
    """Of all ways to deal the values to the two groups, those in which they are at least as far
    apart.
    """
    values, distance = np.concatenate([a, b]), naive_distance(a, b)
    ways = [
        naive_distance(values[list(chosen)], np.delete(values, chosen))
        for chosen in combinations(range(len(values)), len(a))
    ]
    return float(np.mean(np.array(ways) >= distance - 1e-12))


def test_the_distance_and_its_p_value_are_those_of_all_ways_to_deal_the_scores():
    a, b = np.array([1.0, 2, 3, 4.5, 6]), np.array([2.5, 5, 7, 8])
    found = drift.compare(a, b, 100, None)
    assert found.statistic == pytest.approx(
        naive_distance(a, b)
    ) and found.p_value == pytest.approx(naive_p_value(a, b))
    assert (found.n_calibration, found.n_new, found.n_above) == (5, 4, 0)


def test_so_many_above_the_threshold_are_as_rare_as_drawing_them_shows():
    """Deal n + m values: how often are so many of the m new ones above the r-th largest of the n
    old ones?
    """
    rng = np.random.default_rng(0)
    n, m, false_alarms = 39, 10, 0.05
    old, new = np.arange(n, dtype=float), np.full(m, -1.0)
    new[:2] = n
    found = drift.compare(old, new, conformal_threshold(old, false_alarms), false_alarms)
    drawn = rng.random((40000, n + m))
    lines = np.sort(drawn[:, :n], axis=1)[:, n - n_rejected(n, false_alarms)]
    assert found.n_above == 2
    assert found.p_above == pytest.approx(
        np.mean((drawn[:, n:] > lines[:, None]).sum(axis=1) >= 2), abs=0.01
    )


def test_calibration_images_of_few_groups_tell_less_of_the_rate():
    old, new = np.arange(78, dtype=float), np.full(10, -1.0)
    new[:3] = 100
    by_images, by_groups = (drift.compare(old, new, 75, 0.05, n_groups=n) for n in (None, 39))
    assert by_images.p_above == pytest.approx(stats.betabinom.sf(2, 10, 3, 76))
    assert by_groups.p_above == pytest.approx(stats.betabinom.sf(2, 10, 2, 38))


@pytest.mark.parametrize(
    "n, false_alarms", [(19, 0.05), (99, 0.01), (99, 0.29), (152, 0.01), (20, 0.3)]
)
def test_the_threshold_is_the_score_of_the_first_image_that_it_would_reject(n, false_alarms):
    scores = np.random.default_rng(1).random(n)
    r = n_rejected(n, false_alarms)
    assert conformal_threshold(scores, false_alarms) == np.sort(scores)[n - r] and r >= 1


def test_the_rate_of_one_threshold_lies_in_its_interval_nine_times_in_ten():
    rng = np.random.default_rng(2)
    low, high = drift.rate_interval(99, 0.05)
    rates = np.array(
        [1 - conformal_threshold(rng.random(99), 0.05) for _ in range(2000)]
    )  # of uniform scores
    assert np.mean((rates >= low) & (rates <= high)) == pytest.approx(
        0.9, abs=0.025
    ) and rates.mean() == pytest.approx(0.05, abs=0.003)


def test_an_unchanged_line_is_suspected_no_more_often_than_the_level_says():
    rng, level, n_checks = np.random.default_rng(3), 0.1, 400
    suspected = 0
    for _ in range(n_checks):
        old, new = rng.lognormal(size=99), rng.lognormal(size=30)
        suspected += drift.compare(
            old, new, conformal_threshold(old, 0.05), 0.05, level
        ).has_drifted
    assert suspected <= stats.binom.ppf(0.999, n_checks, level)


@pytest.mark.parametrize("n, m", [(152, 40), (50, 20), (99, 200)])
def test_the_smallest_shift_is_seen_about_four_times_in_five(n, m):
    rng, shift = np.random.default_rng(4), drift.smallest_shift(n, m)
    seen = [
        stats.ks_2samp(rng.normal(size=n), rng.normal(size=m) + shift).pvalue <= drift.LEVEL / 2
        for _ in range(300)
    ]
    assert 0.68 <= np.mean(seen) <= 0.92


@pytest.mark.parametrize("n", [1, 2, 3, 10, 152])
def test_with_one_image_fewer_than_needed_nothing_can_be_seen(n):
    m = drift.new_images_needed(n)
    old = np.arange(n, dtype=float)
    assert stats.ks_2samp(old, np.arange(m) + 1000.0).pvalue <= drift.LEVEL / 2
    if m > 1:
        assert stats.ks_2samp(old, np.arange(m - 1) + 1000.0).pvalue > drift.LEVEL / 2
        assert math.isinf(drift.smallest_shift(n, m - 1))
        found = drift.compare(old, np.arange(m - 1) + 1000.0, 10, None)
        assert found.verdict == "too few" and not found.has_drifted
        assert f"at least {m} are needed" in words("drift", found=found)[0]


@pytest.mark.parametrize(
    "change, verdict, advice",
    [
        (lambda new: new, "none seen", "go on"),
        (lambda new: new + 1.2, "higher", "calibrate again"),
        (lambda new: new + 5, "far higher", "fit again"),
        (lambda new: new - 1.5, "lower", "out of focus"),
        (lambda new: 6 * (new - np.median(new)), "spread", "spread differently"),
    ],
)
def test_each_change_has_its_verdict_and_its_advice(change, verdict, advice):
    rng = np.random.default_rng(5)
    old, new = rng.normal(size=199), change(rng.normal(size=60))
    found = drift.compare(old, new, np.max(old) + 100, None)
    assert found.verdict == verdict and advice in words("drift", found=found)[0]
    assert found.has_drifted == (verdict != "none seen")


def test_more_above_the_threshold_than_promised_is_drift_even_where_the_middle_stays():
    rng = np.random.default_rng(6)
    old, new = rng.normal(size=199), rng.normal(size=100)
    new[:12] = 50
    threshold = conformal_threshold(old, 0.01)
    found = drift.compare(old, new, threshold, 0.01)
    assert found.verdict == "higher"
    assert "More than chance explains" in words("drift", found=found)[2]
    assert (
        drift.compare(old, new, threshold, None).verdict == "none seen"
    )  # without a promise, none is broken


def test_the_share_above_comes_with_wilson_s_interval():
    old, new = np.arange(99.0), np.r_[np.zeros(37), np.full(3, 1000.0)]
    found = drift.compare(old, new, 500, 0.01)
    share, z, m = 3 / 40, 1.959964, 40
    centre, half = (
        (share + z**2 / 2 / m) / (1 + z**2 / m),
        z / (1 + z**2 / m) * math.sqrt(share * (1 - share) / m + z**2 / 4 / m**2),
    )
    assert found.rate == share and found.interval == pytest.approx(
        (centre - half, centre + half), abs=1e-6
    )


@pytest.mark.parametrize(
    "old, new, level, problem",
    [
        ([], [1], 0.01, "calibration_scores must hold at least one"),
        ([1], [], 0.01, "new_scores must hold at least one"),
        ([1, np.nan], [1], 0.01, "finite"),
        ([1], [1], 1, "level must be above 0 and below 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(old, new, level, problem):
    with pytest.raises(ValueError, match=problem):
        drift.compare(np.array(old), np.array(new), 1.0, None, level)


@pytest.mark.parametrize(
    "p, said",
    [
        (1.0, "10 of 10 checks"),
        (0.3, "3 of 10 checks"),
        (0.01, "one of 100 checks"),
        (1e-9, "less than one of a million"),
    ],
)
def test_probabilities_are_told_in_plain_words(p, said):
    found = drift.compare(np.arange(9.0), np.arange(9.0), 5, None)
    assert f"so different in {said}" in words("drift", found=replace(found, p_value=p))[1]
