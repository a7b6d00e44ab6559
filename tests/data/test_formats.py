"""Formats that people have: each test builds a small source as a tool or a data set lays it out."""

import base64
import io
import json
import math

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from texad.__main__ import main
from texad.data import datasets, groups
from texad.data.convert.category import import_category
from texad.errors import DataError
from texad.io.images import read_mask

SIZE = 128
SQUARE = [[40, 40], [60, 40], [60, 60], [40, 60]]


def surface(path, seed=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*str(path).encode()] if seed is None else seed)
    pixels = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def surfaces(folder, count, ending=".png", first=0):
    return [surface(folder / f"{i}{ending}") for i in range(first, first + count)]


def mask_file(path, top=40, left=40, side=20, level=255):
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[top : top + side, left : left + side] = level
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def square(top=40, left=40, side=20):
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def imported(source, tmp_path, **options):
    return import_category(source, tmp_path / "ds" / "a", **options)


def pixels(root):
    """Defect and stem of each defective image, with the number of pixels in its mask."""
    category = datasets.load_category(root.parent, root.name)
    return {
        (sample.defect, sample.path.stem): int(read_mask(sample.mask).sum()) if sample.mask else 0
        for sample in category.test
        if sample.label
    }


def counts(made):
    return made.n_train, made.n_good, dict(made.defects)


def one_mask(made):
    (file,) = made.root.glob("ground_truth/*/*")
    return read_mask(file)


def has_note(made, *words):
    return any(all(word in note for word in words) for note in made.notes)


def coco(file, names, annotations, category="hole"):
    images = [{"id": i, "width": SIZE, "height": SIZE, "file_name": n} for i, n in enumerate(names)]
    content = {
        "categories": [{"id": 1, "name": category}],
        "images": images,
        "annotations": [{"id": i, "category_id": 1} | each for i, each in enumerate(annotations)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def hole(image, **more):
    return {"image_id": image, "segmentation": [sum(SQUARE, [])], "bbox": [40, 40, 20, 20]} | more


# -- COCO ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees, n", [(45.0, 1058), (0, 1000), (90, 1000), (-45, 1058)])
def test_a_box_that_cvat_turned_is_drawn_turned(tmp_path, degrees, n):
    surfaces(tmp_path / "in" / "images", 4)
    box = {"segmentation": [], "bbox": [14.0, 59.0, 100.0, 10.0]}
    turned = hole(3, **box, attributes={"occluded": False, "rotation": degrees})
    coco(tmp_path / "in" / "instances_default.json", [f"{i}.png" for i in range(4)], [turned])
    mask = one_mask(imported(tmp_path / "in", tmp_path))
    rows, columns = np.indices(mask.shape) + 0.5 - SIZE / 2
    angle = math.radians(degrees)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    truth = (abs(along) <= 50) & (abs(across) <= 5)
    assert mask.sum() == n and (mask != truth).sum() <= 60  # on the border, centres lie


@pytest.mark.parametrize("subset", ["default", "Train", "my_part"])
def test_coco_finds_the_images_of_its_subset(tmp_path, subset):
    surfaces(tmp_path / "in" / "images" / subset, 4)
    surfaces(tmp_path / "in" / "images" / "other", 4)
    file = tmp_path / "in" / "annotations" / f"instances_{subset}.json"
    coco(file, [f"{i}.png" for i in range(4)], [hole(3)])
    for number, source in enumerate((tmp_path / "in", file)):
        made = import_category(source, tmp_path / "ds" / str(number))
        assert made.n_train + made.n_good == 3 and pixels(made.root) == {("hole", "3"): 400}
    copied = (made.root / "test" / "hole" / "3.png").read_bytes()
    assert copied == (tmp_path / "in" / "images" / subset / "3.png").read_bytes()


@pytest.mark.parametrize("pointed", [False, True])
def test_coco_with_two_subsets_draws_each_on_its_own_images(tmp_path, pointed):
    for subset, at in (("train", 40), ("val", 90)):
        surfaces(tmp_path / "in" / "images" / subset, 6)
        outline = [at, at, at + 20, at, at + 20, at + 20, at, at + 20]
        coco(
            tmp_path / "in" / "annotations" / f"instances_{subset}.json",
            [f"{i}.png" for i in range(6)],
            [hole(5, segmentation=[outline], bbox=[at, at, 20, 20])],
        )
    folder = tmp_path / "in" / "images" / "train" if pointed else None
    made = imported(tmp_path / "in", tmp_path, image_folder=folder)
    assert counts(made) == (5, 5, {"hole": 2}) and has_note(made, "split is that of the source")
    found = sorted((made.root / "ground_truth" / "hole").iterdir())
    sums = sorted(read_mask(file).nonzero()[0].min() for file in found)
    assert sums == [40, 90] and all(read_mask(file).sum() == 400 for file in found)


def test_an_image_in_two_files_of_coco_is_noted(tmp_path):
    surfaces(tmp_path / "in" / "images", 4)
    for name, image in (("a", 3), ("b", 3)):
        coco(tmp_path / "in" / f"{name}.json", [f"{i}.png" for i in range(4)], [hole(image)])
    assert has_note(imported(tmp_path / "in", tmp_path), "4 images are in two files", "a.json")


def test_one_file_that_calls_good_what_another_marks_is_refused(tmp_path):
    surfaces(tmp_path / "in" / "images", 4)
    coco(tmp_path / "in" / "a.json", [f"{i}.png" for i in range(4)], [hole(3)])
    coco(tmp_path / "in" / "b.json", [f"{i}.png" for i in range(4)], [hole(2)])
    with pytest.raises(DataError, match="is good by .*a.json.* but hole by .*b.json"):
        imported(tmp_path / "in", tmp_path)


@pytest.mark.parametrize(
    "lead", ["images\\3/", "..\\..\\media\\upload\\3\\", "/data/upload/3/", "C:\\x\\", "ftp://a.b/"]
)
@pytest.mark.parametrize("pointed", [False, True])
def test_paths_that_lead_elsewhere_are_found_by_their_base_name(tmp_path, lead, pointed):
    surfaces(tmp_path / "in" / "images", 4)
    coco(tmp_path / "in" / "result.json", [f"{lead}{i}.png" for i in range(4)], [hole(3)])
    folder = tmp_path / "in" / "images" if pointed else None
    made = imported(tmp_path / "in", tmp_path, image_folder=folder)
    assert pixels(made.root) == {("hole", "3"): 400} and has_note(made, "4 paths lead elsewhere")


def test_a_base_name_that_two_images_have_is_refused_unless_their_folder_tells(tmp_path):
    for folder in ("a", "b"):
        surfaces(tmp_path / "in" / folder, 4)
    coco(tmp_path / "in" / "result.json", [f"x/b/{i}.png" for i in range(4)], [hole(3)])
    assert imported(tmp_path / "in", tmp_path).n_train == 2
    coco(tmp_path / "in" / "result.json", [f"x/{i}.png" for i in range(4)], [hole(3)])
    with pytest.raises(DataError, match="'x/0.png' may be .*0.png or .*--images FOLDER"):
        import_category(tmp_path / "in", tmp_path / "ds" / "b")


def test_stray_outlines_are_all_listed_and_the_others_count(tmp_path):
    surfaces(tmp_path / "in" / "images", 8)
    square = sum(SQUARE, [])
    annotations = [
        hole(3, segmentation=[square, [64.0, 64.0]]),
        hole(4, segmentation=[[45, 45, 50, 50]]),
        hole(5),
        {"image_id": 6, "segmentation": [[900, 900, 950, 900, 950, 950]]},
        {"image_id": 7, "segmentation": [square]},
        {"image_id": 7, "segmentation": [[1, 1]]},
    ]
    coco(tmp_path / "in" / "a.json", [f"{i}.png" for i in range(8)], annotations)
    made = imported(tmp_path / "in", tmp_path)
    assert pixels(made.root) == {("hole", str(i)): 0 if i == 6 else 400 for i in range(3, 8)}
    for number, words in ((0, "1 of 3"), (1, "2 of 3"), (3, "marks nothing"), (5, "1 of 3")):
        assert has_note(made, f"annotations[{number}]", words)


def test_a_stray_line_of_yolo_is_listed_and_the_others_count(tmp_path):
    surfaces(tmp_path / "in" / "images", 5)
    (tmp_path / "in" / "labels").mkdir()
    (tmp_path / "in" / "classes.txt").write_text("hole\n")
    good = f"0 {50 / SIZE} {50 / SIZE} {20 / SIZE} {20 / SIZE}\n"
    (tmp_path / "in" / "labels" / "3.txt").write_text(f"{good}0 7 7 0.1 0.1\n0 0.5 0.5\n")
    (tmp_path / "in" / "labels" / "4.txt").write_text(good)
    made = imported(tmp_path / "in", tmp_path)
    assert pixels(made.root) == {("hole", "3"): 400, ("hole", "4"): 400}
    assert has_note(made, "line 2", "leads out") and has_note(made, "line 3", "1 of 3 corners")


# -- LabelMe, CVAT, Label Studio, Pascal VOC, VIA --------------------------------------------------


def labelme(image, *shapes, **more):
    said = [{"label": "scratch", "points": p, "shape_type": k} | extra for k, p, extra in shapes]
    content = {"version": "5.5.0", "flags": {}, "shapes": said, "imagePath": image.name}
    content |= {"imageData": None, "imageHeight": SIZE, "imageWidth": SIZE}
    image.with_suffix(".json").write_text(json.dumps(content | more))


def test_labelme(tmp_path):
    raw = tmp_path / "in"
    surfaces(raw, 12)
    stream = io.BytesIO()
    Image.fromarray(np.ones((20, 20), dtype=np.uint8) * 255).save(stream, "PNG")
    bitmap = {"mask": base64.b64encode(stream.getvalue()).decode()}
    labelme(raw / "4.png", ("polygon", SQUARE, {}))
    labelme(raw / "5.png", ("rectangle", [[60, 60], [40, 40]], {}))
    labelme(raw / "6.png", ("circle", [[50, 50], [60, 50]], {}))
    labelme(raw / "7.png", ("linestrip", [[30, 30], [90, 60]], {}))
    labelme(raw / "8.png", ("mask", [[40, 40], [59, 59]], bitmap))
    labelme(raw / "9.png", ("point", [[5, 5]], {}), ("polygon", SQUARE, {}))
    labelme(raw / "10.png")
    labelme(raw / "11.png", flags={"dent": True, "rust": False}, imagePath="..\\old\\11.png")
    made = imported(raw, tmp_path)
    found = pixels(made.root)
    assert made.kind == "labelme" and counts(made) == (4, 1, {"dent": 1, "scratch": 6})
    assert [found["scratch", str(i)] for i in (4, 5, 8, 9)] == [400] * 4
    assert abs(found["scratch", "6"] - 314) < 5 and 60 <= found["scratch", "7"] <= 65
    assert has_note(made, "4 images without annotation taken for good")
    assert has_note(made, "9.json, shapes[0]", "1 of 3 corners")


@pytest.mark.parametrize("folder", ["NG", "dent"])
def test_labelme_in_folders_believes_the_folder_of_bad_ones(tmp_path, folder):
    surfaces(tmp_path / "in" / "OK", 4)
    marked, _ = surfaces(tmp_path / "in" / folder, 2, first=4)
    labelme(marked, ("polygon", SQUARE, {}))
    made = imported(tmp_path / "in", tmp_path)
    assert counts(made) == (3, 1, {folder: 1, "scratch": 1}) and made.masks == {"scratch": 1}


def test_one_file_of_labelme_says_nothing_of_other_images(tmp_path):
    for image in surfaces(tmp_path / "in", 4)[2:]:
        labelme(image, ("polygon", SQUARE, {}))
    with pytest.raises(DataError, match="too few good images .0."):
        imported(tmp_path / "in" / "3.json", tmp_path)


def test_images_of_another_folder_without_a_file_of_labelme_are_good(tmp_path):
    image = surfaces(tmp_path / "photos", 4)[3]
    labelme(image, ("polygon", SQUARE, {}))
    (tmp_path / "in").mkdir()
    image.with_suffix(".json").rename(tmp_path / "in" / "3.json")
    made = imported(tmp_path / "in", tmp_path, image_folder=tmp_path / "photos")
    assert counts(made) == (2, 1, {"scratch": 1}) and pixels(made.root) == {("scratch", "3"): 400}


def test_cvat_xml(tmp_path):
    raw = tmp_path / "in"
    surfaces(raw / "images" / "Train", 11)
    points = ";".join(f"{x}.00,{y}.00" for x, y in SQUARE)
    runs = ", ".join(["0, 20"] * 20)
    shapes = {
        4: f'<polygon label="hole" points="{points}"/>',
        5: f'<mask label="hole" rle="{runs}" left="40" top="40" width="20" height="20"/>',
        6: '<box label="hole" xtl="40" ytl="40" xbr="60" ybr="60" rotation="30.0"/>',
        7: '<ellipse label="hole" cx="50" cy="50" rx="10" ry="10"/>',
        8: '<polyline label="line" points="30,30;90,60"/>',
        9: '<tag label="dirty" source="manual"></tag>',
        10: '<tag label="OK"/>',
    }
    images = "".join(
        f'<image id="{i}" name="{i}.png" subset="Train" width="128" height="128">'
        f"{shapes.get(i, '')}</image>"
        for i in range(11)
    )
    head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    (raw / "annotations.xml").write_text(f"{head}<meta/>{images}</annotations>")
    surface(raw / "images" / "more.png")
    made = imported(raw, tmp_path)
    found = pixels(made.root)
    assert made.kind == "cvat" and counts(made) == (4, 1, {"dirty": 1, "hole": 4, "line": 1})
    assert [found["hole", str(i)] for i in (4, 5, 6)] == [400] * 3
    assert abs(found["hole", "7"] - 314) < 5 and found["dirty", "9"] == 0
    assert has_note(made, "1 images without annotation passed over", "more.png")
    (raw / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(DataError, match="is of a video: export it"):
        import_category(raw, tmp_path / "ds" / "b")


def packed(mask):
    """A mask as the brush of Label Studio writes it: each pixel four values, in long runs."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4)
    bits = f"{values.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1), values.size]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if end - start < 8:  # value by value
            bits += f"0{0:02b}{end - start - 1:03b}" + f"{values[start]:08b}" * (end - start)
        else:
            bits += f"1{3:02b}{end - start - 1:016b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def region(kind, value, **more):
    size = {"original_width": SIZE, "original_height": SIZE, "image_rotation": 0}
    return {"id": f"r{kind}", "type": kind, "value": value, **size, **more}


PERCENT = [[x / SIZE * 100, y / SIZE * 100] for x, y in SQUARE]
SIDES = {"x": 4000 / SIZE, "y": 4000 / SIZE, "width": 2000 / SIZE, "height": 2000 / SIZE}


def test_label_studio(tmp_path):
    raw = tmp_path / "in"
    surfaces(raw / "images", 11)
    mask = square() | square(100, 3, 1)
    turned = SIDES | {"x": 6000 / SIZE, "rotation": 90}  # about its upper left corner
    results = {
        4: [region("polygonlabels", {"points": PERCENT, "polygonlabels": ["hole"]})],
        5: [region("rectanglelabels", {**SIDES, "rectanglelabels": ["hole"]})],
        6: [region("rectanglelabels", {**turned, "rectanglelabels": ["hole"]})],
        7: [region("brushlabels", {"format": "rle", "rle": packed(mask), "brushlabels": ["hole"]})],
        8: [{"type": "choices", "value": {"choices": ["dirty"]}, "id": "c"}],
        9: [
            region("polygon", {"points": PERCENT}, id="one"),
            region("labels", {"points": PERCENT, "labels": ["dent"]}, id="one"),
        ],
    }
    tasks = [
        {
            "id": i,
            "data": {"image": f"/data/upload/3/0a1b2c3d-{i}.png"},
            "annotations": [{"id": i, "result": results.get(i, []), "was_cancelled": i == 10}],
        }
        for i in range(11)
    ]
    (raw / "project.json").write_text(json.dumps(tasks))
    made = imported(raw, tmp_path)
    found = pixels(made.root)
    assert made.kind == "label-studio"
    assert counts(made) == (3, 1, {"dent": 1, "dirty": 1, "hole": 4})
    assert [found["hole", str(i)] for i in (4, 5, 6, 7)] == [400, 400, 400, 401]
    assert (read_mask(made.root / "ground_truth" / "hole" / "7_mask.png") == mask).all()
    assert (read_mask(made.root / "ground_truth" / "hole" / "6_mask.png") == square()).all()
    assert found["dent", "9"] == 400 and found["dirty", "8"] == 0
    assert has_note(made, "1 tasks passed over") and has_note(made, "10 paths lead elsewhere")


def test_label_studio_in_short(tmp_path):
    surfaces(tmp_path / "in", 5)
    size = {"original_width": SIZE, "original_height": SIZE}
    tasks = [
        {"image": f"/data/upload/1/{i}.png", "id": i, "annotator": 1, "annotation_id": i}
        for i in range(5)
    ]
    tasks[3]["label"] = [{"points": PERCENT, "polygonlabels": ["hole"], **size}]
    tasks[4]["choice"] = "dirty"
    (tmp_path / "in" / "min.json").write_text(json.dumps(tasks))
    assert pixels(imported(tmp_path / "in", tmp_path).root) == {
        ("hole", "3"): 400,
        ("dirty", "4"): 0,
    }


def voc(file, name, objects):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><folder>old</folder><filename>{name}</filename><size><width>128</width>"
        f"<height>128</height><depth>3</depth></size>{objects}</annotation>"
    )


def bndbox(left, top, right, bottom, more=""):
    return (
        f"<object><name>hole</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox>{more}</object>"
    )


def test_pascal_voc(tmp_path):
    raw = tmp_path / "in"
    surfaces(raw / "JPEGImages", 8)
    turned = (
        "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    )
    for i in range(5):
        voc(raw / "Annotations" / f"{i}.xml", f"{i}.png", "")
    voc(raw / "Annotations" / "5.xml", "5.png", bndbox(41, 41, 60, 60))
    voc(raw / "Annotations" / "6.xml", "6", bndbox(40.0, 40.0, 60.0, 60.0))
    voc(raw / "Annotations" / "7.xml", "7.jpg", bndbox("30.0", 45, 70, 55, turned))
    sets = raw / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("0\n1\n2\n")
    (sets / "test.txt").write_text("3\n4\n5\n6\n7\n")
    (sets / "trainval.txt").write_text("0\n1\n2\n")
    made = imported(raw, tmp_path)
    assert made.kind == "voc" and counts(made) == (3, 2, {"hole": 3})
    assert pixels(made.root) == {("hole", str(i)): 400 for i in (5, 6, 7)}
    assert sorted(file.stem for file in (made.root / "test" / "good").iterdir()) == ["3", "4"]
    for name in ("5", "6"):
        mask = read_mask(made.root / "ground_truth" / "hole" / f"{name}_mask.png")
        assert (mask == square()).all()


def test_via(tmp_path):
    surfaces(tmp_path / "in", 8)
    xs, ys = zip(*SQUARE, strict=True)
    polygon = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    regions = {
        3: [{"shape_attributes": polygon, "region_attributes": {"kind": "hole"}}],
        4: [
            {
                "shape_attributes": {"name": "rect", "x": 40, "y": 40, "width": 20, "height": 20},
                "region_attributes": {"kind": {"hole": True}},
            }
        ],
        5: [
            {
                "shape_attributes": {"name": "circle", "cx": 50, "cy": 50, "r": 10},
                "region_attributes": {},
            }
        ],
    }
    entries = {
        f"{i}.png99": {"filename": f"{i}.png", "size": 99, "regions": regions.get(i, [])}
        for i in range(6)
    }
    entries["6.png99"] = {
        "filename": "6.png",
        "regions": {
            "0": {
                "shape_attributes": {
                    "name": "ellipse",
                    "cx": 50,
                    "cy": 50,
                    "rx": 20,
                    "ry": 5,
                    "theta": 0.5,
                },
                "region_attributes": {"kind": "hole"},
            }
        },
    }
    for number, content in enumerate((entries, {"_via_img_metadata": entries})):
        (tmp_path / "in" / "via.json").write_text(json.dumps(content))
        made = import_category(tmp_path / "in", tmp_path / "ds" / str(number))
        found = pixels(made.root)
        assert made.kind == "via" and counts(made) == (3, 1, {"defect": 1, "hole": 3})
        assert found["hole", "3"] == found["hole", "4"] == 400
        assert abs(found["defect", "5"] - 314) < 5 and abs(found["hole", "6"] - 314) < 8


@pytest.mark.parametrize(
    "name, text, words",
    [
        (
            "a.json",
            '{"shapes": [{"label": "x"}], "imagePath": "0.png"}',
            "shapes.0. has no 'points'",
        ),
        ("a.json", '{"shapes": 3, "imagePath": "0.png"}', "a.json is damaged"),
        ("a.json", '{"shapes": [], "imagePath": 3}', "a.json is damaged"),
        ("a.json", '{"shapes": [], "imagePath": "../../etc/x.png"}', "leads out of the folder"),
        (
            "a.json",
            '{"shapes": [{"label": "x", "points": [[NaN, 1], [2, 3]]}], "imagePath": "0.png"}',
            "shapes.0. is damaged",
        ),
        ("a.json", '[{"data": {"image": "0.png"}, "annotations": [{}]}]', "has no 'result'"),
        (
            "a.json",
            '[{"data": {"image": "0.png"}, "annotations": [{"result": [{"value": {"rle": [1, 2],'
            '"brushlabels": ["a"]}, "original_width": 9, "original_height": 9}]}]}]',
            "result.0. is damaged",
        ),
        ("a.json", '{"x": {"filename": "0.png", "regions": [{}]}}', "has no 'shape_attributes'"),
        ("a.xml", "<annotations><image/></annotations>", "has no 'name'"),
        (
            "a.xml",
            '<annotations><image name="0.png"><mask label="a" rle="1,2" left="0" top="0" width="9" '
            'height="9"/></image></annotations>',
            "run lengths are not those",
        ),
        (
            "a.xml",
            "<annotation><filename>0.png</filename><object/></annotation>",
            "object.0. is dam",
        ),
        ("a.xml", "<annotation>", "is no XML"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "defines entities"),
        ("a.xml", "<html/>", "of a known kind"),
        ("a.json", "{}", "of a known kind"),
    ],
)
def test_damaged_annotations_are_refused_with_their_entry(tmp_path, name, text, words):
    surfaces(tmp_path / "in", 3)
    (tmp_path / "in" / name).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        imported(tmp_path / "in" / name, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "ds").exists()


# -- data sets -------------------------------------------------------------------------------------


def btad(root):
    surfaces(root / "train" / "ok", 5, ".bmp")
    surfaces(root / "test" / "ok", 3, ".bmp")
    surfaces(root / "test" / "ko", 2, ".bmp")
    for i in range(2):
        mask_file(root / "ground_truth" / "ko" / f"{i}.png")


def test_btad_keeps_its_split(tmp_path):
    btad(tmp_path / "in" / "01")
    made = imported(tmp_path / "in" / "01", tmp_path)
    assert counts(made) == (5, 3, {"ko": 2}) and "BTAD" in made.kind
    assert set(pixels(made.root).values()) == {400}
    tested = {file.read_bytes() for file in (made.root / "test" / "good").iterdir()}
    assert tested == {f.read_bytes() for f in (tmp_path / "in/01/test/ok").iterdir()}
    anew = import_category(tmp_path / "in" / "01", tmp_path / "ds" / "b", test_fraction=0.5)
    assert counts(anew) == (4, 4, {"ko": 2}) and has_note(anew, "--test-fraction is given")


def test_a_data_set_of_several_objects_becomes_several_categories(tmp_path, capsys):
    for name in ("01", "02"):
        btad(tmp_path / "in" / name)
    made = imported(tmp_path / "in", tmp_path)
    assert counts(made) == (10, 6, {"ko": 4}) and datasets.categories(made.root) == ["01", "02"]
    assert counts(made.objects["02"]) == (5, 3, {"ko": 2})
    assert (
        main(["import", str(tmp_path / "in"), "--to", str(tmp_path / "ds" / "b"), "--quiet"]) == 0
    )
    said = capsys.readouterr().out
    assert "01:" in said and f"next: texad run --dataset {tmp_path}/ds/b\n" in said


def test_visa_keeps_its_split_and_its_objects(tmp_path):
    rows = ["object,split,label,image,mask"]
    for name in ("cashew", "pcb1"):
        data = tmp_path / "in" / name / "Data"
        for i, file in enumerate(surfaces(data / "Images" / "Normal", 6)):
            path = file.relative_to(tmp_path / "in").as_posix()
            rows.append(f"{name},{'train' if i < 4 else 'test'},normal,{path},")
        for i, file in enumerate(surfaces(data / "Images" / "Anomaly", 2)):
            mask = mask_file(data / "Masks" / "Anomaly" / file.name, level=1 + i)
            paths = [each.relative_to(tmp_path / "in").as_posix() for each in (file, mask)]
            rows.append(f"{name},test,anomaly,{','.join(paths)}")
    table = tmp_path / "in" / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    table.write_text("\n".join(rows))
    (table.parent / "2cls_fewshot.csv").write_text("\n".join(rows))
    for number, (source, folder) in enumerate(
        [(tmp_path / "in", None), (table, None), (table, tmp_path / "in")]
    ):
        made = import_category(source, tmp_path / "ds" / str(number), image_folder=folder)
        assert counts(made) == (8, 4, {"anomaly": 4}) and sorted(made.objects) == ["cashew", "pcb1"]
        for one in made.objects.values():
            assert counts(one) == (4, 2, {"anomaly": 2}) and set(pixels(one.root).values()) == {400}
            assert sorted(f.stem for f in (one.root / "test/good").iterdir()) == ["4", "5"]
    made = imported(tmp_path / "in" / "cashew", tmp_path)
    assert made.n_train + made.n_good == 6 and pixels(made.root)["Anomaly", "0"] == 400


def test_mvtec_ad_2(tmp_path):
    raw = tmp_path / "in" / "fabric"
    surfaces(raw / "train" / "good", 5, "_regular.png")
    surfaces(raw / "validation" / "good", 2, "_regular.png")
    surfaces(raw / "test_public" / "good", 3, "_over.png")
    surfaces(raw / "test_public" / "bad", 2, "_regular.png")
    for i in range(2):
        mask_file(raw / "test_public" / "ground_truth" / "bad" / f"{i}_regular_mask.png")
    surfaces(raw / "test_private", 2, "_regular.png")
    made = imported(raw, tmp_path)
    assert counts(made) == (7, 3, {"bad": 2}) and "MVTec AD 2" in made.kind
    assert set(pixels(made.root).values()) == {400}
    assert has_note(made, "2 good images of its validation part are in train/good")
    assert has_note(made, "2 images passed over")


def loco(root):
    surfaces(root / "train" / "good", 5)
    surfaces(root / "test" / "good", 2)
    surfaces(root / "test" / "logical_anomalies", 2)
    for i in range(2):
        folder = root / "ground_truth" / "logical_anomalies" / str(i)
        mask_file(folder / "000.png")
        mask_file(folder / "001.png", 90, 20, 10, level=236)


def test_mvtec_loco_has_several_masks_for_an_image(tmp_path):
    loco(tmp_path / "in" / "panel")
    assert set(pixels(tmp_path / "in" / "panel").values()) == {500}
    category = datasets.load_category(tmp_path / "in", "panel")
    before = datasets.fingerprint(category)
    mask_file(tmp_path / "in/panel/ground_truth/logical_anomalies/0/001.png", 90, 20, 11)
    assert not category.notes and datasets.fingerprint(category) != before
    with pytest.raises(DataError, match="already"):
        imported(tmp_path / "in" / "panel", tmp_path)
    surfaces(tmp_path / "in" / "panel" / "validation" / "good", 3)
    made = imported(tmp_path / "in" / "panel", tmp_path)
    assert counts(made) == (8, 2, {"logical_anomalies": 2}) and "LOCO" in made.kind
    assert pixels(made.root) == {("logical_anomalies", "0"): 521, ("logical_anomalies", "1"): 500}


def test_kolektor_sdd_has_a_black_mask_for_a_good_image(tmp_path):
    for i in range(3):
        for part in range(2):
            surface(tmp_path / "in" / f"kos0{i}" / f"Part{part}.jpg")
            side = 20 if (i, part) == (1, 1) else 0
            mask_file(tmp_path / "in" / f"kos0{i}" / f"Part{part}_label.bmp", side=side)
    made = imported(tmp_path / "in", tmp_path)
    assert made.kind.endswith("KolektorSDD") and counts(made)[2] == {"defect": 1}
    assert list(pixels(made.root).values()) == [400]
    # the parts of one commutator are a group, and the good ones of a group stay together
    category = datasets.load_category(made.root.parent, made.root.name)
    train, test = (
        groups.groups([sample.path for sample in part], made.root, every=False)
        for part in (category.train, [sample for sample in category.test if not sample.label])
    )
    assert {*train, *test} == {"kos00", "kos01", "kos02"} and not {*train} & {*test}
    assert has_note(made, "groups.csv says which images show one piece")


@pytest.mark.parametrize("good, bad", [("Class1", "Class1_def"), ("tile", "tile-bad")])
def test_one_of_two_folders_is_named_as_the_defective_one_of_the_other(tmp_path, good, bad):
    surfaces(tmp_path / "in" / good, 5)
    for file in surfaces(tmp_path / "in" / bad, 2):
        (file.parent / "labels.txt").write_text("1\t20\t10\t0.5\t30\t40\n")
    made = imported(tmp_path / "in", tmp_path)
    assert counts(made) == (4, 1, {bad: 2}) and made.good_labels == [good]
    surfaces(tmp_path / "in" / "Class2", 2)  # which of them belong together?
    with pytest.raises(DataError, match="--good"):
        import_category(tmp_path / "in", tmp_path / "ds" / "b")


def test_kolektor_sdd_2_keeps_its_split(tmp_path):
    for part, first, bad in (("train", 0, [3]), ("test", 10, [12, 13])):
        for file in surfaces(tmp_path / "in" / part, 4, first=first):
            side = 20 if int(file.stem) in bad else 0
            mask_file(file.with_name(f"{file.stem}_GT.png"), side=side)
    made = imported(tmp_path / "in", tmp_path)
    assert "KolektorSDD2" in made.kind and counts(made) == (3, 2, {"defect": 3})
    assert set(pixels(made.root).values()) == {400}
    assert has_note(made, "1 defective images of its training part are in test")


@pytest.mark.parametrize("n_classes", [1, 2])
def test_dagm_has_masks_for_defective_images_alone(tmp_path, n_classes):
    for number in range(1, 1 + n_classes):
        for part, first in (("Train", 10), ("Test", 0)):
            folder = tmp_path / "in" / f"Class{number}" / part
            surfaces(folder, 4, ".PNG", first)
            mask_file(folder / "Label" / f"{first + 1:d}_label.PNG")
            (folder / "Label" / "Labels.txt").write_text("1\n")
    made = imported(tmp_path / "in", tmp_path)
    assert "DAGM" in made.kind and counts(made) == (
        3 * n_classes,
        3 * n_classes,
        {"defect": 2 * n_classes},
    )
    one = made.objects.get("Class1", made)
    assert pixels(one.root) == {("defect", "1"): 400, ("defect", "11"): 400}


def test_masks_of_two_parts_with_the_same_names_stay_apart(tmp_path):
    for part, side in (("train", 0), ("val", 20)):
        surfaces(tmp_path / "in" / part / "images", 3)
        mask_file(tmp_path / "in" / part / "masks" / "2.png", side=side)
    made = imported(tmp_path / "in", tmp_path)
    assert counts(made) == (3, 2, {"defect": 1}) and list(pixels(made.root).values()) == [400]


# -- masks and files that are passed over ----------------------------------------------------------


def test_masks_that_match_no_image_are_counted_and_named(tmp_path, capsys):
    steel = write_category(tmp_path / "mine" / "steel")
    truth = next((steel / "ground_truth").iterdir())
    for file in truth.iterdir():
        file.rename(file.with_name(f"x_{file.name}"))
    n = len(list(truth.iterdir()))
    (note,) = datasets.load_category(tmp_path / "mine", "steel").notes
    assert note.startswith(f"{n} mask files match no image") and note.count(truth.name) == min(n, 2)
    made = imported(steel, tmp_path, kind="folders")
    assert has_note(made, f"{n} mask files match no image")


@pytest.mark.parametrize("ending", ["_GT.png", "_label.bmp", ".png", "_mask.tif"])
def test_a_mask_may_have_one_of_the_usual_endings(tmp_path, ending):
    root = tmp_path / "mine" / "felt"
    surfaces(root / "train" / "good", 2)
    surfaces(root / "test" / "hole", 1)
    mask_file(root / "ground_truth" / "hole" / f"0{ending}")
    assert pixels(root) == {("hole", "0"): 400}


def test_masks_among_the_images_to_learn_from_are_refused(tmp_path):
    root = tmp_path / "mine" / "felt"
    for file in surfaces(root / "train" / "good", 2):
        mask_file(file.with_name(f"{file.stem}_GT.png"))
    surfaces(root / "test" / "hole", 1)
    with pytest.raises(DataError, match="0_GT.png seems to be the mask of 0.png"):
        datasets.load_category(tmp_path / "mine", "felt")
