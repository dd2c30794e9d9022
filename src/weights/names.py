"""Parameter names of GhostNetV2 elsewhere: pure functions between our names and theirs.

Ours are those of the official MindSpore port, so its map is the identity. The authors' PyTorch code and
timm (`ghostnetv2_*`, `ghostnet_*`) share one set of names.
"""

import re
from dataclasses import dataclass
from typing import Optional

from src.architecture import BLOCKS, VARIANTS
from src.layers.channels import round_channels

# first block of each of PyTorch's `blocks.STAGE`; the last is the 1x1 convolution in front of the pooling
STAGE_STARTS = (0, 1, 2, 3, 4, 5, 6, 11, 12, 16)

BATCH_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
PYTORCH_BATCH_NORM_NAMES = {theirs: ours for ours, theirs in BATCH_NORM_NAMES.items()}
BATCH_COUNTER = "num_batches_tracked"  # PyTorch's step counter, which it uses only without momentum
PYTORCH_LEAVES = ("running_mean", "running_var", BATCH_COUNTER)
WRAPPERS = ("module.", "_orig_mod.", "model.")  # of data-parallel and compiled models, and of Lightning's
CLASSIFIER = "classifier."

TIMM_NAMES = {
    "ghostnetv2_1x": "ghostnetv2_100",
    "ghostnetv2_1_3x": "ghostnetv2_130",
    "ghostnetv2_1_6x": "ghostnetv2_160",
    "ghostnet_1x": "ghostnet_100",
}


@dataclass(frozen=True)
class Identity:
    """What network a set of weights belongs to."""

    variant: str
    num_classes: Optional[int]  # None: no classifier

    def __str__(self):
        classes = "without a classifier" if self.num_classes is None else f"for {self.num_classes} classes"
        return f"{self.variant} {classes}"


def identify(shapes) -> Optional[Identity]:
    """Find the variant and class count that {our parameter name: shape} belong to; None if it is no known variant.

    Tells by the widths, by the presence of DFC attention and of squeeze-and-excitation.
    """
    last = shapes.get("blocks.15.ghost2.primary_conv.conv.weight")
    if last is None or len(last) != 4:
        return None
    with_dfc = any(".short_conv." in name for name in shapes)
    with_se = any(".se." in name for name in shapes)
    for variant, options in VARIANTS.items():
        widths = round_channels(BLOCKS[-1][1] * options["width"])
        if (
            last[1] == widths
            and with_dfc == (options.get("dfc_blocks") != ())
            and with_se == options.get("squeeze_excitation", True)
        ):
            classifier = shapes.get(f"{CLASSIFIER}weight")
            return Identity(variant, None if classifier is None else int(classifier[0]))
    return None


def is_pytorch(names) -> bool:
    """Whether these are PyTorch's parameter names, not MindSpore's."""
    return any(name.rpartition(".")[2] in PYTORCH_LEAVES for name in names)


def is_batch_norm_mean(name) -> bool:
    """Whether our parameter `name` is the running mean of a batch normalisation: there is one for each."""
    return name.endswith(".moving_mean")


def strip_wrappers(names) -> dict:
    """Give {name: name without the prefixes that wrappers of models add to all}."""
    stripped = {name: name for name in names}
    for prefix in WRAPPERS * 2:  # in either order
        if stripped and all(name.startswith(prefix) for name in stripped.values()):
            stripped = {name: short[len(prefix) :] for name, short in stripped.items()}
    return stripped


def from_pytorch(weights) -> dict:
    """Turn {PyTorch's name: array} into {our name: array}, without batch counters; unknown names stay as they are."""
    ported = {}
    for name, short in strip_wrappers(weights).items():
        if short.endswith(BATCH_COUNTER):
            continue
        try:
            ported[from_pytorch_name(short)] = weights[name]
        except KeyError:
            ported[short] = weights[name]
    return ported


def to_pytorch_name(name: str) -> str:
    """Give PyTorch's name for our parameter `name`; a name that is no GhostNetV2 parameter raises KeyError."""
    module, _, leaf = name.rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    prefix = ""
    if block:
        index, module = int(block[1]), block[2]
        stage = max(stage for stage, start in enumerate(STAGE_STARTS) if start <= index)
        prefix = f"blocks.{stage}.{index - STAGE_STARTS[stage]}."
    leaf = BATCH_NORM_NAMES.get(leaf, leaf)
    return f"{prefix}{_to_pytorch_module(module)}.{leaf}"


def _to_pytorch_module(module: str) -> str:
    rules = (
        (r"bn1|conv_stem|conv_head|classifier|se\.conv_(?:reduce|expand)", lambda m: m[0]),
        (r"dw\.(conv|bn)", lambda m: f"{m[1]}_dw"),
        (r"conv", lambda m: "conv"),  # last block
        (r"bn", lambda m: "bn1"),
        (r"(ghost[12]\.(?:primary_conv|cheap_operation))\.(conv|bn)", lambda m: f"{m[1]}.{int(m[2] == 'bn')}"),
        (
            r"((?:ghost[12]\.)?(?:short_conv|shortcut))\.(\d+)\.(conv|bn)",
            lambda m: f"{m[1]}.{2 * int(m[2]) + (m[3] == 'bn')}",
        ),
    )
    for pattern, rename in rules:
        match = re.fullmatch(pattern, module)
        if match:
            return rename(match)
    raise KeyError(module)


def from_pytorch_name(name: str) -> str:
    """Give our name for PyTorch's parameter or buffer `name`; one that is no GhostNetV2 entry raises KeyError."""
    module, _, leaf = name.rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", module)
    prefix = ""
    if block:
        stage, offset, module = int(block[1]), int(block[2]), block[3]
        if stage >= len(STAGE_STARTS):
            raise KeyError(name)
        prefix = f"blocks.{STAGE_STARTS[stage] + offset}."
    module, is_batch_norm = _from_pytorch_module(module, in_block=bool(block))
    if is_batch_norm:
        leaf = PYTORCH_BATCH_NORM_NAMES[leaf]
    return f"{prefix}{module}.{leaf}"


def _from_pytorch_module(module: str, in_block: bool):
    """Give our module name and whether it is a batch normalisation."""
    if module == "bn1":
        return ("bn", True) if in_block else ("bn1", True)
    if re.fullmatch(r"conv|conv_stem|conv_head|classifier|se\.conv_(?:reduce|expand)", module):
        return module, False
    match = re.fullmatch(r"(conv|bn)_dw", module)
    if match:
        return f"dw.{match[1]}", match[1] == "bn"
    match = re.fullmatch(r"(ghost[12]\.(?:primary_conv|cheap_operation))\.([01])", module)
    if match:
        return f"{match[1]}.{('conv', 'bn')[int(match[2])]}", match[2] == "1"
    match = re.fullmatch(r"((?:ghost[12]\.)?(?:short_conv|shortcut))\.(\d+)", module)
    if match:
        index, is_batch_norm = divmod(int(match[2]), 2)
        return f"{match[1]}.{index}.{('conv', 'bn')[is_batch_norm]}", bool(is_batch_norm)
    raise KeyError(module)
