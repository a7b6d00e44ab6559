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
from PIL import Image

from texad.evaluation.pixel_metrics import upsample
from texad.figures import plots, result_figures
from texad.io import images as reading
from texad.io.atomic import replacing
from texad.model import preprocessing
from texad.runs.run_folder import FinishedRun

THUMBNAIL = 320  # pixels of the longer side of a photograph in a gallery
DPI = 140  # of the files, finer than they are shown
CSS_DPI = 110  # as they are shown: their lettering is then about as large as the text beside
QUALITIES = (88, 75, 60, 45, 30)  # of JPEG, tried in this order until the file is small enough
MOST_BYTES = 190_000  # of one picture
HITS_BYTES = 2_800_000  # of all pictures of hits and misses together
PUZZLE = 4  # surfaces in the introduction's puzzle, half of them damaged where there are enough
NUMBERS = ("No", "One", "Two", "Three", "Four")


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
    """One good image and the first test image of each kind of defect, outlined.

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
    images = [_thumbnail(path) for path in run.data_paths(rows["path"])]
    masks = [
        _mask(run.data_path(mask), image.shape[:2])
        for mask, image in zip(rows["mask"], images, strict=True)
    ]
    figure = plots.image_grid(images, list(rows["defect"]), masks, columns=3)
    _save(figure, file, MOST_BYTES)
    kinds = [
        f"{name}, {_extent(mask)}" for name, mask in zip(rows["defect"][1:], masks[1:], strict=True)
    ]
    outlined = (
        "; the line is the border of the damage" if any(mask is not None for mask in masks) else ""
    )
    return Picture(
        file,
        f"{run.category}: a good image and one of each kind of defect{outlined}."
        if kinds
        else f"{run.category}: a good image.",
        f"Photographs of {run.category}. The first has no defect. "
        + (f"Then one of each kind of defect: {'; '.join(kinds)}." if kinds else ""),
    )


# -- hits and misses -------------------------------------------------------------------------------


def right_and_wrong(test: pd.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """The telling images of a test: those that were found, and those that were missed, rejected, or nearly so.

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
    """The telling images of a run above their anomaly maps: first what was found, then what was missed or nearly so.

    All maps of the run are drawn on one scale, so that both pictures can be compared. It ends at the median of the maps' largest
    values: a glaring defect may be cut off, for else it would leave all others dark.

    Parameters
    ----------
    run : FinishedRun
    folder : Path
        Where the pictures go.
    stem : str
        How their names begin.
    most_bytes : int
        Of one picture.

    Raises
    ------
    ImageError
        If an image is not where the run read it.
    """
    test, threshold = run.test(), run.read()["threshold"]
    groups = [cases for cases in right_and_wrong(test) if cases]
    shown = [row for cases in groups for row in cases.values()]
    places = np.array(run.read_array("maps/test.npy")[shown])  # (n, H, W)
    size = run.parameter("image_size")
    low, high = float(places.min()), float(np.median(places.max(axis=(1, 2))))
    pictures = []
    for number, cases in enumerate(groups, start=1):
        rows = list(cases.values())
        own_places = places[[shown.index(row) for row in rows]]
        photographs, masks = _squares(run, test.loc[rows], size)
        titles = [
            f"{case}\n{test['defect'][row]}\nscore {test['score'][row]:.4g}"
            for case, row in cases.items()
        ]
        figure = result_figures.heatmaps(photographs, upsample(own_places, size), masks, titles)
        _share_scale(figure, low, high)
        file = folder / f"{stem}-{number}.jpg"
        _save(figure, file, most_bytes)
        said = [
            f"{case.capitalize()}: {test['path'][row]} ({test['defect'][row]}), score {test['score'][row]:.4g}."
            for case, row in cases.items()
        ]
        seen = [
            f"{case.capitalize()}: {test['defect'][row]}, its map is brightest {_brightest(places_of, mask)}."
            for (case, row), places_of, mask in zip(cases.items(), own_places, masks, strict=True)
        ]
        pictures.append(
            Picture(
                file,
                f"{' '.join(said)} The threshold is {threshold:.4g}.",
                f"Test images of {run.category}, and below each the same image covered by its anomaly map. {' '.join(seen)}",
            )
        )
    return pictures


# -- the introduction's puzzle ---------------------------------------------------------------------


def puzzle(run: FinishedRun, folder: Path, seed: int) -> dict[str, Picture]:
    """Good surfaces, then a few of which some are damaged, then the answer, then what the detector says.

    The images are chosen by chance, not for their effect.

    Parameters
    ----------
    run : FinishedRun
    folder : Path
        Where the pictures go.
    seed : int
        Of the choice.

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
    train, test, threshold, size = (
        run.images("train"),
        run.test(),
        run.read()["threshold"],
        run.parameter("image_size"),
    )
    rows = test.loc[_mixed(test, rng)].reset_index()
    letters = [chr(ord("A") + i) for i in range(len(rows))]
    learnt = np.sort(rng.choice(len(train), min(PUZZLE, len(train)), replace=False))
    good = [_thumbnail(path) for path in run.data_paths(train["path"][learnt])]
    images = [_thumbnail(path) for path in run.data_paths(rows["path"])]
    outlines = [
        _mask(run.data_path(mask), image.shape[:2])
        for mask, image in zip(rows["mask"], images, strict=True)
    ]
    photographs, masks = _squares(run, rows, size)
    places = np.array(run.read_array("maps/test.npy")[rows["index"].to_numpy()])
    truth = [f"{letter}: {name}" for letter, name in zip(letters, rows["defect"], strict=True)]
    decided = [
        f"score {score:.4g}, {'anomalous' if called else 'normal'}"
        for score, called in zip(rows["score"], rows["prediction"], strict=True)
    ]
    verdicts = [f"{letter}: {text}" for letter, text in zip(letters, decided, strict=True)]
    n_right, n_damaged = int((rows["label"] == rows["prediction"]).sum()), int(rows["label"].sum())

    detector = result_figures.heatmaps(
        photographs,
        upsample(places, size),
        masks,
        [verdict.replace(", ", "\n") for verdict in verdicts],
    )
    figures = {
        "good": plots.image_grid(good, columns=4),
        "question": plots.image_grid(images, letters, columns=2),
        "answer": plots.image_grid(images, truth, outlines, columns=2),
        "detector": detector,
    }
    for name, figure in figures.items():
        _save(figure, folder / f"{name}.jpg", MOST_BYTES)
    material = run.category
    where = [
        f"{t}, {_extent(mask)}" if label else t
        for t, label, mask in zip(truth, rows["label"], outlines, strict=True)
    ]
    bright = [
        f"{letter} is brightest {_brightest(*pair)}"
        for letter, *pair in zip(letters, places, masks, strict=True)
    ]
    texts = {
        "good": (
            f"Good {material}.",
            f"Photographs of {material} without defect, each a little different in light and position.",
        ),
        "question": (
            f"{NUMBERS[len(rows)]} {'piece' if len(rows) == 1 else 'pieces'} of {material}. {_how_many(n_damaged, len(rows))}",
            f"The pieces {', '.join(letters)} of {material}; nothing is marked.",
        ),
        "answer": (
            "The answer: " + "; ".join(truth) + ".",
            f"The same pieces of {material}, the damage outlined. {'; '.join(where)}.",
        ),
        "detector": (
            f"What the detector says, with the threshold {threshold:.4g}: {'; '.join(verdicts)}. It is right about {n_right} of {len(rows)}.",
            f"The same pieces of {material}, and below each its anomaly map. {'; '.join(bright)}.",
        ),
    }
    return {name: Picture(folder / f"{name}.jpg", *texts[name]) for name in figures}


def _mixed(test: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Rows of the puzzle: damaged ones of different kinds, good ones, in random order."""
    shuffled = test.loc[rng.permutation(test.index)]
    damaged = shuffled[shuffled["label"] == 1].drop_duplicates("defect").head(PUZZLE // 2)
    good = shuffled[shuffled["label"] == 0].head(PUZZLE - len(damaged))
    return rng.permutation([*damaged.index, *good.index])


def _how_many(damaged: int, of: int) -> str:
    if damaged == 0:
        return "None is damaged."
    if damaged == of:
        return "Each is damaged. Where?"
    return f"{NUMBERS[damaged]} {'is' if damaged == 1 else 'are'} damaged. Which?"


# -- reading and saving ----------------------------------------------------------------------------


def _thumbnail(path: Path) -> np.ndarray:
    """A photograph in its own proportions, small enough for a page."""
    image = reading.read_image(path)
    scale = min(1.0, THUMBNAIL / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _mask(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    """A mask as large as its thumbnail; a pixel is defective if any part of it is."""
    if path is None:
        return None
    mask = Image.fromarray(reading.read_mask(path).astype(np.float32))
    return np.asarray(mask.resize(shape[::-1], Image.Resampling.BOX)) > 0


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


def _share_scale(figure: Figure, low: float, high: float) -> None:
    for axis in figure.axes:
        for image in axis.get_images():
            values = image.get_array()
            if values is not None and values.ndim == 2:  # an anomaly map; photographs have colours
                image.set_clim(low, high)


def _save(figure: Figure, file: Path, most_bytes: int) -> None:
    for quality in QUALITIES:
        with replacing(file) as temporary:
            figure.savefig(temporary, bbox_inches="tight", dpi=DPI, pil_kwargs={"quality": quality})
        if file.stat().st_size <= most_bytes:
            break


# -- words -----------------------------------------------------------------------------------------


def _extent(mask: np.ndarray | None) -> str:
    """How much of an image is damaged, and where."""
    if mask is None or not mask.any():
        return "not outlined"
    share = 100 * mask.mean()
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    return f"{share:.2g} % of the image, {_position(rows.mean() / height, columns.mean() / width)}"


def _brightest(places: np.ndarray, mask: np.ndarray | None) -> str:
    """Where an anomaly map has its largest value, and whether the defect is there."""
    height, width = places.shape
    row, column = np.unravel_index(places.argmax(), places.shape)
    position = _position((row + 0.5) / height, (column + 0.5) / width)
    if mask is None or not mask.any():
        return position
    step = len(mask) // height
    around = mask[
        max(0, row - 1) * step : (row + 2) * step, max(0, column - 1) * step : (column + 2) * step
    ]  # a place and its neighbours
    return f"{position}, {'at' if around.any() else 'away from'} the outlined defect"


def _position(down: float, across: float) -> str:
    """A place in words, from its distance to the upper and to the left edge, both from 0 to 1."""
    row = ("upper", "", "lower")[min(int(3 * down), 2)]
    column = ("left", "", "right")[min(int(3 * across), 2)]
    if row and column:
        return f"at the {row} {column}"
    edges = {"upper": "at the top", "lower": "at the bottom", "": "in the middle"}
    return f"at the {column}" if column else edges[row]
