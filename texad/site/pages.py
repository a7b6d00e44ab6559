"""The pages of the book that come from the last batch run.

The prose of the book is fixed; its results are not. `assemble` takes the run that `runs/summary.json` describes and writes into
`book/run/`:

    chapters/NN_*.ipynb   the notebooks as executed for the lead category (leather, else the first that succeeded)
    results/*.md          a page for each category, whatever its name, with the five figures
    comparison.md         all categories side by side
    hits_and_misses.md    what was found, what was missed, what was nearly so
    real_surfaces.md      results on photographs, of this run or recorded earlier
    beyond_one_machine.md how to use a cluster, and what many categories would cost, worked out from this run
    data_gallery.md       the part of the page on data that shows them
    lead_*.md             the pictures and lines that the introduction includes
"""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd

from texad import __version__
from texad.errors import RunError
from texad.figures import plots
from texad.io.atomic import replacing
from texad.io.json_files import read_json
from texad.runs.run_folder import SPLITS, STAGES, STUDIES, FinishedRun
from texad.runs.run_folder import lead as lead_category
from texad.runs.schema import read_metrics
from texad.site import cluster_page as scale
from texad.site import gallery, markdown
from texad.site import real_surfaces as real
from texad.site.gallery import PicturesGoneError
from texad.teaching import explorer

WIDGET = "application/vnd.jupyter.widget-view+json"

HITS_INTRODUCTION = """\
Numbers say how often the detector is right. Pictures say *when*, and often *why*. For each category you see

- the **clearest hit**: the defective image with the highest score;
- a **typical hit**: the one in the middle of all that were found;
- the **narrowest hit**: the defective image that was found with the lowest score, so a right decision that was nearly wrong;
- the **worst miss**: the defective image with the lowest score of all;
- the **worst false alarm**: the good image with the highest score among those that were rejected;
- the **narrowest pass**: the good image with the highest score among those that were accepted.

What does not occur is left out. Below each image is its {term}`anomaly map`: bright where the autoencoder failed. The line is the border of the true
defect. All maps of a category have one scale, so you may compare them; what is brighter than its upper end is drawn like the end.

Ask of each: is it bright *where the defect is*? A hit with the bright spot elsewhere was luck. And of each miss: can *you* see the
defect in a square of this size?"""

# name of the file, width on the page, caption, alternative text
FIGURES = (
    (
        "1_score_distribution.svg",
        "100%",
        "Scores of normal and of anomalous test images, with the threshold.",
        "Two histograms over the anomaly score, normal in blue and anomalous in orange, with the threshold as a dashed line.",
    ),
    (
        "2_heatmaps.png",
        "100%",
        "One test image of each kind; below it the anomaly map. The line is the border of the true defect.",
        "A row of test images with outlined defects, and below each the same image covered by its anomaly map.",
    ),
    (
        "3_roc_curve.svg",
        "420px",
        "ROC curve with its area.",
        "The curve of true-positive against false-positive rate, above the diagonal of guessing.",
    ),
    (
        "4_confusion_matrix.svg",
        "380px",
        "Decisions against truth at the threshold.",
        "A table of two by two counts: true against predicted, normal and anomalous.",
    ),
    (
        "5_scores_by_defect.svg",
        "100%",
        "Scores of the good images and of each defect type.",
        "For the good images and for each defect type, a box with dots showing the scores, and the threshold as a dashed line.",
    ),
)


class NoRunError(Exception):
    """There is nothing to make the book of."""


def assemble(runs: Path, folder: Path) -> None:
    """Write the pages of a run.

    Parameters
    ----------
    runs : Path
        The folder that `texad run` wrote `summary.json` into.
    folder : Path
        Where the pages go. What was there is removed.

    Raises
    ------
    NoRunError
        If there is no finished run, or what is known of real surfaces is damaged.
    RunError
        If the run.json or metrics.json of a run is damaged.
    """
    try:
        summary = read_json(runs / "summary.json")
    except RunError as error:
        raise NoRunError(str(error)) from None
    done = [row for row in summary.get("categories", []) if not row["error"]]
    if not done:
        raise NoRunError(f"no results in {runs}: run `make book`, or `python -m texad run`, first")
    lead = lead_category(row["category"] for row in done)
    finished = {
        row["category"]: FinishedRun(runs / summary["dataset"] / row["category"]) for row in done
    }
    stems = {
        row["category"]: f"{i:02d}-{_slug(row['category'])}" for i, row in enumerate(done, start=1)
    }
    shutil.rmtree(folder, ignore_errors=True)
    for stage in _chapters(finished[lead]):
        notebook = finished[lead].folder / "notebooks" / f"{stage}.ipynb"
        fragment = _explorer(finished[lead], f"../results/{stems[lead]}/pictures", stage)
        markdown.write(folder / "chapters" / f"{stage}.ipynb", _chapter(notebook, fragment))
    for category, run in finished.items():
        own = folder / "results" / stems[category]
        shutil.copytree(run.folder / "figures", own, ignore=shutil.ignore_patterns(".*"))
        if (run.folder / "pictures").is_dir():
            shutil.copytree(
                run.folder / "pictures", own / "pictures", ignore=shutil.ignore_patterns(".*")
            )
            shutil.copy(
                run.folder / "figures" / FIGURES[0][0], own / "pictures"
            )  # to see without scripts
        for name in ("scores.csv", "metrics.json"):
            shutil.copy(run.folder / name, own / name)
        markdown.write(own.with_suffix(".md"), _results_page(run, own.name, summary))
    markdown.write(folder / "comparison.md", _comparison_page(summary, stems, folder))
    markdown.write(folder / "hits_and_misses.md", _hits_page(summary, finished, stems, folder))
    markdown.write(folder / "real_surfaces.md", _real_page(runs, folder))
    markdown.write(folder / "beyond_one_machine.md", scale.page(list(finished.values())))
    markdown.write(folder / "data_gallery.md", _data_gallery(finished, stems, folder))
    for name, text in _lead(finished[lead], summary, folder).items():
        markdown.write(folder / f"lead_{name}.md", text)


def copy_pictures(folder: Path, site: Path) -> None:
    """Bring the explorer's pictures into the built site, where its script fetches them; Sphinx brings only what a page's own images name.

    Parameters
    ----------
    folder : Path
        As for `assemble`.
    site : Path
        The same folder of the built site.
    """
    for pictures in (folder / "results").glob("*/pictures"):
        shutil.copytree(pictures, site / pictures.relative_to(folder), dirs_exist_ok=True)


# -- pages -----------------------------------------------------------------------------------------


def _chapters(run: FinishedRun) -> list[str]:
    """The stages, and the studies that the batch made of this run as it is now; those made by hand left no executed notebook."""
    made = run.read()["stages"]
    return [
        *STAGES,
        *(
            study
            for study in STUDIES
            if study in made and (run.folder / "notebooks" / f"{study}.ipynb").is_file()
        ),
    ]


def _chapter(executed: Path, fragment: str) -> str:
    """An executed notebook for the book.

    The cell with the run's own parameters is folded away. Widgets, which need a running kernel and a script from the network, are left
    out; the threshold explorer takes the place of its widget. Links lead from another folder than the notebook's own.
    """
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]
            cell.source = re.sub(
                r"^runs = .*\n?", "", cell.source, flags=re.MULTILINE
            )  # a folder of this machine
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("../book/", "../../")
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if WIDGET not in output.get("data", {})
            ]
            if "explorer" in tags and fragment:
                cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": fragment})]
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    return nbformat.writes(notebook)


def _explorer(run: FinishedRun, pictures: str, page: str) -> str:
    """The threshold explorer as HTML; empty for a run that has no pictures for it.

    Parameters
    ----------
    run : FinishedRun
    pictures : str
        The address of the folder of pictures, seen from the page. Sphinx does not know of it: see `copy_pictures`.
    page : str
        Makes the explorer's ids, since the pages may be printed as one.
    """
    if not (run.folder / "pictures").is_dir():
        return ""
    test = run.test()
    urls = [f"{pictures}/{i:04d}.jpg" for i in range(len(test))]
    static = f"{pictures}/{FIGURES[0][0]}"
    return explorer.html(test, run.read()["threshold"], urls, static, name=f"explorer-{page}")


def _results_page(run: FinishedRun, stem: str, summary: dict) -> str:
    category, metrics = run.category, read_metrics(run.folder / "metrics.json")
    confusion, left_out = metrics["confusion"], run.read()["data"].get("unreadable", [])
    rows = [
        ("Image AUROC", markdown.number(metrics["image_auroc"])),
        ("Pixel AUROC", markdown.number(metrics["pixel_auroc"])),
        ("Accuracy", markdown.number(metrics["accuracy"])),
        ("Precision", markdown.number(metrics["precision"])),
        ("Recall", markdown.number(metrics["recall"])),
        ("F1", markdown.number(metrics["f1"])),
        ("Threshold", f"{metrics['threshold']:.4g}"),
        (
            "Images for training, for calibration, for testing",
            ", ".join(str(len(run.images(split))) for split in SPLITS),
        ),
        ("Images left out, since they cannot be read", str(len(left_out))),
        ("Good images rejected", f"{confusion['fp']} of {confusion['tn'] + confusion['fp']}"),
        ("Defective images missed", f"{confusion['fn']} of {confusion['tp'] + confusion['fn']}"),
    ]
    by_defect = [
        (markdown.text(name), markdown.number(value))
        for name, value in metrics["auroc_by_defect"].items()
    ]
    parts = [
        f"# {markdown.text(category)}",
        _provenance(summary),
        markdown.warning(metrics["weights"]),
    ]
    parts.append(markdown.table(("Measure", "Value"), rows))
    for i, (name, width, caption, alt) in enumerate(FIGURES, start=1):
        parts.append(markdown.figure(f"{stem}/{name}", f"Figure {i}. {caption}", alt, width))
    if fragment := _explorer(run, f"{stem}/pictures", stem):
        parts += [
            "## Move the threshold",
            "What would another {term}`threshold` have done? Try it.",
            markdown.raw(fragment),
        ]
    if by_defect:
        parts += [
            "## AUROC of each kind of defect",
            markdown.table(("Kind of defect", "AUROC against the good images"), by_defect),
        ]
    if left_out:
        listed = [
            (markdown.code(image["path"]).replace("|", r"\|"), markdown.text(image["reason"]))
            for image in left_out
        ]
        parts += [
            "## Images that were left out",
            markdown.table(("File", "What is wrong with it"), listed),
        ]
    parts.append(
        f"Download: {{download}}`scores.csv <{stem}/scores.csv>`, {{download}}`metrics.json <{stem}/metrics.json>`."
    )
    return markdown.page(parts)


def _comparison_page(summary: dict, stems: dict[str, str], folder: Path) -> str:
    done = [row for row in summary["categories"] if not row["error"]]
    with replacing(folder / "comparison.svg") as temporary:
        plots.category_comparison(pd.DataFrame(done)).savefig(
            temporary, bbox_inches="tight", metadata={"Date": None}
        )
    header = ("Category", "Images", "AUROC", "Precision", "Recall", "F1", "Seconds")
    rows = [
        (
            f"[{markdown.text(row['category'])}](results/{stems[row['category']]}.md)",
            str(row["images"]),
            *(markdown.number(row[name]) for name in ("image_auroc", "precision", "recall", "f1")),
            f"{row['seconds']:.0f}",
        )
        for row in done
    ]
    known = [row["image_auroc"] for row in done if row["image_auroc"] is not None]
    parts = ["# All categories", _provenance(summary), markdown.warning(summary["weights"])]
    alt = "A horizontal bar for each category, as long as its image AUROC; a dotted line marks guessing."
    parts.append(markdown.figure("comparison.svg", "Image AUROC of each category.", alt))
    parts.append(markdown.table(header, rows))
    if known:
        parts.append(
            f"The mean image AUROC over the {len(known)} categories is **{sum(known) / len(known):.3f}**."
        )
    for row in summary["categories"]:
        if row["error"]:
            message = markdown.fenced(json.dumps(row["error"], ensure_ascii=False))
            parts.append(
                f":::{{admonition}} {markdown.text(row['category'])} failed\n:class: error\n\n{message}\n:::"
            )
    return markdown.page(parts)


def _hits_page(
    summary: dict, finished: dict[str, FinishedRun], stems: dict[str, str], folder: Path
) -> str:
    parts = [
        "# Hits and misses",
        _provenance(summary),
        markdown.warning(summary["weights"]),
        HITS_INTRODUCTION,
    ]
    most_bytes = min(gallery.MOST_BYTES, gallery.HITS_BYTES // (2 * len(finished)))
    for category, run in finished.items():
        parts += [
            f"## {markdown.text(category)}",
            _counts(read_metrics(run.folder / "metrics.json")["confusion"]),
        ]
        try:
            pictures = gallery.hits_and_misses(run, folder / "hits", stems[category], most_bytes)
            parts += [markdown.picture(picture, "hits") for picture in pictures]
        except PicturesGoneError:
            parts.append(markdown.gone(category))
    return markdown.page(parts)


def _real_page(runs: Path, folder: Path) -> str:
    try:
        return real.page(runs, folder)
    except RunError as error:
        raise NoRunError(str(error)) from None


def _counts(confusion: dict[str, int]) -> str:
    """The decisions of a run in words; what there is none of is said plainly."""
    tn, fp, fn, tp = (confusion[name] for name in ("tn", "fp", "fn", "tp"))
    lines = [
        f"Defective images found: **{tp}** of {tp + fn}."
        if tp + fn
        else "The test has no defective image.",
        "There is no hit to show." if fn and not tp else "",
        "There is no miss." if tp and not fn else "",
        f"Good images rejected by mistake: **{fp}** of {tn + fp}."
        if tn + fp
        else "The test has no good image.",
        "There is no false alarm." if tn and not fp else "",
    ]
    return " ".join(line for line in lines if line)


def _data_gallery(finished: dict[str, FinishedRun], stems: dict[str, str], folder: Path) -> str:
    parts = []
    for category, run in finished.items():
        test = run.images("test")
        kinds = test[test["label"] == 1].groupby("defect", sort=False).size()
        listed = ", ".join(f"{n} *{markdown.text(str(kind))}*" for kind, n in kinds.items())
        n_calibration = len(run.images("calibration"))
        kept_out = f", {n_calibration} for calibration" if n_calibration else ""
        parts += [
            f"### {markdown.text(category)}",
            f"{len(run.images('train'))} good images for training{kept_out}; for testing {int((test['label'] == 0).sum())} good"
            + (
                f" and {int(kinds.sum())} defective ones: {listed}."
                if len(kinds)
                else " ones, and no defective one."
            ),
        ]
        try:
            parts.append(
                markdown.picture(
                    gallery.data(run, folder / "gallery" / f"{stems[category]}.jpg"), "run/gallery"
                )
            )
        except PicturesGoneError:
            parts.append(markdown.gone(category))
    return markdown.page(parts)


def _lead(run: FinishedRun, summary: dict, folder: Path) -> dict[str, str]:
    """What the introduction includes: four pictures, and the result in one line."""
    auroc = read_metrics(run.folder / "metrics.json")["image_auroc"]
    result = f"Over all test images of {markdown.text(run.category)}, the image AUROC of this run is **{markdown.number(auroc)}** (1 is perfect, 0.5 is guessing)."
    parts = {
        "result": markdown.page(
            [result if auroc is not None else "", markdown.warning(summary["weights"])]
        ),
        "time": _time(run),
    }
    try:
        pictures = gallery.puzzle(run, folder / "lead", summary["seed"])
    except PicturesGoneError:
        return parts | dict.fromkeys(
            ("good", "question", "answer", "detector"), markdown.gone(run.category) + "\n"
        )
    return parts | {
        name: markdown.picture(picture, "run/lead") + "\n" for name, picture in pictures.items()
    }


def _time(run: FinishedRun) -> str:
    """How much there is to read and to run."""
    notebooks = [
        nbformat.read(run.folder / "notebooks" / f"{stage}.ipynb", as_version=4)
        for stage in _chapters(run)
    ]
    words = sum(
        len(cell.source.split())
        for notebook in notebooks
        for cell in notebook.cells
        if cell.cell_type == "markdown"
    )
    seconds = sum(stage["seconds"] for stage in run.read()["stages"].values())
    return (
        f"The chapters have about {round(words, -2)} words beside their code. Running all of them for {markdown.text(run.category)} took "
        f"{seconds:.0f} seconds when this copy of the book was made.\n"
    )


def _provenance(summary: dict) -> str:
    weights = summary["weights"]
    return (
        f"Data set {markdown.code(summary['dataset'])}, weights {markdown.code(weights['name'])} (sha256 `{weights['sha256'][:12]}…`), "
        f"seed {summary['seed']}, texad {__version__}."
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "category"
