"""Parameter names of GhostNetV2 elsewhere: pure functions between our names and theirs.

Ours are those of the official MindSpore port, so its map is the identity. The authors' PyTorch code and
timm (`ghostnetv2_*`, `ghostnet_*`) share one set of names.
"""

import re

# first block of each of PyTorch's `blocks.STAGE`; the last is the 1x1 convolution in front of the pooling
STAGE_STARTS = (0, 1, 2, 3, 4, 5, 6, 11, 12, 16)

BATCH_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
PYTORCH_BATCH_NORM_NAMES = {theirs: ours for ours, theirs in BATCH_NORM_NAMES.items()}
IGNORED_PYTORCH_SUFFIX = "num_batches_tracked"  # a step counter that PyTorch itself uses only without momentum


def to_pytorch_name(name: str) -> str:
    """PyTorch's name for our parameter `name`; a name that is no GhostNetV2 parameter raises KeyError."""
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
    """Our name for PyTorch's parameter or buffer `name`; a name that is no GhostNetV2 entry raises KeyError."""
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
    """Our module name and whether it is a batch normalisation."""
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
