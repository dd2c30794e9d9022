"""TensorBoard's event files, read back by TensorBoard: their values, those of a resumed run, when there are none."""

import csv
import dataclasses
import math
import sys

import mindspore
import numpy as np
import pytest
from helpers import reference
from training.tiny_run import TinyFolder, tiny_run

from src.data.images import normalise
from src.drawing import to_colours
from src.errors import UserError
from src.ranks import Ranks
from src.training.run import train
from src.training.summary import Summary, check_summary, tile_images

EPOCHS = [[float(8 * epoch + batch) for batch in range(8)] for epoch in range(2)]
SETTINGS = {"summary": True, "log_every": 1, "save_every": 2, "accumulation_steps": 2}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Nothing to compile, and no images."""
    reference("tensorboardX")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    monkeypatch.setattr(Summary, "_write_images", lambda self: None)


def read_events(folder):
    """All that TensorBoard shows of a run: an `EventAccumulator`."""
    reference("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 0, "histograms": 0, "images": 0}  # all of them
    return EventAccumulator(str(folder.path / "summary"), sizes).Reload()


def read_scalars(folder):
    """{tag: [(batch, value), ...]}."""
    events = read_events(folder)
    return {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_are_those_of_the_log_and_of_metrics_csv(tmp_path):
    folder = TinyFolder(tmp_path / "run")
    settings = {**SETTINGS, "log_every": 4, "evaluate_every": 2}
    assert train(tiny_run(EPOCHS, [0.75], loss_scaling="dynamic", **settings), folder, "val")
    scalars = read_scalars(folder)
    assert scalars["batch/train_loss"] == [(4, 1.5), (12, 9.5)]  # the last batch of an epoch has the epoch's line
    rows = list(csv.DictReader(folder.metrics.open()))
    assert [row["accuracy"] for row in rows] == ["", "0.75"]
    for name in rows[0]:
        expected = [(8 * (epoch + 1), float(row[name])) for epoch, row in enumerate(rows) if row[name]]
        assert scalars[f"epoch/{name}"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected], name
    (histogram,) = read_events(folder).Histograms("weights/bias")  # where the weights are evaluated
    assert (histogram.step, histogram.histogram_value.num) == (16, 1)
    assert histogram.histogram_value.min == -sum(map(sum, EPOCHS)) / 2


@pytest.mark.parametrize(("bad", "last"), [(5, 4), (9, 8)])
def test_a_resumed_run_has_every_step_once(tmp_path, bad, last):
    """It ended behind its last checkpoint, in the middle or at the end of an epoch, with more in its log."""
    whole, folder = TinyFolder(tmp_path / "whole"), TinyFolder(tmp_path / "run")
    assert train(tiny_run(EPOCHS, [0.5, 0.75], **SETTINGS), whole, "val")
    losses = np.array(EPOCHS)
    losses.flat[bad] = math.nan
    with pytest.raises(UserError, match="the loss is nan"):
        train(tiny_run(losses.tolist(), [0.5], **SETTINGS), folder, "val")
    run = tiny_run(EPOCHS, [0.5, 0.75][bad // 8 :], **SETTINGS)
    run.state.restore(folder.last)
    assert run.history.batches_done == last
    assert train(run, folder, "val")
    assert len(list((folder.path / "summary").iterdir())) == 2

    expected, scalars = read_scalars(whole), read_scalars(folder)
    assert [step for step, _ in scalars["batch/train_loss"]] == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    for name in ("batch/train_loss", "batch/learning_rate", "epoch/train_loss", "epoch/accuracy", "epoch/step"):
        assert scalars[name] == expected[name]
    assert [item.step for item in read_events(folder).Histograms("weights/bias")] == [8, 16]


def test_a_run_that_begins_anew_in_its_folder_hides_what_was_there(tmp_path):
    folder = TinyFolder(tmp_path)
    with pytest.raises(UserError):
        train(tiny_run([[1.0, math.nan]], summary=True, log_every=1), folder, "val")
    assert read_scalars(folder)["batch/train_loss"] == [(1, 1.0)]
    assert train(tiny_run([[3.0, 4.0]], [0.5], summary=True, log_every=1), folder, "val")
    assert read_scalars(folder)["batch/train_loss"] == [(1, 3.0)]


def test_there_are_no_event_files_unless_asked_for_and_on_other_processes(tmp_path):
    folder = TinyFolder(tmp_path)
    assert train(tiny_run([[1.0]], [0.5]), folder, "val")
    run = dataclasses.replace(tiny_run([[1.0]], summary=True), ranks=Ranks(1, 2))
    Summary(run, folder).write_scalars("batch", {"train_loss": 1.0})
    assert not (tmp_path / "summary").exists()


def test_without_tensorboardx_no_run_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="train.summary: needs tensorboardX, which pip install tensorboardX installs"):
        tiny_run([[1.0]], summary=True)
    check_summary(False)


def test_the_grid_shows_images_as_they_were():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    assert np.array_equal(to_colours(normalise(images, mean, std), mean, std), images)
    grid = tile_images(images, 3)
    assert grid.shape == (8, 9, 3)
    assert np.array_equal(grid[:4, 6:9], images[2]) and np.array_equal(grid[4:, 3:6], images[4])
    assert not grid[4:, 6:].any()
    assert tile_images(images[:2], 3).shape == (4, 6, 3)
