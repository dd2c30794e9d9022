"""The architecture as data: widths, the plan of the blocks, and options that are refused wherever they are given."""

import json
import math
from dataclasses import fields

import pytest
from mindspore import nn

from src import ghostnetv2
from src.architecture import BLOCKS, VARIANTS, DFCOptions, NetworkOptions, plan_blocks
from src.config import load_config
from src.errors import UserError
from src.layers.channels import round_channels
from src.layers.complexity import count_multiply_adds, count_parameters
from src.networks import choose_options
from src.tasks import SCHEMAS

WRONG = [
    ("output_stride", 4, "4 is not one of 8, 16, 32"),
    ("output_stride", 16.0, "16.0 is not one of 8, 16, 32 (did you mean '16'?)"),
    ("dropout", 1.0, "1.0 is out of range: at least 0.0 and at most 0.99"),
    ("dropout", True, "True is not a number"),
    ("dropout", math.inf, "inf is not a finite number"),
    ("dropout", math.nan, "nan is not a finite number"),
    ("dfc_blocks", [16], "16 is out of range: at least 0 and at most 15"),
    ("dfc_blocks", 3, "3 is not a list"),
    ("dfc_blocks", [1] * 17, "has 17 items, at most 16 are allowed"),
    ("dfc_target", "first", "'first' is not one of expressiveness, capacity, both"),
    ("dfc_stages", [4], "4 is not one of 8, 16, 32"),
    ("dfc_kernel_size", [7, 5], "has 2 items, needs one for each stride of (8, 16, 32)"),
    ("dfc_kernel_size", [7, 5, 0], "0 is out of range: at least 1"),
    ("dfc_kernel_size", [7, 5, [1, 2, 3]], "[1, 2, 3] has 3 items, needs 2"),
    ("dfc_kernel_size", "ful", "'ful' is not one of full, a whole number, a list (did you mean 'full'?)"),
    ("dfc_kernel_size", "7", "'7' is not one of full, a whole number, a list"),
    ("dfc_kernel_size", 0.5, "0.5 is not one of full, a whole number, a list"),
    ("dfc_kernel_size", True, "True is not one of full, a whole number, a list"),
    ("dfc_kernel_size", [7, "full", 5], "'full' is not one of a whole number, a list"),
    ("dfc_axes", "row", "'row' is not one of rows_and_columns, rows, columns, square"),
    ("dfc_kernel_size", -1, "-1 is out of range: at least 1"),
    ("dfc_kernel_size", 257, "257 is out of range: at least 1 and at most 255"),
    ("dfc_kernel_size", 5.0, "5.0 is not one of full, a whole number, a list"),
    (
        "dfc_down_sampling",
        "avg_pol",
        "'avg_pol' is not one of avg_pool, max_pool, bilinear, none (did you mean 'avg_pool'?)",
    ),
    ("dfc_up_sampling", "area", "'area' is not one of nearest, bilinear, bilinear_align_corners, bicubic"),
    (
        "dfc_gate",
        "sigmoyd",
        "'sigmoyd' is not one of sigmoid, hard_sigmoid, clip, relu, none (did you mean 'sigmoid'?)",
    ),
    ("dfc_gate_position", "late", "'late' is not one of before_up_sampling, after_up_sampling"),
]


def refusal_of_code(name="ghostnetv2_1x", **options):
    with pytest.raises(UserError) as error:
        ghostnetv2.create_network(name, **options)
    return str(error.value)


def refusal_of_file(path, **settings):
    path.write_text(f"network: {json.dumps(settings)}")
    with pytest.raises(UserError) as error:
        load_config(path, SCHEMAS)
    return str(error.value)


@pytest.mark.parametrize(("option", "value", "words"), WRONG, ids=[f"{row[0]}={row[1]}" for row in WRONG])
def test_code_and_configuration_refuse_a_value_in_the_same_words(tmp_path, option, value, words):
    path = tmp_path / "config.yaml"
    assert refusal_of_code(**{option: value}).removeprefix(f"{option}: ").startswith(words)
    assert refusal_of_file(path, **{option: value}) == f"{path}:1: network.{refusal_of_code(**{option: value})}"


def test_code_and_configuration_refuse_a_name_in_the_same_words(tmp_path):
    path = tmp_path / "config.yaml"
    words = "'ghostnetv2_10x' is not one of ghostnetv2_1x, ghostnetv2_1_3x, ghostnetv2_1_6x, ghostnetv2_nose_1x, "
    words += "ghostnet_1x, ghostnet_1_1x, ghostnet_1_3x, ghostnet_1_4x, ghostnet_1_7x"
    hint = " (did you mean 'ghostnetv2_1x'?)"
    others = ", mobilenetv2_1x, mobilenetv2_se_1x, mobilenetv2_cbam_1x, mobilenetv2_ca_1x, mobilenetv2_dfc_1x"
    others += ", mobilenetv3_large"
    assert refusal_of_code("ghostnetv2_10x") == f"network: {words}{hint}"
    assert refusal_of_file(path, name="ghostnetv2_10x") == f"{path}:1: network.name: {words}{others}{hint}"


def test_options_of_code_alone():
    assert refusal_of_code(width=0.0) == "width: 0.0 is out of range: at least 0.01 and at most 10.0"
    assert refusal_of_code(width=math.inf) == "width: inf is not a finite number"
    assert refusal_of_code(squeeze_excitation=1) == "squeeze_excitation: 1 is not true or false"
    assert refusal_of_code(features_only="no") == "features_only: 'no' is not true or false"


def test_options_that_exclude_each_other():
    assert refusal_of_code(dfc_blocks=[3], dfc_stages=[8]) == "dfc_stages: and dfc_blocks cannot both be set"
    assert refusal_of_code("ghostnet_1x", dfc_blocks=[3]) == "dfc_blocks: has no effect with attention none"
    assert refusal_of_code(attention="cbam") == "attention: 'cbam' is not one of dfc, self_attention, none"


CHANGED = {
    "dfc_blocks": [5],
    "dfc_stages": [16],
    "dfc_target": "both",
    "dfc_kernel_size": 7,
    "dfc_axes": "rows",
    "dfc_down_sampling": "max_pool",
    "dfc_up_sampling": "bilinear",
    "dfc_gate": "clip",
    "dfc_gate_position": "after_up_sampling",
}
WITHOUT_DFC = [("ghostnet_1x", "none"), ("ghostnetv2_1x", "none"), ("ghostnetv2_1x", "self_attention")]
WITHOUT_DFC += [("mobilenetv2_1x", kind) for kind in ("none", "se", "cbam", "ca")]
WITHOUT_DFC += [("mobilenetv3_large", "none")]


@pytest.mark.parametrize(("name", "attention"), WITHOUT_DFC)
@pytest.mark.parametrize("option", CHANGED)
def test_options_that_have_no_effect_are_refused(name, attention, option):
    assert CHANGED.keys() == {item.name for item in fields(DFCOptions)}
    default = getattr(DFCOptions(), option)
    choose_options(name, attention=attention, **{option: default})
    if attention == "self_attention" and option in ("dfc_blocks", "dfc_stages", "dfc_target"):
        choose_options(name, attention=attention, **{option: CHANGED[option]})
        return
    with pytest.raises(UserError) as error:
        choose_options(name, attention=attention, **{option: CHANGED[option]})
    words = f"{option}: has no effect with attention {attention}"
    if (name, option) == ("mobilenetv2_1x", "dfc_target"):
        words = "dfc_target: 'both' is not possible in MobileNetV2: 'expressiveness' only"
    assert str(error.value) == words


def test_options_of_another_network_are_refused_in_a_file(tmp_path):
    path = tmp_path / "config.yaml"
    words = f"{path}:1: network.attention: 'cbam' is not one of dfc, self_attention, none"
    assert refusal_of_file(path, attention="cbam") == words
    words = f"{path}:1: network.attention: 'self_attention' is not one of none, se, cbam, ca, dfc"
    assert refusal_of_file(path, name="mobilenetv2_1x", attention="self_attention") == words


@pytest.mark.parametrize(
    ("name", "parameters", "millions"),
    [
        ("ghostnet_1_1x", 5_855_650, 167.0),
        ("ghostnet_1_3x", 7_358_820, 227.0),
        ("ghostnet_1_4x", 8_186_422, 262.8),
        ("ghostnet_1_7x", 11_000_120, 378.0),
    ],
)
def test_sizes_of_the_baselines(name, parameters, millions):
    """Of the first one, both are known from PyTorch's model; the others' multiply-adds from figure 1 of the paper."""
    network = ghostnetv2.create_network(name)
    assert count_parameters(network) == parameters
    assert round(count_multiply_adds(network) / 1e6, 1) == millions


def test_options_are_converted():
    options = NetworkOptions(width="0.5", dropout=0, dfc_blocks=[2, 3])
    assert (options.width, options.dropout, options.dfc_blocks) == (0.5, 0.0, (2, 3))


def test_none_is_the_variants_own_value():
    network = ghostnetv2.create_network("ghostnet_1x", 3, dfc_blocks=None, width=None)
    assert not any("short_conv" in parameter.name for parameter in network.get_parameters())
    assert network.conv_stem.out_channels == 16


def test_round_channels():
    # nearest multiple of 4, never more than 10 % below: 20.8 -> 20, 62.4 -> 64, 9 -> 12 (8 would lose 11 %)
    assert [round_channels(c) for c in (1, 4, 9, 20.8, 62.4, 52.0, 25.6)] == [4, 4, 12, 20, 64, 52, 24]


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [
        (32, (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32), {1}),
        (16, (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16), {1, 2}),
        (8, (2, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8), {1, 2, 4}),
    ],
)
def test_strides_of_the_plan(output_stride, strides, dilations):
    plans = plan_blocks(NetworkOptions(output_stride=output_stride))
    assert tuple(plan.output_stride for plan in plans) == strides
    assert {plan.dilation_out for plan in plans} == dilations
    assert [plan.dilation for plan in plans[1:]] == [plan.dilation_out for plan in plans[:-1]]
    assert [plan.in_channels for plan in plans[1:]] == [plan.out_channels for plan in plans[:-1]]


def test_every_spatial_convolution_behind_a_replaced_stride_is_dilated():
    network = ghostnetv2.create_network("ghostnetv2_1x", features_only=True, output_stride=8)
    found = {}
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d) and max(cell.kernel_size) > 1:
            assert max(cell.stride) == 1 or not name.startswith(("blocks.5.", "blocks.11."))
            found.setdefault(max(cell.dilation), set()).add(name.removesuffix(".conv"))
    # the strides of blocks 5 and 11 are replaced: what follows the depthwise convolution in their place, is dilated
    for dilation, first, last in ((2, 5, 11), (4, 11, 16)):
        wanted = {f"blocks.{first}.ghost2.cheap_operation"}
        for index in range(first + 1, min(last + 1, len(BLOCKS))):
            wanted |= {f"blocks.{index}.ghost1.{part}" for part in ("cheap_operation", "short_conv.1", "short_conv.2")}
            wanted |= {f"blocks.{index}.ghost2.cheap_operation"} if index < last else set()
            wanted |= {f"blocks.{index}.shortcut.0"} if BLOCKS[index][2] != BLOCKS[index - 1][2] else set()
            wanted |= {f"blocks.{index}.dw"} if BLOCKS[index][4] > 1 else set()
        assert found[dilation] == wanted
    assert set(found) == {1, 2, 4}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_a_function_each(name):
    network = getattr(ghostnetv2, name)(num_classes=5)
    assert network.classifier.weight.shape == (5, 1280)
    has_gates = any(".se." in parameter.name for parameter in network.get_parameters())
    assert has_gates == (name != "ghostnetv2_nose_1x")
