"""BatchNorm folding: the same outputs with random statistics, no BatchNorm left, the original as it was."""

import mindspore
import numpy as np
import pytest
from helpers import normal, randomise
from mindspore import Tensor, nn

from src.architecture import VARIANTS
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import create_network
from src.layers.blocks import ConvBnAct


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def batch_norms(network):
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]


def assert_folds(name, size=(47, 66), **options):
    network = randomise(create_network(name, num_classes=20, **options))
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    folded = fold_batch_norm(network)
    assert not batch_norms(folded)
    assert not any("gamma" in p.name or "moving" in p.name for p in folded.get_parameters())
    after = {p.name: p.asnumpy() for p in network.get_parameters()}
    assert before.keys() == after.keys() and all(np.array_equal(before[n], after[n]) for n in before)
    x = Tensor(normal(2, 3, *size))
    outputs, expected = folded(x), network(x)
    if not isinstance(outputs, tuple):
        outputs, expected = (outputs,), (expected,)
    for ours, theirs in zip(outputs, expected):
        assert np.abs(ours.asnumpy() - theirs.asnumpy()).max() < 1e-5 * np.ptp(theirs.asnumpy())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ghostnetv2_1x", {}),
        ("ghostnet_1x", {}),
        ("ghostnetv2_nose_1x", {"dfc_target": "both", "dfc_kernel_size": 7}),
        ("ghostnetv2_1x", {"features_only": True, "output_stride": 8}),
    ],
)
def test_folded_network_gives_the_same(name, options):
    assert_folds(name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dfc_target": "capacity"},
        {"dfc_target": "both", "dfc_down_sampling": "max_pool", "dfc_up_sampling": "bilinear"},
        {"dfc_down_sampling": "bilinear", "dfc_up_sampling": "bicubic", "dfc_gate": "hard_sigmoid"},
        {"dfc_up_sampling": "bilinear_align_corners", "dfc_gate_position": "after_up_sampling"},
        {"dfc_gate": "none", "dfc_kernel_size": 3},
        {"output_stride": 16},
        {"output_stride": 8, "features_only": True},
    ],
    ids=str,
)
def test_every_variant_and_option_folds(name, options):
    if "none" in options.values():  # the features grow from block to block and leave float32's range
        options = {**options, "dfc_blocks": (2, 9)}
    assert_folds(name, **options)


def test_a_network_that_was_compiled_folds_as_well():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    network = randomise(nn.SequentialCell([ConvBnAct(3, 8, 3), ConvBnAct(8, 4, relu=False)]))
    x = Tensor(normal(2, 3, 9, 9))
    expected = network(x).asnumpy()
    folded = fold_batch_norm(network)
    assert np.abs(folded(x).asnumpy() - expected).max() < 1e-5 * np.ptp(expected)
    folded[1].conv.bias.set_data(folded[1].conv.bias + 1)
    assert np.abs(folded(x).asnumpy() - expected - 1).max() < 1e-4
    assert np.array_equal(network(x).asnumpy(), expected)


def test_plain_sequences_and_biases_fold():
    layers = [nn.Conv2d(3, 4, 3, has_bias=True, bias_init="normal"), nn.BatchNorm2d(4), nn.ReLU()]
    network = randomise(nn.SequentialCell(layers))
    x = Tensor(normal(2, 3, 8, 8))
    expected = network(x).asnumpy()
    folded = fold_batch_norm(network)
    assert not batch_norms(folded)
    assert np.abs(folded(x).asnumpy() - expected).max() < 1e-5 * np.ptp(expected)


def test_batch_norm_without_a_convolution_is_refused():
    with pytest.raises(ValueError, match=r"gamma: no convolution stands before"):
        fold_batch_norm(nn.SequentialCell([nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)]))
