"""The parser of the command line; it imports nothing large, so that `texad --help` is quick."""

import argparse
import textwrap
from typing import Any

from texad import __version__

DESCRIPTION = """\
Texture anomaly detection with ResNet-50 features and an autoencoder.

`texad run` executes chapters 1 to 5 of the book for each category of a data set, by papermill, and
leaves DIR/<data set>/<category>/ with the executed notebooks, scores.csv, metrics.json and the five
figures, and DIR/summary.csv and summary.json for all of them. With --studies, one category gets all
that a book shows: the chapters' solutions and asides, and chapters 6 to 9. Several values with
commas between, of the seed or a parameter, make a sweep: every combination is run, and
OUT/sweep.csv compares them. `texad record` keeps the results of runs on real surfaces for the book.

With images of your own, and no notebooks: `texad fit` learns from a folder of good images and
writes one detector file, `texad predict` judges images with it, `texad check` tells whether the
line has drifted, and `texad calibrate` sets a new threshold. `texad export` writes the detector for
other programs. `texad import` brings labelled images (folders, tables, and what annotation tools
write) into the layout that `texad run` reads. Each explains itself: texad fit --help."""

EXAMPLES = """\
examples:
  texad run                                          the synthetic textures, all five
  texad run --dataset mvtec --category leather       MVTec AD (a download of 4.9 GB, once)
  texad run --dataset /data/surfaces --jobs 2        each folder a category as in MVTec AD
  texad run --category tile -p bottleneck 32         another width of the autoencoder's bottleneck
  texad run -p detector extended                     the detector of chapter 8
  texad run -p rule conformal -p false_alarms 0.1    at most one false alarm in ten good images
  texad run --studies                                chapters 6 to 9, too
  texad run --seed 0,1,2 -p bottleneck 64,256        a sweep of each seed with each bottleneck
  texad run --scheduler tcp://192.168.0.10:8786      on the machines of a Dask cluster, which share
                                                     the folders with this one

A run that was interrupted goes on where it stopped. The exit status is 1 if a category or a study
failed, 2 if nothing could be run."""


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line; options have the names that the commands take.

    Examples
    --------
    >>> parser().parse_args(["check", "steel.safetensors", "new/", "--level", "0.05"]).level
    0.05
    """
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        "texad", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=plain
    )
    top.add_argument("--version", action="version", version=f"texad {__version__}")
    parsers = top.add_subparsers(dest="command", required=True)
    for name, (summary, description, options) in COMMANDS.items():
        paragraphs = (" ".join(part.split()) for part in description.split("\n\n"))
        command = parsers.add_parser(
            name,
            help=summary,
            description="\n\n".join(textwrap.fill(part, 100) for part in paragraphs),
            epilog=EXAMPLES if name == "run" else None,
            formatter_class=plain,
            allow_abbrev=False,
        )
        for each in options:
            either = isinstance(each, tuple)
            group = command.add_mutually_exclusive_group() if either else command
            for one in each if isinstance(each, tuple) else (each,):
                group.add_argument(*one.names, **one.settings)
    return top


def _seeds(text: str) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = []
    if not seeds or not all(0 <= seed < 2**32 for seed in seeds):
        raise argparse.ArgumentTypeError(
            f"a whole number from 0 to 4294967295, or several with commas between, not {text!r}"
        )
    return seeds


# -- the commands and their options ----------------------------------------------------------------


class Option:
    """Option or argument of a command, as `argparse.ArgumentParser.add_argument` takes it."""

    def __init__(self, *names: str, **settings: Any):
        self.names, self.settings = names, settings


QUIET = Option(
    "--quiet",
    dest="progress",
    action="store_false",
    help="no progress bars, and nothing else that is only for watching",
)
DETECTOR = Option("detector", metavar="DETECTOR", help="a file that texad fit wrote")
WEIGHTS = Option(
    "--weights",
    default="auto",
    metavar="W",
    help="auto (default), texad, imagenet, random, or a .safetensors, .pth or .ckpt file",
)
REGION = Option(
    "--region",
    metavar="MASK",
    help="judge only what is white in MASK, or in the mask of each image's name in the folder MASK "
    "(default: the region that DETECTOR holds, if any; it must be given if that was a folder)",
)
UNREADABLE_LIMIT = Option(
    "--unreadable-limit",
    type=float,
    default=0.05,
    metavar="U",
    help="fraction of the images that may be unreadable (default: 0.05)",
)

# One line about each, its description in paragraphs, and its options; of those in a tuple only one
# may be given.
COMMANDS: dict[str, tuple[str, str, list[Option | tuple[Option, ...]]]] = {
    "run": (
        "execute the notebooks for each category",
        "Execute the five notebooks for each category of a data set.",
        [
            Option(
                "--dataset",
                default="synthetic",
                metavar="D",
                help="synthetic (default), mvtec, or a folder of categories",
            ),
            Option(
                "--category",
                default="all",
                metavar="NAME",
                help="all (default), a name, or NAME,NAME",
            ),
            WEIGHTS,
            Option(
                "--out",
                metavar="DIR",
                help="where the run folders go (default: runs, beside the notebooks)",
            ),
            Option(
                "--jobs",
                type=int,
                metavar="N",
                help="categories at a time (default: as many as there are cores)",
            ),
            Option(
                "--seed",
                type=_seeds,
                default=[0],
                metavar="S",
                help="seed of all random choices (default: 0); S,S for a sweep",
            ),
            Option(
                "-p",
                dest="parameters",
                nargs=2,
                action="append",
                default=[],
                metavar=("NAME", "VALUE"),
                help="a parameter of the notebooks; may be repeated; VALUE,VALUE for a sweep",
            ),
            Option(
                "--scheduler",
                metavar="ADDRESS",
                help="address of a Dask cluster that does the work (default: this machine does)",
            ),
            Option(
                "--studies",
                action="store_true",
                help="run solutions and asides, and then chapters 6 to 9, for one category: "
                "leather, else the first",
            ),
            QUIET,
        ],
    ),
    "record": (
        "keep the results of runs on real surfaces for the book",
        "Write the results of finished runs on real surfaces to one small file, which "
        "the book shows where the data are absent.",
        [
            Option(
                "folders",
                nargs="+",
                metavar="RUNS",
                help="folder that texad run --out has filled; one for each seed and detector",
            ),
            Option(
                "--to",
                dest="file",
                metavar="FILE",
                help="where to write (default: book/real_surfaces.json)",
            ),
        ],
    ),
    "fit": (
        "learn from a folder of good images",
        """Learn from a folder of good images, and write a detector: one file with all that is
        needed to judge others. Several models learn, each without a part of the images, and their
        scores of these set the threshold. Says what false-alarm rate that promises, and what would
        break the promise. A page beside the detector shows the scores, and the strangest of the
        good images: look whether one of them is bad.

        All images of the folder and of its sub-folders are taken, and copies are left out. If the
        folder has MVTec AD's layout, only train/good is taken.

        Images may come in groups: exposures of one piece, cells of one module, pieces of one batch.
        A group must not be divided, part to learn from and part to calibrate with, or the threshold
        is too low. --groups names them in one of three ways: a file ending in .csv, with the
        columns path and group; the word folder, if each group has a folder of its own; or a regular
        expression, searched in the path of each image below FOLDER, whose first part in parentheses
        is the group, such as 'tile([0-9]+)'. A groups.csv in FOLDER is found by itself.""",
        [
            Option("folder", metavar="FOLDER", help="good images: no defect in any of them"),
            Option(
                "--out",
                required=True,
                metavar="DETECTOR",
                help="the file to write, for instance steel.safetensors",
            ),
            WEIGHTS,
            Option(
                "--detector",
                default="published",
                metavar="NAME",
                help="published (default) or extended: chapters 3 and 8 of the book",
            ),
            Option(
                "--false-alarms",
                type=float,
                default=0.05,
                metavar="A",
                help="fraction of good images that may be called anomalous (default: 0.05)",
            ),
            Option(
                "--calibration-fraction",
                type=float,
                metavar="C",
                help="keep out this fraction of the images to calibrate one model with (default: "
                "learn from all and calibrate with all, with several models)",
            ),
            Option(
                "--image-size",
                type=int,
                metavar="PIXELS",
                help="resize images to an area of PIXELS × PIXELS: published makes squares of "
                "them, extended keeps their aspect ratio; a multiple of 16 (default: 224)",
            ),
            Option(
                "--white",
                type=int,
                metavar="LEVEL",
                help="level that is white in images of 16 bits, such as 4095 (default: the white "
                "of so few bits, 8, 10, 12, 14 or 16, as hold all levels of the images)",
            ),
            Option(
                "--region",
                metavar="MASK",
                help="learn and judge only what is white in MASK, an image for all images, which "
                "the detector keeps; or a folder with a mask of the name of each image",
            ),
            Option(
                "--groups",
                default="",
                metavar="G",
                help="which images belong together: a .csv, the word folder, or a regular "
                "expression (default: FOLDER/groups.csv, if there is one)",
            ),
            Option(
                "--drop",
                type=int,
                default=0,
                metavar="N",
                help="leave out the N strangest images, found by fitting once before, and name "
                "them: for a folder that may hold bad images (default: 0)",
            ),
            UNREADABLE_LIMIT,
            Option(
                "--seed",
                type=int,
                default=0,
                metavar="S",
                help="seed of all random choices (default: 0)",
            ),
            Option(
                "--report",
                metavar="FILE",
                help="the page to write (default: beside the detector, ending in .html)",
            ),
            QUIET,
        ],
    ),
    "predict": (
        "judge images with a detector",
        """Judge images, one after the other, however many there are. Each result is written at
        once: path, score, p_value, decision, seconds, error. The decision is normal, anomalous, or
        unreadable; the column error says what is wrong with an unreadable image, and the others go
        on. The order is that of the paths, 2 before 10, on every machine; paths from the standard
        input stay in theirs.

        Exit status: 0 when all is done; 2 if nothing could be judged; 130 after Ctrl-C (what was
        written stays). With --fail-on-anomaly: 1 if an image is anomalous; else 3 if something
        could not be judged, since nobody knows whether it is good; 0 only if all is normal.""",
        [
            DETECTOR,
            Option(
                "paths",
                nargs="+",
                metavar="PATH",
                help="an image, a folder (with all folders below), a pattern such as "
                "'line/**/*.png', or - to read paths from the standard input, a line each",
            ),
            (
                Option(
                    "--out",
                    metavar="FOLDER",
                    help="write predictions.csv and predictions.jsonl there (default: print)",
                ),
                Option(
                    "--format",
                    choices=("csv", "jsonl"),
                    default="csv",
                    help="format of what is printed (default: csv)",
                ),
            ),
            REGION,
            Option(
                "--heatmaps",
                action="store_true",
                help="with --out: write a picture of each image, too, covered by its heatmap",
            ),
            Option(
                "--fail-on-anomaly",
                action="store_true",
                help="exit with status 1 if an image is anomalous",
            ),
            QUIET,
        ],
    ),
    "check": (
        "has the line drifted?",
        """Compare new good images with those that the threshold was set with. If light, camera or
        material have changed, their scores show it. Says in words what was found, and what to do.
        If the folder has MVTec AD's layout, only test/good is taken.

        Exit status: 0 if no drift was seen (or there are too few images to see any, which is said),
        1 if the line has drifted, 2 if nothing could be checked.""",
        [
            DETECTOR,
            Option(
                "folder",
                metavar="FOLDER",
                help="new good images, 20 or more, taken as they are now",
            ),
            Option("--out", metavar="FILE", help="write a page with a picture, ending in .html"),
            REGION,
            Option(
                "--level",
                type=float,
                default=0.01,
                metavar="L",
                help="how often a line that has not changed may be suspected (default: 0.01)",
            ),
            UNREADABLE_LIMIT,
            QUIET,
        ],
    ),
    "calibrate": (
        "set the threshold from new good images",
        """Set the threshold anew from good images as they are now; what was learnt stays as it is.
        Images that the detector was fit to are left out, since it knows them too well. If the
        folder has MVTec AD's layout, only test/good is taken.""",
        [
            DETECTOR,
            Option("folder", metavar="FOLDER", help="new good images"),
            Option(
                "--out", metavar="NEW", help="the file to write (default: DETECTOR is replaced)"
            ),
            REGION,
            Option(
                "--false-alarms",
                type=float,
                default=None,
                metavar="A",
                help="fraction of good images that may be called anomalous (default: as before)",
            ),
            UNREADABLE_LIMIT,
            QUIET,
        ],
    ),
    "export": (
        "write a detector for other programs",
        """Write a detector as one ONNX file, which ONNX Runtime and others run without texad: in
        C++, C# or Java, too. It takes RGB images of 8 bits and of one size, (N, height, width, 3),
        and gives their score, whether it is above the threshold, and the anomaly map. The threshold
        in it is that of the detector: after texad calibrate, export again.

        With --check ONNX Runtime judges your own images beside the detector, and the largest
        difference is printed. Exit status: 0 if both decide the same about every image, 1 if not, 2
        if nothing could be exported or compared.""",
        [
            DETECTOR,
            Option(
                "--format",
                default="onnx",
                choices=("onnx",),
                help="format of the file (default: onnx)",
            ),
            Option(
                "--out",
                metavar="FILE",
                help="the file to write (default: DETECTOR, ending in .onnx)",
            ),
            Option(
                "--size",
                nargs=2,
                type=int,
                metavar=("HEIGHT", "WIDTH"),
                help="size of the camera's images, in pixels; they are resized as texad does "
                "(default: that of the training images, if all have the same)",
            ),
            REGION,
            Option(
                "--map",
                default="places",
                choices=("places", "pixels"),
                help="the anomaly map has a value for each place, or for each pixel of the images "
                "(default: places)",
            ),
            Option(
                "--check",
                nargs="+",
                default=(),
                metavar="IMAGES",
                help="compare the file with the detector on these images, folders or patterns",
            ),
            QUIET,
        ],
    ),
    "import": (
        "bring labelled images into MVTec AD's layout",
        """Bring labelled images into the layout that texad reads, MVTec AD's. A split of the source
        is kept; if it has none, a fraction of the good images is kept for testing, and the others
        are for learning. All defective images are for testing. Where a defect is drawn, it becomes
        a mask. The source stays as it is, and nothing is overwritten.

        folders: a folder of good images, and one of bad ones or one for each kind of defect. pairs:
        a mask beside each image (X and X_mask, X_GT, X_label); a black or missing one means good.
        csv: a table of paths and labels, and of masks, the split and the object if there are any.
        coco, labelme, label-studio, via: JSON. cvat, voc: XML. yolo: a text file for each image. In
        these, an image without annotation is good.""",
        [
            Option(
                "source",
                metavar="SOURCE",
                help="a folder; or the .csv, .json, .xml or data.yaml that speaks of the images",
            ),
            Option(
                "--to",
                dest="target",
                required=True,
                metavar="DATASET/CATEGORY",
                help="the folder to make; the data set is the folder around it (if the source has "
                "several objects: the data set itself)",
            ),
            Option(
                "--kind",
                choices=(
                    *("folders", "pairs", "csv", "coco", "yolo"),
                    *("labelme", "cvat", "label-studio", "voc", "via"),
                ),
                help="kind of the source (default: guessed)",
            ),
            Option(
                "--good",
                action="append",
                default=[],
                metavar="LABEL",
                help="a folder's name, a label or a category that is good; may be repeated "
                "(default: good, ok, normal and the like; in a csv also 0, false, no)",
            ),
            Option(
                "--test-fraction",
                type=float,
                metavar="T",
                help="fraction of the good images kept for testing (default: that of the "
                "source's own split, else 0.2)",
            ),
            Option(
                "--seed",
                type=int,
                default=0,
                metavar="S",
                help="seed of the choice of those (default: 0)",
            ),
            (
                Option(
                    "--copy",
                    dest="link",
                    action="store_false",
                    default=False,
                    help="copy the images (default)",
                ),
                Option(
                    "--link",
                    action="store_true",
                    help="link to the images instead; then they must stay where they are",
                ),
            ),
            Option(
                "--images",
                dest="image_folder",
                metavar="FOLDER",
                help="csv, JSON, XML: where the paths of images start",
            ),
            Option(
                "--path-column",
                metavar="NAME",
                help="csv: the column of paths (default: one with a usual name)",
            ),
            Option(
                "--label-column",
                metavar="NAME",
                help="csv: the column of labels (default: one with a usual name)",
            ),
            Option(
                "--mask-column",
                metavar="NAME",
                help="csv: the column of masks (default: one with a usual name)",
            ),
            QUIET,
        ],
    ),
}
