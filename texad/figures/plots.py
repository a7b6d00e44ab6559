"""Figures beside the five of the method; every function draws what it is given, nothing more.

All return a matplotlib figure. The five figures are in `texad.figures.result_figures`, those of the
studies in `texad.figures.study_plots`.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from texad.figures.overlay import HEAT
from texad.figures.style import (
    ANOMALOUS,
    GUESSING,
    NORMAL,
    THRESHOLD,
    label_above,
    one_panel,
    outline,
    panels,
    score_axis,
)
from texad.io.escape import for_picture


def image_grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
    columns: int = 4,
) -> Figure:
    """Images side by side, the defects outlined.

    Parameters
    ----------
    images : sequence of ndarray, each of shape (H, W, 3) in [0, 1] or uint8
    titles : sequence of str, optional
    masks : sequence of (ndarray of bool, shape (H, W)) or None, optional
    columns : int, default 4
    """
    figure, axes = panels(len(images), columns, 2.3)
    for i, axis in enumerate(axes):
        axis.imshow(images[i])
        outline(axis, masks[i] if masks is not None else None)
        axis.set_title(for_picture(titles[i]) if titles is not None else "", fontsize=10)
    return figure


def map_grid(
    maps: Sequence[np.ndarray], titles: Sequence[str], columns: int = 6, shared_scale: bool = False
) -> Figure:
    """Feature or error maps side by side: dark is low, bright is high.

    Parameters
    ----------
    maps : sequence of ndarray, shape (H, W)
        Places that are NaN stay empty.
    titles : sequence of str
    columns : int, default 6
    shared_scale : bool, default False
        Use one scale for all, so that their brightness can be compared.
    """
    figure, axes = panels(len(maps), columns, 1.7)
    low = min(map(np.nanmin, maps)) if shared_scale else None
    high = max(map(np.nanmax, maps)) if shared_scale else None
    for axis, values, title in zip(axes, maps, titles, strict=True):
        drawn = axis.imshow(values, cmap=HEAT, vmin=low, vmax=high)
        axis.set_title(for_picture(title), fontsize=9)
    if shared_scale:
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    return figure


def loss_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss along the steps of the training.

    Parameters
    ----------
    history : DataFrame
        Columns `step`, `train_loss`, `validation_loss`. Where no image was held out, the last is
        NaN, and the training loss stands alone.
    """
    figure, axis = one_panel(6.5, 3.6, xlabel="step", ylabel="loss L(θ), logarithmic", yscale="log")
    for column, label, line, color in (
        ("train_loss", "training", "o-", NORMAL),
        ("validation_loss", "validation (held out)", "s--", ANOMALOUS),
    ):
        if history[column].notna().any():
            axis.plot(history["step"], history[column], line, color=color, label=label)
    axis.locator_params("x", integer=True)
    axis.legend()
    return figure


def vector_comparison(vector: np.ndarray, reconstruction: np.ndarray, title: str = "") -> Figure:
    """A feature vector and its reconstruction, channel by channel.

    Parameters
    ----------
    vector, reconstruction : ndarray, shape (C,)
    title : str, optional
    """
    figure, axis = one_panel(7, 3, xlabel="channel", ylabel="value", title=title)
    axis.plot(vector, color=NORMAL, label="F", linewidth=1.2)
    axis.plot(reconstruction, "--", color=ANOMALOUS, label="F̂", linewidth=1.2)
    axis.legend(ncols=2)
    return figure


def sorted_errors(values: np.ndarray, top_k: int) -> Figure:
    """The largest errors of an image in descending order, those that make its score coloured.

    Parameters
    ----------
    values : ndarray, shape (n,)
        In descending order, at least `top_k` of them.
    top_k : int
    """
    figure, axis = one_panel(6.5, 3, xlabel="rank of the error", ylabel="error")
    ranks = np.arange(1, len(values) + 1)
    axis.bar(ranks, values, color=np.where(ranks <= top_k, ANOMALOUS, "#BBBBBB"))
    return figure


def score_rows(
    groups: dict[str, np.ndarray],
    thresholds: dict[str, float | None],
    anomalous: Sequence[str] = (),
) -> Figure:
    """Scores of groups of images, a row of dots for each group, with thresholds across all rows.

    Parameters
    ----------
    groups : dict of str to (ndarray, shape (n,))
        Name of the group and its scores; a group may be empty.
    thresholds : dict of str to float or None
        Name of the rule and where its line is; None draws nothing.
    anomalous : sequence of str, optional
        The groups to draw as anomalous; the others are normal.
    """
    figure, axis = one_panel(
        7,
        0.6 * len(groups) + 1.5,
        yticks=range(len(groups)),
        yticklabels=list(map(for_picture, groups)),
        ylim=(len(groups) - 0.5, -0.5),
    )
    lines = {name: value for name, value in thresholds.items() if value is not None}
    spread = np.random.default_rng(0)  # up and down, so that dots of equal scores show side by side
    for row, (name, scores) in enumerate(groups.items()):
        color, marker = (ANOMALOUS, "^") if name in anomalous else (NORMAL, "o")
        heights = row + spread.uniform(-0.25, 0.25, len(scores))
        axis.scatter(scores, heights, s=30, color=color, marker=marker, alpha=0.7, linewidths=0)
    for (name, value), style in zip(lines.items(), ("--", ":", "-"), strict=False):
        axis.axvline(value, color=THRESHOLD, linestyle=style, linewidth=1.5, label=name)
    score_axis(axis, np.concatenate([*groups.values(), list(lines.values())]))
    if lines:
        axis.legend(title="threshold", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def false_alarm_rates(
    gains: Sequence[float], rates: Sequence[float], false_alarms: float
) -> Figure:
    """The fraction of good images that are called anomalous, under brighter and brighter light.

    Parameters
    ----------
    gains : sequence of float
        How many times as bright as in training.
    rates : sequence of float, as long as `gains`
    false_alarms : float
        The promised rate.
    """
    figure, axis = one_panel(
        6.5,
        3.2,
        xlabel="light, 1 as in training",
        ylabel="false-alarm rate",
        xticks=list(gains),
        ylim=(0, 1),
    )
    axis.plot(
        gains,
        rates,
        "o-",
        color=NORMAL,
        label="good images called anomalous",
        clip_on=False,
        zorder=3,
    )
    axis.axhline(false_alarms, color=THRESHOLD, linestyle=":", label=f"α = {false_alarms:g}")
    axis.legend(loc="upper left")
    return figure


def thresholds_compared(
    scores: np.ndarray, labels: np.ndarray, thresholds: dict[str, float]
) -> Figure:
    """Thresholds over the cumulative distributions of the scores: how many images are below each.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    labels : ndarray, shape (N,)
        0 normal, 1 anomalous.
    thresholds : dict of str to float
        Name of each rule and its threshold.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(labels)
    figure, axis = one_panel(7, 3.8, ylabel="fraction of images up to this score", ylim=(0, 1.03))
    for label, name, color, marker in (
        (0, "normal", NORMAL, "o"),
        (1, "anomalous", ANOMALOUS, "s"),
    ):
        if (labels == label).any():
            axis.ecdf(
                values[labels == label],
                color=color,
                label=name,
                linewidth=1.2,
                marker=marker,
                markersize=3,
            )
    for (name, threshold), style in zip(thresholds.items(), cycle(("--", ":", "-.")), strict=False):
        axis.axvline(threshold, color=THRESHOLD, linestyle=style, label=f"threshold: {name}")
    score_axis(axis, [*values, *thresholds.values()])
    axis.legend(fontsize=9)
    return figure


def category_comparison(table: pd.DataFrame) -> Figure:
    """Image AUROC of each category, one bar each.

    Parameters
    ----------
    table : DataFrame
        Columns `category` and `image_auroc`.
    """
    figure, axis = one_panel(7, 0.45 * len(table) + 1.2, xlabel="image AUROC", xlim=(0, 1.08))
    names, aurocs = table["category"].map(for_picture), table["image_auroc"].fillna(0)
    bars = axis.barh(range(len(table)), aurocs, color=NORMAL, tick_label=names)
    axis.bar_label(bars, fmt="%.3f", padding=3)
    axis.axvline(0.5, color=GUESSING, linestyle=":")
    label_above(axis, 0.5, "guessing")
    axis.invert_yaxis()
    return figure
