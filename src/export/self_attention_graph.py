"""Self-attention in the place of DFC attention, for the formats that are written operator by operator.

It computes what `src.layers.attention.SelfAttention` does, in another order of the axes: the four sequences of an image
stand beside its heads, so that the first axis stays that of the images, of which there may be any number; and the
values are transposed instead of the scores, of which there are more.
"""

from src.layers.attention import HEADS, PATCH_SIZE

SEQUENCES = PATCH_SIZE**2  # of an image


def self_attention(graph, maps, cell, name, features) -> list:
    """Add the gates of a folded `SelfAttention`, at half size.

    Args:
        graph: `src.export.graph.Graph`.
        maps: the input, a feature in one or more maps.
        cell: `SelfAttention`.
        name: that names begin with.
        features: the maps of the feature that is gated.

    Returns:
        The gates for each map of `features`.
    """
    halved = [graph.average_pool(x, f"{name}.halved.{index}") for index, x in enumerate(maps)]
    x = graph.project(halved, cell.conv_in.conv, f"{name}.conv_in")
    x = graph.add(x, attend(graph, x, cell, name), f"{name}.residual")
    gates = []
    for index, part in enumerate(features):
        gates.append(graph.sigmoid(graph.project([x], cell.conv_out.conv, f"{name}.conv_out.{index}", part)))
    return gates


def attend(graph, x, cell, name):
    """Add the attention of a map (N, C, H, W) among its own pixels: a map of the same shape."""
    size = graph.size(x)
    rows, columns = patches = [-(-side // PATCH_SIZE) for side in size]
    channels = cell.channels
    y = graph.array(graph.project([x], cell.query_key_value, f"{name}.query_key_value"), f"{name}.array")
    y = repeat_odd_edges(graph, y, size, f"{name}.edges")
    query, key, value = unfold(graph, y, channels, patches, f"{name}.unfold")
    query = graph.multiply(query, (HEADS / channels) ** 0.5, f"{name}.query.scaled")
    query = graph.transpose(query, (0, 1, 3, 2), f"{name}.query.transposed")
    value = graph.transpose(value, (0, 1, 3, 2), f"{name}.value.transposed")
    scores = graph.softmax(graph.matmul(query, key, f"{name}.scores"))  # (N, 4 * HEADS, L, L)
    y = graph.transpose(graph.matmul(scores, value, f"{name}.mixed"), (0, 1, 3, 2), f"{name}.mixed.transposed")
    y = fold(graph, y, channels, patches, f"{name}.fold")
    for axis, side in enumerate(size, 2):
        if side % PATCH_SIZE:
            y = graph.narrow(y, axis, 0, side, f"{name}.cut.{axis}")
    return graph.project([graph.map(y, f"{name}.map")], cell.merge_heads, f"{name}.merge_heads")


def repeat_odd_edges(graph, array, size, name):
    """Repeat the last row and column of an array (N, C, *size) where there is an odd number of them."""
    for axis, side in enumerate(size, 2):
        if side % PATCH_SIZE:
            last = graph.narrow(array, axis, side - 1, 1, f"{name}.last.{axis}")
            array = graph.join([array, last], axis, f"{name}.{axis}")
    return array


def unfold(graph, array, channels, patches, name) -> list:
    """Cut an array (N, 3 * C, H, W) into 2x2 patches: query, key and value of (N, 4 * HEADS, C / HEADS, H * W / 4)."""
    rows, columns = patches
    y = graph.view(array, (3 * channels * rows, PATCH_SIZE, PATCH_SIZE * columns), f"{name}.rows")
    y = graph.transpose(y, (0, 2, 1, 3), f"{name}.rows.apart")  # -> (N, 2, 3 * C * H / 2, W)
    y = graph.view(y, (PATCH_SIZE * 3 * channels * rows * columns, PATCH_SIZE), f"{name}.columns")
    y = graph.transpose(y, (0, 2, 1), f"{name}.columns.apart")  # -> (N, 2, 2 * 3 * C * H / 2 * W / 2)
    y = graph.view(y, (SEQUENCES, 3 * channels, rows * columns), f"{name}.sequences")
    parts = []
    for index, part in enumerate(("query", "key", "value")):
        own = graph.narrow(y, 2, index * channels, channels, f"{name}.{part}")
        parts.append(graph.view(own, (SEQUENCES * HEADS, channels // HEADS, rows * columns), f"{name}.{part}.heads"))
    return parts


def fold(graph, array, channels, patches, name):
    """Put sequences (N, 4 * HEADS, C / HEADS, H * W / 4) back together: (N, C, H, W)."""
    rows, columns = patches
    y = graph.view(array, (PATCH_SIZE, PATCH_SIZE * channels * rows * columns), f"{name}.columns.apart")
    y = graph.transpose(y, (0, 2, 1), f"{name}.columns")  # -> (N, 2 * C * H / 2 * W / 2, 2)
    y = graph.view(y, (PATCH_SIZE, channels * rows, PATCH_SIZE * columns), f"{name}.rows.apart")
    y = graph.transpose(y, (0, 2, 1, 3), f"{name}.rows")  # -> (N, C * H / 2, 2, W)
    return graph.view(y, (channels, PATCH_SIZE * rows, PATCH_SIZE * columns), name)
