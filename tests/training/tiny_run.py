"""A training run of milliseconds, whose losses, metrics and signals a test chooses."""

import signal

import numpy as np
from mindspore import nn, ops

from src.data.dataset import Dataset
from src.data.pipeline import build_pipeline
from src.data.sampler import EpochSampler
from src.data.settings import PipelineSettings
from src.ranks import Ranks
from src.runtime import Runtime
from src.settings import Config, OptimizerSettings, PrecisionSettings, ScheduleSettings, TrainSettings
from src.training.run_folder import RunFolder
from src.training.setup import build_run
from src.weights.files import read_weights


class ChosenLoss(nn.Cell):
    """A batch -> its mean, whatever the weights, which is the gradient of the bias as well."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        bias = self.network.bias
        return x.mean() * (1 + bias - ops.stop_gradient(bias)).sum()


class TinyTask:
    """Gives the metrics of a list, one an evaluation; `evaluated_at` notes what the weights have seen at each."""

    metrics = {"accuracy": 1, "loss": -1}
    best_metric = "accuracy"

    def __init__(self, metrics):
        self.values, self.evaluated_at = iter(metrics), []

    def attach_loss(self, network, train_data):
        return ChosenLoss(network)

    def build_evaluation_network(self, network):
        return network

    def evaluate(self, network, dataset, output_dir=None):
        assert dataset == "val"
        self.evaluated_at.append(-network.set_train(False).bias.asnumpy()[0])
        return {"accuracy": next(self.values), "images_per_second": 0.5}


class Signalling:
    """A `TrainStep` in which signals come: {batch since the start: signal}."""

    def __init__(self, train_step, signals):
        self.train_step, self.signals, self.batch = train_step, signals, 0

    def __getattr__(self, name):
        return getattr(self.train_step, name)

    def __call__(self, *columns):
        loss = self.train_step(*columns)
        assert self.train_step.training
        self.batch += 1
        if self.batch in self.signals:
            signal.raise_signal(self.signals[self.batch])
        return loss


def tiny_network():
    return nn.Dense(2, 1, bias_init="zeros")


def tiny_dataset(losses):
    """A `Dataset` of one sample a batch, whose values are the losses of each epoch."""

    def load(key, entry):
        return (np.full(2, losses[key[0]][key[1]], np.float32),)

    def build(sampler):
        return build_pipeline(sampler, load, ["x"], PipelineSettings(workers=1))

    sampler = EpochSampler(np.zeros(len(losses[0])), seed=0, shuffle=False, rank=0, ranks=1)
    return Dataset(sampler, 1, build, (), (), Ranks())


def tiny_run(losses, metrics=(), signals=None, optimizer=None, loss_scaling="none", schedule=None, **train):
    """A `Run`: with the usual optimizer, each update takes the mean loss of its batches off the bias.

    Args:
        losses: a list of the losses of its batches for each epoch.
        metrics: accuracy at each evaluation.
        signals: {batch since the start: signal}.
        optimizer: `OptimizerSettings`.
        loss_scaling: 'none', 'fixed' or 'dynamic'.
        schedule: `ScheduleSettings`; None for a rate of 1.
        train: settings of `train`.
    """
    config = Config(
        optimizer=optimizer or OptimizerSettings(name="sgd", momentum=0.0, weight_decay=0.0),
        schedule=schedule or ScheduleSettings(name="constant", learning_rate=1.0),
        train=TrainSettings(**{"epochs": len(losses), "batch_size": 1, **train}),
        precision=PrecisionSettings(loss_scaling=loss_scaling),
    )
    run = build_run(TinyTask(metrics), config, Runtime("CPU"), tiny_network(), tiny_dataset(losses))
    run.train_step = Signalling(run.train_step, signals or {})
    return run


class TinyFolder(RunFolder):
    """A `RunFolder` that is there, without curves, which take a second."""

    def __init__(self, path):
        super().__init__(path)
        self.make()

    def draw_curves(self, rows, metric):
        assert len(rows) > 0


def losses_in(path):
    """The sum of the losses of all updates that the weights of a checkpoint have had."""
    return -float(read_weights(path).weights["bias"][0])
