import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import traitlets
from conftest import write_category
from PIL import Image

from texad.evaluation.metrics import decision_metrics, image_auroc
from texad.model.places import Grid
from texad.model.preprocessing import Sight
from texad.teaching import explorer

HOSTILE = ["</script><img src=x onerror=alert(1)>.png", "\"&' $x$ <!--.png", "ünusual `name`.png"]


def table(normal, anomalous, names=()) -> pd.DataFrame:
    """A table as in scores.csv: one training image, then the test images with these scores."""
    values = np.array([*normal, *anomalous], dtype=float)
    labels = np.repeat([0, 1], [len(normal), len(anomalous)])
    paths = [f"test/{'crack' if label else 'good'}/{i:03d}.png" for i, label in enumerate(labels)]
    paths[: len(names)] = [f"test/{name}" for name in names]
    test = pd.DataFrame(
        {
            "path": paths,
            "split": "test",
            "defect": np.where(labels, "crack", "good"),
            "label": labels,
            "score": values,
        }
    )
    train = pd.DataFrame(
        {
            "path": ["train/good/000.png"],
            "split": "train",
            "defect": "good",
            "label": 0,
            "score": 9.0,
        }
    )
    return pd.concat([train, test], ignore_index=True).assign(prediction=0)


def made_up(n=40, seed=3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return table(rng.lognormal(4, 0.2, n), rng.lognormal(5, 0.6, n), HOSTILE)


MIDDLE = Grid(16, (7.5, 7.5))

# -- pictures --------------------------------------------------------------------------------------


def test_a_small_picture_is_written_for_each_image(tmp_path):
    root = write_category(tmp_path / "steel", n_good=2, n_defective=2, size=240)
    paths = sorted((root / "test").rglob("*.png"))
    masks = [None, None] + [
        np.asarray(Image.open(path)) > 0 for path in sorted(root.rglob("*_mask.png"))
    ]
    maps = np.random.default_rng(0).lognormal(0, 1, (4, 15, 15)).astype(np.float32)
    maps[3, 4, 5] = 300
    names = explorer.write_pictures(tmp_path / "pictures", paths, maps, masks, Sight(240), MIDDLE)
    assert names == ["0000.jpg", "0001.jpg", "0002.jpg", "0003.jpg"]
    assert (
        sorted(file.name for file in (tmp_path / "pictures").iterdir()) == names
    )  # and nothing half-written
    for name in names:
        file = tmp_path / "pictures" / name
        with Image.open(file) as picture:
            assert picture.format == "JPEG" and picture.size == (320, 160)
        assert 1000 < file.stat().st_size < 15000


def test_a_picture_has_the_proportions_of_its_image(tmp_path):
    sight, sizes = Sight(64, keep_aspect=True), [(40, 250), (90, 60)]
    maps = np.full((2, 5, 11), np.nan, dtype=np.float32)
    for i, (height, width) in enumerate(sizes):
        grey = np.full((height, width, 3), 100, dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
        rows, columns = (side // 16 for side in sight.shape(height, width))
        maps[i, :rows, :columns] = 1
        maps[i, 0, columns - 1] = 50  # at the upper right
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    explorer.write_pictures(tmp_path, paths, maps, [None] * 2, sight, MIDDLE)
    wide, tall = (np.asarray(Image.open(tmp_path / f"{i:04d}.jpg")).astype(int) for i in range(2))
    # one below the other, and side by side: each of 160² pixels, as the image is proportioned
    assert wide.shape == (2 * 64, 400, 3) and tall.shape == (196, 2 * 131, 3)
    for image, heatmap in ((wide[:64], wide[64:]), (tall[:, :131], tall[:, 131:])):
        assert np.abs(image[:-8, :-8] - 100).max() < 12 and heatmap[4, -4, 0] > 200
        assert np.abs(heatmap[-8:, :8] - 100).max() < 12


def test_the_surface_shows_through_where_the_map_is_low_and_the_peak_is_bright(tmp_path):
    Image.fromarray(np.full((160, 160, 3), 100, dtype=np.uint8)).save(tmp_path / "grey.png")
    maps = np.ones((2, 10, 10), dtype=np.float32)
    maps[1, 2, 7] = 50
    explorer.write_pictures(
        tmp_path,
        [tmp_path / "grey.png"] * 2,
        maps,
        [None, np.ones((160, 160), dtype=bool)],
        Sight(160),
        MIDDLE,
    )
    plain, peaked = (
        np.asarray(Image.open(tmp_path / f"{i:04d}.jpg")).astype(int) for i in range(2)
    )
    assert np.abs(plain - 100).max() < 6
    assert np.abs(peaked[:, :160] - 100).max() < 12 and np.abs(peaked[100:, 160:] - 100).max() < 12
    assert peaked[40, 160 + 120, 0] > 200


def test_the_border_of_the_defect_is_drawn_on_both_halves(tmp_path):
    Image.fromarray(np.full((160, 160, 3), 100, dtype=np.uint8)).save(tmp_path / "grey.png")
    mask = np.zeros((160, 160), dtype=bool)
    mask[40:80, 40:80] = True
    explorer.write_pictures(
        tmp_path,
        [tmp_path / "grey.png"],
        np.ones((1, 10, 10), dtype=np.float32),
        [mask],
        Sight(160),
        MIDDLE,
    )
    pixels = np.asarray(Image.open(tmp_path / "0000.jpg")).astype(int)
    for column in (60, 220):
        assert pixels[36:42, column].max() > 150 and abs(pixels[60, column, 0] - 100) < 6


# -- data ------------------------------------------------------------------------------------------


def test_records_are_the_test_images_with_short_names():
    assert explorer.records(table([1], [2.5])) == [
        {"name": "good/000.png", "label": 0, "score": 1.0},
        {"name": "crack/001.png", "label": 1, "score": 2.5},
    ]


@pytest.mark.parametrize("scores", [table([], []), table([1, np.nan], [2])])
def test_records_refuse_what_cannot_be_drawn(scores):
    with pytest.raises(ValueError, match="at least one test image, and finite scores"):
        explorer.records(scores)


def state(fragment, name="explorer"):
    return json.loads(re.search(rf'id="{name}-data">(.*?)</script>', fragment, flags=re.S)[1])


def test_the_fragment_holds_the_data_and_every_id_once():
    scores = made_up()
    test = scores[scores["split"] == "test"]
    fragment = explorer.html(scores, 80, ["a.jpg"] * 80, "figure.svg", name="ä b") + explorer.html(
        scores, 80, name="other"
    )
    first, other = state(fragment, "-b"), state(fragment, "other")
    assert first["data"]["auroc"] == image_auroc(test["label"], test["score"])
    assert first["threshold"] == 80 and first["selected"] == test["score"].to_numpy().argmax()
    assert first["pictures"] == ["a.jpg"] * 80 and other["pictures"] is None
    ids = re.findall(r'\bid="([^"]*)"', fragment)
    assert sorted(ids) == ["-b", "-b-data", "other", "other-data"]


def test_no_name_can_leave_its_place():
    fragment = explorer.html(made_up(), 80, ['"><b>.jpg'], "a\"&'<.svg")
    assert (
        fragment.count("</script>") == 2 and "<!--" not in fragment and "<img src=x" not in fragment
    )
    assert [image["name"] for image in state(fragment)["data"]["images"][:3]] == HOSTILE
    assert 'src="a&#34;&amp;&#39;&lt;.svg"' in fragment


def test_a_reader_without_scripts_is_told_the_decisions_in_words():
    assert (
        "At the threshold of 4, 1 of 3 normal images raise a false alarm, "
        "and 2 of 4 anomalous images are missed."
        in explorer.html(table([1, 2, 5], [3, 4, 5, 6]), 4)
    )


# -- the widget ------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    for i in range(3):
        Image.new("RGB", (320, 160), (0, 0, 80 * i)).save(tmp_path / f"{i:04d}.jpg")
    return tmp_path


def test_the_widget_sends_the_picture_of_the_selected_image_alone(pictures):
    widget = explorer.ThresholdExplorer(table([1, 2], [3]), 2.5, pictures)
    assert widget.selected == 2 and widget.picture["index"] == 2
    widget.selected = 1
    assert widget.picture["index"] == 1
    content = base64.b64decode(widget.picture["url"].removeprefix("data:image/jpeg;base64,"))
    assert content == (pictures / "0001.jpg").read_bytes() and Image.open(
        io.BytesIO(content)
    ).size == (320, 160)
    (pictures / "0000.jpg").unlink()
    widget.selected = 0
    assert widget.picture == {"index": 0, "url": ""}
    assert explorer.ThresholdExplorer(table([1, 2], [3]), 2.5).picture == {"index": 2, "url": ""}


def test_the_threshold_of_the_widget_can_be_set_but_not_to_nonsense():
    widget = explorer.ThresholdExplorer(table([1, 2], [3]), np.float32(2.5))
    widget.threshold = np.int64(7)
    assert widget.threshold == 7.0 and widget.data["threshold"] == 2.5
    for nonsense in (np.nan, np.inf, "high"):
        with pytest.raises(traitlets.TraitError):
            widget.threshold = nonsense
    for nonsense in (-1, 3):
        with pytest.raises(traitlets.TraitError, match="3 test images: selected goes from 0 to 2"):
            widget.selected = nonsense
    assert repr(widget) == "threshold explorer: 3 test images, threshold 7"
    json.dumps(widget.get_state(), allow_nan=False)


# -- in a browser ----------------------------------------------------------------------------------


PAGE = """<!doctype html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>explorer</title>
<style>html[data-theme="dark"] {{ background: #14181e; color: #ced6dd }}</style></head>
<body><main><h1>A page</h1>{fragment}</main></body></html>"""


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page from file://; a request to the network or an error fails the test."""
    contexts, problems = [], []

    def go(fragment, theme="light", **options):
        file = tmp_path / f"{theme}.html"
        file.write_text(PAGE.format(theme=theme, fragment=fragment), encoding="utf-8")
        contexts.append(browser.new_context(offline=True, **options))
        page = contexts[-1].new_page()
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:"))
                or problems.append(f"request: {request.url}")
            ),
        )
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and problems.append(f"console: {message.text}")
            ),
        )
        page.on(
            "dialog",
            lambda dialog: problems.append(f"dialog: {dialog.message}") or dialog.dismiss(),
        )
        page.goto(file.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def jpegs(tmp_path):
    """A picture for each of made_up's images, beside the page."""
    names = [f"{i:04d}.jpg" for i in range(80)]
    for i, name in enumerate(names):
        Image.new("RGB", (320, 160), (3 * i, 100, 100)).save(tmp_path / name)
    return names


def read(page, root="#explorer"):
    """The threshold that an explorer reports, its confusion matrix and its measures."""
    threshold = float(page.get_attribute(root, "data-threshold"))
    counts = {
        name: int(page.inner_text(f"{root} [data-count={name}]"))
        for name in ("tn", "fp", "fn", "tp")
    }
    cells = page.query_selector_all(f"{root} [data-measure]")
    measures = {
        cell.get_attribute("data-measure"): (cell.get_attribute("data-value"), cell.inner_text())
        for cell in cells
    }
    return threshold, counts, measures


def agrees(page, scores, root="#explorer"):
    """The page counts as NumPy does, at the threshold that it reports, which is returned."""
    test = scores[scores["split"] == "test"]
    threshold, counts, measures = read(page, root)
    expected = decision_metrics(test["label"], test["score"] > threshold)
    assert counts == expected["confusion"], threshold
    assert float(measures["recall"][0]) == pytest.approx(expected["recall"])
    if counts["tp"] + counts["fp"]:
        assert float(measures["precision"][0]) == pytest.approx(expected["precision"])
    else:
        assert measures["precision"] == ("", "–")
    assert float(measures["false-alarm rate"][0]) == pytest.approx(
        counts["fp"] / (counts["fp"] + counts["tn"])
    )
    return threshold, counts


def middle(page, selector):
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_line_is_dragged_with_the_mouse(visit, jpegs):
    scores = made_up()
    page = visit(
        explorer.html(scores, 80, jpegs, name="one") + explorer.html(scores, 90, jpegs, name="two")
    )
    at_first = agrees(page, scores, "#one")
    assert at_first[0] == 80
    points = {page.get_attribute("#one .point", "transform")}
    x, y = middle(page, "#one .handle")
    page.mouse.move(x, y)
    page.mouse.down()
    seen = []
    for shift in (1, 40, 120, -60, 4000):
        page.mouse.move(x + shift, y, steps=3)
        seen.append(agrees(page, scores, "#one"))
        points.add(page.get_attribute("#one .point", "transform"))
    page.mouse.up()
    page.mouse.move(x, y)
    assert seen[0] == at_first and len({threshold for threshold, _ in seen}) == 5
    assert seen[-1][1]["tp"] == seen[-1][1]["fp"] == 0 and len(points) == 5
    assert agrees(page, scores, "#one") == seen[-1]  # no longer held
    assert agrees(page, scores, "#two")[0] == 90  # the other explorer of the page keeps its own
    page.click("#one .control button")
    assert agrees(page, scores, "#one") == at_first


def test_the_line_is_dragged_with_a_finger(visit):
    scores = made_up()
    page = visit(
        explorer.html(scores, 80),
        viewport={"width": 390, "height": 800},
        has_touch=True,
        is_mobile=True,
    )
    x, y = middle(page, ".handle")
    fingers = page.context.new_cdp_session(page)

    def touch(kind, *points):
        fingers.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": left, "y": y} for left in points]},
        )

    touch("touchStart", x)
    for shift in range(10, 110, 10):
        touch("touchMove", x + shift)
    touch("touchEnd")
    threshold, _ = agrees(page, scores)
    assert threshold > 90
    page.touchscreen.tap(*middle(page, ".mark >> nth=70"))
    assert page.get_attribute(".picker option:checked", "value") == "70"
    assert agrees(page, scores)[0] == threshold  # a tap moves nothing


def test_arrow_keys_go_from_decision_to_decision(visit):
    scores = made_up()
    page = visit(explorer.html(scores, 80))
    page.get_by_role("slider", name="threshold").focus()
    seen = [agrees(page, scores)]
    for key in ("ArrowRight", "ArrowUp", "ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        seen.append(agrees(page, scores))
    called = [counts["fp"] + counts["tp"] for _, counts in seen]
    assert np.diff(called).tolist() == [-1, -1, -1, 1, 1]
    assert page.get_attribute("input", "aria-valuetext").endswith(
        f"{seen[-1][1]['fp']} false alarms, {seen[-1][1]['fn']} missed defects"
    )
    for key, alarms in (
        ("Home", 80),
        ("ArrowLeft", 80),
        ("ArrowRight", 79),
        ("End", 0),
        ("ArrowRight", 0),
    ):
        page.keyboard.press(key)
        assert sum(agrees(page, scores)[1][name] for name in ("tp", "fp")) == alarms, key


def test_a_click_on_a_mark_shows_its_image(visit, jpegs):
    scores = made_up()
    page = visit(explorer.html(scores, 80, jpegs))
    test = scores[scores["split"] == "test"].reset_index(drop=True)

    def shows(index):
        image = page.locator("[aria-live=polite] img")
        score, label = test["score"][index], ["normal", "anomalous"][test["label"][index]]
        called = "anomalous" if score > 80 else "normal"
        name = test["path"][index].removeprefix("test/")
        assert (
            image.get_attribute("alt")
            == f"{name}: {label}, score {float(f'{score:.4g}'):g}, called {called}"
        )
        assert image.get_attribute("src") == jpegs[index]
        page.wait_for_function("document.querySelector('[aria-live] img').naturalWidth === 320")
        assert page.inner_text("[aria-live] p").startswith(image.get_attribute("alt"))

    shows(test["score"].argmax())
    for index in (0, 1, 50):
        page.mouse.click(*middle(page, f".mark >> nth={index}"))
        chosen = int(page.eval_on_selector(".picker select", "choice => choice.value"))
        left, _ = middle(page, f".mark >> nth={index}")
        assert (
            chosen == index or abs(middle(page, f".mark >> nth={chosen}")[0] - left) < 6
        )  # marks may cover each other
        shows(chosen)
    ranks = test["score"].sort_values(kind="stable").index
    page.get_by_label("image, by score").select_option(str(ranks[10]))
    page.get_by_role("button", name="next higher").click()
    shows(ranks[11])
    page.get_by_role("button", name="next lower").press("Enter")
    page.keyboard.press("Enter")
    shows(ranks[9])


def test_a_press_on_the_line_that_does_not_move_is_meant_for_the_mark_below(visit):
    page = visit(explorer.html(table([10, 20, 30], [20, 40, 50]), 20.5))
    page.mouse.click(*middle(page, ".mark >> nth=3"))
    assert (
        page.eval_on_selector(".picker select", "choice => choice.value") == "3"
        and read(page)[0] == 20.5
    )


def test_without_scripts_the_static_picture_stands(visit, tmp_path):
    (tmp_path / "figure.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
        '<circle r="4" cx="4" cy="4"/></svg>'
    )
    fragment = explorer.html(made_up(), 80, static="figure.svg")
    page = visit(fragment, java_script_enabled=False)
    assert page.locator("#explorer img").is_visible() and page.locator("#explorer p").is_visible()
    page = visit(fragment)
    assert (
        page.locator("#explorer img:visible").count() == 0
        and page.locator("#explorer .scores").is_visible()
    )


@pytest.mark.parametrize(
    "scores, threshold",
    [
        (table([5, 5, 5, 6], [5, 6, 6, 7]), 5),  # ties: all equal scores change sides together
        (table([-3, -1, 0], [-0.5, 2]), 0.3),
        (table([7, 7], [7]), 7),
        (table([1e-6, 1e-5], [1e5, 3e6]), 1),
        (
            table([1, np.nextafter(1, 2)], [np.nextafter(1, 0), 2]),
            1,
        ),  # no float lies between neighbours
    ],
)
def test_unusual_scores(visit, scores, threshold):
    page = visit(explorer.html(scores, threshold))
    labels, values = (scores[scores["split"] == "test"][name] for name in ("label", "score"))
    assert agrees(page, scores)[0] == threshold
    assert ("logarithmic" in page.text_content(".scores")) == (values.min() > 0)
    assert f"AUROC {image_auroc(labels, values):.3f}" in page.text_content(".roc")
    assert (
        page.locator(".scores text").count() > 3
    )  # the threshold, the axis, and at least two ticks
    page.get_by_role("slider", name="threshold").press("Home")
    seen = {tuple(agrees(page, scores)[1].values())}
    for _ in range(len(values) + 1):
        page.keyboard.press("ArrowRight")
        seen.add(tuple(agrees(page, scores)[1].values()))
    assert len(seen) == len(set(values)) + 1


@pytest.mark.parametrize("scores", [table([1, 2, 3], []), table([], [1, 2, 3])])
def test_one_kind_of_image_has_no_roc_but_everything_else(visit, scores):
    page = visit(explorer.html(scores, 2.5))
    assert "AUROC –" in page.text_content(".roc") and page.locator(".point").count() == 0
    page.get_by_role("slider", name="threshold").press("ArrowLeft")
    _, counts, measures = read(page)
    assert sorted(counts.values()) == [0, 0, 1, 2]
    assert sorted(text == "–" for _, text in measures.values())[-1]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_and_is_accessible(visit, jpegs, theme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(
        explorer.html(made_up(), 80, jpegs), theme=theme, viewport={"width": width, "height": 900}
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    violations = Axe().run(page).response["violations"]
    assert not [(found["id"], found["nodes"][0]["html"]) for found in violations]


def test_on_paper_it_stands_at_the_threshold_of_the_run(visit):
    page = visit(explorer.html(made_up(), 80))
    page.get_by_role("slider", name="threshold").press("Home")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert read(page)[0] == 80
    assert not page.locator("input, select, button").filter(visible=True).count()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert read(page)[0] < 60


def test_the_notebook_loads_the_same_file_as_a_module(visit):
    """As anywidget does: import the text, render with a model, listen, and clean up."""
    widget = explorer.ThresholdExplorer(table([1, 2], [3, 4]), 2.5)
    state = {name: getattr(widget, name) for name in ("data", "threshold", "selected")}
    pixel = io.BytesIO()
    Image.new("RGB", (320, 160)).save(pixel, "JPEG")
    url = "data:image/jpeg;base64," + base64.b64encode(pixel.getvalue()).decode()
    page = visit('<div id="explorer"></div>')
    page.evaluate(
        """async ([code, state]) => {
            const blob = new Blob([code], { type: "text/javascript" });
            const module = await import(URL.createObjectURL(blob));
            const events = new EventTarget();
            window.saved = [];
            window.model = {
                get: (name) => state[name],
                set(name, value) {
                    state[name] = value;
                    events.dispatchEvent(new Event(`change:${name}`));
                },
                save_changes() { saved.push({ ...state, data: null }); },
                on: (event, react) => events.addEventListener(event, react),
                off: (event, react) => events.removeEventListener(event, react),
            };
            const el = document.getElementById("explorer");
            window.finish = module.default.render({ model, el });
        }""",
        [widget._esm if isinstance(widget._esm, str) else str(widget._esm), state],
    )
    assert read(page)[1] == {"tn": 2, "fp": 0, "fn": 0, "tp": 2}
    assert page.locator("img").is_hidden()  # the picture comes from the kernel, later
    page.evaluate("url => model.set('picture', { index: 3, url })", url)
    assert (
        page.get_attribute("img", "alt") == "crack/003.png: anomalous, score 4, called anomalous"
        and page.locator("img").is_visible()
    )
    page.get_by_role("button", name="next lower").click()
    assert (
        page.evaluate("saved.at(-1).selected") == 2 and page.locator("img").is_hidden()
    )  # not yet the picture of this one
    page.get_by_role("slider", name="threshold").press("ArrowRight")
    assert page.evaluate("saved.at(-1).threshold") == read(page)[0] > 3
    page.evaluate("model.set('threshold', 1.5)")  # the next cell of the notebook
    assert read(page)[:2] == (1.5, {"tn": 1, "fp": 1, "fn": 0, "tp": 2})
    page.evaluate("finish(); model.set('threshold', 9)")
    assert read(page)[0] == 1.5
