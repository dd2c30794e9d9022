"""ONNX nodes for convolutional networks, with the shape of every tensor and the place of every channel known.

A feature may be spread over several tensors, and a tensor may hold channels twice, in another order, or zeros
in between: `FeatureMap.channels` says what is where, and the weights of each convolution are laid out for it.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.export.folding import weights_of
from src.layers.blocks import bicubic_weights

OPSET = 18  # the first whose Resize takes sizes for height and width alone
IR_VERSION = 8  # of the first onnx release with that opset, so that older runtimes read the file
ZERO = -1  # in `FeatureMap.channels`: a place that holds zeros

RESIZE_MODES = {  # those of `src.layers.blocks.resize`, each as in PyTorch; bicubic is a product with matrices
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "bilinear_align_corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
}


@dataclass(frozen=True)
class FeatureMap:
    """Tensor (N, len(channels), *size): place i holds channel `channels[i]` of the network's feature, or `ZERO`."""

    name: str
    channels: Tuple[int, ...]
    size: Tuple[int, int]

    def renumbered(self, channels):
        """Name the places of the same tensor anew."""
        return replace(self, channels=tuple(channels))


class Geometry(NamedTuple):
    """What `GraphBuilder.convolve` takes from an nn.Conv2d; padding is top, bottom, left, right."""

    kernel_size: Tuple[int, int] = (1, 1)
    stride: Tuple[int, int] = (1, 1)
    dilation: Tuple[int, int] = (1, 1)
    padding: Tuple[int, int, int, int] = (0, 0, 0, 0)


def pad_channels(channels, multiple) -> tuple:
    """Put places of zeros behind `channels`, up to a multiple of `multiple`."""
    return (*channels, *[ZERO] * (-len(channels) % multiple))


def take(array, places, axis=0):
    """Take the entries of `array` at `places` along `axis`; zeros where a place is `ZERO`."""
    places = np.asarray(places)
    taken = np.take(array, np.maximum(places, 0), axis)
    mask = np.expand_dims(places != ZERO, tuple(range(1, taken.ndim - axis)))
    return taken * mask.astype(array.dtype)


class GraphBuilder:
    """Collects nodes and weights; each method adds the nodes for one operation and returns its output.

    Args:
        batch: number of images, or a name for one that is open.
        by_batch: whether the layout may depend on that number.

    All shapes but the batch are static, and each tensor's shape is noted in the graph: with an open batch
    ONNX Runtime keeps its blocked layout only where it can read the shapes.
    """

    def __init__(self, batch, by_batch=True):
        self.batch, self.by_batch = batch, by_batch
        self.nodes, self.weights, self.shapes = [], {}, {}
        self.deferred = {}  # name of a tensor: function that adds it, called when a node reads it

    def input(self, name, channels, size) -> FeatureMap:
        """Add an input of the graph."""
        self.shapes[name] = (self.batch, channels, *size)
        return FeatureMap(name, tuple(range(channels)), size)

    def constant(self, name, array) -> str:
        """Store an array under a name of its own; returns the name, or that of an equal array that is there."""
        if name in self.weights:
            raise ValueError(f"{name} is there already")
        for other, stored in self.weights.items():
            if stored.dtype == array.dtype and np.array_equal(stored, array):
                return other
        self.weights[name] = array
        return name

    def node(self, operation, inputs, name, shape, **attributes) -> str:
        """Add a node with one output, called `name` like the node, of shape (batch of its inputs, *shape)."""
        if name in self.shapes:
            raise ValueError(f"{name} is there already")
        self._add_deferred(inputs)
        self.nodes.append(helper.make_node(operation, list(inputs), [name], name, **attributes))
        self.shapes[name] = (next(self.shapes[tensor][0] for tensor in inputs if tensor in self.shapes), *shape)
        return name

    def _add_deferred(self, names) -> None:
        for name in names:
            if name in self.deferred:
                self.deferred.pop(name)()

    def count_images(self, x) -> Optional[int]:
        """Count the images of a map; None if that is open or the layout must not depend on it."""
        images = self.shapes[x.name][0]
        return images if isinstance(images, int) and self.by_batch else None

    def split_images(self, x, most) -> list:
        """Split a map along the batch into maps of `most` images or fewer, where `count_images` knows these."""
        images, shape = self.count_images(x), self.shapes[x.name][1:]
        if images is None or images <= most:
            return [x]
        counts = [len(part) for part in np.array_split(range(images), math.ceil(images / most))]
        names = [f"{x.name}.{index}" for index in range(len(counts))]
        inputs = [x.name, self.constant(f"{x.name}.counts", np.array(counts, np.int64))]
        self.nodes.append(helper.make_node("Split", inputs, names, f"{x.name}.split", axis=0))
        self.shapes.update({name: (count, *shape) for name, count in zip(names, counts)})
        return [replace(x, name=name) for name in names]

    def join_images(self, maps, name) -> FeatureMap:
        """Join maps along the batch, undoing `split_images`."""
        if len(maps) == 1:
            return maps[0]
        y = self.map_node("Concat", [part.name for part in maps], name, maps[0].channels, maps[0].size, axis=0)
        self.shapes[name] = (self.batch, *self.shapes[name][1:])
        return y

    def map_node(self, operation, inputs, name, channels, size, **attributes) -> FeatureMap:
        """Add a `node` whose output is a feature map."""
        self.node(operation, inputs, name, (len(channels), *size), **attributes)
        return FeatureMap(name, tuple(channels), tuple(size))

    def convolve(self, x, weight, bias, like, name, channels, groups=1) -> FeatureMap:
        """Add a convolution with arrays laid out for `x` and `channels`, and kernel, stride and padding of `like`."""
        top, bottom, left, right = like.padding or (0, 0, 0, 0)  # without padding it is the number 0
        spans = zip(x.size, (top + bottom, left + right), like.kernel_size, like.dilation, like.stride)
        size = [(side + padding - dilation * (k - 1) - 1) // stride + 1 for side, padding, k, dilation, stride in spans]
        inputs = [x.name, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        attributes = {"strides": like.stride, "dilations": like.dilation, "pads": (top, left, bottom, right)}
        return self.map_node(
            "Conv", inputs, name, channels, size, kernel_shape=like.kernel_size, group=groups, **attributes
        )

    def convolve_parts(self, maps, convolution, name, channels) -> FeatureMap:
        """Add a dense nn.Conv2d over a feature in one or more maps: one convolution for each, added up."""
        weight, bias = (take(array, channels) for array in weights_of(convolution))
        total = None
        for index, part in enumerate(maps):
            own = name if len(maps) == 1 else f"{name}.{index}"
            part_bias = bias if total is None else None
            y = self.convolve(part, take(weight, part.channels, 1), part_bias, convolution, own, channels)
            total = y if total is None else self.add(y, total, f"{name}.sum.{index}")
        return total

    def depthwise(self, x, convolution, name) -> FeatureMap:
        """Add a depthwise nn.Conv2d, channel i to channel i."""
        weight, bias = (take(array, x.channels) for array in weights_of(convolution))
        return self.convolve(x, weight, bias, convolution, name, x.channels, groups=len(x.channels))

    def elementwise(self, operation, inputs, name, **attributes) -> FeatureMap:
        """Add a node on maps of one shape, such as Relu or Mul; its output holds the channels of the first."""
        first = inputs[0]
        if len({(len(x.channels), tuple(x.size)) for x in inputs}) > 1:
            raise ValueError(f"{name}: inputs of different shapes")
        return self.map_node(operation, [x.name for x in inputs], name, first.channels, first.size, **attributes)

    def relu(self, x) -> FeatureMap:
        return self.elementwise("Relu", [x], f"{x.name}.relu")

    def relu6(self, x) -> FeatureMap:
        return self.clip(x, 0.0, 6.0)

    def add(self, x, y, name) -> FeatureMap:
        """Sum of two maps with the same channels in the same places."""
        if x.channels != y.channels:
            raise ValueError(f"{name}: {x.name} and {y.name} hold different channels")
        return self.elementwise("Add", [x, y], name)

    def hard_sigmoid(self, x) -> FeatureMap:
        return self.elementwise("HardSigmoid", [x], f"{x.name}.gate", alpha=1 / 6, beta=0.5)

    def clip(self, x, low=0.0, high=1.0) -> FeatureMap:
        """Limit all values."""
        name = f"{x.name}.clip"
        limits = [self.constant(f"{name}.{end}", np.float32(limit)) for end, limit in (("low", low), ("high", high))]
        return self.map_node("Clip", [x.name, *limits], name, x.channels, x.size)

    def sigmoid(self, x) -> FeatureMap:
        return self.elementwise("Sigmoid", [x], f"{x.name}.gate")

    def concat(self, maps, name) -> FeatureMap:
        """Join the channels of several maps."""
        channels = [channel for part in maps for channel in part.channels]
        return self.map_node("Concat", [part.name for part in maps], name, channels, maps[0].size, axis=1)

    def pool(self, operation, x, name) -> FeatureMap:
        """Add a 2x2 AveragePool or MaxPool with stride 2; an odd last row or column is left out."""
        size = [side // 2 for side in x.size]
        return self.map_node(operation, [x.name], name, x.channels, size, kernel_shape=(2, 2), strides=(2, 2))

    def global_mean(self, x) -> FeatureMap:
        return self.map_node("GlobalAveragePool", [x.name], f"{x.name}.mean", x.channels, (1, 1))

    def resize(self, x, size, mode, name) -> FeatureMap:
        """Resize to `size`; by whole factors with scales, which ONNX Runtime wants."""
        if mode == "bicubic":
            return self.resize_by_matrices(x, size, name)
        whole = all(target % side == 0 for target, side in zip(size, x.size))
        if mode in ("nearest", "bilinear") and whole:
            scales = [1.0, 1.0, *(target / side for target, side in zip(size, x.size))]
            inputs, attributes = [x.name, "", self.constant(f"{name}.scales", np.array(scales, np.float32))], {}
        else:
            inputs = [x.name, "", "", self.constant(f"{name}.sizes", np.array(size, np.int64))]
            attributes = {"axes": (2, 3)}
        return self.map_node("Resize", inputs, name, x.channels, size, **RESIZE_MODES[mode], **attributes)

    def resize_by_matrices(self, x, size, name) -> FeatureMap:
        """Resize with bicubic as products with matrices: ONNX Runtime's own operator takes 50 times as long."""
        rows, columns = (bicubic_weights(*sides).asnumpy() for sides in zip(x.size, size))
        inputs = [self.constant(f"{name}.rows", rows), x.name]  # (h, H) x (N, C, H, W) -> (N, C, h, W)
        y = self.node("MatMul", inputs, f"{name}.height", (len(x.channels), size[0], x.size[1]))
        inputs = [y, self.constant(f"{name}.columns", columns.T)]  # (N, C, h, W) x (W, w) -> (N, C, h, w)
        return self.map_node("MatMul", inputs, name, x.channels, size)

    def nearest_by_matrix(self, x, size, name) -> FeatureMap:
        """Resize with nearest as a product with a one-hot matrix."""
        rows, columns = (np.arange(target) * side // target for target, side in zip(size, x.size))
        return self.pick(x, rows, columns, name)

    def pick(self, x, rows, columns, name) -> FeatureMap:
        """Pick rows and columns of a map, as a product with a one-hot matrix: (N, C, h w) x (h w, H W).

        The pooling of single pixels at the end changes nothing but the layout, back to the blocked one.
        """
        size = (len(rows), len(columns))
        sources = (rows[:, None] * x.size[1] + columns).ravel()  # (H, W) -> (H W)
        one_hot = np.eye(x.size[0] * x.size[1], dtype=np.float32)[:, sources]
        count = len(x.channels)
        flat_shape = self.constant(f"{name}.flat.shape", np.array([0, count, -1], np.int64))
        flat = self.node("Reshape", [x.name, flat_shape], f"{name}.flat", (count, one_hot.shape[0]))
        matrix = self.constant(f"{name}.one_hot", one_hot)
        product = self.node("MatMul", [flat, matrix], f"{name}.product", (count, one_hot.shape[1]))
        shape = self.constant(f"{name}.shape", np.array([0, count, *size], np.int64))
        plain = self.node("Reshape", [product, shape], f"{name}.plain", (count, *size))
        return self.map_node("MaxPool", [plain], name, x.channels, size, kernel_shape=(1, 1))

    def in_order(self, x, name) -> FeatureMap:
        """Bring the channels of `x` into the network's order, without zeros between."""
        count = max(x.channels) + 1
        order = tuple(range(count))
        if x.channels == order:
            return x
        places = np.array([x.channels.index(channel) for channel in order], np.int64)
        return self.map_node("Gather", [x.name, self.constant(f"{name}.order", places)], name, order, x.size, axis=1)

    def build(self, inputs, outputs, name) -> onnx.ModelProto:
        """Build the model, checked by `onnx.checker`.

        Args:
            inputs: names of the graph's inputs.
            outputs: {name to show: name of the tensor here}.
            name: of the graph.
        """
        self._add_deferred(outputs.values())
        nodes, needed = self._find_needed(outputs.values())
        renamed = {tensor: shown for shown, tensor in outputs.items()}
        for node in nodes:
            node.input[:] = [renamed.get(tensor, tensor) for tensor in node.input]
            node.output[:] = [renamed.get(tensor, tensor) for tensor in node.output]
        shapes = {renamed.get(tensor, tensor): self.shapes[tensor] for tensor in self.shapes if tensor in needed}
        weights = {key: value for key, value in self.weights.items() if key in needed}
        infos = {key: helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()}
        graph = helper.make_graph(
            nodes,
            name,
            [infos.pop(tensor) for tensor in inputs],
            [infos.pop(shown) for shown in outputs],
            [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in weights.items()],
            value_info=list(infos.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _find_needed(self, outputs):
        """Find the nodes that outputs depend on, and the names of all tensors there."""
        nodes, needed = [], set(outputs)
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input, node.output)
        return nodes[::-1], needed
