"""Parameters and multiply-adds against the paper's table, timm's networks and a hand-computed layer."""

import mindspore
import pytest
from mindspore import nn

from src.ghostnetv2 import create_network
from src.layers.complexity import count_multiply_adds, count_parameters


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
