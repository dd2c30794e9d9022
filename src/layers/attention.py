"""Attention modules that DFC attention is compared with: SE, CBAM, coordinate attention and self-attention.

Sources: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, section 3; Woo et al., "CBAM: Convolutional Block
Attention Module", ECCV 2018, section 3; Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR
2021, section 3.2; Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer", ICLR 2022, section 3.1.

Differences: CBAM's spatial gate has a batch normalisation, which the authors' code has and the paper does not write.
The joint convolution of coordinate attention has no bias, which its batch normalisation would take away again. Of
MobileViT only the attention among patches is here: neither its 3x3 convolutions, nor its feed-forward layers and layer
normalisation, since batch normalisation stands in front.
"""

import math

from mindspore import nn, ops

from src.layers.blocks import ConvBnAct, build_convolution, global_mean, resize

SPATIAL_KERNEL_SIZE = 7  # of CBAM
HEADS = 4
PATCH_SIZE = 2  # pixels each way
CHANNEL_MULTIPLE = 8  # two channels a head at least


class ChannelMLP(nn.Cell):
    """Two 1x1 convolutions with ReLU between: (N, channels, 1, 1) -> (N, channels, 1, 1)."""

    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce = build_convolution(channels, reduced, has_bias=True)
        self.conv_expand = build_convolution(reduced, channels, has_bias=True)
        self.relu = nn.ReLU()

    def construct(self, x):
        return self.conv_expand(self.relu(self.conv_reduce(x)))


class SE(nn.Cell):
    """Squeeze-and-excitation as published, with a sigmoid: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        reduced: channels between the two convolutions.
    """

    def __init__(self, channels, reduced):
        super().__init__()
        self.mlp = ChannelMLP(channels, reduced)
        self.gate = nn.Sigmoid()

    def construct(self, x):
        scale = self.gate(self.mlp(global_mean(x)))
        return x * ops.broadcast_to(scale, (-1, -1, *x.shape[2:]))  # (N, C, 1, 1) -> (N, C, H, W)

    def multiply_adds(self, input_shape) -> int:
        """Count the products of values and scales, for an input (N, C, H, W)."""
        return math.prod(input_shape)


class CBAM(nn.Cell):
    """A gate of the channels, then one of the pixels, both from mean and maximum: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        reduced: channels inside the MLP that mean and maximum share.
    """

    def __init__(self, channels, reduced):
        super().__init__()
        self.mlp = ChannelMLP(channels, reduced)
        self.spatial = ConvBnAct(2, 1, SPATIAL_KERNEL_SIZE, relu=False)
        self.gate = nn.Sigmoid()

    def construct(self, x):
        channels, height, width = x.shape[1:]
        scale = self.gate(self.mlp(global_mean(x)) + self.mlp(ops.amax(x, (2, 3), True)))
        x = x * ops.broadcast_to(scale, (-1, -1, height, width))  # (N, C, 1, 1) -> (N, C, H, W)
        pooled = ops.concat((x.mean(1, keep_dims=True), ops.amax(x, 1, True)), 1)  # (N, 2, H, W)
        scale = self.gate(self.spatial(pooled))
        return x * ops.broadcast_to(scale, (-1, channels, -1, -1))  # (N, 1, H, W) -> (N, C, H, W)

    def multiply_adds(self, input_shape) -> int:
        """Count the products of values and both gates, for an input (N, C, H, W)."""
        return 2 * math.prod(input_shape)


class CoordinateAttention(nn.Cell):
    """Gates of rows and of columns, from the means along both axes: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        reduced: channels of the joint convolution, which rows and columns share.
    """

    def __init__(self, channels, reduced):
        super().__init__()
        self.joint = ConvBnAct(channels, reduced, relu=False)
        self.activation = nn.HSwish()
        self.conv_rows = build_convolution(reduced, channels, has_bias=True)
        self.conv_columns = build_convolution(reduced, channels, has_bias=True)
        self.gate = nn.Sigmoid()

    def construct(self, x):
        height, width = x.shape[2:]
        rows = x.mean(3, keep_dims=True)  # (N, C, H, W) -> (N, C, H, 1)
        columns = x.mean(2, keep_dims=True).swapaxes(2, 3)  # (N, C, 1, W) -> (N, C, W, 1)
        joint = self.activation(self.joint(ops.concat((rows, columns), 2)))  # (N, reduced, H + W, 1)
        rows = self.gate(self.conv_rows(joint[:, :, :height]))
        columns = self.gate(self.conv_columns(joint[:, :, height:])).swapaxes(2, 3)  # (N, C, W, 1) -> (N, C, 1, W)
        x = x * ops.broadcast_to(rows, (-1, -1, -1, width))
        return x * ops.broadcast_to(columns, (-1, -1, height, -1))

    def multiply_adds(self, input_shape) -> int:
        """Count the products of values and both gates, for an input (N, C, H, W)."""
        return 2 * math.prod(input_shape)


class SelfAttention(nn.Cell):
    """Self-attention of MobileViT in the place of DFC attention.

    The input is halved and projected as in DFC attention. Pixels at the same place of their 2x2 patches attend to each
    other: four sequences, of a quarter of the pixels each. The result is added, projected, squashed and resized to
    the features that it gates. An odd last row or column is repeated, so that patches are whole; a repeated pixel only
    weighs twice, where zeros would be keys of their own.

    The attention works on the channels of the input, not on the several times as many that it gates: that keeps all
    that the input has at the least cost. They are rounded up to a multiple of 8, so that four heads share them evenly.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the features to gate.

    Input: (N, in_channels, H, W), H and W at least 2, and the target (height, width). Output: (N, out_channels,
    height, width).
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.channels = -(-in_channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
        self.pool = nn.AvgPool2d(2, 2)
        self.conv_in = ConvBnAct(in_channels, self.channels, relu=False)
        self.query_key_value = build_convolution(self.channels, 3 * self.channels, has_bias=True)
        self.merge_heads = build_convolution(self.channels, self.channels, has_bias=True)
        self.conv_out = ConvBnAct(self.channels, out_channels, relu=False)
        self.gate = nn.Sigmoid()

    def construct(self, x, size):
        x = self.conv_in(self.pool(x))
        height, width = x.shape[2:]
        x = x + self.attend(repeat_odd_edges(x))[:, :, :height, :width]
        return resize(self.gate(self.conv_out(x)), size, "nearest")

    def attend(self, x):
        """Compute the attention of (N, C, H, W), H and W even; the result has the same shape."""
        query, key, value = unfold(self.query_key_value(x))
        scores = ops.matmul(query.swapaxes(2, 3) * (HEADS / self.channels) ** 0.5, key)  # (4 * N, HEADS, L, L)
        mixed = ops.matmul(value, ops.softmax(scores, -1).swapaxes(2, 3))
        return self.merge_heads(fold(mixed, x.shape[1:]))

    def multiply_adds(self, input_shape) -> int:
        """Count the multiply-adds of the scaled dot products, which are in no convolution, of (N, C, H, W)."""
        batch, _, height, width = input_shape
        rows, columns = (-(-(size // 2) // PATCH_SIZE) for size in (height, width))  # of patches
        products = 2 * (rows * columns) ** 2 * self.channels  # with the keys, then with the values
        return batch * PATCH_SIZE**2 * products


def repeat_odd_edges(x):
    """Repeat the last row and column of (N, C, H, W) where there is an odd number of them."""
    if x.shape[2] % PATCH_SIZE:
        x = ops.concat((x, x[:, :, -1:]), 2)
    if x.shape[3] % PATCH_SIZE:
        x = ops.concat((x, x[:, :, :, -1:]), 3)
    return x


def unfold(x):
    """Cut (N, 3 * C, H, W) into 2x2 patches: query, key and value of (4 * N, HEADS, C / HEADS, H * W / 4) each."""
    channels, rows, columns = x.shape[1], x.shape[2] // PATCH_SIZE, x.shape[3] // PATCH_SIZE
    x = x.reshape(-1, channels, rows, PATCH_SIZE, columns, PATCH_SIZE)
    x = x.transpose(0, 3, 5, 1, 2, 4)  # (N, 3 * C, H / 2, 2, W / 2, 2) -> (N, 2, 2, 3 * C, H / 2, W / 2)
    x = x.reshape(-1, 3, HEADS, channels // (3 * HEADS), rows * columns)
    return x[:, 0], x[:, 1], x[:, 2]


def fold(x, shape):
    """Put sequences (4 * N, HEADS, C / HEADS, H * W / 4) back together: (N, C, H, W), `shape` being (C, H, W)."""
    channels, height, width = shape
    x = x.reshape(-1, PATCH_SIZE, PATCH_SIZE, channels, height // PATCH_SIZE, width // PATCH_SIZE)
    x = x.transpose(0, 3, 4, 1, 5, 2)  # (N, 2, 2, C, H / 2, W / 2) -> (N, C, H / 2, 2, W / 2, 2)
    return x.reshape(-1, channels, height, width)
