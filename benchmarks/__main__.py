"""The command line: `python -m benchmarks [NAME ...]`, from the root of the checkout."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.material import Options
from benchmarks.measure import machine, table

NAMES = ("forward", "end_to_end", "fit", "latency", "papermill", "equality")
# only when named, or with "all"
SLOW = ("memory", "peers", "promise", "drawn", "contaminated")
NAMES += SLOW

DESCRIPTION = f"""\
Measure how fast texad is, in ratios of things that are measured in turn, and print one table with
the bars that the project sets itself.

Names: {", ".join(NAMES)}, or all.
Without a name all but {", ".join(SLOW)}, which take long, are run.
Leave the machine alone meanwhile."""

EXAMPLES = """\
examples:
  python -m benchmarks                                          random weights, synthetic leather
  python -m benchmarks forward --repeats 11                     one of them, with more rounds
  python -m benchmarks fit equality --weights FILE --data DATA --category NAME
  python -m benchmarks peers --anomalib-python ~/anomalib/bin/python --data DATA --category NAME
  python -m benchmarks promise --repeats 20 --weights FILE --data DATA --category NAME
  python -m benchmarks drawn --weights FILE                     how hard the drawn data set is
  python -m benchmarks contaminated --repeats 3 --weights texad --data DATA --category NAME
  python -m benchmarks all --json benchmarks/results.json
      keep what was measured; entries of others stay"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        "python -m benchmarks",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("names", nargs="*", metavar="NAME", help="what to measure")
    top.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="rounds of each pair (default: 5; at most 3 where a round takes minutes)",
    )
    top.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="FILE",
        help="write what was measured, with the machine; other benchmarks in it are kept",
    )
    top.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes, to see that everything works; the values mean nothing then",
    )
    top.add_argument(
        "--weights",
        default="random",
        metavar="W",
        help="random (default), texad, imagenet, or a .safetensors or .pth file",
    )
    top.add_argument(
        "--data",
        default="",
        metavar="DATA",
        help="a folder of categories, laid out as MVTec AD (default: synthetic leather)",
    )
    top.add_argument("--category", default="", metavar="NAME", help="which one of them")
    top.add_argument(
        "--sizes",
        default="250,1000,4000",
        metavar="N,N",
        help="training images for memory (default: 250,1000,4000)",
    )
    top.add_argument(
        "--anomalib-python",
        default="",
        metavar="PATH",
        help="interpreter of an environment with anomalib, for peers",
    )
    top.add_argument(
        "--work",
        type=Path,
        default=Options.work,
        metavar="DIR",
        help="where images are made and kept (default: in the temporary folder)",
    )
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 if everything could be measured, whether the
    bars hold or not, else 2.
    """
    given = parser().parse_args(arguments)
    try:
        names, options = chosen(given.names), read_options(given)
        rows = []
        for name in names:
            measured = importlib.import_module(f"benchmarks.{name}").run(options)
            rows += measured
            if given.json:
                keep(given.json, name, measured, options)
    except (ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if options.quick:
        print("quick: the sizes are tiny, and the values mean nothing")
    print(table(rows))
    return 0


def chosen(names: list[str]) -> list[str]:
    """Which benchmarks to run, in their own order.

    Raises
    ------
    ValueError
        If one is unknown.
    """
    for unknown in set(names) - {*NAMES, "all"}:
        raise ValueError(
            f"there is no benchmark {unknown!r}: choose from {', '.join(NAMES)}, or all"
        )
    wanted = NAMES if "all" in names else names or [name for name in NAMES if name not in SLOW]
    return [name for name in NAMES if name in wanted]


def read_options(given: argparse.Namespace) -> Options:
    """What the benchmarks need to know.

    Raises
    ------
    ValueError
        If a value is out of range, or one of --data and --category is given without the other.
    """
    if given.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, not {given.repeats}")
    if bool(given.data) != bool(given.category):
        raise ValueError(
            "--data and --category go together: the folder of categories, and the one to measure "
            "with"
        )
    try:
        sizes = tuple(int(size) for size in given.sizes.split(","))
    except ValueError:
        sizes = ()
    if len(set(sizes)) < 2 or min(sizes) < 1:
        raise ValueError(
            "--sizes must be two or more different numbers of images with commas between, not "
            f"{given.sizes!r}"
        )
    return Options(
        given.repeats,
        given.quick,
        given.weights,
        given.data,
        given.category,
        sizes,
        given.anomalib_python,
        given.work.expanduser().resolve(),
    )


def keep(file: Path, name: str, rows: list, options: Options) -> None:
    """Write what a benchmark measured into a JSON file, beside what others have left there."""
    from texad.io.json_files import read_json, write_json

    how = {
        "repeats": options.repeats,
        "quick": options.quick,
        "weights": Path(options.weights).name,
        "data": f"{Path(options.data).name}/{options.category}" if options.data else "synthetic",
    }
    entry = {"machine": machine(), "options": how, "rows": [row.as_json() for row in rows]}
    write_json(file, read_json(file) | {name: entry})


if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main())
