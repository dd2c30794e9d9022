"""Where in a network a parameter lies, told by its name: in the stem, a stage, or the head; and in which layer.

Layers are those of timm's `group_matcher`: the stem, each block, and all that stands behind the last block but the
convolution in front of the classifier, which belongs to that block, in MobileNetV3 to the head.
"""

import re
from math import log2

from src.architecture import BLOCKS, STEM_STRIDE
from src.mobilenetv2 import STAGES as MOBILENETV2_STAGES
from src.mobilenetv3 import LAST_WEIGHT

BACKBONE = "backbone."  # prefix of the parameters of a backbone, in networks that have one
CLASSIFIER = "classifier."
STEM = re.compile(r"(conv_stem|bn1)\.")
BLOCK = re.compile(r"blocks\.(\d+)\.(?:(\d+)\.)?")  # MobileNets have a second number
LAST_CONVOLUTION = re.compile(r"(conv_head|bn2)\.")
STAGE_COUNT = 5  # at strides 2, 4, 8, 16 and 32


def list_strides(first, reductions) -> list:
    """Give the stride of each block's output, before dilation."""
    strides = []
    for reduction in reductions:
        first *= reduction
        strides.append(first)
    return strides


GHOSTNET_STRIDES = list_strides(STEM_STRIDE, [row[-1] for row in BLOCKS] + [1])  # and of the convolution behind them
MOBILENET_STRIDES = list_strides(STEM_STRIDE, [row[-1] for row in MOBILENETV2_STAGES])  # MobileNetV3 has the same


def stage_of(name):
    """Find the stage, from 1 for stride 2 on, that a backbone's parameter belongs to; 0 for the stem, None for none."""
    name = name.removeprefix(BACKBONE)
    if STEM.match(name):
        return 0
    block = BLOCK.match(name)
    if not block:
        return None
    strides = GHOSTNET_STRIDES if block[2] is None else MOBILENET_STRIDES
    return round(log2(strides[int(block[1])]))


def choose_backbone(names) -> set:
    """Choose, of all names of a network, those of its backbone: of a classifier, all but those of its last layer."""
    backbone = {name for name in names if name.startswith(BACKBONE)}
    return backbone or {name for name in names if not name.startswith(CLASSIFIER)}


def number_layers(names) -> dict:
    """Give {name: number of its layer}, from 0 for the stem on; all heads have the last one."""
    backbone = choose_backbone(names)  # a detector's head has blocks as well
    places = {name: _place(name.removeprefix(BACKBONE)) if name in backbone else "head" for name in names}
    blocks = {place for place in places.values() if isinstance(place, tuple)}
    order = {"stem": 0, **{place: number for number, place in enumerate(sorted(blocks), 1)}}
    order["head"] = len(blocks) + 1
    order["last convolution"] = order["head"] if LAST_WEIGHT in backbone else len(blocks)
    return {name: order[place] for name, place in places.items()}


def _place(name):
    if STEM.match(name):
        return "stem"
    block = BLOCK.match(name)
    if block:
        return int(block[1]), int(block[2] or 0)
    return "last convolution" if LAST_CONVOLUTION.match(name) else "head"
