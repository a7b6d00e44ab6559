import numpy as np
import pandas as pd
import pytest

from texad.figures import study_plots

TABLE = pd.DataFrame(
    {
        "method": ["b", "b", "a", "a"],
        "category": ["tile", "wood", "tile", "wood"],
        "auroc": [0.7, 0.8, 0.9, None],
        "low": [0.6, 0.75, 0.85, None],
        "high": [0.75, 1.0, 0.95, None],
    }
)


def drawn(figure):
    """(estimate, low, high, row) of every point in the picture."""
    axis = figure.axes[0]
    points = [
        point
        for line in axis.lines
        if line.get_marker() != "None"
        for point in zip(*line.get_data(), strict=True)
    ]
    lines = [segment for collection in axis.collections for segment in collection.get_segments()]
    assert len(points) == len(lines)
    assert all(y == line[0][1] == line[1][1] for (_, y), line in zip(points, lines, strict=True))
    return [
        (x, line[0][0], line[1][0], round(y)) for (x, y), line in zip(points, lines, strict=True)
    ]


def test_each_point_has_its_interval_and_stands_in_the_row_of_its_method():
    figure = study_plots.points_with_intervals(TABLE, "method", "category")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "b",
        "a",
    ]  # as the table names them
    assert sorted(drawn(figure)) == [
        (0.7, 0.6, 0.75, 0),
        (0.8, 0.75, 1.0, 0),
        (0.9, 0.85, 0.95, 1),
    ]  # the missing one is not drawn


def test_points_of_a_row_stand_apart_and_the_legend_tells_them_apart():
    axis = study_plots.points_with_intervals(TABLE, "method", "category").axes[0]
    heights = [y for line in axis.lines if line.get_marker() != "None" for y in line.get_ydata()]
    assert len(set(heights)) == len(heights)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["tile", "wood"]


def test_without_groups_there_is_one_point_a_row_and_no_legend():
    table = pd.DataFrame(
        {"setting": [16, 4], "auroc": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]}
    )
    figure = study_plots.points_with_intervals(table, rows="setting")
    assert drawn(figure) == [(0.5, 0.4, 0.6, 0), (0.6, 0.5, 0.7, 1)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "16",
        "4",
    ] and figure.axes[0].get_legend() is None


def test_many_groups_differ_in_colour_or_marker():
    n = 40
    table = pd.DataFrame(
        {
            "method": "a",
            "category": range(n),
            "auroc": np.linspace(0.5, 1, n),
            "low": 0.4,
            "high": 1.0,
        }
    )
    axis = study_plots.points_with_intervals(table, "method", "category").axes[0]
    assert (
        len(
            {
                (line.get_color(), line.get_marker())
                for line in axis.lines
                if line.get_marker() != "None"
            }
        )
        == n
    )


def test_a_coloured_table_shows_each_number_at_its_place_and_leaves_out_what_is_missing():
    table = pd.DataFrame(
        {"random": {"cut": 0.5, "a$b$": None}, "trained": {"cut": 1.0, "a$b$": 0.75}}, dtype=float
    )
    axis = study_plots.coloured_table(table).axes[0]
    shown = {
        (text.get_position()[0] - 0.5, text.get_position()[1] - 0.5): text.get_text()
        for text in axis.texts
    }
    assert shown == {(0, 0): "0.500", (1, 0): "1.000", (1, 1): "0.750"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cut", r"a\$b\$"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["random", "trained"]


def test_names_with_dollar_signs_are_no_mathematics(tmp_path):
    table = pd.DataFrame(
        {
            "method": ["a$b$ \\x_$"],
            "category": ["$\\nonsense$"],
            "auroc": 0.5,
            "low": 0.4,
            "high": 0.6,
        }
    )
    study_plots.points_with_intervals(table, "method", "category").savefig(tmp_path / "x.svg")


@pytest.mark.parametrize("column", ["high", "category"])
def test_a_table_without_a_column_says_which(column):
    with pytest.raises(KeyError, match=column):
        study_plots.points_with_intervals(TABLE.drop(columns=column), "method", "category")
