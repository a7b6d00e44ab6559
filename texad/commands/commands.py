"""What the commands `texad fit`, `predict`, `check` and `calibrate` do: `texad.detector` with files around it, and words.

Each function takes what the command line gives it, prints for people, and returns the exit status. What is wrong with what was given is a ValueError
or an OSError of one line.
"""

import math
import os
import shutil
import sys
import tempfile
import textwrap
import warnings as python_warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TextIO

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from texad.commands import prediction_writer as rows
from texad.commands import report as pages
from texad.data import inputs as sources
from texad.detector import AnomalyDetector
from texad.errors import printable
from texad.evaluation import drift
from texad.figures import svg as drawings
from texad.io.atomic import replacing
from texad.model import codebook as extended
from texad.model import scoring
from texad.model import weights as backbones

NOTHING_JUDGED, SOME_NOT_JUDGED, INTERRUPTED, NO_READER = (
    2,
    3,
    130,
    141,
)  # exit statuses; the last two are the shell's for what a signal ended


def fit(
    folder: str,
    out: str,
    *,
    weights: str = "auto",
    detector: str = "published",
    false_alarms: float = 0.05,
    calibration_fraction: float = 0.2,
    image_size: int = 224,
    unreadable_limit: float = 0.05,
    seed: int = 0,
    report: str | None = None,
    progress: bool = True,
) -> int:
    """Learn from a folder of good images; write the detector and a page about it; say what is promised.

    Parameters
    ----------
    folder : str
        See `sources.good_images`.
    out : str
        The file to write.
    weights, detector, false_alarms, calibration_fraction, image_size, seed, progress
        As `AnomalyDetector` takes them.
    unreadable_limit : float, default 0.05
        See `sources.good_images`.
    report : str, optional
        Where the page goes; by default beside the detector, with its name.
    """
    _check_rate(false_alarms)
    if not 0 <= calibration_fraction < 1:
        raise ValueError(
            f"--calibration-fraction must be at least 0 and below 1 (0.2 is one image in five), not {calibration_fraction}"
        )
    if image_size < 16 or image_size % 16:
        raise ValueError(
            f"--image-size must be a positive multiple of 16 (224 in the published method), not {image_size}"
        )
    if detector == "extended" and image_size < extended.SMALLEST_IMAGE:
        raise ValueError(
            f"--image-size must be at least {extended.SMALLEST_IMAGE} for the extended detector, not {image_size}"
        )
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, not {seed}")
    file = Path(out).expanduser()
    page = (
        Path(report).expanduser()
        if report
        else file.with_suffix(".html")
        if file.suffix == ".safetensors"
        else Path(f"{file}.html")
    )
    if page == file:
        raise ValueError(
            f"the detector and its report cannot both be {file}: choose another --out, for instance steel.safetensors"
        )
    _check_target(file)
    _check_writable(page)
    backbones.check(weights)
    good = sources.good_images(folder, "train", unreadable_limit, progress)
    found = _found(good)
    _say(*found, to=sys.stderr)
    if len(good.paths) < 2:
        raise ValueError(
            f"{good.root} has one image that can be used, and a detector needs at least 2: one to learn from and one to calibrate with"
        )
    made = AnomalyDetector(
        detector,
        weights=weights,
        image_size=image_size,
        calibration_fraction=calibration_fraction,
        false_alarms=false_alarms,
        seed=seed,
        progress=progress,
    )
    with python_warnings.catch_warnings():
        python_warnings.simplefilter(
            "ignore", backbones.RandomWeightsWarning
        )  # it is said below, in full
        made.fit(good.paths)
    hashes = dict(zip(map(str, good.paths), good.hashes, strict=True))
    made.origin_["images"] = {
        part: [hashes[path] for path in paths] for part, paths in made.paths_.items()
    }
    strangest = pages.strangest(made, good.root)
    made.save(file)
    _write(page, pages.of_fit(made, file.name, found, strangest))
    _warn_of_random_weights(made)
    n = made.origin_["n_train"]
    _say(
        f"Fit to {n} image{'s' * (n > 1)}, and {len(made.calibration_scores_)} kept out to calibrate with.",
        *_about_threshold(made),
    )
    lines = pages.stand_apart(made)
    if apart := [
        name
        for part, images in strangest.items()
        for name, score, *_ in images
        if score > lines[part]
    ]:
        _say(
            f"LOOK at {', '.join(apart)}: very strange beside the other good images, so that something may be wrong there. The report shows where."
        )
    _say(f"Detector: {file}", f"Report: {page}", f"Next: texad predict {file} IMAGES…")
    return 0


def predict(
    detector: str,
    paths: Sequence[str],
    *,
    out: str | None = None,
    heatmaps: bool = False,
    format: str | None = None,
    fail_on_anomaly: bool = False,
    progress: bool = True,
) -> int:
    """Judge images, and write each result at once; nothing is kept, so that there may be any number of them.

    Parameters
    ----------
    detector : str
        The file.
    paths : sequence of str
        See `sources.stream`.
    out : str, optional
        The folder for predictions.csv, predictions.jsonl and heatmaps; else results are printed.
    heatmaps : bool, default False
        With `out`: write a picture of each image, covered by its heatmap.
    format : {"csv", "jsonl"}, optional
        Of what is printed.
    fail_on_anomaly : bool, default False
        Let the exit status say whether all images are good, see `texad predict --help`.
    progress : bool, default True
    """
    if heatmaps and not out:
        raise ValueError("--heatmaps needs a folder to write to: give --out FOLDER")
    if format and out:
        raise ValueError(
            "--format is of what is printed, and with --out nothing is: predictions.csv and predictions.jsonl are written both"
        )
    loaded = AnomalyDetector.load(detector, progress=False)
    _warn_of_random_weights(loaded)
    counts: Counter[str] = Counter()

    def complain(what: str) -> None:
        tqdm.write(f"texad: {printable(what)}", file=sys.stderr)
        counts["nothing found"] += 1

    try:
        with ExitStack() as stack:
            folder = Path(out).expanduser() if out else None
            write = rows.writer(stack, folder, format or "csv", heatmaps)
            bar = stack.enter_context(
                tqdm(
                    unit="image",
                    disable=None if progress and (out or not sys.stdout.isatty()) else True,
                )
            )
            results = stack.enter_context(closing(loaded.stream(sources.stream(paths, complain))))
            for number, result in enumerate(results, 1):
                row = rows.row(result)
                if result.error:
                    tqdm.write(f"texad: {printable(result.error)}", file=sys.stderr)
                if heatmaps and folder:
                    row["heatmap"] = rows.heatmap(
                        folder / "heatmaps", number, result, loaded.origin_.get("heat")
                    )
                write(row)
                counts[str(row["decision"])] += 1
                bar.update()
    except KeyboardInterrupt:
        _say(f"texad: stopped. {_counted(counts)}; they stay.", to=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads what is printed has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    if progress and counts.total():
        _say(f"texad: {_counted(counts)}" + (f", in {folder}" if folder else ""), to=sys.stderr)
    if not counts["normal"] + counts["anomalous"]:
        if not counts.total():
            raise ValueError("no image was given: nothing is judged")
        return NOTHING_JUDGED
    if not fail_on_anomaly:
        return 0
    return (
        1
        if counts["anomalous"]
        else SOME_NOT_JUDGED
        if counts["unreadable"] or counts["nothing found"]
        else 0
    )


def check(
    detector: str,
    folder: str,
    *,
    out: str | None = None,
    level: float = drift.LEVEL,
    unreadable_limit: float = 0.05,
    progress: bool = True,
) -> int:
    """Compare new good images with those that the threshold was set with; say what was found, and what to do.

    Parameters
    ----------
    detector, folder : str
        The file; see `sources.good_images`.
    out : str, optional
        A page to write.
    level : float, default 0.01
        See `drift.compare`.
    unreadable_limit, progress
        See `sources.good_images`.
    """
    if not 0 < level < 1:
        raise ValueError(
            f"--level must lie between 0 and 1 (0.01 is one wrong alarm in a hundred checks), not {level}"
        )
    if out:
        _check_writable(Path(out).expanduser())
    loaded = AnomalyDetector.load(detector)
    _warn_of_random_weights(loaded)
    good, notes = _new_images(loaded, folder, ("train", "calibration"), unreadable_limit, progress)
    _say(*notes, to=sys.stderr)
    new = _scores(loaded, good.paths, progress)
    promised = loaded.false_alarms if loaded.rule_ == "conformal" else None
    result = drift.compare(loaded.calibration_scores_, new, loaded.threshold_, promised, level)
    groups = {"calibration": loaded.calibration_scores_, "new": new}
    bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    print(drawings.text_histograms(groups, loaded.threshold_, bar=bar), end="\n\n")
    _say(*drift.words(result))
    if out:
        names = {
            f"calibration ({result.n_calibration} images)": loaded.calibration_scores_,
            f"new ({result.n_new} images)": new,
        }
        _write(
            Path(out).expanduser(),
            pages.of_check(
                result, Path(detector).name, str(good.root), names, loaded.threshold_, notes
            ),
        )
        _say(f"Page: {out}")
    return int(result.has_drifted)


def calibrate(
    detector: str,
    folder: str,
    *,
    out: str | None = None,
    false_alarms: float | None = None,
    unreadable_limit: float = 0.05,
    progress: bool = True,
) -> int:
    """Set the threshold from new good images, so that it promises the false-alarm rate again; the autoencoder stays as it is.

    Parameters
    ----------
    detector, folder : str
        The file; see `sources.good_images`.
    out : str, optional
        The file to write; by default the detector is replaced.
    false_alarms : float, optional
        By default as before.
    unreadable_limit, progress
        See `sources.good_images`.
    """
    if false_alarms is not None:
        _check_rate(false_alarms)
    file = Path(out or detector).expanduser()
    loaded = AnomalyDetector.load(detector)
    _check_target(file)
    _warn_of_random_weights(loaded)
    if false_alarms is not None:
        loaded.false_alarms = false_alarms
    good, notes = _new_images(loaded, folder, ("train",), unreadable_limit, progress)
    _say(*notes, to=sys.stderr)
    n, needed = len(good.paths), scoring.images_needed(loaded.false_alarms)
    if n < needed:
        rate = math.ceil(1000 / (n + 1)) / 1000
        instead = f", or ask for less: --false-alarms {rate:.3g}" if rate < 1 else ""
        raise ValueError(
            f"{n} image{'s' * (n > 1)} cannot promise a false-alarm rate of {pages.percent(loaded.false_alarms)}, which takes at least {needed}: "
            f"add good images to {good.root}{instead}. {detector} is as it was"
        )
    before, old = loaded.threshold_, loaded.calibration_scores_
    loaded.calibrate_with(_scores(loaded, good.paths, progress))
    if isinstance(images := loaded.origin_.get("images"), dict):
        images["calibration"] = good.hashes
    loaded.save(file)
    _say(f"Calibrated with {n} images. The threshold was {before:.4g}.", *_about_threshold(loaded))
    if np.median(loaded.calibration_scores_) >= np.quantile(old, drift.FAR):
        _say(
            "CAUTION: a typical one of these images is as strange as the strangest were before. With so high a threshold defects may be missed: if the "
            "change is meant to stay, fit again with such images (texad fit)."
        )
    _say(f"Detector: {file}")
    return 0


# -- what is said ----------------------------------------------------------------------------------


def _say(*paragraphs: str, to: TextIO | None = None) -> None:
    """Print paragraphs on lines of a readable length; a name with a line break in it stays on its line."""
    stream, width = to or sys.stdout, min(100, shutil.get_terminal_size((100, 24)).columns)
    for paragraph in paragraphs:
        text = textwrap.fill(
            printable(paragraph), width, break_long_words=False, break_on_hyphens=False
        )
        encoding = stream.encoding or "utf-8"
        print(
            text.encode(encoding, "backslashreplace").decode(encoding), file=stream
        )  # a terminal may know few letters


def _about_threshold(detector: AnomalyDetector) -> list[str]:
    return [
        f"Threshold: {detector.threshold_:.4g}, by the rule {detector.rule_}.",
        *pages.promise(detector),
        f"{pages.breaks(detector)} "
        + " ".join(f"({i}) {each}" for i, each in enumerate(pages.BREAKS, 1)),
    ]


def _warn_of_random_weights(detector: AnomalyDetector) -> None:
    if detector.origin_["weights"]["name"] == "random":
        _say("!" * 80, backbones.RANDOM_WARNING, "!" * 80, to=sys.stderr)


def _found(good: sources.GoodImages) -> list[str]:
    """What is to be said of a folder of good images."""
    n = len(good.paths)
    said = [
        f"{good.root}: {n} good image{'s' * (n != 1)}{f' (the folder is laid out as MVTec AD; only its {good.layout} is taken)' if good.layout else ''}."
    ]
    if good.unreadable:
        names = "; ".join(
            f"{path.name} ({reason})" for path, reason in list(good.unreadable.items())[:5]
        )
        said.append(
            f"Left out, since they cannot be read: {len(good.unreadable)}: {names}{'; …' * (len(good.unreadable) > 5)}."
        )
    if good.copies:
        names = ", ".join(path.name for path in good.copies[:5])
        said.append(
            f"Left out, since they are copies of others, byte for byte: {len(good.copies)}: {names}{', …' * (len(good.copies) > 5)}."
        )
    if len(good.sizes) > 1:
        sizes = ", ".join(
            f"{width} × {height} ({count})" for (height, width), count in good.sizes.most_common(3)
        )
        said.append(
            f"The images have {len(good.sizes)} different sizes, and all are made equally large: {sizes}{', …' * (len(good.sizes) > 3)}. If they show "
            "pieces of different sizes, that is a difference between good images which the detector has to put up with."
        )
    return said


def _new_images(
    detector: AnomalyDetector,
    folder: str,
    known: Iterable[str],
    unreadable_limit: float,
    progress: bool,
) -> tuple[sources.GoodImages, list[str]]:
    """New good images, without those that the detector knows, and what is to be said of them."""
    good = sources.good_images(folder, "test", unreadable_limit, progress)
    notes, images = _found(good), detector.origin_.get("images")
    if not isinstance(images, dict):  # it was made in Python
        return good, [
            *notes,
            "The file does not say which images the detector knows: make sure that none of these is among them.",
        ]
    new = good.without(digest for part in known for digest in images.get(part, ()))
    if n_known := len(good.paths) - len(new.paths):
        if not new.paths:
            raise ValueError(
                f"{good.root} holds only images that the detector knows: take new ones, which it has not seen"
            )
        notes.append(
            f"Left out, since the detector knows them from fit or calibration: {n_known}; {len(new.paths)} are left."
        )
    return new, notes


def _counted(counts: Mapping[str, int]) -> str:
    parts = [
        f"{counts[name]} {name}"
        for name in ("normal", "anomalous", "unreadable")
        if counts.get(name)
    ]
    return ", ".join(parts) or "nothing judged"


# -- what is computed ------------------------------------------------------------------------------


def _scores(detector: AnomalyDetector, paths: Sequence[Path], progress: bool) -> np.ndarray:
    return detector.score_samples(tqdm(paths, "scoring", unit="image", disable=not progress))


# -- what is written, and what is refused -----------------------------------------------------------


def _write(page: Path, text: str) -> None:
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_rate(false_alarms: float) -> None:
    if not 0 < false_alarms < 1:
        raise ValueError(
            f"--false-alarms must lie between 0 and 1 (0.01 is one good image in a hundred), not {false_alarms}"
        )


def _check_target(file: Path) -> None:
    """A detector may be replaced; another file may not."""
    _check_writable(file)
    if not file.exists():
        return
    try:
        with safe_open(file, framework="np") as stored:
            is_detector = "texad" in (stored.metadata() or {})
    except (SafetensorError, OSError):
        is_detector = False
    if not is_detector:
        raise ValueError(
            f"{file} is there already, and is no detector: choose another --out, or move it away"
        )


def _check_writable(file: Path) -> None:
    """Before anything is computed for it."""
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder: name a file in it, such as {file / 'steel'}{file.suffix or '.safetensors'}"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise OSError(
            f"{file} cannot be written ({error.strerror or type(error).__name__}): choose another place"
        ) from error
