"""Frozen parts and factors on the learning rate, against PyTorch."""

import numpy as np
import pytest
from helpers import copy_weights, normal, optimizer_of, randomise_, reference, step_of
from mindspore import Parameter, Tensor, nn

from src.classification.loss import ClassificationLoss
from src.layers.sync_batch_norm import SyncBatchNorm2d, convert_batch_norm
from src.networks import create_network
from src.settings import OptimizerSettings
from src.stages import stage_of
from src.training.finetuning import choose_frozen, describe_frozen, freeze
from src.training.optim import build_optimizer
from src.weights.names import to_pytorch_names

CLASSES, STEPS = 7, 2


class Powers(nn.Cell):
    """Two parameters, each with gradients of its own."""

    def __init__(self):
        super().__init__()
        self.slow = Parameter(Tensor(normal(5, 4)), name="slow")
        self.fast = Parameter(Tensor(normal(5, 4, seed=1)), name="fast")

    def construct(self, x):
        return ((x * self.slow) ** 2).mean() + ((x * self.fast) ** 4).mean()


def frozen_timm(freeze):
    """timm's network in training mode, but for the part that `freeze` means; and ours with the same weights."""
    timm = reference("timm")
    model = randomise_(timm.create_model("ghostnetv2_100", num_classes=CLASSES, drop_rate=0.0)).train()
    network = create_network("ghostnetv2_1x", CLASSES, dropout=0.0)
    copy_weights(model, network)
    names = to_pytorch_names([parameter.name for parameter in network.get_parameters()])
    frozen = {names[name] for name in choose_frozen(list(names), freeze)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    for name, module in model.named_modules():
        if f"{name}.running_mean" in frozen:
            module.eval()
    return model, network


@pytest.mark.long
@pytest.mark.parametrize("freeze_to", [3, pytest.param("backbone", marks=pytest.mark.slow)])
def test_training_of_the_rest_equals_pytorchs(freeze_to):
    torch = reference("torch")
    model, network = frozen_timm(freeze_to)
    freeze(network, freeze_to)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}
    rates = [1e-3] * STEPS
    step = step_of(ClassificationLoss(network, 0.0), optimizer_of(network, "sgd", rates, weight_decay=0.0)).set_train()
    theirs = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    labels = np.arange(8, dtype=np.int32) % CLASSES
    for images in normal(STEPS, 8, 3, 64, 64):
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels).long())
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert float(step(Tensor(images), Tensor(labels)).asnumpy()) == pytest.approx(loss.item(), rel=2e-4)
    frozen = choose_frozen(list(before), freeze_to)
    after = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    same = {name for name, value in before.items() if np.array_equal(value, after[name])}
    trained = {name for name in before if name.endswith(("conv.weight", "moving_mean", "classifier.weight"))} - frozen
    assert frozen <= same and not trained & same and len(frozen) > 100
    assert any(name.endswith("moving_mean") for name in frozen)


def test_the_stem_alone_and_stages_behind_it():
    network = create_network("ghostnetv2_1x", CLASSES)
    names = [parameter.name for parameter in network.get_parameters()]
    assert choose_frozen(names, "none") == set() and describe_frozen(network, "none") == []
    stem = choose_frozen(names, "stem")
    assert stem == {name for name in names if name.startswith(("conv_stem.", "bn1."))}
    blocks = {name for name in names if name.startswith(("blocks.0.", "blocks.1.", "blocks.2."))}
    assert choose_frozen(names, 2) == stem | blocks
    assert {stage_of(name) for name in set(names) - choose_frozen(names, 5)} == {None}
    freeze(network, "stem")
    (line,) = describe_frozen(network, "stem")
    total = 6_156_908 - (1000 - CLASSES) * 1281
    assert line == f"frozen: the stem, 464 parameters; trained: {total - 464:,}"


def test_frozen_statistics_are_not_those_of_all_processes():
    network = create_network("ghostnetv2_1x", CLASSES)
    freeze(network, 2)
    convert_batch_norm(network, 2)
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, (nn.BatchNorm2d, SyncBatchNorm2d))]
    frozen = choose_frozen([cell.gamma.name for cell in cells], 2)
    assert 0 < len(frozen) < len(cells)
    assert {cell.gamma.name for cell in cells if isinstance(cell, nn.BatchNorm2d)} == frozen


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_factors_are_those_of_pytorchs_groups(name):
    torch = reference("torch")
    network, rates = Powers(), [0.05, 0.02, 0.04]
    settings = OptimizerSettings(name=name, weight_decay=0.1, epsilon=1e-3)
    optimizer = build_optimizer(network.trainable_params(), rates, settings, {"slow": 0.1, "absent": 9.0})
    step = step_of(network, optimizer)
    slow, fast = (torch.from_numpy(values).requires_grad_() for values in (normal(5, 4), normal(5, 4, seed=1)))
    groups = [{"params": [slow]}, {"params": [fast]}]
    if name == "rmsprop":
        theirs = reference("timm.optim").RMSpropTF(groups, lr=1.0, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.1)
    elif name == "adamw":
        theirs = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.1)
    else:
        theirs = torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.1)
    for rate, x in zip(rates, normal(3, 5, 4, seed=2)):
        step(Tensor(x))
        theirs.zero_grad()
        values = torch.from_numpy(x)
        (((values * slow) ** 2).mean() + ((values * fast) ** 4).mean()).backward()
        theirs.param_groups[0]["lr"], theirs.param_groups[1]["lr"] = 0.1 * rate, rate
        theirs.step()
    assert np.allclose(network.slow.asnumpy(), slow.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert np.allclose(network.fast.asnumpy(), fast.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(network.slow.asnumpy(), normal(5, 4), atol=1e-4)
