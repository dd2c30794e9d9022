"""Callbacks and the run folder: which checkpoints stay, what a bad loss says, rows, and where a run is resumed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.callbacks import MAX_BAD_LOSSES, Evaluation, NextEpoch, Progress, Saving, format_row, is_save_point, mean_loss
from src.checkpoint import read_checkpoint, read_weights, write_weights
from src.errors import UserError
from src.optim import build_optimizer
from src.run_folder import RunFolder, find_run, new_folder
from src.train_step import TrainStep
from src.training_state import History, TrainingState


class Loss(nn.Cell):
    def __init__(self):
        super().__init__(auto_prefix=False)
        self.network = nn.Dense(2, 1)

    def construct(self, x):
        return self.network(x).mean()


@pytest.fixture
def run(tmp_path):
    """A run of 3 batches an epoch with all but the data and the graph."""
    loss = Loss()
    step = TrainStep(loss, build_optimizer(loss.trainable_params(), "adamw", [0.1] * 30, 0.1, 0.9, (0.9, 0.99), 1e-8))
    history, folder = History(3), RunFolder(tmp_path / "run")
    folder.make()
    return SimpleNamespace(
        network=loss.network,
        step=step,
        history=history,
        folder=folder,
        state=TrainingState(loss.network, step, history),
    )


def play(run, losses_of_epochs, metrics, keep=1, epochs=10, log=print, scaler=None):
    """Walk the callbacks through epochs with given losses and metrics, the network's bias set to the epoch's number."""
    run.step.scaler = scaler
    results = iter(metrics)
    callbacks = [
        Progress(run.history, run.step, [0.1] * 30, epochs, 4, 100, log, run.folder.last),
        Evaluation(run.history, lambda: {"accuracy": next(results), "images_per_second": 5.0}, epochs),
        NextEpoch(run.history),
        Saving(run.history, run.folder, run.state, run.network, "accuracy", epochs, keep),
    ]
    for losses in losses_of_epochs:
        context = SimpleNamespace()
        for callback in callbacks:
            callback.on_train_epoch_begin(context)
        run.network.bias.set_data(Tensor([float(run.history.epoch + 1)]))
        for loss in losses:
            context.original_args = lambda value=loss: SimpleNamespace(net_outputs=Tensor(value))
            for callback in callbacks:
                callback.on_train_step_end(context)
        for callback in callbacks:
            callback.on_train_epoch_end(context)


def bias(path):
    return float(read_weights(path).weights["bias"][0])


def test_the_best_and_the_last_stay_and_no_more(run):
    metrics = [0.5, 0.3, 0.7, 0.7, 0.1, 0.6]
    play(run, [[1.0, 2.0, 3.0]] * 6, metrics, keep=3)
    assert run.history.kept == [(0.7, 3), (0.7, 4), (0.6, 6)]  # of equal ones the older first
    names = {path.name for path in run.folder.path.iterdir()}
    checkpoints = {"best.ckpt", "last.ckpt", "epoch_3.ckpt", "epoch_4.ckpt", "epoch_6.ckpt"}
    assert names == checkpoints | {"train.log", "metrics.csv", "curves.png"}
    assert bias(run.folder.best) == bias(run.folder.kept(3)) == 3
    assert bias(run.folder.last) == 6
    assert [row["train_loss"] for row in run.history.rows] == [2.0] * 6
    assert run.folder.metrics.read_text().splitlines()[0].startswith("epoch,step,learning_rate,train_loss,")


def test_a_metric_that_is_no_number_is_never_the_best(run):
    play(run, [[1.0] * 3] * 2, [float("nan"), 0.1])
    assert bias(run.folder.best) == 2
    assert sorted(path.name for path in run.folder.path.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_a_loss_that_is_no_number_ends_the_run(run):
    play(run, [[1.0] * 3], [0.5])
    with pytest.raises(UserError) as error:
        play(run, [[1.0, float("nan"), 1.0]], [0.6])
    assert str(error.value).startswith(
        f"the loss is nan at step 5 (batch 2 of epoch 2); the last good checkpoint is {run.folder.last};"
    )
    assert bias(run.folder.last) == 1  # from before

    before = History(3)
    progress = Progress(before, run.step, [0.1], 1, 4, 100, print, run.folder.path / "none.ckpt")
    before.losses = [float("inf")]
    with pytest.raises(UserError, match="step 1 .* no checkpoint was saved before"):
        progress.check(float("inf"))


def test_a_loss_scale_may_skip_some(run):
    progress = Progress(run.history, SimpleNamespace(scaler=object()), [0.1], 1, 4, 100, print, run.folder.last)
    for _ in range(3):
        for _ in range(MAX_BAD_LOSSES):
            progress.check(float("inf"))
        progress.check(1.0)
    with pytest.raises(UserError, match="the loss is inf"):
        for _ in range(MAX_BAD_LOSSES + 1):
            progress.check(float("inf"))
    assert mean_loss([1.0, float("inf"), 3.0]) == 2.0
    assert np.isnan(mean_loss([float("nan")]))


def test_a_checkpoint_inside_an_epoch_holds_its_losses_and_follows_no_bad_one(run):
    progress = Progress(run.history, run.step, [0.1] * 30, 9, 4, 100, print, run.folder.last, save_every=2)
    saving = Saving(run.history, run.folder, run.state, run.network, "accuracy", 9, save_every=2)
    run.history.steps_per_epoch = 9
    progress.on_train_epoch_begin(None)
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0):
        context = SimpleNamespace(original_args=lambda value=loss: SimpleNamespace(net_outputs=Tensor(value)))
        for callback in (progress, saving):
            callback.on_train_step_end(context)
    assert json.loads(read_checkpoint(run.folder.last)[1]["progress"])["losses"] == [1.0, 2.0, 3.0, 4.0]
    context = SimpleNamespace(original_args=lambda: SimpleNamespace(net_outputs=Tensor(float("nan"))))
    with pytest.raises(UserError, match="the loss is nan at step 6"):
        for callback in (progress, saving):
            callback.on_train_step_end(context)
    assert json.loads(read_checkpoint(run.folder.last)[1]["progress"])["step"] == 4


def test_save_points_are_inside_an_epoch():
    history = History(6)
    points = []
    for history.step in range(1, 7):
        points.append(is_save_point(history, 2))
    assert points == [False, True, False, True, False, False]
    assert not is_save_point(history, 0)


def test_rows_as_text():
    row = {"epoch": 2, "step": 10, "train_loss": 1.23456, "images": 5, "skipped_updates": 3}
    assert format_row(row, 9) == "epoch 2/9  train_loss 1.235  skipped_updates 3"


def test_state_comes_back(run, tmp_path):
    play(run, [[1.0, 2.0, 3.0]], [0.5])
    run.history.step, run.history.losses = 2, [4.0, 5.0]
    run.step.optimizer.moment1[0].set_data(Tensor(np.array([[7.0, 8.0]], np.float32)))
    run.state.save(tmp_path / "a.ckpt")
    assert json.loads(read_checkpoint(tmp_path / "a.ckpt")[1]["progress"])["epoch"] == 1
    loss = Loss()
    step = TrainStep(loss, build_optimizer(loss.trainable_params(), "adamw", [0.1] * 30, 0.1, 0.9, (0.9, 0.99), 1e-8))
    history = History(3)
    TrainingState(loss.network, step, history).restore(tmp_path / "a.ckpt")
    assert (history.epoch, history.step, history.losses, history.kept) == (1, 2, [4.0, 5.0], [[0.5, 1]])
    assert loss.network.bias.asnumpy()[0] == 1
    assert step.optimizer.moment1[0].asnumpy().tolist() == [[7.0, 8.0]]


def test_states_that_do_not_fit(run, tmp_path):
    run.state.save(tmp_path / "a.ckpt")
    write_weights({"weight": np.zeros(2, np.float32)}, tmp_path / "weights.ckpt")
    with pytest.raises(UserError, match=r"weights.ckpt: holds weights only; --pre_trained"):
        run.state.restore(tmp_path / "weights.ckpt")
    with pytest.raises(UserError, match="was written with 3 batches an epoch, now 4"):
        TrainingState(run.network, run.step, History(4)).restore(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="was written with 1 processes, now 2"):
        TrainingState(run.network, run.step, History(3, ranks=2)).restore(tmp_path / "a.ckpt")
    other = TrainStep(
        Loss(), build_optimizer(run.network.trainable_params(), "rmsprop", [0.1], 0.1, 0.9, (0.9, 0.9), 1e-3)
    )
    with pytest.raises(UserError, match="does not fit this run: 4 missing .state.mean_square"):
        TrainingState(run.network, other, History(3)).restore(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="no such file"):
        run.state.restore(tmp_path / "none.ckpt")


def test_where_a_run_is_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_run("auto", None, "digits") == (None, None)
    first = new_folder(None, "digits")
    RunFolder(first).make()
    assert str(first) == "runs/digits" and str(new_folder(None, "digits")) == "runs/digits-2"
    with pytest.raises(UserError, match="is not a run"):
        find_run("auto", None, "digits")
    (first / "config.yaml").touch()
    assert find_run("auto", None, "digits") == (first, None)  # killed before anything was saved
    (first / "last.ckpt").touch()
    assert find_run("auto", None, "digits") == (first, first / "last.ckpt")
    assert (
        find_run("runs/digits", None, "x")
        == find_run("runs/digits/last.ckpt", "runs/digits", "x")
        == (first, first / "last.ckpt")
    )
    assert find_run("auto", "elsewhere", "digits") == (None, None)
    second = new_folder(None, "digits")
    RunFolder(second).make()
    (second / "config.yaml").touch()
    assert find_run("auto", None, "digits") == (second, None)
    with pytest.raises(UserError, match="--resume takes a run's folder or checkpoint, or auto"):
        find_run("nowhere", None, "digits")
    with pytest.raises(UserError, match="a run goes on in its own folder"):
        find_run("runs/digits", "other", "digits")
    with pytest.raises(UserError, match="exists and is not empty"):
        new_folder(first, "digits")


def test_leftovers_of_a_killed_run_go(tmp_path):
    (tmp_path / ".last.ckpt.123.tmp.ckpt").touch()
    (tmp_path / ".hidden").touch()
    RunFolder(tmp_path).make()
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]
