"""Each test makes a source by hand, with masks that it knows, and looks at what is imported."""

import csv
import json
import os
import stat

import numpy as np
import pytest
from PIL import Image

from texad.__main__ import main
from texad.data import datasets
from texad.data.convert.category import import_category
from texad.data.convert.outlines import Polygon, Runs, draw, uncompressed
from texad.data.convert.recognise import guess
from texad.data.names import clean
from texad.errors import DataError
from texad.io.images import read_image, read_mask

WIDTH, HEIGHT = 64, 48
ORIENTATION = 0x0112


def surface(path, seed=0, size=(WIDTH, HEIGHT), **options):
    """An image of noise; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(
        0, 255, (size[1], size[0], 3), dtype=np.uint8
    )
    Image.fromarray(pixels).save(path, **options)
    return path


def surfaces(folder, count, **options):
    return [surface(folder / f"{i:03d}.png", i, **options) for i in range(count)]


def turned(path, orientation):
    """A JPEG that is stored WIDTH x HEIGHT, and shown as the EXIF orientation says."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return surface(path, exif=exif)


def rectangle(left, top, right, bottom, size=(WIDTH, HEIGHT)):
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def loaded(root):
    return datasets.load_category(root.parent, root.name)


def masks(root):
    """Defect and stem of each defective test image, with its mask."""
    return {
        (sample.defect, sample.path.stem): read_mask(sample.mask)
        for sample in loaded(root).test
        if sample.mask
    }


def line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- outlines --------------------------------------------------------------------------------------


def test_a_pixel_is_in_a_polygon_if_its_centre_is():
    points = np.array([(10, 20), (15, 20), (15, 24), (10, 24)])
    assert (draw([Polygon(points)], WIDTH, HEIGHT) == rectangle(10, 20, 15, 24)).all()
    assert (draw([Polygon(points + 0.4)], WIDTH, HEIGHT) == rectangle(10, 20, 15, 24)).all()
    assert (draw([Polygon(points + 0.6)], WIDTH, HEIGHT) == rectangle(11, 21, 16, 25)).all()
    assert (
        draw([Polygon(points / (WIDTH, HEIGHT), relative=True)], WIDTH, HEIGHT)
        == rectangle(10, 20, 15, 24)
    ).all()


def test_random_polygons_are_those_of_a_naive_test_of_each_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.uniform(
            -10, 40, (rng.integers(3, 8), 2)
        )  # these cross themselves, and lead out of the image
        naive = np.zeros((25, 30), dtype=bool)
        for row, column in np.ndindex(naive.shape):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
                if (y1 > y) != (y2 > y) and x > x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                    naive[row, column] ^= True
        if naive.any():
            assert (draw([Polygon(points)], 30, 25) == naive).all()


def test_a_scratch_thinner_than_a_pixel_is_not_lost():
    thin = draw(
        [Polygon(np.array([(5.1, 10.1), (40.1, 10.1), (40.1, 10.2), (5.1, 10.2)]))], WIDTH, HEIGHT
    )
    assert (thin == rectangle(5, 10, 41, 11)).all()


@pytest.mark.parametrize(
    "text, size, parts",
    [  # as pycocotools 2.0.11 writes them
        (
            "U??Q10000000000000000000000000000000000000i?Dc@0000000000000000000000000000000000000000000b0",
            (64, 48),
            [(10, 5, 30, 20), (40, 30, 63, 33)],
        ),
        ("Pn:f4f4000\\R\\2aKSRdM0000000TTi1", (500, 300), [(37, 100, 40, 250), (300, 0, 305, 7)]),
    ],
)
def test_compressed_run_lengths_are_those_of_the_coco_api(text, size, parts):
    expected = np.any([rectangle(*part, size=size) for part in parts], axis=0)
    assert (draw([Runs(uncompressed(text), size[1], size[0])], *size) == expected).all()


@pytest.mark.parametrize("text", ["U??Q1\x00", "ü", "o", "o" * 40])
def test_what_is_no_compressed_run_length_is_refused(text):
    with pytest.raises(ValueError):
        uncompressed(text)


# -- folders ---------------------------------------------------------------------------------------


def test_good_and_bad_folders_become_a_category(tmp_path):
    surfaces(tmp_path / "raw" / "OK", 10)
    surfaces(tmp_path / "raw" / "ng", 3)
    made = import_category(tmp_path / "raw", tmp_path / "data" / "steel")
    category = loaded(made.root)
    assert (made.kind, made.n_train, made.n_good, dict(made.defects), dict(made.masks)) == (
        "folders",
        8,
        2,
        {"ng": 3},
        {},
    )
    assert [len(category.train), len(category.test)] == [8, 5]
    assert {(sample.defect, sample.label, sample.mask) for sample in category.test} == {
        ("good", 0, None),
        ("ng", 1, None),
    }
    sources = [file.read_bytes() for file in (tmp_path / "raw").rglob("*.png")]
    assert sorted(sample.path.read_bytes() for sample in category.train + category.test) == sorted(
        sources
    )  # each once, as it is


def test_the_split_follows_the_seed_and_the_fraction(tmp_path):
    surfaces(tmp_path / "raw" / "good", 20)
    surfaces(tmp_path / "raw" / "bad", 1)

    def tested(name, **options):
        root = import_category(tmp_path / "raw", tmp_path / "data" / name, **options).root
        return sorted(file.name for file in (root / "test").glob("good/*"))

    assert tested("a", seed=1) == tested("b", seed=1) != tested("c", seed=2)
    assert [
        len(tested(f"f{fraction}", test_fraction=fraction)) for fraction in (0, 0.001, 0.5, 0.99)
    ] == [0, 1, 10, 19]


def test_a_folder_for_each_defect_around_and_within(tmp_path):
    raw = tmp_path / "raw"
    surfaces(raw / "train" / "good", 3)
    surfaces(raw / "test" / "good" / "images", 2)
    surfaces(raw / "test" / "bad" / "scratch", 2)
    surfaces(raw / "Dent", 1)
    surfaces(raw / "dent" / "deeper", 1)
    made = import_category(raw, tmp_path / "data" / "steel")
    assert made.n_train + made.n_good == 5
    assert {name.lower(): count for name, count in made.defects.items()} == {
        "dent": 2,
        "scratch": 2,
    }


def test_masks_are_found_in_a_folder_of_masks_and_beside_the_images(tmp_path):
    raw, mask = tmp_path / "raw", rectangle(1, 2, 30, 40)
    surfaces(raw / "good", 4)
    for file in (
        raw / "ground_truth/scratch/000.png",
        raw / "hole/000_mask.png",
        raw / "masks/dent_1.png",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file)
    surface(raw / "scratch" / "000.jpg")
    surface(raw / "hole" / "000.jpg")
    surface(raw / "dent" / "dent_1.jpg")
    surface(raw / "dent" / "dent_2.jpg")
    made = import_category(raw, tmp_path / "data" / "steel")
    assert made.masks == {"scratch": 1, "hole": 1, "dent": 1} and made.defects == {
        "scratch": 1,
        "hole": 1,
        "dent": 2,
    }
    found = masks(made.root)
    assert sorted(found) == [("dent", "dent_1"), ("hole", "000"), ("scratch", "000")]
    assert all((each == mask).all() for each in found.values())


def test_what_is_laid_out_as_mvtec_ad_with_masks_survives_the_way_through(tmp_path):
    from conftest import write_category

    first = write_category(tmp_path / "a" / "steel")
    made = import_category(first, tmp_path / "b" / "steel", "folders", test_fraction=0.3)
    before, after = masks(first), masks(made.root)
    assert made.n_train + made.n_good == 9 and sorted(before) == sorted(after)
    assert all((before[key] == after[key]).all() for key in before)


def test_images_of_the_same_name_do_not_collide(tmp_path):
    raw = tmp_path / "raw"
    for camera in ("left", "right"):
        surfaces(raw / "good" / camera, 2)
        surface(raw / "bad" / "scratch" / camera / "000.png", seed=ord(camera[0]))
        surface(raw / "bad" / "scratch" / camera / "000_a.jpg")
    surface(
        raw / "bad" / "scratch" / "left_000.png", seed=9
    )  # which is what the second could be called
    made = import_category(raw, tmp_path / "data" / "steel", link=True)
    assert made.n_train + made.n_good == 4 and made.defects == {"scratch": 5}
    stems = [file.stem for file in (made.root / "test" / "scratch").iterdir()]
    assert len({stem.lower() for stem in stems}) == 5
    sources = {file.resolve() for file in made.root.rglob("*.*g")}
    assert len(sources) == 9  # links to as many different files


def test_a_name_that_ends_in_mask_does_not_get_the_mask_of_another(tmp_path):
    marked, other = surface(tmp_path / "a.png"), surface(tmp_path / "sub" / "a_mask.png")
    for i in range(2):
        surface(tmp_path / f"good{i}.png")
    Image.fromarray(rectangle(0, 0, 5, 5)).save(tmp_path / "m.png")
    rows = [
        ("path", "label", "mask"),
        ("good0.png", "ok", ""),
        ("good1.png", "ok", ""),
        (marked, "dent", "m.png"),
        (other, "dent", ""),
    ]
    made = import_category(write_csv(tmp_path / "t.csv", rows), tmp_path / "data" / "steel")
    assert made.masks == {"dent": 1}
    assert [
        sample.path.read_bytes() == marked.read_bytes()
        for sample in loaded(made.root).test
        if sample.mask
    ] == [True]


@pytest.mark.parametrize(
    "files, options, words",
    [
        (["a/1.png", "b/1.png"], {}, ["too few good images (0)", "a (1), b (1)", "--good"]),
        (["good/1.png", "bad/1.png"], {}, ["too few good images (1)", "at least 2"]),
        (
            ["good/1.png", "good/2.png"],
            {"test_fraction": 0},
            ["left to test with", "test fraction"],
        ),
        (["good/1.png", "good/2.png"], {"test_fraction": 1}, ["test fraction", "below 1"]),
        (["ok/1.png", "bad/1.png"], {"good": ["fine"]}, ["nothing is labelled 'fine'", "ok (1)"]),
        (["Good/1.png", "ok/1.png"], {"good": ["ok"]}, ["'Good'", "not among those named"]),
        (["steel/good/1.png", "wood/good/1.png"], {}, ["folder good", "folder steel", "by itself"]),
        (
            ["good/1.png", "good/2.png", "bad/1.png", "bad/1.jpg"],
            {},
            ["1.jpg", "1.png", "differ only in their endings", "masks"],
        ),
        (
            ["good/1.png", "good/2.png", "a/1.png", "b/1.png", "masks/1.png"],
            {},
            ["may be the mask of", "folder of the defect's name"],
        ),
        (["good/1.png", "bad/1.png"], {"kind": "csv"}, ["0 tables"]),
        (["good/1.png", "bad/1.png"], {"kind": "coco"}, ["holds no file of coco"]),
        (["good/1.png", "bad/1.png"], {"kind": "yolo"}, ["no image has a text file"]),
        (["good/1.png", "bad/1.png"], {"kind": "excel"}, ["'excel'", "folders, pairs, csv, coco"]),
        (["good/1.png", "bad/1.png"], {"label_column": "x"}, ["--label-column", "not for folders"]),
        (["good/1.png", "bad/1.png"], {"image_folder": "x"}, ["--images", "not for folders"]),
        (["1.png"], {}, ["no folder that says", "texad fit"]),
        ([], {}, ["holds no image"]),
        (
            ["train/good/1.png", "test/bad/1.png"],
            {},
            ["laid out as MVTec AD already", "--category raw"],
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path, files, options, words):
    (tmp_path / "raw").mkdir()
    for file in files:
        surface(tmp_path / "raw" / file)
    with pytest.raises(DataError) as caught:
        import_category(tmp_path / "raw", tmp_path / "data" / "steel", **options)
    assert all(word in line(caught) for word in words), line(caught)
    assert not (tmp_path / "data" / "steel").exists() and not list(tmp_path.rglob(".filling*"))


# -- CSV -------------------------------------------------------------------------------------------


def write_csv(file, rows, **options):
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows(rows)
    return file


def test_a_table_of_paths_labels_and_masks(tmp_path):
    raw, elsewhere = tmp_path / "raw", surface(tmp_path / "elsewhere" / "far.png")
    surfaces(raw / "images", 6)
    (raw / "m").mkdir()
    Image.fromarray(rectangle(3, 3, 9, 9)).save(raw / "m" / "4.png")
    Image.fromarray(rectangle(20, 3, 29, 9)).save(raw / "m" / "4b.png")
    rows = [("File Name", "Class", "Mask")]
    rows += [(f"images/00{i}.png", "OK", "") for i in range(4)]
    rows += [
        ("images\\004.png", "Scratch/A", "m\\4.png"),
        ("images/004.png", "scratch/a", "m/4b.png"),
        (elsewhere, "dent", ""),
        ("images/005.png", "dent", ""),
    ]
    write_csv(raw / "list.csv", rows, delimiter=";")
    made = import_category(raw, tmp_path / "data" / "steel")
    assert (made.kind, made.good_labels) == ("csv", ["OK"])
    assert (made.n_train, made.n_good, made.defects, made.masks) == (
        3,
        1,
        {"Scratch_A": 1, "dent": 2},
        {"Scratch_A": 1},
    )
    (mask,) = masks(made.root).values()
    assert (mask == rectangle(3, 3, 9, 9) | rectangle(20, 3, 29, 9)).all()


@pytest.mark.parametrize(
    "labels, good, expected",
    [
        ("0 0 0 1 1", (), {"defect": 2}),
        ("False False True False True", (), {"defect": 2}),
        ("0 0 1 2 2", (), {"1": 1, "2": 2}),
        ("1 1 1 0 0", ("1",), {"0": 2}),
        ("A B A C C", ("a", "B"), {"C": 2}),
    ],
)
def test_which_labels_are_good_is_usual_or_said(tmp_path, labels, good, expected):
    surfaces(tmp_path, 5)
    rows = [("where", "kind", "path")] + [
        (f"00{i}.png", label, "nowhere") for i, label in enumerate(labels.split())
    ]
    table = write_csv(tmp_path / "t.tsv", rows, delimiter="\t")
    made = import_category(
        table, tmp_path / "data" / "steel", path_column="where", label_column="kind", good=good
    )
    assert made.defects == expected and made.n_train + made.n_good == 5 - sum(expected.values())


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["is empty"]),
        ("a,b\n1,2\n", ["--path-column", "a, b"]),
        ("path,b\n1,2\n", ["--label-column", "path, b"]),
        ("path,path,label\n1,2,3\n", ["2 columns 'path'"]),
        ("path,label\n000.png\n", ["line 2", "1 cells", "first line 2"]),
        ("path,label\n000.png,\n", ["line 2", "no label"]),
        ("path,label\n000.png,ok\n\n../secret.png,ok\n", ["line 4", "leads out"]),
        ("path,label\na\\..\\..\\secret.png,ok\n", ["line 2", "leads out"]),
        ("path,label\nnone.png,ok\n", ["line 2", "no file 'none.png'", "--images"]),
        ("path,label\n/none/none.png,ok\n", ["line 2", "no file"]),
        ("path,label\n\0.png,ok\n", ["line 2"]),
        ("path,label\n/etc/passwd,ok\n", ["line 2", "no image by its name"]),
        ("path,label\n000.png,ok\n./000.png,dent\n", ["good by", "line 2", "dent by", "line 3"]),
        ("path,label,mask\n000.png,dent,none.png\n", ["line 2", "none.png"]),
        (
            "path,label,mask\n000.png,ok,\n001.png,ok,\n002.png,dent,small.png\n",
            ["line 4", "9 x 9", "64 x 48"],
        ),
        ("path,label\n000.png,Good\n", ["too few good images (1)"]),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(tmp_path, text, words):
    surface(tmp_path / "secret.png")
    surfaces(tmp_path / "raw", 3)
    surface(tmp_path / "raw" / "small.png", size=(9, 9))
    (tmp_path / "raw" / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        import_category(tmp_path / "raw" / "t.csv", tmp_path / "data" / "steel")
    assert all(word in line(caught) for word in words), line(caught)
    assert list((tmp_path / "data").glob("*") if (tmp_path / "data").exists() else []) == []


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,label\nRiß.png,ok\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        import_category(tmp_path / "t.csv", tmp_path / "data" / "steel")


# -- COCO ------------------------------------------------------------------------------------------


def coco(folder, annotations, n_images=5, **more):
    """A JSON beside a folder of images, of which those with an annotation are defective."""
    files = surfaces(folder / "images", n_images)
    images = [
        {"id": i, "file_name": file.name, "width": WIDTH, "height": HEIGHT}
        for i, file in enumerate(files)
    ]
    categories = [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}, {"id": 3, "name": "OK"}]
    content = {"images": images, "annotations": annotations, "categories": categories} | more
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances.json").write_text(json.dumps(content))
    return folder


def note(image, category=1, **what):
    return {"image_id": image, "category_id": category, **what}


SQUARE = [10, 20, 15, 20, 15, 24, 10, 24]


def test_coco_polygons_boxes_and_run_lengths_become_masks(tmp_path):
    two = rectangle(10, 5, 30, 20) | rectangle(40, 30, 63, 33)
    text = f"U??Q1{37 * '0'}i?Dc@{43 * '0'}b0"
    columns = two.T.ravel()
    counts = np.diff(
        np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1], [True]]))
    ).tolist()
    source = coco(
        tmp_path / "raw",
        [
            note(0, segmentation=[SQUARE, [40, 0, 64, 0, 64, 2, 40, 2]], bbox=[0, 0, 64, 48]),
            note(1, bbox=[10, 20, 5, 4], segmentation=[]),
            note(2, segmentation={"size": [HEIGHT, WIDTH], "counts": text}, iscrowd=1),
            note(3, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}),
            note(4, 1, segmentation=[SQUARE]),
            note(4, 2, bbox=[60, 40, 20, 20]),  # leads out of the image
            note(5, 3, bbox=[0, 0, 64, 48]),  # of a good category
        ],
        n_images=9,
    )
    made = import_category(source, tmp_path / "data" / "steel")
    assert made.kind == "coco" and (made.n_train, made.n_good) == (3, 1)
    assert made.defects == made.masks == {"combined": 1, "scratch": 4}
    assert any("several kinds of defect" in each for each in made.notes)
    square = rectangle(10, 20, 15, 24)
    expected = {
        ("scratch", "000"): square | rectangle(40, 0, 64, 2),
        ("scratch", "001"): square,
        ("scratch", "002"): two,
        ("scratch", "003"): two,
        ("combined", "004"): square | rectangle(60, 40, 64, 48),
    }
    found = masks(made.root)
    assert sorted(found) == sorted(expected)
    assert all((found[key] == expected[key]).all() for key in expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_upright_whether_the_tool_turned_the_image_or_not(tmp_path, orientation):
    for name in ("stored", "shown", "good1", "good2"):
        turned(tmp_path / f"{name}.jpg", orientation)
    sideways = orientation > 4
    shown = (HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT)
    assert read_image(tmp_path / "shown.jpg").size == shown
    images = [{"id": i, "file_name": f"good{i}.jpg"} for i in (1, 2)]
    images.append({"id": 3, "file_name": "shown.jpg", "width": shown[0], "height": shown[1]})
    images.append({"id": 4, "file_name": "stored.jpg", "width": WIDTH, "height": HEIGHT})
    annotations = [note(3, bbox=[1, 2, 10, 20]), note(4, bbox=[1, 2, 10, 20])]
    (tmp_path / "coco.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "dent"}],
            }
        )
    )
    found = masks(import_category(tmp_path / "coco.json", tmp_path / "data" / "steel").root)
    assert (found["dent", "shown"] == rectangle(1, 2, 11, 22, shown)).all()
    if sideways:  # else stored and shown are of one size, and images are marked as they are shown
        mask = rectangle(1, 2, 11, 22)
        by_hand = {5: mask.T, 6: np.rot90(mask, -1), 7: np.rot90(mask, 2).T, 8: np.rot90(mask)}[
            orientation
        ]
        assert (found["dent", "stored"] == by_hand).all()


@pytest.mark.parametrize(
    "annotations, more, words",
    [
        ([note(77, bbox=[0, 0, 1, 1])], {}, ["annotations[0]", "image_id 77"]),
        ([note(0, 9, bbox=[0, 0, 1, 1])], {}, ["annotations[0]", "category_id 9"]),
        (
            [note(0, bbox=SQUARE[:4]), note(0)],
            {},
            ["annotations[1]", "'bbox' is a required property"],
        ),
        ([note(0, bbox=[0, 0, -1, 1])], {}, ["annotations[0]", "bbox"]),
        ([note(0, bbox=[0, 0, "1", 1])], {}, ["annotations[0].bbox[2]", "number"]),
        ([note(0, bbox=[0, 0, float("nan"), 1])], {}, ["annotations[0].bbox[2]", "number"]),
        ([note(0, bbox=[0, 0, 10**400, 1])], {}, ["annotations[0].bbox[2]", "maximum"]),
        ([note(0, segmentation=[[1, 2, 3, 4]])], {}, ["annotations[0]", "2 of 3 corners"]),
        ([note(0, segmentation=[[1, 2, 3, 4, 5, 6, 7]])], {}, ["annotations[0]", "segmentation"]),
        ([note(0, segmentation="x")], {}, ["annotations[0]", "segmentation"]),
        (
            [note(0, segmentation={"size": [48, 64], "counts": [1, 2]})],
            {},
            ["annotations[0]", "run lengths"],
        ),
        (
            [note(0, segmentation={"size": [48, 64], "counts": "ooo"})],
            {},
            ["annotations[0]", "damaged"],
        ),
        ([note(0, segmentation={"size": [48], "counts": "11"})], {}, ["annotations[0]", "damaged"]),
        (
            [note(0, segmentation={"size": [2, 2], "counts": [1, 3]})],
            {},
            ["annotations[0]", "2 x 2", "64 x 48"],
        ),
        (
            [{"category_id": 1, "bbox": [0, 0, 1, 1]}],
            {},
            ["annotations[0]", "'image_id' is a required"],
        ),
        (["x"], {}, ["annotations[0]", "'x' is not of type 'object'"]),
        ([], {"categories": {}}, ["categories", "not of type 'array'"]),
        ([], {"images": [{"id": 1}]}, ["images[0]", "'file_name' is a required"]),
        (
            [],
            {"images": [{"id": 1, "file_name": "000.png"}, {"id": 1, "file_name": "001.png"}]},
            ["images[1]", "images[0]", "id 1"],
        ),
        ([], {"images": [{"id": [1], "file_name": "000.png"}]}, ["images[0].id", "[1]"]),
        ([], {"images": [{"id": 1, "file_name": "../../secret.png"}]}, ["images[0]", "leads out"]),
        ([], {"images": [{"id": 1, "file_name": "C:\\secret.png"}]}, ["images[0]", "leads out"]),
        ([], {"images": [{"id": 1, "file_name": "none.png"}]}, ["images[0]", "no file"]),
        (
            [note(0, bbox=[0, 0, 5, 5])],
            {"images": [{"id": 0, "file_name": "000.png"}]},
            ["too few good images (0)", "scratch (1)"],
        ),
    ],
)
def test_a_damaged_coco_file_is_refused_with_its_entry(tmp_path, annotations, more, words):
    surface(tmp_path / "secret.png")
    source = coco(tmp_path / "raw", annotations, **more)
    with pytest.raises(DataError) as caught:
        import_category(source, tmp_path / "data" / "steel")
    assert all(word in line(caught) for word in words), line(caught)
    assert not (tmp_path / "data" / "steel").exists()


def test_an_absolute_path_in_a_json_is_refused(tmp_path):
    secret = surface(tmp_path / "secret.png")
    source = coco(tmp_path / "raw", [], images=[{"id": 1, "file_name": str(secret)}])
    with pytest.raises(DataError, match="leads out"):
        import_category(source, tmp_path / "data" / "steel")


def test_images_of_another_size_than_the_json_says_are_refused(tmp_path):
    source = coco(tmp_path / "raw", [note(0, bbox=[0, 0, 5, 5])])
    surface(source / "images" / "000.png", size=(9, 9))
    with pytest.raises(DataError) as caught:
        import_category(source, tmp_path / "data" / "steel")
    assert all(word in line(caught) for word in ("annotations[0]", "64 x 48", "9 x 9"))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", "\udcff"])
def test_what_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match="a.json"):
        import_category(tmp_path / "a.json", tmp_path / "data" / "steel")


# -- YOLO ------------------------------------------------------------------------------------------


def yolo(folder, texts, names="names: [scratch, dent, ok]\n", n_images=6, nested=True):
    images = folder / "images" / "train" if nested else folder
    labels = folder / "labels" / "train" if nested else folder
    surfaces(images, n_images)
    labels.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (labels / f"{name}.txt").write_text(text)
    (folder / "data.yaml").write_text(names)
    return folder


BOX = f"{12.5 / WIDTH} {22 / HEIGHT} {5 / WIDTH} {4 / HEIGHT}"


@pytest.mark.parametrize("nested", [True, False])
def test_yolo_boxes_and_polygons_become_masks(tmp_path, nested):
    polygon = " ".join(
        str(value) for value in (np.reshape(SQUARE, (-1, 2)) / (WIDTH, HEIGHT)).ravel()
    )
    texts = {
        "000": f"0 {BOX}\n",
        "001": f"1 {polygon}\n\n0 0.95 0.5 0.2 1\n",
        "002": "",
        "003": f"2 {BOX}",
    }
    made = import_category(
        yolo(tmp_path / "raw", texts, nested=nested), tmp_path / "data" / "steel"
    )
    assert made.kind == "yolo" and (made.n_train, made.n_good) == (3, 1)
    assert any("2 images without a text file" in each for each in made.notes)
    found, square = masks(made.root), rectangle(10, 20, 15, 24)
    assert sorted(found) == [("combined", "001"), ("scratch", "000")]
    assert (found["scratch", "000"] == square).all()
    assert (
        found["combined", "001"] == square | rectangle(54, 0, 64, 48)
    ).all()  # 0.95 - 0.1 of 64 is 54.4


def test_yolo_names_come_from_classes_txt_too_or_are_numbers(tmp_path):
    source = yolo(tmp_path / "raw", {"000": f"1 {BOX}"})
    (source / "data.yaml").unlink()
    made = import_category(source, tmp_path / "data" / "a")
    (source / "classes.txt").write_text("scratch\ndent\n")
    assert made.defects == {"class_1": 1} and import_category(
        source, tmp_path / "data" / "b"
    ).defects == {"dent": 1}
    (source / "data.yaml").write_text("names:\n  0: ok\n  1: hole\n")
    assert import_category(source / "data.yaml", tmp_path / "data" / "c").defects == {"hole": 1}


def test_yolo_marks_images_as_they_are_shown(tmp_path):
    source = yolo(tmp_path / "raw", {"turned": "0 0.25 0.5 0.5 1"})
    turned(source / "images" / "train" / "turned.jpg", 6)
    (mask,) = masks(import_category(source, tmp_path / "data" / "steel").root).values()
    assert (mask == rectangle(0, 0, HEIGHT // 2, WIDTH, (HEIGHT, WIDTH))).all()


@pytest.mark.parametrize(
    "text, names, words",
    [
        (f"0 {BOX} 0.9", "names: [a]", ["000.txt", "line 1", "5 numbers"]),
        (f"\n{BOX}", "names: [a]", ["line 2", "class and numbers"]),
        (f"0 {BOX}\n1 {BOX}", "names: [a]", ["line 2", "class 1 has no name"]),
        ("0 10 20 5 4", "names: [a]", ["line 1", "not pixels"]),
        ("0 nan 0.5 0.5 0.5", "names: [a]", ["line 1", "leads out"]),
        ("0 0.5 0.5 -0.5 0.5", "names: [a]", ["line 1", "leads out"]),
        (f"0 {BOX}", "nc: 1", ["data.yaml", "names"]),
        (f"0 {BOX}", "names: [", ["data.yaml", "names"]),
        (f"0 {BOX}", "- a", ["data.yaml", "names"]),
    ],
)
def test_damaged_yolo_files_are_refused_with_their_line(tmp_path, text, names, words):
    source = yolo(tmp_path / "raw", {"000": text}, names)
    with pytest.raises(DataError) as caught:
        import_category(source, tmp_path / "data" / "steel")
    assert all(word in line(caught) for word in words), line(caught)


# -- whatever the source ---------------------------------------------------------------------------


def test_the_kind_is_guessed(tmp_path):
    surfaces(tmp_path / "folders" / "good", 1)
    write_csv(tmp_path / "folders" / "inventory.csv", [("a", "b")])
    surfaces(tmp_path / "csv", 1)
    write_csv(tmp_path / "csv" / "t.csv", [("a", "b")])
    surfaces(tmp_path / "txt", 1)[0].with_suffix(".txt").write_text("")
    coco(tmp_path / "coco", [])
    yolo(tmp_path / "yolo", {})
    found = {name: guess(tmp_path / name) for name in ("folders", "csv", "coco", "yolo", "txt")}
    assert found == {
        "folders": "folders",
        "csv": "csv",
        "coco": "coco",
        "yolo": "yolo",
        "txt": "yolo",
    }
    surface(tmp_path / "a.png")
    with pytest.raises(DataError, match="neither a folder nor"):
        guess(tmp_path / "a.png")


def test_an_image_that_cannot_be_read_is_left_out_and_named(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    surfaces(tmp_path / "raw" / "bad", 1)
    (tmp_path / "raw" / "good" / "torn.png").write_bytes(b"torn")
    (tmp_path / "raw" / "good" / "new.heic").write_bytes(b"")
    (tmp_path / "raw" / "good" / "lost.png").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "raw" / "good" / "pipe.png")
    made = import_category(tmp_path / "raw", tmp_path / "data" / "steel")
    assert made.n_train + made.n_good == 3 and any("lost.png" in each for each in made.notes)
    assert any("torn.png" in each for each in made.notes) and any(
        "1 of .heic" in each for each in made.notes
    )


def test_a_mask_without_a_defect_is_noted_and_not_written(tmp_path):
    source = coco(tmp_path / "raw", [note(0, bbox=[100, 100, 5, 5])])
    made = import_category(source, tmp_path / "data" / "steel")
    assert made.defects == {"scratch": 1} and not made.masks
    assert any("annotations[0]" in each for each in made.notes)


def test_an_image_that_is_listed_by_two_paths_is_one(tmp_path):
    surfaces(tmp_path / "a", 3)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    rows = [
        ("path", "label"),
        ("a/000.png", "ok"),
        ("a/001.png", "ok"),
        ("b/001.png", "ok"),
        ("a/002.png", "dent"),
        ("b/002.png", "hole"),
    ]
    made = import_category(write_csv(tmp_path / "t.csv", rows), tmp_path / "data" / "steel")
    assert made.n_train + made.n_good == 2 and made.defects == {"combined": 1}


def test_nothing_is_overwritten(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    (tmp_path / "data" / "steel").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists, and nothing is overwritten"):
        import_category(tmp_path / "raw", tmp_path / "data" / "steel")
    assert not list((tmp_path / "data" / "steel").iterdir())


@pytest.mark.parametrize("name", ["all", ".hidden", "a:b"])
def test_a_category_has_a_name_that_can_be_asked_for(tmp_path, name):
    surfaces(tmp_path / "raw" / "good", 3)
    with pytest.raises(DataError, match="cannot be called"):
        import_category(tmp_path / "raw", tmp_path / "data" / name)


def test_a_category_within_another_or_within_the_source_is_refused(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    with pytest.raises(DataError, match="within"):
        import_category(tmp_path / "raw", tmp_path / "raw" / "steel")
    (tmp_path / "data" / "train" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="itself a category"):
        import_category(tmp_path / "raw", tmp_path / "data" / "steel")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, error):
    surfaces(tmp_path / "raw" / "good", 3)
    surfaces(tmp_path / "raw" / "bad", 1)
    copied = []

    def interrupted(source, target):
        copied.append(target)
        if len(copied) == 3:
            raise error

    monkeypatch.setattr("texad.data.convert.writing.shutil.copyfile", interrupted)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        import_category(tmp_path / "raw", tmp_path / "data" / "steel")
    assert len(copied) == 3 and not list((tmp_path / "data").iterdir())


def test_what_a_killed_import_left_long_ago_is_removed(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    surfaces(tmp_path / "raw" / "bad", 1)
    old, young = tmp_path / "data" / ".filling-old", tmp_path / "data" / ".filling-young"
    for left in (old, young):
        (left / "steel" / "train").mkdir(parents=True)
    os.utime(old, (0, 0))
    import_category(tmp_path / "raw", tmp_path / "data" / "steel")
    assert not old.exists() and young.exists()


def test_links_lead_to_the_images(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    surfaces(tmp_path / "raw" / "bad", 1)
    root = import_category(tmp_path / "raw", tmp_path / "data" / "steel", link=True).root
    for sample in loaded(root).train + loaded(root).test:
        assert sample.path.is_symlink() and sample.path.resolve().is_relative_to(tmp_path / "raw")


@pytest.mark.skipif(os.name != "posix", reason="the system knows no such modes")
def test_others_may_read_the_category_as_any_other_folder(tmp_path):
    surfaces(tmp_path / "raw" / "good", 3)
    root = import_category(tmp_path / "raw", tmp_path / "data" / "steel").root
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    "name, cleaned",
    [
        ("a/b\\c", "a_b_c"),
        ("..", "_"),
        (".x", "x"),
        (" x. ", "x"),
        ("\x1b[1m", "_[1m"),
        ("\udcff", "_"),
        ("e\u0301", "é"),
        ("ü" * 200, "ü" * 60),
    ],
)
def test_names_are_made_harmless(name, cleaned):
    assert clean(name) == cleaned


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_what_it_made_and_what_to_do_next(tmp_path, capsys):
    surfaces(tmp_path / "raw" / "fine\x1b[1m", 5)
    surfaces(tmp_path / "raw" / "dent", 2)
    target = tmp_path / "my data" / "steel"
    assert (
        main(
            [
                "import",
                str(tmp_path / "raw"),
                "--to",
                str(target),
                "--good",
                "fine\x1b[1m",
                "--quiet",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert all(
        word in said
        for word in (
            "4 images to learn from",
            "test/dent",
            "2 images, 0 with a mask",
            f"--dataset '{tmp_path}/my data' --category steel",
        )
    )
    assert "\x1b" not in said
    assert not any(file.is_symlink() for file in target.rglob("*"))  # copies, unless --link


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert (
        main(["import", str(tmp_path / "nowhere"), "--to", str(tmp_path / "a" / "b"), "--quiet"])
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("texad: there is no") and said.count("\n") == 1
