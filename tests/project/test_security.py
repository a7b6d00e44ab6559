r"""What comes from outside is data: files, downloads, names. Nothing of it is run or sent.

How an archive is unpacked is tested in test_mvtec.py.
"""

import ast
import csv
import hashlib
import http.server
import importlib.metadata
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import papermill.translators
import pytest
import torch
from conftest import QUICK, ROOT, copy_book, write_category
from helpers import Server, visit
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from texad.__main__ import main
from texad.figures import plots, result_figures
from texad.io import download as downloads
from texad.io import escape as names
from texad.io.json_files import read_json
from texad.model import weights
from texad.runs.run_folder import FinishedRun, Run
from texad.site import markdown

# -- models are data -------------------------------------------------------------------------------


class Code:
    """Pickled, it makes a file when it is read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def plain_pickle(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


def archive_of_pickle(content: object, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
        archive.writestr("archive/version", "3")


def old_archive(content: object, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
@pytest.mark.parametrize(
    "write",
    [torch.save, old_archive, plain_pickle, archive_of_pickle],
    ids=lambda write: write.__name__,
)
def test_code_in_a_file_of_weights_is_not_run(tmp_path, suffix, write):
    trace, file = tmp_path / "trace", tmp_path / f"evil{suffix}"
    write({"layer3.5.conv3.weight": Code(trace)}, file)
    with pytest.raises(
        ValueError, match=f"weights file .*evil{suffix} is no plain state dict of tensors"
    ) as caught:
        weights.load(file)
    assert "\n" not in str(caught.value) and not trace.exists()


def test_the_file_of_code_would_have_run_it(tmp_path):
    """Else the test above would prove nothing."""
    plain_pickle(Code(tmp_path / "trace"), tmp_path / "evil.pth")
    pickle.loads((tmp_path / "evil.pth").read_bytes())
    assert (tmp_path / "trace").exists()


def with_header(length: int, header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + header + body


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LYING = {
    "a header of 16 EiB": with_header(2**64 - 1, b"{}"),
    "a header longer than the file": with_header(10**6, b"{}"),
    "a header that is no JSON": with_header(4, b"]]]]"),
    "a tensor beyond the end": with_header(
        len(text := json.dumps({"a": TENSOR | {"data_offsets": [0, 2**60]}}).encode()),
        text,
        bytes(8),
    ),
    "a tensor larger than its bytes": with_header(
        len(text := json.dumps({"a": TENSOR | {"shape": [2**60]}}).encode()), text, bytes(8)
    ),
    "a shape that overflows": with_header(
        len(text := json.dumps({"a": TENSOR | {"shape": [2**62, 2**62, 4]}}).encode()),
        text,
        bytes(8),
    ),
    "more bytes than tensors": with_header(
        len(text := json.dumps({"a": TENSOR}).encode()), text, bytes(10**6)
    ),
}


@pytest.mark.parametrize("content", LYING.values(), ids=LYING.keys())
def test_a_file_of_weights_that_lies_about_itself_is_refused(tmp_path, content):
    (tmp_path / "lying.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match="lying.safetensors is no plain state dict of tensors"
    ) as caught:
        weights.load(tmp_path / "lying.safetensors")
    assert "\n" not in str(caught.value)


def test_no_module_reads_pickles():
    """Of torch's and NumPy's readers only the safe ways are used, and pickle by no one."""
    for file in [
        *(ROOT / "texad").rglob("*.py"),
        *(ROOT / "notebooks").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & set(modules), file
            if isinstance(node, ast.Call):
                called, options = (
                    ast.unparse(node.func),
                    {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
                )
                assert called not in (
                    "eval",
                    "exec",
                    "os.system",
                    "yaml.load",
                    "np.fromfile",
                    "pd.read_pickle",
                ), (file, node.lineno)
                assert called != "torch.load" or options.get("weights_only") == "True", (
                    file,
                    node.lineno,
                )
                assert (
                    options.get("allow_pickle", "False") == "False"
                    and options.get("shell", "False") == "False"
                ), (file, node.lineno)


def test_an_array_of_objects_is_not_read(tmp_path):
    run = object.__new__(FinishedRun)
    run.folder = tmp_path
    np.save(tmp_path / "evil.npy", np.array([Code(tmp_path / "trace")]), allow_pickle=True)
    with pytest.raises(ValueError):
        run.read_array("evil.npy")
    assert not (tmp_path / "trace").exists()


# -- downloads -------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """A server on this machine. It has no certificate, so here http alone is opened, not https."""
    monkeypatch.setattr(downloads, "SCHEMES", ("http",))
    monkeypatch.setattr(downloads, "TIMEOUT_S", 5.0)
    monkeypatch.setattr(downloads, "BLOCK", 4096)
    with Server() as running:
        threading.Thread(
            target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        running.content = np.random.default_rng(0).bytes(50_000)
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        running.sha256 = hashlib.sha256(running.content).hexdigest()
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/file",
        "HTTP://127.0.0.1:{port}/file",
        "file:///etc/hostname",
        "ftp://127.0.0.1/a",
        "data:,a",
        "/etc/hostname",
    ],
)
def test_nothing_but_https_is_opened(server, monkeypatch, tmp_path, url):
    monkeypatch.undo()
    url = url.format(port=server.server_port)
    with pytest.raises(ConnectionError, match="is no HTTPS address") as caught:
        downloads.download(url, tmp_path / "file", server.sha256, "file")
    assert url in str(caught.value) and not server.requests and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1:1/file",
        "file:///etc/hostname",
        "ftp://127.0.0.1/file",
        "gopher://127.0.0.1/",
        "data:,a",
    ],
)
def test_a_redirection_to_another_kind_of_address_is_not_followed(server, tmp_path, target):
    """Here https plays the part of the kind that is not allowed."""

    class Redirecting(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, *args):
            pass

    server.RequestHandlerClass = Redirecting
    with pytest.raises(ConnectionError, match="no HTTPS address|not allowed"):
        downloads.download(server.url, tmp_path / "file", server.sha256, "file")
    assert not list(tmp_path.iterdir())


def test_a_redirection_of_https_to_http_is_refused():
    with pytest.raises(ConnectionError, match="http://example.org/file is no HTTPS address"):
        downloads._CheckedRedirects().redirect_request(
            None, None, 302, "Found", {}, "http://example.org/file"
        )
    assert downloads.SCHEMES == ("https",)


def test_a_short_file_is_gone_on_with_and_a_wrong_one_is_deleted(server, tmp_path):
    file = tmp_path / "weights.pth"
    server.cuts = [20_000, 0]
    with pytest.raises(ConnectionError, match=r"are kept in .*weights\.pth\.part"):
        downloads.download(server.url, file, server.sha256, "weights")
    assert [each.name for each in tmp_path.iterdir()] == ["weights.pth.part"]
    downloads.download(server.url, file, server.sha256, "weights")
    assert file.read_bytes() == server.content and [asked for asked, _ in server.requests] == [
        None,
        "bytes=20000-",
        "bytes=20000-",
    ]

    other = tmp_path / "other"
    with pytest.raises(ValueError, match="its SHA-256 is wrong"):
        downloads.download(server.url, other / "weights.pth", "0" * 64, "weights")
    assert not list(other.iterdir())


def test_two_processes_that_want_the_same_file_fetch_it_once(server, tmp_path):
    """Threads here: their locks are as separate as those of processes."""
    errors = []

    def fetch():
        try:
            downloads.download(server.url, tmp_path / "file", server.sha256, "file")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors and len(server.requests) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["file"] and (
        tmp_path / "file"
    ).read_bytes() == server.content


# -- names are text --------------------------------------------------------------------------------

HOSTILE = [
    'x"); import os; os.mkdir("trace"); ("',
    "x'); import os; os.mkdir('trace'); ('",
    "x\n!mkdir trace\n",
    "x\r\n%mkdir trace",
    "x\u2028!mkdir trace\u2029\x0b\x0c\x85!mkdir trace",
    "\\",
    '\\"',
    '"""',
    "'''",
    "{os.mkdir('trace')}",
    "$(mkdir trace)",
    "`mkdir trace`",
    "; mkdir trace",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_parameter_of_a_notebook_is_a_value(tmp_path, monkeypatch, name):
    """As papermill writes it into the notebook, and as IPython reads it there."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    source = papermill.translators.PythonTranslator.codify(
        dict.fromkeys(("dataset", "category", "weights", "runs"), name)
    )
    shell = InteractiveShell()
    result = shell.run_cell(source, store_history=False)
    assert (
        result.success
        and [shell.user_ns[key] for key in ("dataset", "category", "weights", "runs")] == [name] * 4
    )
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "'=1",
        "''=1",
        "'",
        "''a",
        "a=1",
        "",
        "1",
        "good",
        "'quoted'",
    ],
)
def test_no_text_of_a_table_is_a_formula_and_all_come_back(cell):
    table = pd.DataFrame(
        {"defect": [cell, "good"], "score": [-1.5, 2.0], "label": [0, 1], "none": [None, cell]}
    )
    safe = names.for_spreadsheet(table)
    assert not safe["defect"][0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    pd.testing.assert_frame_equal(names.from_spreadsheet(safe), table)
    assert safe["score"].tolist() == [-1.5, 2.0] and (
        safe["defect"][0] == cell or safe["defect"][0] == f"'{cell}"
    )


@pytest.mark.parametrize(
    "name", ["$x$", r"$\frac{$", "a $ b", "$$", r"\$x$ \alpha", "x\x1b[31m", "_^{}%#"]
)
def test_a_name_in_a_picture_is_no_mathematics(tmp_path, name):
    scores = np.array([1.0, 2, 3])
    image, places = np.zeros((4, 4, 3)), np.eye(4)
    figures = [
        plots.image_grid([image], [name]),
        plots.map_grid([places], [name]),
        result_figures.heatmaps([image], [places], [None], [f"{name}\nscore 3"]),
        plots.score_rows({name: scores}, {}),
        result_figures.scores_by_defect(scores, np.array(["good", name, name]), 1.5),
        plots.category_comparison(pd.DataFrame({"category": [name], "image_auroc": [0.5]})),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.svg")
        assert "\x1b" not in (tmp_path / f"{number}.svg").read_text(encoding="utf-8")
        texts = [text for axis in figure.axes for text in [axis.title, *axis.get_yticklabels()]]
        (shown,) = [text for text in texts if text.get_text().startswith(names.for_picture(name))]
        drawn, is_math = shown._preprocess_math(shown.get_text())
        assert drawn.split("\n")[0] == name.replace("\x1b", "\\x1b") and not is_math
    plt.close("all")


@pytest.mark.parametrize("name", ["`", "a`b", "``", "`a`` b`", "{raw} html", "a\nb", "\x1b[31m"])
def test_a_name_in_the_type_of_code_stays_in_it(name):
    from markdown_it import MarkdownIt

    (paragraph,) = [
        token
        for token in MarkdownIt().parse(f"Data set {markdown.code(name)}, *weights*")
        if token.type == "inline"
    ]
    assert [token.type for token in paragraph.children][:3] == ["text", "code_inline", "text"]
    assert paragraph.children[1].content == name.replace("\n", "\\n").replace("\x1b", "\\x1b")


def test_the_command_line_prints_no_control_sequence(tmp_path, capsys):
    write_category(tmp_path / "good \x1b]0;title\x07", n_train=1)
    for arguments in (
        ["--dataset", str(tmp_path), "--category", "bad \x1b[31m\r\n"],
        ["--dataset", "no \x1b[31m"],
        ["--weights", "no \x1b[31m"],
    ):
        assert main(["run", "--out", str(tmp_path / "runs"), *arguments]) == 2
        printed = capsys.readouterr()
        (line,) = (printed.out + printed.err).splitlines()
        assert line.isprintable() and r"\x1b" in line


# -- one whole run of hostile names, without a network ---------------------------------------------

DATASET = '=1+1"); import os; os.mkdir("trace"); ("`{raw} html`'
CATEGORY = (
    'x"); import os; os.mkdir("trace"); ("'
    "<img src=x onerror=window.trace=1>$a$|`b`{abbr}`c`[d](e)\x1b[31m"
)
DEFECTS = ("<img src=x onerror=window.trace=2>", "=1+1|`b`", "\x1b[31m$x$ {{ substituted }}")
IMAGE = "<img src=x onerror=window.trace=3>$`{abbr}`[a](b).png"

GUARD = """
import os, sys

def guard(event, arguments):
    # Whoever looks up or calls another machine is told off and written down; programs on this
    # machine may talk to each other.
    if event == "socket.connect" or event == "socket.sendto":
        address = arguments[1]
        host = str(address[0]) if isinstance(address, tuple) else "localhost"
        is_here = host in ("localhost", "::1") or host.startswith("127.")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
        is_here = host in (None, "", "localhost", b"localhost") or str(host).startswith("127.")
    else:
        return
    if not is_here:
        with open(os.environ["TEXAD_TEST_CALLS"], "a") as file:
            file.write(f"{event} {arguments!r} of {sys.argv}\\n")
        raise OSError("no network in this test")

sys.addaudithook(guard)
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """An environment in which no program can call another machine, and a file of who tried."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "sitecustomize.py").write_text(GUARD)
    calls = folder / "calls"
    calls.touch()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return environment | {"PYTHONPATH": str(folder), "TEXAD_TEST_CALLS": str(calls)}, calls


@pytest.fixture(scope="module")
def hostile(guarded, tmp_path_factory):
    """A run whose names are out for harm, and what the command printed."""
    environment, _ = guarded
    folder = tmp_path_factory.mktemp("hostile")
    root = write_category(folder / DATASET / CATEGORY, n_train=4, n_good=2, n_defective=1)
    for kind in ("test", "ground_truth"):
        for defect in DEFECTS[1:]:
            (root / kind / defect).mkdir()
            for file in (root / kind / "spot").iterdir():
                (root / kind / defect / file.name).write_bytes(file.read_bytes())
        (root / kind / "spot").rename(root / kind / DEFECTS[0])
    (root / "test" / "good" / "000.png").rename(root / "test" / "good" / IMAGE)
    command = [
        sys.executable,
        "-m",
        "texad",
        "run",
        "--dataset",
        DATASET,
        "--weights",
        "random",
        "--out",
        "runs",
        "--quiet",
        *QUICK,
    ]
    return folder, subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=folder, env=environment
    )


def test_a_run_of_hostile_names_succeeds_and_runs_nothing_of_them(hostile):
    folder, result = hostile
    assert result.returncode == 0, result.stdout + result.stderr
    assert not list(folder.rglob("trace"))
    assert read_json(folder / "runs" / DATASET / CATEGORY / "run.json")["category"] == CATEGORY


def test_what_it_prints_has_no_control_characters(hostile):
    _, result = hostile
    printed = result.stdout + result.stderr
    assert r"\x1b[31m" in result.stdout and all(line.isprintable() for line in printed.splitlines())


def test_its_tables_hold_no_formula_and_are_read_as_they_were(hostile):
    folder, _ = hostile
    run = Run(folder / DATASET, CATEGORY, folder / "runs")
    assert set(run.images("test")["defect"]) == {"good", *DEFECTS}
    for name in ("images.csv", "scores.csv"):
        with (run.folder / name).open(newline="", encoding="utf-8") as file:
            cells = {cell for row in csv.reader(file) for cell in row}
        assert "'=1+1|`b`" in cells and not [
            cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))
        ]


@pytest.fixture(scope="module")
def hostile_book(hostile, guarded, tmp_path_factory):
    """A book of the pages on which names of the data stand."""
    folder, _ = hostile
    environment, _ = guarded
    source = tmp_path_factory.mktemp("book")
    copy_book(source)
    files = [
        "data",
        "run/comparison",
        "run/hits_and_misses",
        "run/chapters/01_preprocessing",
        "run/chapters/05_evaluation",
    ]
    chapters = "\n".join(f"  - file: book/{name}" for name in files)
    (source / "_toc.yml").write_text(
        f"format: jb-book\nroot: book/intro\nchapters:\n{chapters}\n  - glob: book/run/results/*\n"
    )
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--quiet"]
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | {"TEXAD_RUNS": str(folder / "runs")},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return source / "_build" / "html"


def test_hostile_names_are_text_in_the_book(hostile_book, browser):
    shown = {name: name.replace("\x1b", r"\x1b") for name in (CATEGORY, *DEFECTS)}
    straight = str.maketrans("“”", '""')  # quotation marks of the book's text
    seen = ""
    with visit(browser) as (page, problems):
        for file in sorted((hostile_book / "book").rglob("*.html")):
            page.goto(file.as_uri(), wait_until="load")
            assert page.evaluate("window.trace") is None, file
            assert not page.evaluate(
                "[...document.images].filter(i => i.getAttribute('src') === 'x').length"
            ), file
            seen += page.evaluate("document.body.textContent").translate(straight)
        asked = "<img src=x onerror=window.trace=1>$a$|`b`{abbr}`c`[d](e)"
        page.goto((hostile_book / "search.html").as_uri() + f"?q={quote(asked)}")
        page.locator("#search-results li a").first.wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate("window.trace") is None
        assert shown[CATEGORY] in page.inner_text("#search-results").translate(straight)
    for name in shown.values():
        assert name in seen, name
    assert not problems, problems


def test_no_program_of_a_run_or_of_the_book_calls_another_machine(hostile, hostile_book, guarded):
    """No telemetry and no look for updates, by any program that takes part."""
    environment, calls = guarded
    assert calls.read_text() == ""
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env=environment
        ).returncode
        != 0
    )
    assert "192.0.2.1" in calls.read_text()  # else the guard sees nothing
    calls.write_text("")


# -- what is installed -----------------------------------------------------------------------------

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^(?P<pin>[A-Za-z0-9._-]+==[^\\\n]+?) \\\n"
    r"(?P<hashes>(?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)
PINS = [Requirement(match["pin"]) for match in BLOCK.finditer(LOCK)]
ASKED = [
    Requirement(text)
    for text in re.findall(r'"([a-z0-9-]+[<>=][^"]*)"', (ROOT / "pyproject.toml").read_text())
]  # by the package, its extras, its build


def test_every_requirement_has_a_lower_and_an_upper_bound():
    assert {"torch", "papermill", "pytest", "distributed", "setuptools"} <= {
        requirement.name for requirement in ASKED
    }
    for requirement in ASKED:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {"=="} or operators == {">=", "<"}, requirement


def test_all_that_the_package_imports_is_required():
    known = importlib.metadata.packages_distributions()
    required = {canonicalize_name(requirement.name) for requirement in ASKED}
    for file in (ROOT / "texad").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for top in (
                {(module or "").split(".")[0] for module in modules}
                - set(sys.stdlib_module_names)
                - {"texad", ""}
            ):
                assert required & {canonicalize_name(name) for name in known.get(top, [])}, (
                    f"{file} imports {top}"
                )


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_the_lock_has_one_version_of_all_that_is_required(python, system):
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
    }
    pins = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonicalize_name(pin.name) not in pins, f"two versions of {pin.name}"
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    for requirement in ASKED:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_the_lock_is_of_pins_with_hashes_and_nothing_else():
    assert len(PINS) > 200
    rest = BLOCK.sub("", LOCK)
    assert all(line.startswith("#") for line in rest.splitlines()), (
        "not a version with hashes, or the address of an index"
    )
    assert "/" not in "".join(rest.split())


def test_a_torch_for_processors_alone_needs_no_cuda_of_the_lock():
    """As the Makefile cuts it out."""
    (program,) = re.findall(r"awk '(.+)'", (ROOT / "Makefile").read_text())
    kept = subprocess.run(
        ["awk", program, ROOT / "requirements.lock"], capture_output=True, text=True, check=True
    ).stdout
    left = [pin.name for pin in PINS if not pin.name.startswith(("nvidia", "cuda", "triton"))]
    assert [match["pin"].split("==")[0] for match in BLOCK.finditer(kept)] == left and len(
        left
    ) < len(PINS)


def test_this_environment_is_that_of_the_lock():
    """Run by `make test`, which has just installed it."""
    if os.environ.get("CI") != "true":
        pytest.skip("only where the lock has been installed, as CI does")
    has_cuda = "+cpu" not in importlib.metadata.version("torch")
    for pin in PINS:
        if (pin.marker is None or pin.marker.evaluate()) and (
            has_cuda or not pin.name.startswith(("nvidia", "cuda", "triton"))
        ):
            assert pin.specifier.contains(importlib.metadata.version(pin.name)), pin
