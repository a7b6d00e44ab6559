"""The second edition of the synthetic set; and that the first is what it was."""

import csv
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from texad.data import datasets, groups, synthetic
from texad.data.synthetic import EDITIONS, defective, second, texture, write

SMALL = {"edition": 2, "amount": "small", "size": 64}
KINDS = [(category, kind) for category, kinds in EDITIONS[2].items() for kind in kinds]
FIRST = {  # of names, pixels and tables of a few small images, before there was a second edition
    "carpet": "237cd6cdf949816c45873e5abc3aed26b54cea481047b3f7cbec5378088cc84a",
    "grid": "2f6b4f07cee53201028f875ec0b3d673007a34dfa590a921a040ea6e36b4c433",
    "leather": "6d52b7312cbaf6b486e9b429aaebb598e81952dfa7e1086522126d7023d13a9b",
    "tile": "2c79f2999fc3362fff8895b42cfe94a1a54f99f29c0ad0d58bef44f20ba17bca",
    "wood": "db4eeafa3d9d7c203b8f74cd0ffb4ac76e22a46b30a0215f778e806d4b108280",
}


def table(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module", params=EDITIONS[2])
def folder(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("second"), request.param, **SMALL)


@pytest.mark.parametrize("category", FIRST)
def test_the_first_edition_is_what_it_was(tmp_path, category):
    folder = write(tmp_path, category, n_train=2, n_good=2, n_defective=5, size=64)
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(np.asarray(Image.open(path)).tobytes())
    for name in ("defects.csv", "synthetic.json"):
        found.update((folder / name).read_bytes())
    assert found.hexdigest() == FIRST[category]


def test_it_has_the_kinds_of_the_first_and_others():
    for category, kinds in synthetic.CATEGORIES.items():
        assert {*kinds} < {*EDITIONS[2][category]}


def test_it_is_a_category_as_any_other(folder):
    category = datasets.load_category(folder.parent, folder.name)
    n_train, n_good, n_defective = synthetic.AMOUNTS["small"][2]
    assert len(category.train) == n_train and not category.notes
    good = [sample for sample in category.test if not sample.label]
    bad = [sample for sample in category.test if sample.label]
    assert (len(good), len(bad)) == (n_good, n_defective)
    assert {sample.defect for sample in bad} == {*EDITIONS[2][folder.name]}
    assert all(sample.mask is not None for sample in bad)
    assert json.loads((folder / "synthetic.json").read_text())["edition"] == 2


def test_a_batch_is_whole_and_has_good_and_defective_pieces(folder):
    category = datasets.load_category(folder.parent, folder.name)
    of_train, of_test = (
        groups.groups([sample.path for sample in split], folder)
        for split in (category.train, category.test)
    )
    assert not {*of_train} & {*of_test}
    good = {group for group, s in zip(of_test, category.test, strict=True) if not s.label}
    bad = {group for group, s in zip(of_test, category.test, strict=True) if s.label}
    assert len(good & bad) >= 2


def test_the_file_names_its_batch(folder):
    for row in table(folder / "groups.csv")[::10]:
        with Image.open(folder / row["path"]) as image:
            assert image.info["comment"].decode() == f"batch {row['group']}"


def test_images_of_a_batch_resemble_each_other(tmp_path):
    folder = write(tmp_path, "leather", edition=2, n_train=40, n_good=1, n_defective=1, size=64)
    rows = table(folder / "groups.csv")[:40]
    colours = np.array(
        [np.asarray(Image.open(folder / row["path"])).mean((0, 1)) for row in rows]
    ).reshape(10, 4, 3)
    assert colours.mean(axis=1).std(axis=0).min() > 1.5 * colours.std(axis=1).mean(axis=0).max()


def test_some_images_are_larger_and_not_square():
    sizes = {
        texture(category, np.random.default_rng(seed), 64, edition=2).shape[:2]
        for category in EDITIONS[2]
        for seed in range(4)
    }
    assert any(height != width for height, width in sizes) and any(max(s) > 64 for s in sizes)


def test_the_contrast_to_noise_ratio_follows_the_severity(tmp_path):
    folder = write(tmp_path, "tile", edition=2, n_train=1, n_good=1, n_defective=70, size=128)
    rows = table(folder / "defects.csv")
    severity, ratio = (np.array([float(row[c]) for row in rows]) for c in ("severity", "cnr"))
    assert ratio.min() > 0
    assert np.median(ratio[severity > 0.8]) > 1.5 * np.median(ratio[severity < 0.3])


@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_a_defect_changes_the_image_inside_its_mask_and_nowhere_else(category, kind):
    for seed in range(2):
        image, mask = defective(category, kind, 0.9, np.random.default_rng(seed), 128, 2)
        without = texture(category, np.random.default_rng(seed), 128, 2)
        change = abs(image.astype(int) - without).max(axis=2)
        assert change[mask].mean() > 3
        outside = ~ndimage.binary_dilation(mask, iterations=5)
        assert (
            change[outside].mean() < 0.5 if outside.any() else kind in ("shade", "weave", "grain")
        )


@pytest.mark.parametrize(("category", "kind"), KINDS)
@pytest.mark.parametrize("severity", [0.01, 0.5])
def test_a_mask_has_no_slivers_and_no_holes(category, kind, severity):
    for seed in range(2):
        _, mask = defective(category, kind, severity, np.random.default_rng(seed), 128, 2)
        areas = np.bincount(ndimage.label(mask, np.ones((3, 3)))[0][mask])[1:]
        assert areas.min() > 0.02 * areas.max()
        holes = ndimage.binary_fill_holes(mask) & ~mask
        assert holes.sum() < 0.1 * mask.sum()


def test_same_seed_gives_same_bytes_and_more_training_images_change_no_other(tmp_path):
    few = write(tmp_path / "a", "wood", seed=3, **SMALL)
    many = write(tmp_path / "b", "wood", seed=3, **SMALL | {"n_train": 30})
    for row in table(few / "groups.csv"):
        assert (few / row["path"]).read_bytes() == (many / row["path"]).read_bytes()


def test_the_other_edition_replaces_the_folder(tmp_path):
    write(tmp_path, "grid", **SMALL)
    folder = write(tmp_path, "grid", **SMALL | {"edition": 1})
    assert not [*folder.rglob("*.jpg")] and not (folder / "groups.csv").exists()


@pytest.mark.parametrize(("name", "value"), [("edition", 3), ("edition", 0), ("amount", "huge")])
def test_bad_parameter_is_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be "):
        write(tmp_path, "wood", **SMALL | {name: value})


def test_contrast_to_noise_grows_with_the_change():
    rng = np.random.default_rng(0)
    without = np.repeat(rng.normal(100, 5, (64, 64, 1)), 3, axis=2)
    mask = np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    once, twice = (
        second.contrast_to_noise(without + by * mask[..., None], without, mask) for by in (5, 10)
    )
    assert once == pytest.approx(1, rel=0.25) and twice == pytest.approx(2 * once)
