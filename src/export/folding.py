"""BatchNorm folding: a network that computes the same in evaluation, with the statistics inside the convolutions.

A convolution and the batch normalisation behind it are one affine map, so their product is a convolution with
a bias. Each pair folds by itself. The two depthwise convolutions of DFC attention have nothing but a
BatchNorm between them, but are not merged into one 5x5: at the borders, where zeros are padded between them,
the result would be another.
"""

import copy

import numpy as np
from mindspore import Parameter, Tensor, nn


def fold_batch_norm(network):
    """Copy `network`, in evaluation mode, into one whose convolutions do what its batch normalisations did.

    Each BatchNorm2d folds into the Conv2d that its cell registered right before it; an identity takes its place.

    Args:
        network: nn.Cell; stays as it is.

    Raises:
        ValueError: if a batch normalisation has no convolution before it.
    """
    folded = copy.deepcopy(network).set_train(False)
    folded.compile_cache.clear()
    for _, cell in folded.cells_and_names():
        previous = None
        for name, child in cell.name_cells().items():
            if isinstance(child, nn.BatchNorm2d):
                if not isinstance(previous, nn.Conv2d):
                    raise ValueError(f"{child.gamma.name}: no convolution stands before this batch normalisation")
                fold_pair(previous, child)
                _replace(cell, name, nn.Identity())
            previous = child
    return folded


def fold_pair(convolution, batch_norm) -> None:
    """Take the evaluation map of `batch_norm` (nn.BatchNorm2d) over into `convolution` (nn.Conv2d)."""
    gamma, beta, mean, variance = (
        parameter.asnumpy().astype(np.float64)
        for parameter in (batch_norm.gamma, batch_norm.beta, batch_norm.moving_mean, batch_norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + batch_norm.eps)
    weight = convolution.weight.asnumpy() * scale[:, None, None, None]
    bias = (convolution.bias.asnumpy() if convolution.has_bias else 0.0) - mean
    name = convolution.weight.name.rpartition(".")[0]
    convolution.weight.set_data(Tensor(weight.astype(np.float32)))
    convolution.bias = Parameter(Tensor((bias * scale + beta).astype(np.float32)), name=f"{name}.bias")
    convolution.has_bias = True


def _replace(cell, name, child) -> None:
    if isinstance(cell, (nn.SequentialCell, nn.CellList)):
        cell[int(name)] = child  # these keep a second record of their cells
    else:
        setattr(cell, name, child)


def weights_of(convolution):
    """Give weight and bias of an nn.Conv2d as arrays."""
    weight = convolution.weight.asnumpy()
    bias = convolution.bias.asnumpy() if convolution.has_bias else np.zeros(len(weight), weight.dtype)
    return weight, bias
