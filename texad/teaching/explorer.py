"""The threshold explorer: drag the threshold over the scores, and see what each decision does.

It is one piece of JavaScript, `explorer.js`, in two places. In a notebook it is a widget,
`ThresholdExplorer`, whose threshold the next cell can read and set; a page of the book, which has
no kernel, holds it as plain HTML, made by `html`. Both show the scores of a run, and the pictures
that `write_pictures` left.
"""

import base64
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import anywidget
import numpy as np
import pandas as pd
import traitlets
from PIL import Image
from scipy import ndimage

from texad.errors import printable
from texad.evaluation.metrics import image_auroc
from texad.figures.overlay import overlay
from texad.io.atomic import replacing
from texad.io.images import read_image
from texad.io.templates import templates
from texad.model import places
from texad.model.preprocessing import Sight

PICTURE_SIZE = 160  # root of the area of an image in a picture, in pixels
HERE = Path(__file__).parent
PAGE = templates(HERE).get_template("explorer.html.j2")


# -- pictures of the test images -------------------------------------------------------------------


def write_pictures(
    folder: Path,
    paths: Sequence[Path],
    maps: np.ndarray,
    masks: Iterable[np.ndarray | None],
    sight: Sight,
    grid: places.Grid,
) -> list[str]:
    """Write a small JPEG for each test image: first the image, then its heatmap.

    They are side by side; of a wide image, one below the other. Both show the border of the true
    defect. All heatmaps share one scale, from the median of all maps to their largest value; see
    `texad.figures.overlay.overlay`.

    Parameters
    ----------
    folder : Path
    paths : sequence of Path, length N
        The test images.
    maps : ndarray, float32, shape (N, H, W)
        Their anomaly maps.
    masks : iterable of (ndarray of bool, shape (height, width)) or None, length N
        Where the defects are, in any resolution.
    sight : Sight
        How the images were brought to the backbone.
    grid : Grid
        Where the places of the maps lie.

    Returns
    -------
    list of str
        The files' names, `0000.jpg` and so on, in the order of `paths`.
    """
    heat = float(np.nanmedian(maps)), float(np.nanmax(maps))
    names = []
    for i, (path, mask) in enumerate(zip(paths, masks, strict=True)):
        whole = read_image(path, sight.white)
        ratio = math.sqrt(whole.width / whole.height)
        width, height = (max(1, round(PICTURE_SIZE * side)) for side in (ratio, 1 / ratio))
        image = whole.resize((width, height), Image.Resampling.BICUBIC)
        looked_at = sight.shape(whole.height, whole.width)
        (large,) = places.enlarge(maps[i : i + 1], grid, looked_at, (height, width))
        join = np.vstack if width > 2 * height else np.hstack
        pixels = join([_outlined(image, mask), _outlined(overlay(image, large, heat), mask)])
        names.append(f"{i:04d}.jpg")
        with replacing(folder / names[-1]) as temporary:
            Image.fromarray(pixels).save(temporary, quality=70, optimize=True)
    return names


def _outlined(picture: Image.Image, mask: np.ndarray | None) -> np.ndarray:
    """Draw the border of the defect, dark around light, as the figures do.

    Returns uint8, (height, width, 3).
    """
    image = np.asarray(picture)
    if mask is None:
        return image
    small = np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))
    light = ndimage.binary_dilation(small) & ~small
    dark = ndimage.binary_dilation(small, iterations=2) & ~small & ~light
    image = np.where(dark[..., None], np.uint8(0), image)
    return np.where(light[..., None], np.array((87, 227, 255), dtype=np.uint8), image)


# -- data ------------------------------------------------------------------------------------------


def records(scores: pd.DataFrame) -> list[dict]:
    """The test images of a run, as the explorer's JavaScript reads them.

    Parameters
    ----------
    scores : DataFrame
        As in scores.csv, columns `path`, `split`, `label`, `score`; only rows of the test split
        are used.

    Returns
    -------
    list of dict
        `name` (the path without the leading folder test), `label` (0 normal, 1 anomalous) and
        `score`; in the table's order.

    Raises
    ------
    ValueError
        If there is no test image, or a score is not finite.
    """
    test = scores[scores["split"] == "test"]
    if test.empty or not np.isfinite(test["score"]).all():
        raise ValueError("the explorer needs at least one test image, and finite scores")
    return [
        {"name": printable(path).removeprefix("test/"), "label": int(label), "score": float(score)}
        for path, label, score in zip(test["path"], test["label"], test["score"], strict=True)
    ]


def _state(scores: pd.DataFrame, threshold: float) -> dict:
    """What both explorers begin with: data, threshold, and the image with the highest score."""
    images = records(scores)
    labels, values = (np.array([image[name] for image in images]) for name in ("label", "score"))
    threshold = float(threshold)
    data = {"images": images, "auroc": image_auroc(labels, values), "threshold": threshold}
    return {"data": data, "threshold": threshold, "selected": int(values.argmax())}


# -- in a notebook ---------------------------------------------------------------------------------


class ThresholdExplorer(anywidget.AnyWidget):
    """The explorer as a widget.

    Parameters
    ----------
    scores : DataFrame
        As in scores.csv; see `records`.
    threshold : float
        Where the line is at first.
    pictures : Path, optional
        The folder that `write_pictures` wrote to; without it only the scores are shown.

    Attributes
    ----------
    threshold : float
        Where the line is now; setting it moves the line.
    selected : int
        Position of the image that is shown, among the test images.
    """

    _esm = HERE / "explorer.js"
    _css = HERE / "explorer.css"
    data = traitlets.Dict().tag(sync=True)
    threshold = traitlets.CFloat().tag(sync=True)
    selected = traitlets.Int().tag(sync=True)
    # of the selected image alone, so that the notebook stays small
    picture = traitlets.Dict().tag(sync=True)

    def __init__(self, scores: pd.DataFrame, threshold: float, pictures: Path | None = None):
        self._pictures = pictures
        super().__init__(**_state(scores, threshold))
        self._send_picture()

    def __repr__(self) -> str:
        return (
            f"threshold explorer: {len(self.data['images'])} test images, "
            f"threshold {self.threshold:.4g}"
        )

    @traitlets.validate("threshold")
    def _check_threshold(self, proposal: dict) -> float:
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError("the threshold must be a finite number")
        return proposal["value"]

    @traitlets.validate("selected")
    def _check_selected(self, proposal: dict) -> int:
        n = len(self.data["images"])
        if not 0 <= proposal["value"] < n:
            raise traitlets.TraitError(
                f"there are {n} test images: selected goes from 0 to {n - 1}"
            )
        return proposal["value"]

    @traitlets.observe("selected")
    def _send_picture(self, change: dict | None = None) -> None:
        file = self._pictures and Path(self._pictures) / f"{self.selected:04d}.jpg"
        content = base64.b64encode(file.read_bytes()).decode() if file and file.exists() else ""
        self.picture = {
            "index": self.selected,
            "url": content and f"data:image/jpeg;base64,{content}",
        }


# -- on a page -------------------------------------------------------------------------------------


def html(
    scores: pd.DataFrame,
    threshold: float,
    picture_urls: Sequence[str] | None = None,
    static: str | None = None,
    *,
    name: str = "explorer",
) -> str:
    """The explorer as a piece of a page, which needs no kernel, no network, and no other files.

    Only the pictures are fetched, from files beside the page.

    Parameters
    ----------
    scores : DataFrame
        As in scores.csv; see `records`.
    threshold : float
        The run's own.
    picture_urls : sequence of str, optional
        Where the page finds the picture of each test image; fetched when an image is chosen.
    static : str, optional
        Where the page finds a picture of the scores, for a reader whose browser runs no scripts.
    name : str, default "explorer"
        Prefix of the ids; each explorer of a page needs its own.

    Returns
    -------
    str
        HTML, with data, style and script in it. The script has to come after the rest, and does.
    """
    return PAGE.render(
        id=re.sub(r"[^A-Za-z0-9_-]+", "-", name),
        state=_state(scores, threshold) | {"pictures": picture_urls and list(picture_urls)},
        static=static,
    )
