"""Drawings of scores and losses that take the colours of the page around them, and one for a terminal.

The figures of `texad.figures.plots` are made for notebooks and white paper. These are SVG with the page's own letters and colours, for pages that are read on a
phone and in the dark; on such a page the style sheet defines the colours --text, --soft, --line, --normal and --anomalous.
"""

import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from texad.errors import printable

WIDTH, LEFT, RIGHT = (
    400,
    8,
    392,
)  # of a drawing; its letters have a legible size on a phone, where it is about as many pixels wide


def histograms(groups: Mapping[str, np.ndarray], threshold: float, alt: str) -> str:
    """Scores of groups of images, a histogram for each below the other, with the threshold across: SVG.

    Parameters
    ----------
    groups : mapping of str to (ndarray, shape (n,))
        Each holds at least one score. The heights of a group are parts of it.
    threshold : float
    alt : str
        What is to be seen, for those who do not see it.
    """
    edges, is_log = _bins(groups, threshold)
    place = _scale(edges[0], edges[-1], is_log)
    height, shapes = 74, []
    for row, (name, scores) in enumerate(groups.items()):
        base = 14 + (row + 1) * height
        counts = np.histogram(np.asarray(scores, dtype=float), edges)[0]
        for count, left, right in zip(counts, edges, edges[1:], strict=False):
            if count:
                high = max(1.5, (height - 24) * count / counts.max())
                color = "--anomalous" if left > threshold else "--normal"
                x, width = place(left), max(place(right) - place(left) - 0.6, 0.6)
                shapes.append(
                    f'<rect x="{x:.1f}" y="{base - high:.1f}" width="{width:.1f}" height="{high:.1f}" style="fill: var({color})"/>'
                )
        shapes.append(
            f'<text x="{LEFT}" y="{base - height + 14}">{html.escape(printable(name))}</text>{_line(LEFT, base, RIGHT, base)}'
        )
    bottom = 14 + len(groups) * height
    x = place(threshold)
    anchor = "end" if x > WIDTH - 50 else "start" if x < 50 else "middle"
    shapes.append(
        f'<line x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="{bottom}" style="stroke: var(--text)" stroke-dasharray="4 3"/>'
        f'<text x="{x:.1f}" y="10" text-anchor="{anchor}">threshold</text>'
    )
    shapes += _axis(
        edges[0],
        edges[-1],
        is_log,
        place,
        bottom,
        "anomaly score" + (", logarithmic" if is_log else ""),
    )
    return _svg(bottom + 34, shapes, alt)


def losses(history: pd.DataFrame) -> str:
    """Training and validation loss of each epoch, SVG; columns as in `autoencoder.fit`."""
    values = history[["train_loss", "validation_loss"]].to_numpy(dtype=float)
    low, high = np.log(np.maximum([values.min(), values.max()], 1e-12))
    place = _scale(1, max(2, len(history)), False, 60, RIGHT - 8)
    shapes = [_line(60, 160, RIGHT, 160), _line(60, 14, 60, 160)]
    for value in dict.fromkeys((values.max(), values.min())):
        shapes.append(
            f'<text x="54" y="{_down(value, low, high) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for column, color, dash in (
        ("train_loss", "--normal", ""),
        ("validation_loss", "--anomalous", "4 3"),
    ):
        points = " ".join(
            f"{place(i + 1):.1f},{_down(value, low, high):.1f}"
            for i, value in enumerate(history[column])
        )
        shapes.append(
            f'<polyline points="{points}" fill="none" style="stroke: var({color})" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
    for i, (name, color) in enumerate(
        (("training, solid", "--normal"), ("validation, dashed", "--anomalous"))
    ):
        shapes.append(
            f'<text x="{RIGHT}" y="{24 + 14 * i}" text-anchor="end" style="fill: var({color})">{name}</text>'
        )
    shapes += _axis(1, max(2, len(history)), False, place, 160, "epoch", integer=True)
    return _svg(194, shapes, "Training and validation loss of each epoch, on a logarithmic scale.")


def text_histograms(
    groups: Mapping[str, np.ndarray],
    threshold: float,
    bins: int = 12,
    width: int = 24,
    bar: str = "█",
) -> str:
    """The same as `histograms` for a terminal: the scores downwards, the groups side by side."""
    edges, _ = _bins(groups, threshold, bins)
    names = [f"{name} ({len(scores)})" for name, scores in groups.items()]
    lines = [" " * 12 + "".join(name.ljust(width + 2) for name in names).rstrip()]
    columns = [
        np.histogram(np.asarray(scores, dtype=float), edges)[0] for scores in groups.values()
    ]
    for i, (left, right) in enumerate(zip(edges, edges[1:], strict=False)):
        if left == np.nextafter(threshold, np.inf):
            lines.append("-" * 10 + "  threshold")
        bars = [bar * int(np.ceil(width * counts[i] / counts.max())) for counts in columns]
        lines.append(
            f"{(left + right) / 2:10.4g}  "
            + "".join(each.ljust(width + 2) for each in bars).rstrip()
        )
    return "\n".join(line.rstrip() for line in lines)


def _bins(
    groups: Mapping[str, np.ndarray], threshold: float, n: int = 40
) -> tuple[np.ndarray, bool]:
    """Edges of bins, one of which is the threshold, so that each bin is on one side of it; and whether they are logarithmic."""
    values = np.concatenate([np.asarray(scores, dtype=float) for scores in groups.values()])
    low, high = min(values.min(), threshold), max(values.max(), threshold)
    is_log = bool(low > 0 and high > 4 * low)
    to, back = (np.log, np.exp) if is_log else (np.asarray, np.asarray)
    margin = max(0.02 * (to(high) - to(low)), 1e-3 * abs(to(high)), 1e-9)
    start, stop = to(low) - margin, to(high) + margin
    line = to(threshold)
    step = (stop - start) / n
    left = np.linspace(start, line, max(1, round((line - start) / step)) + 1)
    right = np.linspace(line, stop, max(1, round((stop - line) / step)) + 1)
    edges = back(np.concatenate([left, right[1:]])).astype(float)
    at = len(left) - 1
    edges[at] = np.nextafter(
        threshold, np.inf
    )  # a score that is the threshold itself is not above it
    return edges, is_log


def _scale(
    low: float, high: float, is_log: bool, left: float = LEFT, right: float = RIGHT
) -> Callable[[float], float]:
    """Where a value lies on the horizontal axis."""
    to = np.log if is_log else float
    start, width = to(low), max(to(high) - to(low), 1e-12)
    return lambda value: left + (right - left) * float((to(value) - start) / width)


def _down(value: float, low: float, high: float) -> float:
    """Where a loss lies on the vertical axis, given the logarithms of the lowest and highest."""
    return 150 - 130 * (np.log(max(value, 1e-12)) - low) / max(high - low, 1e-12)


def _axis(
    low: float,
    high: float,
    is_log: bool,
    place: Callable[[float], float],
    y: float,
    label: str,
    integer: bool = False,
) -> list[str]:
    ticks = (
        LogLocator(subs=(1, 2, 5)).tick_values(low, high)
        if is_log
        else MaxNLocator(5, integer=integer).tick_values(low, high)
    )
    ticks = [tick for tick in ticks if low <= tick <= high]
    shapes = [
        f'<text x="{place(tick):.1f}" y="{y + 14}" text-anchor="middle" style="fill: var(--soft)">{tick:g}</text>'
        for tick in ticks
    ]
    return [
        *shapes,
        f'<text x="{WIDTH / 2}" y="{y + 29}" text-anchor="middle" style="fill: var(--soft)">{label}</text>',
    ]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" style="stroke: var(--line)"/>'


def _svg(height: float, shapes: Sequence[str], alt: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(alt)}">{"".join(shapes)}</svg>'
