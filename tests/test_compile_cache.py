"""Compiled graphs on disk: found again only for the very same network and input."""

import subprocess
import sys

import mindspore
import numpy as np
import pytest
from conftest import PROJECT
from mindspore import Tensor

from src import compile_cache
from src.compile_cache import describe, keep_graphs, run_cached
from src.ghostnetv2 import create_network

RUN = """
import sys, numpy, mindspore
sys.path[:0] = [{project!r}, {project!r} + "/tests"]
from conftest import randomise_batch_norm
from src.compile_cache import keep_graphs, run_cached
from src.ghostnetv2 import create_network
from src.runtime import init_runtime
init_runtime("CPU")
keep_graphs(sys.argv[1] if sys.argv[1] != "off" else None)
mindspore.set_seed(int(sys.argv[2]))
network = randomise_batch_norm(create_network("ghostnet_1x", 3, dropout=0.0), int(sys.argv[2]))
x = mindspore.Tensor(numpy.random.default_rng(0).standard_normal((int(sys.argv[3]), 3, 33, 33)).astype("f"))
print(run_cached(network, x).asnumpy().tolist())
"""


def build(name="ghostnetv2_1x", **options):
    return create_network(name, 3, features_only=True, **options).set_train(False)


def images(batch=1, size=33):
    return Tensor(np.zeros((batch, 3, size, size), np.float32))


@pytest.fixture
def folder(tmp_path):
    keep_graphs(tmp_path / "graphs")
    yield tmp_path / "graphs"
    keep_graphs(None)


def test_description_tells_graphs_apart():
    alike = {describe(build(), (images(),)) for _ in range(2)}
    assert len(alike) == 1  # whatever the weights
    others = {
        describe(build("ghostnet_1x"), (images(),)),
        describe(build("ghostnetv2_1_3x"), (images(),)),
        describe(build(dfc_gate="hard_sigmoid"), (images(),)),
        describe(build(dfc_gate_position="after_up_sampling"), (images(),)),
        describe(build(dfc_up_sampling="bilinear"), (images(),)),
        describe(build(dfc_down_sampling="max_pool"), (images(),)),
        describe(build(output_stride=16), (images(),)),
        describe(build(), (images(2),)),
        describe(build(), (images(size=48),)),
    }
    assert len(others - alike) == 9


def test_graphs_come_from_the_folder_with_the_weights_of_now(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(project=str(PROJECT)))

    def run(folder, seed, batch):
        command = [sys.executable, str(script), str(folder), str(seed), str(batch)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return np.array(eval(output.splitlines()[-1]))

    folder = tmp_path / "graphs"
    first = run(folder, 1, 2)
    (graph,) = folder.iterdir()
    files = {path: path.stat().st_mtime_ns for path in graph.rglob("*.mindir")}
    assert len(files) == 1
    again, other = run(folder, 1, 2), run(folder, 2, 2)
    assert files == {path: path.stat().st_mtime_ns for path in graph.rglob("*.mindir")}  # read, not written
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(other, run("off", 2, 2))
    assert np.abs(other - first).max() > 0.01


def test_nothing_is_kept_where_it_is_off_or_cannot_be(folder, monkeypatch):
    network = mindspore.nn.ReLU().set_train(False)
    x = Tensor(np.array([-1.0, 2.0], np.float32))
    keep_graphs(None)
    assert run_cached(network, x).asnumpy().tolist() == [0, 2]
    assert not folder.exists()
    folder.parent.joinpath("file").write_text("")
    keep_graphs(folder.parent / "file" / "graphs")
    assert run_cached(network, x).asnumpy().tolist() == [0, 2]
    assert run_cached(lambda x: 7, x) == 7  # not a cell
    assert compile_cache.default_folder().name == "ghostnetv2-mindspore"
