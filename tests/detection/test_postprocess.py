"""Selection of detections against torchvision's NMS and by hand."""

import numpy as np
import pytest
from helpers import reference

from src.detection.postprocess import DetectionLimits, select_detections


def draw_predictions(places, classes, seed=0):
    generator = np.random.default_rng(seed)
    centre, size = generator.uniform(0, 320, (places, 2)), generator.uniform(20, 150, (places, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)
    objectness = generator.uniform(0, 1, places).astype(np.float32) ** 4
    scores = generator.uniform(0, 1, (places, classes)).astype(np.float32) ** 4
    return boxes, objectness, scores


def select_by_torchvision(boxes, objectness, scores, limits):
    torch, torchvision = reference("torch"), reference("torchvision")
    boxes, objectness, scores = map(torch.from_numpy, (boxes, objectness, scores))
    mask = objectness > limits.objectness
    boxes, objectness, scores = boxes[mask], objectness[mask], scores[mask]
    top = objectness.topk(min(limits.candidates, len(objectness))).indices
    places, labels = (scores[top] > limits.score).nonzero(as_tuple=True)
    boxes, final = boxes[top][places], scores[top][places, labels] * objectness[top][places]
    kept = torchvision.ops.batched_nms(boxes, final, labels, limits.iou)[: limits.detections]
    return boxes[kept].numpy(), final[kept].numpy(), labels[kept].numpy()


@pytest.mark.parametrize(
    ("places", "classes", "limits"),
    [
        (6300, 80, {}),
        (300, 3, {}),
        (50, 1, {}),
        (300, 3, {"candidates": 40}),
        (300, 3, {"objectness": 0.1, "score": 0.2, "iou": 0.3, "detections": 25}),
    ],
)
def test_selection_equals_torchvision(places, classes, limits):
    predictions, limits = draw_predictions(places, classes), DetectionLimits(**limits)
    expected = select_by_torchvision(*predictions, limits)
    ours = select_detections(*predictions, limits)
    assert len(expected[0]) > 20 or classes == 1
    for one, other in zip(ours, expected):
        assert np.array_equal(one, other)


def test_thresholds_by_hand():
    """Limits of 0.005 and 0.05 themselves are too little, an IoU of 0.45 itself is not too much."""
    boxes = np.array(
        [
            [0, 0, 10, 10],  # both classes
            [0, 0, 10, 9],  # suppressed in class 0, too unlikely in class 1
            [0, 0, 10, 4.5],  # IoU of 0.45 with the first one: stays
            [50, 50, 60, 60],  # no object
            [70, 70, 80, 80],  # no class
        ],
        np.float32,
    )
    objectness = np.array([0.5, 0.4, 0.3, 0.005, 0.9], np.float32)
    scores = np.array([[0.9, 0.06], [0.9, 0.05], [0.9, 0.0], [0.9, 0.9], [0.05, 0.04]], np.float32)
    found = select_detections(boxes, objectness, scores, DetectionLimits())
    assert found[2].tolist() == [0, 0, 1]
    assert found[0].tolist() == boxes[[0, 2, 0]].tolist()
    assert found[1] == pytest.approx([0.45, 0.27, 0.03])
    assert found[2].dtype == np.int64


def test_nothing_found_has_the_same_shapes():
    boxes, objectness, scores = draw_predictions(20, 3)
    found = select_detections(boxes, np.zeros_like(objectness), scores, DetectionLimits())
    assert [array.shape for array in found] == [(0, 4), (0,), (0,)]


def test_boxes_without_an_area_are_no_error():
    boxes, objectness, scores = np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.ones((3, 1), np.float32)
    with np.errstate(all="raise"):
        assert len(select_detections(boxes, objectness, scores, DetectionLimits())[0]) == 3
