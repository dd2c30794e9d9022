"""Arithmetic of boxes: (M, 4), left, top, right, bottom, unless said otherwise."""

import numpy as np


def to_corners(boxes):
    """Turn boxes (M, 4) of left, top, width, height into left, top, right, bottom."""
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def clip_boxes(boxes, window):
    """Cut boxes (M, 4) off at a window (left, top, right, bottom)."""
    left, top, right, bottom = window
    return np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))


def has_centre(window, boxes):
    """Tell for each box (M, 4) whether its centre lies inside a window (left, top, right, bottom): bool (M,)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > window[:2]) & (centres < window[2:])).all(axis=1)


def intersection_over_union(overlaps, sizes):
    """Compute IoU from the sides of boxes and of their overlaps; 0 where there is no area.

    Args:
        overlaps: (..., 2); a negative side means that the boxes do not touch.
        sizes: of one box and of the other, each (..., 2).
    """
    intersection = np.maximum(overlaps, 0).prod(-1)
    union = sum(size.prod(-1) for size in sizes) - intersection
    return intersection / np.maximum(union, np.finfo(np.float32).tiny)


def box_iou(box, boxes):
    """Compute the IoU (M,) of one box (4,) with others (M, 4)."""
    box = np.asarray(box)
    overlaps = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    return intersection_over_union(overlaps, (boxes[:, 2:] - boxes[:, :2], box[2:] - box[:2]))


def size_iou(sizes, anchors):
    """Compute the IoU (N, K) of boxes of `sizes` (N, 2) with those of `anchors` (K, 2) around the same centre."""
    return intersection_over_union(np.minimum(sizes[:, None], anchors), (sizes[:, None], anchors))
