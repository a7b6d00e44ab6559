"""A run.json or metrics.json that is not what the package wrote is one line that names the file."""

import json

import pytest

from texad.errors import DamagedError, RunError
from texad.io.json_files import read_json
from texad.runs import schema
from texad.runs.run_folder import STAGES, Run

STAGE = {"seconds": 1.5, "parameters": {"seed": 0}, "files": {}, "peak_mb": None}
GOOD = {
    "dataset": "surfaces",
    "category": "steel",
    "versions": {},
    "stages": {STAGES[0]: STAGE},
    "threshold": 1,
    "false_alarms": 0.05,
    "rule": "sigma",
    "data": {
        "folder": "/x",
        "fingerprint": "ab",
        "n_train": 3,
        "n_test": 2,
        "unreadable": [{"path": "a.png", "reason": "empty"}],
    },
    "weights": {"name": "random", "sha256": "00"},
    "places": {"stride": 16, "centre": [0.1, 5.0]},
}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"nonsense", b"[]", b'"text"', b"3", b"null", b"\xff\xfe{}", b"\0" * 100),
        *(b"[" * 200_000, b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}'),
        *(b'{"a": ' + b"9" * 5000 + b"}", b'{"a": ' + b"9" * 400 + b"}", b'{"a": 1} {"b": 2}'),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json_object_is_damaged(tmp_path, content):
    file = tmp_path / "metrics.json"
    file.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        read_json(file)
    message = str(caught.value)
    assert (
        message.startswith(f"{file} is damaged (")
        and message.endswith("; delete it and run the stage again")
        and message.isprintable()
    )


def test_a_folder_in_its_place_is_damaged_and_no_file_is_empty(tmp_path):
    assert read_json(tmp_path / "a.json") == {}
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DamagedError):
        read_json(tmp_path / "a.json")


def test_a_good_record_is_read_as_it_is(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(GOOD))
    assert schema.read(tmp_path / "run.json", schema.RECORD) == GOOD


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stages": "done"}, "stages is of the wrong kind, str"),
        ({"stages": [STAGE]}, "stages is of the wrong kind, list"),
        ({"stages": {STAGES[0]: "done"}}, "stages, 01_preprocessing is of the wrong kind, str"),
        ({"stages": {STAGES[0]: {}}}, "stages, 01_preprocessing, seconds is missing"),
        ({"stages": {STAGES[0]: STAGE | {"seconds": "1"}}}, "seconds is of the wrong kind, str"),
        (
            {"stages": {STAGES[0]: STAGE | {"parameters": []}}},
            "parameters is of the wrong kind, list",
        ),
        (
            {"stages": {"a\nb": STAGE | {"files": 3}}},
            r"stages, a\nb, files is of the wrong kind, int",
        ),
        ({"data": None}, "data is of the wrong kind, NoneType"),
        ({"data": {}}, "data, n_train is missing"),
        ({"data": GOOD["data"] | {"n_test": 2.5}}, "data, n_test is of the wrong kind, float"),
        ({"data": GOOD["data"] | {"folder": ["x"]}}, "data, folder is of the wrong kind, list"),
        ({"data": GOOD["data"] | {"unreadable": 3}}, "data, unreadable is of the wrong kind, int"),
        (
            {"data": GOOD["data"] | {"unreadable": ["a.png"]}},
            "data, unreadable, 0 is of the wrong kind, str",
        ),
        (
            {"data": GOOD["data"] | {"unreadable": [{"path": "a.png", "reason": 3}]}},
            "data, unreadable, 0, reason is of the wrong kind, int",
        ),
        ({"weights": {"name": "random"}}, "weights, sha256 is missing"),
        ({"weights": "random"}, "weights is of the wrong kind, str"),
        ({"threshold": "<script>"}, "threshold is of the wrong kind, str"),
        ({"places": {"stride": 0, "centre": [0, 0]}}, "places, stride is of the wrong kind, int"),
        ({"places": {"stride": 16, "centre": [0]}}, "places, centre is of the wrong kind, list"),
    ],
)
def test_an_entry_of_another_kind_is_named(tmp_path, changes, named):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(GOOD | changes))
    with pytest.raises(DamagedError) as caught:
        schema.read(file, schema.RECORD)
    assert (
        named in str(caught.value)
        and str(file) in str(caught.value)
        and str(caught.value).isprintable()
    )


METRICS = dict.fromkeys(("image_auroc", "accuracy", "precision", "recall", "f1"), 0.5) | {
    "pixel_auroc": None,
    "threshold": 2.5,
    "confusion": {"tn": 1, "fp": 0, "fn": 1, "tp": 0},
    "auroc_by_defect": {"spot": 0.5, "cut": None},
    "weights": {"name": "random", "sha256": "00"},
}


def test_good_metrics_are_read_as_they_are(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"aupro": 0.5}))
    assert schema.read(tmp_path / "metrics.json", schema.METRICS) == METRICS | {"aupro": 0.5}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        *[({name: ...}, f"{name} is missing") for name in METRICS],
        ({"image_auroc": "0.5"}, "image_auroc is of the wrong kind, str"),
        ({"threshold": None}, "threshold is of the wrong kind, NoneType"),
        ({"confusion": {"tn": 1, "fp": 0, "fn": 1}}, "confusion, tp is missing"),
        (
            {"confusion": METRICS["confusion"] | {"fp": 0.5}},
            "confusion, fp is of the wrong kind, float",
        ),
        ({"auroc_by_defect": {"a\nb": "high"}}, r"auroc_by_defect, a\nb is of the wrong kind, str"),
        ({"weights": {"sha256": "00"}}, "weights, name is missing"),
    ],
)
def test_an_entry_of_the_metrics_of_another_kind_or_missing_is_named(tmp_path, changes, named):
    file = tmp_path / "metrics.json"
    file.write_text(
        json.dumps({name: value for name, value in (METRICS | changes).items() if value is not ...})
    )
    with pytest.raises(DamagedError) as caught:
        schema.read(file, schema.METRICS)
    assert (
        named in str(caught.value)
        and str(file) in str(caught.value)
        and str(caught.value).isprintable()
    )


def test_a_notebook_shows_it_as_one_line(surfaces, tmp_path):
    run = Run(surfaces, "steel", tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text("[]")
    for use in (
        run.read,
        lambda: run.start(STAGES[0]),
        lambda: run.start(STAGES[1]),
        run.__repr__,
        lambda: run.parameter("seed"),
    ):
        with pytest.raises(RunError, match="run.json is damaged") as caught:
            use()
        assert caught.value._render_traceback_() == [f"DamagedError: {caught.value}"]


def test_what_a_record_does_not_say_is_one_line_that_says_what_to_run(surfaces, tmp_path):
    run = Run(surfaces, "steel", tmp_path)
    with pytest.raises(
        RunError, match="does not say where the images are: run notebooks/01_preprocessing.ipynb"
    ):
        run.data_paths(["a.png"])
    with pytest.raises(RunError, match="does not say the image_size of an earlier stage"):
        run.parameter("image_size")
