"""One photograph at a time, as on a production line, and as many as possible: from the file to the
decision.
"""

import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import material
from benchmarks.material import FEATURE_BATCH, Options
from benchmarks.measure import Row, median
from texad.model import extraction, preprocessing, scoring
from texad.model.base import device
from texad.model.preprocessing import Sight
from texad.model.threshold import predict


def run(options: Options) -> list[Row]:
    paths = material.photographs(options)
    fast, _ = material.networks(options, paths)
    autoencoder = material.untrained_autoencoder()

    @torch.inference_mode()
    def decide(files: list[Path]) -> np.ndarray:
        images = preprocessing.load_images(files, Sight(options.image_size)).to(device())
        scores, _ = scoring.score_features(autoencoder, fast(images).cpu().numpy(), progress=False)
        return predict(scores, 1.0)

    batches = [
        paths[start : start + FEATURE_BATCH] for start in range(0, len(paths), FEATURE_BATCH)
    ]
    one, full = [], []
    for turn in tqdm(range(options.repeats + 1), desc="latency", unit="round"):
        singles = []
        for path in paths[:24]:
            started = time.perf_counter()
            decide([path])
            singles.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in extraction.in_order(decide, batches):
            pass
        if turn:  # the first round does not count
            one += singles
            full.append(len(paths) / (time.perf_counter() - started))
    milliseconds = 1e3 * np.array(one)
    return [
        Row(
            "latency",
            "one photograph, file to decision, median",
            median(milliseconds),
            "ms",
            details={"images": len(one)},
        ),
        Row(
            "latency",
            "one photograph, 95th percentile",
            float(np.percentile(milliseconds, 95)),
            "ms",
        ),
        Row(
            "latency",
            f"batches of {FEATURE_BATCH}, a thread for each core, file to decision",
            median(full),
            "images/s",
        ),
    ]
