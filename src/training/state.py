"""Where a training run stands, and the checkpoint from which it goes on as if it had never stopped."""

import dataclasses
import json
from dataclasses import dataclass, field

from mindspore import Tensor

from src.errors import UserError
from src.weights.files import STATE_PREFIX, compare, describe_lost, set_parameters, write_weights
from src.weights.mindspore_file import read_checkpoint

PROGRESS = "progress"  # note in the checkpoint
# in the notes of older checkpoints
FORMER_NAMES = {"step": "batch", "steps_per_epoch": "batches_per_epoch"}
FORMER_KEY = "interrupted"


@dataclass
class History:
    """How far a run has come, as a resumed one needs to know it.

    Attributes:
        batches_per_epoch, ranks: batches of an epoch, and processes; a resumed run must have the same.
        epoch, batch: whole epochs done, and batches of the current one.
        losses: of these batches.
        rows: a dict of results for each whole epoch.
        kept: (metric, epoch) of the best checkpoints, best first.
    """

    batches_per_epoch: int
    ranks: int
    epoch: int = 0
    batch: int = 0
    losses: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    kept: list = field(default_factory=list)

    @property
    def is_epoch_complete(self) -> bool:
        """Whether all batches of the current epoch are done."""
        return self.batch == self.batches_per_epoch

    @property
    def batches_done(self) -> int:
        """Batches since the start of the run."""
        return self.epoch * self.batches_per_epoch + self.batch

    def finish_epoch(self, row) -> None:
        """Note the results of the epoch and go on to the next one."""
        self.rows.append(row)
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []


class TrainingState:
    """Network, weight average, optimizer, loss scale, random state and progress, as one file.

    Args:
        network: is trained.
        train_step: its `TrainStep`.
        history: `History` of the run.
    """

    def __init__(self, network, train_step, history):
        self.train_step, self.history = train_step, history
        self.parameters = {parameter.name: parameter for parameter in network.get_parameters()}
        self.parameters.update({STATE_PREFIX + name: parameter for name, parameter in train_step.state().items()})

    def pieces(self) -> dict:
        """Collect {name: array} of what is kept in vectors, under the names that it has in the file."""
        pieces = {}
        for prefix, flat, vector in self.train_step.vectors():
            pieces.update({prefix + name: value for name, value in flat.unpack(vector.asnumpy()).items()})
        return pieces

    def save(self, path) -> None:
        """Write the file, whole or not at all.

        Raises:
            UserError: if it cannot be written, or the weights are no longer numbers; one from before stays as it was.
        """
        arrays = {name: parameter.asnumpy() for name, parameter in self.parameters.items()}
        arrays.update(self.pieces())
        lost = describe_lost({n: value for n, value in arrays.items() if not n.startswith(STATE_PREFIX)})
        if lost:
            advice = "a lower schedule.learning_rate or optimizer.clip_norm may help"
            raise UserError(f"{path}: not written, training has diverged: {lost}; {advice}")
        write_weights(arrays, path, {PROGRESS: json.dumps(dataclasses.asdict(self.history))})

    def restore(self, path) -> None:
        """Set everything to what the file holds.

        Raises:
            UserError: if it is no such file, or of another network, optimizer, dataset or number of processes.
        """
        arrays, notes = read_checkpoint(path)
        if PROGRESS not in notes:
            raise UserError(f"{path}: holds weights only; --pre_trained starts from these, --resume needs a last.ckpt")
        try:
            progress = read_progress(notes[PROGRESS])
        except UserError as error:
            raise UserError(f"{path}: is damaged, in its note of the progress: {error}") from None
        ranks, batches = progress["ranks"], progress["batches_per_epoch"]
        if ranks != self.history.ranks:
            raise UserError(f"{path}: was written with {ranks} processes, now {self.history.ranks}")
        if batches != self.history.batches_per_epoch:
            raise UserError(
                f"{path}: the run's training data made {batches} batches an epoch, the present ones make "
                f"{self.history.batches_per_epoch}; it goes on with the same data only"
            )
        problems = compare({**self.parameters, **self.pieces()}, arrays)
        if problems:
            raise UserError(f"{path}: does not fit this run: {'; '.join(problems)}")
        set_parameters(self.parameters, arrays)
        for prefix, flat, vector in self.train_step.vectors():
            vector.set_data(Tensor(flat.pack({p.name: arrays[prefix + p.name] for p in flat.parameters})))
        self.train_step.refresh()
        for key, value in progress.items():
            setattr(self.history, key, value)


def read_progress(text) -> dict:
    """Read the fields of a `History` from a checkpoint's note.

    Raises:
        UserError: naming what is missing, unknown or impossible.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("it is not JSON") from None
    if not isinstance(content, dict):
        raise UserError("it is no JSON object")
    progress = {FORMER_NAMES.get(key, key): value for key, value in content.items() if key != FORMER_KEY}
    names = [item.name for item in dataclasses.fields(History)]
    for problem, keys in (("missing", set(names) - set(progress)), ("unknown", set(progress) - set(names))):
        if keys:
            raise UserError(f"{', '.join(sorted(keys))}: {problem}")
    checks = {"losses": _is_number, "rows": _is_row, "kept": _is_kept}
    for name, value in progress.items():
        is_list = isinstance(value, list) and name in checks
        if not (all(map(checks[name], value)) if is_list else name not in checks and _is_count(value)):
            raise UserError(f"{name}: {json.dumps(value)} is impossible")
    if progress["batch"] > progress["batches_per_epoch"]:
        raise UserError(f"batch: {progress['batch']} is behind the epoch's last, {progress['batches_per_epoch']}")
    return progress


def _is_count(value) -> bool:
    return type(value) is int and value >= 0


def _is_number(value) -> bool:
    return type(value) in (int, float)


def _is_row(value) -> bool:
    return isinstance(value, dict) and _is_count(value.get("epoch"))


def _is_kept(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_number(value[0]) and _is_count(value[1])
