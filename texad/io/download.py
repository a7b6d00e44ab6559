"""Files from the network: over HTTPS alone, resumed where they were cut off, checked by their hash.

What comes is written to `<file>.part`. It becomes `<file>` when it is whole and its SHA-256 is the
one expected, so what lies at a file's own place has been checked. A part that was cut off stays for
the next call; one whose hash is wrong is deleted.
"""

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from tqdm import tqdm

from texad.io.atomic import sha256_of
from texad.io.locks import locked

SCHEMES = ("https",)  # of addresses that are opened, and followed
TIMEOUT_S = 10.0  # for connecting, and for the silence of a server
BLOCK = 1 << 20  # bytes read at a time
UNITS: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}  # of the bars


@contextmanager
def _network_errors() -> Iterator[None]:
    """Give whatever goes wrong on the way one name, and so tell it from a full disk."""
    try:
        yield
    # ValueError: an address that is none.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def download(url: str, file: Path, sha256: str, what: str) -> None:
    """Download a file, or what is missing of it.

    Several processes that want the same file wait for the one that fetches it: the kernels of a
    batch all want the same weights at once.

    Parameters
    ----------
    url : str
        An HTTPS address, and so must be all that it leads to.
    file : Path
        Where the file goes. Its folder is made if need be.
    sha256 : str
        What the file must have, in hexadecimal.
    what : str
        Its name on the progress bars.

    Raises
    ------
    ConnectionError
        If it does not come, or not over HTTPS. What came so far is kept beside `file`, and the
        message says where.
    ValueError
        If something else came than was expected. It is deleted.
    """
    part = file.with_name(f"{file.name}.part")
    with locked(file.with_name(f"{file.name}.lock")):
        if file.exists():  # another process has just brought it
            return
        part.touch()
        while True:
            before = part.stat().st_size
            try:
                _fetch(url, part, before, what)
                break
            except ConnectionError as error:
                if (size := part.stat().st_size) > before:
                    continue  # cut off, but not before something came: go on from there
                if size:
                    raise ConnectionError(
                        f"{error}; {size / 1e9:.2f} GB are kept in {part}"
                    ) from error
                part.unlink()
                raise
        if hash_with_bar(part, what) != sha256:
            part.unlink()
            raise ValueError(
                f"what {url} sent is something else than expected (its SHA-256 is wrong) and was "
                "deleted"
            )
        os.replace(part, file)


@_network_errors()
def open_url(
    url: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    timeout: float | None = None,
) -> http.client.HTTPResponse:
    """Open an address over HTTPS alone, and follow redirects over HTTPS alone.

    Parameters
    ----------
    url : str
    method : str, default "GET"
    headers : dict of str to str, optional
    timeout : float, optional
        In seconds; `TIMEOUT_S` by default.

    Raises
    ------
    ConnectionError
        If that cannot be, for whatever reason: the only kind of error, so that it can be told from
        a full disk.
    """
    _check(url)
    return urllib.request.build_opener(_CheckedRedirects).open(
        urllib.request.Request(
            url, headers={"User-Agent": "texad"} | (headers or {}), method=method
        ),
        timeout=timeout or TIMEOUT_S,
    )


def hash_with_bar(file: Path, what: str) -> str:
    """Compute `texad.io.atomic.sha256` with a progress bar: gigabytes take a while."""
    with file.open("rb") as stream, reading_with_bar(stream, f"{what}, checking") as reader:
        return sha256_of(reader)


def reading_with_bar(stream: BinaryIO, description: str) -> AbstractContextManager[Any]:
    """Wrap a stream in a bar that shows how much of the file has been read."""
    return tqdm.wrapattr(
        stream, "read", desc=description, total=os.fstat(stream.fileno()).st_size, **UNITS
    )


def _fetch(url: str, part: Path, before: int, what: str) -> None:
    """Ask once for what `part`, of `before` bytes, still lacks.

    Raises
    ------
    ConnectionError
        If it does not come, or not all of it.
    """
    try:
        response = open_url(url, headers={"Range": f"bytes={before}-"} if before else None)
    except ConnectionError as error:
        if getattr(error.__cause__, "code", None) == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing comes after the last byte: whole, or the hash will tell
        raise
    resumed = response.status == http.client.PARTIAL_CONTENT
    start = before if resumed else 0  # a server that knows no ranges sends the file from its start
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    with (
        response,
        tqdm(desc=f"{what}, downloading", total=total, initial=start, **UNITS) as bar,
        part.open("ab" if resumed else "wb") as file,
    ):
        while block := _next_block(response):
            file.write(block)
            bar.update(len(block))
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the server stopped after {file.tell()} of {total} bytes")


@_network_errors()
def _next_block(response: http.client.HTTPResponse) -> bytes:
    return response.read1(BLOCK)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme.lower() not in SCHEMES:
        raise ConnectionError(f"{url} is no HTTPS address, and no other kind is opened")
