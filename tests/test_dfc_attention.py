"""DFC attention: each option against PyTorch's functions, where it stands in the network, and its dilation."""

import mindspore
import numpy as np
import pytest
from helpers import normal, reference
from mindspore import Tensor, ops

from src.architecture import BLOCKS, DFCOptions, NetworkOptions, plan_blocks
from src.dfc_attention import DFCAttention
from src.ghostnetv2 import GhostBottleneck, create_network

OPTIONS = [
    {},
    {"dfc_kernel_size": 7, "dfc_down_sampling": "max_pool"},
    {"dfc_down_sampling": "bilinear", "dfc_up_sampling": "bilinear"},
    {"dfc_up_sampling": "bilinear_align_corners", "dfc_gate_position": "after_up_sampling"},
    {"dfc_up_sampling": "bicubic", "dfc_gate": "hard_sigmoid"},
    {"dfc_up_sampling": "nearest", "dfc_gate": "none"},
    {"dfc_kernel_size": [4, [6, 3], 5], "dfc_gate": "clip"},
    {"dfc_axes": "rows", "dfc_gate": "relu", "dfc_up_sampling": "bicubic"},
    {"dfc_axes": "columns", "dfc_gate": "clip", "dfc_gate_position": "after_up_sampling"},
    {"dfc_axes": "square", "dfc_kernel_size": [[3, 6], 2, 7]},
    {"dfc_down_sampling": "none", "dfc_kernel_size": 8},
    {"dfc_kernel_size": "full", "dfc_up_sampling": "bilinear"},
]
KERNEL_SIZES = {  # of the stage at stride 8, on a map at stride 4, 28x28 when halved
    "5": (5, 5),
    "7": (7, 7),
    "8": (8, 8),
    "[4, [6, 3], 5]": (4, 4),
    "[[3, 6], 2, 7]": (3, 6),
    "full": (55, 55),
}
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


def dfc_in_torch(dfc, x, size, options, kernel_size):
    """DFC attention written once more, with PyTorch's functions and the weights of our cell."""
    torch = reference("torch")
    functional = torch.nn.functional
    x = torch.from_numpy(x)
    half = (x.shape[2] // 2, x.shape[3] // 2)
    down = {
        "avg_pool": lambda: functional.avg_pool2d(x, 2),
        "max_pool": lambda: functional.max_pool2d(x, 2),
        "bilinear": lambda: functional.interpolate(x, half, mode="bilinear", align_corners=False),
        "none": lambda: x,
    }
    gates = {"sigmoid": torch.sigmoid, "hard_sigmoid": functional.hardsigmoid, "none": lambda y: y}
    gates.update(clip=lambda y: y.clamp(0, 1), relu=torch.relu)
    y = down[options.get("dfc_down_sampling", "avg_pool")]()
    height, width = kernel_size
    shapes = {"rows": [(1, width)], "columns": [(height, 1)], "square": [(height, width)]}
    steps = shapes.get(options.get("dfc_axes"), [(1, width), (height, 1)])
    for cell, kernel in zip(dfc.cell_list, [(1, 1), *steps]):
        weight = torch.from_numpy(cell.conv.weight.asnumpy())
        assert weight.shape[2:] == kernel
        padding = "same"  # of an even kernel, one more below and to the right
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
    kernel_size = KERNEL_SIZES.get(str(options.get("dfc_kernel_size", 5)))
    dfc_options = DFCOptions(**options)
    assert dfc_options.kernel_size(stage=8, stride=4) == kernel_size
    attention = randomise(DFCAttention(6, 10, dfc_options, 1, kernel_size), seed=1)
    for height, width in ((16, 16), (15, 22), (7, 9)):
        x = normal(2, 6, height, width)
        expected = dfc_in_torch(attention, x, (height, width), options, kernel_size)
        actual = attention(Tensor(x), (height, width)).asnumpy()
        assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("options", [*OPTIONS[1:], ALL_AT_ONCE], ids=str)
def test_graph_mode_gives_the_gradients_of_pynative_mode(options):
    """Of both Ghost modules of a bottleneck that changes size and channels."""
    options = NetworkOptions(**options)
    block = GhostBottleneck(plan_blocks(options)[3], options).set_train(True)
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
    first = "blocks.1.ghost2"  # whose map is as large as that of the first module of block 2
    assert names_with_dfc(dfc_target="capacity") == {first} | {f"blocks.{i}.ghost2" for i in blocks}
    assert names_with_dfc(dfc_target="both") == {first} | {f"blocks.{i}.ghost{j}" for i in blocks for j in (1, 2)}
    for stages, chosen in (((8,), (2, 3, 4)), ((16,), range(5, 11)), ((8, 32), (2, 3, 4, *range(11, 16))), ((), ())):
        assert names_with_dfc(dfc_stages=stages) == {f"blocks.{i}.ghost1" for i in chosen}
    assert names_with_dfc(dfc_blocks=(3, 15)) == {"blocks.3.ghost1", "blocks.15.ghost1"}
    assert names_with_dfc(dfc_blocks=()) == set()


def test_full_kernels_reach_from_end_to_end(pynative):
    """Each output pixel depends on every input pixel: the paper's fully connected layers."""
    for axes in ("rows_and_columns", "square"):
        options = DFCOptions(dfc_kernel_size="full", dfc_axes=axes, dfc_up_sampling="nearest", dfc_gate="none")
        kernel_size = options.kernel_size(stage=32, stride=32)
        assert kernel_size == (5, 5)  # of 3x3 pixels
        attention = randomise(DFCAttention(1, 1, options, 1, kernel_size), seed=4)
        plain = attention(Tensor(np.zeros((1, 1, 7, 7), np.float32)), (3, 3)).asnumpy()
        for row, column in np.ndindex(3, 3):
            x = np.zeros((1, 1, 7, 7), np.float32)
            x[0, 0, 2 * row, 2 * column] = 1
            assert (attention(Tensor(x), (3, 3)).asnumpy() != plain).all()


def test_kernels_of_every_block():
    """By the stage of the block's output; full ones by the map that the Ghost module works on, 56 to 7 pixels."""
    plans = plan_blocks(NetworkOptions(dfc_kernel_size=[7, 5, 3], output_stride=8))
    assert [plan.first_kernel for plan in plans] == [None] * 2 + [(7, 7)] * 3 + [(5, 5)] * 6 + [(3, 3)] * 5
    plans = plan_blocks(NetworkOptions(dfc_kernel_size="full", dfc_target="both"))
    sides = [2 * side - 1 for side in (28, 28, 14, 14, *[7] * 6, *[3] * 4)]
    assert [plan.first_kernel for plan in plans[2:]] == [(side, side) for side in sides]
    sides = [55, 55, *sides[2:], 5]
    assert [plan.second_kernel for plan in plans] == [None, *[(side, side) for side in sides]]


def test_dilated_dfc_keeps_the_values_at_shared_positions(pynative):
    """DFC halves its input, so only where that leaves images alone: of 4x4 pixels of the fine grid in one colour."""
    coarse, fine = (randomise(DFCAttention(6, 10, DFCOptions(), dilation, (5, 5)), seed=3) for dilation in (1, 2))
    x = normal(1, 6, 7, 9).repeat(4, 2).repeat(4, 3)
    dilated = fine(Tensor(x), x.shape[2:]).asnumpy()
    plain = coarse(Tensor(np.ascontiguousarray(x[:, :, ::2, ::2])), (14, 18)).asnumpy()
    assert np.abs(dilated[:, :, ::2, ::2] - plain).max() < 1e-6 < np.ptp(plain)
