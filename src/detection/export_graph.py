"""What an exported detector computes, for the formats that are written operator by operator."""

from src.detection.anchors import ANCHORS_PER_CELL
from src.detection.yolov3 import BOX_OUTPUTS, MAX_LOG_GROWTH


def describe_detector(graph, image, network) -> dict:
    """Add what a folded `WithDecoding` computes.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, image_size, image_size).
        network: `WithDecoding` of `YOLOv3`, from `fold_batch_norm`.

    Returns:
        {'boxes': (N, A, 4), 'objectness': (N, A), 'class_scores': (N, A, classes)}.
    """
    outputs = network.network.heads[0][-1].out_channels // ANCHORS_PER_CELL
    maps = predictions(graph, image, network.network)
    raw = graph.join([graph.rows(x, outputs, f"rows.{scale}") for scale, x in enumerate(maps)], 1, "raw")
    scores = graph.sigmoid(graph.columns(raw, BOX_OUTPUTS - 1, outputs, "scores"))
    objectness = graph.squeeze(graph.columns(scores, 0, 1, "objectness.column"), "objectness")
    class_scores = graph.columns(scores, 1, outputs - BOX_OUTPUTS + 1, "class_scores")
    return {"boxes": boxes(graph, raw, network), "objectness": objectness, "class_scores": class_scores}


def predictions(graph, image, detector) -> list:
    """Add `YOLOv3`: the raw predictions of each scale, maps in the order of `STRIDES`."""
    finer = graph.backbone(image, detector.backbone)[::-1]
    features, outputs = [finer[0]], []
    for scale, (block, (hidden, prediction)) in enumerate(zip(detector.blocks, detector.heads)):
        if scale > 0:
            carried = activated(graph, features, detector.laterals[scale - 1], f"laterals.{scale - 1}")
            carried = graph.resize(carried, graph.size(finer[scale]), "nearest", f"laterals.{scale - 1}.resize")
            features = [carried, finer[scale]]
        for index, cell in enumerate(block):
            features = [activated(graph, features, cell, f"neck.{scale}.{index}")]
        x = activated(graph, features, hidden, f"heads.{scale}.0")
        outputs.append(graph.convolution([x], prediction, f"heads.{scale}.1"))
    return outputs


def activated(graph, maps, cell, name):
    """Add a folded `ConvBnLeaky`."""
    return graph.leaky_relu(graph.convolution(maps, cell.conv, name), cell.activation.alpha)


def boxes(graph, raw, network):
    """Add the corners (N, A, 4) of boxes from rows (N, A, 5 + classes) of raw predictions."""
    corners, sizes, strides = (array.asnumpy() for array in (network.corners, network.sizes, network.strides))
    shifts = graph.multiply(graph.sigmoid(graph.columns(raw, 0, 2, "shifts")), strides, "shifts.pixels")
    centres = graph.add(shifts, corners, "centres")
    growth = graph.minimum(graph.columns(raw, 2, 4, "growth"), MAX_LOG_GROWTH, "growth.limited")
    halves = graph.multiply(graph.exp(growth, "growth.exp"), 0.5 * sizes, "halves")
    corners = [graph.subtract(centres, halves, "first_corners"), graph.add(centres, halves, "second_corners")]
    return graph.join(corners, 2, "boxes")
