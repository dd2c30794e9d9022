"""The training loop: which checkpoints stay, bad losses, log lines, evaluations, and a stop on a signal."""

import dataclasses
import json
import math
import signal

import mindspore
import numpy as np
import pytest
from mindspore import Tensor
from training.tiny_run import TinyFolder, losses_in, tiny_run

from src.errors import UserError
from src.interrupt import SIGNALS
from src.ranks import Ranks
from src.settings import ScheduleSettings
from src.training import progress
from src.training.progress import format_row, mean_loss
from src.training.run import LOSS_INTERVAL, is_save_point, train
from src.training.run_folder import RunFolder
from src.weights.files import read_checkpoint

NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.usefixtures("pynative")


def progress_in(path):
    return json.loads(read_checkpoint(path)[1]["progress"])


def without_times(rows):
    times = ("seconds", "images_per_second")
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


def lines(folder):
    """What the log says, without speeds and times."""
    text = folder.log_file.read_text()
    return [[part for part in line.split("  ") if "second" not in part] for line in text.splitlines()]


def test_the_best_and_the_last_stay_and_no_more(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run = tiny_run([[1.0, 2.0, 3.0]] * 6, [0.5, 0.3, 0.7, 0.7, 0.1, 0.6], keep_best=3)
    assert train(run, folder, "val")
    assert run.history.kept == [(0.7, 3), (0.7, 4), (0.6, 6)]  # of equal ones the older first
    names = {path.name for path in folder.path.iterdir()}
    checkpoints = {"best.ckpt", "last.ckpt", "epoch_3.ckpt", "epoch_4.ckpt", "epoch_6.ckpt"}
    assert names == checkpoints | {"train.log", "metrics.csv", "curves.png"}
    assert losses_in(folder.best) == losses_in(folder.kept(3)) == 18
    assert losses_in(folder.last) == 36
    assert [row["train_loss"] for row in run.history.rows] == [2.0] * 6
    assert folder.metrics.read_text().splitlines()[0].startswith("epoch,step,learning_rate,train_loss,")
    assert all(row["images_per_second"] != 0.5 for row in run.history.rows)  # training's, not the evaluation's
    assert [line[-1].endswith(" (best)") for line in lines(folder)] == [True, False, True, False, False, False]


def test_a_metric_that_is_no_number_is_never_the_best(folder):
    run = tiny_run([[1.0] * 3] * 3, [NAN, 0.1, NAN])
    train(run, folder, "val")
    assert losses_in(folder.best) == 6
    assert sorted(path.name for path in folder.path.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_weights_whose_outputs_are_no_numbers_are_never_the_best(folder):
    """Some metrics, such as an mIoU, are numbers all the same."""

    def evaluate(network, dataset, output_dir=None):
        network(Tensor(np.full((1, 2), NAN if run.history.epoch == 1 else 1.0, np.float32)))
        return {"accuracy": 0.1 * (1 + run.history.epoch % 2)}

    run = tiny_run([[1.0] * 3] * 3)
    run.task.evaluate = evaluate
    assert train(run, folder, "val")
    assert [row["accuracy"] for row in run.history.rows] == pytest.approx([0.1, NAN, 0.1], nan_ok=True)
    assert losses_in(folder.best) == 3 and losses_in(folder.last) == 9


def test_a_loss_that_is_no_number_ends_the_run(folder):
    run = tiny_run([[1.0] * 3, [1.0, NAN, 1.0]], [0.5, 0.6])
    with pytest.raises(UserError) as error:
        train(run, folder, "val")
    assert str(error.value).startswith(
        f"the loss is nan at batch 2 of epoch 2; the last good checkpoint is {folder.last};"
    )
    assert losses_in(folder.last) == 3  # from before


def test_a_bad_loss_before_any_checkpoint(folder):
    with pytest.raises(UserError, match="the loss is inf at batch 1 of epoch 1; no checkpoint was saved before"):
        train(tiny_run([[INF, 1.0]]), folder, "val")
    assert not list(folder.path.glob("*.ckpt"))


def test_losses_are_fetched_every_few_batches(folder):
    run = tiny_run([[1.0, NAN] + [1.0] * 38])
    with pytest.raises(UserError, match="the loss is nan at batch 2 of epoch 1"):
        train(run, folder, "val")
    assert run.history.batch == LOSS_INTERVAL


def test_a_loss_scale_may_skip_some(folder, monkeypatch):
    monkeypatch.setattr(progress, "MAX_BAD_LOSSES", 4)
    bad = [INF] * 4
    run = tiny_run([[*bad, 1.0, *bad, 3.0]], [0.5], loss_scaling="dynamic")
    assert train(run, folder, "val")
    (row,) = run.history.rows
    assert (row["train_loss"], row["skipped_updates"], row["loss_scale"]) == (2.0, 8, 65536 / 2**8)
    assert losses_in(folder.last) == 4
    with pytest.raises(UserError, match="the loss is inf at batch 6 of epoch 1"):
        train(tiny_run([[1.0, *bad, INF]], loss_scaling="dynamic"), folder, "val")


def test_the_log_tells_the_rate_that_was_used_behind_a_skipped_update(folder):
    """The rates halve with each update tried; the second one is skipped."""
    halving = ScheduleSettings(name="step", learning_rate=8.0, decay_epochs=0.25, decay_rate=0.5)
    run = tiny_run([[1.0, INF, 1.0, 1.0]], [0.5], loss_scaling="fixed", log_every=1, schedule=halving)
    assert train(run, folder, "val")
    assert losses_in(folder.last) == 8 + 2 + 1
    told = [part for line in lines(folder) for part in line if part.startswith("learning_rate")]
    assert told == [f"learning_rate {rate}" for rate in (8, 4, 2, 1)]


def test_the_mean_loss_leaves_out_what_was_skipped():
    assert mean_loss([1.0, INF, 3.0]) == 2.0
    assert math.isnan(mean_loss([NAN]))


def test_a_checkpoint_inside_an_epoch_holds_its_losses_and_follows_no_bad_one(folder):
    run = tiny_run([[1.0, 2.0, 3.0, 4.0, 5.0, NAN, 7.0, 8.0, 9.0]], save_every=2)
    with pytest.raises(UserError, match="the loss is nan at batch 6 of epoch 1; the last good checkpoint is "):
        train(run, folder, "val")
    saved = progress_in(folder.last)
    assert (saved["batch"], saved["losses"]) == (4, [1.0, 2.0, 3.0, 4.0])
    assert losses_in(folder.last) == 10


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"save_every": 2}, [2, 4]),
        ({"save_every": 1, "accumulation_steps": 2}, [2, 4]),  # updates, not batches
        ({"save_every": 4}, [4]),
        ({"save_every": 6}, []),
        ({}, []),
    ],
)
def test_save_points_are_inside_an_epoch(settings, expected):
    run, points = tiny_run([[1.0] * 6], **settings), []
    for run.history.batch in range(1, 7):
        points += [run.history.batch] * is_save_point(run)
    assert points == expected


def test_rows_as_text():
    row = {"epoch": 2, "step": 10, "train_loss": 1.23456, "images": 5, "skipped_updates": 3}
    assert format_row(row, 9) == "epoch 2/9  train_loss 1.235  skipped_updates 3"


def test_log_lines_and_rows_count_batches_and_updates(folder):
    epoch = [float(number) for number in range(1, 13)]
    run = tiny_run([epoch, epoch], [0.5, 0.25], log_every=4, accumulation_steps=2)
    train(run, folder, "val")
    assert lines(folder) == [
        ["epoch 1/2", "batch 4/12", "train_loss 2.5", "learning_rate 1"],
        ["epoch 1/2", "batch 8/12", "train_loss 6.5", "learning_rate 1"],
        ["epoch 1/2", "learning_rate 1", "train_loss 6.5", "accuracy 0.5 (best)"],
        ["epoch 2/2", "batch 4/12", "train_loss 2.5", "learning_rate 1"],
        ["epoch 2/2", "batch 8/12", "train_loss 6.5", "learning_rate 1"],
        ["epoch 2/2", "learning_rate 1", "train_loss 6.5", "accuracy 0.25"],
    ]
    assert [row["step"] for row in run.history.rows] == [6, 12]
    assert "images_per_second" in folder.log_file.read_text().splitlines()[0]


def test_evaluations_are_every_few_epochs_and_at_the_end(folder):
    run = tiny_run([[1.0, 1.0]] * 5, [0.5, 0.6, 0.4], evaluate_every=2)
    train(run, folder, "val")
    assert run.task.evaluated_at == [4, 8, 10]
    assert [row.get("accuracy") for row in run.history.rows] == [None, 0.5, None, 0.6, 0.4]
    assert losses_in(folder.best) == 8


def resumed(folder, *arguments, **settings):
    """A run like `tiny_run`'s that goes on from a folder's last checkpoint."""
    run = tiny_run(*arguments, **settings)
    run.state.restore(folder.last)
    return run


EPOCHS = [[float(4 * epoch + batch) for batch in range(4)] for epoch in range(3)]
METRICS = [0.5, 0.7, 0.6]
SETTINGS = {"accumulation_steps": 2, "keep_best": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of `EPOCHS` without a signal, and its folder."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    run, folder = tiny_run(EPOCHS, METRICS, **SETTINGS), TinyFolder(tmp_path_factory.mktemp("whole"))
    assert train(run, folder, "val")
    return run, folder


@pytest.mark.parametrize(
    ("batch", "number", "epoch", "stopped_at"),
    [
        pytest.param(2, signal.SIGTERM, 0, 2, id="end of an update"),
        pytest.param(5, signal.SIGTERM, 1, 2, id="first batch of an epoch, middle of an update"),
        pytest.param(7, signal.SIGINT, 2, 0, id="last update of an epoch"),
        pytest.param(8, signal.SIGINT, 2, 0, id="end of an epoch"),
    ],
)
def test_a_signal_stops_at_a_whole_update_and_the_run_goes_on(folder, whole, batch, number, epoch, stopped_at):
    handlers = [signal.getsignal(handled) for handled in SIGNALS]
    run = tiny_run(EPOCHS, METRICS, {batch: number}, **SETTINGS)
    assert not train(run, folder, "val")
    assert handlers == [signal.getsignal(handled) for handled in SIGNALS]
    saved = progress_in(folder.last)
    assert (saved["epoch"], saved["batch"]) == (run.history.epoch, run.history.batch) == (epoch, stopped_at)
    assert saved["losses"] == EPOCHS[epoch][:stopped_at]
    assert losses_in(folder.last) == (sum(map(sum, EPOCHS[:epoch])) + sum(EPOCHS[epoch][:stopped_at])) / 2
    assert len(run.history.rows) == len(run.task.evaluated_at) == epoch

    run = resumed(folder, EPOCHS, METRICS[epoch:], **SETTINGS)
    assert train(run, folder, "val")
    expected, whole_folder = whole
    assert without_times(run.history.rows) == without_times(expected.history.rows)
    assert list(map(tuple, run.history.kept)) == expected.history.kept
    for name in ("last.ckpt", "best.ckpt", "epoch_2.ckpt", "epoch_3.ckpt"):
        assert losses_in(folder.path / name) == losses_in(whole_folder.path / name)


def test_a_signal_in_the_last_batch_leaves_a_whole_run(folder):
    assert train(tiny_run([[1.0, 1.0]], [0.5], {2: signal.SIGINT}), folder, "val")
    assert losses_in(folder.best) == 2


def test_a_second_signal_aborts(folder):
    run = tiny_run([[1.0] * 8], signals={2: signal.SIGTERM, 3: signal.SIGINT}, accumulation_steps=4)
    handlers = [signal.getsignal(handled) for handled in SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, "val")
    assert run.history.batch == 2 and not folder.last.exists()
    assert handlers == [signal.getsignal(handled) for handled in SIGNALS]


def test_with_several_processes_the_first_signal_aborts(folder):
    run = tiny_run([[1.0] * 8], signals={5: signal.SIGINT}, save_every=3)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(run, ranks=Ranks(0, 2)), folder, "val")
    assert progress_in(folder.last)["batch"] == 3
