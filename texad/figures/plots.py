"""Pictures. Every function draws what it is given, computes nothing, and returns a matplotlib figure.

Blue stands for normal and orange for anomalous throughout: two colours that stay apart for colour-blind readers (Okabe
and Ito, "Color universal design", 2008), with different shapes or line styles beside, for print without colour.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from texad.figures.overlay import HEAT
from texad.io.escape import for_picture

NORMAL, ANOMALOUS, THRESHOLD = "#0072B2", "#D55E00", "#000000"

plt.rcParams |= {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
}


def _finished(figure: Figure) -> Figure:
    plt.close(figure)  # a notebook then shows it once, as the value of its cell
    return figure


def _panels(n: int, columns: int, size: float) -> tuple[Figure, list[Axes]]:
    columns = max(1, min(n, columns))
    rows = max(1, -(-n // columns))  # without images, one empty panel
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size * columns, (size + 0.3) * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat[:n])


def _logarithmic(axis: Axes, values: np.ndarray | Sequence[float]) -> None:
    """Plain numbers along a logarithmic axis, few enough to stand apart."""
    axis.set_xscale("log")
    is_wide = np.max(values) > 5 * np.min(values)  # else there might be no 1, 2 or 5 in it
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if is_wide else MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _outline(axis: Axes, mask: np.ndarray | None) -> None:
    """Draw the border of the defect, dark under light, so that it shows on any surface."""
    if mask is not None and mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors="black", linewidths=2.4)
        axis.contour(mask, levels=[0.5], colors="#56E3FF", linewidths=1.2)


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
    figure, axes = _panels(len(images), columns, 2.3)
    for i, axis in enumerate(axes):
        axis.imshow(images[i])
        _outline(axis, masks[i] if masks is not None else None)
        axis.set_title(for_picture(titles[i]) if titles is not None else "", fontsize=10)
    return _finished(figure)


def map_grid(
    maps: Sequence[np.ndarray], titles: Sequence[str], columns: int = 6, shared_scale: bool = False
) -> Figure:
    """Feature or error maps side by side: dark is low, bright is high.

    Parameters
    ----------
    maps : sequence of ndarray, shape (H, W)
    titles : sequence of str
    columns : int, default 6
    shared_scale : bool, default False
        Use one scale for all, so that their brightness can be compared.
    """
    figure, axes = _panels(len(maps), columns, 1.7)
    low, high = (
        (min(m.min() for m in maps), max(m.max() for m in maps)) if shared_scale else (None, None)
    )
    for axis, values, title in zip(axes, maps, titles, strict=True):
        drawn = axis.imshow(values, cmap=HEAT, vmin=low, vmax=high)
        axis.set_title(for_picture(title), fontsize=9)
    if shared_scale:
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    return _finished(figure)


def loss_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss of each epoch.

    Parameters
    ----------
    history : DataFrame
        Columns `epoch`, `train_loss`, `validation_loss`.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    axis.plot(history["epoch"], history["train_loss"], "o-", color=NORMAL, label="training")
    axis.plot(
        history["epoch"],
        history["validation_loss"],
        "s--",
        color=ANOMALOUS,
        label="validation (held out)",
    )
    axis.set(xlabel="epoch", ylabel="loss L(θ), logarithmic", yscale="log")
    axis.locator_params("x", integer=True)
    axis.legend(frameon=False)
    return _finished(figure)


def vector_comparison(vector: np.ndarray, reconstruction: np.ndarray, title: str = "") -> Figure:
    """A feature vector and its reconstruction, channel by channel.

    Parameters
    ----------
    vector, reconstruction : ndarray, shape (C,)
    title : str, optional
    """
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    axis.plot(vector, color=NORMAL, label="F", linewidth=1.2)
    axis.plot(reconstruction, "--", color=ANOMALOUS, label="F̂", linewidth=1.2)
    axis.set(xlabel="channel", ylabel="value", title=title)
    axis.legend(frameon=False, ncols=2)
    return _finished(figure)


def sorted_errors(values: np.ndarray, top_k: int) -> Figure:
    """The largest errors of an image in falling order, those that make its score filled.

    Parameters
    ----------
    values : ndarray, shape (n,)
        In falling order, at least `top_k` of them.
    top_k : int
    """
    figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
    colors = [ANOMALOUS if i < top_k else "#BBBBBB" for i in range(len(values))]
    axis.bar(np.arange(1, len(values) + 1), values, color=colors)
    axis.set(xlabel="rank of the error", ylabel="error")
    return _finished(figure)


def score_rows(
    groups: dict[str, np.ndarray],
    thresholds: dict[str, float | None],
    anomalous: Sequence[str] = (),
) -> Figure:
    """Scores of groups of images, a row of dots for each group, with thresholds as lines across all rows.

    Parameters
    ----------
    groups : dict of str to (ndarray, shape (n,))
        Name of the group and its scores; a group may be empty.
    thresholds : dict of str to float or None
        Name of the rule and where its line is; None draws nothing.
    anomalous : sequence of str, optional
        The groups to draw as anomalous; the others are normal.
    """
    figure, axis = plt.subplots(figsize=(7, 0.6 * len(groups) + 1.5), layout="constrained")
    lines = {name: value for name, value in thresholds.items() if value is not None}
    spread = np.random.default_rng(0)  # up and down, so that dots of equal scores show side by side
    for row, (name, scores) in enumerate(groups.items()):
        color, marker = (ANOMALOUS, "^") if name in anomalous else (NORMAL, "o")
        axis.scatter(
            scores,
            row + spread.uniform(-0.25, 0.25, len(scores)),
            color=color,
            marker=marker,
            alpha=0.7,
            linewidths=0,
            s=30,
        )
    for (name, value), style in zip(lines.items(), ("--", ":", "-"), strict=False):
        axis.axvline(value, color=THRESHOLD, linestyle=style, linewidth=1.5, label=name)
    values = np.concatenate([*groups.values(), list(lines.values())])
    if len(values) and values.min() > 0:
        _logarithmic(axis, values)
    axis.set(
        xlabel="anomaly score",
        yticks=range(len(groups)),
        yticklabels=list(map(for_picture, groups)),
        ylim=(len(groups) - 0.5, -0.5),
    )
    if lines:
        axis.legend(title="threshold", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _finished(figure)


def false_alarm_rates(
    gains: Sequence[float], rates: Sequence[float], false_alarms: float
) -> Figure:
    """The share of good images that are called anomalous, under brighter and brighter light.

    Parameters
    ----------
    gains : sequence of float
        How many times as bright as in training.
    rates : sequence of float, as long as `gains`
    false_alarms : float
        The promised rate.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
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
    axis.set(
        xlabel="light, 1 as in training", ylabel="false-alarm rate", ylim=(0, 1), xticks=list(gains)
    )
    axis.legend(frameon=False, loc="upper left")
    return _finished(figure)


# -- the five figures ------------------------------------------------------------------------------


def score_distribution(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Figure:
    """Figure 1: how the scores of normal and of anomalous test images are distributed.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    labels : ndarray, shape (N,)
        0 normal, 1 anomalous.
    threshold : float
    """
    kinds = np.where(np.asarray(labels) == 1, "anomalous", "normal")
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    sns.histplot(
        x=np.asarray(scores, dtype=float),
        hue=kinds,
        hue_order=["normal", "anomalous"],
        palette={"normal": NORMAL, "anomalous": ANOMALOUS},
        bins=40,
        log_scale=bool(np.min(scores) > 0),
        alpha=0.55,
        ax=axis,
    )
    if np.min(scores) > 0:
        _logarithmic(axis, scores)
    line = axis.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5)
    legend = axis.get_legend()
    assert legend is not None  # seaborn has just made it
    handles = [handle for handle in legend.legend_handles if handle is not None]
    axis.legend(
        [*handles, line],
        [text.get_text() for text in legend.get_texts()] + ["threshold"],
        frameon=False,
    )
    axis.set(xlabel="anomaly score", ylabel="test images")
    return _finished(figure)


def heatmaps(
    images: np.ndarray | Sequence[np.ndarray],
    maps: np.ndarray | Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    titles: Sequence[str],
) -> Figure:
    """Figure 2: test images above their anomaly maps, the true defect outlined.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, 3)
    maps : sequence of ndarray, shape (H, W)
        As large as the images; drawn on one scale.
    masks : sequence of (ndarray of bool, shape (H, W)) or None
    titles : sequence of str
    """
    n = len(images)
    figure, axes = plt.subplots(2, n, figsize=(2.0 * n, 4.5), squeeze=False, layout="constrained")
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    for column in range(n):
        top, bottom = axes[:, column]
        top.imshow(images[column])
        bottom.imshow(images[column])
        opacity = 0.25 + 0.6 * (maps[column] - low) / max(
            high - low, 1e-12
        )  # where little is wrong, the surface shows
        drawn = bottom.imshow(maps[column], cmap=HEAT, alpha=opacity, vmin=low, vmax=high)
        for axis in (top, bottom):
            _outline(axis, masks[column])
            axis.set_axis_off()
        top.set_title(for_picture(titles[column]), fontsize=9)
    figure.colorbar(drawn, ax=axes[1, :], shrink=0.85, label="anomaly map")
    return _finished(figure)


def roc_curve(
    false_positive_rate: np.ndarray, true_positive_rate: np.ndarray, auroc: float | None
) -> Figure:
    """Figure 3: the ROC curve with its area.

    Parameters
    ----------
    false_positive_rate, true_positive_rate : ndarray, shape (n,)
    auroc : float or None
    """
    figure, axis = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    label = "no ROC: one kind of image only" if auroc is None else f"AUROC {auroc:.3f}"
    axis.plot(
        false_positive_rate,
        true_positive_rate,
        color=NORMAL,
        linewidth=2,
        label=label,
        clip_on=False,
    )
    axis.plot([0, 1], [0, 1], ":", color="#777777", label="guessing")
    axis.set(
        xlabel="false-positive rate (normal images rejected)",
        ylabel="true-positive rate (defects found)",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axis.legend(loc="lower right", frameon=False)
    return _finished(figure)


def confusion_matrix(confusion: dict[str, int]) -> Figure:
    """Figure 4: decisions against truth.

    Parameters
    ----------
    confusion : dict
        Counts `tn`, `fp`, `fn`, `tp`.
    """
    counts = np.array([[confusion["tn"], confusion["fp"]], [confusion["fn"], confusion["tp"]]])
    figure, axis = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
    names = ["normal", "anomalous"]
    sns.heatmap(
        counts, annot=True, fmt="d", cmap="Blues", cbar=False, square=True, vmin=0, annot_kws={"size": 16},
        xticklabels=names, yticklabels=names, linewidths=1, ax=axis,
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true")
    return _finished(figure)


def scores_by_defect(scores: np.ndarray, defects: np.ndarray, threshold: float) -> Figure:
    """Figure 5: the scores of the normal images and of each defect type.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    defects : ndarray of str, shape (N,)
        "good" for normal images.
    threshold : float
    """
    order = ["good", *sorted(set(defects) - {"good"})]
    palette = [NORMAL if name == "good" else ANOMALOUS for name in order]
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(order) + 1.4), layout="constrained")
    values, kinds = np.asarray(scores, dtype=float), np.asarray(defects)
    boxes = axis.boxplot(
        [values[kinds == name] for name in order],
        positions=range(len(order)),
        orientation="horizontal",
        patch_artist=True,
        showfliers=False,
        widths=0.6,
        medianprops={"color": "black"},
        manage_ticks=False,
    )
    for box, color in zip(boxes["boxes"], palette, strict=True):
        box.set(facecolor=color, alpha=0.3)
    if values.min() > 0:
        _logarithmic(axis, values)
    sns.stripplot(
        x=values,
        y=kinds,
        order=order,
        hue=kinds,
        hue_order=order,
        palette=palette,
        size=3.5,
        jitter=0.2,
        legend=False,
        ax=axis,
    )
    axis.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5)
    axis.text(
        threshold,
        1.01,
        "threshold",
        transform=axis.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize=9,
    )
    axis.set(
        xlabel="anomaly score",
        ylabel="",
        yticks=range(len(order)),
        yticklabels=list(map(for_picture, order)),
    )
    return _finished(figure)


def thresholds_compared(
    scores: np.ndarray, labels: np.ndarray, thresholds: dict[str, float]
) -> Figure:
    """Several thresholds over the same scores: how many images of each kind lie below each.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    labels : ndarray, shape (N,)
        0 normal, 1 anomalous.
    thresholds : dict of str to float
        The name of each rule, and its threshold.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(labels)
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for label, name, color, marker in (
        (0, "normal", NORMAL, "o"),
        (1, "anomalous", ANOMALOUS, "s"),
    ):
        if (labels == label).any():
            axis.ecdf(
                values[labels == label],
                color=color,
                marker=marker,
                markersize=3,
                linewidth=1.2,
                label=name,
            )
    for i, (name, threshold) in enumerate(thresholds.items()):
        style = ("--", ":", "-.")[i % 3]
        axis.axvline(
            threshold, color=THRESHOLD, linestyle=style, linewidth=1.5, label=f"threshold: {name}"
        )
    shown = [*values, *thresholds.values()]
    if min(shown) > 0:
        _logarithmic(axis, shown)
    axis.set(xlabel="anomaly score", ylabel="share of images up to this score", ylim=(0, 1.03))
    axis.legend(frameon=False, fontsize=9)
    return _finished(figure)


def category_comparison(table: pd.DataFrame) -> Figure:
    """Image AUROC of each category, one bar each.

    Parameters
    ----------
    table : DataFrame
        Columns `category` and `image_auroc`.
    """
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(table) + 1.2), layout="constrained")
    bars = axis.barh(
        range(len(table)),
        table["image_auroc"].fillna(0),
        color=NORMAL,
        tick_label=list(map(for_picture, table["category"])),
    )
    axis.bar_label(bars, fmt="%.3f", padding=3)
    axis.axvline(0.5, color="#777777", linestyle=":")
    axis.text(
        0.5,
        1.01,
        "guessing",
        transform=axis.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize=9,
    )
    axis.set(xlabel="image AUROC", xlim=(0, 1.08))
    axis.invert_yaxis()
    return _finished(figure)
