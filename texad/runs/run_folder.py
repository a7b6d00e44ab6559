"""The run folder: what one stage leaves for the next, and for the book.

    runs/<data set>/<category>/
      run.json                    parameters, versions, fingerprints, seconds and peak memory
      images.csv                  a row for each image, in the order of the features
      notebooks/NN_*.ipynb        the executed notebooks of a batch run
      backbone.safetensors        what measured the features
      features/train.npy, calibration.npy, test.npy
      autoencoder.safetensors     with training.csv, the losses along the steps
      scores.csv                  images.csv with score, prediction and p-value
      maps/test.npy               anomaly maps of the test images
      metrics.json
      figures/                    the five figures
      pictures/NNNN.jpg           each test image beside its heatmap, for the threshold explorer

Each file is written once, whole, by the stage that owns it, and run.json keeps its hash. One
process at a time writes, and holds the lock `.lock`. Everything here can be made again, so a run
folder may be deleted whenever nobody is writing.
"""

import os
import platform
import re
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from texad.data import datasets, splitting
from texad.data import groups as find_groups
from texad.errors import RunError, printable
from texad.io.atomic import digests, replacing
from texad.io.escape import from_spreadsheet, write_table
from texad.io.json_files import write_json
from texad.io.locks import is_held, leave, take
from texad.io.paths import runs_root
from texad.io.templates import templates
from texad.model.backbone import grid, load_backbone
from texad.model.places import Grid
from texad.model.preprocessing import Sight
from texad.model.weights import ABOUT, check
from texad.runs import schema
from texad.runs.parameters import STAGES, STUDIES, check_values

SPLITS = ("train", "calibration", "test")
FILES = {  # that a stage leaves, by name or pattern; run.json keeps their hashes
    "01_preprocessing": ("images.csv",),
    "02_feature_extraction": (
        "backbone.safetensors",
        *(f"features/{split}.npy" for split in SPLITS),
    ),
    "03_autoencoder_training": ("autoencoder.safetensors", "training.csv"),
    "04_scoring": ("scores.csv", "maps/test.npy"),
    "05_evaluation": ("metrics.json", "figures/*.svg", "figures/*.png", "pictures/*.jpg"),
    "06_comparison": ("comparison.csv",),
    "07_ablations": ("ablations.csv",),
    "08_extended_detector": ("extended.csv",),
    "09_your_own_textures": (
        "detector/my.safetensors",
        "detector/my.html",
        "detector/line/predictions.csv",
    ),
}


MEASURED = ("p_value", "held_out_score", "validation_loss")  # columns that may be empty
HTML = templates(Path(__file__).parent).get_template("run.html.j2")


def lead(categories: Iterable[str]) -> str:
    """The category that the chapters show: leather where it is there, else the first."""
    categories = list(categories)
    return "leather" if "leather" in categories else categories[0]


def save_figure(file: Path, figure: Figure) -> None:
    """Save a figure; the suffix chooses the format. The same figure gives the same file."""
    with replacing(file) as temporary, rc_context({"svg.hashsalt": "texad"}):
        figure.savefig(temporary, bbox_inches="tight", dpi=150, metadata={"Date": None})


class Run:
    """The run folder of one category.

    Parameters
    ----------
    dataset : str or Path
        "synthetic", "mvtec", or a folder laid out as MVTec AD.
    category : str
    runs : str or Path, default ""
        The folder that holds all run folders; empty for `runs_root()`.

    Raises
    ------
    RunError
        If there is no such data set or category, or one of the three is no text.
    """

    _stage = ""  # that was started

    def __init__(self, dataset: str | Path, category: str, runs: str | Path = ""):
        try:
            places = {"dataset": dataset, "runs": runs}
            paths = {
                name: os.fspath(each) for name, each in places.items() if isinstance(each, Path)
            }
            check_values(STAGES[0], places | paths | {"category": category})
            self.category, *others = datasets.select(dataset, category)
            self.dataset, self._given = datasets.name(dataset), dataset
        except (ValueError, OSError) as error:
            raise RunError(str(error)) from None
        if others:
            raise RunError(
                f"a run is of one category, not {category!r}: "
                f"choose one of {', '.join((self.category, *others))}"
            )
        self.folder = (
            (Path(runs).expanduser().resolve() if str(runs) else runs_root())
            / self.dataset
            / self.category
        )

    def finished(self) -> list["Run"]:
        """The runs of the same data set, this one included, whose five stages are finished."""
        return [
            run
            for category in datasets.categories(self._given)
            if (run := Run(self._given, category, self.folder.parent.parent)).is_finished(
                STAGES[-1]
            )
        ]

    # -- run.json ----------------------------------------------------------------------------------

    def read(self) -> dict:
        """The content of run.json; see `texad.runs.schema.read`."""
        return schema.read(self.folder / "run.json", schema.RECORD)

    def write(self, **entries: object) -> None:
        """Set entries of run.json, keeping the others."""
        write_json(self.folder / "run.json", self.read() | entries)

    def is_finished(self, stage: str) -> bool:
        return stage in self.read().get("stages", {})

    def start(self, stage: str, *, weights: str = "auto", **parameters: object) -> "Run":
        """Begin a stage or a study; what it and the later ones left before no longer counts.

        Parameters
        ----------
        stage : str
            One of `STAGES` or `STUDIES`.
        weights : str, default "auto"
            The weights that the user asked for. After feature extraction they must be those of the
            features.
        **parameters
            The stage's parameters, to be kept in run.json.

        Returns
        -------
        Run
            Itself, so that a notebook can show it.

        Raises
        ------
        RunError
            If a parameter is of the wrong type or out of range, the stage before is not finished,
            its features were made with other weights, or another process is writing into the run
            folder. Until `finish`, or until this process ends, no other one may.
        """
        try:
            check_values(stage, parameters)
            weights = check(weights)
        except (ValueError, OSError) as error:
            raise RunError(str(error)) from None
        self._ready(stage, weights)  # before a folder is made
        if not (is_held(self.folder) or take(self.folder)):
            raise RunError(
                f"{self.folder} is in use: a batch, or another notebook that has not come to its "
                "end, is writing into it. Wait until it is done, or shut its kernel down; another "
                "folder can be chosen with the parameter runs"
            )
        try:
            kept = self._ready(stage, weights)  # as the last one to write has left it
        except RunError:
            leave(self.folder)
            raise
        self.write(
            dataset=self.dataset,
            category=self.category,
            versions={
                name: version(name)
                for name in ("texad", "torch", "torchvision", "numpy", "scikit-learn")
            }
            | {"python": platform.python_version()},
            stages=kept,
        )
        if stage == STAGES[1]:
            parameters["weights"] = weights
        self._stage, self._parameters, self._started = stage, parameters, time.perf_counter()
        return self

    def _ready(self, stage: str, weights: str) -> dict[str, dict]:
        """Entries of the stages that still count when this one starts.

        A RunError if what it builds on is missing or other than wanted.
        """
        record = self.read()
        before, position = record.get("stages", {}), (STAGES + STUDIES).index(stage)
        for needed in STAGES[:position]:
            if needed not in before:
                raise RunError(
                    f"{self.folder} lacks the results of {needed}: "
                    f"run notebooks/{needed}.ipynb for it first"
                )
        used = record.get("weights", {}).get("name")
        if position > 1 and weights != "auto" and used not in (weights, Path(weights).name):
            raise RunError(
                f"the features in {self.folder} were made with weights {printable(used)}, "
                f"not {printable(weights)}: "
                f"run notebooks/{STAGES[1]}.ipynb with these weights first"
            )
        kept = STAGES[:position] + (STUDIES if stage in STUDIES else ())
        return {name: entry for name, entry in before.items() if name in kept and name != stage}

    def finish(self) -> None:
        """Record that the stage which was started is done, and the hashes of its files."""
        if not is_held(self.folder):
            raise RunError(
                f"{self._stage or 'this stage'} is finished already, or was never started: "
                "run its notebook from the first cell on"
            )
        entry = {
            "parameters": self._parameters,
            "seconds": round(time.perf_counter() - self._started, 2),
            "peak_mb": _peak_mb(),
            "files": digests(self.folder, FILES[self._stage]),
        }
        self.write(stages=self.read()["stages"] | {self._stage: entry})
        leave(self.folder)

    # -- what the stages leave ---------------------------------------------------------------------

    def write_images(
        self,
        category: datasets.Category,
        calibration_fraction: float = 0.0,
        seed: int = 0,
        groups: str = "",
    ) -> pd.DataFrame:
        """Write images.csv, and into run.json what the data are.

        That is their fingerprint, how many images and groups each split has, and which images were
        left out and why.

        Parameters
        ----------
        category : Category
            As `screening.readable` returns it, if some of its images cannot be read.
        calibration_fraction : float, default 0.0
            Fraction of the good training images kept out of the fit, to set a threshold with:
            rounded to whole images, at least one of two, and never all. Their `split` is
            "calibration".
        seed : int, default 0
            Seed of the choice of these images.
        groups : str, default ""
            Where groups come from, see `texad.data.groups.groups`. A group of training images is
            kept out whole.

        Returns
        -------
        DataFrame
            As `images`.

        Raises
        ------
        RunError
            If `calibration_fraction` is not at least 0 and below 1, `seed` is negative, or the
            groups cannot be found.
        """
        try:
            group_of = _groups(category, groups)
            train, calibration = splitting.keep_out(
                category.train,
                calibration_fraction,
                seed,
                [group_of[sample] for sample in category.train] if group_of else None,
            )
        except ValueError as error:
            raise RunError(str(error)) from None

        def relative(path: Path) -> str:
            return path.relative_to(category.root).as_posix()

        splits = {"train": train, "calibration": calibration, "test": category.test}
        samples = [sample for split in splits.values() for sample in split]
        images = pd.DataFrame(
            {
                "path": [relative(sample.path) for sample in samples],
                "split": [split for split, those in splits.items() for _ in those],
                "defect": [sample.defect for sample in samples],
                "label": [sample.label for sample in samples],
                "mask": [relative(sample.mask) if sample.mask else "" for sample in samples],
                "group": [group_of.get(sample, "") for sample in samples],
            }
        )
        self.write_table("images.csv", images)
        n_groups = images[images["group"] != ""].groupby("split")["group"].nunique()
        self.write(
            data={
                "folder": str(category.root),
                "fingerprint": datasets.fingerprint(
                    category, find_groups.table_file(category.root, groups)
                ),
                **{f"n_{split}": len(those) for split, those in splits.items()},
                "groups": {"source": find_groups.source(category.root, groups)}
                | {f"n_{split}": int(n_groups.get(split, 0)) for split in splits},
                "unreadable": [
                    {"path": printable(relative(left_out.sample.path)), "reason": left_out.reason}
                    for left_out in category.unreadable
                ],
            }
        )
        return images

    def images(self, split: str, table: str = "images.csv") -> pd.DataFrame:
        """The images of a split, in the order of their features.

        Parameters
        ----------
        split : {"train", "calibration", "test"}
            "train" are the good images that the autoencoder is fit to, "calibration" those kept
            out of the fit.
        table : str, default "images.csv"
            "scores.csv" has other columns.

        Returns
        -------
        DataFrame
            Columns `path` (relative to the category's folder), `split`, `defect` ("good" where
            there is none), `label` (0 normal, 1 anomalous), `mask` (relative, empty where there is
            none), `group` (empty where there is none).
        """
        images = self.read_table(table)
        return images[images["split"] == split].reset_index(drop=True)

    def groups(self, split: str) -> list[str] | None:
        """The group of each image of a split; None where the images are in no groups."""
        groups = self.images(split)["group"].tolist()
        return groups if any(groups) else None

    def data_path(self, relative: str) -> Path | None:
        """The file of an image or mask named in a table; None for an empty name."""
        return self.data_paths([relative])[0] if relative else None

    def data_paths(self, relatives: Iterable[str]) -> list[Path]:
        """The files of images named in a table."""
        if folder := self.read().get("data", {}).get("folder"):
            return [Path(folder, relative) for relative in relatives]
        raise RunError(
            f"{self.folder / 'run.json'} does not say where the images are: "
            f"run notebooks/{STAGES[0]}.ipynb for it first"
        )

    def parameter(self, name: str) -> Any:
        """The value of a parameter of an earlier stage, the last that has it."""
        for stage in reversed(self.read().get("stages", {}).values()):
            if name in stage.get("parameters", {}):
                return stage["parameters"][name]
        raise RunError(
            f"{self.folder / 'run.json'} does not say the {name} of an earlier stage: "
            "run the notebooks for it again"
        )

    def sight(self) -> Sight:
        """How the images are brought to the backbone; early runs know only squares."""
        return Sight(**(self.read().get("sight") or {"size": self.parameter("image_size")}))

    def grid(self) -> Grid:
        """Where the places of the feature maps lie; early runs do not say it: measure."""
        if found := self.read().get("places"):
            return Grid(found["stride"], tuple(found["centre"]))
        return grid(load_backbone(self.folder / "backbone.safetensors"))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        write_table(self.folder / name, table)

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a table that `write_table` wrote.

        An image may be called NA; only what was not measured is missing.
        """
        return from_spreadsheet(
            pd.read_csv(
                self.folder / name,
                keep_default_na=False,
                lineterminator="\n",  # a name may have another kind of line end in it
                na_values=dict.fromkeys(MEASURED, [""]),
                dtype=dict.fromkeys(("path", "defect", "mask", "group"), str)
                | dict.fromkeys(MEASURED, float),
            )
        )

    def write_array(self, name: str, array: np.ndarray) -> None:
        with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def read_array(self, name: str) -> np.ndarray:
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def write_figure(self, name: str, figure: Figure) -> None:
        """Save a figure under figures/; the ending of `name` (.svg, .png) chooses the format."""
        save_figure(self.folder / "figures" / name, figure)

    # -- how a run shows itself --------------------------------------------------------------------

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts().items())

    def _repr_html_(self) -> str:
        return HTML.render(facts=self._facts())

    def _facts(self) -> dict[str, str]:
        """What is said of the run, by name."""
        record = self.read()
        facts = {"data set": self.dataset, "category": self.category}
        if data := record.get("data"):
            counts = {
                "for training": data["n_train"],
                "for calibration": data.get("n_calibration"),
                "for testing": data["n_test"],
                "left out, since they cannot be read": len(data.get("unreadable", [])),
            }
            facts["images"] = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        if weights := record.get("weights"):
            name, digest = weights["name"], weights["sha256"]
            facts["weights"] = f"{name}, {ABOUT.get(name, 'a file')} (sha256 {digest[:12]}…)"
        return facts


class FinishedRun(Run):
    """A run folder to read from; unlike for a `Run`, its data set need not be there any more.

    Parameters
    ----------
    folder : Path
        runs/<data set>/<category>.
    """

    def __init__(self, folder: Path):
        self.folder, self.dataset, self.category = folder, folder.parent.name, folder.name

    def test(self) -> pd.DataFrame:
        """The test images with score, prediction and mask, in the order of their anomaly maps."""
        return self.images("test", "scores.csv").assign(mask=self.images("test")["mask"])


def _groups(category: datasets.Category, how: str) -> dict[datasets.Sample, str]:
    """Group of each image; empty if nothing is said of groups. A test image may have none ("")."""
    found: dict[datasets.Sample, str] = {}
    for samples, every in ((category.train, True), (category.test, False)):
        paths = [sample.path for sample in samples]
        found |= zip(
            samples, find_groups.groups(paths, category.root, how, every) or (), strict=False
        )
    return found


def _peak_mb() -> float | None:
    """Peak resident memory of this process in 10⁶ bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    kibibytes = status.exists() and re.search(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))
    return round(int(kibibytes[1]) * 1024 / 1e6, 1) if kibibytes else None
