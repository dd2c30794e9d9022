"""Schedules against timm's, optimizers against PyTorch's and timm's."""

import math

import mindspore
import numpy as np
import pytest
from conftest import reference
from mindspore import Parameter, Tensor, nn, ops

from src.optim import NOISE_LIMIT, build_optimizer, build_schedule, draw_noise, total_epochs
from src.train_step import TrainStep


def test_cosine_schedule():
    rates = build_schedule("cosine", 0.1, 5, 4, warmup_epochs=1, warmup_learning_rate=0.02, min_learning_rate=0.01)
    assert len(rates) == 20
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert rates[10] == pytest.approx(0.055)  # half of the cosine
    assert rates[-1] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 19 / 20)) / 2)


def test_step_and_constant_schedule():
    rates = build_schedule("step", 1.0, 5, 2, decay_epochs=2, decay_rate=0.5)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert build_schedule("constant", 0.3, 2, 2) == [0.3] * 4


def test_warm_up_longer_than_the_run():
    assert build_schedule("cosine", 1.0, 1, 4, warmup_epochs=2, warmup_learning_rate=0.0) == [0, 0.125, 0.25, 0.375]


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("name", ["step", "cosine"])
def test_whole_schedule_equals_timms(name, unit):
    torch, timm = reference("torch"), reference("timm.scheduler")
    epochs, steps, cooldown = 450, 7, 10
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.064)
    scheduler, length = timm.create_scheduler_v2(
        optimizer,
        name,
        num_epochs=epochs,
        decay_epochs=2.4,
        decay_rate=0.973,
        min_lr=1e-5 if name == "cosine" else 0.0,
        cooldown_epochs=cooldown,
        warmup_lr=1e-6,
        warmup_epochs=3,
        step_on_epochs=unit == "epoch",
        updates_per_epoch=steps,
    )
    expected = []
    for epoch in range(length if name == "cosine" else epochs):
        scheduler.step(epoch)
        for step in range(steps):
            scheduler.step_update(epoch * steps + step)
            expected.append(optimizer.param_groups[0]["lr"])
    options = {"min_learning_rate": 1e-5 if name == "cosine" else 0.0, "cooldown_epochs": cooldown, "unit": unit}
    rates = build_schedule(name, 0.064, epochs, steps, 3, 1e-6, **options)
    assert len(rates) == len(expected) == total_epochs(name, epochs, cooldown) * steps
    assert np.allclose(rates, expected, rtol=1e-9, atol=0)


def test_noise_has_timms_range_and_distribution():
    torch, timm = reference("torch"), reference("timm.scheduler.step_lr")
    plain, noisy, other = (
        np.array(build_schedule("step", 0.064, 1000, 2, unit="epoch", noise=noise, seed=seed))
        for noise, seed in (((), 1), ((0.42, 0.9), 1), ((0.42, 0.9), 2))
    )
    factors = (noisy / plain)[::2] - 1
    assert np.array_equal(noisy[::2], noisy[1::2])  # once an epoch
    assert (factors[:420] == 0).all() and (factors[900:] == 0).all() and (factors[420:900] != 0).all()
    assert not np.array_equal(noisy, other)
    assert noisy.tolist() == build_schedule("step", 0.064, 1000, 2, unit="epoch", noise=(0.42, 0.9), seed=1)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = timm.StepLRScheduler(optimizer, decay_t=1, noise_range_t=[0, 1], noise_pct=NOISE_LIMIT)
    theirs = np.sort([scheduler._calculate_noise(time) for time in range(4000)])
    ours = np.sort([draw_noise(5, time) for time in range(4000)])
    assert np.abs(ours).max() < NOISE_LIMIT
    deciles = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(ours, deciles) - np.quantile(theirs, deciles)).max() < 0.06


class Regression(nn.Cell):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")
        self.bias = Parameter(Tensor(bias), name="bias")

    def construct(self, x):
        return ((ops.matmul(x, self.weight) + self.bias) ** 2).mean()


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_twenty_steps_equal_pytorch(name, clip_norm, mode):
    torch = reference("torch")
    mindspore.set_context(mode=mode)
    rng = np.random.default_rng(0)
    weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (4,)))
    rates = build_schedule("cosine", 0.05, 4, 5, 1.0, 1e-3)

    network = Regression(weight, bias)
    epsilon = 1e-3 if name == "rmsprop" else 1e-8
    optimizer = build_optimizer(network.trainable_params(), name, rates, 0.1, 0.9, (0.8, 0.99), epsilon, rho=0.95)
    step = TrainStep(network, optimizer, clip_norm)

    w, b = (torch.from_numpy(values.copy()).requires_grad_() for values in (weight, bias))
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}]
    if name == "rmsprop":
        theirs = reference("timm.optim").RMSpropTF(groups, lr=1.0, alpha=0.95, eps=1e-3, momentum=0.9)
    elif name == "adamw":
        theirs = torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.99))
    else:
        theirs = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
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
    assert np.allclose(network.weight.asnumpy(), w.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert np.allclose(network.bias.asnumpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
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


def test_multistep_schedule_with_warmup_in_steps():
    options = {"warmup_steps": 4, "warmup_learning_rate": 0.0, "milestones": (2, 3), "decay_rate": 0.1}
    rates = build_schedule("multistep", 1.0, 4, 3, **options)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_polynomial_schedule_equals_torchs():
    torch = reference("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=0.9)
    expected = []
    for _ in range(40):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert build_schedule("polynomial", 0.01, 4, 10, power=0.9) == pytest.approx(expected, rel=1e-9)
    floored = build_schedule("polynomial", 0.01, 4, 10, min_learning_rate=1e-4)
    assert floored[0] == 0.01 and min(floored) > 1e-4
