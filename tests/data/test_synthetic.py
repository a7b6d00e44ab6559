import csv
import json
import os
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from texad.data import synthetic
from texad.data.synthetic import CATEGORIES, defective, texture, write

ALL_DEFECTS = [(category, defect) for category, defects in CATEGORIES.items() for defect in defects]
SMALL = {"n_train": 2, "n_good": 2, "n_defective": 7, "size": 64}


def all_bytes(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module", params=CATEGORIES)
def category_folder(request, root):
    """One whole category, with the default numbers of images."""
    return write(root, request.param)


def test_categories_and_defects_carry_the_names_of_mvtec_ad():
    assert list(CATEGORIES) == ["carpet", "grid", "leather", "tile", "wood"]
    assert CATEGORIES["grid"] == ("bent", "broken", "glue", "metal_contamination", "thread")
    assert CATEGORIES["wood"] == ("color", "combined", "hole", "liquid", "scratch")


def test_layout_is_that_of_mvtec_ad(category_folder):
    defects = CATEGORIES[category_folder.name]
    files = {
        path.relative_to(category_folder).as_posix()
        for path in category_folder.rglob("*")
        if path.is_file()
    }
    expected = {f"train/good/{i:03d}.png" for i in range(96)} | {
        f"test/good/{i:03d}.png" for i in range(24)
    }
    expected |= {f"test/{defect}/{i:03d}.png" for defect in defects for i in range(8)}
    expected |= {f"ground_truth/{defect}/{i:03d}_mask.png" for defect in defects for i in range(8)}
    assert files == expected | {"defects.csv", "synthetic.json"}


def test_images_are_rgb_and_masks_black_and_white(category_folder):
    defect = CATEGORIES[category_folder.name][0]
    with Image.open(category_folder / "test" / defect / "003.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))
    with Image.open(category_folder / "ground_truth" / defect / "003_mask.png") as mask:
        assert (mask.mode, mask.size) == ("L", (256, 256))
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_defects_csv_grades_every_kind_from_subtle_to_obvious(category_folder):
    with (category_folder / "defects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "defect", "severity"]
    assert {row["path"] for row in rows} == {
        path.relative_to(category_folder).as_posix()
        for path in (category_folder / "test").rglob("*.png")
        if path.parent.name != "good"
    }
    for defect in CATEGORIES[category_folder.name]:
        severities = [float(row["severity"]) for row in rows if row["defect"] == defect]
        assert 0.2 <= min(severities) < 0.3 and 0.9 < max(severities) <= 1
        assert len(set(severities)) == len(severities) == 8


def test_every_mask_marks_a_small_part_of_the_image(category_folder):
    for path in (category_folder / "ground_truth").rglob("*.png"):
        share = (np.asarray(Image.open(path)) > 0).mean()
        assert 0 < share < 0.25, path


def test_no_trivial_detector_gets_far(category_folder):
    """Brightness, colour, contrast and file size tell nothing, or a good AUROC would not either."""

    def describe(paths):
        rows = []
        for path in paths:
            image = np.asarray(Image.open(path), dtype=float)
            rows.append(
                [image.mean(), *image.mean((0, 1)), image.mean(2).std(), path.stat().st_size]
            )
        return np.array(rows)

    paths = sorted((category_folder / "test").rglob("*.png"))
    labels = [path.parent.name != "good" for path in paths]
    train, test = describe(sorted((category_folder / "train").rglob("*.png"))), describe(paths)
    names = ("mean grey", "mean red", "mean green", "mean blue", "contrast", "file size")
    scores = dict(zip(names, test.T, strict=True))
    scores |= {
        f"{name}, distance from training": abs(test - train.mean(0))[:, i]
        for i, name in enumerate(names)
    }
    offset = test[:, 1:4] - train[:, 1:4].mean(0)
    precision = np.linalg.inv(np.cov(train[:, 1:4].T))
    scores["mean colour, Mahalanobis"] = np.einsum("ni,ij,nj->n", offset, precision, offset)
    aurocs = {name: roc_auc_score(labels, score) for name, score in scores.items()}
    too_good = {name: auroc for name, auroc in aurocs.items() if max(auroc, 1 - auroc) >= 0.70}
    assert not too_good


@pytest.mark.parametrize(("category", "defect"), ALL_DEFECTS)
@pytest.mark.parametrize("severity", [0.2, 1.0])
def test_a_defect_changes_the_image_inside_its_mask_and_nowhere_else(category, defect, severity):
    seed = [zlib.crc32(f"{category}/{defect}".encode()), int(100 * severity)]
    normal = texture(category, np.random.default_rng(seed)).astype(int)
    image, mask = defective(category, defect, severity, np.random.default_rng(seed))
    change = abs(image.astype(int) - normal).max(axis=2)
    assert mask.any()
    assert change[mask].mean() > 5
    outside = ~ndimage.binary_dilation(mask, iterations=2)
    if category == "grid":  # a wire a pixel beside its place does not look bent
        darkest, brightest = (
            f(normal, (3, 3, 1)) for f in (ndimage.minimum_filter, ndimage.maximum_filter)
        )
        change = abs(image - np.clip(image, darkest, brightest)).max(axis=2)
    # a soft edge fades below what the eye sees, and slivers are left out
    assert change[outside].max() <= (15 if category == "grid" else 6)
    assert change[outside].mean() < 0.5


REGIONS = {"liquid": 4, "combined": 7, "scratch": 3, "gray_stroke": 2, "crack": 2}


@pytest.mark.parametrize(("category", "defect"), ALL_DEFECTS)
def test_a_defect_is_one_region_of_its_mask_or_as_many_as_it_has_parts(category, defect):
    counts = []
    for seed in range(5):
        _, mask = defective(category, defect, (seed + 1) / 5, np.random.default_rng(seed))
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        areas = np.bincount(regions[mask])[1:]
        assert areas.min() > 0.02 * areas.max()  # no slivers
        counts.append(count)
    assert max(counts) <= REGIONS.get(defect, 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_of_a_bent_wire_ends_where_it_looks_straight(seed):
    """All that has changed much is inside, openings included; where little has, is outside."""
    image, mask = defective("grid", "bent", 1.0, np.random.default_rng(seed))
    normal = texture("grid", np.random.default_rng(seed)).astype(int)
    change = ndimage.gaussian_filter(abs(image.astype(int) - normal).max(axis=2).astype(float), 6)
    assert mask[change > 0.6 * change.max()].all()
    assert not mask[change < 0.05 * change.max()].any()


@pytest.mark.parametrize(("category", "defect"), ALL_DEFECTS)
def test_a_severe_defect_changes_more_than_a_subtle_one(category, defect):
    def total_change(severity):
        changes = []
        for seed in range(3):
            normal = texture(category, np.random.default_rng(seed), size=128).astype(float)
            image, _ = defective(category, defect, severity, np.random.default_rng(seed), size=128)
            changes.append(((image - normal) ** 2).sum())
        return sum(changes)

    assert total_change(1.0) > 1.5 * total_change(0.2)


@pytest.mark.parametrize("category", CATEGORIES)
def test_images_of_any_size_show_the_same_material(category):
    for size in (64, 200):
        image = texture(category, np.random.default_rng(0), size=size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert abs(image.mean() - texture(category, np.random.default_rng(0)).mean()) < 25


def test_same_seed_gives_same_bytes(tmp_path):
    first, second = (
        write(tmp_path / "a", "wood", seed=3, **SMALL),
        write(tmp_path / "b", "wood", seed=3, **SMALL),
    )
    assert all_bytes(first) == all_bytes(second)


def test_other_seed_gives_other_images(tmp_path):
    first, second = (
        write(tmp_path / "a", "wood", seed=3, **SMALL),
        write(tmp_path / "b", "wood", seed=4, **SMALL),
    )
    images = [
        {data for name, data in all_bytes(folder).items() if name.endswith("0.png")}
        for folder in (first, second)
    ]
    assert not images[0] & images[1]


def test_all_images_of_a_category_differ(tmp_path):
    folder = write(tmp_path, "grid", **SMALL)
    images = [
        path.read_bytes() for split in ("train", "test") for path in (folder / split).rglob("*.png")
    ]
    assert len(set(images)) == len(images) == 11


def test_number_of_training_images_changes_no_test_image(tmp_path):
    few, many = (
        write(tmp_path / "a", "tile", **SMALL),
        write(tmp_path / "b", "tile", **SMALL | {"n_train": 5}),
    )
    assert (few / "test/good/001.png").read_bytes() == (many / "test/good/001.png").read_bytes()
    assert (few / "test/oil/000.png").read_bytes() == (many / "test/oil/000.png").read_bytes()


def test_defective_images_are_dealt_out_evenly(tmp_path):
    folder = write(tmp_path, "leather", **SMALL)
    assert [
        len(list((folder / "test" / defect).iterdir())) for defect in CATEGORIES["leather"]
    ] == [2, 2, 1, 1, 1]


def test_a_complete_category_is_left_alone(tmp_path):
    folder = write(tmp_path, "carpet", **SMALL)
    image = folder / "train" / "good" / "000.png"
    os.utime(image, ns=(1, 1))
    assert write(tmp_path, "carpet", **SMALL) == folder
    assert image.stat().st_mtime_ns == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"n_train": 1}, {"size": 80}])
def test_other_parameters_replace_the_category(tmp_path, change):
    folder = write(tmp_path, "carpet", **SMALL)
    before = all_bytes(folder)
    write(tmp_path, "carpet", **SMALL | change)
    assert all_bytes(folder) != before
    assert all_bytes(folder) == all_bytes(write(tmp_path / "fresh", "carpet", **SMALL | change))


def test_another_version_of_the_generator_replaces_the_category(tmp_path, monkeypatch):
    folder = write(tmp_path, "carpet", **SMALL)
    monkeypatch.setattr(synthetic, "GENERATOR", synthetic.GENERATOR + 1)
    write(tmp_path, "carpet", **SMALL)
    assert json.loads((folder / "synthetic.json").read_text())["generator"] == synthetic.GENERATOR


def test_a_damaged_record_replaces_the_category(tmp_path):
    folder = write(tmp_path, "carpet", **SMALL)
    whole = all_bytes(folder)
    (folder / "synthetic.json").write_text("{")
    (folder / "train" / "good" / "000.png").unlink()
    write(tmp_path, "carpet", **SMALL)
    assert all_bytes(folder) == whole


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(synthetic.DEFECTS["carpet"], "hole", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "carpet", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_users_own_is_never_replaced(tmp_path):
    (tmp_path / "carpet").mkdir()
    (tmp_path / "carpet" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="was not written by texad"):
        write(tmp_path, "carpet", **SMALL)
    assert (tmp_path / "carpet" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "call", [lambda name, rng: texture(name, rng), lambda name, rng: write("unused", name)]
)
def test_unknown_category_names_the_nearest(call):
    with pytest.raises(ValueError, match="category must be .*, not 'carpt' .did you mean 'carpet'"):
        call("carpt", np.random.default_rng(0))


def test_unknown_defect_names_the_nearest():
    with pytest.raises(
        ValueError, match="defect of wood must be .*, not 'scratches' .did you mean 'scratch'"
    ):
        defective("wood", "scratches", 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("severity", [0, -0.1, 1.1, float("nan")])
def test_severity_out_of_range_is_refused(severity):
    with pytest.raises(ValueError, match="severity"):
        defective("wood", "scratch", severity, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_train", 0),
        ("n_good", -1),
        ("n_defective", 2.5),
        ("seed", -1),
        ("size", 32),
        ("size", 4096),
    ],
)
def test_bad_parameter_is_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be "):
        write(tmp_path, "wood", **SMALL | {name: value})
    assert list(tmp_path.iterdir()) == []
