"""MobileNetV2, the baseline that the GhostNetV2 paper compares attention modules on, as MindSpore cells.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2. Behaviour and
parameter names are those of timm's `mobilenetv2_*`, except that batch normalisation's own names are MindSpore's: all
channels are rounded to multiples of 8, and the head has 1280 channels, more only at widths above 1.

Attention (`MobileNetV2Options.attention`) stands in all bottlenecks but the first, which has no expansion:

- `se`, `cbam`, `ca`: behind the depthwise convolution's activation, as in the code of coordinate attention's authors
  (Hou et al., CVPR 2021), who publish the sizes to meet. They reduce the channels 24, 24 and 32 times, to no less than
  8: without that bound coordinate attention has 3.94 M parameters, not 3.95 M.
- `dfc`: DFC attention (Tang et al., NeurIPS 2022) of the bottleneck's input gates the expanded features, as in a Ghost
  module. It stands where the input has a stride of 8 or more, which costs about what it does in GhostNetV2: 0.85 M
  parameters and 24 M multiply-adds, against 0.97 M and 26 M. The bottlenecks at stride 4 would add 8 M multiply-adds,
  the one at stride 2 another 8 M, both together 0.01 M parameters.

Millions of parameters and multiply-adds at width 1 and 224x224, published ones in brackets: none 3.50, 301 (3.50, 300);
se 3.89, 301 (3.89, 300); cbam 3.89, 303 (3.89, 300); ca 3.95, 307 (3.95, 310); dfc 4.36, 324.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Optional, Tuple

from mindspore import nn

from src.architecture import BackboneOptions, check_input_size
from src.dfc_attention import DFCAttention
from src.errors import UserError
from src.fields import bounded
from src.layers.attention import CBAM, SE, CoordinateAttention
from src.layers.blocks import build_batch_norm, build_convolution, build_dense, global_mean
from src.layers.channels import round_channels
from src.layers.dropout import Dropout, build_drop_path

IN_CHANNELS, STEM_CHANNELS, HEAD_CHANNELS = 3, 32, 1280
STEM_STRIDE = 2
FIRST_DFC_STRIDE = 8  # of a bottleneck's input

STAGES = (
    # exp, out, repeats, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FEATURE_STAGES = (1, 2, 4, 6)  # the last ones of strides 4, 8, 16 and 32
BOTTLENECKS = sum(repeats for _, _, repeats, _ in STAGES)

ATTENTION = {"se": (SE, 24), "cbam": (CBAM, 24), "ca": (CoordinateAttention, 32)}  # class, reduction of channels
MIN_REDUCED_CHANNELS = 8

VARIANTS = {
    "mobilenetv2_1x": {},
    "mobilenetv2_se_1x": {"attention": "se"},
    "mobilenetv2_cbam_1x": {"attention": "cbam"},
    "mobilenetv2_ca_1x": {"attention": "ca"},
    "mobilenetv2_dfc_1x": {"attention": "dfc"},
}


@dataclass(frozen=True)
class MobileNetV2Options(BackboneOptions):
    """The options of `MobileNetV2`, whose `width` does not reduce the head.

    Attributes:
        dfc_blocks: indices of the bottlenecks with DFC attention, counted over all stages; the first, 0, has none.
        attention: module in the bottlenecks; the `dfc_*` options are those of 'dfc'.

    Raises:
        UserError: if an option is outside its choices or range, or has no effect.
    """

    dfc_blocks: Optional[Tuple[int, ...]] = bounded(None, 1, BOTTLENECKS - 1, length=BOTTLENECKS)
    attention: Literal["none", "se", "cbam", "ca", "dfc"] = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.dfc_target != "expressiveness":
            raise UserError(f"dfc_target: {self.dfc_target!r} is not possible in MobileNetV2: 'expressiveness' only")
        if self.attention != "dfc":
            self.refuse_options(self.attention)


class BottleneckPlan(NamedTuple):
    """What a bottleneck is built from.

    Attributes:
        index: number of bottlenecks in front of it.
        in_channels, hidden_channels, out_channels: channels in, behind the expansion, and out.
        stride, dilation: of the depthwise convolution.
        output_stride: stride of the bottleneck's output against the network's input.
        dfc_kernel: (height, width) of the convolutions of DFC attention; None: it has none.
        drop_path: probability of dropping the residual branch, where there is a shortcut.
    """

    index: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int
    dilation: int
    output_stride: int
    dfc_kernel: Optional[Tuple[int, int]]
    drop_path: float


def scale_channels(channels: int, width: float) -> int:
    """Multiply a channel count and round it to a multiple of 8, as `round_channels` does to one of 4."""
    return 2 * round_channels(channels * width / 2)


def plan_stages(options: MobileNetV2Options) -> list:
    """Plan all stages: for each row of `STAGES` the list of its `BottleneckPlan`s."""
    stages = []
    in_channels, stride, dilation = scale_channels(STEM_CHANNELS, options.width), STEM_STRIDE, 1
    for expansion, channels, repeats, first_reduction in STAGES:
        stages.append([])
        for reduction in (first_reduction, *[1] * (repeats - 1)):
            dilates = stride * reduction > options.output_stride
            index = sum(map(len, stages))
            plan = BottleneckPlan(
                index=index,
                in_channels=in_channels,
                hidden_channels=in_channels * expansion,
                out_channels=scale_channels(channels, options.width),
                stride=1 if dilates else reduction,
                dilation=dilation,
                output_stride=stride if dilates else stride * reduction,
                dfc_kernel=plan_dfc(options, index, stride * dilation, stride * dilation * reduction),
                drop_path=options.drop_path_rate(index, BOTTLENECKS),
            )
            stages[-1].append(plan)
            in_channels, stride = plan.out_channels, plan.output_stride
            dilation = dilation * reduction if dilates else dilation  # from the next bottleneck on
    return stages


def plan_dfc(options, index, stride_in, stride_out):
    """Give the kernel size of a bottleneck's DFC attention, None for none; the strides are those before dilation."""
    may_have = options.dfc_blocks is not None or stride_in >= FIRST_DFC_STRIDE
    has_dfc = options.attention == "dfc" and may_have and options.has_dfc(index, stride_out, stride_in)
    return options.kernel_size(stride_out, stride_in) if has_dfc else None


class SeparableBottleneck(nn.Cell):
    """Bottleneck without expansion, the network's first: depthwise convolution and linear projection.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride), rounded up; `plan` has the numbers.
    """

    def __init__(self, plan):
        super().__init__()
        channels = plan.in_channels
        self.conv_dw = build_convolution(channels, channels, 3, plan.stride, plan.dilation, groups=channels)
        self.bn1 = build_batch_norm(channels)
        self.conv_pw = build_convolution(channels, plan.out_channels)
        self.bn2 = build_batch_norm(plan.out_channels)
        self.relu = nn.ReLU6()
        self.has_residual = plan.stride == 1 and plan.in_channels == plan.out_channels

    def construct(self, x):
        y = self.bn2(self.conv_pw(self.relu(self.bn1(self.conv_dw(x)))))
        return y + x if self.has_residual else y


class InvertedResidual(nn.Cell):
    """Bottleneck of expansion, depthwise convolution and linear projection (MobileNetV2, table 1).

    Args:
        plan: `BottleneckPlan`.
        attention: cell that the features behind the depthwise convolution go through, or None.
        dfc: `DFCAttention` that gates the expanded features, or None.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, plan, attention, dfc):
        super().__init__()
        hidden = plan.hidden_channels
        self.conv_pw = build_convolution(plan.in_channels, hidden)
        self.bn1 = build_batch_norm(hidden)
        self.short_conv = dfc
        self.conv_dw = build_convolution(hidden, hidden, 3, plan.stride, plan.dilation, groups=hidden)
        self.bn2 = build_batch_norm(hidden)
        self.attention = attention
        self.conv_pwl = build_convolution(hidden, plan.out_channels)
        self.bn3 = build_batch_norm(plan.out_channels)
        self.relu = nn.ReLU6()
        self.has_residual = plan.stride == 1 and plan.in_channels == plan.out_channels
        self.drop_path = build_drop_path(plan) if self.has_residual else None

    def construct(self, x):
        y = self.relu(self.bn1(self.conv_pw(x)))
        if self.short_conv is not None:
            y = y * self.short_conv(x, y.shape[2:])
        y = self.relu(self.bn2(self.conv_dw(y)))
        if self.attention is not None:
            y = self.attention(y)
        y = self.bn3(self.conv_pwl(y))
        if self.drop_path is not None:
            y = self.drop_path(y)
        return y + x if self.has_residual else y

    def multiply_adds(self, input_shape) -> int:
        """Count the products of expanded features and gates, for an input (N, C, H, W)."""
        batch, _, *size = input_shape
        return 0 if self.short_conv is None else batch * self.conv_pw.out_channels * math.prod(size)


class MobileNetV2(nn.Cell):
    """The whole network: float32 (N, 3, H, W), H and W at least 33, -> logits (N, num_classes).

    Args:
        num_classes: outputs of the classifier.
        options: `MobileNetV2Options`.

    Attributes:
        feature_channels: channels of the four maps that `features` returns.
        feature_strides: their strides, (4, 8, 16, 32) unless `output_stride` is smaller.
        stage_ends: the bottlenecks that they are the outputs of, counted over all stages.

    Raises:
        ValueError: on a call, for an input smaller than 33x33.
    """

    def __init__(self, num_classes, options):
        super().__init__()
        stages = plan_stages(options)
        self.features_only = options.features_only
        self.conv_stem = build_convolution(IN_CHANNELS, stages[0][0].in_channels, 3, stride=STEM_STRIDE)
        self.bn1 = build_batch_norm(stages[0][0].in_channels)
        self.relu = nn.ReLU6()
        blocks = [[build_bottleneck(plan, options) for plan in plans] for plans in stages]
        self.blocks = nn.CellList([nn.SequentialCell(cells) for cells in blocks])
        ends = [stages[index][-1] for index in FEATURE_STAGES]
        self.stage_ends = tuple(plan.index for plan in ends)
        self.feature_channels = tuple(plan.out_channels for plan in ends)
        self.feature_strides = tuple(plan.output_stride for plan in ends)
        if not options.features_only:
            head_channels = max(HEAD_CHANNELS, scale_channels(HEAD_CHANNELS, options.width))
            self.conv_head = build_convolution(ends[-1].out_channels, head_channels)
            self.bn2 = build_batch_norm(head_channels)
            self.dropout = Dropout(options.dropout) if options.dropout > 0 else None
            self.classifier = build_dense(head_channels, num_classes)

    def features(self, x):
        """Compute the feature maps of float32 (N, 3, H, W) at the last stage of each stride.

        Returns:
            A tuple of four tensors (N, `feature_channels[i]`, H / `feature_strides[i]`, W / `feature_strides[i]`),
            sizes rounded up.
        """
        check_input_size(x.shape[2:], "MobileNetV2")
        x = self.relu(self.bn1(self.conv_stem(x)))
        maps = ()
        for index in range(len(STAGES)):
            x = self.blocks[index](x)
            if index in FEATURE_STAGES:
                maps += (x,)
        return maps

    def construct(self, x):
        maps = self.features(x)
        if self.features_only:
            return maps
        x = self.relu(self.bn2(self.conv_head(maps[-1])))
        x = global_mean(x).flatten(start_dim=1)  # (N, C, H, W) -> (N, C, 1, 1) -> (N, C)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.classifier(x)


def build_bottleneck(plan, options):
    """Build the cell of a `BottleneckPlan`, with the attention that the options give it."""
    if plan.hidden_channels == plan.in_channels:
        return SeparableBottleneck(plan)
    attention = dfc = None
    if options.attention in ATTENTION:
        build, reduction = ATTENTION[options.attention]
        attention = build(plan.hidden_channels, max(MIN_REDUCED_CHANNELS, plan.hidden_channels // reduction))
    if plan.dfc_kernel is not None:
        dfc = DFCAttention(plan.in_channels, plan.hidden_channels, options, plan.dilation, plan.dfc_kernel)
    return InvertedResidual(plan, attention, dfc)
