"""The training loss of segmentation."""

import mindspore
from mindspore import nn, ops

from src.layers.blocks import resize
from src.segmentation.transforms import IGNORED


def pixel_cross_entropy(logits, labels, average):
    """Compute the cross-entropy of the pixels that count, summed and divided by a number of pixels.

    Computed in float32 from plain operations, see `classification.loss`: kernels differ between processes.

    Args:
        logits: (N, classes, H, W).
        labels: int32 (N, H, W), classes or `IGNORED`.
        average: 'all' divides by N * H * W, as MMSegmentation does, so that the gradient of a batch is the mean of
            those of its images; 'counted' by the pixels that count.

    Returns:
        Scalar; 0 where no pixel counts.
    """
    counted = (labels != IGNORED).astype(mindspore.float32)
    targets = ops.minimum(labels, logits.shape[1] - 1).expand_dims(1)  # (N, H, W) -> (N, 1, H, W)
    log_probabilities = ops.log_softmax(logits.astype(mindspore.float32), 1)
    chosen = ops.gather_elements(log_probabilities, 1, targets).squeeze(1)  # (N, classes, H, W) -> (N, H, W)
    total = -(chosen * counted).sum()
    return total / labels.size if average == "all" else total / ops.maximum(counted.sum(), 1.0)


class SegmentationLoss(nn.Cell):
    """Network and cross-entropy as one cell: images (N, 3, H, W), labels (N, H, W) -> scalar.

    Args:
        network: in training, images -> (logits, auxiliary logits), each (N, classes, h, w) of any size.
        auxiliary_weight: of the auxiliary logits' loss, beside 1 for the other.
        average: see `pixel_cross_entropy`.
    """

    def __init__(self, network, auxiliary_weight, average):
        super().__init__(auto_prefix=False)
        self.network = network
        self.auxiliary_weight = auxiliary_weight
        self.average = average

    def construct(self, images, labels):
        labels = labels.astype(mindspore.int32)
        loss = 0.0
        for logits, weight in zip(self.network(images), (1.0, self.auxiliary_weight)):
            logits = resize(logits.astype(mindspore.float32), labels.shape[1:], "bilinear")
            loss = loss + weight * pixel_cross_entropy(logits, labels, self.average)
        return loss
