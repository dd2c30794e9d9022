"""From all decoded boxes of a picture to its detections: thresholds and non-maximum suppression (NMS), in NumPy.

Values and order of the steps are those of MMDetection's yolov3_mobilenetv2; its limit of candidates is for each scale,
this one for the picture.
"""

import numpy as np

OBJECTNESS_THRESHOLD = 0.005
SCORE_THRESHOLD = 0.05  # of the class probability alone
NMS_IOU = 0.45
MAX_CANDIDATES = 1000
MAX_DETECTIONS = 100


def select_detections(
    boxes,
    objectness,
    scores,
    objectness_threshold=OBJECTNESS_THRESHOLD,
    score_threshold=SCORE_THRESHOLD,
    iou_threshold=NMS_IOU,
    max_candidates=MAX_CANDIDATES,
    max_detections=MAX_DETECTIONS,
):
    """Detections of one picture, the most certain first.

    Of the places above `objectness_threshold`, the `max_candidates` of highest objectness are kept. Each is a box of
    every class above `score_threshold`, with a score of class probability times objectness; one place can thus give
    several. NMS then goes by class: a box is dropped where its IoU with a better one of its class is above
    `iou_threshold`.

    Args:
        boxes: float32 (A, 4), x1, y1, x2, y2.
        objectness: (A,), from 0 to 1.
        scores: (A, classes), from 0 to 1.

    Returns:
        boxes (K, 4), scores (K,) and labels int64 (K,), K at most `max_detections`.
    """
    places = np.flatnonzero(objectness > objectness_threshold)
    places = places[np.argsort(-objectness[places], kind="stable")[:max_candidates]]
    index, labels = np.nonzero(scores[places] > score_threshold)
    places = places[index]
    final = scores[places, labels] * objectness[places]
    kept = suppress(boxes[places], final, labels, iou_threshold, max_detections)
    return boxes[places[kept]], final[kept], labels[kept]


def suppress(boxes, scores, labels, iou_threshold, count):
    """NMS by class: indices of the first `count` boxes that stay, by falling score."""
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order) and len(kept) < count:
        best, order = order[0], order[1:]
        kept.append(best)
        repeated = (labels[order] == labels[best]) & (box_iou(boxes[best], boxes[order]) > iou_threshold)
        order = order[~repeated]
    return np.array(kept, np.int64)


def box_iou(box, boxes):
    """IoU (N,) of one box (4,) with others (N, 4); 0 where both have no area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = np.maximum(sides, 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return intersection / np.maximum(areas - intersection, np.finfo(boxes.dtype).tiny)
