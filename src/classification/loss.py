"""The training loss of classification."""

import mindspore
from mindspore import Tensor, nn, ops


class ClassificationLoss(nn.Cell):
    """Network and cross-entropy as one cell: images (N, 3, H, W), labels int32 (N,) -> scalar.

    Computed in float32 from plain operations: the CPU kernel behind `nn.CrossEntropyLoss` sums in an order
    that differs between processes.

    Args:
        network: images -> logits (N, classes).
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    def __init__(self, network, label_smoothing):
        super().__init__(auto_prefix=False)
        self.network = network
        self.label_smoothing = label_smoothing

    def construct(self, images, labels):
        logits = self.network(images).astype(mindspore.float32)
        classes = logits.shape[1]
        spread = self.label_smoothing / classes
        on, off = Tensor(1 - self.label_smoothing + spread, mindspore.float32), Tensor(spread, mindspore.float32)
        targets = ops.one_hot(labels, classes, on, off)  # (N,) -> (N, classes)
        return -(ops.log_softmax(logits, 1) * targets).sum(1).mean()
