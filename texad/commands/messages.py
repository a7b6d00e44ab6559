"""Words of several commands; their sentences are in the text templates beside this module."""

import math
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from texad.detector import AnomalyDetector
from texad.errors import printable
from texad.evaluation import drift
from texad.io.templates import templates
from texad.model import cross, threshold
from texad.model.weights import RANDOM_WARNING

TEXTS = templates(Path(__file__).parent, autoescape=False)
TEXTS.globals |= {"cross": cross, "drift": drift, "threshold": threshold, "infinity": math.inf}


def words(template: str, **values: object) -> list[str]:
    """Render a text template.

    Parameters
    ----------
    template : str
        Its name, without ".txt.j2".
    **values
        What it shows.

    Returns
    -------
    list of str
        Paragraphs, each on one line; in the template an empty line separates them.

    Examples
    --------
    >>> values = {"n": 10, "what": "image", "wanted": 0.05, "needed": 19}
    >>> words("too_few", **values, folder="new", detector="steel")[0][:62]
    '10 images cannot promise a false-alarm rate of 5%, which takes'
    """
    text = TEXTS.get_template(f"{template}.txt.j2").render(values)
    return [lines.replace("\n", " ") for lines in re.split("\n\n+", text.strip("\n"))]


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


def load(file: str, progress: bool = True, region: str | None = None) -> AnomalyDetector:
    """Load a detector, with a warning if its backbone has learnt nothing."""
    detector = AnomalyDetector.load(file, progress=progress, region=region)
    warn_of_random_weights(detector)
    return detector


def warn_of_random_weights(detector: AnomalyDetector) -> None:
    """Warn on the standard error if the backbone of a detector has learnt nothing."""
    if detector.origin_["weights"]["name"] == "random":
        say("!" * 80, RANDOM_WARNING, "!" * 80, to=sys.stderr)
