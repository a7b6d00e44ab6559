import numpy as np
import pytest
import torch
from conftest import needs_shared

from texad.evaluation.metrics import image_auroc
from texad.model import autoencoder, codebook, extraction, registry, scoring, weights
from texad.model.backbone import build_backbone, fold_batchnorm
from texad.model.base import hold_out
from texad.model.codebook import QuantizedAutoencoder
from texad.model.preprocessing import Sight


def some_features(n: int = 8, *, channels: int = 12, side: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, channels, side, side)).astype(np.float32)


def fit(F, **options):
    defaults = dict(bottleneck=5, words=20, steps=4, progress=False)
    return codebook.fit(F, **(defaults | options))


def held_out(n: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images of a fit with seed 0."""
    return hold_out(np.arange(n), fraction, np.random.default_rng(0), None)


def score(fitted, F) -> np.ndarray:
    return scoring.score_features(fitted, F, top_k=3, progress=False)[0]


# -- the parts -------------------------------------------------------------------------------------


def test_preparing_weighs_a_place_four_its_neighbours_two_and_the_corners_one():
    F = some_features(2)
    prepared = QuantizedAutoencoder(12, 5, 20, 4, 4).prepare(torch.from_numpy(F)).numpy()
    assert prepared.shape == F.shape
    weight = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for row, column in [(1, 1), (1, 2), (2, 1), (2, 2)]:  # those with neighbours all around
        expected = (F[:, :, row - 1 : row + 2, column - 1 : column + 2] * weight).sum(axis=(2, 3))
        np.testing.assert_allclose(prepared[:, :, row, column], expected, rtol=1e-5, atol=1e-6)


def test_at_the_border_a_place_is_averaged_with_the_places_that_there_are():
    F = some_features(2, side=3)
    prepared = QuantizedAutoencoder(12, 5, 20, 3, 3).prepare(torch.from_numpy(F)).numpy()
    # the means of 2 x 2 places around the first place: it alone, with its right, with its lower
    # neighbour, with all three
    expected = (
        F[:, :, 0, 0]
        + F[:, :, 0, :2].mean(-1)
        + F[:, :, :2, 0].mean(-1)
        + F[:, :, :2, :2].mean((-1, -2))
    ) / 4
    np.testing.assert_allclose(prepared[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 1), (2, 5), (1, 3)])
def test_what_is_the_same_everywhere_stays_as_it_is(height, width):
    constant = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, height, width)
    prepared = QuantizedAutoencoder(6, 2, 3, height, width).prepare(constant)
    torch.testing.assert_close(prepared, constant)


@pytest.mark.parametrize("averaged", [True, False])
def test_each_place_is_measured_in_its_own_unit(averaged):
    model = QuantizedAutoencoder(12, 5, 20, 4, 4, averaged)
    F = torch.from_numpy(some_features(2))
    plain = model.prepare(F)
    model.unit.copy_(torch.arange(1.0, 17.0).reshape(4, 4))
    torch.testing.assert_close(model.prepare(F), plain / torch.arange(1.0, 17.0).reshape(4, 4))
    assert torch.equal(plain, F) != averaged


def test_half_of_what_is_the_same_in_a_whole_image_is_taken_away():
    F = some_features(2)
    F[1, :, 2:] = np.nan  # an image whose lower places are missing
    model = QuantizedAutoencoder(12, 5, 20, 4, 4, averaged=0, centred=50)
    halves = np.nanmean(F, axis=(2, 3), keepdims=True) / 2
    prepared = model.prepare(torch.from_numpy(F)).numpy()
    np.testing.assert_allclose(prepared, F - halves, atol=1e-5)  # NaN stays where it was


def test_both_layers_count_alike_whatever_their_scale():
    F = some_features(30, channels=1036, side=3)
    louder = F.copy()
    louder[:, 1024:] *= 100  # layer2's
    quiet, loud = (fit(features, words=8)[0] for features in (F, louder))
    vectors = quiet.describe(torch.from_numpy(F).permute(0, 2, 3, 1)).reshape(-1, 1036)
    coarse, finer = vectors[:, :1024].var(dim=0).sum(), vectors[:, 1024:].var(dim=0).sum()
    torch.testing.assert_close(coarse, finer, rtol=0.05, atol=0)
    np.testing.assert_allclose(score(quiet, F), score(loud, louder), rtol=1e-3)


def test_another_exposure_hides_less(monkeypatch):
    exposure = np.random.default_rng(1).normal(size=(120, 1, 1), scale=2).astype(np.float32)
    F = some_features(120, side=6)
    F[:, 0] += exposure
    F[90:, 5, :2, :2] += 6
    F[60:, 0] += 9  # that of all test images is a new one
    aurocs = []
    for percent in (0, codebook.CENTRED):
        monkeypatch.setattr(codebook, "CENTRED", percent)
        model, _ = fit(F[:60], bottleneck=12, words=400)
        aurocs.append(image_auroc(np.repeat([0, 1], 30), score(model, F[60:])))
    assert aurocs[1] > aurocs[0] + 0.1


def test_files_of_earlier_versions_are_not_centred():
    model = QuantizedAutoencoder(12, 5, 20, 4, 4, averaged=0)
    F = torch.from_numpy(some_features(2))
    assert torch.equal(model.prepare(F), F)


def test_the_nearest_word_is_that_of_a_naive_search():
    model = QuantizedAutoencoder(6, 3, 11, 2, 2)
    generator = torch.Generator().manual_seed(0)
    model.codebook.copy_(
        torch.randn(11, 3, generator=generator) + 5
    )  # far from zero: the words' own lengths count
    codes = torch.randn(50, 3, generator=generator) + 5
    expected = [
        min(range(11), key=lambda w: float(((code - model.codebook[w]).double() ** 2).sum()))
        for code in codes
    ]
    assert model.nearest(codes).tolist() == model.nearest(codes, batch_size=7).tolist() == expected
    assert len(set(expected)) > 3


def test_reconstruction_by_hand():
    model, _ = fit(some_features())
    prepared = model.prepare(torch.from_numpy(some_features(2, seed=1)))
    mean, components, codebook, unit = (
        getattr(model, name).numpy() for name in ("mean", "components", "codebook", "unit")
    )
    expected = np.empty(prepared.shape)
    for n, row, column in np.ndindex(2, 4, 4):
        vector = prepared[n, :, row, column].numpy() * unit[row, column]
        code = components.T @ (vector - mean)
        word = codebook[np.argmin([np.sum((code - w) ** 2) for w in codebook])]
        expected[n, :, row, column] = (components @ word + mean) / unit[row, column]
    assert model(prepared).shape == prepared.shape
    np.testing.assert_allclose(model(prepared).numpy(), expected, rtol=1e-4, atol=1e-5)


# -- fit -------------------------------------------------------------------------------------------


def test_what_is_learnt_has_the_shapes_it_should():
    model, history = fit(some_features())
    assert list(history.columns) == ["step", "train_loss", "validation_loss"]
    assert history["step"].tolist() == [2, 4] and np.isfinite(history["train_loss"]).all()
    assert history["validation_loss"].isna().all()  # of eight images none is held out
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == {"mean": (12,), "components": (12, 5), "codebook": (17, 5), "unit": (4, 4)}
    assert (model.unit > 0).all() and not model.training and model.codebook.device.type == "cpu"


def vectors_seen(model, F) -> np.ndarray:
    """The prepared vectors in the unit of the features, (N·H·W, C)."""
    prepared = model.prepare(torch.from_numpy(F)) * model.unit
    return prepared.permute(0, 2, 3, 1).reshape(-1, F.shape[1]).double().numpy()


def test_components_are_those_of_a_principal_component_analysis():
    F = (
        some_features(30) * np.linspace(1, 3, 12, dtype=np.float32)[:, None, None]
    )  # each direction with its own variance
    model, _ = fit(F, validation_fraction=0.01)
    torch.testing.assert_close(
        model.components.T @ model.components, torch.eye(5), atol=1e-5, rtol=0
    )
    train, _ = held_out(30, 0.01)
    vectors = vectors_seen(model, F[train])
    _, _, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(
        np.abs(np.sum(directions[:5] * model.components.numpy().T, axis=1)), 1, atol=1e-3
    )
    np.testing.assert_allclose(model.mean.numpy(), vectors.mean(axis=0), atol=1e-5)


def loss_on_held_out(model, F, fraction) -> float:
    """The squared error of a whole feature map, averaged over the images that were held out."""
    _, validation = held_out(len(F), fraction)
    prepared = model.prepare(torch.from_numpy(F[validation]))
    errors = ((prepared - model(prepared)) * model.unit).numpy().astype(
        float
    ) ** 2  # in the unit of the features again
    return errors.sum() / len(validation)


def test_the_loss_is_the_squared_error_of_a_whole_feature_map():
    F = some_features(20)
    model, history = fit(F, steps=6, validation_fraction=0.3)
    lowest = history["validation_loss"].min()
    assert lowest == pytest.approx(loss_on_held_out(model, F, 0.3), rel=1e-4)


def eight_kinds() -> np.ndarray:
    """Forty images, each of one of eight kinds."""
    centres = np.random.default_rng(0).normal(0, 3, (8, 12))
    return some_features(40) + centres[np.arange(40) % 8][:, :, None, None].astype(np.float32)


def test_groups_never_straddle_the_validation_split(monkeypatch):
    parts = []

    def noted(*arguments):
        parts.append(hold_out(*arguments))
        return parts[-1]

    monkeypatch.setattr(codebook, "hold_out", noted)
    groups = [f"tile {i % 11}" for i in range(60)]
    fit(some_features(60), groups=groups)
    train, validation = ({groups[i] for i in part} for part in parts[0])
    assert train and validation and not train & validation


def test_more_words_lower_the_loss():
    _, history = fit(eight_kinds(), words=16)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_words_are_codes_of_normal_places_and_none_is_said_twice():
    F = some_features(8)
    model, _ = fit(F, words=8)
    codes = model.encode(torch.from_numpy(vectors_seen(model, F)).float())
    exact = "donot_use_mm_for_euclid_dist"
    to_codes = torch.cdist(model.codebook, codes, compute_mode=exact)
    assert to_codes.min(dim=1).values.max() < 1e-3
    assert len(torch.unique(model.codebook, dim=0)) == 8


def test_what_is_rare_but_normal_has_a_word_of_its_own():
    """One place in a thousand; among means of many codes it would be lost."""
    F = some_features(64)
    F[5, :, 1, 2] += 40
    model, _ = fit(F, words=6)
    errors = (
        (F - scoring.reconstruct(model, F / model.unit.numpy()) * model.unit.numpy()) ** 2
    ).sum(1)
    assert errors[5, 1, 2] < 2 * np.median(errors)


def test_each_word_stands_for_eight_places_at_least():
    assert fit(some_features(8), words=50)[0].codebook.shape == (1 + 8 * 16 // 8, 5)


def test_images_of_several_sizes_have_one_unit_for_all_places():
    F = some_features(40)
    F[:, :, 0] *= 5
    F[::2, :, :, 3] = np.nan
    model, _ = fit(F)
    assert (model.unit == model.unit[0, 0]).all()


def test_the_unit_of_a_place_is_its_error_on_held_out_images_drawn_to_the_mean_of_all_places():
    F = some_features(40)
    F[:, :, 0] *= 5  # the first row of places is always harder
    model, _ = fit(F, validation_fraction=0.5)
    _, validation = held_out(40, 0.5)
    prepared = model.prepare(torch.from_numpy(F[validation]))
    errors = (((prepared - model(prepared)) * model.unit).numpy().astype(float) ** 2).mean(
        axis=1
    )  # (20, H, W)
    expected = (errors.sum(axis=0) + codebook.SHRINKAGE * errors.mean()) / (20 + codebook.SHRINKAGE)
    np.testing.assert_allclose(model.unit.numpy() ** 2, expected, rtol=1e-4)
    assert model.unit[0].min() > 1.3 * model.unit[2:].max()


def test_same_seed_same_words():
    F = some_features(6)
    first, second, other = (fit(F, seed=seed)[0].state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["codebook"], other["codebook"])


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    fit(some_features(3))
    assert torch.equal(torch.rand(1), expected)


def test_a_single_image_can_be_trained_on():
    model, history = fit(some_features(1))
    assert len(history) >= 1
    assert np.isfinite(score(model, some_features(3, seed=1))).all()


def test_images_that_are_all_the_same_give_finite_scores():
    constant = np.ones((4, 12, 4, 4), np.float32)
    same = np.repeat(some_features(1), 4, axis=0)
    for F in (constant, same, np.zeros_like(constant)):
        model, _ = fit(F)
        values = score(model, np.concatenate([F[:1], some_features(1, seed=1) + 3]))
        assert np.isfinite(values).all() and values[1] > values[0]


def test_fewer_places_than_words_are_enough():
    F = some_features(2, side=2)  # eight places
    model, _ = fit(F, words=50)
    assert len(model.codebook) < 8
    assert np.isfinite(score(model, F)).all()


def test_memory_mapped_features_give_the_same_words(tmp_path):
    F = some_features(6)
    np.save(tmp_path / "F.npy", F.transpose(0, 2, 3, 1))  # as extraction.extract stores them
    mapped = extraction.load(tmp_path / "F.npy")
    assert isinstance(mapped, np.memmap)
    in_memory, from_disk = fit(F)[0].state_dict(), fit(mapped)[0].state_dict()
    for name, tensor in in_memory.items():
        torch.testing.assert_close(from_disk[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("words", 0),
        ("validation_fraction", 1.0),
        ("bottleneck", 0),
        ("bottleneck", 13),
    ],
)
def test_parameters_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        fit(some_features(3), **{option: value})


@pytest.mark.parametrize("image", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(image, value):
    F = some_features(20)  # some are held out, so both halves are covered
    F[image, 0, 0, 0] = value
    with pytest.raises(ValueError, match="features must be finite"):
        fit(F, validation_fraction=0.5)


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (4, 2, 2)])
def test_what_is_no_feature_map_is_refused(shape):
    with pytest.raises(
        ValueError, match=r"features must be a non-empty array of shape \(N, C, H, W\)"
    ):
        fit(np.zeros(shape, np.float32))


# -- what is stored --------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [True, False])
def test_a_saved_detector_gives_the_same_scores_to_the_last_bit(tmp_path, averaged):
    model, _ = fit(some_features())
    model.widths["averaged"] = int(averaged)  # as in files of earlier versions
    registry.save(model, tmp_path / "autoencoder.safetensors")
    again = registry.load(tmp_path / "autoencoder.safetensors")
    assert (
        isinstance(again, QuantizedAutoencoder)
        and again.widths == model.widths
        and again.reduction == model.reduction
    )
    new = some_features(5, seed=1)
    for one, two in zip(
        *(scoring.score_features(m, new, progress=False) for m in (model, again)), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_what_is_stored_does_not_grow_with_the_number_of_images(tmp_path):
    sizes = set()
    for n in (30, 300):
        registry.save(fit(some_features(n))[0], tmp_path / "autoencoder.safetensors")
        sizes.add((tmp_path / "autoencoder.safetensors").stat().st_size)
    assert len(sizes) == 1


# -- why words -------------------------------------------------------------------------------------


KINDS = 4 * (-1) ** np.arange(16).reshape(4, 4)


def two_kinds(n: int, seed: int) -> np.ndarray:
    """Surfaces whose vectors lie around one of two points: −4 or +4 in the first channel, as often
    the one as the other, and noise in the others.
    """
    rng = np.random.default_rng(seed)
    F = rng.normal(0, 0.3, (n, 6, 4, 4))
    F[:, 0] += KINDS
    return F.astype(np.float32)


def test_a_vector_between_two_normal_kinds_is_told_only_with_words():
    """It lies on the line through both, so a linear code describes it as well as any; but no normal
    surface has ever been there.
    """
    train, good, bad = two_kinds(40, 1), two_kinds(40, 2), two_kinds(40, 3)
    bad[:, 0] -= KINDS
    model, _ = fit(train, bottleneck=1, words=8)
    assert score(model, bad).min() > 5 * score(model, good).max()

    def linear(F):  # the same code, not replaced by a word
        prepared = model.prepare(torch.from_numpy(F))
        vectors = (prepared * model.unit).permute(0, 2, 3, 1).reshape(-1, 6)
        return (
            torch.square(vectors - model.decode(model.encode(vectors)))
            .sum(dim=1)
            .reshape(len(F), -1)
            .mean(dim=1)
            .numpy()
        )

    assert image_auroc(np.repeat([0, 1], 40), np.concatenate([linear(good), linear(bad)])) < 0.7


def test_a_defect_of_one_place_and_one_that_is_everywhere_both_raise_the_score():
    train, good = two_kinds(40, 1), two_kinds(40, 2)
    model, _ = fit(train, bottleneck=3, words=16)
    spot, faint = good.copy(), good.copy()
    spot[:, :, 1, 2] += 3
    faint += np.random.default_rng(4).normal(0, 0.4, faint.shape).astype(np.float32)
    normal = score(model, good)
    assert (score(model, spot) > normal.max()).all()
    assert np.mean(score(model, faint) > normal) > 0.95


# -- real surfaces ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def magnetic_tile(tmp_path_factory):
    """Features of 200 real good images, and of all test images with their labels; of small images,
    so that it is quick.
    """
    root = needs_shared("data/magnetic_tile")
    backbone = fold_batchnorm(
        build_backbone(weights.load(needs_shared("weights/resnet50_imagenet_layer3.safetensors")))
    )
    good = sorted((root / "train" / "good").iterdir())
    train = [
        good[i] for i in np.sort(np.random.default_rng(0).choice(len(good), 200, replace=False))
    ]
    test = sorted(root.glob("test/*/*"))
    folder = tmp_path_factory.mktemp("magnetic_tile")
    F_train, F_test = (
        extraction.extract(
            backbone, paths, folder / f"{name}.npy", sight=Sight(128), progress=False
        )
        for name, paths in (("train", train), ("test", test))
    )
    return F_train, F_test, np.array([path.parent.name != "good" for path in test])


def test_on_real_surfaces_it_orders_the_images_better_than_the_published_method(magnetic_tile):
    """By tile, that is: no tile of the test was seen in training.

    The first split was drawn image by image, and each tile was photographed under up to six
    exposures, so the test showed other exposures of tiles that the training had shown. Words
    remember: they had 0.887 there, and the published method 0.757. What was gained by remembering
    is gone.
    """
    F_train, F_test, labels = magnetic_tile
    aurocs = [
        image_auroc(labels, scoring.score_features(fitted, F_test, progress=False)[0])
        for fitted, _ in (
            autoencoder.fit(F_train, progress=False),
            codebook.fit(F_train, progress=False),
        )
    ]
    published, stronger = aurocs
    assert stronger > published + 0.03 and stronger > 0.74, aurocs  # measured: 0.711 and 0.773
