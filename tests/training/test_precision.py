"""Mixed precision: what is float16 and what stays float32, and that training follows float32."""

import itertools
from typing import get_args, get_type_hints

import mindspore
import numpy as np
import pytest
from dfc_options import choices
from helpers import PROJECT, normal, optimizer_of, randomise, step_of
from mindspore import Tensor, nn, ops

from src.architecture import DFCOptions
from src.config import load_config
from src.errors import UserError
from src.ghostnetv2 import DFCAttention
from src.layers.blocks import BiasedConvolution, build_convolution
from src.layers.sync_batch_norm import SyncBatchNorm2d, convert_batch_norm
from src.settings import PrecisionSettings
from src.tasks import SCHEMAS, create_task
from src.training.precision import check_precision, mix_precision

ALL_LEVELS = get_args(get_type_hints(PrecisionSettings)["amp"])
LEVELS = [level for level in ALL_LEVELS if level not in ("O0", "bf16")]  # the CPU has no convolution in bfloat16


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.dense = nn.Dense(4, 3)

    def construct(self, x):
        return self.dense(ops.relu(self.bn(self.conv(x))).mean((2, 3)))


class Loss(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        return (self.network(x) ** 2).mean()


def train(level, steps=5):
    """Losses and network of a few steps on fixed data."""
    mindspore.set_seed(2)
    network = Network()
    x = Tensor(normal(8, 2, 9, 9))
    optimizer = optimizer_of(network, "sgd", [0.1] * steps, weight_decay=0.0)
    kind = "none" if level == "O0" else "dynamic"
    step = step_of(Loss(mix_precision(network, level, "CPU")), optimizer, loss_scale=kind).set_train()
    return [float(step(x).asnumpy()) for _ in range(steps)], network


@pytest.mark.parametrize("level", LEVELS)
def test_training_follows_float32(level):
    check_precision(level, "CPU")
    expected, _ = train("O0")
    losses, network = train(level)
    assert np.ptp(expected) > 0.01
    assert np.abs(np.array(losses) - expected).max() < 2e-3
    assert losses != expected  # float16 has rounded something
    assert all(p.dtype == mindspore.float32 for p in network.get_parameters())


@pytest.mark.parametrize("level", LEVELS)
def test_normalisation_computes_in_float32(level):
    """A variance above 65504, the largest number of float16."""
    network = Network()
    x = 2000 * normal(8, 2, 9, 9)
    mixed = mix_precision(network, level, "CPU").set_train()
    assert np.isfinite(mixed(Tensor(x)).asnumpy()).all()
    variance = {p.name: p for p in network.get_parameters()}["bn.moving_variance"].asnumpy()
    assert np.isfinite(variance).all() and variance.max() > 65504


def test_synchronised_normalisation_stays_float32():
    network = nn.SequentialCell(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    names = [parameter.name for parameter in network.get_parameters()]
    convert_batch_norm(network, ranks=2)
    assert isinstance(network[1], SyncBatchNorm2d)
    assert sorted(names) == sorted(parameter.name for parameter in network.get_parameters())
    x = Tensor(normal(4, 2, 3, 3))
    expected = network.set_train(False)(x).asnumpy()
    mixed = mix_precision(network, "O2", "CPU").set_train(False)
    assert "Float16" not in str(mixed(x).dtype)
    assert np.abs(mixed(x).asnumpy() - expected).max() < 1e-2


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_biases_stay_float32_on_gpu(level):
    """With channels last, MindSpore's kernel adds a float16 bias along a wrong axis there. 70000 is none of float16."""
    convolution = build_convolution(1, 1, has_bias=True)
    convolution.weight.set_data(Tensor(np.full((1, 1, 1, 1), 70001, np.float32)))
    convolution.bias.set_data(Tensor([-70000.0], mindspore.float32))
    mixed = mix_precision(nn.SequentialCell(convolution, nn.ReLU()), level, "GPU")
    assert mixed(Tensor(np.ones((1, 1, 2, 2), np.float32))).asnumpy().ravel().tolist() == [1, 1, 1, 1]


def test_all_biased_convolutions_are_told_apart():
    """For the level above, in the networks of all tasks."""
    for name in ("classification/ghostnetv2_1x_imagenet", "detection/yolov3_ghostnetv2_1x_coco"):
        network = create_task(load_config(PROJECT / f"configs/{name}.yaml", SCHEMAS)).build_network()
        convolutions = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.Conv2d) and cell.has_bias]
        assert convolutions and all(isinstance(cell, BiasedConvolution) for cell in convolutions)


class Attentions(nn.Cell):
    """DFC attention of many options: (N, 2, H, W) -> the sum of squares of all maps, and the maps (N, 4, H, W)."""

    def __init__(self, options):
        super().__init__()
        self.attentions = nn.CellList([DFCAttention(2, 4, DFCOptions(**choices), 1, (5, 5)) for choices in options])

    def construct(self, x):
        maps, total = (), 0.0
        for attention in self.attentions:
            gate = attention(x, x.shape[2:])
            maps += (gate,)
            total = total + (gate.astype(mindspore.float32) ** 2).sum()
        return total, maps


def options_of_dfc():
    """Every up-sampling with every gate in either place; the down-samplings take turns, and so meet all of both."""
    down, up, gate, position = map(choices, ("down_sampling", "up_sampling", "gate", "gate_position"))
    gates = [pair for pair in itertools.product(gate, position) if pair != ("none", position[1])]
    return [
        {
            "dfc_down_sampling": down[(i + j) % len(down)],
            "dfc_up_sampling": up[i],
            "dfc_gate": gates[j][0],
            "dfc_gate_position": gates[j][1],
        }
        for i, j in itertools.product(range(len(up)), range(len(gates)))
    ]


def maps_and_gradients(level):
    """Compile and run DFC attention of all options in one graph: the map of each, and its gradients as a vector."""
    mindspore.set_seed(3)
    network = randomise(Attentions(options_of_dfc()), normal(2, 2, 7, 10))
    parameters = network.trainable_params()
    mixed = mix_precision(network, level, "CPU").set_train()
    (_, maps), gradients = ops.value_and_grad(mixed, None, parameters, has_aux=True)(Tensor(normal(2, 2, 7, 10)))
    arrays = [gradient.asnumpy().ravel() for gradient in gradients]
    count = len(arrays) // len(maps)
    vectors = [np.concatenate(arrays[i * count : (i + 1) * count]) for i in range(len(maps))]
    return [value.asnumpy().astype(np.float32) for value in maps], vectors


@pytest.fixture(scope="module")
def float32_attention():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)  # before conftest's own fixture
    return maps_and_gradients("O0")


@pytest.mark.long
@pytest.mark.parametrize("level", [pytest.param(x, marks=[] if x == "O2" else pytest.mark.slow) for x in LEVELS])
def test_every_option_of_dfc_attention_follows_float32(level, float32_attention):
    """Maps within a few roundings of float16, which are 5e-4 each; gradients of a normalised weight lose digits.

    Behind a gate with a kink at 0 or 1, rounding moves single values to its other side, and their gradients are others.
    """
    (maps, gradients), (expected_maps, expected_gradients) = maps_and_gradients(level), float32_attention
    assert 1e-6 < max(map(relative_error, maps, expected_maps)) < 2e-3
    errors = list(map(relative_error, gradients, expected_gradients))
    kinked = [options["dfc_gate"] in ("clip", "relu") for options in options_of_dfc()]
    assert 1e-6 < max(error for error, has_kink in zip(errors, kinked) if not has_kink) < 5e-3
    assert max(errors) < 0.2


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def test_bfloat16_is_refused_where_it_is_missing():
    with pytest.raises(UserError) as error:
        check_precision("bf16", "CPU")
    assert str(error.value).startswith("precision.amp=bf16 cannot be computed on CPU: Select CPU")
    assert str(error.value).endswith("; allowed: O0")


def test_a_device_without_kernels_is_named(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("Unsupported op [Conv2D] on CPU\nmore lines")

    monkeypatch.setattr(ops, "value_and_grad", fail)
    with pytest.raises(UserError) as error:
        check_precision("O2", "CPU")
    assert str(error.value) == "precision.amp=O2 cannot be computed on CPU: Unsupported op [Conv2D] on CPU; allowed: O0"
    check_precision("O0", "CPU")
