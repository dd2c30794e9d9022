"""Parameters and multiply-adds against the paper's table, timm's networks and a hand-computed layer."""

import mindspore
import pytest
from mindspore import nn

from src.architecture import NetworkOptions, plan_blocks
from src.layers.complexity import count_multiply_adds, count_parameters
from src.networks import create_network


@pytest.mark.parametrize(
    ("name", "parameters", "millions", "multiply_adds"),
    [
        # number of parameters of timm's network; the paper's table
        ("ghostnetv2_1x", 6_156_908, 6.1, 167),
        ("ghostnetv2_1_3x", 8_960_404, 8.9, 269),
        ("ghostnetv2_1_6x", 12_392_698, 12.3, 399),
        ("ghostnet_1x", 5_182_508, 5.2, 141),
    ],
)
def test_the_papers_table(name, parameters, millions, multiply_adds):
    network = create_network(name)
    assert count_parameters(network) == parameters == pytest.approx(millions * 1e6, abs=1e5)
    assert round(count_multiply_adds(network) / 1e6) == multiply_adds
    assert mindspore.get_context("mode") == mindspore.GRAPH_MODE  # as before


def test_a_layer_by_hand():
    cell = nn.SequentialCell([nn.Conv2d(4, 6, 3, stride=2, group=2), nn.Flatten(), nn.Dense(6 * 5 * 4, 7)])
    # 10x8 -> 5x4 outputs of 6 channels, 2 x 3 x 3 weights each; then 120 x 7
    assert count_multiply_adds(cell, (10, 8), in_channels=4) == 5 * 4 * 6 * 18 + 120 * 7
    assert count_parameters(cell) == 6 * 2 * 9 + 120 * 7 + 7


def test_products_by_hand():
    """Gates of every Ghost module with attention, scales of squeeze-and-excitation, and bicubic matrices."""
    options = {"dfc_blocks": (2, 9), "dfc_up_sampling": "bicubic"}
    network = create_network("ghostnetv2_1x", 10, **options)
    extra = count_multiply_adds(network, (64, 96), products=True) - count_multiply_adds(network, (64, 96))
    plans = plan_blocks(NetworkOptions(**options))
    scales = sum(
        plan.hidden_channels * (64 // plan.output_stride) * (96 // plan.output_stride)
        for plan in plans
        if plan.squeeze_excitation
    )
    gates, resizing = 72 * 16 * 24 + 480 * 4 * 6, 72 * (16 * 8 * 12 + 16 * 24 * 12) + 480 * (4 * 2 * 3 + 4 * 6 * 3)
    assert extra == scales + gates + resizing


@pytest.mark.parametrize(
    ("options", "attended"),
    [({"attention": "se"}, 1), ({"attention": "cbam"}, 2), ({"attention": "ca"}, 2), ({"attention": "none"}, 0)],
)
def test_products_of_mobilenetv2(options, attended):
    network = create_network("mobilenetv2_1x", 10, **options)
    extra = count_multiply_adds(network, (64, 64), products=True) - count_multiply_adds(network, (64, 64))
    # behind the depthwise convolutions: 96 and 144 channels of 16x16, 144 and 2 of 192 of 8x8, ...
    values = (96 + 144) * 256 + (144 + 2 * 192) * 64 + (192 + 4 * 384 + 2 * 576) * 16 + (576 + 3 * 960) * 4
    assert extra == attended * values


def test_products_of_dfc_in_mobilenetv2():
    network = create_network("mobilenetv2_1x", 10, attention="dfc", dfc_blocks=(2, 16))
    extra = count_multiply_adds(network, (64, 64), products=True) - count_multiply_adds(network, (64, 64))
    assert extra == 144 * 16 * 16 + 960 * 2 * 2  # gates of the expanded features
