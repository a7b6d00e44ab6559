import numpy as np
import pytest

from texad.evaluation.outliers import apart


def test_scores_far_above_the_others_are_found_the_highest_first():
    scores = np.random.default_rng(0).normal(10, 1, 100)
    assert apart(scores).size == 0
    scores[[7, 3]] = 17, 25
    assert apart(scores).tolist() == [3, 7]
    scores[11] = -20  # to look more usual than others is no fault
    assert apart(scores).tolist() == [3, 7]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_many_of_them_do_not_hide_each_other(share):
    scores = np.random.default_rng(1).normal(10, 1, 100)
    scores[: int(100 * share)] += 30
    assert sorted(apart(scores)) == list(range(int(100 * share)))


def test_no_unit_matters_and_a_tail_is_no_outlier():
    scores = np.random.default_rng(2).lognormal(3, 0.2, 200)
    assert apart(scores).size == 0
    odd = np.append(scores, 100)
    assert apart(odd).tolist() == apart(1000 * odd).tolist() == [200]


def test_among_few_or_equal_scores_none_stands_apart():
    assert apart(np.array([1, 1, 1, 1, 1, 1, 99])).size == 0
    assert apart(np.ones(50)).size == apart(np.array([])).size == 0
