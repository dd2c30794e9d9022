"""MobileNetV2 with all its attention modules and MobileNetV3, for the formats that are written operator by operator.

One thing differs from the network: coordinate attention applies its joint convolution to the means of rows and to
those of columns, instead of to both laid end to end. It is a 1x1 convolution, whose weights the file has once.
"""

from src.layers.attention import CBAM, SE, CoordinateAttention
from src.layers.blocks import SqueezeExcitation
from src.mobilenet import FEATURE_STAGES, SeparableBottleneck
from src.mobilenetv3 import LastConvolution


def add_mobilenet(graph, image, network) -> list:
    """Add the stem and all stages of a folded `MobileNet`.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, H, W).
        network: `MobileNet`, from `fold_batch_norm`.

    Returns:
        The maps that `MobileNet.features` gives.
    """
    x = activate(graph, graph.convolution([image], network.conv_stem, "conv_stem"), network)
    maps = []
    for stage, blocks in enumerate(network.blocks):
        for index, block in enumerate(blocks.cell_list):
            add = last_convolution if isinstance(block, LastConvolution) else bottleneck
            x = add(graph, x, block, f"blocks.{stage}.{index}")
        if stage in FEATURE_STAGES:
            maps.append(x)
    return maps


def activate(graph, x, cell):
    """Add the activation of a network, a bottleneck or the last convolution."""
    return getattr(graph, cell.activation_kind)(x)  # `ACTIVATIONS` of `src.mobilenet` are named as the methods


def last_convolution(graph, x, cell, name):
    """Add a `LastConvolution`."""
    return activate(graph, graph.convolution([x], cell.conv, f"{name}.conv"), cell)


def bottleneck(graph, x, block, name):
    """Add a `SeparableBottleneck` or an `InvertedResidual`."""
    if isinstance(block, SeparableBottleneck):
        y, projection = x, "conv_pw"
    else:
        y, projection = activate(graph, graph.convolution([x], block.conv_pw, f"{name}.conv_pw"), block), "conv_pwl"
        if block.short_conv is not None:
            y = graph.dfc_attention(x, block.short_conv, y, f"{name}.short_conv")
    y = activate(graph, graph.convolution([y], block.conv_dw, f"{name}.conv_dw"), block)
    for kind in ("attention", "se"):
        attention = getattr(block, kind, None)
        if attention is not None:
            y = ATTENTION[type(attention)](graph, y, attention, f"{name}.{kind}")
    y = graph.convolution([y], getattr(block, projection), f"{name}.{projection}")
    return graph.add(y, x, f"{name}.add") if block.has_residual else y


def squeeze_excitation(graph, x, cell, name):
    """Add `SqueezeExcitation`."""
    scale = graph.hard_sigmoid(channel_mlp(graph, graph.global_mean(x), cell, name))
    return graph.multiply(x, scale, f"{name}.scaled")


def se(graph, x, cell, name):
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
    """Add `ChannelMLP`, or the same convolutions of another cell."""
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


ATTENTION = {
    SqueezeExcitation: squeeze_excitation,
    SE: se,
    CBAM: cbam,
    CoordinateAttention: coordinate_attention,
}
