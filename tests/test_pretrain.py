"""Drawn textures, lessons, and a training that can be interrupted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import Ridge

from texad.pretrain import curves, lessons, rehearsal, textures, training
from texad.pretrain.__main__ import main
from texad.pretrain.training import Settings, ranking

QUICK = Settings(steps=4, surfaces=4, sizes=((32, 0.5), (48, 1.0)), rehearse_every=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def no_rehearsal(monkeypatch):
    monkeypatch.setattr(training, "rehearse", lambda trunk: dict.fromkeys(("all", *lessons.DEFECTS), 0.5))


# -- textures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", range(len(textures.PATTERNS)), ids=textures.PATTERNS)
def test_every_pattern_draws_pictures_with_something_in_them(pattern):
    recipes = textures.draw_recipes(24, seeded(pattern))
    images = textures.draw(dataclasses.replace(recipes, pattern=torch.full_like(recipes.pattern, pattern)), 40, seeded())
    assert images.shape == (24, 3, 40, 40) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1 and images.isfinite().all()
    assert (images.std((1, 2, 3)) > 0.005).all()


def test_textures_depend_on_the_generator_alone():
    first, again, other = (textures.draw(textures.draw_recipes(6, seeded(s)), 32, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_two_drawings_show_one_surface_and_not_one_place():
    """Their pixels differ, but their colours and spectra resemble each other more than those of other surfaces do."""
    recipes, generator = textures.draw_recipes(24, seeded(3)), seeded(4)
    drawings = [textures.draw(recipes, 64, generator) for _ in range(2)]
    assert not torch.allclose(*drawings, atol=0.05)

    def described(images):
        spectrum = torch.fft.rfft2(images.mean(1)).abs()[:, 1:, 1:].log1p()
        rings = torch.nn.functional.adaptive_avg_pool2d(spectrum[:, None], 6).flatten(1)
        return torch.cat([10 * images.mean((2, 3)), rings], 1)

    distances = torch.cdist(*map(described, drawings))
    assert (distances.argmin(1) == torch.arange(24)).float().mean() > 0.6  # by chance: 1 in 24


def test_relatives_differ_in_one_thing():
    recipes = textures.draw_recipes(40, seeded(5))
    relatives = textures.vary(recipes, 0.5, seeded(6))
    things = ("period", "angle", "shape", "palette", "light")
    changed = torch.stack([(getattr(recipes, name) != getattr(relatives, name)).flatten(1).any(1) for name in things])
    assert (changed.sum(0) == 1).all() and (changed.sum(1) > 0).all()
    assert torch.equal(recipes.weight, relatives.weight) and torch.equal(recipes.pattern, relatives.pattern)


def test_hashes_are_even_and_the_same_each_time():
    i, j = torch.meshgrid(torch.arange(-100, 100), torch.arange(-100, 100), indexing="ij")
    values = textures._hash(torch.tensor(7), i, j, 3)
    assert torch.equal(values, textures._hash(torch.tensor(7), i, j, 3)) and not torch.equal(values, textures._hash(torch.tensor(8), i, j, 3))
    counts = torch.histc(values, 10, 0, 1) / values.numel()
    assert (counts - 0.1).abs().max() < 0.01
    assert np.abs(np.corrcoef(values[:-1].flatten(), values[1:].flatten())[0, 1]) < 0.02  # neighbours have nothing in common


# -- lessons ---------------------------------------------------------------------------------------


def test_a_lesson_shows_the_same_surfaces_in_each_view_and_spoils_most():
    images, masks = lessons.lesson(8, 48, seeded(7), views=4)
    assert images.shape == (32, 3, 48, 48) and masks.shape == (32, 48, 48)
    assert 0 <= images.min() and images.max() <= 1
    assert 0.6 < (masks.amax((1, 2)) > 0).float().mean() < 1


def test_a_photograph_keeps_the_pattern_and_changes_the_light():
    images = textures.draw(textures.draw_recipes(24, seeded(9)), 48, seeded(9))
    taken = lessons.photographed(images, seeded(10))
    assert taken.shape == images.shape and 0 <= taken.min() and taken.max() <= 1
    patterns = [(x.mean(1) - x.mean((1, 2, 3))[:, None, None]).flatten(1) for x in (images, taken)]
    alike = torch.nn.functional.cosine_similarity(*patterns)
    assert alike.median() > 0.8 and (taken.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().mean() > 0.1


def test_a_picture_is_spoilt_in_its_mask_and_nowhere_else():
    n = 4 * len(lessons.DEFECTS)
    images, relatives, strangers = (textures.draw(textures.draw_recipes(n, seeded(s)), 48, seeded(s)) for s in (1, 2, 3))
    masks, kind = lessons.draw_masks(n, 48, seeded(4)), torch.arange(n) % len(lessons.DEFECTS)
    spoilt = lessons.spoil(images, relatives, strangers, masks, kind, seeded(5))
    change = (spoilt - images).abs().amax(1)
    assert change[masks == 0].max() == 0
    inside = torch.stack([change[i][masks[i] > 0.5].mean() for i in range(n)])
    assert (inside > 0.002).all()
    assert torch.allclose(spoilt[0, :, masks[0] == 1], relatives[0, :, masks[0] == 1], atol=1e-6)


def test_masks_cover_a_small_part():
    part = lessons.draw_masks(200, 64, seeded(8)).mean((1, 2))
    assert (part > 0).all() and part.max() < 0.35 and 0.01 < part.mean() < 0.12


# -- the loss --------------------------------------------------------------------------------------


def test_the_error_that_is_left_by_hand():
    """One texture, in double precision, against scikit-learn's ridge regression of a place on the good ones."""
    good, judged = (torch.randn(1, *shape, 12, generator=seeded(s)) for s, shape in ((1, (5,)), (2, (1, 4))))
    whole = torch.tensor([[True, True, False, True, True]])
    error = training._errors(good, whole, judged)[0, 0]
    learnt = good[0, whole[0]].double().numpy()
    learnt, mean = learnt - learnt.mean(0), learnt.mean(0)
    strength = training.RIDGE * np.square(learnt).sum() / len(learnt)
    for place, found in zip(judged[0, 0].double().numpy() - mean, error, strict=True):
        left = place - Ridge(strength, fit_intercept=False).fit(learnt.T, place).predict(learnt.T)
        expected = 0.5 * (np.log(np.square(left).mean()) + np.log(np.sort(np.square(left))[-training.TOP :].mean()))
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_by_hand():
    """Features of 2 × 2 places, one of them spoilt in each of two drawings; the errors are made so that the ranking is known."""
    masks = torch.zeros(2, 32, 32)
    masks[:, :16, :16] = 1
    features = torch.randn(2, 16, 2, 2, generator=seeded())
    expected = []
    for learnt, judged in ((0, 1), (1, 0)):
        places = features.flatten(2).transpose(1, 2)
        error = training._errors(places[learnt][None], torch.tensor([[False, True, True, True]]), places[judged][None, None])[0, 0]
        expected.append(np.log1p(np.exp((error[1:].mean() - error[0]).item() / training.TEMPERATURE)))
    assert ranking(features, masks, 2).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_loss_is_small_where_what_was_put_in_stands_out():
    masks = torch.zeros(8, 48, 48)
    masks[:, :16, :16] = 1  # the first of 3 × 3 places
    blind = torch.randn(8, 16, 3, 3, generator=seeded())
    seeing = blind.clone()
    seeing[:, :, 0, 0] *= 10
    assert ranking(seeing, masks, 4) < 0.1 < ranking(blind, masks, 4)
    assert ranking(seeing, torch.zeros(8, 48, 48), 4) == 0  # nothing to find


# -- training --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_curve_and_an_interruption_changes_nothing(tmp_path, no_rehearsal):
    whole = training.train(tmp_path / "whole", QUICK)
    training.train(tmp_path / "parts", QUICK, until=2)
    parts = training.train(tmp_path / "parts", QUICK)
    assert whole["loss"].tolist() == parts["loss"].tolist() and len(whole) == 4
    names = [f"weights_{step:06d}.safetensors" for step in (2, 4)]
    for name in names:
        first, second = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(a, b) for a, b in zip(*(load_file(tmp_path / "whole" / name).values() for name in names), strict=True))
    assert "rehearsal" in (tmp_path / "parts" / curves.PICTURE).read_text()
    log = pd.read_csv(tmp_path / "parts" / training.LOG)
    assert log["step"].tolist() == [1, 2, 3, 4] and log["all"].notna().tolist() == [False, True, False, True]


def test_a_lesson_that_is_repeated_is_learnt(no_rehearsal, tmp_path, monkeypatch):
    """A few steps are too few to learn textures that are new each time."""
    fixed = lessons.lesson(4, 48, seeded())
    monkeypatch.setattr(training, "lesson", lambda *_: fixed)
    log = training.train(tmp_path, dataclasses.replace(QUICK, steps=30, rehearse_every=30))
    assert log["loss"].tail(5).mean() < 0.8 * log["loss"].head(5).mean()


def test_another_training_in_the_folder_is_not_overwritten(tmp_path, no_rehearsal, capsys):
    training.train(tmp_path, QUICK, until=2)
    before = (tmp_path / training.CHECKPOINT).read_bytes()
    assert main([str(tmp_path), "--steps", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other settings" in line and str(tmp_path) in line
    assert (tmp_path / training.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(("arguments", "said"), [(["--surfaces", "2"], "at least 3 surfaces, not 2"), (["--sizes", "64"], "such as 64:0.5,96:1, not '64'"), (["--views", "3"], "views must be even, not 3")])
def test_what_cannot_be_trained_is_one_line(tmp_path, capsys, arguments, said):
    try:
        assert main([str(tmp_path), *arguments]) == 2
    except SystemExit as refused:  # by the parser
        assert refused.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_learning_rate_rises_and_falls_and_sizes_grow():
    settings = Settings(steps=1000)
    rates = [settings.rate_at(step) for step in range(1000)]
    assert np.argmax(rates) in (training.WARM_UP - 1, training.WARM_UP) and max(rates) == pytest.approx(settings.learning_rate)
    assert rates[-1] < 0.02 * max(rates) and (np.diff(rates[training.WARM_UP :]) < 0).all()
    assert [settings.size_at(step) for step in (0, 499, 500, 999)] == [64, 64, 96, 96]


def test_the_rehearsal_tells_seeing_from_blindness():
    """Mean colours of small places see stains; a trunk that returns a constant sees nothing."""
    colours = torch.nn.Sequential(torch.nn.Conv2d(3, 128, 8, 8), torch.nn.ReLU())  # more channels than components: else what is left over is rounding
    torch.nn.init.normal_(colours[0].weight, generator=seeded())
    torch.nn.init.zeros_(colours[0].bias)  # else it depends on what ran before
    small = dict(n_surfaces=6, n_train=4, n_test=12, size=48)
    seen = rehearsal.rehearse(colours, **small)
    assert set(seen) == {"all", *lessons.DEFECTS} and seen["stranger"] > 0.7
    torch.nn.init.zeros_(colours[0].weight)
    assert rehearsal.rehearse(colours, **small)["all"] == pytest.approx(0.5, abs=0.05)
