"""Evaluation of an image together with its mirror image."""

import numpy as np
from mindspore import Tensor


class MirrorAverage:
    """Stands in for a network: Tensor (N, 3, H, W) -> the mean logits of images and mirror images, (N, classes).

    The two are passed one after the other, so that files with a fixed batch and compiled graphs serve as they are.

    Args:
        network: nn.Cell or exported, of one output.
    """

    def __init__(self, network):
        self.network = network

    def set_train(self, mode=True):
        """Set the mode of the network."""
        self.network.set_train(mode)
        return self

    def __call__(self, images):
        mirrored = Tensor(np.ascontiguousarray(images.asnumpy()[..., ::-1]))
        return (self.network(images) + self.network(mirrored)) / 2
