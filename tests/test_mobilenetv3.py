"""MobileNetV3-Large against timm's, with random batch normalisation: logits, maps, weights both ways, sizes."""

import copy
import importlib

import mindspore
import numpy as np
import pytest
from helpers import assert_close, call_here, copy_weights, normal, random_timm, randomise_, reference
from mindspore import Tensor
from test_mobilenetv2 import assert_gradients_reach_every_parameter

from src.errors import UserError
from src.layers.complexity import count_multiply_adds, count_parameters
from src.mobilenetv3 import MobileNetV3Options, plan_stages
from src.networks import create_network
from src.weights import load_weights, save_weights

NAME = "mobilenetv3_large"


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def run_exactly(model, x):
    """What a torch model gives in float64: rounding in float32 is up to 7e-6 of the logits' range on either side."""
    torch = reference("torch")
    with torch.no_grad():
        result = copy.deepcopy(model).double()(torch.from_numpy(x).double())
    return [y.numpy() for y in result] if isinstance(result, list) else result.numpy()


@pytest.fixture(scope="module")
def pair():
    """timm's network and ours with the same weights."""
    model = random_timm("mobilenetv3_large_100")
    return model, copy_weights(model, create_network(NAME))


def test_logits_equal_timm_in_graph_mode(pair):
    model, network = pair
    x = normal(2, 3, 224, 224, seed=1)
    assert_close(network(Tensor(x)).asnumpy(), run_exactly(model, x), 1e-5)


def test_logits_equal_timm_at_any_size(pair, pynative):
    model, network = pair
    for size in ((33, 33), (65, 97), (192, 130)):
        x = normal(1, 3, *size)
        assert_close(network(Tensor(x)).asnumpy(), run_exactly(model, x), 1e-5)


@pytest.mark.parametrize("width", [0.35, 0.75, 1.4])
def test_logits_equal_timm_at_other_widths(width, pynative):
    """Below 0.75 the stem is not narrower; the head has 1280 channels at any width."""
    reference("timm")
    reference("torch").manual_seed(0)
    build = importlib.import_module("timm.models.mobilenetv3")._gen_mobilenet_v3
    model = randomise_(build("mobilenetv3_large_075", width))
    network = copy_weights(model, create_network(NAME, width=width))
    x = normal(1, 3, 64, 64)
    assert_close(network(Tensor(x)).asnumpy(), run_exactly(model, x), 1e-5)


@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
def test_features_equal_timm(output_stride, strides):
    model = random_timm("mobilenetv3_large_100", features_only=True, output_stride=output_stride)
    network = copy_weights(model, create_network(NAME, features_only=True, output_stride=output_stride))
    assert network.feature_strides == strides == tuple(model.feature_info.reduction()[1:])
    assert network.feature_channels == (24, 40, 112, 960) == tuple(model.feature_info.channels()[1:])
    assert network.stage_ends == (2, 5, 11, 15)
    x = normal(1, 3, 97, 130)
    maps = network(Tensor(x))
    assert [m.shape[2:] for m in maps] == [(-(-97 // stride), -(-130 // stride)) for stride in strides]
    for ours, theirs in zip(maps, run_exactly(model, x)[1:]):
        assert_close(ours.asnumpy(), theirs, 3e-5)


def test_probabilities_of_dropping_are_timms():
    """The last convolution counts as a block, though it has no shortcut."""
    model = reference("timm").create_model("mobilenetv3_large_100", drop_path_rate=0.6)
    expected = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.blocks for block in stage]
    plans = [plan for stage in plan_stages(MobileNetV3Options(drop_path=0.6)) for plan in stage]
    assert [plan.drop_path for plan in plans[:-1]] == pytest.approx(expected[:-1]) and len(plans) == 16


def test_published_sizes():
    """Howard et al., table 3: 5.4 M parameters, 219 M multiply-adds; timm's own count of the former is exact."""
    network = create_network(NAME)
    model = reference("timm").create_model("mobilenetv3_large_100")
    assert count_parameters(network) == sum(p.numel() for p in model.parameters()) == 5_483_032
    assert count_multiply_adds(network) == pytest.approx(219e6, rel=0.015)


def test_products_are_those_of_the_gates():
    network = create_network(NAME, 10)
    extra = count_multiply_adds(network, (64, 64), products=True) - count_multiply_adds(network, (64, 64))
    # behind the depthwise convolutions: 72 and 2 of 120 channels of 8x8, 480 and 672 of 4x4, 672 and 2 of 960 of 2x2
    assert extra == (72 + 2 * 120) * 64 + (480 + 672) * 16 + (672 + 2 * 960) * 4


def test_gradients_of_the_network():
    assert_gradients_reach_every_parameter(create_network(NAME, 5, output_stride=16), normal(4, 3, 65, 97))


def test_weights_both_ways(tmp_path, pynative):
    """From PyTorch into a checkpoint and back, each value as it was; other networks are refused by name."""
    torch = reference("torch")
    model = random_timm("mobilenetv3_large_100", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    for source, target in (("a.pth", "b.ckpt"), ("b.ckpt", "c.pth")):
        result = call_here("scripts/port_weights.py", "--input", source, "--output", target, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"{NAME} for 7 classes" in result.stdout
    back = torch.load(tmp_path / "c.pth", weights_only=True)
    assert back.keys() == model.state_dict().keys()
    assert all("num_batches" in name or torch.equal(back[name], value) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match=f"holds {NAME} for 7 classes, the network is mobilenetv2_1x for 7 classes"):
        load_weights(create_network("mobilenetv2_1x", 7), tmp_path / "b.ckpt")


def test_own_checkpoint_of_another_width_is_named(tmp_path):
    save_weights(create_network(NAME, 3, width=0.5), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=f"network.name={NAME} network.width=0.5 builds that one"):
        load_weights(create_network(NAME, 3), tmp_path / "a.ckpt")


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE])
def test_too_small_an_input_says_so(mode):
    mindspore.set_context(mode=mode)
    with pytest.raises(ValueError, match="input is 64x32 pixels, MobileNetV3 needs at least 33x33"):
        create_network(NAME)(Tensor(normal(1, 3, 64, 32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "se"}, "attention: 'se' is not one of none"),
        ({"dfc_stages": (8,)}, "dfc_stages: has no effect with attention none"),
        ({"width": 0}, "width: 0.0 is out of range: at least 0.01 and at most 10.0"),
        ({"output_stride": 4}, "output_stride: 4 is not one of 8, 16, 32"),
    ],
)
def test_wrong_options_say_so(options, message):
    with pytest.raises(UserError) as error:
        create_network(NAME, **options)
    assert str(error.value).startswith(message)


def test_narrowest_network_runs(pynative):
    logits = create_network(NAME, 5, width=0.01).set_train(False)(Tensor(normal(1, 3, 33, 33))).asnumpy()
    assert np.isfinite(logits).all()
