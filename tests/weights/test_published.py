"""The table of published weights, the script that fetches them, and their names in place of files."""

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from bad_input.case import CLASSIFICATION, write_good_inputs
from helpers import PROJECT, call_here

from src.architecture import MAX_WIDTH, MIN_WIDTH
from src.errors import UserError
from src.networks import NETWORKS, create_network
from src.weights import published, read_weights, save_weights
from src.weights.published import CACHE, cache_folder, find_weights, read_published

SCRIPT = "scripts/fetch_weights.py"


class Quiet(SimpleHTTPRequestHandler):
    requests = []

    def do_GET(self):
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of two files on a server of this machine, and an empty cache; gives the folder that is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    save_weights(create_network("ghostnet_1x", 2), folder / "a.ckpt")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    row = {"url": f"http://127.0.0.1:{server.server_port}/a.ckpt", "network": "ghostnet_1x", "top_1": 1, "source": "x"}
    digest = hashlib.sha256((folder / "a.ckpt").read_bytes()).hexdigest()
    rows = {"good_one": {**row, "sha256": digest}, "bad_one": {**row, "sha256": "0" * 64}, "other": row}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(rows))
    monkeypatch.setattr(published, "TABLE", tmp_path / "table.yaml")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    Quiet.requests.clear()
    yield folder
    server.shutdown()
    server.server_close()


def test_the_table():
    files = read_published().values()
    assert len({file.url for file in files}) == len(files) >= 12
    for file in files:
        assert re.fullmatch(r"https://[\w.-]+/[\w./-]+", file.url) and file.path("x").suffix
        assert file.network in NETWORKS and 60 < file.top_1 < 80 and file.source
        assert file.width is None or MIN_WIDTH <= file.width <= MAX_WIDTH
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert re.fullmatch(r"[\w.]+", file.name)
    assert sum(file.sha256 is not None for file in files) == 3


def test_the_documentation_has_every_name():
    text = (PROJECT / "docs" / "training.md").read_text()
    assert [name for name in read_published() if f"`{name}`" not in text] == []


def test_a_file_is_fetched_once(table, tmp_path):
    for count in (1, 1):
        result = call_here(SCRIPT, "good_one", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        path = tmp_path / "cache" / "good_one.ckpt"
        assert result.stdout.splitlines()[-1] == str(path)
        assert path.read_bytes() == (table / "a.ckpt").read_bytes()
        assert len(Quiet.requests) == count
    assert call_here(SCRIPT, "good_one", "--force", cwd=tmp_path).returncode == 0
    assert len(Quiet.requests) == 2
    result = call_here(SCRIPT, "other", "--cache_dir", "elsewhere", cwd=tmp_path)
    assert result.stdout.splitlines()[-2:] == [
        "no sha256 is published that it could be checked against",
        "elsewhere/other.ckpt",
    ]
    assert (tmp_path / "elsewhere" / "other.ckpt").is_file()


def test_list(table, tmp_path):
    call_here(SCRIPT, "good_one", cwd=tmp_path)
    lines = call_here(SCRIPT, "--list", cwd=tmp_path).stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith("bad_one   ghostnet_1x, top-1 1 % (published): http://127.0.0.1:")
    assert ", fetched: http" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("god_one",), "god_one: is not published (did you mean 'good_one'?); --list shows what is"),
        (("bad_one",), "not the published 000"),
        ((), "NAME or --list is needed, one of both"),
        (("good_one", "--cache_dir", "table.yaml"), "table.yaml: is a file, where a folder is needed"),
    ],
)
def test_mistakes_end_in_one_line(table, tmp_path, arguments, message):
    result = call_here(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_the_folder_of_fetched_files(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, "x")
    assert str(cache_folder()) == "x"
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert str(cache_folder()) == "/y/ghostnetv2-mindspore/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ghostnetv2-mindspore" / "weights"


def test_a_name_stands_for_the_fetched_file(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = "good_one: is not fetched yet, python scripts/fetch_weights.py good_one gets it"
    with pytest.raises(UserError) as error:
        read_weights("good_one")
    assert str(error.value) == message and Quiet.requests == []
    call_here(SCRIPT, "good_one", cwd=tmp_path)
    assert str(read_weights("good_one").identity) == "ghostnet_1x for 2 classes"
    save_weights(create_network("ghostnet_1x", 3), "good_one")
    assert str(read_weights("good_one").identity) == "ghostnet_1x for 3 classes"
    assert find_weights("good_one.ckpt").name == "good_one.ckpt"


def test_commands_take_names(table, tmp_path):
    write_good_inputs(tmp_path)
    (tmp_path / "config.yaml").write_text("not: settings")  # is beside the name, but not beside the file
    flags = ("--checkpoint_path", "good_one", "--data_url", "classes")
    settings = ("network.name=ghostnet_1x", "network.num_classes=2", "data.image_size=33", "data.eval_resize=33")
    settings += ("data.class_index=folders", "data.class_names=[a,b]", "evaluation.batch_size=2")
    result = call_here("eval.py", *flags, cwd=tmp_path)
    assert result.stderr == "error: good_one: is not fetched yet, python scripts/fetch_weights.py good_one gets it\n"
    call_here(SCRIPT, "good_one", cwd=tmp_path)
    result = call_here("eval.py", *flags, *settings, "runtime.graph_mode=false", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("ckpt= good_one")
    arguments = ("--config", CLASSIFICATION, "--pre_trained", "other")
    result = call_here("train.py", *arguments, cwd=tmp_path)
    assert result.stderr == "error: other: is not fetched yet, python scripts/fetch_weights.py other gets it\n"
    result = call_here("export.py", "--config", CLASSIFICATION, "--checkpoint_path", "other", cwd=tmp_path)
    assert result.stderr == "error: other: is not fetched yet, python scripts/fetch_weights.py other gets it\n"
