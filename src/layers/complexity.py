"""Size of a network: parameters and multiply-adds."""

import mindspore
import numpy as np
from mindspore import Tensor, nn

COUNTED = (nn.Conv2d, nn.Dense)


def count_parameters(network) -> int:
    """Count the trainable parameters."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_multiply_adds(network, image_size=(224, 224), in_channels=3, products=False) -> int:
    """Count the multiply-adds of all convolutions and dense layers for one image, the paper's "FLOPs".

    Runs the network once, operator by operator (PyNative), and restores the mode.

    Args:
        network: nn.Cell, images -> anything.
        image_size: (height, width).
        in_channels: of an image.
        products: count what else multiplies as well, which cells tell by a method `multiply_adds(input_shape)`: gates,
            resizing, dot products of self-attention.
    """
    total = 0

    def count(cell, inputs, output):
        nonlocal total
        if not isinstance(cell, COUNTED):
            total += cell.multiply_adds(inputs[0].shape)
            return
        taps = int(np.prod(cell.weight.shape[1:]))  # weights that each output value needs
        total += taps * output.size

    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, COUNTED)]
    if products:
        cells += [cell for _, cell in network.cells_and_names() if hasattr(cell, "multiply_adds")]
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
