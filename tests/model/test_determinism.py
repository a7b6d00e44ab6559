"""The same seed, the same scores: to the last bit on one machine, however many threads or
categories at a time, and nearly so on another.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_arguments, texad, write_category

pytestmark = pytest.mark.slow

# Features, a fit and scores, of pictures as large as the method's own: the sums are as long as they
# get. Small parts of each network would be quick,
# but libraries share out only long sums to their threads.
STAGES = """
import hashlib, json, sys, tempfile
from pathlib import Path
import torch
from texad.model.backbone import build_backbone, calibrate_batchnorm, fold_batchnorm
from texad.model import autoencoder, extraction, scoring, weights
torch.set_num_threads(int(sys.argv[1]))
paths = sorted(Path(sys.argv[2]).glob("*.png"))
with tempfile.TemporaryDirectory() as folder:
    backbone = build_backbone(weights.untrained(0, shortcuts=False))
    calibrate_batchnorm(backbone, paths, progress=False)
    folded, file = fold_batchnorm(backbone), Path(folder) / "f.npy"
    measured = extraction.extract(folded, paths, file, progress=False)
    fitted, _ = autoencoder.fit(measured, steps=10, seed=0, progress=False)
    scores, maps = scoring.score_features(fitted, measured, progress=False)
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in (measured, maps, scores)]
print(json.dumps({"hashes": hashes, "scores": scores.tolist()}))
"""

# Fits to the features of many images, numbers as good as any: the extended detector adds up much
# longer sums than a training of batches does, and the eigenvectors are of 1024 channels.
FITS = """
import hashlib, json, sys
import numpy as np
import torch
from texad.model import registry, scoring
torch.set_num_threads(int(sys.argv[1]))
F = np.random.default_rng(0).standard_normal((120, 14, 14, 1024), dtype=np.float32)
F = F.cumsum(axis=1).cumsum(axis=2).transpose(0, 3, 1, 2)
hashes = []
for detector, options in (("extended", {"words": 512}), ("published", {"steps": 5})):
    fitted, history = registry.fit(detector, F, progress=False, **options)
    scores, maps = scoring.score_features(fitted, F[:20], progress=False)
    arrays = [*(tensor.numpy() for tensor in fitted.state_dict().values()), scores, maps]
    hashes += [hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for array in arrays]
print(json.dumps({"hashes": hashes}))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return (
        write_category(tmp_path_factory.mktemp("pictures"), n_train=6, size=224) / "train" / "good"
    )


def run(code: str, *arguments, **environment) -> dict:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def alone(pictures):
    return run(STAGES, 1, pictures)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_features_maps_and_scores_are_the_same_for_any_number_of_threads(pictures, alone, threads):
    assert run(STAGES, threads, pictures)["hashes"] == alone["hashes"]


def test_fits_to_many_images_are_the_same_for_any_number_of_threads():
    one, two, three = (run(FITS, threads)["hashes"] for threads in (1, 2, 3))
    assert one == two == three


def test_a_processor_with_other_instructions_changes_the_scores_by_rounding_only(pictures, alone):
    """Here the libraries are told to use the oldest instructions they know, as if the processor had
    no others. It adds in another order.
    """
    old = {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
    }
    other = run(STAGES, 1, pictures, **old)
    assert other["hashes"][2] != alone["hashes"][2]  # else the test above would compare constants
    difference = np.abs(np.array(other["scores"]) / np.array(alone["scores"]) - 1)
    assert difference.max() < 0.02, (
        difference
    )  # of training with ImageNet weights and 24 images: 0.0045 at most, 0.001 in the middle


def test_scores_are_the_same_however_many_categories_run_at_a_time(surfaces, tmp_path):
    """With one job at a time, a category has all cores; with two it has half of them."""
    tables = {}
    for jobs, category in ((1, "steel"), (2, "all")):
        result = texad(
            *run_arguments(surfaces, tmp_path / str(jobs), "--jobs", jobs, "--category", category)
        )
        assert result.returncode == 0, result.stderr
        folder = tmp_path / str(jobs) / "surfaces" / "steel"
        tables[jobs] = (folder / "scores.csv").read_bytes()
        assert json.loads((folder / "run.json").read_text())["stages"]["04_scoring"][
            "threads"
        ] == max(1, len(os.sched_getaffinity(0)) // jobs)
    assert tables[1] == tables[2] and tables[1].count(b"\n") == 13
