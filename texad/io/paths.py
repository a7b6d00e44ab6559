"""Where the data, the runs and the notebooks are."""

import os
from pathlib import Path


def checkout() -> Path | None:
    """Root of the repository that the package runs from; None if it was installed without one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def data_root() -> Path:
    """Folder of the data sets "synthetic" and "mvtec": an absolute path, which need not exist.

    It is the environment variable TEXAD_DATA if that is set; else `data` in the checkout that the
    package runs from; else `data` in the current folder.
    """
    return _root("TEXAD_DATA", "data")


def runs_root() -> Path:
    """Folder of the run folders.

    It is TEXAD_RUNS, else `runs` in the checkout, else `runs` in the current folder.
    """
    return _root("TEXAD_RUNS", "runs")


def _root(variable: str, name: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given).expanduser().resolve()
    return (checkout() or Path.cwd()) / name


def notebooks_folder() -> Path:
    """Folder of the notebooks, beside the package in its checkout.

    Raises
    ------
    FileNotFoundError
        If the package was installed without them.
    """
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not any(folder.glob("01_*.ipynb")):
        raise FileNotFoundError(
            f"no notebooks in {folder}: they are in the repository: clone it, and there pip "
            "install -e '.[book]'"
        )
    return folder
