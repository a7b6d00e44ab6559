import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from texad.model import autoencoder, registry
from texad.model.base import check_fit, hold_out

RNG = np.random.default_rng(0)
BASIS = RNG.normal(size=(3, 12))


def low_rank_features(n: int) -> np.ndarray:
    """Feature maps whose vectors lie in a space of three dimensions."""
    return (
        (np.random.default_rng(n).normal(size=(n, 4, 4, 3)) @ BASIS)
        .transpose(0, 3, 1, 2)
        .astype(np.float32)
    )


def fit(features, **options):
    defaults = dict(hidden=16, bottleneck=3, epochs=3, batch_size=32, progress=False)
    return autoencoder.fit(features, **(defaults | options))


def test_reconstruction_by_hand():
    torch.manual_seed(0)
    model = autoencoder.Autoencoder(channels=4, hidden=3, bottleneck=2)
    x = torch.randn(2, 4, 2, 3)
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    expected = np.empty(x.shape)
    for n, row, column in np.ndindex(2, 2, 3):
        v = x[n, :, row, column].numpy()
        code = weights["encoder.2.weight"] @ np.maximum(
            weights["encoder.0.weight"] @ v + weights["encoder.0.bias"], 0
        )
        code = code + weights["encoder.2.bias"]
        v = weights["decoder.2.weight"] @ np.maximum(
            weights["decoder.0.weight"] @ code + weights["decoder.0.bias"], 0
        )
        expected[n, :, row, column] = v + weights["decoder.2.bias"]
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_convolution_of_one_by_one_is_the_same_arithmetic():
    torch.manual_seed(0)
    model = autoencoder.Autoencoder(channels=6, hidden=5, bottleneck=2)
    layers = []
    for layer in [*model.encoder, *model.decoder]:
        if isinstance(layer, torch.nn.Linear):
            convolution = torch.nn.Conv2d(layer.in_features, layer.out_features, 1)
            convolution.load_state_dict(
                {"weight": layer.weight[:, :, None, None], "bias": layer.bias}
            )
            layers.append(convolution)
        else:
            layers.append(layer)
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(model(x), torch.nn.Sequential(*layers)(x))


def test_training_loss_is_the_formula_of_the_method():
    features = low_rank_features(4)
    model, history = fit(
        features, epochs=1, learning_rate=1e-12, validation_fraction=0.25
    )  # as good as untrained
    reconstruction = model(torch.from_numpy(features)).numpy()
    losses = [float(((f - r) ** 2).sum()) for f, r in zip(features, reconstruction, strict=True)]
    total = (
        3 * history["train_loss"][0] + history["validation_loss"][0]
    )  # three images trained on, one held out
    assert total == pytest.approx(sum(losses), rel=1e-4)


def test_training_learns_and_generalises():
    model, history = fit(low_rank_features(40), epochs=60, patience=60, learning_rate=1e-2)
    assert history["validation_loss"].min() < 0.1 * history["validation_loss"].iloc[0]
    unseen = low_rank_features(7)
    outside = np.random.default_rng(1).normal(size=unseen.shape).astype(np.float32) * unseen.std()
    inside_error = np.square(model(torch.from_numpy(unseen)).numpy() - unseen).mean()
    outside_error = np.square(model(torch.from_numpy(outside)).numpy() - outside).mean()
    assert outside_error > 3 * inside_error


def test_early_stopping_keeps_the_best_epoch():
    noise = (
        np.random.default_rng(0).normal(size=(12, 8, 4, 4)).astype(np.float32)
    )  # nothing to learn
    model, history = autoencoder.fit(
        noise,
        hidden=64,
        bottleneck=8,
        epochs=200,
        batch_size=16,
        learning_rate=1e-2,
        patience=2,
        min_improvement=0.05,
        progress=False,
    )
    assert len(history) < 200
    assert (history["validation_loss"].iloc[-1] >= history["validation_loss"].min() * 0.9).all()


def test_same_seed_same_weights():
    features = low_rank_features(6)
    first, second, other = (fit(features, seed=seed)[0].state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    fit(low_rank_features(3), epochs=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_single_image_can_be_trained_on():
    _, history = fit(low_rank_features(1))
    assert len(history) == 3


def test_saved_autoencoder_comes_back_equal(tmp_path):
    model, _ = fit(low_rank_features(4))
    registry.save(model, tmp_path / "autoencoder.safetensors")
    again = registry.load(tmp_path / "autoencoder.safetensors")
    assert type(again) is autoencoder.Autoencoder and again.widths == model.widths
    assert all(
        torch.equal(model.state_dict()[name], again.state_dict()[name])
        for name in model.state_dict()
    )


def test_a_file_that_is_no_autoencoder_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("other", "text", "missing"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is no autoencoder"):
            registry.load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("learning_rate", 0.0),
        ("validation_fraction", 1.0),
        ("hidden", 0),
        ("bottleneck", -1),
    ],
)
def test_parameters_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        fit(low_rank_features(3), **{option: value})


def test_features_that_are_not_finite_are_refused():
    features = low_rank_features(3)
    features[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        fit(features)


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"),
    [(10, 0.1, 1), (10, 0.3, 3), (2, 0.01, 1), (3, 0.99, 2), (2, 0.99, 1)],
)
def test_a_split_keeps_whole_images_out_and_never_all(n, fraction, held_out):
    train, validation = hold_out(np.random.default_rng(0), n, fraction)
    assert len(validation) == held_out
    assert sorted([*train, *validation]) == list(range(n)) and (np.diff(train) > 0).all()


def test_a_lone_image_validates_itself():
    assert [part.tolist() for part in hold_out(np.random.default_rng(0), 1, 0.5)] == [
        [0],
        [0],
    ]


def test_a_check_names_the_first_thing_that_is_wrong():
    check_fit(low_rank_features(2), 0.1, words=1)
    with pytest.raises(ValueError, match="words must be at least 1, not 0"):
        check_fit(low_rank_features(2), 0.1, epochs=1, words=0)
    for fraction in (0, 1, float("nan")):
        with pytest.raises(ValueError, match="validation_fraction must be above 0 and below 1"):
            check_fit(low_rank_features(2), fraction)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), not \(0, 12, 4, 4\)"):
        check_fit(low_rank_features(0), 0.1)
