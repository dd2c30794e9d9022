"""Download of a file over HTTP: checked before it gets its name, and resumed where a connection breaks.

What has come is kept in PATH.part, and what tells whether the server's file is still the same (its ETag, or else the
date of its last change) in PATH.part.tag. A server sends the rest of a file only if that fits (`If-Range`, RFC 9110,
section 13.1.5); otherwise it sends the whole file, which replaces the part.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from src.errors import UserError
from src.files import make_folder, unwritable

try:
    import fcntl
except ImportError:  # Windows, where two processes must not fetch the same file at once
    fcntl = None

TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 4.0)  # seconds in front of each further try
BLOCK_SIZE = 2**18  # bytes
PARTIAL, NO_SUCH_RANGE = 206, 416  # status codes
PASSING = (408, 429, 500, 502, 503, 504)  # of servers that may answer soon
PART, TAG, LOCK = ".part", ".part.tag", ".lock"


class BrokenConnectionError(Exception):
    """A connection that was not made or did not last; another try may go further."""


def download(url, path, sha256=None, size=None) -> None:
    """Download `url` to `path`, whose folder is made where missing; a file that is there is replaced.

    Another process that downloads to the same path is waited for.

    Args:
        url: http or https.
        path: the file to be written.
        sha256: hexadecimal digest that the file must have; None: any.
        size: bytes that it must have; None: as many as the server announces.

    Raises:
        UserError: if the file cannot be had, is not the expected one, or not be written. What came of it before the
            connection broke or the disk was full is kept for the next call.
    """
    path = Path(path)
    part, tag = (path.with_name(path.name + ending) for ending in (PART, TAG))
    make_folder(path.parent)
    before = _identify(path)
    try:
        with _locked(path.with_name(path.name + LOCK)):
            if path.is_file() and _identify(path) != before:  # another process was faster
                return
            _fetch(url, part, tag, size)
            _check(url, part, tag, sha256)
            os.replace(part, path)
            tag.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def _identify(path):
    """Tell a file from another one of the same name."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


@contextmanager
def _locked(path):
    """Hold a lock, which ends with the process; the empty file stays."""
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url, part, tag, size) -> None:
    """Bring the whole file to `part`, over as many connections as `WAITS` allows."""
    for wait in (*WAITS, None):
        try:
            _receive(url, part, tag, size)
            return
        except BrokenConnectionError as error:
            if wait is None:
                kept = "; the part that came is kept, the same command goes on" if _length(part) else ""
                raise UserError(f"{url}: {error}{kept}") from None
            time.sleep(wait)


def _receive(url, part, tag, size) -> None:
    """Bring what is missing of the file to `part` over one connection."""
    start, known = (_length(part), tag.read_text()) if tag.is_file() else (0, None)
    request = urllib.request.Request(url, headers={"User-Agent": "ghostnetv2-mindspore"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known)
    with _open(request) as response:
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if response.status == NO_SUCH_RANGE or (
            response.status == PARTIAL and (_range_start(response) != start or validator not in (None, known))
        ):
            part.unlink(missing_ok=True)
            raise BrokenConnectionError("the server answers with another part than was asked for")
        if response.status != PARTIAL:
            start = 0
            tag.unlink(missing_ok=True)
            part.write_bytes(b"")
            if validator and not validator.startswith("W/"):  # a weak one does not promise the same bytes
                tag.write_text(validator)
        _store(response, part, start, size)


def _open(request):
    """Open the response to a request, which may also be that there is no such range."""
    url = request.full_url
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == NO_SUCH_RANGE:
            return error
        if error.code in PASSING:
            raise BrokenConnectionError(f"HTTP {error.code} {error.reason}") from None
        raise UserError(f"{url}: HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise BrokenConnectionError(f"cannot be reached: {getattr(error, 'reason', error)}") from None
    trouble = None
    if url.startswith("https:") and not response.url.startswith("https:"):
        trouble = f"leads to {response.url}, which is not encrypted"
    elif response.headers.get_content_type() == "text/html":
        trouble = "is a web page, no file"
    if trouble:
        response.close()
        raise UserError(f"{url}: {trouble}")
    return response


def _store(response, part, start, size) -> None:
    """Append the body of a response to `part`, which has `start` bytes of the file."""
    length = response.headers.get("Content-Length")
    total = size if length is None else start + int(length)
    if size is not None and total != size:
        part.unlink()
        raise UserError(f"{response.url}: has {total} bytes, not the {size} that are published")
    progress = {"desc": part.name, "initial": start, "total": total, "unit": "B", "unit_scale": True, "disable": None}
    with open(part, "ab", buffering=0) as file, tqdm(**progress) as bar:
        while block := _read(response):
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
            bar.update(len(block))
        os.fsync(file.fileno())
    if total is not None and _length(part) != total:
        raise BrokenConnectionError(f"the connection broke after {_length(part)} of {total} bytes")


def _read(response) -> bytes:
    try:
        return response.read(BLOCK_SIZE)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenConnectionError(f"the connection broke: {error}") from None


def _range_start(response):
    """Give the first byte of a partial response; None if it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _length(path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check(url, part, tag, sha256) -> None:
    """Raise `UserError` if the downloaded file is not the expected one, and remove it."""
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    if sha256 is not None and digest != sha256:
        for path in (part, tag):
            path.unlink(missing_ok=True)
        raise UserError(f"{url}: has sha256 {digest}, not the published {sha256}; it is removed")
