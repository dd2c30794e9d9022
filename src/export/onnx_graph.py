"""Networks as ONNX files: `src.export.graph.Graph` in the nodes of ONNX.

What lies behind the backbone is laid out for ONNX Runtime as well, see `src.export.onnx_backbone`: convolutions over
joined maps are one for each and a sum, one over a map of a single value a channel is worked out on a map that just has
each kind of border, and large ones of 3x3 are done by Winograd's algorithm, see `src.export.onnx_winograd`.
"""

from dataclasses import dataclass

import numpy as np

from src.export.folding import weights_of
from src.export.mobilenet_graph import add_mobilenet
from src.export.onnx_backbone import CHANNEL_BLOCK, CONVOLUTION_ALIGNMENT, add_backbone, apply_gates, dfc_attention
from src.export.onnx_builder import ZERO, FeatureMap, Geometry, GraphBuilder, pad_channels, take
from src.export.onnx_structures import STRUCTURES
from src.export.onnx_winograd import add_winograd, each_pixel, filter_map, is_tiled
from src.mobilenet import MobileNet

WINOGRAD_PRODUCTS = 7_000_000  # channels in x channels out x pixels from which it is faster (measured)


def build_onnx(describe, network, image_shape, batch=None, softmax=False, structures=STRUCTURES, by_batch=True):
    """Build the ONNX model of a network without batch normalisation.

    Args:
        describe: a task's `describe`.
        network: nn.Cell that it describes, from `fold_batch_norm`.
        image_shape: (channels, height, width) of an image, at least 33 pixels a side.
        batch: images in a call; None for any number.
        softmax: end in probabilities.
        structures: layout of the Ghost modules, see `src.export.onnx_backbone`.
        by_batch: lay the graph out for a fixed number of images; the outputs are the same.

    Returns:
        onnx.ModelProto, checked, with input 'image' and the outputs that `describe` names, or 'probabilities' with
        `softmax`.
    """
    graph = OnnxGraph("N" if batch is None else batch, structures, by_batch)
    channels, *size = image_shape
    outputs = describe(graph, graph.input("image", channels, tuple(size)), network)
    if softmax:
        (logits,) = outputs.values()
        outputs = {"probabilities": graph.softmax(logits)}
    return graph.build(["image"], {shown: graph.plain(y) for shown, y in outputs.items()}, type(network).__name__)


def suits_winograd(maps, convolution) -> bool:
    """Whether a convolution over joined maps is one for `add_winograd`, and large enough."""
    counts = (*[len(x.channels) for x in maps], convolution.out_channels)
    geometry = (convolution.kernel_size, convolution.stride, convolution.dilation, convolution.padding)
    return (
        len(maps) > 0
        and geometry == ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
        and all(count % CHANNEL_BLOCK == 0 for count in counts)
        and np.prod(maps[0].size) * sum(counts[:-1]) * counts[-1] >= WINOGRAD_PRODUCTS
    )


@dataclass(frozen=True)
class ExpandedPixel(FeatureMap):
    """A map of one value a channel, for convolutions: the tensor is a single pixel, `size` that of the map."""


class OnnxGraph(GraphBuilder):
    """`src.export.graph.Graph` for ONNX: maps are `FeatureMap`, arrays and logits (N, classes) names of tensors."""

    def __init__(self, batch, structures, by_batch):
        super().__init__(batch, by_batch)
        self.structures = structures

    def backbone(self, image, network) -> list:
        if isinstance(network, MobileNet):
            return add_mobilenet(self, image, network)
        return add_backbone(self, image, network, self.structures)

    def dfc_attention(self, x, dfc, features, name) -> FeatureMap:
        (y,) = apply_gates(self, [features], dfc_attention(self, [x], dfc, name, [features]), name)
        return y

    def convolution(self, maps, convolution, name) -> FeatureMap:
        """Add a convolution, over joined maps if there are several."""
        if convolution.group > 1:
            (x,) = maps
            return self.depthwise(x, convolution, name)
        parts, first = [], 0
        for x in maps:
            parts.append(x.renumbered(channel if channel == ZERO else first + channel for channel in x.channels))
            first += max(x.channels) + 1
        expanded = [part for part in parts if isinstance(part, ExpandedPixel)]
        spatial = [part for part in parts if not isinstance(part, ExpandedPixel)]
        channels = range(convolution.out_channels)
        if self._is_product(maps, convolution):
            return self._multiply_pixels(*parts, convolution, name)
        if len(parts) == 1 and convolution.kernel_size == (1, 1) and is_tiled(self, *parts):
            return each_pixel(self, *parts, lambda x, own: self.convolve_parts([x], convolution, own, channels), name)
        if not suits_winograd(spatial, convolution):  # sums fuse with the convolution behind them
            return self.convolve_parts([*expanded, *spatial], convolution, name, channels)
        weight, bias = weights_of(convolution)
        borders = self.convolve_parts(expanded, convolution, f"{name}.expanded", channels) if expanded else None
        x = spatial[0] if len(spatial) == 1 else self.concat(spatial, f"{name}.joined")
        own, own_bias = (f"{name}.spatial", None) if expanded else (name, bias)
        y = add_winograd(self, x, take(weight, x.channels, 1), own_bias, own, channels)
        return self.add(y, borders, name) if expanded else y

    def _is_product(self, maps, convolution) -> bool:
        """Whether a convolution is a product of matrices of more rows than one, which reads its weights once."""
        pixels = len(maps) == 1 and tuple(maps[0].size) == convolution.kernel_size == (1, 1)
        return pixels and (self.count_images(maps[0]) or 1) > 1

    def _multiply_pixels(self, x, convolution, name) -> FeatureMap:
        """Add a convolution over single pixels as a product of matrices."""
        weight, bias = weights_of(convolution)
        product = self._product(x, take(weight[:, :, 0, 0], x.channels, 1), bias, f"{name}.product")
        shape = self.constant(f"{name}.shape", np.array([0, len(bias), 1, 1], np.int64))
        return self.map_node("Reshape", [product, shape], name, range(len(bias)), (1, 1))

    def _product(self, x, weight, bias, name) -> str:
        """Add the product of pixels (N, C, 1, 1) with a matrix (outputs, C): (N, outputs)."""
        flat = self.node("Flatten", [x.name], f"{name}.flat", [len(x.channels)])
        inputs = [flat, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("Gemm", inputs, name, [len(bias)], transB=1)

    def convolve(self, x, weight, bias, like, name, channels, groups=1) -> FeatureMap:
        """Add a convolution, of stride 1 where `x` is an `ExpandedPixel`."""
        if not isinstance(x, ExpandedPixel):
            return super().convolve(x, weight, bias, like, name, channels, groups)
        # a pixel's value depends on its distance from the border, up to the padding
        borders = (like.padding or (0, 0, 0, 0))[::2]
        small = tuple(min(side, 2 * border + 1) for side, border in zip(x.size, borders))
        pixel = FeatureMap(x.name, x.channels, (1, 1))
        y = self.resize(pixel, small, "nearest", f"{name}.expanded")
        y = super().convolve(y, weight, bias, like, f"{name}.borders", channels, groups)
        sources = []
        for side, kept, border in zip(x.size, small, borders):
            places = np.arange(side)
            sources.append(np.minimum(places, np.maximum(border, places - side + kept)))
        return self.pick(y, *sources, name)

    def project(self, maps, convolution, name, like=None) -> FeatureMap:
        if like is None:  # convolutions may read it
            channels = pad_channels(range(convolution.out_channels), CONVOLUTION_ALIGNMENT)
        else:
            channels = like.channels
        return self.convolve_parts(maps, convolution, name, channels)

    def hard_swish(self, x) -> FeatureMap:
        return self.elementwise("Mul", [x, self.hard_sigmoid(x)], f"{x.name}.hard_swish")

    def mean(self, x, axes, name) -> FeatureMap:
        return self._reduce("ReduceMean", "AveragePool", x, axes, name)

    def amax(self, x, axes, name) -> FeatureMap:
        return self._reduce("ReduceMax", "MaxPool", x, axes, name)

    def _reduce(self, over_channels, pooling, x, axes, name) -> FeatureMap:
        """Reduce a map by one of two operations; the blocked layout knows the pooling alone."""
        if tuple(axes) == (1,):
            x = self.in_order(x, f"{name}.ordered")
            inputs = [x.name, self.constant(f"{name}.axes", np.array(axes, np.int64))]
            return self.map_node(over_channels, inputs, name, (0,), x.size)
        kernel = [side if axis in axes else 1 for axis, side in enumerate(x.size, 2)]
        size = [1 if axis in axes else side for axis, side in enumerate(x.size, 2)]
        return self.map_node(pooling, [x.name], name, x.channels, size, kernel_shape=kernel)

    def average_pool(self, x, name) -> FeatureMap:
        return self.pool("AveragePool", x, name)

    def elementwise(self, operation, inputs, name, **attributes) -> FeatureMap:
        """Add a node on maps of one shape; on the pixels of its tiles, where a map alone is in these."""
        if len(inputs) > 1 or not is_tiled(self, *inputs):
            return super().elementwise(operation, inputs, name, **attributes)
        return each_pixel(self, *inputs, lambda x, own: self.elementwise(operation, [x], own, **attributes), name)

    def leaky_relu(self, x, slope) -> FeatureMap:
        if is_tiled(self, x):
            return each_pixel(self, x, lambda part, _: self.leaky_relu(part, slope), f"{x.name}.leaky_relu")
        is_sum = any(node.op_type == "Add" for node in self.nodes if x.name in node.output)
        if is_sum and len(x.channels) % CHANNEL_BLOCK == 0:  # it fuses with convolutions, not with sums
            x = filter_map(self, x, np.ones((1, 1)), Geometry(), f"{x.name}.same")
        return self.elementwise("LeakyRelu", [x], f"{x.name}.leaky_relu", alpha=slope)

    def expand(self, x, size, name) -> FeatureMap:
        return ExpandedPixel(x.name, x.channels, tuple(size))

    def size(self, x) -> tuple:
        return x.size

    def dense(self, x, dense, name) -> str:
        weight, bias = take(dense.weight.asnumpy(), x.channels, 1), dense.bias.asnumpy()
        if self.count_images(x) != 1:
            return self._product(x, weight, bias, name)
        y = self.convolve(x, weight[..., None, None], bias, Geometry(), f"{name}.pixel", range(len(bias)))  # is faster
        return self.node("Flatten", [y.name], name, [len(bias)])

    def rows(self, x, columns, name) -> str:
        (height, width), count = x.size, max(x.channels) + 1
        places_last = (height, width, count)
        y = self.node("Transpose", [self.plain(x)], f"{name}.channels_last", places_last, perm=(0, 2, 3, 1))
        shape = self.constant(f"{name}.shape", np.array([0, -1, columns], np.int64))
        return self.node("Reshape", [y, shape], name, (height * width * count // columns, columns))

    def join(self, rows, axis, name) -> str:
        shape = list(self.shapes[rows[0]][1:])
        shape[axis - 1] = sum(self.shapes[part][axis] for part in rows)
        return self.node("Concat", rows, name, shape, axis=axis)

    def columns(self, rows, start, stop, name) -> str:
        return self.narrow(rows, 2, start, stop - start, name)

    def squeeze(self, rows, name) -> str:
        axis = self.constant(f"{name}.axis", np.array([2], np.int64))
        return self.node("Squeeze", [rows, axis], name, self.shapes[rows][1:-1])

    def sigmoid(self, x):
        if isinstance(x, FeatureMap):
            return super().sigmoid(x)
        return self.node("Sigmoid", [x], f"{x}.sigmoid", self.shapes[x][1:])

    def exp(self, rows, name) -> str:
        return self.node("Exp", [rows], name, self.shapes[rows][1:])

    def minimum(self, rows, limit, name) -> str:
        return self._binary("Min", rows, np.float32(limit), name)

    def multiply(self, x, other, name):
        if isinstance(x, FeatureMap):
            return self.elementwise("Mul", [x, self._broadcast(other, x, f"{name}.other")], name)
        return self._binary("Mul", x, other, name)

    def _broadcast(self, x, like, name) -> FeatureMap:
        """Repeat a map along the axes where it has length 1, in nodes that the blocked layout knows."""
        if len(x.channels) == 1:
            ones = np.ones((len(like.channels), 1, 1, 1), np.float32)
            x = self.convolve(x, ones, None, Geometry(), f"{name}.channels", like.channels)
        return x if x.size == like.size else self.resize(x, like.size, "nearest", name)

    def add(self, x, other, name):
        if isinstance(x, FeatureMap):
            return super().add(x, other, name)
        return self._binary("Add", x, other, name)

    def subtract(self, rows, other, name) -> str:
        return self._binary("Sub", rows, other, name)

    def _binary(self, operation, rows, other, name) -> str:
        """Add a node on rows and on others of their shape, or on an array, stored in full if it is no number."""
        if not isinstance(other, str):
            shape = self.shapes[rows][1:] if np.ndim(other) else ()
            other = self.constant(f"{name}.constant", np.broadcast_to(np.asarray(other, np.float32), shape))
        return self.node(operation, [rows, other], name, self.shapes[rows][1:])

    def softmax(self, logits) -> str:
        axis = 1 if isinstance(logits, FeatureMap) else -1
        logits = self.plain(logits)
        return self.node("Softmax", [logits], f"{logits}.softmax", self.shapes[logits][1:], axis=axis)

    def array(self, x, name) -> str:
        return self.in_order(x, name).name

    def map(self, array, name) -> FeatureMap:
        _, channels, *size = self.shapes[array]
        return FeatureMap(array, tuple(range(channels)), tuple(size))

    def view(self, array, shape, name) -> str:
        sides = self.constant(f"{name}.shape", np.array([0, *shape], np.int64))
        return self.node("Reshape", [array, sides], name, shape)

    def transpose(self, array, order, name) -> str:
        sides = self.shapes[array]
        return self.node("Transpose", [array], name, [sides[axis] for axis in order[1:]], perm=order)

    def narrow(self, array, axis, start, length, name) -> str:
        limits = {"from": start, "to": start + length, "axis": axis}
        inputs = [self.constant(f"{name}.{key}", np.array([value], np.int64)) for key, value in limits.items()]
        shape = list(self.shapes[array])
        shape[axis] = length
        return self.node("Slice", [array, *inputs], name, shape[1:])

    def matmul(self, array, other, name) -> str:
        return self.node("MatMul", [array, other], name, (*self.shapes[array][1:-1], self.shapes[other][-1]))

    def plain(self, x) -> str:
        """Give the name of a tensor that holds the channels of a map in the network's order; rows are as they are."""
        return self.in_order(x, f"{x.name}.ordered").name if isinstance(x, FeatureMap) else x
