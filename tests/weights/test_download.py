"""Downloads from a server on this machine: whole, resumed, broken, changed, and all that a server may do wrong."""

import errno
import hashlib
import io
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import normal

from src.errors import UserError
from src.weights import download as module
from src.weights.download import download

CONTENT = normal(100_000).tobytes()  # 400,000 bytes: more than one block
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; a server's other attributes say what it does wrong."""

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if self.path == "/moved":
            return self.answer(302, b"", Location=f"http://127.0.0.1:{server.server_port}/file.ckpt")
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            return self.answer(status, b"")
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if server.honours_range else None
        if found is None or (server.honours_if_range and self.headers.get("If-Range") != server.etag):
            return self.answer(200, server.content)
        start, size = int(found[1]), len(server.content)
        if start >= size:
            return self.answer(416, b"", **{"Content-Range": f"bytes */{size}"})
        start += server.shift
        return self.answer(206, server.content[start:], **{"Content-Range": f"bytes {start}-{size - 1}/{size}"})

    def answer(self, status, body, **headers):
        self.send_response(status)
        if self.server.etag:
            headers["ETag"] = self.server.etag
        for name, value in {"Content-Type": self.server.kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        keep = self.server.breaks.pop(0) if self.server.breaks and body else len(body)
        self.wfile.write(body[:keep])
        self.close_connection = True

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.statuses, server.breaks = [], [], []
    server.content, server.etag, server.kind, server.shift = CONTENT, '"1"', "application/octet-stream", 0
    server.honours_range = server.honours_if_range = True
    server.url = f"http://127.0.0.1:{server.server_port}/file.ckpt"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "a.ckpt"


def files(path):
    """Names of the files beside a path, locks left out."""
    return sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(".lock"))


def fail(server, path, **expected):
    """The message of a download that must fail."""
    with pytest.raises(UserError) as error:
        download(server.url, path, **expected)
    return str(error.value)


def test_whole(server, path):
    download(server.url, path, DIGEST, len(CONTENT))
    assert path.read_bytes() == CONTENT and files(path) == ["a.ckpt"]
    assert len(server.requests) == 1 and "Range" not in server.requests[0]


def test_redirected(server, path):
    download(server.url.replace("file.ckpt", "moved"), path, DIGEST)
    assert path.read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_at_once(server, path):
    server.breaks = [100_000, 200_000]
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=300000-"]
    assert server.requests[1]["If-Range"] == '"1"'


def test_a_part_is_kept_for_the_next_call(server, path):
    server.breaks = [100_000, 0, 0, 0]
    message = "the connection broke after 100000 of 400000 bytes; the part that came is kept, the same command goes on"
    assert fail(server, path, sha256=DIGEST) == f"{server.url}: {message}"
    assert files(path) == ["a.ckpt.part", "a.ckpt.part.tag"]
    server.requests.clear()
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT and files(path) == ["a.ckpt"]
    assert server.requests[0]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_is_not_spliced(server, path, honours_if_range):
    server.breaks = [100_000, 0, 0, 0]
    fail(server, path)
    server.content, server.etag, server.honours_if_range = CONTENT[::-1], '"2"', honours_if_range
    download(server.url, path)
    assert path.read_bytes() == CONTENT[::-1] and files(path) == ["a.ckpt"]


@pytest.mark.parametrize(
    "change", [{"honours_range": False}, {"etag": None}, {"etag": 'W/"1"'}, {"shift": 5}], ids=lambda c: str(c)
)
def test_without_ranges_the_whole_file_comes_again(server, path, change):
    for name, value in change.items():
        setattr(server, name, value)
    server.breaks = [100_000]
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT


def test_a_whole_part_and_one_that_is_too_long_start_again(server, path):
    for length in (len(CONTENT), len(CONTENT) + 5):
        path.parent.mkdir(exist_ok=True)
        path.with_name("a.ckpt.part").write_bytes(bytes(length))
        path.with_name("a.ckpt.part.tag").write_text('"1"')
        download(server.url, path, DIGEST)
        assert path.read_bytes() == CONTENT and files(path) == ["a.ckpt"]


def test_a_wrong_hash_removes_the_file(server, path):
    assert "has sha256" in (message := fail(server, path, sha256="0" * 64))
    assert message.endswith(f"not the published {'0' * 64}; it is removed") and DIGEST in message
    assert files(path) == []


def test_a_wrong_size_is_seen_before_the_download(server, path):
    assert fail(server, path, size=5) == f"{server.url}: has 400000 bytes, not the 5 that are published"
    assert "a.ckpt" not in files(path) and "a.ckpt.part" not in files(path)


def test_an_error_keeps_the_file_that_was_there(server, path):
    path.parent.mkdir()
    path.write_bytes(b"before")
    fail(server, path, sha256="0" * 64)
    assert path.read_bytes() == b"before"
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 4)])
def test_an_error_of_the_server(server, path, status, requests):
    server.statuses = [status] * 9
    assert fail(server, path).startswith(f"{server.url}: HTTP {status} ")
    assert len(server.requests) == requests


def test_a_server_that_recovers(server, path):
    server.statuses = [503, 429]
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT


def test_a_web_page_is_no_file(server, path):
    server.kind = "text/html; charset=utf-8"
    assert fail(server, path) == f"{server.url}: is a web page, no file"
    assert files(path) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.ckpt", "http://no-such-host.invalid/a.ckpt"])
def test_no_network(server, path, url):
    server.url = url
    assert fail(server, path).startswith(f"{url}: cannot be reached: ")


def test_a_server_that_hangs(server, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "WAITS", ())
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda handler: release.wait(10))
    assert "timed out" in fail(server, path)
    release.set()


class SmallDisk(io.FileIO):
    """A file on a disk with room for 100,000 bytes."""

    def write(self, block):
        room = 100_000 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(block[:room])


def test_a_full_disk(server, path, monkeypatch):
    monkeypatch.setattr(module, "open", lambda path, mode, buffering=-1: SmallDisk(path, mode), raising=False)
    assert fail(server, path) == f"{path}: cannot be written: No space left on device"
    assert files(path) == ["a.ckpt.part", "a.ckpt.part.tag"]
    monkeypatch.undo()
    download(server.url, path, DIGEST)
    assert path.read_bytes() == CONTENT and server.requests[-1]["Range"] == "bytes=100000-"


def test_a_folder_that_cannot_be_written(server, path, monkeypatch):
    path.parent.write_text("a file")
    assert fail(server, path) == f"{path.parent}: is a file, where a folder is needed"
    path.parent.unlink()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(module, "open", refuse, raising=False)
    assert fail(server, path) == f"{path}: cannot be written: Read-only file system"
    assert server.requests == []


def test_several_at_once_fetch_it_once(server, path, monkeypatch):
    """All have found no file before the first one may begin."""
    errors, identify, looked = [], module._identify, threading.Semaphore(0)

    def look(path):
        found = identify(path)
        looked.release()
        return found

    monkeypatch.setattr(module, "_identify", look)

    def fetch():
        try:
            download(server.url, path, DIGEST)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with module._locked(path.with_name(path.name + module.LOCK)):
        for thread in threads:
            thread.start()
        for _ in threads:
            assert looked.acquire(timeout=30)
    for thread in threads:
        thread.join()
    assert errors == [] and path.read_bytes() == CONTENT and files(path) == ["a.ckpt"]
    assert len(server.requests) == 1
