"""Compiled graphs on disk: found again only for the very same settings and input, and no harm from any file there."""

import json
import os
import shutil
import subprocess
import sys

import mindspore
import numpy as np
import pytest
from helpers import PROJECT

from src.inference import graph_cache
from src.inference.graph_cache import graph_key

# a script, because MindSpore wants the main script to be a file: FOLDER-or-off GATE SEED BATCH SIDE
RUN = """
import json, sys
from pathlib import Path
import mindspore
sys.path[:0] = [{project!r}, {project!r} + "/tests"]
from helpers import normal, randomise
from src.inference.graph_cache import CachedNetwork
from src.runtime import init_runtime
from training.tiny_network import TinyNetwork

folder, gate, seed, batch, side = *sys.argv[1:3], *map(int, sys.argv[3:])
init_runtime("CPU", seed, graph_mode=True)
network = randomise(TinyNetwork(3, dropout=0.0, dfc_gate=gate), seed=seed)
if folder != "off":
    network = CachedNetwork(network, Path(folder), gate)
print(json.dumps(network(mindspore.Tensor(normal(batch, 3, side, side))).asnumpy().tolist()))
"""
DAMAGE = {"cut off": lambda content: content[: len(content) // 2], "overwritten": lambda content: b"\x08\x07rubbish"}
DAMAGE["emptied"] = lambda content: b""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(RUN.format(project=str(PROJECT)))
    return path


def logits(script, folder, gate="sigmoid", seed=1, batch=2, side=16, prefix=()):
    """Logits of a process of its own, with graphs in `folder`, or 'off'; `prefix` is a command that starts it."""
    line = [*prefix, sys.executable, str(script), *map(str, (folder, gate, seed, batch, side))]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return np.array(json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def plain(script):
    """Logits without a cache."""
    return logits(script, "off")


@pytest.fixture(scope="module")
def filled(script, plain, tmp_path_factory):
    """A folder with the graph of that call."""
    folder = tmp_path_factory.mktemp("cache") / "graphs"
    np.testing.assert_array_equal(logits(script, folder), plain)
    return folder


@pytest.fixture
def copied(filled, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(filled, tmp_path / "graphs")


def graph_files(folder):
    """{path: time of the last change} of the graphs themselves."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.mindir")}


def test_key_tells_graphs_apart(tmp_path, monkeypatch):
    keys = {
        graph_key("a: 1", "(1, 3, 33, 33)"),
        graph_key("a: 2", "(1, 3, 33, 33)"),
        graph_key("a: 1", "(2, 3, 33, 33)"),
    }
    monkeypatch.setattr(mindspore, "__version__", "0.0")
    keys.add(graph_key("a: 1", "(1, 3, 33, 33)"))
    monkeypatch.undo()
    sources = tmp_path / "src"
    (sources / "inference").mkdir(parents=True)
    monkeypatch.setattr(graph_cache, "__file__", str(sources / "inference" / "graph_cache.py"))
    for text in ("one", "two"):
        (sources / "network.py").write_text(text)
        keys.add(graph_key("a: 1", "(1, 3, 33, 33)"))
    assert len(keys) == 6
    assert graph_key("a: 1", "(1, 3, 33, 33)") in keys  # and the same again


def test_graphs_come_from_the_folder_with_the_weights_of_now(script, filled, plain):
    files = graph_files(filled)
    assert len(files) == 1
    other = logits(script, filled, seed=2)
    assert graph_files(filled) == files  # read, not written
    np.testing.assert_array_equal(other, logits(script, "off", seed=2))
    assert np.abs(other - plain).max() > 0.01


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [("cut off", "*"), ("overwritten", "*"), ("emptied", "*"), ("cut off", "*.mindir"), ("overwritten", "*.hash")],
)
def test_damaged_files_do_no_harm(script, copied, plain, damage, pattern):
    files = [path for path in copied.rglob(pattern) if path.is_file()]
    assert len(files) >= (3 if pattern == "*" else 1)
    for path in files:
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(DAMAGE[damage](content))
    np.testing.assert_array_equal(logits(script, copied), plain)
    assert all(path.read_bytes() != b"" for path in copied.rglob("*.mindir"))  # made anew


@pytest.mark.parametrize("other", [{"batch": 1, "side": 20}, {"gate": "hard_sigmoid"}], ids=["input", "settings"])
def test_the_graph_of_another_call_does_no_harm(script, copied, plain, tmp_path, other):
    """The folder of this key holds what belongs to another one."""
    others = tmp_path / "others"
    assert not np.array_equal(logits(script, others, **other), plain)
    (key,), (foreign,) = copied.iterdir(), others.iterdir()
    assert key.name != foreign.name
    shutil.rmtree(key)
    shutil.copytree(foreign, key)
    np.testing.assert_array_equal(logits(script, copied), plain)


@pytest.mark.parametrize("place", ["below a file", "read-only"])
def test_a_folder_that_cannot_be_written_does_no_harm(script, plain, tmp_path, place):
    prefix, folder = (), tmp_path / "graphs"
    if place == "below a file":
        folder.write_text("")
        folder /= "more"
    else:
        folder.mkdir(mode=0o500)
        if os.getuid() == 0:  # whom permissions do not stop, unless this one is taken away
            if shutil.which("setpriv") is None:
                pytest.skip("root can write everywhere")
            rights = "-dac_override,-dac_read_search"
            prefix = ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")
    np.testing.assert_array_equal(logits(script, folder, prefix=prefix), plain)
    assert not folder.is_dir() or not any(folder.iterdir())
