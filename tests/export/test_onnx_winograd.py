"""Winograd's convolution as ONNX, against PyTorch's convolution."""

import numpy as np
import pytest
from helpers import normal, reference


def run(graph, y, x):
    """The values of a map of a graph's for an image."""
    model = graph.build(["image"], {"out": y.name}, "convolution").SerializeToString()
    session = reference("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (2, 3), (1, 1), (20, 5)], ids=str)
def test_it_equals_pytorchs_convolution(size):
    torch, _ = reference("torch"), reference("onnx")
    from src.export.onnx_builder import GraphBuilder
    from src.export.onnx_winograd import add_winograd

    x, weight, bias = normal(2, 32, *size), normal(48, 32, 3, 3, seed=1), normal(48, seed=2)
    graph = GraphBuilder("N")
    y = add_winograd(graph, graph.input("image", 32, size), weight, bias, "y", range(48))
    assert (y.channels, y.size) == (tuple(range(48)), size)
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1).numpy()
    actual = run(graph, y, x)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-6 * np.ptp(expected)


@pytest.mark.parametrize("size", [(8, 12), (8, 9), (7, 9), (2, 2)], ids=str)
@pytest.mark.parametrize("between", ["relu", "leaky_relu", "whole"])
def test_several_in_a_row_equal_pytorchs(size, between, monkeypatch):
    """3x3, 1x1, 3x3, and a dense layer's 1x1, with activations; `whole` reads the first map in between."""
    torch, _ = reference("torch"), reference("onnx")
    from mindspore import Tensor

    from src.export.onnx_graph import OnnxGraph
    from src.layers.blocks import build_convolution

    monkeypatch.setattr("src.export.onnx_graph.WINOGRAD_PRODUCTS", 0)
    graph, functional = OnnxGraph("N", (), True), torch.nn.functional
    x = normal(2, 32, *size)
    y, expected = graph.input("image", 32, size), torch.from_numpy(x)
    for index, (channels, kernel_size) in enumerate(((48, 3), (16, 1), (32, 3), (7, 1))):
        weight, bias = normal(channels, len(y.channels), kernel_size, kernel_size, seed=index), normal(channels, seed=9)
        cell = build_convolution(*weight.shape[1::-1], kernel_size, has_bias=True)
        cell.weight.set_data(Tensor(weight))
        cell.bias.set_data(Tensor(bias))
        y = graph.convolution([y], cell, f"convolution.{index}")
        arrays = map(torch.from_numpy, (weight, bias))
        expected = functional.conv2d(expected, *arrays, padding=kernel_size // 2)
        y = graph.relu(y) if between == "relu" else graph.leaky_relu(y, 0.1)
        expected = expected.relu() if between == "relu" else functional.leaky_relu(expected, 0.1)
        if between == "whole" and index == 0:
            y, expected = graph.add(y, y, "twice"), 2 * expected
    copies = [node for node in graph.nodes if "image" not in node.input and node.op_type == "Transpose"]
    assert bool(copies) == (between == "whole" or size[0] % 2 + size[1] % 2 > 0)  # only then are pixels laid out
    expected = expected.numpy()
    assert np.abs(run(graph, y, x) - expected).max() <= 1e-6 * np.ptp(expected)
