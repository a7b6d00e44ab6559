from pathlib import Path

import pytest
from conftest import write_category

from texad.data import datasets, screening
from texad.errors import DataError, ImageError


def test_images_that_cannot_be_read_are_left_out_in_their_order(tmp_path):
    root = write_category(tmp_path / "mine" / "steel", n_train=5, n_good=3, n_defective=1)
    for name in ("train/good/003.png", "train/good/001.png", "test/good/002.png"):
        (root / name).write_bytes((root / name).read_bytes()[:500])
    whole = datasets.load_category(root.parent, "steel")
    category = screening.readable(whole, 0.4, progress=False)
    assert [each.sample for each in category.unreadable] == [
        whole.train[1],
        whole.train[3],
        whole.test[2],
    ]
    assert (
        category.train == (whole.train[0], whole.train[2], whole.train[4])
        and category.test == whole.test[:2] + whole.test[3:]
    )
    assert screening.readable(category, 0.0, progress=False) == category  # what is left can be read
    with pytest.raises(
        ValueError,
        match="2 of 5 images cannot be read, and .* allows 0.39 of them: 001.png .*; 003.png",
    ):
        screening.readable(whole, 0.39, progress=False)


def test_images_are_looked_at_in_their_order_and_errors_become_reasons():
    def look(name):
        if name == "torn":
            raise ImageError(name, "it is torn")
        if name == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        return len(name)

    readable, unreadable = screening.screen(["one", "torn", "three", "gone"], look, progress=False)
    assert readable == [("one", 3), ("three", 5)]
    assert unreadable == [("torn", "it is torn"), ("gone", "No such file or directory")]


def test_a_folder_may_lose_few_images_and_never_all():
    lost = [(Path("a/1.png"), "torn"), (Path("a/2.png"), "empty")]
    screening.check_lost(Path("a"), lost, 4, 0.5)
    with pytest.raises(DataError, match=r"2 of 4 images .* allows 0.4 .* 1.png \(torn\); 2.png"):
        screening.check_lost(Path("a"), lost, 4, 0.4)
    with pytest.raises(DataError, match="2 of 2 images .* must not lose all"):
        screening.check_lost(Path("a"), lost, 2, 1.0)
