"""DFC attention: each option against PyTorch's functions, where it stands in the network, and its dilation."""

import mindspore
import numpy as np
import pytest
from helpers import normal, reference
from mindspore import Tensor, ops

from src.architecture import BLOCKS, DFCOptions, NetworkOptions, plan_blocks
from src.ghostnetv2 import DFCAttention, GhostBottleneck, create_network

OPTIONS = [
    {},
    {"dfc_kernel_size": 7, "dfc_down_sampling": "max_pool"},
    {"dfc_down_sampling": "bilinear", "dfc_up_sampling": "bilinear"},
    {"dfc_up_sampling": "bilinear_align_corners", "dfc_gate_position": "after_up_sampling"},
    {"dfc_up_sampling": "bicubic", "dfc_gate": "hard_sigmoid"},
    {"dfc_up_sampling": "nearest", "dfc_gate": "none"},
]
ALL_AT_ONCE = {
    "dfc_down_sampling": "bilinear",
    "dfc_up_sampling": "bicubic",
    "dfc_gate": "hard_sigmoid",
    "dfc_gate_position": "after_up_sampling",
}


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def randomise(cell, seed):
    rng = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(rng.uniform(0.3, 1.3, parameter.shape).astype(np.float32)))
    return cell.set_train(False)


def dfc_in_torch(dfc, x, size, options):
    """DFC attention written once more, with PyTorch's functions and the weights of our cell."""
    torch = reference("torch")
    functional = torch.nn.functional
    x = torch.from_numpy(x)
    half = (x.shape[2] // 2, x.shape[3] // 2)
    down = {
        "avg_pool": lambda: functional.avg_pool2d(x, 2),
        "max_pool": lambda: functional.max_pool2d(x, 2),
        "bilinear": lambda: functional.interpolate(x, half, mode="bilinear", align_corners=False),
    }
    gates = {"sigmoid": torch.sigmoid, "hard_sigmoid": functional.hardsigmoid, "none": lambda y: y}
    y = down[options.get("dfc_down_sampling", "avg_pool")]()
    k = options.get("dfc_kernel_size", 5) // 2
    for cell, padding in zip(dfc.cell_list, (0, (0, k), (k, 0))):
        weight = torch.from_numpy(cell.conv.weight.asnumpy())
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        y = functional.conv2d(y, weight, padding=padding, groups=groups)
        statistics = (cell.bn.moving_mean, cell.bn.moving_variance, cell.bn.gamma, cell.bn.beta)
        y = functional.batch_norm(y, *(torch.from_numpy(p.asnumpy()) for p in statistics))
    gate, up = gates[options.get("dfc_gate", "sigmoid")], options.get("dfc_up_sampling", "nearest")
    corners = {} if up == "nearest" else {"align_corners": up == "bilinear_align_corners"}
    first = options.get("dfc_gate_position", "before_up_sampling") == "before_up_sampling"
    y = gate(y) if first else y
    y = functional.interpolate(y, size, mode=up.split("_")[0], **corners)
    return (y if first else gate(y)).numpy()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_equal_pytorch(options, pynative):
    attention = randomise(DFCAttention(6, 10, DFCOptions(**options), dilation=1), seed=1)
    for height, width in ((16, 16), (15, 22), (7, 9)):
        x = normal(2, 6, height, width)
        expected = dfc_in_torch(attention, x, (height, width), options)
        actual = attention(Tensor(x), (height, width)).asnumpy()
        assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("options", [*OPTIONS[1:], ALL_AT_ONCE], ids=str)
def test_graph_mode_gives_the_gradients_of_pynative_mode(options):
    """Of both Ghost modules of a bottleneck that changes size and channels."""
    options = NetworkOptions(**options)
    block = GhostBottleneck(plan_blocks(options)[3], options, options).set_train(True)
    x = Tensor(normal(2, block.ghost1.primary_conv.conv.in_channels, 17, 22))

    def forward(x):
        return (block(x) ** 2).mean()

    results = []
    for mode in (mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE):
        mindspore.set_context(mode=mode)
        value, gradients = ops.value_and_grad(forward, None, block.trainable_params())(x)
        results.append([value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    assert max(np.abs(gradient).max() for gradient in results[0]) > 0.01
    for ours, theirs in zip(*results):
        assert np.isfinite(ours).all() and np.abs(ours - theirs).max() < 1e-5


def names_with_dfc(**options):
    parameters = create_network("ghostnetv2_1x", num_classes=10, **options).get_parameters()
    return {p.name.split(".short_conv")[0] for p in parameters if "short_conv" in p.name}


def test_which_blocks_and_ghost_modules_have_dfc():
    blocks = range(2, len(BLOCKS))
    assert names_with_dfc() == {f"blocks.{i}.ghost1" for i in blocks}
    assert names_with_dfc(dfc_target="capacity") == {f"blocks.{i}.ghost2" for i in blocks}
    assert names_with_dfc(dfc_target="both") == {f"blocks.{i}.ghost{j}" for i in blocks for j in (1, 2)}
    assert names_with_dfc(dfc_blocks=(3, 15)) == {"blocks.3.ghost1", "blocks.15.ghost1"}
    assert names_with_dfc(dfc_blocks=()) == set()


def test_dilated_dfc_keeps_the_values_at_shared_positions(pynative):
    """DFC halves its input, so only where that leaves images alone: of 4x4 pixels of the fine grid in one colour."""
    coarse, fine = (randomise(DFCAttention(6, 10, DFCOptions(), dilation), seed=3) for dilation in (1, 2))
    x = normal(1, 6, 7, 9).repeat(4, 2).repeat(4, 3)
    dilated = fine(Tensor(x), x.shape[2:]).asnumpy()
    plain = coarse(Tensor(np.ascontiguousarray(x[:, :, ::2, ::2])), (14, 18)).asnumpy()
    assert np.abs(dilated[:, :, ::2, ::2] - plain).max() < 1e-6 < np.ptp(plain)
