import numpy as np
import pytest

from texad.data import synthetic_defects as pretend


@pytest.fixture
def surface():
    return np.random.default_rng(0).uniform(0.3, 0.6, (96, 80, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", pretend.KINDS)
def test_damage_is_where_the_mask_says(surface, kind):
    for seed in range(20):
        damaged, mask = pretend.damage(surface, kind, np.random.default_rng(seed))
        assert (
            damaged.shape == surface.shape
            and damaged.dtype == np.float32
            and mask.shape == surface.shape[:2]
            and mask.dtype == bool
        )
        assert 0 <= damaged.min() and damaged.max() <= 1
        change = np.abs(damaged - surface).max(axis=2)
        assert 0 < mask.mean() < 0.4
        assert change[mask].mean() > 5 * change[~mask].mean()


@pytest.mark.parametrize("kind", pretend.KINDS)
def test_the_same_seed_gives_the_same_damage_and_another_seed_another(surface, kind):
    first, again, other = (
        pretend.damage(surface, kind, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_image_itself_stays_as_it_is(surface):
    before = surface.copy()
    for kind in pretend.KINDS:
        pretend.damage(surface, kind, np.random.default_rng(3))
    assert np.array_equal(surface, before)


def test_an_unknown_kind_is_an_error_that_lists_the_known_ones(surface):
    with pytest.raises(ValueError, match="paste, scratch, stain, blur"):
        pretend.damage(surface, "hole", np.random.default_rng(0))
