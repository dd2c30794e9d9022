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

from dataclasses import dataclass
from typing import Literal, Optional, Tuple

from src.architecture import BackboneOptions
from src.dfc_attention import DFCAttention
from src.errors import UserError
from src.fields import bounded
from src.layers.attention import CBAM, SE, CoordinateAttention
from src.layers.blocks import build_batch_norm, build_convolution, global_mean
from src.mobilenet import (
    BottleneckRow,
    InvertedResidual,
    MobileNet,
    SeparableBottleneck,
    plan_bottlenecks,
    scale_channels,
)

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
ACTIVATION = "relu6"
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


def plan_stages(options: MobileNetV2Options) -> list:
    """Plan all stages: for each row of `STAGES` the list of its `BottleneckPlan`s."""
    table = [
        [BottleneckRow(3, expansion, channels, False, ACTIVATION, stride) for stride in (first, *[1] * (repeats - 1))]
        for expansion, channels, repeats, first in STAGES
    ]
    stages = plan_bottlenecks(table, scale_channels(STEM_CHANNELS, options.width), options)
    return [[plan._replace(dfc_kernel=plan_dfc(options, plan)) for plan in plans] for plans in stages]


def plan_dfc(options, plan):
    """Give the kernel size of the DFC attention of a bottleneck's plan, None for none."""
    stride_in, stride_out = plan.whole_strides
    may_have = options.dfc_blocks is not None or stride_in >= FIRST_DFC_STRIDE
    has_dfc = options.attention == "dfc" and may_have and options.has_dfc(plan.index, stride_out, stride_in)
    return options.kernel_size(stride_out, stride_in) if has_dfc else None


class MobileNetV2(MobileNet):
    """The whole network: float32 (N, 3, H, W), H and W at least 33, -> logits (N, num_classes).

    Args:
        num_classes: outputs of the classifier.
        options: `MobileNetV2Options`.

    Raises:
        ValueError: on a call, for an input smaller than 33x33.
    """

    def __init__(self, num_classes, options):
        stages = plan_stages(options)
        cells = [[build_bottleneck(plan, options) for plan in plans] for plans in stages]
        super().__init__("MobileNetV2", stages, cells, ACTIVATION, options.features_only)
        if not options.features_only:
            head_channels = max(HEAD_CHANNELS, scale_channels(HEAD_CHANNELS, options.width))
            self.conv_head = build_convolution(self.feature_channels[-1], head_channels)
            self.bn2 = build_batch_norm(head_channels)
            self.build_classifier(head_channels, num_classes, options.dropout)

    def head(self, x):
        """Compute (N, C, H, W) -> (N, C', 1, 1)."""
        return global_mean(self.activation(self.bn2(self.conv_head(x))))


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
    return InvertedResidual(plan, attention=attention, dfc=dfc)
