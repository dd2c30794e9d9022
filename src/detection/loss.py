"""YOLOv3's loss with the assignment of boxes to anchors, all in the graph and of static shapes.

Sources: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2; weights, placement of the anchors
and summation as in MMDetection's yolov3_mobilenetv2. Assignment, for an anchor laid at the centre of each cell:

- A box may only have anchors of its own cells, one a scale: those that hold its centre.
- The one with the highest IoU of these over all scales is positive, and so are the others above `positive_iou`.
- A place that is positive for several boxes takes the one of highest IoU, the first if several are equal. A box that
  loses its only place this way has none.
- Any other place, in whatever cell, is ignored where its anchor's IoU with any box is above `ignore_iou`, and is
  background elsewhere.

MMDetection differs in this: it gives a place that several boxes fit best to the last of them, and lets a box have
anchors of any cell that holds some box's centre.
"""

import math

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from src.detection.anchors import STRIDES, place_anchors
from src.detection.yolov3 import BOX_OUTPUTS, flatten_maps

CENTRE_WEIGHT = 2.0  # classes and objectness have 1
SIZE_WEIGHT = 2.0
MIN_GROWTH = 1e-6  # of a box over its anchor


class GridAssignment(nn.Cell):
    """Which box each place is to predict, see the module's text.

    In place of the IoU, intersection / union, stands the share intersection / (area + area), which rises with it:
    share = IoU / (1 + IoU). It is a product of a factor by column and one by row of the grid, so that only this
    product is computed for each pair of box and place.

    Args:
        anchors: as in `ANCHORS`, in pixels of the input.
        image_size: side of the square input in pixels.
        positive_iou: IoU above which an anchor in a box's cell is positive though it is not the best.
        ignore_iou: IoU above which a place without a box is no background.

    Input: boxes float32 (B, M, 4), x1, y1, x2, y2 in pixels; labels int32 (B, M), below 0 for rows that are no box.

    Returns:
        owners int32 (B, A), the index of each positive place's box; positive and background float32 (B, A), 1 or 0.
    """

    def __init__(self, anchors, image_size, positive_iou, ignore_iou):
        super().__init__(auto_prefix=False)
        sizes = np.array(anchors, np.float32)  # (scales, 3, 2)
        cells = [math.ceil(image_size / stride) for stride in STRIDES]
        self.cell_numbers = tuple(Tensor(np.arange(count, dtype=np.float32)[:, None]) for count in cells)  # (cells, 1)
        self.sizes = tuple(tuple(Tensor(row[:, axis]) for axis in range(2)) for row in sizes)
        self.areas = tuple(Tensor(row.prod(1)) for row in sizes)
        self.positive_share = Tensor(positive_iou / (1 + positive_iou), mindspore.float32)
        self.ignore_share = Tensor(ignore_iou / (1 + ignore_iou), mindspore.float32)

    def construct(self, boxes, labels):
        real = (labels >= 0).astype(mindspore.float32).expand_dims(-1)  # (B, M, 1)
        highest, own = (), ()
        for scale in range(len(STRIDES)):
            shares, own_shares = self.shares(boxes, real, scale)
            highest += (ops.amax(shares, 1),)
            own += (own_shares,)
        highest, own = ops.concat(highest, 1), ops.concat(own, 2)  # (B, A), (B, M, A)
        chosen = ops.logical_or(own == ops.amax(own, 2, True), own > self.positive_share)
        claims = ops.where(chosen, own, ops.zeros_like(own))
        positive = ops.amax(claims, 1) > 0
        background = ops.logical_and(highest <= self.ignore_share, ops.logical_not(positive))
        owners = claims.argmax(1).astype(mindspore.int32)
        return owners, positive.astype(mindspore.float32), background.astype(mindspore.float32)

    def shares(self, boxes, real, scale):
        """Compute shares (B, M, places) of boxes with all anchors of a scale, and with 0 outside a box's own cell."""
        columns, own_columns = self.overlap(boxes, scale, 0)
        rows, own_rows = self.overlap(boxes, scale, 1)
        sides = boxes[:, :, 2:] - boxes[:, :, :2]
        factor = real / (sides[:, :, 0:1] * sides[:, :, 1:] + self.areas[scale])  # (B, M, 3)
        factor = factor.expand_dims(2)
        return outer(rows * factor, columns), outer(own_rows * factor, own_columns)

    def overlap(self, boxes, scale, axis):
        """Compute the pixels (B, M, cells, 3) that boxes and anchors share along x (0) or y (1).

        The second result is the same with 0 in cells that do not hold the box's centre; the last cell also holds the
        border of the image.
        """
        start, end = boxes[:, :, axis, None, None], boxes[:, :, axis + 2, None, None]  # (B, M, 1, 1)
        centres, halves = (self.cell_numbers[scale] + 0.5) * STRIDES[scale], self.sizes[scale][axis] / 2
        pixels = ops.relu(ops.minimum(end, centres + halves) - ops.maximum(start, centres - halves))
        cell = ops.minimum(ops.floor((start + end) / (2 * STRIDES[scale])), self.cell_numbers[scale][-1])
        return pixels, pixels * (cell == self.cell_numbers[scale]).astype(mindspore.float32)


def outer(rows, columns):
    """Multiply (B, M, H, 3) and (B, M, W, 3) for each cell and anchor: (B, M, H * W * 3)."""
    product = rows.expand_dims(3) * columns.expand_dims(2)  # (B, M, H, W, 3)
    return product.reshape(*rows.shape[:2], -1)  # -> (B, M, H * W * 3)


class YOLOv3Loss(nn.Cell):
    """Network and loss as one cell: images (B, 3, H, W), boxes (B, M, 4), labels (B, M) -> scalar.

    The loss of an image is a sum over places: of sigmoid cross-entropy for objectness where there is a box or
    background, and, where there is a box, of sigmoid cross-entropy for the classes and, times `CENTRE_WEIGHT`, for
    the centre within its cell, and, times `SIZE_WEIGHT`, of the squared error of log(size / anchor). All in float32.
    The loss of a batch is the mean of its images' times `summed_images`. So it is the recipe's sum over the 24 images
    of a process, with the recipe's learning rate and clipping, however many images, processes and accumulated batches
    an update is made of.

    Args:
        network: `YOLOv3`.
        num_classes: of the network.
        anchors: as in `ANCHORS`, in pixels of the input.
        image_size: side of the square input in pixels.
        positive_iou, ignore_iou: see `GridAssignment`.
        summed_images: factor of the mean over images.

    Input: boxes float32, x1, y1, x2, y2 in pixels of the input; labels int32, the box's class, or -1 for a row that
    fills up.
    """

    def __init__(self, network, num_classes, anchors, image_size, positive_iou, ignore_iou, summed_images):
        super().__init__(auto_prefix=False)
        self.network = network
        self.assign = GridAssignment(anchors, image_size, positive_iou, ignore_iou)
        corners, sizes, strides = place_anchors(anchors, image_size)
        self.corners, self.sizes, self.strides = Tensor(corners), Tensor(sizes), Tensor(strides)
        self.classes = Tensor(np.arange(num_classes, dtype=np.int32))
        self.cross_entropy = ops.SigmoidCrossEntropyWithLogits()
        self.summed_images = summed_images

    def construct(self, images, boxes, labels):
        raw = flatten_maps(self.network(images))  # (B, A, 5 + C)
        owners, positive, background = self.assign(boxes, labels)
        centres, growth, classes = self.build_targets(boxes, labels, owners)
        place_loss = (
            self.cross_entropy(raw[..., BOX_OUTPUTS:], classes).sum(-1)
            + CENTRE_WEIGHT * self.cross_entropy(raw[..., 0:2], centres).sum(-1)
            + SIZE_WEIGHT * ops.square(raw[..., 2:4] - growth).sum(-1)
        )
        objectness_loss = self.cross_entropy(raw[..., BOX_OUTPUTS - 1], positive)
        loss = (positive * place_loss + (positive + background) * objectness_loss).sum()
        return loss * (self.summed_images / raw.shape[0])

    def build_targets(self, boxes, labels, owners):
        """Build the targets of all places, meaningful where they have an owner.

        Returns:
            The centre and the log of the size over the anchor's, both (B, A, 2), and classes (B, A, C).
        """
        index = ops.tile(owners.expand_dims(-1), (1, 1, 4))  # (B, A) -> (B, A, 4)
        boxes = ops.gather_elements(boxes, 1, index)  # (B, M, 4) -> (B, A, 4)
        labels = ops.gather_elements(labels, 1, owners)  # (B, M) -> (B, A)
        top_left, bottom_right = boxes[..., 0:2], boxes[..., 2:4]
        centres = ops.clamp(((top_left + bottom_right) / 2 - self.corners) / self.strides, 0.0, 1.0)
        growth = ops.log(ops.clamp((bottom_right - top_left) / self.sizes, MIN_GROWTH))
        classes = (labels.expand_dims(-1) == self.classes).astype(mindspore.float32)  # (B, A) -> (B, A, C)
        return centres, growth, classes
