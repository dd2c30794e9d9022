"""A training run put together from its settings, for any task."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from mindspore import nn

from src.data.dataset import Dataset
from src.errors import UserError, suggestion
from src.layers.sync_batch_norm import convert_batch_norm
from src.ranks import Ranks
from src.settings import Config
from src.training.finetuning import RUNNING_STATISTICS, freeze, rate_factors
from src.training.optim import build_optimizer
from src.training.precision import check_precision, mix_precision
from src.training.profiling import check_profile
from src.training.schedule import build_schedule, total_epochs
from src.training.state import History, TrainingState
from src.training.step import TrainStep
from src.training.summary import check_summary


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
        metric: key of the task's results that tells which weights are the best.
        direction: 1 where its highest value is the best, -1 where its lowest one is.
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
    metric: str
    direction: int

    @property
    def batches_per_update(self) -> int:
        """Batches of this process whose gradients make one update."""
        return self.config.train.accumulation_steps

    @property
    def images_per_batch(self) -> int:
        """Images of a batch, over all processes."""
        return self.config.train.batch_size * self.ranks.count

    def value_of(self, row) -> float:
        """Give the metric in the results of an epoch so that more is better; -inf where it is none."""
        value = self.direction * row.get(self.metric, math.nan)
        return value if math.isfinite(value) else -math.inf

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
        UserError: if the device cannot compute the precision that is asked for, or the task has no such metric.
    """
    train, schedule, ranks = config.train, config.schedule, runtime.ranks
    metric, direction = choose_metric(task, train.best_metric)
    schedule = dataclasses.replace(schedule, learning_rate=scaled_learning_rate(config, ranks))
    updates = train_data.batches // train.accumulation_steps
    rates = build_schedule(schedule, train.epochs, updates, config.runtime.seed)
    check_precision(config.precision.amp, runtime.device_target)
    check_profile(train.profile, runtime.device_target)
    check_summary(train.summary)
    train_step = build_train_step(task, config, runtime, network, train_data, rates)
    weights = task.build_network() if train.ema_decay > 0 else network
    history = History(train_data.batches, ranks.count)
    return Run(
        task,
        config,
        ranks,
        train_data,
        train_step,
        network,
        weights,
        task.build_evaluation_network(weights),
        history,
        TrainingState(network, train_step, history),
        rates,
        total_epochs(schedule, train.epochs),
        metric,
        direction,
    )


def choose_metric(task, name):
    """Give the metric of the best weights, and 1 or -1 for its direction.

    Args:
        task: see `src.tasks.Task`.
        name: of the metric; None for the task's choice.

    Raises:
        UserError: if the task has no such metric.
    """
    name = name or task.best_metric
    if name not in task.metrics:
        allowed = ", ".join(task.metrics)
        raise UserError(f"train.best_metric: {name!r} is not one of {allowed}{suggestion(name, task.metrics)}")
    return name, task.metrics[name]


def build_train_step(task, config, runtime, network, train_data, rates) -> TrainStep:
    """Build the training step of a network, which is changed in place to the settings' precision."""
    freeze(network, config.train.freeze)
    parameters, ranks = network.trainable_params(), runtime.ranks
    factors = rate_factors((parameter.name for parameter in network.get_parameters()), config.optimizer)
    if config.train.sync_bn and ranks.count > 1:
        convert_batch_norm(network, ranks.count)
    scaling = config.precision.loss_scaling
    if scaling == "auto":
        scaling = "none" if config.precision.amp in ("O0", "bf16") else "dynamic"
    return TrainStep(
        task.attach_loss(mix_precision(network, config.precision.amp, runtime.device_target), train_data),
        network,
        build_optimizer(parameters, rates, config.optimizer, factors),
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
