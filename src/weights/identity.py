"""What network a set of weights belongs to, told by its names and shapes."""

from dataclasses import dataclass
from typing import Optional

from src import mobilenetv2, mobilenetv3
from src.architecture import BLOCKS, MAX_WIDTH, MIN_WIDTH, VARIANTS, scale_channels
from src.mobilenet import scale_channels as scale_mobilenet
from src.stages import CLASSIFIER
from src.weights.names import MOBILENET_MARK

MAX_STEPS = 13  # of a thousandth: what the rounding of 160 channels to 4, or of 320 to 8, can hide


@dataclass(frozen=True)
class Identity:
    """What network a set of weights belongs to.

    Attributes:
        variant: its name.
        width: its multiplier of channel counts; None: the variant's own.
        num_classes: outputs of its classifier; None: it has none.
        attention: its option `attention`; None: the variant's own.
    """

    variant: str
    width: Optional[float]
    num_classes: Optional[int]
    attention: Optional[str] = None

    def __str__(self):
        return f"{self.network} " + (
            "without a classifier" if self.num_classes is None else f"for {self.num_classes} classes"
        )

    @property
    def network(self) -> str:
        """Put all but the classifier in words."""
        width = "" if self.width is None else f" at width {self.width:g}"
        return self.variant + width + ("" if self.attention is None else f" with attention {self.attention}")

    @property
    def settings(self) -> str:
        """Give the settings that build it, but for its classifier."""
        width = "" if self.width is None else f" network.width={self.width:g}"
        attention = "" if self.attention is None else f" network.attention={self.attention}"
        return f"network.name={self.variant}{width}{attention}"


def identify(shapes) -> Optional[Identity]:
    """Find the variant and class count that {our parameter name: shape} belong to; None if it is no known variant.

    Tells GhostNets by their channels, by attention and by squeeze-and-excitation, MobileNets by their own names.
    """
    attention = None
    if mobilenetv3.LAST_WEIGHT in shapes:
        variant, width = identify_mobilenetv3(shapes)
    elif MOBILENET_MARK in shapes:
        variant, width = identify_mobilenetv2(shapes)
    else:
        variant, width, attention = identify_ghostnet(shapes)
    if variant is None:
        return None
    classifier = shapes.get(f"{CLASSIFIER}weight")  # () where it is damaged
    return Identity(variant, width, int(classifier[0]) if classifier else None, attention)


def identify_ghostnet(shapes):
    """Find the variant of GhostNet, its width and its attention, the latter two where they are not the variant's own.

    Returns:
        (name, width or None, attention or None); (None, None, None) if it is no GhostNet.
    """
    found = []
    for index in range(len(BLOCKS)):
        shape = shapes.get(f"blocks.{index}.ghost2.primary_conv.conv.weight", ())
        if len(shape) != 4:
            return None, None, None
        found += [shape[1], 2 * shape[0]]
    attention = "none"
    if any(".short_conv." in name for name in shapes):
        attention = "dfc" if any(".short_conv.1." in name for name in shapes) else "self_attention"
    with_se = any(".se." in name for name in shapes)
    channels = [channels for row in BLOCKS for channels in row[1:3]]
    for own_attention, other in ((attention, None), ("dfc", attention)):  # a variant's own, else one of GhostNetV2's
        variants = {
            name: own["width"]
            for name, own in VARIANTS.items()
            if (own.get("attention", "dfc"), own.get("squeeze_excitation", True)) == (own_attention, with_se)
        }
        name, width = choose_width(variants, found, channels, scale_channels)
        if name is not None:
            return name, width, other
    return None, None, None


def identify_mobilenetv2(shapes):
    """Find the variant of MobileNetV2, and its width where that is not the variant's own."""
    found = find_channels(shapes, [f"blocks.{index}.0.conv_pwl.weight" for index in range(1, len(mobilenetv2.STAGES))])
    if found is None:
        return None, None
    marks = {"se": ".attention.mlp.", "cbam": ".attention.spatial.", "ca": ".attention.joint.", "dfc": ".short_conv."}
    present = [name for name, mark in marks.items() if any(mark in parameter for parameter in shapes)]
    attention = present[-1] if present else "none"  # CBAM has the MLP of SE, too
    variants = {name: 1.0 for name, own in mobilenetv2.VARIANTS.items() if own.get("attention", "none") == attention}
    channels = [row[1] for row in mobilenetv2.STAGES[1:]]
    head = shapes.get("conv_head.weight", ())
    if len(head) == 4 and head[0] > mobilenetv2.HEAD_CHANNELS:  # narrow networks have no narrower head
        found.append(head[0])
        channels.append(mobilenetv2.HEAD_CHANNELS)
    return choose_width(variants, found, channels, scale_mobilenet)


def identify_mobilenetv3(shapes):
    """Find the variant of MobileNetV3, and its width where that is not the variant's own."""
    names = [f"blocks.{index}.0.conv_pwl.weight" for index in range(1, len(mobilenetv3.STAGES) - 1)]
    found = find_channels(shapes, [*names, mobilenetv3.LAST_WEIGHT])
    if found is None:
        return None, None
    channels = [rows[0][2] for rows in mobilenetv3.STAGES[1:]]
    return choose_width(dict.fromkeys(mobilenetv3.VARIANTS, 1.0), found, channels, scale_mobilenet)


def find_channels(shapes, names):
    """Give the output channels of the convolutions whose weights have these names; None where one is missing."""
    found = [shapes.get(name, ()) for name in names]
    return [shape[0] for shape in found] if all(len(shape) == 4 for shape in found) else None


def choose_width(variants, found, channels, scale):
    """Find which variant has these channels: its own width if that fits, else the roundest one that does.

    Args:
        variants: {name: width}.
        found: channels of the weights.
        channels: the same at width 1.
        scale: function (channels, width) -> channels.

    Returns:
        (name, None), (name, width), or (None, None).
    """

    def fits(width):
        return all(scale(count, width) == there for count, there in zip(channels, found))

    for name, width in variants.items():
        if fits(width):
            return name, None
    for digits in (1, 2, 3):
        near = round(found[-1] / channels[-1], digits)
        for steps in sorted(range(-MAX_STEPS, MAX_STEPS + 1), key=abs):
            width = round(near + steps / 10**digits, digits)
            if variants and MIN_WIDTH <= width <= MAX_WIDTH and fits(width):
                return next(iter(variants)), width
    return None, None
