"""One model of anomalib on one category, from nothing to a finished test: what `peers` starts and
times.

Run by the Python of anomalib's own environment; it imports nothing of texad. Everything is
anomalib's default, except:

- the weights are random, so that nothing is downloaded (they change no speed);
- no images of the predictions are drawn, nothing is logged and no progress bar is shown, which only
  helps it;
- its data are loaded by as many processes as there are cores, instead of eight.

anomalib: Akcay et al., "Anomalib: a deep learning library for anomaly detection", ICIP 2022,
arXiv:2202.08341.
"""

import argparse
import json
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}  # before anything that could download is imported
warnings.filterwarnings("ignore")

from anomalib.data import Folder  # noqa: E402
from anomalib.engine import Engine  # noqa: E402
from anomalib.models import Fre, Padim, Patchcore  # noqa: E402


def build(name: str):
    """The model with anomalib's own settings and random weights; PatchCore with the 1% coreset of
    its paper.
    """
    quiet = {"pre_trained": False, "visualizer": False}
    if name == "fre":
        return Fre(**quiet)
    if name == "patchcore":
        return Patchcore(coreset_sampling_ratio=0.01, **quiet)
    return Padim(**quiet)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("model", choices=("fre", "patchcore", "padim"))
    arguments.add_argument("category", type=Path, help="folder of the category")
    arguments.add_argument(
        "--epochs", type=int, default=20, help="of FRE; the others see the images once"
    )
    options = arguments.parse_args()

    defects = sorted(
        folder.name
        for folder in (options.category / "test").iterdir()
        if folder.is_dir() and folder.name != "good"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    masks = [f"ground_truth/{defect}" for defect in defects]
    data = Folder(
        name=options.category.name,
        root=options.category,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{defect}" for defect in defects],
        mask_dir=masks if all((options.category / mask).is_dir() for mask in masks) else None,
        num_workers=cores,
        seed=0,
    )
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            accelerator="cpu",
            devices=1,
            max_epochs=options.epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=results,
        )
        model = build(options.model)
        engine.fit(model, datamodule=data)
        (measured,) = engine.test(model, datamodule=data, verbose=False)
        epochs = engine.trainer.current_epoch
    counts = {"n_train": len(data.train_data), "n_test": len(data.test_data)}
    print(
        json.dumps(
            {"anomalib": version("anomalib"), "epochs": epochs, **counts, "metrics": measured}
        )
    )


if __name__ == "__main__":  # the processes that load the data import this file, too
    main()
