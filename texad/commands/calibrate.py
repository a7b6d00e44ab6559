"""`texad calibrate`: set the threshold of a detector from new good images."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from texad.commands import files, messages
from texad.data import groups as find_groups
from texad.evaluation import drift
from texad.model.threshold import images_needed, n_groups


def calibrate(
    detector: str,
    folder: str,
    *,
    out: str | None = None,
    region: str | None = None,
    false_alarms: float | None = None,
    unreadable_limit: float = 0.05,
    progress: bool = True,
) -> int:
    """Set the threshold from new good images, so that it keeps the promised false-alarm rate again.

    What the detector has learnt stays as it is.

    Parameters
    ----------
    detector : str
        The file.
    folder, unreadable_limit, progress
        As in `texad.data.inputs.good_images`.
    out : str, optional
        The file to write; by default the detector is replaced.
    region : str, optional
        See `AnomalyDetector.load`.
    false_alarms : float, optional
        By default as before.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    ValueError, OSError
        An option is out of range, the detector is none or cannot be written, the folder is none of
        new good images, or has too few for the promise; in one line.
    """
    file = Path(out or detector).expanduser()
    loaded = messages.load(detector, region=region)
    files.check_target(file)
    if false_alarms is not None:
        loaded.false_alarms = false_alarms
    needed = images_needed(loaded.false_alarms)
    good, _ = files.new_images(loaded, folder, ("train",), unreadable_limit, progress)
    group_of = find_groups.groups(good.paths, Path(folder).expanduser())
    if (n := n_groups(len(good.paths), group_of)) < needed:
        values = {
            "n": n,
            "what": "group" if group_of else "image",
            "wanted": loaded.false_alarms,
            "needed": needed,
        }
        raise ValueError(*messages.words("too_few", **values, folder=good.root, detector=detector))
    before, old = loaded.threshold_, loaded.calibration_scores_
    paths = tqdm(good.paths, "scoring", unit="image", disable=not progress)
    loaded.calibrate_with(loaded.score_samples(paths), group_of)
    loaded.origin_["calibrated_anew"] = True
    if isinstance(images := loaded.origin_.get("images"), dict):
        images["calibration"] = list(good.images)
    loaded.save(file)
    is_strange = np.median(loaded.calibration_scores_) >= np.quantile(old, drift.FAR)
    messages.say(
        *messages.words(
            "calibrate", detector=loaded, before=before, is_strange=is_strange, file=file
        )
    )
    return 0
