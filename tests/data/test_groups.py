import pytest

from texad.data.groups import groups, source
from texad.errors import DataError

NAMES = ("train/good/7_dark.png", "train/good/7_light.png", "train/good/b/8_dark.png")


@pytest.fixture
def tiles(tmp_path):
    """A category of three images; their content does not matter."""
    for name in (*NAMES, "test/good/9_dark.png"):
        file = tmp_path / "tiles" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "tiles"


def found(root, how="", **options):
    return groups([root / name for name in NAMES], root, how, **options)


def table(file, *lines):
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines), "utf-8")
    return str(file)


def test_without_a_word_and_without_a_table_there_are_none(tiles):
    assert source(tiles) == "" and found(tiles) is None


def test_groups_csv_in_the_folder_is_found_and_may_name_test_images(tiles):
    rows = [f"{name},{group}" for name, group in zip(NAMES, "aab", strict=True)]
    name = table(tiles / "groups.csv", "path,group", *rows, "test/good/9_dark.png,c")
    assert source(tiles) == name and found(tiles) == ["a", "a", "b"]
    assert found(tiles, r"_(\w+)") == ["dark", "light", "dark"]  # what is said goes first


def test_paths_of_a_table_start_in_its_folder_or_in_that_of_the_category(tiles, monkeypatch):
    own = table(
        tiles.parent / "x.csv", "group;path", *(f"{name[-8]};tiles/{name}" for name in NAMES)
    )
    other = table(
        tiles.parent / "lists/y.CSV", "path,more,group", *(f"{n},,0{n[-8]}" for n in NAMES)
    )
    assert found(tiles, own) == ["d", "i", "d"] and found(tiles, other) == ["0d", "0i", "0d"]
    monkeypatch.chdir(tiles.parent)
    assert found(tiles, "x.csv") == found(tiles, own)
    monkeypatch.chdir("/")
    table(tiles / "z.csv", "path,group", *(f"{name},{i}" for i, name in enumerate(NAMES)))
    assert found(tiles, "z.csv") == ["0", "1", "2"]


def test_the_folder_of_an_image_is_its_group(tiles):
    assert found(tiles, "folder") == ["train/good", "train/good", "train/good/b"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"(\d+)_(dark|light)", ["7", "7", "8"]),
        (r"(\d+)_(?P<group>dark|light)", ["dark", "light", "dark"]),
        (r"\d_d?", ["7_d", "7_", "8_d"]),
        (r"^train/good/([^/]+)", ["7_dark.png", "7_light.png", "b"]),
    ],
)
def test_an_expression_names_groups(tiles, expression, expected):
    assert found(tiles, expression) == expected


def test_test_images_need_no_group(tiles):
    assert found(tiles, r"(\d)_light", every=False) == ["", "7", ""]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,group"], "has no column 'path': its first line must be path,group and is file,gr"),
        ([], "has no column .* and is empty"),
        (["path,group", "train/good/none.png,a"], "line 2: there is no file 'train/good/none.png'"),
        (["path,group", "../../secret.png,a"], "line 2: .* leads out of the folder"),
        (
            ["path,group", f"{NAMES[0]},a"],
            "2 of 3 images have no group, such as .*7_light.png and ",
        ),
        (["path,group", f"{NAMES[0]},"], "3 of 3 images have no group"),
        (["path,group", f"{NAMES[0]},a", f"{NAMES[0]},b"], "line 3: .* 'b', and was in 'a' before"),
        (["path,group", f"{NAMES[0]},a,b"], "line 2 has 3 cells, but the first line 2"),
        (["path,group", *(f"{name},a" for name in NAMES)], "all 3 images are in one group, 'a'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_line(tiles, lines, message):
    table(tiles / "groups.csv", *lines)
    with pytest.raises(DataError, match=message) as raised:
        found(tiles)
    assert "groups.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_a_table_in_another_encoding_is_refused(tiles):
    (tiles / "groups.csv").write_bytes("path,group\nmüll".encode("latin-1"))
    with pytest.raises(DataError, match=r"groups.csv is no text in UTF-8: save it as UTF-8"):
        found(tiles)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nowhere.csv", "there is no file nowhere.csv, here or in .*tiles: give its whole path"),
        ("(", r"'\(' is no .csv file, not the word folder, and no regular expression"),
        ("_light", "2 of 3 images have no group, such as train/good/7_dark.png and "),
        (r"\.png", "all 3 images are in one group, '.png'"),
    ],
)
def test_what_names_no_groups_is_refused(tiles, how, message):
    with pytest.raises(DataError, match=message):
        found(tiles, how)
