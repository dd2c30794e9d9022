"""The architecture of GhostNetV2 as data: its table of blocks, variants and options, and the plan of each block.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022, section 4.1; Han
et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, table 1. Channels are rounded as by the authors.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Optional, Tuple

from src.errors import UserError
from src.fields import bounded, check_fields
from src.layers.channels import round_channels

IMAGENET_CLASSES = 1000
STEM_CHANNELS, STEM_STRIDE = 16, 2
MIN_INPUT_SIZE = 33  # pixels; below it the maps at stride 32 are 1x1 and the 2x2 pooling of DFC has no input
OutputStride = Literal[8, 16, 32]  # of the whole network

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


@dataclass(frozen=True)
class DFCOptions:
    """The options of DFC attention, with the paper's choices as defaults.

    Attributes:
        dfc_blocks: indices of the blocks with attention; None for those of the variant, () for none.
        dfc_target: Ghost modules to enhance: the first ('expressiveness'), the second ('capacity') or 'both'.
        dfc_kernel_size: odd length of both depthwise convolutions.
        dfc_down_sampling: how the input is halved, sizes rounded down.
        dfc_up_sampling: how the attention is resized to the features that it gates.
        dfc_gate: function that squashes the attention.
        dfc_gate_position: whether the gate comes before or after the up-sampling.

    Raises:
        UserError: if an option is outside its choices or range.
    """

    dfc_blocks: Optional[Tuple[int, ...]] = bounded(None, 0, len(BLOCKS) - 1, length=len(BLOCKS))
    dfc_target: Literal["expressiveness", "capacity", "both"] = "expressiveness"
    dfc_kernel_size: int = bounded(5, 1, 255)
    dfc_down_sampling: Literal["avg_pool", "max_pool", "bilinear"] = "avg_pool"
    dfc_up_sampling: Literal["nearest", "bilinear", "bilinear_align_corners", "bicubic"] = "nearest"
    dfc_gate: Literal["sigmoid", "hard_sigmoid", "none"] = "sigmoid"
    dfc_gate_position: Literal["before_up_sampling", "after_up_sampling"] = "before_up_sampling"

    def __post_init__(self):
        check_fields(self)
        if self.dfc_kernel_size % 2 == 0:
            raise UserError(f"dfc_kernel_size: {self.dfc_kernel_size} is not odd")


@dataclass(frozen=True)
class NetworkOptions(DFCOptions):
    """The options of `GhostNetV2`.

    Attributes:
        width: multiplier of all channel counts but the head's.
        squeeze_excitation: False leaves every squeeze-and-excitation out.
        output_stride: 32, or 16 or 8 where dilation replaces the last one or two strides.
        dropout: probability of dropping a feature before the classifier, in training.
        features_only: leave the head out; the network then returns what `GhostNetV2.features` does.
    """

    width: float = bounded(1.0, 0.01, 10.0)
    squeeze_excitation: bool = True
    output_stride: OutputStride = 32
    dropout: float = bounded(0.2, 0.0, 0.99)
    features_only: bool = False


class BlockPlan(NamedTuple):
    """What a bottleneck is built from: a row of `BLOCKS` at a width and an output stride.

    Attributes:
        in_channels, hidden_channels, out_channels: channels in, between the Ghost modules, and out.
        kernel_size: of the depthwise convolution.
        reduces: whether the bottleneck has a depthwise convolution, with a stride or dilation in its place.
        stride: of that convolution; 1 where dilation replaces it.
        dilation: of the spatial convolutions up to that convolution.
        dilation_out: of those behind it.
        squeeze_excitation: whether a channel gate stands between the Ghost modules.
        output_stride: stride of the block's output against the network's input.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    kernel_size: int
    reduces: bool
    stride: int
    dilation: int
    dilation_out: int
    squeeze_excitation: bool
    output_stride: int


def plan_blocks(options: NetworkOptions) -> list:
    """Plan all bottlenecks: a `BlockPlan` for each row of `BLOCKS`."""
    plans = []
    in_channels, total_stride, dilation = round_channels(STEM_CHANNELS * options.width), STEM_STRIDE, 1
    for kernel_size, expansion, out_channels, with_se, stride in BLOCKS:
        dilates = total_stride * stride > options.output_stride
        plan = BlockPlan(
            in_channels=in_channels,
            hidden_channels=round_channels(expansion * options.width),
            out_channels=round_channels(out_channels * options.width),
            kernel_size=kernel_size,
            reduces=stride > 1,
            stride=1 if dilates else stride,
            dilation=dilation,
            dilation_out=dilation * stride if dilates else dilation,
            squeeze_excitation=with_se and options.squeeze_excitation,
            output_stride=total_stride if dilates else total_stride * stride,
        )
        plans.append(plan)
        in_channels, total_stride, dilation = plan.out_channels, plan.output_stride, plan.dilation_out
    return plans
