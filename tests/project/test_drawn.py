"""How hard the second edition of the drawn data set is, see `benchmarks.drawn`."""

import numpy as np
import pandas as pd
import pytest
from conftest import needs_shared

from benchmarks import drawn
from benchmarks.material import Options
from texad.data import datasets, synthetic

WEIGHTS = "weights/resnet50_imagenet_layer3.safetensors"


def table(*means: float) -> pd.DataFrame:
    """Two categories with the same AUROCs, of the six methods in the order of `REAL`."""
    return pd.DataFrame(dict.fromkeys(("carpet", "grid"), means), index=drawn.REAL.columns)


def verdicts(found: pd.DataFrame) -> dict[str, bool | None]:
    return {f"{row.what} {row.bar}": row.holds for row in drawn.verdicts(found)}


def test_a_table_as_wanted_holds_every_bar():
    assert all(verdicts(table(0.9, 0.91, 0.85, 0.92, 0.86, 0.6)).values())


def test_a_saturated_table_and_the_reverse_order_do_not():
    found = verdicts(table(0.99, 0.95, 0.999, 0.8, 0.9, 1.0))
    assert [*found.values()] == [True, False, False, False, True, False]


@pytest.mark.slow
def test_a_quick_run_has_each_detector_and_each_trivial_one(tmp_path):
    rows = drawn.run(Options(quick=True, work=tmp_path))
    said = {row.what: row for row in rows}
    for weights in ("texad", "random"):
        for method in drawn.REAL.columns:
            assert 0 <= said[f"{method}, {weights} weights"].value <= 1
    assert sum(what.startswith("trivial: ") for what in said) == 13


@pytest.fixture(scope="module")
def categories(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    return [
        datasets.load_category(synthetic.write(root, name, edition=2).parent, name)
        for name in synthetic.CATEGORIES
    ]


@pytest.mark.slow
def test_trivial_detectors_find_next_to_nothing(categories):
    for data in categories:
        assert max(drawn.trivial(data).values()) < 0.65, data.name


@pytest.mark.slow
def test_the_data_set_fits_the_disk(categories):
    files = [file for file in categories[0].root.parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 60e6


@pytest.mark.slow
def test_the_published_detector_finds_most_and_not_all(categories, tmp_path):
    weights = str(needs_shared(WEIGHTS))
    aurocs = [
        drawn.detectors(data, weights, tmp_path, ["published"])["published"] for data in categories
    ]
    assert 0.87 < np.mean(aurocs) < 0.95
    assert max(aurocs) < 0.985
