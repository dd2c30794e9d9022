"""Stochastic depth in the networks: where it stands, with which probabilities, and that evaluation has none of it."""

import mindspore
import numpy as np
import pytest
import yaml
from helpers import assert_close, normal, optimizer_of, random_timm, randomise, reference, step_of
from mindspore import Tensor, nn
from test_mobilenetv2 import copy, named_as_ours

from src.architecture import BLOCKS, NetworkOptions, plan_blocks
from src.classification.export_graph import describe_classifier
from src.classification.teacher import load_teacher
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import GhostBottleneck
from src.layers.dropout import DropPath
from src.mobilenetv2 import BOTTLENECKS, MobileNetV2Options, build_bottleneck, plan_stages
from src.networks import create_network
from src.training.state import History, TrainingState
from src.weights.files import save_weights


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def paths_of(network):
    """All `DropPath`s of a network, in order."""
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, DropPath)]


def only_paths_train(network):
    """Batch normalisation and dropout in evaluation, so that nothing else is random or depends on other images."""
    network.set_train(False)
    for cell in paths_of(network):
        cell.set_train()
    return network


def masks_of(network, batch):
    """What the next call of a network will draw: whether each image keeps each path."""
    masks = []
    for cell in paths_of(network):
        state = cell.generator.state.asnumpy().copy()
        masks.append(cell.generator.draw(batch, 1).asnumpy()[:, 0] >= cell.p)
        cell.generator.state.set_data(Tensor(state))
    return masks


def test_probabilities_are_timms():
    """Also over the blocks of which timm's have no shortcut."""
    model = reference("timm").create_model("mobilenetv2_100", drop_path_rate=0.6)
    blocks = [block for stage in model.blocks for block in stage]
    expected = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    plans = [plan for stage in plan_stages(MobileNetV2Options(drop_path=0.6)) for plan in stage]
    assert [plan.drop_path for plan in plans] == pytest.approx(expected) and len(expected) == BOTTLENECKS
    network = create_network("mobilenetv2_1x", 10, drop_path=0.6)
    used = [block.drop_path.drop_prob for block in blocks if block.has_skip and expected[blocks.index(block)] > 0]
    assert [cell.p for cell in paths_of(network)] == pytest.approx(used) and len(used) == 10


@pytest.mark.parametrize("name", ["ghostnetv2_1x", "ghostnet_1x"])
def test_every_block_of_ghostnet_but_the_first_may_be_dropped(name):
    assert [plan.drop_path for plan in plan_blocks(NetworkOptions(drop_path=0.8))] == pytest.approx(
        [0.8 * index / 16 for index in range(len(BLOCKS))]
    )
    network = create_network(name, 10, drop_path=0.8)
    assert [cell.p for cell in paths_of(network)] == pytest.approx([0.05 * index for index in range(1, 16)])
    states = [cell.generator.state for cell in paths_of(network)]
    assert len({state.name for state in states}) == len({state.asnumpy().tobytes() for state in states}) == 15


def test_logits_and_gradients_equal_timms_for_the_same_masks(pynative, monkeypatch):
    torch, drop = reference("torch"), reference("timm.layers.drop")
    model = random_timm("mobilenetv2_100", num_classes=20, drop_path_rate=0.9)
    network = copy(named_as_ours(model), create_network("mobilenetv2_1x", 20, dropout=0.0, drop_path=0.9))
    masks = masks_of(only_paths_train(network), 8)
    assert 0.3 < np.mean(masks) < 0.8 and len(set(map(bytes, masks))) > 4
    waiting = list(masks)

    def given(self, p):
        return self.copy_(torch.from_numpy(waiting.pop(0)).reshape(self.shape))

    monkeypatch.setattr(torch.Tensor, "bernoulli_", given)
    for module in model.modules():
        if isinstance(module, drop.DropPath):
            module.train()
    x = normal(8, 3, 64, 64)
    leaf = torch.from_numpy(x).requires_grad_()
    expected = model(leaf)
    (expected**2).sum().backward()
    assert not waiting
    state = [cell.generator.state.asnumpy().copy() for cell in paths_of(network)]

    def loss(x):
        logits = network(x)
        return (logits**2).sum(), logits

    (_, logits), gradient = mindspore.value_and_grad(loss, has_aux=True)(Tensor(x))
    assert_close(logits.asnumpy(), expected.detach().numpy())
    errors = np.abs(gradient.asnumpy() - leaf.grad.numpy()).max((1, 2, 3)) / np.ptp(leaf.grad.numpy())
    assert np.median(errors) < 1e-4 and errors.max() < 0.1  # an image with a value at ReLU6's ends may differ
    assert not any(np.array_equal(old, cell.generator.state.asnumpy()) for old, cell in zip(state, paths_of(network)))


@pytest.mark.parametrize("index", [3, 4], ids=["projected", "identity"])
def test_of_a_ghost_bottleneck_the_shortcut_is_left(pynative, index):
    plans = [plan_blocks(NetworkOptions(drop_path=p))[index] for p in (0.0, 0.9)]
    plain = randomise(GhostBottleneck(plans[0], NetworkOptions()), normal(2, plans[0].in_channels, 9, 11))
    dropping = GhostBottleneck(plans[1]._replace(drop_path=0.5), NetworkOptions())
    for parameter, value in zip(dropping.get_parameters(), plain.get_parameters()):
        assert parameter.name == value.name
        parameter.set_data(value)
    x = Tensor(normal(16, plans[0].in_channels, 9, 11))
    whole = plain(x).asnumpy()
    shortcut = (x if plain.shortcut is None else plain.shortcut(x)).asnumpy()
    (kept,) = masks_of(only_paths_train(dropping), 16)
    assert 0 < kept.sum() < 16
    result = dropping(x).asnumpy()
    assert np.array_equal(result[~kept], shortcut[~kept])
    assert_close(result[kept], (shortcut + 2 * (whole - shortcut))[kept], 1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2_1x", pytest.param("ghostnetv2_1x", marks=pytest.mark.slow)])
def test_evaluation_and_exported_files_have_none_of_it(name):
    networks = []
    for p in (0.0, 0.7):
        network = create_network(name, 20, dropout=0.0, drop_path=p)
        networks.append(randomise(network))
    plain, dropping = networks
    assert len(paths_of(dropping)) >= 10 and not paths_of(plain)
    assert [p.name for p in plain.get_parameters()] == [p.name for p in dropping.get_parameters()]
    for parameter, value in zip(dropping.get_parameters(), plain.get_parameters()):
        parameter.set_data(value)
    x = Tensor(normal(2, 3, 65, 64))
    assert np.array_equal(plain(x).asnumpy(), dropping(x).asnumpy())

    reference("onnx")
    from src.export.onnx_graph import build_onnx

    files = [build_onnx(describe_classifier, fold_batch_norm(network), (3, 64, 64), None) for network in networks]
    assert files[0].SerializeToString() == files[1].SerializeToString()


class Loss(nn.Cell):
    """Two bottlenecks of MobileNetV2 with paths that may be dropped."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        options = MobileNetV2Options(width=0.1, drop_path=0.9)
        plans = [plan for stage in plan_stages(options) for plan in stage if plan.index in (4, 5)]
        self.blocks = nn.SequentialCell([build_bottleneck(plan, options) for plan in plans])

    def construct(self, x):
        return ((self.blocks(x) - 1) ** 2).mean()


@pytest.mark.long
def test_a_resumed_training_drops_the_same_paths(tmp_path):
    data = normal(6, 4, 8, 5, 5)

    def start():
        mindspore.set_seed(1)
        network = Loss()
        step = step_of(network, optimizer_of(network, "sgd", [0.1] * 6)).set_train()
        return step, TrainingState(network, step, History(6, 1))

    step, state = start()
    assert [cell.generator.state.name for cell in step.dropouts] == ["dropout_0", "dropout_1"]
    assert {"dropout_0", "dropout_1"} <= step.state().keys()
    for x in data[:3]:
        step(Tensor(x))
    state.save(tmp_path / "a.ckpt")
    losses = [step(Tensor(x)).asnumpy() for x in data[3:]]
    resumed, state = start()
    state.restore(tmp_path / "a.ckpt")
    assert [resumed(Tensor(x)).asnumpy() for x in data[3:]] == losses
    afresh, state = start()
    state.restore(tmp_path / "a.ckpt")
    for cell in afresh.dropouts:
        cell.generator.state.set_data(cell.generator.state * 0 + 1)
    assert [afresh(Tensor(x)).asnumpy() for x in data[3:]] != losses


def test_a_teacher_drops_no_paths(tmp_path):
    settings = {"name": "mobilenetv2_1x", "num_classes": 3, "drop_path": 0.9}
    save_weights(create_network("mobilenetv2_1x", 3), tmp_path / "best.ckpt")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"network": settings}))
    assert not paths_of(load_teacher(tmp_path / "best.ckpt", 3, ()))
