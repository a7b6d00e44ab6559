from pathlib import Path

import pytest

from texad.io.json_files import write_json
from texad.runs.run_folder import STAGES, STUDIES, FinishedRun
from texad.site import cluster_page, markdown


def run_that_cost(
    folder: Path,
    name: str,
    seconds: list[float],
    images=(6, 2, 12),
    peaks=(500.0,) * 5,
    start=2.0,
    features=3000,
    rest=5000,
    **others,
):
    """A run folder with a run.json and files of known sizes."""
    run = folder / "surfaces" / name
    stages = {
        stage: {
            "seconds": s,
            "notebook_seconds": s + start,
            "peak_mb": peak,
            "threads": 2,
            "cores": 8,
        }
        | others
        for stage, s, peak in zip(STAGES, seconds, peaks, strict=True)
    }
    data = dict(zip(("n_train", "n_calibration", "n_test"), images, strict=True))
    write_json(run / "run.json", {"stages": stages, "data": data})
    (run / "features").mkdir()
    (run / "features" / "train.npy").write_bytes(b"x" * features)
    (run / "maps").mkdir()
    (run / "maps" / "test.npy").write_bytes(b"x" * (rest - (run / "run.json").stat().st_size))
    return FinishedRun(run)


@pytest.fixture
def two(tmp_path):
    """26 and 46 seconds of stages, each with 5 x 2 seconds of starting; 2 of 8 cores each."""
    first = run_that_cost(tmp_path, "steel", [1, 10, 8, 4, 3])
    second = run_that_cost(
        tmp_path,
        "wool",
        [3, 20, 12, 6, 5],
        images=(10, 0, 30),
        peaks=(400, 900.5, 700, 600, 500),
        features=5000,
        rest=7000,
    )
    return [first, second]


def test_the_costs_of_a_category_are_the_means_and_the_largest_memory(two):
    costs = cluster_page.measure(two)
    assert costs["n_measured"] == 2 and costs["images"] == 30
    assert list(costs["seconds"].items()) == list(zip(STAGES, (2, 15, 10, 5, 4), strict=True))
    assert costs["start_seconds"] == pytest.approx(10)
    assert costs["total_seconds"] == pytest.approx(46)
    assert (costs["threads"], costs["cores"], costs["at_a_time"]) == (2, 8, 4)
    assert costs["peak_mb"] == 900.5
    # (3000 + 5000 + 5000 + 7000) / 2
    assert (costs["bytes"], costs["feature_bytes"]) == (10_000, 4_000)


@pytest.mark.parametrize(
    ("n", "rows"),
    [  # 46 seconds each, 4 at a time on each machine
        (10_000, ["| 1 | 4 | 2,500 | 31.9 hours |", "| 100 | 400 | 25 | 0.3 hours |"]),
        (1441, ["| 1 | 4 | 361 | 4.6 hours |"]),  # the last round is for one category
        (3, ["| 1 | 4 | 1 | 0.0 hours |", "| 100 | 400 | 1 | 0.0 hours |"]),
    ],
)
def test_hours_worked_out_by_hand(two, n, rows):
    page = markdown.render("beyond_one_machine", costs=cluster_page.measure(two), n=n)
    for row in rows:
        assert row in page.replace("\\", ""), row


def test_the_page_says_what_was_worked_out(two):
    page = " ".join(cluster_page.page(two).replace("\\", "").split())
    for said in (
        "2 measured categories with 30 images each, on average, on a machine with 8 cores",
        "| `02_feature_extraction` | 15.0 | 33% |",
        "| start of the notebooks | 10.0 | 22% |",
        "**46.0**",
        "**256 core hours**",
        "| 1 | 4 | 2,500 | 31.9 hours |",
        "| 10 | 40 | 250 | 3.2 hours |",
        "| 100 | 400 | 25 | 0.3 hours |",
        "| everything is kept | 100.0 MB |",
        "| the features are deleted | 60.0 MB |",
        "900.5 MB for its notebook, so a machine with 4 of them 3.6 GB",
    ):
        assert said in page, said


def test_files_of_the_studies_are_not_a_category_s(two):
    before = cluster_page.measure(two)
    for study in STUDIES:
        file = two[0].folder / "notebooks" / f"{study}.ipynb"
        file.parent.mkdir(exist_ok=True)
        file.write_text("much")
    assert cluster_page.measure(two) == before


def test_memory_that_was_not_measured_is_not_guessed(tmp_path):
    run = run_that_cost(tmp_path, "steel", [1, 2, 3, 4, 5], peaks=(500, None, 500, 500, 500))
    assert cluster_page.measure([run])["peak_mb"] is None
    page = " ".join(cluster_page.page([run]).split())
    assert "Memory was not measured in these runs." in page and "None" not in page


def test_runs_of_an_older_batch_are_left_out(two):
    record = two[0].read()
    record["stages"][STAGES[3]].pop("threads")
    write_json(two[0].folder / "run.json", record)
    assert cluster_page.measure(two)["n_measured"] == 1
    record = two[1].read()
    record["stages"].pop(STAGES[4])
    write_json(two[1].folder / "run.json", record)
    assert cluster_page.measure(two) is None
    page = " ".join(cluster_page.page(two).replace("\\", "").split())
    assert "nothing can be worked out here" in page and "core hours" not in page


@pytest.mark.parametrize("name", ["threads", "cores", "notebook_seconds"])
@pytest.mark.parametrize("unknown", [None, 0])
def test_runs_that_do_not_say_on_how_many_cores_are_left_out(two, name, unknown):
    record = two[0].read()
    record["stages"][STAGES[1]][name] = unknown
    write_json(two[0].folder / "run.json", record)
    assert cluster_page.measure(two) == cluster_page.measure(two[1:])


def test_runs_that_do_not_say_of_how_many_images_are_left_out(two):
    record = two[0].read()
    del record["data"]
    write_json(two[0].folder / "run.json", record)
    assert cluster_page.measure(two) == cluster_page.measure(two[1:])


def test_an_older_run_that_kept_no_images_out_counts_those_it_had(two):
    record = two[0].read()
    del record["data"]["n_calibration"]
    write_json(two[0].folder / "run.json", record)
    assert cluster_page.measure(two[:1])["images"] == 6 + 12


@pytest.mark.parametrize(
    ("hours", "text"), [(47.9, "47.9 hours"), (48, "2.0 days"), (1200, "50.0 days")]
)
def test_long_times_are_days(hours, text):
    assert markdown.hours(hours) == text
