"""The pages of the book that come from the last batch run.

The prose of the book is fixed; its results are not. `assemble` takes the run that `runs/summary.json` describes and writes into
`book/run/`:

    chapters/NN_*.ipynb   the five notebooks as executed for the lead category (leather, else the first that succeeded)
    results/*.md          a page for each category, whatever its name, with the five figures
    comparison.md         all categories side by side
    lead.md               the few lines and the picture that the introduction includes
"""

import json
import re
import shutil
from pathlib import Path

import nbformat

from texad import __version__, plotting
from texad.artifacts import STAGES, RunError, read_json
from texad.files import replacing
from texad.weights import RANDOM_WARNING

LEAD = "leather"

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
        If there is no finished run.
    """
    try:
        summary = read_json(runs / "summary.json")
    except RunError as error:
        raise NoRunError(str(error)) from None
    done = [row for row in summary.get("categories", []) if not row["error"]]
    if not done:
        raise NoRunError(f"no results in {runs}: run `make book`, or `python -m texad run`, first")
    lead = next((row for row in done if row["category"] == LEAD), done[0])["category"]
    shutil.rmtree(folder, ignore_errors=True)
    for stage in STAGES:
        _write(folder / "chapters" / f"{stage}.ipynb", _chapter(runs / summary["dataset"] / lead / "notebooks" / f"{stage}.ipynb"))
    pages = {row["category"]: f"{i:02d}-{_slug(row['category'])}" for i, row in enumerate(done, start=1)}
    for row in done:
        source = runs / summary["dataset"] / row["category"]
        page = folder / "results" / f"{pages[row['category']]}.md"
        shutil.copytree(source / "figures", folder / "results" / page.stem, ignore=shutil.ignore_patterns(".*"))
        for name in ("scores.csv", "metrics.json"):
            shutil.copy(source / name, folder / "results" / page.stem / name)
        _write(page, _results_page(row["category"], page.stem, read_json(source / "metrics.json"), summary))
    _write(folder / "comparison.md", _comparison_page(summary, pages, folder))
    _write(folder / "lead.md", _lead(lead, pages[lead], read_json(runs / summary["dataset"] / lead / "metrics.json")))


# -- pages -----------------------------------------------------------------------------------------


def _chapter(executed: Path) -> str:
    """An executed notebook for the book: the cell with the run's own parameters is folded away."""
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]
    notebook.metadata.pop("papermill", None)
    return nbformat.writes(notebook)


def _results_page(category: str, stem: str, metrics: dict, summary: dict) -> str:
    confusion = metrics["confusion"]
    rows = [
        ("Image AUROC", _number(metrics["image_auroc"])),
        ("Pixel AUROC", _number(metrics["pixel_auroc"])),
        ("Accuracy", _number(metrics["accuracy"])),
        ("Precision", _number(metrics["precision"])),
        ("Recall", _number(metrics["recall"])),
        ("F1", _number(metrics["f1"])),
        ("Threshold", f"{metrics['threshold']:.4g}"),
        ("Images for training, for testing", f"{metrics['n_train']}, {metrics['n_test']}"),
        ("Good images rejected", f"{confusion['fp']} of {confusion['tn'] + confusion['fp']}"),
        ("Defective images missed", f"{confusion['fn']} of {confusion['tp'] + confusion['fn']}"),
    ]
    by_defect = [(_text(name), _number(value)) for name, value in metrics["auroc_by_defect"].items()]
    parts = [f"# {_text(category)}", _provenance(summary), _warning(metrics["weights"])]
    parts.append(_table(("Measure", "Value"), rows))
    for i, (name, width, caption, alt) in enumerate(FIGURES, start=1):
        parts.append(f"```{{figure}} {stem}/{name}\n:alt: {alt}\n:width: {width}\n\nFigure {i}. {caption}\n```")
    if by_defect:
        parts += ["## AUROC of each kind of defect", _table(("Kind of defect", "AUROC against the good images"), by_defect)]
    parts.append(f"Download: {{download}}`scores.csv <{stem}/scores.csv>`, {{download}}`metrics.json <{stem}/metrics.json>`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _comparison_page(summary: dict, pages: dict[str, str], folder: Path) -> str:
    import pandas as pd

    done = [row for row in summary["categories"] if not row["error"]]
    with replacing(folder / "comparison.svg") as temporary:
        plotting.category_comparison(pd.DataFrame(done)).savefig(temporary, bbox_inches="tight", metadata={"Date": None})
    header = ("Category", "Images", "AUROC", "Precision", "Recall", "F1", "Seconds")
    rows = [
        (
            f"[{_text(row['category'])}](results/{pages[row['category']]}.md)",
            str(row["images"]),
            *(_number(row[name]) for name in ("image_auroc", "precision", "recall", "f1")),
            f"{row['seconds']:.0f}",
        )
        for row in done
    ]
    known = [row["image_auroc"] for row in done if row["image_auroc"] is not None]
    parts = ["# All categories", _provenance(summary), _warning(summary["weights"])]
    parts.append(
        "```{figure} comparison.svg\n:alt: A horizontal bar for each category, as long as its image AUROC; a dotted line marks guessing.\n"
        ":width: 100%\n\nImage AUROC of each category.\n```"
    )
    parts.append(_table(header, rows))
    if known:
        parts.append(f"The mean image AUROC over the {len(known)} categories is **{sum(known) / len(known):.3f}**.")
    for row in summary["categories"]:
        if row["error"]:
            message = json.dumps(row["error"], ensure_ascii=False)
            parts.append(f":::{{admonition}} {_text(row['category'])} failed\n:class: error\n\n```\n{message}\n```\n:::")
    return "\n\n".join(part for part in parts if part) + "\n"


def _lead(category: str, stem: str, metrics: dict) -> str:
    _, width, caption, alt = FIGURES[1]
    return "\n\n".join(
        part
        for part in (
            f"```{{figure}} run/results/{stem}/2_heatmaps.png\n:alt: {alt}\n:width: {width}\n\n"
            f"What the method makes of **{_text(category)}**. {caption}\n```",
            f"In this run, the image AUROC of {_text(category)} is **{_number(metrics['image_auroc'])}** (1 is perfect, 0.5 is guessing).",
            _warning(metrics["weights"]),
        )
        if part
    ) + "\n"


# -- parts of pages --------------------------------------------------------------------------------


def _provenance(summary: dict) -> str:
    weights = summary["weights"]
    return (
        f"Data set `{summary['dataset']}`, weights `{weights['name']}` (sha256 `{weights['sha256'][:12]}…`), "
        f"seed {summary['seed']}, texad {__version__}."
    )


def _warning(weights: dict) -> str:
    if weights["name"] != "random":
        return ""
    return f":::{{admonition}} Random weights\n:class: danger texad-weights-warning\n\n{RANDOM_WARNING}\n:::"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _text(name: str) -> str:
    """A name from a folder, made harmless for Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>$~^@:-])", r"\\\1", name)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "category"


def _write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
