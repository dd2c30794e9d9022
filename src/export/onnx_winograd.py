"""A dense 3x3 convolution by Winograd's minimal filtering, in nodes that keep ONNX Runtime's blocked layout.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1: F(2x2, 3x3), which
takes 16 products for four pixels, not 36. Tiles of 4x4 pixels overlap by two, so that each of the 16 places of the
transformed tiles is a depthwise convolution of stride 2 with four taps, and the products are 1x1 convolutions.
"""

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


def add_winograd(graph, x, weight, bias, name, channels) -> FeatureMap:
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
    rows = []
    for i in range(TILE):
        products = []
        for j in range(TILE):
            own = f"{name}.{i}{j}"
            place = _transform_input(graph, x, i, j, f"{own}.input")
            own_bias = bias if (i, j) == (1, 1) else None  # the product that all four pixels contain once
            products.append(graph.convolve(place, kernels[i, j], own_bias, Geometry(), own, channels))
        rows.append(_transform_output(graph, products, f"{name}.{i}"))
    columns = [_transform_output(graph, column, f"{name}.column.{index}") for index, column in enumerate(zip(*rows))]
    pixels = [columns[j][i] for i in range(2) for j in range(2)]
    return _interleave(graph, pixels, x.size, name)


def _transform_input(graph, x, i, j, name):
    """Add place (i, j) of the transformed tiles: a pixel for each tile, with all channels."""
    (rows, row_values), (columns, column_values) = INPUT_TRANSFORM[i], INPUT_TRANSFORM[j]
    dilation, padding = [], []
    for side, (first, last) in zip(x.size, (rows, columns)):
        before = 1 - first if first < 1 else 0  # tiles begin a pixel before the map
        dilation.append(last - first)
        padding += [before, 2 * ((side - 1) // 2) + last - first + 1 - side - before]
    kernel = np.outer(row_values, column_values).astype(np.float32)
    weight = np.tile(kernel, (len(x.channels), 1, 1, 1))
    geometry = Geometry((2, 2), (2, 2), tuple(dilation), tuple(padding))
    return graph.convolve(x, weight, None, geometry, name, x.channels, groups=len(x.channels))


def _transform_output(graph, maps, name) -> tuple:
    """Multiply four maps by A^T: m0 + m1 + m2 and m1 - m2 + m3.

    A depthwise convolution by -1 stands for the minus: the blocked layout knows no difference.
    """
    first, second, third, last = maps
    minus = np.full((len(third.channels), 1, 1, 1), -1, np.float32)
    negative = graph.convolve(third, minus, None, Geometry(), f"{name}.minus", third.channels, len(third.channels))
    total = graph.add(second, third, f"{name}.total")
    difference = graph.add(negative, second, f"{name}.difference")
    return graph.add(first, total, f"{name}.first"), graph.add(last, difference, f"{name}.second")


def _interleave(graph, pixels, size, name):
    """Lay out four maps, of the pixels of tiles of 2x2 in their order, as one.

    With channels last, joints along the inner axes do that, which copy much faster than DepthToSpace.
    """
    channels, (height, width) = pixels[0].channels, pixels[0].size
    count, lines = len(channels), []
    for row in range(2):
        parts = []
        for column, x in enumerate(pixels[2 * row : 2 * row + 2]):
            own = f"{name}.pixel.{row}{column}"
            parts.append(graph.node("Transpose", [x.name], own, (height, width, count), perm=(0, 2, 3, 1)))
        line = graph.node("Concat", parts, f"{name}.row.{row}", (height, width, 2 * count), axis=3)
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
