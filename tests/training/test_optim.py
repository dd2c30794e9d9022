"""Optimizers, and the clipping before them, against PyTorch's and timm's."""

import mindspore
import numpy as np
import pytest
from helpers import build_rates, normal, optimizer_of, reference, step_of
from mindspore import Parameter, Tensor, nn, ops


class Regression(nn.Cell):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")
        self.bias = Parameter(Tensor(bias), name="bias")

    def construct(self, x):
        return ((ops.matmul(x, self.weight) + self.bias) ** 2).mean()


def pytorch_optimizer(name, weight, bias, decay_all):
    """The same optimizer of PyTorch or timm."""
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.1 * decay_all}]
    if name == "rmsprop":
        return reference("timm.optim").RMSpropTF(groups, lr=1.0, alpha=0.95, eps=1e-3, momentum=0.9)
    optim = reference("torch").optim
    if name == "adamw":
        return optim.AdamW(groups, lr=1.0, betas=(0.8, 0.99))
    return optim.SGD(groups, lr=1.0, momentum=0.9)


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_twenty_steps_equal_pytorch(name, decay_all, clip_norm, mode):
    torch = reference("torch")
    mindspore.set_context(mode=mode)
    weight, bias = normal(5, 4), normal(4, seed=1)
    rates = build_rates("cosine", 0.05, 4, 5, warmup_epochs=1.0, warmup_learning_rate=1e-3)

    network = Regression(weight, bias)
    epsilon = 1e-3 if name == "rmsprop" else 1e-8
    settings = {"weight_decay": 0.1, "momentum": 0.9, "betas": (0.8, 0.99), "epsilon": epsilon, "rho": 0.95}
    settings["decay_all"] = decay_all
    step = step_of(network, optimizer_of(network, name, rates, **settings), clip_norm=clip_norm)

    w, b = (torch.from_numpy(values.copy()).requires_grad_() for values in (weight, bias))
    theirs = pytorch_optimizer(name, w, b, decay_all)
    for rate, x in zip(rates, normal(20, 6, 5, seed=2)):
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
    x = Tensor(normal(8, 6))
    losses, moments = [], []
    for weight_decay in (0.0, 9.0):
        mindspore.set_seed(1)
        network = nn.SequentialCell([nn.Dense(6, 6, weight_init="normal") for _ in range(5)])
        optimizer = optimizer_of(network, "adamw", [0.1], weight_decay=weight_decay)
        step = step_of(nn.WithLossCell(network, nn.L1Loss()), optimizer)
        losses.append(step(x, x).asnumpy())
        moments.append(optimizer.vectors[0].asnumpy())
    assert losses[0] == losses[1]
    assert np.array_equal(*moments) and np.abs(moments[0]).max() > 0
