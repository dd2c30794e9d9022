"""A training run put together from its settings, for any task."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mindspore import nn

from src.data.dataset import Dataset
from src.layers.sync_batch_norm import convert_batch_norm
from src.ranks import Ranks
from src.settings import Config
from src.training.optim import build_optimizer
from src.training.precision import check_precision, mix_precision
from src.training.schedule import build_schedule, total_epochs
from src.training.state import History, TrainingState
from src.training.step import TrainStep

RUNNING_STATISTICS = ("moving_mean", "moving_variance")


@dataclass
class Run:
    """The parts of a training run.

    Attributes:
        task: see `src.tasks.Task`.
        config: all settings.
        ranks: `Ranks`.
        train_data: `Dataset` to train on.
        train_step: `TrainStep`, compiled at the first batch.
        network: is trained.
        weights: network whose weights are evaluated and kept: the moving average where there is one.
        evaluated: the same network as the task evaluates it.
        history, state: progress of the run, and what a checkpoint of it holds.
        rates: learning rate of each update.
        epochs: of the whole run, cool-down included.
    """

    task: Any
    config: Config
    ranks: Ranks
    train_data: Dataset
    train_step: TrainStep
    network: nn.Cell
    weights: nn.Cell
    evaluated: nn.Cell
    history: History
    state: TrainingState
    rates: list
    epochs: int

    @property
    def batches_per_update(self) -> int:
        """Batches of this process whose gradients make one update."""
        return self.config.train.accumulation_steps

    @property
    def images_per_batch(self) -> int:
        """Images of a batch, over all processes."""
        return self.config.train.batch_size * self.ranks.count

    def settle(self) -> None:
        """Bring the networks up to date for an evaluation or a checkpoint.

        The averages are written into theirs; running statistics become their mean over all processes.
        """
        average = self.train_step.average
        if average is not None:
            average.write_to(self.weights)
        if self.ranks.count > 1:
            networks = [self.network, self.weights] if average is not None else [self.network]
            parameters = [parameter for network in networks for parameter in network.get_parameters()]
            self.ranks.average([p for p in parameters if p.name.endswith(RUNNING_STATISTICS)])
            self.train_step.refresh()
            if average is not None:
                average.read_from(self.weights)


def build_run(task, config, runtime, network, train_data) -> Run:
    """Put a run together.

    Args:
        task: see `src.tasks.Task`.
        config: all settings.
        runtime: `Runtime`.
        network: from the task, with its first weights.
        train_data: `Dataset` to train on.

    Raises:
        UserError: if the device cannot compute the precision that is asked for.
    """
    train, schedule, ranks = config.train, config.schedule, runtime.ranks
    schedule = dataclasses.replace(schedule, learning_rate=scaled_learning_rate(config, ranks))
    updates = train_data.batches // train.accumulation_steps
    rates = build_schedule(schedule, train.epochs, updates, config.runtime.seed)
    check_precision(config.precision.amp, runtime.device_target)
    train_step = build_train_step(task, config, runtime, network, rates)
    weights = task.build_network() if train.ema_decay > 0 else network
    history = History(train_data.batches, ranks.count)
    state = TrainingState(network, train_step, history)
    evaluated = task.build_evaluation_network(weights)
    epochs = total_epochs(schedule, train.epochs)
    return Run(task, config, ranks, train_data, train_step, network, weights, evaluated, history, state, rates, epochs)


def build_train_step(task, config, runtime, network, rates) -> TrainStep:
    """Build the training step of a network, which is changed in place to the settings' precision."""
    parameters, ranks = network.trainable_params(), runtime.ranks
    if config.train.sync_bn and ranks.count > 1:
        convert_batch_norm(network, ranks.count)
    scaling = config.precision.loss_scaling
    if scaling == "auto":
        scaling = "none" if config.precision.amp in ("O0", "bf16") else "dynamic"
    return TrainStep(
        task.attach_loss(mix_precision(network, config.precision.amp, runtime.device_target)),
        build_optimizer(parameters, rates, config.optimizer),
        config.optimizer.clip_norm,
        config.train.accumulation_steps,
        scaling,
        config.precision.loss_scale,
        config.train.ema_decay,
        ranks,
        config.runtime.seed,
    )


def global_batch_size(config, ranks) -> int:
    """Count the images of an update, over all processes."""
    return config.train.batch_size * ranks.count * config.train.accumulation_steps


def scaled_learning_rate(config, ranks) -> float:
    """Scale the learning rate to the run's global batch, linearly, where the settings ask for it."""
    schedule = config.schedule
    if schedule.reference_batch_size is None:
        return schedule.learning_rate
    return schedule.learning_rate * global_batch_size(config, ranks) / schedule.reference_batch_size


def describe_batch(config, runtime) -> str:
    """Put the global batch and the learning rate in words."""
    ranks, schedule, size = runtime.ranks, config.schedule, global_batch_size(config, runtime.ranks)
    text = (
        f"global batch {size}: {ranks.count} x {config.train.batch_size} on {runtime.device_target}, "
        f"{config.train.accumulation_steps} accumulated; learning rate {scaled_learning_rate(config, ranks):.6g}"
    )
    if schedule.reference_batch_size is None:
        return f"{text} as given; schedule.reference_batch_size would scale it linearly with the global batch"
    rule = f"{schedule.learning_rate:g} x {size} / {schedule.reference_batch_size}"
    return f"{text} = {rule}, the linear scaling rule"
