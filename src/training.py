"""A training run put together from its settings, for any task: step, schedule, callbacks, and the loop over epochs."""

import dataclasses

from mindspore import Model

from src.callbacks import Evaluation, MeanStatistics, NextEpoch, Progress, Saving, StopOnSignal
from src.errors import UserError
from src.optim import build_optimizer, build_schedule, total_epochs
from src.precision import check_precision, mix_precision
from src.sync_batch_norm import convert_batch_norm
from src.train_step import TrainStep, WeightAverage
from src.training_state import History, TrainingState

RUNNING_STATISTICS = ("moving_mean", "moving_variance")
# settings that a resumed run may change
FREE_SETTINGS = (
    "runtime.device_target",
    "runtime.compile_cache",
    "data.path",
    "data.val_labels",
    "data.workers",
    "data.worker_processes",
    "evaluation.batch_size",
    "train.epochs",
    "train.evaluate_every",
    "train.save_every",
    "train.keep_best",
    "train.log_every",
)


class Training:
    """One run of `train.py`.

    Args:
        task: see `src.tasks.Task`; its `config` holds the settings.
        runtime: `Runtime`.
        network: from the task, with its first weights.
        steps_per_epoch: batches of an epoch on each process.

    Attributes:
        step: `TrainStep`, compiled at the first batch.
        evaluated: the network to evaluate and to keep: the moving average where there is one.
        history, state: progress of the run, and what a checkpoint of it holds.
        rates: learning rate of each update.
        epochs: of the whole run, cool-down included.
    """

    def __init__(self, task, runtime, network, steps_per_epoch):
        config = task.config
        self.task, self.runtime, self.network = task, runtime, network
        self.batches_per_update = config.train.accumulation_steps
        self.global_batch_size = config.train.batch_size * runtime.ranks * self.batches_per_update
        schedule = {key: value for key, value in vars(config.schedule).items() if key != "reference_batch_size"}
        schedule.update(learning_rate=self.learning_rate(), noise=config.schedule.noise or ())
        self.epochs = total_epochs(config.schedule.name, config.train.epochs, config.schedule.cooldown_epochs)
        self.rates = build_schedule(
            **schedule,
            epochs=config.train.epochs,
            steps_per_epoch=steps_per_epoch // self.batches_per_update,
            seed=config.runtime.seed,
        )
        self.step, self.evaluated = self._build_step(config)
        self.history = History(steps_per_epoch, runtime.ranks)
        self.state = TrainingState(network, self.step, self.history)

    def learning_rate(self) -> float:
        """The learning rate for this run's global batch: the linear scaling rule, where the settings ask for it."""
        schedule = self.task.config.schedule
        if schedule.reference_batch_size is None:
            return schedule.learning_rate
        return schedule.learning_rate * self.global_batch_size / schedule.reference_batch_size

    def describe(self) -> str:
        """Batch and learning rate in words."""
        config, schedule = self.task.config, self.task.config.schedule
        text = (
            f"global batch {self.global_batch_size}: {self.runtime.ranks} x {config.train.batch_size} on "
            f"{self.runtime.device_target}, {self.batches_per_update} accumulated; "
            f"learning rate {self.learning_rate():.6g}"
        )
        if schedule.reference_batch_size is None:
            return f"{text} as given; schedule.reference_batch_size would scale it linearly with the global batch"
        rule = f"{schedule.learning_rate:g} x {self.global_batch_size} / {schedule.reference_batch_size}"
        return f"{text} = {rule}, the linear scaling rule"

    def _build_step(self, config):
        """The training step, and the network to evaluate."""
        train, precision, optimizer = config.train, config.precision, config.optimizer
        check_precision(precision.amp, self.runtime.device_target)
        evaluated, average = self.network, None
        if train.ema_decay > 0:
            evaluated = self.task.build_network()
            average = WeightAverage(self.network, evaluated, train.ema_decay)
        parameters = self.network.trainable_params()
        if train.sync_bn and self.runtime.ranks > 1:
            convert_batch_norm(self.network, self.runtime.ranks)
        scaling = precision.loss_scaling
        if scaling == "auto":
            scaling = "none" if precision.amp == "O0" else "dynamic"
        step = TrainStep(
            self.task.attach_loss(mix_precision(self.network, precision.amp)),
            build_optimizer(
                parameters,
                optimizer.name,
                self.rates,
                optimizer.weight_decay,
                optimizer.momentum,
                optimizer.betas,
                optimizer.epsilon,
                optimizer.rho,
            ),
            optimizer.clip_norm,
            train.accumulation_steps,
            scaling,
            precision.loss_scale,
            average,
            self.runtime.ranks,
            config.runtime.seed,
        )
        return step, evaluated

    def build_callbacks(self, folder, val_data) -> list:
        """The callbacks in the order in which they work; only the main process writes into `folder`."""
        history, train = self.history, self.task.config.train
        save_every = (train.save_every or 0) * self.batches_per_update
        batch_size = train.batch_size * self.runtime.ranks
        log = folder.log if self.runtime.is_main else None
        statistics = [p for p in self.state.parameters.values() if p.name.endswith(RUNNING_STATISTICS)]

        def evaluate():
            return self.task.evaluate(self.evaluated, val_data)

        callbacks = [
            Progress(
                history, self.step, self.rates, self.epochs, batch_size, train.log_every, log, folder.last, save_every
            ),
            StopOnSignal(history, self.batches_per_update),
            MeanStatistics(history, self.step, statistics, save_every),
            Evaluation(history, evaluate, self.epochs, train.evaluate_every),
            NextEpoch(history),
        ]
        if self.runtime.is_main:
            kept = (self.evaluated, self.task.best_metric, self.epochs, train.keep_best)
            callbacks.append(Saving(history, folder, self.state, *kept, save_every))
        return callbacks

    def run(self, callbacks) -> None:
        """Train from where the history stands to the end: the rest of a broken epoch first, then whole ones."""
        model, history = Model(self.step), self.history
        while history.epoch < self.epochs and not history.interrupted:
            first = history.epoch
            data = self.task.build_dataset("train", self.runtime, first, history.step)
            last = first + 1 if history.step > 0 else self.epochs
            model.train(last, data, callbacks=callbacks, dataset_sink_mode=False, initial_epoch=first)


def check_same_settings(before, now) -> list:
    """Compare the settings of a run with those to go on with; lines about the changes that are allowed.

    Raises:
        UserError: naming the settings that must not change within a run.
    """
    old, new = _flatten(dataclasses.asdict(before)), _flatten(dataclasses.asdict(now))
    changes = [key for key in new if old[key] != new[key]]
    forbidden = [f"{key} was {old[key]!r}, is {new[key]!r}" for key in changes if key not in FREE_SETTINGS]
    if forbidden:
        raise UserError(f"--resume goes on with the settings of the run: {'; '.join(forbidden)}")
    return [f"{key}: {old[key]!r} -> {new[key]!r}" for key in changes]


def _flatten(tree, prefix="") -> dict:
    """{dotted key: value} of nested dicts."""
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
