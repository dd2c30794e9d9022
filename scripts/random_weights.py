"""Random weights for measurements and tests: with them every layer matters to the outputs, as in a trained network."""

import numpy as np

STATISTICS = ("moving_mean", "moving_variance")
SHAPE = (2, 3, 160, 160)


def randomise(network, *inputs, seed=0, gain=1.0):
    """Give a network random weights, biases and batch normalisation; returns it in evaluation mode.

    The statistics of batch normalisation lie around those of the features that the inputs lead to: with any others,
    each layer damps what it is given beside its own offsets, until two images have the same outputs.

    Args:
        network: cell of this project, or of MindSpore's.
        inputs: arrays, or tuples of arrays, to call it with; by default two images of random pixels, (2, 3, 160, 160).
        seed: of all random numbers.
        gain: factor of what batch normalisation gives; with 2, ReLU6 has values on both sides of its ends.
    """
    import mindspore
    from mindspore import Tensor, nn

    generator = np.random.default_rng(seed)
    inputs = inputs or (generator.standard_normal(SHAPE).astype(np.float32),)
    for parameter in network.get_parameters():
        drawn = draw(generator, parameter.name.rpartition(".")[2], parameter.shape)
        if drawn is not None:
            drawn *= gain if parameter.name.endswith(("gamma", "beta")) else 1
            parameter.set_data(Tensor(drawn.astype(np.float32)))

    def to_tensors(x):
        return tuple(map(Tensor, x)) if isinstance(x, tuple) else Tensor(x)

    def set_statistics(cell, features):
        mean, variance = draw_statistics(generator, features[0].asnumpy())
        cell.moving_mean.set_data(Tensor(mean.astype(np.float32)))
        cell.moving_variance.set_data(Tensor(variance.astype(np.float32)))

    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    hooks = [cell.register_forward_pre_hook(set_statistics) for cell in norms]
    mode = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    network.set_train(False)(*map(to_tensors, inputs))
    mindspore.set_context(mode=mode)
    for hook in hooks:
        hook.remove()
    return network


def draw(generator, name, shape):
    """Draw the values of a parameter by the last part of its name; None if they are statistics."""
    if name in STATISTICS:
        return None
    if name == "gamma":
        return generator.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
        return generator.uniform(-0.5, 0.5, shape)
    return generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))


def draw_statistics(generator, features):
    """Draw mean and variance around those of the channels of (N, C, H, W), it at least a tenth of the mean square."""
    variance = np.maximum(features.var((0, 2, 3)), 0.1 * np.square(features).mean() + 1e-5)
    mean = features.mean((0, 2, 3)) + np.sqrt(variance) * generator.uniform(-0.5, 0.5, variance.shape)
    return mean, variance * generator.uniform(0.5, 1.5, variance.shape)
