"""Anchors of YOLOv3: box sizes that the network's predictions are relative to, three for each of three strides.

Sources: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2.3; k-means with a distance of
1 - IoU: Redmon and Farhadi, "YOLO9000", CVPR 2017, section 2. The sizes in `ANCHORS` are those of the light
YOLOv3-MobileNetV2 of MMDetection, for COCO in images of 320x320.
"""

import math

import numpy as np

from src.detection.boxes import size_iou
from src.errors import UserError

STRIDES = (32, 16, 8)
ANCHORS_PER_CELL = 3
ANCHOR_IMAGE_SIZE = 320  # pixels
ANCHORS = (
    # (width, height) in pixels, a row for each of `STRIDES`
    ((220, 125), (128, 222), (264, 266)),
    ((35, 87), (102, 96), (60, 170)),
    ((10, 15), (24, 36), (72, 42)),
)
KMEANS_ITERATIONS = 300
KMEANS_STARTS = 5


def scale_anchors(anchors, factor):
    """Scale anchors to images that are `factor` times as large."""
    return tuple(tuple((width * factor, height * factor) for width, height in row) for row in anchors)


def place_anchors(anchors, image_size):
    """Lay the anchors out over the grids of all strides, in the order of the flattened predictions.

    An image has ceil(image_size / stride) cells each way. The order of places is that of `STRIDES`, then row, column
    and anchor of a cell.

    Args:
        anchors: a row of (width, height) in pixels for each of `STRIDES`.
        image_size: side of the square image in pixels.

    Returns:
        Three float32 arrays over the A places: top left corners of the cells in pixels (A, 2), x before y; anchor
        sizes (A, 2); strides (A, 1).
    """
    corners, sizes, strides = [], [], []
    for stride, row in zip(STRIDES, anchors):
        cells = math.ceil(image_size / stride)
        y, x = np.divmod(np.arange(cells * cells), cells)
        corners.append(np.repeat(np.stack((x, y), 1) * stride, len(row), axis=0))
        sizes.append(np.tile(np.array(row), (cells * cells, 1)))
        strides.append(np.full((cells * cells * len(row), 1), stride))
    return tuple(np.concatenate(parts).astype(np.float32) for parts in (corners, sizes, strides))


def mean_best_iou(sizes, anchors):
    """Average over boxes of `sizes` (N, 2) the IoU with the anchor (K, 2) that fits best; 1 is a perfect fit."""
    return float(size_iou(sizes, anchors).max(1).mean())


def cluster_sizes(sizes, seed=0):
    """Find anchors for a dataset by k-means over box sizes with a distance of 1 - IoU, in `KMEANS_STARTS` runs.

    Args:
        sizes: (N, 2), widths and heights above 0, in pixels of the network's input.
        seed: of the boxes that the clusters begin with.

    Returns:
        Anchors as in `ANCHORS`, the largest for stride 32.

    Raises:
        UserError: if there are fewer different sizes than anchors.
    """
    different, count = len(np.unique(sizes, axis=0)), len(STRIDES) * ANCHORS_PER_CELL
    if different < count:
        raise UserError(f"the boxes have {different} different sizes, at least {count} are needed for anchors")
    generator = np.random.default_rng(seed)
    runs = [_refine(sizes, _draw_start(sizes, count, generator)) for _ in range(KMEANS_STARTS)]
    best = max(runs, key=lambda anchors: mean_best_iou(sizes, anchors))
    best = best[np.argsort(-best.prod(1), kind="stable")]
    return tuple(tuple(map(tuple, row)) for row in best.reshape(len(STRIDES), ANCHORS_PER_CELL, 2).tolist())


def _draw_start(sizes, count, generator):
    """Draw sizes of boxes one by one, the more likely the further from those before (k-means++)."""
    anchors = sizes[[generator.integers(len(sizes))]]
    while len(anchors) < count:
        distance = (1 - size_iou(sizes, anchors).max(1)) ** 2
        anchors = np.append(anchors, sizes[[generator.choice(len(sizes), p=distance / distance.sum())]], axis=0)
    return anchors


def _refine(sizes, anchors):
    """Move each anchor to the mean of the boxes that it fits best until none changes; one without boxes stays."""
    owners = None
    for _ in range(KMEANS_ITERATIONS):
        previous, owners = owners, size_iou(sizes, anchors).argmax(1)
        if previous is not None and np.array_equal(previous, owners):
            break
        anchors = np.stack([sizes[owners == k].mean(0) if (owners == k).any() else a for k, a in enumerate(anchors)])
    return anchors
