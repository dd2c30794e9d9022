"""Where a training run stands, and the checkpoint from which it goes on as if it had never stopped."""

import dataclasses
import json
from dataclasses import dataclass, field

import numpy as np
from mindspore import Tensor

from src.checkpoint import STATE_PREFIX, compare, read_checkpoint, write_weights
from src.errors import UserError

PROGRESS = "progress"  # note in the checkpoint


@dataclass
class History:
    """What the callbacks of a run share, and what a resumed one needs to know.

    Attributes:
        steps_per_epoch, ranks: batches of an epoch, and processes; a resumed run must have the same.
        epoch, step: whole epochs done, and batches of the current one.
        losses: of these batches.
        rows: a dict of results for each whole epoch.
        kept: (metric, epoch) of the best checkpoints, best first.
        interrupted: whether a signal ends the run.
    """

    steps_per_epoch: int = 0
    ranks: int = 1
    epoch: int = 0
    step: int = 0
    losses: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    interrupted: bool = False

    @property
    def is_epoch_complete(self) -> bool:
        """Whether all batches of the current epoch are done."""
        return self.step == self.steps_per_epoch

    def finish_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []


class TrainingState:
    """Network, weight average, optimizer, loss scale, random state and progress, as one file.

    Args:
        network: is trained.
        step: its `TrainStep`.
        history: `History` of the run.
    """

    def __init__(self, network, step, history):
        self.step, self.history = step, history
        self.parameters = {parameter.name: parameter for parameter in network.get_parameters()}
        if step.average is not None:
            self.parameters.update({parameter.name: parameter for parameter in step.average.averages})
        self.parameters.update({STATE_PREFIX + name: parameter for name, parameter in step.state().items()})

    def save(self, path) -> None:
        """Write the file, whole or not at all."""
        progress = {key: value for key, value in dataclasses.asdict(self.history).items() if key != "interrupted"}
        arrays = {name: parameter.asnumpy() for name, parameter in self.parameters.items()}
        write_weights(arrays, path, {PROGRESS: json.dumps(progress)})

    def restore(self, path) -> None:
        """Set everything to what the file holds.

        Raises:
            UserError: if it is no such file, or of another network, optimizer, data set or number of processes.
        """
        arrays, notes = read_checkpoint(path)
        if PROGRESS not in notes:
            raise UserError(f"{path}: holds weights only; --pre_trained starts from these, --resume needs a last.ckpt")
        progress = json.loads(notes[PROGRESS])
        for key, meaning in (("ranks", "processes"), ("steps_per_epoch", "batches an epoch")):
            if progress[key] != getattr(self.history, key):
                raise UserError(f"{path}: was written with {progress[key]} {meaning}, now {getattr(self.history, key)}")
        problems = compare(self.parameters, arrays)
        if problems:
            raise UserError(f"{path}: does not fit this run: {'; '.join(problems)}")
        for name, parameter in self.parameters.items():
            parameter.set_data(Tensor(np.asarray(arrays[name]), parameter.dtype))
        self.step.keep_statistics()
        for key, value in progress.items():
            setattr(self.history, key, value)
