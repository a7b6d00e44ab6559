"""`texad check`: has the line drifted?"""

import itertools
import sys
from pathlib import Path

from tqdm import tqdm

from texad.commands import files, messages, report
from texad.evaluation import drift
from texad.figures.svg import text_histograms
from texad.io.atomic import write_text


def check(
    detector: str,
    folder: str,
    *,
    out: str | None = None,
    region: str | None = None,
    level: float = drift.LEVEL,
    unreadable_limit: float = 0.05,
    progress: bool = True,
) -> int:
    """Compare new good images with those that the threshold was set with; say what to do.

    Parameters
    ----------
    detector : str
        The file.
    folder, unreadable_limit, progress
        As in `texad.data.inputs.good_images`.
    out : str, optional
        A page to write.
    region : str, optional
        See `AnomalyDetector.load`.
    level : float, default 0.01
        As in `texad.evaluation.drift.compare`.

    Returns
    -------
    int
        The exit status: 1 if the line has drifted.

    Raises
    ------
    ValueError, OSError
        An option is out of range, the page cannot be written, the detector is none, or the folder
        is none of new good images; in one line.
    """
    page = Path(out).expanduser() if out else None
    if page:
        files.check_writable(page)
    loaded = messages.load(detector, region=region)
    good, notes = files.new_images(
        loaded, folder, ("train", "calibration"), unreadable_limit, progress
    )
    paths = tqdm(good.paths, "scoring", unit="image", disable=not progress)
    old, models = loaded.calibration_scores_, loaded.n_folds_
    new = loaded.score_samples(paths, itertools.cycle(range(len(old))))
    groups = {"calibration": old, "new": new}
    promised = loaded.false_alarms if loaded.rule_ == "conformal" else None
    found = drift.compare(old, new, loaded.threshold_, promised, level, loaded.n_calibration_)
    bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    print(text_histograms(groups, loaded.threshold_, bar=bar), end="\n\n")
    messages.say(*messages.words("drift", found=found, models=models))
    if page:
        html = report.check_page(
            found, groups, loaded.threshold_, Path(detector).name, str(good.root), notes, models
        )
        write_text(page, html)
        messages.say(f"Page: {page}")
    return int(found.has_drifted)
