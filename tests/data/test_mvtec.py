import hashlib
import io
import socket
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import Handler, Server
from PIL import Image

from texad.data import datasets, mvtec
from texad.io import download as downloads

CATEGORIES = ("carpet", "grid", "zipper")


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def tar_xz(members):
    """An archive of (name or TarInfo, content)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz") as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def images(category):
    return [
        (f"{category}/train/good/000.png", png(0)),
        (f"{category}/test/good/000.png", png(1)),
        (f"{category}/test/cut/000.png", png(2)),
        (f"{category}/ground_truth/cut/000_mask.png", png(3)),
    ]


@pytest.fixture(scope="module")
def published():
    members = [member for category in CATEGORIES for member in images(category)]
    return tar_xz([("readme.txt", b"hello"), *members])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The data root; an archive has to be installed with `publish` before anything can be had."""
    monkeypatch.setenv("TEXAD_DATA", str(tmp_path))
    monkeypatch.setattr(downloads, "TIMEOUT_S", 5.0)
    monkeypatch.setattr(downloads, "BLOCK", 4096)
    monkeypatch.setattr(
        downloads, "SCHEMES", ("http",)
    )  # the server of these tests has no certificate
    monkeypatch.setattr(mvtec, "URL", "http://127.0.0.1:9/unset.tar.xz")
    return tmp_path


@pytest.fixture
def publish(monkeypatch):
    def publish(content):
        monkeypatch.setattr(mvtec, "SHA256", hashlib.sha256(content).hexdigest())
        return content

    return publish


@pytest.fixture
def server(root, monkeypatch):
    with Server() as running:
        threading.Thread(
            target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        monkeypatch.setattr(mvtec, "URL", f"http://127.0.0.1:{running.server_port}/archive.tar.xz")
        yield running
        running.shutdown()


@pytest.fixture
def closed_port(root, monkeypatch):
    with socket.socket() as listener:  # bound but not listening: connections are refused
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            mvtec, "URL", f"http://127.0.0.1:{listener.getsockname()[1]}/archive.tar.xz"
        )
        yield


def line(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- download --------------------------------------------------------------------------------------


def test_a_category_is_downloaded_unpacked_and_listed(root, server, publish, published, capsys):
    server.content = publish(published)
    category = datasets.load_category("mvtec", "carpet")
    assert category.dataset == "mvtec" and category.root == root / "mvtec" / "carpet"
    assert category.train[0].path.read_bytes() == png(0)
    assert [(sample.defect, sample.mask is not None) for sample in category.test] == [
        ("cut", True),
        ("good", False),
    ]
    assert names(root) == ["mvtec", mvtec.ARCHIVE] and names(root / "mvtec") == ["carpet"]
    printed = capsys.readouterr().out
    assert printed.index("CC BY-NC-SA 4.0") < printed.index(
        f"{root / mvtec.ARCHIVE} may be deleted"
    )


def test_the_licence_is_shown_before_the_download(root, closed_port, capsys):
    with pytest.raises(ConnectionError):
        datasets.load_category("mvtec", "carpet")
    printed = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in printed and "not for commercial use" in printed


def test_another_category_needs_no_second_download(root, server, publish, published):
    server.content = publish(published)
    datasets.prepare("mvtec", ["carpet"])
    datasets.prepare("mvtec", ["carpet", "zipper"])
    assert len(server.requests) == 1 and names(root / "mvtec") == ["carpet", "zipper"]


def test_a_category_on_disk_needs_neither_archive_nor_network(
    root, closed_port, publish, published
):
    (root / "mvtec").mkdir()
    with tarfile.open(fileobj=io.BytesIO(published)) as tar:
        for member in tar:
            if member.name.startswith("grid/"):
                target = root / "mvtec" / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    assert len(datasets.load_category("mvtec", "grid").test) == 2


def test_an_archive_put_there_by_hand_is_used(root, closed_port, publish, published):
    (root / mvtec.ARCHIVE).write_bytes(publish(published))
    assert len(datasets.load_category("mvtec", "grid").train) == 1


def test_a_wrong_archive_put_there_by_hand_is_refused_and_left_alone(
    root, closed_port, publish, published
):
    publish(published)
    (root / mvtec.ARCHIVE).write_bytes(published[:-1])
    with pytest.raises(ValueError) as caught:
        datasets.load_category("mvtec", "grid")
    assert str(root / mvtec.ARCHIVE) in line(caught) and "SHA-256" in line(caught)
    assert (root / mvtec.ARCHIVE).read_bytes() == published[:-1] and names(root / "mvtec") == []


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(root, server, publish, published):
    server.content, half = publish(published), len(published) // 2
    server.cuts = [half]
    datasets.prepare("mvtec", ["carpet"])
    assert server.requests == [(None, half), (f"bytes={half}-", len(published) - half)]
    assert (root / mvtec.ARCHIVE).read_bytes() == published


def test_what_an_earlier_call_downloaded_is_not_fetched_again(root, server, publish, published):
    server.content, half = publish(published), len(published) // 2
    server.cuts = [half, 0]  # the server is away when the download tries to go on
    with pytest.raises(ConnectionError) as caught:
        datasets.prepare("mvtec", ["carpet"])
    assert f"are kept in {root / mvtec.ARCHIVE}.part" in line(caught)
    assert (root / f"{mvtec.ARCHIVE}.part").read_bytes() == published[:half]
    server.requests.clear()
    datasets.prepare("mvtec", ["carpet"])
    assert server.requests == [(f"bytes={half}-", len(published) - half)]
    assert names(root) == ["mvtec", mvtec.ARCHIVE]


def test_a_server_that_knows_no_ranges_sends_it_all_again(root, server, publish, published):
    server.content, server.knows_ranges = publish(published), False
    (root / f"{mvtec.ARCHIVE}.part").write_bytes(published[:1000])
    datasets.prepare("mvtec", ["carpet"])
    assert server.requests == [("bytes=1000-", len(published))]
    assert (root / mvtec.ARCHIVE).read_bytes() == published


def test_a_server_that_always_stops_at_the_same_place_is_given_up(root, server, publish, published):
    server.content, server.knows_ranges, server.cuts = publish(published), False, [1000] * 10
    with pytest.raises(ConnectionError, match="stopped after 1000 of"):
        datasets.prepare("mvtec", ["carpet"])
    assert len(server.requests) == 2


def test_a_part_that_is_whole_already_is_used(root, server, publish, published):
    server.content = publish(published)
    (root / f"{mvtec.ARCHIVE}.part").write_bytes(published)
    datasets.prepare("mvtec", ["carpet"])
    assert server.requests == [(f"bytes={len(published)}-", 0)]
    assert (root / mvtec.ARCHIVE).read_bytes() == published


def test_a_damaged_part_is_deleted_and_the_next_call_starts_over(root, server, publish, published):
    server.content = publish(published)
    (root / f"{mvtec.ARCHIVE}.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError) as caught:
        datasets.prepare("mvtec", ["carpet"])
    assert "SHA-256 is wrong" in line(caught) and "run this again" in line(caught)
    assert names(root) == []
    datasets.prepare("mvtec", ["carpet"])
    assert names(root / "mvtec") == ["carpet"]


def test_without_a_network_one_line_says_where_to_put_what(root, closed_port):
    with pytest.raises(ConnectionError) as caught:
        datasets.load_category("mvtec", "tile")
    message = line(caught)
    assert (
        mvtec.URL in message
        and str(root / mvtec.ARCHIVE) in message
        and str(root / "mvtec" / "tile") in message
    )
    assert names(root) == []


def test_a_server_that_answers_with_an_error_is_named_as_such(root, server, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(ConnectionError, match="HTTP Error 404"):
        datasets.prepare("mvtec", ["carpet"])


def test_a_silent_server_is_given_up(root, server, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(
        Handler, "do_GET", lambda self: time.sleep(2)
    )  # and then hangs up, which is another error
    with pytest.raises(ConnectionError, match="timed out"):
        datasets.prepare("mvtec", ["carpet"])


def test_a_server_that_falls_silent_midway_keeps_what_came(
    root, server, publish, published, monkeypatch
):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.3)
    server.content = publish(published)

    class Stalling(Handler):
        def do_GET(self):
            if self.headers.get("Range"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", str(len(published)))
            self.end_headers()
            self.wfile.write(published[:1000])
            self.wfile.flush()
            time.sleep(1)

    server.RequestHandlerClass = Stalling
    datasets.prepare("mvtec", ["carpet"])
    assert server.requests == [("bytes=1000-", len(published) - 1000)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_not_taken_for_a_broken_network(root, server, publish, published):
    server.content = publish(published)
    (root / f"{mvtec.ARCHIVE}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        datasets.prepare("mvtec", ["carpet"])
    assert not isinstance(caught.value, ConnectionError)


# -- unpack ----------------------------------------------------------------------------------------


def put_archive(root, publish, members):
    (root / mvtec.ARCHIVE).write_bytes(publish(tar_xz(members)))


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


OUTSIDE = [
    ("carpet/../../../evil.png", b"evil"),
    special("carpet/train/good/link.png", tarfile.SYMTYPE, "/etc/hostname"),
    special("carpet/train/out", tarfile.SYMTYPE, "../../.."),
    special("carpet/hard.png", tarfile.LNKTYPE, "../../secret.png"),
    special("carpet/device", tarfile.CHRTYPE),
    special("carpet/pipe", tarfile.FIFOTYPE),
    special("carpet/block", tarfile.BLKTYPE),
]
PASSED_OVER = [
    ("../evil.png", b"evil"),
    ("/tmp/texad-evil.png", b"evil"),
    ("carpet/../grid/evil.png", b"evil"),
]


def name_of(member):
    return member[0] if isinstance(member[0], str) else member[0].name


@pytest.mark.parametrize("member", OUTSIDE, ids=name_of)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(root, publish, member):
    put_archive(root, publish, [*images("carpet"), member])
    with pytest.raises(ValueError, match="cannot be unpacked") as caught:
        datasets.prepare("mvtec", ["carpet"])
    assert str(root / mvtec.ARCHIVE) in line(caught)
    assert names(root) == ["mvtec", mvtec.ARCHIVE] and names(root / "mvtec") == []
    assert not list(root.parent.rglob("evil.png"))


@pytest.mark.parametrize("member", PASSED_OVER, ids=name_of)
def test_what_belongs_to_no_category_is_not_written(root, publish, member):
    put_archive(root, publish, [*images("carpet"), member])
    datasets.prepare("mvtec", ["carpet"])
    assert names(root) == ["mvtec", mvtec.ARCHIVE] and names(root / "mvtec") == ["carpet"]
    assert not list(root.parent.rglob("evil.png")) and not Path("/tmp/texad-evil.png").exists()


def test_a_file_called_dot_is_passed_over(root, publish):
    put_archive(root, publish, [(".", b"dot"), *images("carpet")])
    assert len(datasets.load_category("mvtec", "carpet").train) == 1


def test_an_archive_without_the_category_is_refused(root, publish):
    put_archive(root, publish, images("carpet"))
    with pytest.raises(ValueError, match="holds no tile/train/good"):
        datasets.prepare("mvtec", ["carpet", "tile"])
    assert names(root / "mvtec") == []


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-2000], lambda content: b"no archive at all" * 100]
)
def test_an_archive_that_cannot_be_read_is_named(root, publish, published, damage):
    (root / mvtec.ARCHIVE).write_bytes(publish(damage(published)))
    with pytest.raises(ValueError, match="cannot be unpacked") as caught:
        datasets.prepare("mvtec", ["zipper"])
    assert str(root / mvtec.ARCHIVE) in line(caught) and names(root / "mvtec") == []


def test_an_interrupted_unpacking_leaves_nothing_half_written(
    root, publish, published, monkeypatch
):
    (root / mvtec.ARCHIVE).write_bytes(publish(published))
    extract, unpacked = tarfile.TarFile.extract, []

    def interrupted(tar, member, folder):
        if len(unpacked) == 3:
            raise KeyboardInterrupt
        extract(tar, member, folder)
        unpacked.append(member.name)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare("mvtec", ["carpet"])
    assert "carpet/train/good/000.png" in unpacked and names(root / "mvtec") == []
    datasets.prepare("mvtec", ["carpet"])
    assert len(datasets.load_category("mvtec", "carpet").test) == 2


def test_an_incomplete_category_is_not_overwritten(root, publish, published):
    (root / mvtec.ARCHIVE).write_bytes(publish(published))
    (root / "mvtec" / "carpet" / "test").mkdir(parents=True)
    with pytest.raises(ValueError, match="carpet has no train/good: complete it, or move it away"):
        datasets.prepare("mvtec", ["carpet"])
    assert names(root / "mvtec" / "carpet") == ["test"]


def test_the_constants_are_those_of_the_published_data_set():
    assert len(mvtec.CATEGORIES) == 15 and set(mvtec.TEXTURES) < set(mvtec.CATEGORIES)
    assert mvtec.URL.endswith(mvtec.ARCHIVE) and len(bytes.fromhex(mvtec.SHA256)) == 32
