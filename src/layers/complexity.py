"""Size of a network: parameters and multiply-adds."""

import mindspore
import numpy as np
from mindspore import Tensor, nn


def count_parameters(network) -> int:
    """Count the trainable parameters."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_multiply_adds(network, image_size=(224, 224), in_channels=3) -> int:
    """Count the multiply-adds of all convolutions and dense layers for one image, the paper's "FLOPs".

    Runs the network once, operator by operator (PyNative), and restores the mode.
    """
    total = 0

    def count(cell, inputs, output):
        nonlocal total
        taps = int(np.prod(cell.weight.shape[1:]))  # weights that each output value needs
        total += taps * output.size

    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, (nn.Conv2d, nn.Dense))]
    handles = [cell.register_forward_hook(count) for cell in cells]
    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    try:
        network.set_train(False)(Tensor(np.zeros((1, in_channels, *image_size), np.float32)))
    finally:
        mindspore.set_context(mode=mode)
        for handle in handles:
            handle.remove()
    return total
