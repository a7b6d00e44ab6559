import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, write_category
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command_line
from benchmarks import equality, fit, forward, material, measure, memory, papermill, peers, stages
from benchmarks.measure import Row
from texad.io.json_files import read_json
from texad.model import autoencoder, weights
from texad.runs.run_folder import STAGES


def benchmarks(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


# -- the command line ------------------------------------------------------------------------------

CHEAP = (
    "forward",
    "end_to_end",
    "fit",
    "latency",
    "equality",
    "peers",
)  # peers without anomalib are skipped


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of what is cheap: what it printed, and what it wrote."""
    folder = tmp_path_factory.mktemp("benchmarks")
    file = folder / "results.json"
    file.write_text(json.dumps({"papermill": {"kept": True}, "forward": {"replaced": True}}))
    result = benchmarks(
        *CHEAP, "--quick", "--repeats", 2, "--json", file, "--work", folder / "work"
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout, json.loads(file.read_text())


def test_the_json_says_what_the_table_says(quick):
    printed, written = quick
    lines = [line for line in printed.splitlines() if line.split(" ")[0] in CHEAP]
    rows = [(name, row) for name in CHEAP for row in written[name]["rows"]]
    assert len(lines) == len(rows) > 10
    for line in lines:
        name, what, value = (
            line.split(maxsplit=1)[0],
            *[part for part in line.split("  ") if part.strip()][1:3],
        )
        (row,) = [row for other, row in rows if (other, row["what"]) == (name, what.strip())]
        assert row["shown"] == value.strip()
        if row["value"] is None:
            assert row["shown"] == "-"
        else:
            assert float(row["shown"].lstrip("> ")) == pytest.approx(
                row["value"], rel=0.006, abs=1e-9
            )
        assert row["bar"] in line and ({True: "yes", False: "NO", None: ""}[row["holds"]] in line)


def test_every_ratio_of_the_issue_has_its_bar(quick):
    _, written = quick
    bars = {(name, row["what"]): row["bar"] for name in CHEAP for row in written[name]["rows"]}
    assert bars["forward", "texad / plain torchvision"] == ">= 1.5"
    assert bars["forward", "texad / limit of the processor"] == ">= 0.75"
    assert bars["end_to_end", "from PNG files / forward alone"] == ">= 0.8"
    assert bars["fit", "literal loop / texad, to the same loss"] == ">= 5"
    assert bars["equality", "largest difference of a score, relative"] == "<= 0.0001"
    assert [bars["peers", f"{title} / texad"] for title in peers.TITLES.values()] == [
        ">= 10",
        ">= 10",
        ">= 2",
    ]


def test_the_json_names_the_machine_and_no_place(quick):
    _, written = quick
    for name in CHEAP:
        machine = written[name]["machine"]
        assert (
            machine["cores"] >= 1
            and machine["cpu"]
            and set(machine["versions"]) >= {"texad", "torch", "python"}
        )
        assert written[name]["options"] == {
            "repeats": 2,
            "quick": True,
            "weights": "random",
            "data": "synthetic",
        }
    text = json.dumps({name: written[name] for name in CHEAP})
    assert "/tmp" not in text and str(ROOT) not in text and str(Path.home()) + "/" not in text


def test_other_benchmarks_in_the_file_are_kept(quick):
    _, written = quick
    assert written["papermill"] == {"kept": True}
    assert "replaced" not in written["forward"]


def test_the_fast_path_gives_the_scores_of_the_plain_one(quick):
    _, written = quick
    assert [row["holds"] for row in written["equality"]["rows"]] == [True, True, None], written[
        "equality"
    ]


def test_peers_without_anomalib_are_skipped_with_the_way_out(quick):
    _, written = quick
    for row in written["peers"]["rows"]:
        assert row["value"] is None and row["holds"] is None
        assert "--anomalib-python" in row["note"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forwards"], "no benchmark 'forwards': choose from forward, end_to_end"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--data", "somewhere"], "--data and --category go together"),
        (["--sizes", "250"], "--sizes must be two or more"),
        (["--sizes", "a,b"], "--sizes must be two or more"),
        (["forward", "--data", "missing", "--category", "tile"], "missing"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert command_line.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_the_slow_ones_run_only_when_named():
    everything = list(command_line.NAMES)
    fast = ["forward", "end_to_end", "fit", "latency", "papermill", "equality"]
    assert command_line.chosen([]) == fast and len(everything) > len(fast)
    assert command_line.chosen(["all"]) == everything
    assert command_line.chosen(["peers", "forward"]) == ["forward", "peers"]


@pytest.mark.slow
def test_defects_among_the_training_images_are_counted(tmp_path):
    folder, file = write_category(tmp_path / "data", n_train=10, size=64), tmp_path / "rows.json"
    real = ["--data", folder.parent, "--category", folder.name]
    result = benchmarks("contaminated", "--quick", "--repeats", 1, *real, "--json", file)
    assert result.returncode == 0, result.stderr[-3000:]
    found = read_json(file)["contaminated"]["rows"]
    assert [row["what"].split(",")[1] for row in found] == [
        f" {percent}% defects" for percent in (0, 5, 10, 20)
    ]
    for row in found:
        (of_seed,) = row["details"]["rounds"]
        assert 0 <= of_seed["left"] <= of_seed["defects"] and 0 <= of_seed["auroc"] <= 1
        assert of_seed["n_train"] == 10 + of_seed["defects"]


# -- bars ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (Row("b", "w", 1.5, at_least=1.5), True),
        (Row("b", "w", 1.499, at_least=1.5), False),
        (Row("b", "w", 1.1, at_most=1.1), True),
        (Row("b", "w", 1.11, at_most=1.1), False),
        (Row("b", "w", 3.0), None),
        (Row("b", "w", None, at_least=1.5), None),
        (Row("b", "w", 10.0, at_least=10.0, more_than=True), True),
        (Row("b", "w", 9.0, at_least=10.0, more_than=True), None),  # stopped too early to know
        (Row("b", "w", 9.0, at_most=10.0, more_than=True), None),
        (Row("b", "w", 11.0, at_most=10.0, more_than=True), False),
    ],
)
def test_a_bar_holds_or_does_not(row, holds):
    assert row.holds is holds


def test_a_peer_that_was_stopped_is_shown_as_more_than_the_bar():
    row = peers.peer_row("fre", texad=12.0, taken=120.0, said=None)
    assert row.shown == "> 10" and row.holds
    row = peers.peer_row("padim", texad=12.0, taken=18.0, said={"epochs": 1})
    assert row.shown == "1.5" and row.holds is False


def test_ratios_of_the_forward_pass_by_hand():
    seconds = {
        "texad": np.array([1.0, 1.0, 2.0]),
        "torchvision": np.array([2.0, 1.5, 4.0]),
        "product": np.array([1.0, 1.0, 2.0]),
    }
    own, plain, limit, of_plain = forward.rows(
        seconds, n_images=10, operations=5, product_operations=100
    )
    assert own.value == 10  # images a second
    assert plain.value == 2.0  # ratios 2, 1.5, 2
    assert limit.value == 0.5  # 10 images of 5 operations, where 100 are possible
    assert of_plain.value == 0.25
    assert (plain.holds, limit.holds) == (True, False)


def test_start_up_of_the_kernels_is_taken_off_by_hand():
    rows = papermill.rows(
        {
            "papermill": [30.0, 40.0, 90.0],
            "start-up": [10.0, 10.0, 10.0],
            "direct": [10.0, 25.0, 100.0],
        },
        n_categories=5,
    )
    without, with_it = rows[2:]
    assert without.value == pytest.approx(1.2) and without.holds  # 2.0, 1.2, 0.8
    assert with_it.value == pytest.approx(1.6)  # 3.0, 1.6, 0.9
    assert "25 kernels, 2 at a time, 0.80 s each" in rows[1].note


def test_memory_and_time_of_the_stages_by_hand():
    def run(images: int, seconds: float, peak: float) -> dict:
        return {
            "images": images,
            "stages": {stage: {"seconds": seconds, "peak_mb": peak} for stage in STAGES},
        }

    runs = {
        4000: run(4000, 44.0, 1050.0),
        250: run(250, 2.5, 1000.0),
        1000: run(1000, 10.0, 1000.0),
    }
    runs[4000]["stages"][STAGES[2]] = {"seconds": 60.0, "peak_mb": 2500.0}
    rows = {row.what: row for row in memory.rows(runs)}
    first, third = (rows[f"{STAGES[i]}: peak, 4,000 / 250 images"] for i in (0, 2))
    assert (first.value, first.holds) == (1.05, True) and (third.value, third.holds) == (2.5, False)
    assert rows["largest peak of all"].value == 2500 and rows["largest peak of all"].holds is False
    first, third = (rows[f"{STAGES[i]}: time for an image, 4,000 / 250 images"] for i in (0, 2))
    assert (
        first.value == pytest.approx(1.1)
        and third.value == pytest.approx(1.5)
        and third.holds is False
    )
    assert rows["all stages: time for an image, 4,000 / 250 images"].value == pytest.approx(
        (4 * 44 + 60) / 4000 / (5 * 2.5 / 250)
    )


def test_auroc_may_be_lower_by_the_spread_of_the_seeds_and_no_more():
    def one(texad: float, literal: float, capped: bool = False) -> dict:
        return {
            "seconds": {"texad": 1.0, "literal": 6.0},
            "auroc": {"texad": texad, "literal": literal},
            "capped": capped,
        }

    _, speed, quality = fit.rows([one(0.80, 0.81), one(0.82, 0.83), one(0.84, 0.85)], {})
    assert speed.value == 6 and speed.holds and not speed.more_than
    assert (
        quality.value == pytest.approx(-0.01)
        and quality.at_least == pytest.approx(-0.02)
        and quality.holds
    )
    _, speed, quality = fit.rows(
        [one(0.80, 0.83), one(0.82, 0.85), one(0.84, 0.87, capped=True)], {}
    )
    assert speed.more_than and "1 of 3 seeds" in speed.note
    assert quality.holds is False


def test_rounds_take_turns_and_the_first_does_not_count():
    calls = []
    seconds = measure.seconds_in_turn(
        {name: lambda name=name: calls.append(name) for name in "ab"}, 2, "turns"
    )
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


# -- what is compared ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    return material.plain_network(weights.untrained(0, shortcuts=False).state_dict)


def test_operations_are_those_that_torch_counts(plain):
    images = torch.rand(2, 3, 64, 96)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(images)
    assert forward.count_operations(plain, images) == counter.get_total_flops()


def test_operations_of_a_convolution_by_hand():
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1, groups=2)
    )
    first, second = 2 * 8 * 4 * 4 * (3 * 5 * 5), 2 * 6 * 4 * 4 * (4 * 3 * 3)
    assert forward.count_operations(layers, torch.rand(1, 3, 8, 8)) == first + second


def test_the_plain_network_is_torchvisions_up_to_layer3(plain):
    assert (
        any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules()) and not plain.training
    )
    assert [name for name, _ in plain.named_children()] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer1",
        "layer2",
        "layer3",
    ]
    assert plain.conv1.weight.is_contiguous()  # the default layout


def test_the_literal_loss_is_the_packages():
    torch.manual_seed(3)
    network = fit.literal_network(12, hidden=7, bottleneck=4)
    features = torch.randn(5, 12, 3, 2)
    same = fit.as_autoencoder(network)
    errors = np.square(features.numpy() - same(features).numpy())
    assert fit.literal_loss(network, features).item() == pytest.approx(errors.sum() / 5, rel=1e-5)

    model, history = autoencoder.fit(
        features.numpy(),
        hidden=7,
        bottleneck=4,
        steps=1,  # of all places
        learning_rate=1e-12,
        seed=4,
        progress=False,
    )  # as good as untrained, so the loss is that of the final weights
    assert history["train_loss"][0] == pytest.approx(
        fit.literal_loss(model, features).item(), rel=1e-4
    )


def test_the_literal_network_and_its_autoencoder_reconstruct_the_same():
    network = fit.literal_network(12, hidden=7, bottleneck=4)
    features = torch.randn(2, 12, 3, 3)
    torch.testing.assert_close(fit.as_autoencoder(network)(features), network(features).detach())


def test_the_literal_loop_stops_at_the_loss_or_at_the_end_of_its_time():
    maps = torch.randn(20, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    _, losses = fit.literal_fit(maps, target=0.9 * 6 * 16, budget_s=60, seed=0)
    assert losses[-1] <= 0.9 * 6 * 16 < min(losses[:-1], default=np.inf)
    _, losses = fit.literal_fit(maps, target=0.0, budget_s=0.0, seed=0)
    assert len(losses) == 1 and losses[0] > 0  # one step


def test_the_reference_scores_are_those_of_a_loop():
    torch.manual_seed(0)
    model = autoencoder.Autoencoder(channels=6, hidden=5, bottleneck=2).eval().requires_grad_(False)
    features = torch.randn(3, 6, 2, 2)
    expected = [
        np.mean(sorted(torch.square(f - model(f[None])[0]).ravel().tolist())[-4:]) for f in features
    ]
    np.testing.assert_allclose(
        equality.reference_scores(model, features.numpy(), top_k=4), expected, rtol=1e-5
    )


def test_differences_are_relative_to_the_reference_by_hand():
    scores, reference, by_pillow = (
        np.array([1.0, 5.001, 2.0]),
        np.array([1.0, 5.0, 1.999]),
        np.array([1.0, 5.001, 6.0]),
    )
    rows = equality.rows(
        scores, reference, by_pillow, {"share_of_pixel_values_that_pillow_rounds_otherwise": 0.0}
    )
    assert rows[0].value == pytest.approx(0.001 / 1.999) and rows[0].holds is False
    assert (rows[1].value, rows[1].holds) == (0, True)
    assert rows[2].value == pytest.approx(4 / 6) and rows[2].bar == ""


def test_swapped_pairs_are_counted():
    assert equality.swapped_pairs(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])) == 0
    assert equality.swapped_pairs(np.array([1.0, 3.0, 2.0]), np.array([10.0, 20.0, 30.0])) == 1
    assert (
        equality.swapped_pairs(np.array([1.0, 1.0, 3.0]), np.array([10.0, 20.0, 30.0])) == 1
    )  # a tie


def test_a_kernel_is_started_with_the_imports_of_its_chapter():
    lines = papermill.imports_of(STAGES[3]).splitlines()
    assert "import torch" in lines and any(line.startswith("from texad import") for line in lines)
    assert all(line.startswith(("import ", "from ")) for line in lines)


def test_the_direct_calls_leave_what_the_notebooks_leave(finished, surfaces, tmp_path):
    runs, _ = finished
    folder = stages.run_category(
        surfaces, "steel", tmp_path, "random", image_size=64, steps=2, hidden=32, bottleneck=8
    )
    theirs = runs / "surfaces" / "steel"
    ours, notebooks = (pd.read_csv(where / "scores.csv") for where in (folder, theirs))
    pd.testing.assert_frame_equal(ours, notebooks, rtol=1e-3)
    metrics, of_notebooks = (read_json(where / "metrics.json") for where in (folder, theirs))
    assert metrics.keys() == of_notebooks.keys()
    assert metrics["pixel_auroc"] == pytest.approx(of_notebooks["pixel_auroc"], rel=1e-3)

    def files(where: Path) -> set[str]:
        return {
            file.relative_to(where).as_posix()
            for file in where.rglob("*")
            if file.is_file() and file.suffix != ".ipynb"
        }

    assert files(folder) == files(theirs)


# -- anomalib --------------------------------------------------------------------------------------


def test_an_interpreter_without_anomalib_is_named():
    assert "has no anomalib: pip install" in peers.missing(
        shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    )
    assert "cannot be started" in peers.missing("/nowhere/python")


def fake_python(folder: Path, body: str) -> str:
    """A stand-in for anomalib's interpreter."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_peer_is_timed_stopped_or_reported(tmp_path):
    says = fake_python(tmp_path, 'echo noise; echo "{\\"epochs\\": 20}"')
    assert peers.peer_seconds(says, "fre", tmp_path, 60, epochs=20)[1] == {"epochs": 20}
    sleeps = fake_python(tmp_path, "sleep 600 & wait")
    taken, said = peers.peer_seconds(sleeps, "fre", tmp_path, 0.5, epochs=20)
    assert (
        said is None and 0.5 <= taken < 500
    )  # its child was stopped with it: it would have kept the pipe open
    fails = fake_python(tmp_path, "echo no such layer >&2; exit 3")
    with pytest.raises(peers.PeerError, match="failed after .* s: no such layer"):
        peers.peer_seconds(fails, "padim", tmp_path, 60, epochs=20)


def test_a_peer_that_fails_keeps_what_the_others_took(monkeypatch, tmp_path):
    def fails(python, model, root, budget, epochs):
        if model == "patchcore":
            raise peers.PeerError("failed after 3 s: it was killed, perhaps for lack of memory")
        return 20.0, {"epochs": epochs}

    monkeypatch.setattr(peers, "missing", lambda python: "")
    monkeypatch.setattr(peers, "texad_seconds", lambda options, root: 1.0)
    monkeypatch.setattr(peers, "peer_seconds", fails)
    category = write_category(tmp_path / "surfaces" / "steel")
    options = material.Options(
        data=str(category.parent), category="steel", anomalib_python="python", repeats=1
    )
    _, fre, patchcore, padim = peers.run(options)
    assert (
        fre.value == padim.value == 20
        and patchcore.value is None
        and patchcore.holds is None
        and "killed" in patchcore.note
    )
