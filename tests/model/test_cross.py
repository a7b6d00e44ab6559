"""Several models, each fit without the images of one fold."""

import numpy as np
import pytest
import torch

from texad.data import splitting
from texad.model import registry, scoring
from texad.model.cross import CrossFitted, members, proven_rate
from texad.model.threshold import conformal_threshold

OPTIONS = {
    "published": {"hidden": 8, "bottleneck": 2},
    "extended": {"bottleneck": 2, "words": 5},
}
DETECTORS = pytest.mark.parametrize("detector", list(OPTIONS))


def some_features(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 6, 4, 4)).astype(np.float32)


def cross_fit(detector, features, **more):
    options = OPTIONS[detector] | {"steps": 10, "progress": False} | more
    return registry.cross_fit(detector, features, **options)


STEPS = {"published": 4, "extended": 3}  # of each of five models


def assert_equal(one, two):
    assert one.state_dict().keys() == two.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


@DETECTORS
@pytest.mark.parametrize("n", [12, 30])
def test_each_image_is_unseen_by_exactly_one_model(detector, n):
    """A model is the one that is fit to the images of the other folds, and to no others."""
    features = some_features(n)
    fitted, history = cross_fit(detector, features, seed=3)
    assert len(fitted.models) == 5 and np.bincount(fitted.folds).min() >= n // 5
    for fold, model in enumerate(members(fitted)):
        seen = features[fitted.folds.numpy() != fold]
        # five models share twice the ten steps of one, or one and a half times
        alone, of_alone = registry.fit(
            detector, seen, **OPTIONS[detector], steps=STEPS[detector], seed=3, progress=False
        )
        assert_equal(model, alone)
        if fold == 0:
            assert history.equals(of_alone) and history["step"].iloc[-1] == STEPS[detector]


@DETECTORS
def test_every_group_is_in_one_fold_and_held_out_whole(detector):
    features, groups = some_features(40), [f"tile {i % 8}" for i in range(40)]
    fitted, _ = cross_fit(detector, features, groups=groups)
    fold_of = dict(zip(groups, fitted.folds.tolist(), strict=True))
    assert [fold_of[group] for group in groups] == fitted.folds.tolist()
    assert len(set(fold_of.values())) == 5
    seen = np.flatnonzero(fitted.folds.numpy() != 0)
    alone, _ = registry.fit(
        detector,
        features,
        images=seen,
        groups=groups,
        **OPTIONS[detector],
        steps=STEPS[detector],
        progress=False,
    )
    assert_equal(members(fitted)[0], alone)


@DETECTORS
def test_the_number_of_threads_changes_nothing(detector):
    features, threads = some_features(30), torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(cross_fit(detector, features)[0])
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert_equal(found[0], other)


@pytest.mark.parametrize(("n", "n_models"), [(2, 2), (4, 4), (7, 5)])
def test_there_are_no_more_models_than_images(n, n_models):
    fitted, _ = cross_fit("published", some_features(n))
    assert len(members(fitted)) == n_models
    assert sorted(set(fitted.folds.tolist())) == list(range(n_models))


@pytest.mark.parametrize(("n", "groups"), [(1, None), (6, ["one"] * 6)])
def test_two_images_or_groups_are_needed(n, groups):
    with pytest.raises(ValueError, match="^each fold needs a good image outside it: add images"):
        cross_fit("published", some_features(n), groups=groups)


def test_a_wrong_option_of_a_fit_is_said():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        registry.fit("published", some_features(5), steps=0)
    with pytest.raises(ValueError, match="bottleneck"):
        cross_fit("extended", some_features(5), bottleneck=7)


@DETECTORS
def test_saved_models_come_back_equal(tmp_path, detector):
    fitted, _ = cross_fit(detector, some_features(12))
    registry.save(fitted, tmp_path / "autoencoder.safetensors")
    again = registry.load(tmp_path / "autoencoder.safetensors")
    assert isinstance(again, CrossFitted) and not again.training
    assert (again.widths, again.reduction) == (fitted.widths, fitted.reduction)
    assert_equal(fitted, again)
    new = some_features(3)
    for one, two in zip(
        *(scoring.score_features(each, new, top_k=3, progress=False) for each in (fitted, again)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_one_model_is_its_own_member():
    alone, _ = registry.fit("published", some_features(4), steps=1, progress=False)
    assert members(alone) == [alone]


def test_the_rate_that_is_proven_by_hand():
    assert proven_rate(761, 5, 0.05) == 2 * (38 + 4) / 766  # r = ⌊0.05 · 762⌋ = 38
    assert proven_rate(19, 1, 0.05) == 0.05  # one split
    assert proven_rate(4, 4, 0.5) == 1


def test_folds_differ_by_one_image_at_most():
    for n in (5, 12, 23):
        sizes = np.bincount(splitting.folds(n, 5, np.random.default_rng(n)))
        assert len(sizes) == 5 and sizes.max() - sizes.min() <= 1


def distance_from_mean(known, asked):
    """A toy model that learns the middle of what it has seen."""
    return np.linalg.norm(asked - known.mean(axis=0), axis=1)


def distance_from_nearest(known, asked):
    """Another, which learns what it has seen by heart."""
    return np.linalg.norm(asked[:, None] - known, axis=2).min(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("model", [distance_from_mean, distance_from_nearest])
@pytest.mark.parametrize("per_group", [1, 4])
def test_the_false_alarm_rate_is_about_the_one_asked_for_and_below_the_proven_one(model, per_group):
    rng, n, alpha, rates = np.random.default_rng(0), 29, 0.1, []
    for _ in range(1500):
        middles = rng.normal(size=(n + 20, 1, 3))  # a row for each group; 20 groups are new
        images = middles + 0.3 * rng.normal(size=(n + 20, per_group, 3))
        known, new = images[:n].reshape(-1, 3), images[n:].reshape(-1, 3)
        groups = np.arange(n).repeat(per_group).astype(str)
        folds = splitting.folds(len(known), 5, rng, groups)
        held_out, by_model = np.empty(len(known)), []
        for fold in range(5):
            others = known[folds != fold]
            held_out[folds == fold] = model(others, known[folds == fold])
            by_model.append(model(others, new))
        line = conformal_threshold(held_out, alpha, groups)
        rates.append(np.mean(np.min(by_model, axis=0) > line))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) < proven_rate(n, 5, alpha)
    assert 0.5 * alpha < np.mean(rates) < alpha + 3 * error
