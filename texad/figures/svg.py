"""Drawings of scores and losses in the colours of the page around them, and one for a terminal.

The figures of `texad.figures.plots` are made for notebooks and white paper. These are SVG for pages
that are read on a phone and in the dark: letters are those of the page, and colours those that its
style sheet calls --text, --soft, --line, --normal and --anomalous. A drawing is 400 units wide, so
that its letters are legible on a phone. What it looks like is in drawings.svg.j2.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

from texad.io.templates import templates

Groups = Mapping[str, np.ndarray]


def histograms(groups: Groups, threshold: float) -> str:
    """Draw histograms of the scores of groups, one below the other, and across all the threshold.

    Parameters
    ----------
    groups : mapping of str to (ndarray, shape (n,))
        Each has a scale of its own for the heights of its bars; one without scores is left out.
    threshold : float

    Returns
    -------
    str
        SVG.
    """
    groups = {f"{name} ({len(each)} images)": each for name, each in groups.items() if len(each)}
    edges, is_log = bin_edges(groups, threshold)
    place = _scale(edges[0], edges[-1], 8, 392, np.log if is_log else float)
    rows = []
    for name, scores in groups.items():
        counts = np.histogram(np.asarray(scores, dtype=float), edges)[0]
        bars = [
            (
                place(left),
                max(place(right) - place(left) - 0.6, 0.6),
                max(1.5, 50 * count / counts.max()),
                "anomalous" if left > threshold else "normal",
            )
            for count, left, right in zip(counts, edges, edges[1:], strict=False)
            if count
        ]
        rows.append((name, bars))
    ticks = _ticks(LogLocator(subs=(1, 2, 5)) if is_log else MaxNLocator(5), edges, place)
    label = "anomaly score, logarithmic" if is_log else "anomaly score"
    alt = f"Histograms of scores: {', '.join(groups)}; threshold {threshold:.4g}."
    return _draw("histograms", rows, place(threshold), ticks, label, alt)


def losses(history: pd.DataFrame) -> str:
    """Draw training and validation loss along the steps, on a logarithmic scale.

    Parameters
    ----------
    history : DataFrame
        Columns `step`, `train_loss` and `validation_loss`, see `base.train_in_steps`. Where no
        image was held out, the last is NaN, and the training loss stands alone.

    Returns
    -------
    str
        SVG.
    """
    columns = history[["train_loss", "validation_loss"]].dropna(axis="columns")
    values, steps = np.maximum(columns.to_numpy(dtype=float), 1e-12), history["step"].to_numpy()
    ends = np.array([steps[0], max(steps[-1], steps[0] + 1)])
    across = _scale(ends[0], ends[1], 60, 384)
    down = _scale(values.min(), values.max(), 150, 20, np.log)
    heights = [
        (down(each), f"{each:,.0f}" if each >= 1000 else f"{each:.3g}")  # 3.83e+04 is too wide
        for each in dict.fromkeys((values.max(), values.min()))
    ]
    curves = [
        [(across(i), down(loss)) for i, loss in zip(steps, each, strict=True)] for each in values.T
    ]
    return _draw("losses", heights, curves, _ticks(MaxNLocator(5, integer=True), ends, across))


def text_histograms(
    groups: Groups, threshold: float, bins: int = 12, width: int = 24, bar: str = "█"
) -> str:
    """The same as `histograms` for a terminal: scores downwards, groups side by side.

    Parameters
    ----------
    groups, threshold
        As in `histograms`.
    bins : int, default 12
        About how many lines.
    width : int, default 24
        Letters of the longest bar of each group.
    bar : str, default "█"
        The letter that bars are made of.

    Returns
    -------
    str
        Lines.

    Examples
    --------
    >>> import numpy as np
    >>> groups = {"old": np.array([1, 2, 2]), "new": np.array([2, 9])}
    >>> print(text_histograms(groups, threshold=5, bins=3, width=10, bar="#"))
                old (3)     new (2)
         1.572  ##########  ##########
         3.594
    ----------  threshold
         7.202              ##########
    """
    edges, _ = bin_edges(groups, threshold, bins)
    names = [f"{name} ({len(scores)})" for name, scores in groups.items()]
    counts = [np.histogram(np.asarray(each, dtype=float), edges)[0] for each in groups.values()]
    lines = [" " * 12 + "".join(name.ljust(width + 2) for name in names)]
    for i, (left, right) in enumerate(zip(edges, edges[1:], strict=False)):
        if left > threshold >= edges[i - 1]:
            lines.append("-" * 10 + "  threshold")
        bars = [bar * int(np.ceil(width * each[i] / each.max())) for each in counts]
        middle = f"{(left + right) / 2:10.4g}  "
        lines.append(middle + "".join(each.ljust(width + 2) for each in bars))
    return "\n".join(line.rstrip() for line in lines)


def bin_edges(groups: Groups, threshold: float, bins: int = 40) -> tuple[np.ndarray, bool]:
    """Edges of bins, each of which is on one side of the threshold.

    Parameters
    ----------
    groups, threshold
        As in `histograms`.
    bins : int, default 40
        About how many.

    Returns
    -------
    edges : ndarray, float64, shape (n + 1,)
        One of them is the next number above the threshold, since a score that is the threshold
        itself is not above it.
    is_log : bool
        Whether they are logarithmic.
    """
    values = np.concatenate([np.asarray(scores, dtype=float) for scores in groups.values()])
    low, high = min(values.min(), threshold), max(values.max(), threshold)
    is_log = bool(low > 0 and high > 4 * low)
    to, back = (np.log, np.exp) if is_log else (np.asarray, np.asarray)
    margin = max(0.02 * (to(high) - to(low)), 1e-3 * abs(to(high)), 1e-9)
    start, line, stop = to(low) - margin, to(threshold), to(high) + margin
    step = (stop - start) / bins
    left = np.linspace(start, line, max(1, round((line - start) / step)) + 1)
    right = np.linspace(line, stop, max(1, round((stop - line) / step)) + 1)
    edges = back(np.concatenate([left, right[1:]])).astype(float)
    edges[len(left) - 1] = np.nextafter(threshold, np.inf)
    return edges, is_log


# -- places in a drawing ---------------------------------------------------------------------------


def _scale(
    low: float, high: float, start: float, stop: float, to: Callable[[float], float] = float
) -> Callable[[float], float]:
    """Where a value is on an axis, if `low` is at `start` and `high` at `stop`."""
    origin, length = to(low), max(to(high) - to(low), 1e-12)
    return lambda value: start + (stop - start) * float((to(value) - origin) / length)


def _ticks(
    locator: Locator, values: np.ndarray, place: Callable[[float], float]
) -> list[tuple[float, str]]:
    """Place and text of the numbers below an axis."""
    low, high = values[0], values[-1]
    inside = (tick for tick in locator.tick_values(low, high) if low <= tick <= high)
    return [(place(tick), f"{tick:g}") for tick in inside]


def _draw(name: str, *values: Any) -> str:
    drawings = templates(Path(__file__).parent)
    drawings.filters["tenths"] = "{:.1f}".format
    return getattr(drawings.get_template("drawings.svg.j2").module, name)(*values)
