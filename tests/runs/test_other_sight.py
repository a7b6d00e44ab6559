from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from texad import pipeline
from texad.data import datasets
from texad.model import weights
from texad.model.backbone import grid, save_backbone
from texad.model.preprocessing import Sight
from texad.runs.other_sight import features_at, sight_of
from texad.runs.run_folder import SPLITS, STAGES, Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The first two stages of a run of the published detector; a test image is elongated."""
    folder = write_category(tmp_path / "data" / "steel", n_train=3, n_good=1, n_defective=1)
    for file in (folder / "test" / "good").iterdir():
        Image.open(file).resize((128, 32)).save(file)
    run = Run(folder.parent, "steel", tmp_path / "runs")
    run.write_images(datasets.load_category(folder.parent, "steel"))
    sight = Sight(64)
    paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}

    def extract(name):
        loaded = weights.load(name, seed=3)
        backbone = pipeline.make_backbone(loaded, paths["train"], sight=sight, progress=False)
        save_backbone(backbone, run.folder / "backbone.safetensors")
        pipeline.extract(backbone, paths, run.folder / "features", sight, progress=False)
        run.write(
            weights={"name": name, "sha256": loaded.sha256},
            sight=asdict(sight),
            stages={
                STAGES[0]: {"parameters": {"detector": "published"}, "seconds": 0.0},
                STAGES[1]: {"parameters": {"seed": 3}, "seconds": 0.0},
            },
        )
        return run, loaded, paths

    return extract


@pytest.mark.parametrize(
    "name", ["texad", pytest.param("random", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_other_features_are_those_of_a_run_with_the_other_input(run, tmp_path, name):
    run, loaded, paths = run(name)
    backbone, own = features_at(run, sight_of("published", run), tmp_path / "unused")
    assert own["test"].shape[2:] == (4, 4) and not (tmp_path / "unused").exists()
    assert grid(backbone) == run.grid() or name == "random"

    sight = sight_of("extended", run)
    assert sight == Sight(64, keep_aspect=True, normalize=True, layer2=True)
    _, found = features_at(run, sight, tmp_path / "other")
    made = pipeline.make_backbone(loaded, paths["train"], sight=sight, progress=False)
    expected = pipeline.extract(made, paths, tmp_path / "expected", sight, progress=False)
    for split in SPLITS:
        np.testing.assert_allclose(found[split], expected[split], atol=1e-4)
    assert found["test"].shape[2:] == (4, 8)  # the array holds 4 × 4 and 2 × 8 places
    missing = np.isnan(found["test"]).all(axis=1)
    assert sorted(missing.sum(axis=(1, 2))) == [16, 16]


def test_the_runs_own_detector_keeps_what_the_user_has_chosen(run):
    run, *_ = run("texad")
    mask = str(Path("mask.png").resolve())
    run.write(sight=asdict(Sight(96, normalize=True, region=mask)))
    assert sight_of("published", run) == Sight(96, normalize=True, region=mask)
    assert sight_of("extended", run) == Sight(96, True, True, True, region=mask)
