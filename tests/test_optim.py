"""Schedules by hand, optimizers against PyTorch's."""

import math

import mindspore
import numpy as np
import pytest
from conftest import reference
from mindspore import Parameter, Tensor, nn, ops

from src.optim import build_optimizer, build_schedule
from src.train_step import TrainStep


def test_cosine_schedule():
    rates = build_schedule("cosine", 0.1, 5, 4, warmup_epochs=1, warmup_learning_rate=0.02, min_learning_rate=0.01)
    assert len(rates) == 20
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert rates[4] == pytest.approx(0.1)
    assert rates[12] == pytest.approx(0.055)  # half of the cosine
    assert rates[-1] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 15 / 16)) / 2)


def test_step_and_constant_schedule():
    rates = build_schedule("step", 1.0, 5, 2, decay_epochs=2, decay_rate=0.5)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert build_schedule("constant", 0.3, 2, 2) == [0.3] * 4


def test_warm_up_longer_than_the_run():
    assert build_schedule("cosine", 1.0, 1, 4, warmup_epochs=2, warmup_learning_rate=0.0) == [0, 0.25, 0.5, 0.75]


class Regression(nn.Cell):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")
        self.bias = Parameter(Tensor(bias), name="bias")

    def construct(self, x):
        return ((ops.matmul(x, self.weight) + self.bias) ** 2).mean()


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_twenty_steps_equal_pytorch(name, clip_norm, mode):
    torch = reference("torch")
    mindspore.set_context(mode=mode)
    rng = np.random.default_rng(0)
    weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (4,)))
    rates = build_schedule("cosine", 0.05, 4, 5, 1.0, 1e-3)

    network = Regression(weight, bias)
    optimizer = build_optimizer(
        network.trainable_params(), name, rates, weight_decay=0.1, momentum=0.9, betas=(0.8, 0.99), epsilon=1e-8
    )
    step = TrainStep(network, optimizer, clip_norm)

    w, b = (torch.from_numpy(values.copy()).requires_grad_() for values in (weight, bias))
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}]
    theirs = (
        torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.99))
        if name == "adamw"
        else torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    )
    for rate in rates:
        x = rng.standard_normal((6, 5)).astype(np.float32)
        loss = step(Tensor(x)).asnumpy()
        theirs.zero_grad()
        their_loss = ((torch.from_numpy(x) @ w + b) ** 2).mean()
        their_loss.backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_([w, b], clip_norm)
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        assert loss == pytest.approx(their_loss.item(), rel=1e-5)
    assert np.abs(network.weight.asnumpy() - w.detach().numpy()).max() < 1e-5
    assert np.abs(network.bias.asnumpy() - b.detach().numpy()).max() < 1e-5
    assert np.abs(network.weight.asnumpy() - weight).max() > 0.1


def test_decay_waits_for_the_last_read_of_a_weight():
    """The loss and all gradients of a step are those of the weights before it, however strong the decay."""
    x = Tensor(np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32))
    losses, moments = [], []
    for weight_decay in (0.0, 9.0):
        mindspore.set_seed(1)
        network = nn.SequentialCell([nn.Dense(6, 6, weight_init="normal") for _ in range(5)])
        optimizer = build_optimizer(network.trainable_params(), "adamw", [0.1], weight_decay, 0.9, (0.9, 0.999), 1e-8)
        step = TrainStep(nn.WithLossCell(network, nn.L1Loss()), optimizer)
        losses.append(step(x, x).asnumpy())
        moments.append([moment.asnumpy() for moment in optimizer.moment1])
    assert losses[0] == losses[1]
    assert all(np.array_equal(a, b) for a, b in zip(*moments))
