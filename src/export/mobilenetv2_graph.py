"""MobileNetV2 with all its attention modules, for the formats that are written operator by operator.

One thing differs from the network: coordinate attention applies its joint convolution to the means of rows and to
those of columns, instead of to both laid end to end. It is a 1x1 convolution, whose weights the file has once.
"""

from src.layers.attention import CBAM, SE, CoordinateAttention
from src.mobilenetv2 import FEATURE_STAGES, SeparableBottleneck


def add_mobilenetv2(graph, image, network) -> list:
    """Add the stem and all bottlenecks of a folded `MobileNetV2`.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, H, W).
        network: `MobileNetV2`, from `fold_batch_norm`.

    Returns:
        The maps that `MobileNetV2.features` gives.
    """
    x = graph.relu6(graph.convolution([image], network.conv_stem, "conv_stem"))
    maps = []
    for stage, blocks in enumerate(network.blocks):
        for index, block in enumerate(blocks.cell_list):
            x = bottleneck(graph, x, block, f"blocks.{stage}.{index}")
        if stage in FEATURE_STAGES:
            maps.append(x)
    return maps


def bottleneck(graph, x, block, name):
    """Add a `SeparableBottleneck` or an `InvertedResidual`."""
    if isinstance(block, SeparableBottleneck):
        y, projection = x, "conv_pw"
    else:
        y, projection = graph.relu6(graph.convolution([x], block.conv_pw, f"{name}.conv_pw")), "conv_pwl"
        if block.short_conv is not None:
            y = graph.dfc_attention(x, block.short_conv, y, f"{name}.short_conv")
    y = graph.relu6(graph.convolution([y], block.conv_dw, f"{name}.conv_dw"))
    attention = getattr(block, "attention", None)
    if attention is not None:
        y = ATTENTION[type(attention)](graph, y, attention, f"{name}.attention")
    y = graph.convolution([y], getattr(block, projection), f"{name}.{projection}")
    return graph.add(y, x, f"{name}.add") if block.has_residual else y


def squeeze_excitation(graph, x, cell, name):
    """Add `SE`."""
    scale = graph.sigmoid(channel_mlp(graph, graph.global_mean(x), cell.mlp, f"{name}.mlp"))
    return graph.multiply(x, scale, f"{name}.scaled")


def cbam(graph, x, cell, name):
    """Add `CBAM`."""
    mean = channel_mlp(graph, graph.global_mean(x), cell.mlp, f"{name}.mlp.mean")
    maximum = channel_mlp(graph, graph.amax(x, (2, 3), f"{name}.max"), cell.mlp, f"{name}.mlp.max")
    scale = graph.sigmoid(graph.add(mean, maximum, f"{name}.mlp"))
    x = graph.multiply(x, scale, f"{name}.channels")
    pooled = [graph.mean(x, (1,), f"{name}.spatial.mean"), graph.amax(x, (1,), f"{name}.spatial.max")]
    scale = graph.sigmoid(graph.convolution(pooled, cell.spatial.conv, f"{name}.spatial"))
    return graph.multiply(x, scale, f"{name}.pixels")


def channel_mlp(graph, x, cell, name):
    """Add `ChannelMLP`."""
    x = graph.relu(graph.convolution([x], cell.conv_reduce, f"{name}.conv_reduce"))
    return graph.convolution([x], cell.conv_expand, f"{name}.conv_expand")


def coordinate_attention(graph, x, cell, name):
    """Add `CoordinateAttention`."""
    sides = {  # axis that is averaged, convolution of the gates
        "rows": (3, cell.conv_rows),  # (N, C, H, 1)
        "columns": (2, cell.conv_columns),  # (N, C, 1, W)
    }
    gates = []
    for side, (axis, convolution) in sides.items():
        means = graph.mean(x, (axis,), f"{name}.{side}.mean")
        joint = graph.hard_swish(graph.project([means], cell.joint.conv, f"{name}.{side}.joint"))
        gates.append(graph.sigmoid(graph.convolution([joint], convolution, f"{name}.{side}")))
    rows, columns = gates
    return graph.multiply(graph.multiply(x, rows, f"{name}.by_rows"), columns, f"{name}.by_columns")


ATTENTION = {SE: squeeze_excitation, CBAM: cbam, CoordinateAttention: coordinate_attention}
