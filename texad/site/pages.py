"""The pages of the book that are made of the last batch run.

The prose of the book is fixed; its results are not. `assemble` takes the run that
`runs/summary.json` describes and writes into `book/run/`:

    chapters/NN_*.ipynb   the notebooks as executed for the lead category (leather, else the first)
    results/*.md          a page for each category, whatever its name, with the five figures
    comparison.md         all categories side by side
    hits_and_misses.md    what was found, what was missed, what was nearly so
    real_surfaces.md      results on photographs, of this run or recorded earlier
    weights.md            how the weights of the package were made, and what they are worth
    beyond_one_machine.md how to use a cluster, and what many categories would cost, by this run
    data_gallery.md       the part of the page on data that shows them
    lead_*.md             the pictures and lines that the introduction includes
    extra/                files that go to the built site as they are (html_extra_path)

The words of these pages are in `templates/`.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from texad.errors import DataError, RunError
from texad.figures import plots
from texad.io.atomic import write_text
from texad.io.json_files import read_json
from texad.runs import run_folder, schema
from texad.runs.run_folder import SPLITS, STAGES, STUDIES, FinishedRun
from texad.site import cluster_page, gallery, markdown, real_surfaces, weights_page
from texad.teaching import explorer

WIDGET = "application/vnd.jupyter.widget-view+json"
STATIC_FIGURE = "1_score_distribution.svg"  # the explorer's, for readers without scripts


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
    RunError
        If there is no finished run, or the summary, the run.json or metrics.json of a run, or the
        record of real surfaces is damaged.
    """
    summary = read_json(runs / "summary.json")
    done = [row for row in summary.get("categories", []) if not row["error"]]
    if not done:
        raise RunError(f"no results in {runs}: run `make book`, or `python -m texad run`, first")
    finished = {
        f"{i:02d}-{_slug(row['category'])}": FinishedRun(
            runs / summary["dataset"] / row["category"]
        )
        for i, row in enumerate(done, start=1)
    }
    lead = run_folder.lead(row["category"] for row in done)
    lead_stem, lead_run = next(item for item in finished.items() if item[1].category == lead)
    shutil.rmtree(folder, ignore_errors=True)
    for stage in _chapters(lead_run):
        fragment = _explorer(lead_run, f"../results/{lead_stem}/pictures", stage)
        notebook = _chapter(lead_run, stage, fragment)
        write_text(folder / "chapters" / f"{stage}.ipynb", notebook)
    extra = folder / "extra" / folder.parent.name / folder.name / "results"
    extra.mkdir(parents=True)
    for stem, run in finished.items():
        _copy_results(run, folder / "results", stem, extra)
        page = markdown.render(
            "category",
            run=run,
            stem=stem,
            summary=summary,
            metrics=schema.read(run.folder / "metrics.json", schema.METRICS),
            n_images=[str(len(run.images(split))) for split in SPLITS],
            left_out=run.read()["data"].get("unreadable", []),
            explorer=_explorer(run, f"{stem}/pictures", stem),
        )
        write_text(folder / "results" / f"{stem}.md", page)
    pages = {
        "comparison": _comparison_page(summary, list(zip(finished, done, strict=True)), folder),
        "hits_and_misses": _hits_page(summary, finished, folder),
        "real_surfaces": real_surfaces.page(runs, folder),
        "weights": weights_page.page(runs, folder),
        "beyond_one_machine": cluster_page.page(list(finished.values())),
        "data_gallery": _data_gallery(finished, folder),
        **_lead_pages(lead_run, summary, folder),
    }
    for name, text in pages.items():
        write_text(folder / f"{name}.md", text)


# -- chapters --------------------------------------------------------------------------------------


def _chapters(run: FinishedRun) -> list[str]:
    """The stages, and the studies that the batch made of this run as it is now.

    Studies made by hand left no executed notebook.
    """
    made, notebooks = run.read()["stages"], run.folder / "notebooks"
    studies = [name for name in STUDIES if name in made and (notebooks / f"{name}.ipynb").is_file()]
    return [*STAGES, *studies]


def _chapter(run: FinishedRun, stage: str, fragment: str) -> str:
    """An executed notebook for the book, with a line below its title that names the weights.

    The cell with the run's own parameters is folded away. Widgets, which need a running kernel and
    a script from the network, are left out; the threshold explorer takes the place of its widget.
    Links lead from another folder than the notebook's own.
    """
    notebook = nbformat.read(run.folder / "notebooks" / f"{stage}.ipynb", as_version=4)
    line = markdown.render("chapter_weights", weights=run.read()["weights"])
    for cell in notebook.cells[:1]:
        title, _, rest = cell.source.partition("\n")
        cell.source = f"{title}\n\n{line}\n{rest}"
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]
            # without the folder of this machine
            cell.source = re.sub(r"^runs = .*\n?", "", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("../book/", "../../")
        elif cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
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
        The address of the folder of pictures, seen from the page.
    page : str
        The page's name, a part of the explorer's ids, since pages may be printed as one.
    """
    if not (run.folder / "pictures").is_dir():
        return ""
    test = run.test()
    return explorer.html(
        test,
        run.read()["threshold"],
        [f"{pictures}/{i:04d}.jpg" for i in range(len(test))],
        static=f"{pictures}/{STATIC_FIGURE}",
        name=f"explorer-{page}",
    )


# -- results ---------------------------------------------------------------------------------------


def _copy_results(run: FinishedRun, results: Path, stem: str, extra: Path) -> None:
    """Copy the files that the page of a category shows or offers.

    The explorer's script fetches its pictures, of which Sphinx does not know; they go to `extra`.
    """
    visible = shutil.ignore_patterns(".*")
    shutil.copytree(run.folder / "figures", results / stem, ignore=visible)
    for name in ("scores.csv", "metrics.json"):
        shutil.copy(run.folder / name, results / stem)
    if (run.folder / "pictures").is_dir():
        pictures = extra / stem / "pictures"
        shutil.copytree(run.folder / "pictures", pictures, ignore=visible)
        shutil.copy(run.folder / "figures" / STATIC_FIGURE, pictures)


def _comparison_page(summary: dict, rows: list[tuple[str, dict]], folder: Path) -> str:
    run_folder.save_figure(
        folder / "comparison.svg",
        plots.category_comparison(pd.DataFrame([row for _, row in rows])),
    )
    return markdown.render("comparison", summary=summary, rows=rows)


def _hits_page(summary: dict, finished: dict[str, FinishedRun], folder: Path) -> str:
    most_bytes = min(gallery.MOST_BYTES, gallery.HITS_BYTES // (2 * len(finished)))
    shown = [
        (
            run,
            schema.read(run.folder / "metrics.json", schema.METRICS)["confusion"],
            _if_there(gallery.hits_and_misses, run, folder / "hits", stem, most_bytes),
        )
        for stem, run in finished.items()
    ]
    return markdown.render("hits_and_misses", summary=summary, shown=shown)


def _data_gallery(finished: dict[str, FinishedRun], folder: Path) -> str:
    return markdown.render(
        "data_gallery",
        shown=[
            (
                run,
                {split: len(run.images(split)) for split in SPLITS},
                run.images("test").groupby("defect", sort=False).size().to_dict(),
                _if_there(gallery.data, run, folder / "gallery" / f"{stem}.jpg"),
            )
            for stem, run in finished.items()
        ],
    )


def _lead_pages(run: FinishedRun, summary: dict, folder: Path) -> dict[str, str]:
    """What the introduction includes: four pictures, the result, and how much there is to read."""
    auroc = schema.read(run.folder / "metrics.json", schema.METRICS)["image_auroc"]
    cells = [
        cell
        for chapter in _chapters(run)
        for cell in nbformat.read(run.folder / "notebooks" / f"{chapter}.ipynb", 4).cells
    ]
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    seconds = sum(stage["seconds"] for stage in run.read()["stages"].values())
    pictures = _if_there(gallery.puzzle, run, folder / "lead", summary["seed"]) or {}
    return {
        "lead_result": markdown.render("lead_result", run=run, summary=summary, auroc=auroc),
        "lead_time": markdown.render("lead_time", run=run, words=round(words, -2), seconds=seconds),
    } | {
        f"lead_{name}": markdown.render("lead_picture", run=run, made=pictures.get(name))
        for name in ("good", "question", "answer", "detector")
    }


def _if_there(draw: Callable[..., Any], *given: object) -> Any:
    """What a function of `gallery` draws; None if the images are not where the run read them."""
    try:
        return draw(*given)
    except DataError:
        return None


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "category"
