"""Where a training run stands, and the checkpoint from which it goes on as if it had never stopped."""

import dataclasses
import json
from dataclasses import dataclass, field

from src.errors import UserError
from src.weights.files import STATE_PREFIX, compare, read_checkpoint, set_parameters, write_weights

PROGRESS = "progress"  # note in the checkpoint
FORMER_NAMES = {"step": "batch", "steps_per_epoch": "batches_per_epoch"}  # in the notes of older checkpoints


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
        if train_step.average is not None:
            self.parameters.update({parameter.name: parameter for parameter in train_step.average.averages})
        self.parameters.update({STATE_PREFIX + name: parameter for name, parameter in train_step.state().items()})

    def save(self, path) -> None:
        """Write the file, whole or not at all."""
        arrays = {name: parameter.asnumpy() for name, parameter in self.parameters.items()}
        write_weights(arrays, path, {PROGRESS: json.dumps(dataclasses.asdict(self.history))})

    def restore(self, path) -> None:
        """Set everything to what the file holds.

        Raises:
            UserError: if it is no such file, or of another network, optimizer, dataset or number of processes.
        """
        arrays, notes = read_checkpoint(path)
        if PROGRESS not in notes:
            raise UserError(f"{path}: holds weights only; --pre_trained starts from these, --resume needs a last.ckpt")
        progress = {FORMER_NAMES.get(key, key): value for key, value in json.loads(notes[PROGRESS]).items()}
        for key, meaning in (("ranks", "processes"), ("batches_per_epoch", "batches an epoch")):
            if progress[key] != getattr(self.history, key):
                raise UserError(f"{path}: was written with {progress[key]} {meaning}, now {getattr(self.history, key)}")
        problems = compare(self.parameters, arrays)
        if problems:
            raise UserError(f"{path}: does not fit this run: {'; '.join(problems)}")
        set_parameters(self.parameters, arrays)
        self.train_step.keep_statistics()
        for key, value in progress.items():
            setattr(self.history, key, value)
