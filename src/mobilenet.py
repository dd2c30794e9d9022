"""What MobileNetV2 and MobileNetV3 share: their bottlenecks, the plans of these, and all of a network but its head.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, section 3; Howard et al.,
"Searching for MobileNetV3", ICCV 2019, section 4. Behaviour and parameter names are those of timm, except that batch
normalisation's own names are MindSpore's: all channels are rounded to multiples of 8.
"""

import math
from typing import NamedTuple, Optional, Tuple

from mindspore import nn

from src.architecture import check_input_size
from src.layers.blocks import build_batch_norm, build_convolution, build_dense
from src.layers.channels import round_channels
from src.layers.dropout import Dropout, build_drop_path

IN_CHANNELS, STEM_STRIDE = 3, 2
FEATURE_STAGES = (1, 2, 4, 6)  # the last ones of strides 4, 8, 16 and 32
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.HSwish}


class BottleneckRow(NamedTuple):
    """A row of a network's table.

    Attributes:
        kernel_size: of the depthwise convolution.
        expansion: channels inside over those in; 1 for no expansion.
        out_channels: at width 1.
        squeeze_excitation: whether the channels inside have a gate.
        activation: of `ACTIVATIONS`.
        stride: of the depthwise convolution, before dilation.
    """

    kernel_size: int
    expansion: float
    out_channels: int
    squeeze_excitation: bool
    activation: str
    stride: int


class BottleneckPlan(NamedTuple):
    """What a bottleneck is built from: a `BottleneckRow` at a width and an output stride.

    Attributes:
        index: number of bottlenecks in front of it.
        in_channels, hidden_channels, out_channels: channels in, behind the expansion, and out.
        kernel_size, stride, dilation: of the depthwise convolution.
        activation: of `ACTIVATIONS`.
        squeeze_excitation: whether the hidden channels have a gate.
        output_stride: stride of the bottleneck's output against the network's input.
        whole_strides: those of input and output before dilation.
        drop_path: probability of dropping the residual branch, where there is a shortcut.
        dfc_kernel: (height, width) of the convolutions of DFC attention; None: it has none.
    """

    index: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    dilation: int
    activation: str
    squeeze_excitation: bool
    output_stride: int
    whole_strides: Tuple[int, int]
    drop_path: float
    dfc_kernel: Optional[Tuple[int, int]] = None

    @property
    def has_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


def scale_channels(channels: int, width: float) -> int:
    """Multiply a channel count and round it to a multiple of 8, as `round_channels` does to one of 4."""
    return 2 * round_channels(channels * width / 2)


def plan_bottlenecks(table, stem_channels, options) -> list:
    """Plan all stages of a network: for each the list of its `BottleneckPlan`s.

    Args:
        table: for each stage the list of its `BottleneckRow`s.
        stem_channels: channels in.
        options: `BackboneOptions`.
    """
    stages, count = [], sum(map(len, table))
    in_channels, stride, dilation = stem_channels, STEM_STRIDE, 1
    for rows in table:
        stages.append([])
        for row in rows:
            dilates = stride * row.stride > options.output_stride
            index = sum(map(len, stages))
            plan = BottleneckPlan(
                index=index,
                in_channels=in_channels,
                hidden_channels=scale_channels(in_channels, row.expansion),
                out_channels=scale_channels(row.out_channels, options.width),
                kernel_size=row.kernel_size,
                stride=1 if dilates else row.stride,
                dilation=dilation,
                activation=row.activation,
                squeeze_excitation=row.squeeze_excitation,
                output_stride=stride if dilates else stride * row.stride,
                whole_strides=(stride * dilation, stride * dilation * row.stride),
                drop_path=options.drop_path_rate(index, count),
            )
            stages[-1].append(plan)
            in_channels, stride = plan.out_channels, plan.output_stride
            dilation = dilation * row.stride if dilates else dilation  # from the next bottleneck on
    return stages


def build_depthwise(channels, plan):
    """Build the depthwise convolution of a `BottleneckPlan`."""
    return build_convolution(channels, channels, plan.kernel_size, plan.stride, plan.dilation, groups=channels)


class SeparableBottleneck(nn.Cell):
    """Bottleneck without expansion, the network's first: depthwise convolution and linear projection.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride), rounded up; `plan` has the numbers.
    """

    def __init__(self, plan):
        super().__init__()
        self.conv_dw = build_depthwise(plan.in_channels, plan)
        self.bn1 = build_batch_norm(plan.in_channels)
        self.conv_pw = build_convolution(plan.in_channels, plan.out_channels)
        self.bn2 = build_batch_norm(plan.out_channels)
        self.activation_kind = plan.activation
        self.activation = ACTIVATIONS[plan.activation]()
        self.has_residual = plan.has_residual

    def construct(self, x):
        y = self.bn2(self.conv_pw(self.activation(self.bn1(self.conv_dw(x)))))
        return y + x if self.has_residual else y


class InvertedResidual(nn.Cell):
    """Bottleneck of expansion, depthwise convolution and linear projection (MobileNetV2, table 1).

    Args:
        plan: `BottleneckPlan`.
        attention, se: cells that the features behind the depthwise convolution go through, or None; names of
            parameters tell both apart.
        dfc: `DFCAttention` that gates the expanded features, or None.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, plan, attention=None, se=None, dfc=None):
        super().__init__()
        hidden = plan.hidden_channels
        self.conv_pw = build_convolution(plan.in_channels, hidden)
        self.bn1 = build_batch_norm(hidden)
        self.short_conv = dfc
        self.conv_dw = build_depthwise(hidden, plan)
        self.bn2 = build_batch_norm(hidden)
        self.attention = attention
        self.se = se
        self.conv_pwl = build_convolution(hidden, plan.out_channels)
        self.bn3 = build_batch_norm(plan.out_channels)
        self.activation_kind = plan.activation
        self.activation = ACTIVATIONS[plan.activation]()
        self.has_residual = plan.has_residual
        self.drop_path = build_drop_path(plan) if self.has_residual else None

    def construct(self, x):
        y = self.activation(self.bn1(self.conv_pw(x)))
        if self.short_conv is not None:
            y = y * self.short_conv(x, y.shape[2:])
        y = self.activation(self.bn2(self.conv_dw(y)))
        if self.attention is not None:
            y = self.attention(y)
        if self.se is not None:
            y = self.se(y)
        y = self.bn3(self.conv_pwl(y))
        if self.drop_path is not None:
            y = self.drop_path(y)
        return y + x if self.has_residual else y

    def multiply_adds(self, input_shape) -> int:
        """Count the products of expanded features and gates, for an input (N, C, H, W)."""
        batch, _, *size = input_shape
        return 0 if self.short_conv is None else batch * self.conv_pw.out_channels * math.prod(size)


class MobileNet(nn.Cell):
    """Stem, stages and classifier of a network; those that derive from it add `head`, and call `build_classifier`.

    Args:
        family: name of the network, for errors.
        stages: for each the list of its `BottleneckPlan`s.
        cells: the cells of these plans, likewise.
        activation: of the stem, of `ACTIVATIONS`.
        features_only: whether the network ends in the maps of `features`, without head and classifier.

    Attributes:
        feature_channels: channels of the four maps that `features` returns.
        feature_strides: their strides, (4, 8, 16, 32) unless `output_stride` is smaller.
        stage_ends: the bottlenecks that they are the outputs of, counted over all stages.
    """

    def __init__(self, family, stages, cells, activation, features_only):
        super().__init__()
        self.family, self.features_only = family, features_only
        self.conv_stem = build_convolution(IN_CHANNELS, stages[0][0].in_channels, 3, stride=STEM_STRIDE)
        self.bn1 = build_batch_norm(stages[0][0].in_channels)
        self.activation_kind = activation
        self.activation = ACTIVATIONS[activation]()
        self.blocks = nn.CellList([nn.SequentialCell(blocks) for blocks in cells])
        ends = [stages[index][-1] for index in FEATURE_STAGES]
        self.stage_ends = tuple(plan.index for plan in ends)
        self.feature_channels = tuple(plan.out_channels for plan in ends)
        self.feature_strides = tuple(plan.output_stride for plan in ends)

    def build_classifier(self, channels, num_classes, dropout):
        """Add what follows a head of these channels."""
        self.dropout = Dropout(dropout) if dropout > 0 else None
        self.classifier = build_dense(channels, num_classes)

    def features(self, x):
        """Compute the feature maps of float32 (N, 3, H, W) at the last stage of each stride.

        Returns:
            A tuple of four tensors (N, `feature_channels[i]`, H / `feature_strides[i]`, W / `feature_strides[i]`),
            sizes rounded up.
        """
        check_input_size(x.shape[2:], self.family)
        x = self.activation(self.bn1(self.conv_stem(x)))
        maps = ()
        for index in range(len(self.blocks)):
            x = self.blocks[index](x)
            if index in FEATURE_STAGES:
                maps += (x,)
        return maps

    def construct(self, x):
        maps = self.features(x)
        if self.features_only:
            return maps
        x = self.head(maps[-1]).flatten(start_dim=1)  # (N, C, 1, 1) -> (N, C)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.classifier(x)
