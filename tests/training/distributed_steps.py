"""What test_distributed runs on as many processes as `msrun` starts: distributed_steps.py OUTPUT

Each process writes OUTPUT_RANK.npz: sums and means over the processes, and ten training steps in three modes: `frozen`
keeps batch normalisation in evaluation mode, `sync` trains with statistics over all processes, `overflow` is `frozen`
with a loss scale that one of the processes alone cannot undo in the fifth step.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from training.tiny_network import TinyNetwork

from src.classification.loss import ClassificationLoss
from src.layers.sync_batch_norm import convert_batch_norm
from src.runtime import init_runtime
from src.settings import OptimizerSettings
from src.training.optim import build_optimizer
from src.training.step import TrainStep

GLOBAL_BATCH, STEPS = 16, 10
OVERFLOW_STEP, LOSS_SCALE = 4, 1024.0


def sum_and_average(ranks):
    """Sums of whole and of real numbers, and means, over all processes."""
    uneven = Parameter(Tensor([1.0, 2.0 + ranks.rank]), name="uneven")
    ranks.average([uneven])
    return {
        "whole": ranks.sum(np.array([[ranks.rank + 1, 2**55 + 1, -5]])),
        "real": ranks.sum(np.array([1 / 3, 1e-9 * ranks.rank])),
        "mean": uneven.asnumpy(),
        "agree": [ranks.agree(np.array([1, 2**40])), ranks.agree(np.array([1, ranks.rank]))],
    }


def train(ranks, mode):
    """Losses, weights, moving averages and skipped updates of ten steps."""
    is_sync, scaling = mode == "sync", "fixed" if mode == "overflow" else "none"
    mindspore.set_seed(3)
    generator = np.random.default_rng(0)
    network, average = TinyNetwork(5, dropout=0.3), TinyNetwork(5, dropout=0.3)
    for parameter in network.get_parameters():  # fresh statistics would hide errors
        if parameter.name.endswith(("moving_mean", "moving_variance")):
            parameter.set_data(Tensor(generator.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    parameters = network.trainable_params()
    if is_sync and ranks.count > 1:
        convert_batch_norm(network, ranks.count)
    settings = OptimizerSettings(name="sgd", momentum=0.9, weight_decay=1e-4)
    optimizer = build_optimizer(parameters, [0.1] * STEPS, settings)
    loss = ClassificationLoss(network, 0.1)
    step = TrainStep(loss, loss, optimizer, 0.0, 1, scaling, LOSS_SCALE, 0.8, ranks, seed=7)
    step.set_train(is_sync)
    network.dropout.set_train()
    losses = []
    for number in range(STEPS):
        if mode == "overflow" and ranks.rank == ranks.count - 1:
            step.scaler.scale_value.set_data(Tensor(0.0 if number == OVERFLOW_STEP else LOSS_SCALE, mindspore.float32))
        images = generator.standard_normal((GLOBAL_BATCH, 3, 12, 12)).astype(np.float32)
        labels = generator.integers(0, 5, GLOBAL_BATCH).astype(np.int32)
        own = slice(ranks.rank, None, ranks.count)
        losses.append(float(step(Tensor(images[own]), Tensor(labels[own])).asnumpy()))
    step.average.write_to(average)
    weights = {p.name: p.asnumpy() for p in network.get_parameters()}
    weights.update({f"ema.{p.name}": p.asnumpy() for p in average.get_parameters()})
    return {"losses": losses, "skipped": step.skipped_updates.asnumpy(), **weights}


def main(output):
    ranks = init_runtime("CPU", seed=3, graph_mode=True).ranks
    results = sum_and_average(ranks)
    for mode in ("frozen", "sync", "overflow"):
        results.update({f"{mode} {name}": value for name, value in train(ranks, mode).items()})
    ranks.wait()
    np.savez(f"{output}_{ranks.rank}.npz", **results)


main(sys.argv[1])
