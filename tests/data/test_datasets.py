import os
import shutil
from functools import partial

import numpy as np
import pytest
from conftest import needs_shared, write_category
from PIL import Image

from texad.data import datasets, mvtec, synthetic
from texad.io import images as reading
from texad.io import paths


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXAD_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def steel(tmp_path):
    """A category that a test may change; its data set is its parent."""
    return write_category(tmp_path / "mine" / "steel", n_train=2, n_good=1, n_defective=1)


def save(file, pixels=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8) if pixels is None else pixels).save(file)


def line(caught) -> str:
    """The message of an error, which has to be one line."""
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# -- which data sets and categories there are ------------------------------------------------------


def test_data_lie_in_the_checkout_unless_the_environment_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEXAD_DATA", raising=False)
    assert (paths.data_root().parent / "pyproject.toml").is_file()
    monkeypatch.setattr(
        paths, "__file__", str(tmp_path / "site-packages" / "texad" / "io" / "paths.py")
    )
    assert paths.data_root() == tmp_path / "data"
    monkeypatch.setenv("TEXAD_DATA", "elsewhere")
    assert paths.data_root() == tmp_path / "elsewhere"


def test_the_embedded_data_sets_have_five_textures_each():
    textures = ["carpet", "grid", "leather", "tile", "wood"]
    assert datasets.categories("synthetic") == datasets.categories("mvtec") == textures


def test_categories_of_a_folder_are_the_sub_folders_with_train_good(tmp_path):
    for folder in ("b/train/good", "a/train/good", ".hidden/train/good", "notes", "c/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "readme.txt").write_text("hello")
    assert datasets.categories(tmp_path) == datasets.categories(str(tmp_path)) == ["a", "b"]


def test_a_data_set_is_named_after_its_folder(tmp_path, monkeypatch):
    (tmp_path / "surfaces").mkdir()
    monkeypatch.chdir(tmp_path / "surfaces")
    assert datasets.name("../surfaces/") == datasets.name(".") == "surfaces"
    assert datasets.name("mvtec") == "mvtec"


@pytest.mark.parametrize(
    "dataset, way_out",
    [
        ("synthetc", "did you mean 'synthetic'"),
        ("/nowhere/MVTEC", "'mvtec'"),
        ("", "choose synthetic, mvtec, or"),
    ],
)
def test_an_unknown_data_set_is_refused(dataset, way_out):
    with pytest.raises(FileNotFoundError) as caught:
        datasets.categories(dataset)
    assert way_out in line(caught)


def test_a_file_is_no_data_set(tmp_path):
    (tmp_path / "images.zip").touch()
    with pytest.raises(FileNotFoundError, match="images.zip.* is no folder"):
        datasets.name(tmp_path / "images.zip")


def test_a_path_is_a_folder_even_if_it_is_called_synthetic(tmp_path, monkeypatch):
    (tmp_path / "synthetic" / "mine" / "train" / "good").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (
        datasets.categories(tmp_path / "synthetic")
        == datasets.categories("./synthetic")
        == ["mine"]
    )


def test_a_folder_that_is_itself_a_category_says_what_to_pass(steel):
    with pytest.raises(ValueError) as caught:
        datasets.categories(steel)
    assert f"pass its parent {steel.parent} as the data set and 'steel' as the category" in line(
        caught
    )


def test_a_folder_without_categories_says_where_the_images_go(tmp_path):
    with pytest.raises(ValueError) as caught:
        datasets.select(tmp_path, "all")
    assert f"put defect-free images into {tmp_path / 'NAME' / 'train' / 'good'}" in line(caught)


@pytest.mark.parametrize(
    "category, names",
    [
        ("all", ["carpet", "grid", "leather", "tile", "wood"]),
        ("tile", ["tile"]),
        ("wood, grid,wood", ["wood", "grid"]),
        ("zipper", ["zipper"]),
    ],
)
def test_select_takes_all_a_name_or_several(category, names):
    assert datasets.select("mvtec", category) == names


def test_a_name_with_a_comma_is_one_category(tmp_path):
    (tmp_path / "red, shiny" / "train" / "good").mkdir(parents=True)
    assert datasets.select(tmp_path, "red, shiny") == ["red, shiny"]


@pytest.mark.parametrize("dataset", ["synthetic", "mvtec"])
@pytest.mark.parametrize("load", [datasets.select, datasets.load_category])
def test_an_unknown_category_fails_before_anything_is_made(data_root, monkeypatch, dataset, load):
    monkeypatch.setattr(synthetic, "write", None)
    monkeypatch.setattr(mvtec, "prepare", None)
    with pytest.raises(ValueError) as caught:
        load(dataset, "Lether")
    message = line(caught)
    assert (
        all(name in message for name in synthetic.CATEGORIES)
        and "did you mean 'leather'?" in message
    )
    assert not data_root.exists()


@pytest.mark.parametrize("category", ["../other", "", ".", "steel/../steel", "steel,", "steel/"])
def test_a_category_cannot_lead_out_of_the_data_set(steel, category):
    write_category(steel.parent.parent / "other", n_train=1)
    with pytest.raises(ValueError, match="choose from steel"):
        datasets.load_category(steel.parent, category)


def test_an_absolute_path_is_no_category(steel):
    with pytest.raises(ValueError, match="choose from steel"):
        datasets.load_category(steel.parent, str(steel))


def test_a_sub_folder_without_train_good_is_told_what_it_lacks(steel):
    (steel.parent / "brass" / "train" / "ok").mkdir(parents=True)
    with pytest.raises(ValueError) as caught:
        datasets.select(steel.parent, "brass")
    assert f"there is no folder {steel.parent / 'brass' / 'train' / 'good'}" in line(caught)


# -- the images of a category ----------------------------------------------------------------------


def test_synthetic_data_are_made_when_they_are_missing(data_root, monkeypatch):
    few = partial(synthetic.write, n_train=2, n_good=1, n_defective=5, size=64)
    monkeypatch.setattr(synthetic, "write", few)
    category = datasets.load_category("synthetic", "tile")
    assert category.root == data_root / "synthetic" / "tile"
    assert category.dataset == "synthetic" and category.name == "tile"
    defects = {sample.defect for sample in category.test}
    assert defects == {"good", *synthetic.CATEGORIES["tile"]}
    assert all(sample.mask.is_file() for sample in category.test if sample.label)


def test_preparing_a_folder_changes_nothing(steel):
    before = sorted(steel.rglob("*"))
    datasets.prepare(steel.parent, ["steel"])
    assert sorted(steel.rglob("*")) == before


def test_images_are_listed_in_natural_order_by_defect(tmp_path):
    root = tmp_path / "mine" / "felt"
    for file in (
        "train/good/10.png",
        "train/good/9.png",
        "test/good/1.png",
        "test/cut10/1.png",
        "test/cut2/1.png",
    ):
        save(root / file)
    for name in ("b10", "b2", "b002", "b0002", "b02"):
        save(root / "test" / "hole" / f"{name}.png")
    category = datasets.load_category(tmp_path / "mine", "felt")
    assert [sample.path.name for sample in category.train] == ["9.png", "10.png"]
    assert [sample.path.relative_to(root / "test").as_posix() for sample in category.test] == [
        "cut2/1.png",
        "cut10/1.png",
        "good/1.png",
        "hole/b0002.png",
        "hole/b002.png",
        "hole/b02.png",
        "hole/b2.png",
        "hole/b10.png",
    ]
    assert [sample.label for sample in category.test] == [1, 1, 0, 1, 1, 1, 1, 1]
    assert {sample.split for sample in category.train} == {"train"} and {
        s.split for s in category.test
    } == {"test"}
    assert category.root.is_absolute() and all(
        sample.path.is_absolute() for sample in category.train
    )


def test_a_relative_data_set_gives_absolute_paths(steel, monkeypatch):
    monkeypatch.chdir(steel.parent.parent)
    category = datasets.load_category("mine", "steel")
    assert category.root == steel and category.dataset == "mine"


def test_only_images_are_listed(steel):
    for name in ("a.JPG", "b.jpeg", "c.Bmp", "d.tif", "e.TIFF"):
        save(steel / "train" / "good" / name)
    for name in (".hidden.png", "Thumbs.db", "notes.txt", "f.png.part"):
        (steel / "train" / "good" / name).write_text("no image")
    (steel / "train" / "good" / "folder.png").mkdir()
    (steel / "train" / "bad").mkdir()
    save(steel / "test" / "loose.png")
    category = datasets.load_category(steel.parent, "steel")
    names = [sample.path.name for sample in category.train]
    assert names == ["000.png", "001.png", "a.JPG", "b.jpeg", "c.Bmp", "d.tif", "e.TIFF"]
    assert len(category.test) == 2


@pytest.mark.parametrize(
    "image, files, mask",
    [
        ("007.jpg", ["007_mask.png"], "007_mask.png"),
        ("007.png", ["007.png"], "007.png"),
        ("007.png", ["007.png", "007_mask.BMP"], "007_mask.BMP"),
        ("007.png", ["007_mask.bmp", "007_mask.png"], "007_mask.bmp"),
        ("007.png", ["0071_mask.png", "07_mask.png", "007_mask.txt", ".007_mask.png"], None),
        ("a.b [1].png", ["a_mask.png", "a.b [1]_mask.tif"], "a.b [1]_mask.tif"),
    ],
)
def test_a_mask_is_found_by_the_stem_of_its_image(tmp_path, image, files, mask):
    root = tmp_path / "mine" / "felt"
    save(root / "train" / "good" / "0.png")
    save(root / "test" / "hole" / image)
    for file in files:
        (root / "ground_truth" / "hole").mkdir(parents=True, exist_ok=True)
        (root / "ground_truth" / "hole" / file).touch()
    (sample,) = datasets.load_category(tmp_path / "mine", "felt").test
    assert (
        sample.mask and sample.mask.relative_to(root / "ground_truth" / "hole").as_posix()
    ) == mask


def test_good_images_have_no_mask(steel):
    save(steel / "ground_truth" / "good" / "000_mask.png")
    category = datasets.load_category(steel.parent, "steel")
    assert {sample.defect: sample.mask is not None for sample in category.test} == {
        "good": False,
        "spot": True,
    }
    assert category.train[0].mask is None


def test_a_category_without_masks_loads(steel):
    shutil.rmtree(steel / "ground_truth")
    assert {sample.mask for sample in datasets.load_category(steel.parent, "steel").test} == {None}


@pytest.mark.parametrize("defect", ["good", "spot"])
def test_the_test_part_may_be_good_or_defective_alone(steel, defect):
    shutil.rmtree(steel / "test" / defect)
    assert len(datasets.load_category(steel.parent, "steel").test) == 1


@pytest.mark.parametrize("folder", ["train/good", "test"])
def test_no_images_is_an_error_that_names_the_folder(steel, folder):
    for file in (steel / folder).rglob("*.png"):
        file.unlink()
    with pytest.raises(ValueError) as caught:
        datasets.load_category(steel.parent, "steel")
    assert f"{steel / folder} has no images" in line(caught)


def test_no_test_folder_is_an_error_that_names_it(steel):
    shutil.rmtree(steel / "test")
    with pytest.raises(ValueError, match="test has no images"):
        datasets.load_category(steel.parent, "steel")


def test_load_category_takes_one_at_a_time(surfaces):
    with pytest.raises(ValueError, match="only one category can be loaded, not 'all'"):
        datasets.load_category(surfaces, "all")


def test_an_image_that_vanished_is_not_passed_over(steel):
    os.symlink(steel / "nowhere.png", steel / "train" / "good" / "002.png")
    assert len(datasets.load_category(steel.parent, "steel").train) == 3


# -- fingerprint -----------------------------------------------------------------------------------


def fingerprint(root):
    return datasets.fingerprint(datasets.load_category(root.parent, root.name))


def test_a_copy_elsewhere_has_the_same_fingerprint(steel, tmp_path):
    shutil.copytree(steel, tmp_path / "other" / "brass")
    assert fingerprint(steel) == fingerprint(tmp_path / "other" / "brass")
    assert len(fingerprint(steel)) == 64


@pytest.mark.parametrize(
    "file", ["train/good/000.png", "test/spot/000.png", "ground_truth/spot/000_mask.png"]
)
def test_one_pixel_changes_the_fingerprint(steel, file):
    before = fingerprint(steel)
    pixels = np.array(Image.open(steel / file))
    pixels.flat[0] ^= 1
    save(steel / file, pixels)
    assert fingerprint(steel) != before


def test_another_name_changes_the_fingerprint(steel):
    before = fingerprint(steel)
    (steel / "test" / "spot").rename(steel / "test" / "blob")
    (steel / "ground_truth" / "spot").rename(steel / "ground_truth" / "blob")
    assert fingerprint(steel) != before


def test_files_that_are_not_used_do_not_change_the_fingerprint(steel):
    before = fingerprint(steel)
    (steel / "notes.txt").write_text("hello")
    save(steel / "ground_truth" / "spot" / "999_mask.png")
    assert fingerprint(steel) == before


# -- real images -----------------------------------------------------------------------------------


def test_a_real_data_set_with_grey_jpegs_loads_whole():
    folder = needs_shared("data/magnetic_tile")
    category = datasets.load_category(folder.parent, "magnetic_tile")
    assert (len(category.train), len(category.test)) == (761, 333)
    assert all((sample.mask is not None) == bool(sample.label) for sample in category.test)
    sample = category.test[0]
    assert reading.read_image(sample.path).size == reading.read_mask(sample.mask).shape[::-1]
    assert reading.read_mask(sample.mask).any()
