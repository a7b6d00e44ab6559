import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from texad.data import inputs
from texad.io.atomic import sha256


def paths_of(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder)) for path in inputs.good_images(folder, progress=False).paths
    ]


def noise(file: Path, seed: int = 0, size: int = 64) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(seed).integers(90, 150, (size, size, 3), dtype=np.uint8)
    ).save(file)
    return file


def test_images_of_all_folders_are_found_in_natural_order(tmp_path):
    for i, name in enumerate(
        ["10.png", "2.PNG", "day 10/1.png", "day 2/1.png", ".hidden.png", ".git/1.png", "note.txt"]
    ):
        noise(tmp_path / f"{name}.png", i).rename(tmp_path / name)
    assert paths_of(tmp_path) == ["2.PNG", "10.png", "day 2/1.png", "day 10/1.png"]


def test_copies_are_left_out_and_a_few_unreadable_files_too(tmp_path):
    for i in range(20):
        noise(tmp_path / f"{i}.png", i)
    shutil.copy(tmp_path / "3.png", tmp_path / "copy of 3.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    found = inputs.good_images(tmp_path, progress=False)
    assert (
        len(found.paths) == 20
        and found.copies == [tmp_path / "copy of 3.png"]
        and list(found.unreadable) == [tmp_path / "torn.png"]
    )
    assert list(found.images)[3] == sha256(tmp_path / "3.png")[:16]
    with pytest.raises(
        ValueError,
        match=r"1 of 22 images cannot be read, .*unreadable_limit allows 0.01 .*torn.png \(",
    ):
        inputs.good_images(tmp_path, unreadable_limit=0.01, progress=False)


def test_of_mvtec_s_layout_only_the_good_images_of_one_part_are_taken(tmp_path):
    steel = write_category(tmp_path / "steel", n_train=60, n_good=40, n_defective=4, size=64)
    found = inputs.good_images(steel, progress=False)
    assert (
        found.layout == "train/good"
        and len(found.paths) == 60
        and {path.parent for path in found.paths} == {steel / "train" / "good"}
    )
    assert len(inputs.good_images(steel, "test", progress=False).paths) == 40


@pytest.mark.parametrize(
    "below, problem",
    [
        (["good/1.png", "crack/1.png"], "has the sub-folders crack, good, .*: name .*good"),
        (["Monday/OK/1.png", "Monday/NG/1.png"], "has the sub-folders NG, OK"),
        (["defects/1.png"], "has the sub-folders defects.*move .*defects elsewhere"),
        (
            ["steel/train/good/1.png", "wood/train/good/1.png"],
            "is a data set of 2 categories: name one .*steel",
        ),
        (["1.png", "1_GT.png"], "masks among its images .1, such as .*1_GT.png.*texad import"),
        (["a/1.jpg", "a/1_label.bmp"], "masks among its images"),
        (["a/1.png", "a/masks/1.png"], "masks among its images"),
        (["notes.txt"], "holds no image, .* other files: 1, such as notes.txt"),
        ([], "holds no image"),
    ],
)
def test_a_folder_that_is_no_folder_of_good_images_is_refused(tmp_path, below, problem):
    for name in below:
        noise(tmp_path / f"{name}.png").rename(tmp_path / name)
    with pytest.raises(ValueError, match=problem):
        inputs.good_images(tmp_path, progress=False)


def test_paths_are_found_one_at_a_time(tmp_path):
    for name in ("a.png", "b/c.JPG", "b/d/e.png", "b/notes.txt", ".h/i.png", "[1].png"):
        noise(tmp_path / "x.png").rename(
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True) or tmp_path / name
        )
    complaints = []

    def found(*arguments):
        return sorted(
            os.path.relpath(path, tmp_path)
            for path in inputs.stream(map(str, arguments), complaints.append)
        )

    assert found(tmp_path) == ["[1].png", "a.png", "b/c.JPG", "b/d/e.png"]
    assert (
        found(tmp_path / "*")
        == ["[1].png", "a.png", "b/c.JPG", "b/d/e.png"]
        == found(tmp_path / "**")
    )
    assert found(tmp_path / "**" / "*.png") == ["[1].png", "a.png", "b/d/e.png"]
    assert found(tmp_path / "[1].png") == ["[1].png"]  # a file that is there is no pattern
    assert found(tmp_path / "missing.png") == ["missing.png"] and complaints == []
    assert found(tmp_path / "*.bmp") == [] and "matches no image" in complaints[0]
    first = next(inputs.stream(itertools.repeat(str(tmp_path)), complaints.append))
    assert Path(first).exists()


def test_paths_of_a_folder_or_pattern_are_in_natural_order(tmp_path, monkeypatch):
    names = ["2.png", "10.png", "a/9.png", "a/10.png", "a-b/1.png", "b.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(tmp_path / "x.png").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [os.path.relpath(path) for path in inputs.stream(["."], pytest.fail)] == names
    assert list(inputs.stream(["**/*.png"], pytest.fail)) == names


def test_pictures_of_a_format_that_is_not_read_are_counted(tmp_path):
    noise(tmp_path / "1.png")
    for name in ("2.webp", "3.jp2", "4.pgm"):
        Image.open(tmp_path / "1.png").convert("L").rotate(len(name)).save(tmp_path / name)
    for name in ("5.heic", "6.HEIC", "7.raw", "8.gif", "9", "notes.txt", "Thumbs.db", "a.json"):
        (tmp_path / name).write_bytes(b"x")
    found = inputs.good_images(tmp_path, progress=False)
    assert found.passed_over == {".heic": 2, ".raw": 1, ".gif": 1, "no ending": 1}
    complaints = []
    for argument in (tmp_path, tmp_path / "*"):
        paths = list(inputs.stream([str(argument)], complaints.append))
        assert len(paths) == 4
        assert "not judged, since the format is not read: " in complaints[-1]
        assert "2 of .heic" in complaints[-1] and ".txt" not in complaints[-1]
