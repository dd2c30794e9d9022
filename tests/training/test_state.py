"""The checkpoint of a run: all comes back, also from an older one, and what does not fit is named."""

import json

import mindspore
import numpy as np
import pytest
from helpers import optimizer_of, step_of
from mindspore import Tensor
from training.tiny_run import ChosenLoss, tiny_network

from src.errors import UserError
from src.training.state import History, TrainingState
from src.weights.files import write_weights
from src.weights.mindspore_file import read_checkpoint

PROGRESS = {"epoch": 1, "losses": [4.0, 5.0], "rows": [{"epoch": 1, "train_loss": 2.0}], "kept": [[0.5, 1]]}
MOMENT = [[7.0, 8.0]]


@pytest.fixture(autouse=True)
def pynative():
    """Nothing to compile."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


def new_state(optimizer="adamw", batches=3, ranks=1):
    """The `TrainingState` at the start of a run, and its network."""
    network = tiny_network()
    step = step_of(ChosenLoss(network), optimizer_of(network, optimizer, [0.1] * 30))
    return TrainingState(network, step, History(batches, ranks)), network


@pytest.fixture
def saved(tmp_path):
    """The checkpoint of a run two batches behind its first epoch."""
    state, network = new_state()
    for key, value in {**PROGRESS, "batch": 2}.items():
        setattr(state.history, key, value)
    network.bias.set_data(Tensor([1.0]))
    optimizer = state.train_step.optimizer
    names = [parameter.name for parameter in optimizer.flat.parameters]
    moments = {name: np.array(MOMENT, np.float32) if name == names[0] else 0 for name in names}
    optimizer.vectors[0].set_data(Tensor(optimizer.flat.pack(moments)))
    state.save(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def check_restored(path):
    state, network = new_state()
    state.restore(path)
    assert state.history == History(3, 1, batch=2, **PROGRESS)
    assert network.bias.asnumpy()[0] == 1
    optimizer = state.train_step.optimizer
    first = optimizer.flat.parameters[0].name
    assert optimizer.flat.unpack(optimizer.vectors[0].asnumpy())[first].tolist() == MOMENT


def test_state_comes_back(saved):
    check_restored(saved)


def test_an_older_checkpoint_comes_back(saved):
    """Until the loop became explicit, batches were called steps."""
    arrays, notes = read_checkpoint(saved)
    older = {**PROGRESS, "steps_per_epoch": 3, "ranks": 1, "step": 2, "interrupted": True}
    write_weights(arrays, saved, {**notes, "progress": json.dumps(older)})
    check_restored(saved)
    with pytest.raises(UserError, match="data made 3 batches an epoch, the present ones make 4"):
        new_state(batches=4)[0].restore(saved)


def test_states_that_do_not_fit(saved, tmp_path):
    write_weights({"weight": np.zeros(2, np.float32)}, tmp_path / "weights.ckpt")
    with pytest.raises(UserError, match=r"weights.ckpt: holds weights only; --pre_trained"):
        new_state()[0].restore(tmp_path / "weights.ckpt")
    with pytest.raises(UserError, match="data made 3 batches an epoch, the present ones make 4"):
        new_state(batches=4)[0].restore(saved)
    with pytest.raises(UserError, match="was written with 1 processes, now 2"):
        new_state(ranks=2)[0].restore(saved)
    with pytest.raises(UserError, match="does not fit this run: 4 missing .state.mean_square"):
        new_state("rmsprop")[0].restore(saved)
    with pytest.raises(UserError, match="no such file"):
        new_state()[0].restore(tmp_path / "none.ckpt")


def test_a_state_that_does_not_fit_changes_nothing(saved):
    state, network = new_state("rmsprop")
    with pytest.raises(UserError):
        state.restore(saved)
    assert state.history == History(3, 1) and network.bias.asnumpy()[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "it is no JSON object"),
        ({"batch": None}, "batch: null is impossible"),
        ({"batch": -1}, "batch: -1 is impossible"),
        ({"batch": 1.0}, "batch: 1.0 is impossible"),
        ({"epoch": True}, "epoch: true is impossible"),
        ({"batch": 4}, "batch: 4 is behind the epoch's last, 3"),
        ({"losses": 3}, "losses: 3 is impossible"),
        ({"losses": ["a"]}, 'losses: ["a"] is impossible'),
        ({"rows": {}}, "rows: {} is impossible"),
        ({"rows": [{"train_loss": 2.0}]}, 'rows: [{"train_loss": 2.0}] is impossible'),
        ({"kept": [[1]]}, "kept: [[1]] is impossible"),
        ({"save": "x"}, "save: unknown"),
        ({"finish_epoch": 1, "batches_done": 2}, "batches_done, finish_epoch: unknown"),
    ],
)
def test_a_damaged_note_of_the_progress_changes_nothing(saved, change, message):
    arrays, notes = read_checkpoint(saved)
    note = change if isinstance(change, str) else json.dumps({**json.loads(notes["progress"]), **change})
    write_weights(arrays, saved, {**notes, "progress": note})
    state, network = new_state()
    with pytest.raises(UserError) as error:
        state.restore(saved)
    assert str(error.value) == f"{saved}: is damaged, in its note of the progress: {message}"
    assert state.history == History(3, 1) and network.bias.asnumpy()[0] == 0


@pytest.mark.parametrize("key", ["batches_per_epoch", "ranks", "epoch", "batch", "losses", "rows", "kept"])
def test_a_note_without_a_key(saved, key):
    arrays, notes = read_checkpoint(saved)
    progress = json.loads(notes["progress"])
    del progress[key]
    write_weights(arrays, saved, {**notes, "progress": json.dumps(progress)})
    with pytest.raises(UserError, match=f"last.ckpt: is damaged, in its note of the progress: {key}: missing"):
        new_state()[0].restore(saved)


def test_weights_that_are_no_numbers_are_not_saved(saved):
    """The file from before is what an error points to as the last good one."""
    before = saved.read_bytes()
    state, network = new_state()
    network.bias.set_data(Tensor(np.array([np.nan], np.float32)))
    with pytest.raises(
        UserError, match=r"last.ckpt: not written, training has diverged: 1 of \d arrays hold nan or inf"
    ):
        state.save(saved)
    assert saved.read_bytes() == before
