"""YOLOv3 on GhostNetV2's features, in the light form that MobileNetV2 is used with, and the decoding of its outputs.

Sources: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018; channels of the neck and the head, and the
prior of the biases, as in MMDetection's yolov3_mobilenetv2. Differences from that: the backbone; convolutions start
as in PyTorch's `nn.Conv2d`; the growth of a box over its anchor is limited.
"""

import math

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from src.detection.anchors import ANCHORS_PER_CELL, STRIDES, place_anchors
from src.errors import UserError
from src.layers.blocks import BiasedConvolution, build_batch_norm, build_convolution, resize

BOX_OUTPUTS = 5  # x, y, width, height, objectness
PREDICTION_STD = 0.01  # of the initial weights behind the last features
PRIOR_OBJECTS, PRIOR_IMAGE_SIZE = 8, 608  # objects that a scale expects at first in an image of so many pixels a side
PRIOR_CLASS = 0.01  # probability of each class at first
MAX_LOG_GROWTH = math.log(1000 / 16)  # of a box over its anchor; exp of random weights' outputs can be infinite


class ConvBnLeaky(nn.Cell):
    """Convolution, batch normalisation, LeakyReLU of slope 0.1: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__()
        self.conv = build_convolution(in_channels, out_channels, kernel_size)
        self.bn = build_batch_norm(out_channels)
        self.activation = nn.LeakyReLU(0.1)

    def construct(self, x):
        return self.activation(self.bn(self.conv(x)))


class YOLOv3(nn.Cell):
    """Detector: float32 (N, 3, H, W) -> raw predictions (N, 3 * (5 + classes), H / stride, W / stride) of each scale.

    From the coarsest map to the finest, each scale has a block of five convolutions, a head on it, and a 1x1
    convolution and nearest upsampling that carry its features to the next scale. The channels of an output are, for
    each anchor of the cell, x, y, width, height, objectness and the classes.

    Args:
        backbone: cell that ends in a tuple of maps, the last three of strides 8, 16 and 32.
        num_classes: without a background.
        channels: of the features of each scale.

    Returns:
        A tuple of the three outputs, in the order of `STRIDES`, sizes rounded up.

    Raises:
        UserError: if the backbone's strides are others.
    """

    def __init__(self, backbone, num_classes, channels):
        super().__init__()
        strides = tuple(reversed(backbone.feature_strides[-len(STRIDES) :]))
        if strides != STRIDES:
            raise UserError(f"the backbone's last maps have strides {strides[::-1]}, YOLOv3 needs {STRIDES[::-1]}")
        in_channels = backbone.feature_channels[: -len(STRIDES) - 1 : -1]
        carried = (0, *[channels] * (len(STRIDES) - 1))  # channels from the scale before
        self.backbone = backbone
        self.laterals = nn.CellList([ConvBnLeaky(channels, channels, 1) for _ in STRIDES[1:]])
        self.blocks = nn.CellList(
            [build_detection_block(own + more, channels) for own, more in zip(in_channels, carried)]
        )
        self.heads = nn.CellList([build_head(channels, num_classes, stride) for stride in STRIDES])

    def construct(self, x):
        maps = self.backbone(x)
        features = self.blocks[0](maps[-1])
        outputs = (self.heads[0](features),)
        for scale in range(1, len(self.blocks)):
            finer = maps[-1 - scale]
            features = resize(self.laterals[scale - 1](features), finer.shape[2:], "nearest")
            features = self.blocks[scale](ops.concat((features, finer), 1))
            outputs += (self.heads[scale](features),)
        return outputs


def build_detection_block(in_channels, channels):
    """Build five convolutions, 1x1 and 3x3 in turn, the 3x3 ones of twice the channels."""
    return nn.SequentialCell(
        [
            ConvBnLeaky(in_channels, channels, 1),
            ConvBnLeaky(channels, 2 * channels, 3),
            ConvBnLeaky(2 * channels, channels, 1),
            ConvBnLeaky(channels, 2 * channels, 3),
            ConvBnLeaky(2 * channels, channels, 1),
        ]
    )


def build_head(channels, num_classes, stride):
    """Build a 3x3 convolution, then the 1x1 one of the predictions.

    Its biases start at the logits of few objects and rare classes: else the loss of thousands of empty places drowns
    everything in the first updates.
    """
    outputs = BOX_OUTPUTS + num_classes
    bias = np.zeros((ANCHORS_PER_CELL, outputs), np.float32)
    bias[:, BOX_OUTPUTS - 1] = _logit(PRIOR_OBJECTS * (stride / PRIOR_IMAGE_SIZE) ** 2)
    bias[:, BOX_OUTPUTS:] = _logit(PRIOR_CLASS)
    prediction = BiasedConvolution(
        channels,
        ANCHORS_PER_CELL * outputs,
        1,
        has_bias=True,
        weight_init=Normal(PREDICTION_STD),
        bias_init=Tensor(bias.ravel()),
    )
    return nn.SequentialCell([ConvBnLeaky(channels, channels, 3), prediction])


def _logit(probability):
    return math.log(probability / (1 - probability))


def flatten_maps(maps):
    """Join the raw predictions of all scales: float32 (N, A, 5 + classes), in the order of `place_anchors`."""
    flat = ()
    for x in maps:
        outputs = x.shape[1] // ANCHORS_PER_CELL
        places = ANCHORS_PER_CELL * x.shape[2] * x.shape[3]
        x = x.astype(mindspore.float32).transpose(0, 2, 3, 1)  # (N, 3 * (5 + C), H, W) -> (N, H, W, 3 * (5 + C))
        flat += (x.reshape(-1, places, outputs),)  # -> (N, H * W * 3, 5 + C)
    return ops.concat(flat, 1)


class WithDecoding(nn.Cell):
    """A detector that ends in boxes, for evaluation and export.

    A box's centre is (sigmoid(x, y) + cell) * stride, its size anchor * exp(width, height).

    Args:
        network: `YOLOv3`.
        anchors: as in `ANCHORS`, in pixels of the input.
        image_size: side of the square input in pixels.

    Input: float32 (N, 3, image_size, image_size).

    Returns:
        boxes (N, A, 4), x1, y1, x2, y2 in pixels of the input, which they can leave; objectness (N, A) and class
        scores (N, A, classes), both from 0 to 1. A is the number of places of `place_anchors`.
    """

    def __init__(self, network, anchors, image_size):
        super().__init__(auto_prefix=False)  # the network's parameters keep their names
        self.network = network
        self.corners, self.sizes, self.strides = (Tensor(array) for array in place_anchors(anchors, image_size))
        self.max_growth = Tensor(MAX_LOG_GROWTH, mindspore.float32)

    def construct(self, x):
        raw = flatten_maps(self.network(x))
        centres = self.corners + ops.sigmoid(raw[..., 0:2]) * self.strides
        halves = 0.5 * self.sizes * ops.exp(ops.minimum(raw[..., 2:4], self.max_growth))
        boxes = ops.concat((centres - halves, centres + halves), -1)
        scores = ops.sigmoid(raw[..., BOX_OUTPUTS - 1 :])
        return boxes, scores[..., 0], scores[..., 1:]
