"""The training loss of classification."""

from mindspore import nn


class ClassificationLoss(nn.Cell):
    """Network and cross-entropy as one cell: images (N, 3, H, W), labels int32 (N,) -> scalar.

    Args:
        network: images -> logits (N, classes).
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    def __init__(self, network, label_smoothing=0.0):
        super().__init__(auto_prefix=False)
        self.network = network
        self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def construct(self, images, labels):
        return self.cross_entropy(self.network(images), labels)
