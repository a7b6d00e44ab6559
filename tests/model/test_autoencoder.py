import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from texad.model import autoencoder, base, registry
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
    defaults = dict(hidden=16, bottleneck=3, steps=3, batch_size=32, progress=False)
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
    features = low_rank_features(20)
    model, history = fit(
        features, steps=1, batch_size=15 * 16, learning_rate=1e-12, validation_fraction=0.25
    )  # a step of all places, as good as untrained
    reconstruction = model(torch.from_numpy(features)).numpy()
    losses = [float(((f - r) ** 2).sum()) for f, r in zip(features, reconstruction, strict=True)]
    total = 15 * history["train_loss"][0] + 5 * history["validation_loss"][0]
    assert total == pytest.approx(sum(losses), rel=1e-4)


def test_training_learns_and_generalises():
    model, history = fit(low_rank_features(40), steps=1200, patience=12, learning_rate=1e-2)
    assert history["validation_loss"].min() < 0.1 * history["validation_loss"].iloc[0]
    unseen = low_rank_features(7)
    outside = np.random.default_rng(1).normal(size=unseen.shape).astype(np.float32) * unseen.std()
    inside_error = np.square(model(torch.from_numpy(unseen)).numpy() - unseen).mean()
    outside_error = np.square(model(torch.from_numpy(outside)).numpy() - outside).mean()
    assert outside_error > 3 * inside_error


def noise(n: int) -> np.ndarray:
    """Features of which only the training images can be learnt, by heart."""
    return np.random.default_rng(0).normal(size=(n, 8, 4, 4)).astype(np.float32)


def test_early_stopping_restores_the_best_weights():
    features = noise(24)
    model, history = fit(
        features, hidden=256, bottleneck=4, steps=5000, learning_rate=1e-2, validation_fraction=0.25
    )
    losses = history["validation_loss"]
    assert history["step"].iloc[-1] == 100 * (losses.idxmin() + 3) < 5000  # patience: two looks
    _, validation = hold_out(np.arange(24), 0.25, np.random.default_rng(0), None)
    errors = np.square(model(torch.from_numpy(features)).numpy() - features)[validation]
    assert errors.sum() / len(validation) == pytest.approx(losses.min(), rel=1e-4)
    assert losses.iloc[-1] > 1.01 * losses.min()


@pytest.mark.parametrize("n", [1, 4, 20, 400])
def test_the_number_of_steps_does_not_depend_on_the_number_of_images(n):
    _, history = fit(low_rank_features(n), steps=250, patience=3)
    assert history["step"].tolist() == [100, 200, 250]


def test_what_is_read_does_not_grow_with_the_number_of_images(monkeypatch):
    """A block of 64 images has vectors for four steps here, and two looks read a block each."""
    reads = []
    monkeypatch.setattr(base, "release", reads.append)
    for n in (32 + 1024, 32 + 4096):
        reads.clear()
        fit(low_rank_features(n), steps=200, batch_size=256)
        assert len(reads) == 200 // 4 + 2


@pytest.mark.parametrize(("n", "is_held_out"), [(19, False), (20, True)])
def test_of_fewer_than_twenty_images_none_is_held_out(n, is_held_out):
    _, history = fit(low_rank_features(n), steps=200, patience=1, learning_rate=1e-12)
    assert history["validation_loss"].notna().all() == is_held_out
    # without validation images nothing stops the training
    assert history["step"].tolist() == ([100, 200])


def test_same_seed_same_weights():
    features = low_rank_features(6)
    first, second, other = (fit(features, seed=seed)[0].state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    fit(low_rank_features(3), steps=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_single_image_can_be_trained_on():
    _, history = fit(low_rank_features(1))
    assert history["step"].tolist() == [3]


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
        ("steps", 0),
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


def test_a_training_that_diverges_names_the_learning_rate():
    with pytest.raises(ValueError, match=r"^the training diverged; use a smaller learning_rate"):
        fit(low_rank_features(3), steps=100, learning_rate=1e30)


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(20, 0.1, 2), (20, 0.3, 6), (20, 0.01, 1), (40, 0.999, 39)]
)
def test_whole_images_are_held_out_and_never_all(n, fraction, held_out):
    images = np.arange(n) * 3  # some of more
    train, validation = hold_out(images, fraction, np.random.default_rng(0), None)
    assert len(validation) == held_out
    assert sorted([*train, *validation]) == images.tolist() and (np.diff(train) > 0).all()


def test_at_most_32_images_are_held_out(monkeypatch):
    sizes = []

    def noted(images, fraction, *more):
        train, validation = hold_out(images, fraction, *more)
        sizes.append(len(validation))
        return train, validation

    monkeypatch.setattr(autoencoder, "hold_out", noted)
    for n in (200, 1000):
        fit(low_rank_features(n))
    assert sizes == [20, 32]


def test_groups_never_straddle_the_validation_split():
    images = np.arange(5, 65)
    groups = [f"tile {i % 11}" for i in range(70)]
    for seed in range(5):
        parts = hold_out(images, 0.2, np.random.default_rng(seed), groups)
        train, validation = ({groups[i] for i in part} for part in parts)
        assert train and validation and not train & validation


def test_a_fit_to_some_images_is_that_to_these_alone():
    features = low_rank_features(30)
    some = np.arange(1, 30, 2)
    one, two = (fit(features, images=some)[0], fit(features[some])[0])
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])


def test_a_check_names_the_first_thing_that_is_wrong():
    check_fit(low_rank_features(2), 0.1, words=1)
    with pytest.raises(ValueError, match="words must be at least 1, not 0"):
        check_fit(low_rank_features(2), 0.1, steps=1, words=0)
    check_fit(low_rank_features(2), 0)
    for fraction in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match="validation_fraction must be at least 0 and below 1"):
            check_fit(low_rank_features(2), fraction)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), not \(0, 12, 4, 4\)"):
        check_fit(low_rank_features(0), 0.1)
