"""YOLOv3's loss with the assignment of boxes to anchors, all in the graph and of static shapes.

Sources: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2; weights, placement of the anchors
and summation as in MMDetection's yolov3_mobilenetv2. Assignment, for an anchor laid at the centre of each cell:

- A box may only have anchors of its own cells, one a scale: those that hold its centre.
- The one with the highest IoU of these over all scales is positive, the first in the order of places if several are
  equal. With `positive_iou` below 1, so are the others above it.
- A place that is positive for several boxes takes the one of highest IoU, the first if several are equal. A box that
  loses its only place this way has none.
- Any other place, in whatever cell, is ignored where its anchor's IoU with any box is above `ignore_iou`, and is
  background elsewhere.

MMDetection takes others above an IoU of 0.5 as positive, ties as positive all, the last box where several claim a
place as their best, and lets a box have anchors of a cell that holds the centre of another box.
"""

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from src.detection.anchors import place_anchors
from src.detection.yolov3 import BOX_OUTPUTS, flatten_maps

CENTRE_WEIGHT = 2.0  # classes and objectness have 1
SIZE_WEIGHT = 2.0
IGNORE_IOU = 0.5
SUMMED_IMAGES = 24  # of each process in the recipe, whose losses are added up
MIN_GROWTH = 1e-6  # of a box over its anchor


class GridAssignment(nn.Cell):
    """Which box each place is to predict, see the module's text.

    Args:
        anchors: as in `ANCHORS`, in pixels of the input.
        image_size: side of the square input in pixels.
        positive_iou: IoU above which an anchor in a box's cell is positive though it is not the best.
        ignore_iou: IoU above which a place without a box is no background.

    Input: boxes float32 (B, M, 4), x1, y1, x2, y2 in pixels; labels int32 (B, M), below 0 for rows that are no box.

    Returns:
        owners int32 (B, A), the index of each positive place's box; positive and background float32 (B, A), 1 or 0.
    """

    def __init__(self, anchors, image_size, positive_iou=1.0, ignore_iou=IGNORE_IOU):
        super().__init__(auto_prefix=False)
        corners, sizes, strides = place_anchors(anchors, image_size)
        centres = corners + strides / 2
        self.top_left, self.bottom_right = Tensor((centres - sizes / 2).T), Tensor((centres + sizes / 2).T)  # (2, A)
        self.areas = Tensor(sizes.prod(1))
        self.cells = Tensor((corners / strides).T)  # (2, A)
        self.strides = Tensor(strides[:, 0])
        self.last_cells = Tensor(np.ceil(image_size / strides[:, 0]) - 1)
        self.places = Tensor(np.arange(len(strides), dtype=np.int32))
        self.positive_iou = positive_iou
        self.ignore_iou = ignore_iou

    def construct(self, boxes, labels):
        iou = self.iou(boxes) * (labels >= 0).astype(mindspore.float32).expand_dims(-1)  # (B, M, A)
        own = ops.where(self.holds_centre(boxes), iou, ops.zeros_like(iou))
        best = own.argmax(-1).astype(mindspore.int32).expand_dims(-1)  # (B, M, A) -> (B, M, 1)
        claimed = ops.logical_or(self.places == best, own > self.positive_iou)
        claims = ops.where(claimed, own, ops.zeros_like(own))
        positive = ops.amax(claims, 1) > 0  # (B, M, A) -> (B, A)
        background = ops.logical_and(ops.amax(iou, 1) <= self.ignore_iou, ops.logical_not(positive))
        owners = claims.argmax(1).astype(mindspore.int32)
        return owners, positive.astype(mindspore.float32), background.astype(mindspore.float32)

    def iou(self, boxes):
        """(B, M, A) of boxes (B, M, 4) with all anchors."""
        intersection = 1.0
        for axis in range(2):
            start = ops.maximum(boxes[:, :, axis : axis + 1], self.top_left[axis])
            end = ops.minimum(boxes[:, :, axis + 2 : axis + 3], self.bottom_right[axis])
            intersection *= ops.relu(end - start)
        sizes = boxes[:, :, 2:] - boxes[:, :, :2]
        return intersection / (sizes[:, :, 0:1] * sizes[:, :, 1:] + self.areas - intersection)

    def holds_centre(self, boxes):
        """(B, M, A): whether each place's cell holds the centre of the box; the last cells also hold the border."""
        centres = (boxes[:, :, :2] + boxes[:, :, 2:]) / 2
        x = ops.minimum(ops.floor(centres[:, :, 0:1] / self.strides), self.last_cells)
        y = ops.minimum(ops.floor(centres[:, :, 1:] / self.strides), self.last_cells)
        return ops.logical_and(x == self.cells[0], y == self.cells[1])


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

    def __init__(
        self,
        network,
        num_classes,
        anchors,
        image_size,
        positive_iou=1.0,
        ignore_iou=IGNORE_IOU,
        summed_images=SUMMED_IMAGES,
    ):
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
        """Targets of all places, meaningful where they have an owner: centre, log of the size over the anchor's, both
        (B, A, 2), and classes (B, A, C)."""
        index = ops.tile(owners.expand_dims(-1), (1, 1, 4))  # (B, A) -> (B, A, 4)
        boxes = ops.gather_elements(boxes, 1, index)  # (B, M, 4) -> (B, A, 4)
        labels = ops.gather_elements(labels, 1, owners)  # (B, M) -> (B, A)
        top_left, bottom_right = boxes[..., 0:2], boxes[..., 2:4]
        centres = ops.clamp(((top_left + bottom_right) / 2 - self.corners) / self.strides, 0.0, 1.0)
        growth = ops.log(ops.clamp((bottom_right - top_left) / self.sizes, MIN_GROWTH))
        classes = (labels.expand_dims(-1) == self.classes).astype(mindspore.float32)  # (B, A) -> (B, A, C)
        return centres, growth, classes
