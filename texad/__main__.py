"""The command line: `python -m texad`, also installed as `texad`."""

import argparse
import sys

from texad import __version__

DESCRIPTION = """\
Texture anomaly detection with ResNet-50 features and an autoencoder.

`texad run` executes chapters 1 to 5 of the book for each category of a data set, by papermill, and leaves
DIR/<data set>/<category>/ with the executed notebooks, scores.csv, metrics.json and the five figures, and
DIR/summary.csv and summary.json for all of them. With --studies, chapters 6 to 8 follow for one category.
Several values with commas between, of the seed or a parameter, make a sweep: every combination is run, and OUT/sweep.csv compares them.
`texad record` keeps the results of runs on real surfaces for the book."""

EXAMPLES = """\
examples:
  python -m texad run                                          the embedded synthetic textures, all five
  python -m texad run --dataset mvtec --category leather       MVTec AD (a download of 4.9 GB, once)
  python -m texad run --dataset /data/surfaces --jobs 2        each sub-folder laid out as MVTec AD lays out a category
  python -m texad run --category tile -p bottleneck 32         with another width of the autoencoder's bottleneck
  python -m texad run -p detector extended                     the stronger detector of chapter 8
  python -m texad run -p rule conformal -p alpha 0.1           a threshold for one false alarm in ten good images, at most
  python -m texad run --studies                                chapters 6 to 8, too
  python -m texad run --seed 0,1,2 -p bottleneck 64,256        a sweep: each seed with each bottleneck, six runs
  python -m texad run --scheduler tcp://192.168.0.10:8786      on the machines of a Dask cluster, which share the folders with this one

A run that was interrupted goes on where it stopped. The exit status is 1 if a category or a study failed, 2 if nothing could be run."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser("texad", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"texad {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="execute the notebooks for each category",
        description="Execute the five notebooks for each category of a data set.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--dataset", default="synthetic", metavar="D", help="synthetic (default), mvtec, or a folder of categories")
    run.add_argument("--category", default="all", metavar="NAME", help="all (default), a name, or NAME,NAME")
    run.add_argument("--weights", default="auto", metavar="W", help="auto (default), imagenet, random, or a .safetensors or .pth file")
    run.add_argument("--out", default=None, metavar="DIR", help="where the run folders go (default: runs, beside the notebooks)")
    run.add_argument("--jobs", type=int, default=None, metavar="N", help="categories at a time (default: as many as there are cores)")
    run.add_argument("--seed", type=_seeds, default=[0], metavar="S", help="of everything that is random (default: 0); S,S for a sweep")
    run.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks; may be repeated; VALUE,VALUE for a sweep",
    )
    run.add_argument("--scheduler", default=None, metavar="ADDRESS", help="of a Dask cluster that does the work (default: this machine does)")
    run.add_argument("--studies", action="store_true", help="then run chapters 6 to 8 too, for one category: leather, else the first")
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    record = commands.add_parser(
        "record",
        help="keep the results of runs on real surfaces for the book",
        description="Write the results of finished runs on real surfaces to one small file, which the book shows where the data are absent.",
    )
    record.add_argument("runs", nargs="+", metavar="RUNS", help="folder that texad run --out has filled; one for each seed and detector")
    record.add_argument("--to", default=None, metavar="FILE", help="where to write (default: book/real_surfaces.json)")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return _record(options) if options.command == "record" else _run(options)
    except (ValueError, OSError) as error:
        print(f"texad: {error}", file=sys.stderr)
        return 2


def _record(options: argparse.Namespace) -> int:
    from texad.book import record  # only now: importing torch takes seconds, --help should not

    print(record.record(options.runs, options.to))
    return 0


def _run(options: argparse.Namespace) -> int:
    from texad import artifacts, batch, parameters, sweeps

    where = (options.dataset, options.category, options.weights, options.out or artifacts.runs_root(), options.jobs)
    how = (options.studies, not options.quiet, options.scheduler)
    values = parameters.parse_values(dict(options.p))
    if max(map(len, (options.seed, *values.values()))) > 1:
        rows = sweeps.run(options.seed, values, *where, *how)
        print(sweeps.table(rows))
    else:
        rows = batch.run(*where, *options.seed, dict(options.p), *how)
        print(batch.table(rows))
    failures = [row for row in rows if row["error"]]
    for row in failures:
        print(f"texad: {row.get('setting', '')}{row['category']} failed: {row['error']}", file=sys.stderr)
    return 1 if failures else 0


def _seeds(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number, or several with commas between, not {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
