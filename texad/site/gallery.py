"""Pictures of a run for the book: the data, what was found, and what was missed.

Each function saves picture files and returns what a page needs to show them. The words are in
templates/gallery.txt.j2; they are plain text, which the page makes harmless for its markup. The run
folder is only read, so the data set may have moved or gone since; then an ImageError says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from texad.figures import plots, result_figures
from texad.figures.overlay import thumbnail
from texad.io.atomic import replacing
from texad.io.images import read_mask
from texad.model.places import enlarge
from texad.model.preprocessing import STRIDE
from texad.runs.run_folder import FinishedRun

THUMBNAIL = 320  # pixels of the longer side of a photograph in a gallery
DPI = 140  # of the files, finer than they are shown
CSS_DPI = 110  # as they are shown: their lettering is then about as large as the text beside
QUALITIES = (88, 75, 60, 45, 30)  # of JPEG, tried in this order until the file is small enough
MOST_BYTES = 190_000  # of one picture
HITS_BYTES = 2_800_000  # of all pictures of hits and misses together
PUZZLE = 4  # surfaces in the introduction's puzzle, half of them damaged where there are enough
POSITIONS = (
    ("at the upper left", "at the top", "at the upper right"),
    ("at the left", "in the middle", "at the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)
WORDS = (
    Environment(
        loader=PackageLoader("texad.site"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    .get_template("gallery.txt.j2")
    .module
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
    defective = run.images("test").query("label == 1").drop_duplicates("defect")
    rows = pd.concat([run.images("train").head(1), defective], ignore_index=True)
    images, masks = _thumbnails(run, rows)
    rows["extent"] = list(map(_extent, masks))
    figure = plots.image_grid(images, list(rows["defect"]), masks, columns=3)
    return _picture("data", figure, file, MOST_BYTES, run, rows)


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
    test = run.test()
    groups = [cases for cases in right_and_wrong(test) if cases]
    all_maps = run.read_array("maps/test.npy")  # (N, H, W)
    shown = all_maps[[row for cases in groups for row in cases.values()]]
    limits = float(np.nanmin(shown)), float(np.median(np.nanmax(shown, axis=(1, 2))))
    pictures = []
    for number, cases in enumerate(groups, start=1):
        rows = test.loc[list(cases.values())].assign(case=list(cases))
        photographs, masks = _thumbnails(run, rows)
        maps, rows["brightest"] = _maps(run, rows, all_maps, photographs, masks)
        scores = rows["score"].map("score {:.4g}".format)
        titles = rows["case"] + "\n" + rows["defect"] + "\n" + scores
        figure = result_figures.heatmaps(photographs, maps, masks, list(titles), limits)
        file = folder / f"{stem}-{number}.jpg"
        pictures.append(_picture("hits", figure, file, most_bytes, run, rows))
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
    train, test = run.images("train"), run.test()
    rows = test.loc[_mixed(test, rng)]
    learnt = np.sort(rng.choice(len(train), min(PUZZLE, len(train)), replace=False))
    good, _ = _thumbnails(run, train.loc[learnt])
    images, masks = _thumbnails(run, rows)
    maps, brightest = _maps(run, rows, run.read_array("maps/test.npy"), images, masks)
    letters = pd.Series(list("ABCD"[: len(rows)]), rows.index)
    decisions = rows["prediction"].map({0: "normal", 1: "anomalous"})
    rows = rows.assign(
        letter=letters,
        truth=letters + ": " + rows["defect"],
        verdict=letters + rows["score"].map(": score {:.4g}\n".format) + decisions,
        right=rows["label"] == rows["prediction"],
        extent=list(map(_extent, masks)),
        brightest=brightest,
    )
    drawn = {
        "good": plots.image_grid(good, columns=4),
        "question": plots.image_grid(images, list(letters), columns=2),
        "answer": plots.image_grid(images, list(rows["truth"]), masks, columns=2),
        "detector": result_figures.heatmaps(images, maps, masks, list(rows["verdict"])),
    }
    return {
        name: _picture(name, figure, folder / f"{name}.jpg", MOST_BYTES, run, rows)
        for name, figure in drawn.items()
    }


def _mixed(test: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Rows of the puzzle: damaged ones of different kinds, good ones, in random order."""
    shuffled = test.loc[rng.permutation(test.index)]
    damaged = shuffled[shuffled["label"] == 1].drop_duplicates("defect").head(PUZZLE // 2)
    good = shuffled[shuffled["label"] == 0].head(PUZZLE - len(damaged))
    return rng.permutation([*damaged.index, *good.index])


# -- reading and saving ----------------------------------------------------------------------------


def _thumbnails(
    run: FinishedRun, rows: pd.DataFrame
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Photographs in their own proportions, small enough for a page, and masks as large.

    A pixel of a mask is defective if any part of it is.
    """
    white, paths = run.sight().white, run.data_paths(rows["path"])
    images = [thumbnail(path, THUMBNAIL, white) for path in paths]
    masks = [
        _shrunk(read_mask(file), image.size) if (file := run.data_path(name)) else None
        for name, image in zip(rows["mask"], images, strict=True)
    ]
    return [np.asarray(image) for image in images], masks


def _shrunk(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixels = Image.fromarray(mask.astype(np.float32))
    return np.asarray(pixels.resize(size, Image.Resampling.BOX)) > 0


def _maps(
    run: FinishedRun,
    rows: pd.DataFrame,
    all_maps: np.ndarray,
    photographs: list[np.ndarray],
    masks: list[np.ndarray | None],
) -> tuple[list[np.ndarray], list[str]]:
    """Anomaly maps as large as the photographs of these rows, and where they are brightest."""
    maps, brightest, sight, grid = [], [], run.sight(), run.grid()
    paths = run.data_paths(rows["path"])
    for i, path, photograph, mask in zip(rows.index, paths, photographs, masks, strict=True):
        looked_at, size = sight.shape_of(path), photograph.shape[:2]
        maps.append(enlarge(all_maps[i : i + 1], grid, looked_at, size)[0])
        place = [round(STRIDE * side / of) for side, of in zip(size, looked_at, strict=True)]
        brightest.append(_brightest(maps[-1], mask, place))
    return maps, brightest


def _picture(
    name: str, figure: Figure, file: Path, most_bytes: int, run: FinishedRun, rows: pd.DataFrame
) -> Picture:
    """Save a figure, and describe it by the two macros of the template that have its name."""
    _save(figure, file, most_bytes)
    caption, alt = (
        " ".join(getattr(WORDS, f"{name}_{part}")(run, rows.to_dict("records")).split())
        for part in ("caption", "alt")
    )
    return Picture(file, caption, alt)


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
    down, across = np.argwhere(mask).mean(axis=0) / mask.shape
    return f"{100 * mask.mean():.2g} % of the image, {_position(down, across)}"


def _brightest(values: np.ndarray, mask: np.ndarray | None, place: Sequence[int]) -> str:
    """Where a map in pixels has its largest value, and whether a defect is within a place of it.

    `place` is the height and width of a place, in these pixels.
    """
    height, width = values.shape
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    position = _position((row + 0.5) / height, (column + 0.5) / width)
    if mask is None or not mask.any():
        return position
    rows, columns = (slice(max(0, i - n), i + n) for i, n in zip((row, column), place, strict=True))
    around = mask[rows, columns]
    return f"{position}, {'at' if around.any() else 'away from'} the outlined defect"


def _position(down: float, across: float) -> str:
    """A place in words, from its distance to the upper and to the left edge, both from 0 to 1."""
    return POSITIONS[min(int(3 * down), 2)][min(int(3 * across), 2)]
