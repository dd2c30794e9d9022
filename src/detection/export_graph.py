"""What an exported detector computes, for the formats that are written operator by operator."""

import numpy as np
from mindspore import Tensor, nn

from src.detection.anchors import ANCHORS_PER_CELL
from src.detection.yolov3 import BOX_OUTPUTS, MAX_LOG_GROWTH
from src.export.folding import weights_of


def describe_detector(graph, image, network) -> dict:
    """Add what a folded `WithDecoding` computes.

    Args:
        graph: `src.export.graph.Graph`.
        image: its input, a map (N, 3, image_size, image_size).
        network: `WithDecoding` of `YOLOv3`, from `fold_batch_norm`.

    Returns:
        {'boxes': (N, A, 4), 'objectness': (N, A), 'class_scores': (N, A, classes)}.
    """
    located, classified = [], []
    for scale, (x, prediction) in enumerate(predictions(graph, image, network.network)):
        outputs = prediction.out_channels // ANCHORS_PER_CELL
        # apart from the start, so that nothing has to be cut out of the rows of all places
        parts = {"boxes": (located, range(BOX_OUTPUTS)), "classes": (classified, range(BOX_OUTPUTS, outputs))}
        for part, (rows, columns) in parts.items():
            y = graph.convolution([x], select_outputs(prediction, columns), f"heads.{scale}.1.{part}")
            y = graph.sigmoid(y) if part == "classes" else y  # with the convolution, where a runtime can
            rows.append(graph.rows(y, len(columns), f"rows.{scale}.{part}"))
    raw = graph.join(located, 1, "raw")
    objectness = graph.sigmoid(graph.columns(raw, BOX_OUTPUTS - 1, BOX_OUTPUTS, "objectness.column"))
    return {
        "boxes": boxes(graph, raw, network),
        "objectness": graph.squeeze(objectness, "objectness"),
        "class_scores": graph.join(classified, 1, "class_scores"),
    }


def select_outputs(prediction, columns):
    """Take the part of a prediction's nn.Conv2d that gives these of each anchor's outputs."""
    count = prediction.out_channels
    wanted = np.arange(count).reshape(ANCHORS_PER_CELL, -1)[:, list(columns)].ravel()
    weight, bias = (array[wanted] for array in weights_of(prediction))
    starts = {"weight_init": Tensor(weight), "bias_init": Tensor(bias)}
    return nn.Conv2d(prediction.in_channels, len(wanted), 1, has_bias=True, **starts)


def predictions(graph, image, detector) -> list:
    """Add `YOLOv3` but for its predictions: (last features, their convolution) in the order of `STRIDES`."""
    finer = graph.backbone(image, detector.backbone)[::-1]
    features, outputs = [finer[0]], []
    for scale, (block, (hidden, prediction)) in enumerate(zip(detector.blocks, detector.heads)):
        if scale > 0:
            carried = activated(graph, features, detector.laterals[scale - 1], f"laterals.{scale - 1}")
            carried = graph.resize(carried, graph.size(finer[scale]), "nearest", f"laterals.{scale - 1}.resize")
            features = [carried, finer[scale]]
        for index, cell in enumerate(block):
            features = [activated(graph, features, cell, f"neck.{scale}.{index}")]
        outputs.append((activated(graph, features, hidden, f"heads.{scale}.0"), prediction))
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
