"""`texad predict`: judge images one after the other, however many there are."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tqdm import tqdm

from texad.commands import messages, prediction_writer
from texad.data.inputs import stream
from texad.data.walking import in_folders
from texad.errors import printable

ANOMALOUS, NOTHING_JUDGED, SOME_NOT_JUDGED = 1, 2, 3  # exit statuses


def predict(
    detector: str,
    paths: Sequence[str],
    *,
    out: str | None = None,
    region: str | None = None,
    heatmaps: bool = False,
    format: str = "csv",
    fail_on_anomaly: bool = False,
    progress: bool = True,
) -> int:
    """Judge images and write each result at once; no image is kept, so there may be any number.

    Parameters
    ----------
    detector : str
        The file.
    paths : sequence of str
        As in `texad.data.inputs.stream`. They are judged in natural order, whatever the shell has
        made of a pattern, and "-" comes last.
    out : str, optional
        The folder for predictions.csv, predictions.jsonl and heatmaps; else results are printed.
    region : str, optional
        See `AnomalyDetector.load`.
    heatmaps : bool, default False
        With `out`: write a picture of each image, covered by its heatmap.
    format : {"csv", "jsonl"}, default "csv"
        Format of what is printed.
    fail_on_anomaly : bool, default False
        Let the exit status say whether all images are good, see `texad predict --help`.
    progress : bool, default True
        Show a progress bar, and a sum at the end.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    ValueError, OSError
        The options contradict each other, the detector is none, or no image is given; in one line.
    KeyboardInterrupt
        With what was done until Ctrl-C.
    """
    if heatmaps and not out:
        raise ValueError("--heatmaps needs a folder to write to: give --out FOLDER")
    loaded = messages.load(detector, progress=False, region=region)
    folder = Path(out).expanduser() if out else None
    has_bar = progress and (folder is not None or not sys.stdout.isatty())
    counts: Counter[str] = Counter()

    def complain(what: str) -> None:
        tqdm.write(f"texad: {printable(what)}", file=sys.stderr)
        counts["complaints"] += 1

    in_order = sorted(paths, key=lambda path: (path == "-", in_folders(path)))
    try:
        with ExitStack() as stack:
            write = prediction_writer.writer(stack, folder, format, heatmaps)
            bar = stack.enter_context(tqdm(unit="image", disable=None if has_bar else True))
            results = stack.enter_context(closing(loaded.stream(stream(in_order, complain))))
            for number, result in enumerate(results, 1):
                row = prediction_writer.row(result)
                if result.error:
                    complain(result.error)
                if heatmaps and folder:
                    row["heatmap"] = prediction_writer.heatmap(
                        folder / "heatmaps", number, result, loaded
                    )
                write(row)
                counts[str(row["decision"])] += 1
                bar.update()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped. {_sum(counts)}; they stay.") from None
    if progress:
        messages.say(f"texad: {_sum(counts)}" + (f", in {folder}" if folder else ""), to=sys.stderr)
    return _status(counts, fail_on_anomaly)


def _sum(counts: Counter[str]) -> str:
    judged = counts["normal"] + counts["anomalous"]
    return f"{judged} judged, {counts['anomalous']} anomalous, {counts['unreadable']} unreadable"


def _status(counts: Counter[str], fail_on_anomaly: bool) -> int:
    if not counts["normal"] + counts["anomalous"]:
        return NOTHING_JUDGED
    if fail_on_anomaly and counts["anomalous"]:
        return ANOMALOUS
    if fail_on_anomaly and counts["complaints"]:
        return SOME_NOT_JUDGED
    return 0
