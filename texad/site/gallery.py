"""Pictures of a run for the book: the data, what was found, and what was missed.

Each function saves picture files and returns what a page needs to show them. Texts are plain: the
page makes them harmless for its markup. The run folder is only read, so the data set may have moved
or gone since; then an ImageError says so.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from texad.evaluation.pixel_metrics import upsample
from texad.figures import plots, result_figures
from texad.io.atomic import replacing
from texad.io.images import read_image, read_mask
from texad.model import preprocessing
from texad.runs.run_folder import FinishedRun

THUMBNAIL = 320  # pixels of the longer side of a photograph in a gallery
DPI = 140  # of the files, finer than they are shown
CSS_DPI = 110  # as they are shown: their lettering is then about as large as the text beside
QUALITIES = (88, 75, 60, 45, 30)  # of JPEG, tried in this order until the file is small enough
MOST_BYTES = 190_000  # of one picture
HITS_BYTES = 2_800_000  # of all pictures of hits and misses together
PUZZLE = 4  # surfaces in the introduction's puzzle, half of them damaged where there are enough
NUMBERS = ("None", "One", "Two", "Three", "Four")
POSITIONS = (
    ("at the upper left", "at the top", "at the upper right"),
    ("at the left", "in the middle", "at the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)


@dataclass(frozen=True)
class Picture:
    """A picture file, and what to say about it."""

    file: Path
    caption: str
    alt: str

    @property
    def width(self) -> str:
        """How wide to show it."""
        with Image.open(self.file) as image:
            return f"{round(image.width * CSS_DPI / DPI)}px"


# -- what the data look like -----------------------------------------------------------------------


def data(run: FinishedRun, file: Path) -> Picture:
    """Draw one good image and the first test image of each kind of defect, outlined.

    Parameters
    ----------
    run : FinishedRun
    file : Path
        Where the picture goes, a JPEG.

    Raises
    ------
    ImageError
        If an image is not where the run read it.
    """
    train, test = run.images("train"), run.images("test")
    defective = test[test["label"] == 1].drop_duplicates("defect")
    rows = pd.concat([train.head(1), defective], ignore_index=True)
    images, masks = _thumbnails(run, rows)
    figure = plots.image_grid(images, list(rows["defect"]), masks, columns=3)
    kinds = [
        f"{name}, {_extent(mask)}" for name, mask in zip(rows["defect"][1:], masks[1:], strict=True)
    ]
    outlined = (
        "; the line is the border of the damage" if any(mask is not None for mask in masks) else ""
    )
    return Picture(
        _save(figure, file, MOST_BYTES),
        f"{run.category}: a good image and one of each kind of defect{outlined}."
        if kinds
        else f"{run.category}: a good image.",
        f"Photographs of {run.category}. The first has no defect. "
        + (f"Then one of each kind of defect: {'; '.join(kinds)}." if kinds else ""),
    )


# -- hits and misses -------------------------------------------------------------------------------


def right_and_wrong(test: pd.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Find the telling images of a test: those found, and those missed, rejected or nearly so.

    Parameters
    ----------
    test : DataFrame
        Columns `label`, `prediction`, `score`.

    Returns
    -------
    found, doubtful : dict of str to int
        What makes an image telling, and its row. What does not occur is left out.
    """
    from_highest = test.sort_values("score", ascending=False, kind="stable")

    def those(label: int, prediction: int) -> list[int]:
        return from_highest.query("label == @label and prediction == @prediction").index.tolist()

    caught, missed, alarms, passed = those(1, 1), those(1, 0), those(0, 1), those(0, 0)
    found = {
        "clearest hit": caught[:1],
        "typical hit": caught[len(caught) // 2 :] if len(caught) > 2 else [],
        "narrowest hit": caught[1:][-1:],
    }
    doubtful = {
        "worst miss": missed[-1:],
        "worst false alarm": alarms,
        "narrowest pass": passed,
    }
    return _first(found), _first(doubtful)


def _first(cases: dict[str, list[int]]) -> dict[str, int]:
    return {name: rows[0] for name, rows in cases.items() if rows}


def hits_and_misses(run: FinishedRun, folder: Path, stem: str, most_bytes: int) -> list[Picture]:
    """Draw the telling images of a run above their anomaly maps.

    The first picture shows what was found, the second what was missed or nearly so. All maps of the
    run are drawn on one scale, so that both pictures can be compared. It ends at the median of the
    maps' largest values: a glaring defect may be cut off, for else it would leave all others dark.

    Parameters
    ----------
    run : FinishedRun
    folder : Path
        Where the pictures go.
    stem : str
        How their names begin.
    most_bytes : int
        Size of one picture at most, if its quality allows.

    Raises
    ------
    ImageError
        If an image is not where the run read it.
    """
    test, threshold, size = run.test(), run.read()["threshold"], run.parameter("image_size")
    groups = [cases for cases in right_and_wrong(test) if cases]
    shown = [row for cases in groups for row in cases.values()]
    all_maps = np.array(run.read_array("maps/test.npy")[shown])  # (n, H, W)
    low, high = float(all_maps.min()), float(np.median(all_maps.max(axis=(1, 2))))
    pictures = []
    for number, cases in enumerate(groups, start=1):
        rows = test.loc[list(cases.values())]
        maps = all_maps[[shown.index(row) for row in rows.index]]
        photographs, masks = _squares(run, rows, size)
        scores = [f"score {score:.4g}" for score in rows["score"]]
        titles = ["\n".join(lines) for lines in zip(cases, rows["defect"], scores, strict=True)]
        figure = result_figures.heatmaps(photographs, upsample(maps, size), masks, titles)
        for image in figure.findobj(AxesImage):
            if np.asarray(image.get_array()).ndim == 2:  # an anomaly map; photographs have colours
                image.set_clim(low, high)
        said = [
            f"{case.capitalize()}: {path} ({defect}), {score}."
            for case, path, defect, score in zip(
                cases, rows["path"], rows["defect"], scores, strict=True
            )
        ]
        seen = [
            f"{case.capitalize()}: {defect}, its map is brightest {_brightest(values, mask)}."
            for case, defect, values, mask in zip(cases, rows["defect"], maps, masks, strict=True)
        ]
        pictures.append(
            Picture(
                _save(figure, folder / f"{stem}-{number}.jpg", most_bytes),
                f"{' '.join(said)} The threshold is {threshold:.4g}.",
                f"Test images of {run.category}, and below each the same image covered by its "
                f"anomaly map. {' '.join(seen)}",
            )
        )
    return pictures


# -- the introduction's puzzle ---------------------------------------------------------------------


def puzzle(run: FinishedRun, folder: Path, seed: int) -> dict[str, Picture]:
    """Draw good surfaces, a few of which some are damaged, the answer, and the detector's verdict.

    The images are chosen by chance, not for their effect.

    Parameters
    ----------
    run : FinishedRun
    folder : Path
        Where the pictures go.
    seed : int
        Seed of the choice.

    Returns
    -------
    dict of str to Picture
        Keys "good", "question", "answer", "detector".

    Raises
    ------
    ImageError
        If an image is not where the run read it.
    """
    rng = np.random.default_rng(seed)
    train, test, size = run.images("train"), run.test(), run.parameter("image_size")
    rows = test.loc[_mixed(test, rng)].reset_index()
    letters = [chr(ord("A") + i) for i in range(len(rows))]
    learnt = np.sort(rng.choice(len(train), min(PUZZLE, len(train)), replace=False))
    good, _ = _thumbnails(run, train.loc[learnt])
    images, outlines = _thumbnails(run, rows)
    photographs, masks = _squares(run, rows, size)
    maps = np.array(run.read_array("maps/test.npy")[rows["index"].to_numpy()])
    truth = [f"{letter}: {name}" for letter, name in zip(letters, rows["defect"], strict=True)]
    verdicts = [
        f"{letter}: score {score:.4g}, {'anomalous' if called else 'normal'}"
        for letter, score, called in zip(letters, rows["score"], rows["prediction"], strict=True)
    ]
    titles = [verdict.replace(", ", "\n") for verdict in verdicts]
    where = [
        f"{name}, {_extent(mask)}" if label else name
        for name, label, mask in zip(truth, rows["label"], outlines, strict=True)
    ]
    bright = [
        f"{letter} is brightest {_brightest(values, mask)}"
        for letter, values, mask in zip(letters, maps, masks, strict=True)
    ]
    n_right = int((rows["label"] == rows["prediction"]).sum())
    material, pieces = run.category, "piece" if len(rows) == 1 else "pieces"
    drawn = {
        "good": (
            plots.image_grid(good, columns=4),
            f"Good {material}.",
            f"Photographs of {material} without defect, each a little different in light and "
            "position.",
        ),
        "question": (
            plots.image_grid(images, letters, columns=2),
            f"{NUMBERS[len(rows)]} {pieces} of {material}. {_how_many(rows['label'])}",
            f"The pieces {', '.join(letters)} of {material}; nothing is marked.",
        ),
        "answer": (
            plots.image_grid(images, truth, outlines, columns=2),
            f"The answer: {'; '.join(truth)}.",
            f"The same pieces of {material}, the damage outlined. {'; '.join(where)}.",
        ),
        "detector": (
            result_figures.heatmaps(photographs, upsample(maps, size), masks, titles),
            f"What the detector says, with the threshold {run.read()['threshold']:.4g}: "
            f"{'; '.join(verdicts)}. It is right about {n_right} of {len(rows)}.",
            f"The same pieces of {material}, and below each its anomaly map. {'; '.join(bright)}.",
        ),
    }
    return {
        name: Picture(_save(figure, folder / f"{name}.jpg", MOST_BYTES), caption, alt)
        for name, (figure, caption, alt) in drawn.items()
    }


def _mixed(test: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Rows of the puzzle: damaged ones of different kinds, good ones, in random order."""
    shuffled = test.loc[rng.permutation(test.index)]
    damaged = shuffled[shuffled["label"] == 1].drop_duplicates("defect").head(PUZZLE // 2)
    good = shuffled[shuffled["label"] == 0].head(PUZZLE - len(damaged))
    return rng.permutation([*damaged.index, *good.index])


def _how_many(labels: pd.Series) -> str:
    damaged = int(labels.sum())
    if damaged == len(labels):
        return "Each is damaged. Where?"
    question = " Which?" if damaged else ""
    return f"{NUMBERS[damaged]} {'are' if damaged > 1 else 'is'} damaged.{question}"


# -- reading and saving ----------------------------------------------------------------------------


def _thumbnails(
    run: FinishedRun, rows: pd.DataFrame
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Photographs in their own proportions, small enough for a page, and masks as large.

    A pixel of a mask is defective if any part of it is.
    """
    images, masks = [], []
    for path, name in zip(run.data_paths(rows["path"]), rows["mask"], strict=True):
        image = read_image(path)
        scale = min(1.0, THUMBNAIL / max(image.size))
        shape = [max(1, round(side * scale)) for side in image.size]  # width, height
        images.append(np.asarray(image.resize(shape, Image.Resampling.BOX)))
        mask = None
        if file := run.data_path(name):
            pixels = Image.fromarray(read_mask(file).astype(np.float32))
            mask = np.asarray(pixels.resize(shape, Image.Resampling.BOX)) > 0
        masks.append(mask)
    return images, masks


def _squares(
    run: FinishedRun, rows: pd.DataFrame, size: int
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Images and masks as the backbone sees them."""
    photographs = preprocessing.load_pictures(run.data_paths(rows["path"]), size)
    masks = [
        preprocessing.load_mask(run.data_path(mask), size) if mask else None
        for mask in rows["mask"]
    ]
    return photographs, masks


def _save(figure: Figure, file: Path, most_bytes: int) -> Path:
    for quality in QUALITIES:
        with replacing(file) as temporary:
            figure.savefig(temporary, bbox_inches="tight", dpi=DPI, pil_kwargs={"quality": quality})
        if file.stat().st_size <= most_bytes:
            break
    return file


# -- words -----------------------------------------------------------------------------------------


def _extent(mask: np.ndarray | None) -> str:
    """How much of an image is damaged, and where."""
    if mask is None or not mask.any():
        return "not outlined"
    down, across = np.argwhere(mask).mean(axis=0) / mask.shape
    return f"{100 * mask.mean():.2g} % of the image, {_position(down, across)}"


def _brightest(values: np.ndarray, mask: np.ndarray | None) -> str:
    """Where an anomaly map has its largest value, and whether the defect is there."""
    height, width = values.shape
    row, column = np.unravel_index(values.argmax(), values.shape)
    position = _position((row + 0.5) / height, (column + 0.5) / width)
    if mask is None or not mask.any():
        return position
    step = len(mask) // height
    rows, columns = (slice(max(0, i - 1) * step, (i + 2) * step) for i in (row, column))
    around = mask[rows, columns]  # a place of the map and its neighbours
    return f"{position}, {'at' if around.any() else 'away from'} the outlined defect"


def _position(down: float, across: float) -> str:
    """A place in words, from its distance to the upper and to the left edge, both from 0 to 1."""
    return POSITIONS[min(int(3 * down), 2)][min(int(3 * across), 2)]
