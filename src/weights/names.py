"""Parameter names of the networks elsewhere: pure functions between our names and theirs.

Ours are those of the official MindSpore port, so its map is the identity. The authors' PyTorch code and
timm (`ghostnetv2_*`, `ghostnet_*`) share one set of names. mindcv's GhostNet V1 (`ghostnet_050`, `_100`, `_130`; it has
no GhostNetV2) has PyTorch's modules, but for the last convolution, with MindSpore's names in batch normalisation. The
ModelZoo's GhostNet V1 (`research/cv/ghostnet`) has our names. Those of MobileNets are timm's, except in batch
normalisation.
"""

import re

CONVENTIONS = MINDSPORE, PYTORCH, MINDCV = ("mindspore", "pytorch", "mindcv")  # the first: ours

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
MOBILENET_MARK = "blocks.0.0.conv_dw.weight"  # a name that GhostNet has none like

MINDCV_MARK = ".ghost1.primary_conv.1.gamma"  # ends names that only mindcv's have
MINDCV_MODULES = {"blocks.9.0.conv": "blocks.9.features.0", "blocks.9.0.bn1": "blocks.9.features.1"}  # of PyTorch's
FROM_MINDCV_MODULES = {theirs: pytorchs for pytorchs, theirs in MINDCV_MODULES.items()}

TIMM_NAMES = {
    "ghostnetv2_1x": "ghostnetv2_100",
    "ghostnetv2_1_3x": "ghostnetv2_130",
    "ghostnetv2_1_6x": "ghostnetv2_160",
    "ghostnet_1x": "ghostnet_100",
    "mobilenetv2_1x": "mobilenetv2_100",
    "mobilenetv3_large": "mobilenetv3_large_100",
}


def recognise_names(names) -> str:
    """Tell whose parameter names these are: one of `CONVENTIONS`, ours where nothing says otherwise."""
    if any(name.rpartition(".")[2] in PYTORCH_LEAVES for name in names):
        return PYTORCH
    return MINDCV if any(name.endswith(MINDCV_MARK) for name in names) else MINDSPORE


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
    ported, names = {}, strip_wrappers(weights)
    if MOBILENET_MARK in names.values():
        return {ours: weights[name] for name, ours in _from_pytorch_leaves(names).items()}
    for name, short in names.items():
        if short.endswith(BATCH_COUNTER):
            continue
        try:
            ported[from_pytorch_name(short)] = weights[name]
        except KeyError:
            ported[short] = weights[name]
    return ported


def from_mindcv(weights) -> dict:
    """Turn {mindcv's name: array} of a GhostNet V1 into {our name: array}; unknown names stay as they are."""
    ported = {}
    for name, value in weights.items():
        module, _, leaf = name.rpartition(".")
        module = FROM_MINDCV_MODULES.get(module, module)
        try:
            ported[from_pytorch_name(f"{module}.{BATCH_NORM_NAMES.get(leaf, leaf)}")] = value
        except KeyError:
            ported[name] = value
    return ported


def to_mindcv_name(name: str) -> str:
    """Give mindcv's name for our parameter `name` of a GhostNet V1; one that is none of GhostNet's raises KeyError."""
    module = to_pytorch_name(name).rpartition(".")[0]
    return f"{MINDCV_MODULES.get(module, module)}.{name.rpartition('.')[2]}"


def _from_pytorch_leaves(names) -> dict:
    """Give {name: our name} of a network in which only batch normalisation's own names differ."""
    normalised = {short.rpartition(".")[0] for short in names.values() if short.endswith(".running_mean")}
    renamed = {}
    for name, short in names.items():
        module, _, leaf = short.rpartition(".")
        if leaf != BATCH_COUNTER:
            renamed[name] = f"{module}.{PYTORCH_BATCH_NORM_NAMES.get(leaf, leaf) if module in normalised else leaf}"
    return renamed


def to_pytorch_names(names) -> dict:
    """Give {our name: PyTorch's} of all parameters of a network; one that is none of GhostNet's raises KeyError."""
    if MOBILENET_MARK not in names:
        return {name: to_pytorch_name(name) for name in names}
    pairs = {name: name.rpartition(".") for name in names}
    return {name: f"{module}.{BATCH_NORM_NAMES.get(leaf, leaf)}" for name, (module, _, leaf) in pairs.items()}


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
