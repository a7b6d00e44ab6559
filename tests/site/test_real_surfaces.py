import copy
import json
import re
import shlex
from datetime import date
from pathlib import Path

import pytest
from conftest import ROOT, texad

from texad.__main__ import main
from texad.commands.parser import parser
from texad.errors import RunError
from texad.io.json_files import write_json
from texad.model.registry import DETECTORS
from texad.model.threshold import RULES
from texad.runs.parameters import COMMON, defaults, parse_values
from texad.runs.run_folder import STAGES
from texad.site import real_surfaces, record

HOSTILE = "brushed <b>& {ü}nusual | `x`"
COMPARISON = """\
category,method,auroc,low,high,auroc_all_places,false_alarm_rate,miss_rate,pixel_auroc,aupro,\
fit_seconds,score_ms,megabytes
other,published,0.111,0.1,0.2,0.5,,,0.9,0.7,1.0,2.0,3.0
tile,published,0.81,0.75,0.87,0.8,0.05,0.3,0.9,0.7,10.0,2.0,5.2
tile,"nearest | neighbours",0.94,0.91,0.97,0.9,,,,,0.5,16.0,6.1
"""


def decisions(false_alarms, misses):
    rates = {
        "false_alarm_rate": false_alarms,
        "false_alarm_interval": [0.0, 0.3],
        "miss_rate": misses,
        "miss_interval": [0.1, 0.6],
    }
    return rates | {"confusion": {"tn": 19, "fp": 1, "fn": 6, "tp": 14}}


def write_run(
    runs: Path,
    category="tile",
    detector="published",
    seed=0,
    *,
    dataset="photographs",
    auroc=0.8,
    by_defect=None,
    studies=False,
    **given,
) -> Path:
    """A run folder as the five notebooks leave it, without the large files.

    `given` are parameters of the notebooks.
    """
    folder = runs / dataset / category
    folder.mkdir(parents=True)
    asked = given | {"detector": detector, "seed": seed}
    parameters = {
        stage: {
            name: asked.get(name, value)
            for name, value in defaults(stage).items()
            if name in asked or name not in COMMON
        }
        for stage in STAGES
    }
    stages = {
        stage: {"parameters": parameters[stage], "seconds": 10.0 * i}
        for i, stage in enumerate(STAGES, start=1)
    }
    stages[STAGES[1]]["parameters"]["weights"] = "/home/somebody/resnet50.pth"
    if studies:
        stages["06_comparison"] = {"parameters": {}, "seconds": 1.0}
        (folder / "comparison.csv").write_text(COMPARISON)
    write_json(
        folder / "run.json",
        {
            "versions": {
                "texad": "0.1.0",
                "torch": "2.14.1",
                "torchvision": "0.29.1",
                "python": "3.11.7",
            },
            "stages": stages,
            "data": {
                "folder": "/home/somebody/photographs/tile",
                "fingerprint": "a" * 64,
                "n_train": 80,
                "n_calibration": 20,
                "n_test": 40,
            },
            "weights": {"name": "resnet50.pth", "sha256": "b" * 64},
            "rule": "sigma" if detector == "published" else "conformal",
            "false_alarms": 0.05,
        },
    )
    numbers = {
        "image_auroc": auroc,
        "image_auroc_interval": [auroc - 0.06, auroc + 0.03],
        "average_precision": 0.9,
        "pixel_auroc": None,
        "aupro": 0.123456789,
    }
    rules = {
        "sigma": {"threshold": 2.5, "accuracy": 0.7, **decisions(0.1, 0.3)},
        "held_out": {"threshold": 3.0, **decisions(0.0, 0.5)},
        "conformal": None,
    }
    metrics = numbers | {
        "f1": 0.8,
        "f1_max": 0.85,
        "threshold": 2.5,
        "accuracy": 0.7,
        "n_train": 80,
        **decisions(0.1, 0.3),
        "decisions_by_rule": rules,
    }
    write_json(
        folder / "metrics.json",
        metrics
        | {"auroc_by_defect": by_defect or {"crack": 0.9, "fray": 0.6}, "auroc_by_severity": {}},
    )
    return runs


def several(tmp_path) -> list[Path]:
    """Two seeds of the published detector, the first with the studies, one of the extended one."""
    return [
        write_run(tmp_path / "p1", seed=1, auroc=0.9, by_defect={"crack": 0.95, "fray": 0.4}),
        write_run(tmp_path / "p0", seed=0, auroc=0.8, studies=True),
        write_run(
            tmp_path / "e0",
            detector="extended",
            auroc=0.96,
            by_defect={"crack": 0.915, "fray": 0.97},
        ),
    ]


@pytest.fixture
def content(tmp_path) -> dict:
    return json.loads(record.record(several(tmp_path), tmp_path / "book" / record.FILE).read_text())


def recorded_page(tmp_path, content) -> str:
    """The page of a book that was made of synthetic textures alone."""
    write_run(tmp_path / "synthetic runs", dataset="synthetic", category="leather")
    write_json(tmp_path / "book" / record.FILE, content)
    return real_surfaces.page(tmp_path / "synthetic runs", tmp_path / "book" / "run")


def prose(page: str) -> str:
    """The page on one line, since its templates break lines anywhere."""
    return " ".join(page.split())


def cells(page: str, label: str) -> list[list[str]]:
    """The cells beside a label, in every table that has it."""
    return [
        re.split(r" \| ", line.strip("| "))[1:]
        for line in page.splitlines()
        if line.startswith(f"| {label} |")
    ]


# -- the record ------------------------------------------------------------------------------------


def test_the_committed_record_fits_its_schema():
    file = ROOT / "book" / record.FILE
    if not file.exists():
        pytest.skip("no results on real surfaces are recorded yet")

    def refuse(word):
        raise AssertionError(f"JSON has no {word}")

    text = file.read_text(encoding="utf-8")
    committed = json.loads(text, parse_constant=refuse)
    record.check(committed, file)
    assert len(text) < 300_000
    assert [run for run in committed["runs"] if run["dataset"] == "synthetic"] == []
    for run in committed["runs"]:  # what the numbers say of each other
        metrics, counts = run["metrics"], run["metrics"]["confusion"]
        assert sum(counts.values()) == run["n_test"]
        assert metrics["false_alarm_rate"] == pytest.approx(
            counts["fp"] / (counts["fp"] + counts["tn"]), rel=1e-5
        )
        assert (
            metrics["image_auroc_interval"][0]
            <= metrics["image_auroc"]
            <= metrics["image_auroc_interval"][1]
        )
        assert metrics["decisions_by_rule"][run["rule"]]["confusion"] == counts


def test_the_schema_knows_all_detectors_and_rules():
    run = record.SCHEMA["$defs"]["run"]["properties"]
    assert run["detector"]["enum"] == list(DETECTORS) and run["rule"]["enum"] == list(RULES)
    assert list(record.METRICS["decisions_by_rule"]["properties"]) == list(RULES)


def test_a_record_says_what_was_found_and_where_it_comes_from(content):
    assert date.fromisoformat(content["date"]) and content["texad"]
    assert [(run["detector"], run["seed"]) for run in content["runs"]] == [
        ("published", 0),
        ("published", 1),
        ("extended", 0),
    ]
    run = content["runs"][0]
    assert (
        run["dataset"],
        run["category"],
        run["n_train"],
        run["n_calibration"],
        run["n_test"],
    ) == ("photographs", "tile", 80, 20, 40)
    assert (run["data_sha256"], run["weights"]) == (
        "a" * 64,
        {"name": "resnet50.pth", "sha256": "b" * 64},
    )
    assert run["metrics"]["image_auroc_interval"] == [0.74, 0.83]
    assert run["metrics"]["aupro"] == 0.123457  # six digits
    assert run["metrics"]["decisions_by_rule"]["sigma"] == {"threshold": 2.5, **decisions(0.1, 0.3)}
    assert run["metrics"]["decisions_by_rule"]["conformal"] is None
    assert [row["method"] for row in run["comparison"]] == [
        "published",
        "nearest | neighbours",
    ]  # and none of the other category
    assert run["comparison"][1]["aupro"] is None and run["comparison"][1]["auroc"] == 0.94
    assert content["runs"][1]["comparison"] == []


def test_a_record_names_no_path_of_this_machine(tmp_path, content):
    text = json.dumps(content)
    assert "/" not in text and "somebody" not in text and str(tmp_path) not in text
    masked = write_run(tmp_path / "masked", region="/home/somebody/mask.png")
    (run,) = record.collect([masked])["runs"]
    assert run["parameters"] == {"region": "mask.png"}


def test_the_recorded_command_makes_the_run_again(tmp_path):
    runs = write_run(tmp_path / "runs", HOSTILE, "extended", 3, steps=30, normalize=True)
    (run,) = record.collect([runs])["runs"]
    assert run["parameters"] == {"normalize": True, "detector": "extended", "steps": 30}
    python, _, program, *typed = shlex.split(
        run["command"].replace("<folder>", "FOLDER").replace("<weights>", "WEIGHTS")
    )
    options = parser().parse_args(typed)
    assert (python, program) == ("python", "texad")
    assert (options.dataset, options.category, options.weights, options.seed, options.studies) == (
        "FOLDER",
        HOSTILE,
        "WEIGHTS",
        [3],
        False,
    )
    typed = parse_values(dict(options.parameters))
    assert typed == {name: [value] for name, value in run["parameters"].items()}


def test_the_command_names_mvtec_and_known_weights_and_the_studies(tmp_path):
    runs = write_run(tmp_path / "runs", dataset="mvtec", studies=True)
    file = runs / "mvtec" / "tile" / "run.json"
    write_json(
        file, json.loads(file.read_text()) | {"weights": {"name": "imagenet", "sha256": "b" * 64}}
    )
    (run,) = record.collect([runs])["runs"]
    assert run["command"] == (
        "python -m texad run --dataset mvtec --category tile --weights imagenet --seed 0 --studies"
    )


def test_a_comparison_of_an_earlier_run_is_not_recorded(tmp_path):
    runs = write_run(tmp_path / "runs")
    (runs / "photographs" / "tile" / "comparison.csv").write_text(
        COMPARISON
    )  # but run.json knows of no such study
    assert record.collect([runs])["runs"][0]["comparison"] == []


def test_synthetic_and_unfinished_runs_are_no_results_on_real_surfaces(tmp_path):
    runs = write_run(tmp_path / "runs", dataset="synthetic", category="leather")
    write_run(runs, "unfinished")
    file = runs / "photographs" / "unfinished" / "run.json"
    unfinished = json.loads(file.read_text())
    del unfinished["stages"][STAGES[-1]]
    write_json(file, unfinished)
    with pytest.raises(RunError, match="no finished run of real surfaces in .*texad run --dataset"):
        record.record([runs], tmp_path / "record.json")
    with pytest.raises(RunError, match="nowhere is no folder"):
        record.record([tmp_path / "nowhere"], tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run["data"].update(fingerprint="c" * 64), "different data"),
        (lambda run: run["weights"].update(sha256="c" * 64), "different weights"),
        (
            lambda run: run["stages"][STAGES[2]]["parameters"].update(steps=3),
            "different parameters",
        ),
        (
            lambda run: run["stages"][STAGES[2]]["parameters"].update(seed=0),
            r"same seed \(0\) and detector \(published\)",
        ),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(tmp_path, change, words):
    folders = [write_run(tmp_path / "a", seed=0), write_run(tmp_path / "b", seed=1)]
    assert len(record.collect([*folders, folders[0]])["runs"]) == 2  # the same folder twice is once
    file = folders[1] / "photographs" / "tile" / "run.json"
    content = json.loads(file.read_text())
    change(content)
    write_json(file, content)
    with pytest.raises(RunError, match=words):
        record.collect(folders)


def test_a_run_whose_numbers_are_not_all_there_is_refused(tmp_path):
    runs = write_run(tmp_path / "runs")
    file = runs / "photographs" / "tile" / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["decisions_by_rule"]
    write_json(file, metrics)
    with pytest.raises(RunError, match="another version: run it again.*decisions_by_rule"):
        record.record([runs], tmp_path / "record.json")
    page = real_surfaces.page(runs, tmp_path / "book" / "run")
    # the page shows what there is
    assert cells(page, r"published, resnet50\.pth")[0][1] == "0.800"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("run.json", lambda record: record.pop("data"), "KeyError: 'data'"),
        ("run.json", lambda record: record.pop("weights"), "KeyError: 'weights'"),
        (
            "run.json",
            lambda record: record["stages"].pop(STAGES[0]),
            "KeyError: '01_preprocessing'",
        ),
        (
            "run.json",
            lambda record: record["stages"][STAGES[2]]["parameters"].pop("seed"),
            "KeyError: 'seed'",
        ),
        (
            "run.json",
            lambda record: record["stages"][STAGES[2]]["parameters"].update(seed="0"),
            "the detector is 'published' and the seed '0'",
        ),
        (
            "run.json",
            lambda record: record["stages"][STAGES[2]]["parameters"].update(detector=["new"]),
            "the detector is ['new'] and the seed 0",
        ),
        ("metrics.json", lambda metrics: metrics.update(decisions_by_rule="all"), "AttributeError"),
        (
            "metrics.json",
            lambda metrics: metrics.update(decisions_by_rule={"sigma": "2.5"}),
            "AttributeError",
        ),
    ],
)
def test_a_run_in_which_something_is_missing_or_of_another_kind_is_one_line_that_names_it(
    tmp_path, name, change, said
):
    file = write_run(tmp_path / "runs") / "photographs" / "tile" / name
    content = json.loads(file.read_text())
    change(content)
    write_json(file, content)
    with pytest.raises(RunError) as caught:
        record.collect([tmp_path / "runs"])
    message = str(caught.value)
    assert (
        message.startswith(f"{file.parent} is damaged, or of another version: run it again (")
        and said in message
        and message.isprintable()
    )


def broken(place, value=...):
    """A change of the record; without a value the entry is removed."""

    def change(content):
        *folders, last = place
        for name in folders:
            content = content[name]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


RUN = ("runs", 0)


@pytest.mark.parametrize(
    "change",
    [
        broken(["date"]),
        broken(["date"], "yesterday"),
        broken(["texad"]),
        broken(["runs"], []),
        broken(["more"], 1),
        broken([*RUN, "data_sha256"], "a" * 12),
        broken([*RUN, "weights", "sha256"]),
        broken([*RUN, "weights", "name"], "/home/me/w.pth"),
        broken([*RUN, "detector"], "other"),
        broken([*RUN, "rule"], None),
        broken([*RUN, "false_alarms"], 0),
        broken([*RUN, "seed"], "0"),
        broken([*RUN, "n_test"], -1),
        broken([*RUN, "command"], "python -m texad run --dataset /home/me"),
        broken([*RUN, "versions", "torch"]),
        broken([*RUN, "metrics", "image_auroc"], 1.5),
        broken([*RUN, "metrics", "aupro"]),
        broken([*RUN, "metrics", "image_auroc_interval"], [0.5]),
        broken([*RUN, "metrics", "miss_rate"], "none"),
        broken([*RUN, "metrics", "confusion", "fp"], 0.5),
        broken([*RUN, "metrics", "auroc_by_defect", "crack"], 2),
        broken([*RUN, "metrics", "auroc_by_defect", "a/b"], 0.5),
        broken([*RUN, "metrics", "decisions_by_rule", "sigma", "threshold"]),
        broken([*RUN, "metrics", "decisions_by_rule", "held_out"]),
        broken([*RUN, "comparison", 0, "method"]),
        broken([*RUN, "comparison", 0, "aupro"], -0.1),
        broken([*RUN, "comparison", 0, "score_ms"], "fast"),
        broken([*RUN, "leak"], {"honest": "tile"}),
    ],
)
def test_a_record_that_does_not_fit_its_schema_is_refused(content, change):
    record.check(content)
    damaged = copy.deepcopy(content)
    change(damaged)
    with pytest.raises(
        RunError, match=r"real_surfaces.json does not fit its schema at \$.*texad record"
    ):
        record.check(damaged)


def test_the_command_line_records_or_says_in_one_line_why_not(tmp_path, capsys):
    runs = write_run(tmp_path / "runs")
    assert main(["record", str(runs), "--to", str(tmp_path / "record.json")]) == 0
    record.check(json.loads((tmp_path / "record.json").read_text()))
    assert capsys.readouterr().out == f"{tmp_path / 'record.json'}\n"
    assert main(["record", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("texad: ") and error.count("\n") == 1


# -- the page --------------------------------------------------------------------------------------


def test_without_real_surfaces_the_page_shows_the_record_and_its_provenance(tmp_path, content):
    page = recorded_page(tmp_path, content)
    assert page.startswith(
        "# Real surfaces\n"
    ) and f"recorded on {content['date']} with texad" in prose(page)
    assert cells(page, "tile") == [["published", "0.850"], ["extended", "0.960"]]
    assert cells(page, r"published, resnet50\.pth") == [
        ["0, 1", "0.850 (0.800 to 0.900)", "0.740 to 0.830", "0.900", "–", "0.123"],
        ["`sigma`", "–", "10.0%", "30.0%"],
    ]
    assert cells(page, r"extended, resnet50\.pth") == [
        ["0", "0.960", "0.900 to 0.990", "0.900", "–", "0.123"],
        ["`conformal`", "5.0% (0.0% to 15.0%)", "–", "–"],
    ]
    assert cells(page, "crack") == [["0.925", "0.915"]]
    assert cells(page, "fray") == [["0.500", "0.970"]]
    for fact in (
        "sha256 `aaaaaaaaaaaa…`",
        r"resnet50\.pth, sha256 `bbbbbbbbbbbb…`",
        r"torch 2\.14\.1",
        "`book/real_surfaces.json`",
        "80 good images",
    ):
        assert fact in page, fact
    for run in content["runs"]:  # the seeds have different studies, and so no common command
        assert run["command"] in page.splitlines()


def test_commands_that_differ_in_the_seed_alone_are_one(tmp_path):
    folders = [write_run(tmp_path / f"{i}", HOSTILE, seed=i, steps=30) for i in (0, 1, 12)]
    content = record.collect(folders)
    page = recorded_page(tmp_path, content)
    (command,) = [line for line in page.splitlines() if line.startswith("python -m texad run")]
    assert command.replace("0,1,12", "0") == content["runs"][0]["command"]


LEAK = {"honest": "tile", "known_good": 0.75, "known_defective": 0.25}


def leaking(tmp_path, content):
    """A record with runs of the same tiles, shuffled."""
    folder = write_run(tmp_path / "shuffled", "shuffled tiles", auroc=0.95, studies=True)
    found = record.collect([folder, write_run(tmp_path / "s1", "shuffled tiles", "extended")])
    for run in found["runs"]:
        run["leak"] = LEAK
        run["comparison"] = [
            {**row, "category": "shuffled tiles", "auroc": 0.97}
            for row in content["runs"][0]["comparison"] * (run["detector"] == "published")
        ]
    return content | {"runs": content["runs"] + found["runs"]}


def test_a_split_that_leaks_stands_beside_the_honest_one_and_nowhere_else(tmp_path, content):
    page = recorded_page(tmp_path, leaking(tmp_path, content))
    assert "**75%** have a sister" in prose(page) and "**25%** have one" in prose(page)
    assert cells(page, "published detector") == [["0.950", "0.850", "−0.100"]]
    assert cells(page, "extended detector") == [["0.800", "0.960", "+0.160"]]
    assert cells(page, r"nearest \| neighbours")[0] == ["0.970", "0.940", "−0.030"]
    assert "Here it is *published detector*, which loses 0.100;" in page
    assert (
        r"*nearest \| neighbours* is best when the photographs are shuffled, and *extended "
        "detector* when they are split by piece" in prose(page)
    )
    assert "## shuffled" not in page and cells(page, "shuffled tiles") == []
    assert "<svg" in (tmp_path / "book" / "run" / "leak_0.svg").read_text()


def test_a_split_that_leaks_is_shown_though_the_honest_one_is_missing(tmp_path, content):
    runs = leaking(tmp_path, content)["runs"][3:]
    page = recorded_page(tmp_path, content | {"runs": runs})
    assert cells(page, "published detector") == [["0.950", "–", "–"]]
    assert "Here it is" not in page and "is best when" not in page


def test_results_of_a_split_that_leaks_stay_in_the_record(tmp_path, content):
    file = tmp_path / "book" / record.FILE
    write_json(file, leaking(tmp_path, content))
    runs = write_run(tmp_path / "again", seed=7)
    record.record([runs], file)
    again = json.loads(file.read_text())
    record.check(again)
    assert [run["seed"] for run in again["runs"] if "leak" not in run] == [7]
    assert [run["category"] for run in again["runs"] if "leak" in run] == ["shuffled tiles"] * 2


def test_the_page_says_where_each_detector_loses(tmp_path, content):
    page = prose(recorded_page(tmp_path, content))
    assert (
        "The published detector is weakest on *fray*, with an AUROC, on average over 2 seeds, "
        "of **0.500**" in page
    )
    assert "The extended detector is weakest on *crack*, with an AUROC of **0.915**" in page
    assert "The extended detector is behind the published one on *crack* (by 0.010)." in page
    assert "it rejects 10.0% of the good images and misses 30.0% of the defective ones." in page
    content["runs"][2]["metrics"]["auroc_by_defect"]["crack"] = 0.93
    assert "On no kind of defect is the extended detector behind" in recorded_page(
        tmp_path / "again", content
    )


def test_the_comparison_shows_this_category_alone(tmp_path, content):
    page = recorded_page(tmp_path, content)
    assert cells(page, "published") == [["0.810", "0.750 to 0.870", "0.700", "5.0%", "10.0", "5.2"]]
    assert cells(page, r"nearest \| neighbours") == [
        ["0.940", "0.910 to 0.970", "–", "–", "0.5", "6.1"]
    ]
    assert "0.111" not in page


def test_real_runs_of_this_book_stand_before_the_record(tmp_path, content):
    write_json(tmp_path / "book" / record.FILE, content)
    runs = write_run(tmp_path / "runs", HOSTILE, auroc=0.7, by_defect={"s|cratch": 0.7})
    page = real_surfaces.page(runs, tmp_path / "book" / "run")
    assert (
        "recorded" not in page
        and "0.850" not in page
        and "beside those that this copy of the book was made of" in prose(page)
    )
    assert cells(page, r"published, resnet50\.pth")[0][1] == "0.700"
    assert cells(page, r"s\|cratch") == [["0.700"]]
    assert r"## brushed \<b\>\& \{ü\}nusual \| \`x\`" in page
    assert f"```\n{record.collect([runs])['runs'][0]['command']}\n```" in page
    assert str(tmp_path) not in page and "somebody" not in page


def test_the_picture_has_a_row_for_each_detector_and_a_dot_for_each_seed(
    tmp_path, content, monkeypatch
):
    drawn = []
    draw = real_surfaces.study_plots.points_with_intervals
    monkeypatch.setattr(
        real_surfaces.study_plots,
        "points_with_intervals",
        lambda *given: drawn.append(given) or draw(*given),
    )
    page = recorded_page(tmp_path, content)
    ((table, rows, groups),) = drawn
    assert (rows, groups) == ("method", "seed")
    assert table.values.tolist() == [
        ["published,\nresnet50.pth", 0, 0.8, 0.74, 0.83],
        ["published,\nresnet50.pth", 1, 0.9, 0.84, 0.93],
        ["extended,\nresnet50.pth", 0, 0.96, 0.9, 0.99],
    ]
    assert '```{figure} real_surfaces.svg\n:alt: "A row for each detector' in page
    assert "<svg" in (tmp_path / "book" / "run" / "real_surfaces.svg").read_text()


def test_what_is_not_known_is_shown_by_a_dash(tmp_path, content):
    for run in content["runs"]:
        nothing = {
            name: None
            for name, value in run["metrics"].items()
            if name not in ("confusion", "decisions_by_rule", "auroc_by_defect")
        }
        run["metrics"] |= nothing | {
            "decisions_by_rule": dict.fromkeys(RULES),
            "auroc_by_defect": {},
        }
    page = recorded_page(tmp_path, content)
    assert cells(page, "tile") == [["published", "–"], ["extended", "–"]]
    assert cells(page, r"published, resnet50\.pth") == [
        ["0, 1", *"–––––"],
        ["`sigma`", *"–––"],
    ]
    assert (
        "Where they lose" not in page
        and "Kind of defect" not in page
        and "real_surfaces.svg" not in page
        and "None" not in page
    )


def test_known_data_are_described_and_random_weights_are_named(tmp_path):
    runs = write_run(tmp_path / "runs", "magnetic_tile")
    page = real_surfaces.page(runs, tmp_path / "book" / "run")
    assert "{cite:p}`huang2020magnetic`" in page and r"published, resnet50\.pth" in page
    file = runs / "photographs" / "magnetic_tile" / "run.json"
    write_json(
        file, json.loads(file.read_text()) | {"weights": {"name": "random", "sha256": "b" * 64}}
    )
    page = real_surfaces.page(runs, tmp_path / "book" / "run")
    assert (
        "published, random" in page
        and "--weights random" in page
        and "--weights <weights>" not in page
    )
    template = (ROOT / "texad" / "site" / "templates" / "real_surfaces.md.j2").read_text()
    keys = re.findall(r"\{cite:p\}`(\w+)`", template)
    assert len(keys) == 2 and all(
        f"{{{key}," in (ROOT / "book" / "references.bib").read_text() for key in keys
    )


def test_a_remark_stands_once_before_the_numbers_that_it_is_about(tmp_path, content):
    for run in content["runs"][:2]:
        run["remark"] = "Made with a split that leaks."
    page = recorded_page(tmp_path, content)
    assert page.count("a split that leaks") == 1
    assert page.index("a split that leaks") < page.index("| Image AUROC")


def test_with_neither_runs_nor_a_record_the_page_says_so(tmp_path):
    runs = write_run(tmp_path / "runs", dataset="synthetic", category="leather")
    page = real_surfaces.page(runs, tmp_path / "book" / "run")
    assert (
        page.startswith("# Real surfaces\n\nThis copy of the book was made without real surfaces")
        and "|" not in page
    )


def test_a_damaged_record_stops_the_book_with_one_line(tmp_path, content):
    write_json(tmp_path / "book" / record.FILE, {"runs": content["runs"]})
    with pytest.raises(
        RunError, match="does not fit its schema at .*'date' is a required property"
    ):
        real_surfaces.page(tmp_path / "no runs", tmp_path / "book" / "run")


def test_a_finished_batch_can_be_recorded_and_is_shown(finished, tmp_path):
    out, _ = finished
    result = texad("record", out, "--to", tmp_path / "book" / record.FILE)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "book" / record.FILE).read_text()
    content = json.loads(text)
    record.check(content)
    assert [run["category"] for run in content["runs"]] == ["brushed <b>& {ü}nusual", "steel"]
    assert str(out) not in text and "/" not in text
    run = content["runs"][1]
    assert run["parameters"] == {"image_size": 64, "hidden": 32, "bottleneck": 8, "steps": 2}
    metrics = json.loads((out / "surfaces" / "steel" / "metrics.json").read_text())
    assert run["metrics"]["image_auroc"] == pytest.approx(metrics["image_auroc"], rel=1e-5)
    page = real_surfaces.page(out, tmp_path / "book" / "run")
    assert (
        page.count("| Image AUROC |") == 2 and "published, random" in page and str(out) not in page
    )


def test_random_weights_stand_beside_trained_ones_and_are_compared_with_them(tmp_path):
    folders = [write_run(tmp_path / "trained", auroc=0.8)]
    for seed, auroc in ((0, 0.6), (1, 0.7)):
        folders.append(write_run(tmp_path / f"random{seed}", seed=seed, auroc=auroc))
        file = folders[-1] / "photographs" / "tile" / "run.json"
        write_json(
            file,
            json.loads(file.read_text())
            | {"weights": {"name": "random", "sha256": str(seed) * 64}},
        )  # drawn from the seed
    page = recorded_page(tmp_path, record.collect(folders[::-1]))
    assert cells(page, "Surface") == [["Detector", r"resnet50\.pth", "random"]]
    assert cells(page, "tile") == [["published", "0.800", "0.650"]]
    assert cells(page, "published, random")[0][1] == "0.650 (0.600 to 0.700)"
    assert (
        "What learnt weights are worth: the AUROC of the published detector is 0.650 with random "
        "weights and 0.800 with resnet50\\.pth weights." in prose(page)
    )
    assert "The published detector with resnet50\\.pth weights is weakest on" in prose(page)
