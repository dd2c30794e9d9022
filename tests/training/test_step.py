"""The training step: accumulation, moving average, loss scale, state, each against its definition or timm's."""

import mindspore
import numpy as np
import pytest
from helpers import normal, optimizer_of, reference, step_of
from mindspore import Tensor, nn

from src.layers.dropout import Dropout
from src.training import step as step_module
from src.training.state import History, TrainingState


class Network(nn.Cell):
    """Small, with batch normalisation; `norm=False` without, for sums over batches that must be exact."""

    def __init__(self, norm=True, dropout=0.0):
        super().__init__()
        self.dense = nn.Dense(5, 4)
        self.bn = nn.BatchNorm1d(4) if norm else None
        self.dropout = Dropout(dropout) if dropout else None

    def construct(self, x):
        x = self.dense(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.dropout is None else self.dropout(x)


class SquaredLoss(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        return ((self.network(x) - x[:, :4]) ** 2).mean()


@pytest.fixture(params=[mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    mindspore.set_context(mode=request.param)


def batches(count):
    return normal(count, 6, 5)


def build(norm=True, dropout=0.0, optimizer="sgd", **options):
    mindspore.set_seed(1)
    network = Network(norm, dropout)
    optimizer = optimizer_of(network, optimizer, [0.1] * 50, weight_decay=0.1, epsilon=1e-3)
    return network, step_of(SquaredLoss(network), optimizer, **options).set_train()


def values(network):
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def test_accumulated_batches_equal_a_large_one(mode):
    data = batches(8)
    network, step = build(norm=False, accumulation_steps=4, clip_norm=0.1)
    before = values(network)
    losses = []
    for index, x in enumerate(data):
        losses.append(float(step(Tensor(x)).asnumpy()))
        changed = not np.array_equal(before["dense.weight"], network.dense.weight.asnumpy())
        assert changed == (index >= 3)
    large, large_step = build(norm=False, clip_norm=0.1)
    large_losses = [float(large_step(Tensor(data[i : i + 4].reshape(24, 5))).asnumpy()) for i in (0, 4)]
    assert np.reshape(losses, (2, 4)).mean(1) == pytest.approx(large_losses, rel=1e-5)
    for name, value in values(large).items():
        assert np.allclose(value, values(network)[name], atol=1e-6), name
    assert step.optimizer.global_step.asnumpy() == 2


def test_moving_average_equals_timms(mode):
    torch, utils = reference("torch"), reference("timm.utils")
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4))
    mindspore.set_seed(1)
    network, average = Network(), Network()
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(network.dense.weight.asnumpy().copy()))
        model[0].bias.copy_(torch.from_numpy(network.dense.bias.asnumpy().copy()))
    theirs = utils.ModelEmaV2(model, decay=0.7)
    ours = optimizer_of(network, "sgd", [0.1] * 6, weight_decay=0.0)
    step = step_of(SquaredLoss(network), ours, average_decay=0.7).set_train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x in batches(6):
        step(Tensor(x))
        optimizer.zero_grad()
        images = torch.from_numpy(x)
        ((model(images) - images[:, :4]) ** 2).mean().backward()
        optimizer.step()
        theirs.update(model)
    step.average.write_to(average)
    state = theirs.module.state_dict()
    pairs = (
        (average.dense.weight, "0.weight"),
        (average.dense.bias, "0.bias"),
        (average.bn.gamma, "1.weight"),
        (average.bn.beta, "1.bias"),
        (average.bn.moving_mean, "1.running_mean"),
        (average.bn.moving_variance, "1.running_var"),
    )
    for parameter, name in pairs:
        assert np.allclose(parameter.asnumpy(), state[name].numpy(), atol=1e-5), name
    assert not np.allclose(network.dense.weight.asnumpy(), average.dense.weight.asnumpy(), atol=1e-3)


@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
def test_a_step_that_overflows_leaves_no_trace(kind):
    data = batches(5)
    bad = data[2].copy()
    bad[0, 0] = np.inf
    results = []
    for sequence in ([data[0], data[1], bad, data[3], data[4]], [data[0], data[1], data[3], data[4]]):
        mindspore.set_seed(1)
        network, average = Network(), Network()
        optimizer = optimizer_of(network, "rmsprop", [0.1] * 9, weight_decay=0.1, epsilon=1e-3)
        step = step_of(SquaredLoss(network), optimizer, loss_scale=kind, average_decay=0.7).set_train()
        for x in sequence:
            step(Tensor(x))
        step.average.write_to(average)
        averages = {f"average {name}": value for name, value in values(average).items()}
        results.append({**values(network), **averages})
        expected_skips = int(len(sequence) == 5)
        assert step.skipped_updates.asnumpy() == expected_skips
        assert step.loss_scale() == (65536 / 2**expected_skips if kind == "dynamic" else 65536)
        assert step.updates_tried() == len(sequence)
    for name, value in results[0].items():
        assert np.isfinite(value).all() and np.allclose(value, results[1][name], atol=1e-6), name


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_the_schedule_goes_on_over_a_skipped_update(name, mode):
    """An update of zero rate in the place of the skipped one leaves the same weights behind."""
    data, rates = batches(4), [0.1, 0.2, 0.05, 0.3]
    bad = data[1].copy()
    bad[0, 0] = np.inf
    results = []
    for sequence, used in ((list(data[:1]) + [bad] + list(data[2:]), rates), (data[[0, 2, 3]], [0.1, 0.05, 0.3])):
        mindspore.set_seed(1)
        network = Network()
        optimizer = optimizer_of(network, name, used, weight_decay=0.1, epsilon=1e-3)
        step = step_of(SquaredLoss(network), optimizer, loss_scale="fixed").set_train()
        for x in sequence:
            step(Tensor(x))
        results.append(values(network))
    for key, value in results[0].items():
        assert np.allclose(value, results[1][key], atol=1e-6), key


def test_a_run_goes_on_over_a_skipped_update_with_the_same_bits(mode, tmp_path):
    data = batches(6)
    data[1, 0, 0] = np.inf
    rates = [0.1, 0.2, 0.05, 0.3, 0.01, 0.02]

    def start():
        mindspore.set_seed(1)
        network = Network(dropout=0.5)
        step = step_of(SquaredLoss(network), optimizer_of(network, "adamw", rates), loss_scale="dynamic").set_train()
        return network, step, TrainingState(network, step, History(6, 1))

    network, step, state = start()
    for x in data[:2]:
        step(Tensor(x))
    state.save(tmp_path / "a.ckpt")
    for x in data[2:]:
        step(Tensor(x))
    resumed, resumed_step, state = start()
    state.restore(tmp_path / "a.ckpt")
    assert resumed_step.updates_tried() == 2 and resumed_step.skipped_updates.asnumpy() == 1
    for x in data[2:]:
        resumed_step(Tensor(x))
    assert all(np.array_equal(value, values(resumed)[name]) for name, value in values(network).items())


def test_a_skipped_update_behind_a_resume_keeps_the_restored_statistics(mode, tmp_path):
    network, step = build(loss_scale="dynamic")
    for x in batches(3):
        step(Tensor(x))
    TrainingState(network, step, History(5, 1)).save(tmp_path / "a.ckpt")
    resumed, resumed_step = build(loss_scale="dynamic")
    TrainingState(resumed, resumed_step, History(5, 1)).restore(tmp_path / "a.ckpt")
    resumed_step(Tensor(np.full((6, 5), np.inf, np.float32)))
    assert resumed_step.skipped_updates.asnumpy() == 1
    for name, value in values(network).items():
        assert np.array_equal(value, values(resumed)[name]), name


def test_loss_scale_changes_nothing_else(mode):
    plain, scaled = (build(norm=True, optimizer="adamw", loss_scale=kind) for kind in ("none", "dynamic"))
    for x in batches(4):
        losses = [float(step(Tensor(x)).asnumpy()) for _, step in (plain, scaled)]
        assert losses[0] == losses[1]  # a power of two is exact
    assert all(np.array_equal(value, values(scaled[0])[name]) for name, value in values(plain[0]).items())


def test_the_dynamic_scale_doubles_after_its_window(mode, monkeypatch):
    monkeypatch.setattr(step_module, "LOSS_SCALE_WINDOW", 3)
    _, step = build(loss_scale="dynamic", initial_loss_scale=8.0)
    scales = []
    for x in batches(7):
        step(Tensor(x))
        scales.append(step.loss_scale())
    assert scales == [8, 8, 16, 16, 16, 32, 32]


def test_state_holds_all_that_changes_besides_the_weights(mode):
    _, step = build(dropout=0.5, optimizer="rmsprop", loss_scale="dynamic")

    def content():
        vectors = {prefix: vector for prefix, _, vector in step.vectors()}
        return {name: parameter.asnumpy().copy() for name, parameter in {**step.state(), **vectors}.items()}

    before = content()
    for x in batches(2):
        step(Tensor(x))
    changed = {name for name, value in content().items() if not np.array_equal(before[name], value)}
    kinds = {name.removeprefix("state.").split(".")[0] for name in changed}
    assert kinds == {"global_step", "mean_square", "velocity", "dropout_0", "loss_scale_counter"}
    assert {"loss_scale", "skipped_updates"} <= step.state().keys()
    assert not any(name.startswith("learning_rate") for name in step.state())
