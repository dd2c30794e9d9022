"""Weights of an ONNX graph as float16, read back to float32 by nodes that ONNX Runtime runs once, at loading."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")


def halve_weights(graph) -> None:
    """Store the weights of convolutions and products of a `GraphProto` as float16, in place; biases stay float32."""
    weights = {name for node in graph.node if node.op_type in WEIGHTED for name in node.input[:2]}
    readers = []
    for initializer in graph.initializer:
        name = initializer.name
        if name in weights:
            half = numpy_helper.to_array(initializer).astype(np.float16)
            initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
            readers.append(helper.make_node("Cast", [initializer.name], [name], name, to=TensorProto.FLOAT))
    nodes = [*readers, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
