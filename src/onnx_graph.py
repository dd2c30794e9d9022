"""GhostNetV2 as an ONNX graph, laid out for the CPU kernels of ONNX Runtime.

Its fast layout holds channels in blocks of 16 (8 without AVX-512) and knows no slices, no broadcast and no
joint of parts that end within a block. So this graph differs from a plain translation:

- Blocks 0 to 8 have Ghost modules without a concatenation: the primary convolution emits its channels twice, and
  one depthwise convolution over both has an identity kernel for the first half and the cheap operation's for
  the second. Elsewhere both halves are padded with zero channels to whole blocks and concatenated.
- Blocks 3, 5 and 11 never join the halves of their first Ghost module: what follows works on each. Block 1 joins
  them behind its strided convolution, where they are a quarter of the size.
- The squeeze-and-excitation scale is resized to the full map, so that the product needs no broadcast.
- A resize by no whole factor, on small maps, is a product with a one-hot matrix.
"""

import numpy as np

from src.ghostnetv2 import BLOCKS
from src.onnx_builder import GraphBuilder, pad_channels, take, weights_of

CHANNEL_BLOCK = 16  # of ONNX Runtime's layout with AVX-512; a multiple of those of other processors
CONVOLUTION_ALIGNMENT = 4  # channels that its blocked convolutions read at once

LAST_DOUBLED_BLOCK = 8  # up to here the doubled primary convolution is cheaper than a concatenation
SPLIT_BLOCKS = (1, 3, 5, 11)  # the halves of their first Ghost module stay apart
LATE_JOIN_BLOCKS = (1,)  # and are joined behind the strided convolution
LARGEST_ONE_HOT = 4096  # entries; 9 x 49 and 9 x 64 are faster than Resize, large matrices are not


def build_onnx(network, image_shape, batch=None, softmax=False):
    """ONNX model of a network without batch normalisation.

    Args:
        network: `GhostNetV2`, from `fold_batch_norm`.
        image_shape: (channels, height, width) of a picture.
        batch: pictures in a call; None for any number.
        softmax: end in probabilities.

    Returns:
        onnx.ModelProto with input 'image' and output 'logits', or 'probabilities' with `softmax`, or one
        'map_STRIDE' for each map of a network with `features_only`.
    """
    graph = GraphBuilder("N" if batch is None else batch)
    channels, height, width = image_shape
    image = graph.input("image", channels, (height, width))
    maps = backbone(graph, image, network)
    if network.features_only:
        outputs = {
            f"map_{index}": graph.in_order(y, f"map_{index}.ordered").name for index, y in enumerate(maps)
        }
    else:
        outputs = {"probabilities" if softmax else "logits": head(graph, maps[-1], network, softmax)}
    return graph.build(["image"], outputs, type(network).__name__)


def backbone(graph, image, network) -> list:
    """The stem and all bottlenecks; the maps at the ends of the stages."""
    stem = range(network.conv_stem.out_channels)
    x = graph.relu(graph.convolution([image], network.conv_stem, "conv_stem", tuple(stem)))
    maps = []
    for index in range(len(BLOCKS)):
        x = bottleneck(graph, x, network.blocks[index], index)
        if index in network.stage_ends:
            maps.append(x)
    return maps


def head(graph, x, network, softmax) -> str:
    """Last convolution, mean over the picture, two dense layers."""
    last = network.blocks[-1].conv
    x = graph.relu(graph.convolution([x], last, "blocks.16", tuple(range(last.out_channels))))
    x = graph.global_mean(x)
    hidden = tuple(range(network.conv_head.out_channels))
    x = graph.relu(graph.convolution([x], network.conv_head, "conv_head", hidden))
    flat = graph.node("Flatten", [x.name], "flatten", (len(hidden),))
    classifier = network.classifier
    weight = graph.constant("classifier.weight", classifier.weight.asnumpy())
    bias = graph.constant("classifier.bias", classifier.bias.asnumpy())
    classes = (classifier.out_channels,)
    logits = graph.node("Gemm", [flat, weight, bias], "classifier", classes, transB=1)
    return graph.node("Softmax", [logits], "softmax", classes, axis=1) if softmax else logits


def bottleneck(graph, x, block, index):
    """`GhostBottleneck` on one map; its output is one map too."""
    name = f"blocks.{index}"
    doubled = index <= LAST_DOUBLED_BLOCK
    maps = ghost_module(graph, [x], block.ghost1, f"{name}.ghost1", doubled, index in SPLIT_BLOCKS)
    if block.dw is not None:
        maps = [graph.depthwise(part, block.dw.conv, _part(f"{name}.dw", maps, i)) for i, part in enumerate(maps)]
    if index in LATE_JOIN_BLOCKS and len(maps) > 1:
        maps = [graph.concat(maps, f"{name}.join")]
    if block.se is not None:
        maps = squeeze_excitation(graph, maps, block.se, f"{name}.se")
    (y,) = ghost_module(graph, maps, block.ghost2, f"{name}.ghost2", doubled)
    return graph.add(y, shortcut(graph, x, block, f"{name}.shortcut", y.channels), f"{name}.add")


def shortcut(graph, x, block, name, channels):
    """The residual of a bottleneck, with `channels` in their places."""
    if block.shortcut is None:
        return x
    depthwise, pointwise = (cell.conv for cell in block.shortcut.cell_list)
    return graph.convolution([graph.depthwise(x, depthwise, f"{name}.0")], pointwise, f"{name}.1", channels)


def ghost_module(graph, maps, module, name, doubled, split=False) -> list:
    """`GhostModule` on a feature in one or more maps: one map, or with `split` its two halves."""
    if doubled and not split:
        features = [doubled_ghost(graph, maps, module, name)]
    else:
        features = ghost_halves(graph, maps, module, name)
        if not split:
            features = [graph.concat(features, f"{name}.join")]
    if module.short_conv is None:
        return features
    attention = dfc_attention(graph, maps, module.short_conv, f"{name}.short_conv", features)
    pairs = zip(features, attention)
    return [graph.elementwise("Mul", pair, _part(f"{name}.gated", features, i)) for i, pair in enumerate(pairs)]


def doubled_ghost(graph, maps, module, name):
    """The features of a Ghost module without a concatenation."""
    primary, cheap = module.primary_conv, module.cheap_operation
    half = primary.conv.out_channels
    twice = (*range(half), *range(half))
    y = _activate(graph, primary, graph.convolution(maps, primary.conv, f"{name}.primary_conv", twice))
    weight, bias = weights_of(cheap.conv)
    identity = np.zeros_like(weight)
    identity[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = 1
    weight, bias = np.concatenate((identity, weight)), np.concatenate((np.zeros_like(bias), bias))
    channels = tuple(range(2 * half))
    y = graph.convolve(y, weight, bias, cheap.conv, f"{name}.cheap_operation", channels, groups=2 * half)
    return _activate(graph, cheap, y)  # a second ReLU on the first half changes nothing


def ghost_halves(graph, maps, module, name) -> list:
    """Both halves of a Ghost module's features, each padded to whole blocks."""
    primary, cheap = module.primary_conv, module.cheap_operation
    half = primary.conv.out_channels
    channels = pad_channels(range(half), CHANNEL_BLOCK)
    first = _activate(graph, primary, graph.convolution(maps, primary.conv, f"{name}.primary_conv", channels))
    weight, bias = (take(array, channels) for array in weights_of(cheap.conv))
    channels = pad_channels(range(half, 2 * half), CHANNEL_BLOCK)
    second = graph.convolve(
        first, weight, bias, cheap.conv, f"{name}.cheap_operation", channels, groups=len(channels)
    )
    return [first, _activate(graph, cheap, second)]


def squeeze_excitation(graph, maps, cell, name) -> list:
    """`SqueezeExcitation` on a feature in one or more maps."""
    means = [graph.global_mean(part) for part in maps]
    reduced = tuple(range(cell.conv_reduce.out_channels))
    y = graph.relu(graph.convolution(means, cell.conv_reduce, f"{name}.conv_reduce", reduced))
    scaled = []
    for index, part in enumerate(maps):
        expand = _part(f"{name}.conv_expand", maps, index)
        scale = graph.hard_sigmoid(graph.convolution([y], cell.conv_expand, expand, part.channels))
        scale = graph.resize(scale, part.size, "nearest", f"{scale.name}.resize")
        scaled.append(graph.elementwise("Mul", [part, scale], _part(f"{name}.scaled", maps, index)))
    return scaled


def dfc_attention(graph, maps, dfc, name, features) -> list:
    """`DFCAttention` of the input `maps`: for each map of `features` one that holds the same channels."""
    halved = [halve(graph, part, dfc, _part(f"{name}.halved", maps, i)) for i, part in enumerate(maps)]
    gate = {"Sigmoid": graph.sigmoid, "HSigmoid": graph.hard_sigmoid}.get(type(dfc.gate).__name__)
    gate_first = dfc.gate_first or dfc.up_sampling == "nearest"  # then both orders give the same, this one faster
    attention = []
    for index, target in enumerate(features):
        pointwise, row, column = (_part(f"{name}.{place}", features, index) for place in range(3))
        y = graph.convolution(halved, dfc.cell_list[0].conv, pointwise, target.channels)
        y = graph.depthwise(y, dfc.cell_list[1].conv, row)
        y = graph.depthwise(y, dfc.cell_list[2].conv, column)
        y = gate(y) if gate and gate_first else y
        y = up_sample(graph, y, target.size, dfc.up_sampling, _part(f"{name}.resize", features, index))
        attention.append(gate(y) if gate and not gate_first else y)
    return attention


def halve(graph, x, dfc, name):
    """Down-sampling in front of DFC attention."""
    if dfc.pool is not None:
        return graph.pool("MaxPool" if type(dfc.pool).__name__ == "MaxPool2d" else "AveragePool", x, name)
    if all(side % 2 == 0 for side in x.size):
        return graph.pool("AveragePool", x, name)  # which is what bilinear does by a factor of 2
    return graph.resize(x, tuple(side // 2 for side in x.size), "bilinear", name)


def up_sample(graph, x, size, mode, name):
    """Up-sampling behind DFC attention."""
    whole = all(target % side == 0 for target, side in zip(size, x.size))
    if mode == "nearest" and not whole and np.prod(x.size) * np.prod(size) <= LARGEST_ONE_HOT:
        return graph.nearest_by_matrix(x, size, name)
    return graph.resize(x, size, mode, name)


def _activate(graph, cell, x):
    """ReLU where the `ConvBnAct` has one."""
    return x if cell.relu is None else graph.relu(x)


def _part(name, maps, index) -> str:
    """`name`, numbered where a feature has several maps."""
    return name if len(maps) == 1 else f"{name}.{index}"
