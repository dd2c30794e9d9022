"""From all decoded boxes of an image to its detections: thresholds and non-maximum suppression (NMS), in NumPy.

Values and order of the steps are those of MMDetection's yolov3_mobilenetv2; its limit of candidates is for each scale,
this one for the image.
"""

from dataclasses import dataclass

import numpy as np

from src.detection.boxes import box_iou
from src.fields import bounded

MAX_DETECTIONS = 100  # COCO's metrics look at no more


@dataclass(frozen=True)
class DetectionLimits:
    """What makes a decoded box a detection.

    Attributes:
        objectness: least objectness of a place.
        score: least probability of a class at it.
        candidates: how many places are kept, those of highest objectness.
        iou: of two boxes of a class above which non-maximum suppression drops the less certain one.
        detections: how many are left at most.
    """

    objectness: float = bounded(0.005, 0.0, 1.0)
    score: float = bounded(0.05, 0.0, 1.0)
    candidates: int = bounded(1000, 1, 100_000)
    iou: float = bounded(0.45, 0.0, 1.0)
    detections: int = bounded(MAX_DETECTIONS, 1, MAX_DETECTIONS)


def select_detections(boxes, objectness, scores, limits):
    """Select the detections of one image, the most certain first.

    Of the places above `limits.objectness`, the `limits.candidates` of highest objectness are kept. Each is a box of
    every class above `limits.score`, with a score of class probability times objectness; one place can thus give
    several. NMS then goes by class: a box is dropped where its IoU with a better one of its class is above
    `limits.iou`.

    Args:
        boxes: float32 (A, 4), x1, y1, x2, y2.
        objectness: (A,), from 0 to 1.
        scores: (A, classes), from 0 to 1.
        limits: `DetectionLimits`.

    Returns:
        boxes (K, 4), scores (K,) and labels int64 (K,), K at most `limits.detections`.
    """
    places = np.flatnonzero(objectness > limits.objectness)
    places = places[np.argsort(-objectness[places], kind="stable")[: limits.candidates]]
    index, labels = np.nonzero(scores[places] > limits.score)
    places = places[index]
    final = scores[places, labels] * objectness[places]
    kept = suppress(boxes[places], final, labels, limits.iou, limits.detections)
    return boxes[places[kept]], final[kept], labels[kept]


def suppress(boxes, scores, labels, iou_threshold, count):
    """Do NMS by class: give the indices of the first `count` boxes that stay, by falling score."""
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order) and len(kept) < count:
        best, order = order[0], order[1:]
        kept.append(best)
        repeated = (labels[order] == labels[best]) & (box_iou(boxes[best], boxes[order]) > iou_threshold)
        order = order[~repeated]
    return np.array(kept, np.int64)
