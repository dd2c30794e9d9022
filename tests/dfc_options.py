"""Options of DFC attention, and sizes of images, that the files of every format are tested with."""

import itertools
from typing import get_args, get_type_hints

from src.architecture import DFCOptions

SIZES = [(33, 33), (34, 65), (111, 95), (224, 224), (250, 199), (448, 448)]  # height, width


def choices(name):
    """What an option may be, its `dfc_` left out."""
    return get_args(get_type_hints(DFCOptions)[f"dfc_{name}"])


def combinations(up_sampling, down_sampling):
    """Yield (size, options) for every gate, place of it and target, at even and odd sizes in turn."""
    sizes = itertools.cycle(((64, 96), (47, 66)))
    others = itertools.product(*map(choices, ("gate", "gate_position", "target")))
    for size, (gate, position, target) in zip(sizes, others):
        yield (
            size,
            {
                "dfc_blocks": (2, 3, 6, 11, 12),
                "dfc_up_sampling": up_sampling,
                "dfc_down_sampling": down_sampling,
                "dfc_gate": gate,
                "dfc_gate_position": position,
                "dfc_target": target,
            },
        )
