"""Attention modules against builds from PyTorch's functions: values, gradients, odd sizes, float16, dynamic batches."""

import mindspore
import numpy as np
import pytest
from helpers import assert_close, normal, randomise, reference
from mindspore import Tensor, nn, ops

from src.layers.attention import CBAM, SE, CoordinateAttention, SelfAttention
from src.training.precision import mix_precision

CHANNELS, REDUCED = 24, 8
SIZES = [(16, 16), (10, 15), (17, 13), (2, 3)]  # halved and cut: even, odd, or smaller than a patch


class Gated(nn.Cell):
    """Features that self-attention of an input at half their size gates, as DFC attention does."""

    def __init__(self):
        super().__init__()
        self.attention = SelfAttention(CHANNELS, 10)

    def construct(self, x):
        height, width = x.shape[2:]
        features = ops.concat((x, x), 3)[:, :10, :, : width + 1]
        return features * self.attention(x, (height, width + 1))


def convolve(x, weights, name, padding=0):
    functional = reference("torch").nn.functional
    return functional.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)


def convolve_and_normalise(x, weights, name, padding=0):
    leaves = ("moving_mean", "moving_variance", "gamma", "beta")
    statistics = (weights[f"{name}.bn.{leaf}"] for leaf in leaves)
    return reference("torch").nn.functional.batch_norm(convolve(x, weights, f"{name}.conv", padding), *statistics)


def mlp_in_torch(x, weights):
    return convolve(convolve(x, weights, "mlp.conv_reduce").relu(), weights, "mlp.conv_expand")


def se_in_torch(x, weights):
    return x * mlp_in_torch(x.mean((2, 3), keepdim=True), weights).sigmoid()


def cbam_in_torch(x, weights):
    torch = reference("torch")
    largest = x.flatten(2).max(2).values[:, :, None, None]
    x = x * (mlp_in_torch(x.mean((2, 3), keepdim=True), weights) + mlp_in_torch(largest, weights)).sigmoid()
    pooled = torch.stack((x.mean(1), x.max(1).values), 1)
    return x * convolve_and_normalise(pooled, weights, "spatial", padding=3).sigmoid()


def coordinate_attention_in_torch(x, weights):
    torch = reference("torch")
    functional = torch.nn.functional
    means = torch.cat((x.mean(3), x.mean(2)), 2)[..., None]
    joint = functional.hardswish(convolve_and_normalise(means, weights, "joint"))
    rows = convolve(joint, weights, "conv_rows").sigmoid()[:, :, : x.shape[2]]
    columns = convolve(joint, weights, "conv_columns").sigmoid()[:, :, x.shape[2] :]
    return x * rows * columns.transpose(2, 3)


def attend_in_torch(x, weights):
    """Multi-head attention of PyTorch among the pixels at each of the four places of a 2x2 patch."""
    torch = reference("torch")
    channels = x.shape[1]
    layer = torch.nn.MultiheadAttention(channels, 4, batch_first=True)
    given = {
        "in_proj_weight": weights["attention.query_key_value.weight"].flatten(1),
        "in_proj_bias": weights["attention.query_key_value.bias"],
        "out_proj.weight": weights["attention.merge_heads.weight"].flatten(1),
        "out_proj.bias": weights["attention.merge_heads.bias"],
    }
    result = torch.zeros_like(x)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = x[:, :, row::2, column::2]
        sequence = part.flatten(2).transpose(1, 2)
        arguments = (sequence, sequence, sequence)
        mixed = torch.func.functional_call(layer, given, arguments, {"need_weights": False})[0]
        result[:, :, row::2, column::2] = mixed.transpose(1, 2).reshape(part.shape)
    return result


def gated_in_torch(x, weights):
    torch = reference("torch")
    functional = torch.nn.functional
    height, width = x.shape[2:]
    y = convolve_and_normalise(functional.avg_pool2d(x, 2), weights, "attention.conv_in")
    padding = (0, y.shape[3] % 2, 0, y.shape[2] % 2)
    y = y + attend_in_torch(functional.pad(y, padding, mode="replicate"), weights)[:, :, : y.shape[2], : y.shape[3]]
    gate = convolve_and_normalise(y, weights, "attention.conv_out").sigmoid()
    return torch.cat((x, x), 3)[:, :10, :, : width + 1] * functional.interpolate(gate, (height, width + 1))


MODULES = {
    "se": (lambda: SE(CHANNELS, REDUCED), se_in_torch),
    "cbam": (lambda: CBAM(CHANNELS, REDUCED), cbam_in_torch),
    "ca": (lambda: CoordinateAttention(CHANNELS, REDUCED), coordinate_attention_in_torch),
    "self": (Gated, gated_in_torch),
}


@pytest.fixture(params=MODULES)
def pair(request):
    """A module of ours with random batch normalisation, and the same function in PyTorch."""
    build, in_torch = MODULES[request.param]
    return randomise(build(), normal(2, CHANNELS, 10, 12)), in_torch


def weights_of(cell):
    """{parameter name: PyTorch's tensor}, those that are trained with gradients."""
    torch = reference("torch")
    return {p.name: torch.tensor(p.asnumpy(), requires_grad=p.requires_grad) for p in cell.get_parameters()}


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_values_equal_pytorch(pair, mode):
    mindspore.set_context(mode=mode)
    cell, in_torch = pair
    for size in SIZES:
        x = normal(2, CHANNELS, *size)
        expected = in_torch(reference("torch").from_numpy(x), weights_of(cell)).detach().numpy()
        assert_close(cell(Tensor(x)).asnumpy(), expected, 1e-5)


def test_gradients_equal_pytorch_in_graph_mode(pair):
    cell, in_torch = pair
    x = normal(2, CHANNELS, 9, 14)
    parameters = cell.trainable_params()
    weights, inputs = weights_of(cell), reference("torch").tensor(x, requires_grad=True)
    expected = in_torch(inputs, weights)
    direction = normal(*expected.shape, seed=1)
    (expected * reference("torch").from_numpy(direction)).sum().backward()

    def forward(x, direction):
        return (cell(x) * direction).sum()

    ours, of_parameters = ops.grad(forward, 0, parameters)(Tensor(x), Tensor(direction))
    assert_close(ours.asnumpy(), inputs.grad.numpy(), 1e-4)
    for parameter, gradient in zip(parameters, of_parameters):
        truth = weights[parameter.name].grad.numpy()
        scale = np.abs(truth).max()
        assert scale > 1e-3, parameter.name
        assert np.abs(gradient.asnumpy() - truth).max() < 1e-4 * scale, parameter.name


def output_and_gradients(network, parameters, x):
    """The output in training mode, and the gradients of its mean square as one vector."""

    def forward(x):
        y = network(x)
        return (y**2).mean(), y

    (_, y), gradients = ops.value_and_grad(forward, None, parameters, has_aux=True)(x)
    assert y.dtype == mindspore.float32
    return y.asnumpy(), np.concatenate([gradient.asnumpy().ravel() for gradient in gradients])


@pytest.mark.parametrize("level", ["O2", "auto"])
def test_float16_follows_float32(pair, level):
    """Within a few roundings of float16, which are 5e-4 each; gradients of a normalised weight lose digits."""
    cell, _ = pair
    x = Tensor(normal(4, CHANNELS, 9, 14))
    parameters = cell.set_train().trainable_params()
    expected = output_and_gradients(cell, parameters, x)
    mixed = mix_precision(cell, level, "CPU").set_train()
    for ours, truth, limit in zip(output_and_gradients(mixed, parameters, x), expected, (2e-3, 1e-2)):
        assert 1e-6 < np.linalg.norm(ours - truth) / np.linalg.norm(truth) < limit


def test_a_batch_of_any_size(pair):
    cell, _ = pair
    x = normal(3, CHANNELS, 9, 14)
    expected = cell(Tensor(x)).asnumpy()
    cell.set_inputs(Tensor(shape=(None, CHANNELS, 9, 14), dtype=mindspore.float32))
    for count in (1, 3):
        assert_close(cell(Tensor(x[:count])).asnumpy(), expected[:count], 1e-6)


def test_channels_of_self_attention():
    assert [SelfAttention(channels, 7).channels for channels in (3, 8, 20, 24, 112)] == [8, 8, 24, 24, 112]


def test_multiply_adds_of_the_dot_products():
    attention = SelfAttention(20, 7)  # 24 channels
    # 18x26 -> 9x13 -> 10x14 pixels: 4 sequences of 5 * 7; each pair once with the key, once with the value
    assert attention.multiply_adds((1, 20, 18, 26)) == 4 * 35 * 35 * 24 * 2
    assert attention.multiply_adds((3, 20, 19, 27)) == 3 * attention.multiply_adds((1, 20, 18, 26))
    assert attention.multiply_adds((1, 20, 2, 2)) == 4 * 24 * 2
