import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import write_category
from PIL import Image

from texad.data import datasets
from texad.errors import ImageError
from texad.evaluation.metrics import auroc_by_defect, decision_metrics, image_auroc
from texad.io.images import read_mask
from texad.io.json_files import read_json, write_json
from texad.runs.run_folder import STAGES, STUDIES, FinishedRun, Run
from texad.site import gallery, markdown, pages

FIGURES = (
    "1_score_distribution.svg",
    "2_heatmaps.png",
    "3_roc_curve.svg",
    "4_confusion_matrix.svg",
    "5_scores_by_defect.svg",
)
HOSTILE = "brushed <b>& {ü}nusual"


def finished_run(
    folder: Path,
    name="steel",
    score=lambda label, i: 1.0 + 2 * label + 0.1 * i,
    threshold=2.5,
    **category,
) -> FinishedRun:
    """A run folder as the five notebooks leave it, with made-up scores.

    `score` makes one of a label and the image's number.
    """
    root = write_category(folder / "surfaces" / name, **category)
    for kind in [kind for kind in (root / "test").iterdir() if not any(kind.iterdir())]:
        kind.rmdir()
    return run_of(folder, root, score, threshold)


def run_of(
    folder: Path, root: Path, score=lambda label, i: 1.0 + 2 * label + 0.1 * i, threshold=2.5
) -> FinishedRun:
    run = Run(root.parent, root.name, folder / "runs")
    run.start(STAGES[0], image_size=64)
    images = run.write_images(datasets.load_category(root.parent, root.name))
    run.finish()
    scores = images.drop(columns="mask")
    scores["score"] = [score(label, i) for i, label in enumerate(scores["label"])]
    scores["prediction"] = (scores["score"] > threshold).astype(int)
    run.write_table("scores.csv", scores)
    test = scores[scores["split"] == "test"]
    run.write_array(
        "maps/test.npy", np.random.default_rng(0).random((len(test), 4, 4), dtype=np.float32)
    )
    weights = {"name": "random", "sha256": "0" * 64}
    places = {"stride": 16, "centre": [7.5, 7.5]}
    run.write(threshold=threshold, weights=weights, places=places)
    decisions = decision_metrics(test["label"], test["prediction"])
    by_defect = auroc_by_defect(test["label"], test["score"], test["defect"])
    auroc = image_auroc(test["label"], test["score"])
    counts = {"n_train": len(images) - len(test), "n_test": len(test)}
    write_json(
        run.folder / "metrics.json",
        {
            "image_auroc": auroc,
            **decisions,
            "threshold": threshold,
            "auroc_by_defect": by_defect,
            "pixel_auroc": None,
            **counts,
            "weights": weights,
        },
    )
    for name in FIGURES:
        (run.folder / "figures").mkdir(exist_ok=True)
        (run.folder / "figures" / name).write_bytes(b"")
    for stage in STAGES:
        (run.folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), run.folder / "notebooks" / f"{stage}.ipynb")
    return FinishedRun(run.folder)


def assembled(*runs: FinishedRun) -> Path:
    """The pages of these runs."""
    root = runs[0].folder.parent.parent
    rows = []
    for run in runs:
        metrics = read_json(run.folder / "metrics.json")
        numbers = {name: metrics[name] for name in ("image_auroc", "precision", "recall", "f1")}
        rows.append(
            {"category": run.category, "images": 9, **numbers, "seconds": 1.0, "error": None}
        )
    write_json(
        root / "summary.json",
        {
            "dataset": "surfaces",
            "weights": {"name": "random", "sha256": "0" * 64},
            "seed": 0,
            "categories": rows,
        },
    )
    pages.assemble(root, root / "book")
    return root / "book"


# -- which images are shown ------------------------------------------------------------------------


def test_the_telling_images_are_found():
    labels, scores = [1, 1, 1, 1, 1, 0, 0, 0, 0], [9, 7, 6, 3, 2, 1, 8, 5.5, 4]
    test = pd.DataFrame(
        {"label": labels, "score": scores, "prediction": [int(score > 5) for score in scores]}
    )
    found, doubtful = gallery.right_and_wrong(test)
    assert found == {"clearest hit": 0, "typical hit": 1, "narrowest hit": 2}
    assert doubtful == {"worst miss": 4, "worst false alarm": 6, "narrowest pass": 8}


@pytest.mark.parametrize(
    ("labels", "predictions", "names"),
    [
        ([1, 1], [1, 1], ["clearest hit", "narrowest hit"]),
        ([1], [1], ["clearest hit"]),
        ([1, 0], [0, 0], ["worst miss", "narrowest pass"]),
        ([0, 0], [1, 1], ["worst false alarm"]),
    ],
)
def test_what_does_not_occur_is_left_out(labels, predictions, names):
    test = pd.DataFrame(
        {"label": labels, "score": np.arange(len(labels)), "prediction": predictions}
    )
    found, doubtful = gallery.right_and_wrong(test)
    assert [*found, *doubtful] == names


def test_what_there_is_none_of_is_said():
    counts = markdown.environment.get_template("macros.md.j2").module.counts
    said = [
        " ".join(counts(dict(zip(("tn", "fp", "fn", "tp"), n, strict=True))).split())
        for n in ((3, 0, 0, 3), (0, 0, 2, 0))
    ]
    assert said == [
        "Defective images found: **3** of 3. There is no miss. "
        "Good images rejected by mistake: **0** of 3. There is no false alarm.",
        "Defective images found: **0** of 2. There is no hit to show. The test has no good image.",
    ]


# -- pictures --------------------------------------------------------------------------------------


def test_a_gallery_shows_one_image_of_each_kind_and_says_where_the_damage_is(tmp_path):
    run = finished_run(tmp_path)
    picture = gallery.data(run, tmp_path / "steel.jpg")
    mask = read_mask(run.data_path(run.images("test").query("label == 1")["mask"].iloc[0]))
    assert f"spot, {100 * mask.mean():.2g} % of the image, " in picture.alt
    assert picture.caption == (
        "steel: a good image and one of each kind of defect; the line is the border of the damage."
    )
    assert picture.file.stat().st_size < 200_000


@pytest.mark.parametrize("shape", [(2000, 30), (40, 1500), (1, 1)])
def test_images_of_any_proportions_fit_into_a_gallery(tmp_path, shape):
    root = write_category(tmp_path / "surfaces" / "long")
    for file in [*root.glob("train/good/*"), *root.glob("test/*/*")]:
        Image.fromarray(
            np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
        ).save(file)
    run = run_of(tmp_path, root)  # its masks still have another shape
    picture = gallery.data(run, tmp_path / "long.jpg")
    with Image.open(picture.file) as image:
        assert image.width <= 1200


def test_without_masks_nothing_is_said_about_an_outline(tmp_path):
    root = write_category(tmp_path / "surfaces" / "steel")
    shutil.rmtree(root / "ground_truth")
    run = run_of(tmp_path, root)
    data = gallery.data(run, tmp_path / "steel.jpg")
    assert "line" not in data.caption and "spot, not outlined" in data.alt
    hits, doubtful = gallery.hits_and_misses(run, tmp_path, "steel", gallery.MOST_BYTES)
    assert "outlined" not in hits.alt + doubtful.alt and "its map is brightest" in hits.alt


def test_a_test_of_good_images_alone_has_no_hits_and_no_defects(tmp_path):
    run = finished_run(tmp_path, n_defective=0)
    assert gallery.data(run, tmp_path / "steel.jpg").caption == "steel: a good image."
    (only,) = gallery.hits_and_misses(run, tmp_path, "steel", gallery.MOST_BYTES)
    assert "Narrowest pass" in only.caption and "hit" not in only.caption
    assert gallery.puzzle(run, tmp_path, 0)["question"].caption.endswith("None is damaged.")


def test_scores_and_threshold_stand_in_the_caption(tmp_path):
    run = finished_run(tmp_path, score=lambda label, i: 2.0 + 0.1234 * i * (label or -1))
    hits, _ = gallery.hits_and_misses(run, tmp_path, "steel", gallery.MOST_BYTES)
    best = run.test().sort_values("score").iloc[-1]
    assert f"Clearest hit: {best['path']} (spot), score {best['score']:.4g}." in hits.caption
    assert "The threshold is 2.5." in hits.caption


def test_an_alternative_text_tells_whether_the_map_points_at_the_defect():
    mask = np.zeros((64, 64), dtype=bool)
    mask[2:10, 50:60] = True
    pixels = np.zeros((64, 64))
    pixels[12, 40] = 1  # beside it
    assert gallery._brightest(pixels, mask, (16, 16)) == "at the top, at the outlined defect"
    assert (
        gallery._brightest(pixels.T, mask, (16, 16)) == "at the left, away from the outlined defect"
    )
    assert gallery._brightest(pixels, None, (16, 16)) == "at the top"
    assert (
        gallery._position(0.5, 0.5) == "in the middle"
        and gallery._position(0.99, 0.5) == "at the bottom"
    )


def test_a_large_picture_is_compressed_until_it_is_small_enough(tmp_path):
    noisy = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    figure = gallery.plots.image_grid([noisy] * 3)
    gallery._save(figure, tmp_path / "fine.jpg", 10**9)
    gallery._save(figure, tmp_path / "small.jpg", (tmp_path / "fine.jpg").stat().st_size // 2)
    assert (tmp_path / "small.jpg").stat().st_size <= (tmp_path / "fine.jpg").stat().st_size // 2


def test_the_puzzle_is_the_same_for_the_same_seed_and_tells_the_truth(tmp_path):
    run = finished_run(tmp_path, threshold=100.0)  # so that nothing is called anomalous
    first, again = (gallery.puzzle(run, tmp_path / name, 3) for name in ("first", "again"))
    assert [p.caption for p in first.values()] == [p.caption for p in again.values()]
    assert first["question"].file.read_bytes() == again["question"].file.read_bytes()
    assert first["question"].caption == "Four pieces of steel. One is damaged. Which?"
    assert first["answer"].caption.count("good") == 3 and first["answer"].caption.count("spot") == 1
    assert (
        "anomalous" not in first["detector"].caption
        and "right about 3 of 4" in first["detector"].caption
    )


def test_pictures_of_a_data_set_that_is_gone_are_refused(tmp_path):
    run = finished_run(tmp_path)
    shutil.rmtree(tmp_path / "surfaces")
    for draw in (
        lambda: gallery.data(run, tmp_path / "a.jpg"),
        lambda: gallery.hits_and_misses(run, tmp_path, "a", gallery.MOST_BYTES),
        lambda: gallery.puzzle(run, tmp_path, 0),
    ):
        with pytest.raises(ImageError):
            draw()
    assert not list(tmp_path.glob("*.jpg"))


# -- pages -----------------------------------------------------------------------------------------


def test_pages_show_every_picture_that_was_made(tmp_path):
    book = assembled(finished_run(tmp_path, HOSTILE), finished_run(tmp_path, "steel"))
    shown = {
        page: re.findall(r"```\{figure\} (\S+)", (book / page).read_text())
        for page in (
            "hits_and_misses.md",
            "data_gallery.md",
            "lead_good.md",
            "lead_question.md",
            "lead_answer.md",
            "lead_detector.md",
        )
    }
    from_book = [
        book.parent / name.replace("run/", "book/")
        for page, names in shown.items()
        if page != "hits_and_misses.md"
        for name in names
    ]
    files = from_book + [book / name for name in shown["hits_and_misses.md"]]
    assert sorted(files) == sorted(book.rglob("*.jpg")) and len(files) == 2 * 2 + 2 + 4
    assert r"## brushed \<b\>\& \{ü\}nusual" in (book / "hits_and_misses.md").read_text()


def test_a_name_cannot_leave_the_alternative_text(tmp_path):
    hostile = 'a" # b: `c` $d$\n:width: 1px'
    made = gallery.Picture(tmp_path / "x.jpg", hostile, hostile)
    Image.new("RGB", (10, 10)).save(made.file)
    picture = markdown.environment.get_template("macros.md.j2").module.picture
    figure = picture(made, "hits").strip()
    assert figure.splitlines()[1] == ":alt: " + json.dumps(hostile)
    assert len(figure.splitlines()) == 6 and markdown.text(hostile) in figure


def test_a_study_made_by_hand_is_no_chapter(tmp_path):
    """Chapter 6 run in JupyterLab leaves no executed notebook, chapter 7 run in a batch does."""
    run = finished_run(tmp_path)
    stages = run.read()["stages"]
    run.write(stages=stages | {study: {"parameters": {}, "seconds": 1.0} for study in STUDIES[:2]})
    nbformat.write(nbformat.v4.new_notebook(), run.folder / "notebooks" / f"{STUDIES[1]}.ipynb")
    book = assembled(run)
    assert sorted(file.stem for file in (book / "chapters").iterdir()) == [*STAGES, STUDIES[1]]


@pytest.mark.slow
def test_an_error_of_a_category_cannot_leave_its_fence(tmp_path):
    book = assembled(finished_run(tmp_path))
    summary = read_json(tmp_path / "runs" / "summary.json")
    summary["categories"].append({"category": "wool", "error": "no image called ```\n# Title"})
    write_json(tmp_path / "runs" / "summary.json", summary)
    pages.assemble(tmp_path / "runs", book)
    assert "````text\nno image called ```\\n# Title\n````" in (book / "comparison.md").read_text()


def test_a_data_set_that_is_gone_costs_the_pictures_and_nothing_else(tmp_path):
    run = finished_run(tmp_path)
    shutil.rmtree(tmp_path / "surfaces")
    book = assembled(run)
    gone = (
        "*The images of steel are no longer where the run read them, so they cannot be shown here.*"
    )
    for page in ("hits_and_misses.md", "data_gallery.md", "lead_good.md"):
        assert gone in (book / page).read_text() and str(tmp_path) not in (book / page).read_text()
    assert "Defective images found" in (book / "hits_and_misses.md").read_text()
    assert "image AUROC" in (book / "lead_result.md").read_text()


def test_a_chapter_holds_the_explorer_in_place_of_its_widget(tmp_path):
    run = finished_run(tmp_path)
    (run.folder / "pictures").mkdir()
    (run.folder / "pictures" / "0000.jpg").write_bytes(b"picture")
    widget = nbformat.v4.new_output(
        "display_data", {pages.WIDGET: {"model_id": "1"}, "text/plain": "explorer"}
    )
    printed = nbformat.v4.new_output("stream", text="printed")
    notebook = nbformat.v4.new_notebook(metadata={"widgets": {"state": {}}})
    notebook.cells = [
        nbformat.v4.new_markdown_cell(
            "# 5\n![two heaps](../book/images/05_evaluation.svg), [words](../book/glossary.md)"
        ),
        nbformat.v4.new_code_cell(
            "explorer.ThresholdExplorer()", outputs=[widget], metadata={"tags": ["explorer"]}
        ),
        nbformat.v4.new_code_cell("tqdm()", outputs=[widget, printed]),
    ]
    nbformat.write(notebook, run.folder / "notebooks" / f"{STAGES[4]}.ipynb")
    book = assembled(run)

    chapter = nbformat.read(book / "chapters" / f"{STAGES[4]}.ipynb", as_version=4)
    text, explorer, code = chapter.cells
    title, *line, rest = text.source.splitlines()
    assert title == "# 5" and "weights `random`" in "\n".join(line)
    assert rest == "![two heaps](../../images/05_evaluation.svg), [words](../../glossary.md)"
    (output,) = explorer.outputs
    assert "../results/01-steel/pictures/0000.jpg" in output["data"]["text/html"]
    assert [output["output_type"] for output in code.outputs] == ["stream"]
    assert "widgets" not in chapter.metadata and pages.WIDGET not in nbformat.writes(chapter)

    page = (book / "results" / "01-steel.md").read_text()
    assert "## Move the threshold" in page and "01-steel/pictures/0000.jpg" in page
    extra = book / "extra" / "runs" / "book" / "results"  # as html_extra_path puts into the site
    assert (extra / "01-steel" / "pictures" / "0000.jpg").read_bytes() == b"picture"


def test_without_pictures_there_is_no_explorer(tmp_path):
    book = assembled(finished_run(tmp_path))
    assert "Move the threshold" not in (book / "results" / "01-steel.md").read_text()


def test_raw_html_cannot_close_its_fence():
    lines = markdown.fenced("<pre>\n````\n</pre>", "{raw} html").splitlines()
    assert lines[0] == "`````{raw} html" and lines[-1] == "`````"


def test_whatever_a_template_prints_is_harmless():
    template = "{{ name }} {{ 1.5|number }} {{ name|code }} {{ 3 }}"
    made = markdown.environment.from_string(template).render(name="*b* <i>\n# x")
    assert made == r"\*b\* \<i\> \# x 1.500 `*b* <i>\n# x` 3"
