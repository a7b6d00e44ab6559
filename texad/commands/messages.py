"""Words of several commands: what a detector promises, and which images were found."""

import math
import shutil
import sys
import textwrap
from typing import TextIO

from texad.data.inputs import GoodImages
from texad.detector import AnomalyDetector
from texad.errors import printable
from texad.evaluation import drift
from texad.model.threshold import images_needed, n_rejected
from texad.model.weights import RANDOM_WARNING

FEW = 20  # images to learn from: with fewer a detector is for trying
BREAKS = (
    "other light, exposure, focus, distance, angle or camera than when these images were taken;",
    "a material, batch or finish that these images do not show;",
    "images that are not independent, such as frames of one piece one after the other: they count "
    "as fewer than they are;",
    "bad images among the good ones.",
)


def say(*paragraphs: str, to: TextIO | None = None) -> None:
    """Print paragraphs in lines of a readable length; a name with a line break stays on its line.

    Parameters
    ----------
    *paragraphs : str
    to : text stream, optional
        By default the standard output.
    """
    stream, width = to or sys.stdout, min(100, shutil.get_terminal_size((100, 24)).columns)
    encoding = stream.encoding or "utf-8"  # a terminal may know few letters
    for paragraph in paragraphs:
        text = textwrap.fill(
            printable(paragraph), width, break_long_words=False, break_on_hyphens=False
        )
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def percent(rate: float) -> str:
    """Rate as a percentage.

    Examples
    --------
    >>> percent(0.01)
    '1%'
    """
    return f"{100 * rate:.3g}%"


def counted(n: int, what: str = "image") -> str:
    """Number with its noun.

    Examples
    --------
    >>> counted(1), counted(2, "good image")
    ('1 image', '2 good images')
    """
    return f"{n} {what}{'s' * (n != 1)}"


def load(file: str, progress: bool = True) -> AnomalyDetector:
    """Load a detector, with a warning if its backbone has learnt nothing."""
    detector = AnomalyDetector.load(file, progress=progress)
    warn_of_random_weights(detector)
    return detector


def warn_of_random_weights(detector: AnomalyDetector) -> None:
    """Warn on the standard error if the backbone of a detector has learnt nothing."""
    if detector.origin_["weights"]["name"] == "random":
        say("!" * 80, RANDOM_WARNING, "!" * 80, to=sys.stderr)


def promise(detector: AnomalyDetector) -> list[str]:
    """Sentences on what the threshold of a detector promises, the most important first."""
    said = _kept(detector) if detector.rule_ == "conformal" else _not_kept(detector)
    if (n_train := detector.origin_["n_train"]) < FEW:
        said.append(
            f"It has learnt from {counted(n_train)} only, too few to know how a good surface "
            "varies: try it, and rely on it when it has learnt from more."
        )
    return said


def _kept(detector: AnomalyDetector) -> list[str]:
    n, wanted = len(detector.calibration_scores_), detector.false_alarms
    low, high = map(percent, drift.rate_interval(n, wanted))
    said = [
        "Promised: a good image, made as these were, is called anomalous with a probability of at "
        f"most {percent(wanted)}. That is the average over all choices of {n} calibration images; "
        f"with the present ones, it lies between {low} and {high} nine times in ten.",
        f"The smallest false-alarm rate that {n} calibration images can promise is "
        f"{percent(detector.reachable_)} (1 in {n + 1}). The threshold promises nothing about "
        "defects: none was seen. Judge a few real ones (texad predict) before you rely on it.",
    ]
    if n_rejected(n, wanted) == 1:
        said.append(
            "The threshold is the score of the strangest calibration image: if that one is bad, so "
            "is the threshold. Look at it, and remove it and fit again if need be; with about "
            "twice as many images the threshold would depend on more than one."
        )
    return said


def _not_kept(detector: AnomalyDetector) -> list[str]:
    n = len(detector.calibration_scores_)
    needed = images_needed(detector.false_alarms)
    is_sigma = detector.rule_ == "sigma"
    source = "images it was fit to, which it knows too well" if is_sigma else f"{n} images kept out"
    enough = math.ceil(needed / max(detector.calibration_fraction, 0.5))
    return [
        f"NO false-alarm rate is promised. For {percent(detector.false_alarms)} at least {needed} "
        f"images must be kept out of the fit, and there were {n}. The threshold is a rule of thumb "
        f"instead: the mean of the scores of the {source}, and three standard deviations. There "
        "may be many false alarms, or few; and nothing is promised about defects, since none was "
        "seen.",
        f"To have the promise, fit with {enough} good images or more{ask_for_less(n)}.",
    ]


def ask_for_less(n: int) -> str:
    """Advice where `n` calibration images are too few for a false-alarm rate; empty for one.

    Examples
    --------
    >>> ask_for_less(10)
    ', or ask for less: --false-alarms 0.091 is what 10 images can promise'
    """
    rate = math.ceil(1000 / (n + 1)) / 1000
    less = f", or ask for less: --false-alarms {rate:.3g} is what {n} images can promise"
    return less if n > 1 else ""


def breaks(detector: AnomalyDetector) -> str:
    """Words that come before `BREAKS`."""
    if detector.rule_ == "conformal":
        return "The promise would be broken by"
    return "Expect false alarms, and missed defects, from"


def about_threshold(detector: AnomalyDetector) -> list[str]:
    """Paragraphs about the threshold of a fitted detector: its rule, and what it promises."""
    return [
        f"Threshold: {detector.threshold_:.4g}, by the rule {detector.rule_}.",
        *promise(detector),
        " ".join([breaks(detector), *(f"({i}) {each}" for i, each in enumerate(BREAKS, 1))]),
    ]


def about_images(good: GoodImages) -> list[str]:
    """Paragraphs about a folder of good images: how many were found, and what was left out."""
    taken = f" (the folder is laid out as MVTec AD; only its {good.layout} is taken)"
    said = [f"{good.root}: {counted(len(good.paths), 'good image')}{taken if good.layout else ''}."]
    if good.unreadable:
        names = [f"{path.name} ({reason})" for path, reason in good.unreadable.items()]
        said.append(f"Left out, since they cannot be read: {_first(names, 5, '; ')}.")
    if good.copies:
        names = [path.name for path in good.copies]
        said.append(f"Left out, since they are copies of others, byte for byte: {_first(names)}.")
    if len(good.sizes) > 1:
        sizes = [f"{w} × {h} ({count})" for (h, w), count in good.sizes.most_common()]
        said.append(
            f"The images have different sizes, and all are made equally large: {_first(sizes, 3)}. "
            "If they show pieces of different sizes, that is a difference between good images "
            "which the detector has to put up with."
        )
    return said


def _first(names: list[str], most: int = 5, between: str = ", ") -> str:
    """How many there are, and the first of them."""
    more = f"{between}…" * (len(names) > most)
    return f"{len(names)}: {between.join(names[:most])}{more}"
