"""GhostNetV2's bottlenecks in a TFLite graph, for the CPU kernels of LiteRT.

Two things differ from the network, where DFC attention is up-sampled by nearest:

- A row of gates serves two rows of features, so the product broadcasts it instead of repeating it.
- Where squeeze-and-excitation follows the gates, it is worked out at their half size: a gate holds for 2x2 pixels, so
  the mean over the gated map is that over the halved map times the gates.
"""

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding

from src.export.folding import weights_of
from src.export.graph import choose_gate
from src.export.self_attention_graph import self_attention
from src.layers.attention import SelfAttention


def bottleneck(graph, x, block, name):
    """Add a `GhostBottleneck`."""
    y, gates = ghost_module(graph, x, block.ghost1, f"{name}.ghost1")
    early = block.dw is None and block.se is not None and gates is not None and are_halves(gates, y)
    if early:
        halved = pool(graph, "AVERAGE_POOL_2D", y, f"{name}.se.halved")
        gated = graph.multiply(halved, gates, f"{name}.se.gated")
        gates = graph.multiply(gates, excitation(graph, gated, block.se, f"{name}.se"), f"{name}.se.scaled")
    y = apply_gates(graph, y, gates, f"{name}.ghost1")
    if block.dw is not None:
        y = graph.convolution([y], block.dw.conv, f"{name}.dw")
    if block.se is not None and not early:
        y = graph.multiply(y, excitation(graph, y, block.se, f"{name}.se"), f"{name}.se.scaled")
    y = apply_gates(graph, *ghost_module(graph, y, block.ghost2, f"{name}.ghost2"), f"{name}.ghost2")
    if block.shortcut is not None:
        for index, cell in enumerate(block.shortcut.cell_list):
            x = graph.convolution([x], cell.conv, f"{name}.shortcut.{index}")
    return graph.add(y, x, f"{name}.add")


def ghost_module(graph, x, module, name):
    """Add a `GhostModule` up to its gates: (features, gates), the latter None without attention."""
    primary = conv_act(graph, x, module.primary_conv, f"{name}.primary_conv")
    cheap = conv_act(graph, primary, module.cheap_operation, f"{name}.cheap_operation")
    features = graph.join([primary, cheap], 3, f"{name}.joined")
    if module.short_conv is None:
        return features, None
    if isinstance(module.short_conv, SelfAttention):
        (gates,) = self_attention(graph, [x], module.short_conv, f"{name}.short_conv", [features])
        return features, gates
    return features, dfc_attention(graph, x, module.short_conv, graph.size(features), f"{name}.short_conv")


def conv_act(graph, x, cell, name):
    """Add a folded `ConvBnAct`."""
    y = graph.convolution([x], cell.conv, name)
    return y if cell.relu is None else graph.relu(y)


def dfc_attention(graph, x, dfc, size, name):
    """Add the gates of `DFCAttention`, those that are up-sampled by nearest at half of `size`."""
    y = halve(graph, x, dfc.halving, f"{name}.halved")
    for index, cell in enumerate(dfc.cell_list):
        y = graph.convolution([y], cell.conv, f"{name}.{index}")
    gate = choose_gate(graph, dfc.gate_kind)
    if dfc.halving == "none" or dfc.up_sampling == "nearest":  # where the order of gate and up-sampling does not matter
        return gate(y)
    if dfc.gate_first:
        return graph.resize(gate(y), size, dfc.up_sampling, f"{name}.resize")
    return gate(graph.resize(y, size, dfc.up_sampling, f"{name}.resize"))


def halve(graph, x, kind, name):
    """Add the down-sampling in front of DFC attention, of a `kind` as in `DFCOptions`."""
    if kind == "none":
        return x
    if kind == "bilinear":
        return graph.resize(x, [side // 2 for side in graph.size(x)], "bilinear", name)
    return pool(graph, "MAX_POOL_2D" if kind == "max_pool" else "AVERAGE_POOL_2D", x, name)


def pool(graph, operator, x, name):
    """Add a 2x2 pooling with stride 2; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    options = {"padding": Padding.VALID, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    return graph.node(operator, [x], (batch, height // 2, width // 2, channels), name, **options)


def apply_gates(graph, x, gates, name):
    """Multiply features by their gates, these up-sampled by nearest where smaller; None stands for no gates."""
    if gates is None:
        return x
    (batch, height, width, channels), rows = x.shape, gates.shape[1]
    if gates.shape == x.shape:
        return graph.multiply(x, gates, f"{name}.gated")
    if height != 2 * rows:
        return graph.multiply(x, graph.nearest(gates, (height, width), f"{name}.gates"), f"{name}.gated")
    gates = graph.double(gates, 2, width, f"{name}.gates")
    gates = graph.reshape(gates, (batch * rows, 1, width * channels), f"{name}.gate_rows")
    pairs = graph.reshape(x, (batch * rows, 2, width * channels), f"{name}.row_pairs")
    return graph.reshape(graph.multiply(pairs, gates, f"{name}.products"), x.shape, f"{name}.gated")


def are_halves(gates, x) -> bool:
    """Whether each gate stands for 2x2 pixels of a map."""
    return all(2 * half == side for half, side in zip(gates.shape[1:3], x.shape[1:3]))


def excitation(graph, x, cell, name):
    """Add the scales (N, 1, 1, C) of `SqueezeExcitation`; the 3 that the hard sigmoid adds lies in a bias."""
    scale = graph.convolution([graph.global_mean(x)], cell.conv_reduce, f"{name}.conv_reduce")
    weight, bias = weights_of(cell.conv_expand)
    activation = {"fusedActivationFunction": ActivationFunctionType.RELU6}
    name = f"{name}.conv_expand"
    scale = graph.convolve(graph.relu(scale), weight, bias + 3, cell.conv_expand, name, **activation)
    return graph.multiply(scale, np.float32(1 / 6), f"{name}.gate")
