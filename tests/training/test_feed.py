"""Batches that MindSpore sends to the device ahead give the run that batches from the host give, bit for bit.

The CPU has no queue, so `Queue` stands in for `mindspore.data_sink`: it asks of the pipeline what that does.
"""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
from compiling.kernels import STUBS, stub_environment
from helpers import PROJECT
from training.tiny_run import TinyFolder, losses_in, tiny_run

from src.errors import UserError
from src.training import feed
from src.training.run import train
from src.weights.files import read_checkpoint

EPOCHS = [[float(8 * epoch + batch) for batch in range(8)] for epoch in range(3)]
METRICS = [0.5, 0.7, 0.6]
SETTINGS = {"accumulation_steps": 2, "save_every": 1, "log_every": 3}


class Queue:
    """`mindspore.data_sink`: checks the columns against the signature, and sends the dataset over and over again."""

    def __init__(self, function, dataset, sink_size=1, jit_config=None, input_signature=None):
        assert sink_size == 1 and jit_config is None
        self.function, self.signature, self.calls = function, input_signature, []
        assert [list(column.shape) for column in input_signature] == dataset.output_shapes()
        self.batches = self.send(dataset)
        next(self.batches)
        dataset.__transfer_dataset__ = SimpleNamespace(
            stop_send=lambda: self.calls.append("stop"), release=lambda: self.calls.append("release")
        )
        Queue.newest = self

    def send(self, dataset):
        yield
        while True:
            yield from dataset.create_tuple_iterator(num_epochs=1)

    def __call__(self):
        columns = next(self.batches)
        assert [(column.shape, column.dtype) for column in columns] == [(c.shape, c.dtype) for c in self.signature]
        return self.function(*columns)


@pytest.fixture(autouse=True)
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


@pytest.fixture
def sunk(monkeypatch):
    monkeypatch.setattr(feed, "is_sunk", lambda sink: True)
    monkeypatch.setattr(mindspore, "data_sink", Queue)


def content(folder):
    """Arrays of the last checkpoint, and the log without times and metrics."""
    lines = folder.log_file.read_text().splitlines()
    log = [[part for part in line.split("  ") if "second" not in part and "accuracy" not in part] for line in lines]
    arrays = {name: value.tolist() for name, value in read_checkpoint(folder.last)[0].items()}
    del arrays["weight"]  # random, and as it was
    return arrays, log


@pytest.fixture
def whole(tmp_path):
    folder = TinyFolder(tmp_path / "whole")
    assert train(tiny_run(EPOCHS, METRICS, **SETTINGS), folder, "val")
    return content(folder)


def test_a_sunk_run_is_the_same(tmp_path, whole, sunk):
    folder = TinyFolder(tmp_path / "sunk")
    assert train(tiny_run(EPOCHS, METRICS, **SETTINGS), folder, "val")
    assert content(folder) == whole
    assert Queue.newest.calls == ["stop", "release"]


@pytest.mark.parametrize("batch", [3, 8, 13])
def test_a_sunk_run_stops_at_a_whole_update_and_goes_on(tmp_path, whole, sunk, batch):
    folder = TinyFolder(tmp_path / "parts")
    assert not train(tiny_run(EPOCHS, METRICS, {batch: signal.SIGTERM}, **SETTINGS), folder, "val")
    done = batch + batch % 2
    assert losses_in(folder.last) == sum(np.ravel(EPOCHS)[:done]) / 2
    assert Queue.newest.calls == ["stop", "release"]
    run = tiny_run(EPOCHS, METRICS[done // 8 :], **SETTINGS)
    run.state.restore(folder.last)
    assert train(run, folder, "val")
    assert content(folder)[0] == whole[0]


def test_the_queue_is_released_behind_an_error(tmp_path, sunk):
    with pytest.raises(UserError, match="the loss is nan"):
        train(tiny_run([[1.0, np.nan, 1.0]]), TinyFolder(tmp_path / "run"), "val")
    assert Queue.newest.calls == ["stop", "release"]


@pytest.mark.parametrize("sink", [None, False, True])
def test_the_cpu_has_no_queue(sink):
    assert not feed.is_sunk(sink)


@pytest.mark.parametrize(("sink", "expected"), [(None, True), (True, True), (False, False)])
def test_devices_have_one_unless_told_not(monkeypatch, sink, expected):
    monkeypatch.setattr(mindspore, "get_context", lambda name: "Ascend")
    assert feed.is_sunk(sink) is expected


def test_the_queue_of_a_gpu(tmp_path):
    """In MindSpore's own code for it, without the device."""
    if not (STUBS.is_file() and mindspore.__version__.startswith("2.10.")):
        pytest.skip(f"{STUBS} or MindSpore 2.10 is not there")
    script, environment = PROJECT / "tests" / "training" / "feed_on_gpu.py", {**os.environ, **stub_environment("gpu")}
    options = {"capture_output": True, "text": True, "timeout": 120, "check": False}
    result = subprocess.run([sys.executable, str(script)], env=environment, cwd=tmp_path, **options)
    assert result.stdout.splitlines()[-1:] == ["[((2,), 'Float32')] 6"], result.stderr
