"""Pages about a detector: what it promises, how the scores lie, and the strangest good images.

A page is one file. It has no script and needs no network: pictures are in it, and drawings are SVG
that takes the page's colours, so that it can be read on a phone and in the dark. The words are in
the templates beside this module, the colours in report.css.
"""

import base64
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from texad.commands.messages import words
from texad.detector import AnomalyDetector
from texad.evaluation import drift, outliers
from texad.figures.overlay import overlay, thumbnail
from texad.figures.svg import histograms, losses
from texad.io.templates import templates
from texad.model.weights import RANDOM_WARNING

STRANGEST = {"calibration": 8, "train": 4}  # images on the page, at least
MOST = 48
PICTURE_SIZE = 320  # pixels of a picture's longer side, on a page
Strangest = dict[str, list[dict[str, Any]]]


def strangest(detector: AnomalyDetector, root: Path) -> Strangest:
    """Find the strangest images that a detector was fit to and calibrated with.

    Parameters
    ----------
    detector : AnomalyDetector
        Just fitted; its `paths_` are judged again.
    root : Path
        The folder that names are relative to.

    Returns
    -------
    dict of str to list of dict
        For "calibration" and, if these are others, "train", the strangest first: `name`, its path
        in the folder; `score`; `picture` and `covered`, the image and the same covered by its
        heatmap, PIL.Image.Image; and `stands_apart`, whether its score is far from the others, see
        `texad.evaluation.outliers`.
    """
    found = {}
    parts = {"calibration": detector.calibration_scores_}
    if detector.n_folds_ == 1:  # else the images are the same
        parts["train"] = detector.train_scores_
    for part, scores in parts.items():
        far = {*outliers.apart(scores).tolist()}
        shown = min(max(len(far), STRANGEST[part]), MOST)
        worst = np.argsort(-scores, kind="stable")[:shown]
        paths = [detector.paths_[part][i] for i in worst]
        found[part] = [
            {
                "name": str(Path(judged.path).relative_to(root)),
                "score": float(scores[i]),
                "picture": (picture := thumbnail(judged.path, PICTURE_SIZE, detector.sight_.white)),
                "covered": overlay(
                    picture,
                    detector.enlarge(judged.anomaly_map, (picture.height, picture.width)),
                    detector.origin_["heat"],
                ),
                "stands_apart": int(i) in far,
            }
            for i, judged in zip(worst, detector.stream(paths, worst), strict=True)
            if judged.anomaly_map is not None  # else somebody has just removed it
        ]
    return found


# -- pages -----------------------------------------------------------------------------------------


def fit_page(
    detector: AnomalyDetector,
    name: str,
    notes: Sequence[str],
    strangest: Strangest,
    copies: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> str:
    """Make the page that `texad fit` writes.

    Parameters
    ----------
    detector : AnomalyDetector
        Just fitted.
    name : str
        Name of its file.
    notes : sequence of str
        Paragraphs about the folder that it was fit to.
    strangest : dict of str to list of dict
        From `strangest`; under "dropped", the images that were left out of the fit.
    copies : sequence of str, optional
        The warning of near-copies.
    dropped : sequence of str, optional
        What is said of the images that were left out.

    Returns
    -------
    str
        HTML.
    """
    names = ["fit to", "kept out"]
    if detector.n_folds_ > 1:
        names = ["by all models, most of which had seen it", "by the one that had not"]
    scores = dict(zip(names, (detector.train_scores_, detector.calibration_scores_), strict=True))
    return _page(
        "report_fit.html.j2",
        name=name,
        detector=detector,
        n=detector.n_calibration_,
        models=detector.n_folds_,
        random_warning=RANDOM_WARNING,
        promise=words("promise", detector=detector),
        histograms=histograms(scores, detector.threshold_),
        strangest=strangest,
        copies=copies,
        dropped=dropped,
        versions=", ".join(map(" ".join, detector.origin_["versions"].items())),
        notes=notes,
        losses=losses(detector.history_),
    )


def check_page(
    found: drift.Drift,
    groups: Mapping[str, np.ndarray],
    threshold: float,
    name: str,
    folder: str,
    notes: Sequence[str],
    models: int = 1,
) -> str:
    """Make the page that `texad check` writes: the verdict, the scores, and how it was found.

    Parameters
    ----------
    found : Drift
    groups : mapping of str to (ndarray, shape (n,))
        Scores that were compared.
    threshold : float
    name, folder : str
        Name of the detector's file, and the folder of new images.
    notes : sequence of str
        Paragraphs about the folder.
    models : int, default 1
        Number of models of which one has judged each image.

    Returns
    -------
    str
        HTML.
    """
    verdict, *reasons = words("drift", found=found, models=models)
    return _page(
        "report_check.html.j2",
        name=name,
        found=found,
        verdict=verdict,
        histograms=histograms(groups, threshold),
        reasons=reasons,
        notes=list(notes),
        folder=folder,
    )


def _page(template: str, **values: object) -> str:
    pages = templates(Path(__file__).parent)
    pages.filters["jpeg"] = _data_uri
    return pages.get_template(template).render(made=time.strftime("%Y-%m-%d %H:%M"), **values)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
