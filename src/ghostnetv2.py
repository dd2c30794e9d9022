"""GhostNetV2, and GhostNet V1 as its attention-free case, as MindSpore cells.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022
(sections 3 and 4); Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020.

Behaviour follows the authors' PyTorch code. Differences from the official MindSpore port, whose
parameter names this file keeps: channels are rounded to the nearest multiple of 4 instead of up (the
same at width 1.0), and the attention map is resized with `nearest`, as in PyTorch; that port used
`bilinear_align_corners`, which is an option here.
"""

import math

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Uniform

from src.dropout import Dropout
from src.errors import UserError, nearest

CHANNEL_DIVISOR = 4
SE_RATIO = 0.25
STEM_CHANNELS = 16
HEAD_CHANNELS = 1280
MIN_INPUT_SIZE = 33  # pixels; below it the maps at stride 32 are 1x1 and the 2x2 pooling of DFC has no input
FIRST_DFC_BLOCK = 2  # the first two blocks, at high resolution, have no DFC attention (paper, section 4.1)

BLOCKS = (
    # k, exp, out, se, stride
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)

VARIANTS = {
    "ghostnetv2_1x": {"width": 1.0},
    "ghostnetv2_1_3x": {"width": 1.3},
    "ghostnetv2_1_6x": {"width": 1.6},
    "ghostnetv2_nose_1x": {"width": 1.0, "squeeze_excitation": False},
    "ghostnet_1x": {"width": 1.0, "dfc_blocks": ()},
}

DOWN_SAMPLINGS = ("avg_pool", "max_pool", "bilinear")
UP_SAMPLINGS = ("nearest", "bilinear", "bilinear_align_corners", "bicubic")
GATES = ("sigmoid", "hard_sigmoid", "none")
GATE_POSITIONS = ("before_up_sampling", "after_up_sampling")
DFC_TARGETS = ("expressiveness", "capacity", "both")
OUTPUT_STRIDES = (8, 16, 32)


def round_channels(channels: float) -> int:
    """Nearest multiple of `CHANNEL_DIVISOR`, raised by one step where that loses more than 10 %."""
    rounded = max(CHANNEL_DIVISOR, int(channels + CHANNEL_DIVISOR / 2) // CHANNEL_DIVISOR * CHANNEL_DIVISOR)
    return rounded + CHANNEL_DIVISOR if rounded < 0.9 * channels else rounded


def check_choice(name: str, value, allowed) -> None:
    """Raise `UserError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError(f"{name}={value!r} is not one of {', '.join(map(str, allowed))}{nearest(value, allowed)}")


def build_convolution(in_channels, out_channels, kernel_size=1, stride=1, dilation=1, groups=1, has_bias=False):
    """2-D convolution whose padding keeps H x W at stride 1; kernel and dilation are numbers or (height, width).

    Weights and biases start as in PyTorch's `nn.Conv2d`: uniform in +-1/sqrt(fan-in).
    """
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    top, left = (dilation * (size - 1) // 2 for size in kernel)
    fan_in = in_channels // groups * kernel[0] * kernel[1]
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        pad_mode="pad",
        padding=(top, top, left, left),
        dilation=dilation,
        group=groups,
        has_bias=has_bias,
        weight_init=HeUniform(math.sqrt(5)),
        bias_init=Uniform(1 / math.sqrt(fan_in)),
    )


def build_batch_norm(channels):
    """Batch normalisation; momentum 0.9 here is PyTorch's 0.1."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


@ops.constexpr
def bicubic_weights(size_in, size_out):
    """(size_out, size_in) float32 matrix that resizes one axis: cubic convolution with a = -0.75 as in PyTorch,
    half-pixel centres, borders repeated. MindSpore's own kernel takes a = -0.5 on CPU, so devices would differ.
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
    """Resize (N, C, H, W) to (N, C, *size); `mode` is one of `UP_SAMPLINGS`, each as in PyTorch."""
    if mode == "bicubic":
        x = ops.matmul(bicubic_weights(x.shape[2], size[0]), x)  # (h, H) x (N, C, H, W) -> (N, C, h, W)
        return ops.matmul(x, bicubic_weights(x.shape[3], size[1]).T)  # (N, C, h, W) x (W, w) -> (N, C, h, w)
    # not ops.interpolate, which asks questions about the whole shape that a dynamic batch leaves open
    if mode == "nearest":
        return ops.ResizeNearestNeighborV2()(x, size)
    aligned = mode == "bilinear_align_corners"
    return ops.ResizeBilinearV2(aligned, not aligned)(x, size)


def global_mean(x):
    """Mean over height and width: (N, C, H, W) -> (N, C, 1, 1). On CPU a pooling is several times as fast as a mean."""
    return ops.AdaptiveAvgPool2D(1)(x)


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
    """Channel gate from the global mean: (N, C, H, W) -> (N, C, H, W). Source: Hu et al., CVPR 2018."""

    def __init__(self, channels, ratio=SE_RATIO):
        super().__init__()
        reduced = round_channels(channels * ratio)
        self.conv_reduce = build_convolution(channels, reduced, has_bias=True)
        self.conv_expand = build_convolution(reduced, channels, has_bias=True)
        self.relu = nn.ReLU()
        self.gate = nn.HSigmoid()

    def construct(self, x):
        scale = global_mean(x)  # (N, C, H, W) -> (N, C, 1, 1)
        scale = self.conv_expand(self.relu(self.conv_reduce(scale)))
        # MindSpore's CPU kernel for a product of different shapes keeps 16 bytes of indices for each value
        return x * ops.broadcast_to(self.gate(scale), (-1, -1, *x.shape[2:]))  # (N, C, 1, 1) -> (N, C, H, W)


class DFCAttention(nn.SequentialCell):
    """Decoupled fully connected attention (paper, section 3.2): long-range context along rows, then columns.

    The input is halved, projected, aggregated by a 1 x k and a k x 1 depthwise convolution, squashed and
    resized to the features that it gates.

    Args:
        in_channels: channels of the Ghost module's input.
        out_channels: channels of the features to gate.
        kernel_size: odd length k of both depthwise convolutions.
        down_sampling: one of `DOWN_SAMPLINGS`; each halves height and width, rounding down.
        up_sampling: one of `UP_SAMPLINGS`.
        gate: one of `GATES`.
        gate_position: one of `GATE_POSITIONS`.
        dilation: dilation of the depthwise convolutions, in pixels of the halved map.

    Input: (N, in_channels, H, W) and the target (height, width). Output: (N, out_channels, height, width).

    Raises:
        UserError: if an option is not in its list, or `kernel_size` is even.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=5,
        down_sampling="avg_pool",
        up_sampling="nearest",
        gate="sigmoid",
        gate_position="before_up_sampling",
        dilation=1,
    ):
        check_choice("dfc_down_sampling", down_sampling, DOWN_SAMPLINGS)
        check_choice("dfc_up_sampling", up_sampling, UP_SAMPLINGS)
        check_choice("dfc_gate", gate, GATES)
        check_choice("dfc_gate_position", gate_position, GATE_POSITIONS)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"dfc_kernel_size={kernel_size} is not a positive odd number")
        depthwise = {"dilation": dilation, "groups": out_channels, "relu": False}
        super().__init__(
            [
                ConvBnAct(in_channels, out_channels, relu=False),
                ConvBnAct(out_channels, out_channels, (1, kernel_size), **depthwise),
                ConvBnAct(out_channels, out_channels, (kernel_size, 1), **depthwise),
            ]
        )
        pools = {"avg_pool": nn.AvgPool2d(2, 2), "max_pool": nn.MaxPool2d(2, 2), "bilinear": None}
        gates = {"sigmoid": nn.Sigmoid(), "hard_sigmoid": nn.HSigmoid(), "none": None}
        self.pool = pools[down_sampling]
        self.gate = gates[gate]
        self.gate_first = gate_position == "before_up_sampling"
        self.up_sampling = up_sampling

    def construct(self, x, size):
        attention = self.halve(x)
        for cell in self.cell_list:
            attention = cell(attention)
        if self.gate is not None and self.gate_first:
            attention = self.gate(attention)
        attention = resize(attention, size, self.up_sampling)
        if self.gate is not None and not self.gate_first:
            attention = self.gate(attention)
        return attention

    def halve(self, x):
        """(N, C, H, W) -> (N, C, H // 2, W // 2)."""
        if self.pool is not None:
            return self.pool(x)
        return resize(x, (x.shape[2] // 2, x.shape[3] // 2), "bilinear")


class GhostModule(nn.Cell):
    """Half of the features from a convolution, the rest from a cheap depthwise one (GhostNet, section 3.1).

    Args:
        in_channels, out_channels: channels in and out.
        kernel_size, stride: of the primary convolution.
        ratio: out_channels over the channels of the primary convolution.
        cheap_kernel_size: of the depthwise convolution.
        relu: whether ReLU follows both convolutions.
        dilation: of the depthwise convolution.
        dfc: keyword arguments for `DFCAttention`, which then gates the output; None for GhostNet V1.

    Input (N, in_channels, H, W), output (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=1,
        stride=1,
        ratio=2,
        cheap_kernel_size=3,
        relu=True,
        dilation=1,
        dfc=None,
    ):
        super().__init__()
        primary = math.ceil(out_channels / ratio)
        cheap = primary * (ratio - 1)
        self.out_channels = out_channels
        self.surplus = primary + cheap - out_channels
        self.primary_conv = ConvBnAct(in_channels, primary, kernel_size, stride, relu=relu)
        self.cheap_operation = ConvBnAct(
            primary, cheap, cheap_kernel_size, dilation=dilation, groups=primary, relu=relu
        )
        self.short_conv = None if dfc is None else DFCAttention(in_channels, out_channels, **dfc)

    def construct(self, x):
        primary = self.primary_conv(x)
        features = ops.concat((primary, self.cheap_operation(primary)), 1)
        if self.surplus > 0:
            features = features[:, : self.out_channels]
        if self.short_conv is not None:
            features = features * self.short_conv(x, features.shape[2:])
        return features


class GhostBottleneck(nn.Cell):
    """Inverted residual of two Ghost modules (paper, figure 4): (N, C, H, W) -> (N, C', H / stride, W / stride).

    Args:
        in_channels, hidden_channels, out_channels: channels in, between the Ghost modules, and out.
        kernel_size: of the depthwise convolution, which is there only where `stride` is 2.
        stride: 1 or 2.
        squeeze_excitation: whether a channel gate stands between the Ghost modules.
        dilation: dilation in the block's input; doubled behind a stride that `keep_resolution` replaces.
        keep_resolution: replace the stride by dilation in all that follows.
        dfc_first, dfc_second: keyword arguments for the attention of either Ghost module, or None.
    """

    def __init__(
        self,
        in_channels,
        hidden_channels,
        out_channels,
        kernel_size=3,
        stride=1,
        squeeze_excitation=False,
        dilation=1,
        keep_resolution=False,
        dfc_first=None,
        dfc_second=None,
    ):
        super().__init__()
        depthwise = {"stride": 1 if keep_resolution else stride, "dilation": dilation, "relu": False}
        dilation_out = dilation * stride if keep_resolution else dilation
        if dfc_first is not None:
            dfc_first = {**dfc_first, "dilation": dilation}
        if dfc_second is not None:
            dfc_second = {**dfc_second, "dilation": dilation_out}

        self.ghost1 = GhostModule(in_channels, hidden_channels, dilation=dilation, dfc=dfc_first)
        self.dw = self.se = self.shortcut = None
        if stride > 1:
            self.dw = ConvBnAct(hidden_channels, hidden_channels, kernel_size, groups=hidden_channels, **depthwise)
        if squeeze_excitation:
            self.se = SqueezeExcitation(hidden_channels)
        self.ghost2 = GhostModule(hidden_channels, out_channels, relu=False, dilation=dilation_out, dfc=dfc_second)
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.SequentialCell(
                [
                    ConvBnAct(in_channels, in_channels, kernel_size, groups=in_channels, **depthwise),
                    ConvBnAct(in_channels, out_channels, relu=False),
                ]
            )

    def construct(self, x):
        residual = x if self.shortcut is None else self.shortcut(x)
        x = self.ghost1(x)
        if self.dw is not None:
            x = self.dw(x)
        if self.se is not None:
            x = self.se(x)
        return self.ghost2(x) + residual


class GhostNetV2(nn.Cell):
    """The whole network: float32 (N, in_channels, H, W), H and W at least 33, -> logits (N, num_classes).

    Args:
        num_classes: outputs of the classifier.
        width: multiplier of all channel counts but the head's.
        dropout: probability of dropping a feature before the classifier, in training.
        squeeze_excitation: False leaves every squeeze-and-excitation out.
        in_channels: channels of the picture.
        output_stride: 32, or 16 or 8 where dilation replaces the last one or two strides.
        features_only: leave the head out; the network then returns what `features` does.
        dfc_blocks: indices of the blocks with DFC attention; None for all but the first two, () for GhostNet V1.
        dfc_target: Ghost modules to enhance: the first ('expressiveness'), the second ('capacity') or 'both'.
        dfc_kernel_size, dfc_down_sampling, dfc_up_sampling, dfc_gate, dfc_gate_position: see `DFCAttention`.

    Attributes:
        feature_channels: channels of the four maps that `features` returns.
        feature_strides: their strides, (4, 8, 16, 32) unless `output_stride` is smaller.

    Raises:
        UserError: for an option outside its list; on a call, ValueError for an input smaller than 33x33.
    """

    def __init__(
        self,
        num_classes=1000,
        width=1.0,
        dropout=0.2,
        squeeze_excitation=True,
        in_channels=3,
        output_stride=32,
        features_only=False,
        dfc_blocks=None,
        dfc_target="expressiveness",
        dfc_kernel_size=5,
        dfc_down_sampling="avg_pool",
        dfc_up_sampling="nearest",
        dfc_gate="sigmoid",
        dfc_gate_position="before_up_sampling",
    ):
        super().__init__()
        check_choice("dfc_target", dfc_target, DFC_TARGETS)
        check_choice("output_stride", output_stride, OUTPUT_STRIDES)
        dfc = {
            "kernel_size": dfc_kernel_size,
            "down_sampling": dfc_down_sampling,
            "up_sampling": dfc_up_sampling,
            "gate": dfc_gate,
            "gate_position": dfc_gate_position,
        }
        stem_channels = round_channels(STEM_CHANNELS * width)
        self.features_only = features_only
        self.conv_stem = build_convolution(in_channels, stem_channels, 3, stride=2)
        self.bn1 = build_batch_norm(stem_channels)
        self.relu = nn.ReLU()
        blocks = self._build_blocks(
            stem_channels, width, squeeze_excitation, output_stride, read_dfc_blocks(dfc_blocks), dfc_target, dfc
        )
        if not features_only:
            last_channels = round_channels(BLOCKS[-1][1] * width)
            blocks.append(ConvBnAct(self.feature_channels[-1], last_channels))
            self.conv_head = build_convolution(last_channels, HEAD_CHANNELS, has_bias=True)
            self.dropout = Dropout(dropout) if dropout > 0 else None
            self.classifier = nn.Dense(
                HEAD_CHANNELS,
                num_classes,
                weight_init=HeUniform(math.sqrt(5)),
                bias_init=Uniform(1 / math.sqrt(HEAD_CHANNELS)),
            )
        self.blocks = nn.CellList(blocks)

    def _build_blocks(self, in_channels, width, squeeze_excitation, output_stride, dfc_blocks, dfc_target, dfc):
        """Build the bottlenecks of `BLOCKS`, noting where each stage ends, with what channels and stride."""
        blocks, stage_ends, channels, strides = [], [], [], []
        stride_now, dilation = 2, 1  # behind the stem
        for index, (kernel_size, expansion, out_channels, with_se, stride) in enumerate(BLOCKS):
            out_channels = round_channels(out_channels * width)
            keep_resolution = stride_now * stride > output_stride
            attention = dfc if index in dfc_blocks else None
            blocks.append(
                GhostBottleneck(
                    in_channels,
                    round_channels(expansion * width),
                    out_channels,
                    kernel_size,
                    stride,
                    squeeze_excitation=with_se and squeeze_excitation,
                    dilation=dilation,
                    keep_resolution=keep_resolution,
                    dfc_first=None if dfc_target == "capacity" else attention,
                    dfc_second=None if dfc_target == "expressiveness" else attention,
                )
            )
            if keep_resolution:
                dilation *= stride
            else:
                stride_now *= stride
            in_channels = out_channels
            if stride_now >= 4 and (index + 1 == len(BLOCKS) or BLOCKS[index + 1][-1] > 1):
                stage_ends.append(index)
                channels.append(out_channels)
                strides.append(stride_now)
        self.stage_ends = tuple(stage_ends)
        self.feature_channels = tuple(channels)
        self.feature_strides = tuple(strides)
        return blocks

    def features(self, x):
        """Feature maps at the end of each stage.

        Args:
            x: float32 (N, in_channels, H, W).

        Returns:
            A tuple of four tensors (N, `feature_channels[i]`, H / `feature_strides[i]`, W / `feature_strides[i]`),
            sizes rounded up.
        """
        height, width = x.shape[2:]
        if 0 <= height < MIN_INPUT_SIZE or 0 <= width < MIN_INPUT_SIZE:  # negative: a dynamic size
            raise ValueError(f"input is {height}x{width} pixels, GhostNetV2 needs at least 33x33")
        x = self.relu(self.bn1(self.conv_stem(x)))
        maps = ()
        for index in range(len(BLOCKS)):
            x = self.blocks[index](x)
            if index in self.stage_ends:
                maps += (x,)
        return maps

    def construct(self, x):
        maps = self.features(x)
        if self.features_only:
            return maps
        x = self.blocks[-1](maps[-1])
        x = global_mean(x)  # (N, C, H, W) -> (N, C, 1, 1)
        x = self.relu(self.conv_head(x)).flatten(start_dim=1)  # (N, C, 1, 1) -> (N, C)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.classifier(x)


def read_dfc_blocks(dfc_blocks):
    """Set of block indices from the `dfc_blocks` option: None is all from `FIRST_DFC_BLOCK` on.

    Raises:
        UserError: if an index names no block.
    """
    if dfc_blocks is None:
        return set(range(FIRST_DFC_BLOCK, len(BLOCKS)))
    for index in dfc_blocks:
        if index not in range(len(BLOCKS)):
            raise UserError(f"dfc_blocks has {index!r}, blocks are numbered 0 to {len(BLOCKS) - 1}")
    return set(dfc_blocks)


def create_network(name, num_classes=1000, **options):
    """Build the variant `name` of `VARIANTS`; `options` are keyword arguments of `GhostNetV2`.

    Raises:
        UserError: if `name` is not a variant, or an option is outside its list.
    """
    check_choice("network", name, tuple(VARIANTS))
    return GhostNetV2(num_classes=num_classes, **{**VARIANTS[name], **options})


def ghostnetv2_1x(num_classes=1000, **options):
    """GhostNetV2 1.0x: 6.2M parameters, 167M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1x", num_classes, **options)


def ghostnetv2_1_3x(num_classes=1000, **options):
    """GhostNetV2 1.3x: 9.0M parameters, 269M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1_3x", num_classes, **options)


def ghostnetv2_1_6x(num_classes=1000, **options):
    """GhostNetV2 1.6x: 12.4M parameters, 399M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1_6x", num_classes, **options)


def ghostnetv2_nose_1x(num_classes=1000, **options):
    """GhostNetV2 1.0x without squeeze-and-excitation."""
    return create_network("ghostnetv2_nose_1x", num_classes, **options)


def ghostnet_1x(num_classes=1000, **options):
    """GhostNet V1 1.0x: no DFC attention, the paper's baseline."""
    return create_network("ghostnet_1x", num_classes, **options)
