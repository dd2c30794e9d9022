"""Networks as a TFLite graph, laid out for XNNPACK, the CPU kernels of LiteRT.

Maps are NHWC. A reshape costs little there, so that rows of predictions and repeated pixels need no copy of their own.
"""

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding

from src.architecture import BLOCKS
from src.export.folding import weights_of
from src.export.mobilenet_graph import add_mobilenet
from src.export.tflite_backbone import apply_gates, bottleneck, dfc_attention, pool
from src.export.tflite_builder import Tensor, TFLiteBuilder
from src.layers.blocks import bicubic_weights
from src.mobilenet import MobileNet

AXES = (0, 3, 1, 2)  # places of N, C, H and W in the shape of a map

LARGEST_WEIGHT = 2**25  # bytes; ai-edge-quantizer 0.10 cannot quantize larger ones per channel


def build_tflite(describe, network, image_shape, batch, softmax, metadata, weights_type) -> bytes:
    """Build the TFLite file of a network without batch normalisation.

    Args:
        describe: function (graph, image, network) -> {name: output}.
        network: cell from `fold_batch_norm`.
        image_shape: (channels, height, width) of an image, at least 33 pixels a side.
        batch: images in a call.
        softmax: end in the probabilities of the classes, of the only output.
        metadata: {name: text} to keep in the file.
        weights_type: see `TFLiteBuilder.build`.
    """
    graph = TFLiteGraph()
    channels, height, width = image_shape
    image = Tensor("image", (batch, height, width, channels))
    outputs = describe(graph, image, network)
    if softmax:
        (logits,) = outputs.values()
        outputs = {"probabilities": graph.softmax(logits)}
    return graph.build(image, outputs, metadata, weights_type)


class TFLiteGraph(TFLiteBuilder):
    """A `src.export.graph.Graph`; its maps are tensors (N, H, W, C)."""

    def backbone(self, image, network) -> list:
        if isinstance(network, MobileNet):
            return add_mobilenet(self, image, network)
        x = self.relu(self.convolution([image], network.conv_stem, "conv_stem"))
        maps = []
        for index in range(len(BLOCKS)):
            x = bottleneck(self, x, network.blocks[index], f"blocks.{index}")
            if index in network.stage_ends:
                maps.append(x)
        return maps

    def dfc_attention(self, x, dfc, features, name) -> Tensor:
        return apply_gates(self, features, dfc_attention(self, x, dfc, self.size(features), name), name)

    def convolution(self, maps, convolution, name) -> Tensor:
        x, (weight, bias) = self.concat(maps, f"{name}.joined"), weights_of(convolution)
        count = -(-weight.nbytes // LARGEST_WEIGHT)
        if count == 1 or convolution.group > 1:
            return self.convolve(x, weight, bias, convolution, name)
        parts = zip(np.array_split(weight, count), np.array_split(bias, count))
        outputs = [self.convolve(x, *part, convolution, f"{name}.{index}") for index, part in enumerate(parts)]
        return self.join(outputs, 3, name)

    def convolve(self, x, weight, bias, like, name, **options) -> Tensor:
        """Add a convolution of arrays (O, I, kH, kW) and (O,), with stride, padding and dilation of `like`."""
        x, padding = self.padded(x, like, f"{name}.pad")
        spans = zip(x.shape[1:3], like.kernel_size, like.stride, like.dilation)
        size = [
            -(-side // stride) if padding == Padding.SAME else (side - dilation * (k - 1) - 1) // stride + 1
            for side, k, stride, dilation in spans
        ]
        options.update(padding=padding, strideH=like.stride[0], strideW=like.stride[1])
        options.update(dilationHFactor=like.dilation[0], dilationWFactor=like.dilation[1])
        operator, order = "CONV_2D", (0, 2, 3, 1)  # (O, I, kH, kW) -> (O, kH, kW, I)
        if like.group > 1:
            operator, order = "DEPTHWISE_CONV_2D", (1, 2, 3, 0)  # (C, 1, kH, kW) -> (1, kH, kW, C)
            options.update(depthMultiplier=1)
        kernel = self.constant(f"{name}.weight", np.ascontiguousarray(weight.transpose(order)))
        inputs = [x, kernel, self.constant(f"{name}.bias", bias)]
        return self.node(operator, inputs, (x.shape[0], *size, len(bias)), name, **options)

    def project(self, maps, convolution, name, like=None) -> Tensor:
        return self.convolution(maps, convolution, name)

    def padded(self, x, like, name):
        """Pad for a convolution what its own padding does not: TensorFlow's puts more below and to the right."""
        if like.pad_mode == "same":
            return x, Padding.SAME
        top, bottom, left, right = like.padding
        spans = zip(x.shape[1:3], like.kernel_size, like.stride, like.dilation, ((top, bottom), (left, right)))
        if all(pads == same_padding(side, k, stride, dilation) for side, k, stride, dilation, pads in spans):
            return x, Padding.SAME
        batch, height, width, channels = x.shape
        pads = self.constant(f"{name}.sizes", np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        shape = (batch, top + height + bottom, left + width + right, channels)
        return self.node("PAD", [x, pads], shape, name), Padding.VALID

    def concat(self, maps, name) -> Tensor:
        """Join maps along channels."""
        return maps[0] if len(maps) == 1 else self.join(maps, 3, name)

    def join(self, rows, axis, name) -> Tensor:
        shape = list(rows[0].shape)
        shape[axis] = sum(part.shape[axis] for part in rows)
        return self.node("CONCATENATION", rows, shape, name, axis=axis)

    def reshape(self, x, shape, name) -> Tensor:
        """Lay the values of a tensor out anew."""
        sides = self.constant(f"{name}.shape", np.array(shape, np.int32))
        return self.node("RESHAPE", [x, sides], shape, name, newShape=list(shape))

    def relu(self, x) -> Tensor:
        return self.node("RELU", [x], x.shape, f"{x.name}.relu")

    def relu6(self, x) -> Tensor:
        return self.node("RELU6", [x], x.shape, f"{x.name}.relu")

    def hard_swish(self, x) -> Tensor:
        return self.node("HARD_SWISH", [x], x.shape, f"{x.name}.hard_swish")

    def leaky_relu(self, x, slope) -> Tensor:
        return self.node("LEAKY_RELU", [x], x.shape, f"{x.name}.relu", alpha=slope)

    def hard_sigmoid(self, x) -> Tensor:
        """Add min(max(x + 3, 0), 6) / 6."""
        shifted = self.add(x, np.float32(3), f"{x.name}.shifted", fusedActivationFunction=ActivationFunctionType.RELU6)
        return self.multiply(shifted, np.float32(1 / 6), f"{x.name}.gate")

    def clip(self, x) -> Tensor:
        """Limit all values to 0 and 1."""
        return self.minimum(self.relu(x), 1.0, f"{x.name}.clip")

    def sigmoid(self, x) -> Tensor:
        return self.node("LOGISTIC", [x], x.shape, f"{x.name}.gate")

    def exp(self, rows, name) -> Tensor:
        return self.node("EXP", [rows], rows.shape, name)

    def minimum(self, rows, limit, name) -> Tensor:
        return self.elementwise("MINIMUM", rows, np.float32(limit), name)

    def multiply(self, rows, other, name) -> Tensor:
        return self.elementwise("MUL", rows, other, name)

    def add(self, rows, other, name, **options) -> Tensor:
        return self.elementwise("ADD", rows, other, name, **options)

    def subtract(self, rows, other, name) -> Tensor:
        return self.elementwise("SUB", rows, other, name)

    def elementwise(self, operator, x, other, name, **options) -> Tensor:
        """Add an operator on two tensors, or on one and an array; either broadcasts to the other."""
        if not isinstance(other, Tensor):
            other = self.constant(f"{name}.constant", np.asarray(other, np.float32))
        return self.node(operator, [x, other], np.broadcast_shapes(x.shape, other.shape), name, **options)

    def softmax(self, logits) -> Tensor:
        return self.node("SOFTMAX", [logits], logits.shape, f"{logits.name}.softmax", beta=1.0)

    def global_mean(self, x) -> Tensor:
        return self.mean(x, (2, 3), f"{x.name}.mean")

    def mean(self, x, axes, name) -> Tensor:
        return self._reduce("MEAN", x, axes, name)

    def amax(self, x, axes, name) -> Tensor:
        return self._reduce("REDUCE_MAX", x, axes, name)

    def _reduce(self, operator, x, axes, name) -> Tensor:
        """Add an operator that reduces a map over axes named as in MindSpore."""
        places = [AXES[axis] for axis in axes]
        shape = [1 if place in places else side for place, side in enumerate(x.shape)]
        inputs = [x, self.constant(f"{name}.axes", np.array(places, np.int32))]
        return self.node(operator, inputs, shape, name, keepDims=True)

    def average_pool(self, x, name) -> Tensor:
        return pool(self, "AVERAGE_POOL_2D", x, name)

    def size(self, x) -> tuple:
        return x.shape[1:3]

    def dense(self, x, dense, name) -> Tensor:
        flat = self.reshape(x, (x.shape[0], x.shape[3]), f"{name}.flat")
        weight, bias = dense.weight.asnumpy(), dense.bias.asnumpy()
        inputs = [flat, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("FULLY_CONNECTED", inputs, (x.shape[0], len(bias)), name)

    def rows(self, x, columns, name) -> Tensor:
        batch, height, width, channels = x.shape
        return self.reshape(x, (batch, height * width * channels // columns, columns), name)

    def columns(self, rows, start, stop, name) -> Tensor:
        return self.narrow(rows, 2, start, stop - start, name)

    def narrow(self, array, axis, start, length, name) -> Tensor:
        begin, shape = [0] * len(array.shape), list(array.shape)
        begin[axis], shape[axis] = start, length
        return self.slice(array, begin, shape, name)

    def slice(self, x, begin, shape, name) -> Tensor:
        """Take the part of a tensor that begins at a place and has a shape."""
        ends = {"begin": begin, "size": shape}
        inputs = [x, *[self.constant(f"{name}.{key}", np.array(y, np.int32)) for key, y in ends.items()]]
        return self.node("SLICE", inputs, shape, name)

    def squeeze(self, rows, name) -> Tensor:
        return self.reshape(rows, rows.shape[:2], name)

    def expand(self, x, size, name) -> Tensor:
        return self.resize(x, size, "bilinear", name)

    def resize(self, x, size, mode, name) -> Tensor:
        size = tuple(int(side) for side in size)
        if size == self.size(x):
            return x
        if mode == "bicubic":
            matrices = [bicubic_weights(*sides).asnumpy() for sides in zip(self.size(x), size)]
            return self.resize_by_matrices(x, matrices, name)
        if mode == "nearest":
            return self.nearest(x, size, name)
        sides = self.constant(f"{name}.size", np.array(size, np.int32))
        aligned = mode == "bilinear_align_corners"
        shape = (x.shape[0], *size, x.shape[3])
        return self.node("RESIZE_BILINEAR", [x, sides], shape, name, alignCorners=aligned, halfPixelCenters=not aligned)

    def nearest(self, x, size, name) -> Tensor:
        """Resize by nearest to twice the size, or one more or less, which is all that networks here need.

        By copies of whole rows: XNNPACK does not take RESIZE_NEAREST_NEIGHBOR.
        """
        x = self.double(x, 2, size[1], f"{name}.width")
        return self.double(x, 1, size[0], f"{name}.height")

    def double(self, x, axis, target, name) -> Tensor:
        """Repeat the rows (axis 1) or columns (axis 2) of a map; for an odd `target` the first thrice or the last once.

        Channels follow one another as often as a column is repeated, whole rows as often as a row is.
        """
        side, shape = x.shape[axis], list(x.shape)
        if abs(target - 2 * side) > 1:
            raise ValueError(f"{name}: {side} is to become {target}")
        if axis == 1:
            x = self.reshape(x, (shape[0], 1, side, shape[2] * shape[3]), f"{name}.rows")
        shape[axis] = 2 * side
        y = self.reshape(self.join([x, x], 3, f"{name}.twice"), shape, f"{name}.doubled")
        if target > 2 * side:
            shape[axis] = 1
            return self.join([self.slice(y, [0] * 4, shape, f"{name}.first"), y], axis, name)
        shape[axis] = target
        return y if target == 2 * side else self.slice(y, [0] * 4, shape, name)

    def resize_by_matrices(self, x, matrices, name) -> Tensor:
        """Multiply the columns of a map by the first matrix (h, H), its rows by the second (w, W)."""
        rows, columns = matrices
        x = self.transpose(x, (0, 3, 2, 1), f"{name}.columns")  # (N, H, W, C) -> (N, C, W, H)
        x = self.last_axis_by_matrix(x, rows, f"{name}.height")  # -> (N, C, W, h)
        x = self.transpose(x, (0, 1, 3, 2), f"{name}.rows")  # -> (N, C, h, W)
        x = self.last_axis_by_matrix(x, columns, f"{name}.width")  # -> (N, C, h, w)
        return self.transpose(x, (0, 2, 3, 1), name)  # -> (N, h, w, C)

    def last_axis_by_matrix(self, x, matrix, name) -> Tensor:
        """Multiply vectors along the last axis by a matrix (out, in)."""
        weight = self.constant(f"{name}.weight", matrix)
        return self.node("FULLY_CONNECTED", [x, weight], (*x.shape[:3], len(matrix)), name, keepNumDims=True)

    def transpose(self, x, order, name) -> Tensor:
        """Put the axes in another order."""
        axes = self.constant(f"{name}.order", np.array(order, np.int32))
        return self.node("TRANSPOSE", [x, axes], [x.shape[axis] for axis in order], name)

    def array(self, x, name) -> Tensor:
        return self.transpose(x, AXES, name)  # (N, H, W, C) -> (N, C, H, W)

    def map(self, array, name) -> Tensor:
        return self.transpose(array, (0, 2, 3, 1), name)  # (N, C, H, W) -> (N, H, W, C)

    def view(self, array, shape, name) -> Tensor:
        return self.reshape(array, (array.shape[0], *shape), name)

    def matmul(self, array, other, name) -> Tensor:
        return self.node("BATCH_MATMUL", [array, other], (*array.shape[:-1], other.shape[-1]), name)


def same_padding(side, kernel_size, stride, dilation) -> tuple:
    """Give TensorFlow's padding before and behind an axis."""
    total = max((-(-side // stride) - 1) * stride + dilation * (kernel_size - 1) + 1 - side, 0)
    return total // 2, total - total // 2
