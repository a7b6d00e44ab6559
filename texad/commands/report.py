"""Pages about a detector: what it promises, how the scores lie, and the strangest of the good images.

A page is one file. It has no script and needs no network: pictures are in it, and drawings are SVG that takes the page's colours, so that it is read on
a phone and in the dark.
"""

import base64
import html
import io
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from texad.detector import AnomalyDetector
from texad.errors import printable
from texad.evaluation import drift
from texad.figures.overlay import overlay
from texad.figures.svg import histograms, losses
from texad.io.images import read_image
from texad.model import scoring
from texad.model.weights import RANDOM_WARNING

Strange = tuple[
    str, float, Image.Image, Image.Image
]  # name, score, picture, and picture covered by its heatmap
STRANGEST = {"calibration": 8, "train": 4}  # images on the page
PICTURE_SIZE = 320  # pixels of a picture's longer side, on a page
FEW = 20  # images to learn from: with fewer a detector is for trying
STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5b6067; --paper: #ffffff; --line: #d5d8dc; --normal: #0072b2; --anomalous: #b84a00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e7e9; --soft: #a4a9b0; --paper: #15171a; --line: #3a3f45; --normal: #56b4e9; --anomalous: #ff9a4d; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.55 system-ui, sans-serif; color: var(--text); background: var(--paper); }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p, li { max-width: 44rem; overflow-wrap: anywhere; }
.note { border: 2px solid var(--anomalous); border-radius: 6px; padding: 0.6rem 1rem; }
.soft { color: var(--soft); }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid var(--line); font-weight: normal; overflow-wrap: anywhere; }
th { color: var(--soft); min-width: 9rem; }
svg { display: block; width: 100%; max-width: 40rem; height: auto; font: 12px system-ui, sans-serif; fill: var(--text); }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); max-width: 44rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1.2rem; }
.pictures figure { margin: 0; }
.pictures figure > span { display: flex; gap: 4px; align-items: flex-start; }
.pictures img { width: calc(50% - 2px); height: auto; border-radius: 3px; }
.pictures figcaption { font-size: 0.9rem; overflow-wrap: anywhere; }
.alarm { color: var(--anomalous); font-weight: 600; }
"""


# -- what a detector promises ----------------------------------------------------------------------


def promise(detector: AnomalyDetector) -> list[str]:
    """What the threshold of a detector promises, in sentences, the most important first.

    Parameters
    ----------
    detector : AnomalyDetector
        Fitted.
    """
    n, wanted = len(detector.calibration_scores_), detector.false_alarms
    needed, reachable = scoring.images_needed(wanted), detector.reachable_
    if detector.rule_ == "conformal":
        low, high = drift.rate_interval(n, wanted)
        said = [
            f"Promised: a good image, made as these were, is called anomalous with a probability of at most {percent(wanted)}. That is the average over "
            f"all choices of {n} calibration images; with the present ones, it lies between {percent(low)} and {percent(high)} nine times in ten.",
            f"The smallest false-alarm rate that {n} calibration images can promise is {percent(reachable)} (1 in {n + 1}). The threshold promises nothing "
            "about defects: none was seen. Judge a few real ones (texad predict) before you rely on it.",
        ]
        if drift.rejecting(n, wanted) == 1:
            said.append(
                "The threshold is the score of the strangest calibration image: if that one is bad, so is the threshold. Look at it, and remove it "
                "and fit again if need be; about twice as many images would make the threshold hang on more than one."
            )
    else:
        source = (
            "the images it was fit to, which it knows too well"
            if detector.rule_ == "sigma"
            else f"the {n} images kept out"
        )
        share = max(detector.calibration_fraction, 0.5)
        rate = (
            np.ceil(1000 * reachable) / 1000 if reachable < 0.1 else np.ceil(100 * reachable) / 100
        )
        said = [
            f"NO false-alarm rate is promised. For {percent(wanted)} at least {needed} images must be kept out of the fit, and there were {n}. The "
            f"threshold is a rule of thumb instead: the mean of the scores of {source}, and three standard deviations. There may be many false "
            "alarms, or few; and nothing is promised about defects, since none was seen.",
            f"To have the promise, fit with {int(np.ceil(needed / share))} good images or more"
            + (
                f", or ask for less: --false-alarms {rate:.3g} is what {n} images can promise."
                if n > 1
                else "."
            ),
        ]
    if detector.origin_["n_train"] < FEW:
        said.append(
            f"It has learnt from {detector.origin_['n_train']} image{'s' * (detector.origin_['n_train'] > 1)} only, too few to know how a good surface "
            "varies: try it, and rely on it when it has learnt from more."
        )
    return said


BREAKS = (
    "other light, exposure, focus, distance, angle or camera than when these images were taken;",
    "a material, batch or finish that these images do not show;",
    "images that are not independent, such as frames of one piece one after the other: they count as fewer than they are;",
    "bad images among the good ones.",
)


def percent(rate: float) -> str:
    """A rate as people say it: 0.01 is 1%."""
    return f"{100 * rate:.3g}%"


def breaks(detector: AnomalyDetector) -> str:
    """What comes before `BREAKS`."""
    return (
        "The promise would be broken by"
        if detector.rule_ == "conformal"
        else "Expect false alarms, and missed defects, from"
    )


def stand_apart(detector: AnomalyDetector) -> dict[str, float]:
    """For "train" and "calibration", the line above which a score stands apart from the others.

    It is Q3 + 3 (Q3 − Q1), "far out" in Tukey, "Exploratory data analysis", 1977. Of fewer than 8 scores none stands apart.
    """
    lines = {}
    for part, scores in (
        ("train", detector.train_scores_),
        ("calibration", detector.calibration_scores_),
    ):
        low, high = np.quantile(scores, [0.25, 0.75]) if len(scores) >= 8 else (0, np.inf)
        lines[part] = float(high + 3 * (high - low))
    return lines


# -- pictures --------------------------------------------------------------------------------------


def small(path: str | Path, size: int) -> Image.Image:
    """An image in its own shape, its longer side at most `size` pixels; ImageError if it cannot be read."""
    image = read_image(path)
    image.thumbnail((size, size))
    return image


def strangest(detector: AnomalyDetector, root: Path) -> dict[str, list[Strange]]:
    """Pictures of the strangest images that a detector was fit to and calibrated with.

    Parameters
    ----------
    detector : AnomalyDetector
        Just fitted; its `paths_` are judged again.
    root : Path
        The folder that names are told from.

    Returns
    -------
    dict of str to list of Strange
        For "calibration" and "train", the strangest first.
    """
    chosen = {
        part: sorted(zip(scores.tolist(), detector.paths_[part], strict=True), reverse=True)[
            : STRANGEST[part]
        ]
        for part, scores in (
            ("calibration", detector.calibration_scores_),
            ("train", detector.train_scores_),
        )
    }
    judged = {
        each.path: each
        for each in detector.stream(path for part in chosen.values() for _, path in part)
    }
    pictures: dict[str, list[Strange]] = {}
    for part, images in chosen.items():
        pictures[part] = []
        for score, path in images:
            if (
                anomaly_map := judged[path].anomaly_map
            ) is not None:  # else somebody has just removed it
                image = small(path, PICTURE_SIZE)
                pictures[part].append(
                    (
                        str(Path(path).relative_to(root)),
                        score,
                        image,
                        overlay(image, anomaly_map, detector.origin_["heat"]),
                    )
                )
    return pictures


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# -- pages -----------------------------------------------------------------------------------------


def of_fit(
    detector: AnomalyDetector,
    name: str,
    found: Sequence[str],
    strangest: Mapping[str, Sequence[Strange]],
) -> str:
    """The page that `texad fit` writes.

    Parameters
    ----------
    detector : AnomalyDetector
        Just fitted.
    name : str
        Of its file.
    found : sequence of str
        What is to be said of the folder that it was fit to.
    strangest : mapping of str to sequence of Strange
        For "calibration" and "train", the strangest images first.

    Returns
    -------
    str
        HTML.
    """
    n, threshold = len(detector.calibration_scores_), detector.threshold_
    groups = {f"fit to ({len(detector.train_scores_)} images)": detector.train_scores_}
    if n:
        groups[f"kept out ({n} images)"] = detector.calibration_scores_
    versions = ", ".join(
        f"{name} {version}" for name, version in detector.origin_["versions"].items()
    )
    facts = {
        "images": f"{detector.origin_['n_train']} fit to, {n} kept out to calibrate with",
        "detector": detector.detector,
        "weights": f"{detector.origin_['weights']['name']} (SHA-256 {detector.origin_['weights']['sha256'][:12]}…)",
        "image size": f"{detector.image_size} × {detector.image_size} pixels, whatever the images had",
        "threshold": f"{threshold:.4g}, by the rule {detector.rule_}",
        "false-alarm rate asked for": percent(detector.false_alarms),
        "smallest that can be promised": f"{percent(detector.reachable_)} (1 in {n + 1})",
        "seed": str(detector.seed),
        "made": f"{time.strftime('%Y-%m-%d %H:%M')}, {versions}",
    }
    lines = stand_apart(detector)
    pictures = [
        f"<h3>{heading}</h3>\n" + _pictures(strangest[which], threshold, lines[which])
        for which, heading in (
            ("calibration", "Of those kept out"),
            ("train", "Of those that it was fit to"),
        )
        if strangest.get(which)
    ]
    parts = [
        _random_note(detector),
        "<h2>What it promises</h2>",
        *(f"<p>{html.escape(sentence)}</p>" for sentence in promise(detector)),
        f"<p>{breaks(detector)}</p>\n<ul>"
        + "".join(f"<li>{html.escape(each)}</li>" for each in BREAKS)
        + "</ul>",
        "<h2>The scores of the good images</h2>",
        _figure(
            histograms(
                groups,
                threshold,
                f"Histograms of the scores of the good images; threshold {threshold:.4g}.",
            ),
            "How strange each good image is. Those kept out show what to expect of new good images. If they lie far to the right of those it was fit "
            "to, it has learnt these images rather than the surface: more images help.",
        ),
        "<h2>The strangest good images</h2>",
        "<p>Left the image, right where the detector's attention was: clear where the surface is as usual, glowing where it is as strange as the "
        "strangest place of all the good images. Is one of them bad? Then remove it from the folder and fit again. Does the glow lie on something that "
        "is not the surface, such as a border, a reflection or a label? Then crop it, or change the light.</p>",
        *pictures,
        "<h2>Numbers</h2>",
        _table(facts),
        *(f"<p>{html.escape(printable(sentence))}</p>" for sentence in found),
        "<h2>The training</h2>",
        _figure(
            losses(detector.history_),
            "The squared error of the features that it is trained to rebuild. Both should fall and level out; validation far above training means that "
            "there are too few images.",
        ),
    ]
    return page(f"The detector {name}", parts)


def of_check(
    found: drift.Drift,
    name: str,
    folder: str,
    groups: Mapping[str, np.ndarray],
    threshold: float,
    notes: Sequence[str],
) -> str:
    """The page that `texad check` writes: the verdict, the scores, and how it was found; HTML."""
    verdict, *how = drift.words(found)
    kind = ' class="note"' if found.has_drifted else ""
    parts = [
        f"<p{kind}><b>{html.escape(verdict)}</b></p>",
        _figure(
            histograms(
                groups,
                threshold,
                f"Histograms of the scores of the calibration images and of the new good images; threshold {threshold:.4g}.",
            ),
            "If nothing has changed, both have the same shape.",
        ),
        "<h2>How it was found</h2>",
        *(f"<p>{html.escape(sentence)}</p>" for sentence in how),
        *(f"<p>{html.escape(printable(note))}</p>" for note in notes),
        f'<p class="soft">{html.escape(printable(folder))}, {time.strftime("%Y-%m-%d %H:%M")}</p>',
    ]
    return page(f"Has the line drifted? {name}", parts)


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of HTML from its parts."""
    title = html.escape(printable(title))
    body = "\n".join(part for part in parts if part)
    text = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return re.sub(
        r"[\ud800-\udfff]", "\ufffd", text
    )  # halves of letters, in names of files, cannot be written


def _random_note(detector: AnomalyDetector) -> str:
    is_random = detector.origin_["weights"]["name"] == "random"
    return (
        f'<p class="note" role="note"><b>⚠</b> {html.escape(RANDOM_WARNING)}</p>'
        if is_random
        else ""
    )


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(printable(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _pictures(images: Sequence[Strange], threshold: float, line: float) -> str:
    figures = []
    for name, score, plain, covered in images:
        name = html.escape(printable(name))
        remarks = ["above the threshold"] * (score > threshold) + [
            "stands apart from the others: look at it"
        ] * (score > line)
        alarm = "".join(f'<br><span class="alarm">{remark}</span>' for remark in remarks)
        figures.append(
            f'<figure><span><img src="{_data_uri(plain)}" alt="{name}"><img src="{_data_uri(covered)}" alt="{name}, covered by its heatmap"></span>'
            f"<figcaption>{name}<br>score {score:.4g}{alarm}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(figures)}</div>'
