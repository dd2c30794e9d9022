"""Loss and assignment against plain loops over boxes and places, and PyTorch's gradients of these."""

import math

import mindspore
import numpy as np
import pytest
from helpers import reference
from mindspore import Tensor, nn, ops

from src.detection.anchors import ANCHORS, STRIDES, scale_anchors
from src.detection.loss import GridAssignment, YOLOv3Loss

SIZE, CLASSES, BOXES = 64, 3, 8
IGNORE_IOU, SUMMED_IMAGES = 0.5, 24  # those of the recipe
SMALL_ANCHORS = scale_anchors(ANCHORS, SIZE / 320)
CELLS = [SIZE // stride for stride in STRIDES]


def list_places():
    """(scale, y, x, anchor, (x1, y1, x2, y2)) of every place."""
    for scale, (stride, row) in enumerate(zip(STRIDES, SMALL_ANCHORS)):
        for y in range(CELLS[scale]):
            for x in range(CELLS[scale]):
                for anchor, (width, height) in enumerate(row):
                    centre_x, centre_y = (x + 0.5) * stride, (y + 0.5) * stride
                    corners = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
                    yield scale, y, x, anchor, corners


def overlap(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    return width * height / (sum(areas) - width * height)


def assign_by_loops(boxes, positive_iou=1.0):
    """{place index: index of its box, or None for background} of an image; ignored places are missing."""
    places, claims = list(list_places()), {}
    for number, box in enumerate(boxes):
        own = []
        for index, (scale, y, x, _, corners) in enumerate(places):
            stride, last = STRIDES[scale], CELLS[scale] - 1
            cell_x = min(math.floor((box[0] + box[2]) / 2 / stride), last)
            cell_y = min(math.floor((box[1] + box[3]) / 2 / stride), last)
            if (cell_x, cell_y) == (x, y):
                own.append((index, overlap(box, corners)))
        best = max(own, key=lambda candidate: candidate[1])
        for index, iou in own:
            if index == best[0] or iou > positive_iou:
                claims.setdefault(index, []).append((iou, -number))
    result = {index: -max(found)[1] for index, found in claims.items()}
    for index, place in enumerate(places):
        if index not in result and all(overlap(box, place[4]) <= IGNORE_IOU for box in boxes):
            result[index] = None
    return result


def loss_by_loops(maps, boxes, labels, positive_iou, summed_images):
    """The loss with PyTorch tensors `maps`, over one place after the other."""
    torch = reference("torch")
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    places, total = list(list_places()), torch.zeros((), dtype=torch.float64)
    for image in range(len(boxes)):
        real = [box for box, label in zip(boxes[image].tolist(), labels[image]) if label >= 0]
        for index, owner in assign_by_loops(real, positive_iou).items():
            scale, y, x, anchor, _ = places[index]
            outputs = 5 + CLASSES
            raw = maps[scale][image, anchor * outputs : (anchor + 1) * outputs, y, x].double()
            total = total + cross_entropy(raw[4], torch.tensor(float(owner is not None)).double())
            if owner is None:
                continue
            x1, y1, x2, y2 = real[owner]
            stride, (width, height) = STRIDES[scale], SMALL_ANCHORS[scale][anchor]
            offset = ((x1 + x2) / 2 / stride - x, (y1 + y2) / 2 / stride - y)
            total = total + 2 * cross_entropy(raw[:2], torch.tensor(offset).double(), reduction="sum")
            growth = torch.tensor((math.log((x2 - x1) / width), math.log((y2 - y1) / height))).double()
            total = total + 2 * ((raw[2:4] - growth) ** 2).sum()
            target = torch.zeros(CLASSES).double()
            target[labels[image][labels[image] >= 0][owner]] = 1
            total = total + cross_entropy(raw[5:], target, reduction="sum")
    return total / len(boxes) * summed_images


def draw_boxes(generator, count):
    size = generator.uniform(2, 50, (count, 2))
    corner = generator.uniform(0, SIZE - size)
    return np.concatenate((corner, corner + size), 1)


def build_batch():
    """Boxes and labels of four images: random ones, edges and crowding, one box, none."""
    generator = np.random.default_rng(0)
    boxes, labels = np.zeros((4, BOXES, 4), np.float32), np.full((4, BOXES), -1, np.int32)
    boxes[0, :7] = draw_boxes(generator, 7)
    boxes[1] = [
        (0, 0, 5, 6),  # in the corners of the image
        (57, 60, 64, 64),
        (24, 22, 40, 42),  # its centre is on the borders of cells
        (0, 0, 64, 64),
        (10, 10, 24, 24),  # three with one place, which the last of them fits best
        (11, 10, 24, 26),
        (9, 9, 25.5, 28),
        (63, 0, 64, 64),  # thin
    ]
    boxes[2, 3] = draw_boxes(generator, 1)  # filling before and behind
    labels[0, :7] = generator.integers(0, CLASSES, 7)
    labels[1] = generator.integers(0, CLASSES, 8)
    labels[2, 3] = 2
    return boxes, labels


def draw_maps(scale=2.0, images=4):
    generator = np.random.default_rng(1)
    shape = (images, 3 * (5 + CLASSES))
    return [(scale * generator.standard_normal((*shape, n, n))).astype(np.float32) for n in CELLS]


def build_loss(positive_iou=1.0, summed_images=SUMMED_IMAGES):
    return YOLOv3Loss(nn.Identity(), CLASSES, SMALL_ANCHORS, SIZE, positive_iou, IGNORE_IOU, summed_images)


@pytest.fixture(scope="module")
def loss():
    return build_loss()


def evaluate(loss, maps, boxes, labels):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # a graph would be compiled anew for each tuple
    return float(loss(tuple(map(Tensor, maps)), Tensor(boxes), Tensor(labels)).asnumpy())


@pytest.mark.parametrize(("positive_iou", "summed_images"), [(1.0, SUMMED_IMAGES), (0.5, 1)])
def test_loss_and_gradients_equal_loops(positive_iou, summed_images):
    torch = reference("torch")
    boxes, labels = build_batch()
    maps = draw_maps()
    for raw in maps:
        raw[:, :, 0] = 0  # where |x| in the cross-entropy has its corner
    cell = build_loss(positive_iou, summed_images).set_train()

    def total(coarse, middle, fine):
        return cell((coarse, middle, fine), Tensor(boxes), Tensor(labels))

    ours, gradients = ops.value_and_grad(total, (0, 1, 2))(*map(Tensor, maps))
    leaves = [torch.from_numpy(raw).requires_grad_() for raw in maps]
    theirs = loss_by_loops(leaves, boxes, labels, positive_iou, summed_images)
    theirs.backward()
    assert float(ours.asnumpy()) == pytest.approx(theirs.item(), rel=1e-6)
    for gradient, leaf in zip(gradients, leaves):
        expected = leaf.grad.numpy()
        assert np.abs(gradient.asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()


def assign(boxes, labels, positive_iou=1.0):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    cell = GridAssignment(SMALL_ANCHORS, SIZE, positive_iou, IGNORE_IOU)
    return [y.asnumpy() for y in cell(Tensor(boxes), Tensor(labels))]


def test_assignment_of_crowded_images_equals_loops():
    generator = np.random.default_rng(2)
    boxes = np.stack([draw_boxes(generator, 60) for _ in range(4)]).astype(np.float32)
    owners, positive, background = assign(boxes, np.zeros((4, 60), np.int32), positive_iou=0.6)
    lost = 0
    for image in range(4):
        expected = assign_by_loops(boxes[image].tolist(), 0.6)
        ours = {int(index): int(owners[image, index]) for index in np.flatnonzero(positive[image])}
        ours.update({int(index): None for index in np.flatnonzero(background[image])})
        assert ours == expected
        lost += 60 - len(set(owners[image][positive[image] > 0].tolist()))
    assert lost > 0  # some boxes met at one place


def test_second_best_anchor_of_the_cell_is_ignored_or_positive():
    """A box of 32x32 at the middle of a cell of stride 32, by hand: anchors of 44x25 and 25.6x44.4 around it."""
    boxes, labels = np.array([[[0, 0, 32, 32]]], np.float32), np.array([[0]], np.int32)
    assert [place[:4] for place in list_places()][:2] == [(0, 0, 0, 0), (0, 0, 0, 1)]
    intersections = (32 * 25, 25.6 * 32)
    first, second = (i / (32 * 32 + area - i) for i, area in zip(intersections, (44 * 25, 25.6 * 44.4)))
    assert 0.5 < first < second
    _, positive, background = assign(boxes, labels)
    assert np.flatnonzero(positive[0]).tolist() == [1]
    assert np.flatnonzero((positive + background)[0] == 0).tolist() == [0]
    _, positive, background = assign(boxes, labels, positive_iou=0.5)
    assert np.flatnonzero(positive[0]).tolist() == [0, 1] and (positive + background).all()


def test_an_anchor_at_the_threshold_itself_is_background():
    """Boxes of 16x32 around the middle of a cell, by hand: IoUs of 1, 1/2 and 1/2 with the anchors."""
    anchors = [[(16, 32), (16, 16), (32, 32)], *SMALL_ANCHORS[1:]]
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    boxes, labels = Tensor(np.array([[[8, 0, 24, 32]]], np.float32)), Tensor(np.zeros((1, 1), np.int32))
    _, positive, background = (y.asnumpy()[0] for y in GridAssignment(anchors, SIZE, 0.5, 0.5)(boxes, labels))
    assert positive[:3].tolist() == [1, 0, 0] and background[:3].tolist() == [0, 1, 1]
    _, positive, _ = (y.asnumpy()[0] for y in GridAssignment(anchors, SIZE, 0.499, 0.5)(boxes, labels))
    assert positive[:3].tolist() == [1, 1, 1]


def test_equal_boxes_go_to_the_first():
    boxes, labels = np.array([[[10, 10, 30, 30]] * 2], np.float32), np.array([[2, 1]], np.int32)
    owners, positive, _ = assign(boxes, labels)
    assert positive.sum() == 1 and owners[0, positive[0].argmax()] == 0


def test_centre_on_the_images_edge_belongs_to_the_last_cell():
    owners, positive, _ = assign(np.array([[[60, 20, 68, 30]]], np.float32), np.array([[0]], np.int32))
    scale, y, x, *_ = list(list_places())[positive[0].argmax()]
    assert positive.sum() == 1 and (x, y) == (CELLS[scale] - 1, 25 // STRIDES[scale])


def test_filling_has_no_effect(loss):
    boxes, labels = build_batch()
    maps, expected = draw_maps(), evaluate(loss, draw_maps(), *build_batch())
    order = [3, 0, 1, 2, 4, 5, 6, 7]
    boxes[labels < 0] = (3, 5, 40, 50)  # no box whatever stands there
    assert evaluate(loss, maps, boxes, labels) == expected
    boxes[2], labels[2] = boxes[2, order], labels[2, order]
    assert evaluate(loss, maps, boxes, labels) == expected


def test_empty_images_have_background_alone(loss):
    maps = draw_maps()
    ours = evaluate(loss, maps, np.zeros((4, BOXES, 4), np.float32), np.full((4, BOXES), -1, np.int32))
    expected = sum(np.logaddexp(0, raw.reshape(4, 3, 5 + CLASSES, -1)[:, :, 4]).sum(dtype=np.float64) for raw in maps)
    assert ours == pytest.approx(expected / 4 * SUMMED_IMAGES, rel=1e-6)


def test_huge_and_half_precision_outputs_stay_finite(loss):
    boxes, labels = build_batch()
    huge = evaluate(loss, draw_maps(scale=1e4), boxes, labels)
    assert np.isfinite(huge) and huge > 1e6
    halves = [raw.astype(np.float16) for raw in draw_maps(scale=100)]
    expected = evaluate(loss, [raw.astype(np.float32) for raw in halves], boxes, labels)
    assert evaluate(loss, halves, boxes, labels) == expected


def test_a_batch_is_the_mean_of_its_images(loss):
    boxes, labels = build_batch()
    maps = draw_maps()
    both = evaluate(loss, maps, boxes, labels)
    parts = [slice(i, i + 1) for i in range(4)]
    one_by_one = [evaluate(loss, [raw[part] for raw in maps], boxes[part], labels[part]) for part in parts]
    assert both == pytest.approx(np.mean(one_by_one), rel=1e-6)
