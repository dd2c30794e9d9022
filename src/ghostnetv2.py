"""GhostNetV2, and GhostNet V1 as its attention-free case, as MindSpore cells.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022
(sections 3 and 4); Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020.

Behaviour follows the authors' PyTorch code. Differences from the official MindSpore port, whose
parameter names this file keeps: channels are rounded to the nearest multiple of 4 instead of up (the
same at width 1.0), and the attention map is resized with `nearest`, as in PyTorch; that port used
`bilinear_align_corners`, which is an option here.
"""

from typing import Literal

from mindspore import nn, ops

from src.architecture import (
    BLOCKS,
    IMAGENET_CLASSES,
    MIN_INPUT_SIZE,
    STEM_STRIDE,
    VARIANTS,
    NetworkOptions,
    plan_blocks,
)
from src.errors import UserError
from src.fields import check
from src.layers.blocks import (
    ConvBnAct,
    SqueezeExcitation,
    build_batch_norm,
    build_convolution,
    build_dense,
    global_mean,
    resize,
)
from src.layers.dropout import Dropout

IN_CHANNELS = 3
HEAD_CHANNELS = 1280
FIRST_DFC_BLOCK = 2  # the first two blocks, at high resolution, have no DFC attention (paper, section 4.1)
FIRST_FEATURE_STRIDE = 4  # maps of smaller strides are not handed out


class DFCAttention(nn.SequentialCell):
    """Decoupled fully connected attention (paper, section 3.2): long-range context along rows, then columns.

    The input is halved, projected, aggregated by a 1 x k and a k x 1 depthwise convolution, squashed and
    resized to the features that it gates.

    Args:
        in_channels: channels of the Ghost module's input.
        out_channels: channels of the features to gate.
        options: `DFCOptions`.
        dilation: dilation of the depthwise convolutions, in pixels of the halved map.

    Input: (N, in_channels, H, W) and the target (height, width). Output: (N, out_channels, height, width).
    """

    def __init__(self, in_channels, out_channels, options, dilation):
        depthwise = {"dilation": dilation, "groups": out_channels, "relu": False}
        super().__init__(
            [
                ConvBnAct(in_channels, out_channels, relu=False),
                ConvBnAct(out_channels, out_channels, (1, options.dfc_kernel_size), **depthwise),
                ConvBnAct(out_channels, out_channels, (options.dfc_kernel_size, 1), **depthwise),
            ]
        )
        pools = {"avg_pool": nn.AvgPool2d(2, 2), "max_pool": nn.MaxPool2d(2, 2), "bilinear": None}
        gates = {"sigmoid": nn.Sigmoid(), "hard_sigmoid": nn.HSigmoid(), "none": None}
        self.pool = pools[options.dfc_down_sampling]
        self.gate = gates[options.dfc_gate]
        self.gate_first = options.dfc_gate_position == "before_up_sampling"
        self.up_sampling = options.dfc_up_sampling

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
        """Halve height and width, rounding down: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
        if self.pool is not None:
            return self.pool(x)
        return resize(x, (x.shape[2] // 2, x.shape[3] // 2), "bilinear")


class GhostModule(nn.Cell):
    """Half of the features from a 1x1 convolution, the rest from a cheap depthwise one (GhostNet, section 3.1).

    Args:
        in_channels, out_channels: channels in and out, the latter even.
        relu: whether ReLU follows both convolutions.
        dilation: of the depthwise convolutions.
        dfc: `DFCOptions` of the attention that gates the output; None for GhostNet V1.

    Input (N, in_channels, H, W), output (N, out_channels, H, W).
    """

    def __init__(self, in_channels, out_channels, relu, dilation, dfc):
        super().__init__()
        half = out_channels // 2
        self.primary_conv = ConvBnAct(in_channels, half, relu=relu)
        self.cheap_operation = ConvBnAct(half, half, 3, dilation=dilation, groups=half, relu=relu)
        self.short_conv = None if dfc is None else DFCAttention(in_channels, out_channels, dfc, dilation)

    def construct(self, x):
        primary = self.primary_conv(x)
        features = ops.concat((primary, self.cheap_operation(primary)), 1)
        if self.short_conv is not None:
            features = features * self.short_conv(x, features.shape[2:])
        return features


class GhostBottleneck(nn.Cell):
    """Inverted residual of two Ghost modules (paper, figure 4): (N, C, H, W) -> (N, C', H / stride, W / stride).

    Args:
        plan: `BlockPlan`.
        dfc_first, dfc_second: `DFCOptions` of either Ghost module's attention, or None.
    """

    def __init__(self, plan, dfc_first, dfc_second):
        super().__init__()
        hidden = plan.hidden_channels
        depthwise = {"stride": plan.stride, "dilation": plan.dilation, "relu": False}
        self.ghost1 = GhostModule(plan.in_channels, hidden, True, plan.dilation, dfc_first)
        self.dw = self.se = self.shortcut = None
        if plan.reduces:
            self.dw = ConvBnAct(hidden, hidden, plan.kernel_size, groups=hidden, **depthwise)
        if plan.squeeze_excitation:
            self.se = SqueezeExcitation(hidden)
        self.ghost2 = GhostModule(hidden, plan.out_channels, False, plan.dilation_out, dfc_second)
        if plan.reduces or plan.in_channels != plan.out_channels:
            self.shortcut = nn.SequentialCell(
                [
                    ConvBnAct(
                        plan.in_channels, plan.in_channels, plan.kernel_size, groups=plan.in_channels, **depthwise
                    ),
                    ConvBnAct(plan.in_channels, plan.out_channels, relu=False),
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
    """The whole network: float32 (N, 3, H, W), H and W at least 33, -> logits (N, num_classes).

    Args:
        num_classes: outputs of the classifier.
        options: `NetworkOptions`.

    Attributes:
        feature_channels: channels of the four maps that `features` returns.
        feature_strides: their strides, (4, 8, 16, 32) unless `output_stride` is smaller.
        stage_ends: the blocks that they are the outputs of.

    Raises:
        ValueError: on a call, for an input smaller than 33x33.
    """

    def __init__(self, num_classes, options):
        super().__init__()
        plans = plan_blocks(options)
        self.features_only = options.features_only
        self.conv_stem = build_convolution(IN_CHANNELS, plans[0].in_channels, 3, stride=STEM_STRIDE)
        self.bn1 = build_batch_norm(plans[0].in_channels)
        self.relu = nn.ReLU()
        blocks = build_blocks(plans, options)
        self.stage_ends = tuple(
            index
            for index, plan in enumerate(plans)
            if plan.output_stride >= FIRST_FEATURE_STRIDE and (plan is plans[-1] or plans[index + 1].reduces)
        )
        self.feature_channels = tuple(plans[index].out_channels for index in self.stage_ends)
        self.feature_strides = tuple(plans[index].output_stride for index in self.stage_ends)
        if not options.features_only:
            last_channels = plans[-1].hidden_channels
            blocks.append(ConvBnAct(plans[-1].out_channels, last_channels))
            self.conv_head = build_convolution(last_channels, HEAD_CHANNELS, has_bias=True)
            self.dropout = Dropout(options.dropout) if options.dropout > 0 else None
            self.classifier = build_dense(HEAD_CHANNELS, num_classes)
        self.blocks = nn.CellList(blocks)

    def features(self, x):
        """Compute the feature maps at the end of each stage.

        Args:
            x: float32 (N, 3, H, W).

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


def build_blocks(plans, options) -> list:
    """Build the bottlenecks, each with the attention that the options give it."""
    chosen = range(FIRST_DFC_BLOCK, len(BLOCKS)) if options.dfc_blocks is None else options.dfc_blocks
    blocks = []
    for index, plan in enumerate(plans):
        dfc = options if index in chosen else None
        first = None if options.dfc_target == "capacity" else dfc
        second = None if options.dfc_target == "expressiveness" else dfc
        blocks.append(GhostBottleneck(plan, first, second))
    return blocks


def create_network(name, num_classes=IMAGENET_CLASSES, **options):
    """Build the variant `name` of `VARIANTS`.

    Args:
        name: of the variant.
        num_classes: outputs of the classifier.
        options: `NetworkOptions` that differ from the variant's; None leaves one as the variant has it.

    Raises:
        UserError: if `name` is not a variant, or an option is outside its choices or range.
    """
    try:
        check(name, Literal[tuple(VARIANTS)])
    except UserError as error:
        raise UserError(f"network: {error}") from None
    given = {option: value for option, value in options.items() if value is not None}
    return GhostNetV2(num_classes, NetworkOptions(**{**VARIANTS[name], **given}))


def ghostnetv2_1x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNetV2 1.0x: 6.2M parameters, 167M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1x", num_classes, **options)


def ghostnetv2_1_3x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNetV2 1.3x: 9.0M parameters, 269M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1_3x", num_classes, **options)


def ghostnetv2_1_6x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNetV2 1.6x: 12.4M parameters, 399M multiply-adds at 224x224."""
    return create_network("ghostnetv2_1_6x", num_classes, **options)


def ghostnetv2_nose_1x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNetV2 1.0x without squeeze-and-excitation."""
    return create_network("ghostnetv2_nose_1x", num_classes, **options)


def ghostnet_1x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNet V1 1.0x: no DFC attention, the paper's baseline."""
    return create_network("ghostnet_1x", num_classes, **options)
