"""GhostNetV2, and GhostNet V1 as its attention-free case, as MindSpore cells.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022
(sections 3 and 4); Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020.

Behaviour follows the authors' PyTorch code. Differences from the official MindSpore port, whose
parameter names this file keeps: channels are rounded to the nearest multiple of 4 instead of up (the
same at width 1.0), and the attention map is resized with `nearest`, as in PyTorch; that port used
`bilinear_align_corners`, which is an option here.
"""

import math

from mindspore import nn, ops

from src.architecture import (
    BLOCKS,
    IMAGENET_CLASSES,
    STEM_STRIDE,
    VARIANTS,
    NetworkOptions,
    check_input_size,
    complete_options,
    plan_blocks,
    scale_channels,
)
from src.dfc_attention import DFCAttention
from src.layers.attention import SelfAttention
from src.layers.blocks import (
    SE_RATIO,
    ConvBnAct,
    SqueezeExcitation,
    build_batch_norm,
    build_convolution,
    build_dense,
    global_mean,
)
from src.layers.dropout import Dropout, build_drop_path

IN_CHANNELS = 3
HEAD_CHANNELS = 1280
FIRST_FEATURE_STRIDE = 4  # maps of smaller strides are not handed out


class GhostModule(nn.Cell):
    """Half of the features from a 1x1 convolution, the rest from a cheap depthwise one (GhostNet, section 3.1).

    Args:
        in_channels, out_channels: channels in and out, the latter even.
        relu: whether ReLU follows both convolutions.
        dilation: of the depthwise convolutions.
        attention: cell that gives the gates of the output, called as `DFCAttention` is; None for GhostNet V1.

    Input (N, in_channels, H, W), output (N, out_channels, H, W).
    """

    def __init__(self, in_channels, out_channels, relu, dilation, attention):
        super().__init__()
        half = out_channels // 2
        self.primary_conv = ConvBnAct(in_channels, half, relu=relu)
        self.cheap_operation = ConvBnAct(half, half, 3, dilation=dilation, groups=half, relu=relu)
        self.short_conv = attention

    def construct(self, x):
        primary = self.primary_conv(x)
        features = ops.concat((primary, self.cheap_operation(primary)), 1)
        if self.short_conv is not None:
            features = features * self.short_conv(x, features.shape[2:])
        return features

    def multiply_adds(self, input_shape) -> int:
        """Count the products of features and gates, for an input (N, C, H, W)."""
        batch, _, *size = input_shape
        channels = 2 * self.primary_conv.conv.out_channels
        return 0 if self.short_conv is None else batch * channels * math.prod(size)


def build_attention(options, in_channels, out_channels, dilation, kernel_size):
    """Build the attention of a Ghost module.

    Args:
        options: `NetworkOptions`.
        in_channels, out_channels: of the Ghost module.
        dilation: of its depthwise convolutions.
        kernel_size: (height, width) of the attention's; None for no attention.
    """
    if kernel_size is None:
        return None
    if options.attention == "self_attention":
        return SelfAttention(in_channels, out_channels)
    return DFCAttention(in_channels, out_channels, options, dilation, kernel_size)


class GhostBottleneck(nn.Cell):
    """Inverted residual of two Ghost modules (paper, figure 4): (N, C, H, W) -> (N, C', H / stride, W / stride).

    Args:
        plan: `BlockPlan`.
        options: `NetworkOptions`.
    """

    def __init__(self, plan, options):
        super().__init__()
        hidden = plan.hidden_channels
        first = build_attention(options, plan.in_channels, hidden, plan.dilation, plan.first_kernel)
        second = build_attention(options, hidden, plan.out_channels, plan.dilation_out, plan.second_kernel)
        depthwise = {"stride": plan.stride, "dilation": plan.dilation, "relu": False}
        self.ghost1 = GhostModule(plan.in_channels, hidden, True, plan.dilation, first)
        self.dw = self.se = self.shortcut = None
        if plan.reduces:
            self.dw = ConvBnAct(hidden, hidden, plan.kernel_size, groups=hidden, **depthwise)
        if plan.squeeze_excitation:
            self.se = SqueezeExcitation(hidden, scale_channels(hidden, SE_RATIO))
        self.ghost2 = GhostModule(hidden, plan.out_channels, False, plan.dilation_out, second)
        if plan.reduces or plan.in_channels != plan.out_channels:
            self.shortcut = nn.SequentialCell(
                [
                    ConvBnAct(
                        plan.in_channels, plan.in_channels, plan.kernel_size, groups=plan.in_channels, **depthwise
                    ),
                    ConvBnAct(plan.in_channels, plan.out_channels, relu=False),
                ]
            )
        self.drop_path = build_drop_path(plan)

    def construct(self, x):
        residual = x if self.shortcut is None else self.shortcut(x)
        x = self.ghost1(x)
        if self.dw is not None:
            x = self.dw(x)
        if self.se is not None:
            x = self.se(x)
        x = self.ghost2(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return x + residual


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
        blocks = [GhostBottleneck(plan, options) for plan in plans]
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
        check_input_size(x.shape[2:], "GhostNetV2")
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


def create_network(name, num_classes=IMAGENET_CLASSES, **options):
    """Build the variant `name` of `VARIANTS`.

    Args:
        name: of the variant.
        num_classes: outputs of the classifier.
        options: `NetworkOptions` that differ from the variant's; None leaves one as the variant has it.

    Raises:
        UserError: if `name` is not a variant, or an option is outside its choices or range.
    """
    return GhostNetV2(num_classes, NetworkOptions(**complete_options(name, VARIANTS, options)))


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


def ghostnet_1_1x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNet V1 1.1x, which costs as much as GhostNetV2 1.0x: 5.9M parameters, 167M multiply-adds."""
    return create_network("ghostnet_1_1x", num_classes, **options)


def ghostnet_1_3x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNet V1 1.3x: 227M multiply-adds at 224x224."""
    return create_network("ghostnet_1_3x", num_classes, **options)


def ghostnet_1_4x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNet V1 1.4x, which costs as much as GhostNetV2 1.3x: 263M multiply-adds at 224x224."""
    return create_network("ghostnet_1_4x", num_classes, **options)


def ghostnet_1_7x(num_classes=IMAGENET_CLASSES, **options):
    """Build GhostNet V1 1.7x: 378M multiply-adds at 224x224."""
    return create_network("ghostnet_1_7x", num_classes, **options)
