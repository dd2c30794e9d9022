"""GhostNetV2's bottlenecks as an ONNX graph, laid out for the CPU kernels of ONNX Runtime.

Their fast layout holds channels in blocks of 16 (8 without AVX-512). It knows no slices, no broadcast, and no joint
of parts that end within a block; around all else the runtime converts to the plain layout and back. So this graph
is no plain translation of the network:

- A Ghost module has one of three structures. "joined": its halves are padded with zero channels to whole blocks and
  concatenated. "split": the halves stay apart, what follows works on each, and the next 1x1 convolution becomes two
  and an Add, which fuse. "doubled": the primary convolution emits its channels twice, and one depthwise convolution
  over both has an identity kernel for the first half and the cheap operation's for the second.
- The squeeze-and-excitation scale is resized to the full map, so that the product needs no broadcast.
- Where squeeze-and-excitation follows the gates of DFC attention, it is worked out at their half size.
- A nearest resize by no whole factor, on small maps, is a product with a one-hot matrix.
- Sums stand right behind a convolution, where they fuse.
- A fixed batch passes the first blocks, which have the largest maps, a few images at a time: these maps fit caches.
"""

import math

import numpy as np

from src.architecture import BLOCKS
from src.export.folding import weights_of
from src.export.graph import choose_gate
from src.export.onnx_builder import ZERO, pad_channels, take
from src.export.self_attention_graph import self_attention
from src.layers.attention import SelfAttention

CHANNEL_BLOCK = 16  # of ONNX Runtime's layout with AVX-512; a multiple of those of other processors
CONVOLUTION_ALIGNMENT = 4  # its convolutions read channels in groups of 4, all else needs whole blocks
LARGEST_ONE_HOT = 4096  # entries: 9 x 49 is faster than Resize, large ones are not
CHUNK_PIXELS = 4 * 224 * 224  # of the images that pass the first blocks at a time (measured: 2 or 8 images are slower)
CHUNKED_STAGES = 2  # the first blocks: up to the end of this stage, the map of stride 8


def add_backbone(graph, image, network, structures) -> list:
    """Add the stem and all bottlenecks, of `structures`; the result is the maps at the ends of the stages."""
    stem = pad_channels(range(network.conv_stem.out_channels), CHANNEL_BLOCK)
    first = network.stage_ends[CHUNKED_STAGES - 1] + 1
    chunks = []
    for number, chunk in enumerate(graph.split_images(image, max(1, CHUNK_PIXELS // math.prod(image.size)))):
        prefix = f"chunk.{number}." if number else ""
        x = graph.relu(graph.convolve_parts([chunk], network.conv_stem, f"{prefix}conv_stem", stem))
        chunks.append(add_blocks(graph, x, network, structures, range(first), prefix))
    maps = [graph.join_images(parts, f"stages.{index}.joined") for index, parts in enumerate(zip(*chunks))]
    return maps + add_blocks(graph, maps[-1], network, structures, range(first, len(BLOCKS)), "")


def add_blocks(graph, x, network, structures, indices, prefix) -> list:
    """Add bottlenecks, their names behind `prefix`; the result is the maps at the ends of the stages."""
    maps = []
    for index in indices:
        x = bottleneck(graph, x, network.blocks[index], f"{prefix}blocks.{index}", *structures[index])
        if index in network.stage_ends:
            maps.append(x)
    return maps


def bottleneck(graph, x, block, name, first, second):
    """Add a `GhostBottleneck` with Ghost modules of the structures `first` and `second`."""
    # the mean of squeeze-and-excitation needs whole blocks
    alignment = CONVOLUTION_ALIGNMENT if first == "split" and block.se is None else CHANNEL_BLOCK
    maps, gates = ghost_module(graph, [x], block.ghost1, f"{name}.ghost1", first, alignment)
    early = block.dw is None and block.se is not None and gates is not None and _are_halves(gates, maps)
    if early:
        gates = excited_gates(graph, maps, gates, block.se, f"{name}.se")
    if gates is not None:
        maps = apply_gates(graph, maps, gates, f"{name}.ghost1")
    if block.dw is not None:
        maps = [graph.depthwise(part, block.dw.conv, _part(f"{name}.dw", maps, i)) for i, part in enumerate(maps)]
    if block.se is not None and not early:
        maps = squeeze_excitation(graph, maps, block.se, f"{name}.se")
    features, gates = ghost_module(graph, maps, block.ghost2, f"{name}.ghost2", second)
    (y,) = features if gates is None else apply_gates(graph, features, gates, f"{name}.ghost2")
    residual = x if block.shortcut is None else shortcut(graph, x, block, f"{name}.shortcut", y.channels)
    return graph.add(y, residual, f"{name}.add")


def shortcut(graph, x, block, name, channels):
    """Add the convolutions beside the Ghost modules; the output holds `channels`, in these places."""
    depthwise, pointwise = (cell.conv for cell in block.shortcut.cell_list)
    return graph.convolve_parts([graph.depthwise(x, depthwise, f"{name}.0")], pointwise, f"{name}.1", channels)


def ghost_module(graph, maps, module, name, structure, alignment=CHANNEL_BLOCK):
    """Add a `GhostModule` on a feature in one or more maps.

    Returns:
        (features, gates): features before attention, one map, or the two halves if the structure is "split"; the
        gates for each, or None without attention.
    """
    if structure == "doubled":
        features = [doubled_features(graph, maps, module, name)]
    else:
        features = ghost_halves(graph, maps, module, name, alignment)
        if structure == "joined":
            features = [graph.concat(features, f"{name}.joined")]
    if module.short_conv is None:
        return features, None
    attention = self_attention if isinstance(module.short_conv, SelfAttention) else dfc_attention
    return features, attention(graph, maps, module.short_conv, f"{name}.short_conv", features)


def doubled_features(graph, maps, module, name):
    """Add both halves of a Ghost module's features from one depthwise convolution."""
    primary, cheap = module.primary_conv, module.cheap_operation
    half = primary.conv.out_channels
    twice = pad_channels([*range(half), *range(half)], CHANNEL_BLOCK)
    y = _activate(graph, primary, graph.convolve_parts(maps, primary.conv, f"{name}.primary_conv", twice))
    weight, bias = weights_of(cheap.conv)
    identity = np.zeros_like(weight)
    identity[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = 1
    channels = pad_channels(range(2 * half), CHANNEL_BLOCK)
    weight = take(np.concatenate((identity, weight)), channels)
    bias = take(np.concatenate((np.zeros_like(bias), bias)), channels)
    y = graph.convolve(y, weight, bias, cheap.conv, f"{name}.cheap_operation", channels, groups=len(channels))
    return _activate(graph, cheap, y)  # a second ReLU on the first half changes nothing


def ghost_halves(graph, maps, module, name, alignment) -> list:
    """Add the two halves of a Ghost module's features, each padded to a multiple of `alignment` channels."""
    primary, cheap = module.primary_conv, module.cheap_operation
    half = primary.conv.out_channels
    channels = pad_channels(range(half), alignment)
    first = _activate(graph, primary, graph.convolve_parts(maps, primary.conv, f"{name}.primary_conv", channels))
    second = _activate(graph, cheap, graph.depthwise(first, cheap.conv, f"{name}.cheap_operation"))
    return [first, second.renumbered([channel if channel == ZERO else half + channel for channel in channels])]


def squeeze_excitation(graph, maps, cell, name) -> list:
    """Add a `SqueezeExcitation` on a feature in one or more maps."""
    return multiply(graph, maps, excitation(graph, maps, cell, name), f"{name}.scaled")


def excited_gates(graph, maps, gates, cell, name) -> list:
    """Multiply gates of half the size of their `maps` by the `SqueezeExcitation` of the gated maps.

    A gate holds for 2x2 pixels, so the mean over the gated map is that over the halved map times the gates: all
    of it is done at a quarter of the pixels.
    """
    halved = [graph.pool("AveragePool", part, _part(f"{name}.halved", maps, i)) for i, part in enumerate(maps)]
    gated = multiply(graph, halved, gates, f"{name}.gated")
    return multiply(graph, gates, excitation(graph, gated, cell, name), f"{name}.scaled")


def excitation(graph, maps, cell, name) -> list:
    """Add the scales of `SqueezeExcitation` for each map, at its full size."""
    means = [graph.global_mean(part) for part in maps]
    reduce, expand = cell.conv_reduce, cell.conv_expand
    y = graph.relu(graph.convolve_parts(means, reduce, f"{name}.conv_reduce", range(reduce.out_channels)))
    scales = []
    for index, part in enumerate(maps):
        scale = graph.convolve_parts([y], expand, _part(f"{name}.conv_expand", maps, index), part.channels)
        scale = graph.hard_sigmoid(scale)
        scales.append(graph.resize(scale, part.size, "nearest", f"{scale.name}.resize"))
    return scales


def dfc_attention(graph, maps, dfc, name, features) -> list:
    """Add the gates of `DFCAttention` on the input `maps`, with the channels of each map of `features`.

    Of the size of `features`, or of half of it if the up-sampling, always nearest then, is left to `apply_gates`.
    """
    halved = [halve(graph, part, dfc.halving, _part(f"{name}.halved", maps, i)) for i, part in enumerate(maps)]
    squash = choose_gate(graph, dfc.gate_kind)
    pointwise, *steps = (cell.conv for cell in dfc.cell_list)
    gates = []
    for index, target in enumerate(features):
        y = graph.convolve_parts(halved, pointwise, _part(f"{name}.0", features, index), target.channels)
        for number, step in enumerate(steps, 1):
            y = graph.depthwise(y, step, _part(f"{name}.{number}", features, index))
        resized = {"size": target.size, "mode": dfc.up_sampling, "name": _part(f"{name}.resize", features, index)}
        if dfc.halving == "none" or dfc.up_sampling == "nearest":  # where the order of both does not matter
            gates.append(squash(y))
        elif dfc.gate_first:
            gates.append(graph.resize(squash(y), **resized))
        else:
            gates.append(squash(graph.resize(y, **resized)))
    return gates


def apply_gates(graph, maps, gates, name) -> list:
    """Multiply each map by its gates, these up-sampled by nearest where smaller."""
    full = []
    for index, (part, gate) in enumerate(zip(maps, gates)):
        full.append(_up_sample(graph, gate, part.size, _part(f"{name}.resize", maps, index)))
    return multiply(graph, maps, full, f"{name}.gated")


def multiply(graph, maps, others, name) -> list:
    """Multiply the maps by the others, one by one."""
    return [graph.elementwise("Mul", pair, _part(name, maps, i)) for i, pair in enumerate(zip(maps, others))]


def halve(graph, x, kind, name):
    """Add the down-sampling in front of DFC attention, of a `kind` as in `DFCOptions`."""
    if kind == "none":
        return x
    if kind == "max_pool":
        return graph.pool("MaxPool", x, name)
    if kind == "avg_pool" or all(side % 2 == 0 for side in x.size):  # bilinear by a factor of 2 is a mean of four
        return graph.pool("AveragePool", x, name)
    return graph.resize(x, [side // 2 for side in x.size], "bilinear", name)


def _up_sample(graph, x, size, name):
    """Resize by nearest to a larger or the same size."""
    if tuple(x.size) == tuple(size):
        return x
    whole = all(target % side == 0 for target, side in zip(size, x.size))
    if not whole and np.prod(x.size) * np.prod(size) <= LARGEST_ONE_HOT:
        return graph.nearest_by_matrix(x, size, name)
    return graph.resize(x, size, "nearest", name)


def _are_halves(gates, maps) -> bool:
    """Whether each gate stands for 2x2 pixels of its map."""
    return all(2 * a == b for gate, part in zip(gates, maps) for a, b in zip(gate.size, part.size))


def _activate(graph, cell, x):
    """Add a ReLU where the `ConvBnAct` has one."""
    return x if cell.relu is None else graph.relu(x)


def _part(name, maps, index) -> str:
    """Give `name`, numbered where a feature has several maps."""
    return name if len(maps) == 1 else f"{name}.{index}"
