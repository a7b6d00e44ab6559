import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from texad.figures import plots, result_figures

RNG = np.random.default_rng(0)
SCORES = np.array([1.0, 2.0, 3.0, 8.0, 9.0])
LABELS = np.array([0, 0, 0, 1, 1])
DEFECTS = np.array(["good", "good", "good", "cut", "hole"])
IMAGES = RNG.random((3, 8, 8, 3))
MAPS = RNG.random((3, 8, 8))
MASK = np.pad(np.ones((2, 2), dtype=bool), 3)


def bar_heights(figure):
    return [patch.get_height() for axis in figure.axes for patch in axis.patches]


def test_score_distribution_counts_every_image_once():
    figure = result_figures.score_distribution(SCORES, LABELS, 5.0)
    assert sum(bar_heights(figure)) == len(SCORES)
    assert any(np.allclose(line.get_xdata(), 5.0) for line in figure.axes[0].lines)


@pytest.mark.parametrize("scores", [np.array([0.0, 1, 2, 3, 4]), np.full(5, 2.0)])
def test_score_distribution_takes_zeros_and_ties(scores):
    assert sum(bar_heights(result_figures.score_distribution(scores, LABELS, 2.5))) == 5


def test_score_distribution_of_one_kind_only():
    assert sum(bar_heights(result_figures.score_distribution(SCORES[:3], LABELS[:3], 5.0))) == 3


def test_heatmaps_draw_each_image_and_its_map_on_one_scale():
    figure = result_figures.heatmaps(
        IMAGES, MAPS, [None, MASK, np.zeros((8, 8), bool)], ["a", "b", "c"]
    )
    maps = [
        image
        for axis in figure.axes
        for image in axis.get_images()
        if np.ndim(image.get_array()) == 2
    ]
    assert len(maps) == 3 and len({image.get_clim() for image in maps}) == 1


def test_roc_curve_shows_the_area_it_was_given():
    figure = result_figures.roc_curve(np.array([0, 0, 1]), np.array([0, 1, 1]), 0.987)
    assert "0.987" in figure.axes[0].get_legend().get_texts()[0].get_text()
    assert (
        "one kind"
        in result_figures.roc_curve([], [], None).axes[0].get_legend().get_texts()[0].get_text()
    )


def test_confusion_matrix_shows_the_counts_with_truth_in_rows():
    figure = result_figures.confusion_matrix({"tn": 11, "fp": 12, "fn": 21, "tp": 22})
    assert [text.get_text() for text in figure.axes[0].texts] == ["11", "12", "21", "22"]


def test_scores_by_defect_has_a_row_for_each_kind_and_good_first():
    figure = result_figures.scores_by_defect(SCORES, DEFECTS, 5.0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "good",
        "cut",
        "hole",
    ]
    drawn = np.concatenate([points.get_offsets()[:, 0] for points in figure.axes[0].collections])
    np.testing.assert_allclose(sorted(np.ma.filled(drawn)), SCORES)


@pytest.mark.parametrize("scores", [SCORES, SCORES - 1])
def test_thresholds_compared_show_the_shares_below_each_threshold(scores):
    figure = plots.thresholds_compared(scores, LABELS, {"sigma": 2.5, "conformal": 8.5})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert (
        lines["threshold: sigma"].get_xdata()[0] == 2.5
        and lines["threshold: conformal"].get_xdata()[0] == 8.5
    )
    for name, label in (("normal", 0), ("anomalous", 1)):
        x, y = lines[name].get_data()
        for t in (2.5, 8.5):
            assert y[x <= t].max(initial=0) == pytest.approx(np.mean(scores[LABELS == label] <= t))
    assert (
        len({line.get_linestyle() for line in lines.values()}) == 3
    )  # the curves are solid, and each threshold its own


def test_thresholds_compared_of_one_kind_only_and_without_any_threshold():
    assert len(plots.thresholds_compared(SCORES[:3], LABELS[:3], {}).axes[0].lines) == 1


@pytest.mark.parametrize("scores", [SCORES, SCORES - 1])
def test_score_rows_have_a_dot_for_each_image_in_the_row_of_its_group_and_a_line_for_each_threshold(
    scores,
):
    groups = {"good": scores[:3], "cut": scores[3:], "none": scores[:0]}
    figure = plots.score_rows(
        groups, {"sigma": 2.5, "held_out": None, "conformal": 8.5}, anomalous=["cut"]
    )
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(groups)
    for row, (dots, drawn) in enumerate(zip(groups.values(), axis.collections, strict=True)):
        x, y = np.ma.filled(drawn.get_offsets()).T
        np.testing.assert_array_equal(x, dots)
        assert (abs(y - row) < 0.5).all()
    good, cut = (tuple(drawn.get_facecolors()[0]) for drawn in axis.collections[:2])
    assert good != cut
    assert {line.get_label(): line.get_xdata()[0] for line in axis.lines} == {
        "sigma": 2.5,
        "conformal": 8.5,
    }


def test_score_rows_need_no_threshold():
    axis = plots.score_rows({"good": SCORES}, {"conformal": None}).axes[0]
    assert not axis.lines and axis.get_legend() is None


def test_false_alarm_rates_are_drawn_over_the_light_beside_the_promise():
    rates, promise = plots.false_alarm_rates([0.8, 1, 1.2], [0.5, 0.04, 0.6], 0.05).axes[0].lines
    assert rates.get_xdata().tolist() == [0.8, 1, 1.2] and rates.get_ydata().tolist() == [
        0.5,
        0.04,
        0.6,
    ]
    assert set(promise.get_ydata()) == {0.05} and "0.05" in promise.get_label()


def test_the_other_pictures_are_drawn():
    history = pd.DataFrame(
        {"step": [100, 200], "train_loss": [3.0, 2.0], "validation_loss": [3.5, 2.5]}
    )
    assert len(plots.loss_curves(history).axes[0].lines) == 2
    (alone,) = plots.loss_curves(history.assign(validation_loss=np.nan)).axes[0].lines
    assert alone.get_xdata().tolist() == [100, 200]
    assert len(plots.image_grid(IMAGES, ["a", "b", "c"], [None, MASK, None], columns=2).axes) == 4
    assert len(plots.map_grid(MAPS, ["a", "b", "c"], shared_scale=True).axes) == 4
    assert len(plots.vector_comparison(np.arange(5), np.arange(5)).axes[0].lines) == 2
    assert len(plots.sorted_errors(np.arange(9, 0, -1), 3).axes[0].patches) == 9
    table = pd.DataFrame({"category": ["a", "b"], "image_auroc": [0.9, None]})
    assert len(plots.category_comparison(table).axes[0].patches) == 2


def test_no_figure_stays_open():
    before = plt.get_fignums()
    plots.image_grid(IMAGES)
    result_figures.roc_curve([0, 1], [0, 1], 0.5)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("scores", [[61.0, 64.0, 99.0], [3.5, 8.0, 71.0], [0.001, 0.2, 900.0]])
def test_an_axis_of_scores_has_plain_numbers(scores):
    labels, defects = np.array([0, 1, 1]), np.array(["good", "cut", "cut"])
    for figure in (
        result_figures.score_distribution(np.array(scores), labels, scores[1]),
        result_figures.scores_by_defect(np.array(scores), defects, scores[1]),
    ):
        figure.canvas.draw()
        axis = figure.axes[0]
        low, high = axis.get_xlim()
        shown = [
            label.get_text()
            for label in axis.get_xticklabels()
            if low <= label.get_position()[0] <= high
        ]
        assert 2 <= len([text for text in shown if text]) <= 20 and not any(
            "$" in text for text in shown
        )
