"""The architecture of GhostNetV2 as data: its table of blocks, variants and options, and the plan of each block.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022, section 4.1; Han
et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, table 1. Channels are rounded as by the authors.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, Optional, Tuple, Union

from src.errors import UserError
from src.fields import bounded, check, check_fields
from src.layers.channels import round_channels

IMAGENET_CLASSES = 1000
STEM_CHANNELS, STEM_STRIDE = 16, 2
MIN_WIDTH, MAX_WIDTH = 0.01, 10.0
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
    "ghostnet_1x": {"width": 1.0, "attention": "none"},
    "ghostnet_1_1x": {"width": 1.1, "attention": "none"},
    "ghostnet_1_3x": {"width": 1.3, "attention": "none"},
    "ghostnet_1_4x": {"width": 1.4, "attention": "none"},
    "ghostnet_1_7x": {"width": 1.7, "attention": "none"},
}

FIRST_DFC_STRIDE = 4  # of a map that has attention; those of the first blocks are larger (paper, section 4.1)
STAGE_STRIDES = (8, 16, 32)  # of the stages that may differ in DFC attention; blocks in front belong to the first
PLACES = ("dfc_blocks", "dfc_stages", "dfc_target")  # options that say where attention of any kind stands
MAX_KERNEL_SIZE = 255
MAX_DROP_PATH = 0.9
FULL_LENGTH_INPUT = 224  # pixels, for which 'full' kernels reach from end to end
KernelSize = Union[int, Tuple[int, int]]  # of both convolutions; or (height, width)


@dataclass(frozen=True)
class DFCOptions:
    """The options of DFC attention, with the choices of the authors' code as defaults.

    Attributes:
        dfc_blocks: indices of the blocks with attention; None for all from stride 4 on, () for none.
        dfc_stages: strides of the stages with attention, of `STAGE_STRIDES`; None for all.
        dfc_target: Ghost modules to enhance: the first ('expressiveness'), the second ('capacity') or 'both'.
        dfc_kernel_size: length of the convolutions along rows and columns, or (height, width); one for all, or a list
            with one for each of `STAGE_STRIDES`; 'full' reaches from any pixel to any other of a 224x224 input's map,
            the fully connected layers of the paper's equations 3 to 5 with weights shared as in its convolutions.
        dfc_axes: depthwise convolutions: along rows, then columns; along one of both; or a square one in their place.
        dfc_down_sampling: how the input is halved, sizes rounded down; 'none' leaves it as large as it is.
        dfc_up_sampling: how the attention is resized to the features that it gates.
        dfc_gate: function that squashes the attention; 'clip' is min(max(x, 0), 1).
        dfc_gate_position: whether the gate comes before or after the up-sampling.

    Raises:
        UserError: if an option is outside its choices or range, or options do not fit each other.
    """

    dfc_blocks: Optional[Tuple[int, ...]] = bounded(None, 0, len(BLOCKS) - 1, length=len(BLOCKS))
    dfc_stages: Optional[Tuple[Literal[STAGE_STRIDES], ...]] = bounded(None, length=len(STAGE_STRIDES))
    dfc_target: Literal["expressiveness", "capacity", "both"] = "expressiveness"
    dfc_kernel_size: Union[int, Literal["full"], Tuple[KernelSize, ...]] = bounded(
        5, 1, MAX_KERNEL_SIZE, length=len(STAGE_STRIDES)
    )
    dfc_axes: Literal["rows_and_columns", "rows", "columns", "square"] = "rows_and_columns"
    dfc_down_sampling: Literal["avg_pool", "max_pool", "bilinear", "none"] = "avg_pool"
    dfc_up_sampling: Literal["nearest", "bilinear", "bilinear_align_corners", "bicubic"] = "nearest"
    dfc_gate: Literal["sigmoid", "hard_sigmoid", "clip", "relu", "none"] = "sigmoid"
    dfc_gate_position: Literal["before_up_sampling", "after_up_sampling"] = "before_up_sampling"

    def __post_init__(self):
        check_fields(self)
        if self.dfc_blocks is not None and self.dfc_stages is not None:
            raise UserError("dfc_stages: and dfc_blocks cannot both be set")
        sizes = self.dfc_kernel_size
        if isinstance(sizes, tuple) and len(sizes) != len(STAGE_STRIDES):
            raise UserError(f"dfc_kernel_size: has {len(sizes)} items, needs one for each stride of {STAGE_STRIDES}")

    def has_dfc(self, index, stage, stride) -> bool:
        """Whether a map has attention.

        Args:
            index: of the block that it belongs to.
            stage: stride of the block's output, before dilation.
            stride: of the map, before dilation.
        """
        if self.dfc_blocks is not None:
            return index in self.dfc_blocks
        is_chosen = self.dfc_stages is None or max(stage, STAGE_STRIDES[0]) in self.dfc_stages
        return is_chosen and stride >= FIRST_DFC_STRIDE

    def kernel_size(self, stage, stride) -> Tuple[int, int]:
        """Give (height, width) of the attention's convolutions; arguments as of `has_dfc`."""
        size = self.dfc_kernel_size
        if size == "full":
            side = FULL_LENGTH_INPUT // stride // (1 if self.dfc_down_sampling == "none" else 2)
            size = 2 * side - 1
        elif isinstance(size, tuple):
            size = size[STAGE_STRIDES.index(max(stage, STAGE_STRIDES[0]))]
        return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True)
class BackboneOptions(DFCOptions):
    """The options that all networks have.

    Attributes:
        width: multiplier of channel counts.
        output_stride: 32, or 16 or 8 where dilation replaces the last one or two strides.
        dropout: probability of dropping a feature before the classifier, in training.
        drop_path: that of dropping the residual branch of a block behind the last one, in training, see
            `drop_path_rate`.
        features_only: leave the head out; the network then returns what its `features` does.
    """

    width: float = bounded(1.0, MIN_WIDTH, MAX_WIDTH)
    output_stride: OutputStride = 32
    dropout: float = bounded(0.2, 0.0, 0.99)
    drop_path: float = bounded(0.0, 0.0, MAX_DROP_PATH)
    features_only: bool = False

    def drop_path_rate(self, index, blocks) -> float:
        """Give the probability of dropping a block's residual branch: it rises linearly from 0, as in timm.

        Args:
            index: of the block, from 0.
            blocks: how many the network has.
        """
        return self.drop_path * index / blocks

    def refuse_options(self, attention, taken=()) -> None:
        """Raise `UserError` if an option of DFC attention differs from its default beside an `attention` without it.

        Args:
            attention: its name.
            taken: names of the options that it takes.
        """
        for option in fields(DFCOptions):
            if option.name not in taken and getattr(self, option.name) not in (option.default, ()):  # () is no place
                raise UserError(f"{option.name}: has no effect with attention {attention}")


@dataclass(frozen=True)
class NetworkOptions(BackboneOptions):
    """The options of `GhostNetV2`, whose `width` leaves the head alone.

    Attributes:
        attention: what gates Ghost modules: DFC attention; in its places the self-attention of MobileViT, for
            comparison; or none, which is GhostNet V1.
        squeeze_excitation: False leaves every squeeze-and-excitation out.
    """

    attention: Literal["dfc", "self_attention", "none"] = "dfc"
    squeeze_excitation: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.attention != "dfc":
            self.refuse_options(self.attention, PLACES if self.attention == "self_attention" else ())


def complete_options(name, variants, options) -> dict:
    """Complete the options that are given for a variant by its own.

    Args:
        name: of the variant.
        variants: {name: options in which it differs from the defaults}.
        options: {name: value}; None leaves one as the variant has it.

    Raises:
        UserError: if there is no such variant.
    """
    try:
        check(name, Literal[tuple(variants)])
    except UserError as error:
        raise UserError(f"network: {error}") from None
    return {**variants[name], **{option: value for option, value in options.items() if value is not None}}


class BlockPlan(NamedTuple):
    """What a bottleneck is built from: a row of `BLOCKS` at a width and an output stride.

    Attributes:
        index: number of bottlenecks in front of it.
        in_channels, hidden_channels, out_channels: channels in, between the Ghost modules, and out.
        kernel_size: of the depthwise convolution.
        reduces: whether the bottleneck has a depthwise convolution, with a stride or dilation in its place.
        stride: of that convolution; 1 where dilation replaces it.
        dilation: of the spatial convolutions up to that convolution.
        dilation_out: of those behind it.
        squeeze_excitation: whether a channel gate stands between the Ghost modules.
        output_stride: stride of the block's output against the network's input.
        first_kernel, second_kernel: (height, width) of the convolutions of either Ghost module's attention; None: it
            has none.
        drop_path: probability of dropping the residual branch.
    """

    index: int
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
    first_kernel: Optional[Tuple[int, int]]
    second_kernel: Optional[Tuple[int, int]]
    drop_path: float


def check_input_size(size, network) -> None:
    """Raise `ValueError` if (height, width) of an input is too small for a network; a dynamic size is negative."""
    height, width = size
    if 0 <= height < MIN_INPUT_SIZE or 0 <= width < MIN_INPUT_SIZE:
        raise ValueError(f"input is {height}x{width} pixels, {network} needs at least 33x33")


def scale_channels(channels, width) -> int:
    """Multiply a channel count of GhostNet and round it."""
    return round_channels(channels * width)


def plan_blocks(options: NetworkOptions) -> list:
    """Plan all bottlenecks: a `BlockPlan` for each row of `BLOCKS`."""
    plans = []
    in_channels, stride, dilation = scale_channels(STEM_CHANNELS, options.width), STEM_STRIDE, 1
    for index, (kernel_size, expansion, out_channels, with_se, reduction) in enumerate(BLOCKS):
        dilates = stride * reduction > options.output_stride
        first_kernel, second_kernel = plan_attention(options, index, stride * dilation, stride * dilation * reduction)
        plan = BlockPlan(
            index=index,
            in_channels=in_channels,
            hidden_channels=scale_channels(expansion, options.width),
            out_channels=scale_channels(out_channels, options.width),
            kernel_size=kernel_size,
            reduces=reduction > 1,
            stride=1 if dilates else reduction,
            dilation=dilation,
            dilation_out=dilation * reduction if dilates else dilation,
            squeeze_excitation=with_se and options.squeeze_excitation,
            output_stride=stride if dilates else stride * reduction,
            first_kernel=first_kernel,
            second_kernel=second_kernel,
            drop_path=options.drop_path_rate(index, len(BLOCKS)),
        )
        plans.append(plan)
        in_channels, stride, dilation = plan.out_channels, plan.output_stride, plan.dilation_out
    return plans


def plan_attention(options, index, stride_in, stride_out):
    """Give the kernel sizes of the attention of both Ghost modules of a block, None for a module without.

    The second one works on the block's output. So with 'capacity' a block more has attention than with
    'expressiveness': the map of block 1's second module is as large as that of block 2's first. That makes 161.8 M
    multiply-adds, or 187.7 M with 'both', where the paper is remembered to have 162 M and 188 M.

    Args:
        options: `NetworkOptions`.
        index: of the block.
        stride_in, stride_out: strides of its input and output, before dilation.
    """
    kernels = []
    for stride, other in ((stride_in, "capacity"), (stride_out, "expressiveness")):
        has_attention = (
            options.attention != "none" and options.dfc_target != other and options.has_dfc(index, stride_out, stride)
        )
        kernels.append(options.kernel_size(stride_out, stride) if has_attention else None)
    return kernels
