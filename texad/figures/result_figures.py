"""The five figures of the method, in order; every function draws what it is given.

They show what stage 5 found for one category: figure 1 the distribution of the scores, figure 2
heatmaps, figure 3 the ROC curve, figure 4 the confusion matrix, figure 5 the scores of each kind of
defect. All return a matplotlib figure.
"""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from texad.figures.overlay import HEAT
from texad.figures.style import (
    ANOMALOUS,
    GUESSING,
    NORMAL,
    one_panel,
    outline,
    panels,
    score_axis,
    threshold_line,
)
from texad.io.escape import for_picture


def score_distribution(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Figure:
    """Figure 1: histograms of the scores of normal and of anomalous test images.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    labels : ndarray, shape (N,)
        0 normal, 1 anomalous.
    threshold : float
    """
    figure, axis = one_panel(7, 3.8, ylabel="test images")
    sns.histplot(
        x=np.asarray(scores, dtype=float),
        hue=np.where(np.asarray(labels) == 1, "anomalous", "normal"),
        hue_order=["normal", "anomalous"],
        palette={"normal": NORMAL, "anomalous": ANOMALOUS},
        bins=40,
        log_scale=bool(np.min(scores) > 0),
        alpha=0.55,
        ax=axis,
    )
    score_axis(axis, scores)
    threshold_line(axis, threshold)
    return figure


def heatmaps(
    images: np.ndarray | Sequence[np.ndarray],
    maps: np.ndarray | Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    titles: Sequence[str],
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Figure 2: test images above their anomaly maps, the true defect outlined.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, 3)
    maps : sequence of ndarray, shape (H, W)
        As large as the images; drawn on one scale. Pixels that are NaN stay clear.
    masks : sequence of (ndarray of bool, shape (H, W)) or None
    titles : sequence of str
    limits : (float, float), optional
        Ends of the scale; by default the lowest and the highest value of these maps.
    """
    n = len(images)
    figure, axes = panels(2 * n, n, 2.0)
    low, high = limits or (min(map(np.nanmin, maps)), max(map(np.nanmax, maps)))
    for top, bottom, image, values, mask, title in zip(
        axes[:n], axes[n:], images, maps, masks, titles, strict=True
    ):
        top.imshow(image)
        top.set_title(for_picture(title), fontsize=9)
        bottom.imshow(image)
        strength = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
        opacity = 0.25 + 0.6 * strength  # where little is wrong, the surface shows
        drawn = bottom.imshow(values, cmap=HEAT, alpha=opacity, vmin=low, vmax=high)
        outline(top, mask)
        outline(bottom, mask)
    figure.colorbar(drawn, ax=axes[n:], shrink=0.85, panchor=False, label="anomaly map")
    return figure


def roc_curve(
    false_positive_rate: np.ndarray, true_positive_rate: np.ndarray, auroc: float | None
) -> Figure:
    """Figure 3: the ROC curve with the area under it.

    Parameters
    ----------
    false_positive_rate, true_positive_rate : ndarray, shape (n,)
    auroc : float or None
        None if there is only one kind of image, and so no curve.
    """
    figure, axis = one_panel(
        4.6,
        4.4,
        xlabel="false-positive rate (normal images rejected)",
        ylabel="true-positive rate (defects found)",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axis.plot(
        false_positive_rate,
        true_positive_rate,
        color=NORMAL,
        linewidth=2,
        label="no ROC: one kind of image only" if auroc is None else f"AUROC {auroc:.3f}",
        clip_on=False,
    )
    axis.plot([0, 1], [0, 1], ":", color=GUESSING, label="guessing")
    axis.legend(loc="lower right")
    return figure


def confusion_matrix(confusion: dict[str, int]) -> Figure:
    """Figure 4: the confusion matrix, truth in rows and decisions in columns.

    Parameters
    ----------
    confusion : dict of str to int
        Counts `tn`, `fp`, `fn`, `tp`; an anomalous image is a positive.
    """
    figure, axis = one_panel(4.4, 3.6)
    names = ["normal", "anomalous"]
    sns.heatmap(
        [[confusion["tn"], confusion["fp"]], [confusion["fn"], confusion["tp"]]],
        annot=True,
        fmt="d",
        cmap="Blues",
        cbar=False,
        square=True,
        vmin=0,
        annot_kws={"size": 16},
        xticklabels=names,
        yticklabels=names,
        linewidths=1,
        ax=axis,
    )
    axis.set(xlabel="predicted", ylabel="true")
    return figure


def scores_by_defect(scores: np.ndarray, defects: np.ndarray, threshold: float) -> Figure:
    """Figure 5: the scores of each kind of defect, a row for each, and good images first.

    Parameters
    ----------
    scores : ndarray, shape (N,)
    defects : ndarray of str, shape (N,)
        Kind of defect; "good" for normal images.
    threshold : float
    """
    order = ["good", *sorted(set(defects) - {"good"})]
    palette = [NORMAL if name == "good" else ANOMALOUS for name in order]
    values, kinds = np.asarray(scores, dtype=float), np.asarray(defects)
    figure, axis = one_panel(7, 0.55 * len(order) + 1.4)
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
    score_axis(axis, values)
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
    threshold_line(axis, threshold)
    axis.set(ylabel="", yticks=range(len(order)), yticklabels=list(map(for_picture, order)))
    return figure
