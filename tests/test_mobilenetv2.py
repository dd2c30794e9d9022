"""MobileNetV2 against timm's, with random batch normalisation, and with each attention module in timm's blocks."""

import importlib

import mindspore
import numpy as np
import pytest
from helpers import assert_close, normal, random_timm, randomise_, reference
from mindspore import Tensor, ops

from src.errors import UserError
from src.layers.complexity import count_multiply_adds, count_parameters
from src.mobilenetv2 import (
    InvertedResidual,
    MobileNetV2Options,
    build_bottleneck,
    plan_stages,
)
from src.networks import create_network
from src.weights.names import BATCH_COUNTER, PYTORCH_BATCH_NORM_NAMES

NETWORKS = {"mobilenetv2_100": 1.0, "mobilenetv2_050": 0.5, "mobilenetv2_140": 1.4}
MODULE_NAMES = {  # of timm's attention modules: ours, behind "attention."
    "se": {"conv_reduce": "mlp.conv_reduce", "conv_expand": "mlp.conv_expand"},
    "cbam": {
        "channel.fc1": "mlp.conv_reduce",
        "channel.fc2": "mlp.conv_expand",
        "spatial.conv.conv": "spatial.conv",
        "spatial.conv.bn": "spatial.bn",
    },
    "ca": {"conv1": "joint.conv", "bn1": "joint.bn", "conv_h": "conv_rows", "conv_w": "conv_columns"},
}


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def named_as_ours(model, renamed=None):
    """{our name: value} of a torch model's weights: batch normalisation has MindSpore's names, and `renamed` ours."""
    torch = reference("torch")
    weights = {}
    for path, module in model.named_modules():
        ours = path
        if ".se." in path:
            block, _, inner = path.partition(".se.")
            ours = f"{block}.attention.{renamed.get(inner)}"
        leaves = PYTORCH_BATCH_NORM_NAMES if isinstance(module, torch.nn.BatchNorm2d) else {}
        for leaf, value in module.state_dict().items():
            if "." not in leaf and leaf != BATCH_COUNTER:
                weights[f"{ours}.{leaves.get(leaf, leaf)}"] = value.numpy()
    return weights


def copy(weights, network):
    """Give every parameter its weights; names and shapes must be the same on both sides."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    assert {name: p.shape for name, p in parameters.items()} == {name: w.shape for name, w in weights.items()}
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(weights[name]))
    return network.set_train(False)


def run_torch(model, x):
    torch = reference("torch")
    with torch.no_grad():
        result = model(torch.from_numpy(x))
    return [y.numpy() for y in result] if isinstance(result, list) else result.numpy()


@pytest.fixture(scope="module")
def pair(request):
    """timm's network of the name that the test gives, and ours with the same weights."""
    model = random_timm(request.param)
    return model, copy(named_as_ours(model), create_network("mobilenetv2_1x", width=NETWORKS[request.param]))


@pytest.mark.parametrize("pair", NETWORKS, indirect=True)
def test_logits_equal_timm_in_graph_mode(pair):
    model, network = pair
    x = normal(2, 3, 224, 224)
    assert_close(network(Tensor(x)).asnumpy(), run_torch(model, x), 1e-5)


@pytest.mark.parametrize("pair", NETWORKS, indirect=True)
def test_logits_equal_timm_at_any_size(pair, pynative):
    model, network = pair
    for size in ((33, 33), (65, 97), (192, 130)):
        x = normal(1, 3, *size)
        assert_close(network(Tensor(x)).asnumpy(), run_torch(model, x), 1e-5)


def test_a_narrow_network_adds_the_input_in_its_first_bottleneck(pynative):
    """At width 0.25 both the stem and the first bottleneck have 8 channels."""
    reference("timm")
    reference("torch").manual_seed(0)
    build = importlib.import_module("timm.models.efficientnet")._gen_mobilenet_v2
    model = randomise_(build("mobilenetv2_035", 0.25))
    network = copy(named_as_ours(model), create_network("mobilenetv2_1x", width=0.25))
    x = normal(1, 3, 64, 64)
    assert_close(network(Tensor(x)).asnumpy(), run_torch(model, x), 1e-5)


@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
def test_features_equal_timm(output_stride, strides):
    model = random_timm("mobilenetv2_100", features_only=True, output_stride=output_stride)
    network = copy(
        named_as_ours(model), create_network("mobilenetv2_1x", features_only=True, output_stride=output_stride)
    )
    assert network.feature_strides == strides == tuple(model.feature_info.reduction()[1:])
    assert network.feature_channels == (24, 32, 96, 320) == tuple(model.feature_info.channels()[1:])
    assert network.stage_ends == (2, 5, 12, 16)
    x = normal(1, 3, 97, 130)
    maps = network(Tensor(x))
    assert [m.shape[2:] for m in maps] == [(-(-97 // stride), -(-130 // stride)) for stride in strides]
    for ours, theirs in zip(maps, run_torch(model, x)[1:]):
        assert_close(ours.asnumpy(), theirs, 3e-5)  # timm's maps in float32 and in float64 differ by 1e-5


def timm_module(attention, channels):
    """timm's own build of an attention module."""
    layers = importlib.import_module("timm.layers")
    if attention == "se":
        blocks = importlib.import_module("timm.models._efficientnet_blocks")
        return blocks.SqueezeExcite(channels, rd_channels=max(8, channels // 24))
    if attention == "cbam":
        return layers.cbam.CbamModule(channels, rd_channels=max(8, channels // 24), mlp_bias=True)
    module = layers.coord_attn.CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True)
    module.conv1.bias = None
    return module


@pytest.mark.parametrize("attention", MODULE_NAMES)
def test_attention_stands_behind_the_depthwise_convolution(attention):
    """As timm's module where timm's blocks have squeeze-and-excitation."""
    model = random_timm("mobilenetv2_100")
    for stage in model.blocks[1:]:
        for block in stage:
            block.se = timm_module(attention, block.conv_pwl.in_channels)
    # coordinate attention normalises means that hardly differ, which magnifies rounding, in PyTorch as here
    gain = 0.25 if attention == "ca" else 1
    weights = named_as_ours(randomise_(model, seed=1, gain=gain), MODULE_NAMES[attention])
    network = copy(weights, create_network("mobilenetv2_1x", attention=attention))
    x = normal(2, 3, 65, 97)
    assert_close(network(Tensor(x)).asnumpy(), run_torch(model, x), 3e-5)


def dfc_in_torch(x, weights, prefix):
    """The gate of DFC attention of the default options, from weights by our names."""
    functional = reference("torch").nn.functional
    size, x = x.shape[2:], functional.avg_pool2d(x, 2)
    for index in range(3):
        name = f"{prefix}.{index}"
        weight = weights[f"{name}.conv.weight"]
        padding = tuple(length // 2 for length in weight.shape[2:])
        x = functional.conv2d(x, weight, padding=padding, groups=1 if index == 0 else len(weight))
        leaves = ("moving_mean", "moving_variance", "gamma", "beta")
        x = functional.batch_norm(x, *(weights[f"{name}.bn.{leaf}"] for leaf in leaves))
    return functional.interpolate(x.sigmoid(), size)


def gate_with_dfc(block, weights, prefix):
    """Make one of timm's blocks gate its expanded features with DFC attention of its input."""
    inputs = []
    block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    block.bn1.register_forward_hook(lambda _, __, features: features * dfc_in_torch(inputs.pop(), weights, prefix))


def test_dfc_gates_the_expanded_features():
    torch = reference("torch")
    model, network = random_timm("mobilenetv2_100"), create_network("mobilenetv2_1x", attention="dfc")
    weights = named_as_ours(model)
    generator = np.random.default_rng(0)
    dfc = {p.name: p.shape for p in network.get_parameters() if "short_conv" in p.name}
    dfc = {name: generator.uniform(-0.5, 1, shape).astype(np.float32) for name, shape in dfc.items()}
    dfc = {name: np.abs(value) + 0.5 if name.endswith("variance") else value for name, value in dfc.items()}
    copy({**weights, **dfc}, network)
    tensors = {name: torch.from_numpy(value) for name, value in dfc.items()}
    for prefix in {name.partition(".short_conv")[0] for name in dfc}:
        gate_with_dfc(model.get_submodule(prefix), tensors, f"{prefix}.short_conv")
    x = normal(2, 3, 65, 97)
    assert_close(network(Tensor(x)).asnumpy(), run_torch(model, x), 1e-5)


def bottlenecks_with_dfc(**options):
    network = create_network("mobilenetv2_1x", num_classes=10, attention="dfc", **options)
    bottlenecks = [block for stage in network.blocks for block in stage]
    return [i for i, block in enumerate(bottlenecks) if isinstance(block, InvertedResidual) and block.short_conv]


def test_which_bottlenecks_have_dfc():
    assert bottlenecks_with_dfc() == bottlenecks_with_dfc(output_stride=8) == list(range(4, 17))
    assert bottlenecks_with_dfc(dfc_blocks=(1, 16)) == [1, 16]
    assert bottlenecks_with_dfc(dfc_blocks=()) == []
    assert bottlenecks_with_dfc(dfc_stages=(8, 32)) == [4, 5, 13, 14, 15, 16]


@pytest.mark.parametrize("output_stride", [32, 8])
def test_lengths_of_dfc_by_stage(output_stride):
    options = MobileNetV2Options(attention="dfc", dfc_kernel_size=(3, 5, (7, 9)), output_stride=output_stride)
    lengths = [plan.dfc_kernel for stage in plan_stages(options) for plan in stage]
    assert lengths == [None] * 4 + [(3, 3)] * 2 + [(5, 5)] * 7 + [(7, 9)] * 4
    full = MobileNetV2Options(attention="dfc", dfc_kernel_size="full", output_stride=output_stride)
    # the halved maps of a 224x224 input: 28 -> 14, 14 -> 7, 7 -> 3 pixels
    lengths = [plan.dfc_kernel[0] for stage in plan_stages(full) for plan in stage if plan.dfc_kernel]
    assert lengths == [27] * 3 + [13] * 7 + [5] * 3


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        # published: millions of parameters, tens of millions of multiply-adds; of DFC attention what ours has
        ("mobilenetv2_1x", 3.50, 30),
        ("mobilenetv2_se_1x", 3.89, 30),
        ("mobilenetv2_cbam_1x", 3.89, 30),
        ("mobilenetv2_ca_1x", 3.95, 31),
        ("mobilenetv2_dfc_1x", 4.36, 32),
    ],
)
def test_published_sizes(name, parameters, multiply_adds):
    network = create_network(name)
    assert round(count_parameters(network) / 1e6, 2) == parameters
    assert round(count_multiply_adds(network) / 1e7) == multiply_adds


def assert_gradients_reach_every_parameter(cell, x):
    """In graph mode and training."""
    parameters = cell.set_train().trainable_params()

    def forward(x):
        return (cell(x) ** 2).sum()

    value, gradients = ops.value_and_grad(forward, None, parameters)(Tensor(x))
    assert np.isfinite(value.asnumpy())
    for parameter, gradient in zip(parameters, gradients):
        gradient = gradient.asnumpy()
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, parameter.name


def test_gradients_of_the_network():
    assert_gradients_reach_every_parameter(
        create_network("mobilenetv2_1x", num_classes=5, output_stride=16), normal(4, 3, 65, 97)
    )


@pytest.mark.parametrize("attention", [*MODULE_NAMES, "dfc"])
def test_gradients_of_a_bottleneck_with_attention(attention):
    options = MobileNetV2Options(attention=attention)
    plan = plan_stages(options)[3][0]
    assert plan.stride == 2
    assert_gradients_reach_every_parameter(build_bottleneck(plan, options), normal(4, plan.in_channels, 9, 13))


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE])
def test_too_small_an_input_says_so(mode):
    mindspore.set_context(mode=mode)
    network = create_network("mobilenetv2_1x")
    with pytest.raises(ValueError, match="input is 64x32 pixels, MobileNetV2 needs at least 33x33"):
        network(Tensor(normal(1, 3, 64, 32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "eca"}, "attention: 'eca' is not one of none, se, cbam, ca, dfc"),
        ({"dfc_blocks": (0, 4)}, "dfc_blocks: 0 is out of range: at least 1 and at most 16"),
        ({"dfc_blocks": (17,)}, "dfc_blocks: 17 is out of range: at least 1 and at most 16"),
        ({"dfc_target": "both"}, "dfc_target: 'both' is not possible in MobileNetV2: 'expressiveness' only"),
        ({"attention": "ca", "dfc_stages": (8,)}, "dfc_stages: has no effect with attention ca"),
        ({"width": 0}, "width: 0.0 is out of range: at least 0.01 and at most 10.0"),
        ({"output_stride": 4}, "output_stride: 4 is not one of 8, 16, 32"),
    ],
)
def test_wrong_options_say_so(options, message):
    with pytest.raises(UserError) as error:
        create_network("mobilenetv2_1x", **options)
    assert str(error.value).startswith(message)


def test_none_leaves_an_option_at_its_default():
    assert count_parameters(create_network("mobilenetv2_1x", width=None, attention=None)) == count_parameters(
        create_network("mobilenetv2_1x")
    )
