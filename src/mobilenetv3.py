"""MobileNetV3-Large, a rival in the paper's comparison of costs, as MindSpore cells.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1. Behaviour and parameter names are those of
timm's `mobilenetv3_large_*`, except that batch normalisation's own names are MindSpore's: at widths below 0.75 the stem
is as wide as at 1, and the head has 1280 channels at all.

Differences from the other networks: the 1x1 convolution behind the last bottleneck is a stage of its own, as in timm,
and its map is the last of `features`; squeeze-and-excitation is the only attention.

Millions of parameters and multiply-adds at width 1 and 224x224, published ones in brackets: 5.48, 217 (5.4, 219).
"""

from dataclasses import dataclass
from typing import Literal

from mindspore import nn

from src.architecture import BackboneOptions
from src.layers.blocks import (
    SE_RATIO,
    SqueezeExcitation,
    build_batch_norm,
    build_convolution,
    global_mean,
)
from src.mobilenet import (
    ACTIVATIONS,
    BottleneckRow,
    InvertedResidual,
    MobileNet,
    SeparableBottleneck,
    plan_bottlenecks,
    scale_channels,
)

STEM_CHANNELS, HEAD_CHANNELS = 16, 1280
MIN_STEM_WIDTH = 0.75  # below which the stem is that of width 1
ACTIVATION = "hard_swish"  # of stem and head

STAGES = (
    # k, exp, out, se, activation, stride; the last one is a 1x1 convolution alone
    ((3, 1, 16, False, "relu", 1),),
    ((3, 4, 24, False, "relu", 2), (3, 3, 24, False, "relu", 1)),
    ((5, 3, 40, True, "relu", 2), (5, 3, 40, True, "relu", 1), (5, 3, 40, True, "relu", 1)),
    (
        (3, 6, 80, False, "hard_swish", 2),
        (3, 2.5, 80, False, "hard_swish", 1),
        (3, 2.3, 80, False, "hard_swish", 1),
        (3, 2.3, 80, False, "hard_swish", 1),
    ),
    ((3, 6, 112, True, "hard_swish", 1), (3, 6, 112, True, "hard_swish", 1)),
    ((5, 6, 160, True, "hard_swish", 2), (5, 6, 160, True, "hard_swish", 1), (5, 6, 160, True, "hard_swish", 1)),
    ((1, 1, 960, False, "hard_swish", 1),),
)
LAST_WEIGHT = f"blocks.{len(STAGES) - 1}.0.conv.weight"  # a name that no other network has

VARIANTS = {"mobilenetv3_large": {}}


@dataclass(frozen=True)
class MobileNetV3Options(BackboneOptions):
    """The options of `MobileNetV3`, whose `width` leaves the head alone.

    Attributes:
        attention: none but what is built in, so that no `dfc_*` option has an effect.

    Raises:
        UserError: if an option is outside its choices or range, or has no effect.
    """

    attention: Literal["none"] = "none"

    def __post_init__(self):
        super().__post_init__()
        self.refuse_options(self.attention)


class LastConvolution(nn.Cell):
    """The last stage, 1x1 convolution, batch normalisation and activation: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, plan):
        super().__init__()
        self.conv = build_convolution(plan.in_channels, plan.out_channels)
        self.bn1 = build_batch_norm(plan.out_channels)
        self.activation_kind = plan.activation
        self.activation = ACTIVATIONS[plan.activation]()

    def construct(self, x):
        return self.activation(self.bn1(self.conv(x)))


class MobileNetV3(MobileNet):
    """The whole network: float32 (N, 3, H, W), H and W at least 33, -> logits (N, num_classes).

    Args:
        num_classes: outputs of the classifier.
        options: `MobileNetV3Options`.

    Raises:
        ValueError: on a call, for an input smaller than 33x33.
    """

    def __init__(self, num_classes, options):
        stages = plan_stages(options)
        cells = [[build_bottleneck(plan) for plan in plans] for plans in stages[:-1]]
        cells.append([LastConvolution(*stages[-1])])
        super().__init__("MobileNetV3", stages, cells, ACTIVATION, options.features_only)
        if not options.features_only:
            self.conv_head = build_convolution(self.feature_channels[-1], HEAD_CHANNELS, has_bias=True)
            self.build_classifier(HEAD_CHANNELS, num_classes, options.dropout)

    def head(self, x):
        """Compute (N, C, H, W) -> (N, C', 1, 1)."""
        return self.activation(self.conv_head(global_mean(x)))


def plan_stages(options: MobileNetV3Options) -> list:
    """Plan all stages: for each of `STAGES` the list of its `BottleneckPlan`s."""
    table = [[BottleneckRow(*row) for row in rows] for rows in STAGES]
    stem_width = 1 if options.width < MIN_STEM_WIDTH else options.width
    return plan_bottlenecks(table, scale_channels(STEM_CHANNELS, stem_width), options)


def build_bottleneck(plan):
    """Build the cell of a `BottleneckPlan`."""
    if plan.hidden_channels == plan.in_channels:
        return SeparableBottleneck(plan)
    hidden = plan.hidden_channels
    se = SqueezeExcitation(hidden, scale_channels(hidden, SE_RATIO)) if plan.squeeze_excitation else None
    return InvertedResidual(plan, se=se)
