"""What `pip install` gives: the wheel, in an environment that has nothing but what it asks for."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

pytestmark = pytest.mark.slow

TOOLS = (
    "jupyterlab",
    "jupyter_client",
    "papermill",
    "nbformat",
    "nbclient",
    "IPython",
    "traitlets",
    "anywidget",
    "seaborn",
    "sphinx",
)


def run(*command, **options) -> subprocess.CompletedProcess:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TEXAD", "MPL"))
    } | {"PIP_NO_INDEX": "1"}
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        **options,
    )


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    source, out = tmp_path_factory.mktemp("source") / "texad", tmp_path_factory.mktemp("dist")
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("texad", "tests", "notebooks", "benchmarks", "book"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "run")
        )
    built = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def asked(wheel) -> list[Requirement]:
    """What the wheel asks for; that of an extra has a marker that says so."""
    with zipfile.ZipFile(wheel) as content:
        (metadata,) = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
        return list(
            map(
                Requirement,
                Parser().parsestr(content.read(metadata).decode()).get_all("Requires-Dist"),
            )
        )


def is_core(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


@pytest.fixture(scope="module")
def environment(wheel, asked, tmp_path_factory) -> Path:
    """Programs of a new environment: the wheel, and links to the installed packages it needs."""
    folder, links = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("packages")
    todo, found = [requirement.name for requirement in asked if is_core(requirement)], set()
    while todo:
        if (name := canonicalize_name(todo.pop())) in found:
            continue
        found.add(name)
        package = importlib.metadata.distribution(name)
        todo += [each.name for each in map(Requirement, package.requires or ()) if is_core(each)]
        for top in {PurePosixPath(file).parts[0] for file in package.files or ()} - {
            "..",
            "__pycache__",
        }:
            if not (links / top).exists():
                (links / top).symlink_to(package.locate_file(top))
    assert run(sys.executable, "-m", "venv", folder).returncode == 0
    programs = folder / "bin"
    installed = run(programs / "python", "-m", "pip", "install", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(f"{links}\n")
    return programs


# -- what is in it ---------------------------------------------------------------------------------


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    files = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "texad").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert (
        {
            "texad/py.typed",
            "texad/model/texad_weights.safetensors",
            "texad/model/texad_weights_LICENSE.txt",
            "texad/teaching/explorer.js",
            "texad/teaching/explorer.css",
            "texad/site/print.css",
        }
        <= names
        == files
    )


def test_the_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 12e6


def test_the_sdist_has_what_the_wheel_is_built_from(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as content:
        names = {
            PurePosixPath(name).relative_to(PurePosixPath(name).parts[0]).as_posix()
            for name in content.getnames()
        }
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "texad/py.typed",
        "texad/model/texad_weights.safetensors",
        "texad/site/print.js",
    } <= names
    assert not any(name.startswith(("notebooks", "data", "runs")) for name in names)


def test_the_package_asks_for_no_more_than_its_own_commands_need(asked):
    core = {canonicalize_name(requirement.name) for requirement in asked if is_core(requirement)}
    assert {"torch", "numpy", "pillow", "safetensors"} <= core and len(core) < 15
    assert not core & {canonicalize_name(name) for name in TOOLS}
    for requirement in asked:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert (
            operators == {"=="}
            or operators == {">=", "<"}
            or canonicalize_name(requirement.name) == "texad"
        ), requirement


def test_requirements_txt_is_the_package_with_the_book(asked):
    (line,) = [
        line
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert line == "-e .[book]"
    book = {
        canonicalize_name(each.name)
        for each in asked
        if each.marker is not None and each.marker.evaluate({"extra": "book"})
    }
    assert {"jupyterlab", "papermill", "jupyter-book", "seaborn", "playwright"} <= book


# -- in an environment with no more than it asks for -----------------------------------------------


def test_a_new_environment_has_none_of_the_book_s_tools(environment):
    """Else the tests below would show nothing."""
    found = f"[name for name in {TOOLS} if importlib.util.find_spec(name)]"
    code = f"import importlib.util\nprint({found})"
    assert run(environment / "python", "-c", code).stdout == "[]\n"


def test_the_commands_that_need_no_book_work(environment, tmp_path):
    rng = np.random.default_rng(0)
    for folder, n in (("good", 6), ("line", 2)):
        (tmp_path / folder).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(90, 150, (64, 64, 3), dtype=np.uint8)).save(
                tmp_path / folder / f"{i}.png"
            )
    texad = environment / "texad"
    fit = run(
        texad,
        "fit",
        "good",
        "--out",
        "d.safetensors",
        "--weights",
        "random",
        "--image-size",
        64,
        "--quiet",
        cwd=tmp_path,
    )
    assert fit.returncode == 0, fit.stderr
    predict = run(
        texad,
        "predict",
        "d.safetensors",
        "line",
        "--out",
        "results",
        "--heatmaps",
        "--quiet",
        cwd=tmp_path,
    )
    assert predict.returncode == 0, predict.stderr
    rows = (tmp_path / "results" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 3 and all(re.search(",(normal|anomalous),", row) for row in rows[1:])
    assert len(list((tmp_path / "results" / "heatmaps").iterdir())) == 2


def test_import_works_and_so_does_help(environment, tmp_path):
    for label in ("good", "crack"):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((16, 16, 3), 10 * i + len(label), np.uint8)).save(
                tmp_path / "labelled" / label / f"{i}.png"
            )
    done = run(
        environment / "texad",
        "import",
        "labelled",
        "--to",
        "surfaces/steel",
        "--quiet",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "surfaces" / "steel" / "test" / "crack").iterdir())) == 5
    shown = run(environment / "texad", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "usage: texad" in shown.stdout


def test_what_needs_the_book_says_so_in_one_line(environment, tmp_path):
    done = run(environment / "texad", "run", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "texad: run needs the book's tools: pip install 'texad[book]' (there is no module "
    )


def test_with_the_book_but_without_the_notebooks_run_says_where_they_are(environment, tmp_path):
    """The wheel holds no notebooks: texad run needs the repository."""
    (packages,) = environment.parent.glob("lib/python*/site-packages")
    tools = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        f"import sys; sys.path += {tools}; from texad.__main__ import main; sys.exit(main(['run']))"
    )
    done = run(environment / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"texad: no notebooks in {packages / 'notebooks'}: ")
    assert "clone it, and there pip install -e '.[book]'" in line
