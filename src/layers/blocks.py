"""Cells and functions that several networks are built of: convolution, normalisation, resize, channel gate."""

import math

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Uniform

SE_RATIO = 0.25  # channels inside squeeze-and-excitation over those outside


class DilatedConvolution(nn.Conv2d):
    """A convolution with holes; a class of its own, for `src.training.precision`."""


class BiasedConvolution(nn.Conv2d):
    """A convolution with a bias; a class of its own, for `src.training.precision`."""


def build_convolution(in_channels, out_channels, kernel_size=1, stride=1, dilation=1, groups=1, has_bias=False):
    """Build a 2-D convolution whose padding keeps H x W at stride 1; an odd pixel of it is below and to the right.

    Weights and biases start as in PyTorch's `nn.Conv2d`: uniform in +-1/sqrt(fan-in).

    Args:
        in_channels, out_channels: channels in and out.
        kernel_size: a number, or (height, width).
        stride, dilation, groups, has_bias: as of `nn.Conv2d`.
    """
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    padding = [half for size in kernel for half in halve(dilation * (size - 1))]
    fan_in = in_channels // groups * kernel[0] * kernel[1]
    plain = BiasedConvolution if has_bias else nn.Conv2d
    return (plain if dilation == 1 else DilatedConvolution)(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        pad_mode="pad",
        padding=tuple(padding),
        dilation=dilation,
        group=groups,
        has_bias=has_bias,
        weight_init=HeUniform(math.sqrt(5)),
        bias_init=Uniform(1 / math.sqrt(fan_in)),
    )


def halve(pixels) -> tuple:
    """Split the padding of an axis into what is in front and behind."""
    return pixels // 2, pixels - pixels // 2


def build_dense(in_channels, out_channels):
    """Build a dense layer that starts as PyTorch's `nn.Linear`: uniform in +-1/sqrt(in_channels)."""
    bias_init = Uniform(1 / math.sqrt(in_channels))
    return nn.Dense(in_channels, out_channels, weight_init=HeUniform(math.sqrt(5)), bias_init=bias_init)


def build_batch_norm(channels):
    """Build a batch normalisation; its momentum of 0.9 is what PyTorch calls 0.1."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


@ops.constexpr
def bicubic_weights(size_in, size_out):
    """Build the float32 matrix (size_out, size_in) that resizes one axis by cubic convolution, as PyTorch does.

    The coefficient is a = -0.75, centres are half-pixel ones, borders are repeated. MindSpore's own kernel takes
    a = -0.5 on CPU, so that devices would differ.
    """
    a = -0.75
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    first = np.floor(position).astype(np.int64) - 1
    weights = np.zeros((size_out, size_in))
    for tap in range(4):
        distance = np.abs(position - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        column = np.clip(first + tap, 0, size_in - 1)
        np.add.at(weights, (np.arange(size_out), column), np.where(distance <= 1, near, far))
    return Tensor(weights.astype(np.float32))


def resize(x, size, mode):
    """Resize (N, C, H, W) to (N, C, *size) as PyTorch's `interpolate` does.

    Args:
        x: the tensor.
        size: (height, width).
        mode: 'nearest', 'bilinear', 'bilinear_align_corners' or 'bicubic'.
    """
    if mode == "bicubic":
        rows, columns = (bicubic_weights(x.shape[2 + axis], size[axis]).astype(x.dtype) for axis in (0, 1))
        x = ops.matmul(rows, x)  # (h, H) x (N, C, H, W) -> (N, C, h, W)
        return ops.matmul(x, columns.T)  # (N, C, h, W) x (W, w) -> (N, C, h, w)
    # not ops.interpolate, which asks questions about the whole shape that a dynamic batch leaves open
    if mode == "nearest":
        return ops.ResizeNearestNeighborV2()(x, size)
    aligned = mode == "bilinear_align_corners"
    return ops.ResizeBilinearV2(aligned, not aligned)(x, size)


@ops.constexpr
def is_for(device_target):
    """Whether a graph is compiled for a device."""
    return mindspore.get_context("device_target") == device_target


def global_mean(x):
    """Average over height and width: (N, C, H, W) -> (N, C, 1, 1).

    On CPU a pooling is much faster than a mean, and that of a fixed size has a faster gradient than an adaptive one.
    """
    return ops.AvgPool(x.shape[2:], 1, "valid")(x) if is_for("CPU") else x.mean((2, 3), keep_dims=True)


class ConvBnAct(nn.Cell):
    """Convolution, batch normalisation and, unless switched off, ReLU: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, dilation=1, groups=1, relu=True):
        super().__init__()
        self.conv = build_convolution(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.bn = build_batch_norm(out_channels)
        self.relu = nn.ReLU() if relu else None

    def construct(self, x):
        x = self.bn(self.conv(x))
        return x if self.relu is None else self.relu(x)


class SqueezeExcitation(nn.Cell):
    """Channel gate from the global mean: (N, C, H, W) -> (N, C, H, W). Source: Hu et al., CVPR 2018.

    Args:
        channels: C.
        reduced: channels between the two convolutions.
    """

    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce = build_convolution(channels, reduced, has_bias=True)
        self.conv_expand = build_convolution(reduced, channels, has_bias=True)
        self.relu = nn.ReLU()
        self.gate = nn.HSigmoid()

    def construct(self, x):
        scale = global_mean(x)  # (N, C, H, W) -> (N, C, 1, 1)
        scale = self.conv_expand(self.relu(self.conv_reduce(scale)))
        # MindSpore's CPU kernel for a product of different shapes keeps 16 bytes of indices for each value
        return x * ops.broadcast_to(self.gate(scale), (-1, -1, *x.shape[2:]))  # (N, C, 1, 1) -> (N, C, H, W)

    def multiply_adds(self, input_shape) -> int:
        """Count the products of values and scales, for an input (N, C, H, W)."""
        return math.prod(input_shape)
