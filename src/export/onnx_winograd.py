"""A dense 3x3 convolution by Winograd's minimal filtering, in nodes that keep ONNX Runtime's blocked layout.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1: F(2x2, 3x3), which
takes 16 products for four pixels, not 36. Tiles of 4x4 pixels overlap by two, so that each of the 16 places of the
transformed tiles is a depthwise convolution of stride 2 with four taps, and the products are 1x1 convolutions.

The result is four maps, of the pixels of tiles of 2x2. Activations, 1x1 convolutions and the next convolution of this
kind work on them as they are; one map is made of them, which takes copies, only where something else reads it.
"""

from dataclasses import dataclass, replace

import numpy as np

from src.export.onnx_builder import FeatureMap, Geometry

TILE = 4
INPUT_TRANSFORM = (  # B^T in the paper's notation: its rows have two entries
    # places, values
    ((0, 2), (1, -1)),
    ((1, 2), (1, 1)),
    ((1, 2), (-1, 1)),
    ((1, 3), (1, -1)),
)
# G; the last row is negative, which makes A^T of `_transform_output` ((1, 1, 1, 0), (0, 1, -1, 1))
KERNEL_TRANSFORM = np.array(((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, -1)))


@dataclass(frozen=True)
class TiledMap(FeatureMap):
    """A map whose tensor is added when a node reads it; until then, the pixels of its tiles of 2x2 are four maps.

    Attributes:
        pixels: the four maps, in the order of the pixels in a tile.
    """

    pixels: tuple

    def renumbered(self, channels):
        whole = super().renumbered(channels)
        return replace(whole, pixels=tuple(x.renumbered(whole.channels) for x in self.pixels))


def tile(graph, pixels, size, name) -> TiledMap:
    """Make a `TiledMap` of four maps; parts of tiles beyond `size` are left out of its tensor."""
    graph.deferred[name] = lambda: _interleave(graph, pixels, size, name)
    return TiledMap(name, pixels[0].channels, tuple(size), tuple(pixels))


def is_tiled(graph, x) -> bool:
    """Whether `x` is a `TiledMap` without a tensor."""
    return isinstance(x, TiledMap) and x.name in graph.deferred


def each_pixel(graph, x, function, name) -> TiledMap:
    """Apply a function of a map and a name to each of the four maps of a `TiledMap` without a tensor."""
    return tile(graph, [function(part, f"{name}.pixel.{index}") for index, part in enumerate(x.pixels)], x.size, name)


def add_winograd(graph, x, weight, bias, name, channels) -> TiledMap:
    """Add a convolution of stride 1 whose padding of 1 keeps the size.

    Args:
        graph: `GraphBuilder`.
        x: `FeatureMap`.
        weight, bias: arrays (len(channels), len(x.channels), 3, 3) and (len(channels),), laid out for `x`.
        name: of the output.
        channels: what the output's places hold.
    """
    kernels = np.einsum("ip,jq,oapq->ijoa", KERNEL_TRANSFORM, KERNEL_TRANSFORM, weight.astype(np.float64))
    kernels = kernels.astype(np.float32)[..., None, None]
    whole_tiles = all(side % 2 == 0 for side in x.size)  # else there are pixels beyond the map, which are not zero
    transform = _transform_pixels if is_tiled(graph, x) and whole_tiles else _transform_map
    places = transform(graph, x, f"{name}.input")
    rows = []
    for i in range(TILE):
        products = []
        for j in range(TILE):
            own_bias = bias if (i, j) == (1, 1) else None  # the product that all four pixels contain once
            own = f"{name}.{i}{j}"
            products.append(graph.convolve(places[i][j], kernels[i, j], own_bias, Geometry(), own, channels))
        rows.append(_transform_output(graph, products, f"{name}.{i}"))
    columns = [_transform_output(graph, column, f"{name}.column.{index}") for index, column in enumerate(zip(*rows))]
    return tile(graph, [columns[j][i] for i in range(2) for j in range(2)], x.size, name)


def _transform_map(graph, x, name) -> list:
    """Add all places of the transformed tiles of a map: rows of maps of a pixel for each tile."""
    return [[_transform_place(graph, x, i, j, f"{name}.{i}{j}") for j in range(TILE)] for i in range(TILE)]


def _transform_place(graph, x, i, j, name):
    """Add place (i, j) of the transformed tiles, with all channels."""
    (rows, row_values), (columns, column_values) = INPUT_TRANSFORM[i], INPUT_TRANSFORM[j]
    dilation, padding = [], []
    for side, (first, last) in zip(x.size, (rows, columns)):
        before = 1 - first if first < 1 else 0  # tiles begin a pixel before the map
        dilation.append(last - first)
        padding += [before, 2 * ((side - 1) // 2) + last - first + 1 - side - before]
    kernel = np.outer(row_values, column_values)
    return filter_map(graph, x, kernel, Geometry((2, 2), (2, 2), tuple(dilation), tuple(padding)), name)


def _transform_pixels(graph, x, name) -> list:
    """Add what `_transform_map` does, of the pixels of a `TiledMap`: along rows, then along columns."""
    lines = [_transform_pairs(graph, *x.pixels[i : i + 2], 1, f"{name}.line.{i // 2}") for i in (0, 2)]
    columns = [_transform_pairs(graph, *pair, 0, f"{name}.column.{j}") for j, pair in enumerate(zip(*lines))]
    return list(zip(*columns))


def _transform_pairs(graph, even, odd, axis, name) -> list:
    """Multiply tiles by B along an axis, of maps of their even and odd pixels: a tile begins with an odd one before."""
    kernel = np.array((1, -1)).reshape((1, 2) if axis else (2, 1))
    before, after = ((0, 0, 1, 0), (0, 0, 0, 1)) if axis else ((1, 0, 0, 0), (0, 1, 0, 0))
    first = filter_map(graph, odd, kernel, Geometry(kernel.shape, padding=before), f"{name}.0")
    total = graph.add(even, odd, f"{name}.1")
    difference = graph.add(negate(graph, even, f"{name}.minus"), odd, f"{name}.2")
    last = filter_map(graph, even, kernel, Geometry(kernel.shape, padding=after), f"{name}.3")
    return [first, total, difference, last]


def negate(graph, x, name):
    """Add -x, as a depthwise convolution: the blocked layout knows no difference."""
    return filter_map(graph, x, np.array(((-1,),)), Geometry(), name)


def filter_map(graph, x, kernel, geometry, name) -> FeatureMap:
    """Add a depthwise convolution with one kernel (height, width) for all channels."""
    weight = np.tile(kernel.astype(np.float32), (len(x.channels), 1, 1, 1))
    return graph.convolve(x, weight, None, geometry, name, x.channels, groups=len(x.channels))


def _transform_output(graph, maps, name) -> tuple:
    """Multiply four maps by A^T: m0 + m1 + m2 and m1 - m2 + m3."""
    first, second, third, last = maps
    total = graph.add(second, third, f"{name}.total")
    difference = graph.add(negate(graph, third, f"{name}.minus"), second, f"{name}.difference")
    return graph.add(first, total, f"{name}.first"), graph.add(last, difference, f"{name}.second")


def _interleave(graph, pixels, size, name):
    """Lay out four maps, of the pixels of tiles of 2x2 in their order, as one.

    With channels last, joints along the inner axes do that, which copy much faster than DepthToSpace. The first Reshape
    keeps ONNX Runtime from moving channels behind the first joint.
    """
    channels, (height, width) = pixels[0].channels, pixels[0].size
    count, lines = len(channels), []
    for row in range(2):
        parts = []
        for column, x in enumerate(pixels[2 * row : 2 * row + 2]):
            own = f"{name}.pixel.{row}{column}"
            part = graph.node("Transpose", [x.name], own, (height, width, count), perm=(0, 2, 3, 1))
            parts.append(_reshape(graph, part, (height * width, count), f"{own}.flat"))
        line = graph.node("Concat", parts, f"{name}.row.{row}", (height * width, 2 * count), axis=2)
        lines.append(_reshape(graph, line, (height, 2 * width * count), f"{line}.flat"))
    y = graph.node("Concat", lines, f"{name}.rows", (height, 4 * width * count), axis=2)
    y = _reshape(graph, y, (2 * height, 2 * width, count), f"{name}.whole")
    if (2 * height, 2 * width) != tuple(size):
        limits = [np.array(values, np.int64) for values in ((0, 0), size, (1, 2))]
        inputs = [graph.constant(f"{name}.{key}", values) for key, values in zip(("from", "to", "axes"), limits)]
        y = graph.node("Slice", [y, *inputs], f"{name}.cropped", (*size, count))
    return graph.map_node("Transpose", [y], name, channels, size, perm=(0, 3, 1, 2))


def _reshape(graph, x, shape, name) -> str:
    return graph.node("Reshape", [x, graph.constant(f"{name}.shape", np.array((0, *shape), np.int64))], name, shape)
