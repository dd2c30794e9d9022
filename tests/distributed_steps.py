"""Ten training steps on as many processes as `msrun` starts, for test_distributed: PROJECT OUTPUT {frozen,sync}

`frozen` keeps batch normalisation in evaluation mode; `sync` trains with statistics over all processes.
"""

import sys

sys.path.insert(0, sys.argv[1])

import mindspore
import numpy as np
from mindspore import Tensor

from src.classification.loss import ClassificationLoss
from src.dropout import Dropout
from src.ghostnetv2 import create_network
from src.optim import build_optimizer
from src.runtime import init_runtime, mean_over_ranks
from src.sync_batch_norm import convert_batch_norm
from src.train_step import TrainStep, WeightAverage

GLOBAL_BATCH, STEPS = 16, 10

output, mode = sys.argv[2:]
runtime = init_runtime("CPU", seed=3)
name = "ghostnetv2_1x" if mode == "frozen" else "ghostnet_1x"
network, average = (create_network(name, num_classes=5, dropout=0.3) for _ in range(2))
averages = WeightAverage(network, average, 0.8)
rng = np.random.default_rng(0)
for parameter in network.get_parameters():  # fresh statistics would hide errors
    if parameter.name.endswith(("moving_mean", "moving_variance")):
        parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
parameters = network.trainable_params()
if mode == "sync" and runtime.ranks > 1:
    convert_batch_norm(network, runtime.ranks)
optimizer = build_optimizer(parameters, "sgd", [1e-3] * STEPS, 1e-4, 0.9, (0.9, 0.999), 1e-8)
step = TrainStep(ClassificationLoss(network, 0.1), optimizer, average=averages, ranks=runtime.ranks, seed=7)
step.set_train(mode == "sync")
for _, cell in step.cells_and_names():
    if isinstance(cell, Dropout):
        cell.set_train(True)
losses = []
for _ in range(STEPS):
    images = rng.standard_normal((GLOBAL_BATCH, 3, 64, 64)).astype(np.float32)
    labels = rng.integers(0, 5, GLOBAL_BATCH).astype(np.int32)
    own = slice(runtime.rank, None, runtime.ranks)
    losses.append(float(step(Tensor(images[own]), Tensor(labels[own])).asnumpy()))
weights = {p.name: p.asnumpy() for cell in (network, average) for p in cell.get_parameters()}
np.savez(f"{output}_{runtime.rank}.npz", losses=losses, **weights)

uneven = mindspore.Parameter(Tensor([1.0, 2.0 + runtime.rank]), name="uneven")
mean_over_ranks([uneven])
assert np.allclose(uneven.asnumpy(), [1.0, 2.0 + (runtime.ranks - 1) / 2])
