"""The command line: `python -m texad`, also installed as `texad`.

Each command is imported only when it is asked for: torch takes seconds, and --help should not.
"""

import atexit
import os
import pkgutil
import sys
from collections.abc import Sequence

from tqdm.contrib.logging import logging_redirect_tqdm

from texad.commands.parser import parser
from texad.errors import printable
from texad.io.paths import runs_root

FAILED, NOTHING_DONE, INTERRUPTED, NO_READER = 1, 2, 130, 141  # the last two as a shell has them
# Functions of commands that are not in `texad.commands`.
ELSEWHERE = {
    "import": "texad.data.convert.category:import_category",
    "record": "texad.site.record:record",
}
NEEDS_BOOK = ("run", "record")  # commands that execute notebooks, or read what these left


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those that the program was started with.

    Returns
    -------
    int
        The exit status. What went wrong is one line on the standard error.
    """
    options = vars(parser().parse_args(arguments))
    command = options.pop("command")
    try:
        name = ELSEWHERE.get(command, f"texad.commands.{command}:{command}")
        with logging_redirect_tqdm():
            done = (_run if command == "run" else pkgutil.resolve_name(name))(**options)
        if isinstance(done, int):
            return done
        print(done)
        return 0
    except KeyboardInterrupt as stopped:
        status = _complain(str(stopped) or "interrupted", INTERRUPTED)
        if command == "run":  # clean up, but do not take torch apart: that would take seconds
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(status)
        return status
    except BrokenPipeError:  # whoever reads what is printed has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except ModuleNotFoundError as error:
        if command not in NEEDS_BOOK:
            raise
        tools = "the book's tools: pip install 'texad[book]'"
        return _complain(f"{command} needs {tools} (there is no module {error.name})", NOTHING_DONE)
    except (ValueError, OSError) as error:
        return _complain(str(error), NOTHING_DONE)


def _run(
    dataset: str,
    category: str,
    weights: str,
    out: str | None,
    jobs: int | None,
    seed: list[int],
    parameters: list[list[str]],
    studies: bool,
    progress: bool,
    scheduler: str | None,
) -> int:
    if sys.platform == "linux" and not scheduler:  # the server imports torch while this does, too
        from texad.batch.fork_server import start_server

        start_server()
    from texad.batch import batch, sweeps
    from texad.runs.parameters import parse_values

    rows = batch.run(
        dataset,
        category,
        weights,
        out or runs_root(),
        jobs,
        seed,
        parse_values(dict(parameters)),
        studies,
        progress,
        scheduler,
    )
    print("\n".join(map(printable, sweeps.table(rows).split("\n"))))
    failures = [row for row in rows if row["error"]]
    for row in failures:
        _complain(f"{row.get('setting', '')}{row['category']} failed: {row['error']}", FAILED)
    return FAILED if failures else 0


def _complain(what: str, status: int) -> int:
    print(f"texad: {printable(what)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
