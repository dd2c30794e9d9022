"""Winograd's convolution as ONNX, against PyTorch's convolution."""

import numpy as np
import pytest
from helpers import normal, reference


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (2, 3), (1, 1), (20, 5)], ids=str)
def test_it_equals_pytorchs_convolution(size):
    torch, _, onnxruntime = reference("torch"), reference("onnx"), reference("onnxruntime")
    from src.export.onnx_builder import GraphBuilder
    from src.export.onnx_winograd import add_winograd

    x, weight, bias = normal(2, 32, *size), normal(48, 32, 3, 3, seed=1), normal(48, seed=2)
    graph = GraphBuilder("N")
    y = add_winograd(graph, graph.input("image", 32, size), weight, bias, "y", range(48))
    assert (y.channels, y.size) == (tuple(range(48)), size)
    model = graph.build(["image"], {"out": y.name}, "convolution").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1).numpy()
    (actual,) = session.run(None, {"image": x})
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-6 * np.ptp(expected)
