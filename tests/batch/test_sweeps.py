import json

import pandas as pd
import pytest
from conftest import LEAD, run_arguments

from texad.__main__ import main
from texad.batch import executor, notebooks, sweeps
from texad.batch.sweeps import Setting
from texad.runs import parameters
from texad.runs.run_folder import STAGES


@pytest.fixture
def jobs_done(monkeypatch) -> list:
    """Jobs that were to be run: none is, and each gets an AUROC made of its seed and bottleneck."""
    done = []

    def run_all(todo, pool, progress):
        done.extend(todo)
        rows = []
        for job in todo:
            auroc = 0.5 + job.seed / 10 + job.parameters.get("bottleneck", 0) / 1000
            rows.append(
                {
                    "category": job.category,
                    "images": 12,
                    "image_auroc": auroc,
                    "precision": 1.0,
                    "recall": 0.5,
                    "f1": 0.667,
                    "seconds": 1.0,
                    "error": None,
                }
            )
        return rows

    monkeypatch.setattr(executor, "run_all", run_all)
    return done


def run(surfaces, out, *more) -> int:
    return main(
        [
            "run",
            "--dataset",
            str(surfaces),
            "--weights",
            "random",
            "--out",
            str(out),
            "--quiet",
            *map(str, more),
        ]
    )


def test_every_combination_has_a_folder_of_its_own(surfaces, tmp_path, jobs_done):
    out = tmp_path / "runs"
    assert (
        run(
            surfaces,
            out,
            "--seed",
            "0,1",
            "-p",
            "bottleneck",
            "64, 256",
            "-p",
            "steps",
            3,
            "--category",
            "steel",
        )
        == 0
    )
    names = [
        "seed=0,bottleneck=64",
        "seed=0,bottleneck=256",
        "seed=1,bottleneck=64",
        "seed=1,bottleneck=256",
    ]
    assert [job.runs for job in jobs_done] == [str(out / name) for name in names]
    assert [(job.seed, job.parameters) for job in jobs_done] == [
        (seed, {"bottleneck": bottleneck, "steps": 3})
        for seed in (0, 1)
        for bottleneck in (64, 256)
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "sweep.csv"])
    summary = json.loads((out / names[3] / "summary.json").read_text())
    assert summary["seed"] == 1 and summary["categories"][0]["image_auroc"] == pytest.approx(
        0.5 + 0.1 + 0.256
    )
    assert (out / names[0] / "summary.csv").is_file()


def test_all_combinations_are_one_pool_and_studies_follow_for_each(surfaces, tmp_path, jobs_done):
    assert run(surfaces, tmp_path / "runs", "--seed", "0,1", "--studies") == 0
    assert [(job.label, job.stages == STAGES) for job in jobs_done] == [
        (f"seed=0/{LEAD}", True),
        ("seed=0/steel", True),
        (f"seed=1/{LEAD}", True),
        ("seed=1/steel", True),
        (f"seed=0/{LEAD}, studies", False),
        (f"seed=1/{LEAD}, studies", False),
    ]


def test_the_table_of_a_sweep_has_a_row_for_each_combination_and_category(
    surfaces, tmp_path, jobs_done, capsys
):
    assert run(surfaces, tmp_path / "runs", "--seed", "0,2", "-p", "bottleneck", "64,256") == 0
    table = pd.read_csv(tmp_path / "runs" / "sweep.csv")
    assert list(table.columns) == ["seed", "bottleneck", *notebooks.COLUMNS]
    assert len(table) == 8 and table.iloc[-1][["seed", "bottleneck", "category"]].tolist() == [
        2,
        256,
        "steel",
    ]
    line = next(
        line for line in capsys.readouterr().out.splitlines() if "256" in line and "steel" in line
    )
    assert line.split() == [
        "256",
        "steel",
        "2",
        "0.856",
        "(0.756",
        "to",
        "0.956)",
        "1.000",
        "(1.000",
        "to",
        "1.000)",
        *["0.500", "(0.500", "to", "0.500)"],
        *["0.667", "(0.667", "to", "0.667)"],
    ]


def test_one_value_is_no_sweep(surfaces, tmp_path, jobs_done):
    out = tmp_path / "runs"
    assert run(surfaces, out, "--seed", "3", "-p", "bottleneck", "64", "--category", "steel") == 0
    (job,) = jobs_done
    assert (job.runs, job.label, job.seed) == (str(out), "steel", 3)
    assert sorted(path.name for path in out.iterdir()) == ["summary.csv", "summary.json"]


def test_a_combination_that_failed_is_named_and_left_out_of_the_means(
    surfaces, tmp_path, capsys, monkeypatch
):
    def run_all(todo, pool, progress):
        return [
            notebooks.empty_row(job, "torn" if job.seed else None)
            | {"image_auroc": None if job.seed else 0.75}
            for job in todo
        ]

    monkeypatch.setattr(executor, "run_all", run_all)
    assert run(surfaces, tmp_path / "runs", "--seed", "0,1", "--category", "steel") == 1
    shown = capsys.readouterr()
    assert "texad: seed=1/steel failed: torn" in shown.err
    assert shown.out.splitlines()[-1].split() == ["steel", "1", "0.750", "-", "-", "-"]


def test_values_have_their_types_and_come_once():
    parse = parameters.parse_values
    assert parse({"normalize": "True", "steps": "3", "learning_rate": "1e-2"}) == {
        "normalize": [True],
        "steps": [3],
        "learning_rate": [0.01],
    }
    assert parse(
        {"bottleneck": "64,256,64", "learning_rate": "1e-2,0.01", "detector": "published,extended"}
    ) == {
        "bottleneck": [64, 256],
        "learning_rate": [0.01],
        "detector": ["published", "extended"],
    }
    assert parse({"categories": "tile,wood"}) == {
        "categories": ["tile,wood"]
    }  # of a study: its own comma
    assert parse({"groups": r"tile\d{1,3}"}) == {"groups": [r"tile\d{1,3}"]}  # part of it, too
    with pytest.raises(ValueError, match="bottleneck must be of type int"):
        parse({"bottleneck": "64,"})


def test_the_table_of_groups_is_found_from_wherever_the_notebooks_run(tmp_path, monkeypatch):
    for name in ("my.csv", "folder"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert parameters.parse_values({"groups": "my.csv"}) == {"groups": [str(tmp_path / "my.csv")]}
    for text in ("their.csv", "folder", "x" * 5000):
        assert parameters.parse_values({"groups": text}) == {"groups": [text]}


def test_only_what_has_several_values_is_in_the_name():
    combinations = sweeps.settings([4], {"steps": [1], "bottleneck": [8, 16]})
    assert combinations == [
        Setting(4, {"steps": 1, "bottleneck": 8}, {"bottleneck": 8}),
        Setting(4, {"steps": 1, "bottleneck": 16}, {"bottleneck": 16}),
    ]
    assert [each.folder for each in combinations] == ["bottleneck=8", "bottleneck=16"]
    assert [each.folder for each in sweeps.settings([4], {"steps": [1]})] == [""]


@pytest.mark.parametrize("seeds", ["", "0,", "one"])
def test_a_seed_is_a_whole_number(surfaces, tmp_path, capsys, seeds):
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, run_arguments(surfaces, tmp_path / "runs", "--seed", seeds))))
    assert (
        caught.value.code == 2
        and "a whole number from 0 to 4294967295, or several with commas between"
        in capsys.readouterr().err
    )
