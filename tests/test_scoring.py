import numpy as np
import pytest
import torch

from texad import scoring
from texad.autoencoder import Autoencoder

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
    expected = [np.mean(sorted(image.mean(axis=0).ravel().tolist(), reverse=True)[:3]) for image in errors]
    np.testing.assert_allclose(scoring.image_score(errors, top_k=3, reduction="channel_mean"), expected, rtol=1e-6)
    assert not np.allclose(scoring.image_score(errors, top_k=3), expected)


def test_anomaly_map_is_the_mean_over_channels():
    errors = scoring.error_map(F, F_HAT)
    assert scoring.anomaly_map(errors).shape == (3, 4, 4)
    np.testing.assert_allclose(scoring.anomaly_map(errors)[1, 2, 3], errors[1, :, 2, 3].mean(), rtol=1e-6)


def test_threshold_uses_the_population_standard_deviation():
    scores = [1.0, 2.0, 3.0, 6.0]
    mu = sum(scores) / 4
    sigma = (sum((score - mu) ** 2 for score in scores) / 4) ** 0.5
    assert scoring.threshold(np.array(scores)) == pytest.approx(mu + 3 * sigma)
    assert scoring.threshold(np.array(scores), n_sigma=1) == pytest.approx(mu + sigma)


def test_a_score_at_the_threshold_is_normal():
    assert scoring.predict(np.array([0.9, 1.0, 1.1]), 1.0).tolist() == [False, False, True]


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [1.0, np.inf]])
def test_threshold_refuses_scores_without_meaning(scores):
    with pytest.raises(ValueError, match="train_scores"):
        scoring.threshold(np.array(scores))


@pytest.mark.parametrize("top_k", [0, -1, 81])
def test_top_k_out_of_range_is_refused(top_k):
    with pytest.raises(ValueError, match="between 1 and 80"):
        scoring.image_score(scoring.error_map(F, F_HAT), top_k=top_k)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="none, channel_mean"):
        scoring.image_score(F, reduction="median")


def test_batches_give_the_same_scores_as_all_at_once():
    torch.manual_seed(0)
    autoencoder = Autoencoder(channels=5, hidden=4, bottleneck=2).eval()
    errors = scoring.error_map(F, scoring.reconstruct(autoencoder, F))
    scores, maps = scoring.score_features(autoencoder, F, batch_size=2, progress=False)
    np.testing.assert_allclose(scores, scoring.image_score(errors), rtol=1e-5)
    np.testing.assert_allclose(maps, scoring.anomaly_map(errors), rtol=1e-5)
