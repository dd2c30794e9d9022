"""Post-training quantization of an ONNX file to int8, by the package onnxruntime."""

import logging

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from src.console import quiet_logging

WEIGHTED = ("Conv", "Gemm", "MatMul")


class BatchReader(CalibrationDataReader):
    """Hands batches to the calibration, one after another.

    Args:
        name: of the file's input.
        batches: arrays.
    """

    def __init__(self, name, batches):
        self.feeds = iter([{name: batch} for batch in batches])

    def get_next(self):
        """Give {name: batch}; None at the end."""
        return next(self.feeds, None)


def quantize(path, batches) -> None:
    """Quantize a float32 file in place: weights int8 per channel, maps uint8 per tensor.

    The ranges of the maps are the smallest and largest values that `batches` give. The first convolution stays float32,
    and so do the logits of a dense layer and all that stands behind the last layers with weights, such as the decoding
    of boxes: 256 values are too few for them.

    Args:
        path: of the file.
        batches: float32 (count, N, C, H, W), normalised images.
    """
    model = onnx.load(str(path))
    graph = model.graph
    image = graph.input[0].name
    resize_all_axes(graph)
    onnx.save(model, str(path))
    first = [node.name for node in graph.node if image in node.input]
    with quiet_logging(logging.WARNING):  # advice to optimise the graph first, which folds what is folded
        quantize_static(
            str(path),
            str(path),
            BatchReader(image, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,  # x86 has fast products of uint8 and int8, not of int8 and int8
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*first, *nodes_behind_weights(graph)],
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
    quantized = onnx.load(str(path))
    del quantized.metadata_props[:]  # it has got a note of onnxruntime's
    quantized.metadata_props.extend(model.metadata_props)
    onnx.save(quantized, str(path))


def resize_all_axes(graph) -> None:
    """Give each Resize by sizes of a `GraphProto` those of all axes, in place.

    ONNX Runtime (1.32) moves channels to the end around int8 convolutions, past Resize as well, and takes it for
    granted that there are four sizes.
    """
    if not any(map(_is_by_sizes, graph.node)):
        return
    count = "count"
    channels = {port.name: port.type.tensor_type.shape.dim[1].dim_value for port in (*graph.value_info, *graph.output)}
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    nodes = [helper.make_node("Shape", [graph.input[0].name], [count], count, start=0, end=1)]
    for node in graph.node:
        if _is_by_sizes(node):
            rest, sizes = f"{node.name}.shape", f"{node.name}.all_sizes"
            shape = np.array((channels[node.output[0]], *arrays[node.input[3]]), np.int64)
            graph.initializer.append(numpy_helper.from_array(shape, rest))
            nodes.append(helper.make_node("Concat", [count, rest], [sizes], sizes, axis=0))
            node.input[3] = sizes
            node.attribute.remove(next(attribute for attribute in node.attribute if attribute.name == "axes"))
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [array for array in graph.initializer if array.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _is_by_sizes(node) -> bool:
    return node.op_type == "Resize" and len(node.input) == 4


def nodes_behind_weights(graph) -> list:
    """Name the nodes of a `GraphProto` from which no layer with weights is reached."""
    needed, names = set(), []
    for node in reversed(graph.node):
        if node.op_type in WEIGHTED or needed & set(node.output):
            needed.update(node.input)
        else:
            names.append(node.name)
    return names
