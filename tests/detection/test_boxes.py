"""Arithmetic of boxes, by hand and against torchvision."""

import numpy as np
import pytest
from helpers import reference

from src.detection.boxes import box_iou, clip_boxes, has_centre, size_iou, to_corners

BOXES = np.array([(0, 0, 10, 10), (5, 5, 15, 15), (20, 20, 30, 30)], float)


def draw_boxes(count, seed=0):
    """Boxes float32 (count, 4), xyxy, many of which touch."""
    generator = np.random.default_rng(seed)
    corner, size = generator.uniform(0, 100, (count, 2)), generator.uniform(1, 80, (count, 2))
    return np.concatenate((corner, corner + size), 1).astype(np.float32)


def test_corners():
    assert to_corners(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1, 2, 4, 6]]


def test_iou_by_hand():
    assert np.allclose(box_iou((0, 0, 10, 10), BOXES), (1, 25 / 175, 0))
    assert box_iou((0, 0, 10, 10), np.array([[10.0, 0, 20, 10]])) == 0  # they share an edge


def test_iou_equals_torchvision():
    torch, torchvision = reference("torch"), reference("torchvision")
    boxes = draw_boxes(60)
    expected = torchvision.ops.box_iou(*[torch.from_numpy(boxes)] * 2).numpy()
    ours = np.stack([box_iou(box, boxes) for box in boxes])
    assert ours.dtype == np.float32 and 0.2 < (expected == 0).mean() < 0.8
    assert np.abs(ours - expected).max() < 1e-6


def test_iou_of_sizes_is_that_of_boxes_around_one_centre():
    sizes, anchors = np.array([[10.0, 20], [4, 4]]), np.array([[20.0, 10], [10, 20], [2, 2]])
    by_hand = np.array([[100 / 300, 1, 4 / 200], [16 / 200, 16 / 200, 4 / 16]])
    assert size_iou(sizes, anchors) == pytest.approx(by_hand)
    centred = np.concatenate((-anchors / 2, anchors / 2), 1)
    for size, ious in zip(sizes, by_hand):
        assert box_iou((*-size / 2, *size / 2), centred) == pytest.approx(ious)


def test_without_an_area_there_is_no_iou():
    nothing = np.array([[3.0, 3, 3, 3], [3, 3, 3, 9]])
    with np.errstate(all="raise"):
        assert box_iou(nothing[0], nothing).tolist() == [0, 0]
        assert size_iou(np.zeros((1, 2)), np.array([[0.0, 0], [4, 5]])).tolist() == [[0, 0]]


def test_clipping_and_centres():
    window = (4, 2, 12, 11)
    assert clip_boxes(BOXES[:2], window).tolist() == [[4, 2, 10, 10], [5, 5, 12, 11]]
    assert has_centre(window, BOXES).tolist() == [True, True, False]
    assert not has_centre((5, 0, 12, 12), BOXES)[0]  # on the edge is outside
