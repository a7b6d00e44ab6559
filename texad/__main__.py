"""The command line: `python -m texad`, also installed as `texad`."""

import argparse
import sys
import textwrap

from texad import __version__
from texad.io.paths import runs_root

DESCRIPTION = """\
Texture anomaly detection with ResNet-50 features and an autoencoder.

`texad run` executes chapters 1 to 5 of the book for each category of a data set, by papermill, and leaves
DIR/<data set>/<category>/ with the executed notebooks, scores.csv, metrics.json and the five figures, and
DIR/summary.csv and summary.json for all of them. With --studies, one category gets all that a book shows: the chapters'
solutions and asides, and chapters 6 to 9.
Several values with commas between, of the seed or a parameter, make a sweep: every combination is run, and OUT/sweep.csv compares them.
`texad record` keeps the results of runs on real surfaces for the book.

With images of your own, and no notebooks: `texad fit` learns from a folder of good images and writes one detector file, `texad predict` judges
images with it, `texad check` tells whether the line has drifted, and `texad calibrate` sets a new threshold.
`texad import` brings labelled images (folders, CSV, COCO, YOLO) into the layout that `texad run` reads. Each explains itself: texad fit --help."""

NEEDS_BOOK = ("run", "record")  # commands that execute notebooks, or read what these left

EXAMPLES = """\
examples:
  python -m texad run                                          the embedded synthetic textures, all five
  python -m texad run --dataset mvtec --category leather       MVTec AD (a download of 4.9 GB, once)
  python -m texad run --dataset /data/surfaces --jobs 2        each sub-folder laid out as MVTec AD lays out a category
  python -m texad run --category tile -p bottleneck 32         with another width of the autoencoder's bottleneck
  python -m texad run -p detector extended                     the stronger detector of chapter 8
  python -m texad run -p rule conformal -p false_alarms 0.1           a threshold for one false alarm in ten good images, at most
  python -m texad run --studies                                chapters 6 to 9, too
  python -m texad run --seed 0,1,2 -p bottleneck 64,256        a sweep: each seed with each bottleneck, six runs
  python -m texad run --scheduler tcp://192.168.0.10:8786      on the machines of a Dask cluster, which share the folders with this one

A run that was interrupted goes on where it stopped. The exit status is 1 if a category or a study failed, 2 if nothing could be run."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        "texad",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"texad {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="execute the notebooks for each category",
        description="Execute the five notebooks for each category of a data set.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--dataset",
        default="synthetic",
        metavar="D",
        help="synthetic (default), mvtec, or a folder of categories",
    )
    run.add_argument(
        "--category", default="all", metavar="NAME", help="all (default), a name, or NAME,NAME"
    )
    run.add_argument(
        "--weights",
        default="auto",
        metavar="W",
        help="auto (default), imagenet, random, or a .safetensors or .pth file",
    )
    run.add_argument(
        "--out",
        default=None,
        metavar="DIR",
        help="where the run folders go (default: runs, beside the notebooks)",
    )
    run.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help="categories at a time (default: as many as there are cores)",
    )
    run.add_argument(
        "--seed",
        type=_seeds,
        default=[0],
        metavar="S",
        help="of everything that is random (default: 0); S,S for a sweep",
    )
    run.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks; may be repeated; VALUE,VALUE for a sweep",
    )
    run.add_argument(
        "--scheduler",
        default=None,
        metavar="ADDRESS",
        help="of a Dask cluster that does the work (default: this machine does)",
    )
    run.add_argument(
        "--studies",
        action="store_true",
        help="run solutions and asides, and then chapters 6 to 9, for one category: leather, else the first",
    )
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    record = commands.add_parser(
        "record",
        help="keep the results of runs on real surfaces for the book",
        description="Write the results of finished runs on real surfaces to one small file, which the book shows where the data are absent.",
    )
    record.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="folder that texad run --out has filled; one for each seed and detector",
    )
    record.add_argument(
        "--to",
        default=None,
        metavar="FILE",
        help="where to write (default: book/real_surfaces.json)",
    )
    for add in (_add_fit, _add_predict, _add_check, _add_calibrate, _add_export, _add_import):
        add(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    functions = {
        "run": _run,
        "record": _record,
        "export": _export,
        "import": _import,
    } | dict.fromkeys(("fit", "predict", "check", "calibrate"), _with_detector)
    try:
        return functions[options.command](options)
    except KeyboardInterrupt:
        print("texad: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if options.command not in NEEDS_BOOK:
            raise
        print(
            f"texad {options.command} needs the book's tools: pip install 'texad[book]' (there is no module {error.name})",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        from texad.errors import printable

        print(f"texad: {printable(str(error))}", file=sys.stderr)
        return 2


def _record(options: argparse.Namespace) -> int:
    from texad.site import record  # only now: importing torch takes seconds, --help should not

    print(record.record(options.runs, options.to))
    return 0


def _run(options: argparse.Namespace) -> int:
    from texad.batch import batch, parameters, sweeps
    from texad.errors import printable

    where = (
        options.dataset,
        options.category,
        options.weights,
        options.out or runs_root(),
        options.jobs,
    )
    how = (options.studies, not options.quiet, options.scheduler)
    values = parameters.parse_values(dict(options.p))
    if max(map(len, (options.seed, *values.values()))) > 1:
        rows = sweeps.run(options.seed, values, *where, *how)
        table = sweeps.table
    else:
        (seed,) = options.seed
        rows = batch.run(*where, seed, dict(options.p), *how)
        table = batch.table
    rows = [
        {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    print(table(rows))
    failures = [row for row in rows if row["error"]]
    for row in failures:
        print(
            f"texad: {row.get('setting', '')}{row['category']} failed: {row['error']}",
            file=sys.stderr,
        )
    return 1 if failures else 0


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


# -- a detector of one's own -----------------------------------------------------------------------


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    paragraphs = "\n\n".join(
        textwrap.fill(" ".join(part.split()), 100) for part in description.split("\n\n")
    )
    parser = commands.add_parser(
        name,
        help=summary,
        description=paragraphs,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="no progress bars, and nothing else that is only for watching",
    )
    return parser


def _add_fit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    fit = _add(
        commands,
        "fit",
        "learn from a folder of good images",
        """Learn from a folder of good images, and write a detector: one file with all that is needed to judge others. Some of the images are kept
        out, to set the threshold with. Says what false-alarm rate that promises, and what would break the promise. A page beside the detector shows
        the scores, and the strangest of the good images: look whether one of them is bad.

        All images of the folder and of its sub-folders are taken, and copies are left out. Of a folder in MVTec AD's layout, only train/good is.""",
    )
    fit.add_argument("folder", metavar="FOLDER", help="of good images: no defect in any of them")
    fit.add_argument(
        "--out",
        required=True,
        metavar="DETECTOR",
        help="the file to write, for instance steel.safetensors",
    )
    fit.add_argument(
        "--weights",
        default="auto",
        metavar="W",
        help="auto (default), imagenet, random, or a .safetensors or .pth file",
    )
    fit.add_argument(
        "--detector",
        default="published",
        choices=("published", "extended"),
        help="chapters 3 and 8 of the book (default: published)",
    )
    fit.add_argument(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="A",
        help="part of good images that may be called anomalous (default: 0.05)",
    )
    fit.add_argument(
        "--calibration-fraction",
        type=float,
        default=0.2,
        metavar="C",
        help="part of the images kept out, at least (default: 0.2)",
    )
    fit.add_argument(
        "--image-size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="what images are resized to (default: 224); a multiple of 16",
    )
    fit.add_argument(
        "--unreadable-limit",
        type=float,
        default=0.05,
        metavar="U",
        help="part of the images that may be unreadable (default: 0.05)",
    )
    fit.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of everything that is random (default: 0)"
    )
    fit.add_argument(
        "--report",
        default=None,
        metavar="FILE",
        help="the page to write (default: beside the detector, ending in .html)",
    )


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = _add(
        commands,
        "predict",
        "judge images with a detector",
        """Judge images, one after the other, however many there are. Each result is written at once: path, score, p_value, decision, seconds, error.
        The decision is normal, anomalous, or unreadable; what is wrong with an unreadable image stands under error, and the others go on.

        Exit status: 0 when all is done; 2 if nothing could be judged; 130 after Ctrl-C (what was written stays). With --fail-on-anomaly: 1 if an image
        is anomalous; else 3 if something could not be judged, since nobody knows whether it is good; 0 only if all is normal.""",
    )
    predict.add_argument("detector", metavar="DETECTOR", help="a file that texad fit wrote")
    predict.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image, a folder (with all folders below), a pattern such as 'line/**/*.png', or - to read paths from the standard input, a line each",
    )
    predict.add_argument(
        "--out",
        default=None,
        metavar="FOLDER",
        help="write predictions.csv and predictions.jsonl there (default: print)",
    )
    predict.add_argument(
        "--heatmaps",
        action="store_true",
        help="with --out: write a picture of each image, too, covered by its heatmap",
    )
    predict.add_argument(
        "--format", default=None, choices=("csv", "jsonl"), help="of what is printed (default: csv)"
    )
    predict.add_argument(
        "--fail-on-anomaly", action="store_true", help="exit with status 1 if an image is anomalous"
    )


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = _add(
        commands,
        "check",
        "has the line drifted?",
        """Compare new good images with those that the threshold was set with. If light, camera or material have changed, their scores show it. Says in
        words what was found, and what to do. Of a folder in MVTec AD's layout, test/good is taken.

        Exit status: 0 if no drift was seen (or there are too few images to see any, which is said), 1 if the line has drifted, 2 if nothing could
        be checked.""",
    )
    check.add_argument("detector", metavar="DETECTOR", help="a file that texad fit wrote")
    check.add_argument(
        "folder", metavar="FOLDER", help="of new good images, 20 or more, taken as they are now"
    )
    check.add_argument(
        "--out", default=None, metavar="FILE", help="write a page with a picture, ending in .html"
    )
    check.add_argument(
        "--level",
        type=float,
        default=0.01,
        metavar="L",
        help="how often a line that has not changed may be suspected (default: 0.01)",
    )
    check.add_argument(
        "--unreadable-limit",
        type=float,
        default=0.05,
        metavar="U",
        help="part of the images that may be unreadable (default: 0.05)",
    )


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    calibrate = _add(
        commands,
        "calibrate",
        "set the threshold from new good images",
        """Set the threshold anew from good images as they are now; what was learnt stays as it is. Images that the detector was fit to are left out,
        since it knows them too well. Of a folder in MVTec AD's layout, test/good is taken.""",
    )
    calibrate.add_argument("detector", metavar="DETECTOR", help="a file that texad fit wrote")
    calibrate.add_argument("folder", metavar="FOLDER", help="of new good images")
    calibrate.add_argument(
        "--out",
        default=None,
        metavar="NEW",
        help="the file to write (default: DETECTOR is replaced)",
    )
    calibrate.add_argument(
        "--false-alarms",
        type=float,
        default=None,
        metavar="A",
        help="part of good images that may be called anomalous (default: as before)",
    )
    calibrate.add_argument(
        "--unreadable-limit",
        type=float,
        default=0.05,
        metavar="U",
        help="part of the images that may be unreadable (default: 0.05)",
    )


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = _add(
        commands,
        "export",
        "write a detector for other programs",
        """Write a detector as one ONNX file, which ONNX Runtime and others run without texad: in C++, C# or Java, too. It takes RGB images of 8 bits and of
        one size, (N, height, width, 3), and gives their score, whether it is above the threshold, and the anomaly map. The threshold in it is that of
        the detector: after texad calibrate, export again.""",
    )
    export.add_argument("detector", metavar="DETECTOR", help="a file that texad fit wrote")
    export.add_argument(
        "--format", default="onnx", choices=("onnx",), help="of the file (default: onnx)"
    )
    export.add_argument(
        "--out",
        default=None,
        metavar="FILE",
        help="the file to write (default: DETECTOR, ending in .onnx)",
    )
    export.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=None,
        metavar=("HEIGHT", "WIDTH"),
        help="of the camera's images, in pixels; they are resized as texad does (default: they have the detector's --image-size already)",
    )


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bring = _add(
        commands,
        "import",
        "bring labelled images into MVTec AD's layout",
        """Bring labelled images into the layout that texad reads, MVTec AD's. A part of the good images is kept for testing, the others are for learning;
        all defective images are for testing. Where a defect is drawn, it becomes a mask. The source stays as it is, and nothing is overwritten.

        folders: a folder of good images, and one of bad ones or one for each kind of defect. csv: a table of paths and labels, and of masks if there
        are any. coco: a JSON with polygons, run lengths or boxes; images without annotation are good. yolo: a text file for each image, with boxes
        or polygons; images without one are good.""",
    )
    bring.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder; or the .csv, the .json of COCO or the data.yaml of YOLO",
    )
    bring.add_argument(
        "--to",
        required=True,
        metavar="DATASET/CATEGORY",
        help="the folder to make; the data set is the folder around it",
    )
    bring.add_argument(
        "--kind",
        default=None,
        choices=("folders", "csv", "coco", "yolo"),
        help="of the source (default: guessed)",
    )
    bring.add_argument(
        "--good",
        action="append",
        default=[],
        metavar="LABEL",
        help="a folder's name, a label or a category that is good; may be repeated (default: good, ok, normal and the like; in a csv also 0, false, no)",
    )
    bring.add_argument(
        "--test-fraction",
        type=float,
        default=0.2,
        metavar="T",
        help="part of the good images kept for testing (default: 0.2)",
    )
    bring.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the choice of those (default: 0)"
    )
    how = bring.add_mutually_exclusive_group()
    how.add_argument(
        "--copy", dest="link", action="store_false", default=False, help="copy the images (default)"
    )
    how.add_argument(
        "--link",
        dest="link",
        action="store_true",
        default=False,
        help="link to the images instead; then they must stay where they are",
    )
    bring.add_argument(
        "--images",
        dest="image_folder",
        default=None,
        metavar="FOLDER",
        help="csv, coco: where the paths of images start",
    )
    for what in ("path", "label", "mask"):
        bring.add_argument(
            f"--{what}-column",
            default=None,
            metavar="NAME",
            help=f"csv: the column of {what}s (default: one with a usual name)",
        )


def _import(options: argparse.Namespace) -> int:
    from texad.data.convert.category import import_category

    arguments = {
        name: value
        for name, value in vars(options).items()
        if name not in ("command", "quiet", "to")
    }
    print(import_category(target=options.to, progress=not options.quiet, **arguments))
    return 0


def _with_detector(options: argparse.Namespace) -> int:
    from texad.commands import commands

    arguments = {
        name: value for name, value in vars(options).items() if name not in ("command", "quiet")
    }
    return getattr(commands, options.command)(**arguments, progress=not options.quiet)


def _export(options: argparse.Namespace) -> int:
    from texad.model import onnx_export as export

    print(export.export(options.detector, out=options.out, size=options.size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
